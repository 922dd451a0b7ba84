"""Where the relay of a run is looked for, and when there is none."""

from __future__ import annotations

from typing import Any, cast

import docker
import pytest

from pytest_egress.engine.engine import Engine
from pytest_egress.errors import LinkError
from pytest_egress.targets.sidecars import relay as module
from pytest_egress.targets.sidecars.provision import DESCRIPTOR, SidecarSetup
from pytest_egress.targets.sidecars.relay import RelayContainer, RelayOfRun, addresses, published_at

STREAM = SidecarSetup("stream")


class StandIn:
    def __init__(self, *, is_podman: bool = False) -> None:
        self.is_podman = is_podman
        self.client = docker.DockerClient(base_url="unix:///run/engine.test.sock", version="1.44")


def of_run(*, is_podman: bool = False) -> RelayOfRun:
    return RelayOfRun(cast("Engine", StandIn(is_podman=is_podman)))


@pytest.mark.parametrize(
    ("engine", "host"),
    [
        ("unix:///var/run/docker.sock", ""),
        ("http://build.example.test:2375", "build.example.test"),
    ],
)
def test_an_engine_that_is_reached_by_a_socket_publishes_no_port(engine: str, host: str) -> None:
    assert published_at(engine) == host


def test_its_own_address_is_tried_before_a_published_port() -> None:
    network: dict[str, Any] = {
        "IPAddress": "172.17.0.2",
        "Ports": {
            "7000/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "32768"},
                {"HostIp": "::", "HostPort": "32769"},
            ]
        },
    }
    own = ("172.17.0.2", 7000)
    assert list(addresses(network, "build.test")) == [own, ("build.test", 32768)]
    assert list(addresses(network, "")) == [own]
    without = {"IPAddress": "", "Networks": {}, "Ports": {"7000/tcp": None}}
    assert list(addresses(without, "build.test")) == []


def test_a_link_of_descriptors_needs_none_and_podman_has_none() -> None:
    run = of_run()
    assert (run.for_sidecar(DESCRIPTOR), run.refusal) == (None, "")
    on_podman = of_run(is_podman=True)
    assert (on_podman.for_sidecar(STREAM), on_podman.refusal) == (None, module.ON_PODMAN)


@pytest.mark.parametrize("engine", ["https://build.example.test:2376", "ssh://ci@build.test"])
def test_an_engine_that_is_reached_by_tls_or_ssh_has_none(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(module, "engine_address", lambda client: engine)
    run = of_run()
    assert (run.for_sidecar(STREAM), run.refusal) == (None, module.ENCRYPTED)


def test_one_that_cannot_be_had_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def refuse(engine: object, setup: object) -> RelayContainer:
        asked.append(setup)
        raise LinkError("no network")

    monkeypatch.setattr(RelayContainer, "start", refuse)
    run = of_run()
    assert (run.for_sidecar(STREAM), run.for_sidecar(STREAM)) == (None, None)
    assert (run.refusal, asked) == ("no network", [STREAM])
