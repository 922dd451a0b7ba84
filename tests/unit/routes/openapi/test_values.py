"""Texts become the values that a schema describes, by the style of their parameter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.routes.openapi.sent import Node, in_a_path, pairs_of, plain, tree_of
from pytest_egress.routes.openapi.values import (
    Encodings,
    candidates,
    objects,
    scalars,
    style_of,
)

INTEGER = {"type": "integer"}
ARRAY = {"type": "array", "items": INTEGER}
TEXTS = {"type": "array", "items": {"type": "string"}}
OBJECT = {"type": "object", "properties": {"a": INTEGER}}
OPTIONAL = {"anyOf": [INTEGER, {"type": "null"}]}


def same(value: Any) -> Any:
    return value


def read(parameter: dict[str, Any], *texts: str) -> Any:
    """The first value of a parameter by the name of p, of which these texts were sent."""
    parameter = {"name": "p", **parameter}
    place = parameter["in"]
    if place == "query":
        sent = [sent for text in texts for _, sent in pairs_of(f"p={text}")]
    else:
        sent = [*map(in_a_path if place == "path" else plain, texts)]
    return candidates(Node(sent), parameter["schema"], style_of(parameter), same)[0]


@pytest.mark.parametrize(
    ("parameter", "texts", "value"),
    [
        ({"in": "query", "schema": INTEGER}, ["5"], 5),
        ({"in": "query", "schema": OPTIONAL}, ["5"], 5),
        ({"in": "query", "schema": {"allOf": [INTEGER, {"minimum": 1}]}}, ["5"], 5),
        ({"in": "query", "schema": {"oneOf": [{"enum": ["auto"]}, {"const": 5}]}}, ["5"], 5),
        ({"in": "query", "schema": {"oneOf": [{"enum": ["auto"]}, {"const": 5}]}}, ["auto"], "auto"),
        ({"in": "query", "schema": {"enum": [True, False]}}, ["true"], True),
        ({"in": "query", "schema": {"minimum": 5}}, ["3"], 3),
        ({"in": "query", "schema": {}}, ["3"], "3"),
        ({"in": "query", "schema": {"anyOf": [ARRAY, {"type": "null"}]}}, ["1", "2"], [1, 2]),
        ({"in": "query", "schema": ARRAY}, ["1", "2"], [1, 2]),
        ({"in": "query", "explode": False, "schema": ARRAY}, ["1,2"], [1, 2]),
        ({"in": "query", "explode": False, "schema": ARRAY}, ["1%2C2"], ["1,2"]),
        ({"in": "query", "explode": False, "schema": TEXTS}, ["a%2Cb,c+d"], ["a,b", "c d"]),
        ({"in": "query", "style": "pipeDelimited", "schema": ARRAY}, ["1%7C2"], [1, 2]),
        ({"in": "query", "style": "spaceDelimited", "schema": ARRAY}, ["1%202"], [1, 2]),
        ({"in": "query", "explode": False, "schema": OBJECT}, ["a,1,b,x"], {"a": 1, "b": "x"}),
        ({"in": "header", "schema": ARRAY}, ["1, 2"], [1, 2]),
        ({"in": "path", "schema": OBJECT}, ["a,1,b,x"], {"a": 1, "b": "x"}),
        ({"in": "path", "explode": True, "schema": OBJECT}, ["a=1,b=x"], {"a": 1, "b": "x"}),
        ({"in": "path", "style": "label", "schema": INTEGER}, [".5"], 5),
        ({"in": "path", "style": "label", "schema": ARRAY}, [".1,2"], [1, 2]),
        ({"in": "path", "style": "label", "explode": True, "schema": ARRAY}, [".1.2"], [1, 2]),
        ({"in": "path", "style": "label", "explode": True, "schema": OBJECT}, [".a=1.b=x"], {"a": 1, "b": "x"}),
        ({"in": "path", "style": "matrix", "schema": INTEGER}, [";p=5"], 5),
        ({"in": "path", "style": "matrix", "schema": ARRAY}, [";p=1,2"], [1, 2]),
        ({"in": "path", "style": "matrix", "explode": True, "schema": ARRAY}, [";p=1;p=2"], [1, 2]),
        ({"in": "path", "style": "matrix", "schema": OBJECT}, [";p=a,1"], {"a": 1}),
        ({"in": "path", "style": "matrix", "explode": True, "schema": OBJECT}, [";a=1"], {"a": 1}),
    ],
)  # fmt: skip
def test_a_parameter_has_its_style(parameter: Any, texts: list[str], value: Any) -> None:
    found = read(parameter, *texts)
    assert found == value
    assert type(found) is type(value)


def test_a_comma_that_was_encoded_may_separate_where_none_stands_as_itself() -> None:
    style = style_of({"name": "p", "in": "query", "explode": False})
    [(_, sent)] = pairs_of("p=1%2C2")
    assert candidates(Node([sent]), ARRAY, style, same) == [["1,2"], [1, 2]]


@pytest.mark.parametrize(
    ("parameter", "text", "said"),
    [
        ({"in": "query", "explode": False, "schema": OBJECT}, "a,1,b", "its last piece, 'b', is a name without"),
        ({"in": "path", "explode": True, "schema": OBJECT}, "a,1", "'a' has no '='"),
        ({"in": "query", "style": "deepObject", "schema": OBJECT}, "x", r"is not written as p\[field\]=value"),
        ({"in": "path", "style": "label", "schema": INTEGER}, "5", "by its style, label, it begins with '.'"),
        ({"in": "path", "style": "matrix", "schema": INTEGER}, "5", "by its style, matrix, it begins with ';p='"),
        ({"in": "path", "style": "matrix", "explode": True, "schema": ARRAY}, ";q=1", "is written as ;p=value"),
    ],
)  # fmt: skip
def test_what_is_no_value_of_a_style_is_told(parameter: Any, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(parameter, text)


@pytest.mark.parametrize(
    ("query", "schema", "value"),
    [
        ("a=1", {"properties": {"a": INTEGER}}, {"a": 1}),
        ("a=1", {"allOf": [{"properties": {"a": INTEGER}}, {"properties": {"b": ARRAY}}]}, {"a": 1}),
        ("a=1&a=2", {"properties": {"a": ARRAY}}, {"a": [1, 2]}),
        ("a[]=1&a[]=2", {"properties": {"a": ARRAY}}, {"a": [1, 2]}),
        ("a[0]=1&a[1]=2", {"properties": {"a": ARRAY}}, {"a": [1, 2]}),
        ("a[b][a]=1", {"properties": {"a": {"properties": {"b": OBJECT}}}}, {"a": {"b": {"a": 1}}}),
        ("a[0][a]=1", {"properties": {"a": {"type": "array", "items": OBJECT}}}, {"a": [{"a": 1}]}),
        ("m[k]=1", {"properties": {"m": {"additionalProperties": INTEGER}}}, {"m": {"k": 1}}),
        ("m[k]=1", {"properties": {"m": {"type": "object", "additionalProperties": INTEGER}}}, {"m": {"k": 1}}),
        ('a={"a":1}', {"properties": {"a": OBJECT}}, {"a": {"a": 1}}),
    ],
)  # fmt: skip
def test_a_form_has_brackets_and_json(query: str, schema: Any, value: Any) -> None:
    found = objects(tree_of(pairs_of(query)), schema, same, Encodings(encoding={}))
    assert found[0] == value


def test_the_encoding_of_a_form_counts() -> None:
    form = Encodings(encoding={"a": {"explode": False}, "b": {"contentType": "application/json"}})
    schema = {"properties": {"a": ARRAY, "b": {}}}
    assert objects(tree_of(pairs_of("a=1,2&b=[3]")), schema, same, form) == [
        {"a": [1, 2], "b": [3]}
    ]


@pytest.mark.parametrize(
    ("text", "types", "values"),
    [
        ("1e3", ["number"], [1000.0]),
        ("-0.5", ["number"], [-0.5]),
        ("007", ["integer"], []),
        ("1_000", ["integer"], []),
        ("1e999", ["number"], []),
        ("9" * 5000, ["integer"], []),
        ("true", ["boolean"], [True]),
        ("True", ["boolean"], []),
        ("null", ["null", "integer"], [None]),
        ("5", ["string", "null"], ["5"]),
        ("5", ["string", "integer"], [5, "5"]),
    ],
)
def test_a_text_may_be_a_scalar_of_several_types(
    text: str, types: list[str], values: list[Any]
) -> None:
    assert [*scalars(text, frozenset(types))] == values


@given(st.text(), st.sampled_from(["integer", "number", "boolean", "null", "array", "object"]))
def test_any_text_has_a_value_or_a_value_error(text: str, kind: str) -> None:
    for place in ("query", "header", "path"):
        parameter = {"name": "p", "in": place}
        try:
            candidates(Node([plain(text)]), {"type": kind}, style_of(parameter), same)
        except ValueError:
            assert kind == "object"
