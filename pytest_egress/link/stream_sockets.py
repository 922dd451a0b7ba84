"""The sockets of this process that stand for those of a target's namespace, on the stream link.

Their readers get the same as from the descriptor link's: connections with the address that was dialled, and datagrams
with the client that sent them. This module starts no thread; the link's thread writes, and the gateway's read.
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
from pytest_egress.agent.capture import BACKLOG
from pytest_egress.agent.pump import READABLE, WRITABLE, Interests
from pytest_egress.agent.stream import CLIENT
from pytest_egress.base.sockets import Socket

_MAX_WAITING: Final = 4 << 20  # bytes of a channel that wait for its reader
MAX_WAITING_DATAGRAMS: Final = 64 << 20
"""The bytes of datagrams that may wait for their reader: as many as in the kernel, for the other link."""

_ETHERNET_BYTES: Final = 14

Fate = Literal["heard", "doubtful", "unheard"]
"""Whether bytes sent to a client arrived: some did; none had when the client closed its side; none ever did."""


class AcceptedSocket(Socket):
    """An accepted connection of the target.

    Attributes:
        dialled: Address and port that the client dialled; None for the sidecar's listener itself; or a text that says
            why they are not known.
    """

    dialled: tuple[str, int] | str | None = None
    other: Dialled | None = None

    @property
    def fate(self) -> Fate:
        """Read it when the client has ended the connection."""
        return "heard" if self.other is None else self.other.fate


class Listener(Socket):
    """The listener at which connections of the target are accepted. Connections of other processes are closed at once.

    The port is on this machine's loopback, so any process may connect. The link's own connections come from a random
    loopback address, and are recognised by that and their port: no other socket can have both while one is open.
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
        """Connect for a client of the target, whose address is the one inside it; `accept` returns the other end."""
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

    def accept(self) -> tuple[AcceptedSocket, tuple[str, int]]:
        """The address is that of the client inside the target; OSError where no connection of the target's is there."""
        descriptor, peer = self._accept()  # type: ignore[attr-defined]  # typeshed has none
        sock = AcceptedSocket(fileno=descriptor)
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
    """The link's end of a connection of the target.

    Attributes:
        forget: Called with its address where it is closed before it was connected: the next socket with that address
            is another process's. One that was connected is accepted before any such.
    """

    fate: Fate = "heard"
    forget: Callable[[tuple[str, int], None], object] | None = None

    def close(self) -> None:
        if self.forget is not None and self.fileno() >= 0:
            try:
                self.getpeername()
            except OSError:
                self.forget(self.getsockname(), None)
        super().close()


class NameSocket(Socket):
    """The socket for the target's DNS queries. Each message begins with its client, an opaque value."""

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, Any]:
        data = self.recv(size + CLIENT.size, flags)
        return data[CLIENT.size :], data[: CLIENT.size]

    def sendto(self, data: Any, client: Any, /) -> int:  # type: ignore[override]  # only this form
        return self.send(client + data) - CLIENT.size


class FrameSocket(Socket):
    """The socket for datagrams: what it receives and sends has an Ethernet header, which the link leaves out."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        packet = super().recv(size, flags)
        return bytes(12) + (b"\x08\x00" if packet[:1] < b"\x50" else b"\x86\xdd") + packet

    def send(self, frame: Any, flags: int = 0, /) -> int:
        return super().send(frame[_ETHERNET_BYTES:], flags) + _ETHERNET_BYTES


class Mailbox:
    """A socket pair for the datagrams of a channel, and a queue of those for which the socket has no room yet.

    Args:
        lost: Called for each datagram that the queue has no room for either; by default `tell_of_loss`.

    Attributes:
        most: How many bytes may wait.
    """

    most = _MAX_WAITING

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
        """Queue a datagram for the reader, or a function to call when all datagrams before it have been sent."""
        if isinstance(item, bytes):
            if self._waiting + len(item) > self.most:
                self.lost_here += 1
                self._lost()
                return
            self._waiting += len(item)
        self._queue.append(item)
        self.drain()

    def tell_of_loss(self) -> None:
        """Send an empty datagram, which tells the reader that some were lost, unless the queue ends with one."""
        if not self._queue or self._queue[-1] != b"":
            self.put(b"")

    def drain(self) -> None:
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
                    self._queue.clear()  # the reader is closed
                    self._waiting = 0
                    break
                self._waiting -= len(item)
            self._queue.popleft()
        self._interests.want(self.writer.fileno(), READABLE | (WRITABLE if self._queue else 0))

    def close(self) -> None:
        self.writer.close()


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    with sockets.listener(backlog=8) as listener:
        one = Socket(socket.AF_INET, socket.SOCK_STREAM)
        one.bind((sockets.unguessed_loopback(), 0))
        one.connect(listener.getsockname())
        while True:
            other, peer = listener.accept()
            if peer == one.getsockname():
                break
            other.close()  # of another process
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other
