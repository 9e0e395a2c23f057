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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lib.benchmarks.answers import Answer, Answers, yes_or_no
from lib.benchmarks.base import Benchmark
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.lmms_eval.tasks import JUDGED_TASKS
from lib.benchmarks.registry import load_benchmark
from lib.benchmarks.scores import Score, question_score, scorer_name
from lib.config.evaluation import ScoreBenchmarkJob
from lib.data.evaluation_files import (
    JudgeName,
    OtherScores,
    QuestionScore,
    TaskAnswer,
    TaskResults,
    TaskScores,
)
from lib.errors import UserError
from lib.files import read_jsonl, write_json, write_jsonl
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.versions import versions
from lib.judge import Judge
from lib.report import provenance

VERSION = 3
PACKAGES = ("numpy", "openai")
UNJUDGED = "no judge is configured (`judge` of this benchmark)"
OF_ITS_OWN = (
    "the task asks its judge in a way of its own (another client, pictures, several messages); the"
    " configured judge is asked in lmms-eval's plain way alone"
)
ELSEWHERE = (
    "lmms-eval's own grading is not asked for where our scorer has the judge grade: see {name}"
)


def is_unparsed(text: str, task: str) -> bool:
    """Whether an answer is not plainly yes or no, or lmms-eval reads it as something else: its
    tasks compare the whole answer, so that "no." is wrong; MME's parser passes over punctuation.
    """
    word = yes_or_no(text)
    return word is None or not (task.startswith("mme") or text.strip().lower() == word)


def yes_no_doubts(answers: Sequence[TaskAnswer], task: str) -> dict[str, float | int]:
    """How a model answered yes/no questions; nothing where the targets are not all yes or no.

    `yes_ratio`: percent of all answers that are yes; `yes_ratio_of_targets`: what it would be if
    all were right;
    `unparsed`: number of answers that are not plainly yes or no (MME's parser lets some pass), and
    of those that are, but that lmms-eval counts as wrong for a full stop or the like.
    """
    targets = [yes_or_no(str(answer["target"])) for answer in answers]
    if not answers or None in targets:
        return {}
    said = [yes_or_no(answer["response"]) for answer in answers]
    return {
        "yes_ratio": 100 * said.count("yes") / len(said),
        "yes_ratio_of_targets": 100 * targets.count("yes") / len(targets),
        "unparsed": sum(is_unparsed(answer["response"], task) for answer in answers),
    }


def refuse_unfit_files(
    answers: Sequence[TaskAnswer], results: TaskResults, metrics: Mapping[str, str]
) -> None:
    """A UserError if a metric is missing, or if answers and results are not of one run."""
    if missing := [theirs for theirs in metrics.values() if theirs not in results["metrics"]]:
        raise UserError(
            f"evaluation.benchmarks.{results['benchmark']}.metrics: lmms-eval's task"
            f" '{results['task']}' gives no {', '.join(missing)}. It gives"
            f" {', '.join(sorted(results['metrics']))}."
        )
    if len(answers) != results["questions"]:
        raise UserError(
            f"{results['model']} on {results['benchmark']}: {len(answers)} answers, but results of"
            f" {results['questions']}. The files are not of one run: delete both"
            f" (answers.jsonl and results.json in evaluation/{results['model']}"
            f"/{results['benchmark']}/ of the run's folder) and run again."
        )


def missing_judgements(results: TaskResults, metrics: Mapping[str, str]) -> dict[str, str]:
    """Our names of the scores that a judge would have had to give, each with why it has not."""
    if results["task"] in JUDGED_TASKS and not results["judge"]:
        return dict.fromkeys(metrics, UNJUDGED)
    left_out = results.get("unjudged", ())
    why = OF_ITS_OWN if results["judge"] else UNJUDGED
    return {name: why for name, theirs in metrics.items() if theirs in left_out}


def score(
    answers: Sequence[TaskAnswer],
    results: TaskResults,
    metrics: Mapping[str, str],
    percent: bool,
) -> TaskScores:
    """The scores (our name -> value, times 100 where `percent` says that lmms-eval gives fractions
    of 1) and what to know about them.

    `metrics`: our name -> lmms-eval's name. Errors: UserError if a metric is missing, or if answers
    and results are not of one run.
    """
    unjudged = missing_judgements(results, metrics)
    given = {name: theirs for name, theirs in metrics.items() if name not in unjudged}
    refuse_unfit_files(answers, results, given)
    factor = 100 if percent else 1
    return {
        "model": results["model"],
        "benchmark": results["benchmark"],
        "model_identity": results["model_identity"],
        "task": results["task"],
        "limit": results["limit"],
        "lmms_eval": results["lmms_eval"],
        "questions": results["questions"],
        "questions_in_data": results["questions_in_data"],
        "scores": {
            name: round(factor * results["metrics"][theirs], 10) for name, theirs in given.items()
        },
        "missing": unjudged,
        "doubts": {
            "empty": sum(not answer["response"].strip() for answer in answers),
            **yes_no_doubts(answers, results["task"]),
        },
    }


def reference_name(score: str) -> str:
    """What a score of our scorer is called beside lmms-eval's."""
    return f"reference_{score}"


def score_by_ours(
    benchmark: Benchmark[Any], path: Path, judge: Judge | None = None
) -> tuple[OtherScores, list[QuestionScore]]:
    """What our scorer makes of kept answers that carry their targets: scores and what to know of
    them, and what each answer was given.

    `judge`: for a scorer that asks one; its raw judgements stand in `judgements`, by question.
    """
    answers, reference = benchmark.read_answers(path), benchmark.read_reference(path)
    if judge and isinstance(benchmark, JudgedBenchmark):
        answers = benchmark.add_judgements(answers, reference, judge)
    ours = benchmark.score(answers, reference)
    by_question = benchmark.by_question(answers, reference)
    also: OtherScores = {
        "scores": {reference_name(name): value for name, value in ours.scores.items()},
        "computed_by": provenance.computed_by(
            scorer_name(benchmark, ours.version),
            ours.parser,
            judge=judge_name(judge, ours) if judge else None,
        ),
        "doubts": ours.extra,
        "per_type": ours.per_type,
        "problems": len(ours.problems),
        "intervals": {
            reference_name(name): interval for name, interval in ours.intervals_as_lists().items()
        },
    }
    if judge:
        also["judgements"] = judgements_in(answers)
    return also, by_question


def scores_of_task(answers: Sequence[TaskAnswer]) -> list[QuestionScore]:
    """What lmms-eval gave each answer, where its task says that in a number."""
    return [
        question_score(
            Answer(str(answer["id"]), answer["response"], line),
            answer["score"],
            target=str(answer["target"]),
        )
        for line, answer in enumerate(answers, start=1)
        if isinstance(answer.get("score"), int | float)
    ]


def with_pictures(
    rows: Sequence[QuestionScore], answers: Sequence[TaskAnswer]
) -> list[QuestionScore]:
    """What each answer was given, with what its picture is known by where the answers say it."""
    return [
        {**each, "picture": answers[each["line"] - 1].get("picture", each["picture"])}
        for each in rows
    ]


def judge_name(judge: Judge, score: Score) -> JudgeName:
    """Whose judgements a score is made of."""
    return {"model": judge.endpoint.model, "version": score.judge or judge.name}


def judgements_in(answers: Answers) -> dict[str, list[str | None]]:
    """The raw judgements that answers carry, by question."""
    return {
        answer.id: answer.details["judgements"]
        for answer in answers.rows
        if "judgements" in answer.details
    }


def add_ours(
    scores: TaskScores, benchmark: Benchmark[Any], path: Path, judge: Judge | None
) -> list[QuestionScore]:
    """Adds the scores of our scorer to lmms-eval's, and why one of them is missing; returns what it
    gave each answer.
    """
    also, by_question = score_by_ours(benchmark, path, judge)
    names = [reference_name(name) for name in benchmark.names]
    if judge:
        scores["missing"] = dict.fromkeys(scores["missing"], ELSEWHERE.format(name=names[0]))
    scores["also"] = also
    scores["scores"] |= also["scores"]
    why = f"our scorer {benchmark.name} has none of these answers"
    scores["missing"] |= {name: why for name in names if name not in also["scores"]}
    return by_question


def main(snakemake: Any) -> None:
    with Job(snakemake, ScoreBenchmarkJob, VERSION) as job:
        settings, path = job.settings, Path(snakemake.input.answers)
        answers = cast("list[TaskAnswer]", read_jsonl(path))
        results: TaskResults = json.loads(Path(snakemake.input.results).read_text("utf-8"))
        scores = score(answers, results, settings.metrics, settings.percent)
        by_question: list[QuestionScore] = []
        benchmark = load_benchmark(settings.scorer) if settings.scorer else None
        if isinstance(benchmark, JudgedBenchmark) and settings.judge:
            judge = Judge.of_job(job, settings.judge)
            by_question = add_ours(scores, benchmark, path, judge)
            judge.put_on_record(job)
        elif benchmark and not isinstance(benchmark, JudgedBenchmark):
            by_question = add_ours(scores, benchmark, path, None)
        computed_by = provenance.computed_by(
            f"lmms-eval {results['lmms_eval']}, task {results['task']}", judge=results["judge"]
        )
        origin = provenance.block(
            computed_by, path, job.root, results["environment"], versions(PACKAGES)
        )
        rows = with_pictures(by_question or scores_of_task(answers), answers)
        write_jsonl(Path(snakemake.output.by_question), rows)
        write_json(Path(snakemake.output.scores), {**scores, **origin})
        job.count(len(answers))


if __name__ == "__main__":
    run_script(main)
