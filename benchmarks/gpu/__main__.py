"""`make gpu-check`: each section in a process of its own, at most two minutes long.

    PYTHONPATH=scripts:demo:benchmarks python -m gpu [--only SECTION] [--budget SECONDS]

What is measured stands in --output, a file a section; a second call measures what is missing.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

HERE = Path(__file__).resolve().parents[2]
SECTIONS = ("pictures", "training", "answers", "rewards", "scorers")
SECONDS_A_SECTION = 120
#: Seconds of these in which nothing new is begun. What is not done by their end is not measured
#: before the next call, whose first row it is.
GRACE = 20
#: A section with less time than this is left to the next call: its weights take as long to make.
SECONDS_TO_BEGIN = 10


def main() -> None:
    """Measures, and writes the table, the rates and the paragraph."""
    arguments = parse()
    if arguments.wheels:
        from gpu.wheels import wheels

        print("\n".join(wheels()))
        return
    if arguments.section:
        run_section(arguments)
        return
    device = arguments.device or ("cuda" if has_gpu() else "cpu")
    arguments.output.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + arguments.budget
    todo = list(dict.fromkeys(arguments.only or SECTIONS))
    workers = {name: start(name, arguments.output, device) for name in todo[:1]}
    for place, name in enumerate(todo):
        # The next one imports its libraries while this one has the device.
        if place + 1 < len(todo):
            workers[todo[place + 1]] = start(todo[place + 1], arguments.output, device)
        # Tiny models need no limit, and a CPU may be busy with other things.
        most = SECONDS_A_SECTION if device == "cuda" else arguments.budget
        let_go(workers[name], min(most, ends - time.monotonic()), name)
    conclude(arguments.output)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="gpu-check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be repeated")
    parser.add_argument("--budget", type=float, default=600, help="seconds for all sections")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "gpu-check")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="a CPU runs tiny sizes")
    parser.add_argument("--wheels", action="store_true", help="list what a bare machine lacks")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser.parse_args()


def has_gpu() -> bool:
    """Whether torch sees a GPU; asked in a process of its own, which then lets go of it."""
    asked = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def start(name: str, output: Path, device: str) -> "subprocess.Popen[str]":
    """A section's process, which imports its libraries and waits to be let go."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # as rule train_dpo sets it
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",  # compiling is timed cold
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "gpu", "--section", name]
    return subprocess.Popen(
        [*command, "--output", str(output), "--device", device],
        env=environment,
        stdin=subprocess.PIPE,
        text=True,
    )


def let_go(worker: "subprocess.Popen[str]", seconds: float, name: str) -> None:
    """Gives a section the device for so many seconds, at whose end it is ended."""
    started = time.monotonic()
    try:
        worker.communicate(f"{max(0.0, seconds - GRACE)}\n", timeout=max(GRACE, seconds))
        ended = f"exit code {worker.returncode}"
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.communicate()
        ended = "ended there; call it again for what is missing"
    took = time.monotonic() - started
    print(f"gpu-check: {name} took {took:.0f} s, {ended}", flush=True)


def run_section(arguments: argparse.Namespace) -> None:
    """One section, in its own process."""
    from gpu.report import OutOfTimeError, Report, failure
    from lib.patches.imports import hide_for_good

    section, problem = None, ""
    try:
        section = import_module(f"gpu.{arguments.section}")
        hide_for_good("wandb")
        for library in section.LIBRARIES:
            resolve_name(library)
    except Exception as error:
        problem = failure(error)
    seconds = float(sys.stdin.readline() or "0")
    started = time.monotonic()
    report = Report(
        arguments.output / f"{arguments.section}.json", arguments.device, started + seconds
    )
    if report.is_complete:
        return
    try:
        if seconds < SECONDS_TO_BEGIN:
            raise OutOfTimeError(arguments.section)
        told = {"failed": problem} if section is None or problem else {}
        if section is not None and not problem:
            section.run(report)
    except OutOfTimeError as error:
        told = {"failed": f"no time left for: {error}"}
    except Exception as error:
        told = {"failed": failure(error)}
        import traceback

        traceback.print_exc()
    report.write(complete=not told and not report.failures(), **told)


def conclude(output: Path) -> None:
    """Writes what the sections' files say together."""
    from gpu.summary import paragraph, print_table, read_sections, write_rates

    contents = read_sections(output, SECTIONS)
    if not contents:
        sys.exit("gpu-check: no section could be begun")
    print_table(contents)
    write_rates(output, contents)
    (output / "gpu.md").write_text(paragraph(contents), encoding="utf-8")
    print(f"gpu-check: {output}")


if __name__ == "__main__":
    main()
