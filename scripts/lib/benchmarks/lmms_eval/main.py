"""Runs lmms-eval's command line with every answer journalled: `python -P main.py JOURNAL
KEY SYSTEM_PROMPT <arguments>`.

It is `python -m lmms_eval`, version 0.7.3, with the arguments of that. SYSTEM_PROMPT, unless it is
empty, stands before every prompt of Vicuna's form, which LLaVA's published scores have it in and
the hub's chat template has not. It differs in four more ways, none of which changes an answer:

- Each answer is in the journal before the next question is asked, and those that are there already
  under KEY are not asked again. So a killed benchmark of 200,000 questions goes on where it was.
  Before each question the random generators are seeded anew, which makes tasks that sample
  independent of that.
- A question that fails stops the run. lmms-eval would score it as an empty answer.
- Only the tasks of `--include_path` are indexed. lmms-eval reads the 2,000 files of its own tasks
  first, and prefers them to ours.
- Python's garbage collector rests during the imports, and the interpreter is not taken down tidily
  at the end.

It dies with the process that started it. Like lmms-eval it ends with 0 whatever happened: what
counts are the files it leaves.
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Ask = Callable[[Any, Sequence[Any]], list[Any]]


def journalled(ask: Ask, journal: Any, key: str, progress: Callable[..., Iterable[Any]]) -> Ask:
    """A model's `generate_until`, one question at a time, each answer journalled."""
    import torch
    from lmms_eval.api.instance import GenerationResult, TokenCounts

    from lib.benchmarks.lmms_eval.answer_journal import answer_key

    def generate_until(model: Any, requests: Sequence[Any]) -> list[Any]:
        answers = []
        for request in progress(requests, desc="Questions"):
            name = answer_key(key, request.task_name, request.doc_id)
            known = journal.finished(name)
            if known is None:
                journal.begin([name])
                started = time.monotonic()
                torch.manual_seed(request.doc_id)
                answer = ask(model, [request])[0]
                if answer.token_counts is None:
                    raise RuntimeError(
                        f"question {request.doc_id} has no answer; the cause stands above, at 'in"
                        " generating'"
                    )
                known = {"response": answer.text, "tokens": answer.token_counts.output_tokens}
                journal.add(
                    name, str(request.doc_id), seconds=time.monotonic() - started, result=known
                )
            answers.append(
                GenerationResult(
                    text=known["response"], token_counts=TokenCounts(output_tokens=known["tokens"])
                )
            )
        return answers

    return generate_until


def main(journal_path: str, key: str, system: str) -> None:
    """Runs lmms-eval with the rest of the command line."""
    gc.disable()
    from lib.benchmarks.lmms_eval.answer_journal import RULE
    from lib.jobs.journal import Journal
    from lib.jobs.processes import die_with_parent
    from lib.patches import lmms_eval as patches
    from lib.patches.file_locks import allow_no_locks
    from lib.vicuna import with_system

    die_with_parent()
    allow_no_locks()
    patches.index_included_tasks_only()
    from lmms_eval.__main__ import cli_evaluate

    # One call a question: their own bars and lines of figures would be one a question too.
    progress = patches.silence_calls()
    gc.freeze()
    gc.enable()
    with Journal(Path(journal_path), RULE) as journal:
        patches.change_answering(
            lambda ask: journalled(ask, journal=journal, key=key, progress=progress)
        )
        if system:
            patches.change_prompts(lambda prompt: with_system(prompt, system))
        cli_evaluate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    _, path, answers_key, system_prompt, *arguments = sys.argv
    sys.argv = ["lmms_eval", *arguments]
    main(path, answers_key, system_prompt)
