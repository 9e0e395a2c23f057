"""Files whose bytes depend on their content only."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.files import json_line

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
