"""What the calls of containers read from their queries. Their answers need an engine: `one_engine/test_endpoint.py`."""

from __future__ import annotations

import pytest

from pytest_egress.endpoint.calls import call_of
from pytest_egress.endpoint.container_calls import name_of, number_of
from pytest_egress.endpoint.refusal import RefusedCall


def test_a_limit_is_a_number_and_a_negative_one_is_none() -> None:
    assert [number_of(each) for each in ("", "0", "-1", "3")] == [0, 0, 0, 3]
    with pytest.raises(RefusedCall, match="limit='all' is no number"):
        number_of("all")


def test_a_name_is_as_asked_for_or_made_up_and_never_one_of_ours() -> None:
    def named(query: str) -> str:
        return name_of(call_of("POST", f"/v1.45/containers/create{query}"))

    assert named("?name=%2Fshop") == "shop"
    assert named("") != named("")
    with pytest.raises(RefusedCall, match="the name 'pytest-egress-a' is refused"):
        named("?name=pytest-egress-a")
