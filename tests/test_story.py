"""What the demo tells at its end: of whatever texts there are in a run."""

import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import story

STRANGE = "it says [/b] and [bold red]that :smile: a\u2028b\u0085c\u2029d"


def write_lines(path: Path, *rows: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )


@pytest.fixture
def run_with_strange_texts(tmp_path: Path) -> Path:
    """A run's published files, as far as the story reads them; its configuration."""
    root = tmp_path / "[/results]" / "strange"
    prompt = {"id": "art-0123456789", "topic": "art", "prompt": STRANGE}
    missing = {"missing": {"rule": "write_instructions", "reason": STRANGE}}
    write_lines(root / "images/art/00.jsonl", {**prompt, "candidates": [{}, {}]})
    write_lines(root / "instructions/art/00.jsonl", {**prompt, **missing})
    answers = {"one": {"text": STRANGE}, "two": {"text": STRANGE, "invalid": "empty"}}
    write_lines(root / "response_ranking/art/00.jsonl", {**prompt, "responses": answers})
    write_lines(root / "pairs/art/00.jsonl", {**prompt, **missing}, {**prompt, "pair": {}})
    updates: list[dict[str, object]] = [
        {"step": 1, "loss": 0.7, "note": STRANGE},
        {"step": 2, "loss": 0.5},
    ]
    write_lines(root / "models/x[b]/metrics.jsonl", *updates)
    scores = root / "evaluation/base/[b]/scores.json"
    scores.parent.mkdir(parents=True)
    scores.write_text(json.dumps({"scores": {":smile:": 1.0}}))
    configfile = tmp_path / "config.yaml"
    values = {"results": str(root.parent), "run": "strange", "prompts": "p", "topics": ["art"]}
    configfile.write_text(yaml.safe_dump(values), encoding="utf-8")
    return configfile


def test_the_story_is_told_whatever_line_ends_and_markup_the_texts_have(
    run_with_strange_texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["story.py", str(run_with_strange_texts)])
    story.main()
    told = " ".join(capsys.readouterr().out.split())
    assert "1 prompts in 1 topics became 2 pictures; 0 were picked and asked about." in told
    assert "it says [/b] and [bold red]that :smile: a b c d)" in told
    assert "Training of x[b]: 2 updates, loss 0.700 to 0.500." in told
    assert "[b]/:smile:" in told
    assert "not comparable" not in told
    assert f"{run_with_strange_texts.parent}/[/results]/strange/tables" in told


def test_scores_have_the_digits_that_tell_models_apart_and_a_mark_where_tools_were_stand_ins(
    tmp_path: Path,
) -> None:
    why = "stand-in language tools (tokenizer): not comparable with published scores"
    other = "stand-in language tools (lemmatizer): not comparable with published scores"
    for model, value in (("base", 7.04), ("dpo", 7.01)):
        for benchmark, score, reason in (
            ("chair", "chair_s", why),
            ("object_halbench", "response", other),
        ):
            folder = tmp_path / "evaluation" / model / benchmark
            folder.mkdir(parents=True)
            scores = {"scores": {score: value}, "not_comparable": {score: reason}}
            (folder / "scores.json").write_text(json.dumps(scores))
    table = story.table_of(story.scores_of(tmp_path), story.not_comparable_of(tmp_path))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    told = console.export_text()
    assert "(CHAIR_s, %) ↓ * " in told
    assert "(response, %) ↓ ** " in told
    assert "7.04" in told
    assert "7.01" in told
    assert f"* {why}" in told
    assert f"** {other}" in told
