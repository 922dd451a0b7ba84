"""Which keys of an object are known."""

from __future__ import annotations

import pytest

from pytest_egress.endpoint.fields import known, take, texts
from pytest_egress.endpoint.refusal import RefusedCall


def test_a_key_that_says_nothing_is_left_out() -> None:
    found = {"A": 1, "B": None, "Other": {"x": {"y": 0}}, "MemorySwappiness": -1}
    assert known(found, ("A", "B"), "it") == {"A": 1}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"Other": 1}, "it has the key 'Other', which is not known here"),
        ({"a": 1}, "it has the key 'a', which is not known here: the API writes A"),
        ({"Privileged": True}, "Privileged=True is refused: a privileged target"),
        ({"privileged": True}, "the API writes Privileged"),
    ],
)
def test_another_key_is_refused_by_name(found: dict[str, object], text: str) -> None:
    with pytest.raises(RefusedCall) as refused:
        known(found, ("A",), "it")
    assert text in str(refused.value)


def test_values_have_their_type() -> None:
    assert take({"A": None}, "A", dict) == {}
    with pytest.raises(RefusedCall, match="A is no 1"):
        take({"A": 1}, "A", dict)
    with pytest.raises(RefusedCall, match="A is a list of texts"):
        texts({"A": [1]}, "A")
