"""Rule model_cards: what a trained model says of itself, a card for its adapter and one for the
merged model.

They lie beside the models and not in them: what is in a merged model's folder decides its answers'
keys, and the cards tell of those answers' scores.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.files import write_text
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.model_card import KINDS, ModelCardJob, Scored, model_card, score_lines

VERSION = 1


def read_scores(paths: Sequence[str]) -> Mapping[str, Scored]:
    """Files of scores by their benchmarks."""
    read = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    return {scored["benchmark"]: scored for scored in read}


def main(snakemake: Any) -> None:
    with Job(snakemake, ModelCardJob, VERSION) as job:
        inputs = snakemake.input
        ours, base = read_scores(inputs.get("scores", [])), read_scores(inputs.get("base", []))
        lines = list(score_lines(job.settings, ours, base))
        data = json.loads(Path(inputs.data).read_text(encoding="utf-8"))
        for kind in KINDS:
            card = model_card(job.settings, kind, data, lines, job.root)
            write_text(Path(snakemake.output[kind]), card)
        job.count(len(KINDS))


if __name__ == "__main__":
    run_script(main)
