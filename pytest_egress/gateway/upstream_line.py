"""`Line`: the socket of one exchange with a real server, on which one thread sends while another receives.

The rule: no two threads are ever inside one `ssl.SSLSocket`, which allows that to none, and no thread waits inside it.
`Line.changed` guards the socket and the state of the protocol on it. Whoever has to wait polls the descriptor while the
lock is released.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import Final

from pytest_egress.base.sockets import BLOCKED, READ_BYTES, shut

MAX_UNSENT: Final = 1 << 20  # bytes to a server that does not read: then it is not read either


class Line:
    """A socket to a real server. Every method but `close` and `shut` is called while `changed` is held.

    Attributes:
        changed: The lock, and what threads wait on for a change that another thread makes.
        is_closed: Whether `close` has been called.
        is_tls: Whether it is within TLS.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.changed = threading.Condition(threading.Lock())
        self.is_closed = False
        self.is_tls: Final = isinstance(sock, ssl.SSLSocket)
        self._sock = sock
        self._unsent = bytearray()
        self._is_refused = False
        self._polling = 0

    def receive(self) -> bytes:
        """Wait for the next bytes, and send meanwhile what waits to be sent; b"" at the end, and after `close`.

        Raises:
            OSError: The connection broke off.
        """
        while not self.is_closed:
            if len(self._unsent) <= MAX_UNSENT:
                try:
                    return self._sock.recv(READ_BYTES)
                except BLOCKED:
                    self._poll(select.POLLIN)
            else:
                self._poll(0)
            self._flush()
        return b""

    def queue(self, data: bytes) -> None:
        """Send as much as goes out without waiting; `receive` and `drain` send the rest."""
        self._unsent += data
        self._flush()

    def drain(self) -> bool:
        """Wait until all bytes are sent. Return False where the server takes no more: it may have responded before."""
        while self._unsent:
            self._poll(0)
            self._flush()
        return not self._is_refused and not self.is_closed

    def _flush(self) -> None:
        try:
            while self._unsent and not self.is_closed and not self._is_refused:
                del self._unsent[: self._sock.send(self._unsent[:READ_BYTES])]
        except BLOCKED:
            return
        except (
            OSError
        ):  # what the server has sent can still be read; if that is nothing, reading raises
            self._is_refused = True
        self._unsent.clear()

    def _poll(self, events: int) -> None:
        """Wait for an event, or until waiting bytes can be sent, while the lock is released."""
        poller = select.poll()
        poller.register(self._sock, events | (select.POLLOUT if self._unsent else 0))
        self._polling += 1
        self.changed.release()
        try:
            poller.poll()
        finally:
            self.changed.acquire()
            self._polling -= 1
            self.changed.notify_all()

    def shut(self) -> None:
        """Shut the socket down both ways: the thread that receives comes to the end."""
        shut(self._sock)

    def close(self) -> None:
        """Close the socket, once no thread waits for it; calling it again does nothing."""
        with self.changed:
            self.is_closed = True
            self.shut()  # wakes the threads that poll
            self.changed.notify_all()
            while self._polling:  # its descriptor must not be another's while one of them polls it
                self.changed.wait()
            self._sock.close()
