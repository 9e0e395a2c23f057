"""Stable Diffusion 3 medium by the workflow's own class: eager, sliced, compiled; four guidance
scales in one batch against four single calls; the same bytes twice.
"""

import time
from collections.abc import Sequence
from typing import Any

from gpu.report import Report, Row, digest_of_images, peak_gib, reset_peak, timed
from gpu.weights import build

PROMPT = "a red bird on a wooden fence beside a lake at noon"
SCALES = (5.0, 7.0, 9.0, 11.0)
SEEDS = (0, 1, 2, 3)

#: Of stabilityai/stable-diffusion-3-medium-diffusers (its config.json files).
REAL: dict[str, dict[str, Any]] = {
    "transformer": {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "sample_size": 1024,
    },
    "clip": {
        "hidden_size": 768,
        "projection_dim": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
    },
    "clip_2": {
        "hidden_size": 1280,
        "projection_dim": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
    },
    "t5": {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64},
}
TINY: dict[str, dict[str, Any]] = {
    "transformer": {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 64,
        "pos_embed_max_size": 24,
    },
    "vae": {
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 64,
    },
    "clip": {
        "hidden_size": 32,
        "projection_dim": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "quick_gelu",
    },
    "clip_2": {
        "hidden_size": 32,
        "projection_dim": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
    },
    "t5": {"d_model": 64, "d_kv": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2},
}


#: Imported before the device is the section's own.
LIBRARIES = (
    "diffusers:AutoencoderKL",
    "diffusers:SD3Transformer2DModel",
    "diffusers:StableDiffusion3Pipeline",
    "torch._dynamo",
    "transformers:CLIPTextModelWithProjection",
    "transformers:T5EncoderModel",
)


class Drawing:
    """The generator that is measured, and how it is called. `is_real`: of the real sizes."""

    def __init__(self, device: str, *, is_real: bool) -> None:
        self.device = device
        self.is_real = is_real
        self.dtype = "float16" if self.is_real else "float32"
        self.side = 1024 if self.is_real else 64
        self.steps = 28 if self.is_real else 2
        self.generator = self._load()

    def _load(self) -> Any:
        from diffusers import FlowMatchEulerDiscreteScheduler

        from lib.models.image_generators.pipelines import per_row
        from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3
        from tiny.tokenization import clip_tokenizer, t5_tokenizer

        sizes = REAL if self.is_real else TINY
        tokenizers = clip_tokenizer(), clip_tokenizer("!"), t5_tokenizer()
        pipeline = per_row("StableDiffusion3Pipeline")(
            transformer=self._build("transformer", sizes),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=self._build("vae", sizes),
            text_encoder=self._text_encoder(sizes["clip"], tokenizers[0]),
            tokenizer=tokenizers[0],
            text_encoder_2=self._text_encoder(sizes["clip_2"], tokenizers[0]),
            tokenizer_2=tokenizers[1],
            text_encoder_3=self._t5(sizes["t5"]),
            tokenizer_3=tokenizers[2],
        )
        pipeline.set_progress_bar_config(disable=True)
        return StableDiffusion3(pipeline, self.settings(self.steps))

    def settings(self, steps: int) -> Any:
        """The workflow's settings, with so many steps."""
        from lib.models.image_generators.stable_diffusion_3 import StableDiffusion3

        return StableDiffusion3.Settings(
            dtype=self.dtype, height=self.side, width=self.side, steps=steps
        )

    def _build(self, name: str, sizes: dict[str, dict[str, Any]]) -> Any:
        from diffusers import AutoencoderKL, SD3Transformer2DModel

        if name == "transformer":
            return build(
                self.device, self.dtype, lambda: SD3Transformer2DModel(**sizes["transformer"])
            )
        common: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "latent_channels": 16,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        }
        return build(self.device, self.dtype, lambda: AutoencoderKL(**common, **sizes["vae"]))

    def _text_encoder(self, sizes: dict[str, Any], tokenizer: Any) -> Any:
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        config = CLIPTextConfig(
            **sizes,
            vocab_size=49408,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=1,
        )
        return build(self.device, self.dtype, lambda: CLIPTextModelWithProjection(config))

    def _t5(self, sizes: dict[str, Any]) -> Any:
        import torch
        from transformers import T5Config, T5EncoderModel

        config = T5Config(
            **sizes, vocab_size=32128, feed_forward_proj="gated-gelu", tie_word_embeddings=False
        )
        encoder = build(self.device, self.dtype, lambda: T5EncoderModel(config))
        for name, part in encoder.named_modules():  # as transformers loads it: it overflows
            if name.endswith(".wo"):
                part.to(torch.float32)
        return encoder

    def draw(self, steps: int, rows: tuple[int, ...] = (0, 1, 2, 3)) -> Any:
        """The candidates of one prompt, of these rows, as one batch."""
        self.generator.settings = self.settings(steps)
        return self.generator.generate(
            PROMPT, [SCALES[row] for row in rows], [SEEDS[row] for row in rows]
        )


def run(report: Report) -> None:
    """Measures what is missing."""
    started = time.perf_counter()
    drawing = Drawing(report.device, is_real=report.device == "cuda")
    built = time.perf_counter() - started
    report.measure("random weights built", lambda: {"seconds": round(built, 2)})
    drawing.draw(2)  # kernels are chosen, memory is taken
    eager = report.measure("eager, four scales in one batch", lambda: four_at_once(drawing))
    report.measure("eager, the same again", lambda: again(drawing, eager))
    report.measure("eager, four single calls", lambda: one_by_one(drawing, eager))
    report.measure("VAE decoding of four", lambda: decoding(drawing))
    report.measure("eager, sliced VAE", lambda: sliced(drawing, eager))
    report.measure("compiled blocks, cold", lambda: compile_blocks(drawing))
    compiled = report.measure("compiled, four scales in one batch", lambda: four_at_once(drawing))
    report.measure("compiled, the same again", lambda: again(drawing, compiled))
    report.measure("text encoders", lambda: encoding(drawing))
    report.measure("T5 off the card, sliced VAE", lambda: without_t5(drawing))


def four_at_once(drawing: Drawing) -> Row:
    """Four candidates as one batch, the workflow's way."""
    seconds, images = timed(drawing.device, lambda: drawing.draw(drawing.steps))
    return {
        "seconds_an_image": seconds / 4,
        "steps": drawing.steps,
        "digest": digest_of_images(images),
        "pixels_deviate_by": deviation(images),
    }


def deviation(images: Sequence[Any]) -> float:
    """The standard deviation of all pixels (0 to 255); 0 is a blank one."""
    import numpy as np

    return float(np.std([np.asarray(image) for image in images]))


def again(drawing: Drawing, first: Row | None) -> Row:
    """The same, and whether its bytes are."""
    row = four_at_once(drawing)
    return row | {"same_bytes": first is not None and first["digest"] == row["digest"]}


def one_by_one(drawing: Drawing, batch: Row | None) -> Row:
    """Four calls for the same four candidates, as the published code does."""

    def draw() -> Any:
        return [drawing.draw(drawing.steps, (row,))[0] for row in range(4)]

    seconds, images = timed(drawing.device, draw)
    digest = digest_of_images(images)
    return {
        "seconds_an_image": seconds / 4,
        "steps": drawing.steps,
        "digest": digest,
        "same_bytes_as_batch": batch is not None and batch["digest"] == digest,
    }


def decoding(drawing: Drawing) -> Row:
    """The VAE's decoder alone, all four at once and one after the other."""
    import torch

    vae, side = drawing.generator.pipeline.vae, drawing.side // 8
    latents = torch.randn(
        (4, 16, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).to(device=drawing.device, dtype=getattr(torch, drawing.dtype))
    row: Row = {}
    pixels = []
    for name, switch in (("whole", vae.disable_slicing), ("sliced", vae.enable_slicing)):
        switch()
        with torch.inference_mode():
            vae.decode(latents, return_dict=False)
            reset_peak(drawing.device)
            seconds, (decoded,) = timed(
                drawing.device, lambda: vae.decode(latents, return_dict=False)
            )
        row |= {
            f"seconds_an_image_{name}": seconds / 4,
            f"peak_gib_{name}": peak_gib(drawing.device),
        }
        pixels.append(decoded)
    vae.disable_slicing()
    row["largest_difference"] = float((pixels[0].float() - pixels[1].float()).abs().max())
    return row | {"peak_gib": row["peak_gib_whole"]}


def sliced(drawing: Drawing, batch: Row | None) -> Row:
    """The whole call with sliced decoding, which stays on from here."""
    drawing.generator.pipeline.vae.enable_slicing()
    row = four_at_once(drawing)
    return row | {"same_bytes_as_whole": batch is not None and batch["digest"] == row["digest"]}


def compile_blocks(drawing: Drawing) -> Row:
    """Compiles each block of the denoiser; the first step with them, less a later one."""
    import torch

    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    for block in drawing.generator.pipeline.transformer.transformer_blocks:
        # On a CPU the compiler takes half a minute; there, only what it is given is looked at.
        block.compile(backend="inductor" if drawing.is_real else "eager")
    cold, _ = timed(drawing.device, lambda: drawing.draw(2))
    warm, _ = timed(drawing.device, lambda: drawing.draw(2))
    return {
        "seconds_to_compile": cold - warm,
        "graphs": counters["stats"].get("unique_graphs", 0),
        "graph_breaks": sum(counters["graph_break"].values()),
    }


def encoding(drawing: Drawing) -> Row:
    """The three text encoders alone, prompt and negative prompt."""
    seconds, _ = timed(drawing.device, lambda: encoded(drawing))
    return {"seconds_a_prompt": seconds}


def encoded(drawing: Drawing) -> Any:
    """The embeddings of the prompt, as the pipeline makes them."""
    import torch

    with torch.inference_mode():
        pipeline = drawing.generator.pipeline
        pipeline.row_scales = SCALES
        return pipeline.encode_prompt(
            prompt=PROMPT,
            prompt_2=None,
            prompt_3=None,
            negative_prompt="",
            device=torch.device(drawing.device),
            num_images_per_prompt=4,
        )


def without_t5(drawing: Drawing) -> Row:
    """Denoising and decoding with embeddings that were made before, T5 gone; a few steps."""
    import torch

    pipeline = drawing.generator.pipeline
    names = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )
    embeddings = dict(zip(names, encoded(drawing), strict=True))
    pipeline.text_encoder_3 = None
    reset_peak(drawing.device)
    steps = 4
    pipeline.row_scales = SCALES
    seconds, _ = timed(
        drawing.device,
        lambda: pipeline(
            **embeddings,
            num_images_per_prompt=1,
            num_inference_steps=steps,
            height=drawing.side,
            width=drawing.side,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        ),
    )
    return {"seconds": seconds, "steps": steps, "peak_gib": peak_gib(drawing.device)}
