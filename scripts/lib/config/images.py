"""Stage images: candidates of each prompt, one at each guidance scale."""

from pathlib import Path

from lib.blocks import Block
from lib.models.image_generators.registry import AnyImageGenerator


class GenerateImagesJob(Block):
    """What rule generate_images is told: who draws, and the file with the shard's prompts as the
    run read them when it began.
    """

    generator: AnyImageGenerator
    prompts: Path
