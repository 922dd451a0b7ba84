"""Connections of this process to a sidecar, by a relay: the target's bytes go over them, and not through the engine.

The rule: one thread calls everything here, and nothing waits. Some connections are kept in stock, since the relay
passes each to the sidecar before the target needs it. When the sidecar's agent has joined one with a connection of the
target, it sends its number and purpose on it; from then on the socket is the gateway's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final, NamedTuple

from pytest_egress.agent.direct import HEAD, NUMBER
from pytest_egress.agent.pump import READABLE, WRITABLE, Interests
from pytest_egress.link.stream_sockets import AcceptedSocket

STOCK: Final = 8
"""How many connections wait for the target. Each costs a round trip to be replaced, and two descriptors."""

MOST_FAILURES: Final = 2 * STOCK
"""How many connections in a row may fail; then the next ones go by the engine's stream, until `Stock.try_again`."""

# A relay that goes with its machine or its network ends no connection: the kernel finds that out within 20 s.
KEEPALIVE: Final = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class DirectWay(NamedTuple):
    """A way to one sidecar by a relay.

    Attributes:
        address: Where this process connects to the relay.
        words: What each connection begins with: the secret of the relay, and the key of the sidecar. A number follows.
        ended: The relay's standard streams, at end of file when it has ended; the link neither reads nor closes them.
    """

    address: tuple[str, int]
    words: bytes
    ended: socket.socket


class Waiting:
    """A connection in stock.

    Attributes:
        head: What has come of `agent.direct.HEAD` and the purpose.
        number: By which the agent knows it; 0 before it is connected.
    """

    def __init__(self, sock: AcceptedSocket) -> None:
        self.sock, self.head, self.number = sock, b"", 0


class Stock:
    """The connections that wait, and those that are being made.

    Args:
        joined: Called with the socket, the number and the purpose of each that has been joined. The socket is blocking.

    Attributes:
        broken: The numbers of those that have broken off: the agent may have joined them. One that ended in order had
            not been joined, since the head would have come before its end.
    """

    def __init__(
        self,
        way: DirectWay,
        interests: Interests,
        joined: Callable[[AcceptedSocket, int, bytes], None],
    ) -> None:
        self._way, self._interests, self._joined = way, interests, joined
        self._waiting: dict[int, Waiting] = {}
        self._failures = self._numbers = 0
        self.broken: list[int] = []

    def fill(self) -> None:
        while len(self._waiting) < STOCK and self._failures < MOST_FAILURES:
            self._dial()

    def try_again(self) -> None:
        """Call it now and then: what ended connections in stock may be over, such as a flood of a stranger's."""
        if self._failures >= MOST_FAILURES:
            self._failures = 0
            self.fill()

    def ready(self, descriptor: int, events: int) -> bool:
        """False where the descriptor is none of these."""
        found = self._waiting.get(descriptor)
        if found is None:
            return False
        try:
            if found.number:
                self._read(found)
            else:
                self._greet(found)
        except BlockingIOError:
            pass
        except OSError:
            if found.number:
                self.broken.append(found.number)
            self._drop(found)
        self.fill()
        return True

    def close(self) -> None:
        for found in self._waiting.values():
            found.sock.close()
        self._waiting.clear()

    def _dial(self) -> None:
        try:
            sock = AcceptedSocket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # no descriptor is free
            self._failures += 1
            return
        sock.is_direct = True
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        found = self._waiting[sock.fileno()] = Waiting(sock)
        try:
            sock.connect(self._way.address)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(found)
            return
        self._interests.want(sock.fileno(), WRITABLE)

    def _greet(self, found: Waiting) -> None:
        number = found.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        self._numbers += 1
        found.sock.send(self._way.words + NUMBER.pack(self._numbers))  # it has room for that
        found.number = self._numbers
        self._interests.want(found.sock.fileno(), READABLE)

    def _read(self, found: Waiting) -> None:
        """Read nothing behind the purpose: the gateway does."""
        size = HEAD.size
        if len(found.head) >= size:
            size += HEAD.unpack_from(found.head)[1]
        data = found.sock.recv(size - len(found.head))
        if not data:
            self._drop(found)
            return
        found.head += data
        if len(found.head) < HEAD.size:
            return
        number, length = HEAD.unpack_from(found.head)
        if len(found.head) < HEAD.size + length:
            self._read(found)  # which a new event would do too, later
            return
        self._forget(found)
        self._failures = 0
        found.sock.setblocking(True)
        self._joined(found.sock, number, found.head[HEAD.size :])

    def _drop(self, found: Waiting) -> None:
        self._forget(found)
        found.sock.close()
        self._failures += 1

    def _forget(self, found: Waiting) -> None:
        self._interests.want(found.sock.fileno(), 0)
        del self._waiting[found.sock.fileno()]
