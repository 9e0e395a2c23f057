"""Snakemake's log on the terminal: its handler can be chosen by a plugin that is installed only."""

import logging
from collections.abc import Callable
from typing import TextIO, TypeVar

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
