"""Parts that several pipelines have, of one size each."""

from typing import TYPE_CHECKING, Any

from tiny.initialisation import initialise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def new_clip_encoder(tokenizer: "PreTrainedTokenizerBase", activation: str, seed: int) -> Any:
    """A CLIP text encoder with a projection."""
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
    """A T5 text encoder."""
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
