"""Sockets of our own, whatever a test may not open: pytest-socket replaces `socket.socket`, or its `connect`.

What it forbids is the test's: a container's connection to us is none of it, nor is our way into a container.
"""

from __future__ import annotations

import _socket
import contextlib
import resource
import secrets
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Real = socket.socket
else:
    Real = next(each for each in socket.socket.__mro__ if each.__module__ == "socket")


class Socket(Real):
    """As `socket.socket` is where nobody has replaced it."""

    def accept(self) -> tuple[Socket, Any]:
        """The next connection, blocking, and the address of its other end."""
        descriptor, peer = self._accept()  # type: ignore[attr-defined]  # typeshed has none
        return Socket(fileno=descriptor), peer

    def connect(self, address: Any) -> None:
        """Connect."""
        _socket.socket.connect(self, address)


def pair(kind: int = socket.SOCK_STREAM) -> tuple[Socket, Socket]:
    """Two unix sockets that are connected."""
    one, other = _socket.socketpair(socket.AF_UNIX, kind)
    return Socket(fileno=one.detach()), Socket(fileno=other.detach())


def listener(backlog: int) -> Socket:
    """A listener at a port of 127.0.0.1 that is free."""
    sock = Socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", 0))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def receive_timeout(sock: socket.socket, seconds: float) -> None:
    """Bound blocking reads in the kernel (SO_RCVTIMEO, socket(7)): unlike `settimeout` it leaves MSG_WAITALL to work.

    Args:
        seconds: 0 for no bound.
    """
    whole = int(seconds)
    value = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def shut(sock: socket.socket) -> None:
    """Wake whoever blocks on it; not by `SSLSocket.shutdown`, which drops the TLS layer first."""
    with contextlib.suppress(OSError):  # ENOTCONN, and yet it wakes
        Real.shutdown(sock, socket.SHUT_RDWR)


def reset_at_close(sock: socket.socket) -> None:
    """Let the closing of a socket send RST (SO_LINGER, socket(7))."""
    with contextlib.suppress(OSError):  # it has ended
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its other end sees RST."""
    reset_at_close(sock)
    sock.close()


def unguessed_loopback() -> str:
    """An address of this machine's loopback, of which there are 16 million, at random.

    A connection of a stranger's from the same address and port may wait, dead, where ours is awaited.
    """
    return f"127.{'.'.join(str(secrets.randbelow(254) + 1) for _ in range(3))}"


def descriptor_limit() -> int:
    """How many descriptors this process may have (getrlimit(2))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
