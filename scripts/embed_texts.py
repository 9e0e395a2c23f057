"""Rule embed_texts: vectors of each prompt, its instruction and its valid responses, for the
similarities of the paper's Figure 6.

An item is a prompt: its texts are one batch. The model is small and runs on the CPU wherever the
run is.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

from lib import weights
from lib.blocks import deciding
from lib.config.figures import EmbedTextsJob, TextEmbedding
from lib.data.rows import ResponseRankingRow
from lib.data.shards import present, read_shard, stage_rows
from lib.errors import ItemError
from lib.jobs.batches import Batches, Item
from lib.jobs.job import Job
from lib.jobs.script import run_script
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


def item_of(row: ResponseRankingRow, job: Job[EmbedTextsJob], identity: str) -> Item[Texts]:
    """The item of a prompt."""
    texts = texts_of(row)
    key = job.key(texts=texts, model=identity, **deciding(job.settings.embedding))
    return Item(row["id"], key, texts)


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
        identity = job.identify(settings)
        rows = read_shard(snakemake.input[0], ResponseRankingRow)
        outcomes = Batches(
            job,
            load=lambda: load_embedder(settings),
            compute=embed_batch,
        ).run([item_of(row, job, identity) for row in present(rows.values())])
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
