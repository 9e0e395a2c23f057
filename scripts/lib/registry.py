"""Which class plays a role: a dictionary of `kind` -> "module:Class", loaded on use.

Each class stands in a file of its own with its `Settings` (a block), its `VERSION` and its loading.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar, cast

from pydantic import BeforeValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from lib.blocks import Block
from lib.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The kinds of one role.

    role     what they are, for messages: "image scorer"
    kinds    kind -> "module:Class"; a test or an extension may add to it
    key      the configuration's key that names the kind
    default  the kind of a block that names none; None where it has to
    said_by  the kind that the files of a block's model say, where they are at hand and do
    """

    role: str
    kinds: dict[str, str]
    key: str = "kind"
    default: str | None = None
    said_by: Callable[[Mapping[str, Any]], str | None] | None = None

    def load(self, kind: str) -> type[T]:
        """The class of a kind; its module is imported now. Errors: ValueError, "did you mean"."""
        if kind not in self.kinds:
            raise ValueError(self.problem_with(kind))
        module, _, name = self.kinds[kind].partition(":")
        return cast("type[T]", getattr(import_module(module), name))

    def problem_with(self, kind: str) -> str:
        """The message for a kind that there is not."""
        near = difflib.get_close_matches(kind, self.kinds, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(self.kinds)}."
        return f"there is no {self.role} '{kind}'. {hint}"

    def class_of(self, settings: Block) -> Any:
        """The class that settings are of."""
        return self.load(str(getattr(settings, self.key)))

    def load_model(self, settings: Any, device: str) -> T:
        """The model of settings, loaded onto a device by its class; what is wrong with its files is
        a UserError.
        """
        try:
            return cast("T", self.class_of(settings).load(settings, device))
        except ValueError as error:
            told = self._said_by_files(dict(settings))
            is_other = told is not None and told != getattr(settings, self.key)
            raise UserError(
                f"{settings.model}: not usable as the {self.role} that is configured: {error}"
                + (f". By its files it is one of `{self.key}: {told}`" if is_other else "")
            ) from error

    def settings_of(self, kind: str) -> type[Block]:
        """The block of a kind's settings."""
        settings: type[Block] = cast("Any", self.load(kind)).Settings
        return settings

    def blocks(self) -> list[type[Block]]:
        """The settings of all kinds."""
        return [self.settings_of(kind) for kind in self.kinds]

    def kind_in(self, values: Mapping[str, Any]) -> str | None:
        """The kind that a block's values name, or else its model's files, or the default."""
        if self.key in values:
            kind = values[self.key]
        else:
            kind = self._said_by_files(values) or self.default
        return kind if isinstance(kind, str) else None

    def _said_by_files(self, values: Mapping[str, Any]) -> str | None:
        return self.said_by(values) if self.said_by else None

    def block_for(self, values: Mapping[str, Any]) -> type[Block]:
        """The settings of the kind that a block's values name."""
        kind = self.kind_in(values)
        if kind is None:
            raise error_at(self.key, f"names the {self.role}: one of {', '.join(self.kinds)}", kind)
        try:
            return self.settings_of(kind)
        except ValueError as error:
            raise error_at(self.key, str(error), kind) from None

    def validate(self, values: Any) -> Any:
        """A configuration's values as the settings of the kind that they name."""
        if not isinstance(values, Mapping):
            return values
        settings = self.block_for(values)
        kind = self.kind_in(values)
        named = {self.key: kind, **values} if kind is not None else values
        return settings.model_validate(self._own(settings, named))

    def _own(self, settings: type[Block], values: Mapping[str, Any]) -> Mapping[str, Any]:
        return values


class SharedBlock(Registry[T]):
    """A registry whose kinds share one block of the configuration: what is another kind's is passed
    over, so that one can try this kind and keep that one's settings in the file.
    """

    def _own(self, settings: type[Block], values: Mapping[str, Any]) -> Mapping[str, Any]:
        others = {name for kind in self.kinds for name in self.settings_of(kind).model_fields}
        theirs = others - settings.model_fields.keys()
        return {name: value for name, value in values.items() if name not in theirs}


class Chooser(Protocol):
    """Says which of several blocks a block's values are, and validates them as that."""

    def blocks(self) -> list[type[Block]]:
        """All that it chooses from."""
        ...

    def block_for(self, values: Mapping[str, Any]) -> type[Block]:
        """The block. Errors: ValidationError where the values name none."""
        ...

    def validate(self, values: Any) -> Any:
        """The values as that block; what is one already is passed on."""
        ...


def chosen_from(chooser: Chooser) -> BeforeValidator:
    """For `Annotated[SerializeAsAny[<base>], chosen_from(REGISTRY)]`: a field that holds a block of
    any of the kinds.
    """
    return BeforeValidator(chooser.validate)


def chooser_in(metadata: Sequence[Any]) -> Chooser | None:
    """The chooser of a field that `chosen_from` annotates."""
    validators = [entry for entry in metadata if isinstance(entry, BeforeValidator)]
    owners = [getattr(entry.func, "__self__", None) for entry in validators]
    return next((owner for owner in owners if hasattr(owner, "block_for")), None)


def version_in_key(cls: Any) -> dict[str, int]:
    """What a class's `VERSION` adds to its items' keys: nothing for 1, so that journals from before
    there were versions stay valid.
    """
    return {} if cls.VERSION == 1 else {"model_version": cls.VERSION}


def error_at(key: str, text: str, found: Any) -> ValidationError:
    problem = PydanticCustomError("value_error", "{text}", {"text": text})
    return ValidationError.from_exception_data(
        "kind", [InitErrorDetails(type=problem, loc=(key,), input=found)]
    )
