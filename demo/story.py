"""Tells what a run made, from its prompts to its scores, and where to look: `python demo/story.py
demo/config.yaml`.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

from lib.report.digits import told_apart

#: Control characters, and what else ends a line on a terminal.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Scores that newcomers are told in words: benchmark/score -> what it is, and which way is better.
IN_WORDS = {
    "chair/chair_s": "descriptions with something that is not there (CHAIR_s, %)",
    "chair/chair_i": "mentions of things that are not there (CHAIR_i, %)",
    "chair/recall": "things that are there and mentioned (cover, %)",
    "object_halbench/response": "the same on Object HalBench (response, %)",
    "object_halbench/mention": "the same on Object HalBench (mention, %)",
    "pope/reference_accuracy": "yes/no questions answered right (POPE accuracy, %)",
    "pope/reference_f1": "... as F1 (POPE, %)",
}
LOWER_IS_BETTER = (
    "chair/chair_s",
    "chair/chair_i",
    "object_halbench/response",
    "object_halbench/mention",
)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines. Only a line feed ends a line: texts hold what Python takes
    for other line ends (U+2028, U+0085).
    """
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def rows_of(root: Path, stage: str) -> list[dict[str, Any]]:
    """All rows of a stage's shard files."""
    paths = sorted((root / stage).glob("*/*.jsonl"))
    return [row for path in paths for row in read_json_lines(path)]


def scores_of(root: Path) -> dict[str, dict[str, float]]:
    """benchmark/score -> model -> value; the base model first."""
    by_score: dict[str, dict[str, float]] = {}
    files = sorted(
        root.glob("evaluation/*/*/scores.json"), key=lambda path: (path.parts[-3] != "base", path)
    )
    for file in files:
        model, benchmark = file.parts[-3:-1]
        for score, value in json.loads(file.read_text(encoding="utf-8"))["scores"].items():
            by_score.setdefault(f"{benchmark}/{score}", {})[model] = value
    return by_score


def not_comparable_of(root: Path) -> dict[str, str]:
    """benchmark/score -> why it is not comparable with published ones; only those that are not."""
    reasons: dict[str, str] = {}
    for file in sorted(root.glob("evaluation/*/*/scores.json")):
        scores = json.loads(file.read_text(encoding="utf-8"))
        for score, why in scores.get("not_comparable", {}).items():
            reasons[f"{file.parts[-2]}/{score}"] = why
    return reasons


def summary_sentences(root: Path) -> list[str]:
    """What became of the prompts, a sentence a stage."""
    images, rankings, pairs = (
        rows_of(root, stage) for stage in ("images", "response_ranking", "pairs")
    )
    answers = Counter(
        "invalid" if "invalid" in answer else "valid"
        for row in rankings
        for answer in row.get("responses", {}).values()
    )
    reasons = Counter(
        row.get("no_pair") or f"{row['missing']['rule']}: {row['missing']['reason']}"
        for row in pairs
        if "pair" not in row
    )
    topics = {row["topic"] for row in images}
    pictures = sum(len(row.get("candidates", [])) for row in images)
    instructions = sum("missing" not in row for row in rows_of(root, "instructions"))
    sentences = [
        (
            f"{len(images)} prompts in {len(topics)} topics became {pictures} pictures;"
            f" {instructions} were picked and asked about."
        ),
        f"The policy models gave {answers.total()} answers, {answers['valid']} of them valid.",
        f"{sum('pair' in row for row in pairs)} prompts gave a preference pair"
        + (
            f"; {reasons.total()} did not"
            f" ({', '.join(f'{count} {reason}' for reason, count in reasons.most_common())})"
            if reasons
            else ""
        )
        + ".",
    ]
    for metrics in sorted(root.glob("models/*/metrics.jsonl")):
        losses = [step["loss"] for step in read_json_lines(metrics) if "loss" in step]
        first, last = told_apart([losses[0], losses[-1]], 3)
        sentences.append(
            f"Training of {metrics.parent.name}: {len(losses)} updates, loss {first} to {last}."
        )
    return sentences


def table_of(scores: dict[str, dict[str, float]], not_comparable: dict[str, str]) -> Table:
    """Every score of every model: those that are told in words, or else all by name.
    `not_comparable`: as `not_comparable_of` finds it.
    """
    models = list(dict.fromkeys(model for values in scores.values() for model in values))
    table = Table(title="Before and after", title_justify="left", caption_justify="left")
    table.add_column("score", overflow="fold")
    for model in models:
        table.add_column(model, justify="right", overflow="fold")
    shown_names = [name for name in IN_WORDS if name in scores] or list(scores)
    reasons = [not_comparable[name] for name in shown_names if name in not_comparable]
    marks = {why: "*" * number for number, why in enumerate(dict.fromkeys(reasons), start=1)}
    for name in shown_names:
        arrow = "" if name not in IN_WORDS else " ↓" if name in LOWER_IS_BETTER else " ↑"
        mark = f" {marks[not_comparable[name]]}" if name in not_comparable else ""
        shown = dict(zip(scores[name], told_apart([*scores[name].values()], 1), strict=True))
        values = [shown.get(model, "-") for model in models]
        table.add_row(IN_WORDS.get(name, name) + arrow + mark, *values)
    if marks:
        table.caption = "\n".join(f"{mark} {why}" for why, mark in marks.items())
    return table


def main() -> None:
    """Prints the story."""
    configfile = Path(sys.argv[1])
    configured = yaml.safe_load(configfile.read_text(encoding="utf-8"))
    root = Path(configured.get("results", "results")) / configured["run"]
    # Reasons, names and paths are data: nothing in them is markup or an emoji's name.
    console = Console(markup=False, emoji=False, highlight=False)

    def say(text: str, *lines: str) -> None:
        """Text, wrapped; then lines that are to be copied whole."""
        console.print(CONTROL.sub(" ", text))
        for line in lines:
            console.print(f"  {CONTROL.sub(' ', line)}", soft_wrap=True)

    console.print()
    for sentence in summary_sentences(root):
        say(sentence)
    console.print(table_of(scores_of(root), not_comparable_of(root)))
    say(
        "Pictures with their scores, and answers before and after:",
        *map(str, sorted(root.glob("figures/*.png"))),
    )
    folders = ("tables", "dataset", "images")
    say("Tables, pairs, and all pictures:", *(f"{root}/{name}" for name in folders))
    if prompt_id := next((row["id"] for row in rows_of(root, "pairs") if "pair" in row), None):
        say(
            "One prompt's whole story:",
            ".venv/bin/snakemake --profile profiles/local --configfile"
            f" {configfile} -- {root}/prompts/{prompt_id}.json",
        )
    prompts = f"{configured['prompts']}/{configured['topics'][0]}.txt"
    say(
        f"Edit a line of {prompts} and run it again: one item is computed in each stage up to the"
        " pairs; trainings on them, and their answers, are made anew."
    )
    if (page := root / "report" / "index.html").is_file():
        say("Look at every pair, and say which are wrong: open", page.resolve().as_uri())


if __name__ == "__main__":
    main()
