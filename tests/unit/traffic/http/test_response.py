"""Responses as values: what they hold, what they refuse, and in which words."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from pytest_egress.traffic.http.content_coding import decode, encode
from pytest_egress.traffic.http.response import Response, reason_phrase


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
