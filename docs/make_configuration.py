"""Writes docs/configuration.md from the models of the configuration; `make docs` runs it, and a
test keeps the page in step.

PYTHONPATH=scripts python docs/make_configuration.py
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lib.blocks import Block
from lib.config.run import Config
from lib.registry import chooser_in

DOCS = Path(__file__).resolve().parent
PLAIN = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Any": "any value",
}
INTRODUCTION = """\
# Configuration

<!-- Made by `make docs` from scripts/lib/config/ and the settings of the models' classes; edit the
descriptions there. -->

`config.yaml` is the paper's run, `demo/config.yaml` the laptop's. A configuration file stands for
itself: what it leaves out has the default given here, which is the paper's value (where the paper
is silent, the published code's). Choose another file with `--configfile FILE`; single keys can be
set on the command line, e.g. `--config run=mine` or `--config 'images={steps: 20}'`.

A mistake ends before anything runs, with the file, the line, the key and the mend: unknown keys,
wrong types, missing files and folders, models that are no models. Needs (time, memory, GPUs,
partitions) are not configured here but in `profiles/`.

Files are UTF-8, numbers plain digits. What YAML would read as another thing than it seems to say is
refused: `010` (8), `1:30` (90), a key that stands twice, `true` for a number, infinity. In files
and folders, models among them, `~` and environment variables (`$SCRATCH/models/llava`) are filled
in.

Several files (`--configfile a.yaml b.yaml`) and `--config` are joined by Snakemake, key by key, and
what comes later counts. Blocks are joined too: four `responses.policy_models` in each of two files
are eight models if their names differ. Lists are replaced. To replace a block of names, have it in
one of the files only.

Snakemake also reads the files of `--configfile` before this workflow does. What is no YAML, or no
UTF-8, it refuses in words of its own, without a line ("not valid JSON or YAML",
`UnicodeDecodeError`); `.venv/bin/python scripts/plan.py --configfile FILE` names file and line.

An editor that speaks to yaml-language-server completes keys, shows what they mean, and marks
mistakes as one types, where the first line of a file names the schema by the way from that file:
`# yaml-language-server: $schema=docs/config.schema.json`.

Where a key may hold one of several blocks, the block's `kind` (or `backend`) says which it is.
Which items are computed again when a key changes: docs/journal.md.
"""


def heading(block: type[BaseModel]) -> str:
    """What a block is called on the page: a model's settings by the model's class."""
    return block.__qualname__.removesuffix(".Settings")


def link(block: type[BaseModel]) -> str:
    """A link to a block's section."""
    return f"[{heading(block)}](#{heading(block).lower()})"


def type_name(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A field's type in words."""
    if chooser := chooser_in([*metadata, *getattr(annotation, "__metadata__", ())]):
        return " or ".join(map(link, chooser.blocks()))
    arguments = [item for item in get_args(annotation) if item is not type(None)]
    if hasattr(annotation, "__metadata__"):
        return type_name(arguments[0])
    if get_origin(annotation) is dict:
        return f"name → {type_name(arguments[1])}"
    if get_origin(annotation) is list:
        return f"list of {type_name(arguments[0])}"
    if str(get_origin(annotation)) == "typing.Literal":
        return " or ".join(f"`{item}`" for item in arguments)
    if arguments:
        null = " or null" if type(None) in get_args(annotation) else ""
        return " or ".join(map(type_name, arguments)) + null
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return link(annotation)
    return PLAIN.get(getattr(annotation, "__name__", str(annotation)), str(annotation))


def default(field: FieldInfo) -> str:
    """A field's default as it would stand in the file."""
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see there"
    if isinstance(value, dict):
        return ", ".join(f"`{name}`" for name in value) or "none"
    if value is PydanticUndefined or value is None:
        return "null"
    if isinstance(value, str):
        return '""' if value == "" else "`" + value.replace("\n", "⏎").replace("|", "\\|") + "`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def blocks_of(block: type[Block]) -> list[type[Block]]:
    """The block and all blocks in it, each once, in order."""
    blocks = [block]
    for field in block.model_fields.values():
        for inner in _blocks_in(field.annotation, field.metadata):
            blocks += [each for each in blocks_of(inner) if each not in blocks]
    return blocks


def _blocks_in(annotation: Any, metadata: Sequence[Any]) -> list[type[Block]]:
    if chooser := chooser_in([*metadata, *getattr(annotation, "__metadata__", ())]):
        return chooser.blocks()
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return [annotation]
    return [block for part in get_args(annotation) for block in _blocks_in(part, ())]


def section(block: type[Block]) -> str:
    """A block's section: what it is, and a table of its keys."""
    lines = [f"\n## {heading(block)}\n", inspect.getdoc(block) or "", ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in block.model_fields.items():
        kind = type_name(field.annotation, field.metadata)
        meaning = field.description or f"See {kind}."
        lines.append(f"| `{name}` | {kind} | {default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    return INTRODUCTION + "".join(map(section, blocks_of(Config)))


if __name__ == "__main__":
    (DOCS / "configuration.md").write_text(page(), encoding="utf-8")
