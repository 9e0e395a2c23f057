"""Rule embed_texts: vectors of each prompt, its instruction and its valid responses, for the
similarities of the paper's Figure 6.

An item is a prompt: its texts are one batch. The model is small and runs on the CPU wherever the
run is.
"""

from collections.abc import Sequence
from typing import Any

from lib import weights
from lib.data.shards import Row, is_missing, read_shard, stage_rows
from lib.errors import ItemError
from lib.jobs.batches import Item
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.text_embedding import FILES, TextEmbedder
from lib.vectors import pack

VERSION = 1


def texts_of(row: Row) -> dict[str, str]:
    """The texts of a row of response ranking: "prompt", "instruction", and "responses/<policy>" of
    each valid response.
    """
    texts = {"prompt": row["prompt"], "instruction": row["instruction"]}
    valid = {
        policy: response
        for policy, response in row["responses"].items()
        if "invalid" not in response
    }
    return texts | {f"responses/{policy}": valid[policy]["text"] for policy in sorted(valid)}


def main(snakemake: Any) -> None:
    import numpy as np

    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    identity = weights.identity(settings["model"], settings["revision"])
    job.record.models[settings["model"]] = identity
    rows = read_shard(snakemake.input[0])

    def item(row: Row) -> Item:
        texts = texts_of(row)
        key = job.key(
            texts=texts, model=identity, dtype=settings["dtype"], max_length=settings["max_length"]
        )
        return Item(row["id"], key, texts)

    def load() -> TextEmbedder:
        folder = weights.fetch(settings["model"], settings["revision"], only=FILES)
        return TextEmbedder(folder, settings["dtype"], settings["max_length"])

    def embed(embedder: TextEmbedder, batch: Sequence[Item]) -> list[dict[str, Any] | ItemError]:
        results: list[dict[str, Any] | ItemError] = []
        for item in batch:
            vectors = embedder.embed(list(item.inputs.values()))
            if np.isfinite(vectors).all():
                results.append(
                    {"embeddings": dict(zip(item.inputs, map(pack, vectors), strict=True))}
                )
            else:
                results.append(ItemError("a vector holds values that are no numbers"))
        return results

    outcomes = job.run([item(row) for row in rows.values() if not is_missing(row)], load, embed)
    job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
