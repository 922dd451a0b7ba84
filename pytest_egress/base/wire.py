"""`Wire`: a socket on which one thread receives while others send, and the bytes that wait to be sent on it.

The rules: no two threads are ever inside one `ssl.SSLSocket`, which they would corrupt (cpython#137583), and no thread
waits inside it. The socket does not block, and `Wire.lock` guards it, with whatever state of a protocol goes with it.
Whoever has to wait polls the descriptor while the lock is released.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import Final

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import BLOCKED, READ_BYTES, await_ready, shut, wanted

MAX_UNSENT: Final = 1 << 20  # bytes that a peer does not read: then nothing of it shall be read


class Wire:
    """A socket that does not block. Every method but `close` and `shut` is called while `lock` is held.

    Args:
        sock: Connected; TLS or plain.

    Attributes:
        changed: What threads wait on for a change that another thread makes under the lock.
        error: Why nothing can be sent any more; None while that is not so.
        is_closed: Whether `close` has been called.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.error: OSError | None = None
        self.is_closed = False
        self._sock = sock
        self._unsent = bytearray()
        self._blocked_by: int = select.POLLOUT  # what sending waits for
        self._polling = 0

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be sent that nothing may be read."""
        return len(self._unsent) > MAX_UNSENT

    def receive(self, timeout: float | None = None) -> bytes | None:
        """Wait for the next bytes, and send meanwhile what waits to be sent.

        Returns:
            b"" at the end, and after `close`; None where nothing came in time.

        Raises:
            OSError: The connection broke off.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self.is_closed:
            try:
                return self._sock.recv(READ_BYTES)
            except BLOCKED as blocked:
                events = wanted(blocked, select.POLLIN)
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return None
            self._poll(events, left)
            self._flush()
        return b""

    def queue(self, data: bytes) -> None:
        """Send as much as goes out without waiting; `receive` and `drain` send the rest."""
        if self.error is None:
            self._unsent += data
            self._flush()

    def drain(self) -> bool:
        """Wait until all bytes are sent; False where the peer takes no more: what it has sent can still be read."""
        while self._unsent:
            self._poll(0, None)
            self._flush()
        return self.error is None

    def _flush(self) -> None:
        try:
            while self._unsent:  # OpenSSL wants the same bytes again where it could not send them
                del self._unsent[: self._sock.send(self._unsent[:READ_BYTES])]
        except BLOCKED as blocked:
            self._blocked_by = wanted(blocked, select.POLLOUT)
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> None:
        self.error = self.error or error
        self._unsent.clear()

    def _poll(self, events: int, seconds: float | None) -> None:
        """Wait for an event, or until waiting bytes can be sent, while the lock is released."""
        if self._unsent:
            events |= self._blocked_by
        self._polling += 1
        self.lock.release()
        try:
            await_ready(self._sock, events, seconds)
        finally:
            self.lock.acquire()
            self._polling -= 1
            self.changed.notify_all()

    def shut(self) -> None:
        """Shut the socket down both ways: the thread that receives comes to the end."""
        shut(self._sock)

    def close(self) -> None:
        """Close the socket, once no thread waits for it; calling it again does nothing."""
        with self.lock:
            self.is_closed = True
            self._refuse(ConnectionAbortedError("the connection is closed"))
            self.shut()  # wakes the threads that poll
            while self._polling:  # its descriptor must not be another's while one of them polls it
                self.changed.wait()
            self._sock.close()
