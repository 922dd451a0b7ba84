"""The link whose sockets a sidecar hands over."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import docker
import pytest

from pytest_egress.agent.capture import STATISTICS
from pytest_egress.agent.main import CHANGED, FAILED, READY, hand_out, names, send
from pytest_egress.agent.nftables import LISTENERS
from pytest_egress.errors import LinkError
from pytest_egress.link.descriptor import DescriptorLink, receive_sockets
from tests.support.target_shell import SECONDS, captured_namespace

TABLE = """\
entries  insert_failed drop  search_restart
000006aa 00000000 {drop:08} 00000000
000006aa 00000001 00000002 00000000
"""
"""What Linux tells of a table of connections, in part: with two processors."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def open_descriptors() -> set[str]:
    gc.collect()  # what earlier tests have left is not closed in between
    return set(os.listdir("/proc/self/fd"))


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


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


def sockets_by_name(control: socket.socket, families: str) -> dict[str, list[socket.socket]]:
    """What an agent hands over, without a namespace."""
    tcp = {f"tcp{each}": [socket.socket() for _ in range(LISTENERS)] for each in families}
    dns = {f"dns{each}": [socket.socket(type=socket.SOCK_DGRAM)] for each in families}
    one, *two = (socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) for _ in range(3))
    return {**tcp, **dns, "packets": [one], "monitors": two, "control": [control]}


def message(
    sockets: dict[str, list[socket.socket]], features: bytes = b""
) -> tuple[bytes, list[socket.socket]]:
    words = names({name: len(each) for name, each in sockets.items()})
    return b" ".join([READY, *words]) + features, [s for each in sockets.values() for s in each]


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("features", [b"", b" with frames"])
@pytest.mark.parametrize("families", ["4", "46"])
def test_the_sockets_are_told_apart_by_their_names(
    pair: tuple[socket.socket, socket.socket], families: str, features: bytes, shuffled: bool
) -> None:
    ours, theirs = pair
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sent = sockets_by_name(control, families)
    where = {name: [inode(sock) for sock in each] for name, each in sent.items()}
    send(theirs, *message(dict(sorted(sent.items())) if shuffled else sent, features))
    link = DescriptorLink.receive(ours)
    assert [inode(sock) for sock in link.tcp] == [*where["tcp4"], *where.get("tcp6", [])]
    assert [inode(sock) for sock in link.dns] == [*where["dns4"], *where.get("dns6", [])]
    assert [inode(link.packets)] == where["packets"]
    assert [inode(sock) for sock in link.monitors] == where["monitors"]
    assert (link.ipv6, link.frames) == (families == "46", bool(features))
    link.close()
    assert agent.recv(1) == b""
    agent.close()


def test_packets_that_found_no_room_in_the_table_of_connections_are_lost_ones(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, theirs = pair
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    data, sockets = message(sockets_by_name(control, "4"))
    (counts := tmp_path / "counts").write_text(TABLE.format(drop=0))
    send(theirs, data, [*sockets, FileIO(counts)])
    link = DescriptorLink.receive(ours)
    assert link.lost_packets == 2 - 1
    counts.write_text(TABLE.format(drop=10))
    assert link.lost_packets == 0x10 + 2 - 1
    link.close()
    assert link._statistics is not None
    assert link._statistics.closed
    agent.close()


@pytest.mark.parametrize("said", [b"ready", b"ready ipv4", b"ready tcp4*x", b"ready tcp4 dns4"])
def test_sockets_that_are_not_named_as_an_agent_names_them_are_refused(
    pair: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    ours, theirs = pair
    before = len(open_descriptors())
    send(theirs, said, [socket.socket() for _ in range(2)])
    with pytest.raises(LinkError) as caught:
        DescriptorLink.receive(ours)
    names = said.partition(b" ")[2].decode()
    text = f"The sidecar runs no agent of ours: it sent 2 sockets as {names!r}."
    assert str(caught.value) == text
    assert len(open_descriptors()) == before - 1


def test_a_port_of_an_agent_that_cannot_help_is_an_os_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(theirs, *message(sockets_by_name(control, "4")))
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


def test_a_port_of_datagrams_is_a_socket_of_the_agents_or_an_os_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(theirs, *message(sockets_by_name(control, "4")))
    link = DescriptorLink.receive(ours)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        with agent:
            serving = threading.Thread(target=hand_out, args=(agent, None, ""))
            serving.start()
            with link.connect_datagrams(port) as sock:
                sock.send(b"question")
                question, client = server.recvfrom(9)
                server.sendto(question[::-1], client)
                assert sock.recv(9) == b"noitseuq"
            server.close()
            with pytest.raises(ConnectionRefusedError, match="Connection refused"):
                link.connect_datagrams(port)
            agent.shutdown(socket.SHUT_RDWR)
            serving.join()
    with pytest.raises(BrokenPipeError):
        link.connect_datagrams(port)
    link.close()


def test_a_change_of_dials_is_applied_or_an_error_with_the_agents_reason(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    control, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(theirs, *message(sockets_by_name(control, "4"), b" with dials=77 frames"))
    link = DescriptorLink.receive(ours)
    assert (link.own_port, link.frames) == (77, True)
    agent.send(CHANGED)
    link.change_dials(b"=rules")
    assert agent.recv(16) == b"=rules"
    agent.send(FAILED + b" No such rule.")
    with pytest.raises(LinkError) as caught:
        link.change_dials(b"=rules")
    assert str(caught.value) == (
        "The target's kernel does not refuse or drop connections as its routes say: No such rule."
    )
    assert agent.recv(16) == b"=rules"
    agent.close()
    with pytest.raises(LinkError, match="Broken pipe"):
        link.change_dials(b"=rules")
    link.close()
    with pytest.raises(LinkError, match="the link to the sidecar is closed"):
        link.change_dials(b"=rules")


def test_a_closed_link_leaves_no_descriptor_and_again_is_harmless() -> None:
    before = open_descriptors()
    client = docker.from_env()
    with captured_namespace(client) as (_, link):
        assert isinstance(link, DescriptorLink)
        assert (link._statistics is not None) == os.path.exists(STATISTICS)
        with pytest.raises(ConnectionRefusedError):
            link.connect(9, SECONDS)  # leaves a batch of spare sockets
        assert len(open_descriptors() - before) > 32
        link.close()
        link.close()
    client.close()
    assert open_descriptors() == before
