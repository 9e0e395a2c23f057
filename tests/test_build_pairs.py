"""Pairs: best against worst of the valid responses, and a reason wherever there is no pair."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

import build_pairs
from build_pairs import (
    VisionConfig,
    pair_of,
    same_after_truncation,
    tokens_of_llava,
    unusable_for_training,
)
from lib.blocks import Model
from lib.config.pairs import BuildPairsJob
from lib.data.data_sets import reason_of
from lib.data.rows import Pair, PairRow
from lib.data.shards import read_shard
from lib.files import read_jsonl, write_jsonl


def responses(**scores):
    return {
        policy: {"text": f"answer of {policy}", "score": score} for policy, score in scores.items()
    }


def test_chosen_is_the_best_and_rejected_the_worst():
    pair = pair_of(responses(a=0.1, b=0.3, c=-0.2, d=0.2), 0)["pair"]
    assert (pair["chosen"]["policy"], pair["rejected"]["policy"]) == ("b", "c")
    assert pair["chosen"]["text"] == "answer of b"
    assert pair["margin"] == pytest.approx(0.5)


def test_of_equals_the_first_in_the_configured_order_is_taken():
    pair = pair_of(responses(a=0.1, b=0.3, c=0.3, d=0.1), 0)["pair"]
    assert (pair["chosen"]["policy"], pair["rejected"]["policy"]) == ("b", "a")


def test_an_invalid_response_is_neither_best_nor_worst():
    answers = responses(a=0.1, b=0.3) | {
        "c": {"text": "", "invalid": "empty"},
        "d": {"invalid": "failed"},
    }
    pair = pair_of(answers, 0)["pair"]
    assert (pair["chosen"]["policy"], pair["rejected"]["policy"]) == ("b", "a")


@pytest.mark.parametrize(
    ("answers", "min_margin", "reason"),
    [
        (responses(a=0.5, b=0.5, c=0.5), 0, "tie"),
        (responses(a=0.5, b=0.4), 0.2, "margin too small"),
        (responses(a=0.5) | {"b": {"invalid": "truncated"}}, 0, "fewer than two valid responses"),
        (
            {"a": {"invalid": "empty"}, "b": {"invalid": "repeating"}},
            0,
            "fewer than two valid responses",
        ),
    ],
)
def test_what_cannot_be_a_pair_leaves_its_reason(answers, min_margin, reason):
    assert pair_of(answers, min_margin) == {"no_pair": reason}


def test_responses_that_differ_only_beyond_what_training_sees_are_the_same():
    assert same_after_truncation([1, 2, 3, 4], [1, 2, 3, 5], room=3)
    assert not same_after_truncation([1, 2, 3, 4], [1, 2, 3, 5], room=4)
    assert not same_after_truncation([1, 2], [1, 2, 3], room=3)


def test_image_tokens_of_llava_1_5_are_576():
    vision: VisionConfig = {"image_size": 336, "patch_size": 14}
    assert tokens_of_llava({"vision_config": vision}) == 576
    assert tokens_of_llava({"image_seq_length": 16, "vision_config": vision}) == 16


@pytest.fixture(scope="module")
def tokenizer(demo_models):
    return Tokenizer.from_file(str(demo_models / "llava-1.5/tokenizer.json"))


def written(chosen: str, rejected: str, instruction: str = "What is it?") -> tuple[str, Pair]:
    """An instruction and a pair of responses to it."""
    return instruction, {
        "chosen": {"policy": "a", "text": chosen, "score": 1.0},
        "rejected": {"policy": "b", "text": rejected, "score": 0.0},
        "margin": 1.0,
    }


def test_pairs_that_training_could_not_use_are_left_out(tokenizer):
    same_start = written("a big cat", "a big dog")
    tokens = [
        tokenizer.encode(text, add_special_tokens=False).ids for text in ("a big cat", "a big dog")
    ]
    shared = next(
        place for place, (left, right) in enumerate(zip(*tokens, strict=False)) if left != right
    )
    assert shared > 0
    assert unusable_for_training(*same_start, tokenizer, shared) == "same after truncation"
    assert unusable_for_training(*same_start, tokenizer, shared + 1) is None
    assert unusable_for_training(*same_start, tokenizer, 0) == "no room for a response"
    assert (
        unusable_for_training(*written("an <image> of a cat", "a dog"), tokenizer, 50)
        == "special token in a text"
    )
    assert (
        unusable_for_training(*written("a cat", "a dog", "What is in the <image>?"), tokenizer, 50)
        == "special token in a text"
    )


def test_a_prompt_that_a_benchmark_has_too_gives_no_pair_where_it_is_to_be_left_out(
    rule_object, demo_models, tmp_path
):
    def response(score):
        return {"text": f"There are {score} boxes on the table.", "score": score}

    def ranked(name):
        image = {"file": "a.png", "sha256": "0"}
        answers = {"a": response(1.0), "b": response(2.0)}
        return {
            "id": name,
            "topic": "art",
            "prompt": "?",
            "image": image,
            "instruction": f"What is {name}?",
            "responses": answers,
        }

    overlap = {"of": "instruction", "benchmark": "pope", "measure": "ngram"}
    ranking, overlaps, output = (
        str(tmp_path / name) for name in ("ranking.jsonl", "overlaps.jsonl", "pairs.jsonl")
    )
    write_jsonl(Path(ranking), [ranked("art-1"), ranked("art-2")])
    write_jsonl(
        Path(overlaps),
        [
            {"id": "art-1", "topic": "art", "prompt": "?", "overlaps": [overlap]},
            {"id": "art-2", "topic": "art", "prompt": "?", "overlaps": []},
        ],
    )
    settings = BuildPairsJob(
        policies=["a", "b"],
        min_margin=0,
        max_length=512,
        prompt_template="USER: <image>\n{instruction} ASSISTANT:",
        base_model=Model(model=str(demo_models / "llava-1.5")),
    ).model_dump(mode="json")

    def run(files):
        inputs = SimpleNamespace(ranking=ranking, overlaps=files)
        build_pairs.main(
            rule_object(
                "build_pairs", {"topic": "art", "shard": "00"}, inputs, [output], settings=settings
            )
        )
        return {row["id"]: row.get("no_pair") for row in read_jsonl(Path(output))}

    assert run([]) == {"art-1": None, "art-2": None}
    assert run([overlaps]) == {"art-1": "in a benchmark", "art-2": None}
    assert reason_of(read_shard(output, PairRow)["art-1"]) == "in a benchmark"
    assert run([]) == {"art-1": None, "art-2": None}
