"""What a raw handler raises fails its test, also where that ends first; the end of its connection does not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pytest_egress import HandlerError
from pytest_egress.gateway.raw.server import CUT_NOTE
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import TcpConnection
from tests.support.echo import read_to_end
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, reset

Handler = Callable[[Any], Any]


def cut_within(stage: Stage, handler: Handler, kind: str = "tcp") -> TcpConnection:
    """The entry of a connection that is cut while its handler reads the second message."""
    read = threading.Event()

    def reading(sock: socket.socket) -> Any:
        assert sock.recv(5) == b"first"
        read.set()
        return handler(sock)

    if kind == "tls":
        stage.tls_route("api.test", reading)
        client: socket.socket = stage.tls()
    else:
        stage.tcp(ADDRESS, reading)
        client = stage.dial(port=5432)
    client.sendall(b"first")
    assert read.wait(SECONDS)
    (connection,) = stage.gateway.revise(test_over=True)
    client.close()
    assert stage.ledger.wait_for(lambda: connection.ended, SECONDS)
    (entry,) = stage.entries(TcpConnection)
    return entry


def judges_what_it_has_read(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # of TLS
        sock.recv(5)
    raise AssertionError("first is not what was expected")


def takes_its_end_for_a_message(sock: socket.socket) -> None:
    struct.unpack("!I", sock.recv(4))


def takes_a_byte(sock: socket.socket) -> int:
    return sock.recv(1)[0]


def opens_a_file(sock: socket.socket) -> None:
    sock.recv(1)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/nowhere")


def dials_another(sock: socket.socket) -> None:
    sock.recv(1)
    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


async def judges_in_a_loop(sock: socket.socket) -> None:
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_recv(sock, 1)
    raise AssertionError("first is not what was expected")


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (judges_what_it_has_read, AssertionError),
        (takes_its_end_for_a_message, struct.error),
        (takes_a_byte, IndexError),
        (opens_a_file, FileNotFoundError),
        (dials_another, ConnectionRefusedError),
        (judges_in_a_loop, AssertionError),
    ],
)
def test_what_a_handler_raises_of_its_own_fails_the_test_that_has_ended(
    stage: Stage, handler: Handler, error: type[Exception]
) -> None:
    entry = cut_within(stage, handler)
    assert isinstance(entry.error, error)
    assert entry.note == CUT_NOTE
    assert entry.route is not None
    assert entry.route.call_count == 0
    assert isinstance(judge(stage.window, []), HandlerError)


def test_so_does_what_it_raises_of_what_was_in_tls(stage: Stage) -> None:
    entry = cut_within(stage, judges_what_it_has_read, "tls")
    assert isinstance(entry.error, AssertionError)


def writes_without_end(sock: socket.socket) -> None:
    sock.recv(1)
    while True:
        sock.sendall(b"x")


def shuts_it_down_itself(sock: socket.socket) -> None:
    sock.recv(1)
    while True:
        sock.shutdown(socket.SHUT_RDWR)


async def reads_exactly(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        await reader.readexactly(4)
    finally:
        writer.close()


def reads_a_whole_message(sock: socket.socket) -> None:
    if len(sock.recv(4)) < 4:
        raise EOFError("a message was cut short")


@pytest.mark.parametrize(
    "handler", [writes_without_end, shuts_it_down_itself, reads_exactly, reads_a_whole_message]
)
def test_the_end_of_a_connection_that_was_cut_is_a_note(stage: Stage, handler: Handler) -> None:
    entry = cut_within(stage, handler)
    assert entry.error is None
    assert entry.note.startswith("the connection ended before its handler did (")
    assert entry.route is not None
    assert entry.route.call_count == 1
    assert judge(stage.window, []) is None


def test_so_is_the_end_of_one_in_tls(stage: Stage) -> None:
    entry = cut_within(stage, takes_a_byte, "tls")
    assert entry.error is None
    assert entry.note.startswith("the connection ended before its handler did (")


def asks_a_server_that_resets(sock: socket.socket) -> None:
    """Wait for the client's end, and be reset by another connection's other side."""
    assert read_to_end(sock) == b"hello"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as other,
    ):
        reset(server.accept()[0])
        other.settimeout(SECONDS)
        other.recv(1)


def takes_it_for_a_reset(sock: socket.socket) -> None:
    read_to_end(sock)
    raise ConnectionResetError("the client has closed")


@pytest.mark.parametrize(
    ("handler", "is_its_own"), [(asks_a_server_that_resets, True), (takes_it_for_a_reset, False)]
)
def test_a_reset_of_another_connection_is_the_handlers_though_its_client_has_closed(
    stage: Stage, handler: Handler, is_its_own: bool
) -> None:
    stage.tcp("*:443", handler)
    with stage.dial() as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        end_of(client)
    (entry,) = stage.entries(TcpConnection)
    assert isinstance(entry.error, ConnectionResetError) is is_its_own
    assert (judge(stage.window, []) is not None) is is_its_own


def test_what_a_handler_raises_with_its_client_still_there_is_no_call(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        assert sock.recv(5) == b"right"

    client = stage.dial(port=5432)
    client.sendall(b"wrong")
    assert end_of(client) == "reset"
    (entry,) = stage.entries(TcpConnection)
    assert isinstance(entry.error, AssertionError)
    assert entry.note == ""
    assert handler.call_count == 0
