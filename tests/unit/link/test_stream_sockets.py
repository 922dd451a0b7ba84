"""Other processes of this machine reach the stream link's port on loopback; none of them is taken for the target."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Iterator

import pytest

from pytest_egress.link.stream_sockets import AcceptedSocket, Listener, loopback_pair
from tests.support.stage import reset

DIALLED, CLIENT = ("203.0.113.9", 443), ("10.213.0.2", 4000)
SECONDS = 10.0
Address = tuple[str, int]


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        listener.settimeout(SECONDS)
        yield listener


def connected(listener: Listener, source: Address) -> socket.socket:
    """A connection of a stranger's, from an address of its choice."""
    with contextlib.ExitStack() as stack:
        stranger = stack.enter_context(socket.socket())
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(source)
        stranger.settimeout(SECONDS)
        stranger.connect(listener.getsockname())
        stack.pop_all()
    return stranger


def assert_refused(listener: Listener, count: int = 1) -> None:
    for _ in range(count):
        with pytest.raises(ConnectionAbortedError):
            listener.accept()


def test_one_with_the_port_of_a_connection_that_is_expected_is_a_stranger(
    listener: Listener,
) -> None:
    strangers = []
    for port in random.sample(range(1024, 65536), 2000):
        with contextlib.suppress(OSError):  # somebody has it
            strangers.append(connected(listener, ("127.0.0.2", port)))
    with contextlib.ExitStack() as stack:
        ports = {stack.enter_context(each).getsockname()[1] for each in strangers}
        for _ in range(2000):
            ours = stack.enter_context(listener.dial(DIALLED, CLIENT))
            if ours.getsockname()[1] in ports:
                break
            ours.close()
        else:
            pytest.fail("the kernel gave us none of their ports")
        served = set[Address]()
        while ours.getsockname() not in served:
            with contextlib.suppress(ConnectionAbortedError):
                sock, _ = listener.accept()
                served.add(sock.getpeername())
                sock.close()
        assert "127.0.0.2" not in {host for host, _ in served}


def test_an_address_is_known_until_its_connection_is_accepted_and_no_longer(
    listener: Listener,
) -> None:
    ours = listener.dial(DIALLED, CLIENT)
    address = ours.getsockname()
    sock, client = listener.accept()
    assert isinstance(sock, AcceptedSocket)
    assert (sock.dialled, client) == (DIALLED, CLIENT)
    sock.close()
    reset(ours)
    with connected(listener, address):
        assert_refused(listener)


def test_a_neighbour_of_one_that_is_expected_is_a_stranger(listener: Listener) -> None:
    with listener.dial(DIALLED, CLIENT) as ours:
        host, port = ours.getsockname()
        listener.accept()[0].close()
        for near in ((host, port + 1), (host, port - 1), ("127.0.0.1", port)):
            with contextlib.suppress(OSError), connected(listener, near):
                assert_refused(listener)


def test_nobody_has_the_address_of_one_that_is_expected(listener: Listener) -> None:
    with listener.dial(DIALLED, CLIENT) as ours, pytest.raises(OSError, match="in use") as caught:
        connected(listener, ours.getsockname())
    assert caught.value.errno == errno.EADDRINUSE


def test_one_that_was_closed_before_it_was_connected_is_expected_no_more(
    listener: Listener,
) -> None:
    listener.listen(0)
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(connected(listener, ("127.0.0.3", 0)))
        ours = listener.dial(DIALLED, CLIENT)
        address = ours.getsockname()
        with pytest.raises(OSError, match="not connected"):
            ours.getpeername()  # it waits for room in the backlog
        ours.close()
        assert_refused(listener)
        waiting.close()
        listener.listen(8)
        stack.enter_context(connected(listener, address))
        assert_refused(listener)


def test_no_two_of_ours_come_from_one_address(listener: Listener) -> None:
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(listener.dial(DIALLED, CLIENT)) for _ in range(10)]
        pair = loopback_pair()
        ours += [stack.enter_context(sock) for sock in pair][:1]
        hosts = {sock.getsockname()[0] for sock in ours}
        assert len(hosts) == len(ours)
        assert all(host.startswith("127.") for host in hosts)
