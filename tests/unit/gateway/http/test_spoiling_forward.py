"""Faults around a real server's answer: it comes late, slowly or in part, and what is wrong with it is no handler's."""

from __future__ import annotations

import socket
from collections.abc import Callable

from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.faults import delayed, throttled, truncated
from pytest_egress.traffic.entries import Exchange
from tests.support.stage import GET, Stage, ask, end_of

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
BROKEN_OFF = WHOLE[:-5]


def test_a_servers_answer_comes_late_and_slowly(
    stage: Stage, answering: Callable[..., str]
) -> None:
    stage.https("api.test", delayed(throttled(forward(answering(WHOLE)), 1000), 0.05))
    sock = stage.tls()
    for _ in range(2):
        assert ask(sock).body == b"0123456789"
    first, second = stage.entries(Exchange)
    assert first.duration >= 0.05
    assert second.response.content == b"0123456789"
    assert str(first.fault).startswith("delayed(throttled(forward(")


def test_a_servers_answer_is_cut(stage: Stage, answering: Callable[..., str]) -> None:
    stage.https("api.test", truncated(forward(answering(WHOLE)), 4))
    sock = stage.tls()
    sock.sendall(GET)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    assert data.endswith(b"\r\n\r\n0123")
    sock.close()
    assert stage.only(Exchange).error is None
    assert judge(stage.window, stage.table.routes) is None


def test_a_server_that_breaks_off_within_a_fault_is_noted_and_fails_no_test(
    stage: Stage, answering: Callable[..., str]
) -> None:
    stage.https("api.test", throttled(forward(answering(BROKEN_OFF)), 1000))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    entry = stage.only(Exchange)
    assert entry.error is None
    assert "the upstream broke off" in entry.note


def test_a_server_that_cannot_be_reached_is_told_at_once(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stage.https("api.test", delayed(forward(f"http://127.0.0.1:{port}"), 1000))
    assert ask(stage.tls()).status == 502
    entry = stage.only(Exchange)
    assert (entry.fault, entry.error) == (None, None)
