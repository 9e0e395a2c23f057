"""MM-Vet: 218 questions, graded 0.0 to 1.0 by a judge (Yu et al. 2023; mm-vet_evaluator.py of
yuweihao/MM-Vet).

A run's total is the mean grade in percent; the score is the mean of the runs' totals, with their
standard deviation (of all runs, not of a sample), each rounded to one decimal. A capability's score
is the mean over the questions that need it. The reference grades five times with GPT-4. lmms-eval
grades once, with another model, and its prompt has "gpt_query_prompt" where the reference has
"Question".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from lib.benchmarks.answers import Answer, Answers, Problem
from lib.benchmarks.base import Better
from lib.benchmarks.joining import KEPT, Asked, Questions, joined
from lib.benchmarks.judged import NOT_NAMED, JudgedBenchmark, judges_in, with_judgements
from lib.benchmarks.lmms_eval.samples import read_answer_rows
from lib.benchmarks.rows import FileRow, answers_from, by_id, id_of, kind_of, read_rows
from lib.benchmarks.scores import Score, match, question_score
from lib.bootstrap import Floats, intervals
from lib.data.evaluation_files import QuestionScore
from lib.errors import UserError
from lib.judge import Judge, Judgement, JudgeQuestion, fill

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
FORMATS = """\
answers:   MM-Vet's result file, an object {"v1_0": "answer", ...}; its grade file {"v1_0":
           {"model": [...], "content": [...], "score": [...]}, ...}, one member of each list a
           run; JSON lines {"id", "response"}, with "grades": [...] if there are grades already;
           or lmms-eval's own ..._samples_mmvet.jsonl, or its kept answers {"question_id",
           "response", "target", ...}, to be graded by a judge: its own grade has another prompt
reference: mm-vet.json (question, answer, capability of each id), the folder that holds it, or
           lmms-eval's answers themselves; needed to ask a judge, and for the scores of the
           capabilities. Kept grades can be scored without it"""


@dataclass(frozen=True)
class GradedQuestion:
    """A question, its true answer (with <AND>, <OR>), and what it needs."""

    question: str
    answer: str
    capabilities: tuple[str, ...]


GradedQuestions = Mapping[str, GradedQuestion]


class _OwnFile:
    """MM-Vet's file of answers or of grades: one object, a member an id."""

    def __init__(self, path: Path, members: Sequence[FileRow]) -> None:
        self.file = str(path)
        self.answers: dict[str, Answer] = {}
        self.problems: list[Problem] = []
        self.models: set[str] = set()
        for row in members:
            self._add(str(row.key), row)

    def _add(self, name: str, row: FileRow) -> None:
        value = row.value
        if name in self.answers:
            line = self.answers[name].line
            self._tell(
                row, f"id {name!r} again: line {line} has it already, and that one is scored"
            )
        elif isinstance(value, str):
            self.answers[name] = Answer(name, value, row.line)
            if not value.strip():
                what = f"the answer of id {name!r} is empty; scored as the reference scores it"
                self._tell(row, what)
        elif isinstance(value, dict) and isinstance(value.get("score"), list):
            self.answers[name] = Answer(name, "", row.line, {"grades": value["score"]})
            models = value.get("model")
            self.models.update(map(str, models if isinstance(models, list) else ()))
        else:
            what = f"the answer of id {name!r} is {kind_of(value)}, neither text nor grades"
            self._tell(row, f"{what}; not scored")

    def _tell(self, row: FileRow, what: str) -> None:
        self.problems.append(Problem(self.file, row.line, what))

    def read(self) -> Answers:
        """What the file holds. Errors: UserError where that is nothing."""
        if not self.answers:
            raise UserError(
                f"{self.problems[0]} (and so with all rows). Is this a file of MM-Vet's answers or"
                " grades?"
            )
        are_graded = any("grades" in answer.details for answer in self.answers.values())
        judge = ", ".join(sorted(self.models)) or NOT_NAMED
        return Answers(
            self.file, list(self.answers.values()), self.problems, judge if are_graded else None
        )


def _members_of_own_file(path: Path) -> list[FileRow] | None:
    """The members of a file that is MM-Vet's own; None of one that holds rows, or that is damaged,
    which is told when its rows are read.
    """
    try:
        members = read_rows(path, keyed=True)
    except UserError:
        return None
    return None if {row.key for row in members} & {"id", "question_id", "doc_id"} else members


def _graded_question(file: Path, row: FileRow, kept: bool) -> tuple[str, GradedQuestion]:
    """A question of mm-vet.json, or (`kept`) of lmms-eval's kept answers."""
    value = row.value if isinstance(row.value, dict) else {}
    name = id_of(value.get("question_id")) if kept else row.key
    keys = ("bare_question", "target") if kept else ("question", "answer")
    question, answer = (value.get(key) for key in keys)
    needs = value.get("capability")
    needs = needs.split(",") if isinstance(needs, str) else needs  # a text in lmms-eval's data
    if (
        name is None
        or not isinstance(question, str)
        or not isinstance(answer, str)
        or not isinstance(needs, list)
    ):
        raise UserError(
            f"{file}, line {row.line}: no question of MM-Vet (`question`, `answer`,"
            " `capability`; in kept answers `question_id`, `bare_question`, `target`,"
            " `capability`)."
        )
    capabilities = tuple(sorted({str(need).strip() for need in needs}))
    return name, GradedQuestion(question, answer, capabilities)


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


def _questions_for_judge(
    answer: Answer, item: GradedQuestion, gradings: int
) -> list[JudgeQuestion]:
    """The same question as often; a grading differs from the others in its seed alone."""
    truth = item.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    text = fill(PROMPT, question=item.question, answer=truth, prediction=answer.text)
    return [JudgeQuestion(f"{answer.id}#{run}", text, seed=run) for run in range(gradings)]


def _details_of(judgements: Sequence[Judgement[float]]) -> dict[str, Any]:
    """What is kept of an answer's gradings: grades if all have one, else the reason."""
    reason = next((one.reason for one in judgements if one.reason is not None), None)
    kept: dict[str, Any] = {"judgements": [one.text for one in judgements]}
    if reason is not None:
        return kept | {"reason": reason}
    return kept | {"grades": [one.value for one in judgements]}


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


def _read_grades(
    file: str, answers: Mapping[str, Answer]
) -> tuple[dict[str, list[float]], list[Problem]]:
    """The grades of answers that have as many as any other, and what is wrong with the rest."""
    graded: dict[str, list[float]] = {}
    problems = []
    for name, answer in answers.items():
        try:
            graded[name] = _grades(answer)
        except ValueError as error:
            what = f"id {name!r} has no grades ({error}); not scored"
            problems.append(Problem(file, answer.line, what))
    runs = max(map(len, graded.values()), default=0)
    for name in [name for name, grades in graded.items() if len(grades) < runs]:
        what = f"id {name!r} has {len(graded.pop(name))} of {runs} grades; not scored"
        problems.append(Problem(file, answers[name].line, what))
    return graded, problems


class _GradeTable:
    """The grades of answers [question, run], with what their questions need."""

    def __init__(self, graded: Mapping[str, list[float]], reference: GradedQuestions) -> None:
        self.needs = [reference[name].capabilities for name in graded]
        self.runs = max(map(len, graded.values()), default=0)
        self.grades = np.array(list(graded.values()), dtype=np.float64)
        self.grades = self.grades.reshape(len(graded), self.runs)
        self.totals = self._totals(self.grades)

    @staticmethod
    def _totals(grades: Floats) -> Floats:
        """The total of each run, percent."""
        return np.asarray(grades.sum(axis=0) / len(grades) * 100)

    def scores(self) -> dict[str, float]:
        """MM-Vet's own scores."""
        return {
            "total": round(float(self.totals.mean()), 1),
            "std": round(float(self.totals.std()), 1),
        }

    def extra(self) -> dict[str, Any]:
        """The totals that the scores are made of."""
        return {
            "totals_of_runs": [round(float(total), 1) for total in self.totals],
            "total_unrounded": float(self.totals.mean()),
        }

    def per_type(self) -> dict[str, dict[str, float]]:
        """The total over the questions that need each capability."""
        per_type: dict[str, dict[str, float]] = {}
        for capability in sorted({each for needs in self.needs for each in needs}):
            rows = [number for number, needs in enumerate(self.needs) if capability in needs]
            mean = round(float(self._totals(self.grades[rows]).mean()), 1)
            per_type[capability] = {"total": mean, "questions": len(rows)}
        return per_type

    def intervals(self, samples: int, seed: int) -> dict[str, tuple[float, float]]:
        """The interval of the total."""
        units = np.stack([self.grades.mean(axis=1), np.ones(len(self.grades))], axis=1)
        return intervals(
            [units],
            lambda sums: {"total": 100 * sums[0][..., 0] / sums[0][..., 1]},
            samples=samples,
            seed=seed,
        )


class MMVet(JudgedBenchmark[GradedQuestions]):
    """MM-Vet, of lmms-eval's kept answers or of files of one's own."""

    VERSION: ClassVar[int] = 1
    name = "mm_vet"
    title = "MM-Vet"
    names = NAMES
    better: ClassVar[Mapping[str, Better]] = {"total": "higher"}
    formats = FORMATS
    kept_tasks = ("mmvet",)
    gradings = 5

    def read_answers(self, path: Path) -> Answers:
        """A file of answers or of grades."""
        if members := _members_of_own_file(path):
            return _OwnFile(path, members).read()
        rows = read_answer_rows(path)
        details = ("grades", "judgements", "judge", "reason", *KEPT)
        answers = answers_from(path, rows, ("question_id", "id"), details=details)
        return replace(answers, judge=judges_in(answers, "grades"))

    def read_reference(self, *paths: Path) -> GradedQuestions:
        """The questions by id; without mm-vet.json, ids alone. Errors: UserError."""
        files = [
            file
            for path in map(Path, paths)
            for file in (sorted(path.rglob("mm-vet.json")) if path.is_dir() else [path])
        ]
        if not files:
            return {f"v1_{number}": GradedQuestion("", "", ()) for number in range(QUESTIONS)}
        rows = read_answer_rows(files[0])
        kept = isinstance(rows[0].value, dict) and "question_id" in rows[0].value
        rows = rows if kept else read_rows(files[0], keyed=True)
        return by_id(files[0], rows, (_graded_question(files[0], row, kept) for row in rows))

    def _joined(self, answers: Answers, reference: GradedQuestions) -> Answers:
        asked = {name: Asked(item.question) for name, item in reference.items()}
        return joined(answers, Questions(asked), self.title)

    def add_judgements(
        self,
        answers: Answers,
        reference: GradedQuestions,
        judge: Judge,
        gradings: int | None = None,
    ) -> Answers:
        """The answers with `gradings` grades each."""
        answers = self._joined(answers, reference)
        gradings = gradings or self.gradings
        ungraded = [
            answer
            for answer in answers.rows
            if answer.id in reference and "grades" not in answer.details
        ]
        if any(not reference[answer.id].question for answer in ungraded):
            raise UserError(
                "a judge of MM-Vet needs the questions and true answers: name mm-vet.json with"
                " --reference."
            )
        questions = [
            question
            for answer in ungraded
            for question in _questions_for_judge(answer, reference[answer.id], gradings)
        ]
        judged = judge.ask(questions, read_grade, max_tokens=MAX_TOKENS, again=AGAIN)
        details = {
            answer.id: _details_of([judged[f"{answer.id}#{run}"] for run in range(gradings)])
            for answer in ungraded
        }
        return with_judgements(answers, {}, lambda one: {}, judge, details)

    def by_question(self, answers: Answers, reference: GradedQuestions) -> list[QuestionScore]:
        """The mean of each answer's grades."""
        matched, *_ = match(self._joined(answers, reference), list(reference), self.title)
        graded, _ = _read_grades(answers.file, matched)
        return [
            question_score(matched[name], fmean(grades), target=reference[name].answer)
            for name, grades in graded.items()
        ]

    def score(
        self, answers: Answers, reference: GradedQuestions, *, samples: int = 1000, seed: int = 0
    ) -> Score:
        """MM-Vet's scores from grades. The unit of the bootstrap is the question. Errors: UserError
        without any grade.
        """
        answers = self._joined(answers, reference)
        matched, problems, counts = match(answers, list(reference), self.title)
        if not any(answer.details.keys() & {"grades", "reason"} for answer in matched.values()):
            raise UserError(
                f"{answers.file}: no grades. MM-Vet is graded by a judge: name one (--judge-url,"
                " --judge-model)."
            )
        graded, not_graded = _read_grades(answers.file, matched)
        table = _GradeTable(graded, reference)
        extra = {**counts, "graded": len(graded), "runs": table.runs}
        return Score(
            benchmark=self.name,
            scores=table.scores() if graded else {},
            extra=extra | (table.extra() if graded else {}),
            per_type=table.per_type() if graded else {},
            intervals=table.intervals(samples, seed) if graded else {},
            problems=[*problems, *not_graded],
            parser=PARSER,
            version=self.VERSION,
            judge=answers.judge,
        )
