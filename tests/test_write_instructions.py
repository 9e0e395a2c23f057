"""Instructions: whoever writes them, they are about the picked image, pass the same checks, and
belong to their prompt's text.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

import lib.endpoint
import tell_prompt
from chat_server import ChatServer, Reply, completion, error, refusal, text_of
from conftest import GOLDEN, needs_golden
from lib.blocks import Endpoint
from lib.config.instructions import WriteInstructionsJob
from lib.config.run import Config
from lib.data.controls import pick_of
from lib.data.prompts import Prompt, make_shards
from lib.data.rows import InstructionRow
from lib.data.shards import present, read_shard, read_shards
from lib.errors import UserError
from lib.files import digest_of_file, write_jsonl
from lib.jobs.job import Job
from lib.models.instruction_authors.checks import clean, problem_with, problem_with_answer
from lib.models.instruction_authors.openai import OpenAIEndpoint
from lib.models.instruction_authors.own_file import read_instruction_file
from lib.models.instruction_authors.registry import INSTRUCTION_AUTHORS
from lib.models.instruction_authors.templates import check_prompts_for_templates, from_template
from lib.models.response_generators.registry import GENERATORS
from warm_jobs import heavy_imports
from write_instructions import main

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [
    (
        "Eight ceramic teapots shaped like animals stand along a window ledge in the order hen,"
        " frog, cat and owl."
    ),
    'a "quoted" {brace} {prompt} $HOME `id` ../../x of a red kite',
    "猫が三匹 and a dog on a bench 😀",
]
PROMPTS = [Prompt("art", text) for text in TEXTS]


def shard():
    [only] = make_shards(PROMPTS, 1)
    return only


def author_of(**settings):
    """The settings of whoever writes, as the configuration has them."""
    return INSTRUCTION_AUTHORS.validate(settings)


def job_settings(settings, written, min_image_reward=None, pick="best"):
    """What the rule is told. `written`: the file with what the user wrote."""
    job = WriteInstructionsJob(
        author=author_of(**settings),
        min_image_reward=min_image_reward,
        pick=pick,
        written=written,
    )
    return job.model_dump(mode="json")


class Stage:
    """The rule on a shard of three prompts, whose images and ranking are on disk; the second
    candidate wins.
    """

    def __init__(self, folder, rule_object):
        self.folder, self.rule_object = folder, rule_object
        self.root = folder / "run"
        self.images, self.ranking = {}, {}
        for prompt in shard().prompts:
            candidates = []
            for index, scale in enumerate((5.0, 7.0)):
                file = f"images/art/00/{prompt.id}-g{scale:g}.png"
                path = self.root / file
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (index, int(prompt.id[-2:], 16), 0)).save(path)
                candidates.append(
                    {
                        "guidance_scale": scale,
                        "seed": 1,
                        "file": file,
                        "sha256": digest_of_file(path),
                        "blank": False,
                    }
                )
            row = {"id": prompt.id, "topic": "art", "prompt": prompt.text}
            self.images[prompt.id] = {**row, "candidates": candidates}
            self.ranking[prompt.id] = {**row, "scores": [0.1, 0.7], "ranking": [1, 0], "winner": 1}

    def snakemake(self, common=None, min_image_reward=None, pick="best", **settings):
        """What the rule's script is handed."""
        written = self.folder / "written.jsonl"
        instructions = author_of(**settings).read_written(PROMPTS)
        write_jsonl(
            written, [{"id": name, "instruction": text} for name, text in instructions.items()]
        )
        return self.rule_object(
            "write_instructions",
            {"topic": "art", "shard": "00"},
            SimpleNamespace(
                images=str(self.root / "images/art/00.jsonl"),
                ranking=str(self.root / "image_ranking/image-reward/art/00.jsonl"),
            ),
            [str(self.root / "instructions/art/00.jsonl")],
            settings=job_settings(settings, written, min_image_reward, pick),
            common=common or {},
        )

    def run(self, **settings):
        """The published rows by prompt text."""
        write_jsonl(self.root / "images/art/00.jsonl", self.images.values())
        write_jsonl(self.root / "image_ranking/image-reward/art/00.jsonl", self.ranking.values())
        snakemake = self.snakemake(**settings)
        main(snakemake)
        return {
            row["prompt"]: row for row in read_shard(snakemake.output[0], InstructionRow).values()
        }

    def record(self):
        return json.loads((self.root / "work/write_instructions/art/00.json").read_text())

    def counts(self):
        record = self.record()
        return record["computed"], record["reused"], record["failed"]


@pytest.fixture
def stage(tmp_path, rule_object):
    return Stage(tmp_path, rule_object)


# --------------------------------------------------------------------------------------------------

GOOD = [
    "How many teapots stand on the ledge?",
    "Which of the animals comes first, and what colour is it?",
    "What is in this picture?",
    "Describe the colours of the scene in detail. What stands out?",
    "¿Qué hay en la imagen?",
]


@pytest.mark.parametrize("instruction", GOOD)
def test_a_question_about_the_image_passes(instruction):
    assert problem_with_answer(clean(instruction), TEXTS[0], "stop", True) is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "empty"),
        (" ?! ", "empty"),
        ("<image>\nWhat stands on the ledge?", "special token '<image>'"),
        ("What stands on the ledge?</s>", "special token '</s>'"),
        ("What stands on the ledge?<|eot_id|>", "special token"),
        ("Describe the teapots on the ledge.", "no question mark"),
        (TEXTS[0], "no question mark"),
        (f"Can you draw this: {TEXTS[0]}?", "repeats the prompt"),
        ("What does the description say about the teapots?", "the description"),
        ("Which animals are named in the given prompt?", "the given prompt"),
        ("Sure! Here is a question:\n\nWhich teapot is first?", "more than one line"),
        ("Who was the first president?", "not about the image"),
    ],
)
def test_an_answer_that_is_no_question_about_the_image_is_refused(answer, problem):
    assert problem in (problem_with_answer(clean(answer), TEXTS[0], "stop", True) or "")


def test_an_answer_that_was_cut_off_is_refused():
    problem = problem_with_answer("How many teapots?", TEXTS[0], "length", True)
    assert problem == "it was cut off at `max_new_tokens`"


def test_a_question_mark_is_asked_for_only_where_configured():
    assert problem_with("Describe the teapots.", require_question=False) is None
    assert problem_with_answer("Describe the teapots.", TEXTS[0], "stop", False) is None


@pytest.mark.parametrize(
    "answer",
    [
        '"How many?"',
        "“How many?”",
        "Question: How many?",
        "**Question: How many?**",
        "  How many?\n",
        '*"How many?"*',
    ],
)
def test_what_surrounds_a_question_is_taken_off(answer):
    assert clean(answer) == "How many?"


@pytest.mark.parametrize(
    "text", ['"Stop" or "Go"?', 'Does the sign say "open"?', "'Yes', or 'no'?"]
)
def test_quotation_marks_inside_a_question_stay(text):
    assert clean(text) == text


@needs_golden
def test_the_published_sample_s_instructions_pass_without_their_image_token():
    for pick in json.loads((GOLDEN / "upstream/picks.json").read_text(encoding="utf-8")):
        assert (
            problem_with_answer(
                pick["instruction"].removeprefix("<image> "), pick["prompt"], "stop", True
            )
            is None
        )


# --------------------------------------------------------------------------------------------------


def lines_of(*entries):
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


ENTRIES = [
    {"prompt": prompt.text, "instruction": f"What is number {number}?"}
    for number, prompt in enumerate(PROMPTS)
]


def write_file(folder, content):
    path = folder / "mine.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def run_file(stage, content):
    return stage.run(backend="file", file=str(write_file(stage.folder, content)))


def test_a_prompt_in_the_file_is_found_by_text_not_by_position(stage):
    rows = run_file(stage, lines_of(*ENTRIES))
    assert [rows[text]["instruction"] for text in TEXTS] == [
        "What is number 0?",
        "What is number 1?",
        "What is number 2?",
    ]
    assert run_file(stage, "\n" + lines_of(*reversed(ENTRIES))) == rows
    assert stage.counts() == (0, 3, 0)


def test_a_prompt_in_the_file_may_be_named_by_its_id(stage):
    rows = run_file(stage, lines_of(*ENTRIES))
    by_id = [
        {"id": prompt.id, "instruction": entry["instruction"]}
        for prompt, entry in zip(PROMPTS, ENTRIES, strict=True)
    ]
    assert run_file(stage, lines_of(*by_id)) == rows


def test_editing_one_line_of_the_file_redoes_one_item(stage):
    run_file(stage, lines_of(*ENTRIES))
    run_file(stage, lines_of({**ENTRIES[0], "instruction": "What is new?"}, *ENTRIES[1:]))
    assert stage.counts() == (1, 2, 0)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (lines_of(*ENTRIES[:2]), None, rf"no line for 1 of 3 prompts.*\n  {PROMPTS[2].id}: 猫"),
        (
            lines_of(*ENTRIES, {"prompt": "a stranger", "instruction": "What?"}),
            4,
            "no prompt with prompt 'a stranger'",
        ),
        (
            lines_of(*ENTRIES, {"id": "art-0000000000", "instruction": "What?"}),
            4,
            "no prompt with id 'art-0000000000'",
        ),
        (
            lines_of(*ENTRIES, ENTRIES[0]),
            4,
            f"second instruction for prompt {PROMPTS[0].id}; the first is on line 1",
        ),
        (
            lines_of(*ENTRIES, {"id": PROMPTS[1].id, "instruction": "What?"}),
            4,
            f"second instruction for prompt {PROMPTS[1].id}",
        ),
        (lines_of(ENTRIES[0]) + "{not json\n", 2, "not valid JSON"),
        (lines_of(ENTRIES[0]) + "[1]\n", 2, "no text under `instruction`"),
        (
            lines_of(ENTRIES[0], {"prompt": TEXTS[1], "instrution": "What?"}),
            2,
            "no text under `instruction`",
        ),
        (lines_of({"instruction": "What?"}), 1, "names no prompt"),
        (lines_of({**ENTRIES[0], "id": PROMPTS[1].id}), 1, "but `id` says"),
        (lines_of({**ENTRIES[0], "instruction": "  "}), 1, "it is empty"),
        (lines_of({**ENTRIES[0], "instruction": "\u3164\u200b"}), 1, "it is empty"),
        (
            lines_of({**ENTRIES[0], "instruction": "What\u2028is it?"}),
            1,
            r"it holds the line separator U\+2028",
        ),
        (
            lines_of({**ENTRIES[0], "instruction": "What is X?"}).replace("X", r"\ud83d"),
            1,
            r"it holds the lone surrogate U\+D83D",
        ),
        (
            lines_of(
                {**ENTRIES[1], "prompt": TEXTS[0]}, {**ENTRIES[0], "prompt": TEXTS[0] + "\u200b"}
            ),
            2,
            f"second instruction for prompt {PROMPTS[0].id}",
        ),
        (
            lines_of(ENTRIES[0]) + '{"id": "x", "id": "y", "instruction": "What?"}',
            2,
            "the key 'id' stands twice",
        ),
        (
            lines_of({**ENTRIES[0], "instruction": "<image> What is it?"}),
            1,
            "special token '<image>'. Delete it",
        ),
        (lines_of({**ENTRIES[0], "instruction": "Describe it."}), 1, "no question mark"),
        (lines_of(ENTRIES[0]).encode() + b"\xff\n", None, "not UTF-8"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(tmp_path, content, line, message):
    path = write_file(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        read_instruction_file(path, PROMPTS, True)
    assert str(caught.value).startswith(f"{path}, line {line}: " if line else f"{path}: ")


# --------------------------------------------------------------------------------------------------

TEMPLATES = [
    "What is in the image?",
    "How many objects are there, and where?",
    "Does it show this: {prompt}?",
]


def test_each_prompt_has_one_of_the_templates_with_its_prompt_filled_in_and_says_which(stage):
    rows = stage.run(backend="template", templates=TEMPLATES)
    for text, row in rows.items():
        assert row["template"] in TEMPLATES
        assert row["instruction"] == row["template"].replace("{prompt}", text)
        assert row["image"]["guidance_scale"] == 7.0
    assert stage.counts() == (3, 0, 0)
    assert not stage.record()["models"]


def test_a_template_is_filled_in_where_it_says_so_and_may_repeat_the_prompt(stage):
    rows = stage.run(backend="template", templates=["{prompt} - where is that, {prompt}?"])
    assert [rows[text]["instruction"] for text in TEXTS] == [
        f"{text} - where is that, {text}?" for text in TEXTS
    ]
    assert "{prompt}" in TEXTS[1]  # a prompt's own braces are text


def test_templates_are_drawn_alike_often_by_the_run_s_seed_and_the_prompt_and_not_by_their_order():
    prompts = [Prompt("art", f"{number} cats") for number in range(900)]
    drawn = [from_template(TEMPLATES, 0, prompt)[0] for prompt in prompts]
    assert all(240 < drawn.count(template) < 360 for template in TEMPLATES)
    assert [from_template(TEMPLATES[::-1], 0, prompt)[0] for prompt in prompts] == drawn
    assert (
        sum(
            from_template(TEMPLATES, 1, prompt)[0] != template
            for prompt, template in zip(prompts, drawn, strict=True)
        )
        > 500
    )


def test_editing_a_template_redoes_the_prompts_that_it_is_drawn_for_only(stage):
    before = stage.run(backend="template", templates=TEMPLATES)
    stage.run(backend="template", templates=TEMPLATES[::-1])
    assert stage.counts() == (0, 3, 0)
    edited = [
        "Which colours are there?" if template == before[TEXTS[0]]["template"] else template
        for template in TEMPLATES
    ]
    after = stage.run(backend="template", templates=edited)
    changed = [text for text in TEXTS if before[text] != after[text]]
    assert TEXTS[0] in changed
    assert stage.counts() == (len(changed), 3 - len(changed), 0)
    assert all(
        after[text]["template"] == "Which colours are there?"
        or before[text]["template"] not in edited
        for text in changed
    )


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (None, "backend 'template' needs `templates`"),
        ([], "`templates` is an empty list"),
        (
            ["What is it?", " What is it? "],
            r"`templates`: the text 'What is it\?' stands there twice",
        ),
        (
            ["What is it?", "What\u00a0is\u200b it?"],
            r"`templates`: the text 'What\\xa0is\\u200b it\?' stands there twice",
        ),
        (["What\x85is it?"], r"it holds the control character U\+0085"),
        (
            ["What is it?", "Describe it."],
            (
                "`templates`: text 2 .*: it has no question mark. Add one, or set"
                " `require_question: false`"
            ),
        ),
        (["  "], "`templates`: text 1 .*: it is empty"),
        (["<image> What is it?"], "special token '<image>'"),
        (
            ["What is {topic}?"],
            r"it has `\{topic\}`, which nothing fills in: only `\{prompt\}` is filled in",
        ),
        (["What is { prompt }?"], r"it has `\{ prompt \}`"),
        (["What is {}?"], r"it has `\{\}`"),
        ([3], "valid string"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(templates, message):
    with pytest.raises(ValidationError, match=message):
        author_of(backend="template", templates=templates)


def test_templates_without_a_question_mark_are_for_runs_that_ask_for_none():
    assert author_of(
        backend="template", templates=["Describe it."], require_question=False
    ).templates == ["Describe it."]


def test_templates_and_images_sent_along_do_not_go_together():
    with pytest.raises(
        ValidationError,
        match="`with_image` is for backends whose model writes; backend 'template' reads no",
    ):
        author_of(backend="template", templates=["What is it?"], with_image=True)


def test_a_prompt_that_would_spoil_its_instruction_is_told_before_anything_runs():
    prompts = [*PROMPTS, Prompt("nature", "an <image> of a hill")]
    check_prompts_for_templates(TEMPLATES[:2], prompts)
    check_prompts_for_templates(TEMPLATES, PROMPTS)
    with pytest.raises(
        UserError,
        match=(
            rf"instructions\.templates: prompt {prompts[3].id} .*special token"
            r" '<image>'.*nature\.txt"
        ),
    ):
        check_prompts_for_templates(TEMPLATES, prompts)
    with pytest.raises(UserError, match="special token '</s>'"):  # neither holds it alone
        check_prompts_for_templates(["What is <{prompt}>?"], [Prompt("nature", "/s")])


def test_a_job_is_told_the_settings_of_its_own_backend_only():
    others = {"templates": TEMPLATES, "prompts_per_batch": 7, "file": "no/such/file"}
    config = Config.model_validate({"instructions": others})
    assert config.instructions == Config().instructions
    settings = {"backend": "template", "templates": TEMPLATES, "template": "{prompt}?"}
    told = job_settings(settings, written="written.jsonl")
    assert told["author"]["templates"] == TEMPLATES
    assert "template" not in told["author"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "file"}, "needs `file`"),
        ({"backend": "file", "file": "no/such/file.jsonl"}, "there is no file"),
        ({"backend": "vllm"}, "needs `llm`"),
        ({"backend": "openai", "endpoint": None}, "needs `endpoint`"),
        ({"template": "Write a question."}, r"no `\{prompt\}`"),
    ],
)
def test_a_backend_without_what_it_needs_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        author_of(**settings)


def test_a_local_model_without_a_vision_part_cannot_be_shown_images(demo_models):
    with pytest.raises(ValidationError, match="instruct-llm is no vision-language model"):
        author_of(
            backend="transformers",
            llm={"model": str(demo_models / "instruct-llm")},
            with_image=True,
        )


# --------------------------------------------------------------------------------------------------


def test_the_row_names_the_winning_candidate_and_its_score(stage):
    rows = run_file(stage, lines_of(*ENTRIES))
    for prompt in PROMPTS:
        winner = stage.images[prompt.id]["candidates"][1]
        assert rows[prompt.text] == {
            "id": prompt.id,
            "topic": "art",
            "prompt": prompt.text,
            "instruction": rows[prompt.text]["instruction"],
            "image": {
                "file": winner["file"],
                "sha256": winner["sha256"],
                "guidance_scale": 7.0,
                "score": 0.7,
            },
        }


def test_a_prompt_whose_best_image_is_below_the_minimum_gets_no_instruction(stage):
    stage.ranking[PROMPTS[1].id]["scores"] = [-2.0, -1.0]
    path = write_file(stage.folder, lines_of(*ENTRIES))
    rows = stage.run(backend="file", file=str(path), min_image_reward=0.0)
    assert rows[TEXTS[1]]["missing"] == {
        "rule": "rank_images",
        "reason": "image reward below minimum",
    }
    assert "instruction" in rows[TEXTS[0]]
    assert stage.record()["items"] == 2


def test_a_score_at_the_minimum_is_enough(stage):
    path = write_file(stage.folder, lines_of(*ENTRIES))
    rows = stage.run(backend="file", file=str(path), min_image_reward=0.7)
    assert not any("missing" in row for row in rows.values())


def test_a_prompt_that_was_lost_before_stays_lost_with_its_reason(stage):
    lost = {"rule": "generate_images", "reason": "why ever"}
    for rows in (stage.images, stage.ranking):
        rows[PROMPTS[0].id] = {
            "id": PROMPTS[0].id,
            "topic": "art",
            "prompt": TEXTS[0],
            "missing": lost,
        }
    rows = run_file(stage, lines_of(*ENTRIES))
    assert rows[TEXTS[0]]["missing"] == lost
    assert "instruction" in rows[TEXTS[2]]


# ---------------------------------------------------------------------------------------- the pick

SCALES = (5.0, 7.0, 9.0, 11.0)


def candidates_of(*blank):
    return [
        {"guidance_scale": scale, "blank": index in blank} for index, scale in enumerate(SCALES)
    ]


def test_a_drawn_pick_is_each_candidate_alike_often_and_depends_on_seed_and_prompt_alone():
    drawn = [
        pick_of(candidates_of(), 2, "random", 0, f"art-{number:010x}") for number in range(1200)
    ]
    assert all(240 < drawn.count(index) < 360 for index in range(4))
    assert [
        pick_of(candidates_of(), 1, "random", 0, f"art-{number:010x}") for number in range(1200)
    ] == drawn
    assert (
        sum(
            pick_of(candidates_of(), 2, "random", 1, f"art-{number:010x}") != drawn[number]
            for number in range(1200)
        )
        > 600
    )
    assert {pick_of(candidates_of(), 2, "best", seed, "art-0000000000") for seed in range(9)} == {2}


def test_a_blank_candidate_is_never_drawn_and_moves_no_other_pick():
    for number in range(200):
        name = f"art-{number:010x}"
        before, after = (
            pick_of(candidates_of(*blank), 0, "random", 0, name) for blank in ((), (1, 3))
        )
        assert after in (0, 2)
        assert before == after or before in (1, 3)


def test_a_drawn_pick_is_marked_and_the_minimum_is_still_of_the_best_image(stage):
    stage.ranking[PROMPTS[1].id]["scores"] = [-2.0, -1.0]
    path = write_file(stage.folder, lines_of(*ENTRIES))
    told = {"backend": "file", "file": str(path)}
    best = stage.run(**told, min_image_reward=0.5)
    drawn = stage.run(**told, min_image_reward=0.5, pick="random")
    assert stage.counts() == (0, 2, 0)
    assert drawn[TEXTS[1]] == best[TEXTS[1]]
    for prompt in (PROMPTS[0], PROMPTS[2]):
        candidates = stage.images[prompt.id]["candidates"]
        index = pick_of(candidates, 1, "random", 0, prompt.id)
        about = {name: candidates[index][name] for name in ("file", "sha256", "guidance_scale")}
        assert drawn[prompt.text] == {
            **best[prompt.text],
            "image": {**about, "score": [0.1, 0.7][index], "drawn": True},
        }
        assert "drawn" not in best[prompt.text]["image"]


def test_the_story_of_a_prompt_says_that_its_image_was_drawn(stage, rule_object):
    row = stage.run(backend="template", templates=["What is it?"], pick="random")[TEXTS[0]]
    rows = {
        "images": stage.images[row["id"]],
        "image_ranking/image-reward": stage.ranking[row["id"]],
    }
    rows |= {"response_ranking": {**row, "responses": {}}, "pairs": {**row, "no_pair": "tie"}}
    stages = {}
    for name, content in rows.items():
        stages[name] = str(stage.root / f"{name}/art/00.jsonl")
        write_jsonl(Path(stages[name]), [content])
    story = stage.root / "story.json"
    tell_prompt.main(
        rule_object("tell_prompt", {"prompt_id": row["id"]}, [], [str(story)], stages=stages)
    )
    told = json.loads(story.read_text())
    assert told["image"] == row["image"]
    assert told["image"]["drawn"] is True


# --------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    """`answers` maps a word of the question to a list of answers, of which the last is repeated."""
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    monkeypatch.setattr(lib.endpoint, "FIRST_WAIT", 0.02)

    def by_word(body):
        answers = next(
            (answers for word, answers in chat.answers.items() if word in text_of(body)),
            ["What is in this image?"],
        )
        return answers.pop(0) if len(answers) > 1 else answers[0]

    chat: Any = ChatServer(by_word, retries=1, api_key_variable="TEST_KEY")
    chat.answers = {}
    yield chat
    chat.close()


def test_an_endpoint_is_asked_once_for_each_prompt_with_the_prompt_in_the_template(stage, server):
    server.answers = {"teapots": ["Which teapot is first?"], "kite": ["Is the kite red?"]}
    rows = stage.run(endpoint=server.settings(), template="About: {prompt}!")
    assert [rows[text]["instruction"] for text in TEXTS] == [
        "Which teapot is first?",
        "Is the kite red?",
        "What is in this image?",
    ]
    assert sorted(request["messages"][0]["content"] for request in server.bodies()) == sorted(
        f"About: {text}!" for text in TEXTS
    )
    assert len({request["seed"] for request in server.bodies()}) == 3


def test_a_failed_check_is_asked_again_with_another_seed(stage, server):
    server.answers = {
        "teapots": ["Nice teapots.", "<image> Which teapot?", "Which teapot is first?"]
    }
    rows = stage.run(endpoint=server.settings(), max_attempts=3)
    assert rows[TEXTS[0]]["instruction"] == "Which teapot is first?"
    seeds = [
        request["seed"]
        for request in server.bodies()
        if "teapots" in request["messages"][0]["content"]
    ]
    assert len(set(seeds)) == 3


def test_an_instruction_that_never_passes_fails_with_the_reason_and_is_tried_again_on_the_next_run(
    stage, server
):
    server.answers = {"teapots": ["Nice teapots."]}
    rows = stage.run(
        endpoint=server.settings(), max_attempts=2, common={"max_failed_fraction": 0.5}
    )
    assert rows[TEXTS[0]]["missing"]["rule"] == "write_instructions"
    assert (
        "in 2 attempt(s); the last one: it has no question mark: 'Nice teapots.'"
        in rows[TEXTS[0]]["missing"]["reason"]
    )
    server.answers = {}
    rows = stage.run(endpoint=server.settings(), max_attempts=2)
    assert stage.counts() == (1, 2, 0)
    assert rows[TEXTS[0]]["instruction"] == "What is in this image?"


def test_too_many_failures_stop_the_stage_with_their_reasons(stage, server):
    server.answers = {"": ["No."]}
    with pytest.raises(UserError, match=r"(?s)3 of 3 items failed.*no question mark"):
        stage.run(endpoint=server.settings())


def test_an_endpoint_that_is_out_of_order_stops_the_stage_and_what_is_finished_is_kept(
    stage, server
):
    working, server.reply = server.reply, lambda body: error(500, "out of order")
    with pytest.raises(UserError, match="3 requests in a row"):
        stage.run(endpoint=server.settings())
    server.reply = working
    stage.run(endpoint=server.settings())
    assert stage.counts() == (3, 0, 0)


def test_a_model_keeps_its_instructions_when_its_server_moves(stage, server):
    stage.run(endpoint=server.settings())
    stage.run(endpoint=server.settings(base_url="http://127.0.0.1:1/v1", concurrency=2, retries=0))
    assert stage.counts() == (0, 3, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"template": "{prompt}: ask!"},
        {"temperature": 0.1},
        {"max_new_tokens": 7},
        {"require_question": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_the_instruction_redoes_it(stage, server, change):
    stage.run(endpoint=server.settings())
    stage.run(endpoint=server.settings(), **change)
    assert stage.counts() == (3, 0, 0)


def test_another_version_of_who_writes_redoes_the_instructions_of_that_kind_only(
    stage, server, local, monkeypatch
):
    monkeypatch.setattr(OpenAIEndpoint, "VERSION", 2)
    monkeypatch.setattr(GENERATORS.load("vllm"), "VERSION", 2)
    stage.run(endpoint=server.settings())
    stage.run(backend="transformers", **local)
    monkeypatch.setattr(OpenAIEndpoint, "VERSION", 3)
    stage.run(endpoint=server.settings())
    assert stage.counts() == (3, 0, 0)
    stage.run(backend="transformers", **local)
    assert stage.counts() == (0, 3, 0)
    monkeypatch.setattr(GENERATORS.load("transformers"), "VERSION", 2)
    stage.run(backend="transformers", **local)
    assert stage.counts() == (3, 0, 0)


def test_more_attempts_redo_nothing_that_is_done(stage, server):
    stage.run(endpoint=server.settings())
    stage.run(endpoint=server.settings(), max_attempts=9)
    assert stage.counts() == (0, 3, 0)


def test_another_picked_image_changes_the_row_and_asks_nothing(stage, server):
    stage.run(endpoint=server.settings())
    stage.ranking[PROMPTS[0].id].update(scores=[0.9, 0.7], ranking=[0, 1], winner=0)
    rows = stage.run(endpoint=server.settings())
    assert rows[TEXTS[0]]["image"]["guidance_scale"] == 5.0
    assert stage.counts() == (0, 3, 0)


def test_with_image_the_picked_image_is_sent_and_another_one_asks_again(stage, server):
    stage.run(endpoint=server.settings(), with_image=True)
    assert all(
        request["messages"][0]["content"][0]["image_url"]["url"].startswith(
            "data:image/png;base64,"
        )
        for request in server.bodies()
    )
    stage.ranking[PROMPTS[0].id].update(scores=[0.9, 0.7], ranking=[0, 1], winner=0)
    stage.run(endpoint=server.settings(), with_image=True)
    assert stage.counts() == (1, 2, 0)


def test_with_image_a_damaged_image_file_is_told_before_anything_is_asked(stage, server):
    (stage.root / stage.images[PROMPTS[0].id]["candidates"][1]["file"]).write_bytes(b"x")
    with pytest.raises(
        UserError, match=rf"{PROMPTS[0].id}-g7.png: this image file.*Delete .*images/art/00.jsonl"
    ):
        stage.run(endpoint=server.settings(), with_image=True)
    assert not server.requests


def test_the_key_is_in_no_file_of_the_run(stage, server):
    stage.run(endpoint=server.settings())
    assert not [
        path
        for path in stage.root.rglob("*")
        if path.is_file() and b"sk-secret" in path.read_bytes()
    ]


SECRET = "sk-a-long-and-secret-key-0123456789"


@pytest.mark.parametrize(
    "answer",
    [
        refusal(f"I will not tell {SECRET} to anybody."),
        refusal("x" * 270 + SECRET),
        error(400, "x" * 270 + SECRET),
        error(400, {"nested": [SECRET]}),
        f"Is {SECRET} the key in this image?",
        f"Is {SECRET[:20]} in this image?",
        completion("What is in this image", f"length {SECRET}", SECRET),
    ],
    ids=["refusal", "long refusal", "error", "nested", "answer", "half", "model"],
)
def test_a_server_that_repeats_the_key_costs_its_item_and_the_key_is_in_no_file_of_the_run(
    stage, server, monkeypatch, caplog, answer
):
    monkeypatch.setenv("TEST_KEY", SECRET)
    server.answers = {"teapots": [answer]}
    rows = stage.run(endpoint=server.settings(), common={"max_failed_fraction": 0.5})
    assert [bool(rows[text].get("missing")) for text in TEXTS] == [True, False, False]
    files = [path for path in stage.root.rglob("*") if path.is_file()]
    said = caplog.text + "".join(path.read_text("latin-1") for path in files)
    assert SECRET[:10] not in said
    assert SECRET[-10:] not in said


@pytest.mark.parametrize(
    "answer",
    [
        "Is it \ud83d red?",
        "Is it \x1b[31mred?",
        "Is it\x00 red?",
        "Is it \x9b31m red?",
        "Is it red?\r\x07",
        "[" * 200_000 + "?",
        Reply(200, "[" * 200_000),
        refusal("no \x1b]0;you\x07 \ud800"),
    ],
    ids=["surrogate", "escape", "NUL", "C1", "bell", "brackets", "JSON", "refusal"],
)
def test_an_answer_that_no_file_or_terminal_likes_costs_its_item_and_never_the_job(
    stage, server, caplog, answer
):
    server.answers = {"teapots": [answer]}
    rows = stage.run(endpoint=server.settings(), common={"max_failed_fraction": 0.5})
    assert [bool(rows[text].get("missing")) for text in TEXTS] == [True, False, False]
    reason = rows[TEXTS[0]]["missing"]["reason"]
    assert len(reason) < 1000
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", reason + caplog.text)


# --------------------------------------------------------------------------------------------------


@pytest.fixture
def local(demo_models):
    return {
        "llm": {"model": str(demo_models / "instruct-llm"), "dtype": "float32"},
        "max_new_tokens": 40,
    }


def test_a_local_model_writes_questions_that_depend_on_their_own_prompt_only(stage, local):
    rows = stage.run(backend="transformers", **local)
    assert all(row["instruction"].endswith("?") for row in rows.values())
    work = stage.root / "work/write_instructions/art/00.journal.jsonl"
    work.unlink()
    assert stage.run(backend="transformers", **local) == rows
    del stage.images[PROMPTS[0].id], stage.ranking[PROMPTS[0].id]
    work.unlink()
    assert stage.run(backend="transformers", **local) == {text: rows[text] for text in TEXTS[1:]}


def test_a_local_model_that_sees_writes_about_the_picked_image(stage, local, demo_models):
    """It is random, so that its words fail the checks; the reason quotes them."""
    sees = {
        **local,
        "llm": {"model": str(demo_models / "llava-v1.6-mistral"), "dtype": "float32"},
        "with_image": True,
        "template": "Ask one question about the image.",
        "temperature": 0,
    }
    candidates = stage.images[PROMPTS[0].id]["candidates"]
    for candidate, colour in zip(candidates, ("red", "blue"), strict=True):
        path = stage.root / candidate["file"]
        Image.new("RGB", (48, 40), colour).save(path)
        candidate["sha256"] = digest_of_file(path)

    def said_of_first():
        rows = stage.run(backend="transformers", common={"max_failed_fraction": 1.0}, **sees)
        row = rows[TEXTS[0]]
        return row["missing"]["reason"] if "missing" in row else row["instruction"]

    of_second = said_of_first()
    assert said_of_first() == of_second
    stage.ranking[PROMPTS[0].id].update(scores=[0.9, 0.7], ranking=[0, 1], winner=0)
    assert said_of_first() != of_second


def test_with_image_a_template_need_not_hold_the_prompt():
    assert author_of(template="Ask about the image.", with_image=True).with_image
    with pytest.raises(ValidationError, match="or show the image"):
        author_of(template="Ask about the image.")


def test_several_prompts_a_batch_are_on_record(stage, local):
    alone = stage.run(backend="transformers", **local)
    (stage.root / "work/write_instructions/art/00.journal.jsonl").unlink()
    together = stage.run(backend="transformers", prompts_per_batch=3, **local)
    assert any("low bits may depend" in note for note in stage.record()["notes"])
    assert together == alone  # in float32 the low bits change no word here


def test_a_local_model_s_words_pass_the_same_checks(stage, local):
    with pytest.raises(UserError, match=r"(?s)3 of 3 items failed.*in 2 attempt\(s\).*cut off"):
        stage.run(backend="transformers", max_attempts=2, **{**local, "max_new_tokens": 3})


def test_a_warm_job_imports_no_torch_no_vllm_and_no_client(stage, local, tmp_path):
    stage.run(backend="transformers", **local)
    warm = stage.snakemake(backend="transformers", **local)
    assert heavy_imports(warm, tmp_path) == []
    assert stage.counts() == (0, 3, 0)


def key_of(rule_object, row, **settings):
    """The key of a prompt's item; nothing is loaded."""
    told = rule_object(
        "write_instructions",
        {"topic": "art", "shard": "00"},
        [],
        [],
        settings=job_settings(settings, written="written.jsonl"),
    )
    job = Job(told, WriteInstructionsJob, 1)
    author = INSTRUCTION_AUTHORS.class_of(job.settings.author)(job.settings.author, job, {})
    decides, _ = author.prepare(row)
    return job.key(**decides)


def test_the_length_that_vllm_is_given_decides_its_instructions_and_no_other_backend_s(
    rule_object, local
):
    row = {**PROMPTS[0].row(), "image": {"file": "x.png", "sha256": "0" * 64}}

    def keys(backend):
        return {
            key_of(rule_object, row, backend=backend, max_model_len=length, **local)
            for length in (1024, 2048)
        }

    assert len(keys("vllm")) == 2
    assert len(keys("transformers")) == 1
    assert not keys("vllm") & keys("transformers")


@pytest.mark.slow
def test_vllm_as_a_local_model_writes_questions(stage, local):
    rows = stage.run(backend="vllm", prompts_per_batch=3, max_model_len=1024, **local)
    assert all(row["instruction"].endswith("?") for row in rows.values())


@pytest.mark.slow
def test_vllm_s_openai_server_writes_questions(stage, demo_models, monkeypatch):
    """The real server, with a key, asked by the real client."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "dtype": "float32",
        "max-model-len": 1024,
        "max-num-seqs": 4,
        "api-key": "sk-secret",
    }
    arguments = [
        "--model",
        str(demo_models / "instruct-llm"),
        "--served-model-name",
        "tiny",
        "--enforce-eager",
    ]
    arguments += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    server = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60)
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.5)
        monkeypatch.setenv("TEST_KEY", "sk-secret")
        endpoint = {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": "tiny",
            "api_key_variable": "TEST_KEY",
        }
        lib.endpoint.check_endpoint(Endpoint(**endpoint))
        with pytest.raises(UserError, match="knows no model 'other'"):
            lib.endpoint.check_endpoint(Endpoint(**{**endpoint, "model": "other"}))
        rows = stage.run(endpoint=endpoint, max_new_tokens=40)
        assert all(row["instruction"].endswith("?") for row in rows.values())
        monkeypatch.setenv("TEST_KEY", "sk-wrong")
        with pytest.raises(UserError, match="refuses the key in TEST_KEY"):
            lib.endpoint.check_endpoint(Endpoint(**endpoint))
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


# --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_snakemake_takes_the_file_s_instructions_and_editing_one_line_reruns_one_shard(project):
    topics = ("art", "nature", "school")
    prompts = [
        Prompt(topic, text)
        for topic in topics
        for text in (project.folder / f"demo/random_prompts/{topic}.txt").read_text().splitlines()
    ]
    entries = [
        {"prompt": prompt.text, "instruction": f"What is in image {number}?"}
        for number, prompt in enumerate(prompts)
    ]
    project.edit_config(
        lambda values: values.update(instructions={"backend": "file", "file": "mine.jsonl"})
    )
    file = project.folder / "mine.jsonl"
    targets = [f"results/random/instructions/{topic}/00.jsonl" for topic in topics]

    file.write_text(lines_of(*entries[:-1]), encoding="utf-8")
    done = project.snakemake(*targets, check=False)
    assert done.returncode != 0
    assert f"mine.jsonl: has no line for 1 of {len(prompts)} prompts" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (project.folder / "results/random").exists()

    file.write_text(lines_of(*reversed(entries)), encoding="utf-8")
    project.snakemake(*targets)
    rows = read_shards([project.folder / target for target in targets], InstructionRow)
    assert {row["prompt"]: row["instruction"] for row in present(rows.values())} == {
        entry["prompt"]: entry["instruction"] for entry in entries
    }

    entries[0]["instruction"] = "What is new?"
    file.write_text(lines_of(*entries), encoding="utf-8")
    done = project.snakemake(*targets)
    assert re.findall(r" write_instructions (\S+): 1 of", done.stdout) == ["art/00"]
    record = json.loads(
        (project.folder / "results/random/work/write_instructions/art/00.json").read_text()
    )
    assert (record["computed"], record["reused"]) == (1, 3)
