"""What all sections found, as a table, as rates, and as a paragraph."""

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpu.report import Row, shown, told
from gpu.training import REAL_LENGTHS, update_name

Contents = Mapping[str, Mapping[str, Any]]
RATES = Path(__file__).resolve().parents[2] / "profiles" / "slurm" / "rates.yaml"

#: Where a stage's seconds stand: section, row, figure.
FIGURES = {
    "generate_images": ("pictures", "eager, sliced VAE", "seconds_an_image"),
    "rank_images": ("scorers", "ImageReward, read and scored, 1 thread", "seconds_a_picture"),
    "generate_responses": ("answers", "vLLM, 256 requests, greedy", "seconds_an_answer"),
    "rank_responses": ("rewards", "4 at once, again", "seconds_a_response"),
    "train_dpo": ("training", update_name(REAL_LENGTHS[0], False, False), "seconds_an_update"),
}


def read_sections(folder: Path, names: Sequence[str]) -> Contents:
    """The files of the sections that are there."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def print_table(contents: Contents) -> None:
    """All rows, one a line."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="gpu-check", title_justify="left")
    for column in ("section", "what", "figures", "peak GiB"):
        table.add_column(column, justify="right" if column == "peak GiB" else "left")
    for name, content in contents.items():
        for row in content["rows"]:
            table.add_row(name, row["what"], told(row), shown(row.get("peak_gib") or ""))
        if "failed" in content:
            table.add_row(name, "the section", f"failed: {content['failed']}", "")
    Console(width=150).print(table)


def is_on_gpu(contents: Contents) -> bool:
    """Whether there is anything, all of it measured on a GPU."""
    return bool(contents) and all(content["device"] == "cuda" for content in contents.values())


def rates(contents: Contents) -> dict[str, Any]:
    """A whole rates file: the project's, with the seconds of the stages that were measured."""
    whole: dict[str, Any] = yaml.safe_load(RATES.read_text(encoding="utf-8"))
    return whole | {"stages": whole["stages"] | measured_stages(contents, whole["stages"])}


def measured_stages(contents: Contents, assumed: Mapping[str, Any]) -> dict[str, Any]:
    """The stages that were measured. What was not measured of them (loading, megabytes, files) is
    the project's.
    """
    stages = {}
    for stage, (section, what, figure) in FIGURES.items():
        rows = contents.get(section, {}).get("rows", [])
        row: Row = next((row for row in rows if row["what"] == what), {})
        if figure in row:
            kept = {
                name: value
                for name, value in assumed[stage].items()
                if name not in ("measured", "published", "assumed")
            }
            stages[stage] = kept | {
                "seconds": round(row[figure], 4),
                "measured": source(contents[section]) + f" ({what}); only the seconds",
            }
    return stages


def source(content: Mapping[str, Any]) -> str:
    """Where a figure comes from."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{content['card']}, gpu-check, {today}, random weights of the real sizes"


def write_rates(folder: Path, contents: Contents) -> None:
    """Writes rates.yaml, if all was measured on a GPU."""
    if is_on_gpu(contents):
        text = yaml.safe_dump(rates(contents), sort_keys=False, allow_unicode=True, width=120)
        (folder / "rates.yaml").write_text(text, encoding="utf-8")


def paragraph(contents: Contents) -> str:
    """A section of docs/gpu.md: the card, the versions and one table."""
    first = next(iter(contents.values()))
    packages = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    lines = [f"### {first['card']}", "", f"{source(first)}; {packages}.", ""]
    if not is_on_gpu(contents):
        lines += ["Measured on a CPU with tiny models: it says nothing of a GPU.", ""]
    lines += ["| section | what | figures | peak GiB |", "|---|---|---|---:|"]
    for name, content in contents.items():
        for row in content["rows"]:
            peak = shown(row.get("peak_gib") or "")
            lines.append(f"| {name} | {row['what']} | {told(row)} | {peak} |")
    return "\n".join(lines) + "\n"
