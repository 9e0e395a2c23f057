"""Files whose bytes depend on their content only."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.errors import UserError
from lib.files import json_line, replacing_folder, write_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_a_line_reads_back_as_what_was_written(value):
    line = json_line(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == value


def test_equal_values_give_equal_bytes_whatever_the_order_of_their_keys():
    assert json_line({"b": 1, "a": {"d": 0.1, "c": None}}) == json_line(
        {"a": {"c": None, "d": 0.1}, "b": 1}
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_cannot_hold_is_refused_and_not_written_as_null(value):
    with pytest.raises(ValueError, match="JSON"):
        json_line({"score": [1.0, value], "note": None})


def test_json_that_is_written_in_pieces_is_the_same_bytes_as_in_one(tmp_path: Path) -> None:
    values: list[Any] = [
        {"b": [1, {"é": 'say "no"\n'}, [], {}, [None, True, 1.5e-7]], "a": {}, "": ("x", 2)},
        {"numbers": {2: "two", 1: {"deep": [1]}}},
        [],
        {},
        "text",
        0.1,
    ]
    for value in values:
        write_json(tmp_path / "one.json", value)
        expected = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=2) + "\n"
        assert (tmp_path / "one.json").read_text(encoding="utf-8") == expected
    lazily = {"a": iter(["x", iter([])]), "b": MappingProxyType({"k": "v", "l": [1]})}
    write_json(tmp_path / "pieces.json", lazily)
    write_json(tmp_path / "one.json", {"a": ["x", []], "b": {"k": "v", "l": [1]}})
    assert (tmp_path / "pieces.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "one.json", {"a": [float("nan")]})


def test_a_folder_that_takes_the_place_of_a_link_deletes_nothing_of_what_the_link_leads_to(
    tmp_path: Path,
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept.txt").write_text("kept")
    place = tmp_path / "dataset"
    place.symlink_to(mine, target_is_directory=True)
    with pytest.raises((OSError, UserError)), replacing_folder(place) as folder:
        (folder / "new.txt").write_text("new")
    assert [path.name for path in mine.iterdir()] == ["kept.txt"]
    assert place.is_symlink()
