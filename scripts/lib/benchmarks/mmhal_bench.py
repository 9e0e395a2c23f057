"""MMHal-Bench: 96 questions of 8 types, rated by a judge (Sun et al. 2023; eval_gpt4.py of
Shengcao1006/MMHal-Bench).

A judgement's rating is the digit after "rating: " in the lower-cased text; exactly one of 0 to 6
must be found. A rating below 3 is a hallucination. The reference gives any other judgement 0: so do
we with judgements that somebody kept, and say so; our own judge is asked again, and an answer that
it never rates is left out, and told. The judge decides much: a score without its judge's name says
little.

Questions are put as they stand in response_template.json; the benchmark's authors
(Eval/eval_scripts/eval_mmhal.sh of llava-rlhf/LLaVA-RLHF) and HALVA (eval_hall/model_vqa_mmhal.py,
1,024 new tokens) add nothing and are greedy. RLHF-V/RLAIF-V asks with three beams
(script/eval/chair/eval_llava1.5_chair.sh): `beams: 3`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lib.benchmarks.answers import Answer, Answers, Problem
from lib.benchmarks.base import Better
from lib.benchmarks.joining import KEPT, UNSAID, Asked, Questions, asked_in, joined
from lib.benchmarks.judged import JudgedBenchmark, judges_in, with_judgements
from lib.benchmarks.questions import Form, QuestionsBenchmark
from lib.benchmarks.rows import FileRow, answers_from, by_id, id_of, kind_of, read_rows, read_text
from lib.benchmarks.scores import Score, finite, match, question_score
from lib.bootstrap import Floats, intervals
from lib.data.evaluation_files import QuestionScore
from lib.errors import UserError
from lib.judge import Judge, JudgeQuestion, fill

PARSER = (
    '"rating: s" in the lower-cased judgement, exactly one s of 0 to 6; below 3 is a hallucination'
)
NAMES = {
    "score": "mean of the judge's ratings, 0 to 6 (headline)",
    "hallucination": "answers rated below 3, percent",
}
TYPES = (
    "attribute",
    "adversarial",
    "comparison",
    "counting",
    "relation",
    "environment",
    "holistic",
    "other",
)
QUESTIONS = 96
#: The literal text of the reference: ratings depend on it. Source: eval_gpt4.py of MMHal-Bench
#: (Apache-2.0).
PROMPT = (Path(__file__).parent / "prompts" / "mmhal_bench.txt").read_text(encoding="utf-8")
MAX_TOKENS = 1024
FORMATS = """\
answers:   MMHal-Bench's response file (an array of 96 rows with "model_answer", in the
           benchmark's order); JSON lines {"id": 0 to 95, "response"}, with "judgement": the
           judge's text, if there is one already; or a judge's log as eval_gpt4.py prints it ("0
           <judgement>", "1 <judgement>", ...), or its evaluation file (an array of the judge's
           chat completions)
reference: response_template.json (the questions with image contents and human answers); needed
           to ask a judge, and for a file that has other types than the order tells. Kept
           judgements can be scored without it"""


@dataclass(frozen=True)
class RatedQuestion:
    """A question of the benchmark, with what a judge is told of it."""

    question: str
    answer: str
    contents: str
    type: str
    asked: Asked = UNSAID


RatedQuestions = Mapping[str, RatedQuestion]


def _in_benchmark_order(rows: Sequence[FileRow]) -> list[FileRow]:
    """The rows of the benchmark's own file, whose order is the id."""
    return [
        replace(row, value={**row.value, "id": number}) if isinstance(row.value, dict) else row
        for number, row in enumerate(rows)
    ]


def _read_log(path: Path, text: str) -> Answers:
    """The judge's log: every judgement begins on a line with its number, the numbers count up; the
    means stand at the end.
    """
    end = re.search(r"^(Average score|Hallucination rate): ", text, re.MULTILINE)
    body = text[: end.start()] if end else text
    rated = [match_.end() for match_ in re.finditer("rating: ", body, re.IGNORECASE)]
    starts = list(_starts(body, rated))
    if not starts or not rated:
        raise UserError(
            f"{path}: neither JSON nor a judge's log of MMHal-Bench (lines '0 <judgement>', '1"
            " <judgement>', ...)."
        )
    ends = [start.start() for start in starts[1:]] + [len(body)]
    rows = [
        Answer(
            str(number),
            "",
            body.count("\n", 0, start.start()) + 1,
            {"judgement": body[start.end() : stop].strip()},
        )
        for number, (start, stop) in enumerate(zip(starts, ends, strict=True))
    ]
    return Answers(str(path), rows, judge="not named in the log")


def _starts(body: str, rated: Sequence[int]) -> Iterator[re.Match[str]]:
    """Where the judgements of a log begin: "0 ", then the next number after a rating.

    A line of a judgement's text can begin with the next number, too: the next one is looked for
    after a rating, if there is one there.
    """
    begins: dict[int, list[re.Match[str]]] = {}
    for number in re.finditer(r"^(\d{1,4}) ", body, re.MULTILINE):
        begins.setdefault(int(number[1]), []).append(number)
    start = next(iter(begins.get(0, [])), None)
    count = 0
    while start is not None:
        yield start
        count += 1
        position = start.end()
        after_rating = next((place for place in rated if place > position), len(body))
        following = [number for number in begins.get(count, []) if number.start() >= position]
        start = next(
            (number for number in following if number.start() >= after_rating),
            following[0] if following else None,
        )


def _read_completions(path: Path, rows: Sequence[FileRow]) -> Answers:
    """The reference's evaluation file: the judge's chat completions."""
    answers, problems, models = [], [], set()
    for number, row in enumerate(rows):
        try:
            judgement = row.value["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            judgement = None
        if isinstance(judgement, str):
            answers.append(Answer(str(number), "", row.line, {"judgement": judgement}))
            models.add(str(row.value.get("model", "not named")))
        else:
            what = f"id '{number}': no text in its chat completion; not scored"
            problems.append(Problem(str(path), row.line, what))
    if not answers:
        raise UserError(f"{problems[0]} (and so with all rows).")
    return Answers(str(path), answers, problems, judge=", ".join(sorted(models)))


def _template_in(folder: Path) -> Path:
    files = sorted(folder.rglob("*template*.json"))
    if not files:
        raise UserError(f"{folder}: holds no response_template.json with MMHal-Bench's questions.")
    return files[0]


def _rated_question(path: Path, row: FileRow, number: int) -> tuple[str, RatedQuestion]:
    value = row.value if isinstance(row.value, dict) else {}
    contents = value.get("image_content", [])
    if (
        not isinstance(value.get("question"), str)
        or not isinstance(value.get("gt_answer"), str)
        or not isinstance(contents, list)
    ):
        raise UserError(
            f"{path}, line {row.line}: no question of MMHal-Bench (`question`, `gt_answer`,"
            " `image_content`)."
        )
    name = id_of(value.get("id")) or str(number)
    kind = str(value.get("question_type") or TYPES[number % len(TYPES)])
    shown = ", ".join(map(str, contents))
    return name, RatedQuestion(
        value["question"], value["gt_answer"], shown, kind, asked_in(value, ("question",))
    )


def read_rating(judgement: str) -> int:
    """The rating of a judgement. Errors: ValueError where there is not exactly one."""
    ratings = [rating for rating in range(7) if f"rating: {rating}" in judgement.lower()]
    if len(ratings) != 1:
        raise ValueError(
            f"{len(ratings)} ratings instead of one: {' '.join(judgement.split())[-80:]!r}"
        )
    return ratings[0]


def is_read_otherwise(judgement: str, rating: int) -> bool:
    """Whether a judgement says other ratings than the one that the reference reads: of "rating:
    3.5" it reads 3, of "rating: 10" it reads 1.
    """
    said = re.findall(r"rating:\s*(\d+(?:\.\d+)?)", judgement.lower())
    return {float(number) for number in said} != {float(rating)}


class _Ratings:
    """The ratings of answers by id. `unparsed`: judgements without one, which count as 0, and those
    that are read as another rating than they say.
    """

    def __init__(self, file: str, answers: Mapping[str, Answer]) -> None:
        self.file = file
        self.by_id: dict[str, int] = {}
        self.unparsed = 0
        self.problems: list[Problem] = []
        for answer in answers.values():
            self._add(answer)

    def _add(self, answer: Answer) -> None:
        judgement = answer.details.get("judgement")
        if not isinstance(judgement, str):
            why = answer.details.get("reason") or (
                "none in the file" if judgement is None else f"it is {kind_of(judgement)}"
            )
            self._tell(answer, f"id {answer.id!r} has no judgement ({why}); not scored")
            return
        try:
            rating = read_rating(judgement)
            self.by_id[answer.id] = rating
            if is_read_otherwise(judgement, rating):
                self.unparsed += 1
                what = f"the judgement of id {answer.id!r} says another rating than {rating}"
                self._tell(answer, f"{what}; {rating}, as in the reference")
        except ValueError as error:
            self.unparsed += 1
            self.by_id[answer.id] = 0
            what = f"the judgement of id {answer.id!r} has {error}; 0, as in the reference"
            self._tell(answer, what)

    def _tell(self, answer: Answer, what: str) -> None:
        self.problems.append(Problem(self.file, answer.line, what))


def _means(sums: Floats) -> dict[str, Floats]:
    """Scores from sums [..., (rating, hallucinated, answers)]."""
    return {
        "score": sums[..., 0] / sums[..., 2],
        "hallucination": 100 * (sums[..., 1] / sums[..., 2]),
    }


def _per_type(ratings: Mapping[str, int], reference: RatedQuestions) -> dict[str, dict[str, float]]:
    per_type = {}
    for kind in dict.fromkeys(item.type for item in reference.values()):
        of_kind = np.array(
            [rating for name, rating in ratings.items() if reference[name].type == kind]
        )
        if len(of_kind):
            per_type[kind] = {
                "score": float(of_kind.mean()),
                "hallucination": float(100 * (of_kind < 3).mean()),
                "questions": len(of_kind),
            }
    return per_type


def _informativeness(values: Floats) -> float:
    return float(np.where(values >= 3, values - 3, values).mean() / 3 * 100)


class MMHalBench(QuestionsBenchmark[RatedQuestions], JudgedBenchmark[RatedQuestions]):
    """MMHal-Bench."""

    VERSION: ClassVar[int] = 2
    name = "mmhal_bench"
    title = "MMHal-Bench"
    names = NAMES
    better: ClassVar[Mapping[str, Better]] = {"score": "higher", "hallucination": "lower"}
    formats = FORMATS
    form = Form({"": "{question}"}, max_new_tokens=1024)

    def question_id(self, path: Path, row: Mapping[str, Any], position: int) -> str | None:
        """Its place: the benchmark's type of a question is its place modulo 8."""
        return str(position)

    def read_answers(self, path: Path) -> Answers:
        """A file of answers or of judgements."""
        text = read_text(path)
        begin = text.lstrip()[:1]
        if begin not in ("[", "{"):
            return _read_log(path, text)
        rows = read_rows(path)
        values = [row.value for row in rows if isinstance(row.value, dict)]
        if len(values) == len(rows) and all("choices" in value for value in values):
            return _read_completions(path, rows)
        if begin == "[" and not any("id" in value for value in values):
            rows = _in_benchmark_order(rows)
        answers = answers_from(path, rows, ("id",), details=("judgement", "judge", "reason", *KEPT))
        return replace(answers, judge=judges_in(answers, "judgement"))

    def read_reference(self, *paths: Path) -> RatedQuestions:
        """The questions by id, in order; without a path, ids and types alone. Errors: UserError."""
        if not paths:
            return {
                str(number): RatedQuestion("", "", "", TYPES[number % len(TYPES)])
                for number in range(QUESTIONS)
            }
        path = Path(paths[0])
        path = _template_in(path) if path.is_dir() else path
        rows = read_rows(path)
        entries = (_rated_question(path, row, number) for number, row in enumerate(rows))
        return by_id(path, rows, entries)

    def _joined(self, answers: Answers, reference: RatedQuestions) -> Answers:
        asked = {name: item.asked for name, item in reference.items()}
        return joined(answers, Questions(asked, renamed=True), self.title)

    def add_judgements(
        self,
        answers: Answers,
        reference: RatedQuestions,
        judge: Judge,
        gradings: int | None = None,
    ) -> Answers:
        """The answers with the judge's judgements."""
        answers = self._joined(answers, reference)
        unjudged = [
            answer
            for answer in answers.rows
            if answer.id in reference and "judgement" not in answer.details
        ]
        if any(not reference[answer.id].question for answer in unjudged):
            raise UserError(
                "a judge of MMHal-Bench needs the questions: name response_template.json with"
                " --reference."
            )
        questions = [_question_for_judge(answer, reference[answer.id]) for answer in unjudged]
        judged = judge.ask(questions, read_rating, max_tokens=MAX_TOKENS)
        return with_judgements(answers, judged, lambda one: {"judgement": one.text}, judge)

    def by_question(self, answers: Answers, reference: RatedQuestions) -> list[QuestionScore]:
        """The rating of each answer that has one."""
        matched, *_ = match(self._joined(answers, reference), list(reference), self.title)
        ratings = _Ratings(answers.file, matched).by_id
        return [
            question_score(matched[name], rating, target=reference[name].answer)
            for name, rating in ratings.items()
        ]

    def score(
        self, answers: Answers, reference: RatedQuestions, *, samples: int = 1000, seed: int = 0
    ) -> Score:
        """MMHal-Bench's scores from judgements. The unit of the bootstrap is the question. Errors:
        UserError without any judgement.
        """
        answers = self._joined(answers, reference)
        matched, problems, counts = match(answers, list(reference), self.title)
        if not any(answer.details.keys() & {"judgement", "reason"} for answer in matched.values()):
            raise UserError(
                f"{answers.file}: no judgements. MMHal-Bench is rated by a judge: name one"
                " (--judge-url, --judge-model)."
            )
        ratings = _Ratings(answers.file, matched)
        values = np.array(list(ratings.by_id.values()), dtype=np.float64)
        table = np.stack([values, values < 3, np.ones_like(values)], axis=1)
        about = {"informativeness": _informativeness(values)} if len(values) else {}
        return Score(
            benchmark=self.name,
            scores=finite(_means(table.sum(axis=0))) if len(values) else {},
            extra={**counts, "judged": len(values), "unparsed": ratings.unparsed, **about},
            per_type=_per_type(ratings.by_id, reference),
            intervals=(
                intervals([table], lambda sums: _means(sums[0]), samples=samples, seed=seed)
                if len(values)
                else {}
            ),
            problems=[*problems, *ratings.problems],
            parser=PARSER,
            version=self.VERSION,
            judge=answers.judge,
        )


def _question_for_judge(answer: Answer, item: RatedQuestion) -> JudgeQuestion:
    text = fill(
        PROMPT,
        contents=item.contents,
        question=item.question,
        standard=item.answer,
        response=answer.text,
    )
    return JudgeQuestion(answer.id, text)
