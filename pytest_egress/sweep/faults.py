"""The ways in which a sweep has a call fail. `FAULTS` has them in the order of a matrix's columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytest_egress.base.unset import UNSET
from pytest_egress.routes.faults import ConnectFault, Fault, Truncated, refuse, reset, silence
from pytest_egress.routes.table import Instead
from pytest_egress.routes.websocket.answer import WebSocketAnswer, websocket
from pytest_egress.routes.websocket.open import WebSocket
from pytest_egress.sweep.calls import CallKind
from pytest_egress.traffic.grpc import Code, status_head
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import INTERNAL_ERROR

PAGE: Final = "<!doctype html><title>Be right back</title><p>We are down for maintenance.</p>"


@dataclass(frozen=True, kw_only=True)
class Failing:
    """One way in which a call fails.

    Attributes:
        kinds: The kinds of calls that fail so.
        answer: Makes what is sent in place of the answer; it is given the seconds until the client must have given up.
        is_processed: Whether the request is processed all the same, as a call of its route.
        outage: What a route in front of the test's own answers, where a dial or a look-up fails; else None.
    """

    kinds: frozenset[CallKind]
    answer: Callable[[float], Response | Fault | WebSocketAnswer] = lambda seconds: reset()
    is_processed: bool = False
    outage: ConnectFault | str | None = None

    def instead(self, seconds: float) -> Instead:
        return Instead(answer=self.answer(seconds), is_processed=self.is_processed)


HTTP: Final[frozenset[CallKind]] = frozenset({"http"})
WEBSOCKET: Final[frozenset[CallKind]] = frozenset({"websocket"})
OPENED: Final[frozenset[CallKind]] = frozenset({"http", "websocket"})
GRPC: Final[frozenset[CallKind]] = frozenset({"grpc"})
CARRIED: Final[frozenset[CallKind]] = frozenset({"http", "grpc", "websocket", "tcp"})
DIALLED: Final[frozenset[CallKind]] = frozenset({"tcp", "dial"})
NAMED: Final[frozenset[CallKind]] = frozenset({"name"})


def service_unavailable(seconds: float) -> Response:
    return Response(503, text="Service Unavailable")


def unavailable(seconds: float) -> Response:
    return Response(200, headers=status_head(Code.UNAVAILABLE, "Service Unavailable"))


def close_at_once(ws: WebSocket) -> None:
    ws.close(INTERNAL_ERROR)


def too_many(seconds: float) -> Response:
    return Response(429, headers={"Retry-After": "1"}, text="Too Many Requests")


def page(seconds: float) -> Response:
    return Response(200, headers={"Content-Type": "text/html; charset=utf-8"}, text=PAGE)


FAULTS: Final = {
    "503": Failing(kinds=OPENED, answer=service_unavailable),
    "429": Failing(kinds=OPENED, answer=too_many),
    "unavailable": Failing(kinds=GRPC, answer=unavailable),
    "1011": Failing(kinds=WEBSOCKET, answer=lambda seconds: websocket(close_at_once)),
    "reset": Failing(kinds=CARRIED, answer=lambda seconds: reset()),
    "html": Failing(kinds=HTTP, answer=page, is_processed=True),
    "empty": Failing(kinds=HTTP, answer=lambda seconds: Response(200), is_processed=True),
    "lost": Failing(kinds=HTTP, answer=lambda seconds: reset(), is_processed=True),
    "cut": Failing(kinds=HTTP, answer=lambda seconds: Truncated(UNSET, 1), is_processed=True),
    "refuse": Failing(kinds=DIALLED, outage=refuse()),
    "nxdomain": Failing(kinds=NAMED, outage="NXDOMAIN"),
    "servfail": Failing(kinds=NAMED, outage="SERVFAIL"),
    "silence": Failing(kinds=CARRIED, answer=lambda seconds: silence(round(seconds, 1))),
    "unanswered": Failing(kinds=NAMED, outage="silence"),
}
"""By name. Silence comes late, since it takes the longest."""

USUAL: Final = tuple(fault for fault in FAULTS if fault != "unanswered")
"""Those of a marker without `faults=`. A resolver waits for an answer longer than the usual `patience=`."""
