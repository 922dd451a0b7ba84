"""`Hearing`: keeps what a raw handler reads of its client, in the entry of its connection.

What it does not keep is said in the entry: what is over `MAX_KEPT_BYTES`, and what the handler has read by the
descriptor of its socket, or by TLS of its own.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any, Final

from pytest_egress.base.account import MAX_HELD_BYTES, Account
from pytest_egress.errors import ClientHelloError
from pytest_egress.gateway.recorder import Heard, searching
from pytest_egress.traffic.entries import Offers, TcpConnection, note_message, transcript_of
from pytest_egress.traffic.tls.asked import MAX_ASKED_BYTES, asks_alone
from pytest_egress.traffic.tls.clients import library_of
from pytest_egress.traffic.tls.hello import (
    MAX_HELLO_BYTES,
    bytes_needed,
    newest_version,
    parse_client_hello,
)

MAX_KEPT_BYTES: Final = 1 << 20  # of a connection: a handler may read without end
RAW: Final = "raw connections"
CLOSE_NOTIFY_BYTES: Final = (
    24  # of TLS 1.3, whose records all look like data (RFC 8446 section 5.2)
)
ALERT: Final = 21  # a record of TLS 1.2 says so (RFC 5246 section 6.2.1)

PAST: Final = "were not all read by way of the socket that the handler got"


def unheard(data: bytes | memoryview) -> None:
    """The `Heard` where nobody listens."""


class Hearing:
    """What is kept of one connection. A thread at a time reads from it.

    Args:
        keeps: False where all that matters is kept in other entries: the mails of `smtp()`. The transcript has nothing
            then, since nothing would mask a login in it.
    """

    def __init__(self, entry: TcpConnection, account: Account, *, keeps: bool = True) -> None:
        self._entry, self._account, self._keeps = entry, account, keeps
        self._transcript = transcript_of(entry)
        self._sealed = b""
        self._in_clear = bytearray()  # the first bytes before TLS in mid-connection
        self._search = searching(entry, account)
        self.count = 0

    def heard(self, data: bytes | memoryview) -> None:
        entry, account = self._entry, self._account
        self.count += len(data)
        if entry.tls is None:
            self._in_clear += data[: MAX_ASKED_BYTES + 1 - len(self._in_clear)]
        if self._search is not None:
            self._search(data)
        if not self._keeps:
            entry._is_heard = True
            return
        note_message(entry, account, data, from_client=True)
        self._transcript.add(data, from_client=True)
        keep_within(entry, account, data)
        if len(entry.kept) < self.count:
            entry.unread = f"are kept in part: the first {len(entry.kept)} of {self.count}"

    def said(self, data: bytes | memoryview) -> None:
        """Take what the handler has sent, for the transcript alone."""
        if self._keeps:
            note_message(self._entry, self._account, data, from_client=False)
            self._transcript.add(data, from_client=False)

    def secured(self) -> None:
        """Take notice that TLS begins: all that was heard was in the clear."""
        self._entry._is_in_clear_first = not asks_alone(bytes(self._in_clear))

    def sealed(self, data: bytes) -> None:
        """Take records of TLS that nobody decrypts any more: more than the client's close_notify is missed."""
        self._sealed += data[: CLOSE_NOTIFY_BYTES + 1]
        if len(self._sealed) > CLOSE_NOTIFY_BYTES and self._sealed[0] != ALERT:
            self.missed()

    @property
    def is_full(self) -> bool:
        return self.count >= MAX_KEPT_BYTES

    def missed(self) -> None:
        """Note that the client has sent more than was heard."""
        self._entry.unread = self._entry.unread or PAST


def passing(entry: TcpConnection, account: Account) -> Heard | None:
    """What looks at the bytes of a client that are passed on: for secrets, and for what its ClientHello offers."""
    search = searching(entry, account)
    if entry.tls is not None:  # terminated here
        return search
    offered = Offered(entry)

    def heard(data: bytes | memoryview) -> None:
        if search is not None:
            search(data)
        offered.heard(data)

    return heard


class Offered:
    """Reads the ClientHello of a connection that is passed on, if it has one; TLS is not terminated here.

    It begins the connection, or follows what asks for TLS in mid-connection.
    """

    def __init__(self, entry: TcpConnection) -> None:
        self._entry = entry
        self._begun = b""
        self._reads = HELLO_READS

    def heard(self, data: bytes | memoryview) -> None:
        if not self._reads:
            return
        self._reads -= 1
        self._begun += bytes(data[:MAX_HELLO_BYTES])
        start = hello_at(self._begun)
        if start is None:
            if len(self._begun) > MAX_ASKED_BYTES:
                self._end()
            return
        try:
            if bytes_needed(self._begun[start:]):
                return
            hello = parse_client_hello(self._begun[start:])
        except ClientHelloError:
            hello = None
        if hello is not None:
            self._entry.offers = Offers(newest_version(hello), library_of(hello))
            self._entry._is_in_clear_first = not asks_alone(self._begun[:start])
        self._end()

    def _end(self) -> None:
        self._reads, self._begun = 0, b""


HELLO: Final = re.compile(rb"\x16\x03[\0-\x04].{2}\x01", re.DOTALL)
HELLO_READS: Final = 64  # for one that comes in pieces: each looks at all that has come


def hello_at(data: bytes) -> int | None:
    """Where a ClientHello begins; None for nowhere."""
    found = HELLO.search(data, 0, MAX_ASKED_BYTES + HELLO_HEAD_BYTES)
    return None if found is None else found.start()


HELLO_HEAD_BYTES: Final = 6  # of its record, and its type


def keep_within(entry: TcpConnection, account: Account, data: bytes | memoryview) -> None:
    """Keep bytes of a client in its entry, as far as there is room."""
    kept = bytes(data[: max(MAX_KEPT_BYTES - len(entry.kept), 0)])
    if not kept:
        return
    # A half is left to what has to be kept: less of this fails no test.
    if account.held > MAX_HELD_BYTES // 2 or not account.has_room(len(kept), RAW):
        kept = b""
    entry.kept += kept


# The methods by which a handler reads.

FLAGS_AT: Final = {
    "recv": 1,
    "recvfrom": 1,
    "recv_into": 2,
    "recvfrom_into": 2,
    "recvmsg": 2,
    "recvmsg_into": 2,
}
"""Where the flags are among the arguments of a method."""

SOURCES: Final = (frozenset(FLAGS_AT), frozenset({"read"}))
"""The methods that read by themselves: of a socket of TCP, and of one of TLS, whose others read by that."""


WRITERS: Final = (frozenset({"send", "sendall", "sendmsg", "sendto"}), frozenset({"send", "write"}))
"""The methods that write by themselves, likewise."""


def read_by(
    name: str, result: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Iterator[bytes | memoryview]:
    """The bytes that a call has read: its result, or the beginning of its buffers; none where it has peeked."""
    at = FLAGS_AT.get(name)
    flags = arguments[at] if at is not None and at < len(arguments) else named.get("flags", 0)
    if flags & socket.MSG_PEEK:
        return
    got = result[0] if type(result) is tuple else result
    if not isinstance(got, int):
        yield got
        return
    values = [each for each in (*arguments, *named.values()) if each is not None]
    given = next(each for each in values if not isinstance(each, int))
    yield from beginning(given, got)


def written_by(
    result: int | None, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Iterator[memoryview]:
    """The bytes that a call has written: the beginning of its first argument, or of its buffers; all for None."""
    yield from beginning(next(iter((*arguments, *named.values()))), result)


def beginning(given: Any, size: int | None) -> Iterator[memoryview]:
    """The first bytes of a buffer, or of several; all for None."""
    for buffer in given if isinstance(given, (list, tuple)) else [given]:
        view = memoryview(buffer).cast("B")[:size]
        size = None if size is None else size - len(view)
        yield view
