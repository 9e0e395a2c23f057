"""Language tools of the scorers: what cuts text into words, tags them, finds base forms and says
which words mean the same.

Scores depend on these tools, so each part has a name, and the names of the parts that were used go
into the score.

    reference   what the benchmarks' own scripts use: NLTK's tokenizer, tagger and WordNet lemmas,
                TextBlob's singulariser (the one of the package `pattern`, which CHAIR used),
                spaCy's en_core_web_lg for similarity (AMBER) and en_core_web_trf for phrases
                (Object HalBench). Needs data that these libraries fetch once; without it, a
                UserError says which.
    stand-in    needs no data: NLTK's word tokenizer with sentences cut after . ! ?, every word a
                noun, TextBlob's singulariser also in place of lemmas, similarity is equality
    exact       runs of letters of the lower-cased text, every word a noun, no base forms,
                similarity is equality: the simplest rules that anybody can repeat, for checking a
                scorer's arithmetic
    auto        each part as in `reference` where its data are there, otherwise as in `stand-in`

A part is loaded when it is first used. Nothing is fetched from anywhere.
"""

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar, Generic, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from lib.benchmarks.base import Benchmark, LanguageChoice, R
from lib.errors import UserError
from lib.patches.imports import hidden

CHOICES: tuple[str, ...] = get_args(LanguageChoice)
#: What is said beside a score that other language tools made than those of published scores.
NOT_COMPARABLE = "stand-in language tools ({parts}): not comparable with published scores"
VECTORS = "en_core_web_lg"
PHRASES = "en_core_web_trf"
#: Similarities of a matrix product that are this near to the threshold are computed once more, as
#: spaCy computes a single one.
NEAR = 1e-4

Function_co = TypeVar("Function_co", covariant=True)
Strings = Sequence[str]
Similar = Callable[[Strings, Strings, float], dict[str, frozenset[str]]]


@dataclass(frozen=True)
class Tool(Generic[Function_co]):
    """A part and its name. `is_reference`: whether it is what the benchmarks' own scripts use."""

    name: str
    run: Function_co
    is_reference: bool = True


class LanguageTools:
    """The parts under one choice, each loaded when first used.

    tokenizer     text -> words
    tagger        words -> Penn Treebank tags
    lemmatizer    word -> base form, taken as a noun
    singulariser  word -> singular
    phrases       phrase -> (base form, Penn Treebank tag) of each word
    similarity    (words, others, threshold) -> each word: the others whose similarity is above the
                  threshold
    """

    def __init__(self, choice: str = "auto") -> None:
        if choice not in CHOICES:
            raise UserError(
                f"language tools {choice!r} are unknown; there are {', '.join(CHOICES)}."
            )
        self.choice = choice

    def _pick(
        self,
        reference: Callable[[], Tool[Any]],
        stand_in: Callable[[], Tool[Any]],
        exact: Tool[Any],
    ) -> Tool[Any]:
        if self.choice == "exact":
            return replace(exact, is_reference=False)
        if self.choice == "stand-in":
            return replace(stand_in(), is_reference=stand_in == reference)
        try:
            return reference()
        except (ImportError, LookupError, OSError) as error:
            if self.choice == "auto":
                return replace(stand_in(), is_reference=False)
            raise UserError(
                f"the reference's language tools are not installed: {_first_line(error)}. Install"
                " them (docs/evaluation.md, Language tools), or choose `auto` or `stand-in`; the"
                " score names what it used."
            ) from None

    @cached_property
    def tokenizer(self) -> Tool[Callable[[str], list[str]]]:
        """Text -> words."""
        return self._pick(
            _nltk_tokenizer, _plain_tokenizer, Tool("runs of letters, lower case", _letters)
        )

    @cached_property
    def tagger(self) -> Tool[Callable[[list[str]], list[str]]]:
        """Words -> tags."""
        return self._pick(_nltk_tagger, lambda: _ALL_NOUNS, _ALL_NOUNS)

    @cached_property
    def lemmatizer(self) -> Tool[Callable[[str], str]]:
        """Noun -> base form."""
        return self._pick(_wordnet_lemmatizer, _singulariser, Tool("no base forms", str))

    @cached_property
    def singulariser(self) -> Tool[Callable[[str], str]]:
        """Word -> singular."""
        return self._pick(_singulariser, _singulariser, Tool("no base forms", str))

    @cached_property
    def phrases(self) -> Tool[Callable[[str], list[tuple[str, str]]]]:
        """Phrase -> (base form, tag)."""
        return self._pick(
            _spacy_phrases,
            _plain_phrases,
            Tool("split at blanks, every word but 'a' a noun", _blank_phrases),
        )

    @cached_property
    def similarity(self) -> Tool[Similar]:
        """Which words mean the same."""
        return self._pick(_spacy_similarity, lambda: _EQUALITY, _EQUALITY)

    def nouns(self, text: str) -> list[str]:
        """The base forms of a text's nouns, in order (NLTK's way: tokens, tags, WordNet)."""
        words = self.tokenizer.run(text)
        return [
            self.lemmatizer.run(word)
            for word, tag in zip(words, self.tagger.run(words), strict=True)
            if tag.startswith("NN")
        ]

    def names(self, *parts: str) -> str:
        """The names of these parts, for a score."""
        return "; ".join(f"{part}: {getattr(self, part).name}" for part in parts)

    def stand_ins(self, *parts: str) -> list[str]:
        """Those of these parts that are not the reference's."""
        return [part for part in parts if not getattr(self, part).is_reference]


class LanguageBenchmark(Benchmark[R]):
    """A benchmark whose scores depend on language tools.

    by_language  the scores that do; None where all do
    """

    by_language: ClassVar[frozenset[str] | None] = None

    def not_comparable(self, scores: Iterable[str], *parts: str) -> dict[str, str]:
        """The scores that are not comparable with published ones, because these parts of the
        language tools made them and one of them is not the reference's; each with that reason.
        """
        stand_ins = self.tools.stand_ins(*parts)
        if not stand_ins:
            return {}
        why = NOT_COMPARABLE.format(parts=", ".join(stand_ins))
        depends = self.by_language
        return {name: why for name in scores if depends is None or name in depends}

    @cached_property
    def tools(self) -> LanguageTools:
        """The tools of its choice; they remember words."""
        return LanguageTools(self.language)


def places_of(words: Strings, text: str) -> list[tuple[int, int] | None]:
    """Where words that a tokenizer cut from a text stand in it: (start, end) each; None for one
    that it wrote in another way.

    The tokenizers keep the letters and their order. NLTK's write a straight quotation mark as two
    marks of another kind.
    """
    places: list[tuple[int, int] | None] = []
    position = 0
    for word in words:
        start, length = text.find(word, position), len(word)
        if (
            word in ("``", "''")
            and (plain := text.find('"', position)) >= 0
            and not 0 <= start < plain
        ):
            start, length = plain, 1
        places.append((start, start + length) if start >= 0 else None)
        position = start + length if start >= 0 else position
    return places


def _first_line(error: BaseException) -> str:
    lines = [line.strip(" *\n") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__).rstrip(".")


def _version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


# --------------------------------------------------------------------------------------------------


def _import_nltk() -> Any:
    """NLTK without scipy, whose tests of significance it offers for collocations; they take four
    fifths of its loading.
    """
    with hidden("scipy"):
        import nltk
    return nltk


def _nltk_tokenizer() -> Tool[Callable[[str], list[str]]]:
    nltk = _import_nltk()
    nltk.word_tokenize("Two words.")  # a LookupError names the data that are missing (punkt_tab)
    return Tool(f"NLTK word_tokenize ({_version('nltk')})", nltk.word_tokenize)


def _nltk_tagger() -> Tool[Callable[[list[str]], list[str]]]:
    _import_nltk()
    from nltk.tag import PerceptronTagger

    tagger = (
        PerceptronTagger()
    )  # `nltk.pos_tag` makes the same one, and reads its weights, for every text
    return Tool(
        f"NLTK pos_tag ({_version('nltk')})", lambda words: [tag for _, tag in tagger.tag(words)]
    )


def _wordnet_lemmatizer() -> Tool[Callable[[str], str]]:
    _import_nltk()
    from nltk.stem import WordNetLemmatizer

    lemmatize = cache(WordNetLemmatizer().lemmatize)
    lemmatize("words")
    return Tool(f"WordNet, as nouns ({_version('nltk')})", lambda word: lemmatize(word))


def _spacy_pipeline(name: str, **options: Any) -> tuple[Any, str]:
    import spacy

    pipeline = spacy.load(name, **options)
    return pipeline, f"spaCy {name} {pipeline.meta['version']} ({_version('spacy')})"


def _spacy_phrases() -> Tool[Callable[[str], list[tuple[str, str]]]]:
    pipeline, name = _spacy_pipeline(PHRASES)
    return Tool(name, cache(lambda text: [(token.lemma_, token.tag_) for token in pipeline(text)]))


def _spacy_similarity() -> Tool[Similar]:
    pipeline, name = _spacy_pipeline(VECTORS)
    return Tool(
        f"similarity of {name}",
        lambda words, others, threshold: similar_by_vectors(
            pipeline.make_doc, words, others, threshold
        ),
    )


def similar_by_vectors(
    document: Callable[[str], Any], words: Strings, others: Strings, threshold: float
) -> dict[str, frozenset[str]]:
    """Each word: those of `others` with a cosine similarity above the threshold, from one matrix
    product.

    `document` makes of a word something with spaCy's `vector`, `vector_norm` and `similarity`. A
    product of matrices sums in another order than a single product does, so pairs within `NEAR` of
    the threshold, and equal words (which spaCy takes as 1, vector or not), are asked for one by
    one.
    """
    words, others = list(dict.fromkeys(words)), list(dict.fromkeys(others))
    if not words or not others:
        return {word: frozenset() for word in words}
    documents = {word: document(word) for word in {*words, *others}}
    unit = {
        word: _unit(np.asarray(each.vector, dtype=np.float64)) for word, each in documents.items()
    }
    table = np.stack([unit[word] for word in words]) @ np.stack([unit[other] for other in others]).T
    above = table > threshold
    for row, column in np.argwhere(np.abs(table - threshold) < NEAR):
        above[row, column] = documents[words[row]].similarity(documents[others[column]]) > threshold
    places = {other: column for column, other in enumerate(others)}
    for row, word in enumerate(words):
        if word in places:
            above[row, places[word]] = documents[word].similarity(documents[word]) > threshold
    return {
        word: frozenset(others[column] for column in np.flatnonzero(above[row]))
        for row, word in enumerate(words)
    }


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = np.linalg.norm(vector)
    return vector / norm if norm else vector


# --------------------------------------------------------------------------------------------------

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_LETTERS = re.compile(r"[a-z]+")


def _plain_tokenizer() -> Tool[Callable[[str], list[str]]]:
    _import_nltk()
    from nltk.tokenize import NLTKWordTokenizer

    tokenize = NLTKWordTokenizer().tokenize
    name = f"NLTK's word tokenizer, sentences cut after . ! ? ({_version('nltk')})"
    return Tool(
        name,
        lambda text: [
            word for sentence in _SENTENCE_END.split(text) for word in tokenize(sentence)
        ],
    )


def _singulariser() -> Tool[Callable[[str], str]]:
    _import_nltk()
    from textblob.en.inflect import singularize

    return Tool(f"TextBlob's singulariser ({_version('textblob')})", cache(singularize))


def _letters(text: str) -> list[str]:
    return _LETTERS.findall(text.lower())


def _equal(words: Strings, others: Strings, threshold: float) -> dict[str, frozenset[str]]:
    known = set(others)
    return {word: frozenset({word}) & known for word in words}


def _plain_phrases() -> Tool[Callable[[str], list[tuple[str, str]]]]:
    tokenizer, singulariser = _plain_tokenizer(), _singulariser()

    def run(text: str) -> list[tuple[str, str]]:
        return [
            (singulariser.run(word), "DT" if word in ("a", "an", "the") else "NN")
            for word in tokenizer.run(text.lower())
        ]

    return Tool(f"{tokenizer.name}; every word but an article a noun; {singulariser.name}", run)


def _blank_phrases(text: str) -> list[tuple[str, str]]:
    return [(word, "DT" if word == "a" else "NN") for word in text.split()]


_ALL_NOUNS: Tool[Callable[[list[str]], list[str]]] = Tool(
    "every word a noun", lambda words: ["NN"] * len(words)
)
_EQUALITY: Tool[Similar] = Tool("equality", _equal)
