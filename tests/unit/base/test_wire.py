"""A socket on which one thread receives while others send: nobody waits with its lock, and its end wakes everybody."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pytest_egress.base.wire import Wire

SECONDS = 10.0
MUCH = bytes(5_000_000)
"""More than two sockets hold."""


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(SECONDS)
    with ours, theirs:
        yield Wire(ours), theirs


def received(sock: socket.socket, size: int) -> int:
    count = 0
    while count < size and (data := sock.recv(1 << 16)):
        count += len(data)
    return count


def test_it_receives_what_comes_in_time(ends: tuple[Wire, socket.socket]) -> None:
    wire, peer = ends
    with wire.lock:
        assert wire.receive(0) is None
        assert wire.receive(0.01) is None
        peer.sendall(b"hey")
        assert wire.receive() == b"hey"
        peer.close()
        assert wire.receive() == b""


def test_the_lock_is_free_while_it_waits(ends: tuple[Wire, socket.socket]) -> None:
    wire, peer = ends

    def locked(act: str) -> object:
        with wire.lock:
            return getattr(wire, act)()

    with ThreadPoolExecutor() as threads:
        receiving = threads.submit(locked, "receive")
        with wire.lock:
            wire.queue(MUCH)
        draining = threads.submit(locked, "drain")
        assert received(peer, len(MUCH)) == len(MUCH)
        assert draining.result(SECONDS)
        peer.sendall(b"hey")
        assert receiving.result(SECONDS) == b"hey"


def test_what_receives_sends_meanwhile(ends: tuple[Wire, socket.socket]) -> None:
    wire, peer = ends
    with ThreadPoolExecutor() as threads, wire.lock:
        wire.queue(MUCH)
        assert wire.is_full
        reading = threads.submit(received, peer, len(MUCH))
        assert wire.receive(0.5) is None
        assert reading.result(SECONDS) == len(MUCH)
        assert not wire.is_full


def test_a_wait_ends_when_nobody_wants_it_any_more(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    over = threading.Event()
    threading.Timer(0.1, over.set).start()
    with wire.lock:
        wire.queue(MUCH)
        assert not wire.drain(over.is_set)
        assert wire.receive(None, over.is_set) == b""


def test_what_a_peer_has_sent_can_be_read_when_it_takes_no_more(
    ends: tuple[Wire, socket.socket],
) -> None:
    wire, peer = ends
    peer.sendall(b"no more")
    peer.shutdown(socket.SHUT_RD)
    with wire.lock:
        wire.queue(MUCH)
        assert not wire.drain()
        assert isinstance(wire.error, BrokenPipeError)
        assert wire.receive() == b"no more"


def test_its_end_wakes_who_waits_before_the_descriptor_is_free(
    ends: tuple[Wire, socket.socket],
) -> None:
    wire, _ = ends

    def receive() -> bytes | None:
        with wire.lock:
            return wire.receive()

    def drain() -> bool:
        with wire.lock:
            wire.queue(MUCH)
            return wire.drain()

    with ThreadPoolExecutor() as threads:
        receiving, draining = threads.submit(receive), threads.submit(drain)
        with contextlib.suppress(TimeoutError):
            draining.exception(0.1)
        wire.close()
        assert receiving.result(SECONDS) == b""
        assert draining.result(SECONDS) is False
    wire.close()
