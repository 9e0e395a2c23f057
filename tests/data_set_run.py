"""A run's folder with pairs, pictures and rankings as its stages publish them, and the rules that
make data sets of it.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

import data_set_card
import list_data_sets
import merge_pairs
from lib.data.rows import ImagesRow, MissingRow, Pair, PairRow, PickedImage, ResponseRankingRow
from lib.files import digest_of_file, write_jsonl
from lib.report.data_set_card import DataSetCardJob
from lib.report.licence import UsedModel
from lib.report.sidecar import ModelOrigin

#: `rule_object` of conftest.py.
MakeRule = Callable[..., SimpleNamespace]
ATTRIBUTES = {"helpfulness": 3.5, "verbosity": 1.0}


def id_of(topic: str, number: int) -> str:
    """The prompt id of a numbered prompt."""
    return f"{topic}-{sha256(f'{topic}{number}'.encode()).hexdigest()[:10]}"


def pair_row(topic: str, number: int, root: Path | None = None) -> PairRow:
    """A pair; in a run's folder with its picture, whose red says its number."""
    name = id_of(topic, number)
    image: PickedImage = {
        "file": f"images/{topic}/00/{name}-g7.png",
        "sha256": "",
        "guidance_scale": 7.0,
        "score": 1.0,
    }
    if root:
        path = root / image["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(path)
        image["sha256"] = digest_of_file(path)
    pair: Pair = {
        "chosen": {"policy": "a", "text": f"right {number}", "score": 1.0},
        "rejected": {"policy": "b", "text": 'wrong 😀 "quoted"', "score": 0.0},
        "margin": 1.0,
    }
    return {
        "id": name,
        "topic": topic,
        "prompt": f"a picture of {topic} {number}",
        "instruction": "What is it?",
        "image": image,
        "invalid_responses": {},
        "pair": pair,
    }


def images_row(row: PairRow) -> ImagesRow:
    """What stage images published of a pair's prompt."""
    image = row["image"]
    candidate: Any = {name: image[name] for name in ("file", "sha256", "guidance_scale")}
    return {
        "id": row["id"],
        "topic": row["topic"],
        "prompt": row["prompt"],
        "candidates": [candidate | {"seed": 42, "blank": False}],
    }


def ranking_row(row: PairRow) -> ResponseRankingRow:
    """What stage response ranking published of a pair's prompt."""
    told = {name: row[name] for name in ("id", "topic", "prompt", "image", "instruction")}
    responses = {policy: {"attributes": ATTRIBUTES} for policy in ("a", "b")}
    ranked: Any = {**told, "responses": responses}
    return ranked  # type: ignore[no-any-return]


def write_run(
    root: Path,
    rows: Sequence[PairRow],
    others: Sequence[PairRow | MissingRow] = (),
    shard: str = "00",
) -> dict[str, list[str]]:
    """Writes the files of a shard; returns them by the names of merge_pairs' inputs. `others`:
    prompts without a pair.
    """
    contents: dict[str, tuple[str, Sequence[Any]]] = {
        "pairs": ("pairs", [*rows, *others]),
        "images": ("images", [images_row(row) for row in rows]),
        "rankings": ("response_ranking", [ranking_row(row) for row in rows]),
    }
    files = {}
    for name, (stage, of_stage) in contents.items():
        path = root / stage / "all" / f"{shard}.jsonl"
        write_jsonl(path, of_stage)
        files[name] = [str(path)]
    return files


def make_data_set(
    rule_object: MakeRule,
    root: Path,
    inputs: dict[str, list[str]],
    size: str,
    validation: float = 0,
) -> Path:
    """Has rule merge_pairs make a data set; returns its folder."""
    folder = root / "dataset" / size
    folder.mkdir(parents=True, exist_ok=True)
    merge_pairs.main(
        rule_object(
            "merge_pairs",
            {"size": size},
            SimpleNamespace(**inputs),
            SimpleNamespace(summary=str(folder / "dataset.json")),
            settings={"validation": validation},
            common={"root": str(root)},
        )
    )
    return folder


MODEL = UsedModel(
    does="answers", makes=True, origin=ModelOrigin(model="someone/model", revision="a" * 40)
)
CARD = DataSetCardJob(
    run="test",
    label="ours",
    license=None,
    languages=["en"],
    code="https://example.org/code",
    models=[MODEL],
    instructions="was drawn from a list",
    configuration={"seed": 7},
)


def describe_data_set(
    rule_object: MakeRule,
    root: Path,
    inputs: dict[str, list[str]],
    folder: Path,
    job: DataSetCardJob = CARD,
    **also: str,
) -> None:
    """Has rule data_set_card describe a data set. `also`: further inputs."""
    names = {"ids": "prompt_ids.txt", "summary": "dataset.json"}
    files = {name: str(folder / file) for name, file in names.items()}
    output = {"card": "README.md", "licence": "LICENSE.md", "croissant": "croissant.json"}
    output["sums"] = "SHA256SUMS"
    data_set_card.main(
        rule_object(
            "data_set_card",
            {"size": folder.name},
            SimpleNamespace(pairs=inputs["pairs"], **files, **also),
            SimpleNamespace(**{name: str(folder / file) for name, file in output.items()}),
            settings=job.model_dump(mode="json"),
            common={"root": str(root)},
        )
    )


def list_sizes(rule_object: MakeRule, root: Path, folders: Sequence[Path]) -> Path:
    """Has rule list_data_sets write the card above the sizes; returns it."""
    card = root / "dataset" / "README.md"
    summaries = [str(folder / "dataset.json") for folder in folders]
    list_data_sets.main(rule_object("list_data_sets", {}, summaries, [str(card)]))
    return card
