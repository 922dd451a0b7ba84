"""`Wire`: a socket on which one thread receives while others send, and the bytes that wait to be sent on it.

The rules: no two threads are ever inside one `ssl.SSLSocket`, which they would corrupt (cpython#137583), and no thread
waits inside it. The socket does not block, and `Wire.lock` guards it, with whatever state of a protocol goes with it.
Whoever has to wait polls the descriptor while the lock is released.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from math import inf
from typing import Final

from pytest_egress.base.clock import SELDOM_SECONDS, monotonic
from pytest_egress.base.sockets import BLOCKED, READ_BYTES, await_ready, shut, wanted

MAX_UNSENT: Final = 1 << 20  # bytes that a peer does not read: then nothing of it shall be read
IsOver = Callable[[], bool]


class Wire:
    """A socket that does not block. Every method but `close` and `shut` is called while `lock` is held.

    Args:
        lock: Guards a protocol's state too; a new one by default.

    Attributes:
        changed: Notified of a change that another thread makes under the lock.
        error: Why nothing can be sent any more; None while that is not so.
    """

    def __init__(
        self, sock: socket.socket, lock: threading.Lock | threading.RLock | None = None
    ) -> None:
        sock.settimeout(0)
        self.lock = lock or threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.error: OSError | None = None
        self.is_closed = False
        self._sock = sock
        self._unsent = bytearray()
        self._queued = 0  # bytes, since the beginning
        self._blocked_by = 0  # the event of poll(2) that sending waits for
        self._polling = 0

    @property
    def is_full(self) -> bool:
        return len(self._unsent) > MAX_UNSENT

    def receive(self, timeout: float | None = None, is_over: IsOver | None = None) -> bytes | None:
        """Wait for the next bytes, and send meanwhile what waits to be sent.

        Args:
            is_over: Whether nobody waits for them any more. It is asked every `SELDOM_SECONDS`.

        Returns:
            b"" at the end, after `close`, and when it is over; None where nothing came in time.

        Raises:
            OSError: The connection broke off.
        """
        deadline = inf if timeout is None else monotonic() + timeout
        while not (self.is_closed or (is_over and is_over())):
            try:
                return self._sock.recv(READ_BYTES)
            except BLOCKED as blocked:
                events = wanted(blocked, select.POLLIN)
            if (left := deadline - monotonic()) <= 0:
                return None
            self._poll(events, min(left, SELDOM_SECONDS) if is_over else left)
        return b""

    def queue(self, data: bytes) -> None:
        """`receive` and `drain` send what does not go out without waiting."""
        if self.error is None:
            self._unsent += data
            self._queued += len(data)
            self.flush()

    def drain(self, is_over: IsOver | None = None, place: int | None = None) -> bool:
        """Wait until all bytes are sent that are queued now, or up to `place`, their number from the beginning.

        Returns:
            Whether they are. What a peer that takes no more has sent can still be read.
        """
        place = self._queued if place is None else place
        while self._queued - len(self._unsent) < place:
            if is_over and is_over():
                return False
            self._poll(0, SELDOM_SECONDS if is_over else inf)
        return self.error is None

    def flush(self) -> None:
        self._blocked_by = 0
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

    def _poll(self, events: int, seconds: float) -> int:
        """The lock is released meanwhile, and what could not be sent is sent. The events are returned."""
        events |= self._blocked_by
        self._polling += 1
        self.lock.release()
        try:
            came = await_ready(self._sock, events, seconds)
        finally:
            self.lock.acquire()
            self._polling -= 1
            if self.is_closed:
                self.changed.notify_all()
        if self._blocked_by:
            self.flush()
        return came

    def shut(self) -> None:
        """The thread that receives comes to the end."""
        shut(self._sock)

    def stop(self) -> None:
        """Nothing is sent any more: at an end that it does not expect, OpenSSL would send an alert."""
        self.is_closed = True
        self._refuse(ConnectionAbortedError("the connection is closed"))

    def close(self) -> None:
        """Close the socket, once no thread waits for it; calling it again does nothing."""
        with self.lock:
            self.stop()
            self.shut()  # wakes the threads that poll
            while self._polling:  # its descriptor must not be another's while one of them polls it
                self.changed.wait()
            self._sock.close()
