"""What a tool is told of containers: as it would be without us."""

from __future__ import annotations

import json
from typing import Any

from pytest_egress.endpoint import bodies
from pytest_egress.endpoint.networks import NetworkPlace
from pytest_egress.endpoint.veil import EventStream, Face, inspected, is_hidden, listed, others

OURS = {"org.pytest-egress.session": "s", "org.pytest-egress.folder": "/f"}
SIDECAR = {**OURS, "org.pytest-egress.name": "pytest-egress-sidecar-a"}
BRIDGE = [NetworkPlace(network="bridge", identifier="n1")]
PORTS = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}]}


def face(**changes: Any) -> Face:
    body = {"Image": "shop", "Env": ["A=1"], "HostConfig": {"PortBindings": {"80/tcp": [{}]}}}
    return Face(
        asked=bodies.asked(json.dumps({**body, **changes}).encode()),
        hostname="made",
        address="192.0.2.2",
        image_env=("PATH=/bin", "SSL_CERT_FILE=/its"),
        image_ports=("90/tcp",),
        added=frozenset(("SSL_CERT_FILE", "CURL_CA_BUNDLE")),
    )


def found(*, running: bool = True) -> dict[str, Any]:
    return {
        "Id": "c1",
        "Config": {
            "Labels": {**OURS, "a": "b"},
            "Hostname": "",
            "Env": ["A=1", "SSL_CERT_FILE=/ours", "CURL_CA_BUNDLE=/ours", "PATH=/bin"],
        },
        "HostConfig": {"NetworkMode": "container:side", "PortBindings": None},
        "State": {"Running": running},
        "NetworkSettings": {"Ports": {}, "Networks": {}},
    }


def test_a_container_is_inspected_as_it_was_asked_for() -> None:
    told = inspected(found(), face(Hostname="db"), PORTS, BRIDGE)
    config, host, settings = told["Config"], told["HostConfig"], told["NetworkSettings"]
    assert config["Labels"] == {"a": "b"}
    assert config["Env"] == ["A=1", "PATH=/bin", "SSL_CERT_FILE=/its"]
    assert (config["Hostname"], set(config["ExposedPorts"])) == ("db", {"80/tcp", "90/tcp"})
    assert (host["NetworkMode"], host["PortBindings"]) == ("default", {"80/tcp": [{}]})
    assert settings["Ports"] == {**PORTS, "90/tcp": None}
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] == "192.0.2.2"
    assert settings["Networks"]["bridge"]["NetworkID"] == "n1"


def test_one_that_has_ended_has_no_ports_and_no_address() -> None:
    told = inspected(found(running=False), face(), {}, BRIDGE)
    assert told["NetworkSettings"]["Ports"] == {}
    assert told["NetworkSettings"]["IPAddress"] == ""
    assert told["Config"]["Hostname"] == "made"


def test_one_without_a_network_says_so() -> None:
    told = inspected(
        found(),
        face(HostConfig={"NetworkMode": "none"}),
        {},
        [NetworkPlace(network="none", identifier="n0")],
    )
    assert told["HostConfig"]["NetworkMode"] == "none"
    assert set(told["NetworkSettings"]["Networks"]) == {"none"}


def test_one_in_networks_of_its_own_tells_them_and_its_aliases() -> None:
    places = [NetworkPlace(network="back", identifier="b1", aliases=("db",)), *BRIDGE]
    told = inspected(found(), face(), {}, places)["NetworkSettings"]
    assert told["Networks"]["back"]["Aliases"] == ["db"]
    assert told["Networks"]["back"]["NetworkID"] == "b1"
    assert told["Networks"]["bridge"]["IPAddress"] == told["IPAddress"] == "192.0.2.2"
    assert inspected(found(), face(), {}, places[:1])["NetworkSettings"]["IPAddress"] == ""


def test_a_list_has_no_sidecars_and_the_ports() -> None:
    sidecar = {"Names": ["/pytest-egress-sidecar-a"], "Labels": SIDECAR}
    (mine,) = others([sidecar, {"Id": "c1", "Names": ["/shop"], "Labels": {**OURS, "a": "b"}}])
    assert mine["Labels"] == {"a": "b"}
    listed({**mine, "State": "exited"}, face(), {}, BRIDGE)
    told = listed({**mine, "State": "running"}, face(), PORTS, BRIDGE)
    public = {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 49153, "Type": "tcp"}
    assert told["Ports"] == [public, {"PrivatePort": 90, "Type": "tcp"}]
    assert told["HostConfig"]["NetworkMode"] == "default"


def test_a_sidecar_is_hidden_and_a_container_with_its_labels_is_not() -> None:
    config = {"Labels": SIDECAR}
    assert is_hidden({"Name": "/pytest-egress-sidecar-a", "Config": config})
    assert not is_hidden({"Name": "/shop", "Config": config})


def event(kind: str, name: str, **labels: str) -> bytes:
    actor = {"ID": "c1", "Attributes": {"name": name, **labels}}
    return json.dumps({"Type": kind, "Action": "start", "Actor": actor}).encode() + b"\n"


def test_events_are_told_without_ours_wherever_they_are_cut() -> None:
    shop = event("container", "shop", **OURS, a="b")
    stream = (
        event("container", "pytest-egress-sidecar-a", **SIDECAR)
        + event("network", "none")
        + shop
        + b"no JSON\n"
        + b"[" * 100_000
        + b"\n"
        + event("image", "pytest-egress/filled:a")
    )
    for step in (1 << 20, 4096, 7):
        events = EventStream()
        told = b"".join(events.take(stream[i : i + step]) for i in range(0, len(stream), step))
        (line,) = told.splitlines()
        assert json.loads(line)["Actor"]["Attributes"] == {"name": "shop", "a": "b"}


def test_an_event_without_an_end_is_not_kept() -> None:
    events = EventStream()
    assert events.take(b"a" * (3 << 20)) == b""
    assert events.take(b"a\n" + event("container", "shop")) == event("container", "shop")
