"""ImageReward and CLIP-L by the workflow's own classes: PNGs of 1024 pixels decoded by one thread
and by eight, and what TF32 does to scores.
"""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu.pictures_of import write_pictures
from gpu.report import Report, Row, timed
from gpu.weights import build

PROMPT = "a red bird on a wooden fence beside a lake at noon"
PICTURES = 16
THREADS = 8


#: Imported before the device is the section's own.
LIBRARIES = (
    "lib.models.image_scorers.clip",
    "lib.models.image_scorers.image_reward",
    "transformers:BlipTextModel",
    "transformers:CLIPModel",
)


def run(report: Report) -> None:
    """Measures what is missing."""
    is_real = report.device == "cuda"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_pictures(folder / "pictures", PICTURES, 1024 if is_real else 64)
        report.measure("PNGs decoded", lambda: decoded(paths))
        loaded = report.measure("ImageReward loaded", lambda: written(folder, report.device))
        if loaded is not None:
            reward = image_reward(folder, report.device)
            measure_scorer(report, "ImageReward", reward, paths)
            del reward
        measure_scorer(report, "CLIP-L", clip(report.device), paths)


def decoded(paths: Sequence[Path]) -> Row:
    """Decoding alone, as rank_images does it and with eight threads."""
    from lib.data.image_files import read_image

    one, _ = timed("cpu", lambda: [read_image(path) for path in paths])
    with ThreadPoolExecutor(THREADS) as pool:
        eight, _ = timed("cpu", lambda: list(pool.map(read_image, paths)))
    return {
        "seconds_a_picture_1_thread": one / len(paths),
        "seconds_a_picture_8_threads": eight / len(paths),
        "megabytes_a_picture": sum(path.stat().st_size for path in paths) / len(paths) / 1e6,
    }


def written(folder: Path, device: str) -> Row:
    """Writes an ImageReward in the original's layout, and times its loading from the disk's
    cache.
    """
    from tiny.image_reward import FULL_MED_CONFIG, write_image_reward
    from tiny.tokenization import bert_tokenizer

    real: dict[str, Any] = {"vision_width": 1024, "vision_layers": 24, "image_size": 224}
    sizes = real | {"text": FULL_MED_CONFIG} if device == "cuda" else {}
    write_image_reward(folder / "image-reward", tokenizer=bert_tokenizer(), **sizes)
    seconds, _ = timed(device, lambda: image_reward(folder, device))
    return {"load_seconds": seconds}


def image_reward(folder: Path, device: str) -> Any:
    """The scorer that `written` wrote, in float32 as configured."""
    from lib.models.image_scorers.image_reward import ImageReward

    return ImageReward(folder / "image-reward", folder / "image-reward", device, "float32")


def clip(device: str) -> Any:
    """openai/clip-vit-large-patch14's sizes in the workflow's class, in bfloat16, the default."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from lib.models.image_scorers.clip import CLIPScore
    from tiny.tokenization import clip_tokenizer

    is_real = device == "cuda"
    tokenizer = clip_tokenizer()
    text = {
        "vocab_size": 49408,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 1,
    }
    vision: dict[str, Any] = {"image_size": 224, "patch_size": 14}
    if is_real:
        text |= {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        vision |= {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        }
    else:
        small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        small |= {"num_hidden_layers": 2}
        text |= small
        vision = small | {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    scorer = CLIPScore.__new__(CLIPScore)  # its constructor would read weights from files
    dtype = "bfloat16" if is_real else "float32"
    scorer.model = build(device, dtype, lambda: CLIPModel(config))
    side = vision["image_size"]
    scorer.image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    scorer.tokenizer = tokenizer
    scorer.max_prompt_tokens = 77
    scorer.device = device
    return scorer


def measure_scorer(report: Report, name: str, scorer: Any, paths: Sequence[Path]) -> None:
    """What a picture costs in batches of four, and what TF32 does to its score."""
    scorer.score(PROMPT, pictures_of(paths[:4]))
    report.measure(f"{name}, read and scored, 1 thread", lambda: one_thread(report, scorer, paths))
    report.measure(f"{name}, read by 8 threads ahead", lambda: eight_threads(report, scorer, paths))
    report.measure(f"{name}, TF32", lambda: tf32(report, scorer, paths))


def pictures_of(paths: Sequence[Path]) -> list[Any]:
    """The pictures in files."""
    from lib.data.image_files import read_image

    return [read_image(path) for path in paths]


def fours(paths: Sequence[Path]) -> list[Sequence[Path]]:
    """The candidates of one prompt after the other."""
    return [paths[start : start + 4] for start in range(0, len(paths), 4)]


def one_thread(report: Report, scorer: Any, paths: Sequence[Path]) -> Row:
    """As rank_images does it; and with the pictures in memory."""
    seconds, _ = timed(
        report.device, lambda: [scorer.score(PROMPT, pictures_of(four)) for four in fours(paths)]
    )
    pictures = pictures_of(paths[:4])
    alone, _ = timed(report.device, lambda: scorer.score(PROMPT, pictures))
    return {
        "seconds_a_picture": seconds / len(paths),
        "seconds_a_picture_in_memory": alone / 4,
    }


def eight_threads(report: Report, scorer: Any, paths: Sequence[Path]) -> Row:
    """Pictures decoded ahead by a pool, scored in the main thread."""

    def work() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for four in [pool.map(pictures_of, [[path] for path in four]) for four in fours(paths)]:
                scorer.score(PROMPT, [picture for (picture,) in four])

    seconds, _ = timed(report.device, work)
    return {"seconds_a_picture": seconds / len(paths)}


def tf32(report: Report, scorer: Any, paths: Sequence[Path]) -> Row:
    """Scores as they are, and with TF32 for convolutions off, and on for matrices too."""
    import torch

    scores = {}
    pictures = pictures_of(paths[:4])
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    for name, switches in (
        ("off", (False, False)),
        ("convolutions", (True, False)),
        ("convolutions_and_matrices", (True, True)),
    ):
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = switches
        scores[name] = scorer.score(PROMPT, pictures)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    row: Row = {"as_torch_sets_it": f"convolutions {before[0]}, matrices {before[1]}"}
    for name in ("convolutions", "convolutions_and_matrices"):
        pairs = zip(scores["off"], scores[name], strict=True)
        row[f"largest_difference_{name}"] = max(abs(one - other) for one, other in pairs)
    row["spread_of_scores"] = max(scores["off"]) - min(scores["off"])
    return row
