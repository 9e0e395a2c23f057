"""Object HalBench: objects in answers that are not in the image (Yu et al. 2024, RLHF-V;
eval_gpt_obj_halbench.py).

What an answer mentions is found in one of two ways. By a judge, which lists the objects of the
answer ("the reference's way"): each is cut into words, pairs of words that are one object are taken
first, else runs of nouns; an object counts once an answer. Or by words alone: tokens, base forms,
pairs joined, every mention counts. Both are mapped to COCO's objects with synonyms_refine.txt.
response = answers with a wrong object / answers with a COCO object; mention = wrong mentions / all
mentions.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.benchmarks import coco_objects
from lib.benchmarks.base import (
    Answer,
    Answers,
    Mentions,
    Problem,
    Score,
    Scorer,
    finite,
    match,
    with_judgements,
)
from lib.benchmarks.bootstrap import Floats, intervals
from lib.benchmarks.coco_objects import Word
from lib.benchmarks.language import LanguageTools
from lib.benchmarks.rows import answers_from, read_rows
from lib.judge import Judge, Question, fill

VERSION = 1
#: Answers of so few words are not sent to the judge: they name no object.
SHORT = 3
#: What the reference takes out of answers.
SPEAKER = "Assistant:"
NAMES = {
    "response": (
        "answers with a hallucinated object, of those with a COCO object, percent (headline)"
    ),
    "mention": "hallucinated mentions of all mentions, percent",
}
FORMATS = """\
answers:   JSON lines or an array, {"image_id" or "id", "response" or "text" or "answer"}; ids are COCO image ids, one answer an image;
           "objects": [...] in a row is the judge's list of objects, kept from an earlier run. Without it, and without a judge, objects
           are found by words alone
reference: files or folders with synonyms_refine.txt and with what the images show: {image id: [objects]} (*objects*.json), or COCO's own
           instances_*.json and captions_*.json"""
#: In our own words; the reference asks GPT-3.5 for the same.
PROMPT = """\
Somebody looked at an image and answered a question about it. List the objects that the answer says are in the image.

Question:
{question}

Answer:
{answer}

Take the answer as true and add nothing of your own. Name only visible objects that the answer mentions, each by its bare name, without \
colour, material, number or other attributes. Reply with a JSON list of strings and nothing else, for example ["dog", "wine glass"]; \
reply with [] if the answer mentions no visible object."""
MAX_TOKENS = 512


def read_answers(path: Path) -> Answers:
    """A file of answers; ids are COCO image ids."""
    rows = read_rows(path)
    keys = ("image_id", "id", "question_id")
    answers = answers_from(
        path,
        rows,
        keys,
        lambda name, row: coco_objects.image_id(name),
        details=("objects", "question", "prompt", "judge"),
    )
    named = {
        answer.details["judge"]
        for answer in answers.rows
        if isinstance(answer.details.get("judge"), str)
    }
    kept = any("objects" in answer.details for answer in answers.rows)
    return Answers(
        answers.file,
        answers.rows,
        answers.problems,
        ", ".join(sorted(named)) or ("not named in the file" if kept else None),
    )


def read_reference(*paths: Path) -> coco_objects.Reference:
    """The vocabulary and what images show."""
    return coco_objects.read_reference(
        paths, ("synonyms*.txt",), pairs_from_synonyms=True, benchmark="Object HalBench"
    )


def read_objects(text: str) -> list[str]:
    """The judge's list: the whole reply, or its last line (in a code block or not). Errors:
    ValueError saying what it is instead.
    """
    lines = [
        line
        for line in text.strip().splitlines()
        if line.strip() and not line.strip().startswith("```")
    ]
    for candidate in ("\n".join(lines), lines[-1] if lines else ""):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return value
    raise ValueError(f"no JSON list of strings: {text.strip()[:80]!r}")


def ask(answers: Answers, reference: coco_objects.Reference, judge: Judge) -> Answers:
    """The answers with the objects that the judge finds in each. `reference` is not needed for it."""
    questions = []
    objects: dict[str, Any] = {}
    for answer in answers.rows:
        if len(answer.text.split()) <= SHORT:
            objects[answer.id] = []
        elif "objects" not in answer.details:
            question = (
                answer.details.get("question")
                or answer.details.get("prompt")
                or "Describe the image."
            )
            questions.append(
                Question(answer.id, fill(PROMPT, question=str(question), answer=answer.text))
            )
    judged = judge.ask(questions, read_objects, max_tokens=MAX_TOKENS)
    details = {name: {"objects": found} for name, found in objects.items()}
    return with_judgements(answers, judged, lambda one: {"objects": one.value}, judge, details)


def _objects_of(
    answer: Answer, vocabulary: coco_objects.Vocabulary, language: LanguageTools
) -> list[Word]:
    """The words for the objects that a judge listed, each once: pairs that are one object, else
    runs of nouns.

    The place of an object is that where the answer first has the name that the judge gave, in the
    singular or the plural.
    """
    found: dict[str, tuple[int, int] | None] = {}
    for name in answer.details["objects"]:
        phrase = language.phrases.run(f"a {name}")
        words = [word for word, _ in phrase]
        pairs = []
        position = 0
        while position < len(words):
            pair = vocabulary.pairs.get(" ".join(words[position : position + 2]))
            pairs += [] if pair is None else [pair]
            position += 1 if pair is None else 2
        place = _place(name, answer.text)
        for word in pairs or _noun_runs(phrase):
            found.setdefault(word, place)
    return [Word(word, place) for word, place in found.items()]


def _place(name: str, text: str) -> tuple[int, int] | None:
    words = r"\s+".join(map(re.escape, name.split()))
    found = re.search(rf"(?<!\w){words}(?:e?s)?(?!\w)", text, re.IGNORECASE) if words else None
    return found.span() if found else None


def _noun_runs(phrase: Sequence[tuple[str, str]]) -> list[str]:
    runs: list[list[str]] = [[]]
    for word, tag in phrase:
        if tag in ("NN", "NNS", "NNP", "NNPS"):
            runs[-1].append(word)
        else:
            runs.append([])
    return [" ".join(run) for run in runs if run]


def _by_judge(answers: Answers) -> bool:
    return any("objects" in answer.details or "reason" in answer.details for answer in answers.rows)


def _said(text: str) -> tuple[str, list[int]]:
    """What is scored of an answer's text: not the speaker's name. And where each of its letters
    stands in that text.
    """
    origins: list[int] = []
    position = 0
    for part in text.split(SPEAKER):
        origins += range(position, position + len(part))
        position += len(part) + len(SPEAKER)
    said = text.replace(SPEAKER, "")
    return said.strip(), origins[len(said) - len(said.lstrip()) :]


def mentions(
    answers: Answers, reference: coco_objects.Reference, language: LanguageTools
) -> dict[str, Mentions]:
    """What each answer mentions, by its image's id; answers that a judge should have read and has
    not are left out.
    """
    vocabulary = reference.vocabulary
    by_judge = _by_judge(answers)

    def words_of(text: str) -> list[Word]:
        return vocabulary.join(
            coco_objects.cut(text, language.tokenizer.run, language.lemmatizer.run)
        )

    given = answers.by_id()
    found = {}
    for name in reference.expected(given):
        if name not in given or (by_judge and _problem_with_objects(answers.file, given[name])):
            continue
        if by_judge:
            words = _objects_of(given[name], vocabulary, language)
        else:
            said, origins = _said(given[name].text)
            words = (
                words_of(said)
                if said == given[name].text
                else coco_objects.moved(words_of(said), origins)
            )
        found[name] = vocabulary.mentions(words, reference.objects(name, words_of))
    return found


def score(
    answers: Answers,
    reference: coco_objects.Reference,
    *,
    language: LanguageTools | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Score:
    """Object HalBench's scores, by the judge's objects where answers carry them, else by words. The
    unit of the bootstrap is the answer.
    """
    language = language or LanguageTools()
    by_judge = _by_judge(answers)
    found = mentions(answers, reference, language)
    matched, problems, counts = match(
        answers, reference.expected(answers.by_id()), "Object HalBench"
    )
    rows = []
    words = []
    for name, answer in matched.items():
        if by_judge and (problem := _problem_with_objects(answers.file, answer)):
            problems.append(problem)
            continue
        one, wrong = found[name], found[name].hallucinated
        rows.append(
            (wrong, len(one.each), wrong > 0, len(one.each) > 0, 1, one.found, len(one.shown))
        )
        words.append(len(_said(answer.text)[0].split(" ")))
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)

    def rates(sums: Floats) -> dict[str, Floats]:
        wrong, mentioned, hallucinated, with_objects, *_ = np.moveaxis(sums, -1, 0)
        return {
            "response": 100 * (hallucinated / with_objects),
            "mention": 100 * (wrong / mentioned),
        }

    sums = table.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        overall = finite(rates(sums))
        others = finite(
            {
                "response_of_all_answers": 100 * (sums[2] / sums[4]),
                "recall": 100 * (sums[5] / sums[6]),
            }
        )
    names = (
        "hallucinated_mentions",
        "mentions",
        "hallucinated_answers",
        "answers_with_objects",
        "scored",
        "objects_found",
        "objects_shown",
    )
    return Score(
        benchmark="object_halbench",
        scores=overall,
        extra={
            **counts,
            **others,
            **dict(zip(names, map(int, sums), strict=True)),
            "words_per_answer": float(np.mean(words)) if words else 0.0,
        },
        per_type={},
        intervals=(
            intervals([table], lambda sums: rates(sums[0]), samples=samples, seed=seed)
            if rows
            else {}
        ),
        problems=problems,
        parser=(
            "objects listed by a judge"
            if by_judge
            else "objects found by words: tokens, base forms, pairs joined"
        ),
        version=VERSION,
        language_tools=language.names(*(["phrases"] if by_judge else ["tokenizer", "lemmatizer"])),
        judge=answers.judge if by_judge else None,
    )


def _problem_with_objects(file: str, answer: Answer) -> Problem | None:
    objects: Any = answer.details.get("objects")
    if isinstance(objects, list) and all(isinstance(name, str) for name in objects):
        return None
    why = answer.details.get("reason") or "its `objects` are no list of texts"
    return Problem(
        file, answer.line, f"id {answer.id!r} has no objects from the judge ({why}); not scored"
    )


SCORER = Scorer(
    "object_halbench",
    "Object HalBench",
    NAMES,
    read_answers,
    read_reference,
    score,
    FORMATS,
    uses_language=True,
    ask=ask,
    mentions=mentions,
)
