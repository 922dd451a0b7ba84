"""The sockets of raw handlers: reading exactly, within TLS too, and a client that ends in the middle."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from pytest_egress.gateway.raw.sockets import RawSocket, RawTlsSocket
from pytest_egress.ledger.details import detail_lines
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import TcpConnection
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually


def test_a_raw_handler_gets_a_socket_of_the_standard_library(stage: Stage) -> None:
    seen: list[object] = []
    route = stage.tcp(ADDRESS, seen.append)
    stage.dial(port=5432).sendall(b"x")
    route.wait_for_call(timeout=SECONDS)
    (sock,) = seen
    assert isinstance(sock, RawSocket)
    assert isinstance(sock, socket.socket)


def test_exactly_so_many_bytes_are_read_however_they_come(stage: Stage) -> None:
    seen: list[bytes] = []

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        seen.extend([sock.readexactly(0), sock.readexactly(3), sock.readexactly(200_000)])
        sock.settimeout(SECONDS)
        seen.append(sock.readexactly(2))

    client = stage.dial(port=5432)
    for piece in (b"a", b"bc" + bytes(100_000), bytes(100_000) + b"e", b"f"):
        client.sendall(piece)
    handler.wait_for_call(timeout=SECONDS)
    assert seen == [b"", b"abc", bytes(200_000), b"ef"]


def test_within_tls_exactly_so_many_bytes_are_read_too(stage: Stage) -> None:
    seen: list[object] = []

    @stage.tls_route(ADDRESS)
    def handler(sock: ssl.SSLSocket) -> None:
        assert isinstance(sock, RawTlsSocket)
        seen.extend([sock.readexactly(3), sock.readexactly(20_000)])

    client = stage.tls(ADDRESS, port=5432)
    client.sendall(b"a")
    client.sendall(b"bc" + bytes(20_000))
    handler.wait_for_call(timeout=SECONDS)
    assert seen == [b"abc", bytes(20_000)]


@pytest.mark.parametrize("secure", [False, True])
def test_a_client_that_closes_in_the_middle_is_no_error_of_the_handler(
    stage: Stage, secure: bool
) -> None:
    raised: list[str] = []

    def handler(sock: RawSocket) -> None:
        try:
            sock.readexactly(5)
        except ConnectionResetError as error:
            raised.append(str(error))
            raise

    route = (stage.tls_route if secure else stage.tcp)(ADDRESS, handler)
    client = stage.tls(ADDRESS, port=5432) if secure else stage.dial(port=5432)
    client.sendall(b"abc")
    if isinstance(client, ssl.SSLSocket):
        client.settimeout(SECONDS)
        client.unwrap()  # the end of TLS, before that of TCP
    client.close()
    assert eventually(lambda: raised)
    route.wait_for_call(timeout=SECONDS)
    assert raised == ["the client closed after 3 of 5 bytes"]
    (entry,) = stage.entries(TcpConnection)
    assert entry.note == (
        "the connection ended before its handler did (the client closed after 3 of 5 bytes)"
    )
    assert judge(stage.window, []) is None


def test_a_handler_that_closes_its_socket_and_raises_resets_its_client(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        sock.readexactly(1)
        sock.close()
        raise LookupError("of the handler")

    client = stage.dial(port=5432)
    client.sendall(b"x")
    assert end_of(client) == "reset"


def test_what_protocols_a_raw_route_agrees_on_is_declared(stage: Stage) -> None:
    route = stage.tls_route(ADDRESS, b"hello", alpn=("postgresql",))
    assert str(route) == "intercept_tls(\"203.0.113.9\", alpn=('postgresql',))"
    for count, (offered, agreed) in enumerate(
        [("postgresql", "postgresql"), ("http/1.1", None)], 1
    ):
        stage.trusting.set_alpn_protocols([offered])
        client = stage.tls(ADDRESS, port=5432)
        assert client.selected_alpn_protocol() == agreed
        client.close()
        call = route.wait_for_call(count, timeout=SECONDS)
        assert call.tls is not None
        assert call.tls.alpn == agreed


def test_a_client_that_insists_on_a_protocol_is_told_how_to_agree_on_it(stage: Stage) -> None:
    @stage.tls_route(ADDRESS)
    def handler(sock: RawTlsSocket) -> None:
        sock.readexactly(8)

    stage.trusting.set_alpn_protocols(["postgresql"])
    client = stage.tls(ADDRESS, port=5432)
    assert client.selected_alpn_protocol() is None
    client.close()
    call = handler.wait_for_call(timeout=SECONDS)
    assert call.note == (
        "the client offered postgresql alone by ALPN, and none was agreed on: "
        "alpn=('postgresql',) agrees; "
        "the connection ended before its handler did (the client closed after 0 of 8 bytes)"
    )


def test_without_alpn_a_raw_route_agrees_on_what_requests_need(stage: Stage) -> None:
    stage.tls_route(ADDRESS, b"hello")
    stage.trusting.set_alpn_protocols(["http/1.1"])
    assert stage.tls(ADDRESS, port=5432).selected_alpn_protocol() == "http/1.1"


def talk(sock: socket.socket) -> None:
    """Read and write in each way that a socket has."""
    buffer = bytearray(4)
    assert sock.recv_into(buffer) == 4
    sock.sendall(b"1")
    with sock.makefile("rwb") as file:
        assert file.readline() == b"line\n"
        file.write(b"2")
        file.flush()
    assert sock.recv(4) == b"last"
    sock.send(memoryview(b"3"))


@pytest.mark.parametrize("secure", [False, True])
def test_the_first_bytes_both_ways_are_kept_in_order(stage: Stage, secure: bool) -> None:
    route = (stage.tls_route if secure else stage.tcp)(ADDRESS, talk)
    client = stage.tls(ADDRESS, port=5432) if secure else stage.dial(port=5432)
    for sent, answer in [(b"abcd", b"1"), (b"line\n", b"2"), (b"last", b"3")]:
        client.sendall(sent)
        assert client.recv(1) == answer
    route.wait_for_call(timeout=SECONDS)
    (entry,) = stage.entries(TcpConnection)
    assert detail_lines(entry) == [
        "> b'abcd'",
        "< b'1'",
        r"> b'line\n'",
        "< b'2'",
        "> b'last'",
        "< b'3'",
    ]


def test_a_byte_that_is_only_looked_at_is_kept_once(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: socket.socket) -> None:
        assert sock.recv(2, socket.MSG_PEEK | socket.MSG_WAITALL) == b"ab"
        assert sock.recv(2) == b"ab"

    stage.dial(port=5432).sendall(b"ab")
    handler.wait_for_call(timeout=SECONDS)
    (entry,) = stage.entries(TcpConnection)
    assert eventually(lambda: detail_lines(entry) == ["> b'ab'"])


def test_an_async_handler_in_tls_has_its_bytes_once(stage: Stage) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        await writer.drain()
        writer.close()

    route = stage.tls_route(ADDRESS, handler)
    client = stage.tls(ADDRESS, port=5432)
    client.sendall(b"ping")
    assert client.recv(4) == b"ping"
    route.wait_for_call(timeout=SECONDS)
    (entry,) = stage.entries(TcpConnection)
    assert detail_lines(entry) == ["> b'ping'", "< b'ping'"]
