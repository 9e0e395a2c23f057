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
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib.benchmarks.base import Answers, Score, Scorer, finite, match
from lib.benchmarks.bootstrap import Floats, intervals
from lib.benchmarks.language import LanguageTools
from lib.benchmarks.rows import Row, answers_from, id_of, read_json, read_rows, read_text
from lib.errors import UserError

VERSION = 1
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
answers:   a JSON array or JSON lines of {"id": 1 to 15220, "response": "..."}; one of the two parts alone can be scored
reference: the folder with AMBER's annotations.json, relation.json and safe_words.txt (its data/)"""
START = 0.001
THRESHOLD = 0.8
GENERATIVE = "generative"
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
class Question:
    """A yes/no question: its kind (one of `KINDS`), and whether no is right."""

    kind: str
    no: bool


@dataclass(frozen=True)
class Reference:
    """AMBER's data. `association`: a word and the words that stand for it."""

    items: Mapping[str, Scene | Question]
    association: Mapping[str, Sequence[str]]
    safe_words: frozenset[str]


def read_answers(path: Path) -> Answers:
    """A file of answers."""
    return answers_from(path, read_rows(path), ("id",))


def read_reference(*paths: Path) -> Reference:
    """AMBER's data folder. Errors: UserError where a file is missing or damaged."""
    found = {}
    for name in ("annotations.json", "relation.json", "safe_words.txt"):
        files = [
            file
            for path in map(Path, paths)
            for file in ([path] if path.name == name else sorted(path.rglob(name)))
        ]
        if not files:
            where = " ".join(map(str, paths)) or "no reference"
            raise UserError(
                f"{where}: AMBER's {name} is missing. --reference names the folder that holds it"
                " (data/ of AMBER's repository)."
            )
        found[name] = files[0]
    association = read_json(found["relation.json"])
    if not isinstance(association, dict) or not all(
        _words(words) for words in association.values()
    ):
        raise UserError(
            f"{found['relation.json']}: an object is expected, each word with the list of words"
            " that stand for it."
        )
    items = {}
    for row in read_rows(found["annotations.json"]):
        name, item = _item(found["annotations.json"], row)
        items[name] = item
    return Reference(items, association, frozenset(read_text(found["safe_words.txt"]).splitlines()))


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _item(file: Path, row: Row) -> tuple[str, Scene | Question]:
    value = row.value if isinstance(row.value, dict) else {}
    name, kind, truth = id_of(value.get("id")), value.get("type"), value.get("truth")
    if name and kind == GENERATIVE and _words(truth) and _words(value.get("hallu")):
        return name, Scene(tuple(value["truth"]), tuple(value["hallu"]))
    if name and kind in _TYPES and truth in ("yes", "no"):
        return name, Question(_TYPES[kind], truth == "no")
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
    nouns: Sequence[str], scene: Scene, reference: Reference, similar: Mapping[str, frozenset[str]]
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
    answers: Mapping[str, str], reference: Reference, language: LanguageTools
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


def _discriminative(answers: Mapping[str, str], reference: Reference) -> Floats:
    """Counts [question, kind, column]."""
    counts = np.zeros((len(answers), len(KINDS), 5))
    for place, (name, text) in enumerate(answers.items()):
        question = reference.items[name]
        if isinstance(question, Question):
            said_no = text == "No"
            right = said_no if question.no else text == "Yes"
            counts[place, KINDS.index(question.kind)] = (
                right,
                1,
                said_no and question.no,
                said_no,
                question.no,
            )
    return counts


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


def score(
    answers: Answers,
    reference: Reference,
    *,
    language: LanguageTools | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Score:
    """AMBER's scores, of the parts that are answered. The units of the bootstrap are answers and
    questions, each part by itself.
    """
    language = language or LanguageTools()
    matched, problems, counts = match(answers, list(reference.items), "AMBER")
    texts = {name: answer.text for name, answer in matched.items()}
    described = {
        name: text for name, text in texts.items() if isinstance(reference.items[name], Scene)
    }
    asked = {name: text for name, text in texts.items() if name not in described}
    captions = _generative(described, reference, language) if described else np.zeros((0, 8))
    questions = _discriminative(asked, reference)

    def rates(sums: Sequence[Floats]) -> dict[str, Floats]:
        found: dict[str, Floats] = {}
        if asked:
            found |= discriminative_scores(
                sums[1].reshape(*sums[1].shape[:-1], len(KINDS), 5).sum(axis=-2)
            )
        if described:
            found |= generative_scores(sums[0])
        if asked and described:
            found["amber_score"] = _rounded((100 - found["chair"] + found["f1"]) / 2, 2)
        return found

    flat = questions.reshape(len(questions), len(KINDS) * 5)
    kinds = questions.sum(axis=0)
    per_type = {}
    for group, members in _GROUPS.items():
        sums = kinds[[KINDS.index(kind) for kind in members]].sum(axis=0)
        if sums[QUESTIONS]:
            values = discriminative_scores(
                sums, len(members), in_f1=0.001 if group == "existence" else 0.0001
            )
            per_type[group] = {name: float(value) for name, value in values.items()} | {
                "questions": int(sums[QUESTIONS])
            }
    groups = [group if len(group) else np.zeros((1, group.shape[1])) for group in (captions, flat)]
    return Score(
        benchmark="amber",
        scores=finite(rates([captions.sum(axis=0), flat.sum(axis=0)])),
        extra={
            **counts,
            **_doubts(asked, reference),
            **({"nouns": int(captions[:, NOUNS].sum())} if described else {}),
        },
        per_type=per_type,
        intervals=intervals(groups, rates, samples=samples, seed=seed),
        problems=problems,
        parser=PARSER,
        version=VERSION,
        language_tools=(
            language.names("tokenizer", "tagger", "lemmatizer", "similarity") if described else None
        ),
    )


def _doubts(asked: Mapping[str, str], reference: Reference) -> dict[str, Any]:
    """Answers that are not exactly Yes or No, the yes ratio, and what the first word alone would
    give.
    """
    if not asked:
        return {}
    first = {name: "".join(text.split()[:1]).strip(".,;:!").lower() for name, text in asked.items()}
    questions = {
        name: item for name in asked if isinstance(item := reference.items[name], Question)
    }
    return {
        "unparsed": sum(text not in ("Yes", "No") for text in asked.values()),
        "yes_ratio": 100 * sum(text == "Yes" for text in asked.values()) / len(asked),
        "accuracy_by_first_word": (
            100
            * sum(first[name] == ("no" if each.no else "yes") for name, each in questions.items())
            / len(asked)
        ),
    }


SCORER = Scorer(
    "amber", "AMBER", NAMES, read_answers, read_reference, score, FORMATS, uses_language=True
)
