"""The settings of a training with DPO."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from lib.blocks import LATER, NO_EFFECT, Block, Fraction
from lib.training.losses import LossName, Weight, problem_with


class TrainingSettings(Block):
    """DPO with LoRA on the language model (paper 4.1; where the paper is silent, the published
    code).

    Vision encoder and projector stay frozen, since the paper trains the backbone with LoRA; the
    published code also names a learning rate for the projector (2e-5), which
    `projector_learning_rate` is for.
    """

    epochs: float = Field(2.0, gt=0, description="Passes over the pairs (paper 4.1).")
    learning_rate: float = Field(1e-5, gt=0, description="Peak rate (paper 4.1).")
    projector_learning_rate: float | None = Field(
        None,
        gt=0,
        description=(
            "Trains the projector, too, all of its weights, with this peak rate; null leaves it"
            " frozen, as the vision tower always is."
        ),
        json_schema_extra=LATER,
    )
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="Learning rate over time."
    )
    warmup_ratio: Fraction = Field(0.03, description="Share of the steps spent warming up.")
    batch_size: PositiveInt = Field(1, description="Pairs a process and step (paper 4.1).")
    gradient_accumulation: PositiveInt = Field(
        4, description="Steps whose gradients are added before an update (paper 4.1)."
    )
    processes: PositiveInt = Field(2, description="Processes, one a GPU (paper 4.1: 2 A100).")
    beta: float = Field(
        0.1, gt=0, description="DPO's beta: how far the policy may move from the reference."
    )
    losses: dict[LossName, Weight] = Field(
        default_factory=lambda: {"sigmoid": 1.0},
        description=(
            "TRL's losses by name, each with its weight in the sum (docs/training.md): the paper's"
            " is `sigmoid`; MPO's mixture is `{sigmoid: 0.8, bco_pair: 0.2, sft: 1.0}`."
        ),
        json_schema_extra=LATER,
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=0.5,
        description=(
            "The share of preferences that is taken to be wrong, in the losses `robust`, `exo_pair`"
            " (which need it), `aot` and `aot_unpaired`."
        ),
        json_schema_extra=LATER,
    )
    tuning: Literal["lora", "qlora", "full"] = Field(
        "lora",
        description=(
            "`qlora` holds the language model in 4 bits while its adapter is trained (a quarter of"
            " the memory of its weights, on a GPU); the adapter is merged into the weights as they"
            " are. `full` trains all weights of the language model, and no adapter"
            " (docs/training.md)."
        ),
        json_schema_extra=LATER,
    )
    lora_rank: PositiveInt = Field(128, description="LoRA rank.")
    lora_alpha: PositiveInt = Field(256, description="LoRA alpha.")
    lora_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="LoRA dropout; the published code's 0.05 is switched off by its trainer.",
    )
    max_length: PositiveInt = Field(
        5012,
        description="Tokens of image, instruction and response together; what is longer is cut.",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    max_gradient_norm: float = Field(
        1.0, gt=0, description="Gradients are scaled down to this norm."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="DeepSpeed ZeRO stage; 0 trains without DeepSpeed (paper 4.1: 2)."
    )
    gradient_checkpointing: bool = Field(
        True,
        description=(
            "Recompute activations once a process has run out of memory, in place of an error"
            " (docs/training.md)."
        ),
    )
    save_steps: PositiveInt = Field(
        100,
        description="Updates between checkpoints; a killed training goes on from the last one.",
        json_schema_extra=NO_EFFECT,
    )
    seed: int = Field(42, ge=0, description="Order of the pairs and LoRA's first values.")

    @model_validator(mode="after")
    def _losses_have_what_they_need(self) -> Self:
        if problem := problem_with(self.losses, self.label_smoothing, self.batch_size):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _weights_can_be_shared_out(self) -> Self:
        if self.zero_stage == 3:
            for problem, is_there in (
                ("those in 4 bits of `tuning: qlora`", self.tuning == "qlora"),
                ("the second copy that `tuning: full` keeps", self.tuning == "full"),
                (
                    "the second copy that `projector_learning_rate` keeps",
                    self.projector_learning_rate is not None,
                ),
            ):
                if is_there:
                    raise ValueError(
                        "`zero_stage` 3 shares the base model's weights out, which it cannot with"
                        f" {problem}. Take stage 2"
                    )
        return self

    @property
    def environment(self) -> str:
        """The environment (envs/<name>.yaml) of a job that trains."""
        return "training"
