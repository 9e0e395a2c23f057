"""Rule publish: puts data sets, adapters and merged models into repositories of the hub. Without
`publish.confirm: true` it only says what would go where.

What was put where is kept in work/publish/: the commit, and the files with their digests.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.config.publish import Publication, PublishJob
from lib.contents import digest_files, files_under
from lib.errors import UserError
from lib.files import write_json, write_text
from lib.hub_upload import Upload, Uploaded, prepare, token_of, upload

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
SHOWN = 12


def upload_of(publication: Publication, root: Path, private: bool) -> Upload:
    """What goes into a publication's repository: the files of its folder, hidden ones aside, and
    its card.
    """
    folder = root / publication.folder
    files = {
        path.relative_to(folder).as_posix(): path
        for path in files_under(folder)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if publication.card and (card := root / publication.card).is_file():
        files[CARD] = card
    if not files:
        raise UserError(f"{folder}: there is nothing in it to be published. Run Snakemake first.")
    before = formerly(root, publication)
    return Upload(publication.repository, publication.kind, private, files, before)


def would_send(publication: Publication, wanted: Upload) -> list[str]:
    """What would go where, in lines."""
    sizes = {name: path.stat().st_size for name, path in wanted.files.items()}
    secrecy = "private, if it is new" if wanted.private else "public, if it is new"
    size = f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB"
    lines = [f"{publication.folder} -> {wanted.name} ({secrecy}): {size}"]
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:SHOWN]
    lines += [f"    {name}  {sizes[name] / 1e6:,.3f} MB" for name in sorted(largest)]
    if len(sizes) > SHOWN:
        lines.append(f"    ... and {len(sizes) - SHOWN} smaller ones")
    if CARD not in wanted.files:
        lines.append(f"    It has no card ({CARD}).")
    return lines


def kept_file(root: Path, publication: Publication) -> Path:
    """Where it is kept what was put into a publication's repository."""
    return root / "work/publish" / f"{publication.folder.replace('/', '-')}.json"


def formerly(root: Path, publication: Publication) -> list[str]:
    """The files that were put into its repository before."""
    try:
        kept = json.loads(kept_file(root, publication).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return list(kept["files"]) if kept["repository"] == publication.repository else []


def keep(root: Path, publication: Publication, wanted: Upload, done: Uploaded) -> None:
    """Keeps what was put where."""
    digests = digest_files([*wanted.files.values()], root / publication.folder)
    write_json(
        kept_file(root, publication),
        {
            "repository": wanted.repository,
            "kind": wanted.kind,
            "revision": done.revision,
            "files": dict(zip(wanted.files, digests, strict=True)),
        },
    )


def sent(publication: Publication, wanted: Upload, done: Uploaded, endpoint: str) -> str:
    """What was put where, in a line."""
    what = (
        f"{done.added} files new or changed, {done.removed} removed"
        if done.added or done.removed
        else "nothing to be sent"
    )
    address = f"{endpoint}/{wanted.name}/tree/{done.revision}"
    return f"{publication.folder} -> {wanted.name} at {done.revision}: {what}. {address}"


def client() -> "HfApi":
    """The hub's client, with the token of the environment. Errors: UserError without one."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(token=token_of())


def publish(settings: PublishJob, root: Path) -> list[str]:
    """Publishes, or says what would be; in lines. Errors: UserError."""
    uploads = {
        each.folder: upload_of(each, root, settings.private) for each in settings.publications
    }
    if not settings.confirm:
        lines = [
            line
            for each in settings.publications
            for line in would_send(each, uploads[each.folder])
        ]
        lines.append("Nothing was sent. `publish.confirm: true` sends it.")
        print("\n".join(lines), flush=True)
        return lines
    api, lines = client(), []
    for wanted in uploads.values():
        prepare(api, wanted)
    for each in settings.publications:
        done = upload(api, uploads[each.folder])
        keep(root, each, uploads[each.folder], done)
        lines.append(sent(each, uploads[each.folder], done, api.endpoint))
        print(lines[-1], flush=True)
    return lines


def main(snakemake: Any) -> None:
    settings = PublishJob.model_validate(snakemake.params.settings)
    lines = publish(settings, Path(snakemake.params.common["root"]))
    write_text(Path(snakemake.log[0]), "\n".join([*lines, ""]))


if __name__ == "__main__":
    # Its lines are what it is run for: they are printed, and not into a log alone.
    if "snakemake" not in vars(sys.modules["__main__"]):
        sys.exit("publish.py: this is a rule's script; `snakemake publish` runs it.")
    try:
        main(vars(sys.modules["__main__"])["snakemake"])
    except UserError as error:
        sys.exit(f"Error in publish: {error}")
