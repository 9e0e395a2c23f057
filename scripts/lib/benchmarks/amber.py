"""AMBER: hallucination without an LLM as judge (Wang et al. 2023; inference.py of
junyangwang0410/AMBER).

Generative part (ids 1 to 1004): nouns of the answer that are in the vocabulary of relation.json are
looked up in what the image shows ("truth") and in what models like to invent ("hallu"), exactly
first, then by similarity above 0.8. Discriminative part: the answer must be exactly "Yes" or "No";
the positive class is no. Every counter starts at 0.001, scores are rounded to one decimal, and F1
is taken from the rounded precision and recall with 0.0001 (existence: 0.001) in the denominator:
all of it as the reference has it.

All similarities that a file needs are computed at once, as a table over distinct words; the
reference computes each anew. lmms-eval's amber_g adds the 0.001 once an answer, not once in all,
does not round, takes the first of several spaCy models that it finds, and reads any answer with
"yes" in it as Yes.

Questions are put as they stand in query_all.json. AMBER has no script for LLaVA-1.5; HALVA's
(src/evaluate_hall/amber.sh, eval_hall/model_amber_loader.py of pritamqu/HALVA) adds nothing to the
query, 1,024 new tokens, and reads any answer with "yes" in it as Yes, all others as No: so do we
with the answers of a run's models (`read_free_answers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lib.benchmarks.answers import Answer, Answers
from lib.benchmarks.base import Better
from lib.benchmarks.joining import KEPT, Asked, Questions, asked_in, joined
from lib.benchmarks.language import LanguageBenchmark, LanguageTools
from lib.benchmarks.questions import Form, QuestionsBenchmark
from lib.benchmarks.rows import (
    FileRow,
    answers_from,
    by_id,
    id_of,
    lines_of,
    read_json,
    read_rows,
    read_text,
)
from lib.benchmarks.scores import Score, finite, match, question_score
from lib.bootstrap import Floats, intervals
from lib.data.evaluation_files import QuestionScore
from lib.errors import UserError

PARSER = (
    'discriminative: exactly "Yes" or "No"; generative: nouns in the vocabulary of relation.json,'
    " similarity above 0.8"
)
NAMES = {
    "accuracy": "discriminative: accuracy, percent (headline)",
    "f1": "discriminative: F1 of no, percent",
    "precision": "discriminative: precision of no, percent",
    "recall": "discriminative: recall of no, percent",
    "chair": "generative: nouns that are hallucinated, percent",
    "cover": "generative: objects of the image that are named, percent",
    "hal": "generative: answers with a hallucination, percent",
    "cog": "generative: likely hallucinations that came, percent",
    "amber_score": "(100 - chair + f1) / 2, of both parts",
}
FORMATS = """\
answers:   a JSON array or JSON lines of {"id": 1 to 15220, "response": "..."}; one of the two
           parts alone can be scored
reference: the folder with AMBER's annotations.json, relation.json and safe_words.txt (its
           data/). Where it holds the queries too (query_all.json), answers that say their
           "question" and "image" are joined by these"""
READING = 'a discriminative answer with "yes" in it is Yes, any other No'
#: Words of many of AMBER's questions; the others say what is asked about.
FRAME = frozenset(("is", "are", "does", "there", "this", "the", "in", "image", "picture"))
START = 0.001
THRESHOLD = 0.8
#: The two parts, whose questions can be put differently.
GENERATIVE, DISCRIMINATIVE = "generative", "discriminative"
#: Generative questions are numbered up to this one.
LAST_GENERATIVE = 1004
#: AMBER's types of questions -> ours; all others are relations, as in the reference.
_TYPES = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
#: What is scored by itself: name -> types that are summed.
_GROUPS = {
    "existence": ("existence",),
    "attribute": ("state", "number", "action"),
    "state": ("state",),
    "number": ("number",),
    "action": ("action",),
    "relation": ("relation",),
}
KINDS = ("existence", "state", "number", "action", "relation")


@dataclass(frozen=True)
class Scene:
    """What an image shows and what models like to invent about it."""

    truth: tuple[str, ...]
    hallu: tuple[str, ...]


@dataclass(frozen=True)
class YesNoQuestion:
    """A yes/no question: its kind (one of `KINDS`), and whether no is right."""

    kind: str
    no: bool


@dataclass(frozen=True)
class AmberReference:
    """AMBER's data. `association`: a word and the words that stand for it; `asked`: the queries by
    id, where its files of queries are there.
    """

    items: Mapping[str, Scene | YesNoQuestion]
    association: Mapping[str, Sequence[str]]
    safe_words: frozenset[str]
    asked: Mapping[str, Asked] = field(default_factory=dict)


def _find_files(paths: Sequence[Path]) -> dict[str, Path]:
    """AMBER's files by name. Errors: UserError where one is missing."""
    files = {}
    for name in ("annotations.json", "relation.json", "safe_words.txt"):
        there = [
            file
            for path in paths
            for file in ([path] if path.name == name else sorted(path.rglob(name)))
        ]
        if not there:
            where = " ".join(map(str, paths)) or "no reference"
            raise UserError(
                f"{where}: AMBER's {name} is missing. --reference names the folder that holds it"
                " (data/ of AMBER's repository)."
            )
        files[name] = there[0]
    return files


def _read_queries(paths: Sequence[Path]) -> dict[str, Asked]:
    """The queries by id, as far as their files are among the given ones."""
    files = [file for path in paths for file in sorted(path.rglob("query_*.json"))]
    files += [path for path in paths if path.match("query_*.json")]
    rows = [row.value for file in files for row in read_rows(file) if isinstance(row.value, dict)]
    return {name: asked_in(row) for row in rows if (name := id_of(row.get("id")))}


def _read_association(file: Path) -> dict[str, list[str]]:
    association = read_json(file)
    if not isinstance(association, dict) or not all(map(_words, association.values())):
        raise UserError(
            f"{file}: an object is expected, each word with the list of words that stand for it."
        )
    return association


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _item(file: Path, row: FileRow) -> tuple[str, Scene | YesNoQuestion]:
    value = row.value if isinstance(row.value, dict) else {}
    name, kind, truth = id_of(value.get("id")), value.get("type"), value.get("truth")
    if name and kind == GENERATIVE and _words(truth) and _words(value.get("hallu")):
        return name, Scene(tuple(value["truth"]), tuple(value["hallu"]))
    if name and kind in _TYPES and truth in ("yes", "no"):
        return name, YesNoQuestion(_TYPES[kind], truth == "no")
    raise UserError(
        f"{file}, line {row.line}: no annotation of AMBER ({{id, type, truth}}, and hallu where the"
        " type is generative)."
    )


def _rounded(values: Floats, digits: int = 1) -> Floats:
    """Rounded as Python rounds, by the exact decimal value; numpy's way differs where a value is
    next to the middle.
    """
    return np.asarray(
        np.vectorize(lambda value: round(float(value), digits), otypes=[np.float64])(values)
    )


# --------------------------------------------------------------------------------------------------

#: Columns of an answer's counts.
WRONG, NOUNS, COVERED, TRUTHS, INVENTED, HALLUS, CLEAN, ANSWERS = range(8)


class _Marks:
    """The words of a scene's one side: which of its objects have been met. An associated word marks
    its object.
    """

    def __init__(self, objects: Sequence[str], association: Mapping[str, Sequence[str]]) -> None:
        associated = [
            (word, index)
            for index, name in enumerate(objects)
            for word in association.get(name, ())
        ]
        self.words = associated + [(name, index) for index, name in enumerate(objects)]
        self._first: dict[str, int] = {}
        for word, index in self.words:
            self._first.setdefault(word, index)
        self.met = [False] * len(objects)

    def meet(self, word: str) -> bool:
        """Marks the object of an equal word."""
        if word in self._first:
            self.met[self._first[word]] = True
        return word in self._first

    def meet_similar(self, similar: frozenset[str]) -> bool:
        """Marks the object of the first word that is similar."""
        index = next((index for word, index in self.words if word in similar), None)
        if index is not None:
            self.met[index] = True
        return index is not None


def caption_counts(
    nouns: Sequence[str],
    scene: Scene,
    reference: AmberReference,
    similar: Mapping[str, frozenset[str]],
) -> list[int]:
    """What an answer adds to the counters. `nouns`: those of the vocabulary, in order; `similar`:
    noun -> words that mean the same.
    """
    truth, hallu = (
        _Marks(scene.truth, reference.association),
        _Marks(scene.hallu, reference.association),
    )
    wrong = 0
    for noun in nouns:
        if noun in reference.safe_words or truth.meet(noun):
            continue
        hallu.meet(noun)
        hallu.meet_similar(similar[noun])
        wrong += not truth.meet_similar(similar[noun])
    return [
        wrong,
        len(nouns),
        sum(truth.met),
        len(truth.met),
        sum(hallu.met),
        len(hallu.met),
        wrong == 0,
        1,
    ]


def _generative(
    answers: Mapping[str, str], reference: AmberReference, language: LanguageTools
) -> Floats:
    """Counts [answer, column]."""
    vocabulary = {word for name, words in reference.association.items() for word in (name, *words)}
    nouns = {
        name: [noun for noun in language.nouns(text) if noun in vocabulary]
        for name, text in answers.items()
    }
    scenes = {name: scene for name in answers if isinstance(scene := reference.items[name], Scene)}
    asked = {noun for each in nouns.values() for noun in each} - reference.safe_words
    objects = {word for scene in scenes.values() for word in (*scene.truth, *scene.hallu)}
    objects |= {word for name in objects for word in reference.association.get(name, ())}
    similar = language.similarity.run(sorted(asked), sorted(objects), THRESHOLD)
    counts = [
        caption_counts(nouns[name], scene, reference, similar) for name, scene in scenes.items()
    ]
    return np.array(counts, dtype=np.float64)


def generative_scores(sums: Floats) -> dict[str, Floats]:
    """Scores from the counters' sums [..., column], rounded as the reference rounds."""
    wrong, nouns, covered, truths, invented, hallus, clean, answers = np.moveaxis(sums, -1, 0)
    return {
        "chair": _rounded(wrong / (START + nouns) * 100),
        "cover": _rounded(covered / (START + truths) * 100),
        "hal": _rounded(100 - clean / (START + answers) * 100),
        "cog": _rounded(invented / (START + hallus) * 100),
    }


# --------------------------------------------------------------------------------------------------

#: Columns of a question's counts, for each kind of question.
RIGHT, QUESTIONS, RIGHT_NO, SAID_NO, NO = range(5)


def _discriminative(answers: Mapping[str, str], reference: AmberReference) -> Floats:
    """Counts [question, kind, column]."""
    counts = np.zeros((len(answers), len(KINDS), 5))
    for place, (name, text) in enumerate(answers.items()):
        question = reference.items[name]
        if isinstance(question, YesNoQuestion):
            counts[place, KINDS.index(question.kind)] = _question_counts(question, text)
    return counts


def _question_counts(question: YesNoQuestion, text: str) -> tuple[bool, int, bool, bool, bool]:
    said_no = text == "No"
    right = said_no if question.no else text == "Yes"
    return right, 1, said_no and question.no, said_no, question.no


def discriminative_scores(
    sums: Floats, counters: int = 1, in_f1: float = 0.0001
) -> dict[str, Floats]:
    """Scores from sums [..., column]. `counters`: how many of the reference's counters, each begun
    at 0.001, the sums come from.
    """
    right, questions, right_no, said_no, no = np.moveaxis(sums, -1, 0)
    begun = START * counters
    accuracy = _rounded(right / (begun + questions) * 100)
    precision = _rounded(right_no / (begun + said_no) * 100)
    recall = _rounded(right_no / (begun + no) * 100)
    f1 = _rounded(
        2 * (precision / 100) * (recall / 100) / (precision / 100 + recall / 100 + in_f1) * 100
    )
    return {"accuracy": accuracy, "f1": f1, "precision": precision, "recall": recall}


def _per_type(questions: Floats) -> dict[str, dict[str, float]]:
    """The discriminative scores of each group of types. `questions`: counts [question, kind,
    column].
    """
    kinds = questions.sum(axis=0)
    per_type = {}
    for group, members in _GROUPS.items():
        sums = kinds[[KINDS.index(kind) for kind in members]].sum(axis=0)
        if sums[QUESTIONS]:
            in_f1 = 0.001 if group == "existence" else 0.0001
            values = discriminative_scores(sums, len(members), in_f1)
            per_type[group] = {name: float(value) for name, value in values.items()} | {
                "questions": int(sums[QUESTIONS])
            }
    return per_type


def _doubts(
    asked: Mapping[str, str], raw: Mapping[str, str], reference: AmberReference
) -> dict[str, Any]:
    """Answers that are not exactly Yes or No, or whose first word is another one than they were
    read as; the yes ratio; and what the first word alone would give.

    raw   the answers that are free texts (`asked` has what they were read as)
    """
    if not asked:
        return {}
    first = {
        name: "".join(raw.get(name, text).split()[:1]).strip(".,;:!").lower()
        for name, text in asked.items()
    }
    right = {
        name: "no" if item.no else "yes"
        for name in asked
        if isinstance(item := reference.items[name], YesNoQuestion)
    }
    return {
        "unparsed": sum(
            text not in ("Yes", "No") or (name in raw and first[name] != text.lower())
            for name, text in asked.items()
        ),
        "yes_ratio": 100 * sum(text == "Yes" for text in asked.values()) / len(asked),
        "accuracy_by_first_word": (
            100 * sum(first[name] == word for name, word in right.items()) / len(asked)
        ),
    }


def read_yes_or_no(text: str) -> str:
    """An answer as AMBER's script wants it, which compares with exactly "Yes" and "No". Read as
    HALVA's evaluation of LLaVA-1.5 does.
    """
    return "Yes" if "yes" in text.lower() else "No"


class _Parts:
    """The answers of the two parts, as far as there are any, and their scores."""

    def __init__(
        self, texts: Mapping[str, str], reference: AmberReference, language: LanguageTools
    ) -> None:
        items = reference.items
        self.described = {
            name: text for name, text in texts.items() if isinstance(items[name], Scene)
        }
        self.asked = {name: text for name, text in texts.items() if name not in self.described}
        self.captions = (
            _generative(self.described, reference, language) if self.described else np.zeros((0, 8))
        )
        self.questions = _discriminative(self.asked, reference)
        self.flat = self.questions.reshape(len(self.questions), len(KINDS) * 5)

    def rates(self, sums: Sequence[Floats]) -> dict[str, Floats]:
        """The scores of the parts that are answered, from the sums of both parts' counts."""
        captions, flat = sums
        rates: dict[str, Floats] = {}
        if self.asked:
            by_kind = flat.reshape(*flat.shape[:-1], len(KINDS), 5)
            rates |= discriminative_scores(by_kind.sum(axis=-2))
        if self.described:
            rates |= generative_scores(captions)
        if self.asked and self.described:
            rates["amber_score"] = _rounded((100 - rates["chair"] + rates["f1"]) / 2, 2)
        return rates

    def scores(self) -> dict[str, float]:
        """The scores of all answers."""
        return finite(self.rates([self.captions.sum(axis=0), self.flat.sum(axis=0)]))

    def intervals(self, samples: int, seed: int) -> dict[str, tuple[float, float]]:
        """Their intervals, each part resampled by itself."""
        groups = [
            group if len(group) else np.zeros((1, group.shape[1]))
            for group in (self.captions, self.flat)
        ]
        return intervals(groups, self.rates, samples=samples, seed=seed)


class Amber(QuestionsBenchmark[AmberReference], LanguageBenchmark[AmberReference]):
    """AMBER: a generative and a discriminative part; one of them alone can be scored."""

    VERSION: ClassVar[int] = 2
    name = "amber"
    title = "AMBER"
    names = NAMES
    better: ClassVar[Mapping[str, Better]] = {
        "accuracy": "higher",
        "f1": "higher",
        "precision": "higher",
        "recall": "higher",
        "cover": "higher",
        "amber_score": "higher",
        "chair": "lower",
        "hal": "lower",
        "cog": "lower",
    }
    formats = FORMATS
    by_language = frozenset({"chair", "cover", "hal", "cog", "amber_score"})
    form = Form({GENERATIVE: "{question}", DISCRIMINATIVE: "{question}"}, max_new_tokens=1024)
    reading = READING

    def question_kind(self, question_id: str) -> str:
        """The part that a question is of."""
        return DISCRIMINATIVE if self._is_yes_or_no(question_id) else GENERATIVE

    def _is_yes_or_no(self, question_id: str) -> bool:
        return not question_id.isdecimal() or int(question_id) > LAST_GENERATIVE

    def read_answers(self, path: Path) -> Answers:
        """A file of answers."""
        return answers_from(path, read_rows(path), ("id",), details=KEPT)

    def read_free_answers(self, answers: Answers) -> Answers:
        """The answers with every discriminative one read as Yes or No; the raw one stays beside
        it.
        """
        return replace(answers, rows=[self._read_free(answer) for answer in answers.rows])

    def _read_free(self, answer: Answer) -> Answer:
        if not (answer.id.isdecimal() and self._is_yes_or_no(answer.id)):
            return answer
        details = {**answer.details, "raw": answer.text}
        return replace(answer, text=read_yes_or_no(answer.text), details=details)

    def doubts(self, answers: Answers) -> dict[str, int]:
        """Discriminative answers that say neither."""
        raw = [answer.details["raw"].lower() for answer in answers.rows if "raw" in answer.details]
        neither = sum(not any(word in text for word in ("yes", "no")) for text in raw)
        return {"neither_yes_nor_no": neither} if raw else {}

    def read_reference(self, *paths: Path) -> AmberReference:
        """AMBER's data folder. Errors: UserError where a file is missing or damaged."""
        files = _find_files([*map(Path, paths)])
        association = _read_association(files["relation.json"])
        annotations = files["annotations.json"]
        rows = read_rows(annotations)
        items = by_id(annotations, rows, (_item(annotations, row) for row in rows))
        safe_words = lines_of(read_text(files["safe_words.txt"]))
        asked = _read_queries([*map(Path, paths)])
        return AmberReference(items, association, frozenset(safe_words), asked)

    def _joined(self, answers: Answers, reference: AmberReference) -> Answers:
        return joined(answers, Questions(reference.asked, FRAME), self.title)

    def by_question(self, answers: Answers, reference: AmberReference) -> list[QuestionScore]:
        """1 for a right answer to a yes-or-no question, 0 for a wrong one. Descriptions are on
        another scale, and no part of it: less one for each wrong noun where there are no others.
        """
        joint = self._joined(answers, reference)
        matched, *_ = match(joint, list(reference.items), self.title)
        texts = {name: answer.text for name, answer in matched.items()}
        asked = {
            name: text
            for name, text in texts.items()
            if isinstance(reference.items[name], YesNoQuestion)
        }
        parts = _Parts(asked or texts, reference, self.tools)
        scores = parts.questions[..., RIGHT].sum(axis=1) if asked else -parts.captions[:, WRONG]
        return [
            question_score(matched[name], value)
            for name, value in zip(asked or texts, scores, strict=True)
        ]

    def score(
        self, answers: Answers, reference: AmberReference, *, samples: int = 1000, seed: int = 0
    ) -> Score:
        """AMBER's scores, of the parts that are answered. The units of the bootstrap are answers
        and questions, each part by itself.
        """
        answers = self._joined(answers, reference)
        matched, problems, counts = match(answers, list(reference.items), self.title)
        texts = {name: answer.text for name, answer in matched.items()}
        parts = _Parts(texts, reference, self.tools)
        raw = {
            name: answer.details["raw"]
            for name, answer in matched.items()
            if "raw" in answer.details
        }
        nouns = {"nouns": int(parts.captions[:, NOUNS].sum())} if parts.described else {}
        used = ("tokenizer", "tagger", "lemmatizer", "similarity")
        scores = parts.scores()
        return Score(
            benchmark=self.name,
            scores=scores,
            extra={**counts, **_doubts(parts.asked, raw, reference), **nouns},
            per_type=_per_type(parts.questions),
            intervals=parts.intervals(samples, seed),
            problems=problems,
            parser=PARSER,
            version=self.VERSION,
            language_tools=self.tools.names(*used) if parts.described else None,
            not_comparable=self.not_comparable(scores, *used) if parts.described else {},
        )
