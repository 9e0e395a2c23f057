"""Rule compare_picks: where two image scorers pick different images, a judge says which is the
better one (paper, supplementary A).

Off unless `image_ranking.judge` is configured. Prompts whose picks are the same are counted and not
asked about. Of the others, up to `comparisons` are drawn with the run's seed; a prompt keeps its
place in the draw whatever other prompts there are, so that asking for more comparisons, or adding
prompts, asks again about none. How a pair is shown and judged: lib/image_preference.py. Every raw
reply is kept in the judge's journal, and the two of each pair in the published file, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lib.config.tables import ComparePicksJob, rankings_input
from lib.data.image_files import check_image
from lib.data.prompts import seed_of
from lib.data.rows import Candidate, ImageRankingRow, ImagesRow, MissingRow, PromptRow
from lib.data.shards import present, read_whole_shard, read_whole_shards
from lib.files import write_json, write_jsonl
from lib.image_preference import (
    PROMPT,
    Comparison,
    ImagePair,
    PicksSummary,
    compare,
    count_verdicts,
)
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.judge import Judge
from lib.report.sidecar import resolve_model

VERSION = 1

#: Scorer -> prompt id -> published row; two scorers.
Rankings = Mapping[str, Mapping[str, ImageRankingRow | MissingRow]]


@dataclass(frozen=True)
class PromptsToCompare:
    """The prompts that both scorers ranked, by id: those with the same pick, those with different
    picks, and those of the latter that the judge sees.
    """

    same: list[str]
    different: list[str]
    chosen: list[str]


class ComparedPick(TypedDict):
    """A scorer's pick, as far as it is published of a comparison."""

    file: str
    sha256: str
    guidance_scale: float | None


class Replies(TypedDict):
    """The judge's raw replies to the two orders; None where there is none."""

    in_order: str | None
    swapped: str | None


class ComparisonRow(PromptRow):
    """What is published of one comparison; `verdict` is the name of a scorer, "tie", or null with
    the reason.
    """

    picks: dict[str, ComparedPick]
    verdict: str | None
    replies: Replies
    reason: NotRequired[str]


class ComparedPrompt:
    """A prompt with the two scorers' picks, by scorer."""

    def __init__(self, images: ImagesRow, winners: Mapping[str, int]) -> None:
        self.images = images
        self.picks: dict[str, Candidate] = {
            name: images["candidates"][winner] for name, winner in winners.items()
        }

    def pair(self, root: Path) -> ImagePair:
        """What the judge is shown. Errors: UserError for an image that is not the one that was
        ranked.
        """
        files = []
        for candidate in self.picks.values():
            check_image(root / candidate["file"], candidate["sha256"])
            files.append(root / candidate["file"])
        first, second = files
        return ImagePair(self.images["id"], self.images["prompt"], first, second)

    def row(self, comparison: Comparison) -> ComparisonRow:
        """What is published of its comparison."""
        in_order, swapped = comparison.replies
        names = dict(zip(("first", "second"), self.picks, strict=True))
        row: ComparisonRow = {
            "id": self.images["id"],
            "topic": self.images["topic"],
            "prompt": self.images["prompt"],
            "picks": {name: _compared_pick(pick) for name, pick in self.picks.items()},
            "verdict": names.get(comparison.verdict or "", comparison.verdict),
            "replies": {"in_order": in_order, "swapped": swapped},
        }
        if comparison.reason:
            row["reason"] = comparison.reason
        return row


def _compared_pick(candidate: Candidate) -> ComparedPick:
    return {
        "file": candidate["file"],
        "sha256": candidate["sha256"],
        "guidance_scale": candidate["guidance_scale"],
    }


def winners_of(rankings: Rankings) -> dict[str, dict[str, int]]:
    """Prompt id -> scorer -> the index of its pick, of the prompts that all of them ranked."""
    winners: dict[str, dict[str, int]] = {}
    for name, rows in rankings.items():
        for row in present(rows.values()):
            winners.setdefault(row["id"], {})[name] = row["winner"]
    return {one: each for one, each in sorted(winners.items()) if len(each) == len(rankings)}


def choose_prompts(
    winners: Mapping[str, Mapping[str, int]], count: int, seed: int
) -> PromptsToCompare:
    """Up to `count` of the prompts whose picks differ. `winners`: see `winners_of`."""
    same = [one for one, each in winners.items() if len(set(each.values())) == 1]
    different = [one for one, each in winners.items() if len(set(each.values())) > 1]
    chosen = sorted(different, key=lambda one: (seed_of(seed, "comparison", one), one))[:count]
    return PromptsToCompare(same, different, sorted(chosen))


def read_prompts(
    job: Job[Any],
    paths: Iterable[str],
    winners: Mapping[str, Mapping[str, int]],
    chosen: Sequence[str],
) -> dict[str, ComparedPrompt]:
    """The chosen prompts with their picks, by id. `paths`: the files of stage images."""
    prompts = {}
    for path in paths:
        for row in present(read_whole_shard(job, path, ImagesRow).values()):
            if row["id"] in chosen:
                prompts[row["id"]] = ComparedPrompt(row, winners[row["id"]])
    return {one: prompts[one] for one in chosen}


def is_unanswered(comparison: Comparison) -> bool:
    """Whether the endpoint did not answer: it is asked again on the next run. A reply that cannot
    be read would come from the cache again.
    """
    return comparison.verdict is None and None in comparison.replies


def main(snakemake: Any) -> None:
    with Job(snakemake, ComparePicksJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        rankings = {
            name: read_whole_shards(job, getattr(inputs, rankings_input(name)), ImageRankingRow)
            for name in settings.scorers
        }
        winners = winners_of(rankings)
        prompts = choose_prompts(winners, settings.judge.comparisons, job.seed)
        to_compare = read_prompts(job, inputs.images, winners, prompts.chosen)
        pairs = [prompt.pair(job.root) for prompt in to_compare.values()]
        judge = Judge.of_job(job, settings.judge.endpoint, "journal")
        compared = compare(pairs, judge)
        rows = [prompt.row(compared[one]) for one, prompt in to_compare.items()]
        write_jsonl(Path(snakemake.output.comparisons), rows)
        summary: PicksSummary = {
            "compared": list(settings.scorers),
            "scorers": {
                name: resolve_model(origin, job.root, "rank_images", name)
                for name, origin in settings.scorers.items()
            },
            "judge": judge.name,
            "question": PROMPT,
            "seed": job.seed,
            "prompts": {
                "ranked_by_both": len(winners),
                "same_pick": len(prompts.same),
                "different_picks": len(prompts.different),
            },
            "comparisons": len(prompts.chosen),
            **count_verdicts(list(compared.values())),
        }
        write_json(Path(snakemake.output.summary), summary)
        job.record.items = len(prompts.chosen)
        job.record.failed = sum(map(is_unanswered, compared.values()))
        job.record.computed, job.record.reused = judge.asked, judge.reused
        judge.put_on_record(job)
        job.record.models["judge"] = judge.name


if __name__ == "__main__":
    run_script(main)
