"""Mappings in temporary files: they are mappings, and say so where there is no room for them."""

import random
import resource

import pytest

from lib.data.data_sets import stratified
from lib.data.stored_mapping import AT_ONCE, StoredMapping
from lib.errors import UserError


def test_a_stored_mapping_holds_what_a_dict_does_in_the_order_of_the_keys() -> None:
    numbers = random.Random(0).sample(range(100_000), 3 * AT_ONCE + 1)
    stored, held = StoredMapping[str, int](), dict[str, int]()
    for number in numbers:
        stored[f"é-{number}"] = held[f"é-{number}"] = number
    for name in sorted(held)[::7]:
        del stored[name], held[name]
    stored["z"] = held["z"] = 1
    stored["z"] = held["z"] = -1
    assert list(stored.items()) == sorted(held.items())
    assert stored == held
    assert list(stored.by_value()) == sorted(held, key=held.__getitem__)
    assert "é" not in stored
    with pytest.raises(KeyError):
        del stored["é"]


def test_no_room_for_temporary_files_is_told_with_its_mend() -> None:
    stored = StoredMapping[int, str]()
    (pages,) = stored.select("PRAGMA max_page_count = 20").fetchone()
    assert pages == 20
    with pytest.raises(UserError, match=r"disk is full\). Have TMPDIR name a folder with room"):
        stored.update((number, "a" * 100) for number in range(10 * AT_ONCE))


def test_no_room_for_what_is_sorted_is_told_as_well() -> None:
    stored = StoredMapping((number, f"{number % 999:0100d}") for number in range(30 * AT_ONCE))
    assert len(list(stored.by_value())) == len(stored)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match="Have TMPDIR name a folder with room"):
            list(stored.by_value())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_stratified_orders_by_the_fraction_of_the_topic_and_then_by_id() -> None:
    draw = random.Random(0)
    topics = {topic: draw.randrange(1, 40) for topic in ("art", "a_rt", "é", "school", "b")}
    prompts = [
        (topic, f"{topic}-{n:03}") for topic, number in topics.items() for n in range(number)
    ]
    expected = sorted(
        ((place + 0.5) / number, f"{topic}-{place:03}")
        for topic, number in topics.items()
        for place in range(number)
    )
    draw.shuffle(prompts)
    assert list(stratified(prompts)) == [name for _, name in expected]
