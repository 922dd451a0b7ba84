"""The frames of the stream link: their layout, and the events that a receiver makes of them.

A frame is a header of 7 bytes and a payload. `mux` knows in which order frames may come; this module does not.
"""

from __future__ import annotations

from struct import Struct

VERSION = 2
"""The version of the framing. Both sides are of one installation; another version is left from an upgrade."""

MAX_PAYLOAD = 65535
"""The most bytes in a frame: any UDP datagram (at most 65,507) fits, with an address before it."""

MAX_TEXT = 4096
"""The most bytes of a text: an address, a sentence. A longer sentence is cut."""

DNS, MONITORS, DATAGRAMS, PACKETS = CHANNELS = range(4)
"""Channels of datagrams, the most important first. Its datagrams are sent first, and dropped last, so
that a flood of packets hides neither a query nor a change of the rules."""

HEADER = Struct("!BIH")  # type, stream id or channel, length of the payload
NUMBER = Struct("!I")
GREETING = Struct("!HB")  # version, whether there is IPv6
ERRNO = Struct("!H")
HELLO, OPEN, OPENED, REFUSED, DATA, CREDIT, FIN, RST = range(1, 9)
DATAGRAM, LOST, PING, PONG, ERROR, BYE, BYE_ACK = range(9, 16)
UNHEARD = b"\1"  # in FIN and RST: see `Fin`

LENGTHS = {
    HELLO: (GREETING.size, MAX_TEXT),
    OPEN: (0, MAX_TEXT),
    OPENED: (0, 0),
    REFUSED: (ERRNO.size, MAX_TEXT),
    DATA: (1, MAX_PAYLOAD),
    CREDIT: (NUMBER.size, NUMBER.size),
    FIN: (0, len(UNHEARD)),
    RST: (0, len(UNHEARD)),
    DATAGRAM: (0, MAX_PAYLOAD),
    LOST: (NUMBER.size, NUMBER.size),
    PING: (NUMBER.size, NUMBER.size),
    PONG: (NUMBER.size, NUMBER.size),
    ERROR: (0, MAX_TEXT),
    BYE: (0, 0),
    BYE_ACK: (0, 0),
}
"""The least and the most bytes of each type's payload."""

FIRST_FRAMES = (HELLO, ERROR)
CONNECTION_FRAMES = (HELLO, PING, PONG, ERROR, BYE, BYE_ACK)
BEFORE_BYE = (HELLO, OPEN, OPENED, REFUSED, DATA, FIN, DATAGRAM, LOST, BYE)


class ProtocolError(Exception):
    """The peer broke the rules of the framing; the text is a sentence that says how."""


class MuxEvent:
    """Something that the peer did. Events are equal when their class and their fields are.

    The classes are written out: importing dataclasses or typing would double what the agent imports.
    """

    __slots__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._fields() == self._fields()

    def __hash__(self) -> int:
        return hash((type(self), self._fields()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Hello(MuxEvent):
    """The peer's first frame: whether it has IPv6, and a text with its features."""

    __slots__ = __match_args__ = ("ipv6", "text")

    def __init__(self, ipv6: bool, text: str) -> None:
        self.ipv6 = ipv6
        self.text = text


class Open(MuxEvent):
    """The peer opened a stream for a purpose; accept it, refuse it or reset it."""

    __slots__ = __match_args__ = ("stream", "purpose")

    def __init__(self, stream: int, purpose: bytes) -> None:
        self.stream = stream
        self.purpose = purpose


class Opened(MuxEvent):
    """The peer accepted a stream of ours."""

    __slots__ = __match_args__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class Refused(MuxEvent):
    """The peer refused a stream of ours, with an errno and a sentence; the stream has ended."""

    __slots__ = __match_args__ = ("stream", "number", "text")

    def __init__(self, stream: int, number: int, text: str) -> None:
        self.stream = stream
        self.number = number
        self.text = text


class Data(MuxEvent):
    """The next bytes of a stream. Call `Mux.consumed` when they have been read."""

    __slots__ = __match_args__ = ("stream", "data")

    def __init__(self, stream: int, data: bytes) -> None:
        self.stream = stream
        self.data = data


class Fin(MuxEvent):
    """The peer sends nothing more on a stream; this side still may.

    `unheard` says that the peer's socket has had no byte acknowledged so far of those that we sent.
    """

    __slots__ = __match_args__ = ("stream", "unheard")

    def __init__(self, stream: int, unheard: bool = False) -> None:
        self.stream = stream
        self.unheard = unheard


class StreamReset(MuxEvent):
    """The peer ended a stream, both ways; the bytes that we had queued on it are dropped.

    `unheard` says that the peer's socket had no byte acknowledged of those that we sent.
    """

    __slots__ = __match_args__ = ("stream", "unheard")

    def __init__(self, stream: int, unheard: bool = False) -> None:
        self.stream = stream
        self.unheard = unheard


class MuxDatagram(MuxEvent):
    __slots__ = __match_args__ = ("channel", "data")

    def __init__(self, channel: int, data: bytes) -> None:
        self.channel = channel
        self.data = data


class Lost(MuxEvent):
    """The peer dropped `count` datagrams of a channel since its last such frame."""

    __slots__ = __match_args__ = ("channel", "count")

    def __init__(self, channel: int, count: int) -> None:
        self.channel = channel
        self.count = count


class Pong(MuxEvent):
    """The peer answered our ping of this number, and with it every earlier one."""

    __slots__ = __match_args__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Failed(MuxEvent):
    """The peer gave up, for the reason in the text; nothing follows."""

    __slots__ = __match_args__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Bye(MuxEvent):
    """The peer has nothing more to send; all that it had queued has arrived."""

    __slots__ = ()


class ByeAcknowledged(MuxEvent):
    """All that we had queued has arrived at the peer: it is safe to end."""

    __slots__ = ()


def pack_frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    """The number is that of a stream or channel, or 0 for the connection itself."""
    return HEADER.pack(kind, number, len(payload)) + payload


def pack_text(text: str) -> bytes:
    return text.encode("utf-8", "replace")[: MAX_TEXT - GREETING.size]


def unpack_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
