"""What a job imports that finds all of its items in the journal: a new process runs its rule."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from conftest import PYTHONPATH

HEAVY = ["torch", "transformers", "vllm", "openai", "PIL", "datasets", "pandas"]
PROGRAM = """
import importlib, json, pickle, sys

with open({file!r}, "rb") as stream:
    snakemake = pickle.load(stream)
importlib.import_module(snakemake.rule).main(snakemake)
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def heavy_imports(snakemake: SimpleNamespace, folder: Path) -> list[str]:
    """The heavy libraries that the rule's script has imported at its end. `folder`: for a file."""
    file = folder / "snakemake.pickle"
    file.write_bytes(pickle.dumps(snakemake))
    program = PROGRAM.format(file=str(file), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [str(name) for name in json.loads(done.stdout)]
