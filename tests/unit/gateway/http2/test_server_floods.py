"""Attacks on servers of HTTP/2 that have a number: each is sent, and ends with its connection, recorded."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import hpack
import pytest
from hyperframe.frame import GoAwayFrame

import pytest_egress.base.wire as wire_module
import pytest_egress.traffic.http.http2 as http2
from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.http2 import IDLE_FRAMES, RESET_BURST, RESET_RATE, Bucket
from pytest_egress.traffic.http.request import Request
from tests.support.http2_client import FrameClient, Http2Client
from tests.support.stage import ADDRESS, SECONDS, Stage, eventually

PROTOCOL, CALM = 1, 11
HOST: Final = f"{ADDRESS}:8443"
HEAD: Final = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", HOST)]
POST: Final = [(":method", "POST"), *HEAD[1:]]
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">L", len(payload))[1:] + struct.pack(">BBL", kind, flags, stream) + payload


def plain(fields: list[tuple[str, str]]) -> bytes:
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*each) for each in fields])


GET_BLOCK, POST_BLOCK = plain(HEAD), plain(POST)


def rapid_reset() -> Iterator[bytes]:
    for number in range(1, 4 * RESET_BURST, 2):
        yield frame(1, END_HEADERS | END_STREAM, number, GET_BLOCK)
        yield frame(3, 0, number, struct.pack(">L", 8))


def made_you_reset() -> Iterator[bytes]:
    """The client breaks a rule of streams, and the server resets (CVE-2025-8671)."""
    for number in range(1, 4 * RESET_BURST, 2):
        yield frame(1, END_HEADERS, number, POST_BLOCK)
        yield frame(8, 0, number, struct.pack(">L", 0x7FFFFFFF))


def malformed_requests() -> Iterator[bytes]:
    block = plain([(":method", "GET /"), *HEAD[1:]])
    for number in range(1, 4 * RESET_BURST, 2):
        yield frame(1, END_HEADERS | END_STREAM, number, block)


def in_a_row(each: bytes, first: bytes = b"") -> Callable[[], Iterator[bytes]]:
    def frames() -> Iterator[bytes]:
        yield first
        for _ in range(IDLE_FRAMES + 100):
            yield each

    return frames


def continuations() -> Iterator[bytes]:
    yield frame(1, END_STREAM, 1, GET_BLOCK)
    for _ in range(200):
        yield frame(9, 0, 1, b"")


def bomb() -> Iterator[bytes]:
    """80 KB that decode to 4 MB: an entry of the table, a thousand times."""
    encoder = hpack.Encoder()
    block = encoder.encode([*HEAD, ("x", "v" * 4000)]) + b"\xbe" * 1000
    yield frame(1, END_HEADERS | END_STREAM, 1, block)


def many_fields() -> Iterator[bytes]:
    yield frame(1, END_HEADERS | END_STREAM, 1, plain([*HEAD, *[("x", "v" * 100)] * 150]))


def many_streams() -> Iterator[bytes]:
    for number in range(1, 403, 2):
        yield frame(1, END_HEADERS, number, POST_BLOCK)


OPEN = frame(1, END_HEADERS, 1, POST_BLOCK)


@dataclass(frozen=True)
class Attack:
    frames: Callable[[], Iterator[bytes]]
    code: int
    note: str


ROW: Final = "10000 frames in a row brought neither a request nor a body"
RESETS: Final = "more than 1000 streams were reset within seconds"
ATTACKS: Final = {
    "rapid reset (CVE-2023-44487)": Attack(rapid_reset, CALM, RESETS),
    "made you reset (CVE-2025-8671)": Attack(made_you_reset, CALM, RESETS),
    "malformed requests": Attack(malformed_requests, CALM, RESETS),
    "PING (CVE-2019-9512)": Attack(in_a_row(frame(6, 0, 0, bytes(8))), CALM, ROW),
    "SETTINGS (CVE-2019-9515)": Attack(
        in_a_row(frame(4, 0, 0, struct.pack(">HL", 3, 100))), CALM, ROW
    ),
    "empty DATA (CVE-2019-9518)": Attack(in_a_row(frame(0, 0, 1), OPEN), CALM, ROW),
    "PRIORITY (CVE-2019-9513)": Attack(
        in_a_row(frame(2, 0, 3, struct.pack(">LB", 1, 5)), OPEN), CALM, ROW
    ),
    "WINDOW_UPDATE": Attack(in_a_row(frame(8, 0, 0, struct.pack(">L", 1))), CALM, ROW),
    "unknown frames": Attack(in_a_row(frame(77, 0, 0, b"x")), CALM, ROW),
    "CONTINUATION (CVE-2024-27316)": Attack(
        continuations, PROTOCOL, "Too many continuation frames received."
    ),
    "HPACK bomb (CVE-2016-6581)": Attack(bomb, CALM, "Oversized header block"),
    "too many open streams": Attack(many_streams, PROTOCOL, "Max inbound streams is 100"),
}


def begin(stage: Stage, handler: object = b"ok") -> FrameClient:
    stage.http(HOST, handler, optional=True)
    client = FrameClient(stage.dial(ADDRESS, 8443))
    client.begin()
    return client


def attack(client: FrameClient, frames: Iterator[bytes]) -> GoAwayFrame | None:
    """Send until the server has had enough, reading what it sends."""
    waiting = b""
    with contextlib.suppress(OSError):
        for each in frames:
            waiting += each
            if len(waiting) > 30_000:
                client.sock.sendall(waiting)
                waiting = b""
                while client.read(0.0001):
                    pass
        client.sock.sendall(waiting)
    found = client.until(lambda f: isinstance(f, GoAwayFrame))
    assert found is None or isinstance(found, GoAwayFrame)
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_with_its_connection_and_is_recorded(stage: Stage, name: str) -> None:
    said = ATTACKS[name]
    client = begin(stage)
    goaway = attack(client, said.frames())
    assert goaway is not None
    assert goaway.error_code == said.code
    client.sock.close()
    assert eventually(lambda: not len(stage.gateway.connections))
    stage.settle()
    *_, entry = (e for e in stage.window.entries if isinstance(e, TcpConnection))
    assert entry.outcome == "unrouted"
    assert said.note in entry.note


def test_each_request_of_a_rapid_reset_is_in_the_ledger(stage: Stage) -> None:
    client = begin(stage)
    goaway = attack(client, rapid_reset())
    assert goaway is not None
    client.sock.close()
    assert eventually(lambda: not len(stage.gateway.connections))
    streams = (goaway.last_stream_id + 1) // 2
    assert streams > RESET_BURST
    assert len(stage.entries(Exchange)) == streams


def read_all(sock: socket.socket) -> None:
    sock.settimeout(SECONDS)
    with contextlib.suppress(OSError):
        while sock.recv(1 << 20):
            pass


def test_a_client_that_does_not_read_is_not_read_either(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 1 << 16
    monkeypatch.setattr(http2, "IDLE_FRAMES", 1 << 40)  # else their number would end it
    monkeypatch.setattr(wire_module, "MAX_UNSENT", most)
    client = begin(stage)
    assert client.read()
    (connection,) = stage.gateway.connections
    wire = connection.multiplexed._wire  # type: ignore[union-attr]
    for sock, option in ((client.sock, socket.SO_RCVBUF), (connection.sock, socket.SO_SNDBUF)):
        sock.setsockopt(socket.SOL_SOCKET, option, 1 << 17)  # else kernels take megabytes first
    pings, sent = frame(6, 0, 0, bytes(8)) * 1000, 0
    client.sock.settimeout(0.2)

    def is_stuck() -> bool:
        nonlocal sent
        try:
            sent += client.sock.send(pings)
        except TimeoutError:
            return bool(wire.is_full)
        return False

    while not is_stuck():
        assert sent < 100_000_000
    assert most < len(wire._unsent) < most + 4 * READ_BYTES
    reads = threading.Thread(target=read_all, args=(client.sock,), daemon=True)
    reads.start()
    assert eventually(lambda: not wire.is_full)  # once it reads, so are we
    stage.gateway.stop()
    reads.join(SECONDS)


def test_a_download_of_many_windows_is_no_flood(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client sends a WINDOW_UPDATE for each piece that it reads."""
    monkeypatch.setattr(http2, "IDLE_FRAMES", 50)
    stage.http(HOST, lambda request: bytes(2_000_000))
    client = Http2Client(stage.dial(ADDRESS, 8443), "http")
    assert len(client.ask(host=HOST).body) == 2_000_000


def test_handlers_whose_client_has_reset_count_against_the_threads_of_a_target(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, began = threading.Event(), []
    monkeypatch.setattr(stage.gateway.workers, "_most", 5)

    def handler(request: Request) -> bytes:
        began.append(request.path)
        assert go.wait(SECONDS)
        return b"ok"

    client = begin(stage, handler)
    for number in range(1, 41, 2):
        client.sock.sendall(frame(1, END_HEADERS | END_STREAM, number, GET_BLOCK))
        client.sock.sendall(frame(3, 0, number, struct.pack(">L", 8)))
    assert eventually(lambda: len(began) == 5)
    assert len(stage.gateway.workers) == 5
    go.set()
    assert eventually(lambda: len(began) == 20)
    assert len(stage.entries(Exchange)) == 20


def test_the_budget_of_resets_refills_and_never_over_its_burst() -> None:
    now = [0.0]
    bucket = Bucket(lambda: now[0])
    assert all(bucket.take_token() for _ in range(RESET_BURST))
    assert not bucket.take_token()
    now[0] += 1
    assert sum(bucket.take_token() for _ in range(1000)) <= RESET_RATE
    now[0] += 1_000_000
    assert sum(bucket.take_token() for _ in range(2 * RESET_BURST)) == RESET_BURST
