"""Stage training."""

import difflib
from typing import Any, Self

from pydantic import (
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from lib.blocks import NO_EFFECT, Block, Model, Name, first_mistake, max_image_megapixels_field
from lib.config.pairs import Size
from lib.data.controls import Control
from lib.data.pair_forms.settings import OwnPairs
from lib.training.settings import TrainingSettings


class Experiment(Block):
    """What is trained on (a data set size, or pairs of one's own), and the training settings in
    which it differs from `training.settings`.
    """

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["size"]}, {"required": ["pairs"]}]}
    )

    size: Size | None = Field(
        None, description="One of `pairs.sizes`: the run's own pairs, so many of them."
    )
    pairs: OwnPairs | None = Field(
        None,
        description=(
            "In place of `size`: pairs that you have. A file, a folder or a data set on the hub, or"
            " a block with `source` and more (docs/own-pairs.md)."
        ),
    )
    paper_row: PositiveInt | None = Field(
        None,
        description=(
            "The paper's row, by its number of pairs, that a row of `pairs` is held against in"
            " tables; null: none. Rows of `size` are held against the row of the same size."
        ),
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Overrides of `training.settings`, e.g. `{beta: 0.5}`; the rest is as there.",
    )
    control: Control | None = Field(
        None,
        description=(
            "A negative control: `swapped` exchanges chosen and rejected of every pair, `random` by"
            " a fair coin drawn from the training seed and the prompt id. Tables mark it as a"
            " control (docs/evaluation.md, Controls)."
        ),
    )

    @field_validator("pairs", mode="before", json_schema_input_type=str | OwnPairs | None)
    @classmethod
    def _pairs_by_their_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_trained_on_one_thing(self) -> Self:
        if (self.size is None) == (self.pairs is None):
            raise ValueError(
                "an experiment is trained on `size` pairs of this run, or on `pairs` of your own."
                " Give one of the two"
            )
        if self.paper_row and not self.pairs:
            raise ValueError(
                "`paper_row` is for `pairs` of your own; the row of `size` is known. Take it away"
            )
        return self


class Training(Block):
    """Stage training."""

    base_model: Model = Field(
        default_factory=lambda: Model(
            model="llava-hf/llava-1.5-7b-hf", revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9"
        ),
        description="The model to align.",
    )
    prompt_template: str | None = Field(
        None,
        description=(
            "How the base model is asked in training, with `{instruction}`, and `<image>` where the"
            " picture stands; its tokenizer adds BOS. Null is its own chat template, which asks in"
            " evaluation, too; another form here is told in the record."
        ),
    )
    system_prompt: str | None = Field(
        None,
        min_length=1,
        description=(
            "Stands before a prompt that begins with `USER:` (LLaVA-1.5's form), as"
            " `evaluation.system_prompt` does when it is asked; the published code trains with it."
        ),
    )
    settings: TrainingSettings = Field(
        default_factory=TrainingSettings, description="Shared by all experiments."
    )
    experiments: dict[Name, Experiment] = Field(
        default_factory=lambda: {
            f"pds-dpo-{size // 1000}k": Experiment(size=size) for size in (2000, 5000, 7000, 9000)
        },
        description="By name (paper Table 3).",
    )

    @model_validator(mode="after")
    def _can_be_trained(self) -> Self:
        template = self.prompt_template
        if template is not None and not all(
            template.count(mark) == 1 for mark in ("<image>", "{instruction}")
        ):
            raise ValueError(
                "`prompt_template` needs both `<image>` and `{instruction}`, each once; `<image>`"
                " becomes the base model's own mark of a picture"
            )
        if "base" in self.experiments:
            raise ValueError(
                "an experiment cannot be called 'base': that is the name of the model before"
                " training"
            )
        if self.base_model.dtype == "float16":
            raise ValueError(
                "`base_model.dtype` is float16, whose gradients overflow in training. Use bfloat16"
                " (GPU) or float32 (CPU)"
            )
        return self

    @model_validator(mode="after")
    def _overrides_are_settings(self) -> Self:
        for name, experiment in self.experiments.items():
            for key in experiment.settings:
                if key not in TrainingSettings.model_fields:
                    raise ValueError(
                        f"experiment '{name}' overrides `{key}`, which is not a training setting."
                        f" {hint_for(key)}"
                    )
            try:
                self.settings_of(name)
            except ValidationError as error:
                key, mistake = first_mistake(error)
                raise ValueError(f"experiment '{name}' overrides `{key}`: {mistake}") from error
        return self

    @property
    def needs_pairs_of_run(self) -> bool:
        """Whether the stages before training are needed: unless every experiment has its own
        pairs.
        """
        experiments = self.experiments.values()
        return not experiments or any(each.pairs is None for each in experiments)

    @property
    def own_pairs(self) -> dict[str, OwnPairs]:
        """The experiments' own pairs by their folders' names, each once."""
        found = (each.pairs for each in self.experiments.values())
        return {pairs.folder: pairs for pairs in found if pairs}

    def settings_of(self, experiment: str) -> TrainingSettings:
        """The training settings of one experiment, its overrides applied."""
        return TrainingSettings.model_validate(
            {**self.settings.model_dump(), **self.experiments[experiment].settings}
        )

    def experiments_in_4_bits(self) -> list[str]:
        """The experiments whose base model is held in 4 bits."""
        return [name for name in self.experiments if self.settings_of(name).tuning == "qlora"]

    def train_params(self, experiment: str) -> "TrainDpoJob":
        """Parameters of train_dpo for one experiment."""
        return TrainDpoJob(
            base_model=self.base_model,
            prompt_template=self.prompt_template,
            system_prompt=self.system_prompt,
            training=self.settings_of(experiment),
            control=self.experiments[experiment].control,
        )


def hint_for(key: str) -> str:
    """Which training setting may have been meant by a key that is none."""
    known = TrainingSettings.model_fields
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known)}."


class TrainDpoJob(Block):
    """Parameters of rule train_dpo. `trainer`: a kind of lib/training/registry.py."""

    trainer: str = "dpo"
    base_model: Model
    prompt_template: str | None
    system_prompt: str | None = Field(None, json_schema_extra=NO_EFFECT)
    training: TrainingSettings
    control: Control | None


class ImportPairsJob(Block):
    """Parameters of rule import_pairs."""

    pairs: OwnPairs
    validation: float = 0
    max_image_megapixels: float = max_image_megapixels_field()


class MergeAdapterJob(Block):
    """Parameters of rule merge_adapter."""

    base_model: Model
