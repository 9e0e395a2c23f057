"""lmms-eval's tasks: what a run asks of one, the task's own file found and read, and the file that
replaces it. Nothing of lmms-eval is imported.
"""

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, PositiveInt, model_validator

from lib import weights
from lib.benchmarks.lmms_eval.task_code import asks_a_judge
from lib.blocks import NO_EFFECT, Block, Endpoint, Name, UserPath
from lib.errors import UserError

#: The tasks that a judge scores, of those that a judge can be configured for.
JUDGED_TASKS = ("mmvet",)
#: Tasks of the paper's whose answers were drawn before all were greedy.
DRAWN_BEFORE = ("mmvet",)
#: The hub's data sets of the paper's tasks, for a process without lmms-eval (a head environment).
HUB_DATA = {
    "vqav2_val": "lmms-lab-encoder/VQAv2",
    "scienceqa_img": "lmms-lab-encoder/ScienceQA",
    "textvqa_val": "lmms-lab-encoder/textvqa",
    "mme": "lmms-lab-encoder/MME",
    "mmvet": "lmms-lab-encoder/MMVet",
    "mmbench_en_dev_static": "lmms-lab-encoder/MMBench",
    "pope": "lmms-lab-encoder/POPE",
}
#: Split -> files, of tasks that read one split of hub data whose others are many times its size:
#: lmms-eval would fetch and read them too.
ONE_SPLIT = {"vqav2_val": {"validation": "data/validation-*"}}
#: Replaces the scoring of a judged task where there is no judge.
UNJUDGED = Path(__file__).resolve().parent / "unjudged.py"

Json = dict[str, Any]


class TaskSettings(Block):
    """What is asked of lmms-eval, and how."""

    task: Name = Field(description="lmms-eval's name of the task.")
    # All metrics are kept with the answers; these are those that are wanted.
    metrics: dict[str, str] = Field(
        min_length=1,
        description="Our name of each score -> lmms-eval's name of it.",
        json_schema_extra=NO_EFFECT,
    )
    # The files' digests are in the key.
    data: dict[str, UserPath] | None = Field(
        None,
        min_length=1,
        description=(
            "Local data in place of the hub's: split (that the task reads) -> parquet file. The"
            " task stays lmms-eval's own."
        ),
        json_schema_extra=NO_EFFECT,
    )
    data_revision: str | None = Field(
        None,
        min_length=1,
        description=(
            "Commit, tag or branch of the task's hub data set; null is its newest. The commit that"
            " it is goes into the answers' record and their keys."
        ),
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
            "Ask only the first N questions; null asks all. A score with a limit is marked."
        ),
    )
    # Its address and its name are in the key, whatever its other settings.
    judge: Endpoint | None = Field(
        None,
        description=(
            "For tasks that lmms-eval has judged by a model (`mmvet`, `llava_in_the_wild` and all"
            " others whose code asks one). Without it the questions are answered, nobody is asked,"
            " whatever keys the environment holds, and the judged scores are left out with that"
            " reason."
        ),
        json_schema_extra=NO_EFFECT,
    )

    @property
    def is_unjudged(self) -> bool:
        """Whether a judge would score the task's answers, and none is configured."""
        return self.task in JUDGED_TASKS and self.judge is None

    @model_validator(mode="after")
    def _data_exists(self) -> Self:
        for split, path in (self.data or {}).items():
            if not Path(path).is_file():
                raise ValueError(
                    f"`data.{split}`: there is no file '{path}'. Correct it; `demo/benchmarks` is"
                    " built by `make demo-models`"
                )
            if not _is_whole_parquet(Path(path)):
                raise ValueError(
                    f"`data.{split}`: '{path}' is not a whole parquet file. Replace it"
                )
        if self.data and self.data_revision:
            raise ValueError(
                "`data_revision` is of the hub's data set, and `data` replaces that. Take one of"
                " them away"
            )
        return self

    @model_validator(mode="after")
    def _judge_is_asked(self) -> Self:
        if self.judge and not can_be_judged(self.task):
            raise ValueError(
                f"`judge`: lmms-eval's task '{self.task}' is given none; those that are:"
                f" {', '.join(JUDGED_TASKS)}, and others whose code has lmms-eval ask a judge. Take"
                " it away"
            )
        return self


def _is_whole_parquet(path: Path) -> bool:
    with open(path, "rb") as stream:
        begin, size = stream.read(4), stream.seek(0, 2)
        stream.seek(max(0, size - 4))
        return size >= 12 and begin == stream.read() == b"PAR1"


class _TaskLoader(yaml.SafeLoader):
    """Reads a task's file without importing the functions that it names."""


_TaskLoader.add_constructor("!function", lambda loader, node: None)


@cache
def task_files(folder: Path) -> dict[str, Path]:
    """lmms-eval's own tasks: name -> file. Groups of tasks are left out."""
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.yaml")):
        name = re.search(
            r"^task\s*:\s*[\"']?([\w.-]+)[\"']?\s*(?:#.*)?$",
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        if name:
            files.setdefault(name[1], path)
    return files


def find_task(task: str) -> Path:
    """The file of one of lmms-eval's own tasks."""
    package = importlib.util.find_spec("lmms_eval")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "lmms-eval is not installed in this environment. Install it, or run with"
            " `--software-deployment-method conda`."
        )
    files = task_files(Path(package.submodule_search_locations[0]) / "tasks")
    if task not in files:
        near = difflib.get_close_matches(task, files, n=3)
        hint = (
            f"Did you mean {' or '.join(repr(name) for name in near)}?"
            if near
            else "`lmms-eval tasks list` lists them."
        )
        raise UserError(
            f"evaluation.benchmarks: lmms-eval has no task '{task}' (a group of tasks cannot be"
            f" named here). {hint}"
        )
    return files[task]


def read_task(path: Path) -> Json:
    """A task's settings, with those of the files that it includes."""
    values: Json = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 - a SafeLoader
    included = values.pop("include", [])
    settings: Json = {}
    for name in reversed([included] if isinstance(included, str) else included):
        settings |= read_task(path.parent / name)
    return settings | values


def local_task(path: Path, settings: TaskSettings) -> Json:
    """The task's own file with what the configuration says otherwise: its data, their revision, how
    it asks. Answers are greedy, also of a task that would draw them.
    """
    builtin = read_task(path)
    task: Json = {"include": str(path), "task": settings.task} | _data_of(builtin, settings)
    task |= greedy(builtin)
    if settings.prompt:
        kwargs = builtin.get("lmms_eval_specific_kwargs") or {}
        task["lmms_eval_specific_kwargs"] = kwargs | {
            "default": (kwargs.get("default") or {}) | settings.prompt
        }
    return task


def problems_with_task(settings: TaskSettings) -> list[str]:
    """What is wrong with the names of a task, its metrics and the splits of its local data, as far
    as the task's own file tells; nothing where lmms-eval is not installed.
    """
    if importlib.util.find_spec("lmms_eval") is None:
        return []
    try:
        builtin = read_task(find_task(settings.task))
    except UserError as error:
        return [str(error).removeprefix("evaluation.benchmarks: ")]
    metrics = builtin.get("metric_list") or []
    listed = [each.get("metric") if isinstance(each, dict) else None for each in metrics]
    return [*_unknown_metrics(settings, listed), *_missing_split(settings, builtin)]


def _unknown_metrics(settings: TaskSettings, listed: list[Any]) -> list[str]:
    """`listed`: the metrics of the task's file, some of which may be functions' names."""
    wanted = {name: theirs.partition(",")[0] for name, theirs in settings.metrics.items()}
    unknown = [name for name, metric in wanted.items() if metric not in listed]
    if not listed or None in listed or not unknown:
        return []
    return [
        f"`metrics.{name}`: lmms-eval's task '{settings.task}' gives no"
        f" '{settings.metrics[name]}'. It gives {', '.join(map(str, listed))}."
        for name in unknown
    ]


def _missing_split(settings: TaskSettings, builtin: Json) -> list[str]:
    split = builtin.get("test_split") or builtin.get("validation_split")
    if not settings.data or not split or split in settings.data:
        return []
    there = ", ".join(map(repr, settings.data))
    what = (
        f"lmms-eval's task '{settings.task}' reads the split '{split}', and there is only {there}"
    )
    return [f"`data`: {what}. Name the file's split '{split}'."]


def greedy(builtin: Json) -> Json:
    """What has a task that draws its answers ask greedily; nothing for one that does so by itself,
    and for one that asks each question several times.
    """
    generation = builtin.get("generation_kwargs") or {}
    if not generation.get("temperature") or (builtin.get("repeats") or 1) > 1:
        return {}
    return {"generation_kwargs": generation | {"temperature": 0, "do_sample": False}}


def _data_of(builtin: Json, settings: TaskSettings) -> Json:
    """Where the task's data are. A hub token is used if there is one; the tasks' own files demand
    one, even for public data, and some have the code of their data run. Without network
    (HF_HUB_OFFLINE) it is the folder in the hub cache: by its name, `datasets` would find no data
    set that it has not prepared itself.
    """
    if settings.data:
        files = {split: str(Path(file).resolve()) for split, file in settings.data.items()}
        return {
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files},
        }
    options = dict(builtin.get("dataset_kwargs") or {})
    for unwanted in ("token", "trust_remote_code"):
        options.pop(unwanted, None)
    if settings.task in ONE_SPLIT:
        # What the data set says of the other splits is not held against it.
        options |= {"data_files": ONE_SPLIT[settings.task], "verification_mode": "no_checks"}
    name, revision = str(builtin.get("dataset_path")), settings.data_revision
    if weights.is_offline() and (
        folder := weights.cached_folder(name, revision or "main", "dataset")
    ):
        return {"dataset_path": str(folder), "dataset_kwargs": options}
    return {"dataset_kwargs": options | ({"revision": revision} if revision else {})}


class _Function(str):
    """A function's name, which lmms-eval's tag makes a function of."""

    __slots__ = ()


class _TaskDumper(yaml.SafeDumper):
    """Writes a task's file in ASCII: whatever character stands in a text, lmms-eval reads it."""


_TaskDumper.add_representer(
    _Function, lambda dumper, name: dumper.represent_scalar("!function", str(name))
)


def can_be_judged(task: str) -> bool:
    """Whether lmms-eval's task has a judge asked; where lmms-eval is not installed, whether it may
    have, for all that is known.
    """
    if task in JUDGED_TASKS or task in HUB_DATA:
        return task in JUDGED_TASKS
    package = importlib.util.find_spec("lmms_eval")
    return package is None or asks_a_judge(find_task(task))


def hub_data_set(task: str) -> str:
    """The name on the hub of one of lmms-eval's own tasks' data."""
    if task in HUB_DATA and importlib.util.find_spec("lmms_eval") is None:
        return HUB_DATA[task]
    return str(read_task(find_task(task))["dataset_path"])


def task_text(task: Json, settings: TaskSettings) -> str:
    """The task's file as lmms-eval reads it."""
    if settings.is_unjudged:
        count, process = (
            _Function(f"{UNJUDGED.stem}.{name}") for name in ("count", "process_results")
        )
        answered = {"metric": "answered", "aggregation": count, "higher_is_better": True}
        task = task | {"metric_list": [answered], "process_results": process}
    return yaml.dump(task, Dumper=_TaskDumper, sort_keys=False)
