"""Which link a run takes, and whether its sidecars serve several targets."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import docker
import pytest

from pytest_egress import Egress
from pytest_egress.engine.engine import Engine
from pytest_egress.errors import EngineError, ImageError
from pytest_egress.targets.sidecars.provision import (
    Provisioner,
    SidecarError,
    SidecarSetup,
    reuse_of_environment,
    without_image,
)


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


def test_where_there_is_no_linux_only_the_stream_link_and_an_image_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PYTEST_EGRESS_LINK", "PYTEST_EGRESS_SIDECAR_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    engine = Engine(docker.from_env, "session")
    assert Provisioner(engine).setups == [SidecarSetup("stream", "python:3.13-slim")]
    assert Provisioner(engine, "stream", "py").setups == [SidecarSetup("stream", "py")]
    with pytest.raises(EngineError) as caught:
        _ = Provisioner(engine, "descriptor").setups
    assert str(caught.value) == (
        "the descriptor link needs Linux, and an engine that shares this machine's files; this machine runs darwin. "
        "--egress-link=auto takes the stream link here."
    )


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
        assert egress._inner.session.sidecars._reuse is reuses


def test_another_word_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_EGRESS_SIDECAR_REUSE", "sometimes")
    with pytest.raises(EngineError, match="PYTEST_EGRESS_SIDECAR_REUSE=sometimes: it takes on or"):
        Egress()


class Closed(Engine):
    """An engine that has a name, and no registry."""

    def __init__(self) -> None:
        super().__init__(docker.from_env, "session")
        self.name = "Docker 26 at tcp://192.0.2.7:2375"

    def image(self, name: str) -> Any:
        """Refuse."""
        raise ImageError(f"the image {name!r} cannot be pulled: no route\nCheck the name.")


def refuse(*_: object) -> NoReturn:
    raise SidecarError("The engine does not share this machine's files (x).")


def test_behind_a_closed_registry_the_option_that_helps_comes_first() -> None:
    provisioner = Provisioner(Closed())
    with pytest.raises(ImageError) as caught:
        provisioner.sidecar(refuse, lambda: None)
    assert str(caught.value) == (
        "no sidecar has started: --egress-sidecar-image=IMAGE names one with python3, 3.10 or newer, that this "
        "engine has or can pull\n"
        "the image 'python:3.13-slim' cannot be pulled: no route\n"
        "An image is needed since: The engine does not share this machine's files (x)."
    )
    asked = without_image("shop:7", "the image 'shop:7' cannot be pulled: no route", [])
    assert asked.startswith("no sidecar has started with --egress-sidecar-image=shop:7: --egress-s")


def test_the_summary_names_the_setup_of_a_sidecar_that_has_started() -> None:
    provisioner = Provisioner(Closed())
    with pytest.raises(ImageError):
        provisioner.sidecar(refuse, lambda: None)
    assert provisioner.summary == ""
    provisioner.sidecar(str, lambda: None)
    assert provisioner.summary.startswith(
        "Docker 26 at tcp://192.0.2.7:2375, descriptor link, side"
    )
