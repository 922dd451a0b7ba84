"""`Ingress`: a loopback port of this machine whose connections go to a target's port, in the sidecar's namespace.

No port is published on the engine. This module knows nothing of containers.

Threads: one accepts, and each connection has one that copies; any thread closes. The lock guards which sockets and
threads there are, and no other is taken while it is held.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import pytest_egress.base.sockets as sockets
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.relay import relay
from pytest_egress.base.sockets import shut

CONNECT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 0.05
LOOPBACK: Final = "127.0.0.1"


class Ingress:
    """A listener on loopback for one port of a target.

    Args:
        connect: Connects to that port; it raises ConnectionRefusedError where nothing listens.
        note_closed: Called for each connection for which nothing did.
        address: Where it listens, by default on a free port of 127.0.0.1.

    Raises:
        OSError: That address is taken.
    """

    def __init__(
        self,
        connect: Callable[[], socket.socket],
        note_closed: Callable[[], None] = lambda: None,
        address: tuple[str, int] = (LOOPBACK, 0),
    ) -> None:
        self._connect, self._note_closed = connect, note_closed
        self._listener = sockets.listener(backlog=128, address=address)
        self.address: Final[tuple[str, int]] = self._listener.getsockname()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._stopping = False
        close_in_forked_children(self, Ingress.abandon)
        self._spawn(self._accept)

    def close(self) -> None:
        with self._lock:
            self._stopping = True
            shut(self._listener)
            for sock in self._open:
                shut(sock)
            threads = self._threads - {threading.current_thread()}  # `note_closed` may close it
        for thread in threads:
            thread.join(CONNECT_SECONDS)
        self._listener.close()

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets; the child has none of the threads."""
        for sock in (self._listener, *self._open):
            sock.close()

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                target(*args)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"egress ingress {self.address[1]}", daemon=True)
        with self._lock:
            if self._stopping:
                raise RuntimeError("it is being closed")
            thread.start()
            self._threads.add(thread)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                time.sleep(RETRY_SECONDS)  # usually no descriptor is free; the backlog waits
                continue
            try:
                self._spawn(self._serve, client)
            except RuntimeError:  # no thread can be started (pids limit), or the ingress closes
                client.close()

    def _serve(self, client: socket.socket) -> None:
        """If the target's port is closed, the accepted connection is closed."""
        with client:
            try:
                inside = self._connect()
            except OSError as error:
                if isinstance(error, ConnectionRefusedError):
                    self._note_closed()
                return
            with inside:
                if self._enter(client, inside):
                    with contextlib.suppress(OSError):  # one side broke off: both end
                        relay(client, inside)
                    with self._lock:
                        self._open -= {client, inside}

    def _enter(self, *sockets: socket.socket) -> bool:
        with self._lock:
            self._open.update(sockets)
            return not self._stopping
