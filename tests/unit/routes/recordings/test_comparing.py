"""Comparing: which requests are the recorded one, and how others differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_egress.routes.recordings.comparing import Wanted, differences
from pytest_egress.traffic.cassettes.bodies import NO_BODY, RecordedBody
from pytest_egress.traffic.cassettes.making import recorded_request
from pytest_egress.traffic.cassettes.placeholders import Stands
from pytest_egress.traffic.cassettes.tape import RecordedRequest
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request

JSON = (("content-type", "application/json"),)
FORM = (("content-type", "application/x-www-form-urlencoded"),)
NOTHING = Stands((), {})


def asked(
    path: str = "/a", query: str = "", content: bytes = b"", kind: str = "", **fields: Any
) -> Request:
    given = {"method": "POST", "scheme": "https", "host": "api.test", "port": 443, **fields}
    headers = Headers({"Content-Type": kind} if kind else {})
    return Request(path=path, query_string=query, headers=headers, content=content, **given)


def recorded(
    url: str = "https://api.test/a", body: RecordedBody = NO_BODY, headers: Any = ()
) -> RecordedRequest:
    return RecordedRequest(method="POST", url=url, headers=headers, body=body)


def lines(
    wanted: RecordedRequest, request: Request, *ignored: str, stands: Stands = NOTHING
) -> list[str]:
    return [*differences(Wanted(wanted), request, stands, ignored)]


@pytest.mark.parametrize(
    ("wanted", "request_"),
    [
        (recorded(), asked()),
        (recorded("https://API.test:443/a?x=1&y=2&x=3"), asked(query="x=3&y=2&x=1")),
        (recorded("https://api.test"), asked("/")),
        (recorded("/a"), asked(host="any.test")),
        (
            recorded(body=RecordedBody("json", {"a": 1, "b": [2.0]})),
            asked(content=b'{"b":[2],"a":1}'),
        ),
        (
            recorded(body=RecordedBody("form", {"a": ["1", "2"], "b": "x y"})),
            asked(content=b"b=x+y&a=2&a=1", kind=FORM[0][1]),
        ),
        (recorded(body=RecordedBody("text", "hi")), asked(content=b"hi")),
        (recorded(body=RecordedBody("base64", "/w==")), asked(content=b"\xff")),
    ],
)
def test_what_has_the_same_meaning_is_the_same(wanted: RecordedRequest, request_: Request) -> None:
    assert lines(wanted, request_) == []


@pytest.mark.parametrize(
    ("wanted", "request_", "said"),
    [
        (recorded(), asked(method="GET"), "method: GET is not POST"),
        (recorded(), asked(scheme="http", port=443), "scheme: http is not https"),
        (recorded(), asked(host="b.test"), "host: 'b.test' is not 'api.test'"),
        (recorded(), asked(port=8443), "port: 8443 is not 443"),
        (recorded(), asked("/b"), "path: '/b' is not '/a'"),
        (recorded("https://api.test/a?t=1"), asked(query="t=2"), "query['t']: '2' is not '1'"),
        (recorded("https://api.test/a?t=1"), asked(), "query['t']: absent, expected '1'"),
        (recorded(), asked(query="t=2"), "query['t']: '2' was not expected"),
        (
            recorded(body=RecordedBody("json", {"items": [{"price": 6}]})),
            asked(content=b'{"items":[{"price":5}]}'),
            "json.items[0].price: 5 is not 6",
        ),
        (
            recorded(body=RecordedBody("json", {"a": True})),
            asked(content=b'{"a":1}'),
            "json.a: 1 is not True",
        ),
        (
            recorded(body=RecordedBody("json", {})),
            asked(content=b"x"),
            "json: the body is no JSON: b'x'",
        ),
        (
            recorded(body=RecordedBody("json", {})),
            asked(),
            "json: the request has no body, and the recorded one has",
        ),
        (
            recorded(),
            asked(content=b"x"),
            "content: b'x' was not expected: the recorded request has no body",
        ),
        (
            recorded(body=RecordedBody("form", {"a": "1"})),
            asked(content=b"a=2", kind=FORM[0][1]),
            "form['a']: '2' is not '1'",
        ),
        (
            recorded(body=RecordedBody("text", "hi")),
            asked(content=b"ho"),
            "content: b'ho' is not b'hi'",
        ),
    ],
)
def test_each_difference_begins_with_its_place(
    wanted: RecordedRequest, request_: Request, said: str
) -> None:
    """A message that says which field differs: "0 matchers failed" says nothing (vcrpy)."""
    assert lines(wanted, request_) == [said]


def test_header_fields_that_a_mapping_of_wiremock_names_are_compared() -> None:
    wanted = RecordedRequest(
        method="POST", url="/a", compared=(("x-tenant", "7"), ("authorization", "Bearer abcd1"))
    )
    request = replace(asked(), headers=Headers({"X-Tenant": "8", "Authorization": "Bearer abcd2"}))
    found = lines(wanted, request)
    assert found[0] == "headers['x-tenant']: '8' is not '7'"
    assert found[1].startswith("headers['authorization']: ")
    assert "abcd" not in found[1]
    assert lines(wanted, request, "headers['x-tenant']", "headers['authorization']") == []
    assert lines(wanted, asked())[0] == "headers['x-tenant']: absent, expected '7'"


def test_a_body_of_json_with_a_repeated_name_is_not_the_one_without_it() -> None:
    wanted = recorded(body=RecordedBody("json", {"a": [{"b": 1}]}))
    found = lines(wanted, asked(content=b'{"a": [{"b": 2, "b": 1}]}'))
    assert found == ["json: the name 'b' repeats in one object"]
    assert lines(wanted, asked(content=b'{"a": [{"b": 1}]}')) == []


def test_what_a_failure_prints_can_be_ignored() -> None:
    """Volatile values that never match (playwright)."""
    wanted = recorded(
        "https://api.test/a?t=1", RecordedBody("json", {"id": 1, "at": {"x": 1}, "idle": 2})
    )
    request = asked(query="t=2", content=b'{"id":2,"at":{"x":2},"idle":3}')
    assert lines(wanted, request, "json.id", "json.at", "query['t']") == ["json.idle: 3 is not 2"]


def test_every_graphql_query_gets_its_own_answer() -> None:
    """A body that is not compared: every GraphQL query got the first answer (playwright)."""
    wanted = recorded(body=RecordedBody("json", {"query": "{ a }"}))
    assert lines(wanted, asked(content=b'{"query": "{ b }"}')) == [
        "json.query: '{ b }' is not '{ a }'"
    ]


def parts(boundary: str, value: str, name: str = "x.txt") -> Request:
    head = 'Content-Disposition: form-data; name="f"; filename='
    body = f'--{boundary}\r\n{head}"{name}"\r\n\r\n{value}\r\n--{boundary}--\r\n'
    return asked(content=body.encode(), kind=f"multipart/form-data; boundary={boundary}")


def test_a_form_in_parts_is_the_same_whatever_its_boundary() -> None:
    """Multipart bodies with a boundary that is drawn anew each time (playwright)."""
    wanted = recorded_request(parts("one", "a"))
    assert lines(wanted, parts("two", "a")) == []
    (line,) = lines(wanted, parts("two", "b"))
    assert line.startswith("files['f']: ")


def test_a_form_in_parts_that_is_malformed_is_a_difference() -> None:
    wanted = recorded_request(parts("one", "a"))
    broken = asked(content=b"--x", kind="multipart/form-data; boundary=x")
    assert lines(wanted, broken)[0].startswith("form: the body is no multipart/form-data")


def test_placeholders_stand_for_what_the_container_has() -> None:
    stands = Stands({"KEY", "id"}, {"KEY": "k/1 2345678"})
    wanted = recorded(
        "https://api.test/s/<id>/a?k=<KEY>", RecordedBody("json", {"k": "<KEY>", "n": ["x<id>"]})
    )
    request = asked("/s/7f/a", "k=k%2F1+2345678", b'{"k":"k/1 2345678","n":["xy"]}')
    assert lines(wanted, request, stands=stands) == []
    other = asked("/s/7f/b", "k=other", b'{"k":"other","n":["xy"]}')
    assert [line.partition(":")[0] for line in lines(wanted, other, stands=stands)] == [
        *("path", "query['k']", "json.k")
    ]


def test_a_difference_quotes_no_secret_of_a_file_of_others() -> None:
    """A HAR of a browser has its secrets in it."""
    wanted = recorded(
        "https://api.test/a?token=abcdefgh12345", RecordedBody("text", "password=hunter2222")
    )
    text = "\n".join(lines(wanted, asked(query="token=x", content=b"a=1")))
    assert "hunter2222" not in text
    assert "abcdefgh12345" not in text


def test_a_difference_quotes_no_secret() -> None:
    wanted = recorded(
        "https://api.test/a?token=<token>", RecordedBody("json", {"password": "<password>", "a": 1})
    )
    request = asked(query="token=abcdefgh12345&x=1", content=b'{"password":"hunter2222","a":2}')
    text = "\n".join(lines(wanted, request))
    assert "hunter2222" not in text
    assert "abcdefgh12345" not in text


def test_queries_of_bytes_that_are_no_utf_8_differ_by_their_bytes() -> None:
    wanted = recorded("https://api.test/a?hash=%ff%01&x=1&y=%fe")
    assert lines(wanted, asked(query="y=%FE&hash=%FF%01&x=1")) == []
    said = "query['hash']: bytes that are no UTF-8 differ from the recorded ones"
    assert lines(wanted, asked(query="hash=%fe%01&x=1&y=%fe")) == [said]
    assert lines(wanted, asked(query="hash=%fe%01&x=1&y=%fe"), "query['hash']") == []
