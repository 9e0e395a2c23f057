"""What changed in a data set from one time that it was made to the next.

The digests of its pairs are kept under work/, since the data set itself is deleted before it is
made anew.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from lib.data.stored_mapping import StoredMapping, fill, found_in, temporary_database
from lib.files import write_json

#: So many prompt ids are named in a line of the changelog.
NAMED = 20
#: Kinds of changes in a build -> their words in the changelog.
KINDS = {
    "added": "Added",
    "gone": "Gone",
    "changed": "With another picture, instruction or answer",
}
#: A line of a file of builds that says something: a prompt id, or a key and what follows it.
LINE = re.compile(r' +"([^"]+)"(?:: (.+?))?,?\n')


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

    def read(self, lines: Iterable[str]) -> None:
        """Takes what `write` wrote. Errors: ValueError if it is not whole."""
        self._add_names(self._names_in(lines))

    def write(self, path: Path) -> None:
        """Writes all builds into a file."""
        builds = (
            {kind: self._names_of(build, kind) for kind in KINDS} | {"pairs": size}
            for build, size in enumerate(self.sizes)
        )
        write_json(path, {"builds": builds, "pairs": self.pairs})

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

    def _names_in(self, lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
        kind = line = ""
        for line in lines:
            name, value = entry.groups() if (entry := LINE.fullmatch(line)) else ("", "")
            if value is None:
                yield len(self.sizes), kind, name
            elif value.startswith("["):
                kind = name
            elif value.startswith('"'):
                self.pairs[name] = value.strip('"')
            elif value.isdigit():
                self.sizes.append(int(value))
        if line != "}\n":
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
    """The builds in a file; none where it is not there, or is damaged."""
    builds = Builds()
    try:
        with open(path, encoding="utf-8") as stream:
            builds.read(stream)
    except (OSError, ValueError):
        return Builds()
    return builds
