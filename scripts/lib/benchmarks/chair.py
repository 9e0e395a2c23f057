"""CHAIR: how many of the objects that a caption mentions are not in the image (Rohrbach et al.
2018; chair.py of LisaAnne/Hallucination).

A caption is lower-cased, cut into words, each made singular; pairs of words are joined; words of
the vocabulary are mentions of COCO objects. CHAIR_i = hallucinated mentions / all mentions, CHAIR_s
= captions with one / all captions. lmms-eval's coco_cap_chair takes WordNet lemmas in place of the
singulariser.
"""

from pathlib import Path

import numpy as np

from lib.benchmarks import coco_objects
from lib.benchmarks.base import Answers, Mentions, Score, Scorer, finite, match
from lib.benchmarks.bootstrap import Floats, intervals
from lib.benchmarks.coco_objects import Word
from lib.benchmarks.language import LanguageTools
from lib.benchmarks.rows import answers_from, read_rows

VERSION = 1
PARSER = "lower case, words, singular, pairs joined, mentions of the synonym vocabulary"
NAMES = {
    "chair_i": "hallucinated mentions of all mentions of objects, percent (headline)",
    "chair_s": "captions with a hallucinated object, percent",
    "recall": "objects of the images that are mentioned, percent",
}
FORMATS = """\
answers:   JSON lines or an array, {"image_id" or "id", "response" or "text" or "caption"}; ids are COCO image ids, one caption an image
reference: files or folders with the synonym vocabulary (CHAIR's synonyms.txt, or *vocab*.json) and with what the images show:
           {image id: [objects]} (*objects*.json), or COCO's own instances_*.json and captions_*.json"""


def read_answers(path: Path) -> Answers:
    """A file of captions; ids are COCO image ids."""
    rows = read_rows(path)
    return answers_from(
        path, rows, ("image_id", "id", "question_id"), lambda name, row: coco_objects.image_id(name)
    )


def read_reference(*paths: Path) -> coco_objects.Reference:
    """The vocabulary and what images show."""
    return coco_objects.read_reference(
        paths, ("*vocab*.json", "synonyms*.txt"), pairs_from_synonyms=False, benchmark="CHAIR"
    )


def mentions(
    answers: Answers, reference: coco_objects.Reference, language: LanguageTools
) -> dict[str, Mentions]:
    """What each caption mentions, by its image's id."""
    vocabulary = reference.vocabulary

    def words_of(text: str) -> list[Word]:
        return vocabulary.join(
            coco_objects.cut(text, language.tokenizer.run, language.singulariser.run)
        )

    given = answers.by_id()
    return {
        name: vocabulary.mentions(words_of(given[name].text), reference.objects(name, words_of))
        for name in reference.expected(given)
        if name in given
    }


def score(
    answers: Answers,
    reference: coco_objects.Reference,
    *,
    language: LanguageTools | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Score:
    """CHAIR's scores. The unit of the bootstrap is the caption."""
    language = language or LanguageTools()
    matched, problems, counts = match(answers, reference.expected(answers.by_id()), "CHAIR")
    rows = []
    for one in mentions(answers, reference, language).values():
        wrong = one.hallucinated
        rows.append((wrong, len(one.each), wrong > 0, 1, one.found, len(one.shown), not one.each))
    table = np.array(rows, dtype=np.float64)

    def rates(sums: Floats) -> dict[str, Floats]:
        wrong, mentioned, captions_wrong, captions, found, shown, _ = np.moveaxis(sums, -1, 0)
        return {
            "chair_i": 100 * (wrong / mentioned),
            "chair_s": 100 * (captions_wrong / captions),
            "recall": 100 * (found / shown),
        }

    with np.errstate(divide="ignore", invalid="ignore"):
        overall = rates(table.sum(axis=0))
    sums = table.sum(axis=0)
    return Score(
        benchmark="chair",
        scores=finite(overall),
        extra={
            **counts,
            "mentions": int(sums[1]),
            "hallucinated_mentions": int(sums[0]),
            "captions_with_hallucination": int(sums[2]),
            "captions_without_objects": int(sums[6]),
            "words_per_caption": float(
                np.mean([len(answer.text.split()) for answer in matched.values()])
            ),
        },
        per_type={},
        intervals=intervals([table], lambda sums: rates(sums[0]), samples=samples, seed=seed),
        problems=problems,
        parser=PARSER,
        version=VERSION,
        language_tools=language.names("tokenizer", "singulariser"),
    )


SCORER = Scorer(
    "chair",
    "CHAIR",
    NAMES,
    read_answers,
    read_reference,
    score,
    FORMATS,
    uses_language=True,
    mentions=mentions,
)
