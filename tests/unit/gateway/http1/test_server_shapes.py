"""HTTP/1.1 that is not as RFC 9112 has it: what each shape is answered, and what is recorded of it.

Of two servers in a row, one may read such a request as another one, or as two (request smuggling). None of these
reaches a handler, and nothing that follows on its connection does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest

from pytest_egress.gateway import connection as connection_module
from pytest_egress.traffic.entries import UNREADABLE, Entry, Exchange, TcpConnection
from tests.support.stage import Stage, ask, read_reply

SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"
POST: Final = b"POST / HTTP/1.1\r\nHost: api.test\r\n"
CHUNKED: Final = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET_1_0: Final = b"GET / HTTP/1.0\r\nHost: api.test\r\n"


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.05)


@dataclass(frozen=True)
class Shape:
    """A row: what is sent, with what status it is answered, and what the note says of it."""

    name: str
    data: bytes
    note: str
    status: int = 400


TWO: Final = "it has both Content-Length and Transfer-Encoding (RFC 9112 section 6.1)"
VALUES: Final = "its Content-Length has {} values (RFC 9110 section 8.6)"
LF: Final = "a line of its head ends in LF alone: lines end in CR LF (RFC 9112 section 2.2)"
CR: Final = "a line of its head has a CR without LF: lines end in CR LF (RFC 9112 section 2.2)"
FOLDED: Final = (
    "a line of its head begins with white space, after its field '{}': a field is one line "
    "(RFC 9112 section 5.2)"
)
CONTROL: Final = "its {} has a control character, in its field 'X' (RFC 9110 section 5.5)"
VERSION: Final = "its version is '{}': HTTP/1.1 or HTTP/1.0 was expected (RFC 9112 section 2.3)"
TARGET: Final = "its request-target begins with '{}': a path begins with '/' (RFC 9112 section 3.2)"

HEADS: Final = [
    # Where the body ends.
    Shape(
        "TE, CL", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", TWO
    ),
    Shape(
        "CL, TE", POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", TWO
    ),
    Shape("cl, te", POST + b"content-length:4\r\ntransfer-encoding:chunked\r\n\r\n0\r\n\r\n", TWO),
    Shape("CL, CL", POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", VALUES.format(2)),
    Shape("list of CL", POST + b"Content-Length: 2, 2, 2\r\n\r\nhi", VALUES.format(3)),
    Shape("two CL", POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", VALUES.format(2)),
    Shape(
        "TE in 1.0",
        GET_1_0 + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "it has Transfer-Encoding, which HTTP/1.0 has not (RFC 9112 section 6.1)",
    ),
    Shape("signed CL", POST + b"Content-Length: +2\r\n\r\nhi", "bad Content-Length"),
    Shape("hex CL", POST + b"Content-Length: 0x2\r\n\r\nhi", "bad Content-Length"),
    Shape("empty CL", POST + b"Content-Length:\r\n\r\n", "bad Content-Length"),
    Shape("endless CL", POST + b"Content-Length: %b\r\n\r\n" % (b"9" * 30), "bad Content-Length"),
    Shape(
        "other TE",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        "Only Transfer-Encoding: chunked is supported",
        501,
    ),
    Shape(
        "chunked twice",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        "Only Transfer-Encoding: chunked is supported",
        501,
    ),
    Shape(
        "TE, TE",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        "multiple Transfer-Encoding headers",
        501,
    ),
    Shape(
        "folded TE",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n",
        FOLDED.format("Transfer-Encoding"),
    ),
    # Lines.
    Shape("LF", b"GET / HTTP/1.1\nHost: api.test\n\n", LF),
    Shape("LF at the end", b"GET / HTTP/1.1\r\nHost: api.test\r\n\n", LF),
    Shape("LF of one field", b"GET / HTTP/1.1\r\nX: y\nHost: api.test\r\n\r\n", LF),
    Shape("CR", b"GET / HTTP/1.1\r\nHost: api.test\r\nX: y\rZ: y\r\n\r\n", CR),
    Shape("CR, CR, LF", b"GET / HTTP/1.1\r\nHost: api.test\r\nX: y\r\r\n\r\n", CR),
    Shape("folded", POST + b"X: y\r\n z\r\n\r\n", FOLDED.format("X")),
    Shape("folded by a tab", POST + b"X: y\r\n\tz\r\n\r\n", FOLDED.format("X")),
    Shape("folded Host", POST + b" Content-Length: 4\r\n\r\n", FOLDED.format("Host")),
    Shape("NUL", POST + b"X: y\0z\r\n\r\n", CONTROL.format("head")),
    Shape("escape", POST + b"X: \x1b[2J\r\n\r\n", CONTROL.format("head")),
    Shape("DEL", POST + b"X: \x7f\r\n\r\n", CONTROL.format("head")),
    Shape("vertical tab", POST + b"X: \x0bchunked\r\n\r\n", CONTROL.format("head")),
    Shape("space before the colon", POST + b"Content-Length : 2\r\n\r\nhi", "illegal header line"),
    Shape("no colon", POST + b"Content-Length 2\r\n\r\n", "illegal header line"),
    Shape("no name", POST + b": 2\r\n\r\n", "illegal header line"),
    # Hosts and request lines.
    Shape("no Host", b"GET / HTTP/1.1\r\n\r\n", "Missing mandatory Host: header"),
    Shape("two Hosts", POST + b"Host: other.test\r\n\r\n", "Found multiple Host: headers"),
    Shape("HTTP/1.9", b"GET / HTTP/1.9\r\nHost: api.test\r\n\r\n", VERSION.format("HTTP/1.9")),
    Shape("HTTP/0.9", b"GET / HTTP/0.9\r\nHost: api.test\r\n\r\n", VERSION.format("HTTP/0.9"), 505),
    Shape("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: api.test\r\n\r\n", VERSION.format("HTTP/3.0"), 505),
    Shape("no version", b"GET /\r\nHost: api.test\r\n\r\n", "illegal request line"),
    Shape("two spaces", b"GET  / HTTP/1.1\r\nHost: api.test\r\n\r\n", "illegal request line"),
    Shape(
        "control character in the path",
        b"GET /\x01 HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "its head has a control character (RFC",
    ),
    Shape("path without a slash", b"GET x HTTP/1.1\r\nHost: api.test\r\n\r\n", TARGET.format("x")),
    Shape("query alone", b"GET ?x=y HTTP/1.1\r\nHost: api.test\r\n\r\n", TARGET.format("?")),
    Shape("asterisk", b"GET * HTTP/1.1\r\nHost: api.test\r\n\r\n", TARGET.format("*")),
]

LAST: Final = CHUNKED + b"2\r\nhi\r\n0\r\n"
TRAILER_LF: Final = "a line of its trailer section ends in LF alone"

BODIES: Final = [
    Shape("LF for trailers", LAST + b"\n", TRAILER_LF),
    Shape("LF in trailers", LAST + b"X: y\n\r\n", TRAILER_LF),
    Shape("LF after trailers", LAST + b"X: y\r\n\n", TRAILER_LF),
    Shape(
        "folded trailer",
        LAST + b"X: y\r\n z\r\n\r\n",
        "a line of its trailer section begins with white space: a",
    ),
    Shape("escape in a trailer", LAST + b"X: \x1b\r\n\r\n", CONTROL.format("trailer section")),
    Shape("no colon in a trailer", LAST + b"X\r\n\r\n", "illegal header line"),
    Shape("hex chunk", CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n", "illegal chunk header"),
    Shape("signed chunk", CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n", "illegal chunk header"),
    Shape("endless chunk", CHUNKED + b"F" * 21 + b"\r\n", "illegal chunk header"),
    Shape("no size", CHUNKED + b";a=b\r\n", "illegal chunk header"),
    Shape("space before an extension", CHUNKED + b"2 ;a\r\nhi\r\n", "illegal chunk header"),
    Shape("LF in an extension", CHUNKED + b'2;a="\n"\r\nhi\r\n', "illegal chunk header"),
    Shape("LF after a size", CHUNKED + b"2\nhi\r\n0\r\n\r\n", "illegal chunk header"),
    Shape("chunk that is too long", CHUNKED + b"2\r\nhi!\r\n0\r\n\r\n", "malformed chunk footer"),
    Shape("LF after a chunk", CHUNKED + b"2\r\nhi\n0\r\n\r\n", "malformed chunk footer"),
]


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("shape", HEADS, ids=lambda shape: shape.name)
def test_a_head_that_is_not_in_order_is_answered_by_no_route_and_recorded(
    stage: Stage, shape: Shape, secure: bool
) -> None:
    declare = stage.https if secure else stage.http
    route, sock = declare("api.test", b"yes"), stage.tls() if secure else stage.dial(port=80)
    assert ask(sock).body == b"yes"
    reply = ask(sock, shape.data + SMUGGLED, "POST")
    assert (reply.status, reply.headers["connection"]) == (shape.status, "close")
    assert sock.recv(1) == b""
    _, entry = stage.entries(Entry)
    assert isinstance(entry, TcpConnection)
    assert (entry.outcome, entry.note[: len(UNREADABLE)]) == ("unrouted", UNREADABLE)
    assert (entry.sni, entry.tls is not None) == ("api.test" if secure else None, secure)
    assert shape.note in entry.note
    assert reply.body.decode() == entry.note
    assert route.call_count == 1


@pytest.mark.parametrize("cut", [1, 7], ids=["byte by byte", "by seven"])
@pytest.mark.parametrize("shape", [*HEADS, *BODIES], ids=lambda shape: shape.name)
def test_a_shape_is_the_same_however_it_is_cut(stage: Stage, shape: Shape, cut: int) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    ask(sock)
    for at in range(0, len(shape.data), cut):
        sock.sendall(shape.data[at : at + cut])
    assert read_reply(sock, "POST").status == shape.status
    _, entry = stage.entries(Entry)
    assert shape.note in entry.note


@pytest.mark.parametrize("shape", BODIES, ids=lambda shape: shape.name)
def test_a_body_that_is_not_in_order_is_answered_by_no_route_and_recorded(
    stage: Stage, shape: Shape
) -> None:
    route, sock = stage.https("api.test", b"yes"), stage.tls()
    reply = ask(sock, shape.data + SMUGGLED, "POST")
    assert (reply.status, reply.headers["connection"]) == (shape.status, "close")
    assert sock.recv(1) == b""
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.response.status_code) == ("recorded", shape.status)
    assert shape.note in entry.note
    assert reply.body.decode() == entry.note
    assert route.call_count == 0


@pytest.mark.parametrize(
    "data",
    [
        b'2;a=b;c="d"\r\nhi\r\n0\r\n\r\n',
        b"2;" + b"a" * 60_000 + b"\r\nhi\r\n0\r\n\r\n",
        b"02\r\nhi\r\n000\r\n\r\n",
        b"2\t\r\nhi\r\n0;a\r\n\r\n",
        b"1\r\nh\r\n1\r\ni\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: y\r\n\r\n",
    ],
    ids=["extensions", "a long extension", "leading zeros", "a tab", "trailers that frame"],
)
def test_chunks_that_are_in_order_are_read_and_what_they_carry_changes_nothing(
    stage: Stage, data: bytes
) -> None:
    route = stage.https("api.test", lambda request: request.content)
    sock = stage.tls()
    assert ask(sock, CHUNKED + data, "POST").body == b"hi"
    assert ask(sock).status == 200
    first, second = route.calls
    assert first.request.headers["host"] == "api.test"
    assert "content-length" not in first.request.headers
    assert second.request.content == b""
