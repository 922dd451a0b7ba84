"""An engine that cannot help is refused."""

from __future__ import annotations

import docker
import pytest

import pytest_egress.engine.endpoint as endpoint
from pytest_egress import EngineError
from pytest_egress.engine.engine import contact
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
