"""Image reward models: how well do the images of one prompt match it?

Three scorers behind one interface, `ImageScorer`:

| kind           | model                                | a score is                                             |
|----------------|--------------------------------------|--------------------------------------------------------|
| `image-reward` | ImageReward-v1.0 (THUDM/ImageReward) | the reward, normalised as its authors do               |
| `clip`         | any CLIPModel                        | the cosine of the image's and the prompt's embeddings  |
| `blip`         | any BlipForImageTextRetrieval        | the probability that image and prompt match (ITM head) |

ImageReward is rebuilt here from transformers' BLIP modules and reads the original checkpoint,
because the package `image-reward` 1.5 needs a transformers of its own and scores one image at a
time. The package stays selectable (`backend="image-reward"`), and `make parity` compares the two.
This module imports without torch: the libraries are imported where a model is loaded.

All images go through PIL, never through torchvision: the two differ by up to one 8-bit level, and
scores must not depend on which is installed.

Sources: ImageReward, arXiv:2304.05977; BLIP, arXiv:2201.12086; CLIP, arXiv:2103.00020.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

KINDS = ("image-reward", "clip", "blip")
BACKENDS = ("native", "image-reward")
DTYPES = ("float32", "bfloat16", "float16")

IMAGE_REWARD_MEAN = 0.16717362830052426
IMAGE_REWARD_STD = 1.0333394966054072
BLIP_PROMPT_TOKENS = 35  # of BLIP and of ImageReward, [CLS] and [SEP] included
# both ViTs of BLIP have it (768 / 12, 1024 / 16), and the checkpoint's tensors do not tell the
# number of heads
BLIP_HEAD_SIZE = 64
CLIP_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageScorer(ABC):
    """Scores the images of one prompt.

    A prompt longer than `max_prompt_tokens` is cut at its end before it is scored, as the original
    models do; `truncates` says whether that happens, so that the caller can put it on record. What
    a prompt contains is text: "[SEP]" or "<|endoftext|>" in it is spelt out, not taken for the
    tokenizer's special token.
    """

    max_prompt_tokens: int
    tokenizer: Any

    def score(self, prompt: str, images: Sequence[Image]) -> list[float]:
        """One score an image, in the order of `images`, computed as one batch; higher is better.

        A score that is not a number is returned as it is: what to do about it is the caller's
        decision.
        """
        import torch

        if not images:
            return []
        with torch.inference_mode():
            return [float(score) for score in self._score(prompt, images)]

    def truncates(self, prompt: str) -> bool:
        """Whether `prompt` has more than `max_prompt_tokens` tokens, special tokens included."""
        return (
            len(self.tokenizer(prompt, split_special_tokens=True, verbose=False).input_ids)
            > self.max_prompt_tokens
        )

    @abstractmethod
    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        """`score` of at least one image, as a list or a tensor of shape (images,)."""


def load_image_scorer(
    kind: str,
    model_dir: Path,
    *,
    tokenizer_dir: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    backend: str = "native",
) -> ImageScorer:
    """Loads a scorer from local folders; nothing is downloaded here.

    Args:
        kind: One of `KINDS`.
        model_dir: For `image-reward` a folder with ImageReward.pt and med_config.json, else a
            folder in transformers' layout.
        tokenizer_dir: The tokenizer's folder, by default `model_dir`. THUDM/ImageReward carries
            none: it takes bert-base-uncased's.
        device: A torch device, such as "cpu" or "cuda:0".
        dtype: One of `DTYPES`, for the encoders; the last step to a score is always float32.
        backend: "native" (transformers), or "image-reward": the original package, which has to be
            installed (envs/image-reward.txt).

    Raises:
        ValueError: An argument is not among its choices, or what is in the folders is not a usable
            checkpoint.
    """
    for name, value, choices in (
        ("kind", kind, KINDS),
        ("backend", backend, BACKENDS),
        ("dtype", dtype, DTYPES),
    ):
        if value not in choices:
            raise ValueError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}")
    model_dir = Path(model_dir)
    tokenizer_dir = Path(tokenizer_dir or model_dir)
    for directory in (model_dir, tokenizer_dir):
        if not directory.is_dir():
            raise ValueError(f"{directory} is not a folder")
    if backend == "image-reward":
        if kind != "image-reward":
            raise ValueError(f"the image-reward package has no scorer {kind!r}; use backend native")
        if dtype != "float32":
            raise ValueError(f"the image-reward package computes in float32, not {dtype}")
        return ImageRewardPackage(model_dir, tokenizer_dir, device)
    if kind == "image-reward":
        return ImageReward(model_dir, tokenizer_dir, device, dtype)
    if kind == "clip":
        return CLIPScore(model_dir, tokenizer_dir, device, dtype)
    return BLIPScore(model_dir, tokenizer_dir, device, dtype)


class ImageReward(ImageScorer):
    """ImageReward-v1.0 on transformers' BLIP modules; equal to the original to float32 rounding
    (`make parity`).

    A ViT encodes the image, a BERT reads the prompt's first 35 tokens and attends to the image in
    every layer, and a five-layer MLP without activations turns the hidden state of [CLS] into the
    reward. The original adds [ENC] and [DEC] to the tokenizer and uses neither to score, so they
    are not added here; their two rows of the embedding stay unused.

    All sizes come from the checkpoint's tensors and from med_config.json, so a small model in the
    same layout works as well.
    """

    max_prompt_tokens = BLIP_PROMPT_TOKENS

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
        for module, weights in parts:
            load_weights(module, weights, checkpoint)
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


class ImageRewardPackage(ImageScorer):
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
                return bert_tokenizer.from_pretrained(tokenizer_dir)

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


class CLIPScore(ImageScorer):
    """Cosine of CLIP's image and text embeddings; the prompt is cut to CLIP's context (77 tokens
    for OpenAI's models).
    """

    def __init__(self, model_dir: Path, tokenizer_dir: Path, device: str, dtype: str) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self.model = load_transformers_model(CLIPModel, model_dir, device, dtype)
        self.image_processor = load_from_folder(CLIPImageProcessorPil, model_dir)
        self.tokenizer = load_from_folder(CLIPTokenizer, tokenizer_dir)
        self.max_prompt_tokens: int = self.model.config.text_config.max_position_embeddings
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        import torch

        pixels = self.image_processor(
            [image.convert("RGB") for image in images], return_tensors="pt"
        ).pixel_values
        tokens = self.tokenizer(
            prompt,
            truncation=True,
            max_length=self.max_prompt_tokens,
            split_special_tokens=True,
            return_tensors="pt",
        ).to(self.device)
        output = self.model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            pixel_values=pixels.to(device=self.device, dtype=self.model.dtype),
        )
        return torch.cosine_similarity(output.image_embeds.float(), output.text_embeds.float())


class BLIPScore(ImageScorer):
    """Probability of BLIP's image-text matching head that image and prompt match; the prompt is cut
    to 35 tokens, as BLIP does.
    """

    max_prompt_tokens = BLIP_PROMPT_TOKENS

    def __init__(self, model_dir: Path, tokenizer_dir: Path, device: str, dtype: str) -> None:
        from transformers import BlipForImageTextRetrieval, BlipImageProcessorPil

        self.model = load_transformers_model(BlipForImageTextRetrieval, model_dir, device, dtype)
        self.image_processor = load_from_folder(BlipImageProcessorPil, model_dir)
        self.tokenizer = load_bert_tokenizer(
            tokenizer_dir, self.model.config.text_config.vocab_size
        )
        self.device = device

    def _score(self, prompt: str, images: Sequence[Image]) -> torch.Tensor | list[float]:
        pixels = self.image_processor(
            [image.convert("RGB") for image in images], return_tensors="pt"
        ).pixel_values
        # The model's own forward makes a mask of the image on the CPU, whatever its device; images
        # have no padding to mask.
        image_states = self.model.vision_model(
            pixel_values=pixels.to(device=self.device, dtype=self.model.dtype)
        ).last_hidden_state
        prompt_states = self.model.text_encoder(
            **tokenize_for_blip(self.tokenizer, prompt, len(images), self.device),
            encoder_hidden_states=image_states,
        ).last_hidden_state
        return self.model.itm_head(prompt_states[:, 0]).float().softmax(-1)[:, 1]


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


def tokenize_for_blip(tokenizer: Any, prompt: str, batch: int, device: str) -> dict[str, Any]:
    """Returns input_ids and attention_mask, each (batch, 35): one prompt, cut or padded to BLIP's
    length and repeated.
    """
    tokens = tokenizer(
        prompt,
        padding="max_length",
        truncation=True,
        max_length=BLIP_PROMPT_TOKENS,
        split_special_tokens=True,
        return_tensors="pt",
    )
    return {
        name: tokens[name].expand(batch, -1).to(device) for name in ("input_ids", "attention_mask")
    }


def load_bert_tokenizer(directory: Path, vocabulary: int) -> Any:
    """Loads a BERT tokenizer all of whose ids have a row in an embedding of `vocabulary` rows."""
    from transformers import BertTokenizer

    if not any((directory / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise ValueError(
            f"{directory} has no BERT tokenizer (tokenizer.json or vocab.txt); give"
            " bert-base-uncased's folder"
        )
    tokenizer = load_from_folder(BertTokenizer, directory)
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"the tokenizer in {directory} has {len(tokenizer)} entries, but the model's embedding"
            f" {vocabulary}"
        )
    return tokenizer


def load_from_folder(cls: Any, directory: Path) -> Any:
    """Calls `cls.from_pretrained` on a local folder; what goes wrong becomes a ValueError that
    names the folder.
    """
    try:
        return cls.from_pretrained(directory, local_files_only=True)
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as a {cls.__name__}: {error}") from error


def load_transformers_model(cls: Any, directory: Path, device: str, dtype: str) -> Any:
    """Loads a model of transformers and refuses one whose weights are not all in the folder (they
    would be random).
    """
    import torch

    try:
        model, report = cls.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ValueError(f"{directory} cannot be loaded as a {cls.__name__}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{directory} is not a checkpoint of a {cls.__name__}: {describe(missing)} are missing"
        )
    return model.to(device).eval()


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
# Parts of the original model that take no part in scoring.
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
        if name.startswith("blip.visual_encoder."):
            original = name.removeprefix("blip.visual_encoder.")
            for pattern, replacement in VISION_NAMES:
                renamed, count = re.subn(pattern, replacement, original)
                if count:
                    vision[renamed] = tensor
                    break
            else:
                unknown.append(name)
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


def describe(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
