"""What changed in a data set from one time that it was made to the next.

The digests of its pairs are kept under work/, since the data set itself is deleted before it is
made anew.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

#: So many prompt ids are named in a line of the changelog.
NAMED = 20


class Build(TypedDict):
    """A time that a data set was made with other pairs than before: how many there are, and the
    prompt ids of those that were added, that are gone, and that have another picture, instruction
    or answer.
    """

    pairs: int
    added: list[str]
    gone: list[str]
    changed: list[str]


class Builds(TypedDict):
    """All builds, the first one first, and the digests of the last one's pairs by prompt id."""

    builds: list[Build]
    pairs: dict[str, str]


def pair_digest(text: str) -> str:
    """What a pair is known by. `text`: its canonical JSON."""
    return sha256(text.encode()).hexdigest()[:16]


def read_builds(path: Path) -> Builds:
    """The builds in a file; none where it is not there, or is damaged."""
    try:
        builds: Builds = json.loads(path.read_text(encoding="utf-8"))
        return {"builds": list(builds["builds"]), "pairs": dict(builds["pairs"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {"builds": [], "pairs": {}}


def add_build(before: Builds, pairs: Mapping[str, str]) -> Builds:
    """The builds with that of `pairs` (their digests by prompt id); as they are where nothing
    changed.
    """
    known = before["pairs"]
    if pairs == known:
        return before
    build: Build = {
        "pairs": len(pairs),
        "added": sorted(pairs.keys() - known.keys()),
        "gone": sorted(known.keys() - pairs.keys()),
        "changed": sorted(name for name in pairs.keys() & known if pairs[name] != known[name]),
    }
    return {"builds": [*before["builds"], build], "pairs": dict(pairs)}


def changelog(builds: Builds) -> str:
    """The changelog in Markdown, the last build first."""
    sections = [_section(number, build) for number, build in enumerate(builds["builds"], start=1)]
    return "\n".join(["# Changes of this data set", *reversed(sections)])


def _section(number: int, build: Build) -> str:
    lines = [f"\n## Build {number}: {build['pairs']} pairs\n"]
    if number == 1:
        return "\n".join([*lines, "The first.\n"])
    told = {
        "Added": build["added"],
        "Gone": build["gone"],
        "With another picture, instruction or answer": build["changed"],
    }
    lines += [f"- {what}: {_names(names)}" for what, names in told.items() if names]
    return "\n".join([*lines, ""])


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} ({', '.join(names[:NAMED])}{more})"
