"""A run held against its own records: what was published is what is there.

The record of each job (`results/<run>/work/<rule>/<job>.json`) holds the digests of its files, and
each line of a journal its own. No model is needed for it, and no GPU.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from lib.errors import UserError
from lib.files import digest_of_file
from lib.head.summary import read_records
from lib.jobs.journal import read_lines
from lib.jobs.kept import MARKER, is_sealed
from lib.jobs.record import Record

#: What is looked at in other ways, or not published.
NOT_PUBLISHED = ("work", "logs", "images")
#: Snakemake's own file in a published folder.
TIMESTAMP = ".snakemake_timestamp"
THREADS = 8


@dataclass(frozen=True)
class Difference:
    """A file that is not what its record says, how, and what is to be deleted so that the next run
    makes it anew (all paths from the run's folder on).
    """

    file: str
    what: str
    delete: tuple[str, ...] = ()


@dataclass
class Verification:
    """What was found."""

    jobs: int = 0
    files: int = 0
    images: int = 0
    lines: int = 0
    differences: list[Difference] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)


def verify_run(root: Path) -> Verification:
    """Holds all files of a run against its records. Errors: UserError where it has none."""
    records = read_records(root)
    if not any(record.files for record in records):
        raise UserError(
            f"{root}: no job's record under {root / 'work'} holds the digests of its files. Name a"
            " run's folder, e.g. results/demo; if it was made by an older version, run it again"
            " first (nothing is computed twice)."
        )
    found = Verification(jobs=len(records))
    newest = {
        name: record
        for record in sorted(records, key=lambda record: record.finished)
        for name in record.files
    }
    _look_at_files(root, newest, found)
    _look_at_folders(root, newest, found)
    _look_at_files_beside(root, records, found)
    _look_at_kept_folders(root, records, found)
    _look_at_journals(root, records, found)
    found.unrecorded = sorted(set(_published(root)) - set(newest))
    found.differences.sort(key=lambda difference: difference.file)
    return found


def _look_at_files(root: Path, newest: Mapping[str, Record], found: Verification) -> None:
    expected = {name: record.files[name] for name, record in newest.items()}
    found.files = len(expected)
    for name, what in _problems(root, expected):
        found.differences.append(Difference(name, what, _to_delete(name, newest[name])))


def _problems(root: Path, expected: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The files that are not what they should be, and what is wrong. `expected`: sha256 by name."""
    with ThreadPoolExecutor(THREADS) as threads:
        digests = threads.map(_digest_or_problem, [root / name for name in expected])
        for (name, sha256), found in zip(expected.items(), digests, strict=True):
            if found != sha256:
                what = found if " " in found else "has other contents than when it was made"
                yield name, what


def _digest_or_problem(path: Path) -> str:
    try:
        return digest_of_file(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _to_delete(name: str, record: Record) -> tuple[str, ...]:
    """The published folder that a file is in, or the file itself."""
    return tuple(folder for folder in record.folders if name.startswith(f"{folder}/")) or (name,)


def _look_at_folders(root: Path, newest: Mapping[str, Record], found: Verification) -> None:
    """What lies in a published folder and was not put there by its job is read with the rest."""
    for folder in {folder for record in newest.values() for folder in record.folders}:
        there = {path.relative_to(root).as_posix() for path in _walk(root / folder)}
        found.differences += [
            Difference(name, "was not put there by the run", (folder,))
            for name in there - newest.keys()
        ]


def _look_at_files_beside(root: Path, records: Iterable[Record], found: Verification) -> None:
    """The image files; they are made anew with the shard file that names them."""
    shards = {name: tuple(record.files) for record in records for name in record.beside}
    expected = {name: sha256 for record in records for name, sha256 in record.beside.items()}
    found.images = len(expected)
    for name, what in _problems(root, expected):
        found.differences.append(Difference(name, what, shards[name]))


def _look_at_kept_folders(root: Path, records: Iterable[Record], found: Verification) -> None:
    """The finished results that are kept under work/, where they have a marker with digests."""
    for record in records:
        folder = root / "work" / record.rule / record.job
        for marker in sorted(folder.glob(f"*/{MARKER}")) + sorted(folder.glob(f"*/*/{MARKER}")):
            if "checkpoints" not in marker.parts and not is_sealed(marker.parent):
                found.differences.append(
                    Difference(
                        marker.parent.relative_to(root).as_posix(),
                        "is damaged; nothing published is made of it any more",
                        (marker.parent.relative_to(root).as_posix(),),
                    )
                )


def _look_at_journals(root: Path, records: Iterable[Record], found: Verification) -> None:
    files = {(record.rule, record.job): tuple(record.files) for record in records}
    for path in _walk(root / "work"):
        if path.name.endswith((".journal.jsonl", ".judge.jsonl")):
            rule, *job = path.relative_to(root / "work").parts
            name = "/".join([*job[:-1], job[-1].rsplit(".", 2)[0]])
            for line in read_lines(path.read_bytes()):
                found.lines += 1
                if line.entry == {}:
                    found.differences.append(
                        Difference(
                            f"{path.relative_to(root).as_posix()}, line {line.number}",
                            "is damaged or was edited; its item is computed again by its job",
                            files.get((rule, name), ()),
                        )
                    )


def _published(root: Path) -> Iterator[str]:
    for path in _walk(root):
        name = path.relative_to(root)
        if name.parts[0] not in NOT_PUBLISHED or _is_shard_of_images(name):
            yield name.as_posix()


def _is_shard_of_images(name: Path) -> bool:
    return name.parts[0] == "images" and name.suffix == ".jsonl"


def _walk(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, followlinks=True):
        yield from (Path(parent, name) for name in names if name != TIMESTAMP)


def tell(root: Path, found: Verification) -> list[str]:
    """What people are told, line by line; at the end, what to type."""
    lines = [f"{root / each.file}: {each.what}" for each in found.differences]
    if found.unrecorded:
        names = ", ".join(str(root / name) for name in found.unrecorded[:5])
        more = f" and {len(found.unrecorded) - 5} more" if len(found.unrecorded) > 5 else ""
        lines.append(
            f"note: no job's record tells of {names}{more}: put there by hand, or made by an older"
            " version. What is deleted and is the run's own is made again by the next run."
        )
    if found.differences:
        delete = dict.fromkeys(name for each in found.differences for name in each.delete)
        there = [quote(str(root / name)) for name in delete if (root / name).exists()]
        if there:
            lines.append(f"To mend it: rm -r {' '.join(there)}")
        lines.append(
            f"{'Then' if there else 'To mend it:'} start the run again with its command; what is"
            " finished is reused."
        )
    checked = (
        f"{found.files} published files, {found.images} image files and {found.lines} lines of"
        f" journals of {found.jobs} jobs"
    )
    wrong = len(found.differences)
    lines.append(f"{checked}: {f'{wrong} differ' if wrong else 'all are as recorded'}.")
    return lines
