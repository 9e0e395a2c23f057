"""People as judges: their verdicts of the blind mode in Table 5, and how often rewards agree."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import image_judge_table
from conftest import REPOSITORY, Parameters, Wildcards
from lib.config.tables import ImageJudgeTableJob, rankings_input
from lib.data.blind_verdicts import BlindVerdict, comparison_place
from lib.data.reviews import ReviewFiles
from lib.errors import UserError
from lib.report.sidecar import ModelOrigin
from report_run import JOB, SCORERS, ReportRun, data_of

ORIGIN = ModelOrigin(model="someone/model", revision="a" * 40)


@pytest.fixture
def run(tmp_path: Path) -> ReportRun:
    """Of its 20 prompts, both scorers pick the same in ten."""
    made = ReportRun(tmp_path / "run")
    for number in range(20):
        made.add(f"a picture of {number} circles")
    return made


def verdict(run: ReportRun, name: str, said: str, reviewer: str = "Ada") -> BlindVerdict:
    """What somebody who saw the run's two pictures says."""
    details = data_of(run.root / "report/index.html", "details-000")
    shown = next(each["comparison"]["shown"] for each in details if each["id"] == name)
    return {
        "kind": "pictures",
        "prompt_id": name,
        "shown": shown,
        "verdict": said,
        "reviewer": reviewer,
    }


def different(run: ReportRun) -> list[str]:
    """The prompts whose picks differ, in the order in which people see them."""
    entries = data_of(run.report(), "prompts-000")
    rows = [each for each in entries if each["compared"] is not None]
    return [each["id"] for each in sorted(rows, key=lambda each: each["compared"])]


def table_of(run: ReportRun, people: list[BlindVerdict]) -> str:
    """Table 5 in Markdown."""
    files = run.write()
    half = {
        rankings_input(scorer): [file] for scorer, file in zip(SCORERS, files.rankings, strict=True)
    }
    inputs = SimpleNamespace(
        published=str(REPOSITORY / "published/table5.yaml"),
        images=files.images,
        pairs=files.pairs,
        **half,
    )
    suffixes = {"csv": "csv", "markdown": "md", "latex": "tex", "sidecar": "json"}
    output = {name: str(run.root / f"tables/t5.{suffix}") for name, suffix in suffixes.items()}
    (run.root / "tables").mkdir(exist_ok=True)
    job = ImageJudgeTableJob(
        has_judge=False,
        kinds={name: name for name in SCORERS},
        label="ours",
        people=people,
        compared=list(SCORERS),
        scorers=dict.fromkeys(SCORERS, ORIGIN),
    )
    common = {"root": str(run.root), "device": "cpu", "seed": 0, "max_failed_fraction": 0.0}
    image_judge_table.main(
        SimpleNamespace(
            rule="image_judge_table",
            wildcards=Wildcards(),
            input=inputs,
            output=SimpleNamespace(**output),
            log=[],
            threads=1,
            params=Parameters(common=common, settings=job.model_dump(mode="json")),
        )
    )
    return Path(output["markdown"]).read_text(encoding="utf-8")


def test_people_s_verdicts_make_table_5_in_place_of_a_judge(run: ReportRun) -> None:
    names = different(run)
    assert len(names) == 10
    said: list[Any] = ["image-reward"] * 6 + ["clip"] * 2 + ["tie"] * 2
    told = table_of(run, [verdict(run, *each) for each in zip(names, said, strict=True)])
    lines = [line for line in told.split("\n") if "ours, people" in line]
    assert [line.count("75.0") for line in lines] == [1, 0, 0]
    assert [line.count("25.0") for line in lines] == [0, 1, 0]
    assert [line.count("20.0") for line in lines] == [0, 0, 1]
    assert "people (Ada) compared 10 of the 10 prompts with different picks" in told
    assert "Image scorer image-reward agrees with people on 6 of 8 comparisons" in told
    assert "Image scorer clip agrees with people on 2 of 8 comparisons" in told


def test_without_verdicts_the_table_is_as_before(run: ReportRun) -> None:
    told = table_of(run, [])
    assert "people" not in told
    assert "no judge is configured" in told


def test_people_who_disagree_say_a_tie_and_a_verdict_on_other_pictures_does_not_count(
    run: ReportRun,
) -> None:
    one, other, *_ = different(run)
    said = [
        verdict(run, one, "image-reward"),
        verdict(run, one, "clip", "Bo"),
        verdict(run, other, "clip") | {"shown": "of before"},
    ]
    told = table_of(run, [*said])
    assert "people (Ada, Bo) compared 1 of the 10 prompts" in told
    lines = [line for line in told.split("\n") if "ours, people" in line]
    assert "100.0" in lines[2]


def test_how_often_the_response_reward_agrees_is_told_of_answers_alone(run: ReportRun) -> None:
    entries = data_of(run.report(), "prompts-000")
    people: list[BlindVerdict] = [
        {
            "kind": "answers",
            "prompt_id": each["id"],
            "shown": each["pair"],
            "verdict": said,
            "reviewer": "Ada",
        }
        for each, said in zip(entries, ["chosen", "chosen", "rejected", "tie"], strict=False)
    ]
    told = table_of(run, people)
    assert "The response reward agrees with people on 2 of 3 comparisons without a tie" in told
    assert "no judge is configured" in told  # of pictures nobody said anything


def test_people_see_prompts_in_the_order_of_the_judge_and_no_side_stands_first_always(
    run: ReportRun,
) -> None:
    names = different(run)
    assert names == sorted(names, key=lambda name: comparison_place(name, 0))
    entries = data_of(run.root / "report/index.html", "prompts-000")
    for kind in ("pictures", "answers"):
        assert {kind in each["turned"] for each in entries} == {True, False}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("test,colours,art-1,ab,a,b,a,Ada,", "the kind 'colours' is none"),
        ("test,pictures,art-1,ab,a,b,c,Ada,", "the verdict 'c' is none. Write a, b, tie"),
        ("test,pictures,art-2,ab,a,b,a,Ada,", "has none of the prompts that it names"),
    ],
)
def test_a_wrong_verdict_is_told_with_file_line_and_mend(
    tmp_path: Path, line: str, said: str
) -> None:
    header = "run,kind,prompt_id,shown,first,second,verdict,reviewer,judged_at"
    (tmp_path / "verdicts.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(UserError, match="line 2") as told:
        ReviewFiles(tmp_path, "test", {"art-1"})
    assert said in str(told.value)


def test_a_run_with_one_scorer_has_no_pictures_to_compare(run: ReportRun) -> None:
    index = run.report(JOB.model_copy(update={"compared": []}))
    assert {each["compared"] for each in data_of(index, "prompts-000")} == {None}
