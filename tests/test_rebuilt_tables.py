"""Tables and figures of a finished run: made again from what is kept, by nothing else; traced to
the files that they come from.
"""

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from conftest import REPOSITORY, read_rows
from lib import weights
from lib.config.run import Config
from lib.data.rows import ImageRankingRow, ImagesRow, PairRow
from lib.data.shards import Row, read_shards
from lib.files import digest_of_file
from lib.head import preflight
from lib.head.plan import FIGURES, TABLES, Plan

OF_TABLES = {*TABLES, *FIGURES}


def planned(project, *arguments):
    """The rules of a dry run."""
    output = project.snakemake(*arguments, "-n", "--quiet", "rules").stdout
    table = output.split("Job stats:", 1)[1].split("total", 1)[0]
    return set(re.findall(r"^(\w+)\s+\d+\b", table, flags=re.MULTILINE))


def allowed():
    """What `make tables` adds to the command."""
    return ["--allowed-rules", "tables", *sorted(OF_TABLES)]


def rows_below(folder: Path, row: type[Row]) -> dict[str, Row]:
    """The rows of all shard files of a folder by prompt id, of which none is missing."""
    return {
        key: each for path in folder.glob("*/*.jsonl") for key, each in read_rows(path, row).items()
    }


def delete_products(project):
    for folder in ("tables", "figures"):
        shutil.rmtree(project.folder / "results/random" / folder)


@pytest.mark.slow
def test_deleted_tables_and_figures_are_made_again_by_their_rules_alone_and_with_the_same_bytes(
    finished_copy,
):
    before = finished_copy.published()
    delete_products(finished_copy)
    assert planned(finished_copy, "tables") == OF_TABLES
    finished_copy.snakemake("tables")
    after = finished_copy.published()
    assert {name for name in before if before[name] != after.get(name)} == set()
    assert len([name for name in after if name.startswith("figures/")]) == 3 * len(FIGURES)
    assert len([name for name in after if name.startswith("tables/")]) == 4 * len(TABLES)


@pytest.mark.slow
def test_kept_results_alone_are_enough_on_another_machine_whatever_changed_upstream(finished_copy):
    project = finished_copy
    before = {
        name: content
        for name, content in project.published().items()
        if name.startswith(("tables/", "figures/"))
    }
    delete_products(project)
    for script in ("generate_images", "rank_images", "generate_responses", "train_dpo"):
        with open(project.folder / f"scripts/{script}.py", "a", encoding="utf-8") as stream:
            stream.write("\n# an edit\n")
    project.edit_config(lambda values: values["training"]["settings"].update(beta=0.3))
    shutil.rmtree(project.folder / ".snakemake")
    shutil.rmtree(project.folder / "results/random/models")
    shutil.rmtree(project.folder / "results/random/work")
    assert planned(project, "tables") > OF_TABLES
    assert planned(project, "tables", "--rerun-triggers", "mtime") == OF_TABLES
    # Copied without their times, too.
    for number, path in enumerate(sorted((project.folder / "results/random").rglob("*.json*"))):
        if number % 3 == 0:
            path.touch()
    assert planned(project, "tables", *allowed()) == OF_TABLES
    project.snakemake("tables", *allowed())
    after = project.published()
    assert {name for name in before if before[name] != after.get(name)} == set()


@pytest.mark.slow
def test_every_cell_and_every_drawn_number_is_traced_to_the_file_that_it_comes_from(finished):
    root = finished.folder / "results/random"
    traced = 0
    for table in TABLES:
        sidecar = json.loads((root / f"tables/{table}.json").read_text(encoding="utf-8"))
        assert sidecar["built_with"]["commit"] is None, "a clone outside git has no commit"
        for path, digest in sidecar["inputs"].items():
            assert (
                digest_of_file((finished.folder if path.startswith("published/") else root) / path)
                == digest
            )
        for cell in sidecar["cells"]:
            assert cell["value"] is not None or cell["source"] == "paper" or cell["missing"], cell
            for run in (cell["from"] or {}).get("runs", []):
                assert digest_of_file(root / run["answers"]["file"]) == run["answers"]["sha256"]
                scores = json.loads((root / run["scores"]).read_text(encoding="utf-8"))
                # Object HalBench has no score where no answer of a random model names an object.
                score = scores["scores"].get(cell["from"]["score"])
                assert score == run["value"] == cell["value"]
                assert score is not None or run["benchmark"] == "object_halbench"
                answered_by = "lmms_eval" if run["benchmark"] == "pope" else "transformers"
                assert run["environment"]["answers"][answered_by]
                assert run["model_identity"].startswith("folder-")
                traced += 1
    # Of two models: POPE's two scores in Tables 2 and 3, Object HalBench's two in Table 3, and all
    # nine in the table of all scores.
    assert traced == 2 * (2 + 4 + 9)

    images = rows_below(root / "images", ImagesRow)
    rankings = rows_below(root / "image_ranking/image-reward", ImageRankingRow)
    picks = Counter(
        images[key]["candidates"][row["winner"]]["guidance_scale"] for key, row in rankings.items()
    )
    guidance = json.loads((root / "figures/guidance_figure.json").read_text(encoding="utf-8"))
    assert {bar["guidance_scale"]: bar["picks"] for bar in guidance["panels"][0]["scales"]} == {
        5.0: picks[5.0],
        9.0: picks[9.0],
    }
    sheet = json.loads((root / "figures/candidates_figure.json").read_text(encoding="utf-8"))
    assert len(sheet["rows"]) == 5
    for row in sheet["rows"]:
        assert [candidate["score"] for candidate in row["candidates"]] == rankings[row["id"]][
            "scores"
        ]
        assert row["candidates"][rankings[row["id"]]["winner"]]["picked"]
    similarity = json.loads((root / "figures/similarity_figure.json").read_text(encoding="utf-8"))
    pairs = read_shards(root.glob("pairs/*/*.jsonl"), PairRow)
    count = sum("pair" in row for row in pairs.values())
    assert (
        similarity["distributions"]["responses_of_two_prompts"]["pairs"] == count * (count - 1) // 2
    )
    assert similarity["distributions"]["prompts"]["pairs"] == 10
    assert similarity["embedding"]["model"] == "demo/models/sentence-embedding"


@pytest.mark.slow
def test_a_run_without_a_scorer_a_judge_or_a_benchmark_has_dashes_with_reasons(finished):
    root = finished.folder / "results/random/tables"
    for table, reason in (
        ("common_selections_table", "no image scorer of kind blip is configured in this run."),
        ("image_judge_table", "no judge is configured in this run"),
        ("hallucination_table", "AMBER: no benchmark 'amber' configured in this run."),
        ("vision_language_table", r"MME^P: no benchmark 'mme' configured in this run."),
    ):
        text = (root / f"{table}.md").read_text(encoding="utf-8")
        assert reason in text
        assert re.search(r"\| ours, demo \|.*–<sup>a</sup>", text)


def test_what_make_tables_allows_is_every_rule_of_a_table_or_figure():
    shown = subprocess.run(
        ["make", "--no-print-directory", "-n", "tables"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(shown.split("--allowed-rules", 1)[1].split(" -- ")[0].split()) == {
        "tables",
        *OF_TABLES,
    }


def test_tables_from_kept_scores_ask_for_no_base_model(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(weights, "check_access", lambda model, *_: asked.append(model))
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "art.txt").write_text("a cat\n")
    config = Config.model_validate(
        {
            "prompts": str(prompts),
            "topics": ["art"],
            "results": str(tmp_path / "results"),
            "pairs": {"sizes": ["all"]},
            "training": {"experiments": {}},
        }
    )
    tables = OF_TABLES - {"embed_texts"}
    preflight.check_run(Plan(config), [(rule, {}) for rule in sorted(tables)])
    assert asked == []
