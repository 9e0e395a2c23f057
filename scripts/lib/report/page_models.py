"""What the report's page on trainings and scores is told."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from lib.files import read_jsonl
from lib.report.page_rows import rounded

#: The curves of a training, by the name of what they show: of the training pairs, and of those that
#: are held out.
CURVES = {
    "Loss": ("loss", "eval_loss"),
    "Margin of the rewards": ("rewards/margins", "eval_rewards/margins"),
    "Share of pairs whose chosen response is preferred": (
        "rewards/accuracies",
        "eval_rewards/accuracies",
    ),
}
POINTS = 400  # of a curve


class Curve(TypedDict):
    """A curve of a training: [step, value] of the training pairs, and of those held out."""

    title: str
    training: list[tuple[float, float]]
    held_out: list[tuple[float, float]]


class Training(TypedDict):
    """An experiment's training."""

    name: str
    curves: list[Curve]


class ScoreLine(TypedDict):
    """A score of a benchmark: [model, value, low, high], the interval where there is one."""

    score: str
    what: str
    models: list[tuple[str, float, float | None, float | None]]


def points(steps: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """[step, value] of each step that has a value, thinned out where there are many."""
    found = [(float(each["step"]), rounded(each[name])) for each in steps if name in each]
    return found[:: max(1, -(-len(found) // POINTS))]


def trainings_of(root: Path, experiments: Iterable[str]) -> list[Training]:
    """The trainings that are there."""
    found: list[Training] = []
    for name in experiments:
        path = root / "models" / name / "metrics.jsonl"
        if path.is_file():
            steps = [each for each in read_jsonl(path) if "step" in each]
            curves: list[Curve] = [
                {"title": title, "training": points(steps, one), "held_out": points(steps, other)}
                for title, (one, other) in CURVES.items()
            ]
            found.append({"name": name, "curves": [each for each in curves if each["training"]]})
    return found


def scores_of(root: Path, models: Sequence[str], benchmark: str) -> list[ScoreLine]:
    """The scores of a benchmark, of those models that have them."""
    lines: dict[str, ScoreLine] = {}
    for model in models:
        path = root / "evaluation" / model / benchmark / "scores.json"
        if not path.is_file():
            continue
        told = json.loads(path.read_text(encoding="utf-8"))
        bounds = {**told.get("intervals", {}), **told.get("also", {}).get("intervals", {})}
        values = {**told["scores"], **told.get("also", {}).get("scores", {})}
        for name, value in values.items():
            what = told.get("names", {}).get(name, "")
            line = lines.setdefault(name, {"score": name, "what": what, "models": []})
            low, high = bounds.get(name, (None, None))
            line["models"].append((model, value, low, high))
    return list(lines.values())
