"""The entries of the ledger as values: each is an attempt of a target and what became of it.

Nothing here reads a socket, a clock or a container. The module is long since each kind of attempt has a class, and the
texts of these share their helpers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pytest_egress.base.account import Account
from pytest_egress.traffic.grpc import GrpcCall, status_in
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.notes import ConnectionNote, Marks, NotedMessages
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SHOWN_TARGET, SHOWN_VALUE, counted, cut, host_port, shown
from pytest_egress.traffic.tls.quic import begins_quic

if TYPE_CHECKING:
    from email.message import EmailMessage

    from pytest_egress.traffic.websocket import WebSocketMessage

Outcome = Literal["routed", "passthrough", "unrouted", "blocked", "recorded"]


class Accepted(NamedTuple):
    """What a client should have rejected within its handshake, and did not.

    Attributes:
        route: The route that presented it.
        library: The client's TLS library, as its ClientHello shows it; None where that does not tell.
    """

    route: Any
    library: str | None


class AskedProxy(NamedTuple):
    """A host that was asked as a proxy is, where none is declared.

    Attributes:
        address: Its `host:port`.
        variables: The variables of the container that hold this address, by their names.
    """

    address: str
    variables: tuple[str, ...]


@dataclass(kw_only=True, eq=False)
class Entry:
    """An attempt of a container, as the ledger has it. `str(entry)` is a line about it.

    Attributes:
        container: Name of the container.
        started: When its first byte was read, in seconds since the epoch.
        outcome: "routed" (a route answered), "passthrough" (the real upstream did), "unrouted" (no route claims it:
            it fails the test), "blocked" (a block route or `unrouted="block"`), or "recorded" (listed only: a name
            lookup, a packet of the kernel's own, a TLS handshake that failed, a delivery that has to be sent again).
        host: The name or address it was for.
        port: Its port, or None where the protocol has none.
        note: A sentence with more about it, or "".
        route: The route that answered, passed or refused it, or None.
        near: The routes that came nearest to answering it.
        accepted: The bad certificate or old version of TLS that its client has accepted on the way; None for none.
        leak: How a secret left in it that must not, in words; "" where none did, or none was looked for.
        through: The `host:port` of the proxy by which its client asked for it; "" where it dialled by itself.
        connection: Its connection, which others may share. This and the next two are None but where a report is asked
            for, and what they are about is known.
        marks: The times of its parts.
        noted: What went both ways piece by piece, at its beginning and its end.
        swept: Whether a fault sweep has had it fail.
    """

    container: str
    started: float
    outcome: Outcome
    host: str
    port: int | None = None
    note: str = ""
    route: Any = None
    near: tuple[Any, ...] = ()
    accepted: Accepted | None = None
    leak: str = field(default="", init=False, repr=False)
    through: str = field(default="", init=False)  # of the class, as a rule: few have another
    connection: ConnectionNote | None = field(default=None, init=False, repr=False)  # likewise
    marks: Marks | None = field(default=None, init=False, repr=False)
    noted: NotedMessages | None = field(default=None, init=False, repr=False)
    swept: bool = field(default=False, init=False, repr=False)  # likewise
    # Of the window that it is in: it leads to what hides secrets in the text.
    _account: Account | None = field(default=None, init=False, repr=False)

    @property
    def kind(self) -> str:
        """A word for what was attempted, which filters and scripts use."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The entry as values of JSON, for scripts. Secrets are hidden, as in whatever is shown of it.

        Returns:
            `kind`, then `container, started, host, port, outcome, text, note, through, fault, duration`, and the
            fields of its kind: `method, url, status`; `type, answer, rcode, cnames`; `address` with `sni, sent,
            received, between`, `reason` or `protocol, size`; `sender, recipients, subject, user`; `topic, partition,
            offset`.
        """
        redactor = redactor_of(self)
        hidden, fault = redactor.hidden, getattr(self, "fault", None)
        made = {
            "kind": self.kind,
            "container": self.container,
            "started": self.started,
            "host": redactor.host(self.host),
            "port": self.port,
            "outcome": self.outcome,
            "text": str(self),
            "note": hidden(self.note),
            "through": self.through,
            "fault": None if fault is None else hidden(str(fault)),
            "duration": getattr(self, "duration", None),
        }
        return made | self._of_its_kind()

    def _of_its_kind(self) -> dict[str, Any]:
        return {}

    @property
    def where(self) -> str:
        """The host and port, and the IP address that was dialled where that differs from the host."""
        address = getattr(self, "address", "")
        dialled = f" ({address})" if address and address != self.host else ""
        return f"{redactor_of(self).host(host_port(self.host, self.port))}{dialled}"

    def __str__(self) -> str:
        return self.where


def note_message(
    entry: Entry,
    account: Account,
    content: bytes | bytearray | memoryview,
    *,
    from_client: bool,
    decoded: object = None,
) -> None:
    """Note a message of an entry, where notes are asked for."""
    if (notes := account.notes) is None:  # as a rule
        return
    if entry.noted is None:
        entry.noted = NotedMessages(account)
    entry.noted.add(notes.now(), content, from_client=from_client, decoded=decoded)


def note_through(entry: Entry, through: str) -> None:
    """Note the proxy by which an attempt came; with "" its entry keeps that of the class, and takes no more room."""
    if through:
        entry.through = through


@dataclass(kw_only=True, eq=False)
class Exchange(Entry):
    """An HTTP request and its response.

    Attributes:
        request: The whole request.
        response: The response that was sent; None while a handler runs, or when the connection ended first. Where a
            fault has it sent in part, it is the whole.
        error: The exception that the handler raised, or None.
        duration: Seconds from the request's first byte to its response's first, or to the end that a fault has made in
            its place; None while it runs.
        websocket: The WebSocket that the request has opened, or None.
        fault: The fault that it was answered by, such as `reset()`, with its wrappers; or None.
    """

    request: Request
    response: Response | Any = None  # of a call it is never None, which no type can tell
    error: BaseException | None = None
    duration: float | Any = None
    websocket: Any = None
    fault: object | None = None
    # Of the class, where it is None: the ledger has few others.
    _asked_proxy: AskedProxy | None = field(default=None, init=False, repr=False)
    _call: GrpcCall | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._call = GrpcCall.of(self.request)

    @property
    def kind(self) -> str:
        if self._call is not None:
            return "grpc"
        return "websocket" if self.websocket is not None else "http"

    def _of_its_kind(self) -> dict[str, Any]:
        request, response = self.request, self.response
        return {
            "method": request.method,
            "url": redactor_of(self).url(request.url),
            "status": None if response is None else response.status_code,
        }

    @property
    def messages(self) -> list[WebSocketMessage]:
        """The messages of a WebSocket, both ways and in order. The list is made for exchanges that are asked for it."""
        messages: list[WebSocketMessage] = self.__dict__.setdefault("_messages", [])
        return messages

    @property
    def grpc(self) -> GrpcCall | Any:
        """The call of gRPC that the request makes: its method, messages and status; None for any other request."""
        # Of a route for gRPC it is never None, which no type can tell.
        call, response = self._call, self.response
        if call is not None and call.code is None and response is not None:
            call.code, call.details = status_in(response.trailers, response.headers)
        return call

    def send(self, message: str | bytes | dict[str, Any] | list[Any]) -> None:
        """Send a message on the WebSocket that the request has opened, from the test.

        Args:
            message: Text, the bytes of a binary message, or a value that is sent as JSON.

        Raises:
            WebSocketClosedError: The WebSocket is over.
            TypeError: The request has opened none.
        """
        self._opened("send").send(message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket that the request has opened; closing it again does nothing.

        Args:
            code: The code of the close frame (RFC 6455 section 7.4).
            reason: Its reason, at most 123 bytes in UTF-8.

        Raises:
            TypeError: The request has opened none.
        """
        self._opened("close").close(code, reason)

    def _opened(self, method: str) -> Any:
        if self.websocket is None:
            raise TypeError(
                f"{method}(): {self} has opened no WebSocket; a route whose answer is websocket(...) opens one"
            )
        return self.websocket

    def __str__(self) -> str:
        if self.grpc is not None:
            return f"gRPC {self.request.shown_url}"
        if self.request._asks_for_tunnel:
            target = cut(redactor_of(self.request).authority(self.request.path), SHOWN_TARGET)
            return f"CONNECT {target} through {self.where}"
        return f"{cut(self.request.method, SHOWN_VALUE)} {self.request.shown_url}"


@dataclass(kw_only=True, eq=False)
class DnsQuery(Entry):
    """A DNS query. Under `dns="strict"` it is unrouted, or blocked, where no route is declared for its name.

    Attributes:
        type: The type of record asked for: "A", "AAAA", ...
        answer: The addresses in the answer, and the texts of other records of that type, as their route declares them.
        rcode: The response code: "NOERROR", "NXDOMAIN", ...; "" where there was no answer.
        cnames: The names that CNAMEs lead to, in order: the answer is the last one's.
        fault: The fault that it was answered by: "silence", "truncated", or such as `delayed("192.0.2.7", 2)`; or None.
        error: The exception that a function of the test raised that was to tell how late the answer comes, or None.
    """

    type: str
    answer: tuple[str, ...] = ()
    rcode: str = "NOERROR"
    cnames: tuple[str, ...] = ()
    fault: object | None = None
    error: BaseException | None = None
    # Of the class, but where a container of the same network has the name.
    _is_of_peer: bool = field(default=False, init=False, repr=False)

    @property
    def kind(self) -> str:
        return "dns"

    def _of_its_kind(self) -> dict[str, Any]:
        redactor = redactor_of(self)
        return {
            "type": self.type,
            "answer": [redactor.hidden(each) for each in self.answer],
            "rcode": self.rcode,
            "cnames": [redactor.host(each) for each in self.cnames],
        }

    def __str__(self) -> str:
        return f"{redactor_of(self).host(self.host)} {self.type}"


SHOWN_RECIPIENTS: Final = 5  # of a mail, in a line about it

UNREADABLE: Final = "the request cannot be read"
"""Begins the note of a connection that speaks HTTP that cannot be parsed, and so cannot be answered."""

UNREADABLE_WEBSOCKET: Final = "what its client sent cannot be read, on the WebSocket"
"""Begins the note of a WebSocket on which bytes came that are no frames, or no message that is taken."""


HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n"
"""The first bytes of a client that speaks HTTP/2 (RFC 9113 section 3.4)."""

BEGAN: Final = "began {}"
BEGAN_HTTP2: Final = BEGAN.format("HTTP/2")
"""Begins the note of a connection on which HTTP/2 began and no request came."""


def server_of(protocol: str, host: str | None) -> str:
    """Advice for a client that speaks a protocol which is not answered where it came: which server could answer it.

    `protocol` is its ALPN name; `host` is that of its TLS handshake, None for plain TCP.
    """
    certificate = f" that has a certificate of egress_ca.issue_cert({host!r})" if host else ""
    if protocol == "h2":
        scheme = "https" if host else "http"
        return f"Let intercept_{scheme} answer it, or forward it to a server of HTTP/2{certificate}"
    return f"Forward it to a server of {protocol}{certificate}"


UDP_HEADER_BYTES: Final = 8

NO_HTTP3: Final = "HTTP/3 is not answered here, and its client may fall back to HTTPS over TCP"
"""The note of a packet that begins QUIC, for a host and port whose HTTPS a route answers."""

NO_QUIC: Final = "it does not begin QUIC (RFC 9000 section 17.2.2)"
"""Begins the note of any other packet of UDP for such a host and port."""

ASIDE_DATAGRAM: Final = (
    "a raw socket, or one bound to another interface, has sent it, and no route answers that"
)
LONG_DATAGRAM: Final = (
    "an IPv6 datagram of more than 65,487 bytes is sent in fragments, and no route answers these"
)
EXTENDED_DATAGRAM: Final = (
    "a fragment, or with IP options, which may lead to another server: no route answers that"
)
NOT_ANSWERABLE: Final = (ASIDE_DATAGRAM, LONG_DATAGRAM, EXTENDED_DATAGRAM)
"""Begin the note of a packet of UDP that `intercept_udp` does not get."""


TRANSCRIPT_BYTES: Final = 512
"""The bytes that are kept of a raw connection both ways together, for reports."""


class Transcript:
    """The beginning of what a raw connection carried, both ways and in order.

    Attributes:
        pieces: Whether the client sent it, and the bytes. What one side sends in a row is one piece.
        room: How many bytes more are kept.
    """

    __slots__ = ("pieces", "room")

    def __init__(self) -> None:
        self.pieces: list[tuple[bool, bytearray]] = []
        self.room = TRANSCRIPT_BYTES

    def begin(self, sent: bytes, received: bytes) -> None:
        """Take the first bytes of each way, of a connection that is relayed."""
        self.pieces = [(True, bytearray(sent)), (False, bytearray(received))]

    def add(self, data: bytes | memoryview, *, from_client: bool) -> None:
        """Add bytes, as many as there is room for."""
        data = data[: self.room]
        if not data:
            return
        self.room -= len(data)
        if not self.pieces or self.pieces[-1][0] is not from_client:
            self.pieces.append((from_client, bytearray()))
        self.pieces[-1][1].extend(data)


class Offers(NamedTuple):
    """What a client offers that nobody has answered here.

    Attributes:
        version: The newest version of TLS, such as "TLSv1.3".
        library: Its TLS library, as its ClientHello shows it; None where that does not tell.
    """

    version: str
    library: str | None


@dataclass(kw_only=True, eq=False)
class TcpConnection(Entry):
    """A TCP connection that was not read as HTTP: it was refused, given to a raw handler, or passed through.

    Attributes:
        address: The IP address that was dialled.
        first_bytes: The first bytes that the client sent, at most 64; empty where it waited for the server to speak.
        kept: The bytes of `content`.
        unread: Why `content` lacks bytes that the client has sent, as the end of a sentence; "" where it lacks none.
        sni: The server name of its TLS, or None.
        tls: What its TLS agreed on, where that was terminated here: by `intercept_tls`, or a handler's `starttls`.
        offers: What the ClientHello of its TLS offers, where that was not terminated here; None for none.
        sent: How many bytes were passed on to an upstream.
        received: How many bytes came back from the upstream.
        error: The exception that the handler raised, or None.
        duration: Seconds until it ended, or None while it is open.
        fault: The fault that it was answered by, such as `refuse()`, with its wrappers; or None.
        between: The name of the container that it went to, in a network of both; "" as a rule. No assertion counts it.
    """

    address: str
    first_bytes: bytes = b""
    kept: bytearray = field(default_factory=bytearray, repr=False)
    unread: str = ""
    sni: str | None = None
    tls: TlsInfo | None = None
    sent: int = 0
    received: int = 0
    error: BaseException | None = None
    duration: float | None = None
    fault: object | None = None
    between: str = field(default="", init=False)  # of the class, as a rule
    _transcript: Transcript = field(init=False, repr=False, default_factory=Transcript)
    # Of the class, but where TLS was not terminated here.
    offers: Offers | None = field(default=None, init=False, repr=False)
    # Of the class, where no secret is declared: what was searched as it passed, each outside of TLS or within.
    _passing: tuple[tuple[bool, Any], ...] = field(default=(), init=False, repr=False)
    # Of the class, but where a handler has read what is not kept here, since it is that of other entries.
    _is_heard: bool = field(default=False, init=False, repr=False)
    # Of the class, but where more than the wish for TLS was sent before TLS in mid-connection.
    _is_in_clear_first: bool = field(default=False, init=False, repr=False)

    @property
    def kind(self) -> str:
        return "tcp"

    def _of_its_kind(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "sni": None if self.sni is None else redactor_of(self).host(self.sni),
            "sent": self.sent,
            "received": self.received,
            "between": self.between,
        }

    @property
    def content(self) -> bytes:
        """The bytes that the client has sent so far. Where a handler reads them, the first MiB of what it has read.

        Of a client of `kafka()` they are its requests, without those that log in and those with records.
        """
        return bytes(self.kept)

    def __str__(self) -> str:
        if not self.first_bytes:
            return f"TCP {self.where}"
        first = redactor_of(self).first_bytes(self.first_bytes)
        return f"TCP {self.where}, first bytes {shown(first)}"


def is_between(entry: Entry) -> bool:
    """Whether it went to a container of the same network, or asked for the name of one, and so is no egress."""
    if isinstance(entry, DnsQuery):
        return entry._is_of_peer
    return isinstance(entry, TcpConnection) and bool(entry.between)


def speaks_http2(connection: TcpConnection) -> bool:
    """Whether its client speaks HTTP/2, so that a route that reads requests answers it."""
    begins = connection.first_bytes.startswith(HTTP2_PREFACE)
    return begins or connection.note.startswith(BEGAN_HTTP2)


def transcript_of(entry: TcpConnection) -> Transcript:
    """The beginning of what went both ways, which reports show at `-v`."""
    return entry._transcript


@dataclass(kw_only=True, eq=False)
class Mail(Entry):
    """A mail that a route of `smtp()` has taken. It is a call of the route; its connection is an entry of its own.

    One that was refused is unrouted, and `note` says why; one that is too large has no content. One that its client has
    to send again, on another connection, is recorded only, and no call.

    Attributes:
        address: The IP address that was dialled.
        sender: The address in MAIL FROM; "" of a bounce.
        recipients: The addresses in RCPT TO, in order.
        content: The mail as bytes, with CRLF.
        user: The name that the client had logged in with (AUTH), or None.
        tls: What TLS agreed on, where the mail came in TLS; else None.
    """

    address: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes = field(repr=False)
    user: str | None = None
    tls: TlsInfo | None = None

    @property
    def kind(self) -> str:
        return "mail"

    def _of_its_kind(self) -> dict[str, Any]:
        hidden = redactor_of(self).hidden
        return {
            "address": self.address,
            "sender": hidden(self.sender),
            "recipients": [hidden(each) for each in self.recipients],
            "subject": hidden(self.subject),
            "user": None if self.user is None else hidden(self.user),
        }

    @cached_property
    def message(self) -> EmailMessage:
        """The mail, parsed: its header fields, body and attachments. Lines end with LF, as in any `EmailMessage`."""
        from email import message_from_bytes, policy

        return message_from_bytes(self.content.replace(b"\r\n", b"\n"), policy=policy.default)

    @property
    def subject(self) -> str:
        """The subject; "" where there is none, or none that can be read."""
        try:
            return str(self.message.get("subject", ""))
        except Exception:  # the standard library's parser raises what it likes for malformed fields
            return ""

    def __str__(self) -> str:
        addresses = (self.sender, *self.recipients[:SHOWN_RECIPIENTS])
        redactor = redactor_of(self)
        sender, *to = (printable(redactor.hidden(each)) for each in addresses)
        more = len(self.recipients) - SHOWN_RECIPIENTS
        others = f" and {more} more" if more > 0 else ""
        subject = redactor.shown(self.subject)
        return f"mail {subject} from <{sender}> to {', '.join(to) or 'nobody yet'}{others} at {self.where}"


@dataclass(kw_only=True, eq=False)
class KafkaRecord(Entry):
    """A record that a client has produced to a route of `kafka()`. It is a call of the route.

    Its connection is an entry of its own. A record for which no turn is left is unrouted, and `note` says why.

    Attributes:
        address: The IP address that was dialled.
        topic: The topic.
        key: The key as bytes, or None.
        value: The value as bytes, or None (a tombstone).
        headers: Pairs of a name and a value as bytes, or None, in order.
        partition: The number of the partition that the client has chosen.
        offset: Its offset in the partition.
        timestamp: When it was made, as its client says, in milliseconds since the epoch.
        client_id: What its producer calls itself (`client.id`).
        user: The name that the client had logged in with (SASL PLAIN), or None.
        tls: What TLS agreed on, where the record came in TLS; else None.
    """

    address: str
    topic: str
    key: bytes | None = None
    value: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    client_id: str = ""
    user: str | None = None
    tls: TlsInfo | None = None

    @property
    def kind(self) -> str:
        return "kafka"

    def _of_its_kind(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "topic": redactor_of(self).hidden(self.topic),
            "partition": self.partition,
            "offset": self.offset,
        }

    @property
    def text(self) -> str:
        """The value as UTF-8; "" where it is None. Bytes that are none are replaced."""
        return (self.value or b"").decode(errors="replace")

    def json(self) -> Any:
        """The value as JSON.

        Raises:
            ValueError: It is none.
        """
        return json.loads(self.value or b"")

    def __str__(self) -> str:
        redactor = redactor_of(self)
        key = f", key {shown(redactor.content(self.key))}" if self.key is not None else ""
        value = "None" if self.value is None else shown(redactor.content(self.value))
        return f"Kafka record of {redactor.shown(self.topic)}{key}, value {value} at {self.where}"


@dataclass(kw_only=True, eq=False)
class ProxyCall(Entry):
    """What a client has asked of a proxy that `egress.proxy` declares: a tunnel, or the answer to one plain request.

    What comes through has entries of its own, whose `through` is this proxy. Its outcome is "recorded", or "unrouted"
    where no proxy leads there: to the target itself, or to the same proxy again.

    Attributes:
        address: The IP address that was dialled.
        method: "CONNECT" for a tunnel, else the method of the request.
        target: The `host:port` of the tunnel, else the URL of the request, as sent.
        headers: The header fields that the proxy got.
        user: The user name of Basic credentials (`Proxy-Authorization`, RFC 9110 section 11.7.2), or None.
        password: Their password, or None.
    """

    address: str
    method: str
    target: str = field(repr=False)
    headers: Headers = field(repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        return "proxy"

    def _of_its_kind(self) -> dict[str, Any]:
        redactor = redactor_of(self)
        return {
            "address": self.address,
            "method": self.method,
            "url": redactor.url(self.target),
            "user": None if self.user is None else redactor.hidden(self.user),
        }

    def __str__(self) -> str:
        redactor = redactor_of(self)
        target = cut(redactor.url(self.target), SHOWN_TARGET)
        login = "" if self.user is None else f", as {printable(redactor.hidden(self.user))}:***"
        return f"{cut(self.method, SHOWN_VALUE)} {target} through {self.where}{login}"


def printable(address: str) -> str:
    return cut(repr(address)[1:-1], SHOWN_VALUE)


TlsPeers = tuple[str, str, "int | None", str]
"""A TLS client and its server: container, host, port, and the digest of the client's ClientHello."""


class Handshake(NamedTuple):
    """A successful TLS handshake; `started` is when its connection began, `address` the IP address dialled."""

    started: float
    address: str


CERTAIN: Final = ("untrusted", "wrong-name", "alert", "client-certificate")
"""Reasons of a `TlsFailure` that its client has given itself: by an alert, or by the certificate that it sent or not.

Of what has no alert nobody can say for certain why it broke off.
"""


REJECTED: Final = "rejected"
"""The reason of a `TlsFailure` whose client has rejected what a route presents."""

LIKELY_REJECTED: Final = "likely-rejected"
"""The reason of a rejection that may be something else, if the target was being stopped."""

DISTRUST: Final = ("untrusted", "likely-untrusted")
"""The reasons of clients that do not trust the CA of the run."""


@dataclass(kw_only=True, eq=False)
class TlsFailure(Entry):
    """A TLS connection that ended before its first request; `note` says why, in a sentence.

    Attributes:
        address: The IP address that was dialled.
        sni: The server name on the wire, or None.
        reason: A short name: "rejected" (what `certificate=` or an old `tls_version=` has presented), "untrusted",
            "likely-untrusted", "wrong-name", "probe" (it closed after the handshake), "timeout", "protocol", ...
        client: A digest of its ClientHello, which tells its client from others in the container; "" without one.
    """

    address: str
    sni: str | None = None
    reason: str = ""
    client: str = ""

    @property
    def kind(self) -> str:
        return "tls"

    def _of_its_kind(self) -> dict[str, Any]:
        sni = None if self.sni is None else redactor_of(self).host(self.sni)
        return {"address": self.address, "sni": sni, "reason": self.reason}

    def __str__(self) -> str:
        return f"TLS {self.where}"


def peers_of(failure: TlsFailure) -> TlsPeers:
    """The client and server whose handshake this was."""
    return failure.container, failure.host, failure.port, failure.client


def needs_server(entry: Entry) -> bool:
    """Whether its client offers only protocols other than HTTP (ALPN), which no handler can answer."""
    return isinstance(entry, TlsFailure) and entry.reason == "alpn"


@dataclass(kw_only=True, eq=False)
class Datagram(Entry):
    """A datagram that a route of `intercept_udp` has taken. It is a call of the route; the ledger has its flow.

    Attributes:
        address: The IP address it was for.
        client: The address and port in the container that it came from.
        hops: The hop limit (TTL) that it had.
        replies: The contents of the datagrams that answer it, in order, those included that are still to be sent.
        fault: The fault that it was answered by, such as `delayed(b"late", 0.5)`; or None.
    """

    address: str
    client: tuple[str, int]
    content: bytes = field(repr=False)
    hops: int = 64
    replies: list[bytes] = field(default_factory=list, repr=False)
    fault: object | None = None
    _reply: Any = field(default=None, init=False, repr=False)

    @property
    def kind(self) -> str:
        return "udp"

    def _of_its_kind(self) -> dict[str, Any]:
        size = UDP_HEADER_BYTES + len(self.content)
        return {"address": self.address, "protocol": "UDP", "size": size}

    @property
    def text(self) -> str:
        """The content as UTF-8. Bytes that are none are replaced."""
        return self.content.decode(errors="replace")

    def reply(self, content: bytes) -> None:
        """Send a datagram to its client, from the address that this one was for.

        It may be called from any thread, at any time until the container ends, and any number of times.

        Args:
            content: At most 65,507 bytes; of IPv6 65,487.

        Raises:
            CallError: The container has ended.
            TypeError, ValueError: It is no bytes, or longer.
        """
        if not isinstance(content, (bytes, bytearray)):
            raise TypeError(f"reply({shown(content)}) takes bytes")
        self._reply(bytes(content))

    def __str__(self) -> str:
        return f"UDP {self.where}, {counted(len(self.content), 'byte')}{first_text(self, self.content)}"


@dataclass(kw_only=True, eq=False)
class DatagramFlow(Entry):
    """The datagrams of one client to one server that a route of `intercept_udp` has taken in a test.

    Attributes:
        address: The IP address they were for.
        client: The address and port in the container that they came from.
        datagrams: The datagrams, in order, which are calls of the route.
        error: The exception that the handler raised, or None.
    """

    address: str
    client: tuple[str, int]
    datagrams: list[Datagram] = field(repr=False)
    error: BaseException | None = None
    _got_out: bool = field(default=False, init=False, repr=False)

    @property
    def kind(self) -> str:
        return "udp"

    def _of_its_kind(self) -> dict[str, Any]:
        size = sum(UDP_HEADER_BYTES + len(each.content) for each in self.datagrams)
        return {"address": self.address, "protocol": "UDP", "size": size}

    def __str__(self) -> str:
        datagrams = [*self.datagrams]
        size = counted(sum(len(each.content) for each in datagrams), "byte")
        many = f"{len(datagrams)} datagrams of {size}" if len(datagrams) > 1 else size
        return f"UDP {self.where}, {many}{first_text(self, datagrams[0].content)}"


def first_text(entry: Entry, content: bytes) -> str:
    """The beginning of a datagram, as the end of a line."""
    if not content:
        return ""
    first = redactor_of(entry).first_bytes(content[:SHOWN_FIRST])
    return f", first {shown(first)}"


SHOWN_FIRST: Final = 64  # bytes of a datagram, in a line about it

PACKET_KINDS: Final = {"UDP": "udp", "ICMP": "icmp", "ICMPv6": "icmp"}


@dataclass(kw_only=True, eq=False)
class PacketAttempt(Entry):
    """A packet that belongs to no TCP connection and is no DNS query, which the kernel rejected.

    Attributes:
        protocol: "UDP", "ICMP", "ICMPv6", "SCTP" or the protocol's number.
        address: The IP address it was for; "" where that is not known, and then its host is `*`.
        size: The length of its IP payload in bytes.
        first_bytes: The first bytes of the transport's payload, at most 64.
        error: The exception that the predicate of a route has raised for it, or None.
    """

    protocol: str
    address: str
    size: int
    first_bytes: bytes = b""
    error: BaseException | None = None

    @property
    def kind(self) -> str:
        return PACKET_KINDS.get(self.protocol, "packet")

    def _of_its_kind(self) -> dict[str, Any]:
        return {"address": self.address, "protocol": self.protocol, "size": self.size}

    @property
    def is_quic(self) -> bool:
        """Whether it begins a connection of QUIC."""
        return self.protocol == "UDP" and begins_quic(
            self.first_bytes, self.size - UDP_HEADER_BYTES
        )

    def __str__(self) -> str:
        size, first = self.size, ""
        if self.protocol == "UDP" and self.port is not None:  # a later fragment has no header
            size = max(size - UDP_HEADER_BYTES, 0)
            first = ", probably QUIC" if self.is_quic else first_text(self, self.first_bytes)
        return f"{self.protocol} {self.where}, {counted(size, 'byte')}{first}"


Called = Exchange | TcpConnection | DnsQuery | DatagramFlow | PacketAttempt
"""An entry with the error of a function of the test, if that has raised one."""
