"""Rule check_own_pairs: what the pairs that one has already have in common with the benchmarks:
their questions and pictures.

Nothing is decided here: `import_pairs` leaves such pairs out where the configuration says so.
"""

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from lib.config.contamination import CheckOwnPairsJob, OverlapMeasures
from lib.contamination import Index, perceptual_hash
from lib.data.image_files import read_image
from lib.data.own_pairs import OwnPair, read_own_pairs
from lib.data.rows import OverlapsRow
from lib.jobs.job import Job
from lib.jobs.script import run_script

VERSION = 1


def overlaps_of(index: Index, pairs: Iterator[OwnPair], topic: str) -> Iterator[OverlapsRow]:
    """A row a pair. `topic`: what the list of overlaps says of where they come from."""
    for pair in pairs:
        found = [
            *index.of_text("instruction", pair.question),
            *index.of_image(perceptual_hash(read_image(BytesIO(pair.image)))),
        ]
        overlaps = [overlap.entry() for overlap in found]
        yield {"id": pair.id, "topic": topic, "prompt": "", "overlaps": overlaps}


def main(snakemake: Any) -> None:
    with Job(snakemake, CheckOwnPairsJob, VERSION) as job:
        settings = job.settings
        measures = settings.model_dump(include=set(OverlapMeasures.model_fields))
        index = Index.read(Path(snakemake.input.index), measures)
        pairs = read_own_pairs(settings.pairs, settings.max_image_megapixels, Counter())
        rows = [*overlaps_of(index, pairs, settings.pairs.origin)]
        job.publish(snakemake.output[0], rows)
        job.count(len(rows))


if __name__ == "__main__":
    run_script(main)
