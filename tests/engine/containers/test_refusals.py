"""What the engine cannot do, and what it says of it."""

from __future__ import annotations

import errno
import gc
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container as DockerContainer

from pytest_egress import (
    CommandError,
    Egress,
    EngineError,
    ImageError,
    LinkError,
    UnroutedError,
    http_ok,
    log_line,
    port_open,
)
from pytest_egress.session import Session
from pytest_egress.targets.handle import Container
from pytest_egress.targets.sidecars.program import LINK_FOLDER
from tests.support.container_server import SERVER, WithClient, error_text, get


@pytest.fixture(scope="module")
def server(module_egress: Egress, clients_image: str) -> Container:
    """A web server that answers with the path it was asked for."""
    return module_egress.start(
        clients_image,
        ["python3", "/srv/server.py"],
        files={"/srv/server.py": SERVER},
        wait=[log_line("^listening$"), port_open(8000), http_ok(8000, "/ready")],
    )


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/"])
def test_a_path_that_leads_nowhere_is_refused_before_anything_starts(
    egress: Egress, path: str
) -> None:
    with pytest.raises(ValueError, match=r"^cannot put "):
        egress.run("never:looked-up", files={path: "x"})


# What the engine cannot do. Its own sentence is a placeholder here.


def test_an_image_that_is_missing_and_cannot_be_pulled_is_named(egress: Egress) -> None:
    name = "registry.invalid:5000/shop:v2"
    with pytest.raises(ImageError) as caught:
        egress.run(name)
    assert re.fullmatch(
        re.escape(f"the image {name!r} is not on the engine at ")
        + "unix:///.+ and cannot be pulled: .+\n"
        + re.escape(
            "Check the name (`docker images` lists what is there), "
            f"build it (`docker build -t {name} .`), or log in to its registry "
            "(`docker login registry.invalid:5000`)."
        ),
        error_text(caught),
    )
    assert egress.containers == []


def test_a_command_that_is_missing_in_the_image_is_named(egress: Egress, bare_image: str) -> None:
    with pytest.raises(EngineError) as caught:
        egress.run(bare_image, ["nosuch", "--flag"])
    assert re.fullmatch(
        re.escape(
            f"there is no 'nosuch' in {bare_image!r}\n"
            f"the engine did not start {bare_image!r} with ['nosuch', '--flag']: "
        )
        + ".*executable file .*not found in \\$PATH.*\n"
        + re.escape(
            f"Look at what the image has: `docker run --rm -it --entrypoint sh {bare_image}`."
        ),
        error_text(caught),
    )
    assert egress.containers == []


@pytest.mark.parametrize(
    ("program", "begins"),
    [("/nosuch", "there is no '/nosuch' in "), ("/etc/passwd", "'/etc/passwd' in ")],
)
def test_a_path_that_cannot_be_executed_is_named_first(
    egress: Egress, bare_image: str, program: str, begins: str
) -> None:
    with pytest.raises(EngineError) as caught:
        egress.run(bare_image, [program])
    assert error_text(caught).startswith(begins)


HUNGRY = ["python3", "-c", "bytearray(200 << 20)"]
LITTLE: dict[str, Any] = {"mem_limit": "32m", "memswap_limit": "32m"}


def test_want_of_memory_is_named_where_a_command_fails_by_it(
    egress: Egress, clients_image: str
) -> None:
    result = egress.run(clients_image, HUNGRY, **LITTLE, check=False)
    assert (result.exit_code, "OOMKilled" in result.note) == (137, True)
    with pytest.raises(CommandError, match=r"exited with code 137 \(.* want of memory: OOMKilled"):
        egress.run(clients_image, HUNGRY, **LITTLE)


def test_want_of_memory_is_named_where_a_container_ends_by_it_before_it_is_ready(
    egress: Egress, clients_image: str
) -> None:
    with pytest.raises(CommandError, match=r"exited with code 137 \(.*OOMKilled.* before it was"):
        egress.start(clients_image, HUNGRY, wait=port_open(80), **LITTLE)


@pytest.mark.docker
def test_an_option_that_the_engine_refuses_is_quoted(egress: Egress, bare_image: str) -> None:
    with pytest.raises(EngineError) as caught:
        egress.run(bare_image, ["true"], mem_limit="1k")
    assert re.fullmatch(
        re.escape(f"the engine did not create a container of {bare_image!r}: ")
        + ".*memory limit.*",
        error_text(caught),
    )


@pytest.fixture
def with_client() -> Iterator[Callable[[Callable[[], docker.DockerClient]], Egress]]:
    """Makes an egress whose engine's client comes from a factory."""
    made: list[Egress] = []

    def make(client: Callable[[], docker.DockerClient]) -> Egress:
        made.append(Egress(session=Session(client=client)))
        return made[-1]

    yield make
    for egress in made:
        egress._inner.session.close()


@pytest.fixture
def _unanswered() -> Iterator[None]:
    """Collect the sockets that docker-py leaves open where nothing answers, in their own test."""
    yield
    gc.collect()


START_ENGINE = (
    "Start one (`systemctl start docker`, `colima start`, Docker Desktop), or name another with DOCKER_HOST; "
    "`docker info` shows whether it answers."
)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("_unanswered")
def test_an_engine_that_refuses_connections_is_named(
    monkeypatch: pytest.MonkeyPatch, bare_image: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineError) as caught, Egress() as egress:
        egress.run(bare_image)
    assert error_text(caught) == (
        f"no Docker engine answers at {address}: [Errno 111] Connection refused\n{START_ENGINE}"
    )


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("_unanswered")
def test_a_socket_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, bare_image: str, tmp_path: Path
) -> None:
    address = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineError) as caught, Egress() as egress:
        egress.run(bare_image)
    assert error_text(caught) == (
        f"no Docker engine answers at {address}: [Errno 2] No such file or directory\n"
        f"{START_ENGINE}"
    )


def test_a_failure_without_an_engine_ends_at_the_line_of_the_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{pytester.path}/docker.sock")
    pytester.makepyfile("def test_it(egress):\n    egress.run('shop:latest')")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       egress.run('shop:latest')",
            "E       pytest_egress.errors.EngineError: no Docker engine answers at *",
            "E       Start one *",
            "",
            "*.py:2: EngineError",
        ],
        consecutive=True,
    )


def test_a_user_whom_the_socket_refuses_is_told_of_its_group(
    with_client: WithClient, bare_image: str
) -> None:
    def refused() -> docker.DockerClient:
        raise docker.errors.DockerException from PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(EngineError) as caught:
        with_client(refused).run(bare_image)
    what, cure = error_text(caught).splitlines()
    assert what.endswith(": [Errno 13] Permission denied")
    assert "`sudo usermod --append --groups docker $USER`, and log in again" in cure


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("_unanswered")
def test_a_client_of_the_tests_own_that_gets_no_answer_is_an_engine_error(
    with_client: WithClient, bare_image: str, tmp_path: Path
) -> None:
    egress = with_client(
        lambda: docker.DockerClient(base_url=f"unix://{tmp_path}/docker.sock", version="1.44")
    )
    with pytest.raises(EngineError, match=f"no Docker engine answers at .*{tmp_path.name}"):
        egress.run(bare_image)


@pytest.mark.docker
def test_an_engine_that_does_not_see_this_machines_files_is_a_named_limit(
    with_client: WithClient, bare_image: str, python_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("PYTEST_EGRESS_LINK", "descriptor")
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_IMAGE", python_image)

    def elsewhere() -> docker.DockerClient:
        """A client whose engine finds no folder of ours, as one on another machine."""
        client = docker.from_env()
        create = client.api.create_container

        def create_with_missing_folder(**options: Any) -> Any:
            for mount in options["host_config"]["Mounts"]:
                if mount["Target"] == LINK_FOLDER:
                    mount["Source"] = "/nonexistent/folder"
            return create(**options)

        monkeypatch.setattr(client.api, "create_container", create_with_missing_folder)
        return client

    egress = with_client(elsewhere)
    with pytest.raises(LinkError) as caught:
        egress.run(bare_image)
    assert re.fullmatch(
        "The engine does not share this machine's files "
        "\\(.*bind source path does not exist: /nonexistent/folder\\)\\.\n"
        "The descriptor link needs them; --egress-link=auto takes the stream link where they are not\\.",
        error_text(caught),
    )
    assert egress.containers == []


def test_a_container_of_a_wider_scope_that_is_unrouted_while_it_starts_is_an_error(
    clients_image: str,
) -> None:
    session = Session()
    module = Egress(session=session, scope="module")
    command = ["sh", "-c", "curl -sS https://config.example.test/; echo up; sleep 600"]
    with pytest.raises(UnroutedError) as caught:
        module.start(clients_image, command, wait=log_line("up"))
    session.close()
    assert error_text(caught) == (
        "1 unrouted attempt of clients:latest; nothing got out:\n\n"
        "  GET https://config.example.test/\n"
        '      to answer it: egress.intercept_https("config.example.test", method="GET", path="/")'
    )


def test_a_broken_answer_of_the_target_is_the_clients_to_see(server: Container) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(server.url(8000, "/broken"))
    with caught.value:
        assert caught.value.code == 500


@pytest.mark.parametrize(
    ("started", "finished", "told"),
    [("2026-11-25T15:45:55.7300", "2026-11-25T15:45:55.7092", True), ("15:45", "15:46", False)],
)
def test_output_that_the_engine_may_have_lost_is_told(
    egress: Egress,
    bare_image: str,
    monkeypatch: pytest.MonkeyPatch,
    started: str,
    finished: str,
    told: bool,
) -> None:
    def reload(container: DockerContainer) -> None:
        container.attrs["State"] = {"StartedAt": started, "FinishedAt": finished}

    monkeypatch.setattr(DockerContainer, "reload", reload)
    silent, loud = egress.run(bare_image, ["true"]), egress.run(bare_image, ["echo", "x"])
    text = "it ended before the engine had noted its start: on a busy machine Docker may lose such output"
    assert (silent.note, loud.note) == (text if told else "", "" if loud.stdout else silent.note)
