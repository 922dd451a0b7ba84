"""Raw connections that a fault sweep fails: how they end, and that they are no calls of their route."""

from __future__ import annotations

import socket

import pytest

from pytest_egress.gateway.raw.server import LEFT
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.sweep.cells import CallRow, Cell, Seen
from pytest_egress.sweep.trial import SweepTrial
from pytest_egress.traffic.entries import TcpConnection
from tests.support.stage import ADDRESS, Stage, comes_not, end_of, eventually

CALL = f"tcp://{ADDRESS}:5432"


def answers_hello(sock: socket.socket) -> None:
    if sock.recv(100):
        sock.sendall(b"answer")


def swept(stage: Stage, fault: str, number: int = 1) -> SweepTrial:
    trial = SweepTrial(Cell(row=CallRow(CALL, number), fault=fault), 30)
    stage.window.trial = trial
    return trial


@pytest.mark.parametrize("number", [1, 2])
def test_a_reset_is_no_call_of_the_route(stage: Stage, number: int) -> None:
    route = stage.tcp(f"{ADDRESS}:5432", answers_hello, times=number)
    trial = swept(stage, "reset", number)
    answers = []
    for _ in range(number):
        client = stage.dial(port=5432)
        client.sendall(b"hello")
        answers.append(end_of(client))
    assert answers[-1] == "reset"
    assert eventually(lambda: not stage.gateway.connections)
    assert (len(route.calls), route.turns.taken) == (number - 1, number - 1)
    assert trial.calls == {CALL: Seen(number, frozenset({"tcp"}))}
    entry = stage.entries(TcpConnection)[-1]
    assert (entry.swept, entry.outcome) == (True, "routed")
    assert outcome_text(entry).endswith("  (sweep)")
    assert judge(stage.window, stage.table.routes, assert_all_called=False) is None


def test_a_client_that_gives_up_on_silence_is_told_from_one_that_waits(stage: Stage) -> None:
    route = stage.tcp(f"{ADDRESS}:5432", answers_hello)
    swept(stage, "silence")
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert comes_not(client)
    assert eventually(lambda: bool(stage.window.entries))
    (entry,) = stage.window.entries
    assert isinstance(entry, TcpConnection)
    assert entry.duration is None
    client.close()
    assert eventually(lambda: not stage.gateway.connections)
    assert (entry.note, entry.swept, route.calls) == (LEFT, True, [])


def test_a_port_probe_meets_no_fault(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_egress.gateway.raw.server.PROBE_SECONDS", 10)
    stage.tcp(f"{ADDRESS}:5432", answers_hello)
    trial = swept(stage, "reset")
    stage.dial(port=5432).close()
    assert eventually(lambda: bool(stage.window.entries) and not stage.gateway.connections)
    assert (trial.calls, stage.only(TcpConnection).swept) == ({}, False)
