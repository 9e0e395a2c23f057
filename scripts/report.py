"""Rule report: a page on which people look at the run's data, and decide: static files that open
from disk or from any web server, without network.

It shows of tables, figures, trainings and scores what is there, and waits for none of it. Small
pictures are made once of each candidate and kept; its journal knows them.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from lib.benchmarks.question_pictures import question_pictures
from lib.benchmarks.task_pictures import data_files, task_pictures
from lib.config.report import PlannedTime, ReportJob, ShownQuestions, ShownTask
from lib.data.rows import ImageRankingRow, ImagesRow, PairRow, ResponseRankingRow
from lib.data.shards import files_by_name, present
from lib.data.stored_rows import whole_stored_rows
from lib.files import digest_of_file
from lib.head.summary import read_records, summarise
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.paired import Change, changes, compare, read_answers
from lib.planning.usage import read_uses
from lib.report.page_duplicates import most_alike
from lib.report.page_files import DataFolder, name_of, write_figures, write_page
from lib.report.page_models import scores_of, trainings_of
from lib.report.page_overview import (
    FlowStep,
    count_flow,
    data_sets_of,
    figures_of,
    models_of,
    tables_of,
    title_of,
)
from lib.report.page_own_pairs import OwnPairsShown, own_pairs_shown
from lib.report.page_quality import gather
from lib.report.page_rows import RunRows
from lib.report.review_counts import count_reviews
from lib.report.thumbnails import Picture, Pictures, ShownPicture, Thumbnailer, of_prompt
from lib.report.thumbnails import name_of as thumbnail_name

VERSION = 2
#: Questions that are listed of each comparison.
CHANGES = 200
OLDER = (
    "The pairs that this report shows are newer than the data sets, and than what was trained on"
    " them: run the workflow to its end, and make the report again."
)


def read_run(job: Job[ReportJob], inputs: Any) -> RunRows:
    """The rows of all stages."""
    settings = job.settings
    rankings = files_by_name(settings.scorers, inputs.rankings)
    return RunRows(
        whole_stored_rows(job, inputs.images, ImagesRow),
        {name: whole_stored_rows(job, files, ImageRankingRow) for name, files in rankings.items()},
        whole_stored_rows(job, inputs.responses, ResponseRankingRow),
        whole_stored_rows(job, inputs.pairs, PairRow),
        settings.policies,
        settings.compared,
    )


@dataclass(frozen=True)
class HeldPicture:
    """A picture that a file of questions holds, and its sha256 (hex)."""

    sha256: str
    file: bytes

    def content(self) -> bytes:
        """The picture."""
        return self.file


class FilePictures:
    """The pictures of questions where both are files."""

    def __init__(self, shown: ShownQuestions) -> None:
        self.files = question_pictures(**dict(shown))

    def of(self, changed: Sequence[Change]) -> dict[str, ShownPicture]:
        """The pictures of questions, by these' ids."""
        found = {each["id"]: self._picture(each["id"], each["picture"]) for each in changed}
        return {name: picture for name, picture in found.items() if picture}

    def _picture(self, question: str, digest: str) -> ShownPicture | None:
        source = self.files.get(question)
        if isinstance(source, bytes):
            return HeldPicture(digest, source) if sha256(source).hexdigest() == digest else None
        is_it = source and source.is_file() and digest_of_file(source) == digest
        return Picture(source, digest, source) if source and is_it else None


class DataPictures:
    """The pictures of questions that stand in the data of a task of lmms-eval's."""

    def __init__(self, shown: ShownTask, results: Path) -> None:
        """`results`: what lmms-eval says of the answers."""
        told = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {}
        self.splits = data_files(shown.files, told.get("data", {}))

    def of(self, changed: Sequence[Change]) -> dict[str, ShownPicture]:
        """The pictures of questions, by these' ids."""
        rows = {each["id"]: each["row"] for each in changed if each["row"] is not None}
        wanted = {each["row"]: each["picture"] for each in changed if each["row"] is not None}
        found = task_pictures(self.splits, wanted)
        return {name: found[row] for name, row in rows.items() if row in found}


class Evaluation:
    """Base against trained, benchmark by benchmark; the changed questions go into files of their
    own.
    """

    def __init__(self, job: Job[ReportJob], data: DataFolder) -> None:
        self.job, self.data = job, data
        self.pictures: dict[str, Pictures] = {}
        self._files = 0

    def told(self) -> list[dict[str, Any]]:
        """What the page is told of each benchmark."""
        return [self._benchmark(name) for name in self.job.settings.benchmarks]

    def _benchmark(self, name: str) -> dict[str, Any]:
        job, (base, *others) = self.job, self.job.settings.evaluated
        lines = scores_of(job.root, job.settings.evaluated, name)
        told: dict[str, Any] = {"benchmark": name, "scores": lines, "compared": []}
        folder = job.root / "evaluation" / base / name
        if not (before := read_answers(folder)):
            return told
        shown = job.settings.benchmarks[name]
        pictures = (
            DataPictures(shown, folder / "results.json")
            if isinstance(shown, ShownTask)
            else FilePictures(shown)
        )
        for model in others:
            after = read_answers(job.root / "evaluation" / model / name)
            if found := compare(before, after, job.seed):
                changed = changes(before, after)[:CHANGES]
                self._keep_pictures(name, changed, pictures.of(changed))
                file = self._write(changed)
                told["compared"].append(
                    {"model": model, **found, "file": file, "listed": len(changed)}
                )
        return told

    def _write(self, changed: Sequence[Change]) -> int:
        self.data.write(name_of("questions", self._files), changed)
        self._files += 1
        return self._files - 1

    def _keep_pictures(
        self, benchmark: str, changed: Sequence[Change], pictures: Mapping[str, ShownPicture]
    ) -> None:
        """Has these pictures made small. One that is not what the models saw, or is no longer
        there, is not among them.
        """
        for change in changed:
            picture = pictures.get(change["id"])
            change["picture"] = thumbnail_name(picture.sha256) if picture else ""
            if picture:
                name = f"{benchmark}/{change['id']}"
                self.pictures[picture.sha256] = Pictures(name, [picture])


def write_models(job: Job[ReportJob], data: DataFolder) -> list[Pictures]:
    """Writes what is told of trainings and scores; returns the pictures that it shows."""
    evaluation = Evaluation(job, data)
    told = {
        "trainings": trainings_of(job.root, job.settings.experiments),
        "benchmarks": evaluation.told(),
    }
    data.write("models", told)
    return list(evaluation.pictures.values())


def write_prompts(
    run: RunRows, own_pairs: Sequence[OwnPairsShown], data: DataFolder, seed: int
) -> dict[str, int]:
    """Writes what is told of the prompts, and of experiments' own pairs after them; returns how
    many files there are of each kind.
    """
    names = list(run.pairs)
    brought = [(source, pair) for source in own_pairs for pair in source.pairs]
    details = chain(map(run.details, names), (source.details(pair) for source, pair in brought))
    sizes = data.write_chunks("details", details)
    chunk_of = [chunk for chunk, count in enumerate(sizes) for _ in range(count)]
    places = run.places(seed)
    entries = chain(
        (run.entry(name, place, chunk_of[place], places) for place, name in enumerate(names)),
        (
            source.entry(pair, place, chunk_of[place])
            for place, (source, pair) in enumerate(brought, start=len(names))
        ),
    )
    return {"details": len(sizes), "prompts": len(data.write_chunks("prompts", entries))}


def overview(
    job: Job[ReportJob], run: RunRows, brought: Sequence[FlowStep], warnings: Sequence[str]
) -> dict[str, Any]:
    """What the first page is told besides how many files there are. `brought`: of own pairs."""
    import yaml

    settings = job.settings
    reviews = count_reviews(run.pairs.values())
    configuration = yaml.safe_dump(settings.configuration, sort_keys=False, allow_unicode=True)
    return {
        "run": settings.run,
        "label": settings.label,
        "warnings": list(warnings),
        "flow": [
            *count_flow(run.images, run.responses, run.pairs).steps(data_sets_of(job.root)),
            *brought,
        ],
        "models": models_of(settings.models, job.root),
        "tables": tables_of(job.root),
        "figures": [
            {"file": f"{path.parent.name}-{path.name}", "title": title_of(path)}
            for path in figures_of(job.root)
        ],
        "configuration": configuration,
        "reviews": {"lines": reviews.lines(), "disagreements": reviews.disagreements},
        "reviews_folder": settings.reviews,
    }


def time_used(job: Job[ReportJob]) -> dict[str, Any]:
    """The time that the jobs took by rule, from their records and journals, beside what was
    planned. It is of this machine and day, which is why it stands in a file of its own.
    """
    planned = job.settings.planned
    seconds: dict[str, float] = defaultdict(float)
    for use in read_uses(job.root):
        seconds[use.rule] += use.seconds
    rules = [
        {
            "rule": each.rule,
            "jobs": each.jobs,
            "computed": each.computed,
            "reused": each.reused,
            "failed": each.failed,
            "hours": round(seconds[each.rule] / 3600, 3),
            **(on_gpus(seconds[each.rule] / 3600, planned.get(each.rule)) if planned else {}),
        }
        for each in summarise(read_records(job.root))
    ]
    return {"rules": rules}


def on_gpus(hours: float, planned: PlannedTime | None) -> dict[str, float | None]:
    """The GPU-hours of a rule's jobs, which took so many hours, and what was planned; None where it
    has no model.
    """
    return {
        "gpu_hours": round(hours * planned.gpus, 3) if planned else None,
        "planned": planned.hours if planned else None,
        "planned_gpu_hours": planned.gpu_hours if planned else None,
    }


def is_older(root: Path, pairs: Sequence[str]) -> bool:
    """Whether a data set was made before the pairs were what they are."""
    newest = max((Path(path).stat().st_mtime for path in pairs), default=0.0)
    return any(path.stat().st_mtime < newest for path in root.glob("dataset/*/dataset.json"))


def main(snakemake: Any) -> None:
    with Job(snakemake, ReportJob, VERSION) as job:
        inputs, settings = snakemake.input, job.settings
        report = Path(snakemake.output.index).parent
        run = read_run(job, inputs)
        data = DataFolder(report)
        own_pairs = own_pairs_shown(job.root, settings.own_pairs, job.seed)
        chunks = write_prompts(run, own_pairs, data, job.seed)
        quality = gather(run.of(name) for name in run.pairs)
        told = quality.told(job.root / "quality" / "pairs.json")
        texts = {name: row["prompt"] for name, row in run.pairs.items()}
        data.write("quality", {**told, "alike": most_alike(texts)})
        pictures = write_models(job, data)
        candidates = [of_prompt(row, job.root) for row in present(run.images.values())]
        brought = [each for source in own_pairs for each in source.pictures()]
        thumbnails = Thumbnailer(job, report / "thumbs", settings.thumbnail_pixels)
        made = thumbnails.make([*candidates, *brought, *pictures])
        warnings = [OLDER] if is_older(job.root, inputs.pairs) else []
        first_page = overview(job, run, [source.step() for source in own_pairs], warnings)
        data.write("overview", {**first_page, "chunks": chunks})
        data.write("used", time_used(job))
        data.delete_others()
        write_figures(figures_of(job.root), report)
        write_page(report)
        folders = [path for path in report.iterdir() if path.is_dir()]
        known = {path.relative_to(job.root).as_posix(): sha256 for path, sha256 in made.items()}
        job.also_publishes(sorted(folders), known)


if __name__ == "__main__":
    run_script(main)
