"""CHAIR: how many of the objects that a caption mentions are not in the image (Rohrbach et al.
2018; chair.py of LisaAnne/Hallucination).

A caption is lower-cased, cut into words, each made singular; pairs of words are joined; words of
the vocabulary are mentions of COCO objects. CHAIR_i = hallucinated mentions / all mentions, CHAIR_s
= captions with one / all captions. lmms-eval's coco_cap_chair takes WordNet lemmas in place of the
singulariser.

A caption is asked for with "Please describe this image in detail.", 512 new tokens (chair_eval.py
of shikiw/OPERA, with the prompt alone around it: no system prompt; its number of beams is an
argument).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from lib.benchmarks import coco_objects
from lib.benchmarks.answers import Answers
from lib.benchmarks.base import Better
from lib.benchmarks.coco_objects import CocoReference, Word
from lib.benchmarks.language import LanguageBenchmark
from lib.benchmarks.lmms_eval.samples import read_answer_rows
from lib.benchmarks.mentions import Mentions, MentionsBenchmark
from lib.benchmarks.questions import Form, QuestionsBenchmark
from lib.benchmarks.rows import answers_from
from lib.benchmarks.scores import Score, finite, match
from lib.bootstrap import Floats, intervals

PARSER = "lower case, words, singular, pairs joined, mentions of the synonym vocabulary"
NAMES = {
    "chair_i": "hallucinated mentions of all mentions of objects, percent (headline)",
    "chair_s": "captions with a hallucinated object, percent",
    "recall": "objects of the images that are mentioned, percent",
}
FORMATS = """\
answers:   JSON lines or an array, {"image_id" or "id", "response" or "text" or "caption"}; ids
           are COCO image ids, one caption an image; or lmms-eval's own
           ..._samples_coco_cap_chair.jsonl
reference: files or folders with the synonym vocabulary (CHAIR's synonyms.txt, or *vocab*.json)
           and with what the images show: {image id: [objects]} (*objects*.json), or COCO's own
           instances_*.json and captions_*.json"""


#: Columns of a caption's counts.
WRONG, MENTIONED, HALLUCINATED, CAPTIONS, FOUND, SHOWN, EMPTY = range(7)


def _counts(mentions: Iterable[Mentions]) -> Floats:
    """Counts [caption, column]."""
    rows = []
    for one in mentions:
        wrong = one.hallucinated
        rows.append((wrong, len(one.each), wrong > 0, 1, one.found, len(one.shown), not one.each))
    return np.array(rows, dtype=np.float64)


def _rates(sums: Floats) -> dict[str, Floats]:
    """Scores from the counts' sums [..., column]; NaN where there is nothing to divide by."""

    def share(part: int, whole: int) -> Floats:
        return 100 * (sums[..., part] / sums[..., whole])

    return {
        "chair_i": share(WRONG, MENTIONED),
        "chair_s": share(HALLUCINATED, CAPTIONS),
        "recall": share(FOUND, SHOWN),
    }


class Chair(
    QuestionsBenchmark[CocoReference],
    MentionsBenchmark[CocoReference],
    LanguageBenchmark[CocoReference],
):
    """CHAIR: one caption an image, whose COCO id it has."""

    VERSION: ClassVar[int] = 1
    name = "chair"
    title = "CHAIR"
    names = NAMES
    better: ClassVar[Mapping[str, Better]] = {
        "recall": "higher",
        "chair_i": "lower",
        "chair_s": "lower",
    }
    formats = FORMATS
    form = Form({"": "{question}"}, max_new_tokens=512)
    asked_if_unsaid = "Please describe this image in detail."
    id_keys = ("image_id", "id", "question_id")

    def read_answers(self, path: Path) -> Answers:
        """A file of captions; ids are COCO image ids."""
        rows = read_answer_rows(path)
        return answers_from(path, rows, self.id_keys, coco_objects.answered_image)

    def read_reference(self, *paths: Path) -> CocoReference:
        """The vocabulary and what images show."""
        return coco_objects.read_reference(
            paths,
            ("*vocab*.json", "synonyms*.txt"),
            pairs_from_synonyms=False,
            benchmark=self.title,
        )

    def mentions(self, answers: Answers, reference: CocoReference) -> dict[str, Mentions]:
        """What each caption mentions, by its image's id."""
        vocabulary = reference.vocabulary
        tokenize, singular = self.tools.tokenizer.run, self.tools.singulariser.run

        def words_of(text: str) -> list[Word]:
            return vocabulary.join(coco_objects.cut(text, tokenize, singular))

        given = answers.by_id()
        return {
            name: vocabulary.mentions(words_of(given[name].text), reference.objects(name, words_of))
            for name in reference.expected(given)
            if name in given
        }

    def score(
        self, answers: Answers, reference: CocoReference, *, samples: int = 1000, seed: int = 0
    ) -> Score:
        """CHAIR's scores. The unit of the bootstrap is the caption."""
        matched, problems, counts = match(answers, reference.expected(answers.by_id()), self.title)
        table = _counts(self.mentions(answers, reference).values())
        sums = table.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = finite(_rates(sums))
        used = ("tokenizer", "singulariser")
        words = [len(answer.text.split()) for answer in matched.values()]
        return Score(
            benchmark=self.name,
            scores=scores,
            extra={
                **counts,
                "mentions": int(sums[MENTIONED]),
                "hallucinated_mentions": int(sums[WRONG]),
                "captions_with_hallucination": int(sums[HALLUCINATED]),
                "captions_without_objects": int(sums[EMPTY]),
                "words_per_caption": float(np.mean(words)),
            },
            per_type={},
            intervals=intervals([table], lambda sums: _rates(sums[0]), samples=samples, seed=seed),
            problems=problems,
            parser=PARSER,
            version=self.VERSION,
            language_tools=self.tools.names(*used),
            not_comparable=self.not_comparable(scores, *used),
        )
