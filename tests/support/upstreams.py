"""Real servers for what is let through, and how tests look at what went there."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

from pytest_egress import Route, TcpConnection
from pytest_egress.targets.results import CompletedContainer
from tests.support.stage import eventually

SECONDS = 30.0  # what is bound to happen, on however slow a machine


def succeed(result: CompletedContainer) -> str:
    """The output of a command that succeeded, stripped."""
    assert result.exit_code == 0, result.stdout + result.stderr
    return result.stdout.strip()


def only_connection(route: Route[TcpConnection]) -> TcpConnection:
    """The only call of a raw route, at its end: a handler may go on when its client has gone."""
    call = route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: call.duration is not None)
    return route.assert_called_once()


class Upstream:
    """An HTTP server that tells what it was asked.

    Args:
        listener: Where it listens; without one, on 127.0.0.1.

    Attributes:
        port: Its port.
        asked: Paths, in order.
    """

    def __init__(
        self, leaf: trustme.LeafCert | None = None, listener: socket.socket | None = None
    ) -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked.append(self.path)
                body = json.dumps({"real": self.path, "host": self.headers["Host"]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.asked = asked
        self._server = Server(("127.0.0.1", 0), Handler)
        if listener is not None:
            self._server.socket.close()
            self._server.socket = listener
        if leaf is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            leaf.configure_cert(context)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.socket.getsockname()[1])

    def __enter__(self) -> Upstream:
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Server(ThreadingHTTPServer):
    """Threads that end by themselves, and say nothing when a client distrusts them."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def tcp_server(
    serve: Callable[[socket.socket], None], listener: socket.socket | None = None
) -> Iterator[int]:
    """The port of a server that gives each connection to a function, on a thread of its own.

    Args:
        listener: Where it listens; without one, on 127.0.0.1.
    """
    listener = listener or socket.create_server(("127.0.0.1", 0))

    def run(sock: socket.socket) -> None:
        with sock:
            serve(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:  # it has ended
                return
            threading.Thread(target=run, args=[sock], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def speak_redis(sock: socket.socket, answer: Callable[..., str]) -> None:
    """Be a Redis server: what the function returns for the words of each command goes out as a string."""
    with sock.makefile("rwb") as stream:
        while head := stream.readline():
            words = []
            for _ in range(int(head[1:])):
                size = int(stream.readline()[1:])
                words.append(stream.read(size + 2)[:-2].decode())
            stream.write(f"+{answer(*words)}\r\n".encode())
            stream.flush()
