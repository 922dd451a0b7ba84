"""WebSockets whose frames a test sends by itself: a client for a gateway on loopback, and a server behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11

from pytest_egress.traffic.websocket import Frames, Received, accept_token
from tests.support.stage import SECONDS, Stage

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class RawSide:
    """One side of a WebSocket that is open.

    Attributes:
        frames: Makes what `send` sends.
    """

    def __init__(self, sock: Any, *, of_client: bool) -> None:
        self.sock, self.frames = sock, Frames(None, of_client=of_client)
        self._received: list[Received] = []
        sock.settimeout(SECONDS)

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def next(self) -> Received | None:
        """What comes next; None at the end of the connection."""
        while not self._received:
            if not (data := self.sock.recv(65536)):
                return None
            self._received += self.frames.receive(data)
        return self._received.pop(0)

    def rest(self) -> list[Received]:
        """All that comes until the end of the connection."""
        received = []
        while (each := self.next()) is not None:
            received.append(each)
        return received


def raw_client(stage: Stage, *, secure: bool = False) -> RawSide:
    """Open a WebSocket of api.test: by TLS to port 443, or without to port 80."""
    return client_of(stage.tls() if secure else stage.dial("203.0.113.9", 80))


def client_of(sock: Any) -> RawSide:
    """Open a WebSocket on a socket that is connected."""
    sock.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):  # no frame is read with it
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return RawSide(sock, of_client=True)


@contextmanager
def raw_server(serve: Callable[[RawSide], None]) -> Iterator[str]:
    """A server of one WebSocket, and its URL. What `serve` raises is raised at the end."""
    errors: list[BaseException] = []

    def accept() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                serve(shaken(sock))
        except BaseException as error:
            errors.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(SECONDS)
    if errors:
        raise errors[0]


def shaken(sock: socket.socket) -> RawSide:
    """Answer the handshake of a client."""
    http = h11.Connection(h11.SERVER)
    while not isinstance(request := http.next_event(), h11.Request):
        http.receive_data(sock.recv(65536))
    key = dict(request.headers)[b"sec-websocket-key"].decode()
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Accept", accept_token(key)),
    ]
    sock.sendall(http.send(h11.InformationalResponse(status_code=101, headers=headers)) or b"")
    return RawSide(sock, of_client=False)
