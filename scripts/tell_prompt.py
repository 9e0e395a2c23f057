"""Rule tell_prompt: the whole story of one prompt: candidates, scores, instruction, responses,
scores, pair or the reason there is none.
"""

from pathlib import Path
from typing import Any

from lib.data.shards import read_shard
from lib.errors import UserError
from lib.files import write_json
from lib.jobs.script import run_script


def main(snakemake: Any) -> None:
    prompt_id = snakemake.wildcards.prompt_id
    stages: dict[str, Any] = {}
    for name, path in snakemake.params.stages.items():
        rows = read_shard(path)
        if prompt_id not in rows:
            raise UserError(
                f"{path}: no prompt has the id '{prompt_id}'. The ids are in the first column of"
                " the shard files."
            )
        stages[name] = rows[prompt_id]
    last = stages["pairs"]
    story: dict[str, Any] = {
        "id": prompt_id,
        "topic": last["topic"],
        "prompt": last["prompt"],
        "candidates": stages["images"].get("candidates"),
        "image_ranking": {
            name.removeprefix("image_ranking/"): {
                part: row.get(part) for part in ("scores", "ranking", "winner")
            }
            for name, row in stages.items()
            if name.startswith("image_ranking/")
        },
        **{name: last.get(name) for name in ("image", "instruction", "pair")},
        "responses": stages["response_ranking"].get("responses"),
    }
    if "pair" not in last:
        missing = last.get("missing")
        story["no_pair"] = f"{missing['rule']}: {missing['reason']}" if missing else last["no_pair"]
    write_json(Path(snakemake.output[0]), story)


if __name__ == "__main__":
    run_script(main)
