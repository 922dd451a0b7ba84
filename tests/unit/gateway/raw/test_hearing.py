"""What a raw handler has read of its client is in the entry, however it reads; and what is missing there is said."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any

import pytest
import trustme

from pytest_egress import forward, smtp
from pytest_egress.base.account import Account
from pytest_egress.gateway.raw.hearing import MAX_KEPT_BYTES, PAST, passing
from pytest_egress.ledger.details import detail_lines
from pytest_egress.ledger.encryption import weak
from pytest_egress.traffic.entries import Offers, TcpConnection
from tests.support.echo import Echo
from tests.support.entries import tcp
from tests.support.stage import ADDRESS, SECONDS, Stage, end_of, eventually, hello_bytes

SENT = b"hello ann, and more of it"


def received(sock: socket.socket) -> None:
    assert sock.recv(5) == SENT[:5]
    assert sock.recv(100) == SENT[5:]


def received_into(sock: socket.socket) -> None:
    buffer, rest = bytearray(100), bytearray(100)
    assert sock.recv_into(buffer, 2) == 2
    assert sock.recv_into(memoryview(rest)) == len(SENT) - 2


def read_by_file(sock: socket.socket) -> None:
    with sock.makefile("rb") as file:
        assert file.read(len(SENT)) == SENT


def received_from(sock: socket.socket) -> None:
    buffer = bytearray(3)
    assert sock.recvfrom(4)[0] == SENT[:4]
    assert sock.recvfrom_into(buffer, nbytes=3)[0] == 3
    first, second = bytearray(2), bytearray(100)
    assert sock.recvmsg(1)[0] == SENT[7:8]
    assert sock.recvmsg_into([first, second])[0] == len(SENT) - 8


def peeked(sock: socket.socket) -> None:
    assert sock.recv(5, socket.MSG_PEEK) == SENT[:5]
    assert sock.recv_into(bytearray(9), 9, socket.MSG_PEEK) == 9
    received(sock)


def read_in_part(sock: socket.socket) -> None:
    assert sock.recv(5) == SENT[:5]


def not_read(sock: socket.socket) -> None:
    assert sock.recv(1, socket.MSG_PEEK)


def closed(sock: socket.socket) -> None:
    read_in_part(sock)
    sock.close()


async def streamed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert await reader.readexactly(len(SENT)) == SENT


HANDLERS = [
    received, received_into, read_by_file, received_from, peeked, read_in_part, not_read, closed, streamed,
]  # fmt: skip


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_came_is_kept_however_a_handler_reads_or_leaves_it(stage: Stage, handler: Any) -> None:
    route = stage.tcp(ADDRESS, handler)
    stage.dial(port=5432).sendall(SENT)
    call = route.wait_for_call(timeout=SECONDS)
    assert (call.content, call.unread, call.error) == (SENT, "", None)


WITHIN_TLS = [received, received_into, read_by_file, read_in_part, streamed]


@pytest.mark.parametrize("handler", WITHIN_TLS)
def test_within_tls_it_is_what_was_encrypted(stage: Stage, handler: Any) -> None:
    route = stage.tls_route(ADDRESS, handler)
    stage.tls(ADDRESS, port=5432).sendall(SENT)
    call = route.wait_for_call(timeout=SECONDS)
    assert (call.content, call.unread, call.error) == (SENT, "", None)


def test_what_comes_before_a_handshake_and_after_it_is_kept(stage: Stage) -> None:
    @stage.tcp("mail.test:5432")
    def handler(sock: Any) -> None:
        assert sock.readexactly(8) == b"STARTTLS"
        sock.sendall(b"!")
        sock.starttls().recv(100)

    client = stage.dial(stage.resolve("mail.test"), 5432)
    client.sendall(b"STARTTLS")
    assert client.recv(1) == b"!"
    with stage.trusting.wrap_socket(client, server_hostname="mail.test") as tls:
        tls.sendall(SENT)
    assert handler.wait_for_call(timeout=SECONDS).content == b"STARTTLS" + SENT


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_within_tls_what_comes_after_the_handler_has_returned_is_missed(
    stage: Stage, version: ssl.TLSVersion
) -> None:
    route = stage.tls_route(ADDRESS, read_in_part)
    stage.trusting.maximum_version = version
    client = stage.tls(ADDRESS, port=5432)
    client.sendall(SENT[:5])
    call = route.wait_for_call(timeout=SECONDS)
    assert client.recv(1) == b""  # the handler has closed its side
    client.sendall(SENT)
    assert eventually(lambda: call.unread == PAST)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_end_of_tls_is_nothing_that_is_missed(stage: Stage, version: ssl.TLSVersion) -> None:
    route = stage.tls_route(ADDRESS, read_in_part)
    stage.trusting.maximum_version = version
    client = stage.tls(ADDRESS, port=5432)
    client.sendall(SENT[:5])
    call = route.wait_for_call(timeout=SECONDS)
    assert client.recv(1) == b""
    client.unwrap()
    client.close()
    assert eventually(lambda: not list(stage.gateway.connections))
    assert (call.content, call.unread) == (SENT[:5], "")


def test_what_comes_after_the_handler_has_returned_is_kept(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, lambda sock: sock.sendall(b"bye"))
    client = stage.dial(port=5432)
    assert client.recv(3) == b"bye"
    client.sendall(SENT)
    client.close()
    call = route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: call.content == SENT)


def past_the_socket(sock: socket.socket) -> None:
    assert os.read(sock.fileno(), 100) == SENT


def by_a_descriptor_of_its_own(sock: socket.socket) -> None:
    descriptor = sock.detach()
    try:
        assert os.read(descriptor, 100) == SENT
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("handler", [past_the_socket, by_a_descriptor_of_its_own])
def test_what_is_read_past_the_socket_is_said(stage: Stage, handler: Any) -> None:
    route = stage.tcp(ADDRESS, handler)
    stage.dial(port=5432).sendall(SENT)
    call = route.wait_for_call(timeout=SECONDS)
    assert (call.content, call.unread) == (b"", PAST)


def test_what_a_handler_decrypts_by_itself_is_said(stage: Stage, ca: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("db.test").configure_cert(context)

    @stage.tcp("db.test:5432")
    def handler(sock: socket.socket) -> None:
        assert sock.recv(1) == b"S"
        with context.wrap_socket(sock, server_side=True) as tls:
            assert tls.recv(100) == SENT

    client = stage.dial(stage.resolve("db.test"), 5432)
    client.sendall(b"S")
    with stage.trusting.wrap_socket(client, server_hostname="db.test") as tls:
        tls.sendall(SENT)
    call = handler.wait_for_call(timeout=SECONDS)
    assert call.unread == PAST


def test_a_handler_that_reads_without_end_has_its_beginning_kept(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: Any) -> None:
        sock.readexactly(MAX_KEPT_BYTES + 10)

    stage.dial(port=5432).sendall(b"a" + bytes(MAX_KEPT_BYTES + 9))
    call = handler.wait_for_call(timeout=SECONDS)
    assert len(call.content) == MAX_KEPT_BYTES
    assert call.content[:1] == b"a"
    assert call.unread == (f"are kept in part: the first {MAX_KEPT_BYTES} of {MAX_KEPT_BYTES + 10}")


def test_a_connection_of_a_service_keeps_nothing_beside_its_mails(stage: Stage) -> None:
    stage.tcp("mail.test:5432", smtp())
    client = stage.dial(stage.resolve("mail.test"), 5432)
    client.sendall(b"QUIT\r\n")
    assert end_of(client) == "closed"
    (entry,) = stage.entries(TcpConnection)
    assert (entry.content, entry.unread) == (b"", "")
    assert detail_lines(entry) == []
    assert [each.how for each in weak([entry], 2, [])] == ["in the clear"]  # without a mail, too


def test_a_login_at_a_service_is_not_shown(stage: Stage) -> None:
    stage.tcp("mail.test:5432", smtp())
    client = stage.dial(stage.resolve("mail.test"), 5432)
    assert client.recv(1024).startswith(b"220 ")
    client.sendall(b"EHLO shop\r\nAUTH PLAIN AGFubgBzZWNyZXQ=\r\nQUIT\r\n")
    assert end_of(client) == "closed"
    (entry,) = stage.entries(TcpConnection)
    assert detail_lines(entry) == []


def test_a_connection_that_is_passed_on_says_so_once_something_was(
    stage: Stage, echo: Echo
) -> None:
    route = stage.tcp(ADDRESS, forward(f"tcp://127.0.0.1:{echo.port}"))
    client = stage.dial(port=5432)
    client.sendall(SENT)
    assert client.recv(100)
    assert (
        route.wait_for_call(timeout=SECONDS).unread
        == "were passed on to a server, and are not kept"
    )


def test_an_unanswered_connection_says_that_its_beginning_alone_was_read(stage: Stage) -> None:
    for data, unread in (
        (b"\x01short", ""),
        (b"\x01" * 100, "are kept in part: the first 64 alone"),
    ):
        client = stage.dial(stage.resolve("other.test"), 5432)
        client.sendall(data)
        end_of(client)
        assert eventually(lambda: [*stage.entries(TcpConnection)])
        assert [*stage.entries(TcpConnection)][-1].unread == unread


@pytest.mark.parametrize("size", [1 << 16, 40])
def test_the_hello_of_a_client_that_is_passed_on_says_what_it_offers(
    size: int, ca: trustme.CA
) -> None:
    entry, hello = tcp(), hello_bytes(ca)
    heard = passing(entry, Account())
    assert heard is not None
    for at in range(0, len(hello), size):
        heard(hello[at : at + size])
    assert entry.offers == Offers("TLSv1.3", "OpenSSL")


@pytest.mark.parametrize("data", [b"SELECT 1", b"\x16\x03\x01", b"\x16\x03\x01\x00\x05ab"])
def test_what_begins_with_no_hello_offers_nothing(data: bytes) -> None:
    entry = tcp()
    heard = passing(entry, Account())
    assert heard is not None
    for _ in range(100):
        heard(data)
    assert entry.offers is None


EHLO = b"EHLO shop.test\r\n"


@pytest.mark.parametrize(
    ("before", "is_in_clear"),
    [
        ([EHLO, b"STARTTLS\r\n"], False),
        ([b"\0\0\0\x08\x04\xd2\x16\x2f"], False),  # PostgreSQL
        ([EHLO, b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", b"STARTTLS\r\n"], True),
    ],
)
@pytest.mark.parametrize("size", [1 << 16, 40])
def test_the_hello_after_starttls_of_a_client_that_is_passed_on_is_read(
    before: list[bytes], is_in_clear: bool, size: int, ca: trustme.CA
) -> None:
    entry, hello = tcp(), hello_bytes(ca)
    heard = passing(entry, Account())
    assert heard is not None
    for said in [*before, *(hello[at : at + size] for at in range(0, len(hello), size))]:
        heard(said)
    assert entry.offers == Offers("TLSv1.3", "OpenSSL")
    assert entry._is_in_clear_first is is_in_clear


def test_a_hello_after_more_than_the_wish_for_it_can_have_is_not_looked_for(ca: trustme.CA) -> None:
    entry = tcp()
    heard = passing(entry, Account())
    assert heard is not None
    for said in (b"DATA" * 500, hello_bytes(ca)):
        heard(said)
    assert entry.offers is None
