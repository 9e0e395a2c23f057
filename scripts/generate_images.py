"""Rule generate_images: one image of each prompt at each guidance scale (paper 3.2, Eq. 5).

An item is a prompt: its candidates are one batch, with the prompt encoded once, so that an image
depends on its prompt and the settings only, not on sharding, order or resumption. Image files are
written by a thread while the next prompt is computed.
"""

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib import weights
from lib.data.prompts import Prompt, make_shards, read_prompts, seed_of
from lib.data.shards import stage_rows
from lib.errors import UserError
from lib.files import canonical_json, digest, digest_of_file, mendable_storage_errors, replacing
from lib.jobs.device import require_device
from lib.jobs.job import Item, ShardJob, halving, run_script

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1
#: What of the settings decides how an image looks; the rest is about where the model comes from.
GENERATION = (
    "guidance_scales",
    "steps",
    "height",
    "width",
    "negative_prompt",
    "max_sequence_length",
    "dtype",
    "format",
)
EXIF_IMAGE_DESCRIPTION = 0x010E


class GuidanceScales(float):
    """Several guidance scales for one batch, where diffusers' pipelines expect one number.

    The pipelines multiply it with a tensor of shape (batch, channels, height, width); each row gets
    its own scale. Compared with 1, to decide whether there is guidance at all, it is its smallest
    scale.
    """

    scales: list[float]

    def __new__(cls, scales: Sequence[float]) -> "GuidanceScales":
        """`scales`: one a row of the batch."""
        self = super().__new__(cls, min(scales))
        self.scales = list(scales)
        return self

    def __mul__(self, tensor: Any) -> Any:
        return tensor.new_tensor(self.scales).reshape(-1, *[1] * (tensor.ndim - 1)) * tensor


def read_provenance(path: Path) -> dict[str, Any]:
    """What an image file says about its own making: prompt id, prompt, model, revision, seed and
    all settings.
    """
    from PIL import Image

    with Image.open(path) as image:
        text = getattr(image, "text", {}).get("provenance") or image.getexif().get(
            EXIF_IMAGE_DESCRIPTION
        )
    if not text:
        raise UserError(f"{path}: carries no provenance; it was not made by this workflow.")
    return dict(json.loads(text))


def write_image(
    image: "Image", path: Path, image_format: str, provenance: dict[str, Any], scratch: Path
) -> str:
    """Writes one image with its provenance inside, under a temporary name first; returns the file's
    sha256 (hex).
    """
    from PIL import PngImagePlugin

    options: dict[str, Any] = (
        {"lossless": True}
        if image_format == "webp"
        else {"quality": 95}
        if image_format == "jpeg"
        else {}
    )
    if image_format == "png":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("provenance", canonical_json(provenance))
    else:
        exif = image.getexif()
        exif[EXIF_IMAGE_DESCRIPTION] = json.dumps(provenance, sort_keys=True)
        options["exif"] = exif
    encoded = BytesIO()
    image.save(encoded, format=image_format, **options)
    with replacing(path, scratch) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    return sha256(encoded.getbuffer()).hexdigest()


def load_pipeline(settings: dict[str, Any], device: str) -> Any:
    """The StableDiffusion3Pipeline, on the device, without its T5 encoder if no token of it is
    asked for.
    """
    import torch
    from diffusers import StableDiffusion3Pipeline
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.disable_progress_bar()

    require_device(device)
    without_t5 = (
        {"text_encoder_3": None, "tokenizer_3": None}
        if settings["max_sequence_length"] == 0
        else {}
    )
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        weights.fetch(settings["model"], settings["revision"]),
        dtype=getattr(torch, settings["dtype"]),
        use_safetensors=True,
        **without_t5,
    ).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: Any,
    prompt: Prompt,
    scales: Sequence[float],
    seeds: Sequence[int],
    settings: dict[str, Any],
) -> "list[Image]":
    """One image a guidance scale, in one batch. The noise is drawn on the CPU, so that it is the
    same on every device.
    """
    import torch

    output = pipeline(
        prompt=prompt.text,
        negative_prompt=settings["negative_prompt"],
        num_images_per_prompt=len(scales),
        guidance_scale=GuidanceScales(scales),
        num_inference_steps=settings["steps"],
        height=settings["height"],
        width=settings["width"],
        max_sequence_length=settings["max_sequence_length"] or 256,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    )
    return list(output.images)


def main(snakemake: Any) -> None:
    job = ShardJob(snakemake, VERSION)
    settings = job.settings
    topic, shard_name = snakemake.wildcards.topic, snakemake.wildcards.shard
    prompts = read_prompts(Path(snakemake.input.prompts), topic, settings["max_prompt_characters"])
    shard = next(
        shard
        for shard in make_shards(prompts, settings["shards_per_topic"])
        if shard.name == shard_name
    )
    if shard.digest != snakemake.params.digest:
        raise UserError(
            f"{snakemake.input.prompts}: was edited while the run was starting. Run again."
        )

    identity = weights.identity(settings["model"], settings["revision"])
    job.record.models[settings["model"]] = identity
    generation = {name: settings[name] for name in GENERATION}
    scales: list[float] = settings["guidance_scales"]
    scratch = job.work / f"{job.name}.tmp"
    folder = Path("images", topic, shard_name)

    def item(prompt: Prompt) -> Item:
        seeds = [seed_of(job.seed, "image", prompt.id, scale) for scale in scales]
        return Item(
            prompt.id,
            job.key(prompt=prompt.text, model=identity, generation=generation, seeds=seeds),
            (prompt, seeds),
        )

    def save(item: Item, images: "list[Image]") -> dict[str, Any]:
        prompt, seeds = item.inputs
        candidates = []
        for scale, seed, image in zip(scales, seeds, images, strict=True):
            provenance = {
                name: value for name, value in generation.items() if name != "guidance_scales"
            }
            provenance |= {
                "id": prompt.id,
                "prompt": prompt.text,
                "model": settings["model"],
                "revision": identity,
            }
            provenance |= {"guidance_scale": scale, "seed": seed}
            file = folder / f"{prompt.id}-g{scale:g}-{digest(provenance)[:8]}.{settings['format']}"
            sha256 = write_image(image, job.root / file, settings["format"], provenance, scratch)
            blank = image.convert("RGB").getcolors(maxcolors=1) is not None
            candidates.append(
                {
                    "guidance_scale": scale,
                    "seed": seed,
                    "file": file.as_posix(),
                    "sha256": sha256,
                    "blank": blank,
                }
            )
        return {"candidates": candidates}

    def files_are_whole(item: Item, result: dict[str, Any]) -> bool:
        whole = all(
            (job.root / candidate["file"]).is_file()
            and digest_of_file(job.root / candidate["file"]) == candidate["sha256"]
            for candidate in result["candidates"]
        )
        if not whole:
            job.note(
                f"{item.id}: an image file is missing or damaged; the prompt's images are made"
                " again"
            )
        return whole

    with mendable_storage_errors(job.root), ThreadPoolExecutor(max_workers=1) as writer:

        def generate(pipeline: Any, batch: Sequence[Item]) -> list[Future[dict[str, Any]]]:
            futures = []
            for item in batch:
                prompt, seeds = item.inputs

                def draw_part(
                    part: Sequence[tuple[float, int]], prompt: Prompt = prompt
                ) -> "list[Image]":
                    return draw(
                        pipeline,
                        prompt,
                        [scale for scale, _ in part],
                        [seed for _, seed in part],
                        settings,
                    )

                images = halving(list(zip(scales, seeds, strict=True)), draw_part, job.note)
                futures.append(writer.submit(save, item, images))
            return futures

        outcomes = job.run(
            [item(prompt) for prompt in shard.prompts],
            load=lambda: load_pipeline(settings, job.device),
            compute=generate,
            still_valid=files_are_whole,
        )
    rows = {
        prompt.id: {"id": prompt.id, "topic": topic, "prompt": prompt.text}
        for prompt in shard.prompts
    }
    job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
