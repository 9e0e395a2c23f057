"""Rule report: a page on which people look at the run's data, and decide: static files that open
from disk or from any web server, without network.

It shows of tables, figures, trainings and scores what is there, and waits for none of it. Small
pictures are made once of each candidate and kept; its journal knows them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.config.report import ReportJob
from lib.data.reviews import ranked_pair
from lib.data.rows import ImageRankingRow, ImagesRow, PairRow, ResponseRankingRow
from lib.data.shards import present
from lib.data.stored_rows import whole_stored_rows
from lib.head.summary import read_records, summarise
from lib.jobs.job import Job
from lib.jobs.script import run_script
from lib.report.page_files import DataFolder, write_figures, write_page
from lib.report.page_overview import (
    count_flow,
    data_sets_of,
    figures_of,
    models_of,
    tables_of,
    title_of,
)
from lib.report.page_rows import RunRows, drawn
from lib.report.review_counts import count_reviews
from lib.report.thumbnails import Thumbnailer

VERSION = 1
OLDER = (
    "The pairs that this report shows are newer than the data sets, and than what was trained on"
    " them: run the workflow to its end, and make the report again."
)


def read_run(job: Job[ReportJob], inputs: Any) -> RunRows:
    """The rows of all stages."""
    settings = job.settings
    shards = len(inputs.pairs)
    rankings = {
        scorer: inputs.rankings[number * shards : (number + 1) * shards]
        for number, scorer in enumerate(settings.scorers)
    }
    return RunRows(
        whole_stored_rows(job, inputs.images, ImagesRow),
        {name: whole_stored_rows(job, files, ImageRankingRow) for name, files in rankings.items()},
        whole_stored_rows(job, inputs.responses, ResponseRankingRow),
        whole_stored_rows(job, inputs.pairs, PairRow),
        settings.policies,
    )


def write_prompts(run: RunRows, data: DataFolder, seed: int) -> dict[str, int]:
    """Writes what is told of the prompts; returns how many files there are of each kind."""
    names = list(run.pairs)
    sizes = data.write_chunks("details", map(run.details, names))
    chunk_of = [chunk for chunk, count in enumerate(sizes) for _ in range(count)]
    draws = drawn((name for name in names if ranked_pair(run.pairs[name])), seed)
    entries = (
        run.entry(name, place, draws.get(name), chunk_of[place]) for place, name in enumerate(names)
    )
    return {"details": len(sizes), "prompts": len(data.write_chunks("prompts", entries))}


def overview(
    job: Job[ReportJob], run: RunRows, chunks: dict[str, int], warnings: Sequence[str]
) -> dict[str, Any]:
    """What the first page is told."""
    import yaml

    settings = job.settings
    reviews = count_reviews(run.pairs.values())
    configuration = yaml.safe_dump(settings.configuration, sort_keys=False, allow_unicode=True)
    return {
        "run": settings.run,
        "label": settings.label,
        "warnings": list(warnings),
        "chunks": chunks,
        "flow": count_flow(run.images, run.responses, run.pairs).steps(data_sets_of(job.root)),
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


def time_used(root: Path, device: str) -> dict[str, Any]:
    """The time that the jobs took by rule, from their records. It is of this machine and day, which
    is why it stands in a file of its own.
    """
    rules = [
        {
            "rule": each.rule,
            "jobs": each.jobs,
            "computed": each.computed,
            "reused": each.reused,
            "failed": each.failed,
            "hours": round((each.load_seconds + each.compute_seconds) / 3600, 3),
        }
        for each in summarise(read_records(root))
    ]
    return {
        "where": "on a GPU where the rule needs one" if device == "cuda" else "on a CPU",
        "rules": rules,
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
        thumbnails = Thumbnailer(job, report / "thumbs", settings.thumbnail_pixels)
        made = thumbnails.make(present(run.images.values()))
        data = DataFolder(report)
        chunks = write_prompts(run, data, job.seed)
        warnings = [OLDER] if is_older(job.root, inputs.pairs) else []
        data.write("overview", overview(job, run, chunks, warnings))
        data.write("used", time_used(job.root, job.device))
        data.delete_others()
        figures = write_figures(figures_of(job.root), report)
        page = [path for path in write_page(report) if path.name != "index.html"]
        job.also_publishes([report / "thumbs"] if made else [], made)
        job.also_publishes([*data.written, *figures, *page], {})


if __name__ == "__main__":
    run_script(main)
