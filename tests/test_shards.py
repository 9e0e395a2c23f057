"""Prompts and shards: a prompt's identity is its text, and its line number means nothing."""

import random
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.config.run import load_config
from lib.data.layouts import Layout, PromptIds
from lib.data.prompts import (
    Prompt,
    make_shards,
    read_prompts,
    read_topics,
    seed_of,
    shard_of,
)
from lib.errors import UserError
from lib.head.plan import Plan

TEXTS = [f"scene number {number} with {number} blue cats" for number in range(40)]


def shards(texts, count=4):
    return {
        shard.name: shard for shard in make_shards([Prompt("art", text) for text in texts], count)
    }


@given(st.randoms(use_true_random=False))
def test_reordering_lines_changes_nothing(randomness):
    mixed = TEXTS.copy()
    randomness.shuffle(mixed)
    assert shards(mixed) == shards(TEXTS)


@given(st.integers(0, 39), st.text(min_size=1))
def test_editing_one_line_changes_the_shards_of_its_old_and_new_text_only(position, text):
    edited = TEXTS.copy()
    edited[position] = "edited " + text
    before, after = shards(TEXTS), shards(edited)
    concerned = {shard_of(Prompt("art", changed[position]).id, 4) for changed in (TEXTS, edited)}
    assert {
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    } <= concerned
    assert {
        name
        for name in before
        if after.get(name) is None or before[name].prompts != after[name].prompts
    } == concerned & before.keys()


def test_a_prompt_id_is_the_topic_and_ten_hex_digits_of_its_text():
    assert Prompt("art", "two blue cats").id == "art-73b08ba2ab"


def test_the_ids_of_a_run_are_those_of_its_prompts_and_nothing_else():
    ids = PromptIds(Layout({("art", name): shard for name, shard in shards(TEXTS).items()}, 4))
    of_run = [Prompt("art", text).id for text in TEXTS]
    assert all(each in ids for each in of_run)
    others = ["art-0000000000", "art-ffffffffff", "art-", "art", "", "art-zzzzzzzzzz", 7]
    others += [Prompt("art", "another").id, f"{of_run[0]}0", of_run[0].replace("art", "food")]
    assert not [each for each in others if each in ids]


def test_a_run_holds_little_more_of_a_prompt_than_its_text(tmp_path):
    """The plan of a million prompts is to fit into 500 MB, of which Snakemake takes 200."""
    (tmp_path / "prompts").mkdir()
    texts = [f"scene {number} of a town beside the river".ljust(60, ".") for number in range(4000)]
    (tmp_path / "prompts/art.txt").write_text("\n".join(texts))
    folders = {"prompts": str(tmp_path / "prompts"), "results": str(tmp_path / "results")}
    plan = Plan(load_config({**folders, "topics": ["art"]}, []))
    tracemalloc.start()
    for topic, shard in plan.shards:
        plan.images_job(topic, shard)
        plan.instructions_job(topic, shard)
        plan.pairs_job(topic, shard)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 4000 < sys.getsizeof(texts[0]) + 150


def test_prompts_spread_evenly_over_shards():
    texts = [f"{random.Random(number).random()}" for number in range(2000)]
    sizes = [
        len(shard.prompts) for shard in make_shards([Prompt("art", text) for text in texts], 4)
    ]
    assert sum(sizes) == 2000
    assert min(sizes) > 400


def test_seeds_depend_on_the_seed_and_on_what_they_are_for():
    seeds = {
        seed_of(seed, prompt, scale)
        for seed in (0, 1)
        for prompt in ("a", "b")
        for scale in (5.0, 7.0)
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)


def read(tmp_path, content: bytes, limit=1000):
    path = tmp_path / "art.txt"
    path.write_bytes(content)
    return [prompt.text for prompt in read_prompts(path, "art", limit)]


def test_quotes_braces_shell_and_path_characters_emoji_and_right_to_left_text_are_prompts(
    tmp_path,
):
    texts = [
        "a \"red\" 'cube'",
        "{x} {{y}} %s ${HOME} `id` $(id) ; rm -rf /",
        "../../etc/passwd",
        "猫 and 🐈‍⬛ é",
        "שלום עולם مرحبا",
        "<|eot_id|> <image>",
    ]
    assert read(tmp_path, "\n".join(texts).encode() + b"\n") == texts


def test_windows_line_ends_byte_order_marks_and_blanks_around_lines_do_not_matter(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfone cat \r\n  two cats\r\n") == ["one cat", "two cats"]


def test_two_spellings_of_one_accented_letter_are_one_prompt(tmp_path):
    with pytest.raises(UserError, match=r"line 2: the same prompt as on line 1"):
        read(tmp_path, "caf\u00e9\ncafe\u0301\n".encode())


def test_two_prompts_whose_ids_are_the_same_by_chance_are_refused(tmp_path):
    """All of the one would be taken for the other's."""
    texts = [f"{number} red cats beside a boat" for number in (945677, 1661072)]
    first, second = (Prompt("art", text).id for text in texts)
    assert first == second == "art-034ec9a766"
    with pytest.raises(UserError, match=r"art\.txt, line 3: .* line 1 \(art-034ec9a766: .*word"):
        read(tmp_path, "\n".join([texts[0], "one cat", texts[1]]).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"art\.txt: the file is empty"),
        (b"\n", r"art\.txt: the file is empty"),
        (b"one\n\ntwo\n", r"art\.txt, line 2: the line is empty"),
        (b"one\ntwo\none\n", r"art\.txt, line 3: the same prompt as on line 1"),
        (b"one\ncaf\xe9\n", r"art\.txt, line 2: not UTF-8 \(byte 0xe9\).*iconv"),
        (b"one\x1b[31m\n", r"art\.txt, line 1: holds the control character U\+001B"),
        (
            b"one\n" + b"x" * 1001,
            r"art\.txt, line 2: 1001 characters, over `max_prompt_characters` \(1000\)",
        ),
    ],
)
def test_a_bad_prompt_file_is_refused_with_file_line_and_mend(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)


NOTHING_TO_SEE = {
    "a zero-width blank": "\u200b",
    "a soft hyphen": "\u00ad",
    "a byte order mark": "\ufeff",
    "a right-to-left mark": "\u200f",
    "a directional override": "\u202e",
    "an isolate": "\u2066",
    "a word joiner": "\u2060",
    "a joiner of graphemes": "\u034f",
    "a variation selector": "\ufe0f",
    "a tag": "\U000e0061",
}
BLANKS = {
    "two blanks": "  ",
    "a tab": "\t",
    "a no-break space": "\u00a0",
    "a thin space": "\u2009",
    "a wide blank": "\u3000",
    "a Hangul filler": "\u3164",
    "a blank of Braille": "\u2800",
}


@pytest.mark.parametrize(
    "line", [*NOTHING_TO_SEE.values(), "\u200b \u00a0\u200b", "\u3164", "\u2800"]
)
def test_a_line_of_only_invisible_characters_is_no_prompt(tmp_path, line):
    with pytest.raises(UserError, match=r"art\.txt, line 2: the line is empty"):
        read(tmp_path, f"one\n{line}\ntwo\n".encode())


@pytest.mark.parametrize(
    "other",
    [
        *(f"two re{invisible}d cats" for invisible in NOTHING_TO_SEE.values()),
        *(f"{invisible}two red cats" for invisible in NOTHING_TO_SEE.values()),
        *(f"two{blank}red cats" for blank in BLANKS.values()),
    ],
)
def test_two_lines_that_look_the_same_are_one_prompt_twice(tmp_path, other):
    same = r"the same prompt as on line 1, but for blanks or characters that show nothing"
    with pytest.raises(UserError, match=rf"art\.txt, line 3: {same}\. Delete one of them"):
        read(tmp_path, f"two red cats\none\n{other}\n".encode())
    (tmp_path / "art.txt").write_text(f"{other}\n", encoding="utf-8")
    (tmp_path / "nature.txt").write_text("one\ntwo red cats\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"nature\.txt, line 2: the same prompt stands in topic 'art'"
    ):
        read_topics(tmp_path, ["art", "nature"], 1, 1000)


@pytest.mark.parametrize(
    ("character", "named"),
    [
        ("\x80", r"control character U\+0080"),
        ("\x85", r"control character U\+0085"),
        ("\x9b", r"control character U\+009B"),
        ("\u2028", r"line separator U\+2028"),
        ("\u2029", r"paragraph separator U\+2029"),
    ],
)
def test_control_characters_and_line_separators_inside_a_prompt_are_refused(
    tmp_path, character, named
):
    with pytest.raises(UserError, match=rf"art\.txt, line 2: holds the {named}\. Delete it"):
        read(tmp_path, f"one\ntwo{character}cats\n".encode())


def test_a_prompt_s_text_and_id_stay_what_they_were_whatever_invisible_characters_it_has(tmp_path):
    """What cannot be seen tells no prompts apart, but it is not taken out either: joiners make
    another emoji, and earlier results stay valid.
    """
    texts = ["two  red\u00a0cats", "می\u200cخواهم", "👩\u200d🚀 in space", "co\u00adoperation"]
    assert read(tmp_path, "\n".join(texts).encode()) == texts
    assert Prompt("art", "two red cats").id == "art-8dc3bbf2e7"


def test_the_same_prompt_in_two_topics_is_refused(tmp_path):
    for topic in ("art", "school"):
        (tmp_path / f"{topic}.txt").write_text(f"only {topic}\ntwo cats\n")
    with pytest.raises(
        UserError, match=r"school\.txt, line 2: the same prompt stands in topic 'art'"
    ):
        read_topics(Path(tmp_path), ["art", "school"], 1, 1000)
