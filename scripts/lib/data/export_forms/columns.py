"""What is told of a pair beside its texts and its picture, in the forms that have room for it."""

from collections.abc import Mapping
from typing import TypedDict

from lib.data.data_sets import DataSetPair


class DrawnColumns(TypedDict, total=False):
    """What an image generator's picture was drawn with; not there of pictures of one's own."""

    guidance_scale: float
    image_seed: int


class PlainColumns(DrawnColumns):
    """Of a pair: where it comes from, who answered, and how it was judged.

    image_prompt  the text-to-image prompt, which no trainer is to ask
    margin        between the scores of the chosen and the rejected response
    image_reward  by which the picture was picked among the prompt's candidates
    """

    id: str
    topic: str
    image_prompt: str
    chosen_policy: str
    rejected_policy: str
    chosen_score: float
    rejected_score: float
    chosen_attributes: Mapping[str, float]
    rejected_attributes: Mapping[str, float]
    margin: float
    image_reward: float


def plain_columns(pair: DataSetPair) -> PlainColumns:
    """What is told of a pair."""
    columns: PlainColumns = {
        "id": pair.id,
        "topic": pair.topic,
        "image_prompt": pair.image_prompt,
        "chosen_policy": pair.chosen.policy,
        "rejected_policy": pair.rejected.policy,
        "chosen_score": pair.chosen.score,
        "rejected_score": pair.rejected.score,
        "chosen_attributes": pair.chosen.attributes,
        "rejected_attributes": pair.rejected.attributes,
        "margin": pair.margin,
        "image_reward": pair.image_reward,
    }
    if pair.guidance_scale is not None:
        columns["guidance_scale"] = pair.guidance_scale
    if pair.image_seed is not None:
        columns["image_seed"] = pair.image_seed
    return columns
