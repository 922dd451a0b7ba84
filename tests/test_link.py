from __future__ import annotations

import errno
import os
import select
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from pytest_egress.agent.main import FAILED, READY, send
from pytest_egress.agent.nftables import LISTENERS
from pytest_egress.errors import LinkError
from pytest_egress.link import DescriptorLink, Rendezvous, original_destination, receive_sockets
from tests.targets import (
    SECONDS,
    accepted,
    assert_a_child_keeps_nothing,
    captured_namespace,
    target_in,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_the_rendezvous_is_closed_to_others_and_its_mounted_part_open() -> None:
    with Rendezvous() as rendezvous:
        folder = Path(rendezvous.folder)
        modes = [
            stat.S_IMODE(path.stat().st_mode)
            for path in (folder.parent, folder, folder / "nonce", folder / "socket")
        ]
        assert modes == [0o700, 0o755, 0o644, 0o666]
        assert (folder / "nonce").read_text() == rendezvous.nonce
    assert not folder.parent.exists()


def test_the_rendezvous_may_lie_deeper_than_a_socket_path_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with Rendezvous() as rendezvous:
        assert rendezvous.folder.startswith(str(deep))


def test_received_descriptors_are_not_inheritable(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    with socket.socket() as passed:
        passed.set_inheritable(True)
        socket.send_fds(theirs, [b"data"], [passed.fileno()])
    data, (received,) = receive_sockets(ours)
    assert (data, received.get_inheritable()) == (b"data", False)
    received.close()


def test_descriptors_that_find_no_room_are_an_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    socket.send_fds(theirs, [b"data"], [theirs.fileno()] * 65)
    before = open_descriptors()
    with pytest.raises(OSError, match="ulimit -n") as caught:
        receive_sockets(ours)
    assert caught.value.errno == errno.EMFILE
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (FAILED + b" There is no veth.", "There is no veth."),
        (b"", "The sidecar ended before it handed over its sockets."),
    ],
)
def test_an_agent_that_gives_up_says_why(
    pair: tuple[socket.socket, socket.socket], message: bytes, text: str
) -> None:
    ours, theirs = pair
    theirs.send(message)
    with pytest.raises(LinkError) as caught:
        DescriptorLink.receive(ours)
    assert str(caught.value) == text
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    ("words", "families"), [(b"ipv4", 1), (b"ipv4 ipv6", 2), (b"ipv4 ipv6 frames", 2)]
)
def test_the_sockets_arrive_in_their_places(
    pair: tuple[socket.socket, socket.socket], words: bytes, families: int
) -> None:
    ours, theirs = pair
    kinds = [socket.SOCK_STREAM] * families * LISTENERS + [socket.SOCK_DGRAM] * families
    netlink = [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) for _ in range(3)]
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sockets = [*(socket.socket(type=kind) for kind in kinds), *netlink, control]
    send(theirs, READY + b" " + words, sockets)
    link = DescriptorLink.receive(ours)
    assert [sock.type for sock in (*link.tcp, *link.dns)] == kinds
    assert {sock.family for sock in (link.packets, *link.monitors)} == {socket.AF_NETLINK}
    assert (link.ipv6, len(link.monitors)) == (families == 2, 2)
    assert link.frames == (b"frames" in words)
    link.close()
    assert agent.recv(1) == b""
    agent.close()


def test_a_port_of_an_agent_that_cannot_help_is_an_os_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    netlink = [socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) for _ in range(3)]
    tcp, dns = [socket.socket() for _ in range(LISTENERS)], socket.socket(type=socket.SOCK_DGRAM)
    send(theirs, READY + b" ipv4", [*tcp, dns, *netlink, control])
    link = DescriptorLink.receive(ours)
    agent.send(FAILED + b" Too many open files")
    with pytest.raises(OSError, match="no socket from the sidecar: Too many open files"):
        link.connect(80, SECONDS)
    assert agent.recv(16) == b"4"
    agent.close()
    with pytest.raises(BrokenPipeError):
        link.connect(80, SECONDS)
    link.close()
    with pytest.raises(OSError, match="the link to the sidecar is closed"):
        link.connect(80, SECONDS)


def test_capture_outlives_the_sidecar_and_end_of_file_tells(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        poller = select.poll()
        poller.register(link.channel, select.POLLRDHUP)
        assert poller.poll(0) == []
        engine_client.api.kill(sidecar.id)
        assert poller.poll(SECONDS * 1000)
        assert link.channel.recv(1) == b""
        target.python("socket.create_connection(('203.0.113.9', 443), 10)")
        with accepted(link) as connection:
            assert original_destination(connection) == ("203.0.113.9", 443)


def test_a_closed_link_leaves_no_descriptor_and_again_is_harmless() -> None:
    before = open_descriptors()
    client = docker.from_env()
    with captured_namespace(client) as (_, link):
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)  # leaves a batch of spare sockets
        assert len(open_descriptors() - before) > 32
        link.close()
        link.close()
    client.close()
    assert open_descriptors() == before


def test_closing_wakes_a_thread_that_accepts(engine_client: docker.DockerClient) -> None:
    with captured_namespace(engine_client) as (_, link):
        ended: list[type[Exception]] = []

        def accept() -> None:
            try:
                link.tcp[0].accept()
            except OSError as error:
                ended.append(type(error))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        link.close()
        thread.join(SECONDS)
        assert ended == [OSError]


def test_a_forked_child_keeps_nothing_and_shuts_nothing(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
    ):
        assert_a_child_keeps_nothing(link)
        target.python("socket.create_connection(('203.0.113.9', 443), 10)")
        with accepted(link) as connection:
            assert original_destination(connection) == ("203.0.113.9", 443)
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)
