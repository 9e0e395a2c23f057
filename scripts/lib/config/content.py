"""Stage content: what is looked for in pictures and texts before they become pairs."""

from lib.blocks import Block, max_image_megapixels_field
from lib.models.content_checkers.registry import AnyContentChecker


class CheckContentJob(Block):
    """What rule check_content is told."""

    checker: AnyContentChecker
    max_image_megapixels: float = max_image_megapixels_field()
