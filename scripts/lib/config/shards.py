"""How many jobs the stages after the images have of a model."""

from typing import Any

from pydantic import Field, PositiveInt

from lib.blocks import Block

#: Rules whose shards are those of another one, whose files they read or complete.
AS = {
    "combine_rewards": "rank_responses",
    "check_contamination": "write_instructions",
    "check_content": "rank_responses",
    "embed_texts": "rank_responses",
}


def _jobs_field(of: str) -> Any:
    return Field(None, description=f"Jobs {of}; without it, as many as the stage before has.")


class Shards(Block):
    """Jobs of the stages after the images, each over all topics, so that a model is loaded by fewer
    of them: `rank_images: 1` makes every later stage one job a model. Without any of them, a stage
    has as many jobs as stage images. Each number divides that of the stage before; the first one
    divides `shards_per_topic`. Changing them computes nothing anew.
    """

    rank_images: PositiveInt | None = _jobs_field("of an image scorer")
    write_instructions: PositiveInt | None = _jobs_field("for the instructions")
    generate_responses: PositiveInt | None = _jobs_field("of a policy model")
    rank_responses: PositiveInt | None = _jobs_field("of a response reward")
    build_pairs: PositiveInt | None = _jobs_field("for the pairs")

    @property
    def first(self) -> int | None:
        """How many shards over all topics the first stage has that has any."""
        return next((count for _, count in self if count), None)

    def of(self, rule: str) -> int | None:
        """How many shards over all topics a rule has; None where they are those of stage images."""
        rule, count = AS.get(rule, rule), None
        if rule not in type(self).model_fields:
            return None
        for stage in type(self).model_fields:
            count = getattr(self, stage) or count
            if stage == rule:
                break
        return count

    def refuse_split_files(self, shards_per_topic: int) -> None:
        """A ValueError where a shard would hold a part of a file of the stage before."""
        before, there = "shards_per_topic", shards_per_topic
        for stage, count in self:
            if count is None:
                continue
            if there % count:
                raise ValueError(
                    f"`{stage}: {count}` does not divide `{before}: {there}`, so that a job would"
                    " read a part of a file. Give a number that does, or make the other one a"
                    " multiple of it"
                )
            before, there = stage, count
