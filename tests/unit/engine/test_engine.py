"""An engine that cannot help is refused."""

from __future__ import annotations

import contextlib
import resource
import socket

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
