"""What is done to a socket, whatever a test has replaced."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import pytest_egress.base.sockets as sockets
from tests.support.stage import SECONDS, end_of


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with sockets.listener(backlog=1) as listener:
        one = socket.create_connection(listener.getsockname(), SECONDS)
        other, _ = listener.accept()
    with one, other:
        yield one, other


def test_the_other_end_of_what_is_reset_sees_that(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    one, other = ends
    sockets.reset(other)
    assert other.fileno() < 0
    assert end_of(one) == "reset"


def test_what_has_ended_can_be_reset_and_shut(ends: tuple[socket.socket, socket.socket]) -> None:
    for sock in ends:
        sock.close()
        sockets.shut(sock)
        sockets.reset(sock)


def test_what_is_shut_wakes_whoever_reads(ends: tuple[socket.socket, socket.socket]) -> None:
    one, _other = ends
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(one.recv, 1)
        sockets.shut(one)
        assert reading.result(SECONDS) == b""


def test_a_bound_of_a_read_ends_it_and_can_be_taken_back(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    one, other = ends
    one.settimeout(None)
    sockets.receive_timeout(one, 0.01)
    with pytest.raises(BlockingIOError):
        one.recv(1, socket.MSG_WAITALL)
    sockets.receive_timeout(one, 0)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(one.recv, 2, socket.MSG_WAITALL)
        other.sendall(b"ab")
        assert reading.result(SECONDS) == b"ab"


@pytest.mark.parametrize("blocks", [True, False])
def test_all_is_sent_though_one_write_takes_a_part(
    ends: tuple[socket.socket, socket.socket], blocks: bool
) -> None:
    one, other = ends
    one.setblocking(blocks)
    data = random.Random(1).randbytes(8_000_000)
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(sockets.send_all, one, data)
        assert other.recv(len(data), socket.MSG_WAITALL) == data
        sending.result(SECONDS)
