"""YAML files of users: file, line and mend of every mistake in them."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from lib.blocks import Block, say_mistake
from lib.errors import UserError
from lib.registry import chooser_in

N = TypeVar("N", int, float)


#: A file's values, those that aliases repeat counted each time. No configuration has a hundredth of
#: them; an alias in an alias in an alias soon has billions.
MOST_VALUES = 100_000
#: A number that everybody reads as YAML does, infinity and NaN among them.
_PLAIN_NUMBER = re.compile(
    r"[-+]?(0|[1-9]\d*)|[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|nan)", re.IGNORECASE
)


class _StrictLoader(yaml.SafeLoader):
    """YAML in which is an error what PyYAML would pass over in silence: a key that stands twice (of
    which it keeps the last), and a number that is read as another one than it says: 010 as 8,
    1:30 as 90.
    """


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            continue  # refused below: a list or a mapping is no key
        line = key_node.start_mark.line + 1
        if key_node.value in seen:
            raise UserError(
                f"{loader.name}, line {line}: the key '{key_node.value}' stands here and on line"
                f" {seen[key_node.value]}. Delete one of them."
            )
        seen[key_node.value] = line
    return loader.construct_mapping(node, deep=True)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return _plain(loader, node, loader.construct_yaml_int(node))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return _plain(loader, node, loader.construct_yaml_float(node))


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    # A file may be JSON, whose escapes make two surrogates of a character outside the basic plane.
    text = loader.construct_yaml_str(node)
    return str(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))


def _plain(loader: yaml.SafeLoader, node: yaml.ScalarNode, value: N) -> N:
    if not _PLAIN_NUMBER.fullmatch(node.value):
        raise UserError(
            f"{loader.name}, line {node.start_mark.line + 1}: YAML reads `{node.value}` as the"
            f" number {value}. Write the number that you mean in plain digits, or put the text in"
            " quotes."
        )
    return value


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:str", _text)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping. Errors: UserError with file and line for what is no YAML, a key that
    stands twice, a number in a spelling that YAML reads as another one, and aliases without end.
    """
    try:
        loader = _StrictLoader(_read_text(path))
        loader.name = str(path)
        node = loader.get_single_node()
        if node is None or not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}: holds no `key: value` lines. See docs/configuration.md.")
        _count_values(node, path, {})
        return dict(loader.construct_document(node))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(
            f"{path}, line {line}: not valid YAML: {error.problem}. Correct it."
        ) from error
    except RecursionError:
        raise UserError(f"{path}: not valid YAML: nested too deeply. Correct it.") from None
    except ValueError as error:  # a date that is none, e.g. 2024-13-01
        raise UserError(f"{path}: not valid YAML: {error}. Put texts in quotes.") from error


def _read_text(path: Path) -> str:
    """A file's text, in which each character may stand in YAML. Errors: UserError."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x}). Save the file as"
            " UTF-8."
        ) from error
    if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        is_wide = "\0" in text[:4]  # UTF-16 without its mark
        mend = "Save the file as UTF-8" if is_wide else "Delete it"
        raise UserError(
            f"{path}, line {line}: holds the character U+{ord(found[0]):04X}, which cannot stand in"
            f" YAML. {mend}."
        )
    return text


def _count_values(node: yaml.Node, path: Path, counts: dict[int, int | None]) -> int:
    """How many values a node has once its aliases are filled in. `counts`: those of nodes that were
    met before, by identity, None for those that are being counted.

    Errors: UserError where they are too many, or an alias stands in what it names.
    """
    where = f"{path}, line {node.start_mark.line + 1}"
    if id(node) in counts:
        known = counts[id(node)]
        if known is None:
            raise UserError(
                f"{where}: an alias (`*name`) stands in what it names. Write out what is meant."
            )
        return known
    counts[id(node)] = None
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    if isinstance(node, yaml.MappingNode):
        children = [each for pair in node.value for each in pair]
    total = 1 + sum(_count_values(child, path, counts) for child in children)
    if total > MOST_VALUES:
        raise UserError(
            f"{where}: with its aliases (`*name`) filled in, this has more than {MOST_VALUES:,}"
            " values. Write out what is meant."
        )
    counts[id(node)] = total
    return total


def explain(
    error: ValidationError,
    block: type[Block],
    values: Mapping[str, Any],
    files: Sequence[Path],
    page: str = "docs/configuration.md",
    command_line: Mapping[str, Any] | None = None,
) -> UserError:
    """All mistakes that pydantic found in `values`, which were to be a `block` and stand in `files`
    (of two that have a key, the later one counts) or on the `command_line` (`--config`, which
    counts before all files), one a line. `page`: what tells of the keys.
    """
    where = partial(say_where, files=files, command_line=command_line)
    problems = error.errors()
    return UserError("\n".join(_explain(each, block, values, page, where) for each in problems))


def _explain(
    problem: Any,
    block: type[Block],
    values: Mapping[str, Any],
    page: str,
    where: Callable[[Sequence[Any]], str],
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
    return f"{where(path)}{key}: {text}"


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


def say_where(
    path: Sequence[Any], files: Sequence[Path], command_line: Mapping[str, Any] | None = None
) -> str:
    """`file, line N: ` of the key at `path`, or of the nearest key above it that a file has;
    `--config: ` where the command line has it, or comes nearer.
    """
    given = _depth(path, command_line or {})
    for file in reversed(files):
        line, depth = _line_of(path, file)
        if given == len(path) > 0 or given > depth:
            break
        if line is not None:
            return f"{file}, line {line}: "
    return "--config: " if given or not files else f"{files[-1]}: "


def path_of(key: str, values: Any) -> list[str]:
    """The parts of a dotted key, of which names in `values` may hold dots themselves."""
    rest, path = key.split("."), []
    while rest:
        names = [".".join(rest[:count]) for count in range(len(rest), 0, -1)]
        known = isinstance(values, Mapping)
        name = next((name for name in names if known and name in values), rest[0])
        path.append(name)
        rest = rest[name.count(".") + 1 :]
        values = values.get(name) if known else None
    return path


def _depth(path: Sequence[Any], values: Any) -> int:
    """How many parts of a path there are in values."""
    for depth, part in enumerate(path):
        if not isinstance(values, Mapping | list):
            return depth
        try:
            values = values[part]
        except (LookupError, TypeError):
            return depth
    return len(path)


def _line_of(path: Sequence[Any], file: Path) -> tuple[int | None, int]:
    """The line of the last part of a path that a file has, and how many parts it has."""
    node = yaml.compose(file.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    line = None
    for depth, part in enumerate(path):
        if isinstance(node, yaml.MappingNode):
            pairs = [pair for pair in node.value if pair[0].value == str(part)]
            if not pairs:
                return line, depth
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, depth
    return line, len(path)
