"""`egress.engine()`: containers that the docker command and docker-py start there are captured."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import stat
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from pytest_egress import Egress, TcpConnection, UnroutedError
from pytest_egress.base.clock import wall
from pytest_egress.endpoint.server import EngineEndpoint
from pytest_egress.engine.leftovers import SESSION_LABEL
from tests.support.killed_runs import KilledRun, assert_nothing_is_left
from tests.support.leftovers import Witness, containers, until

ASK = ["curl", "-sS", "https://api.test/"]
Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def engine(egress: Egress) -> Iterator[EngineEndpoint]:
    with egress.engine() as made:
        yield made


@pytest.fixture
def command(engine: EngineEndpoint) -> Docker:
    """The docker command, with the endpoint as its engine."""

    def run(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **engine.environment()},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_docker_run_is_answered_by_a_route(
    egress: Egress, command: Docker, clients_image: str
) -> None:
    route = egress.intercept_https("api.test", {"id": "ch_1"})
    done = command("run", "--rm", clients_image, *ASK)
    assert (done.returncode, done.stdout) == (0, '{"id": "ch_1"}'), done.stderr
    assert len(route.calls) == 1
    assert not egress.containers  # its sidecar went with it


def run_undeclared(options: list[str], image: str) -> None:
    with Egress() as egress:
        env = {**os.environ, **egress.engine().environment()}
        arguments = ["docker", "run", *options, image, *ASK]
        subprocess.run(arguments, env=env, check=True, capture_output=True, timeout=60)
        if "--detach" in options:
            egress._inner.session.ledger.wait_for(lambda: bool(egress.exchanges), 30)


@pytest.mark.parametrize("options", [["--rm"], ["--rm", "--detach"], []])
def test_an_undeclared_request_fails_the_test(options: list[str], clients_image: str) -> None:
    with pytest.raises(UnroutedError, match=r"GET https://api\.test/"):
        run_undeclared(options, clients_image)


def test_a_container_is_used_by_other_commands(
    egress: Egress, command: Docker, clients_image: str, tmp_path: Path
) -> None:
    egress.intercept_https("api.test", {"id": "ch_1"})
    file = tmp_path / "word"
    file.write_text("word")
    assert command("run", "-d", "--name", "endpoint-shop", clients_image, "cat").returncode == 0
    run = command("run", "--rm", "-i", clients_image, "cat", given="typed")
    assert run.stdout == "typed", run.stderr
    alone = ["run", "--rm", "--network", "none", "--hostname", "alone", clients_image, "hostname"]
    assert command(*alone).stdout == "alone\n"
    sleeping = command("run", "-d", clients_image, "sh", "-c", "echo up; exec sleep 600")
    name = sleeping.stdout.strip()
    assert command("exec", name, *ASK).stdout == '{"id": "ch_1"}'
    assert command("exec", "-i", name, "cat", given="typed").stdout == "typed"
    assert command("exec", name, "sh", "-c", "exit 3").returncode == 3
    assert command("cp", str(file), f"{name}:/word").returncode == 0
    assert command("exec", name, "cat", "/word").stdout == "word"
    assert command("logs", name).stdout == "up\n"
    form = "{{.HostConfig.NetworkMode}} {{json .Config.Labels}} {{json .Config.Env}}"
    told = command("inspect", "-f", form, name).stdout
    assert told.startswith("default {")
    assert "org.pytest-egress.session" not in told
    assert "SSL_CERT_FILE" not in told
    assert "sidecar" not in command("ps", "--all").stdout
    until_now = str(int(wall()) + 1)  # whole seconds: "0s" is the last one
    events = command("events", "--since", "10m", "--until", until_now, "--filter", "type=container")
    assert name in events.stdout
    assert "org.pytest-egress.session" not in events.stdout
    assert "sidecar" not in events.stdout
    assert command("kill", name).returncode == 0
    assert command("wait", name).stdout == "137\n"
    assert command("rm", "endpoint-shop").returncode == 0


NOWHERE = (
    "type=volume,dst=/in,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/srv/nowhere.test"
)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--network", "host"], "the network 'host' is refused"),
        (["--network", "back"], "network back not found"),
        (["--privileged"], "a privileged target can leave its namespace"),
        (["--pid", "host"], "PidMode='host' is refused"),
        (["--publish", "192.0.2.1:80:80"], "ports are published on 127.0.0.1 alone"),
        (["--volume", "/var/run/docker.sock:/s"], "would not be captured"),
        (["--mount", NOWHERE], "no such file or directory"),  # the engine's own words
        (["--name", "pytest-egress-kept-a"], "the name 'pytest-egress-kept-a' is refused"),
    ],
)
def test_a_way_out_is_refused(
    command: Docker, clients_image: str, options: list[str], text: str
) -> None:
    done = command("run", "--rm", *options, clients_image, "true")
    assert text in done.stderr
    assert done.returncode in (125, 127)  # 127 where no file was found


def test_what_was_created_elsewhere_is_not_touched(
    engine_client: docker.DockerClient, command: Docker, clients_image: str
) -> None:
    other = engine_client.containers.create(clients_image, ["true"])
    try:
        mounts = ["create", "--volumes-from", str(other.id), clients_image]
        for arguments in (["start", other.id], ["rm", "-f", other.id], mounts):
            done = command(*arguments)
            assert done.returncode != 0
            assert "was not created through this endpoint" in done.stderr
        entering = ["create", "--network=none", f"--pid=container:{other.id}", clients_image]
        assert "with it a target can reach the network" in command(*entering).stderr
        other.reload()
        assert other.status == "created"
    finally:
        other.remove(force=True)


def test_the_volume_of_a_share_is_refused(
    engine_client: docker.DockerClient, command: Docker, clients_image: str
) -> None:
    options = {"type": "nfs", "o": "addr=192.0.2.1", "device": ":/data"}
    volume = engine_client.volumes.create(driver_opts=options)
    try:
        done = command("create", "--volume", f"{volume.name}:/data", clients_image)
        assert "the volume of type 'nfs' is refused" in done.stderr
    finally:
        volume.remove()


def test_volumes_made_through_it_end_with_it(
    engine_client: docker.DockerClient, clients_image: str, witness: Witness
) -> None:
    other = engine_client.volumes.create()
    with Egress() as egress:
        env = {**os.environ, **egress.engine().environment()}

        def command(*arguments: str) -> subprocess.CompletedProcess[str]:
            asked = ["docker", *arguments]
            return subprocess.run(asked, env=env, capture_output=True, text=True, timeout=60)

        made = ["volume", "create", "--label", "of=shop", "endpoint-data"]
        assert command(*made).stdout == "endpoint-data\n"
        told = command("volume", "inspect", "-f", "{{json .Labels}}", "endpoint-data").stdout
        assert json.loads(told) == {"of": "shop"}
        listed = command("volume", "ls", "--filter", "label=of=shop", "--format", "{{.Name}}")
        assert listed.stdout == "endpoint-data\n"
        at = ["-v", "endpoint-data:/data", "-v", "endpoint-more:/more"]
        put = ["run", "--rm", *at, clients_image, "sh", "-c", "echo kept >/data/word"]
        assert command(*put).returncode == 0
        got = command("run", "-d", *at, clients_image, "cat", "/data/word")
        assert command("wait", got.stdout.strip()).stdout == "0\n"
        assert command("logs", got.stdout.strip()).stdout == "kept\n"
        assert "was not made through this endpoint" in command("volume", "rm", str(other.id)).stderr
        assert command("volume", "create", "--driver", "sshfs", "endpoint-out").returncode != 0
        assert command("volume", "rm", "endpoint-nobody").returncode != 0
        session = egress._inner.session.engine.labels[SESSION_LABEL]
        assert len(witness.volumes_of(session)) == 2
    assert not witness.volumes_of(session)
    other.remove()


def test_one_call_too_many_gets_a_sentence(engine: EngineEndpoint, command: Docker) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(engine.url.removeprefix("unix://"))
        done = command("version")
        assert "pytest-egress: 64 calls are open at once" in done.stderr
    assert until(lambda: command("version").returncode == 0)


SERVE = "echo hello >/index.html; exec python3 -m http.server -d / 80"


def test_ports_are_published_on_loopback(command: Docker, clients_image: str) -> None:
    serve = ["-d", "-p", "80", clients_image, "sh", "-c", SERVE]
    name = command("run", *serve).stdout.strip()
    address = command("port", name, "80").stdout.strip()
    assert address.startswith("127.0.0.1:")
    assert address in command("ps", "--format", "{{.Ports}}").stdout
    url = f"http://{address}/index.html"
    assert until(lambda: fetched(url) == b"hello\n")
    form = "{{json .NetworkSettings.Ports}}"
    assert address.partition(":")[2] in command("inspect", "-f", form, name).stdout
    number = address.partition(":")[2]
    again = command("run", "--rm", "-p", f"{number}:80", clients_image, "true")
    assert f"Bind for 127.0.0.1:{number} failed: port is already allocated" in again.stderr
    assert again.returncode == 125
    assert command("kill", name).returncode == 0
    assert command("port", name).stdout == ""
    assert command("run", "--rm", "-p", f"{number}:80", clients_image, "true").returncode == 0


def test_networks_are_kept_by_the_endpoint(
    egress: Egress, engine_client: docker.DockerClient, command: Docker, clients_image: str
) -> None:
    made = command("network", "create", "--label", "of=shop", "endpoint-back").stdout.strip()
    assert "endpoint-back" in command("network", "ls", "--filter", "label=of=shop").stdout
    assert not engine_client.networks.list(names=["endpoint-back"])
    at = ["--network", "endpoint-back", "--network-alias", "shop", "-p", "80"]
    name = command("run", "-d", *at, clients_image, "sh", "-c", SERVE).stdout.strip()
    form = "{{.HostConfig.NetworkMode}} {{json .NetworkSettings.Networks}}"
    mode, _, told = command("inspect", "-f", form, name).stdout.partition(" ")
    place = json.loads(told)["endpoint-back"]
    assert (mode, place["NetworkID"], place["Aliases"]) == ("endpoint-back", made, ["shop"])
    assert name in command("network", "inspect", "endpoint-back").stdout
    assert "has active endpoints" in command("network", "rm", "endpoint-back").stderr
    address = command("port", name, "80").stdout.strip()
    assert until(lambda: fetched(f"http://{address}/index.html") == b"hello\n")
    assert command("network", "disconnect", "endpoint-back", name).returncode == 0
    assert command("network", "connect", "endpoint-back", name).returncode == 0
    assert command("kill", name).returncode == 0
    assert command("network", "rm", "endpoint-back").returncode == 0


def test_containers_of_a_network_reach_each_other_by_name(
    egress: Egress, command: Docker, clients_image: str
) -> None:
    for network in ("endpoint-back", "endpoint-front"):
        assert command("network", "create", network).returncode == 0
    at = ["--network", "endpoint-back", "--network-alias", "shop", "--name", "endpoint-till"]
    assert command("run", "-d", *at, clients_image, "sh", "-c", SERVE).returncode == 0
    ask = ["curl", "-sS", "--retry", "20", "--retry-all-errors", "--retry-delay", "1"]
    asking = ["run", "--rm", "--network", "endpoint-back", clients_image, *ask]
    for name in ("shop", "endpoint-till.endpoint-back"):
        done = command(*asking, f"http://{name}/index.html")
        assert done.stdout == "hello\n", done.stderr
    egress.assert_no_egress()
    found = [entry for entry in egress.ledger if isinstance(entry, TcpConnection)]
    assert {entry.host for entry in found} == {"shop", "endpoint-till.endpoint-back"}
    assert {entry.outcome for entry in found} == {"recorded"}
    closed = command("run", "--rm", "--network", "endpoint-back", clients_image, "curl", "shop:81")
    assert closed.returncode != 0
    route = egress.intercept_http("shop", b"by route\n")
    assert command(*asking, "http://shop/index.html").stdout == "by route\n"
    route.assert_called_once()


def call_another_network(image: str) -> None:
    with Egress() as egress:
        env = {**os.environ, **egress.engine().environment()}
        for arguments in (
            ["network", "create", "endpoint-back"],
            ["network", "create", "endpoint-front"],
            ["run", "-d", "--network=endpoint-back", "--name=endpoint-stall", image, "sh", "-c", SERVE],
            ["run", "--rm", "--network=endpoint-front", image, "curl", "-sS", "http://endpoint-stall/"],
        ):  # fmt: skip
            subprocess.run(["docker", *arguments], env=env, check=True, capture_output=True)


def test_a_name_of_another_network_is_captured_as_any(clients_image: str) -> None:
    with pytest.raises(UnroutedError, match=r"GET http://endpoint-stall/"):
        call_another_network(clients_image)


def fetched(url: str) -> bytes:
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        urllib.request.urlopen(url, timeout=5) as answer,
    ):
        return bytes(answer.read())
    return b""


def test_testcontainers_runs_behind_it(
    egress: Egress, engine: EngineEndpoint, clients_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    monkeypatch.setattr("testcontainers.core.config.testcontainers_config.ryuk_disabled", True)
    egress.intercept_https("api.test", {"id": "ch_1"})
    for name, value in engine.environment().items():
        monkeypatch.setenv(name, value)
    made = DockerContainer(clients_image)
    made.with_command(["sh", "-c", SERVE]).with_exposed_ports(80)
    made.waiting_for(HttpWaitStrategy(80, "/index.html").for_status_code(200))
    with made as container:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(80)}"
        assert fetched(f"{url}/index.html") == b"hello\n"
        assert container.exec(ASK).output == b'{"id": "ch_1"}'


COMPOSE = """
services:
  web:
    image: {0}
    command: ["curl", "-sS", "https://api.test/"]
  db:
    image: {0}
    command: ["sh", "-c", "{1}"]
    profiles: [two]
    healthcheck:
      test: ["CMD", "curl", "-sS", "http://127.0.0.1/index.html"]
      interval: 1s
      retries: 60
  app:
    image: {0}
    command: ["curl", "-sS", "http://db/index.html"]
    profiles: [two]
    depends_on:
      db:
        condition: service_healthy
"""


def test_compose_runs_services_behind_it(
    egress: Egress, command: Docker, clients_image: str, tmp_path: Path
) -> None:
    route = egress.intercept_https("api.test", {"id": "ch_1"})
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.format(clients_image, SERVE))
    if command("compose", "version").returncode:
        pytest.skip("the docker command has no Compose here")
    compose = ("compose", "--file", str(file), "--project-name", "endpoint-shop")
    up = command(*compose, "up", "--abort-on-container-exit")
    assert up.returncode == 0, up.stderr
    assert '{"id": "ch_1"}' in up.stdout
    assert command(*compose, "run", "--rm", "web").stdout == '{"id": "ch_1"}'
    assert len(route.calls) == 2
    assert command(*compose, "run", "--rm", "app").stdout == "hello\n"  # services call each other
    egress.assert_only("api.test")
    down = command(*compose, "--profile", "two", "down")
    assert down.returncode == 0, down.stderr
    assert not egress.containers


def test_docker_py_runs_behind_it(
    egress: Egress, engine: EngineEndpoint, clients_image: str
) -> None:
    egress.intercept_https("api.test", {"id": "ch_1"})
    client = docker.DockerClient(base_url=engine.url)
    try:
        container = client.containers.run(clients_image, ["sleep", "600"], detach=True)
        assert container.exec_run(ASK) == (0, b'{"id": "ch_1"}')
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("empty"))
        assert container.put_archive("/", archive.getvalue())
        _, found = container.get_archive("/empty")
        assert found is not None
        assert found["size"] == 0
        assert client.containers.run(clients_image, ASK, remove=True) == b'{"id": "ch_1"}'
        with pytest.raises(docker.errors.APIError, match="not among the calls"):
            client.images.build(fileobj=io.BytesIO(b"FROM scratch"))
        with pytest.raises(docker.errors.NotFound):
            client.containers.get("endpoint-nobody")
    finally:
        client.close()


@pytest.fixture
def of_environment(clients_image: str) -> Iterator[str]:
    """What the engine that the environment names answers to a request, as a fixture of a project would ask."""
    client = docker.from_env()
    yield client.containers.run(clients_image, ASK, remove=True).decode()
    client.close()


@pytest.mark.egress_engine
@pytest.mark.intercept_https("api.test", {"id": "ch_1"})
def test_a_marker_names_it_in_the_environment(
    egress: Egress, of_environment: str, clients_image: str
) -> None:
    assert of_environment == '{"id": "ch_1"}'
    with egress.start(clients_image, ["sleep", "60"]) as container:
        assert container.exec(ASK).stdout == '{"id": "ch_1"}'  # by the engine that was found before


def test_nothing_gets_round_it(engine: EngineEndpoint, clients_image: str) -> None:
    """Each of these made a container with the host's network through a proxy of raw bytes."""
    body = json.dumps({"Image": clients_image, "HostConfig": {"NetworkMode": "host"}}).encode()

    def post(path: bytes, body: bytes = body) -> bytes:
        head = b"POST %s HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n" % path
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    create = b"/v1.45/containers/create"
    upgrade = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    for data in (
        post(create.replace(b"c", b"%63")),
        post(b"/v1.45//containers/create"),
        post(b"http://d" + create),
        upgrade + post(create),
        upgrade.replace(b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b"") + post(create),
        post(create, body.replace(b"NetworkMode", b"networkmode")),
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(engine.url.removeprefix("unix://"))
            sock.sendall(data)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert b'"Id"' not in answer
        assert answer.count(b"HTTP/1.1") == 1


def test_it_ends_with_its_scope(engine_client: docker.DockerClient, clients_image: str) -> None:
    with Egress() as egress:
        engine = egress.engine()
        path = Path(engine.url.removeprefix("unix://"))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        env = {**os.environ, **engine.environment()}
        arguments = ["docker", "run", "-d", clients_image, "sleep", "600"]
        subprocess.run(arguments, env=env, check=True, capture_output=True, timeout=60)
        session = next(iter(egress._inner.session.engine.labels.values()))
        assert len(containers(engine_client, session)) == 2
    assert not path.exists()
    assert until(lambda: not containers(engine_client, session))  # a sidecar ends by itself


def test_nothing_is_left_of_a_killed_run(witness: Witness, clients_image: str) -> None:
    start = f"""import subprocess
    subprocess.run(["docker", "run", "-d", "-v", "endpoint-left:/data", {clients_image!r}, "sleep", "600"],
        env={{**os.environ, **egress.engine().environment()}}, check=True, stdout=subprocess.DEVNULL)"""
    run = KilledRun(start)
    try:
        assert run.line() == "up"
        assert len(containers(witness.client, run.session)) >= 2
        assert len(witness.volumes_of(run.session)) == 1
        run.kill()
        assert_nothing_is_left(witness, run)
    finally:
        run.close()
