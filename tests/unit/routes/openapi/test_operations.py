"""The operation of a request: paths of servers, templates, and what comes first."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.routes.openapi.documents import Document
from pytest_egress.routes.openapi.operations import base_of, operations_of, values_in


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/a/{id}", "/a/1", {"id": "1"}),
        ("/a/{id}", "/a/x%20y%2Fz", {"id": "x y/z"}),
        ("/a/{id}", "/a/", None),
        ("/a/{id}", "/a/1/b", None),
        ("/a b", "/a%20b", {}),
        ("/{year}-{month}.json", "/2026-12.json", {"year": "2026", "month": "12"}),
        ("/{a}-{b}", f"/{'-' * 5000}x", {"a": "-", "b": "-" * 4998 + "x"}),
        ("/{a}.json", "/x.xml", None),
    ],
)
def test_the_parameters_of_a_path(template: str, path: str, values: dict[str, str] | None) -> None:
    assert values_in(template, path) == values


@pytest.mark.parametrize(
    ("server", "base"),
    [
        ({"url": "https://api.test/v1/"}, "/v1"),
        ({"url": "/v1"}, "/v1"),
        ({"url": "/"}, ""),
        ({"url": "https://{h}.test/{v}", "variables": {"h": {"default": "a"}, "v": {"default": "v2"}}}, "/v2"),
        ({"url": "https://[broken"}, ""),
    ],
)  # fmt: skip
def test_the_path_of_a_server(server: dict[str, Any], base: str) -> None:
    assert base_of(server) == base


def test_the_narrowest_servers_count() -> None:
    get: dict[str, Any] = {"responses": {}}
    paths = {
        "/a": {"get": get},
        "/b": {"servers": [{"url": "/of-path"}], "get": get},
        "/c": {"servers": [{"url": "/of-path"}], "get": {**get, "servers": [{"url": "/own"}]}},
    }
    document = Document("d", {"servers": [{"url": "/v1"}, {"url": "/v2"}], "paths": paths})
    found = {each.path: each.bases for each in operations_of(document)}
    assert found == {"/a": ("/v1", "/v2"), "/b": ("/of-path",), "/c": ("/own",)}
