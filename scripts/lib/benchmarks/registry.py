"""The benchmarks that there are scorers of: the configuration's `scorer`."""

from typing import Annotated, Any

from pydantic import AfterValidator

from lib.benchmarks.base import Benchmark, LanguageChoice
from lib.benchmarks.questions import QuestionsBenchmark
from lib.registry import Registry

BENCHMARKS: Registry[Benchmark[Any]] = Registry(
    "scorer",
    {
        "pope": "lib.benchmarks.pope:Pope",
        "chair": "lib.benchmarks.chair:Chair",
        "amber": "lib.benchmarks.amber:Amber",
        "object_halbench": "lib.benchmarks.object_halbench:ObjectHalBench",
        "mmhal_bench": "lib.benchmarks.mmhal_bench:MMHalBench",
        "mm_vet": "lib.benchmarks.mm_vet:MMVet",
    },
    key="scorer",
)


def load_benchmark(name: str, language: LanguageChoice = "auto") -> Benchmark[Any]:
    """A benchmark with its language tools. Errors: ValueError, "did you mean"."""
    return BENCHMARKS.load(name)(language)


def load_questions_benchmark(name: str) -> QuestionsBenchmark[Any]:
    """A benchmark whose questions our own rule asks. Errors: ValueError for another one."""
    benchmark = load_benchmark(name)
    if not isinstance(benchmark, QuestionsBenchmark):
        raise ValueError(f"'{name}' has no questions of its own")
    return benchmark


def names_of(*roles: type[Any]) -> list[str]:
    """The benchmarks that are of all these classes; all modules are imported for it."""
    classes = {name: BENCHMARKS.load(name) for name in BENCHMARKS.kinds}
    return [name for name, cls in classes.items() if all(issubclass(cls, role) for role in roles)]


def _known_scorer(name: str) -> str:
    if name not in BENCHMARKS.kinds:
        raise ValueError(BENCHMARKS.problem_with(name))
    return name


#: A configured scorer.
Scorer = Annotated[str, AfterValidator(_known_scorer)]
