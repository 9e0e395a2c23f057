"""Rule generate_images: each prompt's candidates, which differ by guidance scale (paper 3.2, Eq. 5)
or by seed.

An item is a prompt: its candidates are one batch, so that an image depends on its prompt and the
settings only, not on sharding, order or resumption. Image files are written by a thread while the
next prompt is computed.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from lib.blocks import deciding
from lib.config.images import GenerateImagesJob
from lib.data.image_files import write_image
from lib.data.prompts import Prompt, seed_of
from lib.data.rows import Candidate
from lib.data.shards import stage_rows
from lib.files import (
    digest,
    digest_of_file,
    link_or_copy,
    mendable_storage_errors,
    read_jsonl,
    sync_file_system,
)
from lib.jobs.batches import Batches, Outcome
from lib.jobs.job import Job
from lib.jobs.memory import halving
from lib.jobs.script import run_script
from lib.jobs.streams import Item
from lib.models.image_generators.base import ImageGenerator
from lib.models.image_generators.registry import IMAGE_GENERATORS
from lib.registry import version_in_key

if TYPE_CHECKING:
    from PIL.Image import Image

#: So many prompts that were cut are named in a note.
NAMED = 5
#: Settings that say which images there are, not how one of them is made.
LISTS = ("guidance_scales", "candidates", "samples")
VERSION = 1


class Candidates(TypedDict):
    """The result of an item."""

    candidates: list[Candidate]


@dataclass(frozen=True)
class Drawing:
    """What one prompt's candidates are drawn from: a seed for each guidance scale."""

    prompt: Prompt
    seeds: Sequence[int]


class ShardImages:
    """The items of a shard, and how their images are drawn, written and looked after."""

    def __init__(self, job: Job[GenerateImagesJob], folder: Path, writer: Executor) -> None:
        """`folder`: where the shard's image files belong, in the run's folder. `writer`: writes
        them.
        """
        self.job = job
        self.folder = folder
        self.writer = writer
        self.settings = job.settings.generator
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

    def record_files(self, outcomes: Iterable[Outcome[Candidates]]) -> None:
        """Puts the image files of all items on record, when they are on the disk."""
        beside = self.job.record.beside
        for outcome in outcomes:
            for candidate in outcome.result["candidates"] if outcome.result else ():
                beside[candidate["file"]] = candidate["sha256"]
        if beside:
            sync_file_system(self.job.root / self.folder)

    def note_cut_prompts(self) -> None:
        """Puts on record which prompts were not read to their end."""
        for (encoder, tokens), names in self.cut.items():
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            self.job.note(
                f"{encoder} read the first {tokens} tokens only of {len(names)} of the prompts"
                f" ({', '.join(names[:NAMED])}{more})"
            )

    def files_are_whole(self, item: Item[Drawing], result: Candidates) -> bool:
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

    def take_over(self, item: Item[Drawing], result: Candidates, root: Path) -> Candidates | None:
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


def is_file_with(path: Path, sha256: str) -> bool:
    """Whether there is a file with this content."""
    return path.is_file() and digest_of_file(path) == sha256


def is_blank(image: "Image") -> bool:
    """Whether an image shows one colour only."""
    return image.convert("RGB").getcolors(maxcolors=1) is not None


def main(snakemake: Any) -> None:
    with Job(snakemake, GenerateImagesJob, VERSION) as job:
        topic, shard = snakemake.wildcards
        prompts = [Prompt(topic, row["prompt"]) for row in read_jsonl(job.settings.prompts)]
        with mendable_storage_errors(job.root), ThreadPoolExecutor(max_workers=1) as writer:
            images = ShardImages(job, Path("images", topic, shard), writer)
            settings = job.settings.generator
            outcomes = Batches(
                job,
                load=lambda: IMAGE_GENERATORS.class_of(settings).load(settings, job.device),
                compute=images.generate,
                still_valid=images.files_are_whole,
                take_over=images.take_over,
            ).run([images.item(prompt) for prompt in prompts])
            images.record_files(outcomes.values())
            images.note_cut_prompts()
        rows = {prompt.id: prompt.row() for prompt in prompts}
        job.publish(snakemake.output[0], stage_rows(rows, outcomes, job.rule))


if __name__ == "__main__":
    run_script(main)
