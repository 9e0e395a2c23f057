"""How a run's prompts are divided into shards, each the work of one job.

Stage images has shards of each topic (`shards_per_topic`). Later stages may have fewer, each over
all topics (`shards`): a prompt's is its hash modulo their number, which divides the number before.
So a shard over all topics holds whole shards of the stages before it.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lib.data.prompts import PROMPT_ID, MergedPrompts, Shard, number_in, shard_of
from lib.jobs.job import ALL_TOPICS

#: The topic and the name of a shard, as they stand in the names of its files.
Place = tuple[str, str]
#: The names of shards: of a topic, and over all topics.
SHARD = r"\d{2,4}|\d+-of-\d+"
OF = "-of-"


def number_of(place: Place) -> int:
    """What the hashes of a shard's prompts are modulo the number of shards."""
    number, of, _ = place[1].partition(OF)
    return int(number) - 1 if of else int(number)


def place_over_all(number: int, count: int) -> Place:
    """The shard of this number, from 0, of so many over all topics."""
    return ALL_TOPICS, f"{number + 1}{OF}{count}"


@dataclass(frozen=True)
class Layout:
    """The shards of a stage.

    shards  those that hold a prompt, in the order of the topics and of their numbers
    count   how many there are: of a topic, or over all
    """

    shards: Mapping[Place, Shard]
    count: int
    is_over_all: bool = False

    def place_of(self, prompt_id: str) -> Place:
        """The shard that a prompt falls into, whether or not there is such a prompt."""
        if self.is_over_all:
            return place_over_all(number_in(prompt_id) % self.count, self.count)
        return prompt_id.rsplit("-", 1)[0], shard_of(prompt_id, self.count)

    @cached_property
    def _by_number(self) -> dict[int, list[Place]]:
        by_number: dict[int, list[Place]] = {}
        for place in self.shards:
            by_number.setdefault(number_of(place), []).append(place)
        return by_number

    def holding(self, number: int, count: int) -> list[Place]:
        """The shards that together hold the prompts of a shard over all topics, the one of this
        number of `count`.
        """
        numbers = range(number, self.count, count)
        return [place for each in numbers for place in self._by_number.get(each, [])]

    def over_all(self, count: int) -> "Layout":
        """So many shards over all topics, each of whole shards of this layout."""
        shards = {}
        for number in range(count):
            if parts := self.holding(number, count):
                place = place_over_all(number, count)
                prompts = MergedPrompts([self.shards[part].prompts for part in parts])
                shards[place] = Shard(*place, prompts)
        return Layout(shards, count, is_over_all=True)


class PromptCounts:
    """How many prompts there are in shards of any layout.

    of_topics  by the shards of stage images
    total      in all
    """

    def __init__(self, of_topics: Mapping[Place, int]) -> None:
        self.of_topics = of_topics
        self.total = sum(of_topics.values())
        self._over_all: dict[int, Counter[int]] = {}

    def of(self, topic: str, shard: str) -> int:
        """In one shard."""
        if topic != ALL_TOPICS:
            return self.of_topics.get((topic, shard), 0)
        count = int(shard.partition(OF)[2])
        if count not in self._over_all:
            counted = self._over_all[count] = Counter[int]()
            for place, prompts in self.of_topics.items():
                counted[number_of(place) % count] += prompts
        return self._over_all[count][number_of((topic, shard))]


@dataclass(frozen=True)
class PromptIds:
    """The ids of all prompts of a run, `in` which one is looked for: they are not held, since a
    million of them are 150 MB. `layout`: of stage images.
    """

    layout: Layout

    def __contains__(self, prompt_id: object) -> bool:
        if not (isinstance(prompt_id, str) and re.fullmatch(PROMPT_ID, prompt_id)):
            return False
        shard = self.layout.shards.get(self.layout.place_of(prompt_id))
        return shard is not None and shard.prompts.has(prompt_id)
