"""What diffusers' pipelines can do, as far as it decides what is drawn, and loading their parts.
The table stands here so that a configuration is checked where there is no diffusers.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lib import weights
from lib.jobs.memory import free_device_memory, is_out_of_memory
from lib.loading import load_whole
from lib.progress import log

if TYPE_CHECKING:
    import torch

INDEX = "model_index.json"
#: What computing four images of a megapixel takes beside the weights, decoded one by one
#: (docs/gpu.md: a peak of 19.0 GiB, of which 16.2 are weights).
WORKING_BYTES = 4 * 2**30
#: What a folder's files say of its pipeline.
DESCRIPTIONS = (INDEX, "transformer/config.json", "unet/config.json")


class Abilities(NamedTuple):
    """What a pipeline takes besides a prompt, a size, steps, seeds and a guidance scale.

    negative  a negative prompt
    length    how many tokens of a prompt its encoder reads
    by_row    its guidance is computed from (batch, channels, height, width), so that each image of
              a batch can have a scale of its own
    """

    negative: bool = True
    length: bool = True
    by_row: bool = False


#: The text-to-image pipelines of diffusers that take a guidance scale and many images a prompt.
PIPELINES: Mapping[str, Abilities] = {
    "StableDiffusionPipeline": Abilities(length=False, by_row=True),
    "StableDiffusionXLPipeline": Abilities(length=False, by_row=True),
    "StableDiffusion3Pipeline": Abilities(by_row=True),
    "FluxPipeline": Abilities(negative=False),
    "Flux2Pipeline": Abilities(negative=False),
    "Flux2KleinPipeline": Abilities(negative=False),
    "ZImagePipeline": Abilities(),
    "ChromaPipeline": Abilities(),
    "SanaPipeline": Abilities(),
    "SanaSprintPipeline": Abilities(negative=False),
    "PixArtAlphaPipeline": Abilities(),
    "PixArtSigmaPipeline": Abilities(),
    "Lumina2Pipeline": Abilities(),
    "AuraFlowPipeline": Abilities(),
    "CogView4Pipeline": Abilities(),
    "KolorsPipeline": Abilities(),
    "HunyuanDiTPipeline": Abilities(length=False),
    "LatentConsistencyModelPipeline": Abilities(negative=False, length=False),
}


def known_folder(values: Mapping[str, Any]) -> Path | None:
    """The folder of a block's model, if it is on this machine already."""
    model, revision = values.get("model"), values.get("revision", "main")
    if not isinstance(model, str) or not isinstance(revision, str):
        return None
    try:
        is_here = weights.is_folder(model)
        return weights.folder_of(model) if is_here else weights.cached_folder(model, revision)
    except (ValueError, OSError):
        return None  # what is wrong with the name is told with its key


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a pipeline's folder; empty where there is none to be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def pipeline_in(folder: Path | None) -> str | None:
    """The class that a folder's model_index.json names; None where it cannot be read."""
    name = read_json(folder / INDEX).get("_class_name") if folder else None
    return name if isinstance(name, str) else None


def ignores_guidance(folder: Path) -> bool:
    """Whether a distilled model was made without any guidance, so that all scales draw the same."""
    pipeline = pipeline_in(folder)
    if pipeline == "FluxPipeline":
        return not read_json(folder / "transformer/config.json").get("guidance_embeds", False)
    return pipeline == "Flux2KleinPipeline" and bool(read_json(folder / INDEX).get("is_distilled"))


def load_networks(folder: Path, dtype: str, left_out: Container[str]) -> dict[str, Any]:
    """The networks of a pipeline's folder by name, each whole: the pipeline itself would fill in
    what is missing at random. Errors: ValueError that names the network's folder.
    """
    import torch

    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a pipeline of diffusers: {error}") from error
    networks = {}
    for name, entry in index.items():
        if name not in left_out and (folder / name / "config.json").is_file():
            library, class_name = _entry_of(folder, name, entry)
            networks[name] = load_whole(
                getattr(import_module(library), class_name),
                folder / name,
                unused=r".*\bposition_ids$",  # older checkpoints number the positions
                dtype=getattr(torch, dtype),
                use_safetensors=True,
            )
    return networks


def _entry_of(folder: Path, name: str, entry: Any) -> tuple[str, str]:
    """The module and the class of a part of a pipeline. Errors: ValueError for another library:
    what a folder names is not imported just for that.
    """
    match entry:
        case [("diffusers" | "transformers") as library, str(class_name)]:
            return library, class_name
        case ["stable_diffusion", "StableDiffusionSafetyChecker" as class_name]:
            return "diffusers.pipelines.stable_diffusion.safety_checker", class_name
        case ["kolors", "ChatGLMModel" as class_name]:
            return "diffusers.pipelines.kolors.text_encoder", class_name
    raise ValueError(
        f"{folder}/model_index.json: `{name}` is {entry!r}, which is no class of diffusers or"
        " transformers"
    )


def place(pipeline: Any, device: str) -> None:
    """Puts a pipeline onto a device, ready to draw.

    On a GPU images are decoded one by one, which changes no byte and takes a quarter of the memory;
    where its memory does not hold all networks at once, each is there only while it computes.
    """
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.decode = partial(decode_with_room, pipeline, pipeline.vae.decode)
    if device == "cuda" and hasattr(pipeline.vae, "enable_slicing"):
        pipeline.vae.enable_slicing()
    if device == "cuda" and not fits_into_memory(pipeline):
        log.info("the GPU's memory is short: each network is there only while it computes")
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)


def fits_into_memory(pipeline: Any) -> bool:
    """Whether the GPU has room for all networks of a pipeline, and for computing with them."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    held = sum(
        parameter.nbytes for each in networks_of(pipeline) for parameter in each.parameters()
    )
    return bool(held + WORKING_BYTES < free)


def networks_of(pipeline: Any) -> "list[torch.nn.Module]":
    """The networks of a pipeline."""
    import torch

    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def decode_with_room(pipeline: Any, decode: Any, latents: "torch.Tensor", **options: Any) -> Any:
    """What a VAE makes of latents. Where the memory does not suffice, the other networks make room
    meanwhile: what is drawn is not drawn again.
    """
    try:
        return decode(latents, **options)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    log.warning("out of memory at decoding: the other networks make room")
    with elsewhere([part for part in networks_of(pipeline) if part is not pipeline.vae]):
        return decode(latents, **options)


@contextmanager
def elsewhere(networks: "Sequence[torch.nn.Module]") -> Iterator[None]:
    """Has networks that are on a GPU in the machine's memory meanwhile."""
    places = [next(network.parameters()).device for network in networks]
    for network in networks:
        network.to("cpu")
    free_device_memory()
    try:
        yield
    finally:
        for network, device in zip(networks, places, strict=True):
            network.to(device)


@cache
def per_row(pipeline: str) -> Any:
    """A pipeline's class with a guidance scale for each row of its batch, given as `row_scales`."""
    import diffusers
    import torch

    class PerRowPipeline(getattr(diffusers, pipeline)):  # type: ignore[misc]
        row_scales: Sequence[float] = ()

        @property
        def guidance_scale(self) -> "torch.Tensor":
            """The scales, (batch, 1, 1, 1): each multiplies its row's (channels, height, width)."""
            like = getattr(self, "transformer", None) or self.unet
            scales = torch.tensor(self.row_scales, dtype=like.dtype, device=like.device)
            return scales.reshape(-1, 1, 1, 1)

        @property
        def do_classifier_free_guidance(self) -> bool:
            """Whether there is guidance at all, which a batch has or has not as a whole."""
            return min(self.row_scales) > 1

    return PerRowPipeline
