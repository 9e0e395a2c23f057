"""Rule score_benchmark: one model's scores on one benchmark, from its kept answers, under our names
and in the unit of the paper's tables.

No model and no GPU is needed here: a new score of old answers costs nothing. The scores are
lmms-eval's own; for questions that want a yes or a no, doubts are told beside them. A scorer of
ours that is configured (`scorer`) scores the same answers as the benchmark's own script does; its
scores are named `reference_<score>`. MM-Vet's asks the configured judge through lib/judge.py, whose
cache makes a rerun ask nothing twice. What computed the scores is told in the block of
lib/report/provenance.py.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.benchmarks import SCORERS
from lib.blocks import Endpoint
from lib.config.evaluation import JUDGED_TASKS
from lib.errors import UserError
from lib.files import read_jsonl, write_json
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.judge import Judge
from lib.report import provenance

VERSION = 2
#: What the scores carry over from lmms-eval's results: whose they are and what of.
KEPT = (
    "model",
    "benchmark",
    "model_identity",
    "task",
    "limit",
    "lmms_eval",
    "questions",
    "questions_in_data",
)

PACKAGES = ("numpy", "openai")
UNJUDGED = "no judge is configured (`judge` of this benchmark)"
ELSEWHERE = (
    "lmms-eval's own grading is not asked for where our scorer has the judge grade: see"
    " reference_{name}"
)


def yes_or_no(text: str) -> str | None:
    """ "yes" or "no" if that is the whole text, up to case, white space and punctuation around it;
    None for anything else.
    """
    word = re.sub(r"^\W+|\W+$", "", text).casefold()
    return word if word in ("yes", "no") else None


def yes_no_doubts(answers: Sequence[dict[str, Any]]) -> dict[str, float | int] | None:
    """How a model answered yes/no questions; None where the targets are not all yes or no.

    `yes_ratio`: percent of all answers that are yes; `yes_ratio_of_targets`: what it would be if
    all were right;
    `unparsed`: number of answers that are neither yes nor no, which lmms-eval counts as wrong
    (MME's parser lets some pass).
    """
    targets = [yes_or_no(str(answer["target"])) for answer in answers]
    if not answers or None in targets:
        return None
    said = [yes_or_no(answer["response"]) for answer in answers]
    return {
        "yes_ratio": 100 * said.count("yes") / len(said),
        "yes_ratio_of_targets": 100 * targets.count("yes") / len(targets),
        "unparsed": said.count(None),
    }


def score(
    answers: Sequence[dict[str, Any]],
    results: dict[str, Any],
    metrics: dict[str, str],
    percent: bool,
) -> dict[str, Any]:
    """The scores (our name -> value, times 100 where `percent` says that lmms-eval gives fractions
    of 1) and what to know about them.

    `metrics`: our name -> lmms-eval's name. Errors: UserError if a metric is missing, or if answers
    and results are not of one run.
    """
    left_out = (
        dict.fromkeys(metrics, UNJUDGED)
        if results["task"] in JUDGED_TASKS and not results["judge"]
        else {}
    )
    if missing := [
        theirs
        for name, theirs in metrics.items()
        if theirs not in results["metrics"] and name not in left_out
    ]:
        raise UserError(
            f"evaluation.benchmarks.{results['benchmark']}.metrics: lmms-eval's task"
            f" '{results['task']}' gives no {', '.join(missing)}. It gives"
            f" {', '.join(sorted(results['metrics']))}."
        )
    if len(answers) != results["questions"]:
        raise UserError(
            f"{results['model']} on {results['benchmark']}: {len(answers)} answers, but results of"
            f" {results['questions']}. The files are not of one run: delete both and run again."
        )
    factor = 100 if percent else 1
    kept = {name: results[name] for name in KEPT}
    scores = {
        name: round(factor * results["metrics"][theirs], 10)
        for name, theirs in metrics.items()
        if name not in left_out
    }
    doubts = {"empty": sum(not answer["response"].strip() for answer in answers)} | (
        yes_no_doubts(answers) or {}
    )
    return {**kept, "scores": scores, "missing": left_out, "doubts": doubts}


def also_by(name: str, path: Path, judge: Judge | None = None) -> dict[str, Any]:
    """What our scorer makes of kept answers that carry their targets: scores and what it is to be
    known of them.

    `judge`: for a scorer that asks one; its raw judgements stand in `judgements`, by question.
    """
    scorer = SCORERS[name]
    answers, reference = scorer.read_answers(path), scorer.read_reference(path)
    if scorer.ask and judge:
        answers = scorer.ask(answers, reference, judge)
    found = scorer.score(answers, reference)
    told = {"model": judge.endpoint.model, "version": found.judge or judge.name} if judge else None
    judgements = {
        answer.id: answer.details["judgements"]
        for answer in answers.rows
        if "judgements" in answer.details
    }
    return {
        "scores": {f"reference_{score}": value for score, value in found.scores.items()},
        "computed_by": provenance.computed_by(
            f"scripts/lib/benchmarks/{name}.py, version {found.version}", found.parser, judge=told
        ),
        "doubts": found.extra,
        "per_type": found.per_type,
        "problems": len(found.problems),
        "intervals": {
            f"reference_{score}": list(interval) for score, interval in found.intervals.items()
        },
        **({"judgements": judgements} if judge else {}),
    }


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    answers = read_jsonl(Path(snakemake.input.answers))
    results = json.loads(Path(snakemake.input.results).read_text(encoding="utf-8"))
    path = Path(snakemake.input.answers)
    found = score(answers, results, job.settings["metrics"], job.settings["percent"])
    scorer, judged_by = job.settings["scorer"], job.settings["judge"]
    if scorer and SCORERS[scorer].ask is None:
        found["also"] = also_by(scorer, path)
    elif scorer and judged_by:
        judge = Judge(Endpoint.model_validate(judged_by), job.work / f"{job.name}.judge.jsonl")
        found["also"] = also_by(scorer, path, judge)
        found["missing"] = {name: ELSEWHERE.format(name="total") for name in found["missing"]}
        job.note(f"judge {judge.name}: {judge.asked} asked, {judge.reused} reused")
    if "also" in found:
        ours = found["also"]["scores"]
        found["scores"] |= ours
        names = [f"reference_{name}" for name in SCORERS[scorer].names]
        found["missing"] |= {
            name: f"our scorer {scorer} has none of these answers"
            for name in names
            if name not in ours
        }
    made = provenance.computed_by(
        f"lmms-eval {results['lmms_eval']}, task {results['task']}", judge=results["judge"]
    )
    origin = provenance.block(
        made, path, job.root, results["environment"], provenance.versions(PACKAGES)
    )
    write_json(Path(snakemake.output[0]), {**found, **origin})
    job.record.items = job.record.computed = len(answers)
    job.write_record()


if __name__ == "__main__":
    run_script(main)
