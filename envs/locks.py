"""Writes the locks of the environments, or checks them: `make envs-lock` and `make envs-check`.

`envs/<name>.yaml` says what an environment uses directly, `envs/<name>.lock` what that comes to:
every package, for Linux on x86_64, Python 3.11 and the CUDA builds of the package index. uv
resolves them from the index's metadata alone: no GPU is needed and no package is downloaded. Both
commands prefer the versions that the tests run with (envs/cpu.lock), then those of the lock that is
there, so that a lock holds what was tested wherever the pins allow it, and changes no more than
they demand.

Beside each version stand the sha256 of the files that it may be installed from: the index's wheels
for those machines, or the source where there is no wheel. So what pip installs is what the lock was
made of, from whichever index it comes. The locks that are frozen environments (envs/cpu.lock,
envs/image-reward.txt) or written by hand (envs/pip.lock) get theirs, too; a build of PyTorch's CPU
index keeps the one that it has.

Beside each rule's environment stands `<name>.post-deploy.sh`, which `snakemake --sdm conda` runs
after conda has made the environment: it brings the packages that the yaml does not name to the
lock's versions. docs/environments.md tells the rest.
"""

import argparse
import difflib
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
#: What all locks are for. vLLM's llguidance has no wheels for a glibc before 2.31.
TARGET = ("--python-version", "3.11.7", "--python-platform", "x86_64-manylinux_2_31")
#: The Slurm executor wants a numpy that vLLM's numba refuses. In one environment for all, the
#: models' version wins; tests/slurm/ runs so.
OVERRIDES = {"gpu": ["numpy==2.3.5"], "cpu": ["numpy==2.3.5", "torch==2.13.0"]}
#: What a resolution brings that the lock of a machine without a GPU leaves out.
ONLY_WITH_GPU = re.compile(r"cuda-.*|nvidia-.*|torchaudio|torchcodec|triton")
#: Where the versions stand that the tests run with: `make parity` has a lock of its own.
TESTED = {"image-reward": "image-reward.txt"}
#: The parts of the environment `gpu`: everything but the original image-reward package, which needs
#: a transformers of its own.
GPU_PARTS = ("diffusion", "evaluation", "head", "rewards", "training", "vllm", "workflow")
#: Locks that are frozen environments, or written by hand.
FROZEN = ("cpu.lock", "image-reward.txt", "pip.lock")
#: Environments that no rule names, so that `--sdm conda` never makes them.
NOT_OF_RULES = ("head", "gpu")


class ResolutionError(Exception):
    """The pins of an environment contradict each other, or the index has not got one of them."""


@dataclass(frozen=True)
class Environment:
    """A set of pins that must resolve together."""

    name: str
    pins: list[str]
    overrides: list[str] = field(default_factory=list)

    def lock_file(self, folder: Path) -> Path:
        """The lock beside the yaml."""
        return folder / f"{self.name}.lock"

    def header(self) -> str:
        """What a lock says of itself."""
        made_from = (
            "the yaml files of all environments but image-reward"
            if self.name == "gpu"
            else f"envs/{self.name}.yaml"
        )
        return (
            f"# Every package of the environment `{self.name}`, for Linux on x86_64, Python 3.11"
            f" and GPUs; made from {made_from} by\n# `make envs-lock`. Install it with `pip install"
            " --no-deps --require-hashes -r`.\n"
        )


def pins_of(path: Path) -> list[str]:
    """The pip pins of a conda environment file."""
    dependencies = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    return next(part["pip"] for part in dependencies if isinstance(part, dict))


def versions_of(path: Path) -> dict[str, str]:
    """The versions in a lock by name; none if there is no such file."""
    return parse(path.read_text(encoding="utf-8")) if path.exists() else {}


def parse(lock: str) -> dict[str, str]:
    """The versions in a lock's text by name. A CPU build counts as its version."""
    return {
        normal(name): version.removesuffix("+cpu")
        for name, version in (pin.split("==") for pin in pins_in(lock))
    }


def pins_in(lock: str) -> list[str]:
    """The `name==version` of each line of a lock's text, as they stand there."""
    return [line.split()[0] for line in lock.splitlines() if re.match(r"[\w.-]+==", line)]


def normal(name: str) -> str:
    """A package's name, as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes_in(lock: str) -> dict[str, list[str]]:
    """The `sha256:...` of each `name==version` in a lock's text."""
    return {
        line.split()[0]: re.findall(r"--hash=(sha256:[0-9a-f]{64})", line)
        for line in lock.splitlines()
        if re.match(r"[\w.-]+==", line)
    }


def uv_compile(scratch: Path, *arguments: str) -> str:
    """What uv says against resolving the arguments in a folder, for TARGET; empty if it does."""
    command = [sys.executable, "-m", "uv", "pip", "compile", *arguments, *TARGET]
    quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    done = subprocess.run(
        [*command, *quiet], cwd=scratch, text=True, capture_output=True, check=False
    )
    return done.stderr.strip() if done.returncode else ""


def files_on_index(pins: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the index has of each package, by name: "wheels" for TARGET and the "sdist", with their
    hashes. Errors: ResolutionError.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "pins.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
        asked = ("pins.txt", "--no-deps", "--format", "pylock.toml", "--output-file")
        if problem := uv_compile(scratch, *asked, "pylock.toml"):
            raise ResolutionError(f"the index has not got all packages of a lock.\n{problem}")
        lock = tomllib.loads((scratch / "pylock.toml").read_text(encoding="utf-8"))
    return {normal(package["name"]): package for package in lock["packages"]}


def with_hashes(pins: Sequence[str], there: Mapping[str, Sequence[str]]) -> str:
    """The lines of a lock, and before them what pip may build: the packages without wheels.

    `there`: the hashes by pin of the lock that is there. They stay where the index has them all: it
    may get further files of a version later. Errors: ResolutionError.
    """
    local = [pin for pin in pins if "+" in pin]  # not of the index
    if unknown := [pin for pin in local if not there.get(pin)]:
        raise ResolutionError(
            f"{', '.join(unknown)}: the package index has no such build. Write the `--hash=sha256:`"
            " of its wheel (`pip hash FILE`) behind it in the lock."
        )
    found = files_on_index([pin for pin in pins if pin not in local])
    lines, built = [], []
    for pin in pins:
        hashes = list(there.get(pin, ()))
        if pin not in local:
            files = found[normal(pin.split("==")[0])]
            if not files.get("wheels"):
                built.append(normal(pin.split("==")[0]))
            known = sorted(
                f"sha256:{file['hashes']['sha256']}"
                for file in files.get("wheels") or [files["sdist"]]
            )
            hashes = hashes if hashes and set(hashes) <= set(known) else known
        lines.append(" ".join([pin, *(f"--hash={each}" for each in hashes)]))
    options = ["--require-hashes", "--only-binary :all:"]
    options += [f"--no-binary {','.join(built)}"] if built else []
    return "\n".join([*options, *lines]) + "\n"


def frozen(path: Path) -> str:
    """The text of a frozen environment's lock, with its hashes. Errors: ResolutionError."""
    text = path.read_text(encoding="utf-8")
    said = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return said + with_hashes(pins_in(text), hashes_in(text))


def environments(folder: Path) -> list[Environment]:
    """All environments of the folder, `gpu` (all in one) last."""
    pins = {
        path.stem: pins_of(path) for path in sorted(folder.glob("*.yaml")) if path.stem != "site"
    }
    if set(GPU_PARTS) <= pins.keys():
        pins["gpu"] = sorted({pin for part in GPU_PARTS for pin in pins[part]})
    return [Environment(name, wanted, OVERRIDES.get(name, [])) for name, wanted in pins.items()]


def resolve(environment: Environment, folder: Path) -> str:
    """The lock's pins: the tested versions wherever they fit, else those of the lock that is there.
    Errors: ResolutionError.
    """
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "pins.txt").write_text("\n".join(environment.pins) + "\n", encoding="utf-8")
        (scratch / "overrides.txt").write_text(
            "\n".join(environment.overrides) + "\n", encoding="utf-8"
        )
        output = scratch / "lock.txt"
        known = versions_of(environment.lock_file(folder)) | versions_of(
            folder / TESTED.get(environment.name, "cpu.lock")
        )
        output.write_text(
            "".join(f"{name}=={version}\n" for name, version in known.items()), encoding="utf-8"
        )
        asked = ("pins.txt", "--override", "overrides.txt", "--output-file")
        if problem := uv_compile(scratch, *asked, "lock.txt"):
            raise ResolutionError(
                f"envs/{environment.name}: the pins do not resolve together.\n{problem}"
            )
        return output.read_text(encoding="utf-8")


def post_deploy(environment: Environment, lock: str) -> str:
    """The script that Snakemake runs in a new conda environment. It names the lock's sha256, so
    that another lock makes another one.
    """
    path = f"envs/{environment.name}.lock"
    digest = hashlib.sha256(lock.encode()).hexdigest()
    return (
        "# Snakemake runs this in the conda environment that it has made of"
        f" envs/{environment.name}.yaml: all packages as in the lock.\n"
        "# Made by `make envs-lock`.\n"
        "set -eu\n"
        f'echo "{digest}  {path}" | sha256sum --check --quiet - || {{\n'
        f"    echo \"{path} is missing or has been edited: run snakemake in the repository's root,"
        ' after make envs-lock" >&2\n'
        "    exit 1\n"
        "}\n"
        f"python -m pip install --quiet --no-deps --require-hashes --requirement {path}\n"
    )


def files_of(environment: Environment, folder: Path) -> dict[Path, str]:
    """What belongs beside an environment's yaml: its lock, and where rules name it the script that
    installs the lock.
    """
    path = environment.lock_file(folder)
    there = hashes_in(path.read_text(encoding="utf-8")) if path.exists() else {}
    pins = pins_in(resolve(environment, folder))
    lock = environment.header() + with_hashes(pins, there)
    files = {path: lock}
    if environment.name not in NOT_OF_RULES:
        files[folder / f"{environment.name}.post-deploy.sh"] = post_deploy(environment, lock)
    return files


def problem_of_cpu(folder: Path) -> str:
    """How envs/cpu.lock, which is a frozen environment, differs from what envs/cpu.in resolves to;
    empty if it does not.
    """
    lines = (folder / "cpu.in").read_text(encoding="utf-8").splitlines()
    # The index has torch's CUDA build only, under the same version.
    pins = [line.replace("+cpu", "") for line in lines if "==" in line and not line.startswith("#")]
    environment = Environment("cpu", pins, OVERRIDES["cpu"])
    text = resolve(environment, folder)
    wanted = {
        name: version for name, version in parse(text).items() if not ONLY_WITH_GPU.fullmatch(name)
    }
    found = versions_of(folder / "cpu.lock")
    names = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    listed = "".join(
        f"\n  {name}: {found.get(name, 'not there')}, should be {wanted.get(name, 'not there')}"
        for name in names
    )
    return (
        "envs/cpu.lock is not what envs/cpu.in resolves to; CONTRIBUTING.md says how it is"
        f" made:{listed}"
        if names
        else ""
    )


def difference(path: Path, wanted: str) -> str:
    """How a file differs from what it should be; empty if it does not."""
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    changed = [
        line
        for line in difflib.unified_diff(found.splitlines(), wanted.splitlines(), lineterm="", n=0)
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    ]
    if found == wanted:
        return ""
    shown = "".join(f"\n  {line}" for line in changed[:10])
    return (
        f"envs/{path.name} does not fit its yaml any more (- is, + should be); `make envs-lock`"
        f" writes it:{shown}"
    )


def built_in(lock: str) -> str:
    """The packages that a lock has built from their sources, in words; empty where there are
    none.
    """
    found = re.search(r"^--no-binary (.*)$", lock, flags=re.MULTILINE)
    return f", built from source: {found[1].replace(',', ', ')}" if found else ""


def main() -> int:
    """Writes or checks; the exit status is 1 if an environment does not resolve or, checking, a
    file does not fit.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; fail where a lock does not fit or pins do not resolve",
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="the folder of the environments"
    )
    arguments = parser.parse_args()
    problems = []

    def tried(environment: Environment) -> dict[Path, str] | str:
        try:
            return files_of(environment, arguments.folder)
        except ResolutionError as error:
            return str(error)

    def tried_frozen(path: Path) -> dict[Path, str] | str:
        try:
            return {path: frozen(path)}
        except ResolutionError as error:
            return f"envs/{path.name}: {error}"

    def checked_cpu() -> str:
        try:
            return problem_of_cpu(arguments.folder)
        except ResolutionError as error:
            return str(error)

    wanted = environments(arguments.folder)
    locks = [path for name in FROZEN if (path := arguments.folder / name).exists()]
    with ThreadPoolExecutor(max_workers=4) as pool:
        cpu = (
            pool.submit(checked_cpu)
            if arguments.check and (arguments.folder / "cpu.in").exists()
            else None
        )
        for files in (*pool.map(tried, wanted), *pool.map(tried_frozen, locks)):
            if isinstance(files, str):
                problems.append(files)
                continue
            for path, text in files.items():
                if not arguments.check:
                    path.write_text(text, encoding="utf-8")
                elif found := difference(path, text):
                    problems.append(found)
                if path.suffix != ".sh":
                    print(f"{path.name}: {len(pins_in(text))} packages{built_in(text)}")
        problems += [cpu.result()] if cpu is not None and cpu.result() else []
    for problem in problems:
        print(f"\n{problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
