"""YAML files of users: file, line and mend of every mistake in them."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from lib.blocks import Block, say_mistake
from lib.errors import UserError
from lib.registry import chooser_in


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: PyYAML would silently keep the last."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if key_node.value in seen:
            raise UserError(
                f"{loader.name}, line {line}: the key '{key_node.value}' stands here and on line"
                f" {seen[key_node.value]}. Delete one of them."
            )
        seen[key_node.value] = line
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; syntax errors and doubled keys are UserErrors with file and line."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(
            f"{path}, line {line}: not valid YAML: {error.problem}. Correct it."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8. Save the file as UTF-8.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no `key: value` lines. See docs/configuration.md.")
    return content


def explain(
    error: ValidationError,
    block: type[Block],
    values: Mapping[str, Any],
    files: Sequence[Path],
    page: str = "docs/configuration.md",
) -> UserError:
    """All mistakes that pydantic found in `values`, which were to be a `block` and stand in `files`
    (of two that have a key, the later one counts), one a line. `page`: what tells of the keys.
    """
    problems = error.errors()
    return UserError("\n".join(_explain(each, block, values, files, page) for each in problems))


def _explain(
    problem: Any,
    block: type[Block],
    values: Mapping[str, Any],
    files: Sequence[Path],
    page: str,
) -> str:
    path = [part for part in problem["loc"] if part != "[key]"]
    key = ".".join(map(str, path)) or "the configuration"
    text = say_mistake(problem)
    if problem["type"] == "extra_forbidden":
        known = keys_at(path[:-1], block, values)
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known)}."
        text = f"{text}. {hint}"
    elif problem["type"] == "missing":
        text += f"; {page} says what it means."
    elif not text.endswith("."):
        text += f". See {page}."
    return f"{say_where(path, files)}{key}: {text}"


def keys_at(path: Sequence[Any], block: type[Block], values: Any) -> list[str]:
    """The keys of the block at `path` below `block`; where there are several kinds, `values` say of
    which it is.
    """
    here: Any = block
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
        if isinstance(here, type) and issubclass(here, Block) and part in here.model_fields:
            field = here.model_fields[part]
            here = _block_in(field.annotation, field.metadata, values)
        elif get_origin(here) is dict:
            here = _block_in(get_args(here)[1], [], values)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, Block) else []


def _block_in(annotation: Any, metadata: Sequence[Any], values: Any) -> Any:
    """The block of an annotated field, or its dictionary of blocks."""
    while get_args(annotation):
        metadata = [*metadata, *getattr(annotation, "__metadata__", ())]
        if (chooser := chooser_in(metadata)) and isinstance(values, Mapping):
            return chooser.block_for(values)
        if get_origin(annotation) is dict:
            return annotation
        # `Block | None`, `Annotated[Block, ...]`
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    chooser = chooser_in(metadata)
    return chooser.block_for(values) if chooser and isinstance(values, Mapping) else annotation


def say_where(path: Sequence[Any], files: Sequence[Path]) -> str:
    """`file, line N: ` of the key at `path`, or of the nearest key above it that a file has."""
    for file in reversed(files):
        with open(file, encoding="utf-8") as stream:
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
        line = None
        for part in path:
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == str(part)]
                if not pairs:
                    break
                line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
            elif (
                isinstance(node, yaml.SequenceNode)
                and isinstance(part, int)
                and part < len(node.value)
            ):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        if line is not None:
            return f"{file}, line {line}: "
    return f"{files[-1]}: " if files else "--config: "
