"""What a model is asked for an answer, be it in the job or at an endpoint."""

from typing import Any

from lib.data.prompts import seed_of
from lib.data.rows import InstructionRow
from lib.jobs.job import Job
from lib.models.response_generators.requests import Request


def request_for(
    row: InstructionRow, job: Job[Any], identity: str, sample: int
) -> tuple[dict[str, Any], Request]:
    """What of a request decides its answer, and the request. `identity`: who answers.

    The seed is of the run's, of who answers, of the prompt, and of which of the answers it is; the
    first one's is that of a policy model that gives only one.
    """
    which = [sample] if sample > 1 else []
    seed = seed_of(job.seed, "response", identity, row["id"], *which)
    decides = {"instruction": row["instruction"], "image": row["image"]["sha256"], "seed": seed}
    return decides, Request(row["instruction"], seed, job.root / row["image"]["file"])
