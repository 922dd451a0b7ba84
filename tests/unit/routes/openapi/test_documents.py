"""A document is read from JSON, YAML or a dict, and what is wrong with it is told with its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_egress.routes.openapi.documents import read_document

YAML = """
openapi: 3.0.3
info: {title: dates, version: 2026-12-01}
paths:
  /a:
    get:
      responses:
        200: {description: ok, content: {application/json: {example: {at: 2026-12-01}}}}
"""


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
        ("a.yaml", YAML + "\nx: {$ref: other.yaml}", "$ref 'other.yaml' leads out of the document"),
    ],
)
def test_the_file_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.") as caught:
        read_document(path)
    assert f"{path}: {said}" in str(caught.value)


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"openapi\('missing\.yaml'\): the file cannot be read"):
        read_document("missing.yaml")


@pytest.mark.parametrize("spec", [None, 4, b"a.yaml", ["a.yaml"]])
def test_what_is_no_document_is_refused(spec: Any) -> None:
    with pytest.raises(TypeError, match="it takes a file of JSON or YAML, or a dict"):
        read_document(spec)
