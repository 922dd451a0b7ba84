"""Finds out which tests use egress, before they are set up and while they run."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

EGRESS_FIXTURES: Final = frozenset(
    {"egress", "class_egress", "module_egress", "session_egress", "egress_container"}
)
"""A test that requests one of these fixtures, in whatever way, has a window and is judged."""


def uses_egress(item: pytest.Item) -> bool:
    return not EGRESS_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def may_use_egress(item: pytest.Item) -> bool:
    """True also of a test that could request egress by `request.getfixturevalue`, itself or in a fixture.

    Fixtures of pytest and of plugins take `request` as well, and request none of ours: only those of its project count.
    """
    if uses_egress(item):
        return True
    info: Any = getattr(item, "_fixtureinfo", None)
    if "request" in getattr(info, "argnames", ()):
        return True
    definitions = getattr(info, "name2fixturedefs", {}).values()
    users = [each for found in definitions for each in found if "request" in each.argnames]
    return any(is_of_project(each.func, item.config) for each in users)


def is_of_project(function: Any, config: pytest.Config) -> bool:
    file = Path(inspect.unwrap(function).__code__.co_filename)
    return file.is_relative_to(config.rootpath) and "site-packages" not in file.parts


def is_overridden(items: Iterable[pytest.Item], name: str) -> bool:
    """True also where pytest does not tell."""
    of_each_class = {item.parent: item for item in items}.values()
    return any(len(fixtures_named(item, name)) != 1 for item in of_each_class)


def fixtures_named(item: pytest.Item, name: str) -> Sequence[object]:
    """An empty sequence also where pytest does not tell."""
    manager: Any = getattr(item.session, "_fixturemanager", None)
    for node in (item, item.nodeid):  # the latter by pytest 7.4
        with contextlib.suppress(AttributeError, TypeError):
            return manager.getfixturedefs(name, node) or ()
    return ()


def requested_fixtures(item: pytest.Item) -> Iterable[str]:
    names: Iterable[str] = getattr(item, "fixturenames", ())
    for attribute in ("_request", "fixture_request"):  # the latter of a doctest, by pytest 7.4
        if request := getattr(item, attribute, None):
            names = request.fixturenames
    return names


def fixture_of(item: pytest.Item, name: str) -> object:
    """The fixture that a test has, or will get, under a name; None where pytest does not tell."""
    request = getattr(item, "_request", None) or getattr(item, "fixture_request", None)
    if found := getattr(request, "_fixture_defs", {}).get(name):
        return found
    named = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return next(iter(named.get(name, ())[-1:]), None)
