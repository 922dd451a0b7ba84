"""Datagrams where something is missing, full or over: the capability, the buffer, the target before."""

from __future__ import annotations

import re
import socket
from typing import Any

import docker
import pytest
from docker.errors import APIError

from pytest_egress import Egress, LinkError, cli
from pytest_egress.errors import TamperingError
from pytest_egress.link.descriptor import DescriptorLink
from pytest_egress.targets.handle import Container
from pytest_egress.targets.sidecars import sidecar
from pytest_egress.traffic.entries import PacketAttempt
from tests.support.clients import attempts
from tests.support.target_shell import captured_namespace

SEND = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
try:
    for number in range(int(sys.argv[1])):
        sock.sendto(b"x" * 200, ("192.0.2.7", 9))
    print(sock.recv(100) if len(sys.argv) > 2 else "sent")
except OSError as error:
    print(type(error).__name__)
"""
SLEEP = ["sleep", "600"]
SO_MARK = 36


def send(container: Container, count: int, *more: str) -> str:
    return container.exec(["python3", "-c", SEND, str(count), *more]).stdout.strip()


def link_of(egress: Egress) -> DescriptorLink:
    link = egress._inner.containers[-1].gateway.link
    assert isinstance(link, DescriptorLink)
    return link


def test_what_the_buffer_has_no_room_for_is_counted_and_fails_the_test(clients_image: str) -> None:
    kept = 0

    def flood() -> None:
        nonlocal kept
        with Egress() as egress:
            route = egress.intercept_udp("192.0.2.7:9")
            container = egress.start(clients_image, SLEEP)
            datagrams = link_of(egress).datagrams
            assert datagrams is not None
            datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
            with egress._inner.session.ledger.changed:  # which the reader waits for
                assert send(container, 1_000) == "sent"
            container.stop()
            kept = route.call_count

    with pytest.raises(TamperingError) as caught:
        flood()
    (lost,) = re.findall(r"at least (\d+) attempts could not be recorded", str(caught.value))
    assert 0 < kept == 1_000 - int(lost)


def test_an_engine_that_gives_no_net_raw_has_all_else_and_says_so(
    clients_image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sidecar, "CAPABILITIES", ("NET_ADMIN",))

    def start() -> None:
        with Egress() as egress:
            egress.intercept_https("api.test", {"id": 1})
            for _ in range(2):  # the second one in a namespace that the first process has made
                with egress.start(clients_image, SLEEP) as container:
                    assert link_of(egress).datagrams is None
                    assert container.exec("curl -sS https://api.test/").stdout == '{"id": 1}'
            egress.intercept_udp("192.0.2.7:9", optional=True)
            with pytest.raises(LinkError, match="gives it no CAP_NET_RAW"):
                egress.start(clients_image, SLEEP)

    with pytest.raises(TamperingError, match="gives it no CAP_NET_RAW"):
        start()
    assert cli.main(["doctor"]) == 0
    assert "; no CAP_NET_RAW: egress.intercept_udp() is refused" in capsys.readouterr().out


def test_an_engine_that_refuses_net_raw_makes_a_sidecar_without(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_client.api.create_container

    def refuse_raw(**options: Any) -> Any:
        if "NET_RAW" in options["host_config"]["CapAdd"]:
            raise APIError("400 Client Error", explanation="CAP_NET_RAW is not allowed here")
        return real(**options)

    monkeypatch.setattr(engine_client.api, "create_container", refuse_raw)
    with captured_namespace(engine_client) as (_, link):
        assert link.datagrams is None


def test_marks_and_rules_of_datagrams_are_those_of_one_target(
    engine_client: docker.DockerClient, clients_image: str, is_podman: bool
) -> None:
    """Of a sidecar that serves both targets, where one does."""
    marks, sidecars = set(), set()
    with Egress() as egress:
        route = egress.intercept_udp("192.0.2.7:9", b"answer")
        for expected in ("b'answer'", "PermissionError"):
            with egress.start(clients_image, SLEEP) as container:
                datagrams = link_of(egress).datagrams
                assert datagrams is not None
                marks.add(datagrams.getsockopt(socket.SOL_SOCKET, SO_MARK))
                found = engine_client.api.inspect_container(container.id)["HostConfig"]
                sidecars.add(found["NetworkMode"])
                assert send(container, 1, "and receive") == expected
            route.remove()
        (refused,) = attempts(egress, PacketAttempt)
        refused.outcome = "recorded"
    assert (len(marks), len(sidecars)) == (2, 2 if is_podman else 1)
