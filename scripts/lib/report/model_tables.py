"""Tables of models: the paper's Tables 1, 2 and 3 with our models below its rows, and one of all
scores of all benchmarks, a line each.

A difference to the paper is shown only where it means something: our row and the paper's are of the
same model and data size, on all questions, and the run is no demo. Experiments that differ in
nothing but their training seed are one row, with mean and spread.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from lib.blocks import Block
from lib.data.evaluation_files import BenchmarkScores, ComputedBy, OtherScores
from lib.jobs.job import Job
from lib.paired import Comparison, compare, is_clear, say_comparison
from lib.paired import read_scores as read_by_question
from lib.report.provenance import Provenance
from lib.report.published import (
    Published,
    PublishedRow,
    comparable_values,
    demo_notes,
    notes_of,
    our_source,
    paper_rows,
    read_published,
)
from lib.report.sidecar import Label, ModelOrigin
from lib.report.tables import ARROWS, CellTest, Table, TableColumn, TableRow, write_table

VERSION = 4
#: What the base model is called among the models.
BASE = "base"
#: What marks the rows of models that others trained; their numbers are of this run.
RELEASED = "released"
#: MMHal-Bench's score, a mean of ratings, is told with two.
ALL_SCORES_DECIMALS = 2
#: The model that the paper's rows with `pairs` are of, as its hub names contain it.
PAPER_BASE_MODEL = "llava-1.5-7b"
#: What a scores.json says of how its scores came to be; the sidecar's cells carry it.
ORIGIN = (
    "model",
    "benchmark",
    "model_identity",
    "task",
    "lmms_eval",
    "limit",
    "questions",
    "questions_in_data",
    "answers",
    "computed_by",
    "environment",
    "against_base",
)
#: Below the tables, where anything was tested.
TESTED = (
    "* Question by question, the model's answers differ from the base model's by more than chance"
    " (5 %): McNemar's exact test where an answer is right or wrong, otherwise a bootstrap interval"
    " of the mean difference, in which the questions of a picture are drawn together. Tested is"
    " what each answer was given (of answers that mention objects: less one for each that the"
    " picture does not show), and not a rate such as F1 that is made of it."
)


class ModelTableRow(Block):
    """A row of ours.

    models   the experiments it is of: several where they differ in their seed only; or "base"
    seeds    their training seeds
    pairs    how many pairs they were trained on: a number (0 for the base model), or all there are
    texts    of the text columns beside the name
    control  of a negative control: what it is, in words. It is compared with no row of the paper
    left_out why there is no data set of this size, and so no number in the row
    data_set the folder of the data set whose pairs are counted, where `pairs` is "all"
    origin   of pairs that the run did not make: where they come from, in words
    paper_row
             of such a row: the paper's row that it is held against, by its number of pairs
    released of a model that the run did not train: where it comes from
    """

    name: str
    models: list[str]
    seeds: list[int]
    pairs: int | Literal["all"]
    texts: dict[str, str]
    control: str | None = None
    left_out: str | None = None
    data_set: str = "all"
    origin: str | None = None
    paper_row: int | None = None
    released: ModelOrigin | None = None

    @property
    def compared_with(self) -> int | str | None:
        """The paper's row that it is held against, by its number of pairs; none for a negative
        control, and for pairs from elsewhere unless it is said which.
        """
        if self.control:
            return None
        return self.paper_row if self.origin or self.released else self.pairs

    @property
    def trained_on(self) -> str:
        """How many pairs it was trained on, and whose where they are not the run's."""
        return f"{self.pairs} pairs" + (f" of {self.origin}" if self.origin else "")

    @property
    def control_mark(self) -> str:
        """What marks the row as a negative control; nothing for all others."""
        return f"; control: {self.control}" if self.control else ""

    @property
    def title(self) -> str:
        """The row's name with what it was trained on."""
        if self.released:
            return f"{self.name} ({self.released.model})"
        if self.pairs == 0:
            return f"{self.name} (before training)"
        seeds = f", {len(self.models)} seeds" if len(self.models) > 1 else ""
        return f"{self.name} ({self.trained_on}{seeds}{self.control_mark})"


class ModelTableJob(Block):
    """What a rule is told that makes a table of models.

    scores  column -> "benchmark/score" or "benchmark/one|other": the first of these scores that
            there is of any of the models; the whole column is of it
    """

    rows: list[ModelTableRow]
    scores: dict[str, str]
    label: Label
    base: ModelOrigin


class DescribedScore(Block):
    """A score that a benchmark gives: its name, what it is and its unit, and which way is better
    ("higher", "lower"; None where neither is, or it is not known).
    """

    name: str
    what: str
    better: str | None = None


class AllScoresJob(Block):
    """What rule all_scores_table is told: the models, and every configured benchmark's scores."""

    rows: list[ModelTableRow]
    benchmarks: dict[str, list[DescribedScore]]
    label: Label
    base: ModelOrigin


class ScoresFile(BenchmarkScores, Provenance):
    """A scores.json, as far as tables read it; `file` is its place in the run's folder, `also` the
    scores in it that our scorer computed beside lmms-eval's. `against_base`: the model against the
    base model, question by question, where both have scores by question.
    """

    file: NotRequired[str]
    also: NotRequired[OtherScores]
    against_base: NotRequired[Comparison]


#: By model and benchmark.
Scores = Mapping[tuple[str, str], ScoresFile]


class ScoreOrigin(TypedDict):
    """Where a score of one model comes from: its file, its value there, and what `ORIGIN` names."""

    scores: str | None
    value: float | None
    model: str
    benchmark: str
    computed_by: ComputedBy


class CellOrigin(TypedDict):
    """Where a cell of ours comes from: the score's name, and each model's score."""

    score: str
    runs: list[ScoreOrigin]


def read_scores(paths: Iterable[str | Path], root: Path) -> dict[tuple[str, str], ScoresFile]:
    """The scores.json files by (model, benchmark). `root`: the run's folder."""
    scores = {}
    for path in map(Path, paths):
        score = cast("ScoresFile", json.loads(path.read_text(encoding="utf-8")))
        score["file"] = path.relative_to(root).as_posix()
        scores[score["model"], score["benchmark"]] = score
    return scores


def add_comparisons(
    scores: Mapping[tuple[str, str], ScoresFile], files: Iterable[str | Path], seed: int
) -> None:
    """Adds to the scores of each model how it compares with the base model. `files`: the scores by
    question, each beside its scores.json; `seed`: of the bootstrap.
    """
    by_question = {(path.parent.parent.name, path.parent.name): path for path in map(Path, files)}
    base = {
        benchmark: read_by_question(path)
        for (model, benchmark), path in by_question.items()
        if model == BASE
    }
    for (model, benchmark), path in by_question.items():
        if model == BASE or benchmark not in base or (model, benchmark) not in scores:
            continue
        if found := compare(base[benchmark], read_by_question(path), seed):
            scores[model, benchmark]["against_base"] = found


def _test_of(scores: Sequence[ScoresFile]) -> CellTest | None:
    """How the models of a cell compare with the base model; None where that is not known of all.
    Models of several seeds differ clearly where each does, and all in one direction.
    """
    found = [(score["model"], score["against_base"]) for score in scores if "against_base" in score]
    if not found or len(found) < len(scores):
        return None
    texts = [say_comparison(each) for _, each in found]
    if len(found) > 1:
        texts = [f"{model}: {text}" for (model, _), text in zip(found, texts, strict=True)]
    directions = {each["difference"] > 0 for _, each in found}
    clear = len(directions) == 1 and all(is_clear(each) for _, each in found)
    return CellTest("; ".join(texts), clear)


def comparison_notes(scores: Scores) -> list[str]:
    """How the models compare with the base model, a note each benchmark, if any does."""
    told: dict[str, list[str]] = {}
    for (model, benchmark), score in scores.items():
        if found := score.get("against_base"):
            told.setdefault(benchmark, []).append(f"{model}: {say_comparison(found)}")
    notes = [f"{name}, against the base model: {'; '.join(each)}." for name, each in told.items()]
    return [TESTED, *notes] if notes else []


def _fill_cell(
    row: TableRow, key: str, shown: str, models: Sequence[str], choice: str, scores: Scores
) -> None:
    """Fills one cell, the row's in column `key`, from the scores of one model, or from those of
    several seeds: mean, and standard deviation of the sample. `shown`: what a note calls it;
    `choice`: see `ModelTableJob.scores`.
    """
    benchmark, names = _choices(choice)
    present = [scores[model, benchmark] for model in models if (model, benchmark) in scores]
    name = names[-1]
    origin: CellOrigin = {"score": name, "runs": [_origin(score, name) for score in present]}
    row.origins[key] = origin
    if len(present) < len(models):
        row.missing[key] = f"{shown}: no benchmark '{benchmark}' configured in this run."
        return
    values = []
    for score in present:
        value = score["scores"].get(name)
        if value is None:
            row.missing[key] = f"{shown}: {_why_missing(score, names, name)}."
            return
        values.append(float(value))
    row.values[key] = statistics.fmean(values)
    if len(values) > 1:
        row.spreads[key] = statistics.stdev(values)
    if test := _test_of(present):
        row.tests[key] = test
    if remarks := dict.fromkeys(remark for score in present for remark in _remarks(score, name)):
        row.remarks[key] = f"{shown}: {'; '.join(remarks)}."


def _remarks(score: ScoresFile, name: str) -> list[str]:
    """What to know of a score: that it is of some questions only, or not comparable."""
    questions, of = score["questions"], score["questions_in_data"]
    is_limited = [f"only the first {questions} of {of} questions"] if score.get("limit") else []
    why = score.get("not_comparable", {}).get(name)
    return [*is_limited, why] if why else is_limited


def _choices(choice: str) -> tuple[str, list[str]]:
    """Benchmark and names of scores of "benchmark/one|other"."""
    benchmark, _, names = choice.partition("/")
    return benchmark, names.split("|")


def one_definition(
    choices: Mapping[str, str], rows: Sequence[ModelTableRow], scores: Scores
) -> dict[str, str]:
    """The choices, each with the first of its scores that any of the models has: two rows of a
    column are never of two scores. Where no model has any, as it was.
    """
    models = [model for row in rows for model in row.models]
    settled = {}
    for column, choice in choices.items():
        benchmark, names = _choices(choice)
        files = [scores[model, benchmark] for model in models if (model, benchmark) in scores]
        given = {name for file in files for name in file["scores"]}
        first = next((name for name in names if name in given), None)
        settled[column] = f"{benchmark}/{first}" if first else choice
    return settled


def _why_missing(score: ScoresFile, names: Sequence[str], name: str) -> str:
    """Why a file has no score under a name: the reason for the score that was wanted first."""
    reasons = score.get("missing") or {}
    given = [reasons[each] for each in names if reasons.get(each)]
    no_such = f"benchmark '{score['benchmark']}' of this run has no score '{name}'"
    return given[0] if given else no_such


def _origin(score: ScoresFile, name: str) -> ScoreOrigin:
    """Where one score comes from. Some are another scorer's than the file's (`also`), which then is
    the one to be named.
    """
    kept = {key: value for key, value in score.items() if key in ORIGIN}
    origin = {"scores": score.get("file"), "value": score["scores"].get(name), **kept}
    also = score.get("also")
    if also and name in also["scores"]:
        origin["computed_by"] = also["computed_by"]
    return cast("ScoreOrigin", origin)


def our_row(
    about: ModelTableRow,
    published: Published,
    choices: Mapping[str, str],
    scores: Scores,
    label: str,
    compared: PublishedRow | None,
) -> TableRow:
    """One row of ours, in the columns that `choices` (see `ModelTableJob.scores`) has a score for.
    `compared`: the paper's row.
    """
    first, *others = published.text_columns
    texts = {first: about.title} | {key: about.texts.get(key, "") for key in others}
    row = TableRow(RELEASED if about.released else our_source(label), texts)
    if about.left_out:
        reason = f"No data set of this size: {about.left_out}."
        row.missing = {column.key: reason for column in chosen_columns(published, choices)}
        return row
    for column in chosen_columns(published, choices):
        shown = column.group or column.header
        _fill_cell(row, column.key, shown, about.models, choices[column.key], scores)
    if compared and label == "ours":
        row.differences = {
            key: row.values[key] - value
            for key, value in comparable_values(compared, published.shown_columns).items()
            if key in row.values and key not in row.remarks
        }
    return row


def chosen_columns(published: Published, choices: Mapping[str, str]) -> list[TableColumn]:
    """The columns of a table of the paper and of ours that there are scores for."""
    return [column for column in published.shown_columns if column.key in choices]


def compare_models(
    published: Published,
    rows: Sequence[ModelTableRow],
    choices: Mapping[str, str],
    scores: Scores,
    label: str,
    base_model: str,
) -> Table:
    """A table of models: the paper's rows, then ours in the order of `rows`."""
    printed: dict[int | str | None, PublishedRow] = {
        row.pairs: row for row in published.rows if row.pairs is not None
    }
    is_paper_s_model = PAPER_BASE_MODEL in base_model.casefold()
    choices = one_definition(choices, rows, scores)
    ours = []
    for about in rows:
        is_of_paper = is_paper_s_model or about.released
        compared = printed.get(about.compared_with) if is_of_paper else None
        ours.append(our_row(about, published, choices, scores, label, compared))
    table_rows = [*paper_rows(published), *ours]
    columns = chosen_columns(published, choices)
    notes = [
        *notes_of(published, table_rows, label),
        *released_notes(rows),
        *seed_notes(rows),
        *comparison_notes(scores),
        *origin_notes(columns, ours),
    ]
    return Table(published.title, published.text_columns, columns, table_rows, notes)


def seed_notes(rows: Sequence[ModelTableRow]) -> list[str]:
    """Which rows are means over several seeds, and of what."""
    return [
        f"{row.name} ({row.trained_on}{row.control_mark}): mean ± standard deviation of"
        f" the sample over {len(row.seeds)} training seeds"
        f" ({', '.join(map(str, row.seeds))}), experiments {', '.join(row.models)}."
        for row in rows
        if len(row.models) > 1 and not row.left_out
    ]


def released_notes(rows: Sequence[ModelTableRow]) -> list[str]:
    """Which rows are of models that the run did not train, and where these come from."""
    return [
        f"{row.name}: released by others as {row.released.model}"
        f"{f' (revision {row.released.revision})' if row.released.identity is None else ''}, asked"
        " and scored by this run as its own models are."
        for row in rows
        if row.released
    ]


def all_scores(
    rows: Sequence[ModelTableRow],
    benchmarks: Mapping[str, Sequence[DescribedScore]],
    scores: Scores,
    label: str,
) -> Table:
    """The table of all scores: a line a score of a benchmark, a column a model."""
    columns = [
        TableColumn(row.models[0], header, "", None, ALL_SCORES_DECIMALS)
        for row, header in zip(rows, _headers(rows), strict=True)
    ]
    lines = [
        _line_of_score(benchmark, score, rows, scores, label)
        for benchmark, each in benchmarks.items()
        for score in each
    ]
    texts = {"benchmark": "Benchmark", "score": "Score", "what": "What it is"}
    notes = [
        *demo_notes(label),
        *released_notes(rows),
        *seed_notes(rows),
        *comparison_notes(scores),
        *_notes_on_lines(lines),
    ]
    return Table("All scores of all benchmarks", texts, columns, lines, notes)


def _headers(rows: Sequence[ModelTableRow]) -> list[str]:
    """What the models' columns are called; where two would be called the same, with their
    experiments.
    """
    titles = [row.title for row in rows]
    return [
        title if titles.count(title) == 1 else f"{title}: {', '.join(row.models)}"
        for title, row in zip(titles, rows, strict=True)
    ]


def _line_of_score(
    benchmark: str,
    score: DescribedScore,
    models: Sequence[ModelTableRow],
    scores: Scores,
    label: str,
) -> TableRow:
    """The line of one score."""
    name = f"{score.name} {ARROWS[score.better]}".strip()
    row = TableRow(our_source(label), {"benchmark": benchmark, "score": name, "what": score.what})
    for model in models:
        choice = f"{benchmark}/{score.name}"
        _fill_cell(row, model.models[0], benchmark, model.models, choice, scores)
    return row


def origin_notes(columns: Sequence[TableColumn], rows: Sequence[TableRow]) -> list[str]:
    """Where our numbers come from: benchmark, score, and what computed it; columns that have that
    in common in one note.
    """
    return _notes_on_origins(
        (column.name, cast("CellOrigin", row.origins[column.key]))
        for column in columns
        for row in rows
        if column.key in row.values
    )


def _notes_on_lines(lines: Iterable[TableRow]) -> list[str]:
    """Where the numbers of the table of all scores come from."""
    return _notes_on_origins(
        (line.texts["benchmark"], cast("CellOrigin", line.origins[key]))
        for line in lines
        for key in line.values
    )


def _notes_on_origins(origins: Iterable[tuple[str, CellOrigin]]) -> list[str]:
    """Where numbers come from: (what they are called, origin)."""
    names: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for shown, origin in origins:
        for run in origin["runs"]:
            group = names.setdefault((run["benchmark"], say_computed_by(run)), {})
            group.setdefault(shown, {})[origin["score"]] = None
    return [
        _note_on_origin(
            benchmark, by, list(group), [each for one in group.values() for each in one]
        )
        for (benchmark, by), group in names.items()
    ]


def _note_on_origin(benchmark: str, by: str, shown: list[str], scores: list[str]) -> str:
    return (
        f"Ours, {', '.join(shown)}: score{'s' if len(scores) > 1 else ''}"
        f" {', '.join(map(repr, scores))} of benchmark '{benchmark}' ({by})."
    )


def say_computed_by(run: ScoreOrigin) -> str:
    """What computed a score, in words."""
    made = run["computed_by"]
    also = [
        f"answers read by: {made['parser']}" if made["parser"] else "",
        f"judge {made['judge']['model']}" if made["judge"] else "",
        f"language tools: {made['language_tools']}" if made["language_tools"] else "",
    ]
    return "; ".join([made["scorer"], *filter(None, also)])


def about_models(settings: ModelTableJob | AllScoresJob) -> dict[str, Any]:
    """What the sidecar says of a table of models besides its cells."""
    experiments = {
        row.name: {
            "models": row.models,
            "seeds": row.seeds,
            **({"control": row.control} if row.control else {}),
            **({"pairs": row.trained_on} if row.origin else {}),
            **({"released": row.released.model_dump(mode="json")} if row.released else {}),
        }
        for row in settings.rows
    }
    return {"base_model": settings.base.model_dump(mode="json"), "experiments": experiments}


def counted(rows: Sequence[ModelTableRow], data_sets: Sequence[str]) -> list[ModelTableRow]:
    """The rows, with the number of pairs where they are trained on all that there are.
    `data_sets`: the summaries of those data sets.
    """
    sizes = {
        Path(path).parent.name: json.loads(Path(path).read_text(encoding="utf-8"))["size"]
        for path in data_sets
    }
    return [
        row.model_copy(update={"pairs": sizes[row.data_set]})
        if row.pairs == "all" and row.data_set in sizes
        else row
        for row in rows
    ]


def models_table(snakemake: Any) -> None:
    """A rule that makes such a table: inputs `published`, `scores`, `by_question` and `data_set`
    (see `counted`), outputs as `write_table` has them.
    """
    with Job(snakemake, ModelTableJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        settings = settings.model_copy(update={"rows": counted(settings.rows, inputs.data_set)})
        scores = read_scores(inputs.scores, job.root)
        add_comparisons(scores, inputs.by_question, job.seed)
        table = compare_models(
            read_published(Path(inputs.published)),
            settings.rows,
            settings.scores,
            scores,
            settings.label,
            settings.base.model,
        )
        files = [inputs.published, *inputs.scores, *inputs.by_question, *inputs.data_set]
        write_table(table, files, snakemake.output, about_models(settings))
        job.count(len(settings.rows))


def all_scores_table(snakemake: Any) -> None:
    """Rule all_scores_table: inputs `scores` and `by_question`, outputs as `write_table` has
    them.
    """
    with Job(snakemake, AllScoresJob, VERSION) as job:
        settings, inputs = job.settings, snakemake.input
        files = [*inputs.scores, *inputs.by_question]
        found = read_scores(inputs.scores, job.root)
        add_comparisons(found, inputs.by_question, job.seed)
        rows = counted(settings.rows, getattr(snakemake.input, "data_set", []))
        table = all_scores(rows, settings.benchmarks, found, settings.label)
        settings = settings.model_copy(update={"rows": rows})
        write_table(table, files, snakemake.output, about_models(settings))
        job.count(len(table.rows))
