"""What a task of lmms-eval does, read from its code: whether it can ask a judge, and under which
names it looks for a service's key. Nothing of lmms-eval is imported or run.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: The packages of lmms-eval that ask a judge for a task; a judge that is configured is put there.
JUDGES = re.compile(r"lmms_eval\.(?:llm_judge|verifiers)\b")
_KEY = re.compile(r"""["']([A-Z][A-Z0-9_]*_API_KEY)["']""")
_FUNCTION = re.compile(r"!function\s+[\"']?([\w.]+)\.\w+")
_INCLUDE = re.compile(r"^include:\s*(.+)$|^-\s*(\S+\.yaml|_\S+)\s*$", re.MULTILINE)
_IMPORT = re.compile(
    r"^\s*(?:from\s+([\w.]+)\s+import\s+([\w ,]+)|import\s+([\w.]+))", re.MULTILINE
)


@cache
def code_of(task: Path) -> str:
    """The code that a task's file names, with what that imports of the tasks' own modules."""
    seen: dict[Path, str] = {}
    waiting = [module for file in _files_of(task) for module in _modules_named(file)]
    while waiting:
        path = waiting.pop()
        if path not in seen and path.is_file():
            seen[path] = path.read_text(encoding="utf-8", errors="replace")
            waiting += _modules_imported(path, seen[path])
    return "\n".join(seen.values())


def asks_a_judge(task: Path) -> bool:
    """Whether the code of a task can have lmms-eval ask a judge."""
    return bool(JUDGES.search(code_of(task)))


def key_names(task: Path) -> list[str]:
    """The environment variables in which the code of a task looks for a service's key."""
    return sorted(set(_KEY.findall(code_of(task))))


def _files_of(task: Path) -> Iterator[Path]:
    """A task's file and those that it includes."""
    yield task
    for names in _INCLUDE.findall(task.read_text(encoding="utf-8")):
        included = task.parent / "".join(names).strip().strip("\"'")
        if included.is_file() and included != task:
            yield from _files_of(included)


def _modules_named(file: Path) -> list[Path]:
    """The modules whose functions a task's file names: beside it, or lmms-eval's by full name."""
    names = set(_FUNCTION.findall(file.read_text(encoding="utf-8")))
    return [path for name in names for path in _candidates(name, file.parent)]


def _modules_imported(path: Path, text: str) -> list[Path]:
    """The modules of tasks that a module imports."""
    names = []
    for origin, parts, plain in _IMPORT.findall(text):
        names += [origin, *(f"{origin}.{part.strip()}" for part in parts.split(","))]
        names += [plain]
    return [place for name in names for place in _candidates(name, path.parent)]


def _candidates(name: str, folder: Path) -> list[Path]:
    """Where a module may be: beside the one that names it, above it where dots say so, or among
    lmms-eval's tasks.
    """
    if name.startswith("lmms_eval.tasks."):
        root = next((each for each in (folder, *folder.parents) if each.name == "tasks"), folder)
        name = name.removeprefix("lmms_eval.tasks.")
    else:
        above = len(name) - len(name.lstrip("."))
        root = folder.parents[above - 2] if above > 1 else folder
    place = root / name.strip(".").replace(".", "/")
    return [place.with_suffix(".py"), place / "__init__.py"] if name.strip(".") else []
