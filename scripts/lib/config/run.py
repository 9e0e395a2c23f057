"""The configuration: every scientific choice, its default (the paper's), and what is refused.

`docs/configuration.md` is made from these models by `make docs`; a test keeps it in step.
"""

import difflib
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from lib import weights
from lib.data.controls import Control, Pick
from lib.data.prompts import TOPIC
from lib.errors import UserError
from lib.models.instruction_authors.checks import problem_with_template

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
Topic = Annotated[str, StringConstraints(pattern=rf"^{TOPIC}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
DType = Literal["float32", "bfloat16", "float16"]


class Block(BaseModel):
    """A block of the configuration; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Model(Block):
    """A model and where its weights come from."""

    model: str = Field(min_length=1, description="Hub repository (`owner/name`) or folder.")
    revision: str = Field(
        "main",
        min_length=1,
        description=(
            "Commit, tag or branch of a hub repository; its resolved commit goes into every record."
        ),
    )
    dtype: DType = Field("bfloat16", description="Number format the weights are computed in.")

    @model_validator(mode="before")
    @classmethod
    def _default_revision_is_of_the_default_model(cls, values: Any) -> Any:
        if (
            isinstance(values, dict)
            and values.get("model", cls.model_fields["model"].default)
            != cls.model_fields["model"].default
        ):
            return {"revision": "main", **values}
        return values

    @model_validator(mode="after")
    def _folder_exists(self) -> "Model":
        if problem := weights.problem_with_folder(self.model):
            raise ValueError(f"`model`: {problem}")
        return self


class Endpoint(Block):
    """An OpenAI-compatible endpoint."""

    base_url: str = Field(
        pattern=r"^https?://", description="Base URL, ending in `/v1` for most servers."
    )
    model: str = Field(min_length=1, description="The model's name at the endpoint.")
    api_key_variable: str | None = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_]\w*$",
        description=(
            "Environment variable that holds the key; null for a server that wants none. The key"
            " itself is never configured."
        ),
    )
    concurrency: PositiveInt = Field(8, description="Requests under way at once.")
    timeout: float = Field(60, gt=0, description="Seconds to wait for one answer.")
    retries: int = Field(
        5,
        ge=0,
        description=(
            "Further tries after a connection error, 429, 5xx or nonsense, with growing waits."
        ),
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "Request parameters sent as they are, e.g. `reasoning_effort: low`; null leaves out one"
            " that is otherwise sent (`temperature`, `max_tokens`, `seed`)."
        ),
    )

    @model_validator(mode="after")
    def _holds_no_secret(self) -> "Endpoint":
        if "@" in self.base_url:
            raise ValueError(
                "`base_url` holds a name or password (`@`): put the key into an environment"
                " variable, see `api_key_variable`"
            )
        return self


class Images(Model):
    """Stage images: four candidates a prompt, one at each guidance scale (paper 3.2; model card of
    SD3-medium).
    """

    model: str = "stabilityai/stable-diffusion-3-medium-diffusers"
    revision: str = "ea42f8cef0f178587cf766dc8129abd379c90671"
    dtype: DType = "float16"
    guidance_scales: list[Annotated[float, Field(gt=1)]] = Field(
        [5.0, 7.0, 9.0, 11.0],
        min_length=1,
        description="One candidate each; over 1, since 1 means no guidance (paper 4.3, Figure 4).",
    )
    steps: PositiveInt = Field(28, description="Denoising steps.")
    height: PositiveInt = Field(1024, multiple_of=8, description="Pixels.")
    width: PositiveInt = Field(1024, multiple_of=8, description="Pixels.")
    negative_prompt: str = Field("", description="What the images should not show.")
    max_sequence_length: int = Field(
        256,
        ge=0,
        le=512,
        description="Tokens of a prompt that the T5 encoder reads; 0 leaves T5 out.",
    )
    format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="Image files; png and webp are lossless here, jpeg is not."
    )

    @model_validator(mode="after")
    def _scales_differ(self) -> "Images":
        if len(set(self.guidance_scales)) < len(self.guidance_scales):
            raise ValueError("the same guidance scale stands twice in `guidance_scales`")
        return self


class ImageScorer(Model):
    """A model that scores how well an image fits its prompt."""

    kind: Literal["image-reward", "clip", "blip"] = Field(description="Architecture and formula.")
    dtype: DType = "float32"
    tokenizer: Model | None = Field(
        None,
        description=(
            "ImageReward only: where its BERT tokenizer comes from; without it, the model's own"
            " folder."
        ),
    )
    backend: Literal["native", "image-reward"] = Field(
        "native",
        description=(
            "ImageReward only: our reading of the original checkpoint, or the original package in"
            " its own environment."
        ),
    )


class PickJudge(Block):
    """Table 5: a judge says which of two scorers' picks shows the prompt better (paper,
    supplementary A, where it is GPT-4o).

    Each pair is shown in both orders, since judges favour a position; that makes two requests a
    comparison.
    """

    endpoint: Endpoint = Field(description="The judge: a model that sees images.")
    against: Name = Field(
        "clip", description="The scorer whose picks are compared with those of `select_by`."
    )
    comparisons: PositiveInt = Field(
        100,
        description=(
            "How many prompts of those whose picks differ are shown, drawn with the run's seed"
            " (paper: 100)."
        ),
    )


class ImageRanking(Block):
    """Stage image ranking: scores of all candidates by each scorer; the winner is the first maximum
    of one of them (paper 3.2).
    """

    scorers: dict[Name, ImageScorer] = Field(
        default_factory=lambda: {
            "image-reward": ImageScorer(
                kind="image-reward",
                model="THUDM/ImageReward",
                revision="5736be03b2652728fb87788c9797b0570450ab72",
                tokenizer=Model(
                    model="google-bert/bert-base-uncased",
                    revision="86b5e0934494bd15c9632b12f734a8a67f723594",
                    dtype="float32",
                ),
            ),
            "clip": ImageScorer(
                kind="clip",
                model="openai/clip-vit-large-patch14",
                revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
            ),
            "blip": ImageScorer(
                kind="blip",
                model="Salesforce/blip-itm-large-coco",
                revision="fef05cafc05298067cbbca00b125749394a77a6f",
            ),
        },
        min_length=1,
        description="By name; Table 4 compares those that are here.",
    )
    select_by: Name = Field("image-reward", description="The scorer that picks the image.")
    min_image_reward: float | None = Field(
        None, description="Prompts whose best image scores lower get no pair; null keeps all."
    )
    pick: Pick = Field(
        "best",
        description=(
            "Which candidate goes on: `best` is the scorer's; `random`, a negative control of the"
            " ranking, draws one with the run's seed among those that are not blank."
            " `min_image_reward` is of the best one either way (docs/evaluation.md, Controls)."
        ),
    )
    judge: PickJudge | None = Field(
        None,
        description=(
            "Who judges the picks of two scorers for Table 5; null leaves the table's rows empty."
        ),
    )

    @model_validator(mode="after")
    def _selector_exists(self) -> "ImageRanking":
        if self.select_by not in self.scorers:
            raise ValueError(
                f"`select_by` is '{self.select_by}', but `scorers` has {', '.join(self.scorers)}"
            )
        if self.judge and self.judge.against not in self.scorers:
            raise ValueError(
                f"`judge.against` is '{self.judge.against}', but `scorers` has"
                f" {', '.join(self.scorers)}"
            )
        if self.judge and self.judge.against == self.select_by:
            raise ValueError(
                f"`judge.against` and `select_by` are both '{self.select_by}': a scorer agrees with"
                " itself. Name another one"
            )
        return self


INSTRUCTION_TEMPLATE = """\
Below is the description from which an image was made. Write one question about the image that can be answered by looking at it, and \
that asks for a detailed answer about its objects, their number, colours, positions or actions. Do not mention the description. \
Answer with the question only.

Description: {prompt}"""


class Instructions(Block):
    """Stage instructions: one instruction a prompt, about the picked image (paper 3.3; the paper
    used GPT-4).
    """

    backend: Literal["openai", "transformers", "vllm", "file", "template"] = Field(
        "openai",
        description=(
            "Who writes: an endpoint, a local LLM, or you, an instruction for each prompt or some"
            " templates for all."
        ),
    )
    endpoint: Endpoint | None = Field(
        default_factory=lambda: Endpoint(
            base_url="https://api.openai.com/v1", model="gpt-4o-2024-08-06"
        ),
        description="For backend `openai`.",
    )
    llm: Model | None = Field(None, description="For backends `transformers` and `vllm`.")
    file: str | None = Field(
        None,
        description=(
            "For backend `file`: JSON lines, each with `prompt` (its text) or `id`, and"
            " `instruction`."
        ),
    )
    templates: list[str] | None = Field(
        None,
        description=(
            "For backend `template`: the instructions, of which one is drawn for each prompt with"
            " the run's seed; no LLM is asked. `{prompt}` stands for the text-to-image prompt,"
            " where an instruction is to have it."
        ),
    )
    template: str = Field(
        INSTRUCTION_TEMPLATE,
        description="What the LLM is asked; `{prompt}` stands for the text-to-image prompt.",
    )
    with_image: bool = Field(False, description="Backend `openai`: send the picked image along.")
    max_new_tokens: PositiveInt = Field(200, description="Length limit of an instruction.")
    temperature: float = Field(0.7, ge=0, description="0 is greedy.")
    max_attempts: PositiveInt = Field(
        3,
        description=(
            "An instruction that fails the checks is asked for again, up to so many times in all."
        ),
    )
    require_question: bool = Field(True, description="Refuse instructions without a question mark.")
    prompts_per_batch: PositiveInt = Field(
        1,
        description=(
            "Backends `transformers` and `vllm`: prompts in one batch. Over 1 it is faster, and low"
            " bits may depend on what shares a batch; the record says so."
        ),
    )
    max_model_len: PositiveInt = Field(
        4096, description="Backend `vllm`: tokens of question and instruction together."
    )

    @field_validator("templates")
    @classmethod
    def _as_prompts_are(cls, templates: list[str] | None) -> list[str] | None:
        return templates and [
            unicodedata.normalize("NFC", template.strip()) for template in templates
        ]

    @model_validator(mode="after")
    def _templates_are_usable(self) -> "Instructions":
        if self.templates is None:
            return self
        if not self.templates:
            raise ValueError(
                "`templates` is an empty list: no prompt would get an instruction. Add a text, or"
                " take the key away"
            )
        for number, template in enumerate(self.templates, start=1):
            if template in self.templates[: number - 1]:
                raise ValueError(
                    f"`templates`: the text {template[:60]!r} stands there twice. Delete one"
                )
            if problem := problem_with_template(template, self.require_question):
                mend = (
                    "Add one, or set `require_question: false`"
                    if "no question mark" in problem
                    else "Correct it"
                )
                raise ValueError(
                    f"`templates`: text {number} ({template[:60]!r}) cannot be used: {problem}."
                    f" {mend}"
                )
        return self

    @model_validator(mode="after")
    def _backend_is_complete(self) -> "Instructions":
        if self.with_image and self.backend != "openai":
            raise ValueError(
                f"`with_image` is for backend 'openai'; backend '{self.backend}' reads no images."
                " Set it to false"
            )
        if "{prompt}" not in self.template and self.backend not in ("file", "template"):
            raise ValueError(
                "`template` has no `{prompt}`: the instruction would be about nothing. Put"
                " `{prompt}` where the prompt belongs"
            )
        needed = {
            "openai": "endpoint",
            "transformers": "llm",
            "vllm": "llm",
            "file": "file",
            "template": "templates",
        }[self.backend]
        if getattr(self, needed) is None:
            raise ValueError(f"backend '{self.backend}' needs `{needed}`")
        if self.backend == "file" and not Path(str(self.file)).is_file():
            raise ValueError(f"`file`: there is no file '{self.file}'. Correct the path")
        return self


class Responses(Block):
    """Stage responses: one answer by each policy model (paper 3.3, Eq. 8; sampling as the published
    code leaves it).
    """

    backend: Literal["vllm", "transformers"] = Field(
        "vllm", description="What runs the policy models."
    )
    policy_models: dict[Name, Model] = Field(
        default_factory=lambda: {
            "llava-v1.6-mistral-7b": Model(
                model="llava-hf/llava-v1.6-mistral-7b-hf",
                revision="2424fdd47412fccc66d91719126b420e9fbd7065",
            ),
            "llava-v1.6-vicuna-7b": Model(
                model="llava-hf/llava-v1.6-vicuna-7b-hf",
                revision="c916e6cdcd760b4cecd1dd4907f84ac649f93b23",
            ),
            "llava-v1.6-vicuna-13b": Model(
                model="llava-hf/llava-v1.6-vicuna-13b-hf",
                revision="745cfbdb14dfeff9bcc6eb731937102e88ea3024",
            ),
            "llama3-llava-next-8b": Model(
                model="llava-hf/llama3-llava-next-8b-hf",
                revision="b041c0d0ea0dd0196d147206c210c8d1752fc2da",
            ),
        },
        min_length=2,
        description="By name, at least two; each answers every instruction.",
    )
    max_new_tokens: PositiveInt = Field(
        1000,
        description=(
            "Length limit of a response; one that reaches it is truncated and never becomes part of"
            " a pair."
        ),
    )
    temperature: float = Field(1.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    prompts_per_batch: PositiveInt = Field(
        1,
        description=(
            "Prompts a policy model answers in one batch. Over 1 it is faster, and low bits may"
            " depend on what shares a batch; the record says so."
        ),
    )
    max_model_len: PositiveInt = Field(
        4096, description="vLLM: tokens of image, instruction and response together."
    )

    @model_validator(mode="after")
    def _policy_models_differ(self) -> "Responses":
        homes: dict[tuple[str, str], str] = {}
        for name, policy in self.policy_models.items():
            if (other := homes.setdefault((policy.model, policy.revision), name)) != name:
                raise ValueError(
                    f"policy models '{other}' and '{name}' are the same model '{policy.model}': "
                    "their answers cannot be ranked against each other. Take one of them out"
                )
        return self


class ResponseRanking(Model):
    """Stage response ranking: ArmoRM's score of each valid response (paper 3.3, Eq. 9; model card)."""

    model: str = "RLHFlow/ArmoRM-Llama3-8B-v0.1"
    revision: str = "eb2676d20da2f2d41082289d23c59b9f7427f955"
    template: str = Field(
        "{instruction}",
        description=(
            "What the reward model reads as the user's words, with `{instruction}`. It cannot see"
            " the image: with `{prompt}` it is told what the image was to show, which the policy"
            " models are not."
        ),
    )
    max_length: PositiveInt = Field(
        4096,
        description=(
            "Tokens of instruction and response together; longer responses are cut at their end for"
            " scoring."
        ),
    )
    max_repeats: PositiveInt = Field(
        5,
        description=(
            "A response that says the same words this often in a row is endlessly repeating, and"
            " invalid."
        ),
    )

    @field_validator("template")
    @classmethod
    def _template_is_usable(cls, template: str) -> str:
        if "{instruction}" not in template:
            raise ValueError(
                "has no `{instruction}`: the reward model would not know what was asked. Put it"
                " where the instruction belongs"
            )
        if unknown := sorted(set(re.findall(r"\{\w+\}", template)) - {"{instruction}", "{prompt}"}):
            raise ValueError(
                f"knows no `{unknown[0]}`. Known here: `{{instruction}}`, `{{prompt}}`"
            )
        return template


class Pairs(Block):
    """Stage pairs: chosen is the first maximum, rejected the first minimum of the valid responses
    (paper 3.3, Eq. 10).
    """

    min_margin: float = Field(
        0.0,
        ge=0,
        description="Pairs whose scores differ by no more than this are left out; ties always are.",
    )
    sizes: list[PositiveInt] = Field(
        [2000, 5000, 7000, 9000],
        min_length=1,
        description="Data set sizes; nested and stratified by topic (paper Table 3).",
    )

    @model_validator(mode="after")
    def _sizes_differ(self) -> "Pairs":
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError("the same size stands twice in `sizes`")
        return self


class TrainingSettings(Block):
    """DPO with LoRA on the language model (paper 4.1; where the paper is silent, the published
    code).

    Vision encoder and projector stay frozen, since the paper trains the backbone with LoRA; the
    published code also names a learning rate for the projector (2e-5), which is not followed here.
    """

    epochs: float = Field(2.0, gt=0, description="Passes over the pairs (paper 4.1).")
    learning_rate: float = Field(1e-5, gt=0, description="Peak rate (paper 4.1).")
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
    gradient_checkpointing: bool = Field(True, description="Recompute activations to save memory.")
    save_steps: PositiveInt = Field(
        100, description="Updates between checkpoints; a killed training goes on from the last one."
    )
    seed: int = Field(42, ge=0, description="Order of the pairs and LoRA's first values.")


class Experiment(Block):
    """A data set size, and the training settings in which it differs from `training.settings`."""

    size: PositiveInt = Field(description="One of `pairs.sizes`.")
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


class Training(Block):
    """Stage training."""

    base_model: Model = Field(
        default_factory=lambda: Model(
            model="llava-hf/llava-1.5-7b-hf", revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9"
        ),
        description="The model to align.",
    )
    prompt_template: str = Field(
        "USER: <image>\n{instruction} ASSISTANT:",
        description=(
            "How the base model is asked in training; the processor adds BOS. In evaluation, its"
            " own chat template asks."
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
    def _overrides_are_settings(self) -> "Training":
        if "{instruction}" not in self.prompt_template or "<image>" not in self.prompt_template:
            raise ValueError("`prompt_template` needs both `<image>` and `{instruction}`")
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
        for name, experiment in self.experiments.items():
            for key in experiment.settings:
                if key not in TrainingSettings.model_fields:
                    near = difflib.get_close_matches(
                        key, TrainingSettings.model_fields, n=1, cutoff=0.5
                    )
                    known = (
                        f"Did you mean `{near[0]}`?"
                        if near
                        else f"Known here: {', '.join(TrainingSettings.model_fields)}."
                    )
                    raise ValueError(
                        f"experiment '{name}' overrides `{key}`, which is not a training setting."
                        f" {known}"
                    )
            try:
                self.settings_of(name)
            except ValidationError as error:
                problem = error.errors()[0]
                key = ".".join(map(str, problem["loc"]))
                raise ValueError(
                    f"experiment '{name}' overrides `{key}`: {problem['msg']} (found"
                    f" {problem['input']!r})"
                ) from error
        return self

    def settings_of(self, experiment: str) -> TrainingSettings:
        """The training settings of one experiment, its overrides applied."""
        return TrainingSettings.model_validate(
            {**self.settings.model_dump(), **self.experiments[experiment].settings}
        )

    def told(self, experiment: str) -> dict[str, Any]:
        """What rule train_dpo is told of one experiment besides the base model."""
        told = {
            "prompt_template": self.prompt_template,
            "training": self.settings_of(experiment).model_dump(mode="json"),
        }
        control = self.experiments[experiment].control
        # Only there, so that no other experiment's parameters change.
        return told | ({"control": control} if control else {})


class TaskBenchmark(Block):
    """A benchmark that lmms-eval answers and scores: `task` names it."""

    task: Name = Field(description="lmms-eval's name of the task.")
    metrics: dict[str, str] = Field(
        min_length=1, description="Our name of each score -> lmms-eval's name of it."
    )
    percent: bool = Field(
        False, description="lmms-eval gives a fraction of 1, the paper's table percent."
    )
    data: dict[str, str] | None = Field(
        None,
        min_length=1,
        description=(
            "Local data in place of the hub's: split (that the task reads) -> parquet file. The"
            " task stays lmms-eval's own."
        ),
    )
    data_revision: str | None = Field(
        None,
        min_length=1,
        description="Commit, tag or branch of the task's hub data set; null is its newest.",
    )
    prompt: dict[str, str | bool] = Field(
        default_factory=dict,
        description=(
            "Overrides of how the task asks (lmms-eval's `lmms_eval_specific_kwargs`), e.g."
            " `post_prompt`."
        ),
    )
    limit: PositiveInt | None = Field(
        None,
        description=(
            "Only the first so many questions; null takes all. A score with a limit is marked."
        ),
    )
    judge: Endpoint | None = Field(
        None,
        description=(
            "For tasks that lmms-eval has judged by a model (`mmvet`). Without it the questions are"
            " answered, and the judged scores are left out with that reason."
        ),
    )
    scorer: Literal["pope", "mm_vet"] | None = Field(
        None,
        description=(
            "Our scorer, which scores lmms-eval's answers too: its scores stand beside lmms-eval's,"
            " named `reference_<score>`, because they are those of the benchmark's own script."
            " `mm_vet` has the judge grade five times, as MM-Vet's authors do, when the answers are"
            " scored; lmms-eval's own grading is then left out."
        ),
    )

    @model_validator(mode="after")
    def _data_exists(self) -> "TaskBenchmark":
        for split, path in (self.data or {}).items():
            if not Path(path).is_file():
                raise ValueError(
                    f"`data.{split}`: there is no file '{path}'. Correct it; `demo/benchmarks` is"
                    " built by `make demo-models`"
                )
            with open(path, "rb") as stream:
                begins, size = stream.read(4), stream.seek(0, 2)
                stream.seek(max(0, size - 4))
                if size < 12 or not begins == stream.read() == b"PAR1":
                    raise ValueError(
                        f"`data.{split}`: '{path}' is not a whole parquet file. Replace it"
                    )
        if self.data and self.data_revision:
            raise ValueError(
                "`data_revision` is of the hub's data set, and `data` replaces that. Take one of"
                " them away"
            )
        if self.scorer == "mm_vet" and self.task != "mmvet":
            raise ValueError(
                f"`scorer`: 'mm_vet' scores answers of task 'mmvet', not of '{self.task}'. Take it"
                " away"
            )
        if self.judge and self.task not in JUDGED_TASKS:
            raise ValueError(
                f"`judge`: lmms-eval's task '{self.task}' is given none; those that are:"
                f" {', '.join(JUDGED_TASKS)}. Take it away"
            )
        return self


class QuestionBenchmark(Block):
    """A benchmark that our rule `answer_questions` answers and our scorer scores: no `task`, and
    `scorer` names it.

    Its files are the ones that the benchmark publishes, downloaded by you
    (docs/adding-a-benchmark.md says from where).
    """

    scorer: Literal["amber", "object_halbench", "mmhal_bench", "chair", "pope"] = Field(
        description="Our scorer."
    )
    questions: list[str] = Field(
        min_length=1, description="The benchmark's files of questions, one path or several."
    )
    images: str | None = Field(
        None,
        description="Folder of the images; null where the questions hold them (Object HalBench).",
    )
    reference: list[str] = Field(
        min_length=1,
        description=(
            "What the answers are held against: files or folders, as `python scripts/score.py"
            " --help` lists them."
        ),
    )
    prompt: str | dict[Name, str] | None = Field(
        None,
        description=(
            "How a question is put, with `{question}`; by kind of question where they differ"
            " (AMBER: `generative`, `discriminative`). Null is the form that gave LLaVA-1.5's"
            " published score (docs/adding-a-benchmark.md names its source)."
        ),
    )
    max_new_tokens: PositiveInt | None = Field(
        None, description="Length limit of an answer; null is that of the same source."
    )
    beams: PositiveInt | None = Field(
        None,
        description=(
            "Beams of the search for an answer; 1 is greedy. Null is what the benchmark's authors"
            " take for LLaVA-1.5: 3 for Object HalBench, 1 for the others. With several,"
            " transformers answers, one question at a time, whatever `evaluation.backend` is."
        ),
    )
    limit: PositiveInt | None = Field(
        None,
        description=(
            "Only the first so many questions; null takes all. A score with a limit is marked."
        ),
    )
    judge: Endpoint | None = Field(
        None,
        description=(
            "The model that judges (MMHal-Bench) or extracts objects (Object HalBench, which does"
            " without, by words). A score that needs a judge that is not there is left out with"
            " that reason."
        ),
    )
    language: Literal["auto", "reference", "stand-in", "exact"] = Field(
        "auto",
        description=(
            "Language tools of the scorer: see docs/evaluation.md. Their names go into the score."
        ),
    )

    @field_validator("questions", "reference", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _files_exist(self) -> "QuestionBenchmark":
        for path in self.questions:
            if not Path(path).is_file():
                raise ValueError(
                    f"`questions`: there is no file '{path}'. Correct the path, or take the"
                    " benchmark out"
                )
        for path in self.reference:
            if not Path(path).exists():
                raise ValueError(
                    f"`reference`: there is no file or folder '{path}'. Correct the path, or take"
                    " the benchmark out"
                )
        if self.images is not None and not Path(self.images).is_dir():
            raise ValueError(
                f"`images`: there is no folder '{self.images}'. Correct the path, or take the"
                " benchmark out"
            )
        forms = (
            self.prompt.values()
            if isinstance(self.prompt, dict)
            else [self.prompt]
            if self.prompt
            else []
        )
        if any("{question}" not in form for form in forms):
            raise ValueError(
                "`prompt` has no `{question}`: every question would be the same. Put `{question}`"
                " where the question belongs"
            )
        if self.judge and self.scorer not in JUDGED_SCORERS:
            raise ValueError(
                f"`judge`: scorer '{self.scorer}' asks none; those that do:"
                f" {', '.join(JUDGED_SCORERS)}. Take it away"
            )
        return self


#: lmms-eval's tasks that a judge scores, of those that a judge can be configured for.
JUDGED_TASKS = ("mmvet",)
#: Our scorers that ask a judge.
JUDGED_SCORERS = ("mmhal_bench", "object_halbench")
#: Our scorers that say where in an answer an object is mentioned.
MENTIONS_SCORERS = ("chair", "object_halbench")
#: Beams of those benchmarks whose authors do not answer greedily: muffin/eval/llava15_chair.py of
#: RLHF-V/RLAIF-V.
BEAMS = {"object_halbench": 3}


def _kind_of_benchmark(values: Any) -> str:
    keys = (
        values
        if isinstance(values, dict)
        else type(values).model_fields
        if isinstance(values, Block)
        else {}
    )
    return "of our own" if "scorer" in keys and "task" not in keys else "of lmms-eval"


#: A block with `task` is lmms-eval's, one with `scorer` alone is answered by our own rule.
Benchmark = Annotated[
    Annotated[TaskBenchmark, Tag("of lmms-eval")] | Annotated[QuestionBenchmark, Tag("of our own")],
    Discriminator(_kind_of_benchmark),
]
BENCHMARK_KINDS: dict[str, type[Block]] = {
    "of lmms-eval": TaskBenchmark,
    "of our own": QuestionBenchmark,
}


class Contamination(Block):
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

    @model_validator(mode="after")
    def _what_is_excluded_is_checked(self) -> "Contamination":
        if self.exclude and not self.check:
            raise ValueError(
                "`exclude` is true and `check` false: what is not looked for cannot be left out."
                " Set `check: true`"
            )
        return self


def _default_benchmarks() -> dict[str, TaskBenchmark | QuestionBenchmark]:
    """The paper's benchmarks whose data are on the hub. The others' files are downloaded by hand:
    see config.yaml.
    """
    return {
        "vqav2": TaskBenchmark(task="vqav2_val", metrics={"accuracy": "exact_match"}, percent=True),
        "scienceqa": TaskBenchmark(
            task="scienceqa_img", metrics={"accuracy": "exact_match"}, percent=True
        ),
        "textvqa": TaskBenchmark(
            task="textvqa_val",
            metrics={"accuracy": "exact_match"},
            percent=True,
            prompt={"ocr": True},
        ),
        "mme": TaskBenchmark(
            task="mme",
            metrics={"perception": "mme_perception_score", "cognition": "mme_cognition_score"},
        ),
        "mm_vet": TaskBenchmark(
            task="mmvet",
            metrics={"score": "gpt_eval_score"},
            prompt={"pre_prompt": ""},
            scorer="mm_vet",
        ),
        "mmbench": TaskBenchmark(
            task="mmbench_en_dev_static", metrics={"accuracy": "gpt_eval_score"}
        ),
        "pope": TaskBenchmark(
            task="pope",
            metrics={"accuracy": "pope_accuracy", "f1": "pope_f1_score"},
            percent=True,
            scorer="pope",
        ),
    }


#: LLaVA's llava/conversation.py, `conv_vicuna_v1`, which its evaluation scripts use for LLaVA-1.5.
SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


class Evaluation(Block):
    """Stage evaluation: the base model and every experiment on every benchmark."""

    benchmarks: dict[Name, Benchmark] = Field(
        default_factory=_default_benchmarks,
        description=(
            "By name (paper Tables 1 to 3). A block with `task` is lmms-eval's (TaskBenchmark); one"
            " with `scorer` and no `task` is answered by our own rule (QuestionBenchmark)."
            " lmms-eval's questions are asked one at a time: its LLaVA takes no batches."
        ),
    )
    backend: Literal["vllm", "transformers"] = Field(
        "vllm", description="What runs the model on the questions of a QuestionBenchmark."
    )
    questions_per_batch: PositiveInt = Field(
        1,
        description=(
            "Questions of a QuestionBenchmark in one batch. Over 1 it is faster, and low bits may"
            " depend on what shares a batch; the record says so."
        ),
    )
    max_model_len: PositiveInt = Field(
        4096, description="Backend `vllm`: tokens of image, question and answer together."
    )
    system_prompt: str | None = Field(
        SYSTEM_PROMPT,
        min_length=1,
        description=(
            "Stands before a prompt that begins with `USER:` (LLaVA-1.5's form), in every"
            " benchmark; null leaves it out, as the hub's chat template does. LLaVA-1.5's published"
            " scores are with it (its conversation `vicuna_v1`)."
        ),
    )
    contamination: Contamination = Field(default_factory=Contamination)


class TextEmbedding(Model):
    """A sentence embedding model, in the layout of the library sentence-transformers, with mean or
    CLS pooling. It runs on the CPU.
    """

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    revision: str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    dtype: DType = "float32"
    max_length: PositiveInt = Field(
        256,
        description=(
            "Tokens of a text; what is longer is cut at its end (256 is this model's own limit)."
        ),
    )


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


PROMPT_TEMPLATE = """\
Write {count} descriptions of images on the topic "{topic}", for a text-to-image model. Each is one English sentence of {min_words} to \
{max_words} words about one specific scene, with objects, their number, colours, positions and actions that a question can be asked about. \
Vary places, people, times and points of view. Answer with the descriptions only, one a line, without numbers or quotation marks.

These are there already; write others:
{examples}"""


class GeneratePrompts(Block):
    """Rule generate_prompts (off by default): asks an LLM for more prompts on a topic; you review
    them and add them to the file.
    """

    count: dict[Topic, PositiveInt] = Field(
        default_factory=dict, description="Topic -> how many to propose."
    )
    endpoint: Endpoint | None = Field(
        None, description="Who writes; without it, `instructions.endpoint` does."
    )
    max_similarity: Fraction = Field(
        0.5,
        description=(
            "A proposal at least this similar to a prompt (Jaccard of word 3-shingles) is dropped."
        ),
    )
    min_words: PositiveInt = Field(15, description="Shorter proposals are dropped.")
    max_words: PositiveInt = Field(40, description="Longer proposals are dropped.")
    template: str = Field(
        PROMPT_TEMPLATE,
        description=(
            "What the LLM is asked; `{count}`, `{topic}`, `{min_words}`, `{max_words}` and"
            " `{examples}` are filled in."
        ),
    )
    temperature: float = Field(1.0, ge=0, description="0 is greedy.")

    @model_validator(mode="after")
    def _can_be_met(self) -> "GeneratePrompts":
        if self.min_words > self.max_words:
            raise ValueError(
                f"`min_words` ({self.min_words}) is more than `max_words` ({self.max_words})"
            )
        if "{topic}" not in self.template or "{count}" not in self.template:
            raise ValueError("`template` needs both `{topic}` and `{count}`")
        return self


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
    results: str = Field("results", min_length=1, description="Folder of all runs.")
    prompts: str = Field(
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
        le=100,
        description="Jobs a topic and stage. A prompt's shard is its hash modulo this number.",
    )
    device: Literal["cuda", "cpu"] = Field("cuda", description="Where models run.")
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
    scheduler_patience: float = Field(
        20,
        gt=0,
        description=(
            "On Slurm: minutes after which a head process that waits for jobs that are in no queue"
            " any more is ended, and between two warnings that Slurm does not answer."
        ),
    )
    generate_prompts: GeneratePrompts = Field(default_factory=GeneratePrompts)
    images: Images = Field(default_factory=Images)
    image_ranking: ImageRanking = Field(default_factory=ImageRanking)
    instructions: Instructions = Field(default_factory=Instructions)
    responses: Responses = Field(default_factory=Responses)
    response_ranking: ResponseRanking = Field(default_factory=ResponseRanking)
    pairs: Pairs = Field(default_factory=Pairs)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    figures: Figures = Field(default_factory=Figures)

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        if len(set(self.topics)) < len(self.topics):
            raise ValueError("the same topic stands twice in `topics`")
        for topic in self.generate_prompts.count:
            if topic not in self.topics:
                raise ValueError(
                    f"`generate_prompts.count` has topic '{topic}', which is not in `topics`"
                )
        for name, experiment in self.training.experiments.items():
            if experiment.size not in self.pairs.sizes:
                raise ValueError(
                    f"experiment '{name}' has size {experiment.size}, which is not in `pairs.sizes`"
                    f" ({', '.join(map(str, self.pairs.sizes))}). Add it there, or correct the"
                    " experiment"
                )
        if self.figures.answers:
            self._can_be_shown(self.figures.answers)
        return self

    def _can_be_shown(self, sheet: AnswersSheet) -> None:
        """A ValueError where the sheet of answers names what is not there, or a benchmark whose
        scorer marks nothing.
        """
        blocks = self.evaluation.benchmarks
        shown = [
            name
            for name, block in blocks.items()
            if isinstance(block, QuestionBenchmark) and block.scorer in MENTIONS_SCORERS
        ]
        choice = (
            f"Name one of {', '.join(shown)}"
            if shown
            else f"Configure one (its scorer {' or '.join(MENTIONS_SCORERS)})"
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
    def models(self) -> dict[str, Model]:
        """The models to evaluate before merging: the base under the name "base"; experiments are
        made by the run itself.
        """
        return {"base": self.training.base_model}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error: PyYAML would silently keep the last one."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if key_node.value in seen:
            raise UserError(
                f"{loader.name}, line {line}: the key '{key_node.value}' stands here and on line"
                f" {seen[key_node.value]}. Delete one of them."
            )
        seen[key_node.value] = line
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; syntax errors and doubled keys are UserErrors with file and line."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(
            f"{path}, line {line}: not valid YAML: {error.problem}. Correct it."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8. Save the file as UTF-8.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no `key: value` lines. See docs/configuration.md.")
    return content


def load(values: dict[str, Any], files: list[Path]) -> Config:
    """Validates a configuration; `files` are where it came from, to name file and line in the
    message.

    All mistakes are told at once, one a line. Errors: UserError.
    """
    for path in files:
        read_yaml(path)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        mistakes = [_mistake(problem, values, files) for problem in error.errors()]
        raise UserError("\n".join(mistakes)) from error


def _mistake(problem: Any, values: dict[str, Any], files: list[Path]) -> str:
    # Where a block is of several kinds, pydantic puts the name of the kind into the path.
    kinds = [part for part in problem["loc"] if part in BENCHMARK_KINDS]
    path = [part for part in problem["loc"] if part != "[key]" and part not in BENCHMARK_KINDS]
    key = ".".join(map(str, path)) or "the configuration"
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        # `evaluation.benchmarks.<name>` is where the kind stands.
        known = (
            _known_keys(path[3:-1], BENCHMARK_KINDS[str(kinds[0])])
            if kinds
            else _known_keys(path[:-1])
        )
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        text = "unknown key. " + (
            f"Did you mean `{near[0]}`?" if near else f"Known here: {', '.join(known)}."
        )
    elif problem["type"] == "missing":
        text = "this key is missing. Add it; docs/configuration.md says what it means."
    else:
        given = problem.get("input")
        shown = (
            f" (found {given!r})"
            if isinstance(given, str | int | float | bool | type(None))
            else ""
        )
        text = f"{text}{shown}. See docs/configuration.md." if not text.endswith(".") else text
    return f"{where(path, files)}{key}: {text}"


def _known_keys(path: list[Any], block: Any = None) -> list[str]:
    """The keys of the block at `path` below `block`, by default the whole configuration."""
    block = block or Config
    for part in path:
        if isinstance(block, type) and issubclass(block, BaseModel) and part in block.model_fields:
            block = block.model_fields[part].annotation
        elif getattr(block, "__origin__", None) is dict:
            block = block.__args__[1]
        choices = [block, *getattr(block, "__args__", ())]
        block = next(
            (
                choice
                for choice in choices
                if isinstance(choice, type) and issubclass(choice, BaseModel)
            ),
            block,
        )
    return (
        list(block.model_fields) if isinstance(block, type) and issubclass(block, BaseModel) else []
    )


def where(path: list[Any], files: list[Path]) -> str:
    """`file, line N: ` of the key at `path`, or of the nearest key above it that a file has."""
    for file in reversed(files):
        with open(file, encoding="utf-8") as stream:
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
        line = None
        for part in path:
            if isinstance(node, yaml.MappingNode):
                found = [pair for pair in node.value if pair[0].value == str(part)]
                if not found:
                    break
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif (
                isinstance(node, yaml.SequenceNode)
                and isinstance(part, int)
                and part < len(node.value)
            ):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        if line is not None:
            return f"{file}, line {line}: "
    return f"{files[-1]}: " if files else "--config: "
