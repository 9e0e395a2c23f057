"""What training data and benchmarks have in common, and what becomes of it."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from lib.benchmarks.registry import Scorer
from lib.blocks import Block, Fraction, Name, max_image_megapixels_field
from lib.data.pair_forms.settings import OwnPairs


class OverlapMeasures(Block):
    """What counts as an overlap (lib/contamination.py)."""

    ngram: PositiveInt = Field(
        13,
        description=(
            "An overlap is a run of so many words that both texts have (GPT-3, appendix C: 13 where"
            " a text has that many)."
        ),
    )
    short_similarity: Fraction = Field(
        0.8,
        description=(
            "A question of fewer than `ngram` words overlaps with a text that it stands in as a"
            " whole, or that has at least this share of its word pairs in common with it (Jaccard)."
        ),
    )
    min_words: PositiveInt = Field(
        5,
        description=(
            "Questions of fewer words (`Describe this image.`) are no evidence of anything: they"
            " are counted and not compared."
        ),
    )
    image_distance: int = Field(
        4,
        ge=0,
        le=32,
        description=(
            "Images overlap where their perceptual hashes (imagehash's `phash`, 64 bits) differ in"
            " at most so many bits."
        ),
    )


class Contamination(OverlapMeasures):
    """Rule check_contamination: training prompts, instructions and picked images against the
    benchmarks' questions and images.
    """

    check: bool = Field(
        True, description="Look for overlaps; the list is `<results>/<run>/contamination/`."
    )
    exclude: bool = Field(
        False,
        description=(
            "Prompts with an overlap get no pair, with the reason `in a benchmark`; false only"
            " lists them."
        ),
    )

    @model_validator(mode="after")
    def _what_is_excluded_is_checked(self) -> Self:
        if self.exclude and not self.check:
            raise ValueError(
                "`exclude` is true and `check` false: what is not looked for cannot be left out."
                " Set `check: true`"
            )
        return self


class IndexedTask(Block):
    """Where the questions and images of a task of lmms-eval's are, unless they are on the hub."""

    task: Name
    data: dict[str, str] | None

    @property
    def files(self) -> list[str]:
        """The files of its questions that are on this machine."""
        return list((self.data or {}).values())


class IndexedQuestions(Block):
    """Where the questions and images are of a benchmark that our own rule asks."""

    scorer: Scorer
    questions: list[str]
    images: str | None

    @property
    def files(self) -> list[str]:
        """The files of its questions."""
        return self.questions


class IndexBenchmarksJob(Block):
    """Parameters of rule index_benchmarks."""

    benchmarks: dict[Name, IndexedTask | IndexedQuestions]
    max_image_megapixels: float = max_image_megapixels_field()


class CheckContaminationJob(OverlapMeasures):
    """Parameters of rule check_contamination."""


class CheckOwnPairsJob(CheckContaminationJob):
    """Parameters of rule check_own_pairs."""

    pairs: OwnPairs
    max_image_megapixels: float = max_image_megapixels_field()


class ListOverlapsJob(Contamination):
    """Parameters of rule list_overlaps."""
