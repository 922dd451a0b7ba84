"""The fixtures: `egress` for each scope, and those that users override.

Each `Egress` gets the routes of its scope's markers, is closed at the scope's end, and then judged for late traffic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_egress.plugin.cases import CASES
from pytest_egress.plugin.markers import declare, markers_named, own_markers
from pytest_egress.plugin.run import RUN

if TYPE_CHECKING:
    import docker
    import trustme

    from pytest_egress.cassettes import Home
    from pytest_egress.egress import Egress
    from pytest_egress.endpoint.server import EngineEndpoint
    from pytest_egress.endpoint.stack import Stack
    from pytest_egress.routes.route import Scope
    from pytest_egress.targets import handle as container_handle
    from pytest_egress.traffic.redaction.declared import Redaction


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
    """Routes, containers and ledger of a test class; like `egress`, and shared by the tests of the class.

    Its containers run on between tests, and its routes are never required.
    """
    yield from open_egress(request, "class", parent=module_egress)


@pytest.fixture(scope="module")
def module_egress(session_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """Routes, containers and ledger of a module; like `egress`, and shared by the tests of the module.

    Its containers run on between tests, and its routes are never required.
    """
    yield from open_egress(request, "module", parent=session_egress)


@pytest.fixture(scope="session")
def session_egress(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """Routes, containers and ledger of the whole run; like `egress`, and shared by all tests.

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


@pytest.fixture
def egress_stack(egress: Egress, request: pytest.FixtureRequest) -> Stack:
    """The services of `@pytest.mark.egress_compose`, started and ready.

    Raises:
        pytest.UsageError: The test has no such marker.
    """
    markers = markers_named(request.node, "egress_compose")
    if not markers:
        raise pytest.UsageError(
            "the fixture egress_stack starts what @pytest.mark.egress_compose(file, **options) says; this test has none"
        )
    return egress.compose(*markers[-1].args, **markers[-1].kwargs)


@pytest.fixture
def egress_engine(egress: Egress) -> Iterator[EngineEndpoint]:
    """The `EngineEndpoint` of this test, which DOCKER_HOST names while it runs.

    `@pytest.mark.egress_engine` requests it.

    Raises:
        EngineError: No engine answers; or it is Podman.
    """
    with egress.engine() as engine, pytest.MonkeyPatch.context() as patch:
        for name, value in engine.environment().items():
            patch.setenv(name, value)
        yield engine


@pytest.fixture(scope="session")
def egress_ca() -> trustme.CA:
    """The `trustme.CA` that every leaf certificate is issued from; override it to use your own."""
    import trustme

    from pytest_egress.gateway.tls.authority import load_cryptography_unfrozen

    load_cryptography_unfrozen()
    return trustme.CA()


@pytest.fixture(scope="session")
def egress_redaction() -> Redaction:
    """The `Redaction` that says what else is secret in this suite, or is none; override it to declare that.

    It is requested when the first container starts. What is hidden without it is hidden with it, but for its `keep`.
    """
    from pytest_egress.traffic.redaction.declared import Redaction

    return Redaction()


@pytest.fixture(scope="session")
def egress_docker_client(pytestconfig: pytest.Config) -> Iterator[docker.DockerClient]:
    """The `docker.DockerClient` that starts containers; override it to use another engine.

    The client is that of the engine which egress_engines gives this worker, or else of DOCKER_HOST or the Docker
    context. Where it is overridden, it is requested when the first container starts; else the first sidecar may have
    been started by then, with a client that is made in the same way.
    """
    client = pytestconfig.stash[RUN].engine_client()
    yield client
    client.close()


def open_egress(
    request: pytest.FixtureRequest, scope: Scope, *, parent: Egress | None
) -> Iterator[Egress]:
    """Open an `Egress` with the routes of its markers. At its end remove its containers, and judge late traffic.

    Raises:
        EgressError: In the teardown, for late traffic. After a test that has not passed it only goes to the summary.
    """
    from pytest_egress.egress import Egress, inner_of

    run, cases = request.config.stash[RUN], request.config.stash[CASES]
    case = cases.case(request.node) if scope == "test" else None
    egress = Egress(session=run.session(), parent=parent, scope=scope)
    inner_of(egress).place = place_of(request, scope)
    if case is not None:
        case.egress = inner_of(egress)
    try:
        declare(egress, own_markers(request))
        yield egress
    finally:
        late = cases.end(inner_of(egress), request.node)
    if late is not None:
        raise late
    cases.write_cassettes(inner_of(egress), request.node)


def place_of(request: pytest.FixtureRequest, scope: Scope) -> Home:
    """Where the cassettes of a scope are: a test's below `cassettes/{module}`, and a class's."""
    from pytest_egress.cassettes import Home

    node = request.node
    if scope == "session":
        return Home(folder=request.config.rootpath)
    module = node.path.stem
    names = [each.name for each in node.listchain() if isinstance(each, pytest.Class)]
    names += [node.name] if scope == "test" else []
    own = (module, ".".join(names)) if names else (module,)
    return Home(folder=node.path.parent, names=own, node=node.nodeid, is_test=scope == "test")
