"""A real server of bytes, and its clients."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from tests.support.stage import ADDRESS, SECONDS, Stage, end_of


class Echo:
    """A real server that repeats what it is sent, and ends when its client does."""

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        greeting: bytes = b"",
        handler: Callable[[socket.socket], None] | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.seen: list[socket.socket] = []
        self.asked: list[tuple[str, int]] = []
        self.context, self.greeting, self.handler = context, greeting, handler
        self.threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.seen.append(sock)
                self.asked.append(sock.getsockname())
                self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                self.seen.append(sock)
            sock.sendall(self.greeting)
            if self.handler is not None:
                self.handler(sock)
            while data := sock.recv(65536):
                sock.sendall(data)
        sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.seen:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(SECONDS)
        for sock in self.seen:
            sock.close()


def end_of_dial(stage: Stage, address: str = ADDRESS) -> str:
    """How a connection ends that may be reset before its client has looked at it."""
    try:
        return end_of(stage.dial(address, 5432))
    except ConnectionResetError:
        return "reset"


def read_to_end(sock: socket.socket) -> bytes:
    sock.settimeout(SECONDS)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_line(sock: socket.socket) -> bytes:
    sock.settimeout(SECONDS)
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(1)
        assert piece, f"it ended after {line!r}"
        line += piece
    return line


# What is open is looked at again.


def opened(stage: Stage, address: str) -> socket.socket:
    client = stage.dial(address, 5432)
    client.sendall(b"x\n")
    assert read_line(client) == b"x\n"
    return client
