"""Attempts of a shared container, as entries and routes."""

from __future__ import annotations

from typing import Any

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS
from pytest_egress.routes.route import Route
from pytest_egress.traffic.entries import DnsQuery, TcpConnection

SECONDS = 30.0  # for what is bound to happen


def attempt(container: str = "shop", error: BaseException | None = None) -> TcpConnection:
    return TcpConnection(
        container=container,
        started=1.0,
        outcome="routed" if error else "unrouted",
        host="db.test",
        port=5432,
        address="198.18.0.1",
        error=error,
    )


def query() -> DnsQuery:
    about: dict[str, Any] = {"host": "db.test", "port": None, "type": "A", "rcode": "NOERROR"}
    return DnsQuery(container="shop", started=1.0, outcome="recorded", answer=(), **about)


# What may come later.


def route_of(log: Ledger, **options: Any) -> Route[Any]:
    declared = declare(INTERCEPT_HTTPS, "api.test", **options)
    return Route(declared, scope="test", declared_at="", log=log)
