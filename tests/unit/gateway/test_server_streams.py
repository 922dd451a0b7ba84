"""Streams that are longer than memory: what passes a gateway is not collected on its way. `BYTES` may be a gigabyte."""

from __future__ import annotations

import os
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from pytest_egress import forward
from pytest_egress.traffic.http.request import Request
from tests.support.stage import ADDRESS, SECONDS, Stage

PIECE = bytes(1 << 16)
BYTES = int(os.environ.get("STREAMED_BYTES", 64 << 20))
MOST = 8 << 20  # of memory, at any time: buffers, and no more
LONG = SECONDS + BYTES / (1 << 20)


def pieces() -> Iterator[bytes]:
    for _ in range(BYTES // len(PIECE)):
        yield PIECE


def read_all(sock: socket.socket) -> int:
    """Read to the end, and keep nothing."""
    size, buffer = 0, bytearray(1 << 16)
    while got := sock.recv_into(buffer):
        size += got
    return size


def down(stage: Stage) -> None:
    stage.https("api.test", lambda request: pieces())
    sock = stage.tls()
    sock.settimeout(LONG)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
    assert read_all(sock) > BYTES


def up(stage: Stage) -> None:
    def count(request: Request) -> str:
        return f"got {sum(map(len, request.stream()))}"

    stage.https("api.test", count, stream=True)
    sock = stage.tls()
    sock.settimeout(LONG)
    head = "POST / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    sock.sendall((head % BYTES).encode())
    for piece in pieces():
        sock.sendall(piece)
    assert f"got {BYTES}".encode() in sock.recv(4096) + sock.recv(4096)


def through_a_forward(stage: Stage, serve: Callable[[socket.socket], None]) -> socket.socket:
    listener = stage.open.enter_context(socket.create_server(("127.0.0.1", 0)))

    def accept() -> None:
        sock, _ = listener.accept()
        with sock:
            serve(sock)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    stage.open.callback(thread.join, SECONDS)
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
    sock = stage.dial(port=5432)
    sock.settimeout(LONG)
    return sock


def relayed_down(stage: Stage) -> None:
    def serve(sock: socket.socket) -> None:
        for piece in pieces():
            sock.sendall(piece)

    assert read_all(through_a_forward(stage, serve)) == BYTES


def relayed_up(stage: Stage) -> None:
    sock = through_a_forward(stage, lambda sock: sock.sendall(b"%d" % read_all(sock)))
    for piece in pieces():
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(99) == b"%d" % BYTES


@pytest.mark.slow
@pytest.mark.parametrize("way", [down, up, relayed_down, relayed_up])
def test_a_long_stream_takes_no_more_memory_than_its_buffers(
    stage: Stage, way: Callable[[Stage], None]
) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        way(stage)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < MOST
