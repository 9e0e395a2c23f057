"""The tiny benchmarks by name: whoever adds one adds its file and its line here."""

from collections.abc import Callable
from typing import Any

from tiny.benchmarks import (
    amber,
    chair,
    mm_vet,
    mmbench,
    mme,
    mmhal_bench,
    object_halbench,
    pope,
    scienceqa,
    textvqa,
    vqav2,
)
from tiny.benchmarks.files import Files

#: Benchmarks that lmms-eval asks: their rows, and the kind of each column.
BENCHMARKS: dict[str, tuple[Callable[[], list[dict[str, Any]]], dict[str, str]]] = {
    "pope": (pope.make_rows, pope.COLUMNS),
    "mme": (mme.make_rows, mme.COLUMNS),
    "vqav2": (vqav2.make_rows, vqav2.COLUMNS),
    "scienceqa": (scienceqa.make_rows, scienceqa.COLUMNS),
    "textvqa": (textvqa.make_rows, textvqa.COLUMNS),
    "mm_vet": (mm_vet.make_rows, mm_vet.COLUMNS),
    "mmbench": (mmbench.make_rows, mmbench.COLUMNS),
}
#: Benchmarks that publish files, by the name of their folder.
FOLDERS: dict[str, Callable[[], Files]] = {
    "amber": amber.make_files,
    "chair": chair.make_files,
    "mmhal_bench": mmhal_bench.make_files,
    "object_halbench": object_halbench.make_files,
    "pope": pope.make_files,
}
