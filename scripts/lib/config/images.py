"""Stage images: candidates of each prompt, one at each guidance scale."""

from pydantic import PositiveInt

from lib.blocks import Block
from lib.models.image_generators.registry import AnyImageGenerator


class GenerateImagesJob(Block):
    """Parameters of rule generate_images."""

    generator: AnyImageGenerator
    shards_per_topic: PositiveInt
    max_prompt_characters: PositiveInt
