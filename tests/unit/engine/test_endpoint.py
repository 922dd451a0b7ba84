"""Which engine a client asks: contexts, variables, and addresses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_egress import Egress, EngineError
from pytest_egress.engine.endpoint import engine_parameters, make_client
from pytest_egress.engine.ssh import dial_command
from tests.support.docker_command import ENGINE_VARIABLES, LINK_VARIABLES, docker_command


@pytest.fixture(autouse=True)
def no_engine_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENGINE_VARIABLES, *LINK_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_an_unknown_context_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(EngineError) as caught, Egress() as egress:
        egress.run("any", [])
    assert str(caught.value) == (
        "there is no Docker context 'nowhere': `docker context ls` lists those there are, and "
        "DOCKER_CONTEXT or `docker context use` chooses one"
    )


def test_a_context_that_cannot_be_read_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    docker_command("context", "create", "cut", "--docker", "host=unix:///run/x.sock")
    (meta,) = (tmp_path / "contexts" / "meta").glob("*/meta.json")
    meta.write_text(json.dumps({"Name": "cut", "Endpoints": {}}))
    monkeypatch.setenv("DOCKER_CONTEXT", "cut")
    with pytest.raises(EngineError, match="the Docker context 'cut' cannot be read: KeyError"):
        make_client()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"currentContext": ""}'])
def test_settings_that_name_no_context_are_those_of_no_context(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert engine_parameters({"DOCKER_CONFIG": str(tmp_path)}) == {}


@pytest.mark.parametrize(
    "address",
    ["ssh://", "ssh://host:port", "ssh://me:secret@host", "ssh://-oProxyCommand=x", "ssh://[::1"],
)
def test_a_malformed_address_is_quoted(address: str) -> None:
    with pytest.raises(EngineError, match=r"the engine's address 'ssh://.*' is malformed"):
        dial_command(address)
