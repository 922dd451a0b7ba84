"""A raw handler's error is excused where its client's socket raised it, and not where another connection did."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
import trustme

from pytest_egress import HandlerError
from pytest_egress.base.sockets import await_ready
from pytest_egress.gateway.raw.sockets import RawSocket
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import TcpConnection
from tests.support.echo import Echo, read_to_end
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually, reset

PORT = 5432


@pytest.fixture
def closing() -> Iterator[int]:
    """The port of a server that closes each connection when it has been asked."""
    echo = Echo(handler=lambda sock: end_it(sock))
    with contextlib.closing(echo):
        yield echo.port


def end_it(sock: socket.socket) -> None:
    sock.recv(100)
    sock.shutdown(socket.SHUT_RDWR)


def ended(stage: Stage) -> TcpConnection:
    """The entry of the only connection, which has been served: no window waits for one that is not read."""
    (entry,) = stage.entries(TcpConnection)
    assert eventually(lambda: entry.duration is not None)
    return entry


# Handlers that ask a server of their own, which fails them.


def asks_by_http(port: int) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, SECONDS)) as backend:
        backend.request("GET", "/")
        backend.getresponse()


def asks_by_tls(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as backend:
        ssl.create_default_context().wrap_socket(backend, server_hostname="db.test")


def asks_by_bytes(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as backend:
        backend.sendall(b"query")
        if not backend.recv(1):
            raise EOFError("the database has closed")


async def asks_by_a_stream(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"query")
        await reader.readexactly(4)
    finally:
        writer.close()


ASKS = [
    (asks_by_http, http.client.RemoteDisconnected),
    (asks_by_tls, ssl.SSLError),
    (asks_by_bytes, EOFError),
    (asks_by_a_stream, asyncio.IncompleteReadError),
]


@pytest.mark.parametrize("leave", ["closed", "reset", "cut"])
@pytest.mark.parametrize(("ask", "error"), ASKS)
def test_an_error_about_a_server_of_the_handlers_own_is_not_excused_by_the_end_of_its_client(
    stage: Stage, closing: int, ask: Callable[[int], Any], error: type[Exception], leave: str
) -> None:
    read = threading.Event()

    async def waits(port: int) -> None:
        await ask(port)

    def handler(sock: socket.socket) -> Any:
        sock.recv(5)
        read.set()
        with contextlib.suppress(OSError):
            read_to_end(sock)
        return waits(closing) if asyncio.iscoroutinefunction(ask) else ask(closing)

    stage.tcp(ADDRESS, handler)
    client = stage.dial(port=PORT)
    client.sendall(b"query")
    assert read.wait(SECONDS)
    if leave == "cut":
        (connection,) = stage.gateway.revise(test_over=True)
        assert stage.ledger.wait_for(lambda: connection.ended, SECONDS)
    elif leave == "reset":
        reset(client)
    else:
        client.close()
    assert isinstance(ended(stage).error, error)
    assert isinstance(judge(stage.window, []), HandlerError)


def test_a_reset_of_another_connection_is_the_handlers_that_has_given_its_own_away(
    stage: Stage, closing: int
) -> None:
    def handler(sock: socket.socket) -> None:
        with socket.socket(fileno=sock.detach()) as own:
            read_to_end(own)
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as other,
        ):
            reset(server.accept()[0])
            other.recv(1)

    stage.tcp(ADDRESS, handler)
    with stage.dial(port=PORT) as client:
        client.sendall(b"x")
    assert isinstance(ended(stage).error, ConnectionResetError)


def store(pipe: Any, line: bytes) -> None:
    pipe.write(line)


@pytest.mark.parametrize("by_itself", [False, True])
def test_an_error_of_a_pipe_is_the_handlers_that_has_made_its_connection_tls(
    stage: Stage, ca: trustme.CA, by_itself: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.test").configure_cert(context)

    def handler(sock: RawSocket) -> None:
        tls = context.wrap_socket(sock, server_side=True) if by_itself else sock.starttls()
        with tls:
            tls.sendall(b"hello")
            read_to_end(tls)
            receiver, sender = os.pipe()
            os.close(receiver)
            with os.fdopen(sender, "wb", buffering=0) as pipe:
                store(pipe, b"a line")

    stage.tcp(ADDRESS, handler)
    sock = stage.dial(port=PORT)
    with stage.trusting.wrap_socket(sock, server_hostname="api.test") as client:
        # The session tickets come before it: with one of them unread, the close would be a reset.
        assert client.recv(5) == b"hello"
    assert isinstance(ended(stage).error, BrokenPipeError)
    assert isinstance(judge(stage.window, []), HandlerError)


# Handlers whose client ends.


def makes_tls_by_itself(ca: trustme.CA) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("api.test").configure_cert(context)

    def handler(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"hello")
            tls.recv(1)
            while True:
                tls.sendall(bytes(65536))

    return handler


def test_the_end_of_tls_that_a_handler_has_made_by_itself_is_its_clients(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.tcp(ADDRESS, makes_tls_by_itself(ca))
    with stage.dial(port=PORT) as sock:
        client = stage.trusting.wrap_socket(sock, server_hostname="api.test")
        assert client.recv(5) == b"hello"
        client.sendall(b"x")
        reset(client)
    entry = ended(stage)
    assert entry.error is None
    assert entry.note.startswith("the connection ended before its handler did (")
    assert judge(stage.window, []) is None


async def reads_a_message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(4)


async def reads_a_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(separator=b"\n")


async def opens_streams(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        await reader.readexactly(4)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("handler", "secure"),
    [
        (reads_a_message, False),
        (reads_a_message, True),
        (reads_a_line, False),
        (reads_a_line, True),
        (opens_streams, False),
    ],
)
def test_a_client_that_closes_within_a_message_of_a_stream_is_no_error_of_the_handler(
    stage: Stage, handler: Callable[..., Any], secure: bool
) -> None:
    route = stage.tls_route(ADDRESS, handler) if secure else stage.tcp(ADDRESS, handler)
    with stage.tls(ADDRESS, port=PORT) if secure else stage.dial(port=PORT) as client:
        client.sendall(b"ab")
        client.shutdown(socket.SHUT_WR) if not secure else client.close()
    entry = ended(stage)
    assert entry.error is None
    assert "2 bytes" in entry.note
    assert eventually(lambda: route.call_count == 1)
    assert judge(stage.window, []) is None


async def writes_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(n=1)
    while True:
        writer.write(bytes(65536))
        await writer.drain()


def copies_a_file(sock: socket.socket) -> None:
    with sock.makefile("rwb") as stream:
        stream.read(1)
        while True:
            stream.write(bytes(65536))


def ends_its_side(sock: socket.socket) -> None:
    sock.recv(1)
    while True:
        sock.shutdown(socket.SHUT_WR)


def uses_its_descriptor(sock: socket.socket) -> None:
    connection = Connection(sock.detach())
    while True:
        connection.send_bytes(bytes(65536))


def uses_a_second_socket(sock: socket.socket) -> None:
    sock.recv(1)
    with sock.dup() as other:
        while True:
            other.sendall(bytes(65536))


@pytest.mark.parametrize(
    "handler",
    [writes_without_end, copies_a_file, uses_a_second_socket, uses_its_descriptor, ends_its_side],
)
def test_what_writing_to_a_client_that_has_left_raises_is_no_error_of_the_handler(
    stage: Stage, handler: Callable[..., Any]
) -> None:
    stage.tcp(ADDRESS, handler)
    with stage.dial(port=PORT) as client:
        client.sendall(b"x")
        assert client.recv(1) == (b"" if handler is ends_its_side else b"\0")
        client.sendall(b"y")
        reset(client)
    entry = ended(stage)
    assert entry.error is None
    assert judge(stage.window, []) is None


def read_message(stream: Any) -> None:
    if len(stream.read(4)) < 4:
        raise ConnectionResetError("a message was cut short")


@pytest.mark.parametrize("mode", ["rb", "rwb", "r"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_helper_that_has_a_file_of_the_connection_alone_may_say_that_its_client_has_left(
    stage: Stage, mode: str, secure: bool
) -> None:
    def handler(sock: Any) -> None:
        read_message(sock.makefile(mode))

    if secure:
        stage.tls_route(ADDRESS, handler)
    else:
        stage.tcp(ADDRESS, handler)
    with stage.tls(ADDRESS, port=PORT) if secure else stage.dial(port=PORT) as client:
        client.sendall(b"ab")
    entry = ended(stage)
    assert entry.error is None
    assert "a message was cut short" in entry.note
    assert judge(stage.window, []) is None


def fails(sock: socket.socket) -> None:
    sock.recv(1)
    raise ZeroDivisionError


async def fails_in_a_loop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    raise ZeroDivisionError


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("handler", [fails, fails_in_a_loop])
def test_an_error_is_recorded_before_its_client_sees_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, handler: Callable[..., Any], secure: bool
) -> None:
    ends: list[bool] = []
    record = Recorder.fail

    def recording(self: Recorder, *arguments: Any) -> None:
        ends.append(bool(await_ready(client, select.POLLIN | select.POLLRDHUP, 0.2)))
        record(self, *arguments)

    monkeypatch.setattr(Recorder, "fail", recording)
    route = stage.tls_route(ADDRESS, handler) if secure else stage.tcp(ADDRESS, handler)
    client = stage.tls(ADDRESS, port=PORT) if secure else stage.dial(port=PORT)
    client.sendall(b"x")
    assert end_of(client) == "reset"
    assert ends == [False]
    assert isinstance(judge(stage.window, [route]), HandlerError)
