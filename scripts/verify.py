"""Holds a run against its own records: are all published files, image files, kept results and
journal lines what they were when they were made? `make verify` and the target `verify` run it.

It needs no GPU and no model. Exit code 1: something differs, and what to type is said.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.config.run import load_config
from lib.config.yaml_files import read_yaml
from lib.errors import UserError
from lib.files import write_text
from lib.head import project
from lib.head.verification import tell, verify_run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("run", nargs="?", type=Path, help="the run's folder (results/demo)")
    arguments.add_argument(
        "--configfile", type=Path, metavar="FILE", help="... or the run's configuration"
    )
    arguments.add_argument("--profile", help="not needed; so that a run's command can be given")
    return arguments


def folder_of(arguments: argparse.Namespace) -> Path:
    """The run's folder. Errors: UserError."""
    if arguments.run:
        return Path(arguments.run)
    file = arguments.configfile or Path(project.default_config_file())
    return load_config(read_yaml(file), [file]).root


def verify(root: Path, log: Path | None = None) -> int:
    """Says what differs, in a log too; the exit code. Errors: UserError."""
    found = verify_run(root)
    text = "\n".join(tell(root, found))
    print(text)
    if log:
        write_text(log, f"{text}\n")
    return 1 if found.differences else 0


def main(words: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    try:
        return verify(folder_of(parser().parse_args(words)))
    except UserError as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 1


def main_of_rule(snakemake: Any) -> None:
    """The rule of the same name."""
    if verify(Path(snakemake.params.run), Path(snakemake.log[0])):
        sys.exit(1)


if __name__ == "__main__":
    # Snakemake puts its object before a script's first line.
    if "snakemake" in vars(sys.modules["__main__"]):
        main_of_rule(vars(sys.modules["__main__"])["snakemake"])
    else:
        sys.exit(main())
