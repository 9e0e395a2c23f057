"""Data sets that stay as they are (`pairs.freeze`), and how they differ from what they would be."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.config.pairs import ALL
from lib.data.data_sets import ordered_pairs
from lib.data.export_forms.llava import LlavaRecord, llava_record
from lib.data.export_forms.registry import is_of_before
from lib.data.rows import PairRow
from lib.data.shards import read_shards
from lib.head.plan import Plan

#: A regular expression of the sizes of data sets.
SIZE = rf"(?:\d+|{ALL})"


def not_frozen(plan: Plan) -> str:
    """A regular expression of the sizes that rule merge_pairs makes: all but the frozen ones."""
    frozen = "|".join(map(str, plan.frozen_sizes))
    return rf"(?!(?:{frozen})/){SIZE}" if frozen else SIZE


def folders_of_before(plan: Plan) -> list[Path]:
    """The frozen data sets from before there were more forms."""
    folders = (Path(plan.root, "dataset", str(size)) for size in plan.frozen_sizes)
    return [*filter(is_of_before, folders)]


def tell_old_forms(plan: Plan) -> list[str]:
    """What each frozen data set from before there were more forms lacks, a line each."""
    return [
        f"{folder} is frozen (`pairs.freeze`) in the form of before: it has no card, and its column"
        " `prompt` is the text-to-image prompt, which trainers would take for the question. This"
        " run's own trainings read it right. To have today's forms of the same pairs, set"
        " `pairs.freeze: false` and run again."
        for folder in folders_of_before(plan)
    ]


def tell_differences(plan: Plan) -> list[str]:
    """How each frozen data set differs from the run's pairs as they are now, a line each."""
    files = plan.stages.files("pairs")
    if not plan.frozen_sizes or not all(Path(file).is_file() for file in files):
        return []
    pairs = ordered_pairs(read_shards(files, PairRow).values())
    now = {row["id"]: _without_place(_record_of(row)) for row in pairs}
    lines = []
    for size in plan.frozen_sizes:
        path = Path(plan.root, "dataset", str(size), "llava.json")
        kept = {each["id"]: _without_place(each) for each in json.loads(path.read_text("utf-8"))}
        of_size = dict(list(now.items())[: None if isinstance(size, str) else size])
        gone, new = kept.keys() - of_size.keys(), of_size.keys() - kept.keys()
        other = [name for name in kept.keys() & of_size.keys() if kept[name] != of_size[name]]
        if gone or new or other:
            lines.append(
                f"{path.parent} is frozen (`pairs.freeze`). Made now, it would lose {len(gone)} of"
                f" its pairs, gain {len(new)}, and have {len(other)} with another picture,"
                " instruction or answer. To make it and its trainings anew, set `pairs.freeze:"
                " false` and run again."
            )
    return lines


def _record_of(row: PairRow) -> LlavaRecord:
    sides = row["pair"]["chosen"]["text"], row["pair"]["rejected"]["text"]
    return llava_record(row["id"], row["image"]["file"], row["instruction"], *sides)


def _without_place(record: Mapping[str, Any]) -> dict[str, Any]:
    """A pair without the folder of its picture, which is its shard's."""
    return {**record, "image": Path(record["image"]).name}
