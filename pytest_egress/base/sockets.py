"""Sockets that this package may open where a test may not: pytest-socket replaces `socket.socket`, or its `connect`.

Such a ban is for the test's own code. It must stop neither the connections of a container nor those into one.
"""

from __future__ import annotations

import _socket
import contextlib
import resource
import select
import socket
import ssl
import struct
import sys
from math import inf
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    Real = socket.socket
else:
    Real = next(each for each in socket.socket.__mro__ if each.__module__ == "socket")

READ_BYTES: Final = 64 * 1024  # that are read at once

BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket that does not block raises where it would."""


class Socket(Real):
    """The original `socket.socket`, for where a plugin has replaced that."""

    def accept(self) -> tuple[Socket, Any]:
        """The socket of the connection is blocking."""
        descriptor, peer = self._accept()  # type: ignore[attr-defined]  # typeshed has none
        return Socket(self.family, self.type, self.proto, fileno=descriptor), peer  # not asked for

    def connect(self, address: Any) -> None:
        """The `connect` of Python's class may be a plugin's."""
        _socket.socket.connect(self, address)


def pair(kind: int = socket.SOCK_STREAM) -> tuple[Socket, Socket]:
    one, other = _socket.socketpair(socket.AF_UNIX, kind)
    return Socket(fileno=one.detach()), Socket(fileno=other.detach())


def listener(backlog: int, address: tuple[str, int] = ("127.0.0.1", 0)) -> Socket:
    """A TCP listener, by default on a free port of 127.0.0.1; OSError where the address is taken."""
    sock = Socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if address[1]:  # connections of an earlier listener may still be in TIME_WAIT
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Its connections inherit this: else one in TIME_WAIT keeps a later listener from this port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Blocking reads end by SO_RCVTIMEO (socket(7)), 0 for no bound; MSG_WAITALL does not work with `settimeout`."""
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send all of some bytes, as `sendall` does: that of `ssl` takes twice as long where one write is enough.

    It also waits for a socket that does not block, for as long as its peer takes.
    """
    left: bytes | memoryview = data
    while True:
        try:
            sent = sock.send(left)
        except BLOCKED as blocked:  # OpenSSL wants the same bytes again
            await_ready(sock, wanted(blocked, select.POLLOUT))
            continue
        if sent == len(left):
            return
        left = memoryview(left)[sent:]


def wanted(blocked: Exception, otherwise: int) -> int:
    """An event of poll(2): TLS may have to write before it can read, and conversely."""
    if isinstance(blocked, ssl.SSLWantReadError):
        return int(select.POLLIN)
    if isinstance(blocked, ssl.SSLWantWriteError):
        return int(select.POLLOUT)
    return int(otherwise)


def await_ready(sock: socket.socket, events: int, seconds: float = inf) -> int:
    """Return the events of poll(2) that have happened, 0 for none.

    Of a closed socket it is POLLNVAL: the next call of it says that.
    """
    poller = select.poll()
    try:
        poller.register(sock, events)
    except ValueError:
        return select.POLLNVAL
    ready = poller.poll(None if seconds == inf else seconds * 1000)
    return next((came for _, came in ready), 0)


def has_closed_both_ways(sock: socket.socket) -> bool:
    """Whether the other end of a TCP connection, which has sent FIN, has closed its socket or its sending side alone.

    Only its kernel knows. A byte of urgent data is sent to it (MSG_OOB, tcp(7)): it is no part of the stream, and a
    program that goes on to read never sees it, but with SO_OOBINLINE. For a closed socket the kernel answers it by RST
    (RFC 1122 section 4.2.2.13), on one machine before `send` returns as a rule; a later look sees one that comes later.
    Call it once: of two such bytes that nobody has read, the first becomes a part of the stream.
    """
    try:
        Real.send(sock, b"\0", socket.MSG_OOB | socket.MSG_DONTWAIT)
    except BlockingIOError:  # it has not read what was sent before
        return False
    except OSError:
        return True
    return bool(await_ready(sock, 0, 0))


def shut(sock: socket.socket) -> None:
    """The shutdown wakes a thread that blocks on the socket. `SSLSocket.shutdown` would drop the TLS layer first."""
    with contextlib.suppress(OSError):  # ENOTCONN of a listener, whose thread wakes all the same
        Real.shutdown(sock, socket.SHUT_RDWR)


def reset_at_close(sock: socket.socket) -> None:
    """Make a later `close` of a TCP socket send RST (SO_LINGER, socket(7))."""
    with contextlib.suppress(OSError):  # the connection has ended
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(sock: socket.socket) -> None:
    reset_at_close(sock)
    sock.close()


def descriptor_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
