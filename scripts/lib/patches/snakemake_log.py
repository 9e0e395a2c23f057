"""What Snakemake prints: its log's handler can be chosen by a plugin that is installed only, and
nothing is called at the end of a dry run.
"""

import logging
from collections.abc import Callable
from typing import Any, TextIO, TypeVar

NAME = "DefaultStreamHandler"


H = TypeVar("H", bound=logging.Handler)


def show_with(make: Callable[[TextIO, bool], H]) -> list[H]:
    """Has another handler show what Snakemake logs on its stream, under its filters and with its
    format, and returns it; `make` is given the stream and whether it is a dry run. Not under
    `--verbose`, nor where a plugin writes to the stream: the list is then empty.
    """
    from snakemake.logging import DefaultFilter, logger

    made = []
    for handler in [each for each in logger.handlers if each.name == NAME]:
        assert isinstance(handler, logging.StreamHandler)
        filters = [each for each in handler.filters if isinstance(each, DefaultFilter)]
        if filters and not filters[0].verbose:
            ours = make(handler.stream, filters[0].dryrun)
            ours.name, ours.filters, ours.formatter = NAME, handler.filters, handler.formatter
            logger.removeHandler(handler)
            logger.addHandler(ours)
            made.append(ours)
    return made


#: What is called back, by the folder of the run (why so: `snakemake_records`).
_print_after_dry_run: dict[str, Callable[[], None]] = {}


def after_dry_run(root: str, print_lines: Callable[[], None]) -> None:
    """Has something printed of the run in the folder `root` at the end of a dry run, for which
    Snakemake has no handler, in place of its advice not to run what has changed.
    """
    from snakemake.workflow import Workflow

    def print_all(_workflow: Any) -> None:
        for print_of_run in _print_after_dry_run.values():
            print_of_run()

    _print_after_dry_run[root] = print_lines
    Workflow.log_provenance_info = print_all
