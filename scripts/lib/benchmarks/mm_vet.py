"""MM-Vet: 218 questions, graded 0.0 to 1.0 by a judge (Yu et al. 2023; mm-vet_evaluator.py of
yuweihao/MM-Vet).

A run's total is the mean grade in percent; the score is the mean of the runs' totals, with their
standard deviation (of all runs, not of a sample), each rounded to one decimal. A capability's score
is the mean over the questions that need it. The reference grades five times with GPT-4. lmms-eval
grades once, with another model, and its prompt has "gpt_query_prompt" where the reference has
"Question".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.benchmarks.base import Answer, Answers, Problem, Score, Scorer, match, with_judgements
from lib.benchmarks.bootstrap import Floats, intervals
from lib.benchmarks.rows import answers_from, id_of, kind_of, read_rows
from lib.errors import UserError
from lib.judge import Judge, Question, fill

VERSION = 1
PARSER = "the grade is the judgement up to its first blank, a number of 0 to 1"
NAMES = {
    "total": "mean of the judge's grades, percent, mean of the runs (headline)",
    "std": "standard deviation of the runs' totals, percent points",
}
QUESTIONS = 218
#: The literal text of the reference: grades depend on it. Source: mm-vet_evaluator.py (Apache-2.0).
PROMPT = (Path(__file__).parent / "prompts" / "mm_vet.txt").read_text(encoding="utf-8")
#: What the reference adds when it asks again.
AGAIN = "\nPredict the correctness of the answer (digit): "
MAX_TOKENS = 3
RUNS = 5
FORMATS = """\
answers:   MM-Vet's result file, an object {"v1_0": "answer", ...}; its grade file {"v1_0": {"model": [...], "content": [...], "score":
           [...]}, ...}, one member of each list a run; JSON lines {"id", "response"}, with "grades": [...] if there are grades already; or
           lmms-eval's kept answers {"question_id", "response", "target", ...}
reference: mm-vet.json (question, answer, capability of each id), the folder that holds it, or lmms-eval's kept answers themselves; needed
           to ask a judge, and for the scores of the capabilities. Kept grades can be scored without it"""


@dataclass(frozen=True)
class Item:
    """A question, its true answer (with <AND>, <OR>), and what it needs."""

    question: str
    answer: str
    capabilities: tuple[str, ...]


def read_answers(path: Path) -> Answers:
    """A file of answers or of grades."""
    file = str(path)
    rows = read_rows(path)
    if (
        len(rows) > 1
        or not isinstance(rows[0].value, dict)
        or rows[0].value.keys() & {"id", "question_id"}
    ):
        answers = answers_from(
            path, rows, ("question_id", "id"), details=("grades", "judgements", "judge", "reason")
        )
        named = {
            answer.details["judge"]
            for answer in answers.rows
            if isinstance(answer.details.get("judge"), str)
        }
        kept = any("grades" in answer.details for answer in answers.rows)
        return Answers(
            file,
            answers.rows,
            answers.problems,
            ", ".join(sorted(named)) or ("not named in the file" if kept else None),
        )
    found: dict[str, Answer] = {}
    problems: list[Problem] = []
    models: set[str] = set()
    for row in read_rows(path, keyed=True):
        name, value = str(row.key), row.value
        if name in found:
            problems.append(
                Problem(
                    file,
                    row.line,
                    f"id {name!r} again: line {found[name].line} has it already, and that one is"
                    " scored",
                )
            )
        elif isinstance(value, str):
            found[name] = Answer(name, value, row.line)
            if not value.strip():
                problems.append(
                    Problem(
                        file,
                        row.line,
                        f"the answer of id {name!r} is empty; scored as the reference scores it",
                    )
                )
        elif isinstance(value, dict) and isinstance(value.get("score"), list):
            found[name] = Answer(name, "", row.line, {"grades": value["score"]})
            models.update(map(str, value["model"] if isinstance(value.get("model"), list) else ()))
        else:
            problems.append(
                Problem(
                    file,
                    row.line,
                    f"the answer of id {name!r} is {kind_of(value)}, neither text nor grades; not"
                    " scored",
                )
            )
    if not found:
        raise UserError(
            f"{problems[0]} (and so with all rows). Is this a file of MM-Vet's answers or grades?"
        )
    graded = any("grades" in answer.details for answer in found.values())
    return Answers(
        file,
        list(found.values()),
        problems,
        (", ".join(sorted(models)) or "not named in the file") if graded else None,
    )


def read_reference(*paths: Path) -> Mapping[str, Item]:
    """The questions by id; without mm-vet.json, ids alone. Errors: UserError."""
    files = [
        file
        for path in map(Path, paths)
        for file in (sorted(path.rglob("mm-vet.json")) if path.is_dir() else [path])
    ]
    if not files:
        return {f"v1_{number}": Item("", "", ()) for number in range(QUESTIONS)}
    first = read_rows(files[0])[0].value
    kept = isinstance(first, dict) and "question_id" in first
    items = {}
    for row in read_rows(files[0], keyed=not kept):
        value = row.value if isinstance(row.value, dict) else {}
        name = id_of(value.get("question_id")) if kept else row.key
        question, answer = (
            value.get(key)
            for key in (("bare_question", "target") if kept else ("question", "answer"))
        )
        needs = value.get("capability")
        needs = needs.split(",") if isinstance(needs, str) else needs  # a text in lmms-eval's data
        if (
            name is None
            or not isinstance(question, str)
            or not isinstance(answer, str)
            or not isinstance(needs, list)
        ):
            raise UserError(
                f"{files[0]}, line {row.line}: no question of MM-Vet (`question`, `answer`,"
                " `capability`; in kept answers `question_id`, `bare_question`, `target`,"
                " `capability`)."
            )
        items[name] = Item(question, answer, tuple(sorted({str(need).strip() for need in needs})))
    return items


def read_grade(judgement: str) -> float:
    """The grade, as the reference reads it. Errors: ValueError for anything else than a number of 0
    to 1.
    """
    word = judgement.split(" ")[0].strip()
    try:
        grade = float(word)
    except ValueError:
        grade = math.nan
    if not 0 <= grade <= 1:
        raise ValueError(f"no grade of 0 to 1: {judgement.strip()[:80]!r}")
    return grade


def ask(answers: Answers, reference: Mapping[str, Item], judge: Judge, runs: int = RUNS) -> Answers:
    """The answers with `runs` grades each. A run differs from the others in its seed alone."""
    wanted = [
        answer
        for answer in answers.rows
        if answer.id in reference and "grades" not in answer.details
    ]
    if any(not reference[answer.id].question for answer in wanted):
        raise UserError(
            "a judge of MM-Vet needs the questions and true answers: name mm-vet.json with"
            " --reference."
        )
    questions = []
    for answer in wanted:
        item = reference[answer.id]
        truth = item.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        text = fill(PROMPT, question=item.question, answer=truth, prediction=answer.text)
        questions += [Question(f"{answer.id}#{run}", text, seed=run) for run in range(runs)]
    judged = judge.ask(questions, read_grade, max_tokens=MAX_TOKENS, again=AGAIN)
    details: dict[str, dict[str, Any]] = {}
    for answer in wanted:
        of_runs = [judged[f"{answer.id}#{run}"] for run in range(runs)]
        reason = next((one.reason for one in of_runs if one.reason is not None), None)
        kept: dict[str, Any] = {"judgements": [one.text for one in of_runs]}
        details[answer.id] = kept | (
            {"grades": [one.value for one in of_runs]} if reason is None else {"reason": reason}
        )
    return with_judgements(answers, {}, lambda one: {}, judge, details)


def _grades(answer: Answer) -> list[float]:
    """Errors: ValueError saying why there are none."""
    grades = answer.details.get("grades")
    if grades is None:
        raise ValueError(answer.details.get("reason") or "none in the file")
    if not isinstance(grades, list) or not grades:
        raise ValueError("its grades are no list of numbers")
    for grade in grades:
        if isinstance(grade, bool) or not isinstance(grade, int | float) or not 0 <= grade <= 1:
            raise ValueError(f"{grade!r} is no number of 0 to 1")
    return [float(grade) for grade in grades]


def score(
    answers: Answers, reference: Mapping[str, Item], *, samples: int = 1000, seed: int = 0
) -> Score:
    """MM-Vet's scores from grades. The unit of the bootstrap is the question. Errors: UserError
    without any grade.
    """
    matched, problems, counts = match(answers, list(reference), "MM-Vet")
    if not any(
        "grades" in answer.details or "reason" in answer.details for answer in matched.values()
    ):
        raise UserError(
            f"{answers.file}: no grades. MM-Vet is graded by a judge: name one (--judge-url,"
            " --judge-model)."
        )
    graded: dict[str, list[float]] = {}
    for name, answer in matched.items():
        try:
            graded[name] = _grades(answer)
        except ValueError as error:
            problems.append(
                Problem(
                    answers.file, answer.line, f"id {name!r} has no grades ({error}); not scored"
                )
            )
    runs = max(map(len, graded.values()), default=0)
    for name in [name for name, grades in graded.items() if len(grades) < runs]:
        problems.append(
            Problem(
                answers.file,
                matched[name].line,
                f"id {name!r} has {len(graded.pop(name))} of {runs} grades; not scored",
            )
        )
    table = np.array(list(graded.values()), dtype=np.float64).reshape(len(graded), runs)
    scores: dict[str, float] = {}
    extra: dict[str, Any] = {**counts, "graded": len(table), "runs": runs}
    per_type: dict[str, dict[str, float]] = {}
    found: dict[str, tuple[float, float]] = {}
    if len(table):
        totals = table.sum(axis=0) / len(table) * 100
        scores = {"total": round(float(totals.mean()), 1), "std": round(float(totals.std()), 1)}
        extra |= {
            "totals_of_runs": [round(float(total), 1) for total in totals],
            "total_unrounded": float(totals.mean()),
        }
        for capability in sorted(
            {each for name in graded for each in reference[name].capabilities}
        ):
            of_capability = np.array(
                [
                    grades
                    for name, grades in graded.items()
                    if capability in reference[name].capabilities
                ]
            )
            mean = round(float((of_capability.sum(axis=0) / len(of_capability) * 100).mean()), 1)
            per_type[capability] = {"total": mean, "questions": len(of_capability)}

        def totals_of(sums: Floats) -> dict[str, Floats]:
            return {"total": 100 * sums[..., 0] / sums[..., 1]}

        units = np.stack([table.mean(axis=1), np.ones(len(table))], axis=1)
        found = intervals([units], lambda sums: totals_of(sums[0]), samples=samples, seed=seed)
    return Score(
        benchmark="mm_vet",
        scores=scores,
        extra=extra,
        per_type=per_type,
        intervals=found,
        problems=problems,
        parser=PARSER,
        version=VERSION,
        judge=answers.judge,
    )


SCORER = Scorer("mm_vet", "MM-Vet", NAMES, read_answers, read_reference, score, FORMATS, ask=ask)
