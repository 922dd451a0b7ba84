"""What the link's thread puts, the gateway's takes: connections that nobody else can make, and datagrams in order."""

from __future__ import annotations

import errno
import itertools
import select
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import pytest_egress.base.sockets as sockets
from pytest_egress.agent.stream import CLIENT
from pytest_egress.link.stream_sockets import Listener, Mailbox, NameMailbox, Queue, loopback_pair
from tests.support.stage import reset
from tests.support.stream_scene import open_descriptors

DIALLED, PEER = ("203.0.113.9", 443), ("10.213.0.2", 4000)
SECONDS = 10.0
DATAGRAM = 60_000  # more than a unix socket of macOS takes


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(most=3) as listener:
        listener.settimeout(SECONDS)
        yield listener


def is_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


# Connections.


def test_connections_are_accepted_in_the_order_in_which_they_were_dialled(
    listener: Listener,
) -> None:
    ends = [listener.dial(("203.0.113.9", port), PEER) for port in (1, 2, 3)]
    for port, end in zip((1, 2, 3), ends, strict=True):
        assert is_readable(listener)
        sock, client = listener.accept()
        with sock, end:
            assert (sock.dialled, client) == (("203.0.113.9", port), PEER)
            end.sendall(b"%d" % port)
            assert sock.recv(9) == b"%d" % port
    assert not is_readable(listener)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_an_accepted_connection_outlives_its_streams_end(listener: Listener) -> None:
    reset(listener.dial(DIALLED, PEER))
    sock, client = listener.accept()
    with sock:
        assert (sock.dialled, client) == (DIALLED, PEER)


def test_what_nobody_has_accepted_is_closed_with_the_listener() -> None:
    listener = Listener(most=1)
    with listener.dial(DIALLED, PEER) as end:
        listener.close()
        assert end.recv(1) == b""


def test_a_listener_that_is_shut_says_so_as_those_of_the_kernel_do(listener: Listener) -> None:
    listener.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match="Invalid argument") as caught:
        listener.accept()
    assert caught.value.errno == errno.EINVAL


def test_of_connections_that_nobody_accepts_no_more_have_a_descriptor_than_may_wait(
    listener: Listener,
) -> None:
    for _ in range(3):
        reset(listener.dial(DIALLED, PEER))
    before = open_descriptors()
    with pytest.raises(BlockingIOError):
        listener.dial(DIALLED, PEER)
    assert open_descriptors() == before
    listener.accept()[0].close()
    reset(listener.dial(DIALLED, PEER))
    for _ in range(3):
        listener.accept()[0].close()


def test_a_connection_for_a_listener_that_is_shut_is_refused_and_leaves_no_descriptor(
    listener: Listener,
) -> None:
    listener.shutdown(socket.SHUT_RDWR)
    before = open_descriptors()
    with pytest.raises(OSError, match="Invalid argument"):
        listener.dial(DIALLED, PEER)
    assert open_descriptors() == before


class Haunted(sockets.Socket):
    """A listener whose first connection comes from our very address, and has ended: of another process, before ours."""

    ghost: socket.socket

    def accept(self) -> tuple[Any, Any]:
        ours = super().accept()
        self.accept = lambda: ours  # type: ignore[method-assign]
        return self.ghost, ours[1]


def test_a_connection_that_had_our_address_and_has_ended_is_another_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ghost, gone = socket.socketpair()
    gone.close()

    def haunted(backlog: int, address: tuple[str, int]) -> sockets.Socket:
        made = Haunted(socket.AF_INET, socket.SOCK_STREAM)
        made.bind(address)
        made.listen(backlog)
        made.ghost = ghost
        return made

    monkeypatch.setattr(sockets, "listener", haunted)
    one, other = loopback_pair()
    with one, other:
        assert ghost.fileno() < 0
        assert one.getpeername() == other.getsockname()


def test_connections_of_other_processes_are_none_of_the_targets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = sockets.listener
    strangers = list[socket.socket]()

    def crowded(backlog: int, address: tuple[str, int]) -> sockets.Socket:
        made = listener(backlog, address)
        strangers.append(socket.create_connection(made.getsockname(), SECONDS))
        return made

    monkeypatch.setattr(sockets, "listener", crowded)
    one, other = loopback_pair()
    with one, other, strangers[0]:
        assert one.getpeername() == other.getsockname()
        one.sendall(b"ours")
        assert other.recv(9) == b"ours"
        assert strangers[0].recv(1) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has one loopback address")
def test_no_two_pairs_have_an_address_in_common_so_that_none_waits_for_the_port_of_another() -> (
    None
):
    pairs = [loopback_pair() for _ in range(3)]
    addresses = {other.getsockname()[0] for _, other in pairs}
    for sock in itertools.chain(*pairs):
        sock.close()
    assert len(addresses) == 3
    assert "127.0.0.1" not in addresses


# Datagrams.


def test_a_queue_can_be_read_as_long_as_something_waits() -> None:
    with Queue() as queue:
        queue.settimeout(0)
        for turn in range(2):
            queue.put("one")
            queue.put("two")
            assert [is_readable(queue), queue.take(), is_readable(queue), queue.take()] == [
                *(True, "one"),
                *(True, "two"),
            ], turn
            assert not is_readable(queue)
            with pytest.raises(BlockingIOError):
                queue.take()


def test_one_that_waits_gets_what_another_thread_puts() -> None:
    with Queue() as queue:
        queue.settimeout(SECONDS)
        thread = threading.Timer(0.05, queue.put, ["late"])
        thread.start()
        assert queue.take() == "late"
        thread.join()
        queue.settimeout(0.01)
        with pytest.raises(TimeoutError):
            queue.take()


def test_what_is_put_into_a_closed_queue_is_dropped() -> None:
    queue = Queue()
    queue.close()
    assert not queue.put("late")
    assert not queue._items


def test_datagrams_of_any_size_come_in_order_and_are_cut_as_those_of_the_kernel_are() -> None:
    with Mailbox(protocol=5) as mailbox:
        assert mailbox.proto == 5
        mailbox.put(bytes(DATAGRAM))
        mailbox.put(b"second")
        assert mailbox.recv(1 << 16) == bytes(DATAGRAM)
        assert mailbox.recv(3) == b"sec"
        assert mailbox._waiting == 0


def test_datagrams_without_room_are_counted_and_their_loss_is_told_once() -> None:
    with Mailbox(most=10) as mailbox:
        for number in range(5):
            mailbox.put(b"%d234" % number)
        assert mailbox.lost_here == 3
        assert [mailbox.recv(9) for _ in range(3)] == [b"0234", b"1234", b""]
        mailbox.put(b"0123456789")  # there is room again
        assert mailbox.recv(99) == b"0123456789"
        assert not is_readable(mailbox)


def test_a_query_comes_with_its_client_and_the_answer_goes_with_it() -> None:
    answers = list[bytes]()
    with NameMailbox() as names:
        names.answer = answers.append
        client = bytes(range(CLIENT.size))
        names.put(client + b"query")
        query, asker = names.recvfrom(9)
        assert query == b"query"
        assert names.sendto(b"answer", asker) == 6
        assert answers == [client + b"answer"]
