"""Stable Diffusion 3, which makes the images."""

from pathlib import Path
from typing import Any

from tiny.diffusion_parts import new_clip_encoder, new_t5_encoder, new_vae
from tiny.initialisation import initialise
from tiny.tokenization import clip_tokenizer, t5_tokenizer


def build_stable_diffusion_3(directory: Path) -> None:
    """Stable Diffusion 3: 64 x 64 px, two CLIP text encoders, T5, a 16-channel VAE, two transformer
    blocks.

    Source of the layout: stabilityai/stable-diffusion-3-medium-diffusers.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    tokenizer, tokenizer_2, tokenizer_3 = clip_tokenizer(), clip_tokenizer("!"), t5_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        transformer=new_transformer(seed=15),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        vae=new_vae(seed=14),
        text_encoder=new_clip_encoder(tokenizer, "quick_gelu", seed=11),
        tokenizer=tokenizer,
        # Both tokenizers have the vocabulary of the first.
        text_encoder_2=new_clip_encoder(tokenizer, "gelu", seed=12),
        tokenizer_2=tokenizer_2,
        text_encoder_3=new_t5_encoder(tokenizer_3, seed=13),
        tokenizer_3=tokenizer_3,
    )
    pipeline.save_pretrained(directory)


def new_transformer(seed: int) -> Any:
    """The diffusion transformer."""
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        pos_embed_max_size=24,
    )
    # The guidance scale then changes more than the contrast.
    initialise(transformer, seed, gain=1.5)
    return transformer
