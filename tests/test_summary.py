"""The table that ends every run."""

from lib.head.summary import notes_of
from lib.jobs.record import Record


def record(rule: str, job: str, *notes: str) -> Record:
    return Record(rule, job, retry="", notes=list(notes))


def test_what_many_jobs_say_in_the_same_words_is_one_line_and_nothing_is_lost() -> None:
    batches = "batches of up to 16 prompts"
    records = [
        record("generate_responses", "mistral/art/00", batches),
        record("generate_responses", "mistral/art/01", batches, "out of memory: half the batch"),
        record("answer_questions", "base/chair", batches),
    ]
    assert notes_of(records) == [
        "generate_responses (2 jobs, mistral/art/00 first): batches of up to 16 prompts",
        "generate_responses mistral/art/01: out of memory: half the batch",
        "answer_questions base/chair: batches of up to 16 prompts",
    ]
