"""What the egress of a test makes of attempts between the test's end and that of its containers."""

from __future__ import annotations

import pytest

from pytest_egress import reset, sequence
from pytest_egress.inner_egress import came_back
from pytest_egress.routes.table import nearest_by_address
from pytest_egress.traffic.entries import Exchange, TcpConnection
from tests.support.routes import Routes
from tests.support.traffic import request


def dial(routes: Routes, host: str, port: int) -> TcpConnection:
    """A connection that no route answers."""
    near = nearest_by_address([*routes.tables.values()], "tcp", host, port)
    return TcpConnection(
        container="target",
        started=0.0,
        outcome="unrouted",
        host=host,
        port=port,
        address="198.18.0.1",
        near=(near,) if near else (),
    )


def ask(routes: Routes, url: str) -> Exchange:
    """A request that no route answers."""
    decision = routes.decide(url)
    assert decision.route is None
    return Exchange(
        container="target",
        started=0.0,
        outcome="unrouted",
        host="api.test",
        near=decision.near,
        request=request(url),
    )


@pytest.mark.parametrize(
    ("host", "port", "is_back"),
    [
        ("db-1.test", 5432, True),
        ("db-2.test", 5432, False),
        ("db-1.test", 5433, False),
        ("other.test", 5432, False),
    ],
)
def test_a_client_that_dials_again_dials_what_was_used_up(
    host: str, port: int, is_back: bool
) -> None:
    routes = Routes()
    route = routes.add("intercept_tcp", "db-1.test:5432", b"hello", times=1)
    assert not came_back(dial(routes, host, port))
    route.turns.reserve()
    assert came_back(dial(routes, host, port)) is is_back


@pytest.mark.parametrize(
    ("url", "is_back"),
    [
        ("https://api.test/v1", True),
        ("https://api.test/v2", False),
        ("https://api-2.test/v1", False),
        ("https://api.test:8443/v1", False),
        ("http://api.test/v1", False),
    ],
)
def test_a_client_that_asks_again_after_a_fault_asks_for_what_was_used_up(
    url: str, is_back: bool
) -> None:
    routes = Routes()
    route = routes.https(path="/v1", answer=sequence(reset()))
    route.turns.reserve()
    routes.call(route, "https://api.test/v1")
    assert not came_back(ask(routes, "https://api.test/v1"))  # by its own choice
    route.calls[0].fault = reset()
    assert came_back(ask(routes, url)) is is_back
