"""Rule image_judge_table: the paper's Table 5 (ImageReward's picks against CLIP's, by a judge) with
this run's comparisons beside it.

The paper's rates: wins of each scorer in percent of the comparisons without a tie, ties in percent
of all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lib.config.tables import ImageJudgeTableJob, rankings_input
from lib.data.rows import ImageRankingRow, ImagesRow, PairRow
from lib.data.shards import read_whole_shards
from lib.image_preference import PicksSummary
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.people import PeopleAsJudges
from lib.report.published import (
    Published,
    notes_of,
    our_source,
    paper_rows,
    printed_values,
    read_published,
)
from lib.report.sidecar import resolve_model
from lib.report.tables import Table, TableRow, write_table

VERSION = 1
OFF = "no judge is configured in this run (`image_ranking.judge`)."
#: The kinds of scorers that the paper compared, in its order.
KINDS = ("image-reward", "clip")


@dataclass(frozen=True)
class JudgedOutcome:
    """One of the three rows: how often it came, and its rate; None where there is none. `counted`,
    `rated`: their names in a summary of comparisons.
    """

    name: str
    counted: str
    rated: str
    count: int
    rate: float | None
    why_no_rate: str


@dataclass(frozen=True)
class SaidByPeople:
    """What people said: their comparisons of two scorers' picks, None where they made none, and how
    often each reward agrees with them, in sentences.
    """

    summary: PicksSummary | None
    agreement: list[str]


def outcomes_of(summary: PicksSummary) -> list[JudgedOutcome]:
    """The outcomes in the order of the paper's rows."""
    first, second = summary["compared"]
    all_ties, no_verdict = "no comparison without a tie.", "no comparison has a verdict."
    win_rate, loss_rate = summary.get("win_rate"), summary.get("loss_rate")
    return [
        JudgedOutcome(f"{first} wins", "wins", "win_rate", summary["wins"], win_rate, all_ties),
        JudgedOutcome(
            f"{second} wins", "losses", "loss_rate", summary["losses"], loss_rate, all_ties
        ),
        JudgedOutcome(
            "ties", "ties", "tie_rate", summary["ties"], summary.get("tie_rate"), no_verdict
        ),
    ]


def our_rows(
    published: Published,
    summary: PicksSummary,
    kinds: Mapping[str, str],
    label: str,
    origin: Any,
    by: str = "",
) -> list[TableRow]:
    """This run's rows. `kinds`: scorer -> kind; `origin`: for the sidecar; `by`: who judged, where
    it was no model.
    """
    count, rate = (column.key for column in published.columns)
    first = next(iter(published.text_columns))
    compared = tuple(kinds.get(name) for name in summary["compared"])
    is_compared = label == "ours" and compared == KINDS
    rows = []
    for printed, outcome in zip(published.rows, outcomes_of(summary), strict=True):
        row = TableRow(our_source(label) + by, {first: outcome.name}, {count: outcome.count})
        row.origins = {
            count: {"counted": outcome.counted, **(origin or {})},
            rate: {"rate": outcome.rated, **(origin or {})},
        }
        if outcome.rate is None:
            row.missing[rate] = outcome.why_no_rate
        else:
            row.values[rate] = outcome.rate
            if is_compared:
                row.differences[rate] = outcome.rate - printed_values(printed)[rate]
        rows.append(row)
    return rows


def unjudged_rows(published: Published, label: str) -> list[TableRow]:
    """Rows of dashes, where there is no judge."""
    first = next(iter(published.text_columns))
    missing = {column.key: OFF for column in published.columns}
    names = [*(f"{kind} wins" for kind in KINDS), "ties"]
    return [TableRow(our_source(label), {first: name}, missing=dict(missing)) for name in names]


def build_table(
    published: Published,
    summary: PicksSummary | None,
    kinds: Mapping[str, str],
    label: str,
    origin: Mapping[str, Any] | None = None,
    people: SaidByPeople | None = None,
) -> Table:
    """The table. `summary`: as compare_picks publishes it, None without a judge; `kinds`: scorer ->
    kind; `origin`: for the sidecar; `people`: None where nobody judged.
    """
    ours = our_rows(published, summary, kinds, label, origin) if summary else []
    if people and (said := people.summary):
        ours += our_rows(published, said, kinds, label, {"judge": said["judge"]}, ", people")
    rows = [*paper_rows(published), *(ours or unjudged_rows(published, label))]
    return Table(
        published.title,
        published.text_columns,
        published.columns,
        rows,
        [*table_notes(published, rows, summary, label), *notes_on_people(people)],
    )


def table_notes(
    published: Published, rows: list[TableRow], summary: PicksSummary | None, label: str
) -> list[str]:
    """What is to be known of the table: how rates are counted, who judged, what was not judged."""
    notes = [
        note.replace("of the same model and data size", "of the same outcome")
        for note in notes_of(published, rows, label)
    ]
    notes.append(
        "Win rates are of the comparisons without a tie, that of ties is of all, as the paper"
        " counts."
    )
    if summary is not None:
        notes.append(say_what_was_judged(summary))
        if summary["without_verdict"]:
            notes.append(
                f"{summary['without_verdict']} comparisons have no verdict and count nowhere; their"
                " reasons are in comparisons.jsonl."
            )
    return notes


def notes_on_people(people: SaidByPeople | None) -> list[str]:
    """Who of people judged what, and how often each reward agrees with them."""
    if people is None:
        return []
    summary = people.summary
    judged = [] if summary is None else [say_what_people_judged(summary)]
    return [*judged, *people.agreement]


def say_what_people_judged(summary: PicksSummary) -> str:
    """Who judged, and how."""
    return (
        f"Ours, people: {summary['judge']} compared {summary['comparisons']} of the"
        f" {summary['prompts']['different_picks']} prompts with different picks in the report's"
        f" blind mode, drawn with seed {summary['seed']}: they saw no names, and each pair once, in"
        " an order drawn at random. What most of them say counts; where none prevails it is a tie."
    )


def say_what_was_judged(summary: PicksSummary) -> str:
    """Who judged which prompts, and how."""
    prompts = summary["prompts"]
    return (
        f"Ours: judge {summary['judge']}; {summary['comparisons']} of the"
        f" {prompts['different_picks']} prompts with different picks, drawn with seed"
        f" {summary['seed']}. On {prompts['same_pick']} of {prompts['ranked_by_both']} prompts"
        " both scorers pick the same image; these are not judged. Each pair is shown in both"
        " orders: an image wins if it is preferred both times, and two verdicts that disagree"
        " are a tie (the paper does not say how it dealt with the order)."
    )


def ask_people(job: Job[ImageJudgeTableJob], inputs: Any) -> SaidByPeople | None:
    """What people said in the report's blind mode; None where nobody did."""
    settings = job.settings
    if not settings.people:
        return None
    judges = PeopleAsJudges(
        settings.people,
        settings.compared,
        read_whole_shards(job, inputs.images, ImagesRow),
        {
            name: read_whole_shards(job, getattr(inputs, rankings_input(name)), ImageRankingRow)
            for name in settings.kinds
        },
        read_whole_shards(job, inputs.pairs, PairRow),
    )
    scorers = {
        name: resolve_model(settings.scorers[name], job.root, "rank_images", name)
        for name in settings.compared
    }
    return SaidByPeople(judges.summary(scorers, job.seed), judges.agreement())


def main(snakemake: Any) -> None:
    with Job(snakemake, ImageJudgeTableJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        summary, files, origin = None, [inputs.published], None
        if settings.has_judge:
            text = Path(inputs.summary).read_text(encoding="utf-8")
            summary = cast("PicksSummary", json.loads(text))
            files += [inputs.comparisons, inputs.summary]
            origin = {
                "comparisons": "image_judge/comparisons.jsonl",
                "judge": summary["judge"],
                "scorers": summary["scorers"],
            }
        published = read_published(Path(inputs.published))
        people = ask_people(job, inputs)
        table = build_table(published, summary, settings.kinds, settings.label, origin, people)
        write_table(table, files, snakemake.output)
        job.count(summary["comparisons"] if summary else 0)


if __name__ == "__main__":
    run_script(main)
