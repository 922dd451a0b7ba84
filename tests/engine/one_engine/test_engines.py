"""Engines that are not this machine's own: over TLS, over ssh, by a Docker context, and from inside a container."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import pytest

import pytest_egress.engine.endpoint as endpoint
from pytest_egress import Egress, EngineError, ImageError, LinkError, Response
from pytest_egress.engine.archive import File, build_tar
from pytest_egress.engine.endpoint import SshClient, engine_address, engine_parameters, make_client
from pytest_egress.engine.engine import Engine
from pytest_egress.session import Session
from pytest_egress.targets.sidecars.provision import WITH_IMAGE, SidecarSetup
from tests.conftest import require_image
from tests.support.docker_command import ENGINE_VARIABLES, LINK_VARIABLES, docker_command
from tests.support.engines import OwnEngine, PrivateEngine
from tests.support.leftovers import until
from tests.support.project import ROOT

SECONDS = 30

SCENARIO = '''
import pytest
from pytest_egress import port_open

TARGET = """
import socket
s = socket.create_connection(("db.test", 5432))
s.sendall(b"hello")
print(s.recv(5).decode())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    u.sendto(b"ping", ("192.0.2.7", 123))
except OSError as error:
    print(error.strerror)
print(open("/srv/given").read())
"""
SERVER = "import socket; c = socket.create_server(('', 8000)).accept()[0]; c.sendall(b'served')"
PYTHON = "pytest-egress-test/python"


def test_tls_is_answered(egress):
    charges = egress.intercept_https("api.stripe.com", lambda request: request.path)
    assert egress.run("pytest-egress-test/go", ["api.stripe.com"]).stdout == "/greeting\\n"
    charges.assert_called_once()


def test_bytes_datagrams_and_files(egress):
    egress.intercept_tcp("db.test:5432", lambda sock: sock.sendall(sock.recv(5)[::-1]))
    block = egress.block("192.0.2.7:123")
    code = ["python3", "-c", TARGET]
    result = egress.run(PYTHON, entrypoint=code, files={"/srv/given": "a file"})
    assert result.stdout.splitlines() == ["olleh", "Operation not permitted", "a file"]
    block.assert_called_once()


def test_a_port_of_the_target(egress):
    target = egress.start(PYTHON, entrypoint=["python3", "-c", SERVER])
    for _ in range(200):
        try:
            with target.connect(8000) as sock:
                assert sock.recv(6) == b"served"
            return
        except OSError:
            import time; time.sleep(0.05)
    raise AssertionError(target.logs())


def test_what_no_route_claims(egress):
    egress.run("pytest-egress-test/go", ["other.test"], check=False)
'''


@pytest.fixture(autouse=True)
def no_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENGINE_VARIABLES, *LINK_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def remote(
    engine_client: docker.DockerClient, own_engine: OwnEngine, python_image: str, go_image: str
) -> Iterator[PrivateEngine]:
    """An engine that does not see the folder for temporary files: as far as that goes, another machine's."""
    hidden = [tempfile.gettempdir()]
    options = [f"--add-runtime=runsc={shutil.which('runc')}"]  # by its name, as far as that goes
    with own_engine(Path("/var/tmp"), tls=True, hidden=hidden, options=options) as engine:
        for image in (python_image, go_image):
            engine.load(engine_client, image)
        yield engine


@pytest.fixture
def by_tls(remote: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> PrivateEngine:
    """The same, named by the environment."""
    monkeypatch.setenv("DOCKER_HOST", remote.tls_address)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(remote.cert_path))
    return remote


@pytest.fixture(scope="module")
def ssh_host(
    engine_client: docker.DockerClient,
    remote: PrivateEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Path]]:
    """A container with an sshd on loopback and the remote engine's socket: its address, and a folder with an ssh that
    knows its key."""
    folder = tmp_path_factory.mktemp("ssh")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    container = engine_client.containers.create(
        require_image(engine_client, "ssh"),
        ports={"22/tcp": ("127.0.0.1", 0)},
        volumes=[f"{remote.folder}/docker.sock:/run/engine.sock"],
    )
    try:
        public = File(content=Path(f"{key}.pub").read_bytes(), mode=0o600)
        container.put_archive(
            "/", build_tar({"/root/.ssh/authorized_keys": public}, ["/root/.ssh"])
        )
        container.start()
        port = published_port(container, "22/tcp")
        wait_for_banner(port)
        write_ssh(folder, key)
        yield f"ssh://root@127.0.0.1:{port}/run/engine.sock", folder
    finally:
        container.remove(force=True, v=True)


def published_port(container: Any, port: str) -> int:
    """Where a port of a running container is on loopback."""
    container.reload()
    return int(container.attrs["NetworkSettings"]["Ports"][port][0]["HostPort"])


def wait_for_banner(port: int) -> None:
    def is_there() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(1)
            return sock.recv(4) == b"SSH-"
        return False

    assert until(is_there, SECONDS), "sshd does not answer"


def write_ssh(folder: Path, key: Path) -> None:
    """A program `ssh` with the settings that a user has in ~/.ssh/config."""
    config = folder / "config"
    config.write_text(
        f"IdentityFile {key}\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n"
    )
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def by_ssh(ssh_host: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The remote engine by ssh, named by the environment."""
    address, folder = ssh_host
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", address)
    return address


def ssh_programs(address: str) -> list[str]:
    """The connections to an address that this machine has."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "args"], check=True, capture_output=True, text=True
    )
    wanted = f" -p {urlsplit(address).port} "
    return [line for line in listed.stdout.splitlines() if wanted in line]


# The plugin by each of them.


def check_scenario(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run the scenario in a process of its own; what it makes on this machine fails by nothing but its last test."""
    pytester.makepyfile(test_remote=SCENARIO)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--log-level=WARNING", *args)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "  GET https://other.test/greeting",
            "FAILED test_remote.py::test_what_no_route_claims - GET https://other.test/*",
        ]
    )
    return result


def containers_of(engine: PrivateEngine) -> list[str]:
    """The names of its containers: none soon after a run, as the engine itself removes a sidecar that has ended."""
    return [
        str(container.name)
        for container in engine.client().containers.list(all=True, ignore_removed=True)
    ]


def test_over_tls_another_machine_gets_the_stream_link_and_the_image(
    by_tls: PrivateEngine,
    python_image: str,
    monkeypatch: pytest.MonkeyPatch,
    pytester: pytest.Pytester,
) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)
    check_scenario(pytester)
    assert until(lambda: not containers_of(by_tls))


def test_over_ssh_likewise(
    by_ssh: str,
    remote: PrivateEngine,
    python_image: str,
    monkeypatch: pytest.MonkeyPatch,
    pytester: pytest.Pytester,
) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)
    check_scenario(pytester)
    assert until(lambda: not containers_of(remote))
    assert ssh_programs(by_ssh) == []


def test_a_run_in_a_container_with_the_sockets_mount_likewise(
    engine_client: docker.DockerClient,
    clients_image: str,
    remote: PrivateEngine,
    python_image: str,
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_remote=SCENARIO)
    folders = {sys.prefix, os.path.realpath(sys.base_prefix), str(ROOT)}
    kept = [each for each in folders if each != "/usr"]  # the image's own would be hidden
    container = engine_client.containers.create(
        clients_image,
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_remote.py"],
        network_mode="none",
        working_dir="/srv/suite",
        environment={
            "DOCKER_HOST": "unix:///run/engine.sock",
            "PYTEST_EGRESS_SIDECAR_IMAGE": python_image,
        },
        volumes=[
            *(f"{folder}:{folder}:ro" for folder in kept),
            f"{pytester.path}:/srv/suite",
            f"{remote.folder}/docker.sock:/run/engine.sock",
        ],
    )
    try:
        container.start()
        container.wait(timeout=120)
        lines = container.logs().decode().splitlines()
    finally:
        container.remove(force=True, v=True)
    assert "1 failed, 3 passed" in lines[-1], "\n".join(lines)
    assert until(lambda: not containers_of(remote))


def test_a_killed_run_leaves_nothing_on_an_engine_behind_ssh(
    by_ssh: str, remote: PrivateEngine, python_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)
    code = f"""
import time
import uuid
from pytest_egress import Egress
with Egress() as egress:
    egress.start({python_image!r}, entrypoint=["sleep", "600"])
    engine = egress._inner.session.engine
    print(engine.folder, engine.client._bridge.path.rpartition("/")[0], flush=True)
    time.sleep(600)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with run:
        try:
            assert run.stdout is not None
            folders = [Path(each) for each in run.stdout.readline().decode().split()]
            assert all(each.is_dir() for each in folders)
            assert len(containers_of(remote)) == 2
        finally:
            run.kill()

    def left() -> list[object]:
        return [*containers_of(remote), *ssh_programs(by_ssh), *filter(Path.exists, folders)]

    assert until(lambda: not left(), SECONDS), left()


# Which engine.


def test_a_context_leads_to_its_engine_with_its_certificates(
    remote: PrivateEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    pairs = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    material = ",".join(f"{name}={remote.cert_path}/{file}" for name, file in pairs.items())
    endpoint = f"host={remote.tls_address},{material}"
    docker_command("context", "create", "far", "--docker", endpoint)
    identity = remote.client().info()["ID"]
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    assert identity_of() == identity
    monkeypatch.delenv("DOCKER_CONTEXT")
    docker_command("context", "use", "far")
    assert identity_of() == identity
    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")  # goes before the context
    assert engine_parameters(os.environ) == {"base_url": "unix:///var/run/docker.sock"}


def identity_of(address: str | None = None) -> str:
    with contextlib.closing(make_client(address)) as client:
        return str(client.info()["ID"])


def test_an_engine_behind_tls_is_reached_whatever_requests_is_told_to_trust(
    by_tls: PrivateEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    assert identity_of() == by_tls.client().info()["ID"]


def test_what_ssh_says_is_in_the_error(
    ssh_host: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, folder = ssh_host
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", address.replace("root@", "nobody@"))
    with pytest.raises(EngineError) as caught, Egress() as egress:
        egress.run("any", [])
    assert f"no Docker engine answers at {os.environ['DOCKER_HOST']}: " in str(caught.value)
    assert "Permission denied (publickey" in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="No such file or directory: 'ssh'"), Egress() as egress:
        egress.run("any", [])


def test_closing_ends_every_connection_and_leaves_nothing(by_ssh: str) -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    client = make_client()
    assert isinstance(client, SshClient)
    assert engine_address(client) == by_ssh
    folder = Path(client._bridge.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    client.ping()
    assert ssh_programs(by_ssh)
    client.close()
    client.close()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert not folder.exists()
    assert ssh_programs(by_ssh) == []


# In which way a sidecar is had.


def test_each_way_that_failed_is_in_the_error(remote: PrivateEngine) -> None:
    with (
        pytest.raises(ImageError) as caught,
        Egress(session=Session(client=remote.client)) as egress,
    ):
        egress.run("pytest-egress-test/go", ["any"])
    first, second, *rest = str(caught.value).splitlines()
    assert first == (
        "no sidecar has started: --egress-sidecar-image=IMAGE names one with python3, 3.10 or newer, "
        "that this engine has or can pull"
    )
    assert second.startswith(
        f"the image 'python:3.13-slim' is not on the engine at {remote.address} and cannot be pulled"
    )
    assert rest[-1].startswith(
        "An image is needed since: The engine does not share this machine's files ("
    )
    assert egress._inner.session.provisioner.summary == ""
    assert until(lambda: not containers_of(remote))


def test_the_way_is_said_once_and_kept(
    remote: PrivateEngine,
    python_image: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)
    with caplog.at_level(logging.WARNING), Egress(session=Session(client=remote.client)) as egress:
        egress.intercept_https("*.test", Response(text="hello"))
        for _ in range(2):
            assert egress.run("pytest-egress-test/go", ["a.test"]).stdout == "hello\n"
    assert [record.getMessage().rpartition(" So: ")[2] for record in caplog.records] == [
        f"stream link, sidecar with {python_image}"
    ]


def test_an_image_is_used_on_this_machine_where_it_is_asked_for(
    engine_client: docker.DockerClient, python_image: str, go_image: str
) -> None:
    del engine_client
    for link in ("descriptor", "stream"):
        with Egress(session=Session(link=link, sidecar_image=python_image)) as egress:
            egress.intercept_https("a.test", Response(text="hello"))
            assert egress.run(go_image, ["a.test"]).stdout == "hello\n"
            assert egress._inner.session.provisioner.setups[0] == SidecarSetup(link, python_image)


def test_an_image_without_python_is_named(bare_image: str) -> None:
    with (
        pytest.raises(LinkError) as caught,
        Egress(session=Session(sidecar_image=bare_image)) as egress,
    ):
        egress.run(bare_image, ["true"])
    assert str(caught.value).endswith(WITH_IMAGE)
    latest, before = str(caught.value).split("\nBefore that: ")
    for text in (latest, before):
        assert text.startswith("The engine refuses the sidecar: ")
        assert '"python3": executable file not found' in text


def test_an_image_is_pulled_once_and_the_log_tells_how_far_it_is(
    engine_client: docker.DockerClient, remote: PrivateEngine, caplog: pytest.LogCaptureFixture
) -> None:
    registry = engine_client.containers.run(
        require_image(engine_client, "registry"), ports={"5000/tcp": ("127.0.0.1", 0)}, detach=True
    )
    engine = Engine(remote.client, uuid.uuid4().hex)
    try:
        repository = f"127.0.0.1:{published_port(registry, '5000/tcp')}/blob"
        content = build_tar({"/blob": os.urandom(3_000_000)})
        engine_client.api.import_image_from_data(content, repository=repository, tag="latest")
        push(engine_client, repository)
        with caplog.at_level(logging.INFO):
            pulled = engine.image(repository)
            assert engine.image(repository).id == pulled.id
        remote.client().images.remove(repository)
    finally:
        engine.close()
        registry.remove(force=True, v=True)
    first, *told = [record.getMessage() for record in caplog.records]
    assert first == f"pulling {repository}"
    assert told
    assert all(re.fullmatch(rf"pulling {repository}: \d\.\d of 3\.0 MB", line) for line in told)


def push(client: docker.DockerClient, repository: str) -> None:
    """Move an image into a registry that may still be starting."""
    said: list[str] = []

    def is_pushed() -> bool:
        said.append(client.images.push(repository))
        return "error" not in said[-1]

    try:
        assert until(is_pushed, SECONDS), said[-1]
    finally:
        client.images.remove(repository)


# What is refused.


def test_a_runtime_with_a_network_stack_of_its_own_is_refused(
    remote: PrivateEngine, python_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)
    with (
        pytest.raises(EngineError, match="the runtime 'runsc' is refused: it gives each container"),
        Egress(session=Session(client=remote.client)) as egress,
    ):
        egress.run("pytest-egress-test/go", ["a.test"], runtime="runsc")
    assert until(lambda: not containers_of(remote))


def test_an_engine_behind_a_proxy_that_drops_headers_is_known_too(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = endpoint.identify(engine_client), engine_client.api.api_version
    monkeypatch.setattr(endpoint, "said_by", lambda api: {"Server": "nginx"})
    with contextlib.closing(endpoint.make_client()) as client:
        assert (endpoint.identify(client), client.api.api_version) == known
