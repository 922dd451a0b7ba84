"""What a connection brings that carries many requests at once, in HTTP/2 or HTTP/3: events, each of one stream.

`ManyRequests` is the state of such a connection, as its server uses it. Values only. Whoever calls a method of it holds
a lock: the libraries have none, and several threads answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers


class BrokenRuleError(Exception):
    """The client has broken the protocol, or asks for too much: the connection ends, and its client is told why.

    Attributes:
        sent: The fields that its client has sent in what ends it, as lines.
    """

    sent = b""


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    stream: int


@dataclass(frozen=True, kw_only=True)
class Asked(StreamEvent):
    """The head of a request has come. Where neither body nor trailers follow, `Ended` comes next."""

    head: Head


@dataclass(frozen=True, kw_only=True)
class BodyCame(StreamEvent):
    """`ManyRequests.give_back` gives the bytes of this piece back when they have been read."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class CameLate(StreamEvent):
    """A piece of a body, or its trailers as lines, has come on a stream that this side has reset, and is dropped."""

    data: bytes
    is_fields: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended(StreamEvent):
    trailers: Headers


@dataclass(frozen=True, kw_only=True)
class WasReset(StreamEvent):
    """A stream was reset: by its client, or by a library since a rule was broken. `why` is part of a sentence."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Unreadable(StreamEvent):
    """The request is malformed, or came on a stream that its client had ended; the stream has been reset.

    `sent` has its fields as lines, or its bytes of a body.
    """

    why: str
    sent: bytes


@dataclass(frozen=True, kw_only=True)
class WindowGrew(StreamEvent):
    """More may be sent on a stream; of stream 0, on each."""


Came: TypeAlias = "Asked | BodyCame | CameLate | Ended | WasReset | Unreadable | WindowGrew"


class ManyRequests(Protocol):
    """The server side of one connection.

    Attributes:
        is_leaving: Whether its client makes no request any more, and reads the answers to others.
        has_asked: Whether it has made a request.
        is_closed: Whether its client has ended it in the words of its protocol.
    """

    is_leaving: bool
    has_asked: bool
    is_closed: bool

    @property
    def has_begun(self) -> bool:
        """Whether the client has sent what begins a connection."""
        ...

    @property
    def is_within_head(self) -> bool:
        """Whether the head of a request has begun, and has not come whole."""
        ...

    @property
    def has_part_of_head(self) -> bool:
        """The same, where what has come can be no other frame."""
        ...

    @property
    def last_stream(self) -> int:
        """The highest stream that the client has opened."""
        ...

    def receive(self, data: bytes) -> Iterator[Came]:
        """The events are yielded as the bytes bring them.

        Raises:
            BrokenRuleError: The connection cannot go on. `outgoing` then has what tells the client so.
        """
        ...

    def outgoing(self) -> bytes: ...

    def give_back(self, stream: int, size: int) -> None:
        """Let a client send as many bytes more on a stream."""
        ...

    def start(self, stream: int, status_code: int, headers: Headers, *, ends: bool) -> None:
        """Send the head of a response, or an interim response.

        Raises:
            ValueError: The protocol cannot carry a field.
            ConnectionError: The connection or the stream has ended.
        """
        ...

    def room(self, stream: int) -> int:
        """How many bytes the next piece of a body may have; ConnectionError where connection or stream has ended."""
        ...

    def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """No more than there is `room` for, which raises likewise."""
        ...

    def finish(self, stream: int, trailers: Headers = NO_FIELDS) -> None:
        """Raises as `start` does."""
        ...

    def reset(self, stream: int, code: int) -> None:
        """Reset a stream, by a code of HTTP/2 (RFC 9113 section 7)."""
        ...

    def raw(self, stream: int, data: bytes) -> bytes:
        """What to send so that a client gets bytes in place of the protocol's."""
        ...

    def forget(self, stream: int) -> None: ...

    def goaway(self) -> bytes:
        """No request is taken after it, and those that came are answered."""
        ...
