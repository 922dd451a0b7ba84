"""`Http2Wire`: the socket of a connection on which many threads send, and one reads.

The rule: `Wire.lock` is an inner lock. Never acquire another one while holding it, but for that of an `Account`, which
is the innermost.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Final

from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.base.wire import Wire

BROKEN: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL
"""The events of a descriptor that has ended."""


class Http2Wire(Wire):
    """A `Wire` that can send many responses in one write. Every method but `wait` is called while `lock` is held."""

    _gatherer: int | None = None

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def begin_to_gather(self) -> None:
        """Gather whole responses that this thread sends, so that one write sends many."""
        self._gatherer = threading.get_ident()

    def gather(self, data: bytes) -> bool:
        """Keep the bytes of a whole response until `release`; False where they have to be sent now.

        They are kept on the thread that gathers alone, and as long as they fit into one write.
        """
        if self._gatherer != threading.get_ident() or len(self._unsent) + len(data) > READ_BYTES:
            return False
        if self.error is None:
            self._unsent += data
            self._queued += len(data)
        return True

    def release(self) -> int:
        """Gather no more, and send what has been; return the place of its last byte, for `drain`."""
        self._gatherer = None
        self.flush()
        return self._queued

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read, or less long, and send meanwhile; return whether there is."""
        with self.lock:
            came = self._poll(0 if self.is_full else select.POLLIN, seconds)
            # At the end of a connection POLLHUP and POLLERR come, whatever was asked for.
            return bool(came & (BROKEN if self.is_full else BROKEN | select.POLLIN))

    def hang_up(self) -> None:
        """Close our side: close_notify within TLS, and FIN. What comes can still be read."""
        self.flush()
        self._refuse(ConnectionAbortedError("the connection is closed"))
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._sock.unwrap()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)
