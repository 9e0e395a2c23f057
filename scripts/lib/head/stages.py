"""Which prompts are in which shard of each stage, where its files are, and which of them the jobs
of later stages read.
"""

from collections.abc import Iterable, Mapping
from functools import cached_property

from lib.config.shards import Shards
from lib.data.layouts import Layout, Place, number_of
from lib.data.prompts import Shard
from lib.errors import UserError
from lib.jobs.published import SHARD_RULES

IMAGES = "images"
#: The rule that joins the rows of the images of a shard over all topics.
GATHER = "gather_images"
#: Rule -> the stages whose shard files it reads row by row, where these may have more shards.
READS = {
    GATHER: (IMAGES,),
    "rank_images": (IMAGES,),
    "write_instructions": (IMAGES, "image_ranking"),
    "generate_responses": ("instructions",),
    "rank_responses": ("responses",),
    "build_pairs": ("contamination", "response_ranking"),
}


class Stages:
    """The shards of a run's stages and their files. A stage is named as its folder, e.g. `images`
    or `responses/<policy>`.
    """

    def __init__(
        self, root: str, of_images: Mapping[Place, Shard], per_topic: int, shards: Shards
    ) -> None:
        """`of_images`: the shards of stage images that hold a prompt, of `per_topic` of each
        topic.
        """
        self.root, self.shards = root, shards
        self.of_images = Layout(of_images, per_topic)
        self._over_all: dict[int, Layout] = {}

    def layout(self, rule: str) -> Layout:
        """The shards of a rule's jobs."""
        count = self.shards.first if rule == GATHER else self.shards.of(rule)
        if count is None:
            return self.of_images
        if count not in self._over_all:
            self._over_all[count] = self.of_images.over_all(count)
        return self._over_all[count]

    def layout_of(self, stage: str) -> Layout:
        """The shards of a stage's files."""
        return self.layout(SHARD_RULES[stage.partition("/")[0]][0])

    def shard(self, rule: str, topic: str, name: str) -> Shard:
        """A shard of a rule's jobs. A UserError if the topic has no prompt in it."""
        shards = self.layout(rule).shards
        if (topic, name) not in shards:
            raise UserError(
                f"topic '{topic}' has no prompt in shard {name}, or is not in `topics`, or {rule}"
                " has other shards by `shards`. Ask for another target."
            )
        return shards[topic, name]

    def files(self, stage: str) -> list[str]:
        """The published files of a stage, in canonical order."""
        return [self._file(stage, place) for place in self.layout_of(stage).shards]

    def image_files(self) -> list[str]:
        """The rows of all images for a job that reads all of them: gathered where they are, since
        thousands of files take Snakemake 2 KB each, for every job that reads them.
        """
        return [self._file(IMAGES, place) for place in self.layout(GATHER).shards]

    def file_of(self, stage: str, prompt_id: str) -> str:
        """The file of a stage that tells of a prompt, whether or not there is such a prompt."""
        return self._file(stage, self.layout_of(stage).place_of(prompt_id))

    def _file(self, stage: str, place: Place) -> str:
        topic, shard = place
        return f"{self.root}/{stage}/{topic}/{shard}.jsonl"

    def files_behind(self, rule: str, stage: str, topic: str, shard: str) -> list[str]:
        """The files of a stage that hold the prompts of a job's shard; several where the stage has
        more shards than the job's rule. Errors: UserError where there is no such shard.
        """
        self.shard(rule, topic, shard)
        read = self._layout_read(rule, stage)
        return [self._file(stage, place) for place in self._behind(rule, (topic, shard), read)]

    def images_behind(self, rule: str, topic: str, shard: str) -> list[Place]:
        """The shards of stage images that hold the prompts of a job's shard."""
        behind = self._behind(rule, (topic, shard), self.of_images)
        return [place for place in behind if place in self.of_images.shards]

    def _layout_read(self, rule: str, stage: str) -> Layout:
        """The shards of those files of a stage that a rule reads."""
        is_gathered = stage == IMAGES and rule != GATHER and self.layout(rule).is_over_all
        return self.layout(GATHER) if is_gathered else self.layout_of(stage)

    def _behind(self, rule: str, place: Place, read: Layout) -> list[Place]:
        """The shards of a layout that together hold the prompts of a shard of a later rule."""
        own = self.layout(rule)
        return [place] if read is own else read.holding(number_of(place), own.count)

    @cached_property
    def digests(self) -> dict[str, str]:
        """What the shards' prompts are known by (`Shard.digest`), by "topic/shard": of all shards
        of all stages.
        """
        return _digests(shard for layout in self._layouts for shard in layout.shards.values())

    def digests_of_topic(self, topic: str) -> dict[str, str]:
        """`digests` of a topic's shards of stage images."""
        return _digests(each for each in self.of_images.shards.values() if each.topic == topic)

    def digests_of(self, rule: str, topic: str, name: str) -> dict[str, str]:
        """`digests` of a job's shard, and of those that it reads where they are others; nothing
        where there is no such shard.
        """
        own, place = self.layout(rule), (topic, name)
        if place not in own.shards:
            return {}
        read = [self._layout_read(rule, stage) for stage in READS.get(rule, ())]
        return _digests(
            each.shards[there] for each in [own, *read] for there in self._behind(rule, place, each)
        )

    def digests_for(self, prompt_id: str) -> dict[str, str]:
        """`digests` of the shards that a prompt falls into."""
        places = [(layout, layout.place_of(prompt_id)) for layout in self._layouts]
        return _digests(layout.shards[place] for layout, place in places if place in layout.shards)

    @property
    def _layouts(self) -> list[Layout]:
        """The layouts that stages have, each once, in the order of the flow."""
        return list({id(each): each for each in map(self.layout_of, SHARD_RULES)}.values())


def _digests(shards: Iterable[Shard]) -> dict[str, str]:
    return {f"{shard.topic}/{shard.name}": shard.digest for shard in shards}
