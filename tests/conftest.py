"""Fixtures shared by all tests: the images that targets run from, and pytest's own test bed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator

import docker
import hypothesis
import pytest

from tests.support.engines import OwnEngine, private_engine
from tests.support.inner_runs import only_plugins
from tests.support.leftovers import SECONDS, Witness, until
from tests.support.outside import Outside
from tests.support.reaper import LabellingClient, Reaper, containers_with

pytest_plugins = "pytester"

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("pytest-egress", deadline=None)
hypothesis.settings.load_profile("pytest-egress")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what needs an engine, what needs Docker's, and what is of a link that its parameter names."""
    fixtures = getattr(item, "fixturenames", ())
    for fixture, mark in (("engine_client", "engine"), ("own_engine", "docker")):
        if fixture in fixtures:
            item.add_marker(mark)
    callspec = getattr(item, "callspec", None)
    if callspec and any(value in ("descriptor", "stream") for value in callspec.params.values()):
        item.add_marker("one_link")


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> pytest.Pytester:
    """Its runs load our plugin, and those of the test's mark."""
    mark = request.node.get_closest_marker("plugins")
    for name, value in only_plugins(*(mark.args if mark else ())).items():
        monkeypatch.setenv(name, value)
    return pytester


@pytest.fixture(scope="session")
def engine_client() -> Iterator[docker.DockerClient]:
    """A client of the engine that the environment names; what it creates goes with this process."""
    try:
        client = LabellingClient.from_env()
    except docker.errors.DockerException as error:
        pytest.fail(f"these tests need a Docker engine ({error}); run `make engine`", pytrace=False)
    reaper = Reaper("containers", client.label)
    yield client
    left = until(lambda: not containers_with(client, client.label))
    names = [each["Names"] for each in containers_with(client, client.label)]
    reaper.close()
    client.close()
    assert left, f"tests have left these containers: {names}"


@pytest.fixture(scope="session")
def own_engine() -> OwnEngine:
    """Starts a Docker engine of a test's own: `private_engine`."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        pytest.skip("an engine of a test's own takes root, and dockerd")
    return private_engine


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A network in which real servers have addresses that are no address of the machine's."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces of a test's own take root")
    with contextlib.closing(Outside(tmp_path_factory.mktemp("outside"))) as outside:
        yield outside


@pytest.fixture
def witness() -> Iterator[Witness]:
    """Sees what each run makes, and what is left of it."""
    witness = Witness(docker.from_env())
    yield witness
    witness.close()


@pytest.fixture
def datagram_server() -> Iterator[socket.socket]:
    """A socket on loopback that takes datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture(scope="session")
def is_podman(engine_client: docker.DockerClient) -> bool:
    """Whether the engine is Podman, which differs in what a test may have to say."""
    return any("Podman" in part["Name"] for part in engine_client.version()["Components"])


@pytest.fixture(scope="session")
def clients_image(engine_client: docker.DockerClient) -> str:
    """The image with curl, git, Node.js, Python's httpx and requests, openssl, ping and nc."""
    return require_image(engine_client, "clients")


@pytest.fixture(scope="session")
def bare_image(engine_client: docker.DockerClient) -> str:
    """The image without a CA bundle and without an interpreter."""
    return require_image(engine_client, "bare")


@pytest.fixture(scope="session")
def bodies_image(engine_client: docker.DockerClient) -> str:
    """The image with curl, Node.js, Python's httpx and requests, and Python's libraries for br and zstd."""
    return require_image(engine_client, "bodies")


@pytest.fixture(scope="session")
def shop_image(engine_client: docker.DockerClient) -> str:
    """The image of the examples: a service that charges at api.stripe.com and tells hooks.slack.com."""
    return require_image(engine_client, "shop")


@pytest.fixture(scope="session")
def curl_image(engine_client: docker.DockerClient) -> str:
    """The image of the README, or one that stands in for it where it cannot be pulled."""
    require_tag(engine_client, "curlimages/curl")
    return "curlimages/curl"


@pytest.fixture(scope="session")
def roots_image(engine_client: docker.DockerClient) -> str:
    """The image whose roots are behind links and where a variable of its own points."""
    return require_image(engine_client, "roots")


@pytest.fixture(scope="session")
def services_image(engine_client: docker.DockerClient) -> str:
    """The image with a Redis server, and the clients of Redis, MySQL and AWS."""
    return require_image(engine_client, "services")


@pytest.fixture(scope="session")
def kafka_image(engine_client: docker.DockerClient) -> str:
    """An image with clients of Kafka."""
    return require_image(engine_client, "kafka")


@pytest.fixture(scope="session")
def senders_image(engine_client: docker.DockerClient) -> str:
    """An image with senders of datagrams, such as chronyd and logger."""
    return require_image(engine_client, "senders")


@pytest.fixture(scope="session")
def runtimes_image(engine_client: docker.DockerClient) -> str:
    """The image with the runtimes of the matrix, but for Java and Go."""
    return require_image(engine_client, "runtimes")


@pytest.fixture(scope="session")
def http2_image(engine_client: docker.DockerClient) -> str:
    """The image with nghttp2's server and clients, and curl; the server has a page at /file in /srv/www."""
    return require_image(engine_client, "http2")


@pytest.fixture(scope="session")
def sdks_image(engine_client: docker.DockerClient) -> str:
    """The image with SDKs of PyPI and npm in /app, as their users install them."""
    return require_image(engine_client, "sdks")


@pytest.fixture(scope="session")
def browsers_image(engine_client: docker.DockerClient) -> str:
    """The image with Debian's Chromium and Firefox."""
    return require_image(engine_client, "browsers")


@pytest.fixture(scope="session")
def java_image(engine_client: docker.DockerClient) -> str:
    """The image with Java 21 and 25, and a client in /srv."""
    return require_image(engine_client, "java")


@pytest.fixture(scope="session")
def java_home_image(engine_client: docker.DockerClient) -> str:
    """The same with a JDK below JAVA_HOME, whose keystore holds one root of its own, and with JAVA_TOOL_OPTIONS."""
    return require_image(engine_client, "java-home")


@pytest.fixture(scope="session")
def python_image(engine_client: docker.DockerClient) -> str:
    """The image with a Python for sidecars."""
    return require_image(engine_client, "python")


@pytest.fixture(scope="session")
def websocket_image(engine_client: docker.DockerClient) -> str:
    """The image with the WebSocket clients of Python and Node.js."""
    return require_image(engine_client, "websocket")


@pytest.fixture(scope="session")
def go_image(engine_client: docker.DockerClient) -> str:
    """The image with a static program and nothing else."""
    return require_image(engine_client, "go")


@pytest.fixture(scope="session")
def grpc_image(engine_client: docker.DockerClient) -> str:
    """The image with grpcio, grpc-js and grpc-go, and a client of each."""
    return require_image(engine_client, "grpc")


def require_image(client: docker.DockerClient, name: str) -> str:
    """Return the tag of the test image *name*, or fail with what to type."""
    return require_tag(client, f"pytest-egress-test/{name}")


def require_tag(client: docker.DockerClient, name: str) -> str:
    """Return an image's name with its tag, or fail with what to type."""
    tag = f"{name}:latest"
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        pytest.fail(f"the engine has no image {tag!r}; run `make images`", pytrace=False)
    return tag
