"""The markers: what each takes, and the routes that those of a fixture's scope declare.

A test's own markers are routes of the test, its class's of the class, and its module's and packages' of the module.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.choices import NAME_POLICIES, POLICIES, union
from pytest_egress.plugin.options import check_options
from pytest_egress.routes.kinds import KINDS

if TYPE_CHECKING:
    from pytest_egress.egress import Egress


ROUTE_MARKERS: Final = {kind.marker: kind for kind in KINDS}
"""Marker to the kind of route that it declares."""

MARKERS: Final[Mapping[str, str]] = {
    **{kind.marker: kind.usage for kind in KINDS},
    "egress_container": "(image, command=None, **options): start a container with the options of "
    "`egress.start`; the fixture egress_container is it",
    "egress": f"(*, unrouted={union(POLICIES)}, dns={union(NAME_POLICIES)}, "
    "assert_all_called=True, timeout=5): what an attempt means that no route claims, what DNS says "
    "of a name that no route names, whether the test's own routes must be called, and how many "
    "seconds handlers may go on after the test",
}
"""Marker to what `pytest --markers` says of it."""


# Markers: a test's own are routes of the test, its class's of the class, its module's and
# packages' of the module.


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Let the collection of a test with a malformed marker fail."""
    report = yield
    if report.passed:
        report.result = [
            checked_item(node) if isinstance(node, pytest.Item) else node for node in report.result
        ]
    return report


@pytest.hookimpl(trylast=True)  # other plugins add markers here
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test with a marker of ours use `egress` without naming it."""
    for item in items:
        markers = {marker.name for marker in item.iter_markers() if marker.name in MARKERS}
        if markers and hasattr(item, "fixturenames"):
            item.fixturenames = fixture_names(item.fixturenames, markers)


class Malformed(pytest.Collector):
    """Stands where a test with a malformed marker would: only its collection fails."""

    problem: str

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Fail."""
        raise self.CollectError(self.problem)


def checked_item(item: pytest.Item) -> pytest.Item | pytest.Collector:
    """The item itself, or a collector that fails in its place."""
    for marker in item.iter_markers():
        try:
            check_marker(marker)
        except (TypeError, ValueError) as error:
            return malformed(item, f"@pytest.mark.{marker.name}: {error}")
    return item


def check_marker(marker: pytest.Mark) -> None:
    """Refuse a malformed marker of ours.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    if marker.name not in MARKERS:
        return
    if marker.name == "egress":
        check_options(marker.args, marker.kwargs)
        return
    if kind := ROUTE_MARKERS.get(marker.name):
        from pytest_egress.routes.declarations import declaring

        declaring(kind)(*marker.args, **marker.kwargs)
        return
    from pytest_egress.base.clock import check_seconds
    from pytest_egress.targets.options import START_OPTIONS, container
    from pytest_egress.targets.readiness import strategies

    container(*marker.args, **marker.kwargs)
    strategies(marker.kwargs.get("wait"))
    check_seconds(marker.kwargs.get("timeout", 0))
    if others := [name for name in marker.kwargs if name not in START_OPTIONS]:
        from pytest_egress.targets.plan import check_docker_options

        check_docker_options(others)


def malformed(item: pytest.Item, problem: str) -> Malformed:
    """What stands in the item's place. Its text names the test: pytest's headline does not."""
    collector: Malformed = Malformed.from_parent(item.parent or item.session, name=item.name)
    path, line, _ = item.reportinfo()
    collector.problem = f"{os.path.relpath(path)}:{(line or 0) + 1}: {item.name}: {problem}"
    return collector


def fixture_names(names: Iterable[str], markers: set[str]) -> list[str]:
    """The fixtures of a marked test: a new list, since parametrized siblings share the old one.

    `egress` comes first, so that its routes answer what other fixtures set off; the container of
    `egress_container` last, since other fixtures may declare the routes that it needs.
    """
    found = ["egress", *(name for name in names if name != "egress")]
    if "egress_container" in markers and "egress_container" not in found:
        found.append("egress_container")
    return found


def own_markers(request: pytest.FixtureRequest) -> list[pytest.Mark]:
    """The markers that belong to a fixture's scope, the one that wins last."""
    nodes = request.node.listchain()
    if request.scope == "module":
        nodes = nodes[1:]  # its packages' too, but not the session's
    elif request.scope == "class":  # outer ones too; where a function has no class, it is the node
        nodes = [node for node in nodes if isinstance(node, pytest.Class)]
    else:
        nodes = nodes[-1:]
    return [marker for node in nodes for marker in node.own_markers]


def declare(egress: Egress, markers: Iterable[pytest.Mark]) -> None:
    """Declare the routes of markers, in order: the latest wins, and that is the topmost."""
    for marker in markers:
        if kind := ROUTE_MARKERS.get(marker.name):
            getattr(egress, kind.method)(*marker.args, **marker.kwargs)


def markers_named(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """All markers of a name, the nearest and topmost last."""
    return [
        marker for node in item.listchain() for marker in node.own_markers if marker.name == name
    ]
