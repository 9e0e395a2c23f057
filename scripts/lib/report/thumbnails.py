"""The small pictures of the report: made once of each candidate, and named by what it shows."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

from lib.data.image_files import read_published
from lib.data.rows import ImagesRow
from lib.files import replacing
from lib.jobs.batches import Batches, Item
from lib.jobs.job import Job

#: Of the encoding: raise it when other pictures come out.
VERSION = 1
QUALITY = 80
#: Prompts whose pictures are made between two entries of the journal.
BATCH = 16
THREADS = 2


class Thumbnails(TypedDict):
    """What the journal holds of a prompt: sha256 (hex) of its small pictures by their names."""

    pictures: dict[str, str]


def name_of(digest: str) -> str:
    """The name of a picture's thumbnail, without its suffix. `digest`: sha256 (hex) of the picture
    itself.
    """
    return digest[:24]


def place_of(folder: Path, name: str) -> Path:
    """Where a thumbnail lies: no folder has more than some hundreds."""
    return folder / name[:2] / f"{name}.webp"


def encode(content: bytes, pixels: int) -> bytes:
    """A picture in WebP, its longer side no longer than `pixels`; smaller ones keep their size."""
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        image.draft("RGB", (pixels * 2, pixels * 2))  # JPEG: decoded at about that size
        small = image.convert("RGB")
    small.thumbnail((pixels, pixels), reducing_gap=3.0)
    encoded = BytesIO()
    small.save(encoded, format="WEBP", quality=QUALITY)
    return encoded.getvalue()


class Thumbnailer:
    """Makes the thumbnails of a run.

    folder  where they are
    pixels  of the longer side
    """

    def __init__(self, job: Job[Any], folder: Path, pixels: int) -> None:
        self.job = job
        self.folder = folder
        self.pixels = pixels

    def item(self, row: ImagesRow) -> Item[ImagesRow]:
        """The thumbnails of a prompt's candidates."""
        pictures = [candidate["sha256"] for candidate in row["candidates"]]
        key = self.job.key(pictures=pictures, pixels=self.pixels, thumbnails=VERSION)
        return Item(row["id"], key, row)

    @cached_property
    def _there(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*/*.webp")}

    def make(self, rows: Sequence[ImagesRow]) -> dict[Path, str]:
        """Makes the thumbnails that are missing and deletes those of no candidate. Returns them all
        with their digests (sha256, hex). Errors: UserError where a picture is not what was
        published.
        """
        batches: Batches[ImagesRow, None, Thumbnails] = Batches(
            self.job,
            load=lambda: None,
            compute=self._compute,
            batch_size=BATCH,
            still_valid=lambda item, result: self._there.issuperset(result["pictures"]),
            take_over=lambda item, result, root: None,  # their files are another report's
        )
        outcomes = batches.run([self.item(row) for row in rows])
        made = {
            place_of(self.folder, name): digest
            for outcome in outcomes.values()
            if outcome.result
            for name, digest in outcome.result["pictures"].items()
        }
        for path in set(self.folder.glob("*/*.webp")) - made.keys():
            path.unlink()
        return made

    def _compute(self, _: None, batch: Sequence[Item[ImagesRow]]) -> list[Thumbnails]:
        with ThreadPoolExecutor(THREADS) as threads:
            return [self._of_prompt(item.inputs, threads) for item in batch]

    def _of_prompt(self, row: ImagesRow, threads: ThreadPoolExecutor) -> Thumbnails:
        digests = threads.map(partial(self._make_one), row["candidates"])
        names = [name_of(candidate["sha256"]) for candidate in row["candidates"]]
        return {"pictures": dict(zip(names, digests, strict=True))}

    def _make_one(self, candidate: Any) -> str:
        source = self.job.root / candidate["file"]
        content = read_published(source, candidate["sha256"], source.parent.with_suffix(".jsonl"))
        small = encode(content, self.pixels)
        with replacing(place_of(self.folder, name_of(candidate["sha256"])), durable=False) as path:
            path.write_bytes(small)
        return sha256(small).hexdigest()
