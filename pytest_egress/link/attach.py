"""One attach of a container's standard streams: the upgrade of a connection to the engine, and its frames.

docker-py's own loses what its reader has read ahead with the headers. This module knows no engine but by its socket.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

import h11

from pytest_egress.base.sockets import Socket
from pytest_egress.errors import LinkError

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

ANSWER_SECONDS: Final = 30.0  # for the engine to attach
READ_BYTES: Final = 1 << 18
TEXT_BYTES: Final = 1 << 16  # kept of what the container writes to its standard error
STDOUT, STDERR = 1, 2
BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_HEADER: Final = 8  # of a frame: its stream, three zeros, four bytes of length


class StreamDemultiplexer:
    """Separates standard output and error, which an engine sends in one (`POST /containers/{id}/attach`). Sans-IO."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The next bytes, however they are cut, as pieces of streams."""
        found: list[tuple[int, bytes]] = []
        offset = 0
        while offset < len(data):
            if self._left:
                piece = data[offset : offset + self._left]
                found.append((self._stream, piece))
                self._left -= len(piece)
                offset += len(piece)
            else:
                offset += self._feed_header(data, offset)
        return found

    def _feed_header(self, data: bytes, offset: int) -> int:
        """Take bytes of a header; how many."""
        piece = data[offset : offset + _HEADER - len(self._header)]
        self._header += piece
        if len(self._header) == _HEADER:
            self._stream, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
            self._header.clear()
        return len(piece)


class Attachment:
    """The standard streams of one container.

    Args:
        sock: A connection to the engine, upgraded.
        rest: What has been read of it behind the answer's head.
    """

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self.sock = sock
        self._streams, self._rest = StreamDemultiplexer(), rest
        self._text = bytearray()
        sock.setblocking(False)

    def fileno(self) -> int:
        """Its descriptor."""
        return self.sock.fileno()

    def read(self) -> bytes | None:
        """What the container has written to its standard output; None at the end."""
        data, self._rest = self._rest, b""
        try:
            while True:  # under TLS there may be more than the descriptor tells
                chunk = self.sock.recv(READ_BYTES)
                if not chunk:
                    return self._take(data) or None
                data += chunk
                if not isinstance(self.sock, ssl.SSLSocket) or len(data) >= READ_BYTES:
                    break
        except BLOCKED:
            pass
        return self._take(data)

    def _take(self, data: bytes) -> bytes:
        output = bytearray()
        for stream, piece in self._streams.feed(data):
            if stream == STDOUT:
                output += piece
            else:
                self._text = (self._text + piece)[-TEXT_BYTES:]
        return bytes(output)

    def write(self, data: bytes) -> int:
        """Write to its standard input; how many bytes were taken at once."""
        try:
            return self.sock.send(data)
        except BLOCKED:
            return 0

    def text(self) -> str:
        """What it has written to its standard error."""
        return bytes(self._text).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End its standard input; again is harmless."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # a fork's copy would keep it open
        self.sock.close()


def attach(sock: socket.socket, path: str) -> Attachment:
    """Attach to a container, by a connection to its engine that is closed where that fails.

    Args:
        path: With version and query.

    Raises:
        LinkError: The engine refused.
    """
    try:
        return Attachment(sock, upgrade(sock, path))
    except OSError as error:
        sock.close()
        raise LinkError(f"The engine did not attach to the sidecar: {error}") from error
    except BaseException:
        sock.close()
        raise


def output_of(sock: socket.socket, path: str) -> tuple[bytes, bytes]:
    """What a command without a terminal writes to its two streams, to its end (`POST /exec/{id}/start`).

    Raises:
        OSError: The engine refused, or broke off.
    """
    streams, found = StreamDemultiplexer(), {STDOUT: bytearray(), STDERR: bytearray()}
    chunk = upgrade(sock, path, b'{"Detach": false, "Tty": false}')
    sock.settimeout(None)
    while True:
        for stream, piece in streams.feed(chunk):
            found[stream] += piece
        if not (chunk := sock.recv(READ_BYTES)):
            return bytes(found[STDOUT]), bytes(found[STDERR])


def upgrade(sock: socket.socket, path: str, body: bytes = b"") -> bytes:
    """Make a connection to the engine one to a container's streams; what has been read of them by now.

    Raises:
        OSError: The engine refused.
    """
    http = h11.Connection(h11.CLIENT)
    headers = [("Host", "docker"), ("Connection", "Upgrade"), ("Upgrade", "tcp")]
    headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    request = h11.Request(method="POST", target=path, headers=headers)
    events = [request, *([h11.Data(body)] if body else []), h11.EndOfMessage()]
    sock.settimeout(ANSWER_SECONDS)
    sock.sendall(b"".join(http.send(event) or b"" for event in events))
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(sock.recv(READ_BYTES))
        if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            return http.trailing_data[0]
        raise OSError(_explanation(sock, http, event))
    except h11.RemoteProtocolError as error:
        raise OSError(f"{error}.") from error


def _explanation(sock: socket.socket, http: h11.Connection, event: object) -> str:
    """The status of an answer, and what it says."""
    if not isinstance(event, h11.Response):
        return "it closed the connection."
    said = bytearray()
    while not isinstance(part := http.next_event(), (h11.EndOfMessage, h11.ConnectionClosed)):
        if part is h11.NEED_DATA:
            http.receive_data(sock.recv(READ_BYTES))
        elif isinstance(part, h11.Data):
            said += part.data
    return f"{event.status_code} {bytes(said).decode('utf-8', 'replace').strip()}"


def connect(
    address: str, certificate: tuple[str, str] | None = None, verify: str | bool = True
) -> socket.socket:
    """A connection to an engine.

    Args:
        address: `unix://` and a path, or the URL of a host.
        certificate: The client's own, and its key, as files.
        verify: The file of the CA that the engine's certificate is of, or whether to verify it.

    Raises:
        LinkError: There is none at this address.
    """
    parts = urlsplit(address)
    try:
        if parts.scheme == "unix":
            sock: socket.socket = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(parts.path)
            except BaseException:
                sock.close()
                raise
            return sock
        if parts.hostname is None or parts.scheme not in ("http", "https"):
            raise LinkError(f"No stream link leads to an engine at {address!r}.")
        sock = socket.create_connection((parts.hostname, parts.port or 2375), ANSWER_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "https":
            return _secure(sock, parts.hostname, certificate, verify)
        return sock
    except OSError as error:
        raise LinkError(f"No engine can be reached at {address}: {error}.") from error


def _secure(
    sock: socket.socket, host: str, certificate: tuple[str, str] | None, verify: str | bool
) -> socket.socket:
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(*certificate)
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise
