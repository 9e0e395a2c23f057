"""Which of the reference's questions an answer answers, where both say what was asked.

Benchmarks number their questions anew from release to release, so that a number alone may belong to
another question. An answer that says its question and its image is joined by these; one that says
less is joined by its id, and whatever both say must agree.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from lib.benchmarks.answers import Answer, Answers, Problem
from lib.benchmarks.rows import id_of
from lib.errors import UserError

#: Where rows of answers keep what was asked, the barest first, and about which image.
QUESTION_KEYS = ("bare_question", "question", "query", "prompt")
IMAGE_KEYS = ("image", "image_path", "file_name", "image_source", "image_src", "image_id")
#: Details of an answer that tell what was asked.
KEPT = (*QUESTION_KEYS, *IMAGE_KEYS)
#: The letters of a word that may be spelled otherwise where any may; shorter ones are other words.
LONG = 5
LONGEST_NAME = 300
#: So much of a question is shown in a message.
SHOWN = 200


@dataclass(frozen=True)
class Asked:
    """What was asked, "" where it is not said, and the names of the image, none where it is not."""

    text: str = ""
    images: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether both are said."""
        return bool(self.text and self.images)


#: Where neither is said.
UNSAID = Asked()


@dataclass(frozen=True)
class Questions:
    """The reference's questions by id.

    frame   words that stand in any question, so that another spelling of one makes no other
            question; None for questions in free words, any of which may be spelled otherwise
    renamed whether the images' files may have other names than the reference knows
    """

    by_id: Mapping[str, Asked]
    frame: frozenset[str] | None = None
    renamed: bool = False
    _texts: Set[tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        texts = {_words(asked.text) for asked in self.by_id.values()}
        object.__setattr__(self, "_texts", texts)

    def is_same(self, said: str, expected: str) -> bool:
        """Whether `said`, a question or the whole prompt around it, is the question `expected`, up
        to case, punctuation and spelling.
        """
        words, wanted = _words(said), _words(expected)
        windows = range(len(words) - len(wanted) + 1)
        if any(words[start : start + len(wanted)] == wanted for start in windows):
            return True
        return words not in self._texts and any(
            all(map(self._is_respelled, words[start:], wanted)) for start in windows
        )

    def _is_respelled(self, said: str, wanted: str) -> bool:
        if said == wanted:
            return True
        may_be = len(wanted) >= LONG if self.frame is None else wanted in self.frame
        return may_be and _is_one_letter_apart(said, wanted)


@cache
def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def _is_one_letter_apart(one: str, other: str) -> bool:
    """Whether a letter more, less or changed, or two that changed places, make one the other."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1:
        return False
    place = next((place for place, letter in enumerate(short) if letter != long[place]), len(short))
    if len(short) < len(long):
        return short[place:] == long[place + 1 :]
    swapped = short[:place] + short[place : place + 2][::-1] + short[place + 2 :]
    return short[place + 1 :] == long[place + 1 :] or swapped == long


def image_names(row: Mapping[str, Any], keys: Iterable[str] = IMAGE_KEYS) -> frozenset[str]:
    """What a row calls its image: names of files, without folder and ending, those of COCO's images
    as their numbers.
    """
    values = [value for key in keys if (value := id_of(row.get(key)))]
    paths = [urlparse(value).path if "://" in value else value for value in values]
    # A longer text is no name: some rows hold the image itself.
    stems = [PurePosixPath(path).stem for path in paths if len(path) < LONGEST_NAME]
    return frozenset(re.sub(r"^(?:COCO_\w+_)?0*(?=\d+$)", "", stem) for stem in stems if stem)


def asked_in(row: Mapping[str, Any], keys: Sequence[str] = QUESTION_KEYS) -> Asked:
    """What a row says of its question, under the first of these keys that has a text, and of its
    image.
    """
    texts = [text for key in keys if isinstance(text := row.get(key), str) and text.strip()]
    return Asked(next(iter(texts), ""), image_names(row))


def joined(answers: Answers, questions: Questions, benchmark: str) -> Answers:
    """The answers under the ids that the reference has for what they answer.

    An answer that says question and image, where the reference says both, gets the id of that
    question; one that the reference does not ask is left out, with a problem. Any other keeps its
    id. Errors: UserError, with both texts, where what is asked under an id is not what was
    answered.
    """
    return _Join(answers, questions, benchmark).run()


class _Join:
    """The join of a file's answers with a reference."""

    def __init__(self, answers: Answers, questions: Questions, benchmark: str) -> None:
        self.answers, self.questions, self.benchmark = answers, questions, benchmark
        known = {image for asked in questions.by_id.values() for image in asked.images}
        named = (asked_in(answer.details).images for answer in answers.rows)
        self.by_text_alone = questions.renamed and all(map(known.isdisjoint, named))
        self.places: dict[tuple[str, str], list[str]] = {}
        for name, asked in questions.by_id.items():
            for image in asked.images if asked.is_whole else ():
                self.places.setdefault((_group(name), image), []).append(name)
        self.groups = {group for group, _ in self.places}
        self.taken: set[str] = set()
        self.problems: list[Problem] = []
        self.unlike: list[tuple[Answer, str]] = []

    def run(self) -> Answers:
        """The joined answers."""
        rows = [row for answer in self.answers.rows if (row := self._row(answer))]
        if self.unlike or (self.problems and not rows):
            raise self._of_another_release()
        problems = [*self.answers.problems, *self.problems]
        return replace(self.answers, rows=rows, problems=problems)

    def _row(self, answer: Answer) -> Answer | None:
        asked = asked_in(answer.details)
        if self.by_text_alone:
            asked = Asked(asked.text)
        name: str | None = answer.id
        if asked.is_whole and self._group_of(answer) in self.groups:
            name = self._name_of(answer, asked)
        elif (expected := self.questions.by_id.get(answer.id)) and (
            unlike := self._unlike(asked, expected)
        ):
            self.unlike.append((answer, unlike))
        if name is None:
            what = f"asks {_shown(asked.text)} about {_image(asked)}, which is not in the reference"
            self._tell(answer, f"{what}; not scored")
        elif name in self.taken:
            self._tell(answer, f"answers what {name!r} asks, which is answered before it")
            name = None
        else:
            self.taken.add(name)
        return replace(answer, id=name) if name else None

    def _group_of(self, answer: Answer) -> str:
        """The group of questions that an answer belongs to: the only one there is, where one side
        says none.
        """
        own = _group(answer.id)
        if own in self.groups or len(self.groups) != 1:
            return own
        [only] = self.groups
        return only if "" in (own, only) else own

    def _name_of(self, answer: Answer, asked: Asked) -> str | None:
        """The id of the question that an answer says it answers: its own, if that is one."""
        group = self._group_of(answer)
        near = {name for image in asked.images for name in self.places.get((group, image), ())}
        first = sorted(near, key=lambda name: (name in self.taken, name != answer.id, name))
        texts = ((name, self.questions.by_id[name].text) for name in first)
        return next(
            (name for name, text in texts if self.questions.is_same(asked.text, text)), None
        )

    def _unlike(self, asked: Asked, expected: Asked) -> str | None:
        """What the reference asks under an id, if that is not what was answered."""
        if asked.text and expected.text and not self.questions.is_same(asked.text, expected.text):
            return f"asks {_shown(asked.text)}, and in the reference {_shown(expected.text)}"
        if asked.images and expected.images and not asked.images & expected.images:
            return f"is about {_image(asked)}, and in the reference about {_image(expected)}"
        return None

    def _tell(self, answer: Answer, what: str) -> None:
        self.problems.append(Problem(self.answers.file, answer.line, f"id {answer.id!r} {what}"))

    def _of_another_release(self) -> UserError:
        if not self.unlike:
            return UserError(
                f"{self.problems[0]} (and so with all of its {len(self.answers.rows)} answers). Are"
                f" these answers to {self.benchmark}, and is this the reference that belongs to"
                " them?"
            )
        answer, unlike = self.unlike[0]
        more = f" (the first of {len(self.unlike)} such ids)" if len(self.unlike) > 1 else ""
        return UserError(
            f"{Problem(self.answers.file, answer.line, f'id {answer.id!r} {unlike}')}{more}. The"
            f" two are of different releases of {self.benchmark}, so nothing is scored. Take the"
            " reference that belongs to the answers; or write into each answer its `question` and"
            " its `image`, by which they are joined where the reference has both."
        )


def _group(name: str) -> str:
    """What stands before an id's last slash: POPE's split, which asks the same as others do."""
    return name.rpartition("/")[0]


def _shown(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= SHOWN else f"{words[:SHOWN]}...")


def _image(asked: Asked) -> str:
    return repr(min(asked.images))
