"""How a rule's script starts and ends: its log, and what is said of what went wrong."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.errors import UserError
from lib.files import mendable_storage_errors
from lib.jobs.processes import close_standard_input
from lib.progress import PrintableFormatter, log

#: Environment variable with which a head process that shows how far jobs are has them write nothing
#: but their logs.
OUTPUT_TO_LOG = "PDS_DPO_OUTPUT_TO_LOG"


def run_script(main: Callable[[Any], None]) -> None:
    """Runs a rule's `main(snakemake)` with its log set up; a UserError ends it with its message
    alone and exit code 1.

    Snakemake puts the object `snakemake` (input, output, params, ...) before a script's first line,
    into the module `__main__`.
    """
    snakemake = vars(sys.modules["__main__"]).get("snakemake")
    if snakemake is None:
        sys.exit(
            f"{sys.argv[0]}: this is a rule's script; Snakemake runs it. See README.md for the"
            " command."
        )
    close_standard_input()
    # Another workflow that uses ours as a module may give the rule another name (`as pds_*`). Keys,
    # journals and records go by ours, which is the script's.
    if script := vars(sys.modules["__main__"]).get("__file__"):
        snakemake.rule = Path(script).stem
    _set_up_log(snakemake)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        main(snakemake)
    except UserError as error:
        log.error("Error in %s: %s", snakemake.rule, error)
        sys.exit(1)
    except Exception:
        # A job's output may be far away on a cluster; its log is what the user is shown.
        log.exception(
            "Error in %s: internal error: a bug in this workflow, not in your configuration",
            snakemake.rule,
        )
        sys.exit(1)


def _set_up_log(snakemake: Any) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if snakemake.log:
        path = Path(str(snakemake.log[0]))
        try:
            with mendable_storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                if os.environ.get(OUTPUT_TO_LOG):
                    _print_into(path)
                else:
                    handlers.append(logging.FileHandler(path, mode="w", encoding="utf-8"))
        except UserError as error:
            sys.exit(f"Error in {snakemake.rule}: {error}")
    for handler in handlers:
        handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    logging.captureWarnings(True)
    log.setLevel(logging.INFO)


def _print_into(path: Path) -> None:
    """Has a file take what this process prints, its libraries included, and what it starts."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    os.close(file)
