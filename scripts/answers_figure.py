"""Rule answers_figure: pictures of a benchmark with the base model's and an experiment's answer to
the same question, side by side.

Every mention that the benchmark's scorer counts is marked: a hallucinated one bold, red and
underlined, one of an object that is there with dots. The questions are drawn with the run's seed
from those whose answers of both models are scored; what the answers say has no part in it, and a
question keeps its place in the draw whatever other questions there are.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lib.benchmarks.coco_objects import image_id
from lib.benchmarks.mentions import Mentions, MentionsBenchmark
from lib.benchmarks.questions import PublishedQuestion, read_questions
from lib.benchmarks.registry import load_benchmark, load_questions_benchmark
from lib.config.figures import AnswersFigureJob
from lib.data.evaluation_files import AnswerScores, QuestionAnswer
from lib.data.prompts import seed_of
from lib.errors import UserError
from lib.files import read_jsonl
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.answers_sheet import (
    HALLUCINATED,
    PICTURE,
    THERE,
    WIDTH,
    SheetAnswer,
    SheetHead,
    SheetQuestion,
    draw,
    height_of,
    lay_out_question,
)
from lib.report.digits import told_apart
from lib.report.figures import new_figure, thumbnail, write_figure
from lib.report.marked_text import Mark
from lib.report.provenance import Provenance
from lib.report.sheet import Sheet

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 2
#: How many scores stand above a model's answers: those that the benchmark is known for.
HEADLINES = 2


class ScoresOfAnswers(AnswerScores, Provenance):
    """A scores.json of rule score_answers."""


@dataclass(frozen=True)
class MarkedAnswer:
    """An answer with the mentions that its scorer counts."""

    text: str
    mentions: Mentions


@dataclass(frozen=True)
class ModelAnswers:
    """What one model was asked and answered, by the image's id; `name`: what the figure calls
    it.
    """

    model: str
    name: str
    scores: ScoresOfAnswers
    asked: dict[str, QuestionAnswer]
    answers: dict[str, MarkedAnswer]

    def has_answered(self, question: str) -> bool:
        """Whether it has a scored answer to a question."""
        return question in self.asked and question in self.answers


class ShownBenchmark:
    """The benchmark: its scorer, its questions by their images' ids, and what answers are held
    against.
    """

    def __init__(self, settings: AnswersFigureJob) -> None:
        self.name = settings.benchmark
        scorer = load_benchmark(settings.scorer, settings.language)
        assert isinstance(scorer, MentionsBenchmark)  # the configuration refuses any other
        self.scorer: MentionsBenchmark[Any] = scorer
        self.reference = scorer.read_reference(*map(Path, settings.reference))
        asked = load_questions_benchmark(settings.scorer)
        questions = read_questions(asked, settings.questions, settings.images)
        self.questions = {image_id(question.id): question for question in questions}

    def read_mentions(self, scored: Path, scores: ScoresOfAnswers) -> dict[str, MarkedAnswer]:
        """Each scored answer with its mentions, by its image's id.

        `scored`, `scores`: what rule score_answers wrote. Errors: UserError where the mentions are
        not those that were counted.
        """
        answers = self.scorer.read_answers(scored)
        mentions = self.scorer.mentions(answers, self.reference)
        refuse_other_counts(list(mentions.values()), scored.parent / "scores.json", scores)
        texts = answers.by_id()
        return {name: MarkedAnswer(texts[name].text, each) for name, each in mentions.items()}

    def say_scores(self, models: Sequence[ModelAnswers]) -> list[str]:
        """Each model's scores over all questions: those that the benchmark is known for."""
        words: dict[str, list[str]] = {model.model: [] for model in models}
        for name in list(self.scorer.names)[:HEADLINES]:
            given = {
                model.model: model.scores["scores"][name]
                for model in models
                if name in model.scores["scores"]
            }
            for model, value in zip(given, told_apart([*given.values()], 1), strict=True):
                words[model].append(f"{name} {value} %")
        return [
            "; ".join([", ".join(words[model.model]) or "no scores", *not_comparable(model.scores)])
            for model in models
        ]


def not_comparable(scores: ScoresOfAnswers) -> list[str]:
    """Why scores are not comparable with published ones, where they are not."""
    return list(dict.fromkeys(scores.get("not_comparable", {}).values()))


def refuse_other_counts(mentions: Sequence[Mentions], file: Path, scores: ScoresOfAnswers) -> None:
    """A UserError where the mentions are not those that a scores.json counted."""
    here = [
        sum(len(one.each) for one in mentions),
        sum(one.hallucinated for one in mentions),
    ]
    counted = [scores["doubts"].get(name) for name in ("mentions", "hallucinated_mentions")]
    if here != counted:
        raise UserError(
            f"{file}: it counts {counted[0]} mentions, {counted[1]} of"
            f" them hallucinated; here there are {here[0]} and {here[1]}. Other language tools made"
            f" it (it has: {scores['computed_by']['language_tools']}). Delete it and run again: the"
            " answers are scored anew, no model runs."
        )


def read_models(
    settings: AnswersFigureJob, inputs: Any, benchmark: ShownBenchmark
) -> list[ModelAnswers]:
    """What the base model and the experiment were asked and answered."""
    models = []
    for model, name, scores_file, scored, answers in zip(
        ("base", settings.experiment),
        settings.names,
        inputs.scores,
        inputs.scored,
        inputs.answers,
        strict=True,
    ):
        scores = cast("ScoresOfAnswers", json.loads(Path(scores_file).read_text(encoding="utf-8")))
        asked = {
            image_id(row["id"]): cast("QuestionAnswer", row) for row in read_jsonl(Path(answers))
        }
        marked = benchmark.read_mentions(Path(scored), scores)
        models.append(ModelAnswers(model, name, scores, asked, marked))
    return models


def choose_questions(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """Up to `count` of the questions, in the benchmark's order."""
    chosen = set(sorted(ids, key=lambda one: (seed_of(seed, "answers", one), one))[:count])
    return [one for one in ids if one in chosen]


def image_of(question: PublishedQuestion, digests: set[str], benchmark: str) -> "Image":
    """The picture of a question. `digests`: the sha256 of those that the models were asked about.
    Errors: UserError if it is another one.
    """
    content = question.embedded if question.image is None else question.image.read_bytes()
    content = content or b""
    if {sha256(content).hexdigest()} != digests:
        raise UserError(
            f"{question.image or f'the picture of question {question.id}'}: benchmark {benchmark}"
            " has another picture here than both models were asked about. Put the first one back,"
            f" or delete evaluation/*/{benchmark}/answers.jsonl in the run's folder and run again."
        )
    return thumbnail(io.BytesIO(content), PICTURE)


def marks_of(mentions: Mentions) -> list[Mark]:
    """The places of mentions, hallucinated ones last, so that none of these is covered."""
    placed = [(each.there, each.place) for each in mentions.each if each.place]
    return [
        Mark(*place, THERE if there else HALLUCINATED)
        for there, place in sorted(placed, key=lambda one: (not one[0], one[1]))
    ]


def remarks_on(mentions: Mentions) -> list[str]:
    """What stands below an answer: how many of its mentions are hallucinated, and how many have no
    place in it.
    """
    count, wrong = len(mentions.each), mentions.hallucinated
    remarks = [
        f"{wrong} of {count} mentions hallucinated"
        if count
        else "mentions no object that the benchmark knows"
    ]
    if unplaced := sum(each.place is None for each in mentions.each):
        remarks.append(f"{unplaced} named by the judge in other words")
    return remarks


def sheet_question(
    one: str, models: Sequence[ModelAnswers], benchmark: ShownBenchmark
) -> SheetQuestion:
    """What is drawn of one question."""
    digests = {model.asked[one]["image_sha256"] for model in models}
    answers = [model.answers[one] for model in models]
    return SheetQuestion(
        models[0].asked[one]["question"],
        image_of(benchmark.questions[one], digests, benchmark.name),
        sorted(answers[0].mentions.shown),
        [
            SheetAnswer(each.text, marks_of(each.mentions), remarks_on(each.mentions))
            for each in answers
        ],
    )


def sidecar_row(one: str, models: Sequence[ModelAnswers]) -> dict[str, Any]:
    """What the sidecar has of one question: its text, its picture's digest, what that shows, and
    both answers with their mentions.
    """
    first = models[0]
    answers = [(model.model, model.answers[one]) for model in models]
    return {
        "id": one,
        "question": first.asked[one]["question"],
        "image_sha256": first.asked[one]["image_sha256"],
        "shown": sorted(first.answers[one].mentions.shown),
        "answers": [
            {
                "model": model,
                "response": answer.text,
                "mentions": [vars(each) for each in answer.mentions.each],
            }
            for model, answer in answers
        ],
    }


def sidecar_model(model: ModelAnswers) -> dict[str, Any]:
    """What the sidecar has of a model."""
    scores = model.scores
    return {
        "model": model.model,
        "name": model.name,
        "model_identity": scores["model_identity"],
        "scores": scores["scores"],
        "not_comparable": scores.get("not_comparable", {}),
        "computed_by": scores["computed_by"],
        "environment": scores["environment"],
    }


def say_choice(shown: int, both: int, asked: int, seed: int) -> str:
    """How the questions were chosen."""
    caption = f"{shown} of {both} questions, drawn by the seed ({seed}) and not by their answers"
    if left_out := asked - both:
        caption += f"; not among them {left_out} without scored answers of both"
    return caption


def main(snakemake: Any) -> None:
    with Job(snakemake, AnswersFigureJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        benchmark = ShownBenchmark(settings)
        models = read_models(settings, inputs, benchmark)
        base = models[0]
        both = [one for one in base.asked if all(model.has_answered(one) for model in models)]
        chosen = choose_questions(both, settings.count, job.seed)
        caption = say_choice(len(chosen), len(both), len(base.asked), job.seed)
        blocks = [lay_out_question(sheet_question(one, models, benchmark)) for one in chosen]
        columns = [
            (model.name, f"all its answers: {words}")
            for model, words in zip(models, benchmark.say_scores(models), strict=True)
        ]
        about = {
            "rows": [sidecar_row(one, models) for one in chosen],
            "caption": caption,
            "drawn_from": len(both),
            "seed": job.seed,
            "benchmark": settings.benchmark,
            "models": [sidecar_model(model) for model in models],
            "reference": base.scores["reference"],
        }
        title = benchmark.scorer.title
        head = SheetHead(title, caption, settings.label, columns)
        with new_figure(WIDTH, height_of(blocks, head)) as figure:
            draw(Sheet(figure), blocks, head)
            files = [*inputs.scores, *inputs.scored, *inputs.answers, *settings.questions]
            whole_title = f"{title}: two models' answers"
            write_figure(figure, whole_title, snakemake.output, files, about, "pillow")
        job.count(len(chosen))


if __name__ == "__main__":
    run_script(main)
