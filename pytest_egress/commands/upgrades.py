"""What an audit offers TLS with, where a protocol begins in the clear: SMTP, and PostgreSQL.

A client that can do no more than be refused does not show whether it would have gone on in TLS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pytest_egress.commands.findings import SSL_REQUEST
from pytest_egress.egress import Egress, inner_of
from pytest_egress.ledger.remedies import is_host
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_TCP
from pytest_egress.routes.raw.smtp import smtp
from pytest_egress.traffic.entries import Entry, TcpConnection
from pytest_egress.traffic.shown import host_port

MAIL_PORTS: Final = (25, 587, 2525)


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


def offer(egress: Egress, answers: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Declare these answers, whose TLS presents what the options of a route say."""
    for address, answer in answers.items():
        declaration = declare(INTERCEPT_TCP, address, answer, optional=True)
        inner_of(egress).add(replace(declaration, **options))


def accept_ssl_request(sock: Any) -> None:
    """Agree to TLS as PostgreSQL does, and read the client's startup message. Without the request, close."""
    if sock.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
        sock.sendall(b"S")
        sock.starttls().recv(1024)
