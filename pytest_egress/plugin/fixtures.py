"""The fixtures. Each egress is declared by its markers, closed at its end, and then judged for what came late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_egress.plugin.markers import declare, markers_named, own_markers
from pytest_egress.plugin.run import RUN

if TYPE_CHECKING:
    import docker
    import trustme

    from pytest_egress.egress import Egress
    from pytest_egress.routes.route import Scope
    from pytest_egress.targets import handle as container_handle


# Fixtures.


@pytest.fixture
def egress(class_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """Routes, containers, ledger and assertions of this test.

    What its containers send is answered by its routes, then by those of its class, module and
    session; what no route claims fails the test, and so does a route of its own that is never
    called. Its containers are removed at its end.
    """
    yield from open_egress(request, "test", parent=class_egress)


@pytest.fixture(scope="class")
def class_egress(module_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """As `egress`, for a class.

    Its containers run on between tests, and its routes are never required.
    """
    yield from open_egress(request, "class", parent=module_egress)


@pytest.fixture(scope="module")
def module_egress(session_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """As `egress`, for a module.

    Its containers run on between tests, and its routes are never required.
    """
    yield from open_egress(request, "module", parent=session_egress)


@pytest.fixture(scope="session")
def session_egress(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """As `egress`, for the whole run.

    Its containers run on between tests, and its routes are never required.
    """
    run = request.config.stash[RUN]
    run.request = request
    try:
        yield from open_egress(request, "session", parent=None)
    finally:
        run.close()


@pytest.fixture
def egress_container(egress: Egress, request: pytest.FixtureRequest) -> container_handle.Container:
    """The container of `@pytest.mark.egress_container`, started and ready.

    Raises:
        pytest.UsageError: The test has no such marker.
    """
    markers = markers_named(request.node, "egress_container")
    if not markers:
        form = "@pytest.mark.egress_container(image, command=None, **options)"
        raise pytest.UsageError(
            f"the fixture egress_container starts what {form} says; this test has none"
        )
    return egress.start(*markers[-1].args, **markers[-1].kwargs)


@pytest.fixture(scope="session")
def egress_ca() -> trustme.CA:
    """The `trustme.CA` that every leaf certificate is issued from; override it to use your own."""
    import trustme

    from pytest_egress.gateway.authority import load_cryptography_unfrozen

    load_cryptography_unfrozen()
    return trustme.CA()


@pytest.fixture(scope="session")
def egress_docker_client(pytestconfig: pytest.Config) -> Iterator[docker.DockerClient]:
    """The `docker.DockerClient` that starts containers; override it to use another engine.

    That of the engine which egress_engines gives this worker, or else of DOCKER_HOST or the Docker context; requested
    when the first container starts, closed at the end of the run.
    """
    client = pytestconfig.stash[RUN].engine_client()
    yield client
    client.close()


def open_egress(
    request: pytest.FixtureRequest, scope: Scope, *, parent: Egress | None
) -> Iterator[Egress]:
    """An `Egress` with the routes of its markers; at its end its containers are removed, and what came late is judged.

    Raises:
        EgressError: In its teardown. What came after a test that has not passed only goes to the summary.
    """
    from pytest_egress.egress import Egress

    run = request.config.stash[RUN]
    case = run.case(request.node) if scope == "test" else None
    egress = Egress(session=run.session(), parent=parent, scope=scope)
    if case is not None:
        case.egress = egress
    try:
        declare(egress, own_markers(request))
        yield egress
    finally:
        late = run.end(egress, request.node)
    if late is not None:
        raise late
