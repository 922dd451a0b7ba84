"""`Wire`: the socket of a connection on which many threads send, and one reads.

The rules: no two threads are in one `SSLSocket` at the same time, and nobody sleeps in it. The socket does not block;
`lock` guards it and whatever state of the protocol goes with it; threads wait by `poll`, without the lock. It is an
inner lock: never acquire another one while holding it, but for that of an `Account`, which is the innermost.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final

from pytest_egress.base.clock import SELDOM_SECONDS
from pytest_egress.base.sockets import BLOCKED, READ_BYTES

WRITE_BYTES: Final = 64 * 1024
MAX_UNSENT: Final = 1 << 20  # of a client that does not read; then nothing of it is read either


class Wire:
    """A socket that does not block, and the bytes that wait to be sent on it.

    Args:
        sock: Connected; TLS or plain.

    Attributes:
        lock: Guards all of this.
        error: Why nothing can be sent any more; None while that is not so.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(0)
        self.lock = threading.Lock()
        self._unsent = bytearray()
        self._queued = self._sent = 0
        self.error: OSError | None = None
        self._is_aborted = False
        self._gatherer: int | None = None

    # The caller holds the lock.

    def receive(self) -> bytes | None:
        """The bytes that have come; b"" at the end, None where there are none now."""
        if self._is_aborted:
            return b""
        try:
            return self._sock.recv(READ_BYTES)
        except BLOCKED:
            return None

    def write(self, data: bytes) -> int:
        """Send bytes, as far as that is possible at once.

        Returns:
            The place of the last of them, for `await_sent`.
        """
        if self.error is None:
            self._unsent += data
            self._queued += len(data)
            self.flush()
        return self._queued

    def gather(self, data: bytes) -> bool:
        """Keep the bytes of a whole response until `release`; False where they have to be sent now.

        They are kept on the thread that gathers alone, and as long as they fit into one write.
        """
        if self._gatherer != threading.get_ident() or len(self._unsent) + len(data) > WRITE_BYTES:
            return False
        if self.error is None:
            self._unsent += data
            self._queued += len(data)
        return True

    def begin_to_gather(self) -> None:
        """Gather whole responses that this thread sends, so that one write sends many."""
        self._gatherer = threading.get_ident()

    def release(self) -> int:
        """Gather no more, and send what has been; return the place of its last byte, for `await_sent`."""
        self._gatherer = None
        self.flush()
        return self._queued

    def flush(self) -> None:
        """Send what waits, as far as that is possible at once."""
        unsent = self._unsent
        try:
            while unsent:
                count = self._sock.send(bytes(memoryview(unsent)[:WRITE_BYTES]))
                del unsent[:count]
                self._sent += count
        except BLOCKED:
            pass
        except OSError as error:  # what the client has sent can still be read
            self.error = error
            unsent.clear()

    def close(self) -> None:
        """Send nothing any more."""
        self.error = self.error or ConnectionAbortedError("the connection is closed")
        self._unsent.clear()

    def abort(self) -> None:
        """Send nothing any more, and read nothing either: at an end that it does not expect, OpenSSL sends an alert."""
        self.close()
        self._is_aborted = True

    def hang_up(self) -> None:
        """Close our side: close_notify within TLS, and FIN. What comes can still be read."""
        self.close()
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self._sock.unwrap()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)

    # Nobody holds the lock.

    @property
    def has_unsent(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._unsent)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be sent that nothing may be read."""
        return len(self._unsent) > MAX_UNSENT

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read, and send meanwhile; return whether there is.

        Args:
            seconds: How long to wait. It may return earlier.
        """
        events = 0 if self.is_full else select.POLLIN
        waiting = select.POLLOUT if self._unsent and self._gatherer is None else 0
        came = self._poll(events | waiting, seconds)
        if waiting and came:
            with self.lock:
                self.flush()
        # At the end of a connection POLLHUP and POLLERR come, whatever was asked for.
        return bool(came & ~select.POLLOUT) and not (self.is_full and not came & BROKEN)

    def await_sent(self, place: int, is_over: Callable[[], bool]) -> None:
        """Wait until the bytes up to a place have been sent.

        Args:
            is_over: Whether nobody waits for them any more.
        """
        while self._sent < place and self.error is None and not is_over():
            if self._poll(select.POLLOUT, SELDOM_SECONDS):
                with self.lock:
                    self.flush()

    def _poll(self, events: int, seconds: float) -> int:
        poller = select.poll()
        with contextlib.suppress(ValueError):  # closed meanwhile
            poller.register(self._sock, events)
        return next((came for _, came in poller.poll(seconds * 1000)), 0)


BROKEN: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL
"""The events of a descriptor that has ended."""
