"""What RFC 9113 and RFC 7541 ask of a server, a row each: the frames that are sent, and what has to come back.

The rows are those of h2spec, written with hyperframe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import hpack
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.http2_frames import PREFACE
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import FrameClient
from tests.support.stage import ADDRESS, Stage

PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION, CALM = 1, 3, 5, 6, 9, 11
HOST: Final = f"{ADDRESS}:8443"
HEAD: Final = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", HOST)]
POST: Final = [(":method", "POST"), *HEAD[1:]]
LONG: Final = [(f"x-long-{number}", "v" * 1000) for number in range(20)]
PING: Final = PingFrame(0, opaque_data=b"h2spec!!").serialize()


def block(fields: Sequence[tuple[str, str]]) -> bytes:
    """A field block that leaves the table of fields as it is."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in fields])


def headers(
    number: int = 1,
    fields: Sequence[tuple[str, str]] = HEAD,
    flags: Sequence[str] = ("END_HEADERS", "END_STREAM"),
    data: bytes | None = None,
) -> bytes:
    return HeadersFrame(number, block(fields) if data is None else data, flags=flags).serialize()


def post(number: int = 1, fields: Sequence[tuple[str, str]] = POST) -> bytes:
    return headers(number, fields, ["END_HEADERS"])


def data(number: int = 1, content: bytes = b"test", *flags: str) -> bytes:
    return DataFrame(number, content, flags=flags).serialize()


def continuation(number: int = 1, content: bytes = b"", *flags: str) -> bytes:
    return ContinuationFrame(number, content, flags=flags).serialize()


def settings(values: dict[int, int], *flags: str) -> bytes:
    return SettingsFrame(0, values, flags=flags).serialize()


def window(number: int, increment: int) -> bytes:
    return raw(8, 0, number, increment.to_bytes(4, "big"))


def reset(number: int, code: int = 8) -> bytes:
    return RstStreamFrame(number, code).serialize()


def raw(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload
    )


@dataclass(frozen=True)
class Error:
    """The connection ends with GOAWAY, or the stream with RST_STREAM."""

    code: int
    stream: int = 0


@dataclass(frozen=True)
class Answered:
    """A stream is answered, with this body."""

    stream: int = 1
    body: bytes = b"GET / 0"


@dataclass(frozen=True)
class Alive:
    """Nothing comes but the answer to a PING: the connection goes on."""


@dataclass(frozen=True)
class Row:
    section: str
    what: str
    frames: Sequence[bytes]
    expected: Error | Answered | Alive


SPLIT: Final = block(HEAD)
ROWS: Final = [
    # RFC 9113: starting, frames.
    Row("3.4", "a preface and SETTINGS", [], Alive()),
    Row("4.1", "a frame of an unknown type", [raw(22, 0, 0, bytes(8))], Alive()),
    Row("4.1", "flags that are not defined", [raw(6, 22, 0, bytes(8))], Alive()),
    Row("4.1", "the reserved bit", [raw(6, 0, 1 << 31, bytes(8))], Alive()),
    Row("4.2", "DATA of 2^14 bytes", [post(), data(1, bytes(16384), "END_STREAM")],
        Answered(1, b"POST / 16384")),
    Row("4.2", "DATA of 2^14 + 1 bytes", [post(), data(1, bytes(16385))], Error(SIZE)),
    Row("4.2", "HEADERS of 2^14 + 1 bytes", [headers(data=bytes(16385))], Error(SIZE)),
    Row("4.2", "the head alone of a frame that is too long",
        [(1 << 23).to_bytes(3, "big") + bytes((1, 4)) + bytes(4)], Error(SIZE)),
    Row("4.3", "a field block that cannot be decoded",
        [headers(data=b"\x00\x00\x01")], Error(PROTOCOL)),
    Row("4.3", "PRIORITY within a field block",
        [headers(flags=["END_STREAM"]), PriorityFrame(1, depends_on=3).serialize(),
         continuation(1, b"", "END_HEADERS")], Error(PROTOCOL)),
    Row("4.3", "HEADERS of another stream within a field block",
        [headers(flags=["END_STREAM"]), headers(3)], Error(PROTOCOL)),
    # Streams.
    Row("5.1", "idle: DATA", [data()], Error(PROTOCOL)),
    Row("5.1", "idle: RST_STREAM", [reset(1)], Error(PROTOCOL)),
    Row("5.1", "idle: WINDOW_UPDATE", [window(1, 100)], Error(PROTOCOL)),
    Row("5.1", "idle: CONTINUATION", [continuation(1, SPLIT, "END_HEADERS")], Error(PROTOCOL)),
    Row("5.1", "half-closed: DATA", [headers(), data()], Error(CLOSED, 1)),
    Row("5.1", "half-closed: HEADERS", [headers(), headers()], Error(CLOSED, 1)),
    Row("5.1", "half-closed: CONTINUATION",
        [headers(), continuation(1, SPLIT, "END_HEADERS")], Error(PROTOCOL)),
    Row("5.1", "closed by RST_STREAM: DATA", [post(), reset(1), data()], Error(CLOSED, 1)),
    Row("5.1", "closed by RST_STREAM: HEADERS", [post(), reset(1), headers()], Error(CLOSED, 1)),
    Row("5.1", "closed by RST_STREAM: CONTINUATION",
        [post(), reset(1), continuation(1, SPLIT, "END_HEADERS")], Error(PROTOCOL)),
    Row("5.1", "closed by RST_STREAM: WINDOW_UPDATE",
        [post(), reset(1), window(1, 100)], Alive()),
    Row("5.1", "closed by RST_STREAM: RST_STREAM", [post(), reset(1), reset(1)], Alive()),
    Row("5.1.1", "an even stream", [headers(2)], Error(PROTOCOL)),
    Row("5.1.1", "a smaller stream than before", [headers(5), headers(3)], Error(PROTOCOL)),
    Row("5.1.2", "101 streams at once", [post(2 * number + 1) for number in range(101)],
        Error(PROTOCOL)),
    Row("5.3.1", "HEADERS that depend on their own stream",
        [HeadersFrame(1, SPLIT, depends_on=1, stream_weight=255,
                      flags=["PRIORITY", "END_HEADERS", "END_STREAM"]).serialize()],
        Error(PROTOCOL)),
    Row("5.3.1", "PRIORITY that depends on its own stream",
        [PriorityFrame(2, depends_on=2).serialize()], Error(PROTOCOL)),
    Row("5.3.2", "PRIORITY of a stream that never opens",
        [PriorityFrame(7, depends_on=3, stream_weight=5).serialize()], Alive()),
    Row("5.3.2", "HEADERS with a priority",
        [HeadersFrame(1, SPLIT, depends_on=3, stream_weight=255,
                      flags=["PRIORITY", "END_HEADERS", "END_STREAM"]).serialize()], Answered()),
    Row("5.4.1", "a PING that is too short ends the connection",
        [raw(6, 0, 0, b"\0")], Error(SIZE)),
    Row("5.5", "an unknown frame with flags, on a stream", [raw(255, 255, 9, bytes(100))], Alive()),
    Row("5.5", "an unknown frame within a field block",
        [headers(flags=["END_STREAM"]), raw(22, 0, 1, bytes(8)),
         continuation(1, b"", "END_HEADERS")], Error(PROTOCOL)),
    # Frames.
    Row("6.1", "DATA", [post(), data(1, b"test", "END_STREAM")], Answered(1, b"POST / 4")),
    Row("6.1", "DATA in pieces, one of them empty",
        [post(), data(), data(1, b""), data(1, b"x", "END_STREAM")], Answered(1, b"POST / 5")),
    Row("6.1", "DATA with padding",
        [post(), DataFrame(1, b"test", pad_length=100, flags=["PADDED", "END_STREAM"]).serialize()],
        Answered(1, b"POST / 4")),
    Row("6.1", "DATA of stream 0", [raw(0, 0, 0, b"test")], Error(PROTOCOL)),
    Row("6.1", "DATA that is padding alone", [post(), raw(0, 9, 1, b"\x06test!")], Error(PROTOCOL)),
    Row("6.2", "HEADERS, continued twice",
        [headers(flags=["END_STREAM"], data=SPLIT[:3]), continuation(1, SPLIT[3:5]),
         continuation(1, SPLIT[5:], "END_HEADERS")], Answered()),
    Row("6.2", "HEADERS with padding",
        [HeadersFrame(1, SPLIT, pad_length=100,
                      flags=["PADDED", "END_HEADERS", "END_STREAM"]).serialize()], Answered()),
    Row("6.2", "HEADERS, and PRIORITY before they end",
        [headers(flags=["END_STREAM"]), PriorityFrame(1, depends_on=3).serialize()],
        Error(PROTOCOL)),
    Row("6.2", "HEADERS of stream 0", [raw(1, 5, 0, SPLIT)], Error(PROTOCOL)),
    Row("6.2", "HEADERS that are padding alone", [raw(1, 0xD, 1, b"\xff" + SPLIT)],
        Error(PROTOCOL)),
    Row("6.3", "PRIORITY of stream 0", [raw(2, 0, 0, bytes(5))], Error(PROTOCOL)),
    Row("6.3", "PRIORITY of 4 bytes", [post(), raw(2, 0, 1, bytes(4))], Error(SIZE)),
    Row("6.4", "RST_STREAM of stream 0", [raw(3, 0, 0, bytes(4))], Error(PROTOCOL)),
    Row("6.4", "RST_STREAM of an idle stream", [reset(7)], Error(PROTOCOL)),
    Row("6.4", "RST_STREAM of 3 bytes", [post(), raw(3, 0, 1, bytes(3))], Error(SIZE)),
    Row("6.5", "SETTINGS", [settings({3: 100, 4: 65535})], Alive()),
    Row("6.5", "SETTINGS that acknowledge with a payload", [raw(4, 1, 0, bytes(6))], Error(SIZE)),
    Row("6.5", "SETTINGS of a stream", [raw(4, 0, 1, bytes(6))], Error(PROTOCOL)),
    Row("6.5", "SETTINGS of 3 bytes", [raw(4, 0, 0, bytes(3))], Error(SIZE)),
    Row("6.5.2", "ENABLE_PUSH of 2", [settings({2: 2})], Error(PROTOCOL)),
    Row("6.5.2", "INITIAL_WINDOW_SIZE over 2^31 - 1", [settings({4: 1 << 31})], Error(FLOW)),
    Row("6.5.2", "MAX_FRAME_SIZE under 2^14", [settings({5: 16383})], Error(PROTOCOL)),
    Row("6.5.2", "MAX_FRAME_SIZE over 2^24 - 1", [settings({5: 1 << 24})], Error(PROTOCOL)),
    Row("6.5.2", "an unknown setting", [settings({255: 1})], Alive()),
    Row("6.5.3", "INITIAL_WINDOW_SIZE twice in one frame: the last counts",
        [raw(4, 0, 0, bytes([0, 4, 0, 0, 0, 100, 0, 4, 0, 0, 0, 1])), headers()],
        Answered(1, b"G")),
    Row("6.7", "PING", [raw(6, 0, 0, b"12345678")], Alive()),
    Row("6.7", "PING that acknowledges what was not sent", [raw(6, 1, 0, b"12345678")], Alive()),
    Row("6.7", "PING of a stream", [raw(6, 0, 1, bytes(8))], Error(PROTOCOL)),
    Row("6.7", "PING of 6 bytes", [raw(6, 0, 0, bytes(6))], Error(SIZE)),
    Row("6.8", "GOAWAY, after which open streams are answered",
        [post(), GoAwayFrame(0, 0, 0).serialize(), data(1, b"test", "END_STREAM")],
        Answered(1, b"POST / 4")),
    Row("6.8", "GOAWAY of a stream", [raw(7, 0, 1, bytes(8))], Error(PROTOCOL)),
    Row("6.8", "GOAWAY of 4 bytes", [raw(7, 0, 0, bytes(4))], Error(SIZE)),
    Row("6.8", "GOAWAY within a field block",
        [headers(flags=["END_STREAM"]), GoAwayFrame(0, 0, 0).serialize()], Error(PROTOCOL)),
    Row("6.9", "WINDOW_UPDATE", [window(0, 100), post(), window(1, 100)], Alive()),
    Row("6.9", "WINDOW_UPDATE by 0", [window(0, 0)], Error(PROTOCOL)),
    Row("6.9", "WINDOW_UPDATE by 0, of a stream", [post(), window(1, 0)], Error(PROTOCOL)),
    Row("6.9", "WINDOW_UPDATE of 3 bytes", [raw(8, 0, 0, bytes(3))], Error(SIZE)),
    Row("6.9.1", "a window of 1 byte: 1 byte is sent",
        [settings({4: 1}), headers()], Answered(1, b"G")),
    Row("6.9.1", "WINDOW_UPDATE over 2^31 - 1",
        [window(0, (1 << 31) - 1), window(0, (1 << 31) - 1)], Error(FLOW)),
    Row("6.9.1", "WINDOW_UPDATE over 2^31 - 1, of a stream",
        [post(), window(1, (1 << 31) - 1), window(1, (1 << 31) - 1)], Error(FLOW, 1)),
    Row("6.9.2", "INITIAL_WINDOW_SIZE that changes after HEADERS",
        [settings({4: 0}), headers(), settings({4: 1})], Answered(1, b"G")),
    Row("6.9.2", "INITIAL_WINDOW_SIZE that makes a window negative",
        [settings({4: 3}), headers(), settings({4: 2}), window(1, 2)], Answered(1, b"GET ")),
    Row("6.9.2", "INITIAL_WINDOW_SIZE that makes a window overflow",
        [post(), window(1, (1 << 31) - 65536), settings({4: 65536 + 10})], Error(FLOW)),
    Row("6.10", "CONTINUATION of stream 0",
        [headers(flags=["END_STREAM"], data=SPLIT[:3]), raw(9, 4, 0, SPLIT[3:])],
        Error(PROTOCOL)),
    Row("6.10", "CONTINUATION after the end of a field block",
        [post(), continuation(1, SPLIT, "END_HEADERS")], Error(PROTOCOL)),
    Row("6.10", "CONTINUATION after CONTINUATION that ends the block",
        [headers(flags=[], fields=POST), continuation(1, b"", "END_HEADERS"),
         continuation(1, SPLIT, "END_HEADERS")], Error(PROTOCOL)),
    Row("6.10", "CONTINUATION after DATA",
        [post(), data(), continuation(1, SPLIT, "END_HEADERS")], Error(PROTOCOL)),
    Row("6.10", "DATA within a field block",
        [headers(flags=[], fields=POST), data(1, b"test", "END_STREAM")], Error(PROTOCOL)),
    # Codes that are not known.
    Row("7", "GOAWAY with an unknown code",
        [GoAwayFrame(0, 0, 255).serialize(), headers()], Answered()),
    Row("7", "RST_STREAM with an unknown code", [post(), reset(1, 255)], Alive()),
    # HTTP.
    Row("8.1", "HEADERS twice, the second ends nothing",
        [post(), headers(fields=[("x-test", "ok")], flags=["END_HEADERS"])], Error(PROTOCOL)),
    Row("8.1", "trailers",
        [post(), data(), headers(fields=[("x-test", "ok")])], Answered(1, b"POST / 4 x-test")),
    Row("8.2.1", "a name in upper case", [headers(fields=[*HEAD, ("X-TEST", "ok")])],
        Error(PROTOCOL)),
    Row("8.2.1", "a name with a space", [headers(fields=[*HEAD, ("x test", "ok")])],
        Error(PROTOCOL)),
    Row("8.2.1", "a name with a colon", [headers(fields=[*HEAD, ("x:test", "ok")])],
        Error(PROTOCOL)),
    Row("8.2.1", "a name of no bytes", [headers(fields=[*HEAD, ("", "ok")])], Error(PROTOCOL)),
    Row("8.2.1", "a value with CR LF", [headers(fields=[*HEAD, ("x", "a\r\nb: c")])],
        Error(PROTOCOL)),
    Row("8.2.1", "a value with NUL", [headers(fields=[*HEAD, ("x", "a\0b")])], Error(PROTOCOL)),
    Row("8.2.1", "a value that ends with a space", [headers(fields=[*HEAD, ("x", "a ")])],
        Error(PROTOCOL)),
    Row("8.2.2", "Connection", [headers(fields=[*HEAD, ("connection", "keep-alive")])],
        Error(PROTOCOL)),
    Row("8.2.2", "Transfer-Encoding",
        [headers(fields=[*POST, ("transfer-encoding", "chunked")])], Error(PROTOCOL)),
    Row("8.2.2", "Upgrade", [headers(fields=[*HEAD, ("upgrade", "h2c")])], Error(PROTOCOL)),
    Row("8.2.2", "TE: trailers", [headers(fields=[*HEAD, ("te", "trailers")])], Answered()),
    Row("8.2.2", "TE: trailers, deflate",
        [headers(fields=[*HEAD, ("te", "trailers, deflate")])], Error(PROTOCOL)),
    Row("8.3", "an unknown pseudo-header field", [headers(fields=[*HEAD, (":test", "ok")])],
        Error(PROTOCOL)),
    Row("8.3", ":status in a request", [headers(fields=[*HEAD, (":status", "200")])],
        Error(PROTOCOL)),
    Row("8.3", "a pseudo-header field in trailers",
        [post(), data(), headers(fields=[(":method", "GET")])], Error(PROTOCOL)),
    Row("8.3", "a pseudo-header field behind others",
        [headers(fields=[*HEAD[:3], ("x", "y"), HEAD[3]])], Error(PROTOCOL)),
    Row("8.3.1", "an empty :path",
        [headers(fields=[(":path", "") if n == ":path" else (n, v) for n, v in HEAD])],
        Error(PROTOCOL)),
    *(
        Row("8.3.1", f"no {left_out}", [headers(fields=[f for f in HEAD if f[0] != left_out])],
            Error(PROTOCOL))
        for left_out in (":method", ":scheme", ":path", ":authority")
    ),
    *(
        Row("8.3.1", f"{twice} twice",
            [headers(fields=[*HEAD, *(f for f in HEAD if f[0] == twice)])], Error(PROTOCOL))
        for twice in (":method", ":scheme", ":path", ":authority")
    ),
    Row("8.3.1", "a Host that differs from :authority",
        [headers(fields=[*HEAD, ("host", "other.test")])], Error(PROTOCOL)),
    Row("8.3.1", "a method that is no token",
        [headers(fields=[(":method", "GET /x"), *HEAD[1:]])], Error(PROTOCOL, 1)),
    Row("8.3.1", "OPTIONS *",
        [headers(fields=[(":method", "OPTIONS"), HEAD[1], (":path", "*"), HEAD[3]])],
        Answered(1, b"OPTIONS * 0")),
    Row("8.1.1", "a Content-Length over the body",
        [headers(fields=[*POST, ("content-length", "5")], flags=["END_HEADERS"]),
         data(1, b"test", "END_STREAM")], Error(PROTOCOL)),
    Row("8.1.1", "a Content-Length under the body",
        [headers(fields=[*POST, ("content-length", "1")], flags=["END_HEADERS"]),
         data(1, b"test", "END_STREAM")], Error(PROTOCOL)),
    Row("8.1.1", "a Content-Length with a sign",
        [headers(fields=[*POST, ("content-length", "+4")], flags=["END_HEADERS"]),
         data(1, b"test", "END_STREAM")], Error(PROTOCOL)),
    Row("8.4", "PUSH_PROMISE of a client",
        [PushPromiseFrame(1, 2, SPLIT, flags=["END_HEADERS"]).serialize()], Error(PROTOCOL)),
    # RFC 7541.
    Row("HPACK 2.3.3", "an index beyond the tables", [headers(data=SPLIT + b"\xff\x10")],
        Error(PROTOCOL)),
    Row("HPACK 4.2", "a new size of the table at the end of a block",
        [headers(data=SPLIT + b"\x20")], Error(PROTOCOL)),
    Row("HPACK 5.2", "Huffman padding of more than 7 bits",
        [headers(data=SPLIT + b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")],
        Error(PROTOCOL)),
    Row("HPACK 5.2", "Huffman padding of zeros",
        [headers(data=SPLIT + b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")], Error(PROTOCOL)),
    Row("HPACK 5.2", "Huffman with EOS",
        [headers(data=SPLIT + b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\x9f\xff\xff\xff\xff")],
        Error(PROTOCOL)),
    Row("HPACK 5.1", "an integer that overflows",
        [headers(data=SPLIT + b"\xff" + b"\xff" * 20 + b"\x7f")], Error(PROTOCOL)),
    Row("HPACK 6.1", "an index of 0", [headers(data=SPLIT + b"\x80")], Error(PROTOCOL)),
    Row("HPACK 6.3", "a table that is larger than allowed",
        [headers(data=b"\x3f\xe2\x1f" + SPLIT)], Error(PROTOCOL)),
    Row("HPACK 6.1", "every kind of field",
        [headers(data=hpack.Encoder().encode([*HEAD, ("x-new", "v"), ("x-new", "v")]))],
        Answered()),
    # RFC 8441.
    Row("8441 4", ":protocol without CONNECT", [headers(fields=[*HEAD, (":protocol", "websocket")])],
        Error(PROTOCOL)),
]  # fmt: skip


def shows(request: Request) -> Response:
    names = "".join(f" {name}" for name in request.trailers)
    return Response(text=f"{request.method} {request.path} {len(request.content)}{names}")


def begin(stage: Stage) -> FrameClient:
    stage.http(HOST, shows, optional=True)
    client = FrameClient(stage.dial(ADDRESS, 8443))
    client.begin()
    return client


def body_of(client: FrameClient, stream: int) -> bytes:
    return b"".join(
        frame.data
        for frame in client.frames
        if isinstance(frame, DataFrame) and frame.stream_id == stream
    )


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.section}: {row.what}" for row in ROWS])
def test_a_server_does_what_the_rfc_says(stage: Stage, row: Row) -> None:
    client = begin(stage)
    client.sock.sendall(b"".join([*row.frames, PING]))
    expected = row.expected
    if isinstance(expected, Error):
        assert error_of(client, expected.stream) == expected.code
    elif isinstance(expected, Answered):
        assert client.until(lambda frame: body_of(client, expected.stream) == expected.body)
    else:
        assert client.until(answers_ping)
        assert not [f for f in client.frames if isinstance(f, (GoAwayFrame, RstStreamFrame))]
    if isinstance(expected, Error) and not expected.stream:
        assert client.until(lambda frame: False) is None
        assert client.closed
        client.sock.close()
        stage.settle()
        (entry,) = (e for e in stage.window.entries if isinstance(e, TcpConnection))
        assert entry.outcome == "unrouted"
        told = entry.note.removeprefix("the request cannot be read: ")
        assert told != entry.note
        assert len(told.split()) > 2  # words, and no number, and nothing of h2's own
        assert not re.search(r"Inputs|State|state \d|0x|\wError\b", told)


def error_of(client: FrameClient, stream: int) -> int | None:
    """The code of the GOAWAY that comes, or of the RST_STREAM of a stream."""
    kind = RstStreamFrame if stream else GoAwayFrame
    frame = client.until(lambda f: isinstance(f, kind) and f.stream_id == stream)
    return None if frame is None else int(frame.error_code)  # type: ignore[attr-defined]


def answers_ping(frame: Frame) -> bool:
    return isinstance(frame, PingFrame) and frame.opaque_data == b"h2spec!!"


def test_a_preface_that_is_none_is_no_http_2(stage: Stage) -> None:
    client = FrameClient(stage.dial(ADDRESS, 8443))
    client.sock.sendall(PREFACE.replace(b"SM", b"XX"))
    assert error_of(client, 0) == PROTOCOL


def test_each_setting_is_acknowledged(stage: Stage) -> None:
    client = begin(stage)
    client.sock.sendall(settings({3: 1}) + settings({3: 2}) + PING)
    assert client.until(answers_ping)
    acknowledged = [f for f in client.frames if isinstance(f, SettingsFrame) and "ACK" in f.flags]
    assert len(acknowledged) == 3


def test_the_server_says_what_it_allows(stage: Stage) -> None:
    client = begin(stage)
    frame = client.until(lambda f: isinstance(f, SettingsFrame) and not f.flags)
    assert isinstance(frame, SettingsFrame)
    said = {int(name): value for name, value in frame.settings.items()}
    assert (said[3], said[4], said[6], said[8]) == (100, 1 << 20, 65_536, 1)
    grown = client.until(lambda f: isinstance(f, WindowUpdateFrame) and not f.stream_id)
    assert isinstance(grown, WindowUpdateFrame)
    assert grown.window_increment == (1 << 24) - 65_535


def test_requests_before_a_bad_frame_are_answered_or_recorded(stage: Stage) -> None:
    """h2 loses them, given all at once."""
    client = begin(stage)
    client.sock.sendall(headers(1) + headers(3) + raw(0, 0, 0, b"test"))
    assert error_of(client, 0) == PROTOCOL
    assert [e.outcome for e in stage.entries(Exchange)] == ["routed", "routed"]
