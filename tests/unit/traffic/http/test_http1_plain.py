"""Plain requests and answers are read and written as h11 reads and writes them, and nothing else is taken for plain."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.traffic.http import http1
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.http1 import Http1
from pytest_egress.traffic.http.http1_plain import KNOWN_BYTES, plain_request
from pytest_egress.traffic.http.response import Response

GET = b"GET /a?b=c HTTP/1.1\r\nHost: api.test\r\nAccept: */*\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\n\r\nhey"

LINES = st.sampled_from(
    [
        *(
            b"GET / HTTP/1.1",
            b"POST /a?b=c HTTP/1.1",
            b"DELETE /%20?a?b HTTP/1.1",
            b"get / HTTP/1.1",
        ),
        *(b"GET / HTTP/1.0", b"HEAD / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1"),
        *(b"GET http://api.test/ HTTP/1.1", b"GET /a b HTTP/1.1", b"GET  / HTTP/1.1"),
        *(b"GET /\xe9 HTTP/1.1", b"GET / HTTP/1.1 ", b"PRI * HTTP/2.0", b"CONNECT /x HTTP/1.1"),
        *(b"GET //x/y HTTP/1.1", b"GET / HTTP/2.0", b"M-SEARCH / HTTP/1.1", b"\r\nGET / HTTP/1.1"),
    ]
)
NAMES = st.sampled_from(
    [
        *(
            b"Host",
            b"host",
            b"Accept",
            b"Content-Length",
            b"content-length",
            b"Cookie",
            b"X Y",
            b"",
        ),
        *(b"Connection", b"Transfer-Encoding", b"Expect", b"Te", b"Upgrade", b"Keep-Alive", b"X_1"),
        *(b"Proxy-Connection", b"Trailer", b"Sec-WebSocket-Key", b"HTTP2-Settings"),
    ]
)
VALUES = st.sampled_from(
    [
        *(
            b"api.test",
            b"a b",
            b"a  b",
            b"",
            b" ",
            b"3",
            b"003",
            b"+3",
            b"-1",
            b"3,3",
            b"0",
            b"1_0",
        ),
        *(b"keep-alive", b"Keep-Alive", b"close", b"chunked", b"\xe9", b"a\tb", b"100-continue"),
        *(b"a ", b"x" * 50, b"keep-alive, close", b"websocket", b"a\x01b", b"a\rb", b"b: c"),
    ]
)
COLONS = st.sampled_from([b": ", b": ", b": ", b":", b" : ", b":  ", b":\t"])
ENDS = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r\n ", b"\r"])
BODIES = st.sampled_from([b"", b"hey", b"he", b"hey!", GET, b"hey" + GET, b"\r\n", b"\0\1"])
FIELD_LINES = st.tuples(NAMES, COLONS, VALUES, ENDS).map(b"".join)
HOST_LINES = st.sampled_from([b"Host: api.test\r\n"] * 6 + [b"Host:\r\n", b"Host: \r\n", b""])
REQUESTS = st.tuples(
    LINES,
    st.just(b"\r\n"),
    HOST_LINES,
    st.lists(FIELD_LINES, max_size=4).map(b"".join),
    st.just(b"\r\n"),
    BODIES,
).map(b"".join)
PLAIN_REQUESTS = st.sampled_from([GET, POST, GET.replace(b"api.test", b"")])


@st.composite
def any_requests(draw: st.DrawFn) -> bytes:
    """A request, as a rule one that is nearly in order: often a byte of it is another one."""
    data = bytearray(draw(REQUESTS | PLAIN_REQUESTS))
    if draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


ANSWER_FIELDS = st.tuples(
    st.sampled_from(
        [
            *("X-A", "Set-Cookie", "Date", "Content-Type", "Connection", "Content-Length", "Host"),
            *("Keep-Alive", "Transfer-Encoding", "Upgrade", "X Y", "Trailer"),
        ]
    ),
    st.sampled_from(["a", "b c", "", "x\u00e9", "\u20ac", "3", "close", "a\r\nb", " a", "a\x01b"]),
)


@st.composite
def any_answers(draw: st.DrawFn) -> Response:
    """A response as a server may send it, or as no server could."""
    status_code = draw(st.sampled_from([200, 201, 204, 304, 404, 500, 599]))
    headers = Headers(draw(st.lists(ANSWER_FIELDS, max_size=3)))
    reason = draw(st.sampled_from(["OK", "", "very good", "\u00e9", "a\nb"]))
    response = Response.received(status_code, headers, reason=reason)
    response.content = draw(st.sampled_from([b"", b"hey", b"z" * (READ_BYTES + 1)]))
    return response


def story(data: bytes, response: Response, reads: int, *, begins: bool) -> Iterator[object]:
    """All that a connection shows which gets these bytes at once, and then a pipelined end.

    Args:
        reads: How many pieces of the body are read before the response.
        begins: Whether an interim response precedes it.
    """
    http = Http1()
    try:
        http.receive(data)
        yield http.closed, http.has_begun, http.waiting
        head = http.read_head()
        yield head and (head._asdict() | {"headers": head.headers.raw})
        if head is None:
            return
        for _ in range(reads):
            yield http.read_piece(), http.is_read, http.waiting, http.trailers.raw
        yield http.awaited(), http.has_answered, http.closed, http.has_begun
        if begins:
            yield http.interim(103, Headers({"Link": "a"}))
        yield b"".join(http.whole(response, head.method, "now"))
        yield http.has_answered, http.next_request(), http.has_begun, http.waiting
        yield http.left_over
        http.receive(GET)
        yield http.read_head() is not None
        http.receive(b"")
        yield http.read_piece(), http.closed
    except h11.LocalProtocolError as error:
        yield str(error)
    except h11.RemoteProtocolError as error:
        yield str(error), http.refusal(Response(400, headers={"Connection": "close"}), "now")


@contextmanager
def by_h11_alone() -> Iterator[None]:
    with mock.patch.object(http1, "plain_request", return_value=None):
        yield


@given(any_requests(), any_answers(), st.integers(0, 3), st.booleans())
@example(POST, Response(200, text="ok"), 1, False)
@example(POST, Response(200, text="ok"), 2, True)
@example(GET, Response(200, text="ok", headers={"Connection": "close"}), 1, False)
def test_a_connection_shows_the_same_as_one_of_h11_alone(
    data: bytes, response: Response, reads: int, begins: bool
) -> None:
    shows = list(story(data, response, reads, begins=begins))
    with by_h11_alone():
        assert shows == list(story(data, response, reads, begins=begins))


ANSWERS = [
    Response(200, text="ok"),
    Response(200, text="ok", headers={"Connection": "close"}),
    Response(204),
    Response(304, headers={"ETag": '"1"'}),
    Response(404, json={}, headers=[("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]),
    Response(599, content=b"z" * 100, headers={"Date": "now"}),
]


@given(st.binary(max_size=1000))
@example(GET)
@example(POST)
def test_any_bytes_are_plain_only_if_h11_reads_the_same(data: bytes) -> None:
    if plain_request(data) is None:
        return  # h11 reads them, from the first byte
    chance = random.Random(data)
    response, reads, begins = chance.choice(ANSWERS), chance.randrange(4), chance.random() < 0.1
    shows = list(story(data, response, reads, begins=begins))
    with by_h11_alone():
        assert shows == list(story(data, response, reads, begins=begins))


@pytest.mark.parametrize("data", [GET, POST])
def test_a_plain_request_and_its_plain_answer_never_reach_h11(data: bytes) -> None:
    http = Http1()
    with mock.patch.object(h11.Connection, "receive_data", side_effect=AssertionError):
        for _ in range(2):
            http.receive(data)
            head = http.read_head()
            assert head is not None
            while http.read_piece():
                pass
            sent = b"".join(http.whole(Response(json={"ok": True}), head.method, "now"))
            assert sent.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            assert sent.endswith(b"}")
            assert http.next_request()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GET[:-2],
        GET + b"x",
        GET + GET,
        POST[:-1],
        b"\r\n" + GET,
        GET.replace(b"GET", b"HEAD"),
        GET.replace(b"1.1", b"1.0"),
        GET.replace(b"Accept: */*", b"Connection: close"),
        GET.replace(b"Accept: */*", b"Expect: 100-continue"),
        GET.replace(b"Accept: */*", b"Upgrade: websocket"),
        GET.replace(b"Accept: */*", b"Host: other.test"),
        GET.replace(b"Host: api.test\r\n", b""),
        GET.replace(b"/a", b"/\xe9"),
        GET.replace(b"/a", b"http://api.test/a"),
        POST.replace(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
        POST.replace(b": 3", b": 03"),
    ],
)
def test_what_is_more_or_less_than_a_plain_request_is_left_to_h11(data: bytes) -> None:
    assert plain_request(data) is None


def test_fields_that_come_again_are_kept_once() -> None:
    first, second = (plain_request(data) for data in (GET, GET.replace(b"/a", b"/b")))
    other = plain_request(GET.replace(b"*/*", b"text/*"))
    assert first
    assert second
    assert other
    assert first.head.headers is second.head.headers
    assert (first.head.path, second.head.path) == ("/a", "/b")
    assert other.head.headers["accept"] == "text/*"


def test_many_bytes_of_fields_are_not_kept_to_be_recognised() -> None:
    data = GET.replace(b"*/*", b"x" * KNOWN_BYTES)
    first, second = plain_request(data), plain_request(data)
    assert first
    assert second
    assert first.head.headers is not second.head.headers
