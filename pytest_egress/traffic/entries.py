"""The entries of the ledger as values: what a target attempted, and what became of it.

Nothing here reads a socket, a clock or a container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pytest_egress.traffic.messages import SHOWN_VALUE, Request, Response, cut, host_port, shown
from pytest_egress.traffic.redaction import masked_bytes

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

Outcome = Literal["routed", "passthrough", "unrouted", "blocked", "recorded"]


@dataclass(kw_only=True, eq=False)
class Entry:
    """Something a container attempted, in the ledger. `str(entry)` is a line about it.

    Attributes:
        container: Name of the container.
        started: Seconds since the epoch, when its first byte was read.
        outcome: "routed" (a route answered), "passthrough" (the real upstream did), "unrouted" (no route claims it:
            it fails the test), "blocked" (a block route or `unrouted="block"`), or "recorded" (seen, and no attempt
            to leave: DNS, the kernel's own).
        host: The name or address it was for.
        port: Its port, or None where the protocol has none.
        note: A sentence, where there is more to say.
        route: What answered, passed or refused it, or None.
        near: The routes that came near to answering it.
    """

    container: str
    started: float
    outcome: Outcome
    host: str
    port: int | None = None
    note: str = ""
    route: Any = None
    near: tuple[Any, ...] = ()

    @property
    def where(self) -> str:
        """Host and port, with the IP address that was dialled where that is another."""
        address = getattr(self, "address", "")
        dialled = f" ({address})" if address and address != self.host else ""
        return f"{host_port(self.host, self.port)}{dialled}"

    @property
    def needs_server(self) -> bool:
        """Whether only a server of its client's own protocol could answer it."""
        return False

    def __str__(self) -> str:
        return self.where


@dataclass(kw_only=True, eq=False)
class Exchange(Entry):
    """An HTTP request and what answered it.

    Attributes:
        request: The whole request.
        response: What was sent; None while a handler runs, or when the connection ended first.
        error: What the handler raised.
        duration: Seconds from the request's first byte to its response's first, or None while it runs.
    """

    request: Request
    response: Response | Any = None  # of a call it is never None, which no type can tell
    error: BaseException | None = None
    duration: float | Any = None

    def __str__(self) -> str:
        return f"{cut(self.request.method, SHOWN_VALUE)} {self.request.shown_url}"


@dataclass(kw_only=True, eq=False)
class DnsQuery(Entry):
    """A DNS question; unrouted, or blocked, where `dns="strict"` holds and no route names its name.

    Attributes:
        type: Of the record asked for: "A", "AAAA", ...
        answer: The addresses given.
        rcode: "NOERROR", "NXDOMAIN", ...; "" where there was no answer.
    """

    type: str
    answer: tuple[str, ...] = ()
    rcode: str = "NOERROR"

    def __str__(self) -> str:
        return f"{self.host} {self.type}"


UNREADABLE: Final = "the request cannot be read"
"""Begins the note of a connection that speaks HTTP, and not so that it could be answered."""


HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
"""How a client of HTTP/2 begins (RFC 9113 section 3.4)."""

SPEAKS_HTTP2: Final = "the client speaks HTTP/2"
"""Begins the note of a connection that does, where HTTP/1.1 is all that could be answered."""


def speaks_http2(host: str | None = None) -> str:
    """The note of a connection that begins with HTTP/2's preface.

    Args:
        host: Of its TLS; None for plain TCP.
    """
    return f"{SPEAKS_HTTP2}, and HTTP/1.1 is all that is answered here. {server_of('h2', host)}"


def server_of(protocol: str, host: str | None) -> str:
    """What helps a client that speaks one protocol alone, which is not HTTP/1.1.

    Args:
        protocol: As ALPN names it.
        host: Of its TLS; None for plain TCP.
    """
    certificate = f" that has a certificate of egress_ca.issue_cert({host!r})" if host else ""
    if protocol == "h2":
        return f"Let it use HTTP/1.1 where it can (gRPC cannot), or forward it to a server of HTTP/2{certificate}"
    return f"Forward it to a server of {protocol}{certificate}"


@dataclass(kw_only=True, eq=False)
class TcpConnection(Entry):
    """A TCP connection that was not read as HTTP: refused, handed to a raw handler, or passed on.

    Attributes:
        address: The IP address that was dialled.
        first_bytes: What the client sent first, at most 64 bytes; empty where it waited for the server to speak.
        kept: All that the client sent, where the route has no handler that reads it; `content` is it as bytes.
        sni: The server name of its TLS, or None.
        sent: Bytes that went on to an upstream.
        received: Bytes that came back from there.
        error: What the handler raised.
        duration: Seconds until it ended, or None while it is open.
    """

    address: str
    first_bytes: bytes = b""
    kept: bytearray = field(default_factory=bytearray, repr=False)
    sni: str | None = None
    sent: int = 0
    received: int = 0
    error: BaseException | None = None
    duration: float | None = None

    @property
    def needs_server(self) -> bool:
        """Whether its client speaks HTTP/2 unasked."""
        return self.first_bytes.startswith(HTTP2_PREFACE) or self.note.startswith(SPEAKS_HTTP2)

    @property
    def content(self) -> bytes:
        """All that the client has sent so far, where the route has no handler that reads it."""
        return bytes(self.kept)

    def __str__(self) -> str:
        first = f", first bytes {shown(masked_bytes(self.first_bytes))}" if self.first_bytes else ""
        return f"TCP {self.where}{first}"


TlsPeers = tuple[str, str, "int | None", str]
"""A client and a server of TLS: container, host, port, and what tells the client from others in the container."""


@dataclass(kw_only=True, eq=False)
class TlsFailure(Entry):
    """A TLS connection that never became a request; `note` says why, in a sentence.

    Attributes:
        address: The IP address that was dialled.
        sni: The server name on the wire, or None.
        reason: A short name: "untrusted", "likely-untrusted", "timeout", "protocol", ...
        client: What tells its client from the container's others, by its ClientHello; "" where there was none.
    """

    address: str
    sni: str | None = None
    reason: str = ""
    client: str = ""

    @property
    def needs_server(self) -> bool:
        """Whether its client speaks another protocol than HTTP/1.1 alone."""
        return self.reason == "alpn"

    @property
    def peers(self) -> TlsPeers:
        """Whose handshakes with whom it is one of."""
        return self.container, self.host, self.port, self.client

    def __str__(self) -> str:
        return f"TLS {self.where}"


@dataclass(kw_only=True, eq=False)
class PacketAttempt(Entry):
    """A datagram or packet that is not TCP, rejected by the kernel.

    Attributes:
        protocol: "UDP", "ICMP", "ICMPv6", "SCTP" or the protocol's number.
        address: The IP address it was for; "" where that is not known, and then its host is `*`.
        size: Bytes of its IP payload.
        first_bytes: Of what the transport carries, at most 64.
    """

    protocol: str
    address: str
    size: int
    first_bytes: bytes = b""

    def __str__(self) -> str:
        quic = ", probably QUIC" if self.protocol == "UDP" and self.port == 443 else ""
        return f"{self.protocol} {self.where}, {self.size} bytes{quic}"
