"""Servers that say something last, and clients that hear it out."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from pytest_egress.base.acknowledged import unsent
from tests.support.stage import SECONDS, eventually, reset

TIMES = 200
BLOCK = b"x" * 5000
LAST_WORDS = b"-ERR that is enough\r\n"


class LastWords:
    """Answers after the first bytes of each connection, and closes it, whatever else is coming.

    Args:
        context: For TLS.
        words: What it says; with none it resets the connection.
        listener: By default one of 127.0.0.1.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        words: bytes = LAST_WORDS,
        listener: socket.socket | None = None,
    ) -> None:
        self.context, self.words = context, words
        self.listener = listener or socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._serve(sock)
            sock.close()

    def _serve(self, sock: socket.socket) -> None:
        if self.context is not None:
            sock = self.context.wrap_socket(sock, server_side=True)
        with sock:
            sock.recv(4)
            if self.words:
                sock.sendall(self.words)
                assert eventually(lambda: not unsent(sock))  # or its own kernel drops them
            else:
                reset(sock)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()


def hear_out(sock: socket.socket) -> bytes:
    """Send without end, and read to the end meanwhile."""
    sock.settimeout(SECONDS)

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                socket.socket.send(sock, BLOCK)

    thread = threading.Thread(target=send)
    thread.start()
    heard = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            heard += data
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    thread.join()
    return heard


def hear_out_tls(sock: ssl.SSLSocket) -> bytes:
    """The same in TLS, on which no two threads may be."""
    sock.settimeout(0)
    heard = b""
    while True:
        try:
            if not (data := sock.recv(65536)):
                return heard
            heard += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (ConnectionError, ssl.SSLError):
            return heard
        with contextlib.suppress(OSError):
            sock.send(BLOCK)


def assert_all_heard(dial: Callable[[], socket.socket], words: bytes = LAST_WORDS) -> None:
    heard = []
    for _ in range(TIMES):
        with dial() as sock:
            heard.append(hear_out_tls(sock) if isinstance(sock, ssl.SSLSocket) else hear_out(sock))
    assert heard.count(words) == TIMES
