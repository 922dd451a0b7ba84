"""`QuicEndpoint`: to which connection of QUIC a datagram belongs, by the connection ID in it (RFC 9000 section 5.2).

The client chooses the first ID, and its connection gives it others. What comes for a connection that is over is
dropped: an acknowledgement, or a packet that its client has sent again.

Threads: the gateway's reader calls `take` and `begin`; each connection's thread gives IDs, and forgets its own. Each
step is one operation of a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pytest_egress.gateway.http3.sockets import QuicSocket
from pytest_egress.traffic.datagrams import SentDatagram
from pytest_egress.traffic.tls.quic import begins_quic, destination_of

MAX_ENDED: Final = 4096
"""Connection IDs that are known as those of a connection that is over: of an older one a datagram is unrouted."""


class QuicEndpoint:
    """The connections of QUIC of one target.

    Args:
        send: Sends a frame to the target.
        begin: Serves a connection; False where there is no room for one now.
    """

    def __init__(
        self, send: Callable[[bytes], None], begin: Callable[[QuicSocket, SentDatagram], bool]
    ) -> None:
        self.send, self._begin = send, begin
        self._sockets: dict[bytes, QuicSocket] = {}
        self._ended: dict[bytes, None] = {}

    def take(self, sent: SentDatagram) -> bool:
        """Deliver a datagram of a connection that has begun; False where it is of none."""
        if not self._sockets and not self._ended:  # as a rule
            return False
        destination = destination_of(sent.content)
        if (sock := self._sockets.get(destination)) is not None:
            sock.deliver(sent)
            return True
        return destination in self._ended

    def begin(self, sent: SentDatagram) -> bool:
        """Begin a connection; False where a datagram begins none. Without room, its client sends it again."""
        if not begins_quic(sent.content, len(sent.content)):
            return False
        first_id = destination_of(sent.content)
        sock = QuicSocket(sent, first_id, self)
        sock.deliver(sent)
        self._sockets[first_id] = sock
        if not self._begin(sock, sent):
            del self._sockets[first_id]  # first: what is forgotten counts as ended
            sock.close()
        return True

    def give_id(self, sock: QuicSocket, identifier: bytes, is_given: bool) -> None:
        if is_given:
            self._sockets[identifier] = sock
        else:
            self._end(identifier)

    def forget(self, sock: QuicSocket) -> None:
        """A connection is over."""
        for identifier in [each for each, known in [*self._sockets.items()] if known is sock]:
            self._end(identifier)

    def _end(self, identifier: bytes) -> None:
        self._ended[identifier] = None
        self._sockets.pop(identifier, None)
        if len(self._ended) > MAX_ENDED:
            self._ended.pop(next(iter(self._ended)), None)
