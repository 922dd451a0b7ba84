"""The sockets of this process that stand for those of a target's namespace, on the stream link.

Their readers get the same as from the descriptor link's: connections with the address that was dialled, and datagrams
with the client that sent them. This module starts no thread; the link's thread writes, and the gateway's read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

import pytest_egress.base.sockets as sockets
from pytest_egress.agent.flows import LENGTH, NOBODY
from pytest_egress.agent.stream import CLIENT
from pytest_egress.base.polling import has_ended
from pytest_egress.base.sockets import Socket

MOST_WAITING: Final = 4 << 20  # bytes of a channel that wait for its reader
MAX_WAITING_DATAGRAMS: Final = 64 << 20
"""The bytes of datagrams that may wait for their reader: as many as in the kernel, for the other link."""

SEND_SECONDS: Final = 5.0  # for the link to take a datagram for a port of the target

_ETHERNET_BYTES: Final = 14

Fate = Literal["heard", "doubtful", "unheard"]
"""Whether bytes sent to a client arrived: some did; none had when the client closed its side; none ever did."""


class AcceptedSocket(Socket):
    """An accepted connection of the target.

    Attributes:
        dialled: Address and port that the client dialled; None for the sidecar's listener itself; or a text that says
            why they are not known.
        is_direct: Whether it is the socket that leads to the sidecar. It has carried bytes of the link itself.
        direct_fate: Where it is, what `fate` is.
    """

    dialled: tuple[str, int] | str | None = None
    other: Dialled | None = None
    is_direct = False
    direct_fate: Fate = "heard"

    @property
    def fate(self) -> Fate:
        """Read it when the client has ended the connection."""
        return self.direct_fate if self.other is None else self.other.fate

    @property
    def came(self) -> int:
        """How many bytes of the client the link has passed on; where the kernel counts them itself, 0."""
        return 0 if self.other is None else self.other.came


class Dialled(Socket):
    """The link's end of a connection of the target."""

    fate: Fate = "heard"
    came = 0

    if not hasattr(socket, "TCP_INFO"):  # macOS has no counters of what was reset

        def send(self, data: Any, flags: int = 0, /) -> int:
            sent = super().send(data, flags)
            self.came += sent
            return sent


class FlowSocket(Socket):
    """Datagrams to a port of the target, each with its length before it on a connection that does not block."""

    _begun = b""

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Where the link takes only a part of it in `SEND_SECONDS`, the flow ends."""
        left = memoryview(LENGTH.pack(len(data)) + data)
        while left:
            try:
                left = left[super().send(left, flags) :]
            except BlockingIOError:
                if not sockets.await_ready(self, select.POLLOUT, SEND_SECONDS):
                    sockets.shut(self)
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        return len(data)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """It reads no byte of the next datagram, so that a poller still has that to tell of."""
        self._read_to(LENGTH.size)
        (length,) = LENGTH.unpack_from(self._begun)
        if length == NOBODY:
            self._begun = b""
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        self._read_to(LENGTH.size + length)
        content, self._begun = self._begun[LENGTH.size :], b""
        return content[:size]

    def _read_to(self, size: int) -> None:
        while (missing := size - len(self._begun)) > 0:
            try:
                data = super().recv(missing)
            except ConnectionResetError:
                data = b""
            if not data:
                raise BrokenPipeError(errno.EPIPE, "its link has ended")
            self._begun += data


class Queue(Socket):
    """What the link's thread puts and another one takes, in order. As a socket it can be read while there is something.

    The items stay in this process; the socket's other end sends one byte for all that wait. Datagrams of unix sockets
    would not do: those of macOS have 2 kB, and a full socket does not tell there when it has room again.
    """

    def __init__(self, protocol: int = 0) -> None:
        reader, self._bell = sockets.pair()
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM, protocol, fileno=reader.detach())
        self._lock = threading.Lock()
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> bool:
        """Append an item; False where the queue is closed, or shut while it was empty."""
        with self._lock, contextlib.suppress(OSError):
            if not self._items:
                self._bell.send(b"!")
            self._items.append(item)
            return True
        return False

    def take(self, flags: int = 0) -> Any:
        """Wait for the next item, as `recv` would wait: BlockingIOError or TimeoutError where there is none.

        OSError with EINVAL says that the queue is shut, as a listener would.
        """
        while True:
            with self._lock:
                if self._items:
                    item = self._items.popleft()
                    if not self._items:
                        super().recv(1, socket.MSG_DONTWAIT)
                    return item
            if not super().recv(1, flags | socket.MSG_PEEK):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def close(self) -> None:
        """No other thread may put anything any more."""
        super().close()
        self._bell.close()


class Listener(Queue):
    """Where connections of the target are accepted. Each is a pair of its own, so that nobody else can connect.

    Args:
        most: How many may wait to be accepted. One that has been reset still waits, and has a descriptor.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def dial(self, dialled: tuple[str, int] | str | None, client: tuple[str, int]) -> Dialled:
        """Connect for a client of the target, whose address is the one inside it; `accept` returns the other end.

        OSError where too many wait, or no descriptor is left, or the listener is shut.
        """
        if len(self._items) >= self._most:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        one, other = loopback_pair()
        end, sock = Dialled(fileno=one.detach()), AcceptedSocket(fileno=other.detach())
        sock.dialled, sock.other = dialled, end
        if not self.put((sock, client)):
            end.close()
            sock.close()
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return end

    def take_in(self, sock: AcceptedSocket, client: tuple[str, int]) -> bool:
        """Have `accept` return a connection that leads to the sidecar itself; False as `dial` raises OSError."""
        return len(self._items) < self._most and self.put((sock, client))

    def accept(self) -> tuple[AcceptedSocket, tuple[str, int]]:
        """The address is that of the client inside the target; OSError where no connection is there."""
        accepted: tuple[AcceptedSocket, tuple[str, int]] = self.take()
        return accepted

    def close(self) -> None:
        """Connections that nobody has accepted are closed too."""
        super().close()
        while self._items:
            self._items.popleft()[0].close()


class Mailbox(Queue):
    """The datagrams of a channel, which are dropped where more than `most` bytes wait.

    Args:
        lost: Called for each that is dropped; by default `tell_of_loss`.
    """

    def __init__(
        self,
        protocol: int = 0,
        lost: Callable[[], None] | None = None,
        most: int = MOST_WAITING,
    ) -> None:
        super().__init__(protocol)
        self._lost, self._most = lost or self.tell_of_loss, most
        self._waiting = 0  # bytes
        self.lost_here = 0

    def put(self, item: bytes) -> bool:
        with self._lock:
            has_room = self._waiting + len(item) <= self._most
            self._waiting += len(item) if has_room else 0
        if has_room:
            return super().put(item)
        self.lost_here += 1
        self._lost()
        return False

    def tell_of_loss(self) -> None:
        """Put an empty datagram, which tells the reader that some were lost, unless the queue ends with one."""
        with self._lock:
            is_told = bool(self._items) and self._items[-1] == b""
        if not is_told:
            self.put(b"")

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data: bytes = self.take(flags)
        with self._lock:
            self._waiting -= len(data)
        return data[:size]


class NameMailbox(Mailbox):
    """The target's DNS queries. Each message begins with its client, an opaque value; `answer` sends such a message."""

    answer: Callable[[bytes], None]

    def recvfrom(self, size: int, flags: int = 0, /) -> tuple[bytes, Any]:
        data = self.recv(size + CLIENT.size, flags)
        return data[CLIENT.size :], data[: CLIENT.size]

    def sendto(self, data: Any, client: Any, /) -> int:  # type: ignore[override]  # only this form
        self.answer(client + data)
        return len(data)


class FrameMailbox(Mailbox):
    """The target's datagrams: what is received and sent has an Ethernet header, which the link leaves out."""

    answer: Callable[[bytes], None]

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        packet = super().recv(size, flags)
        return bytes(12) + (b"\x08\x00" if packet[:1] < b"\x50" else b"\x86\xdd") + packet

    def send(self, frame: Any, flags: int = 0, /) -> int:
        self.answer(frame[_ETHERNET_BYTES:])
        return len(frame)


def any_loopback() -> str:
    """One of the 16 million loopback addresses of Linux, or the one of macOS.

    The port of a connection is taken for a minute after its end (TIME_WAIT), at its address alone. At a single address,
    a connection costs 6 ms as soon as there were 15,000 in a minute: the kernel looks for a free port.
    """
    if sys.platform != "linux":
        return "127.0.0.1"
    return f"127.{'.'.join(str(secrets.randbelow(254) + 1) for _ in range(3))}"


def loopback_pair() -> tuple[Socket, Socket]:
    """The two ends of a TCP connection over loopback, both blocking.

    Another process may connect to the listener too. Of two connections with the same addresses one has ended.
    """
    with sockets.listener(backlog=8, address=(any_loopback(), 0)) as listener:
        one = Socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            for sock in (listener, one):
                sock.setblocking(True)  # whatever default a test has set
            one.connect(listener.getsockname())
            while True:
                other, peer = listener.accept()
                if peer == one.getsockname() and not has_ended(other):
                    break
                other.close()
        except BaseException:
            one.close()
            raise
    for sock in (one, other):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one, other
