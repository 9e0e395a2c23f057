"""Says what a run made and where to look: `python demo/what_was_made.py demo/random.yaml`."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table


def rows_of(root: Path, stage: str) -> list[dict[str, Any]]:
    """All rows of a stage's shard files."""
    return [json.loads(line) for path in sorted((root / stage).glob("*/*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]


def made(root: Path) -> list[tuple[str, str, str]]:
    """(what, how much, where) of every stage's products."""
    images = rows_of(root, "images")
    rankings = rows_of(root, "response_ranking")
    pairs = rows_of(root, "pairs")
    answers = Counter("invalid" if "invalid" in answer else "valid" for row in rankings for answer in row.get("responses", {}).values())
    reasons = Counter(row.get("no_pair") or f"{row['missing']['rule']}: {row['missing']['reason']}" for row in pairs if "pair" not in row)
    left_out = "; ".join(f"{count} without a pair ({reason})" for reason, count in reasons.most_common())
    lines = [
        ("images", f"{sum(len(row.get('candidates', [])) for row in images)} of {len(images)} prompts", f"{root}/images"),
        ("responses", f"{answers.total()}, {answers['valid']} of them valid", f"{root}/responses"),
        ("pairs", f"{sum('pair' in row for row in pairs)}" + (f"; {left_out}" if left_out else ""), f"{root}/dataset"),
    ]
    for metrics in sorted(root.glob("models/*/metrics.jsonl")):
        losses = [step["loss"] for step in map(json.loads, metrics.read_text().splitlines()) if "loss" in step]
        lines.append((f"training of {metrics.parent.name}", f"loss {losses[0]:.3f} -> {losses[-1]:.3f}", str(metrics.parent)))
    for scores in sorted(root.glob("evaluation/*/*/scores.json")):
        model, benchmark = scores.parts[-3:-1]
        values = ", ".join(f"{name} {value:.1f}" for name, value in json.loads(scores.read_text())["scores"].items())
        lines.append((f"{benchmark} of {model}", values, str(scores.parent)))
    lines += [("tables", ", ".join(path.stem for path in sorted(root.glob("tables/*.md"))), f"{root}/tables")]
    lines += [("figures", ", ".join(path.stem for path in sorted(root.glob("figures/*.png"))), f"{root}/figures")]
    return lines


def main() -> None:
    """Prints the table and where to go on."""
    configfile = Path(sys.argv[1])
    configured = yaml.safe_load(configfile.read_text(encoding="utf-8"))
    root = Path("results") / configured["run"]
    table = Table(title="What was made", title_justify="left")
    for column in ("what", "how much", "where to look"):
        table.add_column(column, overflow="fold")
    for line in made(root):
        table.add_row(*line)
    console = Console()
    console.print(table)
    story = next((row["id"] for row in rows_of(root, "pairs") if "pair" in row), None)
    if story:
        console.print(
            f"One prompt's whole story: .venv/bin/snakemake --profile profiles/local --configfile {configfile} "
            f"-- {root}/prompts/{story}.json",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    prompts = f"{configured['prompts']}/{configured['topics'][0]}.txt"
    console.print(f"Edit a line of {prompts} and run it again: one item is computed in each stage.", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
