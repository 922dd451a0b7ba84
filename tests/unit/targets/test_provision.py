"""Which link a run takes."""

from __future__ import annotations

import docker
import pytest

from pytest_egress.engine.engine import Engine
from pytest_egress.errors import EngineError
from pytest_egress.targets.provision import Provisioner


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
