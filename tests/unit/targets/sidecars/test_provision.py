"""Which link a run takes, and whether its sidecars serve several targets."""

from __future__ import annotations

import docker
import pytest

from pytest_egress import Egress
from pytest_egress.engine.engine import Engine
from pytest_egress.errors import EngineError
from pytest_egress.targets.sidecars.provision import Provisioner, reuse_of_environment


@pytest.mark.parametrize(
    ("given", "variable", "links"),
    [
        (None, None, ["descriptor", "stream"]),
        (None, "auto", ["descriptor", "stream"]),
        (None, "stream", ["stream", "stream"]),
        ("stream", "descriptor", ["stream", "stream"]),
        ("descriptor", None, ["descriptor", "descriptor"]),
    ],
)
def test_the_link_is_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str | None, links: list[str]
) -> None:
    monkeypatch.delenv("PYTEST_EGRESS_LINK", raising=False)
    if variable is not None:
        monkeypatch.setenv("PYTEST_EGRESS_LINK", variable)
    setups = Provisioner(Engine(docker.from_env, "session"), given).setups
    assert [setup.link for setup in setups] == links
    assert [setup.image for setup in setups] == [None, "python:3.13-slim"]


def test_another_value_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_LINK", "rope")
    with pytest.raises(EngineError) as caught:
        _ = Provisioner(Engine(docker.from_env, "session")).setups
    assert str(caught.value) == "PYTEST_EGRESS_LINK=rope: it takes auto, descriptor, stream"


@pytest.mark.parametrize(("variable", "reuses"), [("", True), ("on", True), ("off", False)])
def test_a_script_reads_from_the_environment_whether_sidecars_are_used_again(
    monkeypatch: pytest.MonkeyPatch, variable: str, reuses: bool
) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_REUSE", variable)
    assert reuse_of_environment() is reuses
    with Egress() as egress:
        assert egress.session.sidecars._reuse is reuses


def test_another_word_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_REUSE", "sometimes")
    with pytest.raises(EngineError, match="PYTEST_EGRESS_SIDECAR_REUSE=sometimes: it takes on or"):
        Egress()
