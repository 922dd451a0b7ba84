"""What an audit offers TLS with, where a protocol begins in the clear: SMTP, and PostgreSQL.

A client that can do no more than be refused does not show whether it would have gone on in TLS. Nor does one that was
offered TLS show what it does where somebody between them takes the offer away (RFC 3207 section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from pytest_egress.commands.findings import SSL_REQUEST
from pytest_egress.egress import Egress, inner_of
from pytest_egress.ledger.remedies import is_host
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_TCP
from pytest_egress.routes.raw.smtp import smtp
from pytest_egress.traffic.entries import Entry, TcpConnection
from pytest_egress.traffic.shown import host_port

MAIL_PORTS: Final = (25, 587, 2525)
MAX_COMMANDS: Final = 100  # of a client that is not offered STARTTLS
MAX_LINE: Final = 4096
GOES_ON: Final = (b"AUTH", b"MAIL")

Where: TypeAlias = tuple[str, int | None]
"""A host and a port."""


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


def withheld(
    answers: Mapping[str, Any], upgraded: Iterable[Where], seen: dict[Where, bool]
) -> dict[str, Any]:
    """What answers like servers from whose replies somebody has taken the offer of TLS, by address.

    Args:
        answers: What has offered TLS.
        upgraded: Where the image has begun it.
        seen: Gets whether the image goes on in the clear, of those that it asks again.
    """
    found: dict[str, Any] = {}
    for where in upgraded:
        if (address := host_port(*where)) not in answers:
            continue
        answer = deny_ssl_request if callable(answers[address]) else mail_in_the_clear
        found[address] = partial(answer, note=partial(note, seen, where))
    return found


def note(seen: dict[Where, bool], where: Where, goes_on: bool) -> None:
    seen[where] = seen.get(where, False) or goes_on


def deny_ssl_request(sock: Any, note: Callable[[bool], None]) -> None:
    """Deny TLS as PostgreSQL does; a client that sends anything after that goes on in the clear."""
    if sock.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
        note(False)
        sock.sendall(b"N")
        note(bool(sock.recv(1)))


def mail_in_the_clear(sock: Any, note: Callable[[bool], None]) -> None:
    """A mail server without STARTTLS, until its client logs in, or has a mail."""
    note(False)
    sock.sendall(b"220 ESMTP\r\n")
    for verb in verbs(sock):
        if verb in GOES_ON:
            note(True)
        if verb in (*GOES_ON, b"QUIT"):
            sock.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"421 enough\r\n")
            return
        is_hello = verb in (b"EHLO", b"HELO")
        sock.sendall(b"250 AUTH PLAIN LOGIN\r\n" if is_hello else b"502 not known\r\n")


def verbs(sock: Any) -> Iterator[bytes]:
    """The first four letters of each line."""
    data = b""
    for _ in range(MAX_COMMANDS):
        while b"\n" not in data:
            if not (more := sock.recv(MAX_LINE)) or len(data) > MAX_LINE:
                return
            data += more
        line, _, data = data.partition(b"\n")
        yield line[:4].upper()
