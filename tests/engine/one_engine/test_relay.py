"""The relay of a stream link on a real engine: what goes by it, what is left of it, and what its end does."""

from __future__ import annotations

import docker
import pytest

from pytest_egress import Egress, EgressError, Response
from pytest_egress.link.stream import RELAY_ENDED, StreamLink
from pytest_egress.session import Session
from pytest_egress.targets.sidecars.relay import RelayContainer, RelayOfRun
from tests.support.target_shell import wait_until_gone

NAME = "api.test"
ASK = f"import urllib.request; print(urllib.request.urlopen('http://{NAME}/').read().decode())"


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[StreamLink]:
    """The links that are opened."""
    found: list[StreamLink] = []
    start = StreamLink.start

    def noted(link: StreamLink, seconds: float) -> None:
        found.append(link)
        start(link, seconds)

    monkeypatch.setattr(StreamLink, "start", noted)
    return found


@pytest.fixture
def relays(monkeypatch: pytest.MonkeyPatch) -> list[RelayContainer]:
    """The relays that are started."""
    found: list[RelayContainer] = []
    for_sidecar = RelayOfRun.for_sidecar

    def noted(run: RelayOfRun, setup: object) -> RelayContainer | None:
        relay = for_sidecar(run, setup)  # type: ignore[arg-type]  # it is passed on
        if relay is not None and relay not in found:
            found.append(relay)
        return relay

    monkeypatch.setattr(RelayOfRun, "for_sidecar", noted)
    return found


@pytest.mark.docker
def test_connections_go_by_the_relay_and_nothing_of_it_is_left(
    engine_client: docker.DockerClient,
    clients_image: str,
    links: list[StreamLink],
    relays: list[RelayContainer],
) -> None:
    with Egress(session=Session(link="stream")) as egress:
        egress.intercept_http(NAME, Response(text="by the relay"))
        assert egress.run(clients_image, ["python3", "-c", ASK]).stdout == "by the relay\n"
        (relay,) = relays
        assert sum(link._joined for link in links) == 1
    wait_until_gone(engine_client, relay.id)


@pytest.mark.docker
def test_the_end_of_the_relay_fails_the_test_that_used_it_with_the_reason(
    engine_client: docker.DockerClient, clients_image: str, relays: list[RelayContainer]
) -> None:
    with (  # noqa: PT012 - the error is that of the end
        pytest.raises(EgressError, match=RELAY_ENDED),
        Egress(session=Session(link="stream")) as egress,
    ):
        egress.start(clients_image, ["sleep", "infinity"])
        engine_client.api.kill(relays[0].id)
        wait_until_gone(engine_client, relays[0].id)


@pytest.mark.docker
def test_the_relay_has_a_network_and_no_capability_and_shares_its_memory_with_sidecars_alone(
    engine_client: docker.DockerClient, clients_image: str, relays: list[RelayContainer]
) -> None:
    with Egress(session=Session(link="stream")) as egress:
        target = egress.start(clients_image, ["sleep", "infinity"])
        found = engine_client.api.inspect_container(relays[0].id)
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert not found["HostConfig"]["PortBindings"]  # of an engine on this machine
        assert relays[0].secret.hex() not in repr(found)
        assert not [each for each in found["Mounts"] if each["RW"]]
        shared = engine_client.api.inspect_container(target.id)["HostConfig"]["IpcMode"]
        assert shared == "private"
        assert target.exec(["ls", "/dev/shm"]).stdout == ""
