"""Rule data_set_card: what a data set says of itself. `README.md` for people and the hub,
`LICENSE.md`, `croissant.json` for machines, `SHA256SUMS` of every file.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.data.data_sets import Split
from lib.data.export_forms.base import Contents, name_in
from lib.data.rows import ListedOverlap, PairRow
from lib.data.shards import is_missing
from lib.data.stored_rows import StoredRows, whole_stored_rows
from lib.files import digest_of_file, read_jsonl, write_json, write_text
from lib.jobs.job import Job
from lib.jobs.record import read_record
from lib.jobs.script import run_script
from lib.report.croissant import croissant
from lib.report.data_set_card import (
    DataSetCardJob,
    Findings,
    Gathered,
    data_set_card,
    title_of,
    why_not,
)
from lib.report.licence import licence_of, licence_page
from lib.report.markdown_card import BIBTEX

VERSION = 1
SUMS = "SHA256SUMS"


def splits_in(folder: Path) -> dict[Split, int]:
    """How many pairs each split has that there are parquet files of."""
    from pyarrow.parquet import read_metadata

    splits: dict[Split, int] = {}
    for split in ("train", "validation"):
        files = sorted((folder / "data").glob(f"{split}-*.parquet"))
        if files:
            splits[split] = sum(read_metadata(file).num_rows for file in files)
    return splits


def gather(rows: StoredRows[PairRow], names: Iterable[str]) -> Gathered:
    """What the pairs of a data set tell of themselves."""
    gathered = Gathered()
    for name in names:
        row = rows[name]
        if not is_missing(row):
            gathered.add(row)
    return gathered


def findings_of(inputs: Any, rows: StoredRows[PairRow], names: Iterable[str]) -> Findings:
    """Why prompts gave no pair, and what the data set's have in common with benchmarks."""
    findings = why_not(rows.read())
    if not hasattr(inputs, "coverage"):
        return findings
    there = set(names)
    overlaps: list[Any] = [row for row in read_jsonl(Path(inputs.overlaps)) if row["id"] in there]
    told: list[ListedOverlap] = overlaps
    coverage = json.loads(Path(inputs.coverage).read_text(encoding="utf-8"))
    return replace(findings, coverage=coverage, overlaps=told)


def describe(job: DataSetCardJob, contents: Contents, folder: Path, licence: str) -> dict[str, Any]:
    """The description for machines."""
    from pyarrow.parquet import read_schema

    first = min((folder / "data").glob("*.parquet"))
    about = {
        "name": contents.name,
        "description": title_of(job, contents),
        "license": licence,
        "citeAs": BIBTEX,
    }
    sums = {
        split: digest_of_file(folder / name_in(split, "llava.json")) for split in contents.splits
    }
    return croissant(about, sums, read_schema(first))


def sums_of(folder: Path, known: dict[Path, str]) -> str:
    """A line for each file as `sha256sum` has it, but for that of the lines themselves. `known`:
    the digests of files that need not be read for it.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return "".join(
        f"{known.get(path) or digest_of_file(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    )


def digests_on_record(root: Path, size: str) -> dict[Path, str]:
    """The digests of a data set's files that its job put on record."""
    record = read_record(root / "work" / "merge_pairs" / f"{size}.json")
    told = {**record.files, **record.beside} if record else {}
    return {root / name: content for name, content in told.items()}


def main(snakemake: Any) -> None:
    with Job(snakemake, DataSetCardJob, VERSION) as job:
        inputs, size = snakemake.input, snakemake.wildcards.size
        folder = Path(inputs.summary).parent
        names = Path(inputs.ids).read_text(encoding="utf-8").split()
        rows = whole_stored_rows(job, inputs.pairs, PairRow)
        settings = job.settings
        contents = Contents(f"{job.root.name}-{size}", splits_in(folder))
        licence = licence_of(settings.models, settings.license)
        gathered, findings = gather(rows, names), findings_of(inputs, rows, names)
        output = snakemake.output
        card = data_set_card(settings, contents, gathered, findings, licence, job.root)
        write_text(Path(output.card), card)
        write_text(Path(output.licence), licence_page(licence, settings.models))
        write_json(Path(output.croissant), describe(settings, contents, folder, licence.address))
        known = digests_on_record(job.root, size)
        write_text(Path(output.sums), sums_of(folder, known))
        job.count(len(names))


if __name__ == "__main__":
    run_script(main)
