"""What changed in a data set from one time that it was made to the next.

The digests of its pairs are kept under work/, since the data set itself is deleted before it is
made anew.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from lib.data.stored_mapping import StoredMapping, fill, found_in, temporary_database
from lib.errors import UserError
from lib.files import json_line, read_json_lines, write_text

#: So many prompt ids are named in a line of the changelog.
NAMED = 20
#: Kinds of changes in a build -> their words in the changelog.
KINDS = {
    "added": "Added",
    "gone": "Gone",
    "changed": "With another picture, instruction or answer",
}
#: The last row of a file of builds that is whole.
END = {"end": True}

Row = Mapping[str, Any]


def pair_digest(text: str) -> str:
    """What a pair is known by. `text`: its canonical JSON."""
    return sha256(text.encode()).hexdigest()[:16]


class Builds:
    """The times that a data set was made with other pairs than before, and the prompt ids of those
    that were added, that are gone, and that have another picture, instruction or answer.

    sizes  how many pairs each build has, the first one first
    pairs  the digests of the last one's pairs by prompt id
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.pairs: StoredMapping[str, str] = StoredMapping()
        self._names = temporary_database(
            "CREATE TABLE names (build, kind, id, PRIMARY KEY (build, kind, id)) WITHOUT ROWID"
        )

    def add(self, pairs: StoredMapping[str, str]) -> None:
        """Adds the build of `pairs` (their digests by prompt id), if anything changed."""
        build = len(self.sizes)
        self._add_names((build, kind, name) for kind, name in _changes(self.pairs, pairs))
        if any(self._number_of(build, kind) for kind in KINDS):
            self.sizes.append(len(pairs))
            self.pairs = pairs

    def read(self, rows: Iterable[Row]) -> None:
        """Takes what `rows` gave. Errors: ValueError if it is not whole."""
        self._add_names(self._changes_in(rows))

    def rows(self) -> Iterator[Row]:
        """A row for each build, after it one for each change in it; then one for each pair of the
        last one.
        """
        for build, size in enumerate(self.sizes):
            yield {"pairs": size}
            for kind in KINDS:
                yield from ({"kind": kind, "id": name} for name in self._names_of(build, kind))
        yield from ({"id": name, "digest": digest} for name, digest in self.pairs.items())
        yield END

    def write(self, path: Path) -> None:
        """Writes all builds into a file of JSON lines."""
        write_text(path, (json_line(row).decode() for row in self.rows()))

    def changelog(self) -> str:
        """The changelog in Markdown, the last build first."""
        sections = [self._section(build) for build in range(len(self.sizes))]
        return "\n".join(["# Changes of this data set", *reversed(sections)])

    def _section(self, build: int) -> str:
        lines = [f"\n## Build {build + 1}: {self.sizes[build]} pairs\n"]
        if build == 0:
            return "\n".join([*lines, "The first.\n"])
        for kind, what in KINDS.items():
            if number := self._number_of(build, kind):
                more = f" and {number - NAMED} more" if number > NAMED else ""
                names = ", ".join(self._names_of(build, kind, NAMED))
                lines.append(f"- {what}: {number} ({names}{more})")
        return "\n".join([*lines, ""])

    def _changes_in(self, rows: Iterable[Row]) -> Iterator[tuple[int, str, str]]:
        row: Row = {}
        for row in rows:
            match row:
                case {"pairs": size}:
                    self.sizes.append(size)
                case {"kind": kind, "id": name}:
                    yield len(self.sizes) - 1, kind, name
                case {"id": name, "digest": digest}:
                    self.pairs[name] = digest
        if row != END:
            raise ValueError("it does not end as it should")

    def _add_names(self, rows: Iterable[tuple[int, str, str]]) -> None:
        fill(self._names, "REPLACE INTO names VALUES (?, ?, ?)", rows)

    def _number_of(self, build: int, kind: str) -> int:
        sql = "SELECT count(*) FROM names WHERE build = ? AND kind = ?"
        return int(self._names.execute(sql, (build, kind)).fetchone()[0])

    def _names_of(self, build: int, kind: str, most: int = -1) -> Iterator[str]:
        sql = "SELECT id FROM names WHERE build = ? AND kind = ? ORDER BY id LIMIT ?"
        return (name for (name,) in found_in(self._names, sql, build, kind, most))


def _changes(
    before: StoredMapping[str, str], now: StoredMapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The prompt ids of pairs that are not what they were, each after its kind of change."""
    gone = ((name, "gone", digest) for name, digest in before.items())
    added = ((name, "added", digest) for name, digest in now.items())
    for name, found in groupby(merge(gone, added), key=itemgetter(0)):
        (_, kind, digest), *others = found
        if not others:
            yield kind, name
        elif others[0][2] != digest:
            yield "changed", name


def read_builds(path: Path) -> Builds:
    """The builds in a file, or in that of an older version beside it; none where there is neither,
    or it is damaged.
    """
    old = path.with_suffix(".json")
    builds = Builds()
    try:
        if old.exists() and not path.exists():
            builds.read(_rows_of_old(json.loads(old.read_text(encoding="utf-8"))))
        else:
            builds.read(row for _, row in read_json_lines(path))
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return Builds()
    return builds


def _rows_of_old(document: Any) -> Iterator[Row]:
    """What an older version wrote as one document, as `Builds.rows` has it."""
    for build in document["builds"]:
        yield {"pairs": build["pairs"]}
        yield from ({"kind": kind, "id": name} for kind in KINDS for name in build[kind])
    yield from ({"id": name, "digest": digest} for name, digest in document["pairs"].items())
    yield END
