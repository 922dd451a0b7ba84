"""Connections of HTTP/2 that wait for their client: closed after a while, and seen while they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway.http2 import server as http2_server
from pytest_egress.traffic.entries import Exchange
from tests.support.http2_client import Http2Client
from tests.support.stage import SECONDS, Stage, client_context, eventually


@pytest.fixture
def impatient(ca: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """An idle connection is closed at once, one that has not been used never."""
    monkeypatch.setattr(connection_module, "PARK_SECONDS", 0.01)
    monkeypatch.setattr(http2_server, "PARK_SECONDS", 0.01)
    stage = Stage(ca, idle_seconds=0.1, unused_seconds=10 * SECONDS)
    with stage.open:
        stage.gateway.start()
        yield stage
    assert not stage.window.complaints
    assert not stage.locks.broken


def connect(stage: Stage, ca: trustme.CA) -> Http2Client:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(stage.tls(context=context))


def test_an_idle_client_is_told_before_its_connection_is_closed(
    impatient: Stage, ca: trustme.CA
) -> None:
    impatient.https("api.test", b"yes")
    client = connect(impatient, ca)
    assert client.ask().body == b"yes"
    assert client.until(lambda: client.goaway)
    assert client.goaway is not None
    assert (client.goaway.error_code, client.goaway.last_stream_id) == (0, 1)
    assert not client.until(lambda: False)
    assert client.closed
    assert len(impatient.entries(Exchange)) == 1


@pytest.mark.parametrize(("method", "outcome"), [("GET", "recorded"), ("POST", "unrouted")])
def test_a_request_that_crosses_the_end_is_recorded_and_what_begins_nothing_is_not(
    impatient: Stage, ca: trustme.CA, method: str, outcome: str
) -> None:
    impatient.https("api.test", b"yes", method="GET")
    polite, late = connect(impatient, ca), connect(impatient, ca)
    for client in (polite, late):
        client.ask()
        assert client.until(lambda client=client: client.goaway)  # type: ignore[misc]
    polite.sock.sendall(bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8))  # PING
    # h2's client opens no stream after a GOAWAY: a field block of its own, all of it from the static table.
    block = bytes([0x82 if method == "GET" else 0x83, 0x87, 0x84, 0x01, 8]) + b"api.test"
    late.sock.sendall(bytes([0, 0, len(block), 1, 5, 0, 0, 0, 3]) + block)
    assert eventually(lambda: not len(impatient.gateway.connections))
    first, second, entry = impatient.entries(Exchange)
    assert {first.outcome, second.outcome} == {"routed"}
    assert entry.outcome == outcome
    assert entry.note == (
        "sent something in the moment in which it was closed: it had been idle for 0.1 s"
    )


def test_ping_makes_no_idle_connection_last_longer(impatient: Stage, ca: trustme.CA) -> None:
    impatient.https("api.test", b"yes")
    client = connect(impatient, ca)
    client.ask()
    ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8)

    def pinged() -> bool:
        client.sock.sendall(ping)
        client.read(0.02)
        return client.goaway is not None

    assert eventually(pinged)


def test_what_is_being_read_keeps_a_window_open(
    stage: Stage, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the read and the begin of a stream, no byte is unread and nothing is under way."""
    stage.https("api.test", b"yes")
    client = connect(stage, ca)
    client.ask()
    stage.settle()
    (connection,) = stage.gateway.connections
    read, go = threading.Event(), threading.Event()
    http: Any = connection.multiplexed._http  # type: ignore[union-attr]
    receive = http.receive

    def slowly(data: bytes) -> Iterator[object]:
        read.set()
        assert go.wait(SECONDS)
        yield from receive(data)

    monkeypatch.setattr(http, "receive", slowly)
    number = client.begin("/next")
    client.flush()
    assert read.wait(SECONDS)
    assert all(stage.gateway.unread() for _ in range(500))
    assert not stage.window.activities
    go.set()
    assert client.answer(number).body == b"yes"
    assert eventually(lambda: not stage.gateway.unread())
    assert len(stage.entries(Exchange)) == 2


def test_what_is_unread_while_others_are_answered_keeps_a_window_open_too(
    stage: Stage, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, reads, waits = threading.Event(), threading.Event(), threading.Event()
    stage.https("api.test", lambda request: str(go.wait(SECONDS)))
    client = connect(stage, ca)
    first = client.begin("/first")
    client.flush()
    assert eventually(lambda: stage.count("/first"))
    (connection,) = stage.gateway.connections
    wire: Any = connection.multiplexed._wire  # type: ignore[union-attr]
    wait = wire.wait

    def late(seconds: float) -> bool:
        waits.set()
        assert reads.wait(SECONDS)
        return bool(wait(seconds))

    monkeypatch.setattr(wire, "wait", late)
    assert waits.wait(SECONDS)  # nobody reads
    assert not stage.gateway.unread()
    second = client.begin("/second")
    client.flush()
    assert eventually(stage.gateway.unread)
    assert (connection.idle_since, connection.is_reading) == (None, False)
    reads.set()
    go.set()
    assert [client.answer(number).body for number in (first, second)] == [b"True"] * 2
