"""Rule import_pairs: pairs that one has already, in the form that training reads.

They are read twice, one pair in memory at a time: first it is found out how many can be trained on.
`dataset.json` says what is in the folder, where it comes from, and why pairs were left out.
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lib import weights
from lib.config.training import ImportPairsJob
from lib.data.data_sets import TRAIN, Split, split_of
from lib.data.export_forms.trl_parquet import TrainedRow, answer, question, split_files
from lib.data.own_pairs import (
    OwnPair,
    nothing_to_train_on,
    open_own_pairs,
    read_own_pairs,
    usable_pairs,
)
from lib.data.pair_forms.settings import OwnPairs
from lib.files import read_jsonl, replacing_folder, write_json
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.training.pairs_digest import digest_pairs

VERSION = 1


def row_of(pair: OwnPair) -> TrainedRow:
    """A pair as training reads it."""
    return {
        "id": pair.id,
        "images": [{"bytes": pair.image, "path": Path(pair.picture).name or "picture"}],
        "prompt": [question(pair.question)],
        "chosen": [answer(pair.chosen)],
        "rejected": [answer(pair.rejected)],
    }


def names_with_overlap(overlaps: str | None) -> set[str]:
    """The ids of pairs that have something in common with a benchmark, where they are to be left
    out.
    """
    return (
        {row["id"] for row in read_jsonl(Path(overlaps)) if row["overlaps"]} if overlaps else set()
    )


def split_of_pair(picture: str, pair_id: str, validation: float) -> Split:
    """The split of a pair, by what its picture is called: pairs of one picture are on one side."""
    return split_of(picture or pair_id, validation)


def write_pairs(job: Job[ImportPairsJob], in_benchmarks: set[str], folder: Path) -> int:
    """Writes the pairs into a folder that is there; returns how many there are. Errors:
    UserError.
    """
    pairs, share = job.settings.pairs, job.settings.validation
    splits = Counter(
        split_of_pair(pair.images[0].name, pair.id, share)
        for pair in usable_pairs(open_own_pairs(pairs), Counter())
        if pair.id not in in_benchmarks
    )
    number, left_out = splits.total(), Counter[str]()
    (folder / "data").mkdir()
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(split_files(folder / "data", split, count))
            for split, count in splits.items()
        }
        megapixels = job.settings.max_image_megapixels
        for pair in read_own_pairs(pairs, megapixels, left_out, in_benchmarks):
            files[split_of_pair(pair.picture, pair.id, share)].add(row_of(pair))
    for reason, count in left_out.items():
        job.note(f"{count} of the pairs of {pairs.origin} left out: {reason}")
    if not splits[TRAIN]:
        left_out["held out (`pairs.validation`)"] = number
        raise nothing_to_train_on(pairs, left_out)
    told = {
        "size": number,
        "digest": digest_pairs(sorted((folder / "data").glob("*.parquet"))).digest,
        "origin": origin_of(pairs),
        "left_out": dict(sorted(left_out.items())),
        **({"splits": dict(sorted(splits.items()))} if share else {}),
    }
    write_json(folder / "dataset.json", told)
    return number


def origin_of(pairs: OwnPairs) -> dict[str, str]:
    """Where the pairs come from; of a data set on the hub its commit, too."""
    form = open_own_pairs(pairs, contents=False).form.name
    if not pairs.is_on_hub:
        return {"source": pairs.origin, "form": form}
    commit = weights.commit_of(pairs.source, pairs.revision, "dataset")
    return {"source": pairs.origin, "commit": commit, "form": form}


def main(snakemake: Any) -> None:
    with Job(snakemake, ImportPairsJob, VERSION) as job:
        summary = Path(snakemake.output.summary)
        in_benchmarks = names_with_overlap(
            next(iter(getattr(snakemake.input, "overlaps", [])), None)
        )
        with replacing_folder(summary.parent) as folder:
            number = write_pairs(job, in_benchmarks, folder)
        job.also_publishes(sorted(summary.parent.iterdir()), {})
        job.count(number)


if __name__ == "__main__":
    run_script(main)
