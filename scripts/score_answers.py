"""Rule score_answers: one model's scores on a benchmark of our own, from its kept answers (scorers:
lib/benchmarks, docs/evaluation.md).

No model runs here and no GPU is needed. What a judge is asked, it is asked through lib/judge.py,
whose cache makes a rerun ask nothing twice. `scored.jsonl` holds the answers as the scorer read
them, judgements included: `scripts/score.py` gives the same scores from it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.benchmarks import SCORERS, Answers
from lib.benchmarks.base import Score, to_rows
from lib.benchmarks.language import LanguageTools
from lib.benchmarks.questions import LAST_GENERATIVE
from lib.blocks import Endpoint
from lib.files import digest_of_file, read_jsonl, write_json, write_jsonl
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.judge import Judge
from lib.report import provenance

VERSION = 1
#: Packages that decide a score.
PACKAGES = ("numpy", "nltk", "textblob", "spacy", "openai")
NO_JUDGE = "no judge is configured (evaluation.benchmarks.{benchmark}.judge)"
#: Scorers none of whose scores can be had without a judge.
NEEDS_JUDGE = ("mmhal_bench",)
#: Scorer -> why a score can be missing though there are answers; for the others, a part of the
#: benchmark is not answered.
NOTHING_TO_COUNT = dict.fromkeys(
    ("chair", "object_halbench"), "no answer mentions an object that the benchmark knows"
)
YES_ANYWHERE = 'a discriminative answer with "yes" in it is Yes, any other No'
PROBLEMS_SHOWN = 20


def as_yes_or_no(text: str) -> str:
    """An answer as AMBER's script wants it, which compares with exactly "Yes" and "No". Read as
    HALVA's evaluation of LLaVA-1.5 does.
    """
    return "Yes" if "yes" in text.lower() else "No"


def read_as_amber(answers: Answers) -> Answers:
    """AMBER's answers with every discriminative one read as Yes or No; the raw answer stays beside
    it.
    """
    rows = [
        (
            replace(
                answer,
                text=as_yes_or_no(answer.text),
                details={**answer.details, "raw": answer.text},
            )
            if answer.id.isdecimal() and int(answer.id) > LAST_GENERATIVE
            else answer
        )
        for answer in answers.rows
    ]
    return replace(answers, rows=rows)


def doubts_of(
    answers: Answers, raw: Iterable[Mapping[str, Any]], score: Score | None
) -> dict[str, Any]:
    """What to know beside the scores: empty, truncated and failed answers, and what the scorer
    counted.
    """
    raw = list(raw)
    found: dict[str, Any] = {
        "empty": sum(not row["response"].strip() for row in raw if "response" in row),
        "truncated": sum(row.get("finish_reason") == "length" for row in raw),
        "failed": sum("response" not in row for row in raw),
    }
    if any("raw" in answer.details for answer in answers.rows):
        found["neither_yes_nor_no"] = sum(
            not any(word in answer.details["raw"].lower() for word in ("yes", "no"))
            for answer in answers.rows
            if "raw" in answer.details
        )
    return found | (score.extra if score else {})


def judge_of(settings: Mapping[str, Any], job: ShardJob) -> Judge | None:
    """The configured judge with its cache in `work/`, or None."""
    if settings["judge"] is None:
        return None
    return Judge(Endpoint.model_validate(settings["judge"]), job.work / f"{job.name}.judge.jsonl")


def judge_told(name: str, judge: Judge | None) -> dict[str, str] | None:
    """Whose judgements a score is made of. `name`: as the scorer gives it, the version that
    answered included.
    """
    return {"model": judge.endpoint.model, "version": name} if judge else None


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    scorer = SCORERS[settings["scorer"]]
    path = Path(snakemake.input.answers)
    asked = json.loads(Path(snakemake.input.asked).read_text(encoding="utf-8"))
    raw = read_jsonl(path)
    reference = scorer.read_reference(*map(Path, settings["reference"]))
    answers = scorer.read_answers(path)
    reading = None
    if scorer.name == "amber":
        answers, reading = read_as_amber(answers), YES_ANYWHERE
    judge = judge_of(settings, job)
    missing: dict[str, str] = {}
    score: Score | None = None
    if scorer.name in NEEDS_JUDGE and judge is None:
        missing = dict.fromkeys(scorer.names, NO_JUDGE.format(benchmark=asked["benchmark"]))
    else:
        if scorer.ask and judge:
            answers = scorer.ask(answers, reference, judge)
            job.note(f"judge {judge.name}: {judge.asked} asked, {judge.reused} reused")
        more = {"language": LanguageTools(settings["language"])} if scorer.uses_language else {}
        score = scorer.score(answers, reference, **more)
        why = NOTHING_TO_COUNT.get(scorer.name, "these answers have no such part")
        missing = {name: why for name in scorer.names if name not in score.scores}
    made = provenance.computed_by(
        f"scripts/lib/benchmarks/{scorer.name}.py, version {score.version if score else '-'}",
        parser="; ".join(filter(None, (score.parser if score else None, reading))) or None,
        judge=judge_told(score.judge or judge.name, judge) if score and judge else None,
        language_tools=score.language_tools if score else None,
    )
    problems = score.problems if score else list(answers.problems)
    write_jsonl(Path(snakemake.output.scored), to_rows(answers))
    write_json(
        Path(snakemake.output.scores),
        {
            **{
                name: asked[name]
                for name in (
                    "model",
                    "benchmark",
                    "model_identity",
                    "questions",
                    "questions_in_data",
                    "limit",
                )
            },
            "scores": score.scores if score else {},
            "missing": missing,
            "doubts": doubts_of(answers, raw, score),
            "per_type": score.per_type if score else {},
            "intervals": (
                {name: list(interval) for name, interval in score.intervals.items()}
                if score
                else {}
            ),
            "problems": {
                "count": len(problems),
                "first": [problem.what for problem in problems[:PROBLEMS_SHOWN]],
            },
            "names": dict(scorer.names),
            "reference": reference_files(settings["reference"]),
            **provenance.block(
                made, path, job.root, asked["environment"], provenance.versions(PACKAGES)
            ),
        },
    )
    job.record.items = job.record.computed = len(raw)
    job.write_record()


def reference_files(paths: Iterable[str]) -> dict[str, str]:
    """The sha256 of every reference file, by its name below the configured path."""
    found = {}
    for path in map(Path, paths):
        for file in (
            sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        ):
            found[file.relative_to(path.parent).as_posix()] = digest_of_file(file)
    return found


if __name__ == "__main__":
    run_script(main)
