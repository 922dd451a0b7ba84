"""A document is read from JSON, YAML or a dict, and what is wrong with it is told with its file."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from pytest_egress.routes.openapi.documents import (
    Ids,
    looked_through,
    read_document,
    without_repetition,
)

YAML = """
openapi: 3.0.3
info: {title: dates, version: 2026-12-01}
paths:
  /a:
    get:
      responses:
        200: {description: ok, content: {application/json: {example: {at: 2026-12-01}}}}
"""
REF = "components: {schemas: {It: {$ref: '%s'}}}"
PATTERN = "components: {schemas: {It: {items: {pattern: (}, example: {pattern: (}}}}"
NAMES = "components: {schemas: {It: {patternProperties: {'(': {}}}}}"


def test_a_date_in_yaml_is_a_text_and_a_status_too(tmp_path: Path) -> None:
    path = tmp_path / "dates.yaml"
    path.write_text(YAML)
    document = read_document(path)
    assert document.contents["info"]["version"] == "2026-12-01"
    assert "200" in document.contents["paths"]["/a"]["get"]["responses"]
    assert document.is_3_0
    assert read_document(str(path)) is document
    path.write_text(YAML.replace("3.0.3", "3.1.0 "))
    assert not read_document(path).is_3_0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "it cannot be read: Expecting property name"),
        ("a.json", "[]", "it is no document of OpenAPI, but a list"),
        ("a.yaml", "a: [", "it cannot be read: while parsing a flow node"),
        ("a.yaml", "swagger: '2.0'", "it is no document of OpenAPI 3.0 or 3.1: openapi is None"),
        ("a.yaml", "openapi: 3.0.3", "it is no valid OpenAPI: 'info' is a required property"),
        ("a.yaml", YAML + REF % "other.yaml", "$ref 'other.yaml' leads out of the document"),
        (
            "a.yaml",
            YAML + REF % "#/components/no",
            "/components/schemas/It: $ref '#/components/no' leads to nothing",
        ),
        (
            "a.yaml",
            YAML + REF % "#/components/schemas/It",
            "It: $ref '#/components/schemas/It' leads on without an end",
        ),
        ("a.yaml", YAML + PATTERN, "/components/schemas/It/items: the pattern '(' cannot be read"),
        ("a.yaml", YAML + NAMES, "/components/schemas/It: the pattern '(' cannot be read"),
    ],
)
def test_the_file_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.") as caught:
        read_document(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"openapi\('missing\.yaml'\): the file cannot be read"):
        read_document("missing.yaml")


@pytest.mark.parametrize("spec", [None, 4, b"a.yaml", ["a.yaml"]])
def test_what_is_no_document_is_refused(spec: Any) -> None:
    with pytest.raises(TypeError, match="it takes a file of JSON or YAML, or a dict"):
        read_document(spec)


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_a_pattern_of_ecmascript_alone_is_taken(version: str) -> None:
    schema = {"type": "string", "pattern": r"^\p{L}+[]?$"}
    contents = {**chained(1), "openapi": version, "components": {"schemas": {"It": schema}}}
    assert read_document(contents).contents is contents


def chained(count: int) -> dict[str, Any]:
    """A document whose schemas lead to each other, one after the other."""
    schemas = {
        f"S{at}": {"properties": {"next": {"$ref": f"#/components/schemas/S{at + 1}"}}}
        for at in range(count)
    }
    schemas[f"S{count}"] = {"properties": {"end": {}}}
    info = {"title": "t", "version": "1"}
    return {"openapi": "3.0.3", "info": info, "paths": {}, "components": {"schemas": schemas}}


def test_a_large_document_has_many_schemas_in_a_row() -> None:
    assert read_document(chained(1500)).is_3_0
    broken = chained(1500)
    broken["components"]["schemas"]["S7"]["type"] = 7
    with pytest.raises(ValueError, match="it is no valid OpenAPI: components/schemas/S7"):
        read_document(broken)


def test_a_document_is_let_go() -> None:
    class Contents(dict[str, Any]):
        pass

    contents = Contents(chained(1))
    watched = weakref.ref(contents)
    read_document(contents)
    del contents
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize("version", ["3.0.3", "3.1.0"])
def test_no_reference_and_no_schema_is_looked_for_among_all_others(version: str) -> None:
    """A document of 5 MB has tens of thousands of them."""
    given: Any = OpenAPIV30SpecValidator if version == "3.0.3" else OpenAPIV31SpecValidator
    registry = looked_through(given.schema_validator)._resolver._registry
    assert registry.crawl() == registry
    checker = without_repetition(given)({})
    schemas = checker.keyword_validators_registry["schema"]
    assert isinstance(schemas.visited_schema_ids, Ids)
    assert isinstance(schemas.meta_checked_schema_ids, Ids)
