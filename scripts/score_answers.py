"""Rule score_answers: one model's scores on a benchmark of our own, from its kept answers (scorers:
lib/benchmarks, docs/evaluation.md).

No model runs here and no GPU is needed. What a judge is asked, it is asked through lib/judge.py,
whose cache makes a rerun ask nothing twice. `scored.jsonl` holds the answers as the scorer read
them, judgements included: `scripts/score.py` gives the same scores from it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lib.benchmarks.answers import Answers, to_rows
from lib.benchmarks.base import Benchmark
from lib.benchmarks.judged import JudgedBenchmark
from lib.benchmarks.registry import load_benchmark
from lib.benchmarks.scores import Score, scorer_name
from lib.config.evaluation import ScoreAnswersJob
from lib.contents import files_under
from lib.data.evaluation_files import (
    AnswerScores,
    Asked,
    ComputedBy,
    JudgeName,
    QuestionAnswer,
    QuestionScore,
)
from lib.files import digest_of_file, read_jsonl, write_json, write_jsonl
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.jobs.versions import versions
from lib.judge import Judge
from lib.report import provenance

VERSION = 3
#: Packages that decide a score.
PACKAGES = ("numpy", "nltk", "textblob", "spacy", "openai")
NO_JUDGE = "no judge is configured (evaluation.benchmarks.{benchmark}.judge)"
PROBLEMS_SHOWN = 20


class Scoring:
    """A job's scorer, what the answers are held against, and the configured judge, if any."""

    def __init__(self, job: Job[ScoreAnswersJob]) -> None:
        settings = job.settings
        self.job = job
        self.benchmark: Benchmark[Any] = load_benchmark(settings.scorer, settings.language)
        self.reference = self.benchmark.read_reference(*map(Path, settings.reference))
        self.judge = Judge.of_job(job, settings.judge) if settings.judge else None

    @property
    def lacks_judge(self) -> bool:
        """Whether no score can be had, for want of a judge."""
        benchmark = self.benchmark
        return isinstance(benchmark, JudgedBenchmark) and benchmark.needs_judge and not self.judge

    def read(self, path: Path) -> Answers:
        """The answers as they are scored, with the judge's judgements."""
        answers = self.benchmark.read_free_answers(self.benchmark.read_answers(path))
        if self.judge and isinstance(self.benchmark, JudgedBenchmark):
            answers = self.benchmark.add_judgements(answers, self.reference, self.judge)
            self.judge.put_on_record(self.job)
        return answers

    def score(self, answers: Answers) -> Score | None:
        """The score; None where there is none without a judge."""
        return None if self.lacks_judge else self.benchmark.score(answers, self.reference)

    def by_question(self, answers: Answers, asked: Sequence[QuestionAnswer]) -> list[QuestionScore]:
        """What each answer was given, with the digest of its picture. `asked`: the lines of
        answers.jsonl.
        """
        if self.lacks_judge:
            return []
        return [
            {**each, "picture": asked[each["line"] - 1].get("image_sha256", each["picture"])}
            for each in self.benchmark.by_question(answers, self.reference)
        ]

    def missing(self, score: Score | None, benchmark: str) -> dict[str, str]:
        """The scores that there are not, each with its reason. `benchmark`: as configured."""
        names = self.benchmark.names
        if score is None:
            return dict.fromkeys(names, NO_JUDGE.format(benchmark=benchmark))
        return {name: self.benchmark.no_score for name in names if name not in score.scores}

    def computed_by(self, score: Score | None) -> ComputedBy:
        """What computed the score, for the block of lib/report/provenance.py."""
        parsers = [score.parser if score else None, self.benchmark.reading]
        return provenance.computed_by(
            scorer_name(self.benchmark, score.version if score else None),
            parser="; ".join(filter(None, parsers)) or None,
            judge=self._judge_name(score),
            language_tools=score.language_tools if score else None,
        )

    def _judge_name(self, score: Score | None) -> JudgeName | None:
        if score is None or self.judge is None:
            return None
        return {"model": self.judge.endpoint.model, "version": score.judge or self.judge.name}


def count_doubtful(answers: Sequence[QuestionAnswer]) -> dict[str, Any]:
    """How many answers are empty, truncated, or failed."""
    given = [answer["response"] for answer in answers if "response" in answer]
    return {
        "empty": sum(not text.strip() for text in given),
        "truncated": sum(answer.get("finish_reason") == "length" for answer in answers),
        "failed": len(answers) - len(given),
    }


def digest_files(paths: Iterable[str]) -> dict[str, str]:
    """The sha256 of every reference file, by its name below the configured path."""
    digests = {}
    for path in map(Path, paths):
        for file in files_under(path):
            digests[file.relative_to(path.parent).as_posix()] = digest_of_file(file)
    return digests


def scores_of(
    asked: Asked, scoring: Scoring, answers: Answers, score: Score | None, doubts: Mapping[str, Any]
) -> AnswerScores:
    """What is published of a score, or of there being none."""
    problems = score.problems if score else answers.problems
    return {
        "model": asked["model"],
        "benchmark": asked["benchmark"],
        "model_identity": asked["model_identity"],
        "questions": asked["questions"],
        "questions_in_data": asked["questions_in_data"],
        "limit": asked["limit"],
        "scores": score.scores if score else {},
        "missing": scoring.missing(score, asked["benchmark"]),
        "doubts": {
            **doubts,
            **scoring.benchmark.doubts(answers),
            **(score.extra if score else {}),
        },
        "per_type": score.per_type if score else {},
        "intervals": score.intervals_as_lists() if score else {},
        "problems": {
            "count": len(problems),
            "first": [problem.what for problem in problems[:PROBLEMS_SHOWN]],
        },
        "names": dict(scoring.benchmark.names),
        "not_comparable": score.not_comparable if score else {},
        "reference": digest_files(scoring.job.settings.reference),
    }


def main(snakemake: Any) -> None:
    with Job(snakemake, ScoreAnswersJob, VERSION) as job:
        path = Path(snakemake.input.answers)
        asked: Asked = json.loads(Path(snakemake.input.asked).read_text(encoding="utf-8"))
        raw = cast("list[QuestionAnswer]", read_jsonl(path))
        scoring = Scoring(job)
        answers = scoring.read(path)
        score = scoring.score(answers)
        origin = provenance.block(
            scoring.computed_by(score),
            path,
            job.root,
            asked["environment"],
            versions(PACKAGES),
        )
        scores = scores_of(asked, scoring, answers, score, count_doubtful(raw))
        write_jsonl(Path(snakemake.output.scored), to_rows(answers))
        write_jsonl(Path(snakemake.output.by_question), scoring.by_question(answers, raw))
        write_json(Path(snakemake.output.scores), {**scores, **origin})
        job.count(len(raw))


if __name__ == "__main__":
    run_script(main)
