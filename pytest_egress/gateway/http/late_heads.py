"""`LateHead`: the head of a response that is sent alone where the first piece of its body takes long.

The rule: no version of HTTP is known here. As a rule the first piece is there at once, and the head goes with it: an
error before it is answered by 500. A client that waits for an event stream is not kept waiting for its first event.

Threads: the thread that makes the first piece calls `end`; an alarm's thread calls `ring`. The lock is held while the
head is sent, so that the first piece follows it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from pytest_egress.routes.duplex import ClientLeftError


class LateHead:
    """The head of one response.

    Args:
        send: Sends it; returns False where it is not to be sent alone.

    Attributes:
        has_gone: Whether it has been sent before the first piece was there.
        error: Why it could not be sent; None where it could, or was not tried.
    """

    def __init__(self, send: Callable[[], bool]) -> None:
        self._send, self._lock = send, threading.Lock()
        self._is_over = self.has_gone = False
        self.error: BaseException | None = None

    def ring(self) -> None:
        """Send it, unless the first piece has been made meanwhile."""
        with self._lock:
            if self._is_over:
                return
            try:
                self.has_gone = self._send()
            except BaseException as error:
                # Of a client that has left, or about a head that HTTP cannot carry.
                self.has_gone, self.error = True, error

    def end(self) -> None:
        """Note that the first piece has been made, or never will be."""
        with self._lock:
            self._is_over = True

    def check(self) -> None:
        if isinstance(self.error, ClientLeftError):
            raise ClientLeftError(str(self.error)) from self.error
        if self.error is not None:
            raise self.error
