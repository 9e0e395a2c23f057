"""The image model: Stable Diffusion 3's architecture for pictures of 48 x 48 pixels, its VAE first.

The VAE turns a picture into 8 channels of 12 x 12. The transformer learns rectified flow on them
(Esser et al., arXiv:2403.03206) together with its three text encoders, which nobody has trained
before; one prompt in ten is empty, for guidance. The scheduler's shift is 1: Stable Diffusion 3
medium's 3 is for pictures of 1024 x 1024.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tiny.tokenization import CLIP_END, clip_tokenizer, t5_tokenizer
from world import oracle
from world.pictures import SIDE, Picture, draw
from world.scenes import Scene, random_scene
from world.training import Draw, Plan, train
from world.vocabulary import vocabulary
from world.words import TOPICS, prompt, read

LATENT_CHANNELS, LATENT_SIDE = 8, 12
CLIP_TOKENS = 22  # of a prompt, begin and end included; the longest has 21
# of a prompt, the end included; the longest has as many. It is `images.max_sequence_length` of a
# run.
T5_TOKENS = 20
EMPTY_PROMPTS = 0.1
POOL = 12_288  # scenes whose latents are kept at a time
POOL_STEPS = 4000  # after which others take their place
VAE_PLAN = Plan(steps=2400, batch=8, learning_rate=2e-3, decay=0.5, average=0.995)
PAINTER_PLAN = Plan(steps=10_000, batch=32, learning_rate=1e-3, muon=2e-3, decay=0.3)


def tensor_of(pictures: Picture) -> torch.Tensor:
    """Pictures (n, 48, 48, 3) from 0 to 255 as (n, 3, 48, 48) from -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def pictures_of(tensor: torch.Tensor) -> Picture:
    """The inverse of `tensor_of`, rounded."""
    pixels: Picture = (
        tensor.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return pixels


def draw_scenes(scenes: Sequence[Scene], random: np.random.Generator) -> Picture:
    """Each scene as a picture: (n, 48, 48, 3)."""
    return np.stack([draw(scene, random) for scene in scenes])


# --- the VAE


def new_vae() -> Any:
    """An untrained AutoencoderKL of 0.7 M parameters, without the quantisation layers, as Stable
    Diffusion 3's.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def train_vae(work: Path, plan: Plan = VAE_PLAN) -> Any:
    """Trains the VAE on rendered scenes and sets its scale such that latents have mean 0 and
    deviation 1.
    """
    torch.manual_seed(plan.seed)
    vae = new_vae().to(memory_format=torch.channels_last)

    def loss_of(step: Draw) -> torch.Tensor:
        scenes = [random_scene(step.numpy) for _ in range(plan.batch)]
        pixels = tensor_of(draw_scenes(scenes, step.numpy)).contiguous(
            memory_format=torch.channels_last
        )
        latents = vae.encode(pixels).latent_dist
        output = vae.decode(latents.mean + latents.std * step.normal(*latents.mean.shape)).sample
        divergence = 0.5 * (latents.mean**2 + latents.var - 1 - latents.logvar).mean()
        return (
            functional.l1_loss(output, pixels)
            + functional.mse_loss(output, pixels)
            + 1e-3 * divergence
        )

    train("vae", vae, loss_of, plan, work, lambda: f"exact {reconstructed(vae, 256, 1):.3f}", 500)
    random = np.random.default_rng([plan.seed, 1])
    with torch.no_grad():
        means = vae.encode(
            tensor_of(draw_scenes([random_scene(random) for _ in range(512)], random))
        ).latent_dist.mean
    vae.register_to_config(
        scaling_factor=round(1 / float(means.std()), 4), shift_factor=round(float(means.mean()), 4)
    )
    return vae


def reconstructed(vae: Any, count: int, seed: int) -> float:
    """The share of unseen scenes that are read exactly from their picture after it went through the
    VAE.
    """
    random = np.random.default_rng(seed)
    scenes = [random_scene(random, unseen=True) for _ in range(count)]
    pictures = draw_scenes(scenes, random)
    readings = []
    with torch.no_grad():
        for start in range(0, count, 64):
            latents = vae.encode(tensor_of(pictures[start : start + 64])).latent_dist.mean
            readings += oracle.read_pictures(pictures_of(vae.decode(latents).sample))
    return float(
        np.mean(
            [
                reading == oracle.Reading(scene, 0)
                for reading, scene in zip(readings, scenes, strict=True)
            ]
        )
    )


# --- the transformer and its text encoders


def new_pipeline(vae: Any) -> Any:
    """An untrained StableDiffusion3Pipeline around a trained VAE: a transformer of four blocks, two
    CLIP text encoders, a T5.
    """
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    words = vocabulary()
    tokenizers = [clip_tokenizer(pad, words, CLIP_TOKENS) for pad in (CLIP_END, "!")]
    encoders = [
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(tokenizers[0]),
                hidden_size=64,
                projection_dim=64,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=2,
                hidden_act=activation,
                max_position_embeddings=CLIP_TOKENS,
                bos_token_id=tokenizers[0].bos_token_id,
                eos_token_id=tokenizers[0].eos_token_id,
                pad_token_id=1,
            )
        )
        for activation in ("quick_gelu", "gelu")
    ]
    tokenizer_3 = t5_tokenizer(words)
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer_3),
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        caption_projection_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=8,
    )
    # Each block, and the whole, begins as if it were not there: the layers behind the conditioning,
    # and the last one, are zero.
    for name, parameter in transformer.named_parameters():
        if (
            "norm1.linear" in name
            or "norm1_context.linear" in name
            or name.startswith(("norm_out.linear", "proj_out"))
        ):
            nn.init.zeros_(parameter)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tokenizers[0],
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizers[1],
        text_encoder_3=t5,
        tokenizer_3=tokenizer_3,
    )


@dataclass(frozen=True)
class Tokens:
    """Texts as the three tokenizers give them: ids (n, 22), (n, 22) and (n, 20)."""

    clip: torch.Tensor
    clip_2: torch.Tensor
    t5: torch.Tensor

    def take(self, rows: torch.Tensor) -> "Tokens":
        """Some of them."""
        return Tokens(self.clip[rows], self.clip_2[rows], self.t5[rows])


class Painter(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """What is trained of the pipeline: its transformer and text encoders, called as the pipeline
    calls them.
    """

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.transformer = pipeline.transformer
        self.encoders = nn.ModuleList([pipeline.text_encoder, pipeline.text_encoder_2])
        self.t5 = pipeline.text_encoder_3
        self.scheduler = pipeline.scheduler
        self.tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2, pipeline.tokenizer_3)

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Texts, padded as the pipeline pads them."""
        lengths = (CLIP_TOKENS, CLIP_TOKENS, T5_TOKENS)
        return Tokens(
            *(
                tokenizer(
                    list(texts),
                    padding="max_length",
                    max_length=length,
                    truncation=True,
                    return_tensors="pt",
                ).input_ids
                for tokenizer, length in zip(self.tokenizers, lengths, strict=True)
            )
        )

    def encode(self, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """What conditions the transformer: the texts' states (n, 42, 128), and pooled (n, 128)."""
        outputs = [
            encoder(ids, output_hidden_states=True)
            for encoder, ids in zip(self.encoders, (tokens.clip, tokens.clip_2), strict=True)
        ]
        sequence = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        return torch.cat([sequence, self.t5(tokens.t5)[0]], dim=-2), pooled

    def forward(
        self,
        latents: torch.Tensor,
        time: torch.Tensor,
        conditioning: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """The velocity at a time from 0 (picture) to 1 (noise)."""
        velocity: torch.Tensor = self.transformer(
            latents, conditioning[0], conditioning[1], time * 1000, return_dict=False
        )[0]
        return velocity

    def sample(
        self, tokens: Tokens, empty: Tokens, scale: float, steps: int, noise: torch.Tensor
    ) -> torch.Tensor:
        """Latents by Euler's method with guidance; what the pipeline does, in batches of many
        prompts.
        """
        count = len(noise)
        nothing = self.encode(empty.take(torch.zeros(count, dtype=torch.long)))
        conditioning = [torch.cat(pair) for pair in zip(nothing, self.encode(tokens), strict=True)]
        self.scheduler.set_timesteps(steps)
        latents = noise
        for time, after in itertools.pairwise(self.scheduler.sigmas):
            without, with_prompt = self(
                torch.cat([latents] * 2), time.expand(2 * count), (conditioning[0], conditioning[1])
            ).chunk(2)
            latents = latents + (after - time) * (without + scale * (with_prompt - without))
        return latents


def train_painter(vae: Any, work: Path, plan: Plan = PAINTER_PLAN) -> Any:
    """Trains transformer and text encoders on rendered scenes under prompts of every topic; gives
    the whole pipeline back.
    """
    torch.manual_seed(plan.seed)
    pipeline = new_pipeline(vae)
    vae.requires_grad_(False)
    painter = Painter(pipeline)
    empty = painter.tokens([""])
    pools: dict[int, tuple[torch.Tensor, Tokens]] = {}

    def pool(number: int) -> tuple[torch.Tensor, Tokens]:
        """Latents of many scenes, and their prompts, those of one topic after those of another."""
        if number not in pools:
            pools.clear()
            random = np.random.default_rng([plan.seed, 2, number])
            scenes = [random_scene(random) for _ in range(POOL)]
            pictures = draw_scenes(scenes, random)
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                parts = [
                    vae.encode(tensor_of(pictures[start : start + 64])).latent_dist.mean
                    for start in range(0, POOL, 64)
                ]
            latents = torch.cat(parts)
            texts = [prompt(scene, topic) for topic in TOPICS for scene in scenes]
            pools[number] = (
                (latents - vae.config.shift_factor) * vae.config.scaling_factor,
                painter.tokens(texts),
            )
        return pools[number]

    def loss_of(step: Draw) -> torch.Tensor:
        latents, tokens = pool(step.number // POOL_STEPS)
        rows = torch.from_numpy(step.numpy.integers(POOL, size=plan.batch))
        topics = torch.from_numpy(step.numpy.integers(len(TOPICS), size=plan.batch))
        texts = tokens.take(topics * POOL + rows)
        without = torch.from_numpy(step.numpy.random(plan.batch) < EMPTY_PROMPTS)[:, None]
        texts = Tokens(
            *(
                torch.where(without, none, some)
                for none, some in zip(vars(empty).values(), vars(texts).values(), strict=True)
            )
        )
        clean, noise = (
            latents[rows],
            step.normal(plan.batch, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE),
        )
        time = torch.sigmoid(step.normal(plan.batch))
        mixed = torch.lerp(clean, noise, time[:, None, None, None])
        return functional.mse_loss(painter(mixed, time, painter.encode(texts)), noise - clean)

    train(
        "stable-diffusion-3-medium",
        painter,
        loss_of,
        plan,
        work,
        lambda: summarise_pictures(painter, vae, empty),
        1000,
    )
    return pipeline


def summarise_pictures(
    painter: Painter, vae: Any, empty: Tokens, count: int = 96, scale: float = 5.0, steps: int = 16
) -> str:
    """What pictures of unseen scenes get right, by topic, for the log."""
    random = np.random.default_rng(3)
    prompts = [
        prompt(random_scene(random, unseen=True), TOPICS[number % len(TOPICS)])
        for number in range(count)
    ]
    noise = torch.randn(
        count, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE, generator=torch.Generator().manual_seed(3)
    )
    with torch.no_grad():
        latents = painter.sample(painter.tokens(prompts), empty, scale, steps, noise)
        pictures = pictures_of(
            vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
        )
    verdicts = [
        oracle.judge_picture(reading, read(text))
        for reading, text in zip(oracle.read_pictures(pictures), prompts, strict=True)
    ]
    parts = []
    for number, topic in enumerate(TOPICS):
        topic_verdicts = verdicts[number :: len(TOPICS)]
        right = sum(verdict.right for verdict in topic_verdicts) / sum(
            verdict.wanted for verdict in topic_verdicts
        )
        parts.append(
            f"{topic}: objects {right:.2f}, whole"
            f" {np.mean([verdict.whole for verdict in topic_verdicts]):.2f}"
        )
    return "; ".join(parts)


# --- checkpoints


def make_vae(work: Path, models: Path, folder: Path) -> None:
    """Trains the VAE and writes it, alone, into what will be Stable Diffusion 3's folder."""
    train_vae(work).to(torch.float16).save_pretrained(folder)


def make_painter(work: Path, models: Path, folder: Path) -> None:
    """Trains the rest of Stable Diffusion 3 around the VAE as it was written, and writes the whole
    folder.
    """
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).eval()
    # Otherwise the checkpoint says where on this machine it was made.
    vae.register_to_config(_name_or_path="")
    train_painter(vae, work).to(torch.float16).save_pretrained(folder)
