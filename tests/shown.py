"""Which rows of docs/models.md a run of the tests has shown: a test of a kind's contract has the
mark `shows(role, kind)`, and a row is shown where all tests of its kind ran and none failed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

Kind = tuple[str, str]
PROPERTY = "shows"


def showing(role: str, kind: str, *values: Any) -> Any:
    """A parameter of a test of a kind's contract: `values`, or the kind's name."""
    marks = [pytest.mark.shows(role, kind), *([pytest.mark.slow] if kind == "vllm" else [])]
    return pytest.param(*(values or (kind,)), marks=marks)


def kinds_of(test: Any) -> set[Kind]:
    """The kinds that a test function shows."""
    marks = list(getattr(test, "pytestmark", []))
    for mark in list(marks):
        if mark.name == "parametrize":
            marks += [more for each in mark.args[1] for more in getattr(each, "marks", ())]
    return {mark.args for mark in marks if mark.name == "shows"}


def kinds_held_by(module: ModuleType) -> set[Kind]:
    """The kinds of which a module has tests that are made for their role, not for all roles."""
    tests = [each for name, each in vars(module).items() if name.startswith("test_")]
    return {kind for test in tests if not is_for_all_roles(test) for kind in kinds_of(test)}


def is_for_all_roles(test: Any) -> bool:
    """Whether a test function is told its role."""
    marks = getattr(test, "pytestmark", [])
    return any(mark.name == "parametrize" and "role" in mark.args[0] for mark in marks)


class Shown:
    """Counts the tests of each kind's contract, on each of pytest's workers, and what became of
    them, where their reports come together.
    """

    def __init__(self) -> None:
        self.wanted: dict[Kind, int] = {}
        self.outcomes: dict[Kind, Counter[str]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Has each report tell its kind, and how many tests its contract has, before some of them
        are deselected.
        """
        kinds = {item: [mark.args for mark in item.iter_markers("shows")] for item in items}
        wanted = Counter(kind for each in kinds.values() for kind in each)
        for item, each in kinds.items():
            item.user_properties += [(PROPERTY, [*kind, wanted[kind]]) for kind in each]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts a test that passed or was skipped once, and every failure."""
        if report.when != "call" and report.passed:
            return
        told: list[Any] = [value for name, value in report.user_properties if name == PROPERTY]
        for role, kind, wanted in told:
            self.wanted[role, kind] = wanted
            self.outcomes.setdefault((role, kind), Counter())[report.outcome] += 1

    def kinds(self) -> set[Kind]:
        """Those that were shown."""
        return {
            kind
            for kind, outcomes in self.outcomes.items()
            if outcomes["passed"]
            and not outcomes["failed"]
            and outcomes["passed"] + outcomes["skipped"] == self.wanted[kind]
        }

    def lines(self) -> Iterator[str]:
        """The rows of docs/models.md that were shown, a table a role."""
        import make_models

        shown = self.kinds()
        for section in make_models.sections():
            only = {kind for role, kind in shown if role == section.role}
            if only:
                yield from (f"\n{make_models.title(section)}\n", *make_models.table(section, only))

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Prints them, but where single tests of a file were asked for."""
        lines = [] if any("::" in each for each in config.args) else list(self.lines())
        if lines:
            terminalreporter.section("shown of docs/models.md")
            for line in lines:
                terminalreporter.write_line(line)
