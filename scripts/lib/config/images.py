"""Stage images: candidates of each prompt, one at each guidance scale."""

from pathlib import Path

from lib.blocks import Block, max_image_megapixels_field
from lib.models.image_generators.registry import AnyImageGenerator


class GenerateImagesJob(Block):
    """What rule generate_images is told: who draws, and the file with the shard's prompts as the
    run read them when it began.
    """

    generator: AnyImageGenerator
    prompts: Path


class TakePicturesJob(GenerateImagesJob):
    """What it is told besides where the images are the user's own: the most pixels of one. The file
    with the prompts names each one's pictures, too.
    """

    max_image_megapixels: float = max_image_megapixels_field()
