"""The markers: the arguments that each takes, and the routes that the markers of a fixture's scope declare.

A test's own markers are routes of the test, its class's of the class, and its module's and packages' of the module.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.choices import NAME_POLICIES, POLICIES, check_keywords, union
from pytest_egress.plugin.options import ACCEPTED_OPTIONS
from pytest_egress.plugin.secrets import any_made, id_problem, without_secrets
from pytest_egress.routes.kinds import KINDS

if TYPE_CHECKING:
    from pytest_egress.egress import Egress
    from pytest_egress.routes.cassette import Cassette


ROUTE_MARKERS: Final = {kind.marker: kind for kind in KINDS}
"""The kind of route that each marker declares, by the marker's name."""

MARKERS: Final[Mapping[str, str]] = {
    **{kind.marker: kind.usage for kind in KINDS},
    "egress_container": "(image, command=None, **options): start a container with the options of "
    "`egress.start`; the fixture egress_container is it",
    "egress_compose": '(file="compose.yaml", **options): start a Compose project with the options of '
    "`egress.compose`; the fixture egress_stack is it",
    "egress_engine": "(): name `egress.engine()` in DOCKER_HOST while the test runs; the fixture egress_engine is it",
    "egress_cassette": "(path=None, *, ignore=(), repeat=False, optional=False): answer every request that no route "
    "claims by what was recorded, as `cassette()` does",
    "egress_sweep": '(*, faults=["503", ...], only="*", tolerates=[], retries=[], patience=10, limit=200): run the '
    "test once more for each call of it and each fault, and have that call fail so",
    "egress": f"(*, unrouted={union(POLICIES)}, dns={union(NAME_POLICIES)}, "
    "assert_all_called=True, timeout=5): what an attempt means that no route claims, what DNS says "
    "of a name that no route names, whether the test's own routes must be called, and how many "
    "seconds handlers may go on after the test",
}
"""The text of `pytest --markers` for each marker, by its name."""
MADE_LAST: Final = {"egress_container": "egress_container", "egress_compose": "egress_stack"}
"""The fixtures that markers request, by the marker's name."""


# The innermost wrapper: --lf chooses among what is made here.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Replace each test that has a malformed marker, or a secret in its id, by a collector that fails."""
    report = yield
    if report.passed:
        plain = () if any(collector.iter_markers()) or any_made() else (collector,)
        report.result = [
            checked_item(node)
            if isinstance(node, pytest.Item) and (node.own_markers or node.parent not in plain)
            else node
            for node in report.result
        ]
        if any(map(is_swept, report.result)):
            from pytest_egress.plugin.sweep import expanded

            report.result = [*expanded(collector, report.result)]
    return report


def is_swept(node: pytest.Item | pytest.Collector) -> bool:
    """Whether a test has the marker `egress_sweep`, itself or above it."""
    return isinstance(node, pytest.Item) and "egress_sweep" in node.keywords


@pytest.hookimpl(trylast=True)  # other plugins add markers here
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add `egress` to the fixtures of each test that has a marker of ours."""
    parent, above = None, set[str]()
    for item in items:
        if item.parent is not parent:  # asked once for all of its tests, which are thousands
            parent = item.parent
            above = ours(parent.iter_markers() if parent is not None else ())
        markers = above | ours(item.own_markers) if item.own_markers else above
        if markers and hasattr(item, "fixturenames"):
            item.fixturenames = fixture_names(item.fixturenames, markers, wider_fixtures(item))


def ours(markers: Iterable[pytest.Mark]) -> set[str]:
    return {marker.name for marker in markers if marker.name in MARKERS}


class Malformed(pytest.Collector):
    """A collector in the place of a test with a malformed marker or id, so that only this test's collection fails."""

    problem: str

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        raise self.CollectError(self.problem)


def checked_item(item: pytest.Item) -> pytest.Item | pytest.Collector:
    if problem := id_problem(item):
        return malformed(item, problem)
    for marker in item.iter_markers():
        try:
            check_marker(marker)
            if marker.name == "egress_sweep":
                from pytest_egress.plugin.sweep import check_item

                check_item(item)
        except (TypeError, ValueError) as error:
            return malformed(item, f"@pytest.mark.{marker.name}: {error}")
    return item


def check_marker(marker: pytest.Mark) -> None:
    """A malformed marker of ours raises TypeError or ValueError with the value, and what is accepted."""
    if marker.name not in MARKERS:
        return
    if marker.name == "egress":
        check_keywords(marker.args, marker.kwargs, ACCEPTED_OPTIONS)
        return
    if marker.name == "egress_sweep":
        from pytest_egress.sweep.settings import settings_of

        settings_of(marker.args, marker.kwargs)
        return
    if kind := ROUTE_MARKERS.get(marker.name):
        from pytest_egress.routes.declarations import declaring

        declaring(kind)(*marker.args, **marker.kwargs)
        return
    if marker.name == "egress_cassette":
        cassette_of(marker)
        return
    if marker.name == "egress_compose":
        from pytest_egress.endpoint.compose import compose_options

        compose_options(*marker.args, **marker.kwargs)
        return
    if marker.name == "egress_engine":
        if marker.args or marker.kwargs:
            raise TypeError("it takes no arguments")
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
    """The text names the test, since pytest's headline does not."""
    name = without_secrets(item.name)
    collector: Malformed = Malformed.from_parent(item.parent or item.session, name=name)
    path, line, _ = item.reportinfo()
    collector.problem = f"{os.path.relpath(path)}:{(line or 0) + 1}: {name}: {problem}"
    return collector


def wider_fixtures(item: pytest.Item) -> set[str]:
    """The fixtures of a test that are shared with others."""
    definitions = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return {name for name, found in definitions.items() if found[-1].scope != "function"}


def fixture_names(names: Iterable[str], markers: set[str], wider: set[str]) -> list[str]:
    """The fixtures of a marked test: a new list, since parametrized siblings share the old one.

    `egress` comes first, so that its routes answer what other fixtures set off; the containers of
    `egress_container` and `egress_compose` last, since other fixtures may declare the routes that they
    need. The engine of `egress_engine` comes before those of the test's own, which use it, and after
    those that outlive it.
    """
    found = ["egress", *(name for name in names if name != "egress")]
    if "egress_engine" in markers:
        rest = [name for name in found[1:] if name != "egress_engine"]
        kept = [name for name in rest if name in wider]
        found = ["egress", *kept, "egress_engine", *(name for name in rest if name not in wider)]
    for marker, fixture in MADE_LAST.items():
        if marker in markers and fixture not in found:
            found.append(fixture)
    return found


def own_markers(request: pytest.FixtureRequest) -> list[pytest.Mark]:
    """The marker with the highest precedence is last."""
    nodes = request.node.listchain()
    if request.scope == "module":
        nodes = nodes[1:]  # with those of its packages, without the session's
    elif request.scope == "class":
        # With outer classes. The node of a function without a class is the function.
        nodes = [node for node in nodes if isinstance(node, pytest.Class)]
    else:
        nodes = nodes[-1:]
    return [marker for node in nodes for marker in node.own_markers]


def declare(egress: Egress, markers: Iterable[pytest.Mark]) -> None:
    """A later route takes precedence, and the topmost marker is the last."""
    for marker in markers:
        if kind := ROUTE_MARKERS.get(marker.name):
            getattr(egress, kind.method)(*marker.args, **marker.kwargs)
        elif marker.name == "egress_cassette":
            from pytest_egress.egress import inner_of

            cassette, optional = cassette_of(marker)
            inner_of(egress).add_below(cassette, optional=optional)


def cassette_of(marker: pytest.Mark) -> tuple[Cassette, bool]:
    """The cassette of a marker, and whether all of it may be left unplayed. Raises TypeError or ValueError."""
    from pytest_egress.routes.cassette import cassette

    options = dict(marker.kwargs)
    optional = options.pop("optional", False)
    if not isinstance(optional, bool):
        raise TypeError(f"optional={optional!r}: it takes True or False")
    return cassette(*marker.args, **options), optional


def markers_named(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """The nearest and topmost marker is last."""
    return [
        marker for node in item.listchain() for marker in node.own_markers if marker.name == name
    ]
