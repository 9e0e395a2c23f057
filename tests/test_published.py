"""The paper's numbers as data: complete, and each equal to what the paper prints."""

import os
import re
from decimal import Decimal
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from lib.errors import UserError
from lib.report.model_tables import ModelTableRow, ScoresFile, compare_models
from lib.report.published import paper_rows, read_published

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "published"
PAPER = Path(os.environ.get("PAPER_TXT", ROOT.parent / "shared" / "paper.txt"))
TABLES = (1, 2, 3, 4, 5)
#: How each table begins in the text of the paper.
FIRST_ROW = {
    1: "| BLIP-2",
    2: "| Qwen-VL [2] | Qwen 10B",
    3: "| mPLUG-Owl2-7B",
    4: "| Reward Model & CLIP",
    5: "| RM Wins",
}


def table(number):
    return read_published(PUBLISHED / f"table{number}.yaml")


def printed_rows(number):
    """The cells of a table in the text of the paper, row by row, empty cells left out."""
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(FIRST_ROW[number]))
    rows: list[list[str]] = []
    for line in lines[start:]:
        if not line.startswith("|") or line.startswith(
            "| Model |"
        ):  # Table 2 follows Table 1 on the next line
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|") if cell.strip()])
    return rows


@pytest.mark.skipif(
    not PAPER.is_file(),
    reason=f"the text of the paper is not at {PAPER} (set PAPER_TXT to its place)",
)
@pytest.mark.parametrize("number", TABLES)
def test_every_number_is_the_one_that_the_paper_prints(number):
    published = table(number)
    printed = printed_rows(number)
    assert len(published.rows) == len(printed)
    for row, cells in zip(published.rows, printed, strict=True):
        cited = f" [{row.cites}]" if row.cites is not None else ""
        first, *texts = published.text_columns
        expected = [f"{row.texts[first]}{cited}", *(row.texts[key] or "-" for key in texts)]
        assert cells[: len(expected)] == expected
        numbers = [cell.rstrip("%") for cell in cells[len(expected) :]]
        assert len(numbers) == len(published.columns)
        for column, text in zip(published.columns, numbers, strict=True):
            value = row.values[column.key]
            assert (None if text == "-" else Decimal(text)) == (
                None if value is None else Decimal(str(value))
            ), (row, column)
            if value is not None and number != 5:  # Table 5 prints "58.9%" and "10%" in one column
                assert f"{value:.{column.decimals}f}" == text, (row, column)


@pytest.mark.parametrize("number", TABLES)
def test_a_table_says_where_it_is_from_and_what_its_columns_are(number):
    published = table(number)
    assert published.number == number
    assert f"Table {number}" in published.source
    assert all(
        column.unit and column.better in ("higher", "lower", None) for column in published.columns
    )
    keys = {column.key for column in published.columns}
    assert all(set(row.values) == keys for row in published.rows)
    assert len(paper_rows(published)) == len(published.rows)


def test_the_readme_tells_of_every_file():
    readme = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in PUBLISHED.glob("*.yaml")} == set(
        re.findall(r"table\d\.yaml", readme)
    )


def test_rows_that_runs_are_compared_with_are_marked():
    assert {row.pairs: row.texts["method"] for row in table(2).rows if row.pairs is not None} == {
        0: "LLaVA-1.5",
        9000: "+ PDS-DPO",
    }
    assert [row.pairs for row in table(3).rows if row.pairs is not None] == [
        0,
        2000,
        5000,
        7000,
        9000,
    ]
    kinds = ["image-reward", "clip", "blip"]
    assert [row.scorers for row in table(4).rows] == [
        *combinations(kinds, 2),
        tuple(kinds),
    ]


def test_table_4_fits_the_common_selections_of_500_prompts():
    """Shares of |intersection| / k over 500 prompts are whole multiples of 100 / (500 k) percent;
    all twelve printed numbers are.
    """
    for row in table(4).rows:
        for top, column in enumerate(table(4).columns, start=1):
            steps = round(row.values[column.key] * 500 * top / 100)
            assert (
                f"{steps * 100 / (500 * top):.{column.decimals}f}"
                == f"{row.values[column.key]:.{column.decimals}f}"
            )


def scores_file(model: str, benchmark: str) -> ScoresFile:
    """A scores.json with the one score x."""
    return {
        "model": model,
        "benchmark": benchmark,
        "model_identity": "folder-1",
        "limit": None,
        "questions": 10,
        "questions_in_data": 10,
        "scores": {"x": 50.0},
        "missing": {},
        "doubts": {},
        "computed_by": {"scorer": "s", "parser": None, "judge": None, "language_tools": None},
        "answers": {"file": "answers.jsonl", "sha256": "0" * 64},
        "environment": {"answers": {}, "scores": {}},
    }


def test_numbers_that_seem_to_be_of_another_measure_are_not_compared_with_a_run():
    wanted = {column.key: f"{column.key}/x" for column in table(3).columns}
    scores = {
        (model, name): scores_file(model, name) for model in ("base", "dpo") for name in wanted
    }
    rows = [
        ModelTableRow(name=name, models=[name], seeds=[], pairs=pairs, texts={})
        for name, pairs in (("base", 0), ("dpo", 9000))
    ]
    *_, base, dpo = compare_models(
        table(3), rows, wanted, scores, "ours", "llava-hf/llava-1.5-7b-hf"
    ).rows
    assert base.differences.keys() == {"pope"}
    assert dpo.differences.keys() == wanted.keys()


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "table2.yaml"
    values = yaml.safe_load((PUBLISHED / "table2.yaml").read_text(encoding="utf-8"))
    values["rows"][0]["poppe"] = 1
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(UserError, match=r"table2\.yaml: .*poppe"):
        read_published(path)


def test_readme_and_citation_name_the_paper_s_revision_and_the_same_released_data_sets():
    readme, citation = (
        (PUBLISHED.parent / name).read_text() for name in ("README.md", "CITATION.cff")
    )
    named = [
        set(re.findall(r"huggingface\.co/datasets/([\w/-]+)", text)) for text in (readme, citation)
    ]
    assert (
        named[0]
        == named[1]
        == {
            "pdsdpo/pdsdpo-v1_0-data",
            "pdsdpo/pdsdpo-v1_1-data",
            "pdsdpo/synthalign-v1_0-data",
        }
    )
    assert "https://arxiv.org/abs/2412.17417v2" in readme
    cited = yaml.safe_load(citation)
    assert cited["preferred-citation"]["url"] == "https://arxiv.org/abs/2412.17417v1"
    assert cited["references"][0]["url"] == "https://arxiv.org/abs/2412.17417v2"
    assert all(each["title"] and each["authors"] and each["type"] for each in cited["references"])
