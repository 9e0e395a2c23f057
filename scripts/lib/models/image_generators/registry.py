"""The image generators that there are."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import SerializeAsAny

from lib.models.image_generators.base import ImageGenerator
from lib.models.image_generators.pipelines import known_folder, pipeline_in
from lib.models.image_generators.settings import ImageGeneratorSettings
from lib.registry import Registry, chosen_from


def _said_by_the_model(values: Mapping[str, Any]) -> str | None:
    if name := pipeline_in(known_folder(values)):
        return "stable-diffusion-3" if name == "StableDiffusion3Pipeline" else "diffusers"
    if "folder" in values:
        return "folder"
    return "diffusers" if "candidates" in values else None


IMAGE_GENERATORS: Registry[ImageGenerator] = Registry(
    "image generator",
    {
        "stable-diffusion-3": "lib.models.image_generators.stable_diffusion_3:StableDiffusion3",
        "diffusers": "lib.models.image_generators.diffusers:DiffusersPipeline",
        "folder": "lib.models.image_generators.own_folder:PictureFolder",
    },
    default="stable-diffusion-3",
    said_by=_said_by_the_model,
)
AnyImageGenerator = Annotated[SerializeAsAny[ImageGeneratorSettings], chosen_from(IMAGE_GENERATORS)]
