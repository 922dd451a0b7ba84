"""A part of a value of JSON."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pytest_egress import partial


@pytest.mark.parametrize("value", [5, "x", None, {1}, b"{}"])
def test_a_partial_of_anything_but_an_object_or_a_list_is_refused(value: Any) -> None:
    text = f"partial() takes the dict or list that a body of JSON has a part of, not {type(value).__name__}: {value!r}"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        partial(value)


def test_a_partial_reads_as_it_was_written() -> None:
    assert repr(partial({"a": [1]})) == "partial({'a': [1]})"
