"""TLS in mid-connection: the certificate, what the entry says, handshakes that fail, and what stays as it was."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import replace
from typing import Any

import pytest
import trustme

from pytest_egress.errors import HandshakeError
from pytest_egress.gateway.raw import starttls
from pytest_egress.gateway.raw.sockets import RawSocket
from pytest_egress.gateway.tls import handshake as tls
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_TCP
from pytest_egress.traffic.entries import TcpConnection, TlsFailure
from tests.support.echo import read_line
from tests.support.stage import (
    ADDRESS,
    SECONDS,
    Stage,
    client_context,
    end_of,
    eventually,
    hello_bytes,
    leave_within_handshake,
)

COMMAND = b"STARTTLS\r\n"


@pytest.fixture
def short_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (starttls, tls):
        monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.5)


def upgrade(sock: RawSocket, **options: Any) -> ssl.SSLSocket:
    """Read the command, and make the connection TLS."""
    assert sock.readexactly(len(COMMAND)) == COMMAND
    sock.sendall(b"220 go\r\n")
    return sock.starttls(**options)


def greet(sock: RawSocket) -> None:
    upgrade(sock).sendall(b"hello\r\n")


def secured(
    stage: Stage,
    server_name: str | None = None,
    address: str = ADDRESS,
    context: ssl.SSLContext | None = None,
) -> ssl.SSLSocket:
    """A client that has asked for TLS and made it."""
    client = stage.dial(address, 5432)
    client.sendall(COMMAND)
    assert read_line(client) == b"220 go\r\n"
    secure = (context or stage.trusting).wrap_socket(client, server_hostname=server_name or address)
    return stage.open.enter_context(secure)


def names_of(sock: ssl.SSLSocket) -> object:
    certificate = sock.getpeercert()
    assert certificate is not None
    return certificate["subjectAltName"]


# The handshake.


def test_the_certificate_is_for_the_server_name_that_the_client_asks_for(stage: Stage) -> None:
    route = stage.tcp("mail.test", greet)
    sock = secured(stage, "alias.test", stage.resolve("mail.test"))
    assert names_of(sock) == (("DNS", "alias.test"),)
    assert read_line(sock) == b"hello\r\n"
    call = route.wait_for_call(timeout=SECONDS)
    assert (call.host, call.sni) == ("mail.test", "alias.test")
    assert call.tls is not None
    assert (call.tls.version, call.tls.alpn) == ("TLSv1.3", None)


def test_without_a_server_name_the_certificate_is_for_what_was_dialled(stage: Stage) -> None:
    stage.tcp(ADDRESS, greet)
    assert names_of(secured(stage)) == (("IP Address", ADDRESS),)
    stage.tcp("mail.test", greet)
    stage.trusting.check_hostname = False
    address = stage.resolve("mail.test")
    assert names_of(secured(stage, None, address)) == (("DNS", "mail.test"),)


def test_alpn_is_agreed_on_where_the_handler_names_protocols(stage: Stage) -> None:
    route = stage.tcp(ADDRESS, lambda sock: upgrade(sock, alpn=("imap", "pop3")).sendall(b"x\n"))
    stage.trusting.set_alpn_protocols(["pop3"])
    assert secured(stage).selected_alpn_protocol() == "pop3"
    call = route.wait_for_call(timeout=SECONDS)
    assert call.tls is not None
    assert call.tls.alpn == "pop3"


def test_the_tls_socket_has_the_timeout_of_the_one_before_and_reads_exactly(stage: Stage) -> None:
    seen: list[object] = []

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        sock.settimeout(SECONDS)
        secure = upgrade(sock)
        seen.extend([secure.gettimeout(), isinstance(secure, socket.socket), sock.fileno()])
        seen.append(secure.readexactly(5))  # type: ignore[attr-defined]
        secure.settimeout(0.05)
        with pytest.raises(TimeoutError):
            secure.recv(1)

    client = secured(stage)
    client.sendall(b"he")
    client.sendall(b"llo")
    handler.wait_for_call(timeout=SECONDS)
    assert seen == [SECONDS, True, -1, b"hello"]


def test_a_client_that_does_not_wait_for_the_answer_is_served(stage: Stage) -> None:
    # MySQL's clients send their ClientHello right behind the packet that asks for TLS.
    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        assert sock.readexactly(len(COMMAND)) == COMMAND
        sock.starttls().sendall(b"hello\r\n")

    client = stage.dial(port=5432)
    client.sendall(COMMAND)
    secure = stage.open.enter_context(stage.trusting.wrap_socket(client, server_hostname=ADDRESS))
    assert read_line(secure) == b"hello\r\n"


def test_the_client_gets_close_notify_at_the_end(stage: Stage) -> None:
    stage.tcp(ADDRESS, greet)
    client = stage.dial(port=5432)
    client.sendall(COMMAND)
    assert read_line(client) == b"220 go\r\n"
    secure = stage.trusting.wrap_socket(client, server_hostname=ADDRESS, suppress_ragged_eofs=False)
    stage.open.enter_context(secure)
    assert secure.recv(100) == b"hello\r\n"
    assert secure.recv(100) == b""  # and no SSLEOFError


# Handshakes that fail.


def distrusting(stage: Stage, server_name: str = "mail.test") -> TlsFailure:
    """The entry of a client that does not trust the CA."""
    stranger = client_context(trustme.CA())
    with pytest.raises(ssl.SSLCertVerificationError):
        secured(stage, server_name, stage.resolve("mail.test"), stranger)
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    (failure,) = stage.entries(TlsFailure)
    return failure


def test_a_client_that_distrusts_the_ca_is_named_as_on_other_connections(stage: Stage) -> None:
    route = stage.tcp("mail.test", greet)
    failure = distrusting(stage)
    assert (failure.reason, failure.host, failure.sni) == ("untrusted", "mail.test", "mail.test")
    assert failure.note.startswith(
        "the target (OpenSSL, by its ClientHello) does not trust the CA of this run for 'mail.test' "
        "(alert: unknown CA). The CA is in the image's bundle"
    )
    assert [miss.route for miss in failure.near] == [route]
    assert "1 handler" not in str(judge(stage.window, [route]))
    assert type(judge(stage.window, [route])).__name__ == "HandshakeError"


@pytest.mark.parametrize("verifies", [True, False])
def test_a_bad_certificate_is_rejected_or_accepted_as_on_other_connections(
    stage: Stage, ca: trustme.CA, verifies: bool
) -> None:
    def handler(sock: RawSocket) -> None:
        upgrade(sock).recv(100)

    declaration = declare(INTERCEPT_TCP, "mail.test", handler)
    route = stage.add(replace(declaration, certificate="expired"))
    context, address = client_context(ca), stage.resolve("mail.test")
    if verifies:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            secured(stage, "mail.test", address, context)
        assert eventually(lambda: stage.entries(TlsFailure))
        (failure,) = stage.entries(TlsFailure)
        assert (failure.reason, failure.route) == ("rejected", route)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        secured(stage, "mail.test", address, context).sendall(b"EHLO\r\n")
        assert eventually(lambda: stage.entries(TcpConnection)[0].accepted)
        assert stage.entries(TlsFailure) == []
    (call,) = stage.entries(TcpConnection)
    assert (call.accepted is None, call.tls is None) == (verifies, verifies)
    assert "expired" in route.presented.given


def test_a_failure_is_at_the_route_that_was_dialled_whatever_name_was_asked_for(
    stage: Stage,
) -> None:
    stage.tcp("mail.test", greet)
    failure = distrusting(stage, "alias.test")
    assert (failure.outcome, failure.host, failure.sni) == ("recorded", "mail.test", "alias.test")
    assert "CA of this run for 'alias.test'" in failure.note


def test_a_later_handshake_of_the_same_client_excuses_one_that_it_left(
    stage: Stage, ca: trustme.CA
) -> None:
    stage.tcp("mail.test", greet)
    client = stage.dial(stage.resolve("mail.test"), 5432)
    client.sendall(COMMAND)
    assert read_line(client) == b"220 go\r\n"
    leave_within_handshake(client, ca, "mail.test")
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    assert isinstance(judge(stage.window, []), HandshakeError)
    read_line(secured(stage, "mail.test", stage.resolve("mail.test")))
    stage.settle()
    assert judge(stage.window, []) is None


def test_what_a_handler_does_about_a_failed_handshake_is_its_own(stage: Stage) -> None:
    @stage.tcp("mail.test")
    def handler(sock: RawSocket) -> None:
        with contextlib.suppress(OSError):
            upgrade(sock)
        raise LookupError("of the handler")

    distrusting(stage)
    assert eventually(lambda: any(entry.error for entry in stage.entries(TcpConnection)))
    verdict = judge(stage.window, [])
    assert "LookupError: of the handler" in str(verdict)


def test_a_hello_that_the_handler_has_read_ahead_is_missed_with_the_reason(
    stage: Stage, ca: trustme.CA, short_handshake: None
) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        sock.recv(4096)
        sock.starttls()

    client = stage.dial(port=5432)
    client.sendall(COMMAND + hello_bytes(ca))
    assert end_of(client) == "reset"
    (failure,) = stage.entries(TlsFailure)
    assert failure.reason == "incomplete"
    assert failure.note == (
        "starttls() got no ClientHello for '203.0.113.9' within 0.5 s: the client sent none, or the handler has read "
        "it already. A buffered file, and a recv() of more than the command, read ahead; sock.readexactly(size) does "
        "not"
    )
    assert not any(entry.error for entry in stage.entries(TcpConnection))


def test_what_is_sent_in_the_clear_behind_the_command_is_no_handshake(stage: Stage) -> None:
    stage.tcp(ADDRESS, greet)
    client = stage.dial(port=5432)
    client.sendall(COMMAND + b"MAIL FROM:<eve@x.test>\r\n")
    assert end_of(client) == "reset"
    (failure,) = stage.entries(TlsFailure)
    assert (failure.reason, failure.note[:24]) == ("protocol", "it sent no ClientHello: ")


def test_a_client_that_closes_instead_is_a_handshake_that_failed(stage: Stage) -> None:
    stage.tcp(ADDRESS, greet)
    client = stage.dial(port=5432)
    client.sendall(COMMAND)
    read_line(client)
    client.close()
    assert eventually(lambda: any(isinstance(e, TlsFailure) for e in stage.window.entries))
    (failure,) = stage.entries(TlsFailure)
    assert failure.reason == "incomplete"


# Mistakes.


@pytest.mark.parametrize(
    ("alpn", "text"),
    [
        ("imap", "alpn='imap': it takes names of protocols"),
        (("imap", 5), r"alpn=\('imap', 5\): it takes names of protocols"),
        (("",), r"alpn=\('',\): '' is no name of ALPN, which has 1 to 255 characters of ASCII"),
    ],
)
def test_protocols_that_are_none_are_refused(stage: Stage, alpn: Any, text: str) -> None:
    raised: list[Exception] = []

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        with pytest.raises((TypeError, ValueError), match=text) as caught:
            sock.starttls(alpn)
        raised.append(caught.value)

    stage.dial(port=5432).close()
    assert eventually(lambda: raised)


def test_a_second_starttls_on_the_first_socket_says_what_to_use(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        upgrade(sock)
        with pytest.raises(ValueError, match=r"go on with the socket that the first starttls"):
            sock.starttls()

    secured(stage)
    handler.wait_for_call(timeout=SECONDS)


# What stays as it was.


def test_a_cut_wakes_a_handler_that_reads_from_its_tls_socket(stage: Stage) -> None:
    reading, woken = threading.Event(), threading.Event()

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        secure = upgrade(sock)
        reading.set()
        try:
            assert secure.recv(100) == b""
        finally:
            woken.set()

    client = secured(stage)
    assert reading.wait(SECONDS)
    handler.remove()
    stage.gateway.revise()
    assert woken.wait(SECONDS)
    assert end_of(client) in ("closed", "reset")
    assert judge(stage.window, []) is None


def test_a_cut_before_the_handshake_wakes_starttls(stage: Stage) -> None:
    raised: list[BaseException] = []

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        try:
            upgrade(sock)
        except OSError as error:
            raised.append(error)
            raise

    client = stage.dial(port=5432)
    client.sendall(COMMAND)
    read_line(client)
    handler.remove()
    stage.gateway.revise()
    assert end_of(client) in ("closed", "reset")
    assert eventually(lambda: raised)
    stage.settle()
    assert judge(stage.window, []) is None  # ended by us, and no offence of the client's


def test_what_a_handler_raises_after_the_handshake_resets_its_client(stage: Stage) -> None:
    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        upgrade(sock)
        raise LookupError("of the handler")

    assert end_of(secured(stage)) == "reset"
    assert "LookupError: of the handler" in str(judge(stage.window, []))
    assert handler.call_count == 0


def test_every_socket_is_closed_when_the_handler_has_returned(stage: Stage) -> None:
    kept: list[socket.socket] = []

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        kept.extend([sock, upgrade(sock)])

    client = secured(stage)
    assert end_of(client) == "closed"
    assert eventually(lambda: not list(stage.gateway.connections))
    assert [sock.fileno() for sock in kept] == [-1, -1]


def test_a_handler_may_wrap_its_socket_by_itself(stage: Stage, ca: trustme.CA) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(ADDRESS).configure_cert(own)

    @stage.tcp(ADDRESS)
    def handler(sock: RawSocket) -> None:
        assert sock.readexactly(len(COMMAND)) == COMMAND
        sock.sendall(b"220 go\r\n")
        with own.wrap_socket(sock, server_side=True) as secure:
            secure.sendall(b"hello\r\n")

    assert read_line(secured(stage)) == b"hello\r\n"
    handler.wait_for_call(timeout=SECONDS)
