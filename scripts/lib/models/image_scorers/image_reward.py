"""ImageReward-v1.0 (THUDM/ImageReward): the reward, normalised as its authors do.

Rebuilt from transformers' BLIP modules; it reads the original checkpoint, because the package
`image-reward` 1.5 needs a transformers of its own and scores one image at a time. The package stays
selectable (`backend: image-reward`), and `make parity` compares the two.

Source: arXiv:2304.05977.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lib import weights
from lib.blocks import NO_EFFECT, Model
from lib.jobs.device import require_device
from lib.loading import describe
from lib.model_files import TOKENIZERS, problem_with_all, problem_with_any
from lib.models.image_scorers.batch_scorer import BatchScorer
from lib.models.image_scorers.bert import BLIP_PROMPT_TOKENS, load_bert_tokenizer, tokenize_for_blip
from lib.models.image_scorers.settings import LocalScorerSettings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


IMAGE_REWARD_MEAN = 0.16717362830052426
IMAGE_REWARD_STD = 1.0333394966054072
#: Both ViTs of BLIP have it (768 / 12, 1024 / 16), and the checkpoint's tensors do not say how many
#: heads there are.
BLIP_HEAD_SIZE = 64
#: What of a tokenizer's repository is needed.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
CLIP_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageReward(BatchScorer):
    """ImageReward-v1.0 on transformers' BLIP modules; equal to the original to float32 rounding
    (`make parity`).

    A ViT encodes the image, a BERT reads the prompt's first 35 tokens and attends to the image in
    every layer, and a five-layer MLP without activations turns the hidden state of [CLS] into the
    reward. The original adds [ENC] and [DEC] to the tokenizer and uses neither to score, so they
    are not added here; their two rows of the embedding stay unused.

    All sizes come from the checkpoint's tensors and from med_config.json, so a small model in the
    same layout works as well.
    """

    VERSION: ClassVar[int] = 1
    max_prompt_tokens = BLIP_PROMPT_TOKENS

    class Settings(LocalScorerSettings):
        """ImageReward's own `ImageReward.pt` (`THUDM/ImageReward`); a score is its reward,
        normalised as its authors do.
        """

        kind: Literal["image-reward"] = Field(description="Architecture and formula.")
        tokenizer: Model | None = Field(
            None,
            description="Where its BERT tokenizer comes from; without it, the model's own folder.",
            json_schema_extra=NO_EFFECT,
        )
        backend: Literal["native", "image-reward"] = Field(  # type: ignore[assignment]
            "native",
            description=(
                "Our reading of the original checkpoint, or the original package in its own"
                " environment."
            ),
        )

        @property
        def environment(self) -> str:
            """The package needs a transformers of its own."""
            return "image-reward" if self.backend == "image-reward" else "rewards"

        def problem_with_files(self, folder: Path) -> str | None:
            """What it lacks of the original's layout, which holds no tokenizer."""
            return problem_with_all(folder, ("ImageReward.pt", "med_config.json")) or (
                None if self.tokenizer else problem_with_any(folder, TOKENIZERS, "tokenizer")
            )

    @classmethod
    def load(cls, settings: Settings, device: str) -> ImageReward | ImageRewardPackage:
        """Loads the checkpoint natively, or into the original package."""
        require_device(device)
        folder = weights.fetch(settings.model, settings.revision, also=["ImageReward.pt"])
        source = settings.tokenizer
        tokenizer = (
            weights.fetch(source.model, source.revision, only=TOKENIZER_FILES) if source else folder
        )
        if settings.backend == "native":
            return cls(folder, tokenizer, device, settings.dtype)
        if settings.dtype != "float32":
            raise ValueError(f"the image-reward package computes in float32, not {settings.dtype}")
        return ImageRewardPackage(folder, tokenizer, device)

    def __init__(self, model_dir: Path, tokenizer_dir: Path, device: str, dtype: str) -> None:
        import torch
        from torch import nn
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        checkpoint = model_dir / "ImageReward.pt"
        vision_weights, text_weights, mlp_weights = split_image_reward_weights(
            read_checkpoint(checkpoint), checkpoint
        )
        vision_sizes = vision_config_of(vision_weights, checkpoint)
        text_sizes = read_med_config(model_dir / "med_config.json") | {
            "encoder_hidden_size": vision_sizes["hidden_size"]
        }
        mlp_sizes = [
            weight.shape for name, weight in mlp_weights.items() if name.endswith("weight")
        ]
        # On the meta device nothing is initialised only to be overwritten: half of the loading time
        # of the full-size model.
        with torch.device("meta"):
            vision = BlipVisionModel(BlipVisionConfig(**vision_sizes))
            text = BlipTextModel(BlipTextConfig(**text_sizes), add_pooling_layer=False)
            mlp = nn.Sequential(*(nn.Linear(inputs, outputs) for outputs, inputs in mlp_sizes))
        parts = ((vision, vision_weights), (text, text_weights), (mlp, mlp_weights))
        for module, tensors in parts:
            load_weights(module, tensors, checkpoint)
        # The one tensor of the three modules that no checkpoint holds.
        text.embeddings.position_ids = torch.arange(text.config.max_position_embeddings).expand(
            1, -1
        )
        self.vision = vision.to(device=device, dtype=getattr(torch, dtype)).eval()
        self.text = text.to(device=device, dtype=getattr(torch, dtype)).eval()
        self.mlp = mlp.to(device=device, dtype=torch.float32).eval()
        self.device = device
        self.tokenizer = load_bert_tokenizer(tokenizer_dir, text.config.vocab_size)

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        import torch

        pixels = torch.stack([preprocess(image, self.vision.config.image_size) for image in images])
        image_states = self.vision(pixel_values=pixels.to(self.device)).last_hidden_state
        prompt_states = self.text(
            **tokenize_for_blip(self.tokenizer, prompt, len(images), self.device),
            encoder_hidden_states=image_states,
        ).last_hidden_state
        rewards = self.mlp(prompt_states[:, 0].float()).squeeze(-1)
        return (rewards - IMAGE_REWARD_MEAN) / IMAGE_REWARD_STD


class ImageRewardPackage(BatchScorer):
    """The original `image-reward` package, one image at a time, in float32.

    Its tokenizer call is hard-wired to "bert-base-uncased" on the hub; the tokenizer of
    `tokenizer_dir` is handed to it instead. Unlike `ImageReward` it takes "[SEP]" and the like
    inside a prompt for special tokens.
    """

    max_prompt_tokens = BLIP_PROMPT_TOKENS

    def __init__(self, model_dir: Path, tokenizer_dir: Path, device: str) -> None:
        for name in ("ImageReward.pt", "med_config.json"):
            if not (model_dir / name).is_file():
                raise ValueError(
                    f"{model_dir} has no {name}; it has to be a copy of THUDM/ImageReward"
                )
        try:
            import ImageReward
            from ImageReward.models.BLIP import blip
        except ImportError as error:
            raise ValueError(
                f"backend image-reward needs the packages of envs/image-reward.txt: {error}"
            ) from error
        bert_tokenizer = blip.BertTokenizer

        class LocalBertTokenizer:
            @staticmethod
            def from_pretrained(_name: str) -> Any:
                return bert_tokenizer.from_pretrained(tokenizer_dir, trust_remote_code=False)

        blip.BertTokenizer = LocalBertTokenizer
        try:
            self.model = ImageReward.load(
                str(model_dir / "ImageReward.pt"),
                device=device,
                med_config=str(model_dir / "med_config.json"),
            )
        except Exception as error:
            raise ValueError(
                f"the image-reward package cannot load {model_dir}: {error}"
            ) from error
        finally:
            blip.BertTokenizer = bert_tokenizer
        self.tokenizer = self.model.blip.tokenizer

    def truncates(self, prompt: str) -> bool:
        """Whether `prompt` has more than 35 tokens, as the package counts them."""
        return len(self.tokenizer(prompt, verbose=False).input_ids) > self.max_prompt_tokens

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        return [self.model.score(prompt, image) for image in images]


def preprocess(image: Image, size: int) -> torch.Tensor:
    """ImageReward's preprocessing: shorter side to `size` (bicubic), centre crop, CLIP's mean and
    deviation.

    Returns a float32 tensor (3, size, size), bit-equal to the original's for RGB images; others are
    converted to RGB first.
    """
    import numpy as np
    import torch
    from PIL import Image as PILImage

    image = image.convert("RGB")
    shorter = min(image.size)
    width, height = (size * side // shorter for side in image.size)
    image = image.resize((width, height), PILImage.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.crop((left, top, left + size, top + size))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32).div(255)
    mean, deviation = (
        torch.tensor(values).view(3, 1, 1) for values in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD)
    )
    return (pixels - mean) / deviation


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict without running anything in it; the tensors stay in the file until they
    are used.
    """
    import torch

    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no {path.name}; it has to be a copy of THUDM/ImageReward"
        )
    try:
        # Only torch's zip format can be mapped into memory; older checkpoints are read.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is not a checkpoint that torch.load(weights_only=True) reads: {error}"
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise ValueError(f"{path} is not a state dict (names and tensors)")
    return dict(state)


#: The original's names of the vision encoder's tensors, and those of BlipVisionModel.
VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)
#: Parts of the original model that take no part in scoring.
UNUSED_NAMES = re.compile(
    r"blip\.(vision_proj|text_proj)\.(weight|bias)|blip\.text_encoder\.embeddings\.position_ids"
)


def split_image_reward_weights(
    state: Mapping[str, torch.Tensor], path: Path
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Sorts the original checkpoint into the weights of BlipVisionModel, BlipTextModel and the MLP,
    under their names.

    Raises:
        ValueError: There is a name in it that the original ImageReward does not have.
    """
    vision: dict[str, torch.Tensor] = {}
    text: dict[str, torch.Tensor] = {}
    layers: dict[tuple[int, str], torch.Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        if vision_name := blip_vision_name(name):
            vision[vision_name] = tensor
        elif match := re.fullmatch(r"mlp\.layers\.(\d+)\.(weight|bias)", name):
            layers[int(match[1]), match[2]] = tensor
        elif UNUSED_NAMES.fullmatch(name):
            continue
        elif name.startswith("blip.text_encoder."):
            text[name.removeprefix("blip.text_encoder.")] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{path} is not a checkpoint of ImageReward: it has the unknown {describe(unknown)}"
        )
    # The original's numbering counts its dropout layers, which do nothing here.
    numbers = sorted({number for number, _ in layers})
    mlp = {
        f"{numbers.index(number)}.{kind}": layers[number, kind] for number, kind in sorted(layers)
    }
    return vision, text, mlp


def blip_vision_name(name: str) -> str | None:
    """BlipVisionModel's name of a tensor of the original's vision encoder; None for any other."""
    if name.startswith("blip.visual_encoder."):
        original = name.removeprefix("blip.visual_encoder.")
        for pattern, replacement in VISION_NAMES:
            renamed, count = re.subn(pattern, replacement, original)
            if count:
                return renamed
    return None


def vision_config_of(weights: Mapping[str, torch.Tensor], path: Path) -> dict[str, Any]:
    """Reads the sizes of the ViT off its tensors, as keyword arguments of BlipVisionConfig."""
    try:
        width, _, patch, _ = weights["embeddings.patch_embedding.weight"].shape
        patches = weights["embeddings.position_embedding"].shape[1] - 1
        intermediate = weights["encoder.layers.0.mlp.fc1.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"{path} is not a checkpoint of ImageReward: its vision encoder is incomplete ({error})"
        ) from error
    side = math.isqrt(patches)
    if side * side != patches or width % BLIP_HEAD_SIZE:
        raise ValueError(
            f"{path} is not a checkpoint of ImageReward: {patches} patches are no square, or the"
            f" vision encoder's width {width} is no multiple of the head size {BLIP_HEAD_SIZE}"
        )
    return {
        "hidden_size": width,
        "intermediate_size": intermediate,
        "num_hidden_layers": (
            1
            + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layers."))
        ),
        "num_attention_heads": width // BLIP_HEAD_SIZE,
        "patch_size": patch,
        "image_size": side * patch,
        "layer_norm_eps": 1e-6,
    }


MED_CONFIG_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "pad_token_id",
)


def read_med_config(path: Path) -> dict[str, Any]:
    """Reads the text encoder's sizes from the original med_config.json, as keyword arguments of
    BlipTextConfig.

    Its `encoder_width` is passed over, as the original does: the width is that of the vision
    encoder.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        # BlipTextConfig's own defaults for these two are ids of the full-size vocabulary.
        return {key: config[key] for key in MED_CONFIG_KEYS} | {
            "bos_token_id": None,
            "sep_token_id": None,
        }
    except FileNotFoundError:
        raise ValueError(
            f"{path.parent} has no {path.name}; it has to be a copy of THUDM/ImageReward"
        ) from None
    except KeyError as error:
        raise ValueError(f"{path} has no key {error}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a JSON object: {error}") from error


def load_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Puts `weights` into `module`; every tensor has to be there, with its shape, and no other."""
    expected = module.state_dict()
    name = type(module).__name__
    for problem, names in (
        ("lacks", sorted(expected.keys() - weights.keys())),
        ("has the unknown", sorted(weights.keys() - expected.keys())),
        (
            "has another shape for",
            sorted(
                key
                for key in expected
                if key in weights and expected[key].shape != weights[key].shape
            ),
        ),
    ):
        if names:
            raise ValueError(
                f"{path} is not a checkpoint of ImageReward: for {name} it {problem}"
                f" {describe(names)}"
            )
    module.load_state_dict(weights, assign=True)
