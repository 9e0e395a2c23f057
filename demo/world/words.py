"""Scenes as words, and words read back.

A prompt belongs to a topic: `counting` groups like things ("two red circles and a blue square on
grey"), `colours` names each one ("a red circle and a blue square on grey"), `positions` says where
each stands ("a red circle top left and a blue square bottom right on grey"). A caption is what a
model answers that describes a picture: things in reading order, like ones grouped, as a sentence.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from world.scenes import BACKGROUNDS, CELLS, COLOURS, KINDS, Scene, Thing

TOPICS = ("counting", "colours", "positions")
NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four"}
PLURALS = {kind: f"{kind}es" if kind.endswith("s") else f"{kind}s" for kind in KINDS}
#: What a model is asked so that it describes a picture; the first is the form that is trained most.
DESCRIBE = (
    "Describe this image.",
    "What is in this image?",
    "Please describe this image in detail.",
    "Which shapes are in the image?",
)


def joined(parts: Sequence[str]) -> str:
    """Parts of a list as English joins them: commas, and "and" before the last."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def counted(number: int, colour: str, kind: str) -> str:
    """So many things of a colour and kind: "a red circle", "two red circles"."""
    return f"{NUMBERS[number]} {colour} {kind if number == 1 else PLURALS[kind]}"


def grouped(things: Sequence[Thing]) -> str:
    """Things with like ones together, in the order in which their first stands."""
    return joined(
        [counted(number, *name) for name, number in Counter(thing.name for thing in things).items()]
    )


def prompt(scene: Scene, topic: str) -> str:
    """The prompt that asks for a picture of the scene, as a topic puts it."""
    if topic == "counting":
        phrase = grouped(scene.things)
    elif topic == "colours":
        phrase = joined([counted(1, *thing.name) for thing in scene.things])
    elif topic == "positions":
        phrase = joined(
            [f"{counted(1, *thing.name)} {CELLS[thing.cell]}" for thing in scene.things]
        )
    else:
        raise ValueError(f"unknown topic {topic!r}; there are {', '.join(TOPICS)}")
    return f"{phrase} on {scene.background}"


def sentence(text: str) -> str:
    """A phrase with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def caption(scene: Scene) -> str:
    """What a model that sees the scene should say."""
    return sentence(prompt(scene, "counting"))


def instruction(prompt_text: str, request: str) -> str:
    """A request about a picture that begins with the picture's prompt, for a judge that cannot see
    the picture.
    """
    return f"It was to show {prompt_text}. {request}"


# --- questions


def shown(scene: Scene, subject: str) -> bool:
    """Whether a colour ("red"), a kind ("circle") or both ("red circle") is in the scene."""
    wanted = set(subject.split())
    return any(wanted <= {*thing.name} for thing in scene.things)


def question(subject: str) -> str:
    """POPE's question about a kind, a colour or both."""
    noun = f"{subject} shape" if subject in COLOURS else subject
    return f"Is there a {noun} in the image?"


def random_subject(
    scene: Scene,
    answer: bool,
    random: np.random.Generator,
    forms: Sequence[str] = ("kind", "colour", "both"),
) -> str:
    """A subject of a question: a kind, a colour or both, that is in the scene, or is not.

    What is not there is often near to what is: another kind of a colour that is there, or another
    colour of a kind.
    """
    form = forms[int(random.integers(len(forms)))]
    choices = {
        "kind": list(KINDS),
        "colour": list(COLOURS),
        "both": [f"{colour} {kind}" for colour in COLOURS for kind in KINDS],
    }[form]
    fitting = [each for each in choices if shown(scene, each) == answer]
    if form == "both" and not answer and random.random() < 0.7:
        near = [each for each in fitting if any(shown(scene, word) for word in each.split())]
        fitting = near or fitting
    return fitting[random.integers(len(fitting))]


# --- reading


@dataclass(frozen=True)
class Statement:
    """What a text says: things as (colour or "", kind, cell or None), each as often as it is said,
    and the background or "".
    """

    things: tuple[tuple[str, str, int | None], ...]
    background: str

    def names(self) -> Counter[tuple[str, str]]:
        """How often each colour and kind is said."""
        return Counter((colour, kind) for colour, kind, _ in self.things)


NUMBER_WORDS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
SINGULARS = {word: kind for kind in KINDS for word in (kind, PLURALS[kind])}
SAID = re.compile(
    rf"(?:\b(?P<number>{'|'.join(NUMBER_WORDS)})\s+)?(?:\b(?P<colour>{'|'.join(COLOURS)})\s+)?"
    rf"\b(?P<kind>{'|'.join(sorted(SINGULARS, key=len, reverse=True))})\b"
    rf"(?:\s+(?P<cell>{'|'.join(CELLS)})\b)?"
)
GROUND = re.compile(rf"\bon\s+(?:an?\s+)?({'|'.join(BACKGROUNDS)})\b")


@dataclass(frozen=True)
class Mention:
    """One mention in a text: how many things of which colour ("" if unsaid) and kind, in which cell
    (None if unsaid); where it ends.
    """

    number: int
    colour: str
    kind: str
    cell: int | None
    end: int


def mentions(text: str) -> list[Mention]:
    """What a text mentions, in order; the same again is a mention again."""
    return [
        Mention(
            NUMBER_WORDS.get(match["number"] or "a", 1),
            match["colour"] or "",
            SINGULARS[match["kind"]],
            CELLS.index(match["cell"]) if match["cell"] else None,
            match.end(),
        )
        for match in SAID.finditer(text.lower())
    ]


def read(text: str) -> Statement:
    """What a text says is there, whoever wrote it; what it says in other words than the world's is
    passed over.
    """
    things = [
        (each.colour, each.kind, each.cell) for each in mentions(text) for _ in range(each.number)
    ]
    ground = GROUND.search(text.lower())
    return Statement(tuple(things), ground[1] if ground else "")
