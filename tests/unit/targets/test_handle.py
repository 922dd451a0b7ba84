"""What tests hold of a container: the interface is that of what stands behind it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import pytest_egress.targets.container as containers
from pytest_egress import Container

NAMES = [name for name in dir(Container) if not name.startswith("_") and name != "name"]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(function)
    return [(each.name, each.kind, each.default) for each in signature.parameters.values()]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_behind_the_interface_takes_what_the_interface_does(name: str) -> None:
    promised, kept = (
        inspect.getattr_static(each, name) for each in (Container, containers.Container)
    )
    assert inspect.getdoc(promised) == inspect.getdoc(getattr(containers.Container, name))
    assert isinstance(promised, property) == isinstance(kept, property)
    if not isinstance(promised, property):
        assert parameters(promised) == parameters(kept)


def test_the_interface_has_what_tests_need() -> None:
    assert {"connect", "exec", "logs", "stop", "url", "wait"} <= {*NAMES}
