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

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from lib.data.shards import is_missing, read_shard
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.report.published import Published, notes_of, our_source, paper_rows, read_published
from lib.report.sidecar import model_origin
from lib.report.tables import Row, Table, write_table

VERSION = 1
TOPS = (1, 2, 3)

#: prompt id -> candidates' indexes, best first.
Rankings = Mapping[str, Sequence[int]]


def has_deciding_tie(row: Mapping[str, Any]) -> bool:
    """Whether two images of equal score, both blank or neither, are on the two sides of a top-k
    set's edge.
    """
    ranked = [
        (candidate in (row.get("blank") or []), row["scores"][candidate])
        for candidate in row["ranking"]
    ]
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


def absent_rows(published: Published, scorers: Mapping[str, str], label: str) -> list[Row]:
    """A row of dashes for each of the paper's rows that needs a kind of scorer which this run has
    not, with the reason.
    """
    first = next(iter(published.text_columns))
    rows = []
    for printed in published.rows:
        if absent := [kind for kind in printed["scorers"] if kind not in scorers.values()]:
            all_of_them = f"All {len(printed['scorers'])}: " if len(printed["scorers"]) > 2 else ""
            reason = f"no image scorer of kind {' or '.join(absent)} is configured in this run."
            row = Row(our_source(label), {first: f"{all_of_them}{' & '.join(printed['scorers'])}"})
            row.missing = {column.key: reason for column in published.columns}
            rows.append(row)
    return rows


def build_table(
    published: Published,
    scorers: Mapping[str, str],
    rows: Mapping[str, Mapping[str, Any]],
    label: str,
    models: Mapping[str, Any] | None = None,
) -> Table:
    """The table: the paper's rows, ours for each pair of our scorers and for all, and dashes for
    what this run has no scorer of.

    `scorers`: name -> kind, in the configured order; `rows`: scorer -> prompt id -> published row
    of rank_images; `models`: scorer -> which model it is, for the sidecar.
    """
    ranked = {
        name: {key: row for key, row in rows[name].items() if not is_missing(row)}
        for name in scorers
    }
    rankings = {
        name: {key: row["ranking"] for key, row in found.items()} for name, found in ranked.items()
    }
    groups: list[tuple[str, ...]] = list(combinations(scorers, 2))
    if len(scorers) > 2:
        groups.append(tuple(scorers))
    printed = {frozenset(row["scorers"]): row for row in published.rows}
    table_rows = paper_rows(published)
    first = next(iter(published.text_columns))
    for group in groups:
        kinds = frozenset(scorers[name] for name in group)
        prompts = set.intersection(*(set(rankings[name]) for name in group))
        candidates = {len(rankings[name][prompt]) for name in group for prompt in prompts}
        all_of_them = f"All {len(group)}: " if len(group) > 2 else ""
        row = Row(
            our_source(label), {first: f"{all_of_them}{' & '.join(group)} ({len(prompts)} prompts)"}
        )
        compared = (
            printed.get(kinds)
            if len(kinds) == len(group) and candidates == {4} and label == "ours"
            else None
        )
        for top, column in zip(TOPS, published.columns, strict=True):
            row.origins[column.key] = {
                "rankings": [f"image_ranking/{name}" for name in group],
                "scorers": {name: (models or {}).get(name) for name in group},
                "prompts": len(prompts),
            }
            value = common_selection([rankings[name] for name in group], top)
            if value is None:
                row.missing[column.key] = (
                    f"{column.header}: no prompt that all of them ranked has more than {top}"
                    " images."
                )
                continue
            row.values[column.key] = value
            if compared:
                row.differences[column.key] = value - compared[column.key]
        table_rows.append(row)
    table_rows += absent_rows(published, scorers, label)
    notes = notes_of(published, table_rows, label)
    notes.append(
        "Common selection at top k: mean over prompts of |intersection of the top-k sets| / k, in"
        " percent."
    )
    for name, found in ranked.items():
        if ties := sum(has_deciding_tie(row) for row in found.values()):
            notes.append(
                f"{name}: {ties} of {len(found)} prompts have a tie at a deciding rank, settled by"
                " the order of the candidates."
            )
    return Table(published.title, published.text_columns, published.columns, table_rows, notes)


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    rows: dict[str, dict[str, Any]] = {name: {} for name in job.settings["scorers"]}
    for path in map(Path, snakemake.input.rankings):
        # image_ranking/<scorer>/<topic>/<shard>.jsonl
        rows[path.parts[-3]] |= read_shard(path)
    models = {
        name: model_origin(model, job.root, "rank_images", name)
        for name, model in job.settings["models"].items()
    }
    published = read_published(Path(snakemake.input.published))
    table = build_table(published, job.settings["scorers"], rows, job.settings["label"], models)
    write_table(table, [snakemake.input.published, *snakemake.input.rankings], snakemake.output)
    job.record.items = job.record.computed = len(next(iter(rows.values())))
    job.write_record()


if __name__ == "__main__":
    run_script(main)
