"""Rule generate_images: each prompt's candidates, which differ by guidance scale (paper 3.2, Eq. 5)
or by seed; or the user's own pictures in their place.

An item is a prompt: its candidates are one batch, so that an image depends on its prompt and the
settings only, not on sharding, order or resumption. Image files are written by a thread while the
next prompt is computed.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from lib.blocks import deciding
from lib.config.images import TakePicturesJob
from lib.data.image_files import write_image
from lib.data.own_pictures import take_picture
from lib.data.prompts import Prompt, seed_of
from lib.data.rows import Candidate, MissingRow, PromptRow
from lib.data.shards import missing_row, stage_rows
from lib.errors import ItemError, UserError
from lib.files import (
    digest,
    digest_of_file,
    link_or_copy,
    mendable_storage_errors,
    read_jsonl,
    replacing,
    sync_file_system,
)
from lib.jobs.batches import Batches, Outcome
from lib.jobs.job import Job
from lib.jobs.memory import halving
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.image_generators.base import ImageGenerator
from lib.models.image_generators.own_folder import OwnPicture
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.models.image_generators.settings import DrawnImageSettings
from lib.registry import version_in_key

if TYPE_CHECKING:
    from PIL.Image import Image

#: So many prompts that were cut are named in a note.
NAMED = 5
#: Why a prompt has no candidates where the user's own pictures lack one.
NO_PICTURE = "no picture"
#: Settings that say which images there are, not how one of them is made.
LISTS = ("guidance_scales", "candidates", "samples")
VERSION = 1


class Candidates(TypedDict):
    """The result of an item."""

    candidates: list[Candidate]


Outcomes = Mapping[str, Outcome[Candidates]]


@dataclass(frozen=True)
class Drawing:
    """What one prompt's candidates are drawn from: a seed for each guidance scale."""

    prompt: Prompt
    seeds: Sequence[int]


@dataclass(frozen=True)
class Taking:
    """A prompt and the user's pictures of it."""

    prompt: Prompt
    pictures: Sequence[OwnPicture]


class ShardFiles:
    """The image files of a shard, and how they are looked after."""

    def __init__(self, job: Job[Any], folder: Path) -> None:
        """`folder`: where the shard's image files belong, in the run's folder."""
        self.job = job
        self.folder = folder

    def record_files(self, outcomes: Iterable[Outcome[Candidates]]) -> None:
        """Puts the image files of all items on record, when they are on the disk."""
        beside = self.job.record.beside
        for outcome in outcomes:
            for candidate in outcome.result["candidates"] if outcome.result else ():
                beside[candidate["file"]] = candidate["sha256"]
        if beside:
            sync_file_system(self.job.root / self.folder)

    def files_are_whole(self, item: Item[Any], result: Candidates) -> bool:
        """Whether a finished item's image files are those that were written."""
        whole = all(self._is_whole(candidate) for candidate in result["candidates"])
        if not whole:
            self.job.note(
                f"{item.id}: an image file is missing or damaged; the prompt's images are made"
                " again"
            )
        return whole

    def _is_whole(self, candidate: Candidate) -> bool:
        return is_file_with(self.job.root / candidate["file"], candidate["sha256"])

    def take_over(self, item: Item[Any], result: Candidates, root: Path) -> Candidates | None:
        """A prompt's candidates that another shard or run (in the folder `root`) has drawn, with
        their files at this shard's place; None where a file is not what was written.
        """
        candidates: list[Candidate] = []
        for candidate in result["candidates"]:
            source = root / candidate["file"]
            if not is_file_with(source, candidate["sha256"]):
                return None
            file = self.folder / source.name
            link_or_copy(source, self.job.root / file)
            candidates.append({**candidate, "file": file.as_posix()})
        return {"candidates": candidates}


class ShardImages(ShardFiles):
    """The items of a shard, and how their images are drawn, written and looked after."""

    def __init__(self, job: Job[TakePicturesJob], folder: Path, writer: Executor) -> None:
        """`writer`: writes the image files."""
        super().__init__(job, folder)
        self.writer = writer
        self.settings = cast("DrawnImageSettings", job.settings.generator)
        self.identity = job.identify(self.settings)
        self.generation = deciding(self.settings)
        self.version = version_in_key(IMAGE_GENERATORS.class_of(self.settings))
        #: The prompts that were not read to their end, by what read them and how far.
        self.cut: dict[tuple[str, int], list[str]] = {}

    def item(self, prompt: Prompt) -> Item[Drawing]:
        """The item of a prompt."""
        seeds = [
            seed_of(self.job.seed, "image", prompt.id, scale, *([number] if number > 1 else []))
            for scale, number in self.settings.drawn
        ]
        key = self.job.key(
            prompt=prompt.text,
            model=self.identity,
            generation=self.generation,
            seeds=seeds,
            **self.version,
        )
        return Item(prompt.id, key, Drawing(prompt, seeds))

    def generate(
        self, generator: ImageGenerator, batch: Sequence[Item[Drawing]]
    ) -> list[Future[Candidates]]:
        """Draws the images of each item, and hands them over to be written."""
        return [
            self.writer.submit(self.save, item.inputs, self.draw(generator, item.inputs))
            for item in batch
        ]

    def draw(self, generator: ImageGenerator, drawing: Drawing) -> "list[Image]":
        """The images of a prompt, in one batch if the memory suffices."""
        for encoder, tokens in generator.cut(drawing.prompt.text).items():
            self.cut.setdefault((encoder, tokens), []).append(drawing.prompt.id)

        def draw_part(part: Sequence[tuple[float, int]]) -> "list[Image]":
            scales, seeds = zip(*part, strict=True)
            return generator.generate(drawing.prompt.text, scales, seeds)

        pairs = list(zip(self._scales(), drawing.seeds, strict=True))
        return halving(pairs, draw_part, self.job.note)

    def _scales(self) -> list[float]:
        return [scale for scale, _ in self.settings.drawn]

    def save(self, drawing: Drawing, images: "Sequence[Image]") -> Candidates:
        """Writes the images of a prompt, each with its provenance inside."""
        candidates = [
            self._save_one(drawing.prompt, scale, seed, image)
            for scale, seed, image in zip(self._scales(), drawing.seeds, images, strict=True)
        ]
        return {"candidates": candidates}

    def _save_one(self, prompt: Prompt, scale: float, seed: int, image: "Image") -> Candidate:
        provenance = self._provenance(prompt, scale, seed)
        image_format = self.settings.format
        file = self.folder / f"{prompt.id}-g{scale:g}-{digest(provenance)[:8]}.{image_format}"
        return {
            "guidance_scale": scale,
            "seed": seed,
            "file": file.as_posix(),
            "sha256": write_image(image, self.job.root / file, image_format, provenance),
            "blank": is_blank(image),
        }

    def _provenance(self, prompt: Prompt, scale: float, seed: int) -> dict[str, Any]:
        """What an image file says about its own making."""
        settings = {name: value for name, value in self.generation.items() if name not in LISTS}
        model = {"model": self.settings.model, "revision": self.identity, **self.version}
        own = {"id": prompt.id, "prompt": prompt.text, "guidance_scale": scale, "seed": seed}
        return settings | model | own

    def note_cut_prompts(self) -> None:
        """Puts on record which prompts were not read to their end."""
        for (encoder, tokens), names in self.cut.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            self.job.note(
                f"{encoder} read the first {tokens} tokens only of {len(names)} of the prompts"
                f" ({', '.join(names[:NAMED])}{more})"
            )


class ShardPictures(ShardFiles):
    """The items of a shard whose images are the user's own pictures. An item is a prompt with what
    its pictures contain.
    """

    def item(self, prompt: Prompt, pictures: Sequence[OwnPicture]) -> Item[Taking]:
        """The item of a prompt. `pictures`: its pictures, as the run found them at its start."""
        key = self.job.key(
            prompt=prompt.text,
            pictures=[picture["sha256"] for picture in pictures],
            **version_in_key(IMAGE_GENERATORS.class_of(self.job.settings.generator)),
        )
        return Item(prompt.id, key, Taking(prompt, pictures))

    def take(self, _: object, batch: Sequence[Item[Taking]]) -> list[Candidates | ItemError]:
        """The candidates of each prompt, their files written."""
        return [self._take(item.inputs) for item in batch]

    def _take(self, taking: Taking) -> Candidates | ItemError:
        candidates, problems = [], []
        for picture in taking.pictures:
            try:
                candidates.append(self._take_one(taking.prompt, picture))
            except UserError as error:
                problems.append(str(error))
        return ItemError("; ".join(problems)) if problems else {"candidates": candidates}

    def _take_one(self, prompt: Prompt, picture: OwnPicture) -> Candidate:
        content = read_unchanged(picture)
        megapixels = self.job.settings.max_image_megapixels
        taken = take_picture(content, picture["where"], megapixels)
        digest_of_taken = sha256(taken.content).hexdigest()
        file = self.folder / f"{prompt.id}-{digest_of_taken[:8]}.{taken.suffix}"
        with replacing(self.job.root / file, durable=False) as temporary:
            temporary.write_bytes(taken.content)
        return {
            "guidance_scale": None,
            "seed": None,
            "file": file.as_posix(),
            "sha256": digest_of_taken,
            "blank": taken.blank,
            "source": {
                "name": picture["name"],
                "sha256": picture["sha256"],
                "bytes": len(content),
                "changed": taken.changed,
            },
        }


def read_unchanged(picture: OwnPicture) -> bytes:
    """A picture's bytes. Errors: UserError where they are not what the run found at its start."""
    named = picture["where"]
    try:
        content = Path(picture["path"]).read_bytes()
    except OSError as error:
        raise UserError(f"{named}: cannot be read ({error.strerror}). Run again.") from error
    if sha256(content).hexdigest() != picture["sha256"]:
        raise UserError(f"{named}: was changed while the run was on. Run again.")
    return content


def is_file_with(path: Path, sha256: str) -> bool:
    """Whether there is a file with this content."""
    return path.is_file() and digest_of_file(path) == sha256


def is_blank(image: "Image") -> bool:
    """Whether an image shows one colour only."""
    return image.convert("RGB").getcolors(maxcolors=1) is not None


def draw_shard(job: Job[Any], folder: Path, rows: Iterable[Mapping[str, Any]]) -> Outcomes:
    """The outcomes of a shard whose images a model draws."""
    prompts = [Prompt(folder.parent.name, row["prompt"]) for row in rows]
    settings = job.settings.generator
    with ThreadPoolExecutor(max_workers=1) as writer:
        images = ShardImages(job, folder, writer)
        outcomes = Batches(
            job,
            load=lambda: IMAGE_GENERATORS.class_of(settings).load(settings, job.device),
            compute=images.generate,
            still_valid=images.files_are_whole,
            take_over=images.take_over,
        ).run([images.item(prompt) for prompt in prompts])
        images.record_files(outcomes.values())
        images.note_cut_prompts()
    return outcomes


def take_shard(job: Job[Any], folder: Path, rows: Iterable[Mapping[str, Any]]) -> Outcomes:
    """The outcomes of a shard whose images are the user's own pictures, of those prompts that have
    them.
    """
    pictures = ShardPictures(job, folder)
    topic = folder.parent.name
    outcomes = Batches(
        job,
        load=lambda: None,
        compute=pictures.take,
        still_valid=pictures.files_are_whole,
        take_over=pictures.take_over,
    ).run(
        [
            pictures.item(Prompt(topic, row["prompt"]), row["pictures"])
            for row in rows
            if not lacks(row)
        ]
    )
    pictures.record_files(outcomes.values())
    return outcomes


def lacks(row: Mapping[str, Any]) -> list[str]:
    """What a prompt lacks of its own pictures, for messages; nothing where a model draws them."""
    if row.get("pictures") == []:
        return [row["prompt"]]
    return [each["where"] for each in row.get("pictures", ()) if "sha256" not in each]


def note_lacking(job: Job[Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Puts on record which pictures are not there, or which prompts have none."""
    if lacking := [what for row in rows for what in lacks(row)]:
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        job.note(f"there is no picture: {'; '.join(lacking[:NAMED])}{more}")


def main(snakemake: Any) -> None:
    # What a model is to draw says nothing of the pictures that there may be.
    with Job(snakemake, TakePicturesJob, VERSION) as job:
        topic, shard = snakemake.wildcards
        rows = read_jsonl(job.settings.prompts)
        with mendable_storage_errors(job.root):
            make = draw_shard if job.settings.generator.IS_DRAWN else take_shard
            outcomes = make(job, Path("images", topic, shard), rows)
            note_lacking(job, rows)
        of_prompts: dict[str, PromptRow | MissingRow] = {}
        for row in rows:
            prompt = Prompt(topic, row["prompt"])
            told = missing_row(prompt.row(), job.rule, NO_PICTURE) if lacks(row) else prompt.row()
            of_prompts[prompt.id] = told
        job.publish(snakemake.output[0], stage_rows(of_prompts, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
