"""Which names the objects have that tests hold: editors complete them, and the reference lists them."""

from __future__ import annotations

from pytest_egress import Egress, Route
from pytest_egress.session import Session
from pytest_egress.targets import handle
from pytest_egress.targets.container import Container
from pytest_egress.targets.plan import plan


def public(thing: object) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_")]


def test_an_egress_shows_what_a_test_calls_and_nothing_else() -> None:
    with Egress() as egress:
        shown = public(egress)
    assert shown == public(Egress)  # no attribute of its state
    assert {"intercept_https", "run", "ledger", "routes", "assert_only", "close"} <= {*shown}
    inner = {"session", "parent", "scope", "table", "tables", "between", "late_verdict", "let_go"}
    assert not inner & {*shown}


def test_a_route_shows_what_a_test_calls_and_nothing_else() -> None:
    with Egress() as egress:
        route = egress.intercept_https("api.test", optional=True)
        assert public(route) == sorted({*public(Route), "name"})
        assert not {"turns", "matcher", "scope", "let_go", "count"} & {*public(route)}


def test_a_container_shows_what_a_test_calls_and_nothing_else() -> None:
    with Egress() as egress:
        container = Container(Session(), "shop", plan("shop"), egress._inner)
        assert public(container) == public(handle.Container)
        assert isinstance(container, handle.Container)


def test_the_routes_and_containers_of_an_egress_are_lists_of_their_own() -> None:
    with Egress() as egress:
        route = egress.intercept_https("api.test", optional=True)
        egress.routes.clear()
        egress.containers.append(Container(Session(), "shop", plan("shop"), egress._inner))
        assert egress.routes == [route]
        assert egress.containers == []
