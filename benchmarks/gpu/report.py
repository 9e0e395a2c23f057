"""What a section measured: kept row by row, so that a second call does only what is missing."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from lib.files import write_json
from lib.jobs.memory import free_device_memory, is_out_of_memory

PACKAGES = ("torch", "transformers", "diffusers", "peft", "trl", "accelerate")
GIB = 2**30

#: What was measured, by name: numbers with their unit in the name, and what is said of them.
Row = dict[str, Any]


#: What stands in the files alone, or in a column of its own.
UNTOLD = ("what", "wall_seconds", "digest", "peak_gib")


class OutOfTimeError(Exception):
    """No time is left for what is not measured yet."""


def versions() -> dict[str, str]:
    """The versions of the packages that decide how fast it is, of those that are there."""
    found = {"Python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def card_of(device: str) -> str:
    """The name of the device that was measured."""
    if device != "cuda":
        return "CPU"
    import torch

    return str(torch.cuda.get_device_name())


class Report:
    """One section's rows by what was measured, on the disk from the first on.

    `deadline`: of `time.monotonic`; after it nothing new is begun.
    """

    def __init__(self, path: Path, device: str, deadline: float) -> None:
        self.path = path
        self.device = device
        self.deadline = deadline
        content = json.loads(path.read_text()) if path.exists() else {}
        self.is_complete = bool(content.get("complete"))
        self.rows: dict[str, Row] = {
            row["what"]: {name: value for name, value in row.items() if name != "what"}
            for row in content.get("rows", [])
            if "failed" not in row
        }

    def has(self, *whats: str) -> bool:
        """Whether all of these are measured."""
        return all(what in self.rows for what in whats)

    def forget(self, *whats: str) -> None:
        """Has these measured anew."""
        for what in whats:
            self.rows.pop(what, None)

    def failures(self) -> list[str]:
        """What could not be measured."""
        return [what for what, row in self.rows.items() if "failed" in row]

    def measure(self, what: str, work: Callable[[], Row]) -> Row | None:
        """The row of `what`, measured now if it is not there; None if that failed, which is a row
        of its own. Peak memory of the device is added. Errors: OutOfTimeError.
        """
        if what in self.rows:
            return self.rows[what]
        if time.monotonic() > self.deadline:
            raise OutOfTimeError(what)
        reset_peak(self.device)
        started = time.perf_counter()
        try:
            row = work()
            row.setdefault("peak_gib", peak_gib(self.device))
        except Exception as error:
            row = {"failed": failure(error)}
        free_device_memory()
        row["wall_seconds"] = round(time.perf_counter() - started, 2)
        self.rows[what] = row
        self.write(complete=False)
        peak = f"; peak {row['peak_gib']} GiB" if row.get("peak_gib") else ""
        print(f"{self.path.stem}: {what}: {told(row)}{peak}", flush=True)
        return None if "failed" in row else row

    def write(self, complete: bool, **more: Any) -> None:
        """Writes the section's file."""
        content = {
            "section": self.path.stem,
            "complete": complete,
            "device": self.device,
            "card": card_of(self.device),
            "versions": versions(),
            "rows": [{"what": what} | row for what, row in self.rows.items()],
        }
        write_json(self.path, content | more)


def failure(error: Exception) -> str:
    """Why something could not be measured, in a line."""
    if is_out_of_memory(error):
        return "out of memory"
    lines = [line.strip() for line in str(error).split("\n") if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def told(row: Row) -> str:
    """A row as one line, without long lists."""
    return ", ".join(
        f"{name.replace('_', ' ')}: {shown(value)}"
        for name, value in row.items()
        if name not in UNTOLD and value is not None and is_short(value)
    )


def is_short(value: Any) -> bool:
    """Whether a table has room for a value: not for a list of scores or ids, nor for an empty
    one.
    """
    if not isinstance(value, list):
        return True
    return bool(value) and all(isinstance(each, str) for each in value)


def shown(value: Any) -> str:
    """A value as tables show it: numbers with four digits that count."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1000 else f"{value:.0f}"
    return str(value)


def synchronize(device: str) -> None:
    """Waits until the device has done what it was told."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    """Counts the device's peak memory anew."""
    if device == "cuda":
        import torch

        free_device_memory()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float | None:
    """GiB that tensors took at most since `reset_peak`; None on a CPU."""
    if device != "cuda":
        return None
    import torch

    return round(float(torch.cuda.max_memory_allocated()) / GIB, 2)


def timed(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, until the device is done, and what it returned."""
    synchronize(device)
    started = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - started, result


def digest_of_images(images: Sequence[Any]) -> str:
    """The first 16 hex digits of the sha256 of images' pixels."""
    return digest_of_bytes(image.tobytes() for image in images)


def digest_of_bytes(parts: Iterable[bytes]) -> str:
    """The first 16 hex digits of a sha256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
