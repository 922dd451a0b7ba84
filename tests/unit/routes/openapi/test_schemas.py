"""References and combinations of a schema become the ways in which it may read a text."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.routes.openapi.schemas import ALL_TYPES, MAX_READINGS, readings_of

INTEGER = {"type": "integer"}
NULL = {"type": "null"}
NAMED: dict[str, Any] = {"Number": INTEGER, "Loop": {"allOf": [{"$ref": "Loop"}]}}


def resolve(schema: Any) -> Any:
    return NAMED[schema["$ref"]] if "$ref" in schema else schema


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        (INTEGER, [{"integer"}]),
        ({"type": ["integer", "null"]}, [{"integer", "null"}]),
        ({"type": "integer", "nullable": True}, [{"integer", "null"}]),
        ({"anyOf": [INTEGER, NULL]}, [{"integer"}, {"null"}]),
        ({"allOf": [{"type": "number"}, INTEGER]}, [{"integer"}]),
        ({"type": "number", "anyOf": [{"minimum": 1}, INTEGER]}, [{"number"}, {"integer"}]),
        ({"enum": [1, "a"]}, [{"integer", "string"}]),
        ({"const": True}, [{"boolean"}]),
        ({"$ref": "Number"}, [{"integer"}]),
        ({}, [ALL_TYPES]),
        (True, [ALL_TYPES]),
    ],
)  # fmt: skip
def test_a_schema_has_a_reading_for_each_branch(schema: Any, types: list[set[str]]) -> None:
    assert [each.types for each in readings_of(schema, resolve)] == types


def test_a_loop_and_a_multitude_end() -> None:
    assert readings_of({"$ref": "Loop"}, resolve)
    many = {"anyOf": [INTEGER] * 20}
    assert len(readings_of({"allOf": [many] * 20}, resolve)) <= MAX_READINGS


def test_fields_of_all_branches_are_known() -> None:
    [found] = readings_of(
        {"allOf": [{"properties": {"a": INTEGER}}, {"properties": {"b": NULL}}]}, resolve
    )
    assert found.properties == ["a", "b"]
    assert found.of_property("b") == NULL
    assert not found.has_any_field
