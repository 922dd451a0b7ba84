"""Requests as clients send them, and documents as people have them: what does not fit is told, and all else fits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_egress.base.account import MAX_HELD_BYTES, Account
from pytest_egress.routes.openapi.checking import Checks, keyed, media_key, step
from pytest_egress.routes.openapi.documents import Document
from pytest_egress.routes.openapi.operations import find, operations_of
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request

INTEGER = {"type": "integer"}
OPTIONAL = {"anyOf": [INTEGER, {"type": "null"}], "title": "Limit"}
INTEGERS = {"type": "array", "items": INTEGER}
POINT = {
    "type": "object",
    "required": ["x"],
    "properties": {"x": INTEGER, "y": INTEGER},
    "additionalProperties": False,
}
FORM = "application/x-www-form-urlencoded"


def problems(
    operation: dict[str, Any],
    *,
    path: str = "/a",
    template: str = "/a",
    query: str = "",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    version: str = "3.1.0",
    account: Account | None = None,
) -> list[str]:
    contents = {"openapi": version, "paths": {template: {"post": {"responses": {}, **operation}}}}
    document = Document("d", contents)
    request = Request(
        method="POST",
        scheme="https",
        host="api.test",
        port=443,
        path=path,
        query_string=query,
        headers=Headers(headers or {}),
        raw_content=body,
        _account=account,
    )
    found = find(operations_of(document), "POST", path)
    assert found.operation is not None
    return Checks(document).request_problems(found.operation, request, found.in_path)


def in_query(query: str, schema: Any, **more: Any) -> list[str]:
    parameter = {"name": "p", "in": "query", "schema": schema, **more}
    return problems({"parameters": [parameter]}, query=query)


def in_body(media: str, body: bytes, about: Any, kind: str = "") -> list[str]:
    operation = {"requestBody": {"content": {media: about}}}
    return problems(operation, headers={"Content-Type": kind or media}, body=body)


@pytest.mark.parametrize(
    ("query", "schema", "expected"),
    [
        ("p=5", OPTIONAL, []),
        ("p=", OPTIONAL, []),
        ("", OPTIONAL, []),
        ("p=x", OPTIONAL, ["query 'p': 'x' is no integer or null"]),
        ("p=3", {"anyOf": [{**INTEGER, "minimum": 5}, {"type": "null"}]}, ["query 'p': 3 does not fit minimum: 5"]),
        ("p=3", {"allOf": [INTEGER, {"minimum": 5}]}, ["query 'p': 3 does not fit minimum: 5"]),
        ("p=2", {"enum": [1, 2]}, []),
        ("p=3", {"enum": [1, 2]}, ["query 'p': 3 is none of 1, 2"]),
        ("p=true", {"const": True}, []),
        ("p=1.0", INTEGER, []),
        ("p=2026-12-02", {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}, []),
        ("p=1&p=2", {"anyOf": [INTEGERS, {"type": "null"}]}, []),
        ("p=1&p=a", {"anyOf": [INTEGERS, {"type": "null"}]}, ["query 'p'[1]: 'a' is no integer"]),
    ],
)  # fmt: skip
def test_a_parameter_fits_one_of_the_branches(query: str, schema: Any, expected: list[str]) -> None:
    assert in_query(query, schema) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("x=1&y=2", []),
        ("", []),
        ("other=1", []),
        ("x=a", ["query 'p'.x: 'a' is no integer"]),
        ("y=2", ["query 'p': 'x' is a required property"]),
    ],
)
def test_an_exploded_object_is_checked_by_its_fields(query: str, expected: list[str]) -> None:
    assert in_query(query, POINT) == expected


def test_an_exploded_object_that_is_required_is_missed() -> None:
    expected = ["query 'p': it is required, and missing"]
    assert in_query("z=1", POINT, required=True) == expected
    assert in_query("z=1", {**POINT, "required": []}, required=True) == []
    assert in_query("z=1", {"type": "object"}, required=True) == []
    assert in_query("z=1", {"type": "object", "additionalProperties": INTEGER}) == []
    assert in_query("z=a", {"type": "object", "additionalProperties": INTEGER}) == [
        "query 'p'.z: 'a' is no integer"
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("p[x]=1", []),
        ("p%5Bx%5D=1&p[y]=2", []),
        ("p[x]=a", ["query 'p'.x: 'a' is no integer"]),
        ("p[z]=1&p[x]=1", ["query 'p': it does not take 'z'"]),
        ("p=x", ["query 'p': it is not written as p[field]=value"]),
        ("", []),
    ],
)
def test_a_deep_object_is_in_brackets(query: str, expected: list[str]) -> None:
    assert in_query(query, POINT, style="deepObject", explode=True) == expected


def test_a_path_is_split_before_it_is_decoded() -> None:
    parameter = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "array", "maxItems": 2},
    }
    operation = {"parameters": [parameter]}  # fmt: skip
    assert problems(operation, template="/{id}", path="/a%2Cb,c") == []
    assert problems(operation, template="/{id}", path="/a,b,c") != []


def test_fields_of_one_name_are_a_list() -> None:
    parameter = {"name": "X", "in": "header", "schema": {"type": "array", "items": INTEGER}}
    operation = {"parameters": [parameter]}
    assert problems(operation, headers={"X": "1, 2"}) == []
    assert problems(operation, headers={"X": "1, b"}) == ["header 'X'[1]: 'b' is no integer"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"x": 1}', []),
        (b'{"x": 1, "x": 2}', ["body: the key 'x' is there twice"]),
        (b'\xef\xbb\xbf{"x": 1}', ["body: it begins with a byte order mark, which is not JSON"]),
        (b'{"x": 1e400}', ["body: 1e400 is more than a number can be"]),
        (b'{"x": NaN}', ["body: NaN is not JSON"]),
    ],
)
def test_json_is_what_everybody_reads(body: bytes, expected: list[str]) -> None:
    assert in_body("application/json", body, {"schema": POINT}) == expected


STRIPE = {
    "type": "object",
    "required": ["amount"],
    "properties": {
        "amount": INTEGER,
        "expand": {"type": "array", "items": {"type": "string", "maxLength": 5}},
        "metadata": {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "string"}},
                {"enum": [""]},
            ]
        },
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"price": {"type": "string"}, "quantity": INTEGER}},
        },
    },
    "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"amount=1&expand[]=a&expand[]=b&metadata[k]=v&items[0][price]=p&items[0][quantity]=2", []),
        (b"amount=1&expand[0]=a&metadata=", []),
        (b"amount=a", ["body.amount: 'a' is no integer"]),
        (b"amount=1&expand[0]=abcdef", ["body.expand[0]: 'abcdef' does not fit maxLength: 5"]),
        (b"amount=1&items[0][quantity]=x", ["body.items[0].quantity: 'x' is no integer"]),
        (b"amount=1&other=1", ["body: it does not take 'other'"]),
        (b"amount=1&expand[x]=1", ["body: 'expand': [x] is no index"]),
    ],
)  # fmt: skip
def test_a_form_has_objects_in_brackets(body: bytes, expected: list[str]) -> None:
    encoding = {"metadata": {"style": "deepObject"}, "expand": {"style": "deepObject"}}
    assert in_body(FORM, body, {"schema": STRIPE, "encoding": encoding}) == expected
    branches = {"allOf": [{"type": "object"}, STRIPE]}
    assert in_body(FORM, body, {"schema": branches}) == expected


def multipart(*parts: tuple[str, str]) -> bytes:
    lines = [f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{text}" for head, text in parts]
    return "\r\n".join([*lines, "--b--\r\n"]).encode()


def test_a_part_may_be_json() -> None:
    schema = {
        "type": "object",
        "properties": {"at": POINT, "count": INTEGER, "file": {"type": "string", "format": "binary"}},
    }  # fmt: skip
    kind = "multipart/form-data; boundary=b"

    def found(*parts: tuple[str, str]) -> list[str]:
        return in_body("multipart/form-data", multipart(*parts), {"schema": schema}, kind)

    at, count, file = 'name="at"', 'name="count"', 'name="file"; filename="a.json"'
    assert found((at, '{"x": 1}'), (count, "3"), (file, "{")) == []
    typed = f"{at}\r\nContent-Type: application/json"
    assert found((typed, '{"x": "a"}')) == ["body.at.x: 'a' is no integer"]
    assert found((count, "a")) == ["body.count: 'a' is no integer"]


def test_a_text_may_be_a_number() -> None:
    assert in_body("text/plain", b"5", {"schema": INTEGER}) == []
    assert in_body("text/plain", b"x", {"schema": INTEGER}) == ["body: 'x' is no integer"]


def test_a_branch_that_was_nearly_right_is_told() -> None:
    schema = {"oneOf": [{"type": "string"}, POINT]}
    found = in_body("application/json", json.dumps({"x": "a"}).encode(), {"schema": schema})
    assert found == ["body.x: 'a' is no integer"]


def test_a_pattern_that_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_egress.routes.openapi.patterns.PATTERN_SECONDS", 0.05)
    found = in_query(f"p={'a' * 99}!", {"type": "string", "pattern": "^(a|aa)+$"})
    assert found == ["query 'p': the pattern '^(a|aa)+$' takes more than 0.05 s"]


def test_a_secret_in_what_is_wrong_is_not_shown() -> None:
    found = in_query("p=hunter2hunter2", {"type": "integer"}, name="api_key")
    assert found == []  # it is named p there
    found = in_query("api_key=hunter2hunter2", {"type": "integer"}, name="api_key")
    assert len(found) == 1
    assert "hunter2hunter2" not in found[0]


@pytest.mark.parametrize(
    ("keys", "kind", "key"),
    [
        (["application/json"], "application/json; charset=utf-8", "application/json"),
        (["application/json; v=1", "application/json; v=2"], "application/json;v=2", "application/json; v=2"),
        (["*/*", "text/*"], "text/plain", "text/*"),
        (["*/*"], "", "*/*"),
        (["application/json"], "application/xml", None),
        ([], "application/json", None),
    ],
)  # fmt: skip
def test_the_narrowest_media_type_describes_a_body(
    keys: list[str], kind: str, key: str | None
) -> None:
    assert media_key(keys, kind) == key


def test_a_key_is_a_part_of_a_pointer_in_a_uri() -> None:
    assert keyed("application/json; v=1") == "application~1json%3B%20v%3D1"


def test_a_step_is_told_as_it_is_typed() -> None:
    keys: list[str | int] = ["a", 0, "b c"]
    assert "".join(map(step, keys)) == ".a[0]['b c']"


def test_a_body_that_has_no_room_when_it_is_parsed_is_told() -> None:
    account = Account()
    account.keep(MAX_HELD_BYTES - 4096, "a test's bodies")
    operation = {"requestBody": {"content": {"application/json": {"schema": INTEGERS}}}}
    body = json.dumps([*range(1000)]).encode()
    headers = {"Content-Type": "application/json"}
    [found] = problems(operation, headers=headers, body=body, account=account)
    assert found.startswith("body: all that is kept of a test is over MAX_HELD_BYTES")
    assert problems(operation, headers=headers, body=b"[1]", account=account) == []
    assert account.held == MAX_HELD_BYTES - 4096


@pytest.mark.parametrize(("taken", "fits"), [("image/png, text/*", True), ("image/png", False)])
def test_a_part_has_the_content_type_that_its_encoding_takes(taken: str, fits: bool) -> None:
    about = {"schema": {"properties": {"f": {}}}, "encoding": {"f": {"contentType": taken}}}
    part = b'--b\r\nContent-Disposition: form-data; name="f"\r\nContent-Type: text/csv\r\n\r\nx\r\n--b--\r\n'
    found = in_body("multipart/form-data", part, about, "multipart/form-data; boundary=b")
    assert found == ([] if fits else ["body.f: its Content-Type 'text/csv' is none of image/png"])
