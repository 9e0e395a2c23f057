"""Rule add_prompts: the proposals of generate_prompts become prompts. They are added below the
lines of `prompts/<topic>.txt`, as many as it lacks.

Each is compared once more with all prompts of all topics, as they are by then. The lines that are
there stay as they are, byte by byte, and a file gets its new lines all at once or not at all.
"""

import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.config.prompts import AddPromptsJob
from lib.data.prompt_selection import Selection
from lib.data.prompts import is_empty, read_prompts
from lib.errors import UserError
from lib.files import replacing, write_json
from lib.jobs.job import Job
from lib.jobs.script import run_script

VERSION = 1


def read_present(settings: AddPromptsJob) -> dict[str, list[str]]:
    """The prompts that are there, by topic."""
    return {
        topic: [
            prompt.text
            for prompt in read_prompts(Path(path), topic, settings.max_prompt_characters)
        ]
        for topic, path in settings.files.items()
        if not is_empty(Path(path))
    }


def read_proposals(path: Path) -> list[str]:
    """The proposals in a file, which may have been edited: one a line."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    texts = [unicodedata.normalize("NFC", " ".join(line.split())) for line in lines]
    return [text for text in texts if text]


def chosen(proposals: Sequence[str], missing: int, selection: Selection) -> list[str]:
    """As many of the proposals as are missing, of those that are still unlike all prompts."""
    taken: list[str] = []
    for text in proposals:
        if len(taken) < missing and selection.offer(text):
            taken.append(text)
    return taken


def add_lines(path: Path, lines: Sequence[str], before: bytes) -> None:
    """Adds lines below those of a file, or to a new one, all or none. `before`: what is in it.

    Errors: UserError if that is no longer so.
    """
    end = b"\r\n" if b"\r\n" in before else b"\n"
    unfinished = before and not before.endswith(b"\n")
    added = b"".join(line.encode() + end for line in lines)
    target = path.resolve()  # a link stays one
    with replacing(target) as temporary:
        temporary.write_bytes(before + (end if unfinished else b"") + added)
        if target.is_file():
            shutil.copymode(target, temporary)
        if content_of(path) != before:
            raise UserError(
                f"{path}: was edited while prompts were to be added to it. Run the same command"
                " again: nothing was added, and the proposals are kept."
            )


def content_of(path: Path) -> bytes:
    """What is in a file of prompts; nothing where it is missing or empty."""
    return b"" if is_empty(path) else path.read_bytes()


def add_missing(
    job: Job[AddPromptsJob], proposals: Mapping[str, Path], selection: Selection
) -> dict[str, int]:
    """Adds what each topic lacks; gives how many prompts were added, by topic. `proposals`: their
    files.
    """
    settings, added = job.settings, {}
    for topic, wanted in settings.wanted.items():
        path = Path(settings.files[topic])
        before = content_of(path)
        there = len(read_prompts(path, topic, settings.max_prompt_characters)) if before else 0
        lines = chosen(read_proposals(proposals[topic]), wanted - there, selection)
        if lines:
            add_lines(path, lines, before)
        added[topic] = len(lines)
        if there + len(lines) < wanted:
            job.note(
                f"{path} has {there + len(lines)} of {wanted} prompts. Run the same command again"
                " for more"
            )
    return added


def main(snakemake: Any) -> None:
    with Job(snakemake, AddPromptsJob, VERSION) as job:
        settings = job.settings
        selection = Selection(
            [text for texts in read_present(settings).values() for text in texts],
            settings.min_words,
            settings.max_words,
            settings.max_prompt_characters,
            settings.max_similarity,
        )
        files = map(Path, snakemake.input)
        added = add_missing(job, dict(zip(settings.wanted, files, strict=True)), selection)
        for reason, number in sorted(selection.dropped.items()):
            job.note(f"{number} proposal(s) dropped: {reason}")
        if not any(added.values()):
            raise UserError(
                f"no prompt could be added: {', '.join(settings.wanted)} lack some, and no"
                f" proposal in {Path(snakemake.input[0]).parent} is unlike all that are there."
                " Change `generate_prompts.template` or `temperature`, or ask another model."
            )
        write_json(Path(snakemake.output[0]), added)
        job.count(sum(added.values()))


if __name__ == "__main__":
    run_script(main)
