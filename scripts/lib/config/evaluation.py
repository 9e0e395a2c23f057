"""Stage evaluation: which benchmarks, and how they are asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from lib.blocks import Block, Endpoint, Name
from lib.config.contamination import Contamination
from lib.models.response_generators.registry import Backend
from lib.registry import chosen_from


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
    def _data_exists(self) -> Self:
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
    def _files_exist(self) -> Self:
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


class _BenchmarkKinds:
    """A block with `task` is lmms-eval's, one with `scorer` alone is answered by our own rule."""

    def blocks(self) -> list[type[Block]]:
        """Both kinds."""
        return [TaskBenchmark, QuestionBenchmark]

    def block_for(self, values: Mapping[str, Any]) -> type[Block]:
        """The block of a benchmark of this kind."""
        return QuestionBenchmark if "scorer" in values and "task" not in values else TaskBenchmark

    def validate(self, values: Any) -> Any:
        """A configuration's values as a benchmark."""
        return self.block_for(values).model_validate(values) if isinstance(values, dict) else values


Benchmark = Annotated[TaskBenchmark | QuestionBenchmark, chosen_from(_BenchmarkKinds())]


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
    backend: Backend = Field(
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
