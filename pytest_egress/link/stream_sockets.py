"""The sockets of this process that stand for those of a target's namespace, on the stream link.

Whoever reads them finds what the descriptor link's own would have: connections with the address that was dialled, and
datagrams with the client that sent them. No thread runs here.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import pytest_egress.base.sockets as sockets
from pytest_egress.agent.pump import READABLE, WRITABLE, Interests
from pytest_egress.agent.stream import CLIENT
from pytest_egress.base.sockets import Socket

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

BACKLOG: Final = 4096
_MAX_WAITING: Final = 4 << 20  # bytes of a channel that its reader is behind


Fate = Literal["heard", "doubtful", "unheard"]
"""Of what was sent to a client: some of it had arrived; none had when the client closed its side; none ever did."""


class Accepted(Socket):
    """A connection of the target.

    Attributes:
        dialled: Address and port; None for the sidecar's listener itself; or why it is not known.
        other: Our end of it.
    """

    dialled: tuple[str, int] | str | None = None
    other: Dialled | None = None

    @property
    def fate(self) -> Fate:
        """What became of what was sent to the client, which has ended the connection."""
        return "heard" if self.other is None else self.other.fate


class Listener(Socket):
    """Where connections of the target are accepted. The port is this machine's: a stranger's are closed unseen.

    Ours come from an address that nobody guesses, and are known by it and their port: as long as it is open, no other
    socket of this machine can have both.
    """

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._expected: dict[
            tuple[str, int], tuple[tuple[str, int] | str | None, tuple[str, int], Dialled]
        ] = {}
        self._lock = threading.Lock()
        self.bind(("127.0.0.1", 0))
        self.listen(BACKLOG)

    def dial(self, dialled: tuple[str, int] | str | None, client: tuple[str, int]) -> socket.socket:
        """Our end of a connection of the target; `accept` gives the other one."""
        sock = Dialled(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((sockets.unguessed_loopback(), 0))
            with self._lock:
                number = sock.connect_ex(self.getsockname())
                if number not in (0, errno.EINPROGRESS):
                    raise OSError(number, os.strerror(number))
                self._expected[sock.getsockname()] = dialled, client, sock
            sock.forget = self._expected.pop
        except BaseException:
            sock.close()
            raise
        return sock

    def accept(self) -> tuple[Accepted, tuple[str, int]]:
        """The next connection, and the address of the client inside the target.

        Raises:
            OSError: There is none.
        """
        descriptor, peer = self._accept()  # type: ignore[attr-defined]  # typeshed has none
        sock = Accepted(fileno=descriptor)
        with self._lock:
            expected = self._expected.pop(peer, None)
        if expected is None:
            sock.close()
            raise ConnectionAbortedError(
                errno.ECONNABORTED, "a connection that is not the target's"
            )
        sock.dialled, client, sock.other = expected
        return sock, client


class Dialled(Socket):
    """Our end of a connection of the target.

    Attributes:
        forget: Called with its address where it is closed before it was connected: whoever has that address next is a
            stranger. One that was connected is accepted before any such.
        fate: Of what was sent to the client.
    """

    fate: Fate = "heard"

    forget: Callable[[tuple[str, int], None], object] | None = None

    def close(self) -> None:
        """Close it."""
        if self.forget is not None and self.fileno() >= 0:
            try:
                self.getpeername()
            except OSError:
                self.forget(self.getsockname(), None)
        super().close()


class NameSocket(Socket):
    """Where the target's DNS queries arrive: each message begins with its client, which is opaque."""

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """A query, and whom to send the answer."""
        data = self.recv(size + CLIENT.size, flags)
        return data[CLIENT.size :], data[: CLIENT.size]

    def sendto(self, data: Any, client: Any, /) -> int:  # type: ignore[override]  # only this form
        """Answer a query."""
        return self.send(client + data) - CLIENT.size


class Mailbox:
    """A socket for datagrams of a channel, and those that it has no room for yet.

    Args:
        reader: What the gateway reads from.
        writer: Its other end.
        interests: Where the writer is waited for.
        lost: Called for each datagram for which there is no room here either; else its reader is told.

    Attributes:
        lost_here: How many those were.
    """

    def __init__(
        self,
        reader: socket.socket,
        writer: socket.socket,
        interests: Interests,
        lost: Callable[[], None] | None = None,
    ) -> None:
        self.reader, self.writer, self._interests = reader, writer, interests
        self._lost = lost or self.tell_of_loss
        self._queue: deque[bytes | Callable[[], None]] = deque()
        self._waiting = 0  # bytes
        self.lost_here = 0
        writer.setblocking(False)
        interests.want(writer.fileno(), READABLE)

    def put(self, item: bytes | Callable[[], None]) -> None:
        """Hand on a datagram, or call what is to be called once all that came before has been handed on."""
        if isinstance(item, bytes):
            if self._waiting + len(item) > _MAX_WAITING:
                self.lost_here += 1
                self._lost()
                return
            self._waiting += len(item)
        self._queue.append(item)
        self.drain()

    def tell_of_loss(self) -> None:
        """Hand on that something was lost, as an empty datagram; once is enough where it waits."""
        if not self._queue or self._queue[-1] != b"":
            self.put(b"")

    def drain(self) -> None:
        """Hand on what there is room for."""
        while self._queue:
            item = self._queue[0]
            if callable(item):
                item()
            else:
                try:
                    self.writer.send(item)
                except BlockingIOError:
                    break
                except OSError:
                    self._queue.clear()  # nobody reads it any more
                    self._waiting = 0
                    break
                self._waiting -= len(item)
            self._queue.popleft()
        self._interests.want(self.writer.fileno(), READABLE | (WRITABLE if self._queue else 0))

    def close(self) -> None:
        """Close our end."""
        self.writer.close()


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with sockets.listener(backlog=8) as listener:
        one = Socket(socket.AF_INET, socket.SOCK_STREAM)
        one.bind((sockets.unguessed_loopback(), 0))
        one.connect(listener.getsockname())
        while True:
            other, peer = listener.accept()
            if peer == one.getsockname():
                break
            other.close()  # a stranger
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other
