"""Writes docs/configuration.md from the models of the configuration; `make docs` runs it, and a
test keeps the page in step.

PYTHONPATH=scripts python docs/make_configuration.py
"""

from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lib.config.run import Block, Config

DOCS = Path(__file__).resolve().parent

INTRODUCTION = """\
# Configuration

<!-- Made by `make docs` from scripts/lib/config.py; edit the descriptions there. -->

`config.yaml` is the paper's run, `demo/config.yaml` the laptop's. A configuration file stands for itself: what it leaves out has the
default given here, which is the paper's value (where the paper is silent, the published code's). Choose another file with
`--configfile FILE`; single keys can be set on the command line, e.g. `--config run=mine` or `--config 'images={steps: 20}'`.

A mistake ends before anything runs, with the file, the line, the key and the mend: unknown keys, wrong types, missing files and folders,
models that are no models. Needs (time, memory, GPUs, partitions) are not configured here but in `profiles/`.

Which items are computed again when a key changes: docs/journal.md.
"""


def type_name(annotation: Any) -> str:
    """A field's type in words."""
    origin, arguments = (
        get_origin(annotation),
        [item for item in get_args(annotation) if item is not type(None)],
    )
    if hasattr(annotation, "__metadata__"):
        return type_name(arguments[0])
    if origin is dict:
        return f"name → {type_name(arguments[1])}"
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if str(origin) == "typing.Literal":
        return " or ".join(f"`{item}`" for item in arguments)
    if arguments:
        return " or ".join(type_name(item) for item in arguments) + (
            " or null" if type(None) in get_args(annotation) else ""
        )
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "true or false",
        "Any": "any value",
    }.get(getattr(annotation, "__name__", str(annotation)), str(annotation))


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


def blocks_of(block: type[BaseModel]) -> list[type[BaseModel]]:
    """The block and all blocks in it, each once, in order."""
    found = [block]

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Block):
            found.extend(inner for inner in blocks_of(annotation) if inner not in found)
        for item in get_args(annotation):
            visit(item)

    for field in block.model_fields.values():
        visit(field.annotation)
    return list(dict.fromkeys(found))


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for block in blocks_of(Config):
        parts.append(
            f"\n## {block.__name__}\n\n{block.__doc__ or ''}\n\n| key | type | default | meaning"
            " |\n|---|---|---|---|\n"
        )
        for name, field in block.model_fields.items():
            meaning = field.description or f"See {type_name(field.annotation)}."
            parts.append(
                f"| `{name}` | {type_name(field.annotation)} | {default(field)} | {meaning} |\n"
            )
    return "".join(parts)


if __name__ == "__main__":
    (DOCS / "configuration.md").write_text(page(), encoding="utf-8")
