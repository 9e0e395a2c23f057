"""MMHal-Bench: 96 questions of 8 types, rated by a judge (Sun et al. 2023; eval_gpt4.py of
Shengcao1006/MMHal-Bench).

A judgement's rating is the digit after "rating: " in the lower-cased text; exactly one of 0 to 6
must be found. A rating below 3 is a hallucination. The reference gives any other judgement 0: so do
we with judgements that somebody kept, and say so; our own judge is asked again, and an answer that
it never rates is left out, and told. The judge decides much: a score without its judge's name says
little.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.benchmarks.base import (
    Answer,
    Answers,
    Problem,
    Score,
    Scorer,
    finite,
    match,
    with_judgements,
)
from lib.benchmarks.bootstrap import Floats, intervals
from lib.benchmarks.rows import Row, answers_from, id_of, kind_of, read_rows, read_text
from lib.errors import UserError
from lib.judge import Judge, Question, fill

VERSION = 1
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
answers:   MMHal-Bench's response file (an array of 96 rows with "model_answer", in the benchmark's order); JSON lines {"id": 0 to 95,
           "response"}, with "judgement": the judge's text, if there is one already; or a judge's log as eval_gpt4.py prints it
           ("0 <judgement>", "1 <judgement>", ...), or its evaluation file (an array of the judge's chat completions)
reference: response_template.json (the questions with image contents and human answers); needed to ask a judge, and for a file that has
           other types than the order tells. Kept judgements can be scored without it"""


@dataclass(frozen=True)
class Item:
    """A question of the benchmark."""

    question: str
    answer: str
    contents: str
    type: str


def read_answers(path: Path) -> Answers:
    """A file of answers or of judgements."""
    text = read_text(path)
    if text.lstrip()[:1] not in ("[", "{"):
        return _read_log(path, text)
    rows = read_rows(path)
    if all(isinstance(row.value, dict) and "choices" in row.value for row in rows):
        return _read_completions(path, rows)
    if text.lstrip()[:1] == "[" and not any(
        isinstance(row.value, dict) and "id" in row.value for row in rows
    ):
        # The benchmark's own file: its order is the id.
        rows = [
            Row(row.line, {**row.value, "id": number} if isinstance(row.value, dict) else row.value)
            for number, row in enumerate(rows)
        ]
    answers = answers_from(path, rows, ("id",), details=("judgement", "judge", "reason"))
    named = {
        answer.details["judge"]
        for answer in answers.rows
        if isinstance(answer.details.get("judge"), str)
    }
    kept = any("judgement" in answer.details for answer in answers.rows)
    return Answers(
        answers.file,
        answers.rows,
        answers.problems,
        ", ".join(sorted(named)) or ("not named in the file" if kept else None),
    )


def _read_log(path: Path, text: str) -> Answers:
    """The judge's log: every judgement begins on a line with its number, the numbers count up; the
    means stand at the end.

    A line of a judgement's text can begin with the next number, too: the next one is looked for
    after a rating, if there is one there.
    """
    end = re.search(r"^(Average score|Hallucination rate): ", text, re.MULTILINE)
    body = text[: end.start()] if end else text
    begins: dict[int, list[re.Match[str]]] = {}
    for found in re.finditer(r"^(\d{1,4}) ", body, re.MULTILINE):
        begins.setdefault(int(found[1]), []).append(found)
    rated = [found.end() for found in re.finditer("rating: ", body, re.IGNORECASE)]
    starts: list[re.Match[str]] = begins.get(0, [])[:1]
    while starts:
        position = starts[-1].end()
        after_rating = next((place for place in rated if place > position), len(body))
        following = [found for found in begins.get(len(starts), []) if found.start() >= position]
        chosen = next(
            (found for found in following if found.start() >= after_rating),
            following[0] if following else None,
        )
        if chosen is None:
            break
        starts.append(chosen)
    if not starts or not rated:
        raise UserError(
            f"{path}: neither JSON nor a judge's log of MMHal-Bench (lines '0 <judgement>', '1"
            " <judgement>', ...)."
        )
    ends = [found.start() for found in starts[1:]] + [len(body)]
    rows = [
        Answer(
            str(number),
            "",
            body.count("\n", 0, found.start()) + 1,
            {"judgement": body[found.end() : stop].strip()},
        )
        for number, (found, stop) in enumerate(zip(starts, ends, strict=True))
    ]
    return Answers(str(path), rows, judge="not named in the log")


def _read_completions(path: Path, rows: Sequence[Row]) -> Answers:
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
            problems.append(
                Problem(
                    str(path),
                    row.line,
                    f"id '{number}': no text in its chat completion; not scored",
                )
            )
    if not answers:
        raise UserError(f"{problems[0]} (and so with all rows).")
    return Answers(str(path), answers, problems, judge=", ".join(sorted(models)))


def read_reference(*paths: Path) -> Mapping[str, Item]:
    """The questions by id, in order; without a path, ids and types alone. Errors: UserError."""
    if not paths:
        return {
            str(number): Item("", "", "", TYPES[number % len(TYPES)]) for number in range(QUESTIONS)
        }
    path = Path(paths[0])
    if path.is_dir():
        files = sorted(path.rglob("*template*.json"))
        if not files:
            raise UserError(
                f"{path}: holds no response_template.json with MMHal-Bench's questions."
            )
        path = files[0]
    items = {}
    for number, row in enumerate(read_rows(path)):
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
        kind = value.get("question_type") or TYPES[number % len(TYPES)]
        items[name] = Item(
            value["question"], value["gt_answer"], ", ".join(map(str, contents)), str(kind)
        )
    return items


def read_rating(judgement: str) -> int:
    """The rating of a judgement. Errors: ValueError where there is not exactly one."""
    found = [rating for rating in range(7) if f"rating: {rating}" in judgement.lower()]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} ratings instead of one: {' '.join(judgement.split())[-80:]!r}"
        )
    return found[0]


def ask(answers: Answers, reference: Mapping[str, Item], judge: Judge) -> Answers:
    """The answers with the judge's judgements."""
    items = {
        answer.id: reference[answer.id]
        for answer in answers.rows
        if answer.id in reference and "judgement" not in answer.details
    }
    if any(not item.question for item in items.values()):
        raise UserError(
            "a judge of MMHal-Bench needs the questions: name response_template.json with"
            " --reference."
        )
    questions = [
        Question(
            answer.id,
            fill(
                PROMPT,
                contents=item.contents,
                question=item.question,
                standard=item.answer,
                response=answer.text,
            ),
        )
        for answer in answers.rows
        if (item := items.get(answer.id))
    ]
    judged = judge.ask(questions, read_rating, max_tokens=MAX_TOKENS)
    return with_judgements(answers, judged, lambda one: {"judgement": one.text}, judge)


def score(
    answers: Answers, reference: Mapping[str, Item], *, samples: int = 1000, seed: int = 0
) -> Score:
    """MMHal-Bench's scores from judgements. The unit of the bootstrap is the question. Errors:
    UserError without any judgement.
    """
    matched, problems, counts = match(answers, list(reference), "MMHal-Bench")
    if not any(
        "judgement" in answer.details or "reason" in answer.details for answer in matched.values()
    ):
        raise UserError(
            f"{answers.file}: no judgements. MMHal-Bench is rated by a judge: name one"
            " (--judge-url, --judge-model)."
        )
    ratings: dict[str, int] = {}
    unparsed = 0
    for name, answer in matched.items():
        judgement = answer.details.get("judgement")
        if not isinstance(judgement, str):
            why = answer.details.get("reason") or (
                "none in the file" if judgement is None else f"it is {kind_of(judgement)}"
            )
            problems.append(
                Problem(
                    answers.file, answer.line, f"id {name!r} has no judgement ({why}); not scored"
                )
            )
            continue
        try:
            ratings[name] = read_rating(judgement)
        except ValueError as error:
            unparsed += 1
            ratings[name] = 0
            problems.append(
                Problem(
                    answers.file,
                    answer.line,
                    f"the judgement of id {name!r} has {error}; 0, as in the reference",
                )
            )
    values = np.array(list(ratings.values()), dtype=np.float64)
    table = np.stack([values, values < 3, np.ones_like(values)], axis=1)

    def means(sums: Floats) -> dict[str, Floats]:
        return {
            "score": sums[..., 0] / sums[..., 2],
            "hallucination": 100 * (sums[..., 1] / sums[..., 2]),
        }

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
    informative = np.where(values >= 3, values - 3, values)
    return Score(
        benchmark="mmhal_bench",
        scores=finite(means(table.sum(axis=0))) if len(values) else {},
        extra={
            **counts,
            "judged": len(values),
            "unparsed": unparsed,
            **({"informativeness": float(informative.mean() / 3 * 100)} if len(values) else {}),
        },
        per_type=per_type,
        intervals=(
            intervals([table], lambda sums: means(sums[0]), samples=samples, seed=seed)
            if len(values)
            else {}
        ),
        problems=problems,
        parser=PARSER,
        version=VERSION,
        judge=answers.judge,
    )


SCORER = Scorer(
    "mmhal_bench", "MMHal-Bench", NAMES, read_answers, read_reference, score, FORMATS, ask=ask
)
