"""Rule common_selections_table: the paper's Table 4 (do image scorers pick the same images?) from
the scores of this run.

The common selection of some scorers at top k is the mean over prompts of |intersection of their
top-k sets of images| / k, in percent. The paper does not define it; this definition fits its
numbers: rankings at random of four images would share 25, 50 and 75 % in pairs and 6.25, 25 and
56.25 % in threes at k = 1, 2, 3, and the paper's numbers lie a little above these. The share of
prompts whose top-k sets are equal (pairs at random: 25, 16.7, 25 %), or have an image in common
(25, 83.3, 100 %), does not fit.

Images of equal score are ranked in the order of the candidates, as everywhere in this workflow;
since all scorers do so, ties raise the common selection a little, so prompts with a tie at a rank
that decides are counted in a note. Blank images rank after all others.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict

from lib.config.tables import CommonSelectionsJob, rankings_input
from lib.data.rows import ImageRankingRow, MissingRow
from lib.data.shards import is_missing, read_whole_shards
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.published import (
    Published,
    PublishedRow,
    notes_of,
    our_source,
    paper_rows,
    printed_values,
    read_published,
)
from lib.report.sidecar import ResolvedModel, resolve_model
from lib.report.tables import Table, TableRow, write_table

VERSION = 1
TOPS = (1, 2, 3)
#: How many candidates a prompt of the paper has.
CANDIDATES = 4
NOTE = (
    "Common selection at top k: mean over prompts of |intersection of the top-k sets| / k, in"
    " percent."
)

#: prompt id -> candidates' indexes, best first.
Rankings = Mapping[str, Sequence[int]]


class RankingScorer:
    """An image scorer of this run: its kind, the prompts that it ranked, and for the sidecar which
    model it is.
    """

    def __init__(
        self,
        kind: str,
        rows: Mapping[str, ImageRankingRow | MissingRow],
        model: ResolvedModel | None = None,
    ) -> None:
        self.kind = kind
        self.model = model
        self.ranked = {name: row for name, row in rows.items() if not is_missing(row)}
        self.rankings: Rankings = {name: row["ranking"] for name, row in self.ranked.items()}


class SelectionOrigin(TypedDict):
    """Where a common selection comes from: the scorers' rankings, which models they are, and how
    many prompts all of them ranked.
    """

    rankings: list[str]
    scorers: dict[str, ResolvedModel | None]
    prompts: int


def has_deciding_tie(row: ImageRankingRow) -> bool:
    """Whether two images of equal score, both blank or neither, are on the two sides of a top-k
    set's edge.
    """
    ranked = [(candidate in row["blank"], row["scores"][candidate]) for candidate in row["ranking"]]
    return any(ranked[top - 1] == ranked[top] for top in TOPS if top < len(ranked))


def common_selection(rankings: Sequence[Rankings], top: int) -> float | None:
    """Common selection of the scorers at top k, in percent, over the prompts that all of them
    ranked; None if there is none.

    None also where a prompt has no more than k images: there is nothing to choose.
    """
    prompts = sorted(set.intersection(*(set(ranking) for ranking in rankings)))
    if not prompts or any(len(rankings[0][prompt]) <= top for prompt in prompts):
        return None
    shared = sum(
        len(set.intersection(*(set(ranking[prompt][:top]) for ranking in rankings)))
        for prompt in prompts
    )
    return 100 * shared / (top * len(prompts))


def common_prompts(scorers: Mapping[str, RankingScorer]) -> set[str]:
    """The prompts that all of the scorers ranked."""
    return set.intersection(*(set(scorer.rankings) for scorer in scorers.values()))


def is_like_the_paper_s(scorers: Mapping[str, RankingScorer]) -> bool:
    """Whether these are scorers of different kinds that ranked as many candidates a prompt as those
    of the paper did.
    """
    kinds = {scorer.kind for scorer in scorers.values()}
    counts = {
        len(scorer.rankings[prompt])
        for scorer in scorers.values()
        for prompt in common_prompts(scorers)
    }
    return len(kinds) == len(scorers) and counts == {CANDIDATES}


def group_row(
    scorers: Mapping[str, RankingScorer],
    published: Published,
    source: str,
    compared: PublishedRow | None,
) -> TableRow:
    """The row of some scorers by name. `compared`: the paper's row, None where nothing is."""
    prompts = len(common_prompts(scorers))
    row = TableRow(source, {first_column(published): f"{title_of(scorers)} ({prompts} prompts)"})
    origin: SelectionOrigin = {
        "rankings": [f"image_ranking/{name}" for name in scorers],
        "scorers": {name: scorer.model for name, scorer in scorers.items()},
        "prompts": prompts,
    }
    printed = printed_values(compared) if compared else {}
    for top, column in zip(TOPS, published.columns, strict=True):
        key = column.key
        row.origins[key] = origin
        value = common_selection([scorer.rankings for scorer in scorers.values()], top)
        if value is None:
            row.missing[key] = (
                f"{column.header}: no prompt that all of them ranked has more than {top} images."
            )
            continue
        row.values[key] = value
        if key in printed:
            row.differences[key] = value - printed[key]
    return row


def first_column(published: Published) -> str:
    """The text column that names the scorers."""
    return next(iter(published.text_columns))


def title_of(scorers: Iterable[str]) -> str:
    """The scorers' names as the table has them."""
    names = list(scorers)
    return (f"All {len(names)}: " if len(names) > 2 else "") + " & ".join(names)


def absent_rows(
    published: Published, scorers: Mapping[str, RankingScorer], source: str
) -> list[TableRow]:
    """A row of dashes for each of the paper's rows that needs a kind of scorer which this run has
    not, with the reason.
    """
    kinds = {scorer.kind for scorer in scorers.values()}
    rows = []
    for printed in published.rows:
        if absent := [kind for kind in printed.scorers if kind not in kinds]:
            reason = f"no image scorer of kind {' or '.join(absent)} is configured in this run."
            row = TableRow(source, {first_column(published): title_of(printed.scorers)})
            row.missing = {column.key: reason for column in published.columns}
            rows.append(row)
    return rows


def groups_of(scorers: Mapping[str, RankingScorer]) -> list[dict[str, RankingScorer]]:
    """Every two of the scorers, and all of them where these are more."""
    groups: list[tuple[str, ...]] = list(combinations(scorers, 2))
    if len(scorers) > 2:
        groups.append(tuple(scorers))
    return [{name: scorers[name] for name in group} for group in groups]


def tie_notes(scorers: Mapping[str, RankingScorer]) -> list[str]:
    """How many prompts have a tie that decides, by scorer."""
    notes = []
    for name, scorer in scorers.items():
        if ties := sum(map(has_deciding_tie, scorer.ranked.values())):
            notes.append(
                f"{name}: {ties} of {len(scorer.ranked)} prompts have a tie at a deciding rank,"
                " settled by the order of the candidates."
            )
    return notes


def build_table(published: Published, scorers: Mapping[str, RankingScorer], label: str) -> Table:
    """The table: the paper's rows, ours for each pair of our scorers and for all, and dashes for
    what this run has no scorer of. `scorers`: by name, in the configured order.
    """
    source = our_source(label)
    printed = {frozenset(row.scorers): row for row in published.rows}
    rows = paper_rows(published)
    for group in groups_of(scorers):
        kinds = frozenset(scorer.kind for scorer in group.values())
        is_compared = label == "ours" and is_like_the_paper_s(group)
        compared = printed.get(kinds) if is_compared else None
        rows.append(group_row(group, published, source, compared))
    rows += absent_rows(published, scorers, source)
    notes = [*notes_of(published, rows, label), NOTE, *tie_notes(scorers)]
    return Table(published.title, published.text_columns, published.columns, rows, notes)


def main(snakemake: Any) -> None:
    with Job(snakemake, CommonSelectionsJob, VERSION) as job:
        files = [snakemake.input.published]
        scorers = {}
        for name, scorer in job.settings.scorers.items():
            shards = getattr(snakemake.input, rankings_input(name))
            rows = read_whole_shards(job, shards, ImageRankingRow)
            model = resolve_model(scorer.origin, job.root, "rank_images", name)
            scorers[name] = RankingScorer(scorer.kind, rows, model)
            files += shards
        published = read_published(Path(snakemake.input.published))
        table = build_table(published, scorers, job.settings.label)
        write_table(table, files, snakemake.output)
        job.count(len(rows))


if __name__ == "__main__":
    run_script(main)
