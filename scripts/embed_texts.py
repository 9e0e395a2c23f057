"""Rule embed_texts: vectors of each prompt, its instruction and its valid responses, for the
similarities of the paper's Figure 6.

An item is a prompt: its texts are one batch. The model is small and runs on the CPU wherever the
run is.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

from lib import weights
from lib.blocks import deciding
from lib.config.figures import EmbedTextsJob, TextEmbedding
from lib.data.rows import ResponseRankingRow
from lib.data.shards import present, read_whole_shard, stage_rows
from lib.errors import ItemError
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.text_embedding import FILES, TextEmbedder
from lib.vectors import pack

VERSION = 1
Texts = dict[str, str]


class Embeddings(TypedDict):
    """The result of an item: packed vectors by the names of the texts."""

    embeddings: dict[str, str]


def texts_of(row: ResponseRankingRow) -> Texts:
    """The texts of a row of response ranking: "prompt", "instruction", and "responses/<policy>" of
    each valid response.
    """
    texts = {"prompt": row["prompt"], "instruction": row["instruction"]}
    for policy, response in sorted(row["responses"].items()):
        if "invalid" not in response:
            texts[f"responses/{policy}"] = response["text"]
    return texts


def items_of(rows: Iterable[ResponseRankingRow], job: Job[EmbedTextsJob]) -> list[Item[Texts]]:
    """The items of the prompts."""
    settings = job.settings.embedding
    embedder = {"model": job.identify(settings), **deciding(settings)}
    texts = {row["id"]: texts_of(row) for row in rows}
    return [Item(name, job.key(texts=each, **embedder), each) for name, each in texts.items()]


def load_embedder(settings: TextEmbedding) -> TextEmbedder:
    """The model of the settings."""
    folder = weights.fetch(settings.model, settings.revision, only=FILES)
    return TextEmbedder(folder, settings.dtype, settings.max_length)


def embed(embedder: TextEmbedder, texts: Texts) -> Embeddings | ItemError:
    """The vectors of a prompt's texts."""
    import numpy as np

    vectors = embedder.embed(list(texts.values()))
    if not np.isfinite(vectors).all():
        return ItemError("a vector holds values that are no numbers")
    return {"embeddings": dict(zip(texts, map(pack, vectors), strict=True))}


def embed_batch(
    embedder: TextEmbedder, batch: Sequence[Item[Texts]]
) -> list[Embeddings | ItemError]:
    """The vectors of several prompts, each computed by itself."""
    return [embed(embedder, item.inputs) for item in batch]


def main(snakemake: Any) -> None:
    with Job(snakemake, EmbedTextsJob, VERSION) as job:
        settings = job.settings.embedding
        rows = read_whole_shard(job, snakemake.input, ResponseRankingRow)
        outcomes = Batches(
            job,
            load=lambda: load_embedder(settings),
            compute=embed_batch,
        ).run(items_of(present(rows.values()), job))
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
