"""The run of an audit that offers TLS where a protocol begins in the clear: SMTP, and PostgreSQL.

A client that can do no more than be refused does not show whether it would have gone on in TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from pytest_egress.egress import Egress
from pytest_egress.ledger.remedies import is_host
from pytest_egress.routes.raw.smtp import smtp
from pytest_egress.traffic.entries import Entry, TcpConnection
from pytest_egress.traffic.shown import host_port

MAIL_PORTS: Final = (25, 587, 2525)
SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL, section 55.7 (SSLRequest)


def upgrading(usual: Sequence[Entry]) -> dict[str, Any]:
    """What answers where TLS may begin within a connection, by address."""
    found: dict[str, Any] = {}
    for entry in usual:
        if isinstance(entry, TcpConnection) and entry.tls is None and is_host(entry.host):
            if entry.first_bytes.startswith(SSL_REQUEST):
                found[host_port(entry.host, entry.port)] = partial(
                    accept_ssl_request
                )  # a function of this package is taken for one that makes an answer
            elif entry.port in MAIL_PORTS:
                found[host_port(entry.host, entry.port)] = smtp()
    return found


def offers(answers: Mapping[str, Any]) -> Callable[[Egress], None]:
    """A function that declares these answers."""

    def declare(egress: Egress) -> None:
        for address, answer in answers.items():
            egress.intercept_tcp(address, answer, optional=True)

    return declare


def accept_ssl_request(sock: Any) -> None:
    """Agree to TLS as PostgreSQL does, and read the client's startup message. Without the request, close."""
    if sock.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
        sock.sendall(b"S")
        sock.starttls().recv(1024)
