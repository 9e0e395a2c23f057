"""The figures of a run."""

from pydantic import Field, PositiveInt

from lib.benchmarks.base import LanguageChoice
from lib.blocks import Block, DType, Model, Name, dtype_field, model_field, revision_field
from lib.data.controls import Pick
from lib.report.sidecar import Label, ModelOrigin


class TextEmbedding(Model):
    """A sentence embedding model, in the layout of the library sentence-transformers, with mean or
    CLS pooling. It runs on the CPU.
    """

    model: str = model_field("sentence-transformers/all-MiniLM-L6-v2")
    revision: str = revision_field("c9745ed1d9f207416be6d2e6f8de32d1f16199bf")
    dtype: DType = dtype_field("float32")
    max_length: PositiveInt = Field(
        256,
        description=(
            "Tokens of a text; what is longer is cut at its end (256 is this model's own limit)."
        ),
    )


class EmbedTextsJob(Block):
    """What rule embed_texts is told."""

    embedding: TextEmbedding


class AnswersSheet(Block):
    """Figure of answers: pictures of a benchmark, each with the base model's and an experiment's
    answer, hallucinated words marked.
    """

    benchmark: Name = Field(
        description=(
            "Which of `evaluation.benchmarks`; one whose scorer is `chair` or `object_halbench`."
        )
    )
    experiment: Name = Field(description="Which of `training.experiments`.")
    count: int = Field(
        6,
        ge=1,
        le=20,
        description="How many pictures it shows, drawn with the run's seed over all questions.",
    )


class Figures(Block):
    """The paper's Figures 2, 4 and 6 from this run, and a sheet of answers."""

    sheet_prompts: int = Field(
        6,
        ge=1,
        le=20,
        description=(
            "Figure 2: how many prompts it shows, drawn with the run's seed over all topics."
        ),
    )
    embedding: TextEmbedding | None = Field(
        default_factory=TextEmbedding,
        description=(
            "Figure 6: what turns prompts, instructions and responses into vectors; null leaves the"
            " figure out."
        ),
    )
    answers: AnswersSheet | None = Field(
        None,
        description=(
            "Pictures with the base model's and an experiment's answers; null leaves the figure"
            " out."
        ),
    )


class PicksFigureJob(Block):
    """What a rule is told whose figure shows picked images: which scorer picks, which models drew
    (none where pictures are the user's own) and scored them, and whose run it is.
    """

    scorer: Name
    scorer_model: ModelOrigin
    image_model: ModelOrigin | None
    label: Label


class CandidatesFigureJob(PicksFigureJob):
    """What rule candidates_figure is told besides: how many prompts it shows, and how candidates
    are picked.
    """

    prompts: int
    pick: Pick


class GuidanceFigureJob(PicksFigureJob):
    """What rule guidance_figure is told besides: the scales of the candidates."""

    guidance_scales: list[float]


class SimilarityFigureJob(Block):
    """What rule similarity_figure is told: which model embedded the texts."""

    embedding: ModelOrigin
    label: Label


class AnswersFigureJob(AnswersSheet):
    """What rule answers_figure is told besides what is configured: how the benchmark is scored,
    where its questions are, and how both models are called.
    """

    scorer: str
    questions: list[str]
    images: str | None
    reference: list[str]
    language: LanguageChoice
    names: tuple[str, str]
    label: Label
