"""The figures of a run."""

from pydantic import Field, PositiveInt

from lib.blocks import Block, DType, Model, Name, dtype_field, model_field, revision_field


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
