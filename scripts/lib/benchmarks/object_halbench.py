"""Object HalBench: objects in answers that are not in the image (Yu et al. 2024, RLHF-V;
eval_gpt_obj_halbench.py).

What an answer mentions is found in one of two ways. By a judge, which lists the objects of the
answer ("the reference's way"): each is cut into words, pairs of words that are one object are taken
first, else runs of nouns; an object counts once an answer. Or by words alone: tokens, base forms,
pairs joined, every mention counts. Both are mapped to COCO's objects with synonyms_refine.txt.
response = answers with a wrong object / answers with a COCO object; mention = wrong mentions / all
mentions.

Questions are put as they stand in obj_halbench_300_with_image.jsonl of RLHF-V/RLAIF-V;
muffin/eval/llava15_chair.py there adds nothing, 1,024 new tokens, temperature 0 and three beams
(script/eval/chair/eval_llava1.5_chair.sh).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lib.benchmarks import coco_objects
from lib.benchmarks.answers import Answer, Answers, Problem
from lib.benchmarks.base import Better
from lib.benchmarks.coco_objects import CocoReference, Word
from lib.benchmarks.judged import JudgedBenchmark, judges_in, with_judgements
from lib.benchmarks.language import LanguageBenchmark, LanguageTools
from lib.benchmarks.mentions import Mentions, MentionsBenchmark
from lib.benchmarks.questions import Form, QuestionsBenchmark
from lib.benchmarks.rows import answers_from, lines_of, read_rows
from lib.benchmarks.scores import Score, finite, match
from lib.bootstrap import Floats, intervals
from lib.judge import Judge, JudgeQuestion, fill

BY_JUDGE = "objects listed by a judge"
BY_WORDS = "objects found by words: tokens, base forms, pairs joined"
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
answers:   JSON lines or an array, {"image_id" or "id", "response" or "text" or "answer"}; ids
           are COCO image ids, one answer an image; "objects": [...] in a row is the judge's
           list of objects, kept from an earlier run. Without it, and without a judge, objects
           are found by words alone
reference: files or folders with synonyms_refine.txt and with what the images show: {image id:
           [objects]} (*objects*.json), or COCO's own instances_*.json and captions_*.json"""
#: In our own words; the reference asks GPT-3.5 for the same.
PROMPT = """\
Somebody looked at an image and answered a question about it. List the objects that the answer \
says are in the image.

Question:
{question}

Answer:
{answer}

Take the answer as true and add nothing of your own. Name only visible objects that the answer \
mentions, each by its bare name, without colour, material, number or other attributes. Reply with\
 a JSON list of strings and nothing else, for example ["dog", "wine glass"]; reply with [] if the\
 answer mentions no visible object."""
MAX_TOKENS = 512


def read_objects(text: str) -> list[str]:
    """The judge's list: the whole reply, or its last line (in a code block or not). Errors:
    ValueError saying what it is instead.
    """
    lines = [
        line
        for line in lines_of(text.strip())
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


def _question_for_judge(answer: Answer) -> JudgeQuestion:
    asked = answer.details.get("question") or answer.details.get("prompt") or "Describe the image."
    return JudgeQuestion(answer.id, fill(PROMPT, question=str(asked), answer=answer.text))


def _objects_of(
    answer: Answer, vocabulary: coco_objects.Vocabulary, language: LanguageTools
) -> list[Word]:
    """The words for the objects that a judge listed, each once: pairs that are one object, else
    runs of nouns.

    The place of an object is that where the answer first has the name that the judge gave, in the
    singular or the plural.
    """
    places: dict[str, tuple[int, int] | None] = {}
    for name in answer.details["objects"]:
        phrase = language.phrases.run(f"a {name}")
        place = _place(name, answer.text)
        pairs = _pairs_in([word for word, _ in phrase], vocabulary)
        for word in pairs or _noun_runs(phrase):
            places.setdefault(word, place)
    return [Word(word, place) for word, place in places.items()]


def _pairs_in(words: Sequence[str], vocabulary: coco_objects.Vocabulary) -> list[str]:
    """The pairs of words that are one object, from left to right."""
    pairs = []
    position = 0
    while position < len(words):
        pair = vocabulary.pairs.get(" ".join(words[position : position + 2]))
        pairs += [] if pair is None else [pair]
        position += 1 if pair is None else 2
    return pairs


def _place(name: str, text: str) -> tuple[int, int] | None:
    words = r"\s+".join(map(re.escape, name.split()))
    there = re.search(rf"(?<!\w){words}(?:e?s)?(?!\w)", text, re.IGNORECASE) if words else None
    return there.span() if there else None


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


def _problem_with_objects(file: str, answer: Answer) -> Problem | None:
    objects: Any = answer.details.get("objects")
    if isinstance(objects, list) and all(isinstance(name, str) for name in objects):
        return None
    why = answer.details.get("reason") or "its `objects` are no list of texts"
    return Problem(
        file, answer.line, f"id {answer.id!r} has no objects from the judge ({why}); not scored"
    )


#: Columns of an answer's counts, and what `Score.extra` calls their sums.
COLUMNS = (
    "hallucinated_mentions",
    "mentions",
    "hallucinated_answers",
    "answers_with_objects",
    "scored",
    "objects_found",
    "objects_shown",
)
WRONG, MENTIONED, HALLUCINATED, WITH_OBJECTS, SCORED, FOUND, SHOWN = range(len(COLUMNS))


def _counts(mentions: Sequence[Mentions]) -> Floats:
    """Counts [answer, column]."""
    rows = []
    for one in mentions:
        wrong, count = one.hallucinated, len(one.each)
        rows.append((wrong, count, wrong > 0, count > 0, 1, one.found, len(one.shown)))
    return np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))


def _rates(sums: Floats) -> dict[str, Floats]:
    """Scores from the counts' sums [..., column]; NaN where there is nothing to divide by."""
    return {
        "response": 100 * (sums[..., HALLUCINATED] / sums[..., WITH_OBJECTS]),
        "mention": 100 * (sums[..., WRONG] / sums[..., MENTIONED]),
    }


def _other_rates(sums: Floats) -> dict[str, Floats]:
    return {
        "response_of_all_answers": 100 * (sums[HALLUCINATED] / sums[SCORED]),
        "recall": 100 * (sums[FOUND] / sums[SHOWN]),
    }


class ObjectHalBench(
    QuestionsBenchmark[CocoReference],
    JudgedBenchmark[CocoReference],
    MentionsBenchmark[CocoReference],
    LanguageBenchmark[CocoReference],
):
    """Object HalBench: one answer an image, whose COCO id it has."""

    VERSION: ClassVar[int] = 1
    name = "object_halbench"
    title = "Object HalBench"
    names = NAMES
    better: ClassVar[Mapping[str, Better]] = {"response": "lower", "mention": "lower"}
    formats = FORMATS
    form = Form({"": "{question}"}, max_new_tokens=1024, beams=3)
    id_keys = ("image_id", "id", "question_id")
    needs_judge = False

    def read_answers(self, path: Path) -> Answers:
        """A file of answers; ids are COCO image ids."""
        answers = answers_from(
            path,
            read_rows(path),
            self.id_keys,
            coco_objects.answered_image,
            details=("objects", "question", "prompt", "judge"),
        )
        return replace(answers, judge=judges_in(answers, "objects"))

    def read_reference(self, *paths: Path) -> CocoReference:
        """The vocabulary and what images show."""
        return coco_objects.read_reference(
            paths, ("synonyms*.txt",), pairs_from_synonyms=True, benchmark=self.title
        )

    def add_judgements(
        self,
        answers: Answers,
        reference: CocoReference,
        judge: Judge,
        gradings: int | None = None,
    ) -> Answers:
        """The answers with the objects that the judge finds in each. `reference` is not needed for
        it.
        """
        short = {answer.id for answer in answers.rows if len(answer.text.split()) <= SHORT}
        questions = [
            _question_for_judge(answer)
            for answer in answers.rows
            if answer.id not in short and "objects" not in answer.details
        ]
        judged = judge.ask(questions, read_objects, max_tokens=MAX_TOKENS)
        none: dict[str, dict[str, list[str]]] = {
            answer.id: {"objects": []} for answer in answers.rows if answer.id in short
        }
        return with_judgements(answers, judged, lambda one: {"objects": one.value}, judge, none)

    def mentions(self, answers: Answers, reference: CocoReference) -> dict[str, Mentions]:
        """What each answer mentions, by its image's id; answers that a judge should have read and
        has not are left out.
        """
        vocabulary = reference.vocabulary
        by_judge = _by_judge(answers)
        tokenize, base_form = self.tools.tokenizer.run, self.tools.lemmatizer.run

        def words_of(text: str) -> list[Word]:
            return vocabulary.join(coco_objects.cut(text, tokenize, base_form))

        given = answers.by_id()
        mentions = {}
        for name in reference.expected(given):
            if name not in given or (by_judge and _problem_with_objects(answers.file, given[name])):
                continue
            words = (
                _objects_of(given[name], vocabulary, self.tools)
                if by_judge
                else _said_words(given[name].text, words_of)
            )
            mentions[name] = vocabulary.mentions(words, reference.objects(name, words_of))
        return mentions

    def score(
        self, answers: Answers, reference: CocoReference, *, samples: int = 1000, seed: int = 0
    ) -> Score:
        """Object HalBench's scores, by the judge's objects where answers carry them, else by words.
        The unit of the bootstrap is the answer.
        """
        by_judge = _by_judge(answers)
        mentions = self.mentions(answers, reference)
        matched, problems, counts = match(answers, reference.expected(answers.by_id()), self.title)
        if by_judge:
            unread = [_problem_with_objects(answers.file, answer) for answer in matched.values()]
            problems += [problem for problem in unread if problem]
        scored = [name for name in matched if name in mentions]
        table = _counts([mentions[name] for name in scored])
        sums = table.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            overall, others = finite(_rates(sums)), finite(_other_rates(sums))
        words = [len(_said(matched[name].text)[0].split(" ")) for name in scored]
        used = ["phrases"] if by_judge else ["tokenizer", "lemmatizer"]
        return Score(
            benchmark=self.name,
            scores=overall,
            extra={
                **counts,
                **others,
                **dict(zip(COLUMNS, map(int, sums), strict=True)),
                "words_per_answer": float(np.mean(words)) if words else 0.0,
            },
            per_type={},
            intervals=(
                intervals([table], lambda sums: _rates(sums[0]), samples=samples, seed=seed)
                if scored
                else {}
            ),
            problems=problems,
            parser=BY_JUDGE if by_judge else BY_WORDS,
            version=self.VERSION,
            language_tools=self.tools.names(*used),
            not_comparable=self.not_comparable(overall, *used),
            judge=answers.judge if by_judge else None,
        )


def _said_words(text: str, words_of: Callable[[str], list[Word]]) -> list[Word]:
    """The words of what is scored of an answer, with their places in the whole of it."""
    said, origins = _said(text)
    words = words_of(said)
    return words if said == text else coco_objects.moved(words, origins)
