"""The image generators that there are."""

from typing import Annotated

from pydantic import SerializeAsAny

from lib.models.image_generators.base import ImageGenerator
from lib.models.image_generators.settings import ImageGeneratorSettings
from lib.registry import Registry, chosen_from

IMAGE_GENERATORS: Registry[ImageGenerator] = Registry(
    "image generator",
    {"stable-diffusion-3": "lib.models.image_generators.stable_diffusion_3:StableDiffusion3"},
    default="stable-diffusion-3",
)
AnyImageGenerator = Annotated[SerializeAsAny[ImageGeneratorSettings], chosen_from(IMAGE_GENERATORS)]
