"""The tables: what stands in them, and that nothing in a name can break a format."""

import csv
import io
import json
import random
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from common_selections_table import (
    RankingScorer,
    build_table,
    common_selection,
    has_deciding_tie,
)
from lib.config.run import Config
from lib.files import digest_of_file, write_json, write_jsonl
from lib.head.plan import Plan
from lib.head.table_rows import (
    HALLUCINATION_SCORES,
    all_score_files,
    all_scores_job,
    common_name,
    experiments_by_size,
    largest_experiments,
    model_table_job,
    seed_groups,
)
from lib.jobs.record import Record
from lib.report.model_tables import (
    DescribedScore,
    ModelTableRow,
    about_models,
    add_comparisons,
    all_scores,
    compare_models,
    counted,
    read_scores,
)
from lib.report.published import Published, PublishedRow, read_published
from lib.report.sidecar import ModelOrigin, project_commit, resolve_model
from lib.report.tables import (
    Table,
    TableColumn,
    TableRow,
    cells,
    csv_text,
    latex_text,
    markdown_text,
    shown_number,
    to_csv,
    to_latex,
    to_markdown,
    write_table,
)

PUBLISHED = Path(__file__).resolve().parents[1] / "published"
HOSTILE = "=cmd|'/c calc'!A1 & $x_1$ 100% #{a}\\end{table} ~^<b>|</b> `--` [z]\n\"q\""
PLAIN = TableColumn("pope", "Score", "percent", "higher", 1, "POPE")
JUDGED = TableColumn("mmhal", "Score", "points of 6", "higher", 2, "MMHal-Bench")
FORMATS = {"csv": "csv", "markdown": "md", "latex": "tex", "sidecar": "json"}
WANTED = {"pope": "pope/f1", "mmhal": "mmhal_bench/score"}


def published():
    rows = (
        PublishedRow(
            {"method": "LLaVA-1.5", "llm": "Vicuna 7B"},
            {"mmhal": 2.36, "pope": 86.1},
            cites=24,
            pairs=0,
        ),
        PublishedRow(
            {"method": "+ PDS-DPO", "llm": None}, {"mmhal": None, "pope": 87.6}, pairs=9000
        ),
    )
    return Published(
        2,
        "Hallucination",
        "the paper, Table 2",
        {"method": "Model", "llm": "LLM"},
        (JUDGED, PLAIN),
        rows,
    )


def scores(**models):
    made = {
        "scorer": "lmms-eval 0.7.3, task pope",
        "parser": None,
        "judge": None,
        "language_tools": None,
    }
    about = {
        "benchmark": "pope",
        "limit": None,
        "questions": 9,
        "questions_in_data": 9,
        "computed_by": made,
    }
    return {
        (model, "pope"): about | {"model": model, "scores": {"f1": value}}
        for model, value in models.items()
    }


def our(name, pairs, *models, seeds=(), control=None):
    return ModelTableRow(
        name=name,
        models=list(models or [name]),
        seeds=list(seeds),
        pairs=pairs,
        texts={},
        control=control,
    )


BASE = our("llava-1.5-7b-hf", 0, "base")
DPO = our("dpo-9k", 9000)


def compare(found, label="ours", base="llava-hf/llava-1.5-7b-hf", rows=(BASE, DPO)):
    return compare_models(published(), rows, WANTED, found, label, base)


def test_ours_stand_below_the_papers_with_the_difference_to_its_row():
    table = compare(scores(**{"base": 85.9, "dpo-9k": 87.0}))
    assert [row.source for row in table.rows] == ["paper", "paper", "ours", "ours"]
    assert [row.texts["method"] for row in table.rows] == [
        "LLaVA-1.5 [24]",
        "+ PDS-DPO",
        "llava-1.5-7b-hf (before training)",
        "dpo-9k (9000 pairs)",
    ]
    markdown = to_markdown(table)
    assert (
        "| ours | llava-1.5-7b-hf (before training) | – | –<sup>a</sup> | 85.9 (-0.2) |" in markdown
    )
    assert "| ours | dpo-9k (9000 pairs) | – | –<sup>a</sup> | 87.0 (-0.6) |" in markdown
    assert (
        r"<sup>a</sup> MMHal-Bench: no benchmark 'mmhal\_bench' configured in this run." in markdown
    )
    assert "score 'f1' of benchmark 'pope' (lmms-eval 0.7.3, task pope)" in markdown
    assert r"87.0 ($-$0.6)" in to_latex(table)


def by_question(folder, **models):
    """Files of the scores by question of models that answered POPE."""
    for model, values in models.items():
        path = folder / "evaluation" / model / "pope" / "by_question.jsonl"
        path.parent.mkdir(parents=True)
        about = {"picture": "p", "target": ""}
        rows = [
            {"id": str(number), "line": number + 1, "score": value, **about}
            for number, value in enumerate(values)
        ]
        write_jsonl(path, rows)
        yield path


def test_a_model_that_differs_from_the_base_model_question_by_question_has_a_star(tmp_path):
    found = scores(base=85.9, better=87.0, same=85.9)
    given = {"base": [0.0] * 10, "better": [1.0] * 9 + [0.0], "same": [1.0] + [0.0] * 9}
    add_comparisons(found, list(by_question(tmp_path, **given)), seed=0)
    table = compare(found, rows=[BASE, our("better", 160), our("same", 160)])
    markdown = to_markdown(table)
    assert "| ours | better (160 pairs) | – | –<sup>a</sup> | 87.0* |" in markdown
    assert "| ours | same (160 pairs) | – | –<sup>a</sup> | 85.9 |" in markdown
    assert "85.9* " not in markdown
    text = "9 of 10 questions better, 0 worse; mean difference +0.9, p = 0.0039 (McNemar, exact)"
    assert any(
        f"pope, against the base model: better: {text}; same: 1 of 10" in note
        for note in table.notes
    )
    assert "87.0* " in to_latex(table).replace(r" \\", " ")
    read = pd.read_csv(io.StringIO(to_csv(table))).set_index("Model")
    column = read["POPE Score: against the base model, by question"]
    assert column["better (160 pairs)"] == text
    assert column.isna().sum() == 3  # the paper's rows, and the base model's
    cell = next(each for each in cells(table) if each["value"] == 87.0)
    assert cell["against_base"] == text
    assert cell["from"]
    assert cell["from"]["runs"][0]["against_base"]["p"] == pytest.approx(2 / 2**9)


def test_seeds_have_a_star_where_each_differs_in_the_same_direction(tmp_path):
    found = scores(base=85.9, one=87.0, two=85.0)
    up, down = [1.0] * 10, [0.0] * 10
    rows = [BASE, our("dpo", 160, "one", "two", seeds=(1, 2))]
    middle = [0.5] * 10
    add_comparisons(found, list(by_question(tmp_path / "a", base=middle, one=up, two=down)), 0)
    assert "±" in to_markdown(compare(found, rows=rows))
    assert "*" not in shown_number(PLAIN, compare(found, rows=rows).rows[-1])
    add_comparisons(found, list(by_question(tmp_path / "b", base=middle, one=up, two=up)), 0)
    test = compare(found, rows=rows).rows[-1].tests["pope"]
    assert test.is_clear
    assert test.text.startswith("one: 10 of 10 questions better")


def test_the_papers_missing_numbers_are_dashes_too():
    assert "| paper | + PDS-DPO | – | – | 87.6 |" in to_markdown(compare({}))


def test_a_data_set_that_is_left_out_is_a_row_of_dashes_with_the_reason():
    reason = "there are 620 prompts, and a prompt gives at most one pair"
    rows = (BASE, DPO.model_copy(update={"left_out": reason}))
    markdown = to_markdown(compare(scores(base=85.9), rows=rows))
    assert "| ours | dpo-9k (9000 pairs) | – | –<sup>b</sup> | –<sup>b</sup> |" in markdown
    assert f"<sup>b</sup> No data set of this size: {reason}." in markdown


def test_the_row_of_all_pairs_says_how_many_there_were(tmp_path):
    summaries = [tmp_path / name / "dataset.json" for name in ("all", "rlaif-v-1234")]
    for summary, size in zip(summaries, (588, 83), strict=True):
        summary.parent.mkdir()
        summary.write_text(f'{{"size": {size}}}')
    from_elsewhere = {"data_set": "rlaif-v-1234", "origin": "openbmb/RLAIF-V"}
    theirs = our("theirs", "all").model_copy(update=from_elsewhere)
    rows = counted([BASE, our("dpo", "all"), theirs], [*map(str, summaries)])
    titles = [BASE.title, "dpo (588 pairs)", "theirs (83 pairs of openbmb/RLAIF-V)"]
    assert [row.title for row in rows] == titles


def test_pairs_from_elsewhere_are_held_against_the_paper_s_row_that_is_named_and_no_other():
    theirs = our("theirs", 9000).model_copy(update={"origin": "somebody/pairs"})
    authors = theirs.model_copy(update={"pairs": 8998, "paper_row": 9000})
    found = scores(theirs=87.0)
    assert not compare(found, rows=[theirs]).rows[-1].differences
    assert compare(found, rows=[authors]).rows[-1].differences == {"pope": pytest.approx(-0.6)}


def test_a_model_of_others_is_marked_as_theirs_and_held_against_the_row_that_is_named():
    origin = ModelOrigin(model="pdsdpo/PDS-DPO-7B", revision="main")
    theirs = our("authors", 0).model_copy(update={"released": origin, "paper_row": 9000})
    table = compare(scores(authors=87.0), base="another/base", rows=[theirs])
    row = table.rows[-1]
    assert (row.source, row.texts["method"]) == ("released", "authors (pdsdpo/PDS-DPO-7B)")
    assert row.differences == {"pope": pytest.approx(-0.6)}
    assert any("released by others as pdsdpo/PDS-DPO-7B (revision main)" in n for n in table.notes)


def test_every_missing_number_of_ours_has_its_reason_below():
    for text in (to_markdown(compare({})), to_latex(compare({})).replace("'{}", "'")):
        assert "POPE: no benchmark 'pope' configured in this run." in text
        assert r"MMHal-Bench: no benchmark 'mmhal\_bench' configured in this run." in text
    found = scores(base=1.0)
    found["base", "pope"]["scores"] = {"accuracy": 1.0}
    assert "benchmark 'pope' of this run has no score 'f1'" in to_markdown(compare(found))
    found["base", "pope"] |= {"scores": {"f1": None}, "missing": {"f1": "no judge is configured"}}
    assert "POPE: no judge is configured." in to_markdown(compare(found))


@pytest.mark.parametrize(
    ("label", "base", "pairs"),
    [
        ("demo", "llava-hf/llava-1.5-7b-hf", 9000),
        ("ours", "llava-hf/llava-1.5-13b-hf", 9000),
        ("ours", "llava-hf/llava-1.5-7b-hf", 8),
    ],
    ids=["demo", "another base model", "another size"],
)
def test_no_difference_where_it_would_mean_nothing(label, base, pairs):
    table = compare(scores(dpo=87.0), label, base, [our("dpo", pairs)])
    assert table.rows[-1].values == {"pope": 87.0}
    assert not table.rows[-1].differences


def test_a_demos_rows_say_so():
    table = compare(scores(base=50.0), "demo")
    assert table.rows[-1].source == "ours, demo"
    for text in (to_markdown(table), to_latex(table)):
        assert "small models and small local data" in text


def test_a_score_of_some_questions_is_marked_and_not_compared():
    found = scores(base=85.9)
    found["base", "pope"] |= {"limit": 5, "questions": 5}
    table = compare(found)
    assert not table.rows[2].differences
    assert "| 85.9<sup>b</sup> |" in to_markdown(table)
    assert "<sup>b</sup> POPE: only the first 5 of 9 questions." in to_markdown(table)


def test_a_score_of_stand_in_language_tools_is_marked_in_its_cell_and_not_compared():
    found = scores(base=85.9)
    why = "stand-in language tools (tokenizer): not comparable with published scores"
    found["base", "pope"] |= {"not_comparable": {"f1": why, "other": "of another score"}}
    table = compare(found)
    assert not table.rows[2].differences
    assert "| 85.9<sup>b</sup> |" in to_markdown(table)
    assert f"<sup>b</sup> POPE: {why}." in to_markdown(table)
    assert "of another score" not in to_markdown(table)


def test_pope_is_shown_and_compared_as_f1_and_as_accuracy():
    found = scores(base=85.9)
    found["base", "pope"]["scores"] |= {"accuracy": 86.9}
    table = compare_models(
        read_published(PUBLISHED / "table2.yaml"),
        [BASE],
        HALLUCINATION_SCORES,
        found,
        "ours",
        "llava-hf/llava-1.5-7b-hf",
    )
    assert [column.name for column in table.columns][-2:] == ["POPE Score", "POPE Acc."]
    assert "| 85.9 (-0.2) | 86.9 (+0.8) |" in to_markdown(table)
    printed = next(row for row in table.rows if row.texts["method"] == "+ PDS-DPO")
    assert (printed.values["pope"], "pope_accuracy" in printed.values) == (87.6, False)
    [note] = [note for note in table.notes if note.startswith("POPE Acc.: ")]
    assert "2412.17417v2" in note


CHAIR = {"chair": [DescribedScore(name="chair_s", what="captions, percent", better="lower")]}


def test_every_score_of_a_benchmark_is_a_line_with_a_column_for_each_model():
    found: Any = {
        (model, "chair"): {**scores(x=0.0)["x", "pope"], "model": model, "benchmark": "chair"}
        for model in ("base", "one", "two")
    }
    for (model, _), value in zip(found, (36.7, 8.0, 7.0), strict=True):
        found[model, "chair"] |= {"scores": {"chair_s": value}}
    table = all_scores([BASE, our("dpo", 160, "one", "two", seeds=(1, 2))], CHAIR, found, "demo")
    assert (
        "| ours, demo | chair | chair\\_s ↓ | captions, percent | 36.70 | 7.50 ± 0.71 |"
        in to_markdown(table)
    )
    [read] = pd.read_csv(io.StringIO(to_csv(table))).to_dict("records")
    assert (read["llava-1.5-7b-hf (before training)"], read["dpo (160 pairs, 2 seeds)"]) == (
        36.7,
        7.5,
    )
    assert "score 'chair_s' of benchmark 'chair' (lmms-eval" in " ".join(table.notes)
    assert "small models" in table.notes[0]


def test_a_table_of_all_scores_is_whole_without_a_benchmark_and_with_models_of_one_name(tmp_path):
    rows = [our("dpo", 160, "dpo-a"), our("dpo", 160, "dpo-b")]
    table = all_scores(rows, {}, {}, "ours")
    assert to_csv(table) == (
        "source,Benchmark,Score,What it is,dpo (160 pairs): dpo-a,dpo (160 pairs): dpo-b,notes\n"
    )
    assert to_markdown(table).startswith("# All scores")
    assert "\\toprule" in to_latex(table)


def test_every_configured_benchmark_is_in_the_table_of_all_scores_whatever_it_is_called(tmp_path):
    (tmp_path / "questions.jsonl").touch()
    ours = {"scorer": "chair", "questions": str(tmp_path / "questions.jsonl")}
    benchmarks = {
        "my-captions": ours | {"reference": str(tmp_path), "images": str(tmp_path)},
        "yes-no": {
            "task": "pope",
            "metrics": {"accuracy": "pope_accuracy"},
            "percent": True,
            "scorer": "pope",
        },
        "graded": {"task": "mmvet", "metrics": {"score": "gpt_eval_score"}, "scorer": "mm_vet"},
    }
    plan = Plan(
        Config.model_validate(
            {
                "pairs": {"sizes": [200, 500]},
                "evaluation": {"benchmarks": benchmarks},
                "training": {"experiments": {"small": {"size": 200}, "large": {"size": 500}}},
            }
        )
    )
    job = all_scores_job(plan)
    assert [row.models for row in job.rows] == [["base"], ["small"], ["large"]]
    shown = {name: [score.name for score in each] for name, each in job.benchmarks.items()}
    assert shown["my-captions"] == ["chair_i", "chair_s", "recall"]
    assert shown["yes-no"][:3] == ["accuracy", "reference_f1", "reference_accuracy"]
    # Without a judge, our scorer of MM-Vet has nothing to score.
    assert shown["graded"] == ["score"]
    assert [score.better for score in job.benchmarks["my-captions"]] == ["lower", "lower", "higher"]
    assert len(all_score_files(plan)) == 3 * 3


def test_experiments_that_differ_in_their_seed_only_are_one_row_with_mean_and_spread():
    found = scores(base=85.0, one=87.0, two=88.0, three=89.5)
    table = compare(found, rows=[BASE, our("dpo", 9000, "one", "two", "three", seeds=(1, 2, 3))])
    assert len(table.rows) == 4
    row = table.rows[3]
    assert row.texts["method"] == "dpo (9000 pairs, 3 seeds)"
    assert row.values["pope"] == pytest.approx(88.1666667)
    assert row.spreads["pope"] == pytest.approx(statistics.stdev([87.0, 88.0, 89.5]))
    assert row.differences["pope"] == pytest.approx(0.5666667)
    assert "| 88.2 ± 1.3 (+0.6) |" in to_markdown(table)
    assert r"88.2 $\pm$ 1.3 ($+$0.6)" in to_latex(table)
    read = pd.read_csv(io.StringIO(to_csv(table)))
    assert read["POPE Score: standard deviation over seeds"].dropna().tolist() == pytest.approx(
        [row.spreads["pope"]]
    )
    assert "over 3 training seeds (1, 2, 3), experiments one, two, three." in " ".join(table.notes)
    assert [run["model"] for run in row.origins["pope"]["runs"]] == ["one", "two", "three"]


def test_a_mean_of_some_seeds_is_no_mean_of_all():
    table = compare(
        scores(base=85.0, one=87.0), rows=[our("dpo", 9000, "one", "two", seeds=(1, 2))]
    )
    assert "pope" not in table.rows[2].values
    assert "pope" in table.rows[2].missing


def test_the_first_of_several_scores_that_there_is_stands_in_the_cell():
    found = scores(base=85.0)
    own = {
        "scorer": "ours, version 1",
        "parser": "yes anywhere",
        "judge": None,
        "language_tools": None,
    }
    found["base", "pope"]["scores"] |= {"reference_f1": 84.0}
    found["base", "pope"]["also"] = {"scores": {"reference_f1": 84.0}, "computed_by": own}
    for wanted, value, name, by in (
        (
            "pope/reference_f1|f1",
            84.0,
            "reference_f1",
            "ours, version 1; answers read by: yes anywhere",
        ),
        ("pope/other|f1", 85.0, "f1", "lmms-eval 0.7.3, task pope"),
    ):
        table = compare_models(
            published(),
            [BASE],
            WANTED | {"pope": wanted},
            found,
            "ours",
            "llava-hf/llava-1.5-7b-hf",
        )
        assert table.rows[2].values["pope"] == value
        assert table.rows[2].origins["pope"]["score"] == name
        assert any(f"score '{name}' of benchmark 'pope' ({by})" in note for note in table.notes)


def test_a_column_is_of_one_score_in_every_row_and_who_lacks_it_has_a_dash():
    found = scores(base=85.0, one=87.0)
    found["one", "pope"]["scores"] |= {"reference_f1": 84.0}
    found["base", "pope"] |= {"missing": {"reference_f1": "nobody scored it"}}
    wanted = WANTED | {"pope": "pope/reference_f1|f1"}
    rows = [BASE, our("dpo", 9000, "one", seeds=(1,))]
    table = compare_models(published(), rows, wanted, found, "ours", "x")
    base, ours = table.rows[2:4]
    assert "pope" not in base.values
    assert base.missing["pope"] == "POPE: nobody scored it."
    assert (ours.values["pope"], ours.origins["pope"]["score"]) == (84.0, "reference_f1")


def test_scores_of_one_benchmark_that_the_same_scorer_computed_share_a_note():
    found = scores(base=85.0)
    found["base", "pope"]["scores"] |= {"accuracy": 80.0}
    wanted = WANTED | {"pope": "pope/f1", "mmhal": "pope/accuracy"}
    notes = compare_models(published(), [BASE], wanted, found, "ours", "x").notes
    assert (
        "Ours, MMHal-Bench Score, POPE Score: scores 'accuracy', 'f1' of benchmark 'pope'"
        " (lmms-eval 0.7.3, task pope)." in notes
    )


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ({"score": "no judge"}, "no judge"),
        ({"score": "see reference_total", "reference_total": "no usable grade"}, "no usable grade"),
        ({}, "benchmark 'pope' of this run has no score 'score'"),
    ],
)
def test_the_reason_for_a_dash_is_that_of_the_score_that_was_wanted_first(missing, told):
    found = scores(base=85.0)
    found["base", "pope"] |= {"scores": {}, "missing": missing}
    table = compare_models(
        published(), [BASE], WANTED | {"pope": "pope/reference_total|score"}, found, "ours", "x"
    )
    assert table.rows[2].missing["pope"] == f"POPE: {told}."


def configured(**experiments):
    training = {"base_model": {"model": "owner/llava-1.5-7b-hf"}, "experiments": experiments}
    return Plan(Config.model_validate({"pairs": {"sizes": [2000, 9000]}, "training": training}))


def test_seeds_are_found_from_the_settings_alone():
    plan = configured(
        **{
            "dpo-9k": {"size": 9000},
            "dpo-9k-seed7": {"size": 9000, "settings": {"seed": 7}},
            "again": {"size": 9000, "settings": {"seed": 7}},
            "sharp": {"size": 9000, "settings": {"beta": 0.5, "seed": 7}},
            "small": {"size": 2000, "settings": {"seed": 7}},
        }
    )
    groups = seed_groups(plan, list(plan.config.training.experiments))
    assert groups == [["dpo-9k", "dpo-9k-seed7"], ["again"], ["sharp"], ["small"]]
    rows = model_table_job(plan, list(plan.config.training.experiments), WANTED).rows
    assert [(row.name, row.seeds) for row in rows] == [
        ("llava-1.5-7b-hf", []),
        ("dpo-9k", [42, 7]),
        ("again", [7]),
        ("sharp", [7]),
        ("small", [7]),
    ]


CONTROLS = {
    "dpo-9k": {"size": 9000},
    "a-swapped": {"size": 9000, "control": "swapped"},
    "a-random-1": {"size": 9000, "control": "random", "settings": {"seed": 1}},
    "a-random-2": {"size": 9000, "control": "random", "settings": {"seed": 2}},
    "dpo-2k": {"size": 2000},
}


def test_controls_are_rows_of_their_own_after_all_sizes():
    plan = configured(**CONTROLS)
    assert experiments_by_size(plan) == [
        "dpo-2k",
        "dpo-9k",
        "a-random-1",
        "a-random-2",
        "a-swapped",
    ]
    rows = model_table_job(plan, experiments_by_size(plan), WANTED).rows
    assert [(row.name, row.models, row.control) for row in rows[1:]] == [
        ("dpo-2k", ["dpo-2k"], None),
        ("dpo-9k", ["dpo-9k"], None),
        ("a-random", ["a-random-1", "a-random-2"], "labels at random"),
        ("a-swapped", ["a-swapped"], "labels swapped"),
    ]
    assert [row.texts["feedback"] for row in rows[1:]] == ["RM", "RM", "control", "control"]


def test_a_control_is_never_the_largest_experiment():
    assert largest_experiments(configured(**CONTROLS)) == [
        "dpo-9k",
        "a-random-1",
        "a-random-2",
        "a-swapped",
    ]
    controls = {name: CONTROLS[name] for name in ("a-swapped", "dpo-2k")}
    assert largest_experiments(configured(**controls)) == ["dpo-2k"]
    assert largest_experiments(configured(**{"a-swapped": CONTROLS["a-swapped"]})) == ["a-swapped"]


def test_without_controls_a_sidecar_says_nothing_of_them():
    plan = configured(**{"dpo-9k": {"size": 9000}, "a-swapped": CONTROLS["a-swapped"]})
    about = about_models(model_table_job(plan, ["dpo-9k", "a-swapped"], WANTED))
    assert about["experiments"]["dpo-9k"] == {"models": ["dpo-9k"], "seeds": [42]}
    assert about["experiments"]["a-swapped"]["control"] == "labels swapped"


def test_a_control_s_row_is_marked_and_compared_with_no_row_of_the_paper():
    swapped = our("dpo-9k-swapped", 9000, control="labels swapped")
    coins = our("coins", 9000, "one", "two", seeds=(1, 2), control="labels at random")
    table = compare(
        scores(**{"dpo-9k": 87.0, "dpo-9k-swapped": 80.0, "one": 84.0, "two": 85.0}),
        rows=[DPO, swapped, coins],
    )
    assert [row.texts["method"] for row in table.rows[2:]] == [
        "dpo-9k (9000 pairs)",
        "dpo-9k-swapped (9000 pairs; control: labels swapped)",
        "coins (9000 pairs, 2 seeds; control: labels at random)",
    ]
    assert [set(row.differences) for row in table.rows[2:]] == [{"pope"}, set(), set()]
    assert any(
        note.startswith("coins (9000 pairs; control: labels at random): mean ±")
        for note in table.notes
    )


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["a-b-seed1", "a-b-seed2"], "a-b"),
        (["dpo", "dpo-2"], "dpo"),
        (["dpo-10", "dpo-11"], "dpo"),
        (["one", "two", "six"], "one and 2 more"),
        (["alone-1"], "alone-1"),
    ],
)
def test_a_row_of_several_seeds_has_what_their_names_share(names, shared):
    assert common_name(names) == shared


def test_csv_holds_full_numbers_differences_and_reasons():
    read = pd.read_csv(
        io.StringIO(to_csv(compare(scores(**{"base": 85.87654321, "dpo-9k": 87.0}))))
    )
    ours = read[read["source"] == "ours"]
    assert ours["POPE Score (percent)"].tolist() == [85.87654321, 87.0]
    assert ours["POPE Score: difference to the paper"].tolist() == pytest.approx(
        [-0.22345679, -0.6]
    )
    assert ours["MMHal-Bench Score (points of 6)"].isna().all()
    assert set(ours["notes"]) == {"MMHal-Bench: no benchmark 'mmhal_bench' configured in this run."}
    assert read["Model"][1] == "'+ PDS-DPO"


def files_in(folder):
    return SimpleNamespace(**{kind: str(folder / f"t.{end}") for kind, end in FORMATS.items()})


def test_a_hostile_name_breaks_no_format(tmp_path):
    names = {"method": HOSTILE, "other": HOSTILE}
    table = Table(
        HOSTILE,
        {"method": "Model", "other": HOSTILE},
        [PLAIN],
        [TableRow("ours", names, {"pope": -1.25})],
        [HOSTILE],
    )
    write_table(table, [], files_in(tmp_path))

    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"))))
    assert [len(row) for row in rows] == [5, 5]
    assert rows[1][1] == "'" + HOSTILE
    assert rows[1][3] == "-1.25"
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+@")]

    markdown = (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()
    lines = [line for line in markdown if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert "<b>" not in "".join(markdown)

    latex = (tmp_path / "t.tex").read_text(encoding="utf-8")
    assert latex.count(r"\end{table}") == 1
    bare = re.sub(r"\\.", "", latex)
    assert bare.count("{") == bare.count("}")
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    assert len(re.findall(r"(?<!\\)&", body)) == 3
    assert not re.search(r"(?<!\\)[#%_]", latex.split("\\begin{table}")[1].replace("{!}{%\n", ""))
    assert (
        json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))["cells"][0]["of"]["method"]
        == HOSTILE
    )


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        (" =1", "' =1"),
        ("plain", "plain"),
        ("", ""),
        (-1.5, -1.5),
    ],
)
def test_no_csv_text_is_a_formula(text, safe):
    assert csv_text(text) == safe


def test_latex_texts_make_no_ligatures_and_no_optional_arguments():
    assert latex_text("a--b a-b ''x it's") == "a-{}-b a-b '{}'x it's"
    assert latex_text("[2] a_b \\ 5%") == r"{[}2{]} a\_b \textbackslash{} 5\%"


def test_markdown_texts_are_no_markup():
    assert markdown_text("a|b *c* <i>&") == r"a\|b \*c\* &lt;i&gt;&amp;"


def test_the_sidecar_tells_of_every_cell_where_it_comes_from(tmp_path):
    found = scores(**{"base": 85.9, "dpo-9k": 87.0})
    for score in found.values():
        score |= {
            "answers": {"file": "evaluation/x/pope/answers.jsonl", "sha256": "0" * 64},
            "model_identity": "folder-1",
        }
    source, elsewhere = tmp_path / "run/evaluation/in.json", tmp_path / "published.yaml"
    write_json(source, {})
    elsewhere.write_text("")
    folder = tmp_path / "run/tables"
    write_table(compare(found), [str(source), str(elsewhere)], files_in(folder))
    sidecar = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    assert len(sidecar["cells"]) == 4 * 2
    for cell in sidecar["cells"]:
        assert (cell["value"] is None) == (cell["shown"] == "–")
        if cell["source"] == "paper":
            assert cell["from"]["paper"] == "the paper, Table 2"
        elif cell["value"] is None:
            assert cell["missing"]
        else:
            [run] = cell["from"]["runs"]
            assert run["answers"]["sha256"] == "0" * 64
            assert run["computed_by"]["scorer"] == "lmms-eval 0.7.3, task pope"
            assert run["model_identity"] == "folder-1"
    assert sidecar["inputs"] == {
        "evaluation/in.json": digest_of_file(source),
        elsewhere.as_posix(): digest_of_file(elsewhere),
    }
    for kind, name in FORMATS.items():
        if kind != "sidecar":
            assert sidecar["files"][kind] == {
                "file": f"t.{name}",
                "sha256": digest_of_file(folder / f"t.{name}"),
            }


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_the_project_s_own_and_says_if_files_differ_from_it(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "Snakefile").write_text("")
    assert project_commit(project) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "somebody else's repository")
    assert project_commit(project) is None
    git(tmp_path, "add", "project")
    git(tmp_path, "commit", "-q", "-m", "the project's")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert project_commit(project) == commit
    (project / "results").mkdir()
    assert project_commit(project) == commit
    (project / "Snakefile").write_text("# edited")
    assert project_commit(project) == f"{commit}-dirty"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert project_commit() is None


def test_a_model_s_revision_is_what_it_resolved_to(tmp_path):
    branch = ModelOrigin(model="owner/name", revision="main")

    def ran(shard, commit):
        record = Record("rank_images", f"clip/art/{shard}", "", models={"owner/name": commit})
        write_json(tmp_path / f"work/rank_images/clip/art/{shard}.json", vars(record))

    assert resolve_model(branch, tmp_path, "rank_images") == {
        "model": "owner/name",
        "revision": "main",
        "identity": None,
    }
    ran("00", "a" * 40)
    ran("01", "a" * 40)
    assert resolve_model(branch, tmp_path, "rank_images", "clip")["identity"] == "a" * 40
    ran("02", "b" * 40)
    both = resolve_model(branch, tmp_path, "rank_images", "clip")["identity"]
    assert both == ["a" * 40, "b" * 40]
    pinned = ModelOrigin(model="owner/name", revision="c" * 40)
    assert resolve_model(pinned, tmp_path, "rank_images")["identity"] == "c" * 40


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is not installed (Debian: texlive-latex-recommended)",
)
@pytest.mark.parametrize(
    "encoding",
    [[], ["\\usepackage[T1]{fontenc}"]],
    ids=["with the packages that it names alone", "T1"],
)
def test_latex_compiles_whatever_the_names_are(tmp_path, encoding):
    hostile = HOSTILE.replace("\n", " ")
    rows = [
        TableRow(
            "ours",
            {"method": hostile},
            {"pope": -1.25, "mmhal": 2},
            {"pope": -0.5},
            {"pope": 0.25},
            {},
            {"mmhal": hostile},
        )
    ]
    table = Table(
        hostile,
        {"method": "Model – name"},
        [JUDGED, PLAIN],
        [*compare(scores(base=1.0)).rows, *rows],
        [hostile],
    )
    (tmp_path / "t.tex").write_text(to_latex(table), encoding="utf-8")
    packages = re.findall(r"^% (\\usepackage.*)$", to_latex(table), flags=re.MULTILINE)
    page = [
        "\\documentclass{article}",
        *encoding,
        *packages,
        "\\begin{document}",
        "\\input{t}",
        "\\end{document}",
    ]
    (tmp_path / "page.tex").write_text("\n".join(page))
    command = [
        "pdflatex",
        "-interaction=nonstopmode",
        "-halt-on-error",
        "-no-shell-escape",
        "page.tex",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "page.pdf").stat().st_size > 5000


def test_scores_are_found_by_model_and_benchmark(tmp_path):
    (tmp_path / "scores.json").write_text('{"model": "base", "benchmark": "pope", "scores": {}}')
    assert list(read_scores([tmp_path / "scores.json"], tmp_path)) == [("base", "pope")]


# Table 4


def test_common_selection_is_the_mean_share_of_the_top_k_sets():
    first = {"a": [0, 1, 2, 3], "b": [3, 2, 1, 0]}
    second = {"a": [0, 2, 1, 3], "b": [0, 1, 2, 3]}
    third = {"a": [1, 0, 2, 3], "b": [3, 1, 2, 0]}
    # Top 1: a {0} and {0}, b {3} and {0}. Top 2: a {0, 1} and {0, 2}, b {3, 2} and {0, 1}. Top 3: a
    # all three, b {3, 2, 1} and {0, 1, 2}.
    assert [common_selection([first, second], top) for top in (1, 2, 3)] == [
        50,
        25,
        pytest.approx(100 * 5 / 6),
    ]
    assert [common_selection([first, third], top) for top in (1, 2, 3)] == [50, 75, 100]
    assert [common_selection([first, second, third], top) for top in (1, 2, 3)] == [
        0,
        25,
        pytest.approx(100 * 5 / 6),
    ]
    assert common_selection([first, first], 1) == 100


def test_common_selection_of_random_rankings_is_what_the_docstring_says():
    generator = random.Random(0)
    rankings = [{str(n): generator.sample(range(4), 4) for n in range(20000)} for _ in range(3)]
    assert [common_selection(rankings[:2], top) for top in (1, 2, 3)] == pytest.approx(
        [25, 50, 75], abs=1
    )
    assert [common_selection(rankings, top) for top in (1, 2, 3)] == pytest.approx(
        [6.25, 25, 56.25], abs=1
    )


def test_only_prompts_that_all_scorers_ranked_count():
    assert common_selection([{"a": [0, 1], "b": [0, 1]}, {"a": [0, 1], "c": [1, 0]}], 1) == 100
    assert common_selection([{"a": [0, 1]}, {"c": [1, 0]}], 1) is None


def test_there_is_no_selection_among_as_many_images_as_are_picked():
    assert common_selection([{"a": [0, 1]}, {"a": [0, 1]}], 2) is None


def ranked(values, blank=()):
    """A published row of rank_images, as far as the table reads it."""
    ranking = sorted(range(len(values)), key=lambda i: (i in blank, -values[i]))
    return {"scores": values, "ranking": ranking, "winner": ranking[0], "blank": list(blank)}


def test_ties_that_decide_are_known():
    assert has_deciding_tie(ranked([1.0, 1.0, 0.5, 0.2]))
    assert has_deciding_tie(ranked([3.0, 2.0, 1.0, 1.0]))
    assert not has_deciding_tie(ranked([4.0, 3.0, 2.0, 1.0]))
    assert not has_deciding_tie(ranked([4.0, 3.0, 2.0, 2.0], blank=[3]))


def test_tied_images_count_in_the_order_of_the_candidates():
    tied = {"p": ranked([1.0, 1.0, 1.0, 1.0])["ranking"]}
    assert common_selection([tied, {"p": [0, 3, 1, 2]}], 1) == 100
    assert common_selection([tied, {"p": [3, 0, 1, 2]}], 1) == 0


def selections(label="ours", count=4):
    found = {
        "rm": {
            "p": ranked([4.0, 3.0, 2.0, 1.0][:count]),
            "q": ranked([1.0, 1.0, 0.0, -1.0][:count]),
        },
        "clip-l": {
            "p": ranked([4.0, 3.0, 2.0, 1.0][:count]),
            "q": {"missing": {"rule": "generate_images", "reason": "x"}},
        },
        "blip": {
            "p": ranked([1.0, 2.0, 3.0, 4.0][:count]),
            "q": ranked([4.0, 3.0, 2.0, 1.0][:count]),
        },
    }
    kinds = {"rm": "image-reward", "clip-l": "clip", "blip": "blip"}
    scorers = {name: RankingScorer(kind, found[name]) for name, kind in kinds.items()}
    return build_table(read_published(PUBLISHED / "table4.yaml"), scorers, label)


def test_the_table_has_each_pair_and_all_three_beside_the_papers():
    ours = [row for row in selections().rows if row.source == "ours"]
    assert [row.texts["method"] for row in ours] == [
        "rm & clip-l (1 prompts)",
        "rm & blip (2 prompts)",
        "clip-l & blip (1 prompts)",
        "All 3: rm & clip-l & blip (1 prompts)",
    ]
    assert ours[0].values == {"top1": 100, "top2": 100, "top3": 100}
    assert ours[1].values == {"top1": 50, "top2": 50, "top3": pytest.approx(100 * 5 / 6)}
    assert ours[0].differences["top1"] == pytest.approx(63.2)
    assert any(note.startswith("rm: 1 of 2 prompts have a tie") for note in selections().notes)


def test_a_demo_and_another_number_of_candidates_are_not_compared_with_the_paper():
    assert not any(row.differences for row in [*selections("demo").rows, *selections(count=3).rows])
    assert (
        selections(count=3).rows[-1].missing["top3"]
        == "@ Top 3: no prompt that all of them ranked has more than 3 images."
    )


def test_what_this_run_has_no_scorer_of_is_a_row_of_dashes_with_the_reason():
    published = read_published(PUBLISHED / "table4.yaml")
    rows = {"p": ranked([2.0, 1.0])}
    scorers = {"rm": RankingScorer("image-reward", rows), "c": RankingScorer("clip", rows)}
    alone = build_table(published, {"rm": scorers["rm"]}, "ours")
    assert [row.source for row in alone.rows] == ["paper"] * 4 + ["ours"] * 4
    assert (
        alone.rows[4].missing["top1"] == "no image scorer of kind clip is configured in this run."
    )
    assert (
        alone.rows[7].missing["top3"]
        == "no image scorer of kind clip or blip is configured in this run."
    )
    two = build_table(published, scorers, "ours")
    assert [bool(row.values) for row in two.rows[4:]] == [True, False, False, False]
