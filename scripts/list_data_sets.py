"""Rule list_data_sets: a card above the data sets of all sizes, by which `datasets` and the hub
load one of them by its name. Without it `load_dataset` would mix them, and they contain each other.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lib.data.data_sets import TRAIN
from lib.data.export_forms.base import Contents
from lib.data.export_forms.registry import is_of_before
from lib.files import write_text
from lib.jobs.job import Job, NoSettings
from lib.jobs.script import run_script
from lib.report.data_set_card import config_of
from lib.report.markdown_card import markdown_table, with_metadata

VERSION = 1
TEXT = """\
# Data sets by size

The smaller ones are parts of the larger ones, so load one of them:
`load_dataset("<this folder>", "{name}")`. What is in it, how it was made and under what licence it
stands is said by the README.md in its folder.

"""
OF_BEFORE = """
Those without a card are frozen (`pairs.freeze`) in the form of before: `prompt` is the
text-to-image prompt there, and `instruction` the question. Do not give them to a trainer as they
are; `pairs.freeze: false` makes today's forms of them.
"""


def contents_of(summary: Path) -> Contents:
    """What a data set has, by its `dataset.json`; its name is its folder's."""
    told = json.loads(summary.read_text(encoding="utf-8"))
    return Contents(summary.parent.name, told.get("splits", {TRAIN: told["size"]}))


def card_of(data_sets: list[Contents], of_before: Collection[str] = ()) -> str:
    """The card. `of_before`: the names of those that have no card of their own."""
    configs = [config_of(each.name, f"{each.name}/", each) for each in data_sets]
    rows = [
        [name if name in of_before else f"[{name}]({name}/README.md)", each.pairs]
        for each in data_sets
        for name in [each.name]
    ]
    text = TEXT.format(name=data_sets[-1].name) + markdown_table(["Data set", "Pairs"], rows)
    text += "\n" + (OF_BEFORE if of_before else "")
    return with_metadata({"configs": configs}, text)


def main(snakemake: Any) -> None:
    with Job(snakemake, NoSettings, VERSION) as job:
        summaries = [Path(summary) for summary in snakemake.input]
        data_sets = [contents_of(summary) for summary in summaries]
        of_before = {each.parent.name for each in summaries if is_of_before(each.parent)}
        write_text(Path(snakemake.output[0]), card_of(data_sets, of_before))
        job.count(len(data_sets))


if __name__ == "__main__":
    run_script(main)
