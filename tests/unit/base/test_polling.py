"""Ends and many sockets, by epoll and by what stands for it where there is none."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress.base.polling import BYTE_OR_END, ENDED, GONE, Poller, has_ended, poller
from pytest_egress.base.sockets import await_ready
from pytest_egress.link.stream_sockets import loopback_pair
from tests.support.stage import reset

KINDS = pytest.mark.parametrize("make", [poller, Poller])


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = loopback_pair()
    with one, other:
        yield one, other


def test_a_poller_of_linux_is_epoll() -> None:
    made = poller()
    assert isinstance(made, select.epoll)
    made.close()


@KINDS
def test_a_poller_tells_what_is_waited_for_and_nothing_else(
    make: Callable[[], Any], ends: tuple[socket.socket, socket.socket]
) -> None:
    one, other = ends
    made = make()
    made.register(one, select.POLLIN)
    assert made.poll(0) == []
    assert made.poll(0.01) == []
    other.sendall(b"x")
    assert made.poll() == [(one.fileno(), select.POLLIN)]
    made.modify(one, select.POLLOUT)
    assert made.poll() == [(one.fileno(), select.POLLOUT)]
    made.unregister(one)
    assert made.poll(0) == []
    made.close()


@KINDS
def test_what_another_thread_registers_is_seen_at_the_next_wait(
    make: Callable[[], Any], ends: tuple[socket.socket, socket.socket]
) -> None:
    made = make()
    thread = threading.Thread(target=made.register, args=(ends[0], select.POLLIN))
    ends[1].sendall(b"x")
    thread.start()
    thread.join()
    assert made.poll() == [(ends[0].fileno(), select.POLLIN)]
    made.close()


def test_an_end_is_told_whatever_is_unread(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    other.sendall(b"x")
    assert not has_ended(one)
    assert await_ready(one, BYTE_OR_END) == select.POLLIN
    other.shutdown(socket.SHUT_WR)
    assert await_ready(one, ENDED)
    assert has_ended(one)
    assert not await_ready(one, 0, 0) & GONE  # it still reads
    one.close()
    assert has_ended(one)


def test_a_reset_is_an_end_and_nothing_can_be_sent_any_more(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    one, other = ends
    reset(other)
    assert await_ready(one, ENDED)
    assert await_ready(one, 0, 0) & GONE
