"""An engine that cannot help is refused."""

from __future__ import annotations

import contextlib
import http.server
import json
import resource
import socket
import threading
from collections.abc import Iterator

import docker
import pytest

import pytest_egress.engine.endpoint as endpoint
from pytest_egress import EngineError
from pytest_egress.engine.engine import Engine, contact
from pytest_egress.link.attach import Output
from tests.support.docker_command import ENGINE_VARIABLES, LINK_VARIABLES


@pytest.fixture(autouse=True)
def no_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENGINE_VARIABLES, *LINK_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_an_engine_of_windows_containers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = {"Server": "Docker/27.0 (windows)", "OSType": "windows"}
    monkeypatch.setattr(endpoint, "said_by", lambda api: windows)
    with pytest.raises(EngineError, match=r"the engine at unix://\S+ runs containers of windows"):
        contact(docker.from_env)


def test_a_process_with_too_few_descriptors_is_refused_before_it_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (64, 64))
    with pytest.raises(EngineError) as refused:
        _ = Engine(docker.from_env, "session").client
    assert str(refused.value) == (
        "this process may have 64 descriptors, and a container takes up to 128 at its start: raise the limit with "
        "`ulimit -n 1024`"
    )


def test_an_engine_that_never_answers_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with contextlib.closing(docker.DockerClient(address, version="1.41", timeout=1)) as client:
            engine, container = Engine(lambda: client, "session"), client.containers.model()
            vars(engine)["client"] = client  # it would ask for the version first
            with pytest.raises(EngineError, match="did not read the log of shop: timed out"):
                engine.output(container, "shop", Output())


RUNC = "failed to create task: unable to start container process: {}: connection reset by peer"


@contextlib.contextmanager
def engine_that_refuses_once(message: str) -> Iterator[tuple[Engine, list[str]]]:
    """An engine whose first call fails with a message, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            body = json.dumps({"message": message}).encode() if len(asked) == 1 else b""
            self.send_response(500 if body else 204)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"tcp://127.0.0.1:{server.server_port}"
        with contextlib.closing(docker.DockerClient(address, version="1.41")) as client:
            engine = Engine(lambda: client, "session")
            vars(engine)["client"] = client
            try:
                yield engine, asked
            finally:
                server.shutdown()


def test_a_start_that_runc_lost_before_anything_ran_is_made_again() -> None:
    lost = RUNC.format("waiting for init preliminary setup: read init-p")
    with engine_that_refuses_once(lost) as (engine, asked):
        engine.start(engine.client.containers.prepare_model({"Id": "shop"}))
    assert asked == ["/v1.41/containers/shop/start"] * 2


def test_a_start_that_failed_otherwise_is_made_once() -> None:
    otherwise = RUNC.format("error during container init")
    with (
        engine_that_refuses_once(otherwise) as (engine, asked),
        pytest.raises(docker.errors.APIError),
    ):
        engine.start(engine.client.containers.prepare_model({"Id": "shop"}))
    assert asked == ["/v1.41/containers/shop/start"]
