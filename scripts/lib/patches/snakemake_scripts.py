"""Snakemake (9.27) starts a Python for each job's script, by a shell."""

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from snakemake.script import PythonScript

#: The variables in which Snakemake's shell names a job's threads.
THREADS = (
    "OMP_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
#: ... and its folder for temporary files.
TEMPORARY = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")


def run_scripts_by(run: Callable[[str, Mapping[str, str]], int], names: Collection[str]) -> None:
    """Has `run(script, environment)` run the jobs of the scripts of these names, where they run in
    Snakemake's own Python with one thread; it returns the exit code.
    """
    start_python = PythonScript.execute_script

    def execute_script(self: Any, fname: str, edit: bool = False) -> None:
        own_software = self.conda_env or self.container_img or self.env_modules
        is_named = Path(self.path.get_path_or_uri(secret_free=True)).stem in names
        if edit or own_software or self.threads != 1 or not is_named:
            start_python(self, fname, edit)
        elif code := run(fname, _environment(self)):
            raise subprocess.CalledProcessError(code, f"{sys.executable} {fname}")

    PythonScript.execute_script = execute_script


def _environment(script: Any) -> dict[str, str]:
    folder = script.resources.get("tmpdir")
    return {
        **os.environ,
        **dict.fromkeys(THREADS, str(script.threads)),
        **(dict.fromkeys(TEMPORARY, str(folder)) if folder else {}),
    }
