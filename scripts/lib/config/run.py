"""The configuration: every scientific choice, its default (the paper's), and what is refused.

`docs/configuration.md` is made from these models by `make docs`; a test keeps it in step.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lib.benchmarks.mentions import MentionsBenchmark
from lib.benchmarks.registry import names_of
from lib.blocks import Block, Fraction, Model, Name, UserPath, max_image_megapixels_field
from lib.config.evaluation import Evaluation, counts_mentions
from lib.config.figures import AnswersSheet, Figures
from lib.config.image_ranking import ImageRanking
from lib.config.pairs import Pairs
from lib.config.prompts import GeneratePrompts, Topic
from lib.config.publish import Publish
from lib.config.report import Report
from lib.config.response_ranking import AnyResponseRanking, RewardEnsemble
from lib.config.responses import Responses, with_backends, with_base_model
from lib.config.shards import Shards
from lib.config.training import Training
from lib.config.yaml_files import explain, read_yaml, say_where
from lib.errors import UserError
from lib.models.image_generators.registry import AnyImageGenerator
from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3
from lib.models.instruction_authors.openai import OpenAIEndpoint
from lib.models.instruction_authors.registry import AnyInstructionAuthor
from lib.models.response_rewards.armorm import ArmoRM


class Config(Block):
    """The whole configuration."""

    run: Name = Field(
        "paper", description="Name of the run; everything it makes is in `<results>/<run>/`."
    )
    label: Literal["ours", "demo"] = Field(
        "ours",
        description=(
            "How tables mark this run's rows: `demo` where its models or data are tiny ones."
        ),
    )
    results: UserPath = Field(
        "results",
        min_length=1,
        description=("Folder of all runs, e.g. `$SCRATCH/pds-dpo`."),
    )
    reuse_from: list[UserPath] = Field(
        [],
        description=(
            "Runs whose finished items are taken over where they are what this run would compute:"
            " their names, or their folders. Images are linked or copied."
        ),
    )
    prompts: UserPath = Field(
        "prompts", min_length=1, description="Folder with `<topic>.txt`, one prompt a line."
    )
    topics: list[Topic] = Field(
        [
            "art",
            "culinary",
            "daily_activities",
            "holidays",
            "industrial_scenes",
            "nature",
            "school",
            "transportation",
            "urban_environments",
            "weather",
        ],
        min_length=1,
        description="The topics to work on (paper, supplementary B).",
    )
    shards_per_topic: int = Field(
        2,
        ge=1,
        le=10_000,
        description="Jobs a topic and stage. A prompt's shard is its hash modulo this number.",
    )
    shards: Shards = Field(default_factory=Shards)
    device: Literal["cuda", "cpu"] = Field("cuda", description="Where models run.")
    cpus_per_gpu: PositiveInt = Field(
        4,
        description=(
            "CPUs that a job asks for with each GPU, so that pictures are read, prepared and"
            " written while the GPU computes; fewer where your nodes have fewer."
        ),
    )
    seed: int = Field(
        0,
        ge=0,
        description=(
            "The seeds of images, instructions and responses derive from it and from what they are"
            " for."
        ),
    )
    max_failed_fraction: Fraction = Field(
        0.02, description="A job with a greater share of failed items stops with an error."
    )
    max_prompt_characters: PositiveInt = Field(1000, description="Longer prompts are refused.")
    max_image_megapixels: float = max_image_megapixels_field()
    scheduler_patience: float = Field(
        20,
        gt=0,
        description=(
            "On Slurm: minutes after which a head process that waits for jobs that are in no queue"
            " any more is ended, and between two warnings that Slurm does not answer."
        ),
    )
    generate_prompts: GeneratePrompts = Field(default_factory=GeneratePrompts)
    images: AnyImageGenerator = Field(default_factory=StableDiffusion3.Settings)
    image_ranking: ImageRanking = Field(default_factory=ImageRanking)
    instructions: AnyInstructionAuthor = Field(default_factory=OpenAIEndpoint.Settings)
    responses: Responses = Field(default_factory=Responses)
    response_ranking: AnyResponseRanking = Field(default_factory=ArmoRM.Settings)
    pairs: Pairs = Field(default_factory=Pairs)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    figures: Figures = Field(default_factory=Figures)
    reviews: UserPath = Field(
        "reviews",
        min_length=1,
        description=(
            "Folder with what people said of pairs: the files that they downloaded from the report"
            " (docs/report.md). It need not be there."
        ),
    )
    report: Report = Field(default_factory=Report)
    publish: Publish = Field(default_factory=Publish)

    @model_validator(mode="before")
    @classmethod
    def _the_base_model_may_answer(cls, values: Any) -> Any:
        return _with_policy_models_in_full(values)

    @field_validator("shards")
    @classmethod
    def _no_file_is_split(cls, shards: Shards, others: ValidationInfo) -> Shards:
        if "shards_per_topic" in others.data:  # else it is a mistake itself, and told
            shards.refuse_split_files(others.data["shards_per_topic"])
        return shards

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.topics)) < len(self.topics):
            raise ValueError("the same topic stands twice in `topics`")
        for name, folder in zip(self.reuse_from, self.runs_to_reuse, strict=True):
            if not (folder / "work").is_dir():
                raise ValueError(
                    f"`reuse_from`: '{name}' is no run ('{folder / 'work'}' is not there). Correct"
                    " it, or take it out"
                )
            if folder.resolve() == self.root.resolve():
                raise ValueError(f"`reuse_from`: '{name}' is this run itself. Take it out")
        count = self.generate_prompts.count
        for topic in count if isinstance(count, dict) else ():
            if topic not in self.topics:
                raise ValueError(
                    f"`generate_prompts.count` has topic '{topic}', which is not in `topics`"
                )
        for name, experiment in self.training.experiments.items():
            if experiment.size is not None and experiment.size not in self.pairs.sizes:
                raise ValueError(
                    f"experiment '{name}' has size {experiment.size}, which is not in `pairs.sizes`"
                    f" ({', '.join(map(str, self.pairs.sizes))}). Add it there, or correct the"
                    " experiment"
                )
        for name in self.evaluation.models:
            if name == "base" or name in self.training.experiments:
                raise ValueError(
                    f"`evaluation.models` has a model '{name}', which is also the name of"
                    f" {'the base model' if name == 'base' else 'an experiment'}. Call it otherwise"
                )
        is_ensemble = isinstance(self.response_ranking, RewardEnsemble)
        if self.pairs.max_disagreement is not None and not is_ensemble:
            raise ValueError(
                "`pairs.max_disagreement` is of several rewards, and `response_ranking` has one."
                " Have more of them in `response_ranking.rewards`, or take it out"
            )
        for key, problem in self.evaluation.problems_with_gpus(self.training.base_model):
            raise ValueError(f"`{key}`: {problem}")
        if self.device == "cpu" and (names := self.training.experiments_in_4_bits()):
            raise ValueError(
                f"experiment '{names[0]}' has `tuning: qlora`, which needs a GPU, and `device` is"
                " cpu. Take `lora`"
            )
        if self.figures.answers:
            self._can_be_shown(self.figures.answers)
        height, width = (getattr(self.images, side, 0) for side in ("height", "width"))
        if height * width > self.max_image_megapixels * 1e6:
            raise ValueError(
                f"images of `images.height` x `images.width` ({height} x {width}) have more than"
                f" `max_image_megapixels` ({self.max_image_megapixels:g}). Make them smaller, or"
                " raise the limit"
            )
        return self

    def _can_be_shown(self, sheet: AnswersSheet) -> None:
        """A ValueError where the sheet of answers names what is not there, or a benchmark whose
        scorer marks nothing.
        """
        blocks = self.evaluation.benchmarks
        shown = [name for name, block in blocks.items() if counts_mentions(block)]
        choice = (
            f"Name one of {', '.join(shown)}"
            if shown
            else f"Configure one (its scorer {' or '.join(names_of(MentionsBenchmark))})"
        )
        end = f"{choice}, or take `figures.answers` out"
        if sheet.benchmark not in blocks:
            raise ValueError(
                f"`figures.answers.benchmark`: there is no '{sheet.benchmark}' in"
                f" `evaluation.benchmarks`. {end}"
            )
        if sheet.benchmark not in shown:
            raise ValueError(
                f"`figures.answers.benchmark`: the scorer of '{sheet.benchmark}' counts no mentions"
                f" of objects. {end}"
            )
        if sheet.experiment not in self.training.experiments:
            raise ValueError(
                f"`figures.answers.experiment`: there is no '{sheet.experiment}' in"
                " `training.experiments`"
                f" ({', '.join(self.training.experiments) or 'which is empty'}). Correct it, or"
                " take `figures.answers` out"
            )

    @property
    def root(self) -> Path:
        """The folder of this run."""
        return Path(self.results) / self.run

    @property
    def runs_to_reuse(self) -> list[Path]:
        """The folders of `reuse_from`."""
        return [
            Path(name) if os.sep in name else Path(self.results) / name for name in self.reuse_from
        ]

    @property
    def models(self) -> dict[str, Model]:
        """The models to evaluate before merging: the base under the name "base"; experiments are
        made by the run itself.
        """
        return {"base": self.training.base_model}


def _with_policy_models_in_full(values: Any) -> Any:
    """The values of a configuration in which every policy model says what it is. Errors: ValueError
    where one says of the base model what is not its own to say.
    """
    if not isinstance(values, Mapping) or "responses" not in values:
        return values
    training = values.get("training")
    base = training.get("base_model") if isinstance(training, Mapping) else None
    known = base if isinstance(base, Mapping) else Training().base_model.model_dump()
    return {**values, "responses": with_backends(with_base_model(values["responses"], known))}


def load_config(
    values: dict[str, Any], files: list[Path], command_line: Mapping[str, Any] | None = None
) -> Config:
    """Validates a configuration; `files` and `command_line` (the values of `--config`) are where it
    came from, to name file and line in the message.

    All mistakes are told at once, one a line. Errors: UserError.
    """
    for path in files:
        read_yaml(path)
    for place, text in _texts_in(values):
        if "\0" in text:
            raise UserError(
                f"{say_where(place, files, command_line)}{'.'.join(map(str, place))}: holds the"
                " character U+0000, which no file name or request can hold. Delete it."
            )
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        try:
            told = _with_policy_models_in_full(values)
        except ValueError:  # which is the mistake
            told = values
        raise explain(error, Config, told, files, command_line=command_line) from error


def _texts_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """All texts of a configuration, each with the keys that lead to it."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts_in(each, (*place, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _texts_in(each, (*place, number))
