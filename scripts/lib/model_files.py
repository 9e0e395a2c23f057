"""Which files a model's folder must hold, so that one that cannot be loaded is told before the run.

Names and sizes are looked at, and what an index and the head of a file of safetensors list; nothing
is loaded. A folder that may do is let pass: its job tells the rest.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

#: How a file begins that Git LFS left in another one's place.
LFS_POINTER = b"version https://git-lfs"
#: What transformers and diffusers call the weights of a network.
NETWORKS = ("model.safetensors", "diffusion_pytorch_model.safetensors")
#: Pickles, which torch reads with `weights_only`.
PICKLES = ("pytorch_model.bin",)
#: How files of weights end.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
TOKENIZERS = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json"),
)
IMAGE_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
#: How the parts of a pipeline are called that none goes without.
PARTS = ("transformer", "unet", "vae", "text_encoder", "tokenizer", "scheduler")


def problem_with_checkpoint(folder: Path, others: Sequence[str] = ()) -> str | None:
    """What a folder in transformers' layout lacks: its configuration, whole weights, a tokenizer, a
    processor of images where the model sees; None if nothing. `others`: files of weights that are
    read where there are no safetensors.
    """
    if problem := _problem_with(folder, "config.json"):
        return problem
    config = _json(folder / "config.json")
    is_classifier = any(
        "ForImageClassification" in str(n) for n in config.get("architectures") or ()
    )
    return (
        problem_with_weights(folder, others=others)
        or (None if is_classifier else problem_with_any(folder, TOKENIZERS, "tokenizer"))
        or (
            problem_with_any(folder, IMAGE_PROCESSORS, "processor of images")
            if is_classifier or "vision_config" in config
            else None
        )
    )


def problem_with_pipeline(folder: Path, left_out: Collection[str] = ()) -> str | None:
    """What a folder in diffusers' layout lacks of the parts that it names; None if nothing.
    `left_out`: the parts that are not loaded.
    """
    if problem := _problem_with(folder, "model_index.json"):
        return problem
    for name, entry in _json(folder / "model_index.json").items():
        is_part = isinstance(entry, list) and all(entry) and name.startswith(PARTS)
        if is_part and name not in left_out and (problem := _problem_with_part(folder, name)):
            return problem
    return None


def _problem_with_part(folder: Path, name: str) -> str | None:
    if name.startswith("scheduler"):
        return _problem_with(folder, f"{name}/scheduler_config.json")
    if name.startswith("tokenizer"):
        return problem_with_any(folder, [f"{name}/{file}" for file in TOKENIZERS], "tokenizer")
    return _problem_with(folder, f"{name}/config.json") or problem_with_weights(folder, f"{name}/")


def problem_with_weights(folder: Path, within: str = "", others: Sequence[str] = ()) -> str | None:
    """Why the weights of a folder, or of a part `within` it, cannot be read; None if they can."""
    for name in (*NETWORKS, *others):
        for file in (f"{within}{name}", f"{within}{name}.index.json"):
            if _is_named(folder / file):
                files = [file, *_shards(folder, file)] if file.endswith(".json") else [file]
                return problem_with_all(folder, files)
    wanted = " or ".join([f"{within}*.safetensors" if within else NETWORKS[0], *others])
    there = [
        f"{within}{path.name}"
        for path in (sorted((folder / within).iterdir()) if (folder / within).is_dir() else ())
        if path.suffix in WEIGHTS
    ]
    if not there:
        return f"it has no weights ({wanted})"
    shown = there[0] + (f" and {len(there) - 1} more" if len(there) > 1 else "")
    if there[0].endswith(".safetensors"):
        return f"it has {shown}, but neither {wanted} nor its index (*.safetensors.index.json)"
    return (
        f"of weights it has {shown} alone, and only safetensors are read (`save_pretrained` of the"
        " library that it is of writes them)"
    )


def problem_with_all(folder: Path, names: Sequence[str]) -> str | None:
    """The first problem with files that a folder must hold; None if there is none."""
    return next((problem for name in names if (problem := _problem_with(folder, name))), None)


def problem_with_any(folder: Path, names: Sequence[str], what: str) -> str | None:
    """What is wrong where a folder must hold one of these files; None if nothing is. The first that
    is there is read.
    """
    there = next((name for name in names if _is_named(folder / name)), None)
    return _problem_with(folder, there) if there else f"it has no {what} ({names[0]}, or another)"


def _is_named(path: Path) -> bool:
    return path.is_file() or path.is_symlink()


def _shards(folder: Path, index: str) -> Iterator[str]:
    """The files that an index names; what is wrong with the index is told with it."""
    parent = index.rpartition("/")[0]
    weight_map = _json(folder / index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    yield from (f"{parent}/{name}" if parent else str(name) for name in sorted(set(names)))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _problem_with(folder: Path, name: str) -> str | None:
    """What is wrong with a file that a folder must hold."""
    path = folder / name
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            return _problem_inside(file, name, size)
    except FileNotFoundError:
        return f"its {name} is a link to nothing" if path.is_symlink() else f"it has no {name}"
    except OSError as error:
        return f"its {name} cannot be read ({error.strerror})"


def _problem_inside(file: BinaryIO, name: str, size: int) -> str | None:
    head = file.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        return f"its {name} is a pointer of Git LFS in the file's place (`git lfs pull` fetches it)"
    if not size:
        return f"its {name} is empty"
    if name.endswith(".json"):
        file.seek(-min(size, 64), 2)
        is_whole = file.read().rstrip().endswith((b"}", b"]"))
        return None if is_whole else f"its {name} breaks off before its end"
    return _problem_with_tensors(file, name, size) if name.endswith(".safetensors") else None


def _problem_with_tensors(file: BinaryIO, name: str, size: int) -> str | None:
    """Whether a file is as long as the head of its safetensors says."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    try:
        head = json.loads(file.read(min(length, size)))
        ends = [entry["data_offsets"][1] for key, entry in head.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"its {name} is no whole file of safetensors"
    if size < expected:
        return f"its {name} breaks off after {size:,} of {expected:,} bytes"
    return None
