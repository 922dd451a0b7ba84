"""Servers of libraries as answers of raw routes: of `socketserver`, asyncio, aiosmtpd and fakeredis."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trustme
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP
from fakeredis import TcpFakeServer

from pytest_egress.gateway.raw.server import CANCELLED_NOTE
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.traffic.entries import TcpConnection
from tests.support.echo import read_line, read_to_end
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually, reset


class Upper(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


class Failing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        raise LookupError(self.request.recv(100))


def server(handler: type[socketserver.BaseRequestHandler] = Upper) -> socketserver.TCPServer:
    """A server that does not listen."""
    made = socketserver.TCPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
    made.server_close()
    return made


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line.upper())


class UpperProtocol(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
        if b"quit" in data:
            self.transport.close()


class Slots(UpperProtocol):
    """A protocol on whose instances nothing can be replaced."""

    __slots__ = ()


ANSWERS: dict[str, Callable[[], object]] = {
    "socketserver": server,
    "streams": lambda: upper,
    "protocol": lambda: UpperProtocol,
    "partial": lambda: partial(Slots),
}


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_server_of_a_library_answers(stage: Stage, kind: str, secure: bool) -> None:
    declare = stage.tls_route if secure else stage.tcp
    route = declare(ADDRESS, ANSWERS[kind]())
    client = stage.tls(ADDRESS, port=5432) if secure else stage.dial(port=5432)
    client.settimeout(SECONDS)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    client.sendall(b"quit\n")
    assert read_line(client) == b"QUIT\n"
    client.close()
    call = route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: call.duration is not None)
    assert judge(stage.window, []) is None


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("kind", ["streams", "protocol"])
def test_all_that_was_written_is_sent_before_the_end(stage: Stage, kind: str, secure: bool) -> None:
    size = 5_000_000

    async def streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(size))

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(bytes(size))
            transport.close()

    declare = stage.tls_route if secure else stage.tcp
    declare(ADDRESS, streams if kind == "streams" else Protocol)
    client = stage.tls(ADDRESS, port=5432) if secure else stage.dial(port=5432)
    client.settimeout(SECONDS)
    assert len(read_to_end(client)) == size


def test_the_decorator_takes_a_function_of_a_reader_and_a_writer(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))

    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert read_to_end(client) == b"hello"
    handler.wait_for_call(timeout=SECONDS)


def test_a_function_of_a_reader_and_a_writer_need_not_be_async(stage: Stage) -> None:
    tasks = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def talk() -> None:
            writer.write(await reader.readline())
            writer.close()

        tasks.append(asyncio.create_task(talk()))

    route = stage.tcp(ADDRESS, connected)
    client = stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_to_end(client) == b"hello\n"
    route.wait_for_call(timeout=SECONDS)


def test_they_stand_in_a_sequence(stage: Stage) -> None:
    stage.tcp(ADDRESS, sequence(upper, b"two", server()))
    for expected in (b"HELLO\n", b"two", b"HELLO\n"):
        client = stage.dial(port=5432)
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == expected


# What they raise.


async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise LookupError(await reader.read(100))


class FailingProtocol(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        raise LookupError(data)


class FailingTask(asyncio.Protocol):
    transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.fail, data)

    def fail(self, data: bytes) -> None:
        try:
            raise LookupError(data)
        finally:
            self.transport.close()


@pytest.mark.parametrize(
    "answer",
    [server(Failing), failing, FailingProtocol, FailingTask],
    ids=lambda a: type(a).__name__,
)
def test_what_they_raise_is_the_handlers_error_and_resets_the_client(
    stage: Stage, answer: object
) -> None:
    route = stage.tcp(ADDRESS, answer)
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert end_of(client) == "reset"
    (entry,) = stage.entries(TcpConnection)
    assert isinstance(entry.error, LookupError)
    assert entry.error.args == (b"hello",)
    assert route.call_count == 0
    assert "raised LookupError: b'hello'" in str(judge(stage.window, []))


@pytest.mark.parametrize(
    "answer", [server(), upper, UpperProtocol], ids=["server", "streams", "protocol"]
)
def test_a_client_that_resets_its_connection_is_no_error_of_theirs(
    stage: Stage, answer: object
) -> None:
    route = stage.tcp(ADDRESS, answer)
    client = stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    route.wait_for_call(timeout=SECONDS)
    assert judge(stage.window, []) is None


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(
    "answer", [server(), upper, UpperProtocol], ids=["server", "streams", "protocol"]
)
def test_a_cut_ends_them(stage: Stage, answer: object, secure: bool) -> None:
    route = (stage.tls_route if secure else stage.tcp)(ADDRESS, answer)
    client = stage.tls(ADDRESS, port=5432) if secure else stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    route.remove()
    stage.gateway.revise()
    assert end_of(client) in ("closed", "reset")
    assert eventually(lambda: not list(stage.gateway.connections))
    assert judge(stage.window, []) is None


class Stubborn(UpperProtocol):
    """Hears no end: it keeps its side open, and reads no more."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        return True


def closes_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HELLO\n")


async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HELLO\n")
    await asyncio.Event().wait()


async def waits_with_a_socket(sock: socket.socket) -> None:
    sock.sendall(b"HELLO\n")
    await asyncio.Event().wait()


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("answer", [Stubborn, closes_nothing, waits, waits_with_a_socket])
def test_a_cut_ends_those_that_wait_for_nothing(stage: Stage, answer: object, secure: bool) -> None:
    route = (stage.tls_route if secure else stage.tcp)(ADDRESS, answer)
    client = stage.tls(ADDRESS, port=5432) if secure else stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    route.remove()
    stage.gateway.revise()
    assert eventually(lambda: not list(stage.gateway.connections))
    assert stage.only(TcpConnection).note == CANCELLED_NOTE
    assert judge(stage.window, []) is None


class FailsAtBegin(UpperProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raise LookupError("soon")


class FailsLater(UpperProtocol):
    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(0.01, fail)


def fail() -> None:
    raise LookupError("soon")


@pytest.mark.parametrize("answer", [FailsAtBegin, FailsLater])
def test_what_a_callback_raises_resets_a_client_that_waits(stage: Stage, answer: object) -> None:
    stage.tcp(ADDRESS, answer)
    client = stage.dial(port=5432)
    client.sendall(b"hello")
    assert end_of(client) == "reset"
    assert "raised LookupError: soon" in str(judge(stage.window, []))


async def fail_soon() -> None:
    fail()


class FailsInTask(UpperProtocol):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.task = asyncio.get_running_loop().create_task(fail_soon())


class FailsInTaskAfterTheEnd(UpperProtocol):
    def connection_lost(self, error: Exception | None) -> None:
        self.task = asyncio.get_running_loop().create_task(fail_soon())


KEPT: list[object] = []


def fails_in_task(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HELLO\n")
    KEPT.append(asyncio.get_running_loop().create_task(fail_soon()))


@pytest.mark.parametrize("is_cut", [False, True], ids=["closed", "cut"])
@pytest.mark.parametrize("answer", [FailsInTask, FailsInTaskAfterTheEnd, fails_in_task])
def test_what_a_task_raises_that_nobody_awaits_fails_the_test(
    stage: Stage, answer: object, is_cut: bool
) -> None:
    route = stage.tcp(ADDRESS, answer)
    client = stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    if is_cut:
        route.remove()
        stage.gateway.revise()
    else:
        reset(client)
    assert eventually(lambda: not list(stage.gateway.connections))
    assert "raised LookupError: soon" in str(judge(stage.window, []))


def test_what_a_task_raises_that_is_awaited_is_its_handlers(stage: Stage) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(LookupError):
            await asyncio.create_task(fail_soon())
        writer.write(b"HELLO\n")

    stage.tcp(ADDRESS, handler)
    client = stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_to_end(client) == b"HELLO\n"
    stage.settle()
    assert judge(stage.window, []) is None


# What is refused where it is declared.


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda: None, "cannot be called with one argument, a connected socket"),
        (lambda a, b, c: None, "cannot be called with one argument, a connected socket"),
        (SMTP, r"cannot be called without arguments, as a protocol is made .* functools.partial"),
        (
            UpperProtocol(),
            "is no answer of a raw route: it takes a function of the connected socket",
        ),
        (dict, "cannot be called with one argument"),
    ],
)
def test_what_is_no_server_is_refused(stage: Stage, answer: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        stage.tcp(ADDRESS, answer)


# STARTTLS of theirs.


def test_a_socketserver_starts_tls(stage: Stage) -> None:
    class Starting(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            assert self.request.readexactly(3) == b"TLS"
            self.request = self.request.starttls()
            self.request.sendall(b"hello\n")

    route = stage.tcp(ADDRESS, server(Starting))
    client = stage.dial(port=5432)
    client.sendall(b"TLS")
    secure = stage.open.enter_context(stage.trusting.wrap_socket(client, server_hostname=ADDRESS))
    assert read_line(secure) == b"hello\n"
    assert route.wait_for_call(timeout=SECONDS).tls is not None


def own_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("mail.test").configure_cert(context)
    return context


def test_aiosmtpd_serves_a_mail_by_its_own_starttls(stage: Stage, ca: trustme.CA) -> None:
    got: list[tuple[str, list[str]]] = []

    class Keep(Sink):
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            got.append((envelope.mail_from, envelope.rcpt_tos))
            return "250 OK"

    factory = partial(SMTP, Keep(), hostname="mail.test", tls_context=own_context(ca))
    route = stage.tcp("mail.test:5432", factory)
    stage.tcp("other.test:5432", factory)
    for name in ("mail.test", "other.test"):
        with connected(stage, stage.resolve(name)) as client:
            if name == "mail.test":
                client._host = name  # which it verifies
                client.starttls(context=stage.trusting)
            client.sendmail("a@x.test", ["b@x.test"], "Subject: hi\r\n\r\nhello")
    assert got == [("a@x.test", ["b@x.test"])] * 2
    route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: not list(stage.gateway.connections))
    assert judge(stage.window, []) is None


@contextlib.contextmanager
def connected(stage: Stage, address: str) -> Any:
    """An smtplib client at an address of the stage."""

    class Client(smtplib.SMTP):
        def _get_socket(self, *_: object) -> socket.socket:
            sock = stage.dial(address, 5432)
            sock.settimeout(SECONDS)
            return sock

    with Client("mail.test", 5432) as client:
        yield client


# Redis.


def redis(stage: Stage) -> Callable[[bytes], bytes]:
    """A client: sends a command, and reads one line."""
    client = stage.dial(ADDRESS, 5432)
    client.settimeout(SECONDS)

    def ask(command: bytes) -> bytes:
        words = command.split()
        client.sendall(b"*%d\r\n" % len(words))
        for word in words:
            client.sendall(b"$%d\r\n%b\r\n" % (len(word), word))
        return read_line(client)

    return ask


def test_two_clients_of_fakeredis_share_one_database(stage: Stage) -> None:
    database = TcpFakeServer(("127.0.0.1", 0), bind_and_activate=False)
    database.server_close()
    stage.tcp(ADDRESS, database)
    one, other = redis(stage), redis(stage)
    assert one(b"SET k v") == b"+OK\r\n"
    assert other(b"INCR n") == b":1\r\n"
    assert one(b"INCR n") == b":2\r\n"
    popped: list[bytes] = []
    waiting = threading.Thread(target=lambda: popped.append(one(b"BLPOP list 9")))
    waiting.start()
    assert other(b"RPUSH list a") == b":1\r\n"
    waiting.join(SECONDS)
    assert popped == [b"*2\r\n"]
