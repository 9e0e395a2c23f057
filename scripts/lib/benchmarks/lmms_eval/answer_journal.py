"""The journal of lmms-eval's answers, which the harness's process writes and the job's reads."""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.jobs.journal import Journal
from lib.jobs.locks import TakenError, locked

if TYPE_CHECKING:
    from lib.jobs.job import Job

RULE = "answer_benchmark"
SECONDS_TO_DIE = 10


def answer_key(key: str, task: str, question: Any) -> str:
    """The journal's key of one question's answer; `key` stands for the model, the tasks, their data
    and all settings.
    """
    return f"{key}/{task}/{question}"


def journal_of(job: "Job[Any]") -> Path:
    """The file of a job's answers."""
    return Path(job.work, f"{job.name}.journal.jsonl")


def seconds_by_answer(job: "Job[Any]", key: str, task: str) -> dict[str, float]:
    """The answers that are in the journal under this key: name -> seconds it took."""
    with Journal(journal_of(job), job.rule) as journal:
        if journal.dropped_lines:
            job.note(
                f"{journal.dropped_lines} damaged line(s) of {journal.path} dropped; their"
                " questions are asked again where that is needed"
            )
        prefix = answer_key(key, task, "")
        return {
            name: entry["seconds"]
            for name, entry in journal.entries.items()
            if name.startswith(prefix) and entry["status"] == "ok"
        }


def wait_for_lmms_eval_to_die(journal: Path) -> None:
    """Waits up to 10 s for the journal to be free: after a kill, lmms-eval may hold it a moment
    longer than the job that started it.
    """
    deadline = time.monotonic() + SECONDS_TO_DIE
    while time.monotonic() < deadline:
        with suppress(TakenError), locked(journal):
            return
        time.sleep(0.1)
