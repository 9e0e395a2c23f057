"""Which COCO objects a text mentions and which an image shows: what CHAIR and Object HalBench
share.

The vocabulary maps words to COCO's 80 objects; two words that are one object ("hot dog") are joined
first. What an image shows is the union of its instance annotations and of what its five human
captions mention.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lib.benchmarks.joining import IMAGE_KEYS, LONGEST_NAME
from lib.benchmarks.language import places_of
from lib.benchmarks.mentions import Mention, Mentions
from lib.benchmarks.rows import lines_of, read_json, read_text
from lib.errors import UserError

#: CHAIR's own rules for pairs of words (its script chair.py).
_PAIRS = (
    "motor bike",
    "motor cycle",
    "air plane",
    "traffic light",
    "street light",
    "traffic signal",
    "stop light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "suit case",
    "sports ball",
    "baseball bat",
    "baseball glove",
    "tennis racket",
    "wine glass",
    "hot dog",
    "cell phone",
    "mobile phone",
    "teddy bear",
    "hair drier",
    "potted plant",
    "bow tie",
    "laptop computer",
    "stove top oven",
    "home plate",
    "train track",
)
_ANIMALS = (
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "animal",
    "cub",
)
_VEHICLES = ("jet", "train")


class Word(NamedTuple):
    """A word as a vocabulary has it, and the place in the text that it was made of; None where that
    text does not have it so.
    """

    text: str
    place: tuple[int, int] | None


def cut(
    text: str, tokenize: Callable[[str], list[str]], base_form: Callable[[str], str]
) -> list[Word]:
    """A text's words: in lower case, each in its base form."""
    lower = text.lower()
    tokens = tokenize(lower)
    words = [
        Word(base_form(token), place)
        for token, place in zip(tokens, places_of(tokens, lower), strict=True)
    ]
    # A few letters are two in lower case.
    return (
        words
        if len(lower) == len(text)
        else moved(words, [place for place, letter in enumerate(text) for _ in letter.lower()])
    )


def moved(words: Iterable[Word], origins: Sequence[int]) -> list[Word]:
    """Words of a text that was made of another one, with their places in that. `origins`: where
    each of the text's letters stood.
    """
    return [
        (
            word._replace(place=(origins[word.place[0]], origins[word.place[1] - 1] + 1))
            if word.place
            else word
        )
        for word in words
    ]


@dataclass(frozen=True)
class Vocabulary:
    """`objects`: word -> COCO object; `pairs`: two words -> the word that they become."""

    objects: Mapping[str, str]
    pairs: Mapping[str, str]

    def join(self, words: Sequence[Word]) -> list[Word]:
        """The words with pairs joined, from left to right."""
        texts = [word.text for word in words]
        joined = []
        position = 0
        while position < len(words):
            pair = self.pairs.get(" ".join(texts[position : position + 2]))
            first, last = words[position], words[position : position + 2][-1]
            joined.append(first if pair is None else Word(pair, _from_to(first.place, last.place)))
            position += 1 if pair is None else 2
        return joined

    def named(self, words: Sequence[Word]) -> list[Word]:
        """The objects that words mention, in order and as often; a toilet's seat is no chair."""
        texts = {word.text for word in words}
        left_out = "seat" if texts >= {"toilet", "seat"} else None
        return [
            Word(self.objects[word.text], word.place)
            for word in words
            if word.text in self.objects and word.text != left_out
        ]

    def mentions(self, words: Sequence[Word], shown: frozenset[str]) -> Mentions:
        """What words mention of an image that shows these objects."""
        return Mentions(
            tuple(Mention(name, name in shown, place) for name, place in self.named(words)), shown
        )


def _from_to(first: tuple[int, int] | None, last: tuple[int, int] | None) -> tuple[int, int] | None:
    return (first[0], last[1]) if first and last else None


def read_vocabulary(path: Path, pairs_from_synonyms: bool) -> Vocabulary:
    """A vocabulary file: a line an object, "name, synonym, ..."; or JSON with
    `inverse_synonym_dict` and `double_word_dict`.

    `pairs_from_synonyms`: all synonyms of several words are pairs (Object HalBench), not CHAIR's
    own list. Errors: UserError.
    """
    if path.suffix == ".json":
        value = read_json(path)
        if not isinstance(value, dict) or not (
            _texts(value.get("inverse_synonym_dict")) and _texts(value.get("double_word_dict"))
        ):
            raise UserError(
                f"{path}: no vocabulary. It has `inverse_synonym_dict` and `double_word_dict`,"
                " objects of texts."
            )
        return Vocabulary(
            {word: name for word, name in value["inverse_synonym_dict"].items() if word},
            value["double_word_dict"],
        )
    objects: dict[str, str] = {}
    for line in lines_of(read_text(path)):
        synonyms = [word.strip() for word in line.strip().split(", ")]
        objects |= {word: synonyms[0] for word in synonyms if word}
    several = [word for word in objects if " " in word]
    pairs = {
        pair: pair
        for pair in ([*several, "home plate", "train track"] if pairs_from_synonyms else _PAIRS)
    }
    pairs |= {f"{age} {animal}": animal for animal in _ANIMALS for age in ("baby", "adult")}
    pairs |= {f"passenger {vehicle}": vehicle for vehicle in _VEHICLES}
    return Vocabulary(
        objects, pairs | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
    )


def _texts(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(each, str) for each in value.values())
    )


@dataclass
class CocoReference:
    """What images show.

    given       image -> its objects, where somebody has worked them out
    instances   image -> names of COCO categories; `captions`: image -> its human captions (both
                from COCO's annotation files)
    """

    vocabulary: Vocabulary
    given: dict[str, frozenset[str]] = field(default_factory=dict)
    instances: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    captions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def expected(self, answered: Iterable[str]) -> list[str]:
        """The images that answers are wanted for: all whose objects were worked out; of COCO's
        many, those that are answered.
        """
        if self.given:
            return list(self.given)
        known = self.instances.keys() | self.captions.keys()
        return [image for image in answered if image in known] or sorted(known)

    def objects(self, image: str, words_of: Callable[[str], list[Word]]) -> frozenset[str]:
        """What an image shows; `words_of` cuts human captions into words as it does answers."""
        if image in self.given:
            return self.given[image]
        names = {self.vocabulary.objects.get(name, name) for name in self.instances.get(image, ())}
        for caption in self.captions.get(image, ()):
            names.update(name for name, _ in self.vocabulary.named(words_of(caption)))
        return frozenset(names)


def image_id(name: str) -> str:
    """A COCO image id without what surrounds it: "COCO_val2014_000000310196.jpg" and "000000310196"
    are 310196.
    """
    digits = re.fullmatch(r"(?:COCO_\w+_)?0*(\d+)(?:\.\w+)?", name)
    return digits[1] if digits else name


def answered_image(name: str, row: Mapping[str, Any]) -> str:
    """The COCO id of the image that a row is about: its `image_id`, else that of its image file, if
    it has COCO's name (twelve digits), else its id `name`.
    """
    files = [] if "image_id" in row else [row.get(key) for key in IMAGE_KEYS]
    of_coco = r"(?:.*/)?(?:COCO_\w+_)?(\d{12})(?:\.\w+)?"
    ids = [found[1] for file in files if (found := re.fullmatch(of_coco, str(file)[:LONGEST_NAME]))]
    return image_id(ids[0] if ids else name)


def read_reference(
    paths: Iterable[Path],
    vocabulary_names: Sequence[str],
    pairs_from_synonyms: bool,
    benchmark: str,
) -> CocoReference:
    """The vocabulary and what images show, from files or folders.

    In a folder (and its sub-folders) these are looked at: the first of `vocabulary_names` that
    matches, `*objects*.json` ({image id: [objects]}), COCO's `instances_*.json` and
    `captions_*.json`. Errors: UserError where something is missing or damaged.
    """
    files: list[Path] = []
    vocabularies: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            named = [each for name in vocabulary_names for each in sorted(path.rglob(name))]
            vocabularies += named[:1]
            files += [
                each
                for name in ("*objects*.json", "instances_*.json", "captions_*.json")
                for each in sorted(path.rglob(name))
            ]
        elif path.suffix == ".txt" or any(path.match(name) for name in vocabulary_names):
            vocabularies.append(path)
        else:
            files.append(path)
    if not vocabularies or not files:
        what = "synonym vocabulary" if not vocabularies else "objects of the images"
        raise UserError(
            f"{' '.join(map(str, paths)) or 'no reference'}: {benchmark} needs its {what}."
            " --reference names files or folders with the vocabulary"
            f" ({' or '.join(vocabulary_names)}) and with {{image id: [objects]}} (*objects*.json)"
            " or COCO's instances_*.json and captions_*.json."
        )
    reference = CocoReference(read_vocabulary(vocabularies[0], pairs_from_synonyms))
    for file in files:
        _read_objects(file, reference)
    if bool(reference.instances) != bool(reference.captions):
        other = "captions_*.json" if reference.instances else "instances_*.json"
        raise UserError(
            f"{files[0].parent}: COCO's {other} are missing. What an image shows is the union of"
            " instances and human captions."
        )
    return reference


def _read_objects(file: Path, reference: CocoReference) -> None:
    value = read_json(file)
    if not isinstance(value, dict):
        raise UserError(
            f"{file}: an object is expected, {{image id: [objects]}} or one of COCO's annotation"
            " files."
        )
    if "annotations" not in value:
        for image, objects in value.items():
            if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
                raise UserError(f"{file}: the objects of image {image!r} are no list of texts.")
            name = image_id(image)
            if name in reference.given:
                raise UserError(
                    f"{file}: image {image!r} again ({name}). Delete one of its lists of objects."
                )
            reference.given[name] = frozenset(objects)
        return
    try:
        names = {each["id"]: each["name"] for each in value.get("categories", ())}
        for each in value["annotations"]:
            image = str(each["image_id"])
            if "caption" in each:
                reference.captions[image].append(each["caption"])
            else:
                reference.instances[image].add(names[each["category_id"]])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{file}: not one of COCO's annotation files ({type(error).__name__}: {error})."
        ) from None
