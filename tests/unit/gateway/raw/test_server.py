"""Raw routes and passthrough on loopback: who gets a connection, what is recorded, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme

from pytest_egress.gateway import dispatch
from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.inner_egress import came_back
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward, sequence
from pytest_egress.routes.table import RouteTable
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection, TlsFailure
from tests.support.echo import Echo, end_of_dial, opened, read_line, read_to_end
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, ask, end_of, eventually

pytestmark = pytest.mark.usefixtures("no_first_byte")


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
        assert read_to_end(client) == answer


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

    assert read_to_end(stage.dial(port=5432)) == b"bye"
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
    where = f"greet, at test_server.py:{greet.__code__.co_firstlineno},"
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
    assert read_to_end(client) == b"welcome"
    late = stage.dial(port=5432)
    late.sendall(b"\x00\x01")
    assert end_of(late) == "reset"
    first, second = stage.entries(TcpConnection)
    assert (first.outcome, second.outcome) == ("routed", "unrouted")
    assert route.call_count == 1


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("first", [GET, b"\0hello"], ids=["http", "bytes"])
def test_a_client_of_a_route_that_is_used_up_came_back_and_is_told_so(
    stage: Stage, secure: bool, first: bytes
) -> None:
    declare, host = (stage.tls_route, "api.test") if secure else (stage.tcp, ADDRESS)
    declare(f"{host}:443", lambda sock: sock.recv(100), times=1)
    for _ in range(2):
        client = stage.tls() if secure else stage.dial()
        client.sendall(first)
        with contextlib.suppress(OSError):  # a reset
            client.recv(1 << 16)
    _, again = (e for e in stage.entries(Entry) if not isinstance(e, DnsQuery))
    assert again.outcome == "unrouted"
    (miss,) = again.near
    assert (miss.is_spent, miss.differences) == (True, ("times: it has answered 1 of 1",))
    assert came_back(again)


def test_a_client_came_back_to_no_route_beside_another_that_answers_otherwise(
    stage: Stage,
) -> None:
    stage.http(f"{ADDRESS}:443", path="/v1", optional=True)
    stage.tcp(f"{ADDRESS}:443", lambda sock: sock.recv(100), times=1)
    for _ in range(2):
        client = stage.dial()
        client.sendall(GET)
        with contextlib.suppress(OSError):  # a reset
            client.recv(1 << 16)
    assert not came_back(stage.entries(Exchange)[0])


def test_when_its_times_are_taken_the_next_route_is_asked(stage: Stage) -> None:
    stage.tcp("*", b"any")
    stage.tcp(ADDRESS, sequence(b"first", b"second"))
    got = []
    for _ in range(3):
        client = stage.dial(port=5432)
        client.shutdown(socket.SHUT_WR)
        got.append(read_to_end(client))
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
    assert read_to_end(client) == b""  # told, not cut
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
