"""`QuicSocket`: what a connection of QUIC reads and sends its datagrams by, as one of TCP does its bytes.

It is one end of a pair of sockets, so that a poller waits for it. The pair carries a byte for each datagram that comes;
the datagrams themselves wait in memory. As on any way of UDP, one that finds no room is lost, and its client sends its
content again.

Threads: the gateway's reader delivers. The connection's thread receives, and any thread sends under the wire's lock.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any, Final, Protocol

from pytest_egress.base.sockets import READ_BYTES, Socket, pair
from pytest_egress.traffic.datagrams import SentDatagram, answer
from pytest_egress.traffic.tls.quic import LENGTH_BYTES, NOTHING

MAX_WAITING: Final = 4096  # datagrams of a connection that nobody has read


class Deliverer(Protocol):
    """The part of `QuicEndpoint` that a single connection needs."""

    def send(self, frame: bytes) -> None: ...

    def give_id(self, sock: QuicSocket, identifier: bytes, is_given: bool) -> None: ...

    def forget(self, sock: QuicSocket) -> None: ...


class QuicSocket(Socket):
    """The socket of one connection.

    Args:
        sent: The datagram that begins it.
        first_id: The connection ID in that datagram.
    """

    def __init__(self, sent: SentDatagram, first_id: bytes, endpoint: Deliverer) -> None:
        own, self._other = pair()
        super().__init__(fileno=own.detach())
        self.first_id, self.sent, self._endpoint = first_id, sent, endpoint
        self._other.setblocking(False)
        self._waiting: deque[bytes] = deque()

    def deliver(self, sent: SentDatagram) -> None:
        """The client gets its answers where it was last."""
        self.sent = sent
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(sent.content)
        with contextlib.suppress(OSError):  # as many bytes wait as fit: it is awake
            self._other.send(b"\0")

    def recv(self, size: int, flags: int = 0) -> bytes:
        """All datagrams that have come, each behind its length; b"" at the end of the connection."""
        if not super().recv(READ_BYTES, flags):
            return b""
        framed = []
        while self._waiting:
            datagram = self._waiting.popleft()
            framed += [len(datagram).to_bytes(LENGTH_BYTES, "big"), datagram]
        return b"".join(framed) or NOTHING

    def send(self, data: Any, flags: int = 0) -> int:
        """Send each datagram that is whole in some bytes; return how many bytes those are."""
        at, data = 0, bytes(data)
        while at + LENGTH_BYTES <= len(data):
            end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            if end > len(data):
                break
            self._endpoint.send(answer(self.sent, data[at + LENGTH_BYTES : end]))
            at = end
        return at

    def give_id(self, identifier: bytes, is_given: bool) -> None:
        """Let the client use a connection ID from now on, or no longer."""
        self._endpoint.give_id(self, identifier, is_given)

    def close(self) -> None:
        self._endpoint.forget(self)
        self._other.close()
        super().close()
