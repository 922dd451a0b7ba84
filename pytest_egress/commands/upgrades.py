"""What an audit offers TLS with, where a protocol begins in the clear: SMTP, IMAP, POP3 and PostgreSQL.

A client that can do no more than be refused does not show whether it would have gone on in TLS. Nor does one that was
offered TLS show what it does where somebody between them takes the offer away (RFC 3207 section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

MAX_COMMANDS: Final = 100  # of a client that goes on without TLS
MAX_LINE: Final = 4096

Where: TypeAlias = tuple[str, int | None]
"""A host and a port."""


@dataclass(frozen=True, kw_only=True)
class Mailing:
    """A protocol of mail, as lines. In a reply `%s` is the tag of its command, or nothing.

    Attributes:
        greeting: What the server says first.
        asks: The commands that ask what the server can, by its reply; the first is with TLS, the second without.
        begins: The command that begins TLS, and the reply that agrees.
        goes_on: The commands of a client that goes on in the clear: a login, or a mail.
        denied: The reply to these.
        other: The reply to all other commands.
        has_tags: Whether each command has a tag before it.
    """

    greeting: bytes
    asks: Mapping[bytes, tuple[bytes, bytes]]
    begins: tuple[bytes, bytes]
    goes_on: tuple[bytes, ...]
    denied: bytes
    other: bytes
    has_tags: bool = False


HELLO: Final = (b"250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n", b"250 AUTH PLAIN LOGIN\r\n")
SMTP: Final = Mailing(
    greeting=b"220 ESMTP\r\n",
    asks={b"EHLO": HELLO, b"HELO": HELLO},
    begins=(b"STARTTLS", b"220 go\r\n"),
    goes_on=(b"AUTH", b"MAIL"),
    denied=b"421 enough\r\n",
    other=b"502 not known\r\n",
)
IMAP: Final = Mailing(
    greeting=b"* OK ready\r\n",
    asks={
        b"CAPABILITY": (
            b"* CAPABILITY IMAP4rev1 STARTTLS\r\n%s OK\r\n",
            b"* CAPABILITY IMAP4rev1\r\n%s OK\r\n",
        )
    },
    begins=(b"STARTTLS", b"%s OK\r\n"),
    goes_on=(b"LOGIN", b"AUTHENTICATE"),
    denied=b"%s NO\r\n",
    other=b"%s BAD\r\n",
    has_tags=True,
)
POP3: Final = Mailing(
    greeting=b"+OK\r\n",
    asks={b"CAPA": (b"+OK\r\nSTLS\r\nUSER\r\n.\r\n", b"+OK\r\nUSER\r\n.\r\n")},
    begins=(b"STLS", b"+OK\r\n"),
    goes_on=(b"USER", b"AUTH", b"APOP"),
    denied=b"-ERR\r\n",
    other=b"-ERR\r\n",
)
MAIL_PORTS: Final[dict[int | None, Mailing]] = {
    25: SMTP,
    587: SMTP,
    2525: SMTP,
    143: IMAP,
    110: POP3,
}


def upgrading(usual: Sequence[Entry]) -> dict[str, Any]:
    """What answers where TLS may begin within a connection, by address."""
    found: dict[str, Any] = {}
    for address, (_, port), is_mail in beginning(usual):
        if not is_mail:
            # A function of this package is taken for one that makes an answer, a partial is not.
            found[address] = partial(accept_ssl_request)
        elif (mailing := MAIL_PORTS[port]) is SMTP:
            found[address] = smtp()
        else:
            found[address] = partial(converse, mailing=mailing, offers=True, note=ignore)
    return found


def beginning(usual: Sequence[Entry]) -> Iterator[tuple[str, Where, bool]]:
    """Each address where TLS may begin within a connection, its host and port, and whether it is of mail."""
    for entry in usual:
        if isinstance(entry, TcpConnection) and entry.tls is None and is_host(entry.host):
            is_mail = not entry.first_bytes.startswith(SSL_REQUEST)
            if not is_mail or entry.port in MAIL_PORTS:
                where = entry.host, entry.port
                yield host_port(*where), where, is_mail


def offer(egress: Egress, answers: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Declare these answers, whose TLS presents what the options of a route say."""
    for address, answer in answers.items():
        declaration = declare(INTERCEPT_TCP, address, answer, optional=True)
        inner_of(egress).add(replace(declaration, **options))


def withheld(
    usual: Sequence[Entry], begun: Container[Where], seen: dict[Where, bool]
) -> dict[str, Any]:
    """What answers like servers from whose replies somebody has taken the offer of TLS, by address.

    Args:
        begun: Where the image has begun it.
        seen: Gets whether the image goes on in the clear, of those that it asks again.
    """
    found: dict[str, Any] = {}
    for address, where, is_mail in beginning(usual):
        if where not in begun:
            continue
        noted = partial(note, seen, where)
        found[address] = (
            partial(converse, mailing=MAIL_PORTS[where[1]], offers=False, note=noted)
            if is_mail
            else partial(deny_ssl_request, note=noted)
        )
    return found


def note(seen: dict[Where, bool], where: Where, goes_on: bool) -> None:
    seen[where] = seen.get(where, False) or goes_on


def ignore(goes_on: bool) -> None:
    """Where TLS is offered, what was recorded says what the client did."""


def accept_ssl_request(sock: Any) -> None:
    """Agree to TLS as PostgreSQL does, and read the client's startup message. Without the request, close."""
    if sock.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
        sock.sendall(b"S")
        sock.starttls().recv(1024)


def deny_ssl_request(sock: Any, note: Callable[[bool], None]) -> None:
    """Deny TLS as PostgreSQL does; a client that sends anything after that goes on in the clear."""
    if sock.readexactly(len(SSL_REQUEST)) == SSL_REQUEST:
        note(False)
        sock.sendall(b"N")
        note(bool(sock.recv(1)))


def converse(sock: Any, mailing: Mailing, *, offers: bool, note: Callable[[bool], None]) -> None:
    """A server of mail, until its client has begun TLS, logs in, has a mail, or leaves."""
    note(False)
    begins, agrees = mailing.begins
    sock.sendall(mailing.greeting)
    for tag, verb in commands(sock, has_tags=mailing.has_tags):
        if verb == begins and offers:
            sock.sendall(agrees.replace(b"%s", tag))
            sock.starttls().recv(1024)
            return
        goes_on = verb in mailing.goes_on
        reply = mailing.denied if goes_on else mailing.other
        if verb in mailing.asks:
            reply = mailing.asks[verb][0 if offers else 1]
        sock.sendall(reply.replace(b"%s", tag))
        if goes_on:
            note(True)
            return


def commands(sock: Any, *, has_tags: bool) -> Iterator[tuple[bytes, bytes]]:
    """The tag and the verb of each line."""
    data = b""
    for _ in range(MAX_COMMANDS):
        while b"\n" not in data:
            if not (more := sock.recv(MAX_LINE)) or len(data) > MAX_LINE:
                return
            data += more
        line, _, data = data.partition(b"\n")
        words = [*line.split()[: 1 + has_tags], b"", b""]
        yield (words[0], words[1].upper()) if has_tags else (b"", words[0].upper())
