"""Rule tell_prompt: the whole story of one prompt: candidates, scores, instruction, responses,
scores, pair or the reason there is none.
"""

from pathlib import Path
from typing import Any, TypeVar

from lib.data.rows import (
    ImageRankingRow,
    ImagesRow,
    MissingRow,
    PairRow,
    PromptRow,
    ResponseRankingRow,
)
from lib.data.shards import is_missing, read_whole_shard
from lib.errors import UserError
from lib.files import write_json
from lib.jobs.job import Job, NoSettings
from lib.jobs.script import run_script

VERSION = 1
IMAGE_RANKING = "image_ranking/"
Row = TypeVar("Row", bound=PromptRow)


def row_of(job: Job[Any], prompt_id: str, path: str, row: type[Row]) -> Row | MissingRow:
    """A prompt's row of a shard file. Errors: UserError if the prompt is not in it."""
    rows = read_whole_shard(job, path, row)
    if prompt_id not in rows:
        raise UserError(
            f"{path}: no prompt has the id '{prompt_id}'. The ids are in the first column of the"
            " shard files."
        )
    return rows[prompt_id]


def image_ranking_of(row: ImageRankingRow | MissingRow) -> dict[str, Any]:
    """What a scorer says of a prompt's candidates."""
    return {part: row.get(part) for part in ("scores", "ranking", "winner")}


def why_no_pair(row: PairRow | MissingRow) -> dict[str, str]:
    """The reason why a prompt has no pair, if it has none."""
    if is_missing(row):
        return {"no_pair": f"{row['missing']['rule']}: {row['missing']['reason']}"}
    return {} if "pair" in row else {"no_pair": row["no_pair"]}


def story_of(job: Job[Any], prompt_id: str, stages: dict[str, str]) -> dict[str, Any]:
    """All that the stages say of a prompt; `stages`: their shard files."""
    images = row_of(job, prompt_id, stages["images"], ImagesRow)
    scorers = {
        stage.removeprefix(IMAGE_RANKING): row_of(job, prompt_id, path, ImageRankingRow)
        for stage, path in stages.items()
        if stage.startswith(IMAGE_RANKING)
    }
    responses = row_of(job, prompt_id, stages["response_ranking"], ResponseRankingRow)
    last = row_of(job, prompt_id, stages["pairs"], PairRow)
    return {
        "id": prompt_id,
        "topic": last["topic"],
        "prompt": last["prompt"],
        "candidates": images.get("candidates"),
        "image_ranking": {name: image_ranking_of(row) for name, row in scorers.items()},
        **{name: last.get(name) for name in ("image", "instruction", "pair")},
        "responses": responses.get("responses"),
        **why_no_pair(last),
    }


def main(snakemake: Any) -> None:
    with Job(snakemake, NoSettings, VERSION) as job:
        story = story_of(job, snakemake.wildcards.prompt_id, snakemake.params.stages)
        write_json(Path(snakemake.output[0]), story)
        job.count(1)


if __name__ == "__main__":
    run_script(main)
