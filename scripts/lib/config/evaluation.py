"""Stage evaluation: which benchmarks, and how they are asked."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from lib import weights
from lib.benchmarks.base import LanguageChoice
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.lmms_eval.parts import WHOLE, names_of_parts
from lib.benchmarks.lmms_eval.tasks import TaskSettings
from lib.benchmarks.mentions import MentionsBenchmark
from lib.benchmarks.questions import QuestionsBenchmark
from lib.benchmarks.registry import BENCHMARKS, Scorer, names_of
from lib.blocks import (
    LATER,
    NO_EFFECT,
    Block,
    Endpoint,
    Model,
    Name,
    UserPath,
    deterministic_field,
    gpus_field,
    max_image_megapixels_field,
)
from lib.config.contamination import Contamination
from lib.models.response_generators.registry import Backend
from lib.models.response_generators.settings import problem_with_gpus
from lib.registry import chosen_from


class TaskBenchmark(TaskSettings):
    """A benchmark that lmms-eval answers and scores: `task` names it."""

    percent: bool = Field(
        False, description="lmms-eval gives a fraction of 1, the paper's table percent."
    )
    scorer: Scorer | None = Field(
        None,
        description=(
            "Our scorer, `pope` or `mm_vet`, which scores lmms-eval's answers too: its scores stand"
            " beside lmms-eval's, named `reference_<score>`, because they are those of the"
            " benchmark's own script. `mm_vet` has the judge grade five times, as MM-Vet's authors"
            " do, when the answers are scored; lmms-eval's own grading is then left out."
        ),
    )

    shards: PositiveInt = Field(
        1,
        description=(
            "Jobs that answer a part of the questions each, those about one picture in one part;"
            " another joins them, with the same answers and scores as of one job. Choose as many as"
            " make a job an hour by the plan: 10 for VQAv2 with `task_backend: transformers`."
        ),
    )

    @model_validator(mode="after")
    def _scorer_is_of_the_task(self) -> Self:
        tasks = BENCHMARKS.load(self.scorer).kept_tasks if self.scorer else ("*",)
        if not tasks:
            raise ValueError(
                f"`scorer`: '{self.scorer}' scores no answers of lmms-eval. Take it away, or take"
                " `task` away and name its files (docs/adding-a-benchmark.md)"
            )
        if not any(fnmatchcase(self.task, pattern) for pattern in tasks):
            raise ValueError(
                f"`scorer`: '{self.scorer}' scores answers of task '{' or '.join(tasks)}', not of"
                f" '{self.task}'. Take it away"
            )
        return self


class QuestionBenchmark(Block):
    """A benchmark that our rule `answer_questions` answers and our scorer scores: no `task`, and
    `scorer` names it.

    Its files are the ones that the benchmark publishes, downloaded by you
    (docs/adding-a-benchmark.md says from where).
    """

    scorer: Scorer = Field(
        description="Our scorer: `amber`, `object_halbench`, `mmhal_bench`, `chair` or `pope`."
    )
    questions: list[UserPath] = Field(
        min_length=1, description="The benchmark's files of questions, one path or several."
    )
    images: UserPath | None = Field(
        None,
        description="Folder of the images; null where the questions hold them (Object HalBench).",
    )
    reference: list[UserPath] = Field(
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
            "Ask only the first N questions; null asks all. A score with a limit is marked."
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
    language: LanguageChoice = Field(
        "auto",
        description=(
            "Language tools of the scorer: see docs/evaluation.md. Their names go into the score."
        ),
    )

    @field_validator(
        "questions", "reference", mode="before", json_schema_input_type=str | list[str]
    )
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _scorer_has_questions(self) -> Self:
        cls = BENCHMARKS.load(self.scorer)
        if not issubclass(cls, QuestionsBenchmark):
            raise ValueError(
                f"`scorer`: '{self.scorer}' has no questions that our own rule asks; those that"
                f" have: {', '.join(names_of(QuestionsBenchmark))}. Name lmms-eval's `task`"
            )
        if self.judge and not issubclass(cls, JudgedBenchmark):
            raise ValueError(
                f"`judge`: scorer '{self.scorer}' asks none; those that do:"
                f" {', '.join(names_of(QuestionsBenchmark, JudgedBenchmark))}. Take it away"
            )
        return self

    @model_validator(mode="after")
    def _files_exist(self) -> Self:
        for path in self.questions:
            if not Path(path).is_file():
                raise ValueError(_no_such("questions", "file", path))
        for path in self.reference:
            if not Path(path).exists():
                raise ValueError(_no_such("reference", "file or folder", path))
        if self.images is not None and not Path(self.images).is_dir():
            raise ValueError(_no_such("images", "folder", self.images))
        return self

    @model_validator(mode="after")
    def _prompts_hold_the_question(self) -> Self:
        prompt = self.prompt or {}
        forms = [prompt] if isinstance(prompt, str) else list(prompt.values())
        if any("{question}" not in form for form in forms):
            raise ValueError(
                "`prompt` has no `{question}`: every question would be the same. Put `{question}`"
                " where the question belongs"
            )
        return self


def _no_such(key: str, what: str, path: str) -> str:
    return f"`{key}`: there is no {what} '{path}'. Correct the path, or take the benchmark out"


def counts_mentions(benchmark: Block) -> bool:
    """Whether a configured benchmark's scorer says where in an answer an object is mentioned."""
    return isinstance(benchmark, QuestionBenchmark) and issubclass(
        BENCHMARKS.load(benchmark.scorer), MentionsBenchmark
    )


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
        "vqav2": TaskBenchmark(
            task="vqav2_val",
            data_revision="32665d35052eb4a6d4414851c3c829a72754915a",
            metrics={"accuracy": "exact_match"},
            percent=True,
        ),
        "scienceqa": TaskBenchmark(
            task="scienceqa_img",
            data_revision="69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50",
            metrics={"accuracy": "exact_match"},
            percent=True,
        ),
        "textvqa": TaskBenchmark(
            task="textvqa_val",
            data_revision="9c0699cd19768ac5ab97568f6b3cbac4c0062884",
            metrics={"accuracy": "exact_match"},
            percent=True,
            prompt={"ocr": True},
        ),
        "mme": TaskBenchmark(
            task="mme",
            data_revision="d6c9023f017b564f7b3ccccf5348166bce8fdbcd",
            metrics={"perception": "mme_perception_score", "cognition": "mme_cognition_score"},
        ),
        "mm_vet": TaskBenchmark(
            task="mmvet",  # its data's commit is resolved when the run needs it
            metrics={"score": "gpt_eval_score"},
            prompt={"pre_prompt": ""},
            scorer="mm_vet",
        ),
        "mmbench": TaskBenchmark(
            task="mmbench_en_dev_static",
            data_revision="56ba1af8954932c4804bd3f522e05ed96e63b654",
            metrics={"accuracy": "gpt_eval_score"},
        ),
        "pope": TaskBenchmark(
            task="pope",
            data_revision="4db1276663dfa5eb8ad16a52d24c31a09e470896",
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


#: Fetched, too, of a model in that form: its weights may be no safetensors.
LLAVA_WEIGHTS = ("pytorch_model.bin",)


class ReleasedModel(Model):
    """A model that others, or you, have trained: evaluated beside this run's (docs/evaluation.md,
    Models of others).
    """

    layout: Literal["transformers", "llava"] = Field(
        "transformers",
        description=(
            "`llava`: a LLaVA-1.5 in the form of its authors' own code (`LlavaLlamaForCausalLM`:"
            " PDS-DPO-7B, RLAIF-V-7B). Its weights are put into the place of those of"
            " `training.base_model`, which must be of the same shape."
        ),
    )
    paper_row: PositiveInt | None = Field(
        None,
        description=(
            "The paper's row, by its number of pairs, that it is held against in tables; null:"
            " none."
        ),
    )
    gpus: PositiveInt | None = Field(
        None,
        description="GPUs that a job which asks it holds; null is `evaluation.gpus`.",
        exclude_if=lambda gpus: gpus is None,
    )

    @model_validator(mode="after")
    def _layout_is_known(self) -> Self:
        if self.layout == "transformers" and has_llava_layout(self.model):
            raise ValueError(
                f"`model`: '{self.model}' is in the form of LLaVA's own code, which transformers"
                " does not load. Set `layout: llava`"
            )
        return self

    def problem_with_files(self, folder: Path) -> str | None:
        """What it lacks; that of LLaVA's own code is looked at when it is converted."""
        return None if self.layout == "llava" else super().problem_with_files(folder)

    @property
    def plain(self) -> Model:
        """The model without what is said of it besides."""
        return Model(model=self.model, revision=self.revision, dtype=self.dtype)


def has_llava_layout(model: str) -> bool:
    """Whether a folder holds a model in the form of LLaVA's own code."""
    file = weights.folder_of(model) / "config.json" if weights.is_folder(model) else None
    return bool(file and file.is_file() and "LlavaLlamaForCausalLM" in file.read_text("utf-8"))


class Evaluation(Block):
    """Stage evaluation: the base model, every experiment, and models of others on every
    benchmark.
    """

    models: dict[Name, ReleasedModel] = Field(
        default_factory=dict,
        description=(
            "Models of others beside this run's in every benchmark and table, by a name of yours."
        ),
    )

    benchmarks: dict[Name, Benchmark] = Field(
        default_factory=_default_benchmarks,
        description=(
            "By name (paper Tables 1 to 3). A block with `task` is lmms-eval's (TaskBenchmark); one"
            " with `scorer` and no `task` is answered by our own rule (QuestionBenchmark)."
            " lmms-eval's questions are asked as `task_backend` says."
        ),
    )
    backend: Backend = Field(
        "vllm", description="What runs the model on the questions of a QuestionBenchmark."
    )
    questions_per_batch: PositiveInt = Field(
        1,
        description=(
            "Questions that are answered at once, as"
            " `responses.prompts_per_batch`. Over 1 it is faster, and low bits may depend on what"
            " is; the record says so."
        ),
    )
    task_backend: Backend = Field(
        "transformers",
        description=(
            "What runs the model on lmms-eval's questions. `transformers`: lmms-eval's own class,"
            " one question at a time; `vllm`: `questions_per_batch` of them at once, each put as"
            " that class puts it, with the same ids and pixels."
        ),
    )
    prefix_caching: bool = Field(
        False,
        description=(
            "Backend `vllm`: what questions in a row begin with, their picture above all, is"
            " computed once. Low bits then depend on the order of the questions."
        ),
    )
    deterministic: bool = deterministic_field(LATER, "questions")
    gpus: PositiveInt = gpus_field("a job that asks a model")
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
    together: bool = Field(
        False,
        description=(
            "Whether one job a model asks it the questions of all benchmarks with `task` that are"
            " not divided (`shards`), and another one those of all QuestionBenchmarks for which no"
            " `beams` are searched, so that it is loaded once for each kind; otherwise each"
            " benchmark has a job of its own."
        ),
    )
    contamination: Contamination = Field(default_factory=Contamination)

    @property
    def asked_together(self) -> dict[str, TaskBenchmark]:
        """The benchmarks that one job asks a model about, at least two. Of those with the same
        task, the first.
        """
        tasks: dict[str, tuple[str, TaskBenchmark]] = {}
        for name, block in self.benchmarks.items():
            if isinstance(block, TaskBenchmark) and block.shards == 1:
                tasks.setdefault(block.task, (name, block))
        return dict(tasks.values()) if self.together and len(tasks) > 1 else {}

    def parts_of(self, benchmark: str) -> list[str]:
        """The names of the parts that a benchmark's questions are answered in; none where one job
        answers and scores it.
        """
        if benchmark in self.asked_together:
            return [WHOLE]
        block = self.benchmarks[benchmark]
        return names_of_parts(block.shards) if isinstance(block, TaskBenchmark) else []

    @model_validator(mode="after")
    def _nothing_depends_on_the_order(self) -> Self:
        if self.deterministic and self.prefix_caching:
            raise ValueError(
                "`deterministic` and `prefix_caching` are both true: what is computed once for"
                " several questions depends on their order. Set one of them to false"
            )
        return self

    def problems_with_gpus(self, base_model: Model) -> Iterator[tuple[str, str]]:
        """Keys, and why vLLM cannot spread the model that is asked over the GPUs of each."""
        backend = "vllm" if "vllm" in (self.backend, self.task_backend) else ""
        asked = [("evaluation.gpus", base_model, self.gpus)]
        for name, model in self.models.items():
            asked.append((f"evaluation.models.{name}", model, model.gpus or self.gpus))
        for key, each, gpus in asked:
            if problem := problem_with_gpus(each, backend, gpus):
                yield key, problem


class AskedModel(Block):
    """Which model a job asks, on how many GPUs, and how. The weights of `base_model` (the base
    model's, or those of a model of others) are asked where there is no merged model; its dtype is
    that of both.
    """

    base_model: Model = Field(json_schema_extra=NO_EFFECT)  # identity and dtype are in the key
    system_prompt: str | None
    max_image_megapixels: float = max_image_megapixels_field()
    gpus: PositiveInt = gpus_field()

    @property
    def needs_gpu(self) -> bool:
        """It runs in the job."""
        return True


class AnswerBenchmarkJob(AskedModel, TaskSettings):
    """Parameters of rule answer_benchmark. Answers were once transformers' alone."""

    backend: Backend = Field("transformers", json_schema_extra=LATER)
    questions_per_batch: PositiveInt = Field(1, json_schema_extra=NO_EFFECT)
    max_model_len: PositiveInt | None = Field(None, json_schema_extra=LATER)
    prefix_caching: bool = Field(False, json_schema_extra=LATER)
    deterministic: bool = deterministic_field(LATER, "questions")


class ConvertModelJob(Block):
    """Parameters of rule convert_model: a model in LLaVA's own form, and the base model that says
    how transformers has it.
    """

    model: Model
    base_model: Model


class ScoreBenchmarkJob(Block):
    """Parameters of rule score_benchmark: our names of a task's scores, their unit, and who else
    scores its answers.
    """

    metrics: dict[str, str]
    percent: bool
    scorer: Scorer | None
    judge: Endpoint | None


class AnswerQuestionsJob(AskedModel):
    """Parameters of rule answer_questions: what is configured, or else what the benchmark's form
    says.
    """

    scorer: Scorer
    questions: list[str]
    images: str | None
    prompt: str | dict[str, str]
    max_new_tokens: PositiveInt
    beams: PositiveInt
    limit: PositiveInt | None
    backend: Backend
    questions_per_batch: PositiveInt
    max_model_len: PositiveInt
    prefix_caching: bool = False
    deterministic: bool = deterministic_field(LATER, "questions")


class ScoreAnswersJob(Block):
    """Parameters of rule score_answers."""

    scorer: Scorer
    reference: list[str]
    judge: Endpoint | None
    language: LanguageChoice
