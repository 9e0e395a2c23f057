"""Rule compare_picks: where two image scorers pick different images, a judge says which is the
better one (paper, supplementary A).

Off unless `image_ranking.judge` is configured. Prompts whose picks are the same are counted and not
asked about. Of the others, up to `comparisons` are drawn with the run's seed; a prompt keeps its
place in the draw whatever other prompts there are, so that asking for more comparisons, or adding
prompts, asks again about none. How a pair is shown and judged: lib/image_preference.py. Every raw
reply is kept in the judge's journal, and the two of each pair in the published file, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.blocks import Endpoint
from lib.data.image_files import check_image
from lib.data.prompts import seed_of
from lib.data.shards import Row, is_missing, read_shard
from lib.files import write_json, write_jsonl
from lib.image_preference import PROMPT, Comparison, Pair, compare, summary
from lib.jobs.legacy import ShardJob
from lib.jobs.script import run_script
from lib.judge import Judge
from lib.report.sidecar import model_origin

VERSION = 1

Rankings = Mapping[str, Mapping[str, Row]]


def draw(rankings: Rankings, count: int, seed: int) -> tuple[list[str], list[str], list[str]]:
    """The prompts that both scorers ranked: (those with the same pick, those with different picks,
    up to `count` of the latter), by id.

    `rankings`: scorer -> prompt id -> published row of rank_images; two scorers.
    """
    first, second = rankings.values()
    both = [
        one
        for one in sorted(first)
        if one in second and not is_missing(first[one]) and not is_missing(second[one])
    ]
    same = [one for one in both if first[one]["winner"] == second[one]["winner"]]
    different = sorted(set(both) - set(same))
    chosen = sorted(different, key=lambda one: (seed_of(seed, "comparison", one), one))[:count]
    return same, different, sorted(chosen)


def row_of(
    prompt_id: str, images: Row, rankings: Rankings, comparison: Comparison
) -> dict[str, Any]:
    """What is published of one comparison; `verdict` is the name of a scorer, "tie", or null with
    the reason.
    """
    picks = {}
    for name, rows in rankings.items():
        candidate = images["candidates"][rows[prompt_id]["winner"]]
        picks[name] = {part: candidate[part] for part in ("file", "sha256", "guidance_scale")}
    names = dict(zip(("first", "second"), rankings, strict=True))
    verdict = names.get(comparison.verdict, comparison.verdict) if comparison.verdict else None
    replies = dict(zip(("in_order", "swapped"), comparison.replies, strict=True))
    reason = {"reason": comparison.reason} if comparison.reason else {}
    return {
        "id": prompt_id,
        "topic": images["topic"],
        "prompt": images["prompt"],
        "picks": picks,
        "verdict": verdict,
        "replies": replies,
    } | reason


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    images: dict[str, Row] = {}
    shard_of: dict[str, Path] = {}
    for path in map(Path, snakemake.input.images):
        for prompt_id, row in read_shard(path).items():
            images[prompt_id], shard_of[prompt_id] = row, path
    rankings: dict[str, dict[str, Row]] = {name: {} for name in settings["scorers"]}
    for path in map(Path, snakemake.input.rankings):
        # image_ranking/<scorer>/<topic>/<shard>.jsonl
        rankings[path.parts[-3]] |= read_shard(path)

    same, different, chosen = draw(rankings, settings["judge"]["comparisons"], job.seed)
    pairs = []
    for prompt_id in chosen:
        files = []
        for rows in rankings.values():
            candidate = images[prompt_id]["candidates"][rows[prompt_id]["winner"]]
            check_image(job.root / candidate["file"], candidate["sha256"], shard_of[prompt_id])
            files.append(job.root / candidate["file"])
        pairs.append(Pair(prompt_id, images[prompt_id]["prompt"], *files))
    judge = Judge(
        Endpoint.model_validate(settings["judge"]["endpoint"]),
        job.work / f"{job.name}.journal.jsonl",
    )
    compared = compare(pairs, judge)

    write_jsonl(
        Path(snakemake.output.comparisons),
        [row_of(one, images[one], rankings, compared[one]) for one in chosen],
    )
    write_json(
        Path(snakemake.output.summary),
        {
            # Wins are of the first one. A list, since files keep the keys of objects sorted.
            "compared": list(rankings),
            "scorers": {
                name: model_origin(model, job.root, "rank_images", name)
                for name, model in settings["scorers"].items()
            },
            "judge": judge.name,
            "question": PROMPT,
            "seed": job.seed,
            "prompts": {
                "ranked_by_both": len(same) + len(different),
                "same_pick": len(same),
                "different_picks": len(different),
            },
            "comparisons": len(chosen),
            **summary(list(compared.values())),
        },
    )
    job.record.items = len(chosen)
    # Tried again on the next run; a reply that cannot be read would come from the cache again.
    job.record.failed = sum(
        comparison.verdict is None and None in comparison.replies
        for comparison in compared.values()
    )
    job.record.computed, job.record.reused = judge.asked, judge.reused
    job.record.models["judge"] = judge.name
    job.write_record()


if __name__ == "__main__":
    run_script(main)
