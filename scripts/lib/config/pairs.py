"""Stage pairs, and the data sets made of them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, WrapValidator, model_validator

from lib.blocks import LATER, NO_EFFECT, Block, Fraction, Model, Name
from lib.config.quality import Quality
from lib.data.reviews import Reviews
from lib.models.content_checkers.registry import AnyContentChecker

#: The size of a data set of as many pairs as there are.
ALL: Literal["all"] = "all"


def _number_or_all(value: Any, validate: Any) -> Any:
    """One message where a size is neither, instead of one for each."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("give a whole number above 0, or `all`") from None


Size = Annotated[PositiveInt | Literal["all"], WrapValidator(_number_or_all)]


LengthControl = Literal["none", "residual"]


class Card(Block):
    """What a data set's card says and no result tells (docs/data-sets.md)."""

    license: str | None = Field(
        None,
        min_length=1,
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        description=(
            "The licence that you give your data, by the hub's name (`cc-by-4.0`). Where the terms"
            " of the models that made it bind what they make, the card says those instead."
        ),
    )
    languages: list[str] = Field(
        ["en"], min_length=1, description="Of the texts, by their ISO 639 codes."
    )
    code: str | None = Field(
        None,
        pattern=r"^https?://[^\s@]+$",
        description="Address of your copy of the code, to which the card links its commit.",
    )


class Pairs(Block):
    """Stage pairs: chosen is the first maximum, rejected the first minimum of the valid responses
    (paper 3.3, Eq. 10).
    """

    min_margin: float = Field(
        0.0,
        ge=0,
        description="Pairs whose scores differ by no more than this are left out; ties always are.",
    )
    length_control: LengthControl = Field(
        "none",
        description=(
            "`residual` ranks responses by what is left of the reward when what it gains with the"
            " logarithm of the length, within the prompts of this run, is taken out. `none`: by the"
            " reward. How much it gains: `tables/reward_length_table`."
        ),
    )
    max_disagreement: Fraction | None = Field(
        None,
        description=(
            "Of an ensemble of rewards (`response_ranking.rewards`): pairs that a greater share of"
            " them, by weight, would have the other way round are left out, as `rewards disagree`."
            " 0 keeps those that no reward is against, null all."
        ),
    )
    sizes: list[Size] = Field(
        [2000, 5000, 7000, 9000, ALL],
        min_length=1,
        description=(
            "Data set sizes; nested and stratified by topic (paper Table 3). `all`: as many pairs"
            " as there are. Sizes that the prompts, or their pairs, cannot give are left out, with"
            " the experiments on them; the run says so before it starts, and tables beside the"
            " dash."
        ),
    )
    quality: Quality = Field(default_factory=Quality)
    validation: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description=(
            "Share of each data set's pairs that is held out as its validation split, by a hash of"
            " the prompt's text (of your own pairs: of the picture's name): no prompt is on both"
            " sides. Training tells how often, and by how"
            " much, the chosen response of these is preferred."
        ),
    )
    content_check: dict[Name, AnyContentChecker] = Field(
        {},
        description=(
            "Who looks for unsafe pictures and personal data in what would be published, by a name"
            " of yours. A pair of which something is found is left out, with the reason `found by"
            " content check <name>`. Nobody does by default, and the card says so"
            " (docs/data-sets.md)."
        ),
    )
    card: Card = Field(default_factory=Card, description="What the data sets' cards say besides.")
    freeze: bool = Field(
        False,
        description=(
            "A data set that is there stays as it is, and so do its trainings and their answers,"
            " whatever changes before it; what it would be now is told at a run's end. `false`"
            " releases it."
        ),
    )

    @model_validator(mode="after")
    def _sizes_differ(self) -> Self:
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError("the same size stands twice in `sizes`")
        return self


class BuildPairsJob(Block):
    """Parameters of rule build_pairs: what makes a pair, and what training will read of it."""

    policies: list[str]
    min_margin: float
    base_model: Model = Field(json_schema_extra=NO_EFFECT)
    prompt_template: str | None
    # It is in the resolved template, which is in the keys.
    system_prompt: str | None = Field(None, json_schema_extra=NO_EFFECT)
    max_length: int
    length_control: LengthControl = Field("none", json_schema_extra=LATER)
    max_disagreement: Fraction | None = Field(None, json_schema_extra=LATER)
    # They are applied to the finished pairs, and decide no item.
    reviews: Reviews = Field(default_factory=dict, json_schema_extra=NO_EFFECT)


class MergePairsJob(Block):
    """Parameters of rule merge_pairs."""

    validation: float
