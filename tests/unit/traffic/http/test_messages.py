"""Requests and responses as values: what they hold, what they refuse, and in which words."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
import zlib
from typing import Any

import pytest

from pytest_egress.base.account import Account
from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import decode, encode
from pytest_egress.traffic.http.messages import (
    JSON_VALUE_BYTES,
    Headers,
    Request,
    Response,
    reason_phrase,
    room_for_json,
)


def request(**fields: Any) -> Request:
    about = {"method": "GET", "scheme": "https", "host": "api.test", "port": 443, "path": "/"}
    return Request(**{**about, **fields})


# Headers.


def test_headers_compare_without_case_and_keep_order_and_spelling() -> None:
    headers = Headers([("X-One", "1"), ("Set-Cookie", "a"), ("set-cookie", "b")])
    assert headers["SET-COOKIE"] == "a, b"
    assert headers.get_all("Set-Cookie") == ["a", "b"]
    assert headers.get_all("absent") == []
    assert headers.get("absent") is None
    assert list(headers) == ["x-one", "set-cookie"]
    assert len(headers) == 2
    assert "x-ONE" in headers
    assert repr(headers) == "Headers([('X-One', '1'), ('Set-Cookie', 'a'), ('set-cookie', 'b')])"
    with pytest.raises(KeyError, match="absent"):
        headers["absent"]


# Requests.


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


# Responses.


@pytest.mark.parametrize(
    ("response", "status", "content", "content_type"),
    [
        (Response(), 200, b"", None),
        (Response(204), 204, b"", None),
        (Response(content=b"x"), 200, b"x", None),
        (Response(text="\u00e9"), 200, b"\xc3\xa9", "text/plain; charset=utf-8"),
        (Response(json={"a": None}), 200, b'{"a": null}', "application/json"),
        (Response(json=None), 200, b"null", "application/json"),
        (Response(text="<x/>", headers={"content-TYPE": "text/xml"}), 200, b"<x/>", "text/xml"),
    ],
)
def test_a_response_has_a_body_and_its_type(
    response: Response, status: int, content: bytes, content_type: str | None
) -> None:
    found = (response.status_code, response.content, response.headers.get("content-type"))
    assert found == (status, content, content_type)


def test_a_response_reads_back() -> None:
    response = Response(418, json={"a": 1})
    assert (response.json(), response.text) == ({"a": 1}, '{"a": 1}')
    assert repr(response) == "<Response 418 I'm a Teapot>"
    assert repr(Response(299)) == "<Response 299>"
    assert (reason_phrase(404), reason_phrase(299)) == ("Not Found", "")


@pytest.mark.parametrize("status", [0, 99, 100, 199, 600, -200, True, "200", 200.0, None])
def test_a_status_that_is_no_answers_is_refused(status: Any) -> None:
    with pytest.raises(ValueError, match="status") as caught:
        Response(status)
    text = f"{status!r} is no status of a response; it takes an int from 200 to 599"
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": b"", "json": None}, "Response takes one body, not content and json"),
        ({"text": "", "stream": []}, "Response takes one body, not text and stream"),
        ({"content": "x"}, "Response(content=...) takes bytes or bytearray, not str: 'x'"),
        ({"content": 0}, "Response(content=...) takes bytes or bytearray, not int: 0"),
        ({"text": b"x"}, "Response(text=...) takes str, not bytes: b'x'"),
        ({"stream": 1}, "Response(stream=...) takes an iterable of bytes or str, not int: 1"),
        (
            {"stream": b"x"},
            "Response(stream=...) takes an iterable of bytes or str, not bytes: b'x'",
        ),
        ({"headers": {"a": 1}}, "header fields are str, not 'a': 1"),
        (
            {"trailers": {"a": "b"}},
            "Response sends trailers after a streamed body only: give stream=",
        ),
    ],
)
def test_a_response_that_makes_no_sense_is_refused_where_it_is_made(
    fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(TypeError) as caught:
        Response(**fields)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        ("caf\u00e9", "x"),
        ("a\n", "x"),
        ("a", "x\r\nEvil: y"),
        ("a", "\0"),
        ("a", " x"),
        ("a", "x\t"),
        ("a", "\x7f"),
    ],
)
@pytest.mark.parametrize("where", ["headers", "trailers"])
def test_a_field_that_would_break_the_message_is_refused(where: str, name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        Response(stream=[], **{where: {name: value}})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name!r}: {value!r} is no header field"


@pytest.mark.parametrize("value", ["", "x", "a b\tc", "caf\u00e9", "\u20ac", '"quoted"'])
def test_any_other_value_of_a_field_is_accepted(value: str) -> None:
    assert Response(headers={"a": value}).headers["a"] == value


@pytest.mark.parametrize("reason", ["a\r\nX: 1", "a\nb", "\x00", "\x7f"])
def test_a_phrase_that_would_break_the_status_line_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match="is no reason phrase: it has a control character"):
        Response(reason=reason)


def test_a_phrase_is_text() -> None:
    with pytest.raises(TypeError, match=r"Response\(reason=\.\.\.\) takes str, not int: 7"):
        Response(reason=7)  # type: ignore[arg-type]


# Compressed responses.


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_response_is_compressed_when_it_is_sent(coding: Any) -> None:
    response = Response(json={"a": 1}, headers={"X-Own": "1"}, compress=coding)
    sent = response.encoded()
    assert response.json() == {"a": 1}
    assert decode(sent.content, coding, 100) == b'{"a": 1}'
    assert sent.headers.raw == (
        *(("X-Own", "1"), ("Content-Type", "application/json")),
        ("Content-Encoding", coding),
    )
    assert sent.encoded() is sent


def test_a_compressed_stream_has_each_piece_at_once() -> None:
    sent = Response(stream=[b"one", b"two"], compress="gzip").encoded()
    inflater = zlib.decompressobj(wbits=31)
    assert [inflater.decompress(piece) for piece in sent.stream] == [b"one", b"two", b""]
    assert inflater.eof


def test_the_response_of_another_server_reads_without_its_coding() -> None:
    packed = Response(json=[1], compress="br").encoded()
    assert (packed.text, packed.json()) == ("[1]", [1])
    packed.content = b"no br"
    with pytest.raises(ValueError, match="and is no br"):
        packed.json()


def test_what_is_not_compressed_is_sent_as_it_is() -> None:
    response = Response(text="x")
    assert response.encoded() is response


@pytest.mark.parametrize(
    ("compress", "headers", "error", "text"),
    [
        (
            "lzma",
            {},
            ValueError,
            "compress='lzma' is unknown: it takes 'gzip', 'deflate', 'br', 'zstd'",
        ),
        (True, {}, TypeError, "Response(compress=...) takes the name of a coding, not True"),
        (
            *("gzip", {"content-encoding": "br"}, ValueError),
            "Response(compress='gzip') comes with Content-Encoding: br, which it sets by itself: "
            "leave one of the two out",
        ),
        (
            *("gzip", {"Content-Length": "0"}, ValueError),
            "Response(compress='gzip') comes with Content-Length: 0, which it sets by itself: "
            "leave one of the two out",
        ),
    ],
)
def test_what_cannot_be_compressed_is_refused_where_it_is_made(
    compress: Any, headers: dict[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        Response(headers=headers, compress=compress)
    assert str(raised.value) == text


# What the fields say of a body.


PLAIN = b'{"id": 1}'


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "x-gzip", "br, gzip"])
def test_a_coding_that_is_not_the_bodys_is_refused(coding: str) -> None:
    text = f"^Content-Encoding is {coding}, and the body is not in that coding "
    with pytest.raises(ValueError, match=text) as error:
        Response(headers={"Content-Encoding": coding}, json={"id": 1})
    assert "compress= compresses the body" in str(error.value)
    response = Response(headers={"Content-Encoding": coding})
    response.content = PLAIN
    with pytest.raises(ValueError, match=text):
        response.check()


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_coding_that_is_the_bodys_is_accepted(coding: Any, size: int) -> None:
    content = encode(bytes(range(10)) * size, coding)
    Response(headers={"Content-Encoding": coding}, content=content).check()
    Response(json={"id": 1}, compress=coding).check()
    Response(headers={"Content-Encoding": coding}).check()


@pytest.mark.parametrize("coding", ["identity", "aws-chunked", "unknown", ""])
def test_a_coding_that_says_nothing_of_the_bytes_is_accepted(coding: str) -> None:
    Response(headers={"Content-Encoding": coding}, content=PLAIN).check()


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    "body",
    [{"text": "x"}, {"json": None}, {"content": b"x"}, {"stream": [b"x"]}, {"events": ["x"]}],
)
def test_a_body_where_the_status_has_none_is_refused(status: int, body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^a response of status {status} has no body "):
        Response(status, **body)


def test_a_body_that_became_one_too_many_is_refused() -> None:
    response = Response(text="x")
    response.status_code = 204
    with pytest.raises(ValueError, match="has no body"):
        response.check()
    Response(204, text="").check()
    Response(304, content=b"", headers={"Content-Length": "9"}).check()
