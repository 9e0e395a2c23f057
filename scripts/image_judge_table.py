"""Rule image_judge_table: the paper's Table 5 (ImageReward's picks against CLIP's, by a judge) with
this run's comparisons beside it.

The paper's rates: wins of each scorer in percent of the comparisons without a tie, ties in percent
of all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.published import Published, notes_of, our_source, paper_rows, read_published
from lib.report.tables import Row, Table, write_table

VERSION = 1
OFF = "no judge is configured in this run (`image_ranking.judge`)."
#: What the three rows of the paper are in a summary of comparisons: its count, and its rate.
OUTCOMES = (("wins", "win_rate"), ("losses", "loss_rate"), ("ties", "tie_rate"))
#: The kinds of scorers that the paper compared, in its order.
KINDS = ("image-reward", "clip")


def build_table(
    published: Published,
    summary: Mapping[str, Any] | None,
    kinds: Mapping[str, str],
    label: str,
    origin: Any = None,
) -> Table:
    """The table. `summary`: as compare_picks publishes it, None without a judge; `kinds`: scorer ->
    kind; `origin`: for the sidecar.
    """
    rows = paper_rows(published)
    count, rate = published.columns
    first = next(iter(published.text_columns))
    scorers = summary["compared"] if summary else KINDS
    comparable = label == "ours" and tuple(kinds.get(name) for name in scorers) == KINDS
    for printed, name, (counted, rated) in zip(
        published.rows, [f"{scorers[0]} wins", f"{scorers[1]} wins", "ties"], OUTCOMES, strict=True
    ):
        row = Row(our_source(label), {first: name})
        if summary is None:
            row.missing = {count.key: OFF, rate.key: OFF}
        else:
            row.values[count.key] = summary[counted]
            row.origins = {
                count.key: {"counted": counted, **(origin or {})},
                rate.key: {"rate": rated, **(origin or {})},
            }
            if rated in summary:
                row.values[rate.key] = summary[rated]
                if comparable:
                    row.differences[rate.key] = summary[rated] - printed[rate.key]
            else:
                row.missing[rate.key] = (
                    "no comparison without a tie."
                    if rated != "tie_rate"
                    else "no comparison has a verdict."
                )
        rows.append(row)
    return Table(
        published.title,
        published.text_columns,
        published.columns,
        rows,
        notes(published, rows, summary, label),
    )


def notes(
    published: Published, rows: list[Row], summary: Mapping[str, Any] | None, label: str
) -> list[str]:
    """What is to be known of the table: how rates are counted, who judged, what was not judged."""
    found = [
        note.replace("of the same model and data size", "of the same outcome")
        for note in notes_of(published, rows, label)
    ]
    found.append(
        "Win rates are of the comparisons without a tie, that of ties is of all, as the paper"
        " counts."
    )
    if summary is not None:
        prompts = summary["prompts"]
        found.append(
            f"Ours: judge {summary['judge']}; {summary['comparisons']} of the"
            f" {prompts['different_picks']} prompts with different picks, drawn with seed"
            f" {summary['seed']}. On {prompts['same_pick']} of {prompts['ranked_by_both']} prompts"
            " both scorers pick the same image; these are not judged. Each pair is shown in both"
            " orders: an image wins if it is preferred both times, and two verdicts that disagree"
            " are a tie (the paper does not say how it dealt with the order)."
        )
        if summary["without_verdict"]:
            found.append(
                f"{summary['without_verdict']} comparisons have no verdict and count nowhere; their"
                " reasons are in comparisons.jsonl."
            )
    return found


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    published = read_published(Path(snakemake.input.published))
    summary, inputs, origin = None, [snakemake.input.published], None
    if job.settings["judge"]:
        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        inputs += [snakemake.input.comparisons, snakemake.input.summary]
        origin = {
            "comparisons": "image_judge/comparisons.jsonl",
            "judge": summary["judge"],
            "scorers": summary["scorers"],
        }
    table = build_table(published, summary, job.settings["kinds"], job.settings["label"], origin)
    write_table(table, inputs, snakemake.output)
    job.record.items = job.record.computed = summary["comparisons"] if summary else 0
    job.write_record()


if __name__ == "__main__":
    run_script(main)
