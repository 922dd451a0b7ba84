"""Texts become the values that a schema describes, by the style of their parameter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.routes.openapi.values import deep_object, from_json, parameter_value, value_of

ARRAY = {"type": "array", "items": {"type": "integer"}}
OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}


def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    ("parameter", "texts", "value"),
    [
        ({"in": "query", "schema": {"type": "integer"}}, ["5"], 5),
        ({"in": "query", "schema": ARRAY}, ["1", "2"], [1, 2]),
        ({"in": "query", "explode": False, "schema": ARRAY}, ["1,2"], [1, 2]),
        ({"in": "query", "style": "pipeDelimited", "schema": ARRAY}, ["1|2"], [1, 2]),
        ({"in": "header", "schema": ARRAY}, ["1,2"], [1, 2]),
        ({"in": "path", "schema": OBJECT}, ["a,1,b,x"], {"a": 1, "b": "x"}),
        ({"in": "path", "explode": True, "schema": OBJECT}, ["a=1,b=x"], {"a": 1, "b": "x"}),
        ({"in": "query", "content": {"application/json": {}}}, ['{"a": 1}'], {"a": 1}),
    ],
)
def test_a_parameter_has_its_style(parameter: Any, texts: list[str], value: Any) -> None:
    assert parameter_value(parameter, texts, same) == value


def test_an_object_may_be_in_brackets() -> None:
    pairs = [("f[state]", "open"), ("f[at]", "1"), ("g[state]", "x"), ("f", "y")]
    assert deep_object("f", pairs) == [("state", "open"), ("at", "1")]


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("1e3", "number", 1000.0),
        ("-0.5", "number", -0.5),
        ("007", "integer", "007"),
        ("1_000", "integer", "1_000"),
        ("9" * 5000, "integer", "9" * 5000),
        ("true", "boolean", True),
        ("True", "boolean", "True"),
        ("null", ["null", "integer"], None),
        ("5", ["string", "null"], "5"),
    ],
)
def test_a_scalar_is_what_its_schema_says_or_a_text(text: str, types: Any, value: Any) -> None:
    assert value_of(text, {"type": types}) == value


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "[" * 100_000])
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


@given(st.text(), st.sampled_from(["integer", "number", "boolean", "string", "null"]))
def test_any_text_has_a_value(text: str, kind: str) -> None:
    value_of(text, {"type": kind})
