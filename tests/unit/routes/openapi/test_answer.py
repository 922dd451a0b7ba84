"""A request is checked against its document, an example answers it, and the text says what does not fit, and where."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_egress import Response, cassette, delayed, forward, openapi, reset, sequence
from pytest_egress.base.unset import UNSET
from pytest_egress.errors import OpenApiError
from pytest_egress.routes.answers import (
    AnsweredError,
    Application,
    check_answer,
    held,
    innermost,
)
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.openapi.answer import OpenApi
from pytest_egress.routes.recordings.deck import bound
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request

REF = {"$ref": "#/components/schemas/Charge"}
CHARGE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "amount"],
    "properties": {
        "id": {"type": "string", "readOnly": True},
        "amount": {"type": "integer", "minimum": 1},
        "currency": {"enum": ["eur", "usd"]},
        "password": {"type": "string", "maxLength": 3, "writeOnly": True},
        "parent": REF,
    },
    "additionalProperties": False,
}
OK = {"200": {"description": "ok"}}
CREATE = {
    "operationId": "createCharge",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": REF},
            "application/x-www-form-urlencoded": {"schema": REF},
        },
    },
    "responses": {
        "201": {
            "description": "made",
            "content": {"application/json": {"schema": REF, "example": {"id": "ch_1", "amount": 4200}}},
        }
    },
}  # fmt: skip
LIST = {
    "parameters": [
        {"name": "limit", "in": "query", "schema": {"type": "integer"}},
        {"name": "ids", "in": "query", "schema": {"type": "array", "items": {"type": "integer"}}},
        {"name": "X-Tenant", "in": "header", "required": True, "schema": {"type": "string", "minLength": 2}},
    ],
    "responses": OK,
}  # fmt: skip
ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^ch_"}}
SPEC: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "charges", "version": "1"},
    "servers": [{"url": "https://api.test/{version}", "variables": {"version": {"default": "v1"}}}],
    "components": {
        "schemas": {"Charge": CHARGE},
        "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
            "token": {"type": "http", "scheme": "bearer"},
        },
    },
    "security": [{"key": []}, {"token": []}],
    "paths": {
        "/charges": {"post": CREATE, "get": LIST},
        "/charges/{id}": {"parameters": [ID], "get": {"security": [], "responses": OK}},
        "/charges/latest": {
            "get": {"operationId": "latest", "security": [], "responses": {"204": {"description": "none"}}}
        },
    },
}  # fmt: skip
SPEC_3_1 = {**SPEC, "openapi": "3.1.0"}
KEY = {"X-Key": "k"}
JSON = {**KEY, "Content-Type": "application/json"}
VERSIONS = pytest.mark.parametrize("spec", [SPEC, SPEC_3_1], ids=["3.0", "3.1"])


def asked(
    method: str = "POST",
    path: str = "/v1/charges",
    body: Any = b"",
    headers: dict[str, str] | None = None,
    query: str = "",
) -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(
        method=method,
        scheme="https",
        host="api.test",
        port=443,
        path=path,
        query_string=query,
        headers=Headers(JSON if headers is None else headers),
        raw_content=content,
    )


def problems(request: Request, spec: Any = SPEC, answer: Any = None) -> list[str]:
    """The lines about what does not fit; none where all does."""
    given = openapi(spec) if answer is None else openapi(spec, answer)
    try:
        given.answer(request, held)
    except AnsweredError as answered:
        return [line.strip() for line in str(answered.error).splitlines()[1:]]
    return []


@VERSIONS
def test_a_request_that_fits_is_answered_by_the_example(spec: Any) -> None:
    response = openapi(spec).answer(asked(body={"amount": 4200}), held)
    assert response.status_code == 201
    assert json.loads(response.content) == {"id": "ch_1", "amount": 4200}
    assert openapi(spec).answer(asked("GET", "/v1/charges/latest"), held).status_code == 204


@VERSIONS
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "body: 'amount' is a required property"),
        ({"amount": "4200"}, "body.amount: '4200' is no integer"),
        ({"amount": 0}, "body.amount: 0 does not fit minimum: 1"),
        ({"amount": 1, "currency": "chf"}, "body.currency: 'chf' is none of 'eur', 'usd'"),
        ({"amount": 1, "id": "ch_1"}, "body.id: it is readOnly"),
        ({"amount": 1, "parent": {"amount": None}}, "body.parent.amount: None is no integer"),
        ({"amount": 1, "password": "hunter2!"}, "body.password: 'hu... (8 characters)' does not fit maxLength: 3"),
        (b'{"amount": NaN}', "body: NaN is not JSON"),
        (b"[" * 100_000, "body: it is nested too deeply"),
        (b"", "body: it is required, and missing"),
    ],
)  # fmt: skip
def test_a_body_that_does_not_fit_is_told_by_its_field(spec: Any, body: Any, problem: str) -> None:
    assert problems(asked(body=body), spec) == [problem]


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        ("application/json; charset=utf-8", True),
        ('application/json; profile="a=b"', True),
        ("Application/JSON", True),
        ("text/plain", False),
        ("", False),
    ],
)
def test_a_media_type_has_parameters(kind: str, fits: bool) -> None:
    found = problems(asked(body={"amount": 1}, headers={**KEY, "Content-Type": kind}))
    expected = f"header 'Content-Type': {kind!r} is none of application/json, application/x-www-form-urlencoded"
    assert found == ([] if fits else [expected])


def test_a_form_has_numbers_and_one_value_of_a_field() -> None:
    form = {**KEY, "Content-Type": "application/x-www-form-urlencoded"}
    assert problems(asked(body=b"amount=42&currency=eur", headers=form)) == []
    assert problems(asked(body=b"amount=x", headers=form)) == ["body.amount: 'x' is no integer"]
    [found] = problems(asked(body=b"amount=1&amount=2", headers=form))
    assert found == "body: 'amount': it came 2 times, and takes one value"


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("limit=5&ids=1&ids=2", {"X-Tenant": "ab"}, []),
        ("limit=x", {"X-Tenant": "ab"}, ["query 'limit': 'x' is no integer"]),
        ("limit=1&limit=2", {"X-Tenant": "ab"}, ["query 'limit': it came 2 times, and takes one value"]),
        ("ids=1&ids=b", {"X-Tenant": "ab"}, ["query 'ids'[1]: 'b' is no integer"]),
        ("", {}, ["header 'X-Tenant': it is required, and missing"]),
        ("", {"X-Tenant": "a"}, ["header 'X-Tenant': 'a' does not fit minLength: 2"]),
    ],
)  # fmt: skip
def test_parameters_are_read_by_their_schema(
    query: str, headers: dict[str, str], expected: list[str]
) -> None:
    assert problems(asked("GET", query=query, headers={**KEY, **headers})) == expected


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ({"X-Key": "k"}, True),
        ({"Authorization": "bearer t"}, True),
        ({"X-Key": ""}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Authorization": "Basic dDp0"}, False),
        ({}, False),
    ],
)
def test_empty_credentials_are_none(headers: dict[str, str], fits: bool) -> None:
    found = problems(asked("GET", headers={**headers, "X-Tenant": "ab"}))
    assert found == ([] if fits else ["security: it has no credentials of key or token"])


def test_a_path_is_decoded_and_a_literal_one_comes_first() -> None:
    assert problems(asked("GET", "/v1/charges/ch%5F1")) == []
    assert problems(asked("GET", "/v1/charges/latest")) == []
    assert problems(asked("GET", "/v1/charges/x%2Fy")) == [
        "path 'id': 'x/y' does not fit pattern: '^ch_'"
    ]
    assert problems(asked("GET", "/charges/latest")) == [
        "path: '/charges/latest' is none of /v1/charges, /v1/charges/latest, /v1/charges/{id}"
    ]
    assert problems(asked("PUT")) == ["method: 'PUT' is none of GET, POST of /charges"]


def test_the_text_names_the_operation_and_the_document(tmp_path: Path) -> None:
    path = tmp_path / "charges.json"
    path.write_text(json.dumps(SPEC))
    with pytest.raises(OpenApiError) as caught:
        openapi(path)(asked(body={"amount": "x" * 500}))
    first, second = str(caught.value).splitlines()
    assert first == (
        f"POST https://api.test/v1/charges does not fit createCharge (POST /charges) of {path}:"
    )
    assert len(second) < 120


@VERSIONS
def test_an_answer_of_the_test_is_checked_too(spec: Any) -> None:
    fits = {"id": "ch_1", "amount": 1}
    request = asked(body={"amount": 1})
    assert problems(request, spec, (201, fits)) == []
    assert problems(request, spec, lambda _: (201, fits)) == []
    assert problems(request, spec, (201, {"id": 4, "amount": 1})) == ["body.id: 4 is no string"]
    secretive = (201, {**fits, "password": "x"})
    assert problems(request, spec, secretive) == ["body.password: it is writeOnly"]
    assert problems(request, spec, 404) == ["status: 404 is none of its responses"]


def test_the_client_is_answered_whatever_the_check_says() -> None:
    with pytest.raises(AnsweredError) as caught:
        openapi(SPEC).answer(asked(body={}), held)
    assert caught.value.response.status_code == 201


def test_what_cannot_answer_is_refused_where_it_is_declared() -> None:
    answers: list[Any] = [reset(), sequence(200, 200), lambda: 200, "text"]
    for answer in answers:
        with pytest.raises(TypeError):
            openapi(SPEC, answer)


def test_a_document_is_not_changed() -> None:
    spec = copy.deepcopy(SPEC)
    problems(asked(body={"amount": 1}), spec)
    assert spec == SPEC


FITS: dict[str, Any] = {"id": "ch_1", "amount": 1}


def run(given: Any, request: Request) -> Any:
    """What it answers, awaited where that is needed."""

    async def awaited() -> Any:
        return await given.answer(request, held)

    return asyncio.run(awaited())


def test_an_async_function_is_checked_when_it_has_answered() -> None:
    async def handler(_: Request) -> Any:
        await asyncio.sleep(0)
        return 201, FITS

    given = openapi(SPEC, handler)
    assert run(given, asked(body={"amount": 1})).status_code == 201
    with pytest.raises(AnsweredError, match=r"body\.amount: 'x' is no integer") as caught:
        run(given, asked(body={"amount": "x"}))
    assert caught.value.response.status_code == 201


def test_forward_is_asked_for_the_request_as_it_came() -> None:
    answers = [Response(201, json=FITS), Response(418)]
    forwarded: list[object] = []

    def forwarding(request: Request, to: object, port: object) -> Response:
        forwarded.append(to)
        return answers.pop(0)

    request = dataclasses.replace(asked(body={"amount": 1}), _forward=lambda: forwarding)
    server = forward("http://127.0.0.1:8000")
    assert problems(request, SPEC, server) == []
    assert problems(request, SPEC, server) == ["status: 418 is none of its responses"]
    assert forwarded == [server, server]


def test_an_application_within_is_open_while_it_answers() -> None:
    class Open(Application):
        number = 0

        def acquire(self) -> None:
            self.number += 1

        def release(self) -> None:
            self.number -= 1

        def answer(self, request: Request, begin: Any) -> Response:
            assert self.number == 1
            return Response(201, json=FITS)

    within = Open()
    given = openapi(SPEC, within)
    given.acquire()
    assert given.answer(asked(body={"amount": 1}), held).status_code == 201
    given.release()
    assert within.number == 0


def test_a_cassette_within_is_found() -> None:
    given = openapi(SPEC, cassette())
    assert isinstance(innermost(delayed(given, 1)), Cassette)
    with pytest.raises(TypeError, match=r"a cassette\(\) in a sequence\(\)"):
        check_answer(sequence(given), raw=False)
    deck: Any = object()
    made = bound(given, lambda declared: deck)
    assert isinstance(made, OpenApi)
    assert (made.within, repr(made)) == (deck, repr(given))
    assert bound(openapi(SPEC), lambda declared: deck).within is UNSET


ERROR = {"description": "e", "content": {"application/json": {"schema": {"required": ["code"]}}}}


@pytest.mark.parametrize(
    ("responses", "answer", "expected"),
    [
        ({**OK, "4XX": ERROR}, (404, {"code": 1}), []),
        ({**OK, "4XX": ERROR}, (404, {}), ["body: 'code' is a required property"]),
        ({**OK, "4XX": ERROR}, 500, ["status: 500 is none of its responses"]),
        ({**OK, "default": ERROR}, (503, {}), ["body: 'code' is a required property"]),
        ({"404": OK["200"], "4XX": ERROR, "default": ERROR}, (404, {}), []),
        ({"2XX": OK["200"]}, 207, []),
    ],
)
def test_a_status_is_that_of_its_response_or_of_its_class_or_of_the_rest(
    responses: Any, answer: Any, expected: list[str]
) -> None:
    spec = {**SPEC, "security": [], "paths": {"/a": {"get": {"responses": responses}}}}
    assert problems(asked("GET", "/v1/a"), spec, answer) == expected


def test_the_example_is_one_of_success_where_a_class_has_it() -> None:
    content = {"application/json": {"example": {"id": 1}}}
    of_class = {"2XX": {"description": "ok", "content": content}, "default": ERROR}
    spec = {**SPEC, "security": [], "paths": {"/a": {"get": {"responses": of_class}}}}
    response = openapi(spec).answer(asked("GET", "/v1/a"), held)
    assert (response.status_code, json.loads(response.content)) == (200, {"id": 1})


def test_head_is_asked_of_get_where_it_is_not_declared() -> None:
    assert problems(asked("HEAD", "/v1/charges/ch_1")) == []
    assert problems(asked("HEAD", "/v1/charges/no")) == [
        "path 'id': 'no' does not fit pattern: '^ch_'"
    ]
    assert problems(asked("OPTIONS", "/v1/charges")) == [
        "method: 'OPTIONS' is none of GET, POST of /charges"
    ]
    own = {"head": {"responses": {"204": {"description": "none"}}}, "get": {"responses": OK}}
    spec = {**SPEC, "security": [], "paths": {"/a": own}}
    assert openapi(spec).answer(asked("HEAD", "/v1/a"), held).status_code == 204
    only = {**SPEC, "paths": {"/a": {"post": {"responses": OK}}}}
    assert problems(asked("HEAD", "/v1/a"), only) == ["method: 'HEAD' is none of POST of /a"]
