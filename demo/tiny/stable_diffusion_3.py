"""Stable Diffusion 3, which makes the images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.initialisation import initialise
from tiny.tokenization import clip_tokenizer, t5_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


def new_clip_encoder(tokenizer: "PreTrainedTokenizerBase", activation: str, seed: int) -> Any:
    """One of the two CLIP text encoders."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        projection_dim=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act=activation,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=1,
    )
    encoder = CLIPTextModelWithProjection(config)
    initialise(encoder, seed)
    return encoder


def new_t5_encoder(tokenizer: "PreTrainedTokenizerBase", seed: int) -> Any:
    """The third text encoder."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=32,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    encoder = T5EncoderModel(config)
    initialise(encoder, seed)
    return encoder


def new_vae(seed: int) -> Any:
    """The VAE: an image of 64 x 64 pixels is 16 channels of 8 x 8."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    initialise(vae, seed)
    return vae


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
