"""Which ports a container asks for, and the listeners that lead to them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from pytest_egress.endpoint.ports import (
    AskedPorts,
    PortTakenError,
    PublishedPorts,
    asked_ports,
    ports_of_image,
)
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.targets.ingress import Ingress


def asked(bindings: dict[str, Any], *exposed: str, publishes_all: bool = False) -> AskedPorts:
    config: dict[str, Any] = {"ExposedPorts": {port: {} for port in exposed}}
    return asked_ports(config, {"PortBindings": bindings, "PublishAllPorts": publishes_all})


def void(call: Callable[[], object]) -> None:
    call()


class FakeTarget:
    """What a container is to its published ports."""

    def __init__(self) -> None:
        self.runs = True

    def publish(
        self, port: int, address: tuple[str, int], note_closed: Callable[[], object]
    ) -> Ingress:
        def connect() -> socket.socket:
            raise ConnectionRefusedError(port)

        return Ingress(connect, lambda: void(note_closed), address)

    def is_running(self) -> bool:
        return self.runs


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_ports_are_taken_out_of_the_bodies() -> None:
    found = asked({"80/tcp": [{"HostIp": "", "HostPort": "8080-8081"}], "81": None}, "90", "53/udp")
    assert found.exposed == ("90/tcp", "53/udp")
    assert [(b.host, b.numbers) for b in found.bindings["80/tcp"]] == [
        ("127.0.0.1", range(8080, 8082))
    ]
    assert found.bindings["81/tcp"][0].numbers == range(1)
    assert set(found.to_publish(["70/tcp"])) == {"80/tcp", "81/tcp"}
    all_of_them = asked({}, "90", "53/udp", publishes_all=True)
    assert set(all_of_them.to_publish(["70/tcp"])) == {"70/tcp", "90/tcp"}


@pytest.mark.parametrize(
    ("bindings", "text"),
    [
        ({"80/udp": [{}]}, "the port '80/udp' cannot be published"),
        ({"0": [{}]}, "the port '0' is none: write 80/tcp"),
        ({"70000/tcp": [{}]}, "the port '70000/tcp' is none"),
        ({"80\n/tcp": [{}]}, "is none"),
        ({"80/tcp": [{"HostIp": "192.0.2.1"}]}, "ports are published on 127.0.0.1 alone"),
        ({"80/tcp": [{"HostIp": "here"}]}, "HostIp='here' is no address"),
        ({"80/tcp": [{"HostPort": "http"}]}, "HostPort='http' is no port"),
        ({"80/tcp": [{"HostPort": "9-8"}]}, "HostPort='9-8' is no port"),
        ({"80/tcp": [{"HostPort": 80}]}, "HostPort is a text, not 80"),
        ({"80/tcp": [{"hostport": "80"}]}, "the API writes HostPort"),
        ({f"{n}/tcp": [{}] for n in range(1, 200)}, "more than 128 published ports"),
    ],
)  # fmt: skip
def test_another_port_is_refused(bindings: dict[str, Any], text: str) -> None:
    with pytest.raises(RefusedCall) as refused:
        asked(bindings)
    assert text in str(refused.value)


def test_an_image_publishes_so_many_ports_and_those_that_are_any() -> None:
    assert ports_of_image({"80": {}, "8000-9000/tcp": {}, "0/tcp": {}}) == ("80/tcp",)
    many = [f"{number}/tcp" for number in range(1, 200)]
    assert asked({}).to_publish(many) == {}
    with pytest.raises(RefusedCall, match="more than 128 published ports"):
        asked({}, publishes_all=True).to_publish(many)


def test_a_port_that_is_taken_is_an_error_and_closes_the_others(taken: int) -> None:
    ports = asked({"80/tcp": [{}], "81/tcp": [{"HostPort": str(taken)}]}).to_publish(())
    published = PublishedPorts(ports, FakeTarget())
    with pytest.raises(PortTakenError, match=f"127.0.0.1:{taken}"):
        published.open()
    assert published.told() == {}


def test_the_next_of_a_range_is_free(taken: int) -> None:
    said = {"80/tcp": [{"HostPort": f"{taken}-{taken + 20}"}]}
    published = PublishedPorts(asked(said).to_publish(()), FakeTarget())
    published.open()
    with closing(published):
        (told,) = published.told()["80/tcp"]
        assert taken < int(told["HostPort"]) <= taken + 20


def test_the_ports_of_a_container_that_has_ended_are_closed() -> None:
    target = FakeTarget()
    published = PublishedPorts(asked({"80/tcp": [{}]}).to_publish(()), target)
    published.open()
    (told,) = published.told()["80/tcp"]
    published.open()
    assert published.told()["80/tcp"] == [told]  # it was open
    address = told["HostIp"], int(told["HostPort"])
    with socket.create_connection(address, 5) as sock:
        assert sock.recv(1) == b""
    assert published.told()
    target.runs = False
    with socket.create_connection(address, 5) as sock:
        assert sock.recv(1) == b""  # nothing listened, and so it was looked at
    published.close_if_ended()
    assert published.told() == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)


def test_a_port_is_free_again_once_its_container_has_ended() -> None:
    published = PublishedPorts(asked({"80/tcp": [{}]}).to_publish(()), FakeTarget())
    published.open()
    (told,) = published.told()["80/tcp"]
    with socket.create_connection((told["HostIp"], int(told["HostPort"])), 5) as sock:
        assert sock.recv(1) == b""  # closed by the server first: its side is in TIME_WAIT
    published.close()
    said = {"80/tcp": [{"HostPort": told["HostPort"]}]}
    again = PublishedPorts(asked(said).to_publish(()), FakeTarget())
    again.open()
    again.close()


def test_without_a_network_nothing_is_published() -> None:
    published = PublishedPorts(asked({"80/tcp": [{}]}).to_publish(()), None)
    published.open()
    assert published.told() == {}
