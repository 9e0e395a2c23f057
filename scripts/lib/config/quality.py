"""How a run's own pairs are checked, and what stops it."""

from pydantic import Field, field_validator

from lib.blocks import Block, Fraction, max_image_megapixels_field
from lib.pair_checks.names import problem_with_name


class Quality(Block):
    """The checks of a run's pairs (docs/checking-pairs.md)."""

    max_share: dict[str, Fraction] = Field(
        default_factory=dict,
        description=(
            "By check (`repetition`, `leaked prompt`, ...): the share of pairs that it may find"
            " something in. More stops the run before data sets are made; a check that is not named"
            " is only told."
        ),
    )
    pictures: bool = Field(
        True, description="Look at the pictures, too, for those that look alike."
    )

    @field_validator("max_share")
    @classmethod
    def _checks_exist(cls, shares: dict[str, float]) -> dict[str, float]:
        for name in shares:
            if problem := problem_with_name(name):
                raise ValueError(problem)
        return shares


class CheckPairsJob(Quality):
    """Parameters of rule check_pairs."""

    max_image_megapixels: float = max_image_megapixels_field()
