"""The stream link to a sidecar on a real engine."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from pytest_egress.errors import LinkError
from pytest_egress.link.stream import StreamLink
from pytest_egress.link.tampering import tampering
from pytest_egress.targets.ingress import Ingress
from pytest_egress.traffic.packets import parse_packets
from tests.support.stage import reset
from tests.support.stream_scene import MEGABYTE, read_all
from tests.support.target_shell import (
    SECONDS,
    Target,
    accepted,
    assert_a_child_keeps_nothing,
    captured_namespace,
    readable,
    target_in,
    wait_until_gone,
)


@pytest.fixture(scope="module")
def namespace(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[StreamLink, Target]]:
    with (
        captured_namespace(engine_client, "stream") as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert isinstance(link, StreamLink)
        yield link, target


@pytest.fixture
def link(namespace: tuple[StreamLink, Target]) -> StreamLink:
    return namespace[0]


@pytest.fixture
def target(namespace: tuple[StreamLink, Target]) -> Target:
    return namespace[1]


@pytest.mark.parametrize("destination", [("203.0.113.9", 443), ("2001:db8::9", 25)])
def test_a_connection_of_the_target_arrives(
    link: StreamLink, target: Target, destination: tuple[str, int]
) -> None:
    target.start_python(f"""
        with socket.create_connection({destination!r}, 10) as sock:
            sock.sendall(b"question")
            assert sock.recv(6) == b"answer"
    """)
    readable(link.tcp)
    connection, client = link.tcp[0].accept()
    with connection:
        assert link.destination(connection) == destination
        assert client[0] in ("10.213.0.2", "fd00:213::2")
        assert connection.recv(8) == b"question"
        connection.sendall(b"answer")
        assert connection.recv(1) == b""


def test_the_listener_itself_is_no_attempt(link: StreamLink, target: Target) -> None:
    ports = target.python("""
        lines = [line.split() for line in open("/proc/net/tcp")][1:]
        print(*(int(it[1].split(":")[1], 16) for it in lines if it[3] == "0A"))
    """).split()
    target.python(f"socket.create_connection(('127.0.0.1', {ports[0]}), 10).close()")
    with accepted(link) as connection:
        assert link.destination(connection) is None


def test_100_megabytes_pass_intact_each_way(link: StreamLink, target: Target) -> None:
    target.start_python("""
        import hashlib
        sock = socket.create_connection(("203.0.113.9", 443), 10)
        for seed in range(100):
            sock.sendall(bytes([seed]) * (1 << 20))
        digest = hashlib.sha256()
        left = 100 << 20
        while left:
            data = sock.recv(min(left, 1 << 18))
            digest.update(data)
            left -= len(data)
        sock.sendall(digest.hexdigest().encode())
        sock.close()
    """)
    with accepted(link) as connection:
        connection.settimeout(60)
        whole = hashlib.sha256()
        for seed in range(100):
            whole.update(bytes([seed]) * MEGABYTE)
        arrived, left = hashlib.sha256(), 100 * MEGABYTE
        began = time.monotonic()
        while left:
            data = connection.recv(min(left, MEGABYTE))
            arrived.update(data)
            left -= len(data)
        up = time.monotonic()
        for seed in range(100):
            connection.sendall(bytes([seed]) * MEGABYTE)
        assert read_all(connection).decode() == arrived.hexdigest() == whole.hexdigest()
        down = time.monotonic()
    print(f"up {105 / (up - began):.0f} MB/s, down {105 / (down - up):.0f} MB/s")


def test_200_connections_at_once(link: StreamLink, target: Target) -> None:
    target.start_python("""
        socks = [socket.create_connection(("203.0.113.9", 443), 20) for _ in range(200)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%03d" % number)
        for number, sock in enumerate(socks):
            assert sock.recv(3) == b"%03d" % (999 - number)
        for sock in socks:
            sock.sendall(b"!")
            sock.close()
    """)
    connections = [accepted(link) for _ in range(200)]
    seen = set()
    for connection in connections:
        connection.settimeout(SECONDS)
        number = int(connection.recv(3))
        seen.add(number)
        connection.sendall(b"%03d" % (999 - number))
    for connection in connections:
        with connection:
            assert read_all(connection) == b"!"
    assert len(seen) == 200


def test_a_half_closed_connection_goes_on(link: StreamLink, target: Target) -> None:
    target.start_python("""
        sock = socket.create_connection(("203.0.113.9", 443), 10)
        sock.sendall(b"all")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(99):
            answer += data
        with socket.create_connection(("203.0.113.10", 443), 10) as sock:
            sock.sendall(answer)
    """)
    with accepted(link) as connection:
        assert read_all(connection) == b"all"
        connection.sendall(b"and more")
    with accepted(link) as connection:
        assert read_all(connection) == b"and more"


def test_resets_pass_both_ways(link: StreamLink, target: Target) -> None:
    target.start_python("""
        # It may come while the kernel still tells of the connection.
        told = attempt(lambda: socket.create_connection(("203.0.113.9", 443), 10).recv(1))
        sock = socket.create_connection(("203.0.113.9", 443), 10)
        sock.sendall(str(told).encode())
        assert sock.recv(1) == b"r"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    """)
    reset(accepted(link))
    with accepted(link) as connection:
        assert connection.recv(99) == b"ECONNRESET"
        connection.sendall(b"r")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


QUERY = b"\x12\x34\1\0\0\1" + bytes(6) + b"\3api\4test\0\0\1\0\1"


@pytest.mark.parametrize("server", ["192.0.2.53", "127.0.0.11", "8.8.8.8", "2001:db8::53"])
def test_names_are_asked_for_over_udp(link: StreamLink, target: Target, server: str) -> None:
    (names,) = link.dns
    answering = threading.Thread(target=answer_once, args=(names,))
    answering.start()
    family = "socket.AF_INET6" if ":" in server else "socket.AF_INET"
    assert (
        target.python(f"""
        sock = socket.socket({family}, socket.SOCK_DGRAM)
        sock.connect(({server!r}, 53))
        sock.settimeout(10)
        sock.send({QUERY!r})
        print(sock.recv(99))
    """)
        == f"{b're: ' + QUERY!r}"
    )
    answering.join(SECONDS)


def answer_once(names: socket.socket) -> None:
    readable((names,))
    query, client = names.recvfrom(65535)
    names.sendto(b"re: " + query, client)


def test_names_are_asked_for_over_tcp(link: StreamLink, target: Target) -> None:
    target.start_python("socket.create_connection(('8.8.8.8', 53), 10).sendall(b'query')")
    with accepted(link) as connection:
        assert link.destination(connection) == ("8.8.8.8", 53)
        assert connection.recv(99) == b"query"


def test_packets_of_other_protocols_are_told(link: StreamLink, target: Target) -> None:
    target.python("""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        attempt(lambda: sock.sendto(b"ntp", ("203.0.113.9", 123)))
    """)
    (packet,) = parse_packets(readable((link.packets,)).recv(65536))
    assert (packet.protocol_name, packet.destination, packet.port, packet.payload) == (
        "UDP",
        "203.0.113.9",
        123,
        b"ntp",
    )


def test_a_port_of_the_target_is_reached_over_both_families(
    link: StreamLink, target: Target
) -> None:
    target.start_python("""
        for family, address in ((2, "127.0.0.1"), (10, "::1"), (2, OWN4), (10, OWN6)):
            server = socket.create_server((address, 8000), family=family)
            sock, _ = server.accept()
            sock.sendall(address.encode())
            sock.close()
            server.close()
    """)
    reached: set[str] = set()
    deadline = time.monotonic() + SECONDS
    while len(reached) < 4 and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError), link.connect(8000, SECONDS) as connection:
            reached.add(read_all(connection).decode())
    assert reached == {"127.0.0.1", "::1", "10.213.0.2", "fd00:213::2"}


def test_tampering_is_told(engine_client: docker.DockerClient, clients_image: str) -> None:
    with (
        captured_namespace(engine_client, "stream") as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        monitors = dict(zip(("rules", "network"), link.monitors, strict=True))
        target.python("""
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
            def message(kind, flags, family, body=b"", number=0):
                data = struct.pack("!BBH", family, 0, number) + body
                return struct.pack("=IHHII", 16 + len(data), kind, flags, 1, 0) + data
            sock.send(message(16, 1, 0, number=10) + message(10 << 8 | 2, 1, 0)
                      + message(17, 1, 0, number=10))
        """)
        assert tampering(readable((monitors["rules"],))) == (
            "something deleted a rule of nftables in the target's network namespace"
        )
        target.python("""
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex("eth0"), 0, 1)
            sock.send(struct.pack("=IHHII", 16 + len(body), 16, 1, 1, 0) + body)
        """)
        told: list[str | None] = []
        while not any(told):
            told.append(tampering(readable((monitors["network"],))))
        assert told[-1] is not None


def test_a_sidecar_that_is_killed_ends_the_channel(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with captured_namespace(engine_client, "stream") as (sidecar, link):
        assert select.select([link.channel], [], [], 0)[0] == []
        engine_client.api.kill(sidecar.id)
        assert readable((link.channel,)).recv(1) == b""
        with pytest.raises(OSError, match="no connection by the sidecar: it has ended, or "):
            link.connect(80, SECONDS)


@pytest.mark.parametrize("direction", [socket.SHUT_RD, socket.SHUT_WR])
def test_a_stream_of_which_one_direction_is_closed_leaves_no_sidecar(
    engine_client: docker.DockerClient, clients_image: str, direction: int
) -> None:
    with captured_namespace(engine_client, "stream") as (sidecar, link):
        assert isinstance(link, StreamLink)
        link._wire.sock.shutdown(direction)
        assert readable((link.channel,)).recv(1) == b""
        assert ("it ended since its input was closed" in link.reason) == (
            direction == socket.SHUT_WR
        )
        wait_until_gone(engine_client, sidecar.id)


def test_an_engine_that_is_reached_over_tcp_alone_will_do(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    path = engine_client.api._custom_adapter.socket_path  # type: ignore[attr-defined]  # docker-py hides it

    def engine() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        return sock

    ingress = Ingress(engine)
    client = docker.DockerClient(base_url="tcp://{}:{}".format(*ingress.address))
    try:
        with (
            captured_namespace(client, "stream") as (sidecar, link),
            target_in(client, sidecar, clients_image) as target,
        ):
            target.start_python("socket.create_connection(('203.0.113.9', 443), 10).send(b'x')")
            with accepted(link) as connection:
                assert link.destination(connection) == ("203.0.113.9", 443)
                assert connection.recv(1) == b"x"
    finally:
        client.close()
        ingress.close()


def test_a_sidecar_of_a_stream_has_no_folder_of_this_machine_but_its_python(
    engine_client: docker.DockerClient,
) -> None:
    with captured_namespace(engine_client, "stream") as (sidecar, _):
        mounts = engine_client.api.inspect_container(sidecar.id)["Mounts"]
        assert not [mount for mount in mounts if mount["Destination"] == "/run/egress"]
        assert all(not mount["RW"] for mount in mounts)


def test_a_forked_child_keeps_nothing_and_ends_nothing(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client, "stream") as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert_a_child_keeps_nothing(link)
        target.start_python("socket.create_connection(('203.0.113.9', 443), 10)")
        with accepted(link) as connection:
            assert link.destination(connection) == ("203.0.113.9", 443)
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)


def test_an_interpreter_that_fails_is_quoted(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = "raise SystemExit('libpython is missing')"
    monkeypatch.setattr("pytest_egress.targets.sidecars.sidecar.BOOT", boot)
    text = failure(engine_client)
    assert text.startswith("The sidecar ended before it sent its sockets")
    assert text.endswith("It wrote:\nlibpython is missing")


def test_a_silent_sidecar_is_waited_for_no_longer_than_the_limit(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.targets.sidecars.sidecar.START_SECONDS", 0.5)
    boot = "import sys, time; print('busy', file=sys.stderr, flush=True); time.sleep(60)"
    monkeypatch.setattr("pytest_egress.targets.sidecars.sidecar.BOOT", boot)
    assert failure(engine_client) == (
        "The sidecar is running, but sent no sockets within 0.5 seconds. It wrote:\nbusy"
    )


def test_a_kernel_that_refuses_is_told_over_the_link(
    engine_client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine_client.api.create_host_config

    def powerless(**options: Any) -> Any:
        return real(**{**options, "cap_add": []})

    monkeypatch.setattr(engine_client.api, "create_host_config", powerless)
    assert "The sidecar has no CAP_NET_ADMIN" in failure(engine_client)


def failure(client: docker.DockerClient) -> str:
    """Why a sidecar of a stream does not start."""
    with pytest.raises(LinkError) as caught, captured_namespace(client, "stream"):
        pass
    return str(caught.value)
