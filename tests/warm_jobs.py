"""What a job imports that finds all of its items in the journal: a new process runs its rule."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

REPOSITORY = Path(__file__).resolve().parent.parent
HEAVY = ["torch", "transformers", "vllm", "openai", "PIL", "datasets", "pandas"]
PROGRAM = """
import importlib, json, pickle, sys

sys.path[:0] = {paths!r}
with open({file!r}, "rb") as stream:
    snakemake = pickle.load(stream)
importlib.import_module(snakemake.rule).main(snakemake)
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def heavy_imports(snakemake: SimpleNamespace, folder: Path) -> list[str]:
    """The heavy libraries that the rule's script has imported at its end. `folder`: for a file."""
    file = folder / "snakemake.pickle"
    file.write_bytes(pickle.dumps(snakemake))
    paths = [str(REPOSITORY / name) for name in ("scripts", "tests")]
    program = PROGRAM.format(paths=paths, file=str(file), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [str(name) for name in json.loads(done.stdout)]
