"""Other pipelines that draw: Stable Diffusion 1.5, SDXL, and two that are distilled, FLUX and
Z-Image. Each draws 64 x 64 px. Sources of the layouts: the repositories that are named.
"""

from pathlib import Path
from typing import Any

from tiny.byte_tokens import CHATML, byte_tokenizer
from tiny.diffusion_parts import new_clip_encoder, new_t5_encoder, new_vae
from tiny.initialisation import initialise
from tiny.tokenization import clip_tokenizer, padded_vocabulary, t5_tokenizer

PIPELINES = ("stable-diffusion-1.5", "stable-diffusion-xl", "flux", "z-image")


def build_pipeline(directory: Path, name: str) -> None:
    """A random pipeline.

    Args:
        directory: to write to.
        name: one of `PIPELINES`.
    """
    build = {
        "stable-diffusion-1.5": new_stable_diffusion,
        "stable-diffusion-xl": new_stable_diffusion_xl,
        "flux": new_flux,
        "z-image": new_z_image,
    }[name]
    build().save_pretrained(directory)


def new_stable_diffusion() -> Any:
    """stable-diffusion-v1-5/stable-diffusion-v1-5, without its safety checker."""
    import diffusers

    tokenizer = clip_tokenizer()
    return diffusers.StableDiffusionPipeline(
        vae=new_vae_of_4(seed=80),
        text_encoder=new_text_encoder(tokenizer, seed=81),
        tokenizer=tokenizer,
        unet=new_unet(seed=82, cross_attention_dim=32),
        scheduler=diffusers.DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def new_stable_diffusion_xl() -> Any:
    """stabilityai/stable-diffusion-xl-base-1.0."""
    import diffusers

    first, second = clip_tokenizer(), clip_tokenizer("!")
    return diffusers.StableDiffusionXLPipeline(
        vae=new_vae_of_4(seed=83),
        text_encoder=new_text_encoder(first, seed=84),
        tokenizer=first,
        text_encoder_2=new_clip_encoder(first, "gelu", seed=85),
        tokenizer_2=second,
        unet=new_unet(
            seed=86,
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
    )


def new_flux() -> Any:
    """black-forest-labs/FLUX.1-dev, which is told its guidance scale."""
    import diffusers

    first, second = clip_tokenizer(), t5_tokenizer()
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    initialise(transformer, 87, gain=1.5)
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=new_vae(seed=88),
        text_encoder=new_text_encoder(first, seed=89),
        tokenizer=first,
        text_encoder_2=new_t5_encoder(second, seed=90),
        tokenizer_2=second,
        transformer=transformer,
    )


def new_z_image() -> Any:
    """Tongyi-MAI/Z-Image-Turbo, whose text encoder is a language model."""
    import diffusers
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = byte_tokenizer(("<|im_start|>",), chat_template=CHATML.format(image=""))
    encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=padded_vocabulary(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=1024,
        )
    )
    transformer = diffusers.ZImageTransformer2DModel(
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    initialise(encoder, 91)
    initialise(transformer, 92, gain=1.5)
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=new_vae(seed=93),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )


def new_text_encoder(tokenizer: Any, seed: int) -> Any:
    """A CLIP text encoder without a projection."""
    from transformers import CLIPTextConfig, CLIPTextModel

    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=1,
        )
    )
    initialise(encoder, seed)
    return encoder


def new_vae_of_4(seed: int) -> Any:
    """The older VAE: an image of 64 x 64 pixels is 4 channels of 8 x 8."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    initialise(vae, seed)
    return vae


def new_unet(seed: int, cross_attention_dim: int, **more: Any) -> Any:
    """A U-Net that attends to the prompt."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    )
    initialise(unet, seed, gain=1.5)
    return unet
