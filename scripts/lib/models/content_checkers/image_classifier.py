"""Any image classifier of transformers, some of whose labels are not to be passed on."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from lib.blocks import Model
from lib.data.rows import ContentFinding
from lib.jobs.device import require_device
from lib.loading import fetch_transformers_folder, load_from_folder, load_transformers_model
from lib.model_files import PICKLES, problem_with_checkpoint
from lib.models.content_checkers.base import IMAGE, Content
from lib.models.content_checkers.settings import ContentCheckerSettings


class ImageClassifier:
    """Looks at the picture; a score is the softmax of its label."""

    VERSION: ClassVar[int] = 1

    class Settings(ContentCheckerSettings, Model):
        """A checkpoint with a head of classes, such as a classifier of nudity or violence."""

        kind: Literal["image-classifier"] = Field(description="Who looks, and at what.")
        labels: list[str] = Field(
            min_length=1, description="Its labels that count, as its `config.json` names them."
        )

        def problem_with_files(self, folder: Path) -> str | None:
            """As of any checkpoint of transformers; of older ones pickles are read."""
            return problem_with_checkpoint(folder, PICKLES)

    @classmethod
    def load(cls, settings: Settings, device: str) -> Self:
        """Loads the model. Errors: ValueError where it has not all of the labels."""
        require_device(device)
        return cls(settings, device)

    def __init__(self, settings: Settings, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = fetch_transformers_folder(settings)
        self.model: Any = load_transformers_model(
            AutoModelForImageClassification, folder, device, settings.dtype
        )
        self.processor = load_from_folder(AutoImageProcessor, folder)
        self.settings, self.device = settings, device
        self.labels: dict[str, int] = dict(self.model.config.label2id)
        if unknown := sorted(set(settings.labels) - self.labels.keys()):
            raise ValueError(
                f"it has no label {', '.join(unknown)}, but {', '.join(self.labels)}. Correct"
                " `labels`"
            )

    def find(self, content: Content) -> list[ContentFinding]:
        """The labels that count and are likely enough."""
        import torch

        pixels = self.processor(content.image, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            logits = self.model(pixel_values=pixels.to(self.device, self.model.dtype)).logits
        scores = torch.softmax(logits[0].float(), dim=-1).tolist()
        found = [(label, scores[self.labels[label]]) for label in self.settings.labels]
        return [
            {"of": IMAGE, "what": label, "score": score}
            for label, score in found
            if score >= self.settings.min_score
        ]
