"""`egress.compose()`: whole projects, which Docker Compose starts unchanged."""

from __future__ import annotations

import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import docker
import pytest

from pytest_egress import (
    CallError,
    CommandError,
    ContainerTimeoutError,
    Egress,
    EngineError,
    UnroutedError,
    http_ok,
    refuse,
)
from pytest_egress.session import Session
from tests.support.killed_runs import KilledRun, assert_nothing_is_left
from tests.support.leftovers import Witness, containers, until

SHOP = """
services:
  web:
    image: ${IMAGE}
    container_name: shop-web
    command: python3 -m http.server -d /srv 8080
    ports: ["8080:8080"]
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    networks: [front, proxy]
  migrate:
    image: ${IMAGE}
    command: sh -c 'curl -fsS https://api.test/$$VERSION'
    env_file: shop.env
    networks: [front]
  db:
    image: ${IMAGE}
    command: python3 -m http.server -d /data 5432
    volumes: ["data:/data"]
    networks: {front: {aliases: [database]}}
    healthcheck: {test: curl -fsS http://127.0.0.1:5432/, interval: 1s, retries: 60}
  worker:
    image: ${IMAGE}
    command: sleep 600
    scale: 2
    networks: [front]
    profiles: [worker]
  alone:
    image: ${IMAGE}
    command: sleep 600
    network_mode: none
    profiles: [worker]
networks:
  front: {name: shop-front}
  proxy: {external: true}
volumes:
  data: {name: shop-data}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("the docker command has no Compose here")
    (tmp_path / "shop.env").write_text("VERSION=7\n")
    file = tmp_path / "compose.yaml"
    file.write_text(SHOP)
    return file


def project(file: Path, image: str, command: str, more: str = "") -> Path:
    """A project of one service."""
    file.write_text(
        f"services:\n  web:\n    image: {image}\n    init: true\n    command: {command}\n{more}"
    )
    return file


def test_a_project_runs_unchanged_and_captured(
    egress: Egress, shop: Path, clients_image: str, engine_client: docker.DockerClient
) -> None:
    route = egress.intercept_https("api.test", {"id": "ch_1"}, path="/7")
    with egress.compose(
        shop,
        profiles=["worker"],
        env={"IMAGE": clients_image},
        wait={"web": http_ok(8080)},
    ) as stack:
        route.assert_called_once()
        assert stack.services == ["alone", "db", "migrate", "web", "worker"]
        with urllib.request.urlopen(stack["web"].url(8080), timeout=30) as page:
            assert b"Directory listing" in page.read()
        put = ["sh", "-c", "echo kept >/data/word"]
        stack["db"].exec(put)
        ask = ["curl", "-sS", "http://database:5432/word"]
        assert stack["worker", 2].exec(ask).stdout == "kept\n"
        assert stack["worker", 1].id != stack["worker", 2].id
        stack["db"].exec(["curl", "-sS", "http://shop-web:8080/"])  # by its container_name
        assert [call.port for call in stack.calls("worker", "db")] == [5432]
        assert len(stack.calls("db", "web", 8080)) == 1
        stack.assert_no_calls("web", "worker")
        with pytest.raises(CallError, match=r"worker has called db 1 time:\n  TCP database:5432"):
            stack.assert_no_calls("worker", "db", 5432)
        assert stack.compose("restart", "db").exit_code == 0
        assert until(lambda: stack["worker"].exec(ask, check=False).stdout == "kept\n")
        egress.assert_only("api.test")
        egress.intercept_tcp("db:5432", refuse())
        refused = stack["worker"].exec(["curl", "-sS", "http://db:5432/"], check=False)
        assert refused.exit_code == 7
        assert not engine_client.networks.list(names=["shop-front"])
        with pytest.raises(LookupError, match="'alone' has no network"):
            stack["alone"]
        with pytest.raises(LookupError, match="with the number 3; there are: alone 1, db 1"):
            stack["worker", 3]
        with pytest.raises(CommandError, match="docker compose restart nobody exited with code 1"):
            stack.compose("restart", "nobody")
    assert not egress.containers
    assert stack.services == []


def test_a_marker_starts_a_project_and_a_fixture_is_it(
    shop: Path, clients_image: str, pytester: pytest.Pytester
) -> None:
    project(shop, clients_image, "sleep 600").rename(pytester.path / "compose.yaml")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.egress_compose
        def test_a(egress_stack):
            assert egress_stack["web"].exec(["echo", "up"]).stdout == "up\\n"

        def test_b(egress_stack): pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*the fixture egress_stack starts what @pytest.mark.egress_compose(*"]
    )


def test_two_runs_of_a_project_share_nothing(
    egress: Egress, shop: Path, clients_image: str, witness: Witness
) -> None:
    egress.intercept_https("api.test", {"id": "ch_1"}, optional=True)
    one = egress.compose(shop, services=["web"], env={"IMAGE": clients_image})
    two = egress.compose(shop, services=["web"], env={"IMAGE": clients_image})
    one["db"].exec(["sh", "-c", "echo one >/data/word"])
    for asked, code in ((one, 0), (two, 22)):
        ask = ["curl", "-fsS", "http://database:5432/word"]
        assert asked["web"].exec(ask, check=False).exit_code == code
    one.close()
    assert two["web"].exec(["true"]).exit_code == 0


def test_a_service_that_ends_is_told_with_its_log_and_its_unrouted_attempts(
    clients_image: str, shop: Path
) -> None:
    file = project(shop, clients_image, "sh -c 'curl -fsS https://api.test/; exit 3'")
    with pytest.raises(CommandError) as failed, Egress() as egress:
        egress.compose(file, wait={"web": http_ok(8080)})
    text = str(failed.value)
    assert "web exited with code 3 before it was ready" in text
    assert "GET https://api.test/" in text.partition("Meanwhile no route claimed")[2]
    assert (failed.value.container, failed.value.exit_code) == ("web", 3)


@pytest.mark.parametrize("waits", [True, False])
def test_a_service_that_is_unhealthy_fails_the_start(
    egress: Egress, clients_image: str, shop: Path, waits: bool
) -> None:
    check = "    healthcheck: {test: 'echo broken; exit 1', interval: 1s, retries: 2}\n"
    other = f"  app:\n    image: {clients_image}\n    command: sleep 600\n"
    other += "    depends_on: {web: {condition: service_healthy}}\n"
    command = "sh -c 'echo lines of web; exec sleep 600'"
    file = project(shop, clients_image, command, check + (other if waits else ""))
    with pytest.raises(CommandError) as failed:
        egress.compose(file)
    text = str(failed.value)
    expected = "web is unhealthy" if waits else "its health check says 'unhealthy': broken"
    assert expected in text
    assert "| lines of web" in text
    assert ("docker compose up exited with code 1" in text) is waits
    assert "Starting" not in text
    assert not egress.containers


def test_a_start_has_its_time(egress: Egress, clients_image: str, shop: Path) -> None:
    file = project(shop, clients_image, "sleep 600")
    with pytest.raises(ContainerTimeoutError, match=r"GET :8080/ is not answered"):
        egress.compose(file, wait={"web": http_ok(8080)}, timeout=15)
    assert not egress.containers


def test_a_file_that_is_refused_is_told_in_the_programs_words(egress: Egress, shop: Path) -> None:
    shop.write_text("services: {web: {}}\n")
    with pytest.raises(EngineError, match=r"(?s)refuses .*compose.yaml:\n.*neither an image"):
        egress.compose(shop)


def test_a_way_out_is_refused(egress: Egress, clients_image: str, shop: Path) -> None:
    file = project(shop, clients_image, "sleep 600", "    network_mode: host\n")
    with pytest.raises(CommandError, match="pytest-egress: the network 'host' is refused"):
        egress.compose(file)


def start_undeclared(file: Path) -> None:
    with Egress() as egress:
        egress.compose(file)["web"].wait()


def test_an_undeclared_request_fails_the_test(clients_image: str, shop: Path) -> None:
    file = project(shop, clients_image, "sh -c 'curl -sS https://api.test/; exit 0'")
    with pytest.raises(UnroutedError, match=r"GET https://api\.test/"):
        start_undeclared(file)


def test_an_undeclared_request_fails_the_start_of_a_shared_stack(
    clients_image: str, shop: Path
) -> None:
    check = "    healthcheck: {test: test -e /done, interval: 1s, retries: 60}\n"
    command = "sh -c 'curl -sS https://api.test/; touch /done; exec sleep 600'"
    file = project(shop, clients_image, command, check)
    session = Session()
    module = Egress(session=session, scope="module")
    try:
        with pytest.raises(UnroutedError, match=r"GET https://api\.test/"):
            module.compose(file)
        assert not module.containers
    finally:
        module.close()
        session.close()


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGINT"])
def test_nothing_is_left_of_a_run_that_ends_during_the_start(
    witness: Witness, clients_image: str, shop: Path, signal_name: str
) -> None:
    check = "    healthcheck: {test: 'false', interval: 1s, retries: 600}\n    volumes: ['data:/data']\n"
    file = project(shop, clients_image, "sleep 600", f"{check}volumes: {{data: }}\n")
    run = KilledRun(f"egress.compose({str(file)!r})")
    try:
        assert until(lambda: len(containers(witness.client, run.session)) >= 2)
        assert until(lambda: witness.volumes_of(run.session))
        run.process.send_signal(getattr(signal, signal_name))
        run.process.wait(60)
        assert_nothing_is_left(witness, run)
    finally:
        run.close()
