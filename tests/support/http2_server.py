"""A real HTTP/2 server on loopback whose answers a test writes, frame by frame."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.errors
import h2.events

from tests.support.stage import SECONDS
from tests.support.upstreams import tcp_server

Event = TypeVar("Event", bound=h2.events.Event)
Fields = list[tuple[str, str]]
OK = [(":status", "200")]


class Http2Peer:
    """The server's side of one connection.

    Attributes:
        seen: Every event so far.
    """

    def __init__(self, sock: socket.socket, **settings: int) -> None:
        self.sock = sock
        sock.settimeout(SECONDS)
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding="latin-1",
            normalize_outbound_headers=False,
            validate_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.seen: list[h2.events.Event] = []
        self._coming: deque[h2.events.Event] = deque()
        self.h2.initiate_connection()
        codes = h2.settings.SettingCodes
        self.h2.update_settings({codes[name]: value for name, value in settings.items()})
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def next(self, kind: type[Event], acknowledge: bool = True) -> Event:
        """The next event of a kind; those before it are left out."""
        while True:
            while self._coming:
                event = self._coming.popleft()
                if isinstance(event, h2.events.DataReceived) and acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                    self.flush()
                if isinstance(event, kind):
                    return event
            self.read()

    def read(self) -> None:
        """Read what comes next, for `next` to return."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the connection ended")
        events = self.h2.receive_data(data)
        self.seen += events
        self._coming += events
        self.flush()

    def head(self) -> Fields:
        """The fields of the next request."""
        return [
            (str(name), str(value))
            for name, value in self.next(h2.events.RequestReceived).headers or ()
        ]

    def piece(self) -> bytes:
        """The next piece of the request's body."""
        return self.next(h2.events.DataReceived).data or b""

    def rest(self) -> bytes:
        """The request's body to its end."""
        self.next(h2.events.StreamEnded)
        data = (each.data for each in self.seen if isinstance(each, h2.events.DataReceived))
        return b"".join(each or b"" for each in data)

    def respond(
        self, fields: Iterable[tuple[str, str]] = OK, *pieces: bytes, end: bool = True
    ) -> None:
        """Send a head, and pieces of a body."""
        self.h2.send_headers(1, list(fields), end_stream=end and not pieces)
        for number, piece in enumerate(pieces, 1):
            self.h2.send_data(1, piece, end_stream=end and number == len(pieces))
        self.flush()

    def send(self, data: bytes) -> None:
        """Send a piece of the body, as the window lets it. Pieces of the request that come meanwhile are kept."""
        left = memoryview(data)
        while left:
            while not (window := self.h2.local_flow_control_window(1)):
                self.read()
            size = min(window, len(left), self.h2.max_outbound_frame_size)
            self.h2.send_data(1, left[:size].tobytes())
            left = left[size:]
            self.flush()

    def end(self, trailers: Fields = []) -> None:  # noqa: B006 - it is not changed
        """End the response, with trailers where there are any."""
        if trailers:
            self.h2.send_headers(1, trailers, end_stream=True)
        else:
            self.h2.end_stream(1)
        self.flush()

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        self.h2.reset_stream(1, code)
        self.flush()

    def frame(self, kind: int, payload: bytes, flags: int = 0, stream: int = 0) -> None:
        """Send a frame as it is, which h2 would not."""
        head = struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream)
        self.sock.sendall(head + payload)

    def wait_for_end(self) -> None:
        """Read until the other side has closed."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


Serve = Callable[[Http2Peer], Any]


@contextlib.contextmanager
def http2_server(
    serve: Serve, context: ssl.SSLContext | None = None, **settings: int
) -> Iterator[int]:
    """The port of a server that gives each connection to a function, on a thread of its own.

    Args:
        context: The TLS of a server that speaks HTTP/2 by ALPN; without, it is known to speak it.
        settings: What it announces, by the names of `h2.settings.SettingCodes`.
    """

    def run(sock: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            wrapped = context.wrap_socket(sock, server_side=True) if context else sock
            with wrapped:
                peer = Http2Peer(wrapped, **settings)
                serve(peer)
                peer.wait_for_end()

    with tcp_server(run) as port:
        yield port
