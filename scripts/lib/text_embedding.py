"""Sentence embeddings: a text becomes a vector of length 1, so that the product of two vectors is
their cosine similarity.

Reads folders in the layout of the library sentence-transformers (a transformer, mean or CLS
pooling, normalisation) and gives what that library gives (tests/test_embed_texts.py compares them);
imported in every shard's job, the library itself would cost more than the work.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.errors import UserError
from lib.loading import load_whole

if TYPE_CHECKING:
    import numpy as np

#: What of a model's repository is needed.
FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
MODULES = ("Transformer", "Pooling", "Normalize")


class TextEmbedder:
    """A sentence embedding model on the CPU."""

    def __init__(self, folder: Path, dtype: str, max_length: int) -> None:
        """`folder`: of the model; `max_length`: tokens of a text, the rest is cut. A model that is
        something else is a UserError.
        """
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.pooling = pooling_of(folder)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            # The pooler's output is not used, and many models have none.
            self.model = load_whole(
                AutoModel,
                folder,
                unused=r"pooler\.",
                dtype=getattr(torch, dtype),
                use_safetensors=True,
            ).eval()
        except (OSError, ValueError) as error:
            raise UserError(
                f"figures.embedding: '{folder}' holds no usable text model: {error}"
            ) from error
        self.max_length = min(
            max_length, getattr(self.model.config, "max_position_embeddings", max_length)
        )

    def embed(self, texts: Sequence[str]) -> "np.ndarray[Any, Any]":
        """The texts' vectors, float32 (texts, dimensions), each of length 1. The texts are one
        batch.
        """
        import torch

        with torch.inference_mode():
            tokens = self.tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            )
            states = self.model(**tokens).last_hidden_state.float()
            if self.pooling == "cls":
                vectors = states[:, 0]
            else:
                mask = tokens["attention_mask"].unsqueeze(-1).float()
                vectors = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            normalised: np.ndarray[Any, Any] = torch.nn.functional.normalize(vectors, dim=1).numpy()
            return normalised


def pooling_of(folder: Path) -> str:
    """ "mean" or "cls", as the folder's modules say (mean where it has none); any other model is a
    UserError.
    """
    modules = _read_json(folder / "modules.json", [])
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    if strange := [kind for kind in kinds if kind not in MODULES]:
        raise UserError(
            f"figures.embedding: '{folder}' has a module {strange[0]}; only {', '.join(MODULES)}"
            " are known here. Name another."
        )
    place = next(
        (module["path"] for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"),
        None,
    )
    settings = _read_json(folder / str(place) / "config.json", {}) if place else {}
    modes = [
        name for name, used in settings.items() if name.startswith("pooling_mode_") and used is True
    ]
    known = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "mean": "mean",
        "cls": "cls",
    }
    mode = settings.get("pooling_mode") or (
        modes[0] if len(modes) == 1 else "mean" if not modes else "several"
    )
    if mode not in known:
        raise UserError(
            f"figures.embedding: '{folder}' pools by '{mode}'; only mean and CLS pooling are known"
            " here. Name another model."
        )
    return known[mode]


def _read_json(path: Path, absent: Any) -> Any:
    if not path.is_file():
        return absent
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Fetch the model again.") from error
