"""The floor plan: the drawing in CONTRIBUTING.md is the contract that `make lint` checks, and the
contract sees an import that goes up.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LIB = REPOSITORY / "scripts/lib"


def contract() -> list[set[str]]:
    """The floors of the contract, the highest first."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    [layers] = [each["layers"] for each in settings["tool"]["importlinter"]["contracts"]]
    return [set(re.split(r" [|:] ", floor)) for floor in layers]


def drawing() -> list[set[str]]:
    """The floors of the drawing, the highest first."""
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [block] = [text for text in page.split("```")[1::2] if text.strip().startswith("planning")]
    floors = [line.split("  ")[0] for line in block.strip().splitlines()]
    return [set(floor.split(" | ")) for floor in floors if floor]


def lint(scripts: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(scripts), "PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
    )


def test_the_drawing_of_the_floor_plan_is_the_contract():
    assert drawing() == contract()


def test_every_room_stands_on_a_floor():
    rooms = {path.stem for path in LIB.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert rooms - {"__init__", "__pycache__"} == set().union(*contract())


def test_an_import_that_goes_up_breaks_the_contract(tmp_path):
    shutil.copytree(LIB, tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    assert lint(tmp_path).returncode == 0
    with open(tmp_path / "lib/data/prompts.py", "a", encoding="utf-8") as stream:
        stream.write("\n\ndef look_up() -> None:\n    from lib.head import plan  # noqa: F401\n")
    broken = lint(tmp_path)
    assert broken.returncode != 0
    assert "lib.data.prompts" in broken.stdout
