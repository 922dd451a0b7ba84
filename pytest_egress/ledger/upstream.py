"""Whether a real server was reached by an attempt, and which ones were by several. Pure functions of values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_egress.routes.answers import Forward
from pytest_egress.routes.faults import layers
from pytest_egress.traffic.entries import DatagramFlow, Entry, Exchange, TcpConnection
from pytest_egress.traffic.redaction.redactor import redactor_of


def got_out(entry: Entry) -> bool:
    """Whether a real server was reached: by passthrough, or by `forward()`."""
    if entry.outcome == "passthrough":
        return True
    if isinstance(entry, Exchange):
        return entry.request._got_out
    if isinstance(entry, DatagramFlow):
        return entry._got_out
    if isinstance(entry, TcpConnection) and entry.outcome == "routed":
        return bool(entry.sent or entry.received) or isinstance(answer_of(entry.route), Forward)
    return False


def answer_of(route: Any) -> Any:
    """What a route answers with, without the faults around it; None where it has a sequence of answers."""
    if route is None or not hasattr(route, "turns") or route.turns.sequence is not None:
        return None
    return layers(route.turns.answer()[0])[1]


def reached_hosts(entries: Iterable[Entry]) -> list[str]:
    """The hosts whose real servers were reached, each once, in order, without secrets."""
    reached = (entry for entry in entries if got_out(entry))
    return [*dict.fromkeys(redactor_of(entry).host(entry.host) for entry in reached)]
