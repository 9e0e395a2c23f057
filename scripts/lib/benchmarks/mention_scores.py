"""Each answer of a benchmark that counts mentions, with a score of its own: less one for each
mention of an object that the picture does not show.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.benchmarks.base import LanguageChoice
from lib.benchmarks.coco_objects import image_id
from lib.benchmarks.mentions import MentionsBenchmark
from lib.benchmarks.paired import ScoredAnswer
from lib.benchmarks.questions import read_questions
from lib.benchmarks.registry import load_benchmark, load_questions_benchmark
from lib.files import read_jsonl


class MentionScores:
    """Scores the answers of models to one benchmark."""

    def __init__(
        self,
        scorer: str,
        questions: Sequence[str],
        images: str | None,
        reference: Sequence[str],
        language: LanguageChoice,
    ) -> None:
        """What is configured of the benchmark (`QuestionBenchmark`)."""
        loaded = load_benchmark(scorer, language)
        assert isinstance(loaded, MentionsBenchmark)
        self._scorer: MentionsBenchmark[Any] = loaded
        self._reference = loaded.read_reference(*map(Path, reference))
        asked = load_questions_benchmark(scorer)
        self._questions = read_questions(asked, questions, images)

    def pictures(self) -> dict[str, Path]:
        """The picture of each question that has a file, by the picture's id."""
        return {image_id(each.id): each.image for each in self._questions if each.image}

    def answers(self, folder: Path) -> dict[str, ScoredAnswer]:
        """The scored answers in a model's folder of this benchmark, by their pictures' ids."""
        asked = {image_id(row["id"]): row for row in read_jsonl(folder / "answers.jsonl")}
        answers = self._scorer.read_answers(folder / "scored.jsonl")
        texts = answers.by_id()
        found = self._scorer.mentions(answers, self._reference)
        return {
            name: ScoredAnswer(
                question=asked[name]["question"],
                text=texts[name].text,
                score=-float(mentions.hallucinated),
                picture=asked[name]["image_sha256"],
                target=", ".join(sorted(mentions.shown)),
            )
            for name, mentions in found.items()
            if name in asked
        }
