"""What the first bytes of a connection, or its silence, lead to."""

from __future__ import annotations

import socket

import pytest

from pytest_egress.gateway import dispatch
from pytest_egress.traffic.entries import Entry, TcpConnection, TlsFailure
from tests.support.stage import ADDRESS, FIRST, Stage, ask, end_of, eventually, reset

# Each shortens one wait alone: on a busy machine the others still have to be long enough.


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.3)


@pytest.fixture
def short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "STALLED_SECONDS", 0.3)


def test_tls_is_found_on_any_port(stage: Stage) -> None:
    stage.https("api.test:8443", lambda request: request.url)
    assert ask(stage.tls(port=8443)).body == b"https://api.test:8443/"


def test_plain_http_is_found_on_any_port(stage: Stage) -> None:
    stage.resolve("api.test")
    stage.http("api.test:443", lambda request: request.url)
    assert ask(stage.dial(FIRST, 443)).body == b"http://api.test:443/"


def test_plain_http_to_an_address_is_keyed_on_it_then_on_its_host(stage: Stage) -> None:
    stage.http("api.test", b"by name")
    assert ask(stage.dial(ADDRESS, 80)).body == b"by name"
    stage.http(ADDRESS, b"by address")
    assert ask(stage.dial(ADDRESS, 80)).body == b"by address"


# What is neither TLS nor HTTP.


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        bytes(64),
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"EHLO target.test\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff\xfe\xfd",
        b"GARBAGE\n",
    ],
    ids=["ssh", "zeros", "postgres", "smtp", "redis", "binary", "word"],
)
def test_what_is_neither_tls_nor_http_is_reset_and_recorded(
    stage: Stage, first_bytes: bytes
) -> None:
    sock = stage.dial(ADDRESS, 5432)
    sock.sendall(first_bytes)
    assert end_of(sock) == "reset"
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.host, attempt.port) == ("unrouted", ADDRESS, 5432)
    assert (attempt.address, attempt.first_bytes) == (ADDRESS, first_bytes)


def test_garbage_is_unrouted_at_a_claimed_address_too(stage: Stage) -> None:
    stage.https(ADDRESS)
    sock = stage.dial()
    sock.sendall(b"\x00garbage")
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).outcome == "unrouted"


def test_a_blocked_address_fails_no_test_whatever_is_spoken(stage: Stage) -> None:
    stage.route("block", ADDRESS)
    sock = stage.dial()
    sock.sendall(b"\x00garbage")
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).outcome == "blocked"


@pytest.mark.parametrize("beginning", [b"G", b"SSH-2.0-x", b"GET ", b"GET nowhere"])
def test_a_client_that_stops_within_its_first_word_is_recorded(
    stage: Stage, short_stall: None, beginning: bytes
) -> None:
    sock = stage.dial()
    sock.sendall(beginning)
    assert end_of(sock) == "reset"
    assert stage.only(TcpConnection).first_bytes == beginning


def test_a_client_that_connects_and_closes_is_recorded(stage: Stage) -> None:
    stage.dial(ADDRESS, 5432).close()
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.note) == (
        "unrouted",
        "connected and closed without sending a byte",
    )


def test_a_client_that_connects_and_resets_is_recorded(stage: Stage) -> None:
    reset(stage.dial(ADDRESS, 5432))
    attempt = stage.only(TcpConnection)
    assert attempt.outcome == "unrouted"
    assert attempt.note.startswith("broke off: ")


def test_a_silent_client_is_reset_at_an_unclaimed_address(
    stage: Stage, short_silence: None
) -> None:
    assert end_of(stage.dial(ADDRESS, 5432)) == "reset"
    attempt = stage.only(TcpConnection)
    assert (attempt.outcome, attempt.note) == (
        "unrouted",
        "connected and sent nothing within 0.3 s",
    )


def test_a_silent_client_may_speak_late_at_a_claimed_address(
    stage: Stage, short_silence: None
) -> None:
    stage.http(ADDRESS, b"at last")
    sock = stage.dial(ADDRESS, 80)
    assert eventually(lambda: stage.window.entries)
    stage.settle()  # it is idle: no window waits for it
    assert ask(sock).body == b"at last"
    silence, exchange = stage.entries(Entry)
    assert isinstance(silence, TcpConnection)
    assert (silence.outcome, exchange.outcome) == ("recorded", "routed")


def test_a_client_that_is_silent_after_the_handshake_is_treated_likewise(
    stage: Stage, short_silence: None
) -> None:
    assert end_of(stage.tls("other.test")) == "reset"
    stage.https("api.test", b"at last")
    sock = stage.tls("api.test")
    assert eventually(lambda: len(stage.window.entries) == 2)
    assert ask(sock).body == b"at last"
    sock.close()
    unclaimed, claimed, exchange = stage.entries(Entry)
    for entry, outcome in ((unclaimed, "unrouted"), (claimed, "recorded")):
        assert isinstance(entry, TlsFailure)
        assert (entry.outcome, entry.reason) == (outcome, "silent")
        assert entry.note == "sent nothing within 0.3 s of the handshake"
    assert exchange.outcome == "routed"


def test_a_dial_of_the_listener_itself_is_no_attempt(stage: Stage) -> None:
    sock = stage.open.enter_context(stage.link.dial_listener())
    assert end_of(sock) == "closed"
    assert stage.entries(Entry) == []


def test_a_destination_that_the_kernel_has_forgotten_fails_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgotten(sock: socket.socket) -> tuple[str, int]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(stage.link, "destination", forgotten)
    assert end_of(stage.dial()) == "closed"
    stage.settle()
    assert stage.window.complaints == [
        "target: what a connection dialled cannot be known ([Errno 2] No such file or directory)"
    ]
    stage.window.complaints.clear()
