"""Attempts as entries of a ledger, and routes of it, without a gateway."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.routes.declarations import Declaration, declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import INTERCEPT_HTTPS
from pytest_egress.routes.route import Scope
from pytest_egress.traffic.entries import DnsQuery, Exchange, Outcome, TcpConnection
from pytest_egress.traffic.http.request import Request

SECONDS = 30.0  # for what is bound to happen


def attempt(
    outcome: Outcome = "unrouted", *, container: str = "shop", error: BaseException | None = None
) -> TcpConnection:
    about: dict[str, Any] = {"container": container, "started": 1.0, "outcome": outcome}
    return TcpConnection(**about, host="db.test", port=5432, address="198.18.0.1", error=error)


def query() -> DnsQuery:
    about: dict[str, Any] = {"host": "db.test", "port": None, "type": "A", "rcode": "NOERROR"}
    return DnsQuery(container="shop", started=1.0, outcome="recorded", answer=(), **about)


def route_in(log: Ledger, **options: Any) -> InnerRoute:
    declared = declare(INTERCEPT_HTTPS, "api.test", **options)
    return InnerRoute(declared, scope="test", declared_at="", log=log)


LEDGER = Ledger()


def exchange(error: BaseException | None = None, route: InnerRoute | None = None) -> Exchange:
    request = Request(method="GET", scheme="https", host="api.test", port=443, path="/")
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "routed"}
    return Exchange(**about, host="api.test", port=443, request=request, error=error, route=route)


def route_of(declaration: Declaration, scope: Scope = "test") -> InnerRoute:
    return InnerRoute(declaration, scope=scope, declared_at="test_it.py:7", log=LEDGER)


def route(scope: Scope = "test", **options: Any) -> InnerRoute:
    return route_of(declare(INTERCEPT_HTTPS, "api.test", **options), scope)


# The ledger.


def is_woken(ledger: Ledger, condition: Callable[[], bool], action: Callable[[], None]) -> bool:
    """Whether an action ends a wait by itself: while a prompt is open no wait ends by its time."""
    asked = threading.Event()

    def holds() -> bool:
        asked.set()
        return condition()

    ledger.enter_prompt()
    thread = threading.Thread(target=ledger.wait_for, args=(holds, 0.01))
    thread.start()
    assert asked.wait(SECONDS)
    action()  # takes the lock, which the wait gives up
    thread.join(SECONDS)
    woken = not thread.is_alive()
    ledger.leave_prompt()
    thread.join(SECONDS)
    return woken
