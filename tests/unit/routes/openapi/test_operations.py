"""The operation of a request: paths of servers, templates, and what comes first."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.routes.openapi.documents import Document
from pytest_egress.routes.openapi.operations import bases_of, find, operations_of, values_in


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/a/{id}", "/a/1", {"id": "1"}),
        ("/a/{id}", "/a/x%20y%2Fz", {"id": "x%20y%2Fz"}),
        ("/a/{id}", "/a/", None),
        ("/a/{id}", "/a/1/b", None),
        ("/a b", "/a%20b", {}),
        ("/{year}-{month}.json", "/2026-12.json", {"year": "2026", "month": "12"}),
        ("/{a}-{b}", f"/{'-' * 5000}x", {"a": "-", "b": "-" * 4998 + "x"}),
        ("/{a}.json", "/x.xml", None),
        ("/{a}:run", "/x%3Arun", {"a": "x"}),
    ],
)
def test_the_parameters_of_a_path(template: str, path: str, values: dict[str, str] | None) -> None:
    assert values_in(template, path) == values


@pytest.mark.parametrize(
    ("server", "bases"),
    [
        ({"url": "https://api.test/v1/"}, ["/v1"]),
        ({"url": "https://api.test"}, [""]),
        ({"url": "/v1"}, ["/v1"]),
        ({"url": "../v1"}, ["/v1"]),
        ({"url": "/"}, [""]),
        ({"url": "https://{h}.test/{v}", "variables": {"h": {"default": "a"}, "v": {"default": "2"}}}, ["/2", "/{v}"]),
        ({"url": "/{v}", "variables": {"v": {"default": "v1", "enum": ["v1", "v2"]}}}, ["/v1", "/v2"]),
        ({"url": "{base}/a", "variables": {"base": {"default": "https://api.test/v1"}}}, ["/v1/a"]),
        ({"url": "https://[broken"}, [""]),
    ],
)  # fmt: skip
def test_the_paths_of_a_server(server: dict[str, Any], bases: list[str]) -> None:
    assert bases_of(server) == bases


def test_values_of_many_variables_are_bounded() -> None:
    variables = {f"v{n}": {"default": "0", "enum": ["0", "1", "2"]} for n in range(20)}
    url = "".join(f"/{{{name}}}" for name in variables)
    assert len(bases_of({"url": url, "variables": variables})) == 64


def test_the_most_literal_path_decides_what_methods_there_are() -> None:
    of: dict[str, Any] = {"responses": {}}
    paths = {
        "/{a}": {"get": of, "put": of},
        "/{a}.json": {"get": of},
        "/me": {"get": of},
        "/x/{a}": {"get": of},
    }
    operations = operations_of(Document("d", {"servers": [{"url": "/{v}"}], "paths": paths}))

    def found(method: str, path: str) -> tuple[str | None, list[str]]:
        answer = find(operations, method, path)
        name = None if answer.operation is None else answer.operation.path
        return name, [each.method for each in answer.others]

    assert found("GET", "/{v}/me") == ("/me", ["GET"])
    assert found("PUT", "/{v}/me") == (None, ["GET"])
    assert found("PUT", "/{v}/you") == ("/{a}", ["GET", "PUT"])
    assert found("GET", "/{v}/a.json") == ("/{a}.json", ["GET"])
    assert found("GET", "/{v}/x/1") == ("/x/{a}", ["GET"])
    assert found("GET", "/you") == (None, [])


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
