"""What is kept of attempts only while someone asks for it, such as a report: times, connections, messages.

The rule: nothing of it is kept, or costs more than a look at `Account.notes`, while that is None. Nothing here reads a
clock or a socket: whoever notes gives the time, by the ledger's clock, in seconds since the epoch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_egress.base.account import Account
    from pytest_egress.traffic.http.request import TlsInfo

KEPT_AT_AN_END: Final = 100
"""Messages of an entry that are kept, of its first and of its last ones."""

KEPT_CONTENT: Final = 4096  # bytes of a message
KEPT_ALONE: Final = 16 << 20
"""The bytes of messages that are kept of a window for no other reason. What is beyond fails no test."""

MESSAGE_BYTES: Final = 256  # that one takes beside its content


class Notes:
    """What a run keeps beside its entries.

    Attributes:
        now: The ledger's clock: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now: Final = now
        self._numbers = itertools.count(1)

    def connection(self) -> ConnectionNote:
        """A note of a connection that opens now. Any thread may call it."""
        return ConnectionNote(next(self._numbers), self.now())


class Marks:
    """The times of one request, or of one question of DNS, which has `begun` and `answered` alone.

    Attributes:
        begun: When its first byte was read.
        whole: When its body had been read, where that was before its handler was called.
        called: When its handler was called.
        answered: When the handler had returned.
        sent: When the last byte of the response had been sent, or the end had come in its place.
    """

    __slots__ = ("answered", "begun", "called", "sent", "whole")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.whole: float | None = None
        self.called: float | None = None
        self.answered: float | None = None
        self.sent: float | None = None


class ConnectionNote:
    """One connection of a target, which its entries share.

    Attributes:
        number: Counts the connections of a run.
        opened: When it was accepted.
        hello: When its ClientHello had been read, or None.
        secured: When its handshake was over, or None.
        address: The IP address that was dialled.
        port: Its port.
        sni: The server name of its TLS, or None.
        tls: What TLS agreed on, or None.
        library: The client's TLS library, as its ClientHello shows it, or None.
        presented: The certificate that its client should have rejected, in words; "" for a good one.
        first: The opening of the window that it was last reported in, and the number of its first entry there.
    """

    __slots__ = (
        *("address", "first", "hello", "library", "number", "opened", "port", "presented"),
        *("secured", "sni", "tls"),
    )

    def __init__(self, number: int, opened: float) -> None:
        self.number, self.opened = number, opened
        self.hello: float | None = None
        self.secured: float | None = None
        self.address, self.port = "", 0
        self.sni: str | None = None
        self.tls: TlsInfo | None = None
        self.library: str | None = None
        self.presented = ""
        self.first = (0.0, 0)


@dataclass(frozen=True, kw_only=True)
class NotedMessage:
    """A message, or a piece of a stream.

    Attributes:
        at: When it was read or sent, in seconds since the epoch.
        size: Its length in bytes.
        content: Its first `KEPT_CONTENT` bytes.
        number: Its place among all of the entry, from 0 on.
        decoded: What it is beyond bytes: a message of protobuf, which a report writes as JSON; else None.
    """

    at: float
    from_client: bool
    size: int
    content: bytes = b""
    number: int = 0
    decoded: object = None


class NotedMessages:
    """The first and the last messages of one entry. One thread at a time adds; any thread reads."""

    __slots__ = ("_account", "_first", "_last", "count")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._first: list[NotedMessage] = []
        self._last: deque[NotedMessage] = deque(maxlen=KEPT_AT_AN_END)
        self.count = 0

    def add(
        self,
        at: float,
        content: bytes | bytearray | memoryview,
        *,
        from_client: bool,
        decoded: object = None,
    ) -> None:
        """Note a message; without its content where the window has no room for that."""
        size, kept = len(content), bytes(content[:KEPT_CONTENT])
        if not self._account.notes_fit(len(kept) + MESSAGE_BYTES, KEPT_ALONE):
            kept, decoded = b"", None
        message = NotedMessage(
            at=at,
            from_client=from_client,
            size=size,
            content=kept,
            number=self.count,
            decoded=decoded,
        )
        self.count += 1
        if len(self._first) < KEPT_AT_AN_END:
            self._first.append(message)
        else:
            self._last.append(message)

    def __iter__(self) -> Iterator[NotedMessage]:
        yield from [*self._first, *self._last]

    def __len__(self) -> int:
        return self.count
