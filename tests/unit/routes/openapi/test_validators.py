"""What the validators of the packages leave out, or get wrong, for what containers send."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.routes.openapi.documents import Document
from pytest_egress.routes.openapi.patterns import UncheckableError
from pytest_egress.routes.openapi.validators import Validators, canonical

PET: dict[str, Any] = {
    "Pet": {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"type": "string"}},
        "discriminator": {"propertyName": "kind", "mapping": {"dog": "#/components/schemas/Dog"}},
    },
    "Dog": {"allOf": [{"$ref": "#/components/schemas/Pet"}, {"required": ["bark"]}]},
    "Puppy": {"allOf": [{"$ref": "#/components/schemas/Dog"}, {"required": ["age"]}]},
    "Cat": {"type": "object", "required": ["kind", "meow"]},
    "Fish": {"type": "object", "properties": {"kind": {"const": "Fish"}}},
    "Any": {
        "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Fish"}],
        "discriminator": {
            "propertyName": "kind",
            "mapping": {"cat": "#/components/schemas/Cat", "tom": "Cat"},
        },
    },
}
VERSIONS = pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])


def errors(version: str, schema: Any, value: Any, *, is_response: bool = False) -> list[str]:
    contents = {"openapi": version, "components": {"schemas": {**PET, "It": schema}}}
    validators = Validators(Document("d", contents))
    validator = validators.at("/components/schemas/It", is_response=is_response)
    return [
        f"{each.validator} {getattr(each, 'missing', '')}".strip()
        for each in validator.iter_errors(value)
    ]


@VERSIONS
def test_a_number_without_a_fraction_is_an_integer(version: str) -> None:
    schema = {"type": "integer"}
    assert errors(version, schema, 1.0) == []
    assert errors(version, schema, 1.5) == ["type"]
    assert errors(version, schema, True) == ["type"]


@VERSIONS
def test_what_is_read_only_in_one_branch_is_not_required_by_another(version: str) -> None:
    directed = {"properties": {"id": {"type": "string", "readOnly": True}}}
    schema = {"allOf": [directed, {"required": ["id", "name"]}]}
    assert errors(version, schema, {}) == ["required name"]
    assert errors(version, {"required": ["id"], "allOf": [directed]}, {}) == []
    assert errors(version, schema, {"id": "1", "name": "a"}) == ["readOnly"]
    assert errors(version, schema, {"name": "a"}, is_response=True) == ["required id"]


@VERSIONS
def test_a_discriminator_chooses_among_schemas(version: str) -> None:
    schema = {"$ref": "#/components/schemas/Any"}
    assert errors(version, schema, {"kind": "cat", "meow": 1}) == []
    assert errors(version, schema, {"kind": "tom", "meow": 1}) == []
    assert errors(version, schema, {"kind": "cat"}) == ["required meow"]
    assert errors(version, schema, {"kind": "Fish"}) == []
    assert errors(version, schema, {"kind": "cow"}) == ["enum"]
    assert errors(version, schema, {"kind": ["cat"]}) == ["enum"]
    assert errors(version, schema, {}) == ["required kind"]


@VERSIONS
def test_a_discriminator_leads_to_what_inherits(version: str) -> None:
    schema = {"$ref": "#/components/schemas/Pet"}
    assert errors(version, schema, {"kind": "Pet"}) == []
    assert errors(version, schema, {"kind": "dog"}) == ["required bark"]
    assert errors(version, schema, {"kind": "dog", "bark": 1}) == []
    assert errors(version, schema, {"kind": "Puppy"}) == ["required age"]
    assert errors(version, schema, {"kind": "cow"}) == ["enum"]
    assert errors(version, {"$ref": "#/components/schemas/Dog"}, {"kind": "dog"}) == [
        "required bark",
        "required bark",
    ]


def test_null_fits_beside_all_of_where_it_is_nullable() -> None:
    schema = {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Cat"}]}
    assert errors("3.0.3", schema, None) == []
    assert errors("3.0.3", {**schema, "nullable": False}, None) != []


@VERSIONS
def test_a_pattern_takes_no_more_than_its_time(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.routes.openapi.patterns.PATTERN_SECONDS", 0.05)
    schema = {"pattern": "^(a|aa)+$"}
    with pytest.raises(
        UncheckableError, match=r"the pattern '\^\(a\|aa\)\+\$' takes more than 0.05 s"
    ):
        errors(version, schema, "a" * 60 + "!")


def test_patterns_of_names_are_searched_with_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False}
    assert errors("3.1.0", schema, {"x-a": "b"}) == []
    assert errors("3.1.0", schema, {"x-a": 1, "y": 1}) == ["type", "additionalProperties"]
    monkeypatch.setattr("pytest_egress.routes.openapi.patterns.PATTERN_SECONDS", 0.05)
    slow: dict[str, Any] = {"patternProperties": {"^(a|aa)+$": {}}}
    for each in (slow, {"allOf": [slow], "unevaluatedProperties": False}):
        with pytest.raises(UncheckableError, match="takes more than"):
            errors("3.1.0", each, {"a" * 60 + "!": 1})


@VERSIONS
def test_items_are_unique_as_json_has_it(version: str) -> None:
    schema = {"uniqueItems": True}
    assert errors(version, schema, [1, True, "1", [1], {"a": 1}]) == []
    assert errors(version, schema, [{"a": [1]}, {"a": [1.0]}]) == ["uniqueItems"]
    assert errors(version, schema, [{"a": n} for n in range(20_000)]) == []
    assert canonical({"a": 1, "b": [2]}) == canonical({"b": [2.0], "a": 1})


@VERSIONS
def test_a_format_refuses_odd_texts(version: str) -> None:
    for name in (
        "date",
        "date-time",
        "uuid",
        "email",
        "ipv4",
        "uri",
        "byte",
        "regex",
        "json-pointer",
    ):
        for text in ("x", "\ud800", "é" * 99, "\0", "9" * 99):
            assert errors(version, {"type": "string", "format": name}, text) in ([], ["format"])


def test_an_amount_of_cents_is_a_multiple_of_one() -> None:
    for value in (19.99, 0.07, 1e15, 3, 1.1e300):
        assert errors("3.1.0", {"multipleOf": 0.01}, value) == []
    assert errors("3.1.0", {"multipleOf": 0.01}, 19.999) == ["multipleOf"]
    assert errors("3.1.0", {"multipleOf": 5}, 12) == ["multipleOf"]
    assert errors("3.1.0", {"multipleOf": 5}, True) == []


CLOSED: dict[str, Any] = {
    "$ref": "#/components/schemas/Cat",
    "properties": {"a": {}},
    "patternProperties": {"^x-": {}},
    "anyOf": [{"required": ["b"], "properties": {"b": {}}}, {"properties": {"c": {"const": 1}}}],
    "if": {"properties": {"kind": {"const": "t"}}},
    "then": {"properties": {"t": {}}},
    "dependentSchemas": {"a": {"properties": {"with_a": {}}}},
    "unevaluatedProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"a": 1, "x-b": 1, "with_a": 1}, True),
        ({"b": 1, "c": 1, "t": 1}, True),
        ({"b": 1, "c": 2}, False),
        ({"with_a": 1}, False),
        ({"kind": "u", "t": 1}, False),
        ({"other": 1}, False),
    ],
)
def test_a_property_that_nothing_describes_is_told(value: Any, fits: bool) -> None:
    given = {"kind": "t", "meow": 1, **value}
    cat = {**CLOSED, "allOf": [{"properties": {"kind": {}, "meow": {}}}]}
    assert errors("3.1.0", cat, given) == ([] if fits else ["unevaluatedProperties"])


def test_an_heir_that_is_closed_takes_what_it_inherits() -> None:
    heir = {
        "allOf": [{"$ref": "#/components/schemas/Pet"}],
        "properties": {"bark": {}},
        "unevaluatedProperties": False,
    }
    schema = {"$ref": "#/components/schemas/Pet"}
    assert errors("3.1.0", heir, {"kind": "It", "bark": 1}) == []
    assert errors("3.1.0", schema, {"kind": "Pet"}) == []
    contents = {"openapi": "3.1.0", "components": {"schemas": {**PET, "Dog": heir}}}
    validator = Validators(Document("d", contents)).at("/components/schemas/Pet")
    assert not [*validator.iter_errors({"kind": "dog", "bark": 1})]
    [error] = validator.iter_errors({"kind": "dog", "bark": 1, "meow": 1})
    assert "it does not take 'meow'" in error.message
