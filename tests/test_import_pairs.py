"""Pairs that one has already: what is read of them, what is left out, and what is told of mistakes
before anything runs.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

import check_own_pairs
import import_pairs
from conftest import Project
from hub_server import COMMIT
from lib.config.contamination import OverlapMeasures
from lib.config.run import Config, load_config
from lib.config.yaml_files import read_yaml
from lib.data.layouts import PromptCounts
from lib.data.own_pairs import contents_of
from lib.data.pair_forms.settings import OwnPairs
from lib.errors import UserError
from lib.files import digest_of_file, read_jsonl, write_jsonl
from lib.head import targets
from lib.head.downloads import downloads
from lib.head.plan import Plan
from lib.head.preflight import Job, check_run, needs_of
from lib.head.verification import verify_run
from lib.planning.costs import pairs_trained_on
from lib.training.pairs_digest import read_pairs
from own_pairs import llava_record, write_own_pairs, write_pictures

QUESTION, CHOSEN, REJECTED = "Which shape is it?", "It is a square.", "It is a lamp."
RECORD = llava_record(1, "images/red.png", QUESTION, chosen=CHOSEN, rejected=REJECTED)


def message(role, text, picture=False):
    parts = [{"type": "text", "text": text}]
    return {"role": role, "content": [{"type": "image"}, *parts] if picture else parts}


TRL = {"images": ["images/red.png"], "chosen": CHOSEN, "rejected": REJECTED}
FORMS = {
    "LLaVA's JSON": RECORD,
    "TRL's messages": {
        "images": ["images/red.png"],
        "prompt": [message("user", QUESTION, picture=True)],
        "chosen": [message("assistant", CHOSEN)],
        "rejected": [message("assistant", REJECTED)],
    },
    "TRL's texts": {**TRL, "prompt": QUESTION},
    "RLAIF-V's columns": {"question": QUESTION, "image": "images/red.png"} | TRL,
    "RLHF-V's JSON in a column": {
        "text": json.dumps({"question": QUESTION, "chosen": CHOSEN, "rejected": REJECTED}),
        "image": "images/red.png",
    },
}


@pytest.fixture
def import_from(tmp_path, rule_object):
    """Has rule import_pairs import pairs; gives the folder of the data set and its summary."""

    def go(overlaps=None, validation=0.0, **values):
        pairs = OwnPairs.model_validate(values)
        folder = tmp_path / "run/own_pairs" / pairs.folder
        folder.mkdir(parents=True, exist_ok=True)
        inputs = SimpleNamespace(overlaps=[str(overlaps)] if overlaps else [])
        rule = rule_object(
            "import_pairs",
            {"own_pairs": pairs.folder},
            inputs,
            SimpleNamespace(summary=str(folder / "dataset.json")),
            settings={"pairs": pairs.model_dump(mode="json"), "validation": validation},
        )
        import_pairs.main(rule)
        return folder, json.loads((folder / "dataset.json").read_text())

    return go


def trained(folder):
    return [pair for file in sorted(folder.glob("data/*.parquet")) for pair in read_pairs(file)]


def write(path, records):
    path.write_text(json.dumps(records, indent=1))
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pair_is_trained_on_from_every_form(form, tmp_path, import_from):
    write_pictures(tmp_path)
    folder, summary = import_from(source=write(tmp_path / "pairs.json", [FORMS[form]]))
    (pair,) = trained(folder)
    assert (pair.instruction, pair.chosen, pair.rejected) == (QUESTION, CHOSEN, REJECTED)
    assert pair.images == [digest_of_file(tmp_path / "images/red.png")]
    assert (summary["size"], summary["left_out"]) == (1, {})


def test_pairs_with_their_pictures_inside_of_parquet_are_read(tmp_path, import_from):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_pictures(tmp_path)
    content = (tmp_path / "images/red.png").read_bytes()
    row = FORMS["RLAIF-V's columns"] | {"image": {"bytes": content, "path": "1.png"}, "idx": 7}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data/RLAIF-V.parquet")
    (pair,) = trained(import_from(source=str(tmp_path / "data"))[0])
    assert (pair.id, pair.images) == ("7", [digest_of_file(tmp_path / "images/red.png")])


def test_the_authors_released_data_are_read_from_the_hub_with_their_archive_of_pictures(
    tmp_path, monkeypatch, import_from
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "hub/datasets--pdsdpo--pdsdpo-v1_0-data"
    snapshot = cached / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(COMMIT)
    write_pictures(tmp_path)
    with tarfile.open(snapshot / "images.tar", "w") as archive:
        archive.add(tmp_path / "images", "data/images")
    write(snapshot / "2k-pds-dpo.json", [RECORD])
    write(snapshot / "9k-pds-dpo.json", [RECORD, llava_record(2, "images/blue.png")])
    source = "pdsdpo/pdsdpo-v1_0-data"
    folder, summary = import_from(source=source, files="9k-*.json")
    assert [pair.images for pair in trained(folder)] == [
        [digest_of_file(tmp_path / f"images/{name}.png")] for name in ("red", "blue")
    ]
    origin = {"source": f"{source}, 9k-*.json", "commit": COMMIT, "form": "llava"}
    assert summary["origin"] == origin
    # Sizes of which a larger one holds the smaller, read together, have no pair twice.
    _, both = import_from(source=source)
    assert (both["size"], both["left_out"]) == (2, {"the same pair twice": 1})
    with pytest.raises(UserError, match=r"holds no file '3k\*'.*2k-pds-dpo\.json, 9k-pds"):
        import_from(source=source, files="3k*")


def test_a_share_is_held_out_with_all_pairs_of_a_picture_on_one_side(tmp_path, import_from):
    source = str(write_own_pairs(tmp_path, count=12))  # three of each of four pictures
    folder, summary = import_from(source=source, validation=0.5)
    sides = {
        split: {
            pair.images[0] for file in folder.glob(f"data/{split}-*") for pair in read_pairs(file)
        }
        for split in ("train", "validation")
    }
    assert len(sides["train"]) + len(sides["validation"]) == 4
    assert not sides["train"] & sides["validation"]
    assert sum(summary["splits"].values()) == summary["size"] == 12


def asked_before(record):
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hello."}]
    return {name: [*turns, *record[name]] for name in ("conversations", "rejected_conversations")}


def test_what_cannot_be_trained_on_is_left_out_with_its_reason(tmp_path, import_from):
    write_pictures(tmp_path)
    records = [
        RECORD,
        RECORD,
        RECORD | {"image": None},
        RECORD | {"image": ["images/red.png", "images/blue.png"]},
        RECORD | asked_before(RECORD),
        llava_record(2, "images/red.png", chosen=" "),
        llava_record(3, "images/red.png", chosen="alike", rejected="alike"),
    ]
    folder, summary = import_from(source=write(tmp_path / "pairs.json", records))
    assert len(trained(folder)) == summary["size"] == 1
    assert summary["left_out"] == {
        "an empty answer": 1,
        "chosen and rejected are the same": 1,
        "no picture": 1,
        "other turns stand before the question": 1,
        "several pictures": 1,
        "the same pair twice": 1,
    }
    notes = json.loads(next((tmp_path / "run/work/import_pairs").glob("*.json")).read_text())
    assert any("left out: no picture" in note for note in notes["notes"])


def cut(record, folder):
    content = (folder / "images/blue.png").read_bytes()
    (folder / "images/cut.png").write_bytes(content[:-30])
    return record | {"image": "images/cut.png"}


MISTAKES = {
    "a record without its rejected answer": (
        lambda record, _: record | {"rejected_conversations": [{"from": "human", "value": "?"}]},
        "record 2: `rejected_conversations` does not end with an answer",
    ),
    "a picture that is not there": (
        lambda record, _: record | {"image": "images/pink.png"},
        r"record 2: its picture is not there \(.*images/pink\.png\)",
    ),
    "a picture in an archive that has to be unpacked": (
        lambda record, folder: (folder / "all.tar.gz").touch() or record | {"image": "pink.png"},
        r"record 2: its picture is not there .*if it is in all\.tar\.gz, unpack that",
    ),
    "a picture on the web": (
        lambda record, _: record | {"image": "https://example.org/a.png"},
        r"record 2: its picture is an address on the web",
    ),
    "a picture that is cut off": (cut, r"record 2: its picture images/cut\.png cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_file_and_record(mistake, tmp_path, import_from):
    write_pictures(tmp_path)
    spoil, told = MISTAKES[mistake]
    records = [RECORD, spoil(llava_record(2, "images/blue.png"), tmp_path)]
    with pytest.raises(UserError, match=rf"own\.json, {told}"):
        import_from(source=write(tmp_path / "own.json", records))


def test_nothing_but_pairs_that_cannot_be_trained_on_is_told_with_the_reasons(
    tmp_path, import_from
):
    source = write(tmp_path / "pairs.json", [TRL | {"prompt": QUESTION, "images": []}])
    with pytest.raises(UserError, match=r"no pair can be trained on: no picture 1\."):
        import_from(source=source)


def test_editing_the_file_or_a_picture_is_noticed_and_nothing_else_is(tmp_path):
    pairs = OwnPairs(source=str(write_own_pairs(tmp_path)))
    before, folder = contents_of(pairs), pairs.folder
    (tmp_path / "unrelated.txt").write_text("a note")
    (tmp_path / "own.json").touch()
    assert contents_of(pairs) == before
    path = tmp_path / "own.json"
    path.write_text(path.read_text().replace("a blue lamp", "a red lamp"))
    edited = contents_of(pairs)
    assert edited != before
    (tmp_path / "images/red.png").write_bytes((tmp_path / "images/blue.png").read_bytes())
    assert contents_of(pairs) != edited
    assert pairs.folder == folder


def test_what_a_benchmark_has_too_is_found_and_left_out_where_that_is_asked_for(
    tmp_path, rule_object, import_from
):
    write_pictures(tmp_path)
    questions = ["How many lamps stand beside the door?", "Which colour has the left square here?"]
    records = [
        llava_record(number, "images/red.png", question)
        for number, question in enumerate(questions)
    ]
    source = write(tmp_path / "own.json", records)
    index, found = tmp_path / "run/benchmarks.jsonl", tmp_path / "run/overlaps.jsonl"
    index.parent.mkdir(parents=True)
    asked = {"benchmark": "b", "id": "q1", "question": questions[1].upper(), "image": None}
    write_jsonl(index, [asked])
    settings = OverlapMeasures().model_dump() | {"pairs": {"source": source}}
    rule = rule_object(
        "check_own_pairs", {}, SimpleNamespace(index=str(index)), [str(found)], settings=settings
    )
    check_own_pairs.main(rule)
    assert [[each["of"] for each in row["overlaps"]] for row in read_jsonl(found)] == [
        [],
        ["instruction"],
    ]
    folder, summary = import_from(overlaps=found, source=source)
    assert [pair.id for pair in trained(folder)] == ["own-0"]
    assert (summary["size"], summary["left_out"]) == (1, {"in a benchmark": 1})


# -- The configuration and the plan ----------------------------------------------------------------


def config_of(tmp_path, experiments, **values):
    return Config.model_validate(
        {
            "results": str(tmp_path / "results"),
            "prompts": str(tmp_path / "no such folder"),
            "training": {"experiments": experiments},
            **values,
        }
    )


def test_experiments_with_pairs_of_their_own_need_no_stage_before_training(tmp_path):
    source = str(write_own_pairs(tmp_path))
    config = config_of(tmp_path, {"theirs": {"pairs": source}, "half": {"pairs": source}})
    plan = Plan(config)
    files = targets.targets(plan)
    stages = {Path(file).relative_to(plan.root).parts[0] for file in files}
    assert stages == {"own_pairs", "models", "evaluation", "contamination", "tables"}
    assert not any("reasons_table" in file for file in files)
    # Both are trained on what is imported once.
    assert len([file for file in files if "/own_pairs/" in file]) == 1
    assert plan.data_set_of("theirs") == plan.data_set_of("half")
    assert pairs_trained_on(config.training.experiments["theirs"], PromptCounts({})) == 6
    keys = {each.needed_by for each in downloads(config)[0]}
    assert {key for key in keys if not key.startswith("evaluation")} == {"training.base_model"}


def test_beside_experiments_on_the_run_s_pairs_all_stages_stay(tmp_path):
    source = str(write_own_pairs(tmp_path))
    experiments = {"theirs": {"pairs": source}, "ours": {"size": "all"}}
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/art.txt").write_text("a red cube\n")
    prompts = {"prompts": str(tmp_path / "prompts"), "topics": ["art"], "pairs": {"sizes": ["all"]}}
    plan = Plan(config_of(tmp_path, experiments, **prompts))
    files = targets.targets(plan)
    assert any("/dataset/all/" in file for file in files)
    assert any("/own_pairs/" in file for file in files)
    assert any("reasons_table" in file for file in files)


def test_mistakes_in_records_are_told_before_a_gpu_is_asked_for(tmp_path):
    path = write_own_pairs(tmp_path)
    (tmp_path / "images/grey.png").unlink()
    plan = Plan(config_of(tmp_path, {"theirs": {"pairs": str(path)}}))
    jobs = [("import_pairs", {"own_pairs": name}) for name in plan.own_pairs]
    told = r"training\.experiments\.theirs\.pairs: .*own\.json, record 4: its picture is not there"
    with pytest.raises(UserError, match=told):
        check_run(plan, jobs)
    assert check_run(plan, [("size_table", {})]) == []


@pytest.mark.parametrize("name", ["base", "theirs"])
def test_a_model_of_others_has_a_name_of_its_own(name, tmp_path):
    evaluation = {"models": {name: {"model": "somebody/model"}}}
    with pytest.raises(ValidationError, match=rf"has a model '{name}', which is also the name of"):
        config_of(tmp_path, {"theirs": {"size": "all"}}, evaluation=evaluation)


def test_models_of_others_are_looked_for_and_fetched_with_what_converts_them(tmp_path):
    source = str(write_own_pairs(tmp_path))
    models = {
        "rlaif-v": {"model": "openbmb/RLAIF-V-7B", "layout": "llava"},
        "other": {"model": "somebody/model"},
    }
    benchmarks = {"pope": {"task": "pope", "metrics": {"f1": "pope_f1_score"}}}
    evaluation = {"models": models, "benchmarks": benchmarks}
    plan = Plan(config_of(tmp_path, {"theirs": {"pairs": source}}, evaluation=evaluation))
    assert plan.models() == ["base", "theirs", "rlaif-v", "other"]
    assert f"{plan.root}/models/rlaif-v/converted" in targets.targets(plan)
    needs = {
        job[1]["model"]: set(needs_of(plan, [job]).models)
        for job in [
            ("convert_model", {"model": "rlaif-v"}),
            ("answer_benchmark", {"model": "other", "benchmark": "pope"}),
        ]
    }
    base = "training.base_model"
    assert needs == {
        "rlaif-v": {base, "evaluation.models.rlaif-v"},
        "other": {"evaluation.models.other"},
    }
    converted: list[Job] = [("answer_benchmark", {"model": "rlaif-v", "benchmark": "pope"})]
    assert not needs_of(plan, converted).models
    fetched = {each.repository: each.also for each in downloads(plan.config)[0]}
    assert fetched["openbmb/RLAIF-V-7B"] == ("pytorch_model.bin",)
    assert fetched["somebody/model"] == ()


BLOCKS = {
    "{}": "`size` pairs of this run, or on `pairs` of your own",
    "{size: 2000, pairs: own.json}": "`size` pairs of this run, or on `pairs` of your own",
    "{pairs: nothing.json}": "there is no file or folder 'nothing.json'",
    "{pairs: {source: own.json, form: sharegpt}}": "there is no form 'sharegpt'",
    "{pairs: {source: own.json, files: own.json}}": "`files` chooses among those of a folder",
    "{pairs: {source: own.json, images: none}}": "there is no folder or archive",
    "{size: 2000, paper_row: 9000}": "`paper_row` is for `pairs` of your own",
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_mistake_in_the_configuration_is_told_with_its_line(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_own_pairs(tmp_path)
    file = Path("config.yaml")
    file.write_text(f"run: own\ntraining:\n  experiments:\n    theirs: {block}\n")
    with pytest.raises(UserError, match=re.escape(BLOCKS[block])) as caught:
        load_config(read_yaml(file), [file])
    assert "config.yaml, line 4" in str(caught.value)


def test_a_file_is_never_taken_for_a_data_set_of_the_hub():
    with pytest.raises(ValidationError, match=r"no file or folder 'data/pairs\.json'"):
        OwnPairs(source="data/pairs.json")
    assert OwnPairs(source="openbmb/RLAIF-V-Dataset").is_on_hub


# -- A whole run of somebody's pairs ---------------------------------------------------------------


def train_on_own_pairs(project):
    """Makes a run of six pairs of somebody's, with the random models, one benchmark, and a model of
    others beside ours.
    """
    write_own_pairs(project.folder / "data")

    def change(values):
        for stage in ("images", "image_ranking", "instructions", "responses", "response_ranking"):
            del values[stage]
        del values["pairs"], values["prompts"], values["topics"]
        values["training"]["settings"] |= {"epochs": 1, "processes": 1, "zero_stage": 0}
        values["training"]["experiments"] = {"theirs": {"pairs": "data/own.json"}}
        benchmarks = values["evaluation"]["benchmarks"]
        values["evaluation"]["benchmarks"] = {"object_halbench": benchmarks["object_halbench"]}
        released = {"model": "demo/models/llava-v1.6-vicuna-7b", "dtype": "float32"}
        values["evaluation"]["models"] = {"llava-next": released}
        values["figures"]["answers"] |= {"experiment": "theirs", "count": 1}

    project.edit_config(change)
    project.snakemake()


@pytest.fixture(scope="session")
def own_run(made_once):
    """A clone in which such a run has been made. Not to be changed."""
    return made_once("own-pairs", train_on_own_pairs)


def test_somebody_s_pairs_are_trained_on_evaluated_and_put_into_the_tables(own_run):
    root = own_run.folder / "results/random"
    assert not {"images", "responses", "pairs", "dataset"} & {each.name for each in root.iterdir()}
    assert "| theirs (6 pairs of data/own.json) |" in (root / "tables/size_table.md").read_text()
    sidecar = json.loads((root / "tables/all_scores_table.json").read_text())
    assert sidecar["experiments"]["theirs"]["pairs"] == "6 pairs of data/own.json"
    card = (root / "models/theirs/cards/merged/README.md").read_text()
    assert "with 6 preference pairs of data/own.json" in card
    overlaps = (root / "contamination/overlaps.md").read_text()
    assert "of 6 own pairs have an overlap" in overlaps
    assert (root / "evaluation/theirs/object_halbench/scores.json").is_file()
    assert not verify_run(root).differences


def test_a_model_of_others_stands_beside_ours_in_every_table(own_run):
    root = own_run.folder / "results/random"
    row = "| released | llava-next (demo/models/llava-v1.6-vicuna-7b) |"
    tables = [root / f"tables/{name}_table" for name in ("size", "hallucination")]
    assert all(row in table.with_suffix(".md").read_text() for table in tables)
    sidecar = json.loads((root / "tables/all_scores_table.json").read_text())
    released = sidecar["experiments"]["llava-next"]["released"]
    assert released["identity"].startswith("folder-")
    assert "llava-next" in {column["key"] for column in sidecar["columns"]}
    scores = json.loads((root / "evaluation/llava-next/object_halbench/scores.json").read_text())
    assert scores["model"] == "llava-next"
    assert scores["model_identity"] == released["identity"]


def test_editing_a_pair_trains_anew_and_nothing_else(own_run, tmp_path):
    copy = Project(tmp_path / "copy")
    shutil.copytree(own_run.folder, copy.folder, symlinks=True)
    path = copy.folder / "data/own.json"
    path.write_text(path.read_text().replace("the square is 5", "the square is five"))
    told = copy.snakemake("-n").stdout
    jobs = dict(re.findall(r"^(\w+) +(\d+) ", told, flags=re.MULTILINE))
    assert {"import_pairs", "train_dpo", "merge_adapter"} <= jobs.keys()
    assert (jobs["answer_questions"], jobs["score_answers"]) == ("1", "1")  # of three models
    assert "index_benchmarks" not in jobs
