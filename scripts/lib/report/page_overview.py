"""What the report's first page is told: what became of the prompts at each step, the run's models,
tables and figures, and the time that its jobs took.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from lib.data.data_sets import PAIRS, reason_of
from lib.data.rows import ImagesRow, MissingRow, PairRow, ResponseRankingRow
from lib.data.shards import is_missing
from lib.data.stored_rows import StoredRows
from lib.jobs.record import read_record
from lib.report.data_set_card import STEPS
from lib.report.licence import UsedModel


class FlowStep(TypedDict):
    """A step of the flow: how many came through it, and why others did not."""

    step: str
    count: int
    left_out: list[tuple[str, int]]


class ModelEntry(TypedDict):
    """A model of the run; `terms` and their `address` are empty where none are known."""

    does: str
    model: str
    revision: str
    terms: str
    address: str


class TableEntry(TypedDict):
    """A table as it is printed."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


class FlowCounter:
    """Counts what became of prompts, one by one."""

    def __init__(self) -> None:
        self.prompts = 0
        self.candidates = 0
        self.blank = 0
        self.responses = 0
        self.stopped: dict[str, Counter[str]] = {}
        self.invalid: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def add(
        self,
        images: ImagesRow | MissingRow,
        responses: ResponseRankingRow | MissingRow,
        pair: PairRow | MissingRow,
    ) -> None:
        """Takes the next prompt."""
        self.prompts += 1
        if not is_missing(images):
            self.candidates += len(images["candidates"])
            self.blank += sum(each["blank"] for each in images["candidates"])
        if not is_missing(responses):
            self.responses += len(responses["responses"])
        if is_missing(pair):
            of_rule = self.stopped.setdefault(pair["missing"]["rule"], Counter())
            of_rule[reason_of(pair)] += 1
            return
        self.invalid.update(pair["invalid_responses"].values())
        self.reasons[reason_of(pair)] += 1

    def steps(self, data_sets: Iterable[tuple[str, int]]) -> list[FlowStep]:
        """The flow; `data_sets`: size and number of pairs of each that is there."""
        left = self.prompts
        steps = [step("Prompts", left)]
        for rule, what in STEPS.items():
            out = self.stopped.get(rule, Counter())
            left -= out.total()
            steps.append(step(f"Prompts {what}", left, out))
            if rule == "generate_images":
                steps.append(step("Candidates", self.candidates, {"one colour only": self.blank}))
        steps.append(step("Responses", self.responses, self.invalid))
        without = Counter(self.reasons)
        pairs = without.pop(PAIRS, 0)
        steps.append(step("Pairs", pairs, without))
        return [*steps, *(step(f"Pairs in data set {size}", count) for size, count in data_sets)]


def step(
    what: str, count: int, left_out: "Counter[str] | dict[str, int] | None" = None
) -> FlowStep:
    """A step of the flow; the most frequent reason first."""
    reasons = [
        (reason, number) for reason, number in Counter(left_out or {}).most_common() if number
    ]
    return {"step": what, "count": count, "left_out": reasons}


def count_flow(
    images: StoredRows[ImagesRow],
    responses: StoredRows[ResponseRankingRow],
    pairs: StoredRows[PairRow],
) -> FlowCounter:
    """What became of all prompts."""
    counter = FlowCounter()
    for name, pair in pairs.items():
        counter.add(images[name], responses[name], pair)
    return counter


def data_sets_of(root: Path) -> list[tuple[str, int]]:
    """The data sets that are there, and how many pairs each has."""
    found = [
        (path.parent.name, int(json.loads(path.read_text(encoding="utf-8"))["size"]))
        for path in root.glob("dataset/*/dataset.json")
    ]
    return sorted(found, key=lambda each: (each[1], each[0]))


def models_of(models: Sequence[UsedModel], root: Path) -> list[ModelEntry]:
    """The run's models with their resolved revisions. `root`: the run's folder, whose records tell
    them.
    """
    return [
        {
            "does": model.does,
            "model": model.name + (f" ({model.host})" if model.host else ""),
            "revision": resolved(model, root),
            "terms": model.terms.name if model.terms else "",
            "address": model.terms.address if model.terms else "",
        }
        for model in models
    ]


def resolved(model: UsedModel, root: Path) -> str:
    """The commit, or the digest of the folder, that a record tells; else what is configured."""
    folder = root / "work" / model.rule
    records = (read_record(path) for path in sorted(folder.rglob("*.json")) if model.rule)
    found = (record.models.get(model.origin.model) for record in records if record)
    return next(filter(None, found), None) or model.origin.revision


def tables_of(root: Path) -> list[TableEntry]:
    """The tables that are there, as their Markdown prints them."""
    return [table_of(path) for path in sorted((root / "tables").glob("*.json"))]


def table_of(sidecar: Path) -> TableEntry:
    """A table, from what its sidecar says of its cells."""
    told = json.loads(sidecar.read_text(encoding="utf-8"))
    texts = list(told["cells"][0]["of"]) if told["cells"] else []
    columns = [column["key"] for column in told["columns"]]
    rows: dict[int, dict[str, str]] = {}
    for cell in told["cells"]:
        row = rows.setdefault(cell["row"], {"source": cell["source"], **cell["of"]})
        row[cell["column"]] = cell["shown"]
    header = [
        "Source",
        *(name.replace("_", " ").capitalize() for name in texts),
        *(
            f"{column['name']} ({column['unit']})" if column["unit"] else column["name"]
            for column in told["columns"]
        ),
    ]
    shown = [[row.get(name, "") for name in ("source", *texts, *columns)] for row in rows.values()]
    return {"title": told["title"], "header": header, "rows": shown, "notes": told["notes"]}


def title_of(figure: Path) -> str:
    """What a figure's picture is called."""
    name = figure.stem.replace("_", " ")
    return f"{figure.parent.name}: {name}" if figure.parent.name != "figures" else name.capitalize()


def figures_of(root: Path) -> list[Path]:
    """The pictures of figures and of trainings that are there."""
    return [*sorted((root / "figures").glob("*.png")), *sorted(root.glob("models/*/training.png"))]
