"""lmms-eval's own files of answers, `<date>_samples_<task>.jsonl`, which it writes with
`--log_samples`: one sample a line, with what the task's scoring says of it.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.benchmarks.rows import FileRow, read_rows

#: What lmms-eval's tasks say of a question beside its score, where they do.
DETAILS = ("question_id", "category", "score", "eval_model", "capability", "bare_question")
#: ... and what is read of a file that somebody else's run left: also from `doc`, the question's row
#: of the data, which versions before 0.3 wrote.
READ = (*DETAILS, "image_id")

Json = dict[str, Any]


def answer_in(sample: Json, details: Collection[str] = DETAILS) -> Json:
    """What is kept of a sample: `id`, `question`, `target`, `response`, and these `details`."""
    # `resps` is left out where no filter changed the response.
    response: Any = sample.get("resps", sample.get("filtered_resps"))
    while isinstance(response, list) and len(response) == 1:
        response = response[0]
    judged = [value for value in sample.values() if isinstance(value, dict)]
    told = {key: value for one in judged for key, value in one.items() if key in details}
    return {
        "id": sample["doc_id"],
        "question": sample.get("input"),
        "target": sample.get("target"),
        "response": response,
        **told,
    }


def is_sample(value: Any) -> bool:
    """Whether a row of a file is a sample of lmms-eval's."""
    return isinstance(value, dict) and "doc_id" in value and "filtered_resps" in value


def read_answer_rows(path: Path) -> list[FileRow]:
    """The rows of a file of answers; samples of lmms-eval's as this project keeps them. Errors: as
    `read_rows`.
    """
    return [
        replace(row, value=_as_kept(row.value)) if is_sample(row.value) else row
        for row in read_rows(path)
    ]


def _as_kept(sample: Json) -> Json:
    """A sample as this project keeps it; a graded one of MM-Vet with its question, too."""
    kept = answer_in(sample, READ)
    graded = sample.get("gpt_eval_score")
    if isinstance(graded, dict) and "capabilities" in graded:
        kept |= {
            "capability": graded["capabilities"],
            "bare_question": graded.get("question"),
        }
    return kept
