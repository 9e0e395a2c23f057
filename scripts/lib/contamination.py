"""What training data and benchmarks have in common: runs of words, short questions, and images that
look the same.

Texts are compared as their words, case and punctuation aside. Three measures, because most
questions are shorter than any n-gram that says much:

ngram      both texts have a run of `n` words in common. n is 13 by default: GPT-3's overlap
           analysis (Brown et al. 2020, appendix C) takes the 5th percentile of a benchmark's
           lengths, at least 8 and at most 13.
contained  a question of fewer than `n` words stands in the text as a whole.
similar    a question of fewer than `n` words and the text have at least a given share of their word
           pairs in common (Jaccard), so that a changed word or ending does not hide it.

Questions of fewer than `min_words` words ("Describe this image.") say nothing about where a text
comes from and are not compared. Images are compared by perceptual hash (imagehash's phash: the
lowest 8 x 8 frequencies of a grey 32 x 32 image), by the number of bits in which the two hashes
differ; two unrelated images differ in 32 of 64 on average.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np

from lib.data.evaluation_files import IndexedQuestion
from lib.data.parquet_images import image_columns
from lib.data.rows import OverlapEntry
from lib.files import read_jsonl

if TYPE_CHECKING:
    from PIL.Image import Image

Words = tuple[str, ...]
#: What benchmarks add to their questions: how to answer, no part of the question.
ENDINGS = (" Please answer yes or no.", "\nAnswer the question using a single word or phrase.")


def words_of(text: str) -> Words:
    """The words of a text."""
    return tuple(re.findall(r"\w+", text.casefold()))


def question_words(text: str) -> Words:
    """The words of a question without what is said of how to answer it."""
    for ending in ENDINGS:
        text = text.removesuffix(ending)
    return words_of(text)


def runs(words: Words, length: int) -> list[Words]:
    """All runs of so many words, in order."""
    return [words[start : start + length] for start in range(len(words) - length + 1)]


def perceptual_hash(image: "Image") -> str:
    """64 bits as 16 hex digits."""
    import imagehash

    return str(imagehash.phash(image))


@dataclass(frozen=True)
class Overlap:
    """Something of a prompt that a benchmark has too.

    of         "prompt", "instruction" or "image"
    benchmark  its name; `question`: the id of the first question that is meant; `questions`: how
               many have this text or image
    measure    "ngram", "contained", "similar" or "image"
    value      words in common in a row; share of word pairs in common; bits in which two images'
               hashes differ
    text       the benchmark's words in common; empty for images
    """

    of: str
    benchmark: str
    question: str
    questions: int
    measure: str
    value: float
    text: str

    def entry(self) -> OverlapEntry:
        """As rows have it."""
        return cast("OverlapEntry", asdict(self))


@dataclass(frozen=True)
class _QuestionText:
    """A text that questions of a benchmark have, and their ids."""

    benchmark: str
    words: Words
    ids: tuple[str, ...]


class _InCommon(NamedTuple):
    """What a text has in common with a question (`Overlap`)."""

    measure: str
    value: float
    words: Words


class Index:
    """The questions and images of benchmarks, to be searched."""

    def __init__(
        self,
        rows: Iterable[IndexedQuestion],
        *,
        ngram: int,
        short_similarity: float,
        min_words: int,
        image_distance: int,
    ) -> None:
        """`rows`: as `index_benchmarks` publishes them; the rest: the configuration's block
        `evaluation.contamination`.
        """
        self.ngram, self.similarity, self.distance = ngram, short_similarity, image_distance
        texts: dict[tuple[str, Words], list[str]] = defaultdict(list)
        images: dict[tuple[str, str], list[str]] = defaultdict(list)
        for row in rows:
            texts[row["benchmark"], question_words(row["question"])].append(row["id"])
            if row["image"] is not None:
                images[row["benchmark"], row["image"]].append(row["id"])
        self.questions = [
            _QuestionText(name, words, tuple(ids))
            for (name, words), ids in texts.items()
            if len(words) >= min_words
        ]
        self._index_words()
        self._images = list(images.items())
        hashes = [int(image, 16) for (_, image), _ in self._images]
        self._hashes = np.array(hashes, dtype=np.uint64)

    @classmethod
    def read(cls, path: Path, measures: Mapping[str, Any]) -> Self:
        """The index that `index_benchmarks` published. `measures`: as the configuration has
        them (`OverlapMeasures`).
        """
        return cls(cast("list[IndexedQuestion]", read_jsonl(path)), **measures)

    def _index_words(self) -> None:
        """Which questions have a run of words: long ones by n-gram, short ones as a whole and by
        pair.
        """
        self._long: dict[Words, list[int]] = defaultdict(list)
        self._short: dict[Words, list[int]] = defaultdict(list)
        self._pairs: dict[Words, list[int]] = defaultdict(list)
        for number, question in enumerate(self.questions):
            if len(question.words) >= self.ngram:
                for run in set(runs(question.words, self.ngram)):
                    self._long[run].append(number)
            else:
                self._short[question.words].append(number)
                for pair in set(runs(question.words, 2)):
                    self._pairs[pair].append(number)
        self._lengths = sorted({len(words) for words in self._short})

    def of_text(self, of: str, text: str) -> list[Overlap]:
        """What a text has in common with the questions, each question text once, by its strongest
        measure, in the order of the index.
        """
        strongest: dict[int, _InCommon] = {}
        for number, in_common in self._in_common(words_of(text)):
            strongest.setdefault(number, in_common)
        return [self._overlap(of, number, strongest[number]) for number in sorted(strongest)]

    def _in_common(self, words: Words) -> Iterator[tuple[int, _InCommon]]:
        """Questions and what words have in common with them, the strongest measure first."""
        for run in runs(words, self.ngram):
            for number in self._long.get(run, ()):
                yield number, _InCommon("ngram", float(self.ngram), run)
        for length in self._lengths:
            for run in runs(words, length):
                for number in self._short.get(run, ()):
                    yield number, _InCommon("contained", float(length), run)
        for number, share in self._similar(words):
            yield number, _InCommon("similar", round(share, 4), self.questions[number].words)

    def _similar(self, words: Words) -> list[tuple[int, float]]:
        """Short questions whose word pairs are near enough to the text's.

        Of a text's pairs, sorted by how rare they are, only so many need to be looked up that a
        question near enough has one of them.
        """
        pairs = set(runs(words, 2))
        if not pairs or self.similarity <= 0:
            return []
        rarest = sorted(pairs, key=lambda pair: (len(self._pairs.get(pair, ())), pair))
        needed = len(pairs) - ceil(self.similarity * len(pairs)) + 1
        candidates = {number for pair in rarest[:needed] for number in self._pairs.get(pair, ())}
        shares = []
        for number in sorted(candidates):
            theirs = set(runs(self.questions[number].words, 2))
            share = len(pairs & theirs) / len(pairs | theirs)
            if share >= self.similarity:
                shares.append((number, share))
        return shares

    def of_image(self, image: str) -> list[Overlap]:
        """The benchmarks' images whose hash differs in few enough bits from that of an image, in
        the order of the index.
        """
        if not len(self._hashes):
            return []
        bits = np.bitwise_count(self._hashes ^ np.uint64(int(image, 16)))
        near = []
        for number in np.flatnonzero(bits <= self.distance):
            (benchmark, _), ids = self._images[number]
            near.append(
                Overlap("image", benchmark, ids[0], len(ids), "image", float(bits[number]), "")
            )
        return near

    def _overlap(self, of: str, number: int, in_common: _InCommon) -> Overlap:
        question = self.questions[number]
        return Overlap(
            of,
            question.benchmark,
            question.ids[0],
            len(question.ids),
            in_common.measure,
            in_common.value,
            " ".join(in_common.words),
        )


def parquet_rows(path: Path) -> Iterable[tuple[str, str, list[bytes]]]:
    """(id, question, image files) of every row of a local parquet file of lmms-eval's data.

    Errors: KeyError where the file has no column of questions.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    question = next(
        (name for name in ("question", "query", "instruction", "prompt") if name in schema.names),
        None,
    )
    if question is None:
        raise KeyError(f"{path} has no column of questions")
    identity = next((name for name in ("question_id", "index", "id") if name in schema.names), None)
    images = image_columns(schema)
    number = 0
    for batch in file.iter_batches(
        batch_size=64,
        columns=[*dict.fromkeys([question, *([identity] if identity else []), *images])],
    ):
        for row in batch.to_pylist():
            pictures = [row[name]["bytes"] for name in images if row[name] and row[name]["bytes"]]
            yield str(row[identity]) if identity else str(number), str(row[question]), pictures
            number += 1


def short_questions(rows: Sequence[IndexedQuestion], min_words: int) -> int:
    """How many questions are too short to be compared."""
    return sum(len(question_words(row["question"])) < min_words for row in rows)
