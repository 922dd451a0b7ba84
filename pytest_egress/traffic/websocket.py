"""WebSockets as values: their handshake as fields of a request and a response, and their frames as messages.

RFC 6455, with `permessage-deflate` (RFC 7692) and the handshake of HTTP/2 (RFC 8441). `wsproto` makes and reads the
frames; it is imported with the first WebSocket. This module never touches a socket, and knows no route.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_egress.base.account import OBJECT_BYTES, Account
from pytest_egress.traffic.http.headers import FIELD_NAME, Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor
from pytest_egress.traffic.shown import shown

if TYPE_CHECKING:
    from wsproto.connection import Connection
    from wsproto.events import Event

MAX_MESSAGE_BYTES: Final = 64 << 20
"""The longest message, inflated. It is checked after each read, which inflates to 67 MB at most."""

WEBSOCKET: Final = "websocket"  # the name of the protocol, in Upgrade and :protocol
VERSION: Final = "13"  # RFC 6455 section 4.1; there is no other
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
DEFLATE: Final = "permessage-deflate"
WINDOW_BITS: Final = re.compile("9|1[0-5]")  # zlib has no window of 8 bits
MAX_PING_BYTES: Final = 125  # of a control frame (section 5.5)
MAX_REASON_BYTES: Final = 123  # the code takes two

OF_A_HANDSHAKE: Final = frozenset(
    {
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
    }
)
"""Fields that each of the two handshakes has its own of."""

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
NO_CODE: Final = 1005  # the close frame had none; it is never sent
BROKEN_OFF: Final = 1006  # there was no close frame; it is never sent
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
BAD_GATEWAY: Final = 1014  # of IANA's registry


@dataclass(frozen=True, kw_only=True)
class WebSocketMessage:
    """One message of a WebSocket.

    Attributes:
        content: Its text as str, or the bytes of a binary message.
        from_client: Whether the container sent it.
        at: When it was read or sent, in seconds since the epoch.
    """

    content: str | bytes
    from_client: bool
    at: float

    def __str__(self) -> str:
        """An arrow with its direction, and the message with secrets masked: `<- 'hello'` is to the container."""
        return message_text(self, BY_NAMES)


def message_text(message: WebSocketMessage, redactor: Redactor) -> str:
    """As `str(message)`, for a report of its run."""
    content = message.content
    text = redactor.text(content) if isinstance(content, str) else redactor.content(content)
    return f"{'->' if message.from_client else '<-'} {shown(text)}"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What was agreed on for a WebSocket. The status is 101, or 200 over HTTP/2.

    The parameters of `permessage-deflate` are in `deflate` as the response has them; None without compression.
    """

    status_code: int
    headers: Headers
    subprotocol: str | None = None
    deflate: str | None = None


class OpeningError(ValueError):
    """A request is no handshake of a WebSocket, or not one by RFC 6455 section 4.2.1.

    The fields of the response tell the client what is accepted.
    """

    def __init__(self, text: str, status_code: int = 400, headers: Headers | None = None) -> None:
        super().__init__(text)
        self.status_code, self.headers = status_code, headers or Headers()


def asks_for_websocket(request: Request) -> bool:
    """Whether a request asks to become a WebSocket; whether it does so correctly, `accept` finds out.

    HTTP/2 has no field Upgrade. The gateway adds it to an extended CONNECT for a WebSocket, and makes its method GET.
    """
    return WEBSOCKET in items(request.headers.get("upgrade", "").lower())


def is_handshake(request: Request) -> bool:
    try:
        accept(request)
    except OpeningError:
        return False
    return True


def accept(request: Request, subprotocols: Sequence[str] = ()) -> Opening:
    """Agree to the handshake of a request (RFC 6455 section 4.2.2, RFC 8441 section 5).

    The subprotocols are those that the server speaks, the best one first.

    Raises:
        OpeningError: The request is no handshake; the text says what is wrong with it.
    """
    fields: list[tuple[str, str]] = []
    if request.http_version == "1.1":
        key = checked_key(request)
        accepted = ("Sec-WebSocket-Accept", accept_token(key))
        fields = [("Upgrade", WEBSOCKET), ("Connection", "Upgrade"), accepted]
    elif not asks_for_websocket(request):
        raise no_handshake(request)
    check_version(request)
    offered = items(request.headers.get("sec-websocket-protocol", ""))
    subprotocol = next((each for each in subprotocols if each in offered), None)
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    extensions = request.headers.get("sec-websocket-extensions", "")
    if (deflate := agreed_deflate(extensions)) is not None:
        fields.append(("Sec-WebSocket-Extensions", "; ".join(filter(None, [DEFLATE, deflate]))))
    return Opening(
        status_code=101 if request.http_version == "1.1" else 200,
        headers=Headers(fields),
        subprotocol=subprotocol,
        deflate=deflate,
    )


def checked_key(request: Request) -> str:
    """The key of a handshake over HTTP/1.1; OpeningError where no WebSocket is asked for, or no key is valid."""
    headers = request.headers
    upgrades = "upgrade" in items(headers.get("connection", "").lower())
    if request.method != "GET" or not upgrades or not asks_for_websocket(request):
        raise no_handshake(request)
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise OpeningError("the handshake of a WebSocket has no body, and this request has one")
    keys = headers.get_all("sec-websocket-key")
    try:
        is_whole = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):  # ValueError: it is not ASCII
        is_whole = False
    if not is_whole:
        got = shown(", ".join(keys)) if keys else "absent"
        raise OpeningError(f"Sec-WebSocket-Key is {got}: it has to be 16 bytes in base64, once")
    return keys[0]


def check_version(request: Request) -> None:
    """Only version 13 is accepted, and named to the client (RFC 6455 section 4.4)."""
    versions = request.headers.get_all("sec-websocket-version")
    if versions != [VERSION]:
        got = shown(", ".join(versions)) if versions else "absent"
        raise OpeningError(
            f"Sec-WebSocket-Version is {got}: it has to be {VERSION}",
            426,
            Headers([("Upgrade", WEBSOCKET), ("Sec-WebSocket-Version", VERSION)]),
        )


def no_handshake(request: Request) -> OpeningError:
    """An ordinary request gets 426 (RFC 9110 section 15.5.22)."""
    return OpeningError(
        f"{request.method} {request.shown_url} is an ordinary request, and the route answers WebSockets alone. "
        f"A WebSocket begins with GET, Connection: Upgrade and Upgrade: websocket",
        426,
        Headers([("Upgrade", WEBSOCKET), ("Sec-WebSocket-Version", VERSION)]),
    )


def accept_token(key: str) -> str:
    """The value of Sec-WebSocket-Accept that answers a key (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def items(value: str, separator: str = ",") -> list[str]:
    """The items of a list in a field (RFC 9110 section 5.6.1), without empty ones."""
    return [item.strip() for item in value.split(separator) if item.strip()]


# Compression.


def agreed_deflate(extensions: str) -> str | None:
    """The parameters of `permessage-deflate` for the first offer that can be met; None where none can.

    The offers are those of Sec-WebSocket-Extensions.
    """
    for offer in items(extensions):
        name, *parameters = items(offer, ";") or [""]
        if name == DEFLATE and (agreed := met_parameters(parameters)) is not None:
            return agreed
    return None


def met_parameters(parameters: Sequence[str]) -> str | None:
    """The response's parameters for those of an offer; None where it has to be declined (RFC 7692 section 7.1)."""
    seen: dict[str, str | None] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        name, value = name.strip(), value.strip().strip('"')
        if name in seen or not is_parameter(name, value if equals else None):
            return None
        seen[name] = value if equals else None
    agreed = [name for name in seen if name.endswith("no_context_takeover")]
    if (bits := seen.get("server_max_window_bits")) is not None:
        agreed.append(f"server_max_window_bits={bits}")
    return "; ".join(agreed)


def is_parameter(name: str, value: str | None) -> bool:
    """Whether a parameter is one of RFC 7692, with a value that can be met."""
    if name in ("server_no_context_takeover", "client_no_context_takeover"):
        return value is None
    fits = value is not None and WINDOW_BITS.fullmatch(value) is not None
    if name == "client_max_window_bits":  # inflating takes any window
        return fits or value in (None, "8")
    return fits and name == "server_max_window_bits"


# Frames.

MESSAGES: Final = "messages of WebSockets"
CUT_REASON: Final = "the test keeps as much as it may"


def size_of(content: str | bytes | bytearray) -> int:
    """As an `Account` counts memory."""
    return sys.getsizeof(content) + OBJECT_BYTES


@dataclass(frozen=True, kw_only=True)
class Closing:
    """The end of a WebSocket, as it came.

    Attributes:
        code: The code of the close frame; `NO_CODE` where it had none. For bytes that are no frames, the code of RFC
            6455 section 7.4.1 to close with.
        reason: The reason of the close frame, or "".
        reply: Whether a close frame has to be sent back.
        is_refusal: Whether there was no close frame, and what came instead cannot be read.
    """

    code: int
    reason: str
    reply: bool
    is_refusal: bool = False


@dataclass(frozen=True, kw_only=True)
class PingFrame:
    """A ping, which a pong with the same payload has to answer."""

    payload: bytes


class ClosedError(Exception):
    """A frame cannot be sent any more: a close frame was sent."""


Received = str | bytes | PingFrame | Closing


class Frames:
    """The frames of one WebSocket, both ways, after its handshake. It has no lock.

    The two directions end apart: what the peer has sent before it learns of an end is answered before our close frame
    (RFC 6455 section 5.5.1).

    Args:
        deflate: The parameters of `permessage-deflate`, as the response has them; None without compression.
        of_client: Whether these are the frames of a client, which masks what it sends.
        most: The most bytes of a message.

    Attributes:
        search: Gets what comes as it comes, also of pings and of a message whose end never comes; None for nothing.
    """

    def __init__(
        self,
        deflate: str | None,
        *,
        of_client: bool = False,
        most: int = MAX_MESSAGE_BYTES,
        account: Account | None = None,
    ) -> None:
        self._incoming = connection_of(deflate, of_client)
        self._outgoing = connection_of(deflate, of_client)
        self._unfinished = (account or Account()).hold(MESSAGES)
        self._most = most
        self._parts: list[Any] = []
        self._size = 0
        self.search: Callable[[bytes], None] | None = None
        self._is_over = False

    def receive(self, data: bytes) -> Iterator[Received]:
        """Yield what bytes of the peer complete: messages, pings, and at last the end, after which nothing counts."""
        if self._is_over:
            return
        self._incoming.receive_data(data)
        for event in self._incoming.events():
            for received in self._received(event):
                self._is_over = isinstance(received, Closing)
                yield received
            if self._is_over:
                return

    def _received(self, event: Event) -> Iterator[Received]:
        from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

        if isinstance(event, (Ping, Pong)) and self.search is not None:
            self.search(bytes(event.payload))
        if isinstance(event, (TextMessage, BytesMessage)):
            if self.search is not None:
                data = event.data
                self.search(data.encode() if isinstance(data, str) else bytes(data))
            yield from self._part(event.data, event.message_finished)
        elif isinstance(event, Ping):
            yield PingFrame(payload=bytes(event.payload))
        elif isinstance(event, CloseConnection):  # also for bytes that are no frames
            yield Closing(
                code=int(event.code),
                reason=event.reason or "",
                reply=self.can_close,
                is_refusal=not self._has_ended,
            )

    def _part(self, data: str | bytes | bytearray, is_last: bool) -> Iterator[Received]:
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._most:
            reason = f"a message is over {self._most} bytes"
            self.discard()
            yield Closing(code=TOO_BIG, reason=reason, reply=self.can_close, is_refusal=True)
        elif is_last:
            parts, self._parts, self._size = self._parts, [], 0
            self._unfinished.release()
            yield "".join(parts) if isinstance(data, str) else b"".join(parts)
        elif not self._unfinished.fits(self._unfinished.size + size_of(data)):
            self.discard()
            yield Closing(code=TOO_BIG, reason=CUT_REASON, reply=self.can_close)

    def discard(self) -> None:
        """Nothing more comes of a message that has not come whole."""
        self._parts.clear()
        self._unfinished.release()

    @property
    def _has_ended(self) -> bool:
        from wsproto.connection import ConnectionState

        return self._incoming.state in (ConnectionState.CLOSED, ConnectionState.REMOTE_CLOSING)

    @property
    def can_close(self) -> bool:
        from wsproto.connection import ConnectionState

        return self._outgoing.state is ConnectionState.OPEN

    def message(self, content: str | bytes) -> bytes:
        """Raises ClosedError once a close frame was sent."""
        from wsproto.events import BytesMessage, TextMessage

        if isinstance(content, str):
            return self._sent(TextMessage(data=content))
        return self._sent(BytesMessage(data=content))

    def ping(self, payload: bytes = b"") -> bytes:
        from wsproto.events import Ping

        return self._sent(Ping(payload=payload))

    def pong(self, payload: bytes) -> bytes:
        from wsproto.events import Pong

        return self._sent(Pong(payload=payload))

    def close(self, code: int, reason: str = "") -> bytes:
        """Codes that are never sent become a frame without a code."""
        from wsproto.events import CloseConnection

        return self._sent(CloseConnection(code=code, reason=reason or None))

    def _sent(self, event: Event) -> bytes:
        from wsproto.utilities import LocalProtocolError

        try:
            return self._outgoing.send(event)
        except LocalProtocolError as error:
            raise ClosedError(str(error)) from None


def connection_of(deflate: str | None, of_client: bool) -> Connection:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.extensions import Extension, PerMessageDeflate

    extensions: list[Extension] = []
    if deflate is not None:
        extension = PerMessageDeflate()
        extension.finalize(f"{DEFLATE}; {deflate}")
        extensions.append(extension)
    kind = ConnectionType.CLIENT if of_client else ConnectionType.SERVER
    return Connection(kind, extensions)


def check_close(code: object, reason: object) -> None:
    """Refuse a code that no close frame may have (RFC 6455 section 7.4), and a reason that does not fit."""
    if not isinstance(reason, str):
        raise TypeError(f"close(reason={reason!r}): it takes a str")
    if len(reason.encode()) > MAX_REASON_BYTES:
        raise ValueError(
            f"close(reason={shown(reason)}): it is {len(reason.encode())} bytes in UTF-8, and a close frame has room "
            f"for {MAX_REASON_BYTES}"
        )
    is_code = isinstance(code, int) and not isinstance(code, bool)
    if not is_code or not can_be_sent(code):
        raise ValueError(
            f"close({code!r}): a close frame takes 1000 to 1003, 1007 to 1014, or a code of your own from 3000 to 4999"
        )


def can_be_sent(code: Any) -> bool:
    """RFC 6455 section 7.4, and the registry of IANA, tell."""
    return code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999


def check_subprotocols(subprotocols: object) -> tuple[str, ...]:
    """Return the names as a tuple; TypeError or ValueError where one is no token (RFC 6455 section 4.1)."""
    if isinstance(subprotocols, str) or not isinstance(subprotocols, Sequence):
        raise TypeError(
            f"subprotocols={subprotocols!r}: it takes a list of names, the best one first, as ['chat.v2', 'chat.v1']"
        )
    for name in subprotocols:
        if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
            raise ValueError(f"subprotocols=...: {name!r} is no name of a subprotocol: a token")
    return tuple(subprotocols)
