"""Running lmms-eval in a process of its own, and reading what it left behind.

It ends with exit code 0 also when it failed, so what it leaves is checked: results, metrics, every
answer.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.benchmarks.lmms_eval.answer_journal import Kept
from lib.benchmarks.lmms_eval.engine import ENGINE, Engine
from lib.benchmarks.lmms_eval.main import ASKED, ITS_DATA, JUDGE, PICTURES, REFUSED
from lib.benchmarks.lmms_eval.main import UNJUDGED as LEFT_OUT
from lib.benchmarks.lmms_eval.parts import JOINED, PART
from lib.benchmarks.lmms_eval.samples import answer_in
from lib.benchmarks.lmms_eval.tasks import (
    UNJUDGED,
    TaskSettings,
    find_task,
    local_task,
    problems_with_task,
    task_text,
)
from lib.blocks import Endpoint
from lib.data.evaluation_files import KeptResults, TaskAnswer
from lib.endpoint import read_key, secret_of
from lib.errors import UserError
from lib.files import read_jsonl, write_text
from lib.jobs.copies import start_python
from lib.jobs.device import VISIBLE, first_gpus

MAIN = Path(__file__).resolve().parent / "main.py"
LOG_LINES_SHOWN = 15
#: Environment variables that hold a service's key, its address or the name of a judge.
OF_A_SERVICE = re.compile(
    r"^(?!HF_|HUGGING_FACE_)(.*_(API_)?(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|API_BASE|API_URL"
    r"|BASE_URL|ENDPOINT|JUDGE_MODEL)|API_TYPE|MODEL_VERSION|OPENAI_.*|AZURE_.*|ANTHROPIC_.*"
    r"|GOOGLE_.*|GEMINI_.*|AWS_.*)$"
)

Json = dict[str, Any]


@dataclass(frozen=True)
class AskedModel:
    """A model and how it is asked: its folder, the dtype of its weights, its torch device, what
    stands before its prompts, the engine that answers in place of lmms-eval's own class, the part
    of the questions that is asked, or JOINED where parts have answered them all, and how many GPUs
    it is spread over.
    """

    folder: Path
    dtype: str
    device: str
    system_prompt: str
    engine: Engine | None = None
    part: str = ""
    gpus: int = 1

    @property
    def is_part(self) -> bool:
        """Whether not all questions are asked, so that nothing is scored."""
        return self.part not in ("", JOINED)


@dataclass(frozen=True)
class Harness:
    """A task that lmms-eval is asked, and what it left behind of it.

    task    what it is asked
    name    whose answers they are, for messages ("base/pope")
    log     the file that takes lmms-eval's output
    beside  the names of those that the same process answers
    """

    task: TaskSettings
    name: str
    log: Path
    beside: tuple[str, ...] = ()

    def failure(self, what: str) -> UserError:
        """What lmms-eval did not leave behind, with the end of its log: it says why only there."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
        if self.task.judge:
            plain = secret_of(self.task.judge).redacted(plain)
        lines = [line.split("\r")[-1] for line in plain.splitlines() if line.strip()]
        end = "\n".join(f"  | {line[:300]}" for line in lines[-LOG_LINES_SHOWN:])
        beside = f" (beside {', '.join(self.beside)})" if self.beside else ""
        return UserError(
            f"lmms-eval, {self.task.task} for {self.name}{beside}: {what}. The end of its log,"
            f" {self.log}:\n{end}"
        )

    def read_asked(self, run: Path) -> list[str]:
        """The keys of the answers that the run in a folder came to, in the order of the data."""
        path = run / ASKED
        if not path.is_file():
            raise self.failure("it ended before all questions were answered")
        of_tasks: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
        return of_tasks.get(self.task.task, [])

    def read_results(self, output: Path) -> KeptResults:
        """lmms-eval's own metrics and numbers of questions; whatever is missing is a UserError."""
        task = self.task.task
        files = sorted(output.glob("*/[0-9]*_[0-9]*_results.json"))
        if len(files) != 1:
            raise self.failure(
                "it left no results file" if not files else f"it left {len(files)} results files"
            )
        try:
            results = json.loads(files[0].read_text(encoding="utf-8"))
            values, counts = results["results"][task], results["n-samples"][task]
        except (ValueError, KeyError) as error:
            raise self.failure(
                f"its results file {files[0]} is damaged or without '{task}' ({error})"
            ) from error
        expected = min(self.task.limit or counts["original"], counts["original"])
        unjudged = self._unjudged(output)
        metrics = self._wanted_metrics(values, unjudged)
        if not counts["effective"] == expected > 0:
            raise self.failure(f"it took {counts['effective']} of {expected} questions")
        kept: KeptResults = {
            "metrics": metrics,
            "questions": counts["effective"],
            "questions_in_data": counts["original"],
        }
        return {**kept, "unjudged": unjudged} if unjudged else kept

    def _unjudged(self, output: Path) -> list[str]:
        """The wanted metrics for which the task would have asked a judge that it was not given."""
        path = output.parent / LEFT_OUT.name
        left = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if failed := left.get("failed"):
            raise self.failure(
                f"its judge gave no verdict on {len(failed)} questions (the first: {failed[0]}),"
                " which it scores as it likes"
            )
        wanted = list(self.task.metrics.values())
        if self.task.is_unjudged or left.get("everything"):
            return wanted
        return [name for name in wanted if name in left.get("metrics", ())]

    def _wanted_metrics(
        self, values: Mapping[str, Any], unjudged: Sequence[str]
    ) -> dict[str, float]:
        """All metrics but those that a judge would have had to give; a UserError if one that is
        wanted is missing.
        """
        wanted = [name for name in self.task.metrics.values() if name not in unjudged]
        if not wanted:
            return {}
        metrics = {
            name: value for name, value in _metrics_in(values).items() if name not in unjudged
        }
        if missing := [name for name in wanted if name not in metrics]:
            raise self.failure(
                f"it gave no {', '.join(missing)}; it gave"
                f" {', '.join(metrics) or 'no metric at all'}"
            )
        return metrics

    def read_answers(self, output: Path, questions: int) -> list[TaskAnswer]:
        """Every question with its target and the model's raw answer, in the order of the data
        set.
        """
        files = sorted(output.glob(f"*/[0-9]*_[0-9]*_samples_{self.task.task}.jsonl"))
        if len(files) != 1:
            raise self.failure("it left no file of answers")
        told = output.parent / PICTURES
        pictures = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
        by_id = {
            sample["doc_id"]: self._answer_in(sample, pictures) for sample in read_jsonl(files[0])
        }
        answers = [by_id[number] for number in sorted(by_id)]
        if self.task.judge:
            self._require_verdicts(answers)
        if len(answers) != questions or not all(
            isinstance(answer["response"], str) for answer in answers
        ):
            raise self.failure(
                f"its file of answers holds {len(answers)} of {questions} questions, or answers"
                " that are no text"
            )
        return answers

    def _answer_in(self, sample: Json, pictures: Mapping[str, str]) -> TaskAnswer:
        """What is kept of a sample of lmms-eval's. `pictures`: by the number of the data's row."""
        counts = sample.get("token_counts") or []
        # A task that gives an answer a plain number names it as its metric (`exact_match`).
        scores = (sample.get(metric) for metric in self.task.metrics.values())
        numbers = [score for score in scores if isinstance(score, int | float)]
        kept: Any = {
            **({"score": numbers[0]} if numbers else {}),
            **answer_in(sample),
            "tokens": sum(count["output_tokens"] for count in counts),
        }
        if picture := pictures.get(str(sample["doc_id"])):
            kept["picture"] = picture
        answer: TaskAnswer = kept
        return answer

    def _require_verdicts(self, answers: Sequence[TaskAnswer]) -> None:
        silent = [answer["id"] for answer in answers if not answer.get("eval_model", "unsaid")]
        if silent:
            raise self.failure(
                f"its judge gave no verdict on {len(silent)} questions (the first: {silent[0]}),"
                " which it scores as 0"
            )


def run_lmms_eval(
    asked: Sequence[tuple[Harness, Kept]], run: Path, model: AskedModel, threads: int
) -> Path:
    """Runs lmms-eval to its end on one task, or on several of which a part is answered; returns its
    output folder, whatever is in it.

    It works in the folder `run`, which is made anew, with relative names, because commas and equal
    signs in a path would break its arguments. `asked`: the tasks, and where their answers are kept.
    """
    for harness, _ in asked:
        if problems := problems_with_task(harness.task):
            raise UserError(f"{harness.name}: {' '.join(problems)}")
    tasks, any_harness = [harness.task for harness, _ in asked], asked[0][0]
    run = run.resolve()
    _make_folder(run, tasks, model.folder)
    log = any_harness.log
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as stream:
        process = start_python(
            MAIN,
            _arguments(asked, model),
            environment(run, tasks, threads, model.engine, is_part=model.is_part)
            | ({PART: model.part} if model.part else {})
            | ({VISIBLE: first_gpus(model.gpus)} if model.gpus > 1 else {}),
            run,
            stream.fileno(),
        )
        code = process.wait()
    shutil.rmtree(run / "datasets", ignore_errors=True)
    if (run / REFUSED).is_file():
        raise UserError(_refusal((run / REFUSED).read_text(encoding="utf-8"), tasks))
    if code:
        raise any_harness.failure(f"ended with exit code {code}")
    return run / "out"


def _refusal(text: str, tasks: Sequence[TaskSettings]) -> str:
    """Why lmms-eval asked no further, with the files of the task's data that it names."""
    told = [task.data for task in tasks if f"'{task.task}'" in text and task.data]
    files = [file for data in told for file in data.values()]
    return text.replace(ITS_DATA, f" of {', '.join(files)}" if files else ITS_DATA)


def _make_folder(run: Path, tasks: Sequence[TaskSettings], model: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    for settings in tasks:
        task = local_task(find_task(settings.task), settings)
        write_text(run / "task" / f"{settings.task}.yaml", task_text(task, settings))
    if any(task.is_unjudged for task in tasks):
        shutil.copy2(UNJUDGED, run / "task")
    (run / "model").symlink_to(model.resolve(), target_is_directory=True)


def _arguments(asked: Sequence[tuple[Harness, Kept]], model: AskedModel) -> list[str]:
    tasks = [harness.task for harness, _ in asked]
    options = {
        "--model": "llava_hf",
        "--model_args": ",".join(
            (
                "pretrained=model",
                f"dtype={model.dtype}",
                f"device_map={'auto' if model.gpus > 1 else model.device}",
                "trust_remote_code=False",
            )
        ),
        "--tasks": ",".join(task.task for task in tasks),
        "--include_path": "task",
        "--batch_size": "1",
        "--device": model.device,
        "--output_path": "out",
    }
    limits = [task.limit for task in tasks if task.limit]
    if len(limits) == len(tasks):
        options["--limit"] = str(max(limits))
    return [
        json.dumps({harness.task.task: kept.told() for harness, kept in asked}),
        model.system_prompt,
        *(word for option in options.items() for word in option),
        "--log_samples",
    ]


def _metrics_in(values: Mapping[str, Any]) -> dict[str, float]:
    """lmms-eval's metrics that are numbers, without their standard errors."""
    metrics = {}
    for name, value in values.items():
        metric, _, chosen = name.partition(",")
        is_number = (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
        if is_number and chosen and "_stderr" not in metric:
            metrics[metric if chosen == "none" else name] = value
    return metrics


def environment(
    run: Path,
    tasks: Sequence[TaskSettings],
    threads: int,
    engine: Engine | None = None,
    *,
    is_part: bool = False,
) -> dict[str, str]:
    """The environment of lmms-eval: offline where nothing is to be fetched, the hub token where it
    is not printed, the judge of what is more than a part; and no key or address of a service that
    is there for other stages.
    """
    env = dict(os.environ)
    env |= {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_MININTERVAL": "10",
        "PYTHONUNBUFFERED": "1",
    }
    if "HF_TOKEN" in env:
        # lmms-eval prints HF_TOKEN into its log and writes it into its results; the hub library
        # reads either name.
        env["HUGGING_FACE_HUB_TOKEN"] = env.pop("HF_TOKEN")
    env = {name: value for name, value in env.items() if not OF_A_SERVICE.search(name)}
    env |= _judge_in_environment(None if is_part else tasks[0].judge)
    if engine:
        env[ENGINE] = json.dumps(asdict(engine))
    if all(task.data for task in tasks):
        env |= {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(run / "datasets"),
        }
    return env


def _judge_in_environment(judge: Endpoint | None) -> dict[str, str]:
    """lmms-eval reads a judge's address, model and key there, and main.py its other settings; the
    key goes nowhere else.
    """
    if judge:
        variable = judge.api_key_variable
        return ({variable: read_key(judge)} if variable else {}) | {
            JUDGE: judge.model_dump_json(),
            "API_TYPE": "openai",
            "OPENAI_API_URL": judge.base_url,
            "MODEL_VERSION": judge.model,
            "OPENAI_API_KEY": read_key(judge),
        }
    # A task's code makes a client when it is loaded, and OpenAI's wants a key.
    return {"API_TYPE": "dummy"}
