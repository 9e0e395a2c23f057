"""Table 5: a judge between two scorers' picks, against a real server on this machine."""

import base64
import json
from hashlib import sha256
from types import SimpleNamespace

import pytest

import compare_picks
import lib.endpoint
from chat_server import ChatServer, error
from compare_picks import choose_prompts, winners_of
from image_judge_table import OFF, build_table
from lib.config.image_ranking import ImageRanking, PickJudge
from lib.config.tables import rankings_input
from lib.errors import UserError
from lib.files import read_jsonl, write_jsonl
from lib.report.published import read_published
from test_figures import image_row, missing, ranking_row
from test_tables import PUBLISHED

SCORERS = ("image-reward", "clip")
KINDS = {"image-reward": "image-reward", "clip": "clip"}
MODEL = {"model": "owner/name", "revision": "a" * 40, "identity": None}


def images_of(body):
    """The sha256 of the images of a request, in the order shown."""
    parts = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return [
        sha256(base64.b64decode(part["image_url"]["url"].partition(",")[2])).hexdigest()
        for part in parts
    ]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.02)
    server = ChatServer(
        lambda body: "first",
        model="judge",
        version="judge-2026-01-01",
        retries=0,
        api_key_variable=None,
    )
    yield server
    server.close()


@pytest.fixture
def stage(tmp_path, rule_object, server):
    """Twelve prompts: the scorers agree on every third. Runs the rule; gives its rows and its
    summary.
    """
    root = tmp_path / "run"
    images = [image_row(root, number, write=True) for number in range(12)]
    rankings = {"image-reward": [ranking_row(row, 1) for row in images]}
    rankings["clip"] = [
        ranking_row(row, 1 if number % 3 == 0 else 2) for number, row in enumerate(images)
    ]
    write_jsonl(root / "images/art/00.jsonl", images)
    outputs = SimpleNamespace(
        comparisons=str(root / "image_judge/comparisons.jsonl"),
        summary=str(root / "image_judge/summary.json"),
    )

    def go(comparisons=5, **endpoint):
        for name, rows in rankings.items():
            write_jsonl(root / f"image_ranking/{name}/art/00.jsonl", rows)
        judge = PickJudge(endpoint=server.endpoint(**endpoint), comparisons=comparisons).model_dump(
            mode="json"
        )
        settings = {"judge": judge, "scorers": dict.fromkeys(SCORERS, MODEL)}
        files = {
            rankings_input(name): [str(root / f"image_ranking/{name}/art/00.jsonl")]
            for name in SCORERS
        }
        inputs = SimpleNamespace(images=[str(root / "images/art/00.jsonl")], **files)
        compare_picks.main(rule_object("compare_picks", {}, inputs, outputs, settings=settings))
        return read_jsonl(root / "image_judge/comparisons.jsonl"), json.loads(
            (root / "image_judge/summary.json").read_text()
        )

    return SimpleNamespace(go=go, images=images, rankings=rankings, root=root, server=server)


def prefers(stage, choose):
    """A judge that sees through to the images: `choose(guidance scales shown)` gives the place of
    the better one, or None for a tie.
    """
    scale = {
        candidate["sha256"]: candidate["guidance_scale"]
        for row in stage.images
        for candidate in row["candidates"]
    }

    def reply(body):
        place = choose([scale[digest] for digest in images_of(body)])
        return "tie" if place is None else ("first", "second")[place]

    stage.server.reply = reply


def test_the_better_pick_wins_wherever_it_is_shown(stage):
    prefers(stage, lambda scales: scales.index(7.0))
    rows, summary = stage.go()
    assert [row["verdict"] for row in rows] == ["image-reward"] * 5
    assert (
        summary["wins"],
        summary["losses"],
        summary["ties"],
        summary["win_rate"],
        summary["tie_rate"],
    ) == (5, 0, 0, 100, 0)
    ours = table_of(summary).rows[3:]
    assert [(row.texts["method"], row.values["count"]) for row in ours] == [
        ("image-reward wins", 5),
        ("clip wins", 0),
        ("ties", 0),
    ]
    assert summary["prompts"] == {"ranked_by_both": 12, "same_pick": 4, "different_picks": 8}
    assert summary["judge"] == "judge (answered as judge-2026-01-01)"
    assert all(
        row["picks"]["image-reward"]["guidance_scale"] == 7.0
        and row["picks"]["clip"]["guidance_scale"] == 9.0
        for row in rows
    )
    assert {tuple(images_of(body)) for body in stage.server.bodies()} == {
        pair
        for row in rows
        for pair in [
            tuple(row["picks"][name]["sha256"] for name in order)
            for order in (SCORERS, SCORERS[::-1])
        ]
    }


def test_a_judge_that_favours_a_place_gives_ties_and_no_win(stage):
    rows, summary = stage.go()
    assert [row["verdict"] for row in rows] == ["tie"] * 5
    assert rows[0]["replies"] == {"in_order": "first", "swapped": "first"}
    assert "win_rate" not in summary


def test_a_rerun_asks_nothing_and_more_comparisons_ask_only_for_the_new_ones(stage):
    prefers(stage, lambda scales: scales.index(9.0))
    first = stage.go(comparisons=3)
    assert len(stage.server.bodies()) == 6
    assert stage.go(comparisons=3) == first
    assert len(stage.server.bodies()) == 6
    rows, summary = stage.go(comparisons=100)
    assert len(stage.server.bodies()) == 16
    assert {row["id"] for row in first[0]} < {row["id"] for row in rows}
    assert (summary["comparisons"], summary["losses"]) == (8, 8)


def test_what_the_judge_says_in_other_words_has_no_verdict_and_counts_nowhere(stage):
    stage.server.reply = lambda body: "Both are lovely."
    rows, summary = stage.go(comparisons=2)
    assert [row["verdict"] for row in rows] == [None, None]
    assert "unusable" in rows[0]["reason"]
    assert record(stage)["failed"] == 0
    assert (summary["without_verdict"], summary["wins"], summary["ties"]) == (2, 0, 0)
    table = table_of(summary)
    assert [row.values.get("count") for row in table.rows[3:]] == [0, 0, 0]
    assert table.rows[3].missing["win_rate"] == "no comparison without a tie."
    assert table.rows[5].missing["win_rate"] == "no comparison has a verdict."
    assert any(note.startswith("2 comparisons have no verdict") for note in table.notes)


def record(stage):
    return json.loads((stage.root / "work/compare_picks/compare_picks.json").read_text())


def test_a_request_that_the_endpoint_did_not_answer_is_made_again_on_the_next_run(stage):
    prefers(stage, lambda scales: scales.index(7.0))
    judge = stage.server.reply
    stage.server.reply = lambda body: (
        error(500, "busy") if images_of(body)[0] == picked(stage, 1) else judge(body)
    )
    rows, summary = stage.go(comparisons=100)
    assert summary["without_verdict"] == record(stage)["failed"] == 1
    stage.server.reply = judge
    asked = len(stage.server.bodies())
    rows, summary = stage.go(comparisons=100)
    assert len(stage.server.bodies()) == asked + 1
    assert [row["verdict"] for row in rows] == ["image-reward"] * 8
    assert record(stage)["failed"] == 0


def picked(stage, number):
    """The sha256 of the image that image-reward picked for a prompt."""
    return stage.images[number]["candidates"][1]["sha256"]


def test_an_endpoint_that_is_down_stops_the_rule_with_one_message(stage):
    stage.server.close()
    with pytest.raises(UserError, match="base_url"):
        stage.go()
    assert not (stage.root / "image_judge/summary.json").exists()


def test_an_image_that_was_changed_is_not_shown_to_the_judge(stage):
    for row in stage.images:
        (stage.root / row["candidates"][1]["file"]).write_bytes(b"another")
    with pytest.raises(UserError, match="has other contents"):
        stage.go()
    assert not stage.server.bodies()


def test_prompts_that_a_scorer_has_not_ranked_are_no_comparison(stage):
    rows = {name: {row["id"]: row for row in each} for name, each in stage.rankings.items()}
    rows["clip"][stage.images[1]["id"]] = missing(stage.images[1])
    winners = winners_of(rows)
    prompts = choose_prompts(winners, 3, seed=0)
    assert (len(prompts.same), len(prompts.different)) == (4, 7)
    assert set(prompts.chosen) < set(prompts.different)
    assert set(prompts.chosen) < set(choose_prompts(winners, 5, seed=0).chosen)
    assert choose_prompts(winners, 3, seed=1).chosen != prompts.chosen


# The table


def table_of(summary, label="ours", kinds=None):
    return build_table(read_published(PUBLISHED / "table5.yaml"), summary, kinds or KINDS, label)


def found(**changes):
    summary = {
        "wins": 6,
        "losses": 2,
        "ties": 2,
        "without_verdict": 0,
        "win_rate": 75.0,
        "loss_rate": 25.0,
        "tie_rate": 20.0,
    }
    about = {
        "compared": list(SCORERS),
        "scorers": dict.fromkeys(sorted(SCORERS), MODEL),
        "judge": "gpt-4o",
        "comparisons": 10,
        "seed": 0,
    }
    return (
        summary
        | about
        | {"prompts": {"ranked_by_both": 30, "same_pick": 12, "different_picks": 18}}
        | changes
    )


def test_wins_losses_and_ties_stand_beside_the_paper_s_counted_as_the_paper_counts():
    rows = table_of(found()).rows[3:]
    assert [row.texts["method"] for row in rows] == ["image-reward wins", "clip wins", "ties"]
    assert [row.values for row in rows] == [
        {"count": 6, "win_rate": 75},
        {"count": 2, "win_rate": 25},
        {"count": 2, "win_rate": 20},
    ]
    assert [row.differences["win_rate"] for row in rows] == pytest.approx([16.1, -16.1, 10])
    assert any(
        "On 12 of 30 prompts both scorers pick the same image" in note
        for note in table_of(found()).notes
    )


def test_other_scorers_and_a_demo_are_not_compared_with_the_paper():
    assert not any(
        row.differences
        for row in [
            *table_of(found(), "demo").rows,
            *table_of(found(), kinds={**KINDS, "clip": "blip"}).rows,
        ]
    )


def test_without_a_judge_the_rows_are_dashes_with_the_reason():
    rows = table_of(None).rows[3:]
    assert len(rows) == 3
    assert all(row.missing == {"count": OFF, "win_rate": OFF} and not row.values for row in rows)


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ({"against": "blip"}, "`judge.against` is 'blip'"),
        ({"against": "image-reward"}, "agrees with itself"),
    ],
)
def test_a_judge_between_scorers_that_are_not_two_is_refused(judge, told, demo_models):
    scorers = {name: {"kind": name, "model": str(demo_models / name)} for name in SCORERS}
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    with pytest.raises(ValueError, match=told):
        ImageRanking.model_validate({"scorers": scorers, "judge": {"endpoint": endpoint, **judge}})
