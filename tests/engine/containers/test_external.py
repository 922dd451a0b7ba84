"""Containers that something else creates and starts: what they are created with, and what `trust` does."""

from __future__ import annotations

import re
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container as DockerContainer

from pytest_egress import Egress, ImageError
from pytest_egress.targets.trust.runtimes import DIRECTORY, VARIABLES
from pytest_egress.traffic.entries import TlsFailure
from tests.support.stage import SECONDS, eventually
from tests.support.target_shell import wait_until_gone

URL = "https://api.example.test/"
WITHOUT_VARIABLES = ["env", "-i", "PATH=/usr/bin:/bin", "curl", "-fsS", URL]

Create = Callable[..., DockerContainer]


@pytest.fixture
def create(engine_client: docker.DockerClient) -> Iterator[Create]:
    """Creates containers as a user does with docker-py; they are removed at the end."""
    created: list[DockerContainer] = []

    def create(image: str, command: list[str], **options: Any) -> DockerContainer:
        created.append(engine_client.containers.create(image, command, **options))
        return created[-1]

    yield create
    for container in reversed(created):  # Podman keeps one that another needs
        container.remove(force=True)


@pytest.mark.docker
def test_the_options_are_a_network_variables_and_a_folder(egress: Egress, bare_image: str) -> None:
    options = egress.docker_options(bare_image, env={"X": "1", "SSL_CERT_FILE": "/mine.pem"})
    assert set(options) == {"network_mode", "environment", "volumes"}
    assert options["network_mode"].startswith("container:")
    ours = {variable.name: variable.value(DIRECTORY) for variable in VARIABLES}
    assert options["environment"] == {**ours, "X": "1", "SSL_CERT_FILE": "/mine.pem"}
    ((folder, mount),) = options["volumes"].items()
    assert mount == {"bind": DIRECTORY, "mode": "ro"}
    names = {path.name for path in Path(folder).iterdir()}
    assert names == {"ca.pem", "bundle.pem", "truststore.jks"}


def test_what_a_guest_sends_is_answered_and_recorded(
    egress: Egress, create: Create, clients_image: str
) -> None:
    api = egress.intercept_https("api.example.test", b"hello")
    options = egress.docker_options(clients_image)
    container = create(clients_image, ["curl", "-fsS", URL], **options)
    container.start()
    assert container.wait()["StatusCode"] == 0
    assert container.logs() == b"hello"
    assert api.assert_called_once().container == clients_image.rpartition("/")[2]


def test_trust_puts_the_ca_into_the_guests_own_bundle(
    egress: Egress, create: Create, clients_image: str
) -> None:
    egress.intercept_https("api.example.test", b"hello")
    container = create(clients_image, WITHOUT_VARIABLES, **egress.docker_options(clients_image))
    guest = egress.trust(container.name)
    container.start()
    assert guest.wait().stdout == "hello"


@pytest.mark.egress(unrouted="block")
def test_without_trust_a_client_that_reads_no_variable_is_told_why(
    egress: Egress, create: Create, clients_image: str
) -> None:
    container = create(clients_image, WITHOUT_VARIABLES, **egress.docker_options(clients_image))
    container.start()
    assert container.wait()["StatusCode"] == 60
    (failure,) = (entry for entry in egress.ledger if isinstance(entry, TlsFailure))
    assert failure.note.endswith(
        "; trust(container) was not called for it: variables alone lead to the CA"
    )


def test_the_handle_reaches_the_ports_of_the_guest(
    egress: Egress, create: Create, clients_image: str
) -> None:
    serve = ["python3", "-m", "http.server", "8000"]
    container = create(clients_image, serve, **egress.docker_options(clients_image))
    guest = egress.trust(container)
    container.start()

    def answers() -> bool:
        try:
            with urllib.request.urlopen(guest.url(8000), timeout=SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    assert eventually(answers)
    assert guest.exec(["true"]).exit_code == 0


def test_the_name_of_a_guest_is_its_sidecars(
    egress: Egress, create: Create, clients_image: str
) -> None:
    options = egress.docker_options(
        clients_image, hostname="shop", extra_hosts={"db.internal": "192.0.2.7"}
    )
    container = create(clients_image, ["sh", "-c", "hostname; getent hosts db.internal"], **options)
    container.start()
    container.wait()
    assert container.logs().split() == [b"shop", b"192.0.2.7", b"db.internal"]


def test_a_container_that_runs_is_refused(egress: Egress, create: Create, bare_image: str) -> None:
    container = create(bare_image, ["sleep", "60"], **egress.docker_options(bare_image))
    container.start()
    with pytest.raises(ValueError, match="takes a container that is created and not yet") as caught:
        egress.trust(container)
    assert str(caught.value) == (
        f"{container.name} is running: trust() takes a container that is created and not yet started"
    )


def test_a_container_with_a_network_of_its_own_is_refused(
    egress: Egress, create: Create, bare_image: str
) -> None:
    container = create(bare_image, ["true"], network_mode="none")
    with pytest.raises(ValueError, match="docker_options") as caught:
        egress.trust(container)
    assert str(caught.value) == (
        f"{container.name} has network_mode='none': trust() takes a container that was created with "
        "egress.docker_options(image)"
    )


OUTSIDE = (
    "with it a target can run programs outside of its container, which would not be captured; mount with volumes= or "
    'tmpfs=, and give a browser\'s sandbox its user namespaces with security_opt=["seccomp=unconfined"]'
)
HOST = "with it a target can reach the host's network namespace"


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        (
            "privileged",
            True,
            "a privileged target can leave its namespace; give it the capabilities it needs with cap_add=[...]",
        ),
        ("cap_add", ["SYS_ADMIN"], OUTSIDE),
        ("pid_mode", "host", HOST),
        ("ipc_mode", "host", HOST),
        # Podman refuses it itself, beside a host name.
        pytest.param("uts_mode", "host", HOST, marks=pytest.mark.docker),
    ],
)
def test_trust_refuses_what_start_refuses_in_the_same_words(
    egress: Egress, create: Create, bare_image: str, option: str, value: object, reason: str
) -> None:
    options = egress.docker_options(bare_image) | {option: value}
    container = create(bare_image, ["true"], **options)
    with pytest.raises(ValueError, match="is refused") as caught:
        egress.trust(container)
    assert str(caught.value) == f"{container.name}: {option}={value!r} is refused: {reason}"
    with pytest.raises(ValueError, match="is refused") as of_start:
        egress.start(bare_image, **{option: value})  # type: ignore[arg-type]  # of docker-py
    assert str(caught.value) == f"{container.name}: {of_start.value}"


def test_the_processes_of_a_container_with_another_network_are_refused(
    egress: Egress, create: Create, bare_image: str
) -> None:
    stranger = create(bare_image, ["true"], name=f"stranger-{uuid.uuid4().hex}")
    beside = create(
        bare_image, ["true"], network_mode="none", pid_mode=f"container:{stranger.name}"
    )
    options = egress.docker_options(bare_image)
    refusal = re.escape(
        " is refused: with it a target can reach the network of that container; name another target"
    )
    for other in (stranger, beside):
        shared = f"container:{other.name}"
        guest = create(bare_image, ["true"], **{**options, "pid_mode": shared})
        with pytest.raises(ValueError, match=f"^{guest.name}: pid_mode='container:.*'{refusal}$"):
            egress.trust(guest)
        with pytest.raises(ValueError, match=f"^pid_mode='container:.*'{refusal}$"):
            egress.start(bare_image, ["true"], pid_mode=shared)


def test_the_processes_of_another_target_can_be_shared(egress: Egress, clients_image: str) -> None:
    first = egress.start(clients_image, ["sleep", "600"])
    shared = f"container:{first.id}"
    result = egress.run(clients_image, ["cat", "/proc/1/cmdline"], pid_mode=shared)
    assert result.stdout_bytes == b"sleep\x00600\x00"


def test_a_guest_with_private_namespaces_of_its_own_is_trusted(
    egress: Egress, create: Create, bare_image: str
) -> None:
    options = egress.docker_options(bare_image) | {"ipc_mode": "private", "cap_add": ["SYS_TIME"]}
    container = create(bare_image, ["true"], **options)
    assert egress.trust(container).id == container.id


def test_an_image_that_is_not_there_leaves_no_sidecar(
    egress: Egress, engine_client: docker.DockerClient
) -> None:
    ((name, value),) = egress._inner.session.engine.labels.items()
    ours: dict[str, Any] = {"label": f"{name}={value}"}
    egress._inner.session.sidecars.close()  # one may be on its way, for a next container
    before = engine_client.api.containers(all=True, filters=ours)  # those of other tests may go yet
    with pytest.raises(ImageError):
        egress.docker_options("pytest-egress-test/nothing:latest")
    after = engine_client.api.containers(all=True, filters=ours)
    assert {each["Id"] for each in after} <= {each["Id"] for each in before}


@pytest.mark.docker
def test_with_its_scope_a_guests_sidecar_and_folder_go_and_the_guest_stays(
    engine_client: docker.DockerClient, create: Create, bare_image: str
) -> None:
    with Egress() as egress:
        options = egress.docker_options(bare_image)
        container = create(bare_image, ["sleep", "60"], **options)
        container.start()
    (folder,) = options["volumes"]
    assert not Path(folder).exists()
    sidecar = options["network_mode"].partition(":")[2]
    wait_until_gone(engine_client, sidecar)
    container.reload()
    assert container.status == "running"
