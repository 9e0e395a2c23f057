"""The small pictures of the report: made once of each candidate, and named by what it shows."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypedDict

from lib.data.image_files import read_published
from lib.data.rows import ImagesRow
from lib.files import replacing
from lib.jobs.batches import Batches
from lib.jobs.job import Job
from lib.jobs.streams import Item

#: Of the encoding: raise it when other pictures come out.
VERSION = 1
QUALITY = 80
#: Prompts whose pictures are made between two entries of the journal.
BATCH = 16
THREADS = 2


@dataclass(frozen=True)
class Picture:
    """A picture, its sha256 (hex), and the file whose deletion makes it anew."""

    file: Path
    sha256: str
    named_in: Path

    def content(self) -> bytes:
        """The picture. Errors: UserError where it is not what was published."""
        return read_published(self.file, self.sha256, self.named_in)


class ShownPicture(Protocol):
    """A picture, wherever it stands, and its sha256 (hex)."""

    @property
    def sha256(self) -> str:
        """Of its content."""

    def content(self) -> bytes:
        """The picture."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that are shown together: the candidates of a prompt, or that of a question."""

    id: str
    each: Sequence[ShownPicture]


def of_prompt(row: ImagesRow, root: Path) -> Pictures:
    """The candidates of a prompt. `root`: the run's folder."""
    files = [(root / each["file"], each["sha256"]) for each in row["candidates"]]
    each = [Picture(file, sha, file.parent.with_suffix(".jsonl")) for file, sha in files]
    return Pictures(row["id"], each)


class Thumbnails(TypedDict):
    """What the journal holds of them: sha256 (hex) of the small pictures by their names."""

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

    def item(self, pictures: Pictures) -> Item[Pictures]:
        """The thumbnails of pictures that are shown together."""
        digests = [picture.sha256 for picture in pictures.each]
        key = self.job.key(pictures=digests, pixels=self.pixels, thumbnails=VERSION)
        return Item(pictures.id, key, pictures)

    @cached_property
    def _there(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*/*.webp")}

    def make(self, pictures: Sequence[Pictures]) -> dict[Path, str]:
        """Makes the thumbnails that are missing and deletes all others. Returns them all
        with their digests (sha256, hex). Errors: UserError where a picture is not what was
        published.
        """
        batches: Batches[Pictures, None, Thumbnails] = Batches(
            self.job,
            load=lambda: None,
            compute=self._compute,
            batch_size=BATCH,
            still_valid=lambda item, result: self._there.issuperset(result["pictures"]),
            take_over=lambda item, result, root: None,  # their files are another report's
        )
        outcomes = batches.run([self.item(each) for each in pictures])
        made = {
            place_of(self.folder, name): digest
            for outcome in outcomes.values()
            if outcome.result
            for name, digest in outcome.result["pictures"].items()
        }
        for path in set(self.folder.glob("*/*.webp")) - made.keys():
            path.unlink()
        return made

    def _compute(self, _: None, batch: Sequence[Item[Pictures]]) -> list[Thumbnails]:
        with ThreadPoolExecutor(THREADS) as threads:
            return [self._of(item.inputs, threads) for item in batch]

    def _of(self, pictures: Pictures, threads: ThreadPoolExecutor) -> Thumbnails:
        # Two that are the same are one file, which two threads must not write at once.
        each = {name_of(picture.sha256): picture for picture in pictures.each}
        names, digests = list(each), threads.map(self._make_one, each.values())
        return {"pictures": dict(zip(names, digests, strict=True))}

    def _make_one(self, picture: ShownPicture) -> str:
        small = encode(picture.content(), self.pixels)
        with replacing(place_of(self.folder, name_of(picture.sha256)), durable=False) as path:
            path.write_bytes(small)
        return sha256(small).hexdigest()
