"""The veto: what people say of pairs in reviews.csv, and what becomes of the pairs."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lib.data.review_tables import name_of_seen
from lib.data.reviews import (
    COLUMNS,
    DISAGREE,
    Review,
    ReviewFiles,
    Verdict,
    decide,
    pair_name,
    ranked_pair,
    reviewed,
)
from lib.data.rows import MissingRow, PairRow
from lib.errors import UserError
from lib.report.data_set_card import left_out, why_not
from lib.report.review_counts import cohen_kappa, count_reviews, wilson

ID = "art-0123456789"
OTHER = "art-9876543210"
Write = Callable[..., Path]


def row(name: str = ID) -> PairRow:
    made: Any = {
        "id": name,
        "topic": "art",
        "prompt": "a picture",
        "image": {"file": "a.png", "sha256": "ab", "guidance_scale": 7.0, "score": 1.0},
        "instruction": "What is it?",
        "invalid_responses": {},
        "pair": {
            "chosen": {"policy": "a", "text": "right", "score": 1.0},
            "rejected": {"policy": "b", "text": "wrong", "score": 0.25},
            "margin": 0.75,
        },
    }
    return cast("PairRow", made)


def review(verdict: Verdict, reviewer: str = "Ada", sample: str = "", pair: str = "") -> Review:
    name = pair or pair_name(row(), row()["pair"])
    return {"reviewer": reviewer, "verdict": verdict, "pair": name, "sample": sample}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of reviews from lines of prompt id, verdict and more; returns its folder."""

    def write_file(
        *lines: dict[str, str], name: str = "reviews.csv", header: Any = COLUMNS
    ) -> Path:
        defaults = {"run": "test", "prompt_id": ID, "pair": "ab", "verdict": "accept"}
        text = ",".join(header) + "\r\n"
        for line in lines:
            values = defaults | line
            text += ",".join(values.get(column, "") for column in header) + "\r\n"
        folder = tmp_path / "reviews"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="")
        return folder

    return write_file


def read(folder: Path) -> ReviewFiles:
    return ReviewFiles(folder, "test", {ID, OTHER})


def test_a_folder_that_is_not_there_holds_no_review(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere").reviews == {}


def test_several_reviewers_files_are_joined(write: Write) -> None:
    write({"reviewer": "Ada"}, {"prompt_id": OTHER, "reviewer": "Ada", "verdict": "swap"})
    folder = write({"reviewer": "Bo", "verdict": "reject", "sample": "50"}, name="bo.csv")
    reviews = read(folder).reviews
    assert [each["reviewer"] for each in reviews[ID]] == ["Bo", "Ada"]
    assert reviews[ID][0]["sample"] == "50"
    assert reviews[OTHER][0]["verdict"] == "swap"


#: How spreadsheets save the file: the encoding, and what stands between values.
SPREADSHEETS = [("utf-8-sig", ","), ("utf-8", ";"), ("utf-8-sig", "\t"), ("utf-16", "\t")]


@pytest.mark.parametrize(("encoding", "separator"), SPREADSHEETS)
def test_a_file_that_a_spreadsheet_saved_is_read(
    write: Write, encoding: str, separator: str
) -> None:
    folder = write({"reviewer": "Ada", "note": '"größer, of\r\ntwo lines"', "verdict": "REJECT "})
    path = folder / "reviews.csv"
    [header, line] = csv.reader(path.open(encoding="utf-8", newline=""))
    with path.open("w", encoding=encoding, newline="") as stream:
        # Behind what was there, empty lines that someone typed into and emptied again.
        csv.writer(stream, delimiter=separator).writerows([header, line, [""] * len(header)])
    [review] = read(folder).reviews[ID]
    assert (review["verdict"], review["reviewer"]) == ("reject", "Ada")
    assert review["note"] == "größer, of\r\ntwo lines"


def test_no_name_of_a_pair_is_a_number_to_a_spreadsheet() -> None:
    names = [name_of_seen([str(number)]) for number in range(20_000)]
    assert len(set(names)) == len(names)
    assert not any(name.isdecimal() or re.fullmatch(r"[0-9]+e[0-9]+", name) for name in names)


def test_files_are_read_wherever_they_lie_and_what_programs_leave_there_is_not(
    write: Write, tmp_path: Path
) -> None:
    folder = write({"reviewer": "Ada"}, name="REVIEWS (1).CSV")
    whole = (folder / "REVIEWS (1).CSV").read_bytes()
    (folder / "Bo").mkdir()
    (folder / "Bo/reviews.csv").write_bytes(whole.replace(b"Ada", b"Bo"))
    for name in ("._reviews.csv", ".~lock.reviews.csv#", "~$reviews.csv", ".git/config.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\xff\x00")
    (folder / "reviews.xlsx").write_bytes(b"PK")
    (folder / "empty.csv").mkdir()
    files = read(folder)
    assert {each["reviewer"] for each in files.reviews[ID]} == {"Ada", "Bo"}
    (told,) = files.tell_passed_over()
    assert "reviews.xlsx: is no .csv file and does not count" in told
    with pytest.raises(UserError, match="is a file"):
        read(folder / "REVIEWS (1).CSV")


def test_columns_may_stand_in_another_order_and_notes_hold_line_ends(write: Write) -> None:
    folder = write({"note": '"a ""note"",\nof two lines"'}, header=tuple(reversed(COLUMNS)))
    assert list(read(folder).reviews) == [ID]


def test_reviews_of_prompts_that_were_edited_since_are_passed_over_and_told(write: Write) -> None:
    files = read(write({"prompt_id": "art-ffffffffff"}, {}))
    assert list(files.reviews) == [ID]
    (told,) = files.tell_passed_over()
    assert "1 of its reviews are of prompts that run 'test' has no more" in told
    assert "(line 2)" in told


def test_another_run_s_reviews_are_passed_over_and_told(write: Write) -> None:
    folder = write({"run": "paper", "prompt_id": "art-0000000000"}, {})
    files = read(folder)
    assert list(files.reviews) == [ID]
    (told,) = files.tell_passed_over()
    assert "reviews.csv: 1 of its reviews are of run 'paper'" in told


WRONG = {
    "unknown ids alone": (
        {"prompt_id": "art-ffffffffff"},
        "line 2: run 'test' has none of the prompts that it names",
    ),
    "sample": ({"sample": "some"}, "line 2: the sample 'some' is no whole number"),
    "verdict": ({"verdict": "maybe"}, "line 2: the verdict 'maybe' is none. Write accept, reject"),
    "no verdict": ({"verdict": ""}, "line 2: the verdict '' is none"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_line_is_told_with_file_line_and_mend(write: Write, wrong: str) -> None:
    line, said = WRONG[wrong]
    with pytest.raises(UserError) as told:
        read(write(line))
    assert said in str(told.value)
    assert "reviews.csv" in str(told.value)


def test_a_pair_that_a_reviewer_judged_twice_is_told_with_both_places(write: Write) -> None:
    write({"reviewer": "Ada"}, name="1.csv")
    folder = write({}, {"reviewer": "Ada", "verdict": "reject"}, name="2.csv")
    with pytest.raises(UserError, match=r"2\.csv, line 3: reviewer 'Ada' .*1\.csv, line 2"):
        read(folder)
    with pytest.raises(UserError, match="a reviewer without a name"):
        read(write({}, {}, name="1.csv"))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (("prompt_id", "verdict"), "lacks the columns 'run', 'pair'"),
        ((*COLUMNS, "colour"), "has the column 'colour'"),
        ((*COLUMNS, "run"), "has a column twice"),
        (("|".join(COLUMNS),), "lacks the columns"),
        ((), "lacks the columns"),
    ],
)
def test_a_file_with_other_columns_is_explained(write: Write, header: Any, said: str) -> None:
    with pytest.raises(UserError) as told:
        read(write(header=header))
    assert said in str(told.value)


def test_another_table_is_told_as_one_whatever_its_lines_are(write: Write) -> None:
    folder = write({})
    (folder / "prices.csv").write_text("what;costs\na;1;2;3\n")
    with pytest.raises(UserError, match=r"prices\.csv: is no file of reviews"):
        read(folder)


def test_a_file_that_is_no_text_or_no_csv_is_explained(write: Write) -> None:
    folder = write({})
    path = folder / "reviews.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8"):
        read(folder)
    path.write_bytes(whole + b'test,"open')
    with pytest.raises(UserError, match="is no CSV"):
        read(folder)
    path.write_bytes(whole + b"test,too,few\r\n")
    with pytest.raises(UserError, match="line 3: has 3 values for 8 columns"):
        read(folder)
    path.write_bytes(whole + b'test,"a\r\nb",few\r\n')
    with pytest.raises(UserError, match="line 3: has 3 values for 8 columns"):
        read(folder)


def test_an_accepted_pair_stays_a_rejected_one_leaves_and_a_swapped_one_swaps() -> None:
    before = row()
    accepted = cast("PairRow", reviewed(before, [review("accept")]))
    assert accepted["pair"] == before["pair"]
    rejected = cast("PairRow", reviewed(before, [review("reject")]))
    assert "pair" not in rejected
    assert rejected["no_pair"] == "rejected by reviewers"
    swapped = cast("PairRow", reviewed(before, [review("swap")]))
    assert swapped["pair"]["chosen"] == before["pair"]["rejected"]
    assert swapped["pair"]["margin"] == -0.75
    for after in (accepted, rejected, swapped):
        assert ranked_pair(after) == before["pair"]
    before["pair"]["disagreement"] = 0.25  # of an ensemble
    assert ranked_pair(reviewed(before, [review("swap")])) == before["pair"]


def test_a_review_of_another_pair_than_there_is_now_does_not_count() -> None:
    assert reviewed(row(), [review("reject", pair="another")]) == row()
    missing: MissingRow = {
        "id": ID,
        "topic": "art",
        "prompt": "a",
        "missing": {"rule": "rank_images", "reason": "x"},
    }
    assert reviewed(missing, [review("reject")]) == missing


def test_a_review_holds_whichever_side_of_the_pair_was_swapped() -> None:
    swapped = cast("PairRow", reviewed(row(), [review("swap")]))
    assert pair_name(swapped, swapped["pair"]) == pair_name(row(), row()["pair"])


def test_most_reviewers_decide_and_where_none_prevail_the_pair_is_left_out() -> None:
    assert decide(["accept", "reject", "accept"]) == "accept"
    assert decide(["accept", "reject"]) == DISAGREE
    disputed = cast("PairRow", reviewed(row(), [review("accept"), review("swap", "Bo")]))
    assert disputed["no_pair"] == "reviewers disagree"


def test_counts_tell_the_sample_with_its_interval_and_reviewers_agreement() -> None:
    said: list[list[Review]] = [
        *([[review("accept", sample="10"), review("accept", "Bo")]] * 8),
        [review("reject", sample="10"), review("reject", "Bo")],
        [review("reject", sample="10"), review("accept", "Bo")],
        [],
    ]
    counts = count_reviews(reviewed(row(), each) for each in said)
    told = "\n".join(counts.lines())
    assert "reviewed 10 pairs: 8 accepted, 1 rejected and left out, 0 swapped, 1 left out" in told
    assert "sample of 10 pairs drawn at random, 8 were accepted: 80.0% (95 % interval 49.0%" in told
    assert "Ada and Bo agree on 9 of 10 pairs; Cohen's kappa 0.62." in told
    assert counts.disagreements == [(ID, "Ada: reject, Bo: accept")]
    assert count_reviews([row()]).lines() == []


def test_a_sample_that_is_not_reviewed_to_its_end_is_told() -> None:
    said = [[review("accept", sample="4")], [review("reject", sample="3")], [], [], []]
    told = "\n".join(count_reviews(reviewed(row(), each) for each in said).lines())
    assert "Of a sample of 4 pairs drawn at random, 2 were reviewed, and of these 1 were" in told
    said = [[review("accept", sample="100")]] * 3
    told = "\n".join(count_reviews(reviewed(row(), each) for each in said).lines())
    assert "Of a sample of 3 pairs drawn at random, 3 were accepted" in told  # there are no more


def test_reviewers_names_are_no_markup_in_a_data_set_s_card() -> None:
    both = [review("accept", "<b>Ada</b>"), review("accept", "[Bo](https://example.org)")]
    told = left_out(why_not([reviewed(row(), both)]))
    assert "&lt;b&gt;Ada&lt;/b&gt; and \\[Bo\\](https" in told


def test_what_reviewers_noted_is_told_with_their_verdicts() -> None:
    noted: Review = {**review("swap", "Bo"), "note": "the other is right"}
    disputed = reviewed(row(), [review("accept"), noted])
    assert count_reviews([disputed]).disagreements == [
        (ID, "Ada: accept, Bo: swap (the other is right)")
    ]


def test_wilson_and_kappa_have_their_known_values() -> None:
    # Wilson's interval of 80 of 100: Newcombe (1998) and R's prop.test without correction.
    assert wilson(80, 100) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert wilson(0, 10)[0] == 0
    # Cohen (1960): the textbook's 2 x 2 table of 20, 5, 10, 15.
    table = {("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15}
    both = [pair for pair, count in table.items() for _ in range(count)]
    assert cohen_kappa(both) == pytest.approx(0.4)
    assert cohen_kappa([("y", "y")]) is None
