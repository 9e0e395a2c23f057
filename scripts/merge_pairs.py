"""Rule merge_pairs: the pairs of all shards as one data set of a given size, in the two formats
that others train on.

`llava.json` is the format of the published data (image paths relative to the run's folder);
`data/*.parquet` is what `datasets.load_dataset` reads, images included. `dataset.json`, written
last, says what is in them.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lib.data.image_files import check_image
from lib.data.shards import Row, read_shard
from lib.errors import UserError
from lib.files import digest, mendable_storage_errors, replacing, write_json, write_text
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script

VERSION = 1
ROWS_PER_FILE = 1000
ROWS_PER_GROUP = 100


def ordered_pairs(rows: Iterable[Row]) -> list[Row]:
    """The rows that have a pair, so ordered that every prefix is stratified by topic.

    Within a topic the order is that of the prompt ids, which are hashes; between topics each row
    stands at its fraction of its topic. A larger prefix contains the smaller one.
    """
    by_topic: dict[str, list[Row]] = {}
    for row in sorted((row for row in rows if "pair" in row), key=lambda row: row["id"]):
        by_topic.setdefault(row["topic"], []).append(row)
    placed = [
        ((rank + 0.5) / len(members), row["id"], row)
        for members in by_topic.values()
        for rank, row in enumerate(members)
    ]
    return [row for _, _, row in sorted(placed, key=lambda place: place[:2])]


def llava_record(row: Row) -> dict[str, Any]:
    """One pair in the published format: `id`, `image`, `conversations` and `rejected_conversations`
    of [human, gpt].
    """
    asked = {"from": "human", "value": f"<image> {row['instruction']}"}
    return {
        "id": row["id"],
        "image": row["image"]["file"],
        "conversations": [asked, {"from": "gpt", "value": row["pair"]["chosen"]["text"]}],
        "rejected_conversations": [
            asked,
            {"from": "gpt", "value": row["pair"]["rejected"]["text"]},
        ],
    }


def write_parquet(rows: Sequence[Row], root: Path, folder: Path) -> None:
    """Writes the rows with their images as parquet files that `datasets.load_dataset` finds by
    name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features, Image, List, Value

    features = Features(
        {
            name: Value("string")
            for name in (
                "id",
                "topic",
                "prompt",
                "instruction",
                "chosen",
                "rejected",
                "chosen_policy",
                "rejected_policy",
            )
        }
        | {name: Value("float64") for name in ("chosen_score", "rejected_score")}
        | {"images": List(Image())}
    )
    schema = features.arrow_schema
    files = max(1, -(-len(rows) // ROWS_PER_FILE))
    for number in range(files):
        part = rows[number * ROWS_PER_FILE : (number + 1) * ROWS_PER_FILE]
        with pq.ParquetWriter(
            folder / f"train-{number:05d}-of-{files:05d}.parquet", schema
        ) as writer:
            for start in range(0, len(part), ROWS_PER_GROUP):
                group = [_parquet_row(row, root) for row in part[start : start + ROWS_PER_GROUP]]
                writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _parquet_row(row: Row, root: Path) -> dict[str, Any]:
    file = root / row["image"]["file"]
    check_image(
        file, row["image"]["sha256"], root / Path(row["image"]["file"]).parent.with_suffix(".jsonl")
    )
    flat = {name: row[name] for name in ("id", "topic", "prompt", "instruction")}
    for side in ("chosen", "rejected"):
        answer = row["pair"][side]
        flat |= {
            side: answer["text"],
            f"{side}_policy": answer["policy"],
            f"{side}_score": answer["score"],
        }
    return {**flat, "images": [{"bytes": file.read_bytes(), "path": file.name}]}


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    size = int(snakemake.wildcards.size)
    pairs = ordered_pairs(row for path in snakemake.input for row in read_shard(path).values())
    if len(pairs) < size:
        raise UserError(
            f"pairs.sizes: {size} is larger than the {len(pairs)} pairs there are. Lower it, or add"
            f" prompts; {job.root}/tables/reasons.md (target `reasons_table`) says why prompts gave"
            " no pair."
        )
    rows = pairs[:size]
    summary = Path(snakemake.output.summary)
    data = Path(snakemake.output.data)
    with mendable_storage_errors(summary.parent):
        shutil.rmtree(data, ignore_errors=True)
        unfinished = job.work / f"{job.name}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_parquet(rows, job.root, unfinished)
        data.parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(data)
    with replacing(Path(snakemake.output.llava)) as temporary:
        records = [llava_record(row) for row in rows]
        temporary.write_text(
            json.dumps(records, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
    write_text(Path(snakemake.output.ids), "".join(f"{row['id']}\n" for row in rows))
    content = [[row["id"], row["image"]["sha256"], row["instruction"], row["pair"]] for row in rows]
    topics = Counter(row["topic"] for row in rows)
    write_json(
        summary,
        {"size": size, "pairs_there_are": len(pairs), "topics": topics, "digest": digest(content)},
    )
    job.record.items = job.record.computed = size
    job.write_record()


if __name__ == "__main__":
    run_script(main)
