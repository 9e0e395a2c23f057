"""Rule check_content: what a classifier of pictures and presidio find, and what becomes of it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import check_content
from build_pairs import found_by
from conftest import tiny_checkpoint
from data_set_run import CARD, MakeRule, pair_row, ranking_row, write_run
from lib.config.run import Config
from lib.data.data_sets import PAIRS
from lib.data.rows import ContentRow, Pair
from lib.data.shards import present, read_shard
from lib.errors import UserError
from lib.files import write_jsonl
from lib.head.cards import said_of
from lib.models.content_checkers.presidio import Presidio
from lib.report.data_set_card import Findings, content_checked

PAIR: Pair = pair_row("art", 1)["pair"]


@pytest.fixture
def classifier(demo_models: Path) -> Path:
    """A random classifier of two labels, "other" and "unsafe"."""
    return tiny_checkpoint(demo_models, "image-classifier")


def check(
    rule_object: MakeRule, root: Path, checker: dict[str, Any], edit: Callable[[Any], None]
) -> list[ContentRow]:
    rows = [pair_row("art", number, root) for number in range(4)]
    files = write_run(root, rows)
    ranked: list[Any] = [ranking_row(row) for row in rows]
    for row in ranked:
        row["responses"]["a"]["text"] = "A lamp."
        row["responses"]["b"] |= {"text": "", "invalid": "empty"}
    edit(ranked)
    write_jsonl(Path(files["rankings"][0]), ranked)
    output = root / "content/mine/all/00.jsonl"
    check_content.main(
        rule_object(
            "check_content",
            {"checker": "mine", "topic": "all", "shard": "00"},
            SimpleNamespace(ranking=files["rankings"][0], images=files["images"][0]),
            [str(output)],
            settings={"checker": checker},
            common={"root": str(root)},
        )
    )
    return present(read_shard(output, ContentRow).values())


def test_a_classifier_of_the_user_s_choice_looks_at_the_picture(
    tmp_path: Path, rule_object: MakeRule, classifier: Path
) -> None:
    settings = {"kind": "image-classifier", "model": str(classifier), "dtype": "float32"}
    every = check(
        rule_object,
        tmp_path / "run",
        settings | {"labels": ["unsafe"], "min_score": 0.0},
        lambda rows: None,
    )
    scores = [row["findings"][0]["score"] for row in every]
    assert [[each["of"] for each in row["findings"]] for row in every] == [["image"]] * 4
    assert all(0 < score < 1 for score in scores)
    some = check(
        rule_object,
        tmp_path / "run",
        settings | {"labels": ["unsafe"], "min_score": max(scores)},
        lambda rows: None,
    )
    assert sum(bool(row["findings"]) for row in some) == scores.count(max(scores))


def test_a_label_that_the_classifier_has_not_is_told_with_those_that_it_has(
    tmp_path: Path, rule_object: MakeRule, classifier: Path
) -> None:
    settings = {"kind": "image-classifier", "model": str(classifier), "labels": ["nsfw"]}
    with pytest.raises(UserError, match=r"it has no label nsfw, but other, unsafe"):
        check(rule_object, tmp_path / "run", settings, lambda rows: None)


def test_presidio_finds_an_address_in_a_response_and_does_not_repeat_it(
    tmp_path: Path, rule_object: MakeRule
) -> None:
    pytest.importorskip("presidio_analyzer")

    def edit(rows: Any) -> None:
        rows[1]["responses"]["a"]["text"] = "Write to jane.doe@example.org, card 4111111111111111."
        rows[2]["responses"]["b"] = {"text": "jane.doe@example.org", "invalid": "truncated"}

    rows = check(rule_object, tmp_path / "run", {"kind": "presidio"}, edit)
    found = {each["what"] for each in rows[1]["findings"]}
    assert {"EMAIL_ADDRESS", "CREDIT_CARD"} <= found
    assert {each["of"] for each in rows[1]["findings"]} == {"responses/a"}
    assert [row["findings"] for number, row in enumerate(rows) if number != 1] == [[]] * 3
    assert "jane" not in (tmp_path / "run/content/mine/all/00.jsonl").read_text()


def test_without_presidio_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace())
    with pytest.raises(UserError, match=r"pip install presidio-analyzer=="):
        Presidio.load(Presidio.Settings(kind="presidio"), "cpu")


# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "checker"),
    [
        ({}, None),
        ({"mine": ["image"]}, "mine"),
        ({"mine": ["prompt"]}, "mine"),
        ({"mine": ["responses/a"]}, "mine"),
        ({"mine": ["responses/c"]}, None),
        ({"mine": ["responses/c"], "other": ["instruction"]}, "other"),
    ],
)
def test_what_is_found_in_a_response_that_is_no_part_of_the_pair_leaves_it_in(
    findings: dict[str, list[str]], checker: str | None
) -> None:
    assert found_by(findings, PAIR) == checker


def test_the_card_says_who_looked_and_how_often_something_was_found() -> None:
    from collections import Counter

    config = Config.model_validate({"pairs": {"content_check": {"mine": {"kind": "presidio"}}}})
    checks = {"mine": said_of(config.pairs.content_check["mine"])}
    job = CARD.model_copy(update={"content_checks": checks})
    reasons = Counter({PAIRS: 5, "found by content check mine": 2})
    told = content_checked(job, Findings(reasons, Counter()))
    assert "mine: presidio for EMAIL_ADDRESS" in told
    assert "found in 2 prompts" in told
    assert "**not looked for**" in content_checked(CARD, Findings(reasons, Counter()))


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no content checker 'presido'.*presidio"):
        Config.model_validate({"pairs": {"content_check": {"mine": {"kind": "presido"}}}})
