"""Rule merge_pairs: the pairs of all shards as one data set of a given size, in every form that
others train on (lib/data/export_forms/).

Each pair is read, handed to all forms and forgotten, and what is known of all pairs stands in
temporary files: what is held in memory does not grow with their number. The folder is made beside
its place and takes it at the end. `dataset.json` says what is in it; `CHANGELOG.md` what changed
since the data set was made before.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from lib.config.pairs import MergePairsJob
from lib.data.builds import pair_digest, read_builds
from lib.data.data_sets import (
    PAIRS,
    TRAIN,
    DataSetPair,
    DataSetSource,
    Split,
    reason_of,
    split_of,
    stratified,
)
from lib.data.export_forms.base import Contents
from lib.data.export_forms.registry import FORMS
from lib.data.rows import ImagesRow, MissingRow, PairRow, ResponseRankingRow
from lib.data.shards import is_missing
from lib.data.stored_mapping import StoredMapping
from lib.data.stored_rows import StoredRows, whole_stored_rows
from lib.errors import UserError
from lib.files import canonical_json, replacing_folder, write_json, write_text
from lib.jobs.job import Job
from lib.jobs.script import run_script

VERSION = 1


class Summary:
    """What is in a data set, gathered pair by pair: how many of each topic, what each pair and each
    picture (from the run's folder on) is known by. The digest is that of the canonical JSON of a
    list of all pairs.
    """

    def __init__(self, folder: str) -> None:
        """`folder`: the data set's, from the run's folder on."""
        self.folder = folder
        self.topics: Counter[str] = Counter()
        self.digests: StoredMapping[str, str] = StoredMapping()
        self.pictures: StoredMapping[str, str] = StoredMapping()
        self._state = sha256(b"[")

    def add(self, pair: DataSetPair) -> None:
        """Takes the next pair."""
        sides = {
            name: {"policy": side.policy, "text": side.text, "score": side.score}
            for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
        }
        content = [pair.id, pair.image_sha256, pair.instruction, sides | {"margin": pair.margin}]
        text = canonical_json(content)
        self._state.update(f"{', ' if self.topics else ''}{text}".encode())
        self.topics[pair.topic] += 1
        self.digests[pair.id] = pair_digest(text)
        self.pictures[f"{self.folder}/{pair.image_file}"] = pair.image_sha256

    def digest(self) -> str:
        """sha256 (hex) of all pairs."""
        state = self._state.copy()
        state.update(b"]")
        return state.hexdigest()


def write_forms(
    pairs: Iterable[tuple[Split, DataSetPair]], contents: Contents, folder: Path, summary: Summary
) -> None:
    """Writes the pairs in all forms, and adds them to the summary."""
    with ExitStack() as stack:
        forms = [form for form in FORMS if form.is_for(contents)]
        takers = [stack.enter_context(form.write(folder, contents)) for form in forms]
        for split, pair in pairs:
            for take in takers:
                take(split, pair)
            summary.add(pair)


def number_of(size: str, pairs: int, rows: Collection[PairRow | MissingRow]) -> int:
    """How many pairs a data set of a size has. `rows`: of all prompts, for the reasons.

    Errors: UserError where there are fewer pairs.
    """
    number = pairs if size == "all" else int(size)
    if pairs >= number > 0:
        return number
    reasons = Counter(reason for row in rows if (reason := reason_of(row)) != PAIRS)
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    mend = (
        "Mend that, or write other prompts"
        if size == "all"
        else "Run the same command again: all that is finished is kept, and this size is left out"
        " with its experiments, the reason beside the dash in the tables. For a data set of this"
        " size write more prompts (target `prompts`); `pairs.sizes: [all]` takes as many pairs as"
        " there are"
    )
    raise UserError(
        f"pairs.sizes: {len(rows)} prompts gave {pairs} pairs, too few for a data set of"
        f" size {size}. Without a pair: {told}. {mend}."
    )


def refuse_no_training(splits: Counter[Split], validation: float) -> None:
    """A UserError where no pair is left to train on. `splits`: how many pairs are in each."""
    if not splits[TRAIN]:
        raise UserError(
            f"pairs.validation: {validation:g} of {splits.total()} pairs leaves none to train on."
            " Lower it, or write more prompts."
        )


def names_of_pairs(rows: StoredRows[PairRow]) -> StoredMapping[int, str]:
    """The ids of the prompts that gave a pair, by their places in the order of data sets."""
    with_pair = (row for row in rows.read() if not is_missing(row) and "pair" in row)
    return StoredMapping(enumerate(stratified((row["topic"], row["id"]) for row in with_pair)))


def write_data_set(job: Job[MergePairsJob], inputs: Any, size: str, folder: Path) -> Summary:
    """Writes the data set into a folder that is there; returns what is in it."""
    rows = whole_stored_rows(job, inputs.pairs, PairRow)
    source = DataSetSource(
        job.root,
        rows,
        whole_stored_rows(job, inputs.images, ImagesRow),
        whole_stored_rows(job, inputs.rankings, ResponseRankingRow),
    )
    there = names_of_pairs(rows)
    number = number_of(size, len(there), rows.values())

    def names() -> Iterator[str]:
        return (name for _, name in islice(there.items(), number))

    validation = job.settings.validation
    split_of_each = [TRAIN] * number
    if validation:
        split_of_each = [split_of(rows[name]["prompt"], validation) for name in names()]
    splits = Counter(split_of_each)
    refuse_no_training(splits, validation)
    contents = Contents(f"{job.root.name}-{size}", dict(sorted(splits.items())))
    summary = Summary(f"dataset/{size}")
    write_forms(zip(split_of_each, source.read(names()), strict=True), contents, folder, summary)
    write_text(folder / "prompt_ids.txt", (f"{name}\n" for name in names()))
    told = {
        "size": number,
        "pairs_there_are": len(there),
        "topics": summary.topics,
        "digest": summary.digest(),
    }
    write_json(folder / "dataset.json", told | ({"splits": splits} if validation else {}))
    history = job.work / f"{size}.builds.jsonl"
    builds = read_builds(history)
    builds.add(summary.digests)
    builds.write(history)
    write_text(folder / "CHANGELOG.md", builds.changelog())
    job.count(number)
    return summary


def publish_data_set(job: Job[MergePairsJob], inputs: Any, size: str, folder: Path) -> None:
    """Makes a data set's folder, whole or not at all, in the place of what is there."""
    with replacing_folder(folder) as unfinished:
        summary = write_data_set(job, inputs, size, unfinished)
    job.also_publishes(sorted(folder.iterdir()), summary.pictures)


def main(snakemake: Any) -> None:
    with Job(snakemake, MergePairsJob, VERSION) as job:
        folder = Path(snakemake.output.summary).parent
        publish_data_set(job, snakemake.input, snakemake.wildcards.size, folder)


if __name__ == "__main__":
    run_script(main)
