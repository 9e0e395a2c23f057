"""Which job published a file, and whether the file is still what it published."""

from pathlib import Path

from lib.contents import digest_files
from lib.errors import UserError
from lib.files import digest_of_file
from lib.jobs.record import Record, read_record

#: Stage -> the rules that publish its shard files.
SHARD_RULES = {
    "images": ("generate_images", "gather_images"),
    "image_ranking": ("rank_images",),
    "instructions": ("write_instructions",),
    "responses": ("generate_responses",),
    "response_rewards": ("rank_responses",),
    "response_ranking": ("rank_responses", "combine_rewards"),
    "contamination": ("check_contamination",),
    "content": ("check_content",),
    "pairs": ("build_pairs",),
    "embeddings": ("embed_texts",),
}
MODEL_RULES = ("train_dpo", "merge_adapter", "model_cards", "convert_model")
EVALUATION_RULES = ("answer_benchmark", "answer_questions", "score_benchmark", "score_answers")


def record_of(root: Path, file: Path) -> Record | None:
    """The record of the job that published a file or folder of a run, if there is one."""
    records = [
        record
        for rule, job in _jobs_that_may_publish(*file.relative_to(root).parts)
        if (record := read_record(root / "work" / rule / f"{job}.json"))
    ]
    name = file.relative_to(root).as_posix()
    of_file = [record for record in records if name in (*record.files, *record.folders)]
    return max(of_file, key=lambda record: record.finished, default=None)


def _jobs_that_may_publish(*parts: str) -> list[tuple[str, str]]:
    """Rules with their jobs' names; `parts`: of a path in the run's folder."""
    folder, *names = parts
    if not names:
        return []
    shard = "/".join([*names[:-1], names[-1].split(".")[0]])
    match folder:
        case "dataset" if len(names) == 1:
            return [("list_data_sets", "list_data_sets")]
        case "dataset":
            return [(rule, names[0]) for rule in ("merge_pairs", "data_set_card")]
        case "models":
            return [(rule, names[0]) for rule in MODEL_RULES]
        case "evaluation" if names[2:3] == ["parts"]:
            return [("answer_part", "/".join([*names[:2], names[3].removesuffix(".json")]))]
        case "evaluation":
            return [(rule, "/".join(names[:2])) for rule in EVALUATION_RULES]
        case "image_judge":
            return [("compare_picks", "compare_picks")]
        case "quality":
            return [(rule, rule) for rule in ("check_pairs", "fit_length", "fit_rewards")]
        case "contamination" if len(names) == 1:
            of_all = [(rule, rule) for rule in ("index_benchmarks", "list_overlaps")]
            return [*of_all, ("check_own_pairs", shard)]
        case "report":
            return [("report", "report")]
        case "own_pairs":
            return [("import_pairs", names[0])]
        case stage if stage in SHARD_RULES:
            return [(rule, shard) for rule in SHARD_RULES[stage]]
    return []


def refuse_changed_file(root: Path, path: Path, output: Path | None = None) -> None:
    """A UserError if a file or folder of a run is not what its job published. What no record tells
    of is believed. The digests of a folder's files are kept (`lib.contents`): a merged model is
    read once, not by each job that asks it.

    `output`: what is to be deleted, where `path` is no output of its rule that Snakemake knows.
    """
    if not path.is_relative_to(root) or (record := record_of(root, path)) is None:
        return
    name = path.relative_to(root).as_posix()
    recorded = {
        root / file: sha256
        for file, sha256 in record.files.items()
        if file == name or file.startswith(f"{name}/")
    }
    there = [file for file in recorded if file.is_file()]
    digests = digest_files(there, path) if path.is_dir() else map(digest_of_file, there)
    found = dict(zip(there, digests, strict=True))
    for file, sha256 in recorded.items():
        if found.get(file) != sha256:
            raise UserError(
                f"{file}: is not what {record.rule} published; it was edited, damaged or deleted."
                f" Delete {output or path} and run again: it is made anew, and nothing that is"
                " finished is computed twice."
            )
