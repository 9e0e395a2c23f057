"""Every command of README and docs is tried as it stands there: what reads and plans is run; what
Snakemake would compute is a dry run; of what takes hours, the files and options have to be there.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import GOLDEN, REPOSITORY, Project

pytestmark = pytest.mark.slow
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in REPOSITORY.glob("docs/*.md")),
]
BLOCK = re.compile(r"^ *```bash\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:make|snakemake --profile|python scripts/\S+) [^`]*)`")
#: Programs that are not ours, or need a network, a cluster or a terminal: why they are not run.
ELSEWHERE = {
    "apptainer": "builds an image from the network",
    "cd": "the shell's",
    "conda": "installs from the network",
    "cp": "the shell's",
    "export": "the shell's",
    "git": "a clone of this repository, or its history",
    "jq": "a user's own program",
    "pip": "installs from the network",
    "sed": "the shell's",
    "snakedeploy": "tests/test_other_folders.py runs what it deploys",
    "source": "the shell's",
    "tail": "the shell's",
    "tmux": "needs a terminal",
    "python -m": "a library's own program",
    ".venv/bin/python -m": "a library's own program",
    ".ci/run": "runs this test",
}
#: Options of Snakemake for which other tests are there.
OTHER_TESTS = {"--report": "tests/test_other_folders.py", "--conda-create-envs-only": "tests/slurm"}
#: Commands that are run as they stand: they read and plan, or take seconds.
RUN = re.compile(
    r"make (--no-print-directory )?plan|make (help|verify)|make fetch .*--dry-run"
    r"|make tables RUN=|python scripts/score\.py|\S*python demo/\S+ (my\.yaml|--table)"
)
#: What a command says, in one message, of what this machine lacks.
LACKS = (
    "This run would stop at its start",
    "there is no Slurm on this machine",
    "HF_HUB_OFFLINE is set",  # no hub
)
#: A word that the reader is to replace.
PLACEHOLDER = re.compile(r"<[^>]+>|\.\.\.|\[--|/path/to|/shared/|\b[A-Z_]{4,}\b(?![=/.])")


def commands_of(page: str) -> Iterator[str]:
    """The commands of a page's blocks, and those that stand in its sentences."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").split("\n"):
            for command in re.split(r"\s&&\s", re.sub(r"(^|\s)#.*", "", line)):
                if command.strip():
                    yield " ".join(command.split())
    for span in INLINE.findall(BLOCK.sub("", text)):
        yield " ".join(span.split())


COMMANDS = {command: page for page in reversed(PAGES) for command in commands_of(page)}
TRIED = {
    command: page
    for command, page in COMMANDS.items()
    if not command.startswith(tuple(ELSEWHERE)) and not PLACEHOLDER.search(command)
    if not set(OTHER_TESTS) & set(command.split())
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, finished: Project) -> Project:
    """A clone in which the reader has followed the page up to the command, with the small run as
    the configuration `my.yaml`.
    """
    folder = tmp_path_factory.mktemp("documented") / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    for name in ("docs", "tests", "benchmarks"):
        shutil.copytree(REPOSITORY / name, folder / name)
    build = [sys.executable, "demo/build_world.py", "--output", "demo/world/benchmarks"]
    subprocess.run(build, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    for name in ("models", "benchmarks"):
        (folder / "demo/world" / name).symlink_to(REPOSITORY / "demo/world" / name)
    shutil.copy2(folder / "demo/random.yaml", folder / "my.yaml")
    (folder / "results" / "gpu-check").mkdir()
    for rates in ("my-rates.yaml", "results/gpu-check/rates.yaml"):
        shutil.copy2(REPOSITORY / "profiles/slurm/rates.yaml", folder / rates)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    # The runs that the reader has made by then, and the answers that the authors released.
    for name in ("demo", "paper", "pilot"):
        (folder / "results" / name).symlink_to("random")
    for name in ("pope", "amber", "mmvet"):
        if GOLDEN.is_dir():
            (folder / name).symlink_to(GOLDEN / name)
    return Project(folder)


def run(clone: Project, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=clone.folder,
        env=clone.environment() | {"HF_HUB_OFFLINE": "1"},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def is_done_or_says_what_it_lacks(done: subprocess.CompletedProcess[str]) -> None:
    end = done.stdout[-3000:]
    assert "Traceback" not in done.stdout, end
    assert done.returncode == 0 or any(text in done.stdout for text in LACKS), end


def try_snakemake(clone: Project, words: list[str]) -> None:
    """A dry run of the command: it plans, or says in one message what it lacks on this machine."""
    is_done_or_says_what_it_lacks(run(clone, [words[0], "-n", *words[1:]]))


def try_script(clone: Project, words: list[str]) -> None:
    """A script that is there and has the options that it is given."""
    script = next(word for word in words if word.endswith(".py"))
    assert (REPOSITORY / script).is_file()
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not options:
        return
    shown = run(clone, [sys.executable, script, "--help"])
    assert shown.returncode == 0, shown.stdout[-2000:]
    for option in options:
        assert option in shown.stdout, f"{script} has no {option}"


def try_make(clone: Project, words: list[str]) -> None:
    """What make would run, tried in turn; no target is missing."""
    planned = run(clone, [words[0], "-n", *words[1:]])
    assert planned.returncode == 0, planned.stdout[-2000:]
    for line in planned.stdout.replace("\\\n", " ").split("\n"):
        parts = shlex.split(line, comments=True) if "snakemake" in line or ".py" in line else []
        program = Path(parts[0]).name if parts else ""
        if program == "snakemake" and "--lint" not in parts:
            try_snakemake(clone, parts)
        elif program.startswith("python") and any(part.endswith(".py") for part in parts):
            file = next(part for part in parts if part.endswith(".py"))
            assert (REPOSITORY / file).is_file(), line


@pytest.mark.parametrize("command", sorted(TRIED))
def test_every_command_of_the_documentation_does_something_as_it_stands_there(
    clone: Project, command: str
) -> None:
    words = shlex.split(command.partition(" > ")[0])
    program = Path(words[0]).name
    if "score.py" in command and not GOLDEN.is_dir():
        pytest.skip(f"{GOLDEN} (or $GOLDEN_DIR) is not there")
    if RUN.match(command):
        is_done_or_says_what_it_lacks(run(clone, words))
    elif program == "snakemake":
        try_snakemake(clone, words)
    elif program == "make":
        try_make(clone, words)
    elif program.startswith("python"):
        try_script(clone, words)
    else:
        pytest.fail(f"{COMMANDS[command]}: nothing says how `{command}` is tried, nor why not")


def test_the_documentation_has_commands_and_most_of_them_are_tried() -> None:
    assert len(TRIED) > 40
    assert {"make demo", "make test", "make plan", "snakemake --profile slurm"} <= set(TRIED)
