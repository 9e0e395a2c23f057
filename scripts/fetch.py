"""Downloads the models and the benchmarks' data that a configuration needs into the hub cache, for
nodes without network. `make fetch` runs it, on a machine that reaches the hub.

What is there already stays as it is: after an interruption, the same command fetches the files that
are missing. HF_HOME says where the cache is, HF_TOKEN opens gated models. Endpoints, and benchmarks
that are files of your own, are not fetched. Exit code 1: something could not be had, and what to do
is said.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lib import weights
from lib.errors import UserError
from lib.head.downloads import Download, downloads
from lib.planning.graph import read_configuration

OFFLINE = """\
Where jobs have no network, start Snakemake with it (jobs inherit it):
    export HF_HUB_OFFLINE=1"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--configfile",
        nargs="+",
        type=Path,
        default=[Path("config.yaml")],
        metavar="FILE",
        help="the run's configuration",
    )
    arguments.add_argument(
        "--dry-run", "-n", action="store_true", help="list what would be fetched, and fetch nothing"
    )
    return arguments


def list_all(wanted: Sequence[Download]) -> tuple[list[list[Any]], list[str]]:
    """The files of every repository by the hub, none where it does not tell; and what keeps some
    from being had.
    """
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    if problem := problem_with_hub():
        lacking = [download for download in wanted if not download.is_there]
        names = ", ".join(download.needed_by for download in lacking)
        told = [f"{problem} Not in the hub cache, or not whole: {names}."] if lacking else []
        return [[] for _ in wanted], told
    disable_progress_bars()
    files, problems = [], []
    for download in wanted:
        try:
            files.append(download.files())
        except UserError as error:
            files.append([])
            problems.append(f"{download.needed_by}: {error}")
    enable_progress_bars()
    return files, problems


def problem_with_hub() -> str | None:
    """Why the hub cannot be asked; None if it answers, whatever it says. Its library would try for
    half a minute, for each repository.
    """
    import httpx
    from huggingface_hub import constants

    if weights.is_offline():
        return "HF_HUB_OFFLINE is set, so that the hub is not asked. Unset it."
    try:
        httpx.head(constants.ENDPOINT, timeout=20)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return (
            f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}). Fetch on a machine"
            " that reaches it (a login or transfer node) and sees the same HF_HOME; HTTPS_PROXY"
            " names a proxy, HF_ENDPOINT a mirror."
        )
    return None


def missing(files: Sequence[Any]) -> int:
    """How many bytes of some files are not in the hub cache."""
    return sum(file.file_size or 0 for file in files if not file.is_cached)


def show(wanted: Sequence[Download], files: Sequence[Sequence[Any]], console: Console) -> None:
    """Prints what is needed, and how much of it is to be fetched."""
    table = Table(title=f"Into {cache()}", title_justify="left", show_footer=any(files))
    table.add_column("needed by", footer="all", overflow="fold")
    table.add_column("hub repository", overflow="fold")
    table.add_column("revision", no_wrap=True)
    table.add_column("files", justify="right", footer=str(sum(map(len, files))))
    table.add_column("GB", justify="right", footer=_gigabytes(sum(map(_size, files))))
    table.add_column("to fetch", justify="right", footer=_gigabytes(sum(map(missing, files))))
    for download, listed in zip(wanted, files, strict=True):
        repository = ("datasets/" * (download.kind == "dataset")) + download.repository
        numbers = [str(len(listed)), _gigabytes(_size(listed)), _gigabytes(missing(listed))]
        unknown = ["-", "-", "in the cache" if download.is_there else "not known"]
        table.add_row(
            download.needed_by,
            repository,
            download.revision[:12],
            *(numbers if listed else unknown),
        )
    console.print(table)


def _size(files: Sequence[Any]) -> int:
    return sum(file.file_size or 0 for file in files)


def _gigabytes(size: int) -> str:
    return "0" if not size else f"{size / 1e9:.3f}" if size < 1e8 else f"{size / 1e9:,.1f}"


def cache() -> Path:
    """The folder of the hub cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def check_space(needed: int) -> None:
    """A UserError if the hub cache's file system has not so many bytes left."""
    folder = next(path for path in (cache(), *cache().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{cache()}: {_gigabytes(needed)} GB are to be fetched, and {_gigabytes(free)} GB are"
            " free there. Make room, or name another place by HF_HOME."
        )


def run(arguments: argparse.Namespace) -> None:
    """Does what the command line asks for. Errors: UserError."""
    _, config = read_configuration(arguments.configfile)
    wanted, unknown = downloads(config)
    console = Console(
        width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False
    )
    if not wanted and not unknown:
        console.print("This configuration needs nothing from the hub.")
        return
    files, problems = list_all(wanted)
    show(wanted, files, console)
    if problems := [*unknown, *problems]:
        raise UserError("\n".join(problems))
    if arguments.dry_run:
        return
    check_space(sum(map(missing, files)))
    for number, (download, listed) in enumerate(zip(wanted, files, strict=True), start=1):
        if missing(listed):
            console.print(f"{number} of {len(wanted)}: {download.repository}")
        if listed:
            download.fetch(listed)
    console.print(f"All of it is in {cache()}.\n{OFFLINE}")


def end_at_ctrl_c(number: int, frame: Any) -> None:
    """Ends at once, and takes away what is half. The hub's library would first wait for the files
    that are under way, which may be many GB.
    """
    del number, frame
    for opened in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            file = opened.readlink()
            if file.suffix == ".incomplete":  # its name is this process's own
                file.unlink()
    text = "\nfetch.py: broken off. The same command fetches what is missing.\n"
    os.write(2, text.encode())
    os._exit(130)


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    signal.signal(signal.SIGINT, end_at_ctrl_c)
    try:
        run(parser().parse_args(words))
    except UserError as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
