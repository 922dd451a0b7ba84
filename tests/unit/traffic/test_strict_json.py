"""What of JSON is refused, since readers do not agree on it."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.strict_json import from_json


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "NaN is not JSON"),
        ("[Infinity]", "Infinity is not JSON"),
        ("[-1e400]", "-1e400 is more than a number can be"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "it is nested too deeply"),
        ('[{"a": 1, "b": 2, "a": 1}]', "the key 'a' is there twice"),
        ("\ufeff1".encode(), "it begins with a byte order mark"),
        (b"\xff", "it is not UTF-8, at byte 0"),
        ("1".encode("utf-16"), "it is not UTF-8, at byte 0"),
    ],
)
def test_what_is_not_json_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_json(text)
