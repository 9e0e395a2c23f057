"""Rule merge_pairs: the pairs of all shards as one data set of a given size, in the two formats
that others train on.

`llava.json` is the format of the published data (image paths relative to the run's folder);
`data/*.parquet` is what `datasets.load_dataset` reads, images included. `dataset.json`, written
last, says what is in them.
"""

import json
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from lib.data.data_sets import PAIRS, llava_record, ordered_pairs, reason_of
from lib.data.image_files import check_image
from lib.data.rows import MissingRow, PairRow
from lib.data.shards import read_whole_shards
from lib.errors import UserError
from lib.files import (
    digest,
    make_folder,
    mendable_storage_errors,
    part_of,
    replacing,
    write_json,
    write_text,
)
from lib.jobs.job import Job, NoSettings
from lib.jobs.script import run_script

if TYPE_CHECKING:
    from datasets import Features

VERSION = 1
ROWS_PER_FILE = 1000
ROWS_PER_GROUP = 100


class ImageFile(TypedDict):
    """An image as `datasets` stores it."""

    bytes: bytes
    path: str


class ParquetRow(TypedDict):
    """A pair as `datasets` reads it."""

    id: str
    topic: str
    prompt: str
    instruction: str
    chosen: str
    rejected: str
    chosen_policy: str
    rejected_policy: str
    chosen_score: float
    rejected_score: float
    images: list[ImageFile]


def parquet_features() -> "Features":
    """The columns of the parquet files, as `datasets` names their types."""
    from datasets import Features, Image, List, Value

    columns = list(ParquetRow.__annotations__)
    types = {
        name: Value("float64" if name.endswith("_score") else "string") for name in columns[:-1]
    }
    return Features(types | {"images": List(Image())})


def write_parquet(rows: Sequence[PairRow], root: Path, folder: Path) -> None:
    """Writes the rows with their images as parquet files that `datasets.load_dataset` finds by
    name.
    """
    files = max(1, -(-len(rows) // ROWS_PER_FILE))
    for number in range(files):
        part = rows[number * ROWS_PER_FILE : (number + 1) * ROWS_PER_FILE]
        write_parquet_file(part, root, folder / f"train-{number:05d}-of-{files:05d}.parquet")


def write_parquet_file(rows: Sequence[PairRow], root: Path, file: Path) -> None:
    """Writes one parquet file; no more images than one group's are in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_features().arrow_schema
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(rows), ROWS_PER_GROUP):
            group = [parquet_row(row, root) for row in rows[start : start + ROWS_PER_GROUP]]
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def parquet_row(row: PairRow, root: Path) -> ParquetRow:
    """One pair with its image. Errors: UserError if the image is not the one that was published."""
    image = row["image"]
    file = root / image["file"]
    check_image(file, image["sha256"], root / Path(image["file"]).parent.with_suffix(".jsonl"))
    chosen, rejected = row["pair"]["chosen"], row["pair"]["rejected"]
    return {
        "id": row["id"],
        "topic": row["topic"],
        "prompt": row["prompt"],
        "instruction": row["instruction"],
        "chosen": chosen["text"],
        "rejected": rejected["text"],
        "chosen_policy": chosen["policy"],
        "rejected_policy": rejected["policy"],
        "chosen_score": chosen["score"],
        "rejected_score": rejected["score"],
        "images": [{"bytes": file.read_bytes(), "path": file.name}],
    }


def publish_parquet(rows: Sequence[PairRow], root: Path, folder: Path) -> None:
    """Writes the folder of parquet files, whole or not at all. `root`: the run's folder."""
    with mendable_storage_errors(folder.parent):
        shutil.rmtree(folder, ignore_errors=True)
        unfinished = part_of(folder)
        shutil.rmtree(unfinished, ignore_errors=True)
        make_folder(unfinished)
        write_parquet(rows, root, unfinished)
        unfinished.rename(folder)


def publish_llava(rows: Sequence[PairRow], path: Path) -> None:
    """Writes the pairs in the published format."""
    records = [llava_record(row) for row in rows]
    with replacing(path) as temporary:
        text = json.dumps(records, ensure_ascii=False, indent=1)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def publish_summary(rows: Sequence[PairRow], pairs: int, path: Path) -> None:
    """Writes what is in the data set; `pairs`: how many there are in all."""
    content = [[row["id"], row["image"]["sha256"], row["instruction"], row["pair"]] for row in rows]
    topics = Counter(row["topic"] for row in rows)
    write_json(
        path,
        {
            "size": len(rows),
            "pairs_there_are": pairs,
            "topics": topics,
            "digest": digest(content),
        },
    )


def number_of(size: str, pairs: Sequence[PairRow], rows: Collection[PairRow | MissingRow]) -> int:
    """How many pairs a data set of a size has. `rows`: of all prompts, for the reasons.

    Errors: UserError where there are fewer pairs.
    """
    number = len(pairs) if size == "all" else int(size)
    if len(pairs) >= number > 0:
        return number
    reasons = Counter(reason for row in rows if (reason := reason_of(row)) != PAIRS)
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    mend = (
        "Mend that, or write other prompts"
        if size == "all"
        else "Run the same command again: all that is finished is kept, and this size is left out"
        " with its experiments, the reason beside the dash in the tables. For a data set of this"
        " size write more prompts (target `prompts`); `pairs.sizes: [all]` takes as many pairs as"
        " there are"
    )
    raise UserError(
        f"pairs.sizes: {len(rows)} prompts gave {len(pairs)} pairs, too few for a data set of"
        f" size {size}. Without a pair: {told}. {mend}."
    )


def main(snakemake: Any) -> None:
    with Job(snakemake, NoSettings, VERSION) as job:
        output = snakemake.output
        of_prompts = read_whole_shards(job, snakemake.input.pairs, PairRow)
        pairs = ordered_pairs(of_prompts.values())
        size = number_of(snakemake.wildcards.size, pairs, of_prompts.values())
        rows = pairs[:size]
        publish_parquet(rows, job.root, Path(output.data))
        publish_llava(rows, Path(output.llava))
        write_text(Path(output.ids), "".join(f"{row['id']}\n" for row in rows))
        publish_summary(rows, len(pairs), Path(output.summary))
        job.count(size)


if __name__ == "__main__":
    run_script(main)
