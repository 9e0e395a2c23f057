"""Which COCO objects a text mentions and which an image shows: what CHAIR and Object HalBench share.

The vocabulary maps words to COCO's 80 objects; two words that are one object ("hot dog") are joined first. What an image shows is the union
of its instance annotations and of what its five human captions mention.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.scorers.rows import read_json, read_text

#: CHAIR's own rules for pairs of words (its script chair.py).
_PAIRS = (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light", "fire hydrant", "stop sign",
    "parking meter", "suit case", "sports ball", "baseball bat", "baseball glove", "tennis racket", "wine glass", "hot dog", "cell phone",
    "mobile phone", "teddy bear", "hair drier", "potted plant", "bow tie", "laptop computer", "stove top oven", "home plate", "train track",
)  # fmt: skip
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
_VEHICLES = ("jet", "train")


@dataclass(frozen=True)
class Vocabulary:
    """`objects`: word -> COCO object; `pairs`: two words -> the word that they become."""

    objects: Mapping[str, str]
    pairs: Mapping[str, str]

    def join(self, words: Sequence[str]) -> list[str]:
        """The words with pairs joined, from left to right."""
        joined = []
        position = 0
        while position < len(words):
            pair = self.pairs.get(" ".join(words[position : position + 2]))
            joined.append(words[position] if pair is None else pair)
            position += 1 if pair is None else 2
        return joined

    def mentions(self, words: Sequence[str]) -> list[str]:
        """The objects that words mention, in order and as often; the seat of a toilet is no chair."""
        if "toilet" in words and "seat" in words:
            words = [word for word in words if word != "seat"]
        return [self.objects[word] for word in words if word in self.objects]


def read_vocabulary(path: Path, pairs_from_synonyms: bool) -> Vocabulary:
    """A vocabulary file: a line an object, "name, synonym, ..."; or JSON with `inverse_synonym_dict` and `double_word_dict`.

    `pairs_from_synonyms`: all synonyms of several words are pairs (Object HalBench), not CHAIR's own list. Errors: UserError.
    """
    if path.suffix == ".json":
        value = read_json(path)
        if not isinstance(value, dict) or not (_texts(value.get("inverse_synonym_dict")) and _texts(value.get("double_word_dict"))):
            raise UserError(f"{path}: no vocabulary. It has `inverse_synonym_dict` and `double_word_dict`, objects of texts.")
        return Vocabulary({word: name for word, name in value["inverse_synonym_dict"].items() if word}, value["double_word_dict"])
    objects: dict[str, str] = {}
    for line in read_text(path).splitlines():
        synonyms = [word.strip() for word in line.strip().split(", ")]
        objects |= {word: synonyms[0] for word in synonyms if word}
    several = [word for word in objects if " " in word]
    pairs = {pair: pair for pair in ([*several, "home plate", "train track"] if pairs_from_synonyms else _PAIRS)}
    pairs |= {f"{age} {animal}": animal for animal in _ANIMALS for age in ("baby", "adult")}
    pairs |= {f"passenger {vehicle}": vehicle for vehicle in _VEHICLES}
    return Vocabulary(objects, pairs | {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"})


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(each, str) for each in value.values())


@dataclass
class Reference:
    """What images show.

    given       image -> its objects, where somebody has worked them out
    instances   image -> names of COCO categories; `captions`: image -> its human captions (both from COCO's annotation files)
    """

    vocabulary: Vocabulary
    given: dict[str, frozenset[str]] = field(default_factory=dict)
    instances: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    captions: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def expected(self, answered: Iterable[str]) -> list[str]:
        """The images that answers are wanted for: all whose objects were worked out; of COCO's many, those that are answered."""
        if self.given:
            return list(self.given)
        known = self.instances.keys() | self.captions.keys()
        return [image for image in answered if image in known] or sorted(known)

    def objects(self, image: str, words_of: Callable[[str], list[str]]) -> frozenset[str]:
        """What an image shows; `words_of` cuts a human caption into words as it does with answers."""
        if image in self.given:
            return self.given[image]
        names = {self.vocabulary.objects.get(name, name) for name in self.instances.get(image, ())}
        for caption in self.captions.get(image, ()):
            names.update(self.vocabulary.mentions(words_of(caption)))
        return frozenset(names)


def image_id(name: str) -> str:
    """A COCO image id without what surrounds it: "COCO_val2014_000000310196.jpg" and "000000310196" are 310196."""
    digits = re.fullmatch(r"(?:COCO_\w+_)?0*(\d+)(?:\.\w+)?", name)
    return digits[1] if digits else name


def read_reference(paths: Iterable[Path], vocabulary_names: Sequence[str], pairs_from_synonyms: bool, benchmark: str) -> Reference:
    """The vocabulary and what images show, from files or folders.

    In a folder (and its sub-folders) these are looked at: the first of `vocabulary_names` that matches, `*objects*.json`
    ({image id: [objects]}), COCO's `instances_*.json` and `captions_*.json`. Errors: UserError where something is missing or damaged.
    """
    files: list[Path] = []
    vocabularies: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [each for name in vocabulary_names for each in sorted(path.rglob(name))]
            vocabularies += found[:1]
            files += [each for name in ("*objects*.json", "instances_*.json", "captions_*.json") for each in sorted(path.rglob(name))]
        elif path.suffix == ".txt" or any(path.match(name) for name in vocabulary_names):
            vocabularies.append(path)
        else:
            files.append(path)
    if not vocabularies or not files:
        what = "synonym vocabulary" if not vocabularies else "objects of the images"
        raise UserError(
            f"{' '.join(map(str, paths)) or 'no reference'}: {benchmark} needs its {what}. --reference names files or folders with the "
            f"vocabulary ({' or '.join(vocabulary_names)}) and with {{image id: [objects]}} (*objects*.json) or COCO's instances_*.json "
            "and captions_*.json."
        )
    reference = Reference(read_vocabulary(vocabularies[0], pairs_from_synonyms))
    for file in files:
        _read_objects(file, reference)
    if bool(reference.instances) != bool(reference.captions):
        other = "captions_*.json" if reference.instances else "instances_*.json"
        raise UserError(f"{files[0].parent}: COCO's {other} are missing. What an image shows is the union of instances and human captions.")
    return reference


def _read_objects(file: Path, reference: Reference) -> None:
    value = read_json(file)
    if not isinstance(value, dict):
        raise UserError(f"{file}: an object is expected, {{image id: [objects]}} or one of COCO's annotation files.")
    if "annotations" not in value:
        for image, objects in value.items():
            if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
                raise UserError(f"{file}: the objects of image {image!r} are no list of texts.")
            reference.given[image_id(image)] = frozenset(objects)
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
        raise UserError(f"{file}: not one of COCO's annotation files ({type(error).__name__}: {error}).") from None
