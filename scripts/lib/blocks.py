"""The blocks that configuration and jobs are made of, and which of their fields decide results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lib import model_files, secret, weights
from lib.files import canonical_json, expand

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
#: A file or folder; `~` and environment variables are filled in.
UserPath = Annotated[str, AfterValidator(expand)]
Fraction = Annotated[float, Field(ge=0, le=1)]
DType = Literal["float32", "bfloat16", "float16"]

#: `json_schema_extra` of a field that leaves an item's result as it is, or whose effect stands in
#: the item's key by itself (a model's name: its resolved identity does).
NO_EFFECT: dict[str, Any] = {"decides": False}
#: ... and of a field that came later than the journals: its default adds nothing to a key.
LATER: dict[str, Any] = {"decides": "unless it is the default"}


class Block(BaseModel):
    """A block of the configuration, or what a job is asked; unknown keys, infinite numbers, and
    truth values for numbers are refused.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_is_a_number(cls, value: Any, field: ValidationInfo) -> Any:
        # pydantic would take `true` for 1.
        annotation = cls.model_fields[str(field.field_name)].annotation
        if _holds_truth_value(value) and not _takes_truth_values(annotation):
            raise ValueError(
                "a truth value (in YAML `true`, `yes`, `on` and their opposites) stands where a"
                " number or a text belongs. Write the number, or put the text in quotes"
            )
        return value


def _holds_truth_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_truth_value, value.values()))
    return isinstance(value, bool) or (
        isinstance(value, list) and any(map(_holds_truth_value, value))
    )


def _takes_truth_values(annotation: Any) -> bool:
    """Whether a field of this type, or a block in it, may have a truth value."""
    if parts := get_args(annotation):
        return any(map(_takes_truth_values, parts))
    is_block = isinstance(annotation, type) and issubclass(annotation, Block)
    return is_block or annotation in (bool, Any)


def deciding(block: Block) -> dict[str, Any]:
    """The settings of a block that decide its results, as JSON: what an item's key is made of.

    These are all but those whose field says otherwise (`NO_EFFECT`, `LATER`). So a field that
    nobody thought of means that items are computed anew, never that old ones pass for new.
    """
    values = block.model_dump(mode="json")
    kept = {}
    for name, field in type(block).model_fields.items():
        extra = field.json_schema_extra
        decides = extra.get("decides", True) if isinstance(extra, dict) else True
        value = getattr(block, name)
        if decides is False or (
            decides is not True and value == field.get_default(call_default_factory=True)
        ):
            continue
        kept[name] = deciding(value) if isinstance(value, Block) else values[name]
    return kept


def say_mistake(problem: Any) -> str:
    """One mistake that pydantic found, in our words, without its place."""
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    if problem["type"] == "missing":
        return "this key is missing. Add it"
    text = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    is_plain = isinstance(given, str | int | float | bool | type(None))
    is_shown = is_plain and not secret.shows_a_key(str(given))
    return f"{text} (found {given!r})" if is_shown else text


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """The dotted key of the first mistake that pydantic found, and what is wrong with it."""
    problem = error.errors()[0]
    return ".".join(map(str, problem["loc"])), say_mistake(problem)


def model_field(default: Any = ...) -> Any:
    """The field `model` of a `Model` with another default; none: it has to be given."""
    return Field(
        default,
        min_length=1,
        description="Hub repository (`owner/name`) or folder.",
        json_schema_extra=NO_EFFECT,
    )


def revision_field(default: str = "main") -> Any:
    """The field `revision` of a `Model` with another default, which is of the default model."""
    return Field(
        default,
        min_length=1,
        description=(
            "Commit, tag or branch of a hub repository; its resolved commit goes into every record."
        ),
        json_schema_extra=NO_EFFECT,
    )


def dtype_field(default: DType = "bfloat16") -> Any:
    """The field `dtype` of a `Model` with another default."""
    return Field(default, description="Number format the weights are computed in.")


def gpus_field(what: str = "a job") -> Any:
    """The field `gpus` of a block whose model runs in jobs, where 1 is as before there was one.
    `what`: the job, for its description.
    """
    # Where a model runs is no part of what it is asked; a job's record tells it.
    return Field(
        1,
        gt=0,
        description=(
            f"GPUs that {what} holds, for a model that one has no room for. vLLM has each compute a"
            " part of every layer; with transformers each holds some layers, and one computes at a"
            " time. On a CPU it means nothing."
        ),
        json_schema_extra=NO_EFFECT,
        exclude_if=_is_one,
    )


def _is_one(value: int) -> bool:
    return value == 1


def gpus_of(block: Any) -> int:
    """How many GPUs a job holds that runs what a block names; 0 where no model runs in it."""
    return int(getattr(block, "gpus", 1)) if block.needs_gpu else 0


def deterministic_field(decides: Mapping[str, Any], what: str) -> Any:
    """The field `deterministic` of a block, where false is as before there was one. `decides`:
    whether it is in the keys of items (`NO_EFFECT`, `LATER`); `what`: what is answered at once.
    """
    return Field(
        False,
        description=(
            f"Answers are the same bytes whatever shares the engine, however many {what} are"
            " answered at once. On GPUs of compute capability 8.0 or newer by vLLM's"
            " batch-invariant kernels; elsewhere, and with transformers, one is answered at a time."
            " The record says which."
        ),
        json_schema_extra=dict(decides),
        exclude_if=_is_false,
    )


def _is_false(value: bool) -> bool:
    return not value


def max_image_megapixels_field() -> Any:
    """The field `max_image_megapixels` of the configuration and of jobs that open image files."""
    return Field(
        50,
        gt=0,
        le=178,  # PIL itself refuses more
        description=(
            "Larger images, of benchmarks and candidates, are refused before they are decoded; a"
            " megapixel takes 3 MB of memory, in however small a file."
        ),
        json_schema_extra=NO_EFFECT,
    )


class Model(Block):
    """A model and where its weights come from."""

    # A name is not in the keys of items: what it resolves to is.
    model: str = model_field()
    revision: str = revision_field()
    dtype: DType = dtype_field()

    def problem_with_files(self, folder: Path) -> str | None:
        """What of the files that loading needs the model's folder lacks; None if nothing."""
        return model_files.problem_with_checkpoint(folder)

    @model_validator(mode="before")
    @classmethod
    def _default_revision_is_of_the_default_model(cls, values: Any) -> Any:
        default = cls.model_fields["model"].default
        if isinstance(values, dict) and values.get("model", default) != default:
            return {"revision": "main", **values}
        return values

    @model_validator(mode="after")
    def _folder_exists(self) -> Self:
        if problem := weights.problem_with_folder(self.model):
            raise ValueError(f"`model`: {problem}")
        return self


def models_in(block: Block) -> dict[str, Model]:
    """The models of a block: itself as "model" where it is one, and those in its fields by name."""
    models = {"model": block} if isinstance(block, Model) else {}
    return models | {name: value for name, value in block if isinstance(value, Model)}


class Endpoint(Block):
    """An OpenAI-compatible endpoint."""

    # A model keeps its answers when its server moves.
    base_url: str = Field(
        pattern=r"^https?://",
        description=(
            "Base URL, ending in `/v1` for most servers. Nothing is sent to another host, not even"
            " where the server redirects there."
        ),
        json_schema_extra=NO_EFFECT,
    )
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    api_key_variable: str | None = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_]\w*$",
        description=(
            "Environment variable that holds the key; null for a server that wants none. The key"
            " itself is never configured."
        ),
        json_schema_extra=NO_EFFECT,
    )
    concurrency: PositiveInt = Field(
        8, description="Requests under way at once.", json_schema_extra=NO_EFFECT
    )
    timeout: float = Field(
        60,
        gt=0,
        description="Seconds that one answer may take, to its last byte.",
        json_schema_extra=NO_EFFECT,
    )
    retries: int = Field(
        5,
        ge=0,
        description=(
            "Further tries after a connection error, 429, 5xx or nonsense, with growing waits."
        ),
        json_schema_extra=NO_EFFECT,
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "Request parameters sent as they are, e.g. `reasoning_effort: low`; null leaves out one"
            " that is otherwise sent (`temperature`, `max_tokens`, `seed`). No keys, no headers."
        ),
    )

    @field_validator("parameters")
    @classmethod
    def _can_be_sent(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical_json(parameters)
        except (TypeError, ValueError) as error:
            # A date of YAML's, an infinite number.
            raise ValueError(
                f"no JSON can hold this: {error}. Write a finite number, or a text in quotes"
            ) from error
        return parameters

    @model_validator(mode="before")
    @classmethod
    def _holds_no_key(cls, values: Any) -> Any:
        # Before the fields are looked at one by one: what is said of a wrong one shows it.
        if isinstance(values, Mapping) and (problem := secret.key_in(values)):
            raise ValueError(f"{problem}. {secret.MEND}")
        return values


def endpoints_in(block: Block) -> dict[str, Endpoint]:
    """The endpoints in a block's fields, by name."""
    return {name: value for name, value in block if isinstance(value, Endpoint)}
