"""What tests hold: the interfaces are those of what stands behind them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import pytest_egress.routes.handles as handles
import pytest_egress.routes.route as routing
import pytest_egress.targets.container as containers
import pytest_egress.targets.handle as container_handle
from pytest_egress import Egress, Route

PAIRS = [(handles.Route, routing.Route), (container_handle.Container, containers.Container)]


def public(interface: type[Any]) -> list[str]:
    return [name for name in dir(interface) if not name.startswith("_")]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function)
    return [(each.name, each.kind, each.default) for each in signature.parameters.values()]


@pytest.mark.parametrize(("interface", "behind"), PAIRS, ids=["route", "container"])
def test_what_is_behind_an_interface_takes_and_says_what_the_interface_does(
    interface: type[Any], behind: type[Any]
) -> None:
    names = [name for name in public(interface) if name != "name"]  # an attribute, set by __init__
    assert len(names) > 7
    for name in names:
        promised, kept = (inspect.getattr_static(each, name) for each in (interface, behind))
        assert isinstance(promised, property) == isinstance(kept, property), name
        assert inspect.getdoc(promised) == inspect.getdoc(kept), name
        if not isinstance(promised, property):
            assert parameters(promised) == parameters(kept), name


def test_a_route_is_a_route_whichever_name_one_asks_for() -> None:
    route = Egress().intercept_https("a.test")
    assert isinstance(route, Route)
    assert isinstance(route, routing.Route)
