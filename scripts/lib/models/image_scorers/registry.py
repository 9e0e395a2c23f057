"""The image scorers that there are."""

from functools import partial
from typing import Annotated

from pydantic import SerializeAsAny

from lib import weights
from lib.models.image_scorers.base import ImageScorer
from lib.models.image_scorers.settings import ImageScorerSettings
from lib.registry import Registry, chosen_from

#: How a class that a checkpoint's config.json names ends -> the kind.
ARCHITECTURES = {
    "CLIPModel": "clip",
    "BlipForImageTextRetrieval": "blip",
    "SiglipModel": "siglip",
}

IMAGE_SCORERS: Registry[ImageScorer] = Registry(
    "image scorer",
    {
        "image-reward": "lib.models.image_scorers.image_reward:ImageReward",
        "clip": "lib.models.image_scorers.clip:CLIPScore",
        "blip": "lib.models.image_scorers.blip:BLIPScore",
        "siglip": "lib.models.image_scorers.siglip:SigLIPScore",
        "vqascore": "lib.models.image_scorers.vqascore:VQAScore",
        "vlm-rating": "lib.models.image_scorers.vlm_rating:VlmRating",
    },
    said_by=partial(weights.kind_by_architecture, endings=ARCHITECTURES),
)
AnyImageScorer = Annotated[SerializeAsAny[ImageScorerSettings], chosen_from(IMAGE_SCORERS)]
