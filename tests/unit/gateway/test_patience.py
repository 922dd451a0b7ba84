"""A client that stops within a head or a body is given up by the ledger's clock, and recorded."""

from __future__ import annotations

import socket
import time

import pytest

from pytest_egress.base.clock import LOOK_SECONDS
from pytest_egress.gateway import connection as connection_module
from pytest_egress.gateway import patience
from pytest_egress.gateway.patience import Patience, StalledError
from pytest_egress.traffic.entries import Exchange, TcpConnection
from tests.support.stage import GET, Stage, ask, eventually, read_reply

STALL = 0.3
"""Seconds, by the ledger's clock."""

POST = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def stage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(patience, "STALL_SECONDS", STALL)
    monkeypatch.setattr(connection_module, "LINGER_SECONDS", 0.05)
    return stage


# The measure.


def test_patience_is_over_when_the_clock_says_so_and_is_renewed_by_what_comes() -> None:
    now = [100.0]
    each = Patience(lambda: now[0])
    assert (each.is_over, each.seconds_left) == (False, patience.STALL_SECONDS)
    now[0] += patience.STALL_SECONDS - LOOK_SECONDS / 2
    assert (each.is_over, each.seconds_left) == (False, LOOK_SECONDS)  # and never without a wait
    each.renew()
    assert each.seconds_left == patience.STALL_SECONDS
    now[0] += patience.STALL_SECONDS
    assert each.is_over


def test_a_stall_says_how_long_it_was() -> None:
    assert str(StalledError()) == "the client sent nothing for 60 s"


# Heads and bodies.


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
@pytest.mark.parametrize("begun", [GET[:16], GET[:-2], b"GET / H"])
def test_a_head_that_stalls_is_recorded_and_told_so(
    stage: Stage, secure: bool, before: bytes, begun: bytes
) -> None:
    declare = stage.https if secure else stage.http
    declare("api.test", b"yes")
    sock = stage.tls() if secure else stage.dial(stage.resolve("api.test"), 80)
    if before:
        ask(sock, before)
    reply = ask(sock, begun)
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert sock.recv(1) == b""
    entry = stage.entries(TcpConnection)[-1]
    assert entry.note == "the client sent nothing for 0.3 s within the head of a request"
    assert entry.outcome == "unrouted"  # no route can be said to answer it
    assert len(stage.entries(Exchange)) == bool(before)


def test_a_head_that_stalls_where_nothing_is_declared_fails_the_test(stage: Stage) -> None:
    assert ask(stage.dial(port=80), GET[:16]).status == 408
    assert stage.only(TcpConnection).outcome == "unrouted"


@pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])
@pytest.mark.parametrize(
    ("begun", "came"),
    [
        (POST, 0),
        (POST + b"hello", 5),
        (CHUNKED, 0),
        (CHUNKED + b"5\r\nhello\r\n", 5),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", 5),
        (CHUNKED + b"5\nhello\n0\n\n", 0),
    ],
)
def test_a_body_that_stalls_is_an_attempt_with_what_came(
    stage: Stage, secure: bool, begun: bytes, came: int
) -> None:
    declare = stage.https if secure else stage.http
    route = declare("api.test", b"yes")
    sock = stage.tls() if secure else stage.dial(port=80)
    reply = ask(sock, begun, "POST")
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    entry = stage.only(Exchange)
    assert entry.note == f"the client sent nothing for 0.3 s after {came} bytes of a body"
    assert (entry.outcome, len(entry.request.content)) == ("recorded", came)
    assert entry.response.status_code == 408
    assert route.call_count == 0


def test_a_tls_record_that_is_not_whole_is_a_stall_too(stage: Stage) -> None:
    stage.https("api.test", b"yes")
    sock = stage.tls()
    ask(sock)
    socket.socket.send(sock, b"\x17\x03\x03\x00\x40half")  # below TLS
    assert eventually(lambda: len(stage.window.entries) == 2)
    (entry,) = stage.entries(TcpConnection)
    assert entry.note == "the client sent nothing for 0.3 s within the head of a request"


@pytest.mark.parametrize("step", [1, 20])
def test_a_slow_client_that_goes_on_is_answered(stage: Stage, step: int) -> None:
    stage.http("api.test", lambda request: request.content)
    sock = stage.dial(port=80)
    data = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi"
    for at in range(0, len(data), step):
        sock.sendall(data[at : at + step])
        time.sleep(STALL / 10)
    assert read_reply(sock, "POST").body == b"hi"
    assert stage.only(Exchange).outcome == "routed"


def test_an_idle_connection_has_stopped_within_nothing(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    for _ in range(2):
        assert ask(sock).body == b"yes"
        time.sleep(2 * STALL)
    assert len(stage.entries(Exchange)) == 2


@pytest.mark.parametrize("cut", [16, len(POST) + 1], ids=["head", "body"])
def test_a_prompt_is_no_stall(stage: Stage, cut: int) -> None:
    route, sock = stage.http("api.test", b"yes"), stage.dial(port=80)
    data = POST + bytes(100)
    stage.ledger.enter_prompt()
    sock.sendall(data[:cut])
    time.sleep(3 * STALL)
    assert not stage.window.entries
    sock.sendall(data[cut:])
    assert read_reply(sock, "POST").body == b"yes"
    stage.ledger.leave_prompt()
    assert route.call_count == 1


def test_after_a_prompt_the_time_goes_on(stage: Stage) -> None:
    stage.http("api.test", b"yes")
    sock = stage.dial(port=80)
    stage.ledger.enter_prompt()
    sock.sendall(GET[:16])
    time.sleep(STALL)
    stage.ledger.leave_prompt()
    assert read_reply(sock).status == 408


def test_a_handler_takes_the_time_that_it_takes(stage: Stage) -> None:
    def handler(request: object) -> bytes:
        time.sleep(3 * STALL)
        return b"yes"

    stage.http("api.test", handler)
    assert ask(stage.dial(port=80)).body == b"yes"
