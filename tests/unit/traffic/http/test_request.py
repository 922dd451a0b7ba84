"""Requests as values: what they hold, and how their bodies read."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from typing import Any

import pytest

from pytest_egress.base.account import Account
from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import encode
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import JSON_VALUE_BYTES, Request, room_for_json


def request(**fields: Any) -> Request:
    about = {"method": "GET", "scheme": "https", "host": "api.test", "port": 443, "path": "/"}
    return Request(**{**about, **fields})


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "https://api.test/"),
        ({"port": 8443, "path": "/x", "query_string": "a=b"}, "https://api.test:8443/x?a=b"),
        ({"scheme": "http", "port": 80}, "http://api.test/"),
        ({"scheme": "http", "port": 443}, "http://api.test:443/"),
        ({"host": "2001:db8::7", "port": 1}, "https://[2001:db8::7]:1/"),
    ],
)
def test_a_request_has_its_whole_url(fields: dict[str, Any], url: str) -> None:
    assert request(**fields).url == url
    assert repr(request(**fields)) == f"<Request GET {url}>"


def test_query_and_form_are_decoded_and_the_last_of_a_key_counts() -> None:
    found = request(query_string="a=1&b=x+y%20z&c&a=2", content=b"a=%C3%A9&b=&b=1")
    assert found.query == {"a": "2", "b": "x y z", "c": ""}
    assert found.query.get_all("a") == ["1", "2"]
    assert found.form == {"a": "\u00e9", "b": "1"}
    assert found.form.get_all("b") == ["", "1"]
    assert found.files == {}


def test_cookies_are_those_of_all_fields() -> None:
    headers = Headers([("cookie", "a=1; b=2"), ("Cookie", 'a="3"')])
    assert request(headers=headers).cookies == {"a": "3", "b": "2"}
    assert request(headers=headers).cookies.get_all("a") == ["1", "3"]
    assert request().cookies == {}


def test_a_form_in_parts_has_fields_and_files_and_is_read_once() -> None:
    content = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % part
        for part in [(b"a", b"1"), (b'doc"; filename="x.txt', b"text")]
    )
    headers = Headers({"Content-Type": "multipart/form-data; boundary=b"})
    found = request(headers=headers, content=content + b"--b--\r\n")
    assert found.form == {"a": "1"}
    assert (found.files["doc"].filename, found.files["doc"].content) == ("x.txt", b"text")
    assert found.files is found.files
    with pytest.raises(ValueError, match="no multipart/form-data: it breaks off"):
        dataclasses.replace(found, content=content).form  # noqa: B018 - it is a property


@pytest.mark.parametrize(
    ("content_type", "content", "text"),
    [
        (None, b"caf\xc3\xa9", "caf\u00e9"),
        ("text/plain; charset=latin-1", b"caf\xe9", "caf\u00e9"),
        ('text/plain; x=y; Charset="iso-8859-1"', b"caf\xe9", "caf\u00e9"),
        ("text/plain; charset=utf-8", b"\xff", "\ufffd"),
        ("text/plain; charset=no-such", b"caf\xc3\xa9", "caf\u00e9"),
        ("text/plain; charset=hex", b"abc", "abc"),
        ("text/plain; charset=idna", b"xn--\xff", "xn--\ufffd"),
        ("text/plain; charset=", b"abc", "abc"),
    ],
)
def test_a_body_is_text_by_its_charset_and_never_an_error(
    content_type: str | None, content: bytes, text: str
) -> None:
    headers = Headers({"Content-Type": content_type} if content_type else {})
    assert request(headers=headers, content=content).text == text


@pytest.mark.parametrize(
    "item",
    [b"{}", b"[]", b"[2]", b"1", b"1e1", b'"ab"', b'["ab"]', b'{"a":0}', b'{"%x":1}', b'{"%x":[1]}',
     b"[[[[[[[[]]]]]]]]", b'"\\ud83d\\ude00ab"', '"\U0001f600%x"'.encode()],
)  # fmt: skip
def test_json_takes_no_more_than_is_counted_for_it(item: bytes) -> None:
    items = (item.replace(b"%x", b"%x" % number) for number in range(1000, 4000))
    body = b"[" + b",".join(items) + b"]"
    tracemalloc.start()
    value = json.loads(body)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(value) == 3000
    assert size <= room_for_json(body)


def test_what_is_counted_for_json_is_near_to_what_it_takes() -> None:
    assert room_for_json(b'{"a": [1, 2]}') == 13 + 5 * JSON_VALUE_BYTES
    assert room_for_json(b'"aaa"') == 5 + JSON_VALUE_BYTES
    assert room_for_json('"\xe4"'.encode()) == 4 * 4 + JSON_VALUE_BYTES


def test_a_body_that_is_no_json_is_quoted() -> None:
    assert request(content=b'{"a": [1, null]}').json() == {"a": [1, None]}
    with pytest.raises(ValueError, match="JSON") as caught:
        request(method="POST", content=b"<html>" * 20).json()
    assert str(caught.value) == (
        "POST https://api.test/ has no JSON body: Expecting value: line 1 column 1 (char 0): "
        f"{(b'<html>' * 20)[:80]!r}"
    )


GZIP = Headers({"Content-Encoding": "gzip", "Content-Length": "28", "X-Own": "1"})


def test_the_content_is_decoded_once_when_it_is_asked_for() -> None:
    account = Account()
    found = request(raw_content=encode(b'{"a": 1}', "gzip"), headers=GZIP, _account=account)
    assert account.held == 0
    assert (found.content, found.text, found.json()) == (b'{"a": 1}', '{"a": 1}', {"a": 1})
    assert found.content is found.content
    assert account.held == 8
    assert found.raw_content == encode(b'{"a": 1}', "gzip")
    assert request(raw_content=b"", headers=GZIP).content == b""


def test_a_content_that_is_given_has_no_coding() -> None:
    sent = request(raw_content=encode(b"sent", "gzip"), headers=GZIP)
    other = dataclasses.replace(sent, path="/other")
    assert (other.content, other.raw_content, other.headers) == (b"sent", sent.raw_content, GZIP)
    mine = dataclasses.replace(sent, content=b"mine")
    assert (mine.content, mine.raw_content) == (b"mine", b"mine")
    assert mine.headers.raw == (("Content-Length", "4"), ("X-Own", "1"))
    packed = dataclasses.replace(sent, raw_content=encode(b"mine", "gzip"))
    assert (packed.content, packed.headers) == (b"mine", GZIP)
    with pytest.raises(TypeError, match="has content, or raw_content"):
        dataclasses.replace(sent, content=b"", raw_content=b"")


def test_a_content_that_cannot_be_decoded_is_an_error_each_time_and_is_still_there_as_sent() -> (
    None
):
    found = request(raw_content=b"no gzip", headers=GZIP)
    for _ in range(2):
        with pytest.raises(ContentError, match="and is no gzip"):
            found.json()
    with pytest.raises(ContentError, match="and is no gzip"):
        [*found.stream()]
    assert found.raw_content == b"no gzip"


def test_a_stream_is_decoded() -> None:
    found = request(
        raw_content=encode(b"one" * 100_000, "br"), headers=Headers({"Content-Encoding": "br"})
    )
    pieces = [*found.stream()]
    assert b"".join(pieces) == b"one" * 100_000
    assert len(pieces) > 1


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        request().path = "/x"  # type: ignore[misc]
