"""The record of what one job did."""

import os
from collections.abc import MutableMapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

import orjson


@dataclass
class Record:
    """What one job did; written to `results/<run>/work/<rule>/<job>.json` and shown as a table at
    the end of a run.

    asked       a digest of what the rule asked of it (`job.digest_of_params`)
    taken_over  how many of the reused items other journals held, by the folder of their run
    versions    of the libraries that its results were computed under, as far as journals say so;
                several of one library where they are of several sessions
    files       what it published, from the run's folder on, with the sha256 (hex)
    folders     the folders that are published as a whole
    beside      files that these tell of (image files), with the sha256, too
    """

    rule: str
    job: str
    started: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    finished: str = ""
    items: int = 0
    computed: int = 0
    reused: int = 0
    failed: int = 0
    load_seconds: float = 0.0
    compute_seconds: float = 0.0
    wall_seconds: float = 0.0
    models: dict[str, str] = field(default_factory=dict)
    versions: dict[str, list[str]] | None = None
    notes: list[str] = field(default_factory=list)
    asked: str = ""
    taken_over: dict[str, int] = field(default_factory=dict)
    files: MutableMapping[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)

    def lacks_files(self, root: Path) -> bool:
        """Whether a file is gone that is no output of its own: one `beside`, or in one of the
        `folders`. Lists folders instead of asking for each file, which takes long where there are
        many. `root`: the run's folder.
        """
        folders = tuple(f"{folder}/" for folder in self.folders)
        inside = (file for file in self.files if file.startswith(folders))
        names: dict[Path, set[str]] = {}
        for file in map(Path, (*self.beside, *inside)):
            names.setdefault(root / file.parent, set()).add(file.name)
        return not all(
            folder.is_dir() and wanted <= {entry.name for entry in os.scandir(folder)}
            for folder, wanted in names.items()
        )


def read_record(path: Path) -> Record | None:
    """The record in a file under `work/`; None where the file holds none, or is gone."""
    try:
        values = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    needed = {"rule", "job", "computed", "finished"}
    if not isinstance(values, dict) or not needed <= values.keys():
        return None
    blank = Record("", "", versions={})
    known = {
        each.name: values[each.name]
        for each in fields(Record)
        if _is_like(values.get(each.name), getattr(blank, each.name))
    }
    return Record(**known) if needed <= known.keys() else None


def _is_like(value: object, other: object) -> bool:
    """Whether two values are of a type; a whole number is a number."""
    return type(value) is type(other) or (isinstance(other, float) and isinstance(value, int))
