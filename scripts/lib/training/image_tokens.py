"""How many tokens of a base model's context a picture takes: counted by the model's own
processor, since it depends on the picture's size in most (tiles, patches in their own ratio).
"""

from functools import cache
from pathlib import Path
from typing import Any

from lib.errors import UserError


class ImageTokens:
    """Counts them by a picture's size; processors look at nothing else."""

    def __init__(self, processor: Any, prompt_template: str) -> None:
        """`prompt_template`: with the model's own mark of a picture, once."""
        self._processor = processor
        self._template = prompt_template
        self.of_size = cache(self._of_size)

    def _of_size(self, size: tuple[int, int]) -> int:
        """Tokens beside the prompt's own that a picture of this width and height takes."""
        from PIL import Image

        picture = Image.new("RGB", size)
        ids = self._processor(images=[[picture]], text=[self._template], add_special_tokens=False)[
            "input_ids"
        ][0]
        text = self._processor.tokenizer(self._template, add_special_tokens=False)["input_ids"]
        return len(ids) - len(text)


def load_processor(folder: Path) -> Any:
    """The base model's tokenizer and image processor. Errors: UserError."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(str(folder), trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:  # SmolVLM2's wants a package of its own
        raise UserError(
            f"{folder}: the base model's processor cannot be loaded: {str(error).strip()}. Use"
            " another base model, or add what is missing to the environments that read it."
        ) from error
