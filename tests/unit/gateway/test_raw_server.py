"""Raw routes and passthrough on loopback: who gets a connection, what is recorded, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trustme

from pytest_egress.gateway import dispatch
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward, sequence
from pytest_egress.routes.table import RouteTable
from pytest_egress.traffic.dns_answers import NameAnswer
from pytest_egress.traffic.entries import (
    DnsQuery,
    Exchange,
    PacketAttempt,
    TcpConnection,
    TlsFailure,
)
from tests.support.outside import REAL, Outside
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, ask, end_of, eventually


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for the client's first byte here would fail the test."""
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 600.0)


class Echo:
    """A real server that repeats what it is sent, and ends when its client does."""

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        greeting: bytes = b"",
        handler: Callable[[socket.socket], None] | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.seen: list[socket.socket] = []
        self.asked: list[tuple[str, int]] = []
        self.context, self.greeting, self.handler = context, greeting, handler
        self.threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.seen.append(sock)
                self.asked.append(sock.getsockname())
                self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                self.seen.append(sock)
            sock.sendall(self.greeting)
            if self.handler is not None:
                self.handler(sock)
            while data := sock.recv(65536):
                sock.sendall(data)
        sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.seen:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(SECONDS)
        for sock in self.seen:
            sock.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with contextlib.closing(Echo()) as echo:
        yield echo


@pytest.fixture
def real(outside: Outside) -> Iterator[Echo]:
    """A server at port 5432 of every name and address outside of the machine."""
    with contextlib.closing(Echo(listener=outside.listen(5432))) as echo:
        yield echo


def end_of_dial(stage: Stage, address: str = ADDRESS) -> str:
    """How a connection ends that may be reset before its client has looked at it."""
    try:
        return end_of(stage.dial(address, 5432))
    except ConnectionResetError:
        return "reset"


def read_all(sock: socket.socket) -> bytes:
    sock.settimeout(SECONDS)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_line(sock: socket.socket) -> bytes:
    sock.settimeout(SECONDS)
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(1)
        assert piece, f"it ended after {line!r}"
        line += piece
    return line


# Handlers.


def test_a_server_that_speaks_first_does_not_wait_for_its_client(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"220 mail.test\r\n")
        assert sock.recv(100) == b"QUIT\r\n"

    client = stage.dial(port=5432)
    assert read_line(client) == b"220 mail.test\r\n"
    client.sendall(b"QUIT\r\n")
    assert end_of(client) == "closed"
    call = greet.wait_for_call(timeout=SECONDS)
    assert stage.window.entries == [call]
    assert (call.outcome, call.host, call.port) == ("routed", ADDRESS, 5432)


def test_a_name_is_routed_on_any_port_by_its_synthetic_address(stage: Stage) -> None:
    stage.tcp("one.test", b"one")
    stage.tcp("two.test:5432", b"two")
    one, two = stage.resolve("one.test"), stage.resolve("two.test")
    for address, port, answer in ((one, 53, b"one"), (one, 8443, b"one"), (two, 5432, b"two")):
        client = stage.dial(address, port)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == answer


def test_a_call_counts_when_its_handler_has_returned(stage: Stage) -> None:
    go_on = threading.Event()
    route = stage.tcp(ADDRESS, lambda sock: go_on.wait(SECONDS))
    client = stage.dial(port=5432)
    assert eventually(lambda: stage.window.entries)
    assert route.call_count == 0
    go_on.set()
    route.wait_for_call(timeout=SECONDS)
    assert end_of(client) == "closed"
    assert eventually(lambda: route.calls[0].duration is not None)


def test_the_connection_ends_with_the_handler_although_a_file_of_it_is_open(stage: Stage) -> None:
    files = []

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        files.append(sock.makefile("rwb"))
        assert files[0].readline() == b"hello\n"

    client = stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert end_of(client) == "closed"
    files[0].close()


def test_a_handler_may_close_the_socket_itself(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.close()

    assert read_all(stage.dial(port=5432)) == b"bye"
    handler.wait_for_call(timeout=SECONDS)


def test_an_async_handler_runs_on_a_loop_of_its_own(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    async def handler(sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    client = stage.dial(port=5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    handler.wait_for_call(timeout=SECONDS)


def test_a_handler_that_raises_resets_its_client_and_fails_the_test(stage: Stage) -> None:
    route = stage.tcp("db.test", lambda sock: 1 / 0)
    address = stage.resolve("db.test")
    assert end_of_dial(stage, address) == "reset"
    (entry,) = stage.entries(TcpConnection)
    assert isinstance(entry.error, ZeroDivisionError)
    assert route.call_count == 0
    verdict = judge(stage.window, [])
    assert str(verdict) == (
        'the handler of intercept_tcp("db.test")  declared at test_it.py:7 raised '
        f"ZeroDivisionError: division by zero\n  for TCP db.test:5432 ({address}) of target"
    )


def test_what_a_raw_handler_returns_is_not_sent_and_says_so(stage: Stage) -> None:
    def greet(sock: socket.socket) -> bytes:
        return b"hello"

    stage.tcp(ADDRESS, greet)
    assert end_of_dial(stage) == "reset"
    (entry,) = stage.entries(TcpConnection)
    where = f"greet, at test_raw.py:{greet.__code__.co_firstlineno},"
    text = f"{where} returned b'hello': a raw handler sends by sock.sendall(...)"
    assert str(entry.error) == text


@pytest.mark.parametrize("is_async", [False, True])
def test_a_raw_handler_that_yields_is_told_how_to_send(stage: Stage, is_async: bool) -> None:
    def pieces(sock: socket.socket) -> Iterator[bytes]:
        yield b"hello"

    async def async_pieces(sock: socket.socket) -> AsyncIterator[bytes]:
        yield b"hello"

    stage.tcp(ADDRESS, async_pieces if is_async else pieces)
    assert end_of_dial(stage) == "reset"
    (entry,) = stage.entries(TcpConnection)
    assert str(entry.error).endswith(": a raw handler sends by sock.sendall(...)")


def test_a_connection_of_the_handlers_own_that_fails_is_its_error(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stage.tcp(ADDRESS, lambda sock: socket.create_connection(("127.0.0.1", port)))
    assert end_of_dial(stage) == "reset"
    assert isinstance(stage.entries(TcpConnection)[0].error, ConnectionRefusedError)


def test_a_client_that_leaves_early_is_no_error_of_the_handler(stage: Stage) -> None:
    left = threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        left.wait(SECONDS)
        for _ in range(100):
            sock.sendall(b"x" * 65536)

    client = stage.dial(port=5432)
    client.sendall(b"x")
    client.close()
    left.set()
    call = handler.wait_for_call(timeout=SECONDS)
    assert call.error is None
    assert call.note.startswith("the connection ended before its handler did (")


def test_what_a_handler_raises_after_its_window_is_given_to_the_one_that_is_open(
    stage: Stage,
) -> None:
    go_on = threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        go_on.wait(SECONDS)
        raise LookupError("late")

    client = stage.dial(port=5432)
    assert eventually(lambda: stage.window.entries)
    before, after = stage.window, stage.next_window()
    go_on.set()
    assert end_of(client) == "reset"
    assert after.entries == before.entries
    assert judge(after, []) is not None


def test_a_raw_connection_keeps_no_window_open(stage: Stage) -> None:
    begun = threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        begun.set()
        sock.recv(1)

    client = stage.dial(port=5432)
    assert begun.wait(SECONDS)
    stage.settle()
    client.close()


def test_times_are_connections_and_the_next_is_unrouted(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, b"welcome", times=1)
    client = stage.dial(port=5432)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"welcome"
    late = stage.dial(port=5432)
    late.sendall(b"\x00\x01")
    assert end_of(late) == "reset"
    first, second = stage.entries(TcpConnection)
    assert (first.outcome, second.outcome) == ("routed", "unrouted")
    assert route.call_count == 1


def test_when_its_times_are_taken_the_next_route_is_asked(stage: Stage) -> None:
    stage.tcp("*", b"any")
    stage.tcp(ADDRESS, sequence(b"first", b"second"))
    got = []
    for _ in range(3):
        client = stage.dial(port=5432)
        client.shutdown(socket.SHUT_WR)
        got.append(read_all(client))
    assert got == [b"first", b"second", b"any"]


def test_without_a_handler_what_the_client_sends_is_kept(stage: Stage) -> None:
    route = stage.tcp("graphite.test:5432")
    client = stage.dial(stage.resolve("graphite.test"), 5432)
    client.sendall(b"shop.orders 1 1\n" * 10_000)
    client.shutdown(socket.SHUT_WR)
    assert end_of(client) == "closed"
    call = route.assert_called_once()
    assert call.content == b"shop.orders 1 1\n" * 10_000
    assert len(call.first_bytes) == 64


def test_a_route_that_has_answered_its_times_lets_nothing_pass(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.tcp("db.test:5432", b"fake\n", times=1)
    address = stage.resolve("db.test")
    assert read_line(stage.dial(address, 5432)) == b"fake\n"
    second = stage.dial(address, 5432)
    second.sendall(b"\0")
    assert end_of(second) == "reset"
    assert real.asked == []
    assert judge(stage.window, []) is not None


def test_a_silent_client_of_a_route_that_is_used_up_is_reset_and_unrouted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.1)
    stage.tcp(ADDRESS, b"welcome\n", times=1)
    assert read_line(stage.dial(ADDRESS, 5432)) == b"welcome\n"
    assert end_of(stage.dial(ADDRESS, 5432)) == "reset"
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["routed", "unrouted"]


def test_an_error_of_the_handlers_own_connection_is_an_error_though_it_looks_like_the_clients(
    stage: Stage,
) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        raise ConnectionResetError("of its Redis")

    assert end_of_dial(stage) == "reset"
    assert isinstance(stage.entries(TcpConnection)[0].error, ConnectionResetError)


def test_a_handler_that_begins_tls_itself_is_cut_at_the_end(stage: Stage, ca: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("mail.test").configure_cert(context)

    @stage.tcp(ADDRESS)
    def starttls(sock: socket.socket) -> None:
        assert sock.recv(100) == b"STARTTLS\r\n"
        sock.sendall(b"220\n")
        with context.wrap_socket(sock, server_side=True) as tls:
            while data := tls.recv(100):
                tls.sendall(data)

    client = stage.dial(port=5432)
    client.sendall(b"STARTTLS\r\n")
    assert read_line(client) == b"220\n"
    tls = stage.open.enter_context(stage.trusting.wrap_socket(client, server_hostname="mail.test"))
    tls.sendall(b"hello\n")
    assert read_line(tls) == b"hello\n"
    (connection,) = stage.gateway.revise(test_over=True)
    assert stage.ledger.wait_for(lambda: connection.ended, SECONDS)
    call = starttls.assert_called_once()
    assert call.error is None


def test_between_tests_a_connection_lives_as_long_as_its_route(stage: Stage, echo: Echo) -> None:
    route = stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{echo.port}"))
    client = opened(stage, ADDRESS)
    stage.table = RouteTable()  # what applies outside of tests is the owner's, a wider one
    stage.ledger.window = None
    stage.gateway.revise()
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"
    route.release()  # its scope has ended
    stage.gateway.revise()
    assert end_of(client) == "closed"


def test_a_route_that_goes_while_a_connection_opens_lets_nothing_pass(
    stage: Stage, real: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = stage.route("passthrough", "real.test")
    begin_raw = Recorder.begin_raw

    def remove_meanwhile(self: Recorder, attempt: Attempt, *given: Any) -> TcpConnection:
        entry = begin_raw(self, attempt, *given)
        route.remove()
        return entry

    monkeypatch.setattr(Recorder, "begin_raw", remove_meanwhile)
    client = stage.dial(stage.resolve("real.test"), 5432)
    with contextlib.suppress(OSError):
        client.sendall(b"secret\n")
    assert end_of(client) in ("reset", "closed")
    assert eventually(lambda: not stage.gateway.connections)
    assert [sock.recv(10) if sock.fileno() >= 0 else b"" for sock in real.seen] in ([], [b""])


def test_a_long_answer_that_is_collected_is_not_copied_each_time(stage: Stage) -> None:
    route = stage.tcp(ADDRESS)
    client = stage.dial(port=5432)
    client.sendall(b"x" * 50_000_000)
    client.shutdown(socket.SHUT_WR)
    assert end_of(client) == "closed"
    call = route.assert_called_once()
    assert len(call.content) == 50_000_000
    assert "xxxx" not in repr(call).partition("first_bytes")[0]
    assert len(repr(call)) < 1000


# TLS.


def test_a_raw_tls_connection_outlives_a_route_that_has_nothing_to_do_with_it(
    stage: Stage,
) -> None:
    @stage.tls_route(ADDRESS)
    def echo_back(sock: ssl.SSLSocket) -> None:
        while data := sock.recv(100):
            sock.sendall(data)

    client = stage.tls("other.test")
    client.sendall(b"x\n")
    assert read_line(client) == b"x\n"
    stage.https("unrelated.test")
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"
    echo_back.remove()


def test_a_half_closed_tls_client_gets_the_answer_of_a_forward(stage: Stage) -> None:
    def serve(sock: socket.socket) -> None:
        data = b""
        while piece := sock.recv(100):
            data += piece
        sock.sendall(data.upper())

    with contextlib.closing(Echo(handler=serve)) as server:
        stage.tls_route(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        context = ssl.create_default_context(cadata=stage.gateway.authority.ca_pem.decode())
        context.check_hostname = False
        outgoing, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing)
        client = stage.dial(ADDRESS, 443)
        client.settimeout(SECONDS)

        def step(action: Any) -> Any:
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    client.sendall(outgoing.read())
                    incoming.write(client.recv(65536))

        step(tls.do_handshake)
        tls.write(b"hello")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()  # close_notify goes out; theirs has not come
        client.sendall(outgoing.read())
        assert step(lambda: tls.read(100)) == b"HELLO"


def test_what_is_in_tls_reaches_the_handler_as_bytes(stage: Stage) -> None:
    @stage.tls_route("mqtt.test:8443")
    def handler(sock: ssl.SSLSocket) -> None:
        assert sock.version() == "TLSv1.3"
        sock.sendall(sock.recv(100).upper())

    client = stage.tls("mqtt.test", stage.resolve("mqtt.test"), 8443)
    client.sendall(b"hello\n")
    assert read_line(client) == b"HELLO\n"
    assert read_all(client) == b""  # told, not cut
    call = handler.wait_for_call(timeout=SECONDS)
    assert (call.host, call.sni) == ("mqtt.test", "mqtt.test")


def test_a_tls_route_is_found_by_its_server_name_where_an_address_was_dialled(stage: Stage) -> None:
    stage.tls_route("mqtt.test", b"by name")
    client = stage.tls("mqtt.test", ADDRESS, 8443)
    assert client.recv(100) == b"by name"


def test_a_tls_route_of_an_address_needs_no_server_name(stage: Stage) -> None:
    stage.tls_route(ADDRESS, b"by address")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.load_verify_locations(cadata=stage.gateway.authority.ca_pem.decode())
    client = stage.tls(None, context=context)
    assert client.recv(100) == b"by address"


def test_a_client_without_tls_is_refused_at_a_tls_route(stage: Stage) -> None:
    stage.tls_route(ADDRESS)
    client = stage.dial(port=5432)
    client.sendall(b"\x00\x01")
    assert end_of(client) == "reset"
    entry = stage.only(TcpConnection)
    assert entry.outcome == "unrouted"
    assert entry.note == f'intercept_tls("{ADDRESS}") expects TLS, and this is none'


def test_a_handshake_that_fails_is_no_call_and_says_why(stage: Stage) -> None:
    route = stage.tls_route("mqtt.test", times=1)
    with pytest.raises(ssl.SSLCertVerificationError):
        stage.tls("mqtt.test", context=ssl.create_default_context())
    assert stage.only(TlsFailure).reason == "untrusted"
    client = stage.tls("mqtt.test")  # the one time has not been taken
    client.close()
    route.wait_for_call(timeout=SECONDS)


# Another server.


def test_a_raw_route_leads_to_another_server(stage: Stage, echo: Echo) -> None:
    route = stage.tcp("db.test:5432", forward(f"tcp://127.0.0.1:{echo.port}"))
    client = stage.dial(stage.resolve("db.test"), 5432)
    client.sendall(b"x" * 1_000_000)
    client.shutdown(socket.SHUT_WR)
    assert len(read_all(client)) == 1_000_000
    call = route.assert_called_once()
    assert eventually(lambda: call.duration is not None)
    assert (call.outcome, call.sent, call.received) == ("routed", 1_000_000, 1_000_000)


def test_a_server_that_speaks_first_is_heard_through_a_forward(stage: Stage) -> None:
    with contextlib.closing(Echo(greeting=b"hello\n")) as server:
        stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{server.port}"))
        assert read_line(stage.dial(port=5432)) == b"hello\n"


def test_a_server_that_cannot_be_reached_resets_the_client_and_is_noted(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{port}"))
    assert end_of_dial(stage) == "reset"
    entry = stage.only(TcpConnection)
    assert (entry.outcome, entry.error) == ("routed", None)
    assert entry.note == f"127.0.0.1:{port} cannot be reached: [Errno 111] Connection refused"


class Database:
    name = "postgres"

    def __init__(self, port: int) -> None:
        self.own_port = port

    def connect(self, port: int, timeout: float = 5) -> socket.socket:
        assert port == 5432
        return socket.create_connection(("127.0.0.1", self.own_port), timeout)


def test_a_raw_route_leads_to_a_port_of_another_container(stage: Stage, echo: Echo) -> None:
    stage.tcp("db.test:5432", forward(Database(echo.port), 5432))
    client = stage.dial(stage.resolve("db.test"), 5432)
    client.sendall(b"select 1\n")
    assert read_line(client) == b"select 1\n"


def test_what_was_in_tls_goes_to_the_upstream_in_tls(stage: Stage, outside: Outside) -> None:
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("real.test").configure_cert(context)
    other.configure_trust(stage.gateway.upstreams.tls)
    with contextlib.closing(Echo(context, listener=outside.listen(8443))):
        stage.tls_route("real.test:8443", forward())
        client = stage.tls("real.test", stage.resolve("real.test"), 8443)
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"


def test_the_threads_of_a_forward_end_with_the_gateway(stage: Stage, echo: Echo) -> None:
    stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{echo.port}"))
    client = stage.dial(port=5432)
    client.sendall(b"x\n")
    assert read_line(client) == b"x\n"
    (connection,) = stage.gateway.connections
    assert stage.gateway.stop() == []
    assert connection.ended


# Passing through.


def test_what_passes_through_reaches_the_real_server_of_its_name(stage: Stage, real: Echo) -> None:
    route = stage.route("passthrough", "real.test")
    address = stage.resolve("real.test")
    client = stage.dial(address, 5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"hello\n"
    client.close()
    call = route.wait_for_call(timeout=SECONDS)
    assert real.asked == [(REAL, 5432)]
    assert (call.outcome, call.address) == ("passthrough", address)
    assert eventually(lambda: (call.sent, call.received) == (6, 6))


def contexts_of_another_ca() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's for real.test, and that of a client which trusts it."""
    other = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.issue_cert("real.test").configure_cert(context)
    trusting = ssl.create_default_context()
    other.configure_trust(trusting)
    return context, trusting


def test_what_passes_through_keeps_its_own_tls(stage: Stage, outside: Outside) -> None:
    context, trusting = contexts_of_another_ca()
    with contextlib.closing(Echo(context, listener=outside.listen(443))):
        stage.route("passthrough", "real.test")
        client = stage.tls("real.test", stage.resolve("real.test"), context=trusting)
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"


def test_an_address_that_was_dialled_passes_by_its_server_name(
    stage: Stage, outside: Outside
) -> None:
    context, trusting = contexts_of_another_ca()
    with contextlib.closing(Echo(context, listener=outside.listen(443))) as server:
        stage.route("passthrough", "real.test")
        client = stage.tls("real.test", ADDRESS, context=trusting)
        client.sendall(b"hello\n")
        assert read_line(client) == b"hello\n"
        assert server.asked == [(REAL, 443)]  # the name opens no address
    assert stage.entries(TcpConnection)[0].sni == "real.test"


def test_the_policy_lets_through_what_no_route_claims(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1})
    client = stage.dial(stage.resolve("real.test"), 5432)
    client.sendall(b"hello\n")
    assert read_line(client) == b"hello\n"
    reply = ask(stage.tls("api.test", stage.resolve("api.test")))
    assert reply.body == b'{"id": 1}'
    assert real.asked == [(REAL, 5432)]
    assert judge(stage.window, []) is None


def test_the_policy_is_no_way_around_a_route_that_does_not_match(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1}, path="/v1")
    assert ask(stage.tls("api.test", stage.resolve("api.test"))).status == 502
    assert stage.only(Exchange).outcome == "unrouted"
    assert real.asked == []


def test_under_the_policy_a_server_name_still_finds_its_route(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    stage.https("api.test", {"id": 1})
    assert ask(stage.tls("api.test", ADDRESS)).body == b'{"id": 1}'
    client = stage.dial(ADDRESS, 5432)
    client.sendall(b"\x00\x01\n")
    assert read_line(client) == b"\x00\x01\n"
    assert real.asked == [(ADDRESS, 5432)]


def test_under_the_policy_a_silent_client_of_an_address_hears_the_real_server(
    stage: Stage, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "FIRST_BYTE_SECONDS", 0.1)
    stage.window.policy = "passthrough"
    with contextlib.closing(Echo(greeting=b"220\n", listener=outside.listen(5432))):
        assert read_line(stage.dial(ADDRESS, 5432)) == b"220\n"
    assert [entry.outcome for entry in stage.entries(TcpConnection)] == ["passthrough"]


# What is open is looked at again.


def opened(stage: Stage, address: str) -> socket.socket:
    client = stage.dial(address, 5432)
    client.sendall(b"x\n")
    assert read_line(client) == b"x\n"
    return client


def test_without_its_route_an_open_connection_is_cut(stage: Stage, real: Echo) -> None:
    route = stage.route("passthrough", "real.test")

    def revise() -> None:
        stage.gateway.revise()

    stage.ledger.routes_changed = revise
    client = opened(stage, stage.resolve("real.test"))
    stage.https("elsewhere.test")
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"
    route.remove()
    assert end_of(client) == "closed"


def test_a_route_that_comes_first_takes_over_from_an_open_connection(
    stage: Stage, echo: Echo
) -> None:
    stage.tcp("*", forward(f"tcp://127.0.0.1:{echo.port}"))
    address = stage.resolve("db.test")
    client = opened(stage, address)
    stage.tcp("db.test:5432", b"fake\n")
    assert end_of(client) == "closed"
    assert read_line(stage.dial(address, 5432)) == b"fake\n"


def test_a_connection_outlives_the_times_of_its_route(stage: Stage, echo: Echo) -> None:
    stage.tcp("db.test", forward(f"tcp://127.0.0.1:{echo.port}"), times=1)
    client = opened(stage, stage.resolve("db.test"))
    stage.gateway.revise()
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"


def test_at_the_end_of_a_test_its_handlers_see_the_end(stage: Stage) -> None:
    ended = threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        assert sock.recv(1) == b"x"
        assert sock.recv(1) == b""
        ended.set()

    client = stage.dial(port=5432)
    client.sendall(b"x")
    assert eventually(lambda: stage.window.entries)
    (connection,) = stage.gateway.revise(test_over=True)
    assert ended.wait(SECONDS)
    assert stage.ledger.wait_for(lambda: connection.ended, SECONDS)
    assert end_of(client) == "closed"
    handler.assert_called_once()


def test_what_a_policy_let_through_ends_with_it(stage: Stage, real: Echo) -> None:
    stage.window.policy = "passthrough"
    client = opened(stage, stage.resolve("real.test"))
    stage.gateway.revise()
    client.sendall(b"y\n")
    assert read_line(client) == b"y\n"
    stage.window.policy = "fail"
    stage.gateway.revise()
    assert end_of(client) == "closed"


def test_a_server_name_that_is_claimed_does_not_pass_by_another_name(
    stage: Stage, real: Echo
) -> None:
    stage.window.policy = "passthrough"
    api = stage.https("api.test", {"id": 1})
    edge = stage.resolve("edge.cdn.test")
    assert ask(stage.tls("api.test", edge)).body == b'{"id": 1}'
    assert (api.call_count, real.asked) == (1, [])


def test_a_packet_that_is_refused_is_no_call_of_what_passes(stage: Stage) -> None:
    route = stage.route("passthrough", ADDRESS)
    judged = stage.gateway.recorder.outcome(stage.attempt_context(), ADDRESS, 443)
    about = stage.gateway.recorder.about(ADDRESS, 443)
    entry = PacketAttempt(**about, **judged, protocol="UDP", address=ADDRESS, size=9)
    stage.gateway.recorder.record(stage.attempt_context(), entry)
    assert (entry.outcome, entry.route, route.call_count) == ("blocked", route, 0)


# Names.


def test_a_name_has_the_addresses_that_a_route_gives_it(stage: Stage) -> None:
    route = stage.route("dns", "db.test", [ADDRESS, "2001:db8::7"])
    assert stage.resolve("db.test") == ADDRESS
    assert str(stage.query("db.test", "AAAA").answer[0][0]) == "2001:db8::7"
    stage.tcp("db.test:5432", b"by name")
    client = stage.dial(ADDRESS, 5432)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"by name"
    queries = stage.entries(DnsQuery)
    assert [(query.answer, query.route) for query in queries] == [
        ((ADDRESS,), route),
        (("2001:db8::7",), route),
    ]
    assert route.calls == queries


def test_a_route_of_the_address_answers_where_none_has_its_name(stage: Stage) -> None:
    stage.route("dns", "db.test", ADDRESS)
    stage.tcp(f"{ADDRESS}:5432", b"by address")
    assert stage.resolve("db.test") == ADDRESS
    client = stage.dial(ADDRESS, 5432)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"by address"


def test_the_name_of_an_address_holds_while_its_route_does(stage: Stage) -> None:
    route = stage.route("dns", "db.test", ADDRESS)
    stage.resolve("db.test")
    assert stage.gateway.names.name(ADDRESS) == "db.test"
    route.respond("192.0.2.7")
    assert stage.gateway.names.name(ADDRESS) == ADDRESS


@pytest.mark.parametrize("rcode", ["NXDOMAIN", "SERVFAIL", "REFUSED"])
def test_a_name_has_the_error_that_a_route_gives_it(stage: Stage, rcode: str) -> None:
    stage.resolve("api.test")  # answered before, and kept
    route = stage.route("dns", "*.test", rcode)
    assert stage.query("api.test").rcode().name == rcode
    route.remove()
    assert stage.query("api.test").rcode().name == "NOERROR"


def test_a_name_without_addresses_has_an_empty_answer(stage: Stage) -> None:
    stage.route("dns", "api.test", [])
    reply = stage.query("api.test")
    assert (reply.rcode(), reply.answer) == (0, [])


def test_a_name_of_the_targets_own_hosts_file_has_no_other_address(stage: Stage) -> None:
    stage.hosts = {"db.internal": NameAnswer(addresses=("192.0.2.7",))}
    reply = stage.query("DB.internal", "AAAA")
    assert (reply.rcode(), reply.answer) == (0, [])
    ((address,),) = stage.query("db.internal").answer
    assert str(address) == "192.0.2.7"
    assert stage.query("api.test", "AAAA").answer != []


def test_silence_is_recorded(stage: Stage) -> None:
    stage.route("dns", "slow.test", "silence")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        import dns.message

        for name in ("slow.test", "next.test"):
            query = dns.message.make_query(name, "A")
            sock.sendto(query.to_wire(), stage.link.dns[0].getsockname())
        sock.settimeout(SECONDS)
        reply = dns.message.from_wire(sock.recv(4096))  # the first answer is the second's
    assert str(reply.question[0].name) == "next.test."
    silent, _ = stage.entries(DnsQuery)
    assert (silent.host, silent.rcode, silent.note) == ("slow.test", "", "not answered")


def test_where_names_are_strict_only_what_a_route_names_exists(stage: Stage) -> None:
    stage.window.dns = "strict"
    stage.https("api.test:8443")
    stage.route("block", "*.ads.test")
    stage.route("dns", "given.test", ADDRESS)
    stage.tcp("192.0.2.0/24")
    names = ("api.test", "x.ads.test", "given.test", "typo.test", "192.0.2.1.test", "localhost")
    exists = [name for name in names if stage.query(name).rcode() == 0]
    assert exists == ["api.test", "x.ads.test", "given.test", "localhost"]


# Blocks.


def test_what_a_block_refuses_is_its_calls(stage: Stage) -> None:
    block = stage.route("block", "ads.test")
    address = stage.resolve("ads.test")
    assert ask(stage.dial(address, 80), GET.replace(b"api.test", b"ads.test")).status == 502
    garbage = stage.dial(address, 5432)
    garbage.sendall(b"\x00\x01")
    assert end_of(garbage) == "reset"
    assert [str(call).partition(" (")[0] for call in block.calls] == [
        "GET http://ads.test/",
        "TCP ads.test:5432",
    ]
    assert judge(stage.window, []) is None
