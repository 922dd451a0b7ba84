"""Attaches to a container's standard streams: upgrades a connection to the engine, and parses its frames.

docker-py's `attach_socket` loses the bytes that its reader has read ahead with the headers. This module uses nothing of
an engine but a socket to it.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import h11

from pytest_egress.base.sockets import BLOCKED, Socket
from pytest_egress.errors import LinkError

ANSWER_SECONDS: Final = 30.0  # for the engine to attach
READ_BYTES: Final = 1 << 18  # many frames of an engine: it makes one of each write
TEXT_BYTES: Final = 1 << 16  # of standard error that are kept, the last ones
MAX_OUTPUT_BYTES: Final = 256 << 20
"""What is kept of an output at most. The test process has it twice once it is read as text."""

TAIL_BYTES: Final = 1 << 16  # of an output that are shown, the last ones
STDOUT, STDERR = 1, 2
_HEADER: Final = 8  # bytes of a frame's header: the stream, three zeros, four of length


class StreamDemultiplexer:
    """Separates standard output and error, which an engine sends in one stream of frames. Sans-IO.

    The format is that of `POST /containers/{id}/attach`.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The bytes may be cut anywhere; each piece comes with the number of its stream."""
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
        """Take bytes of a frame's header from an offset on; return how many."""
        piece = data[offset : offset + _HEADER - len(self._header)]
        self._header += piece
        if len(self._header) == _HEADER:
            self._stream, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
            self._header.clear()
        return len(piece)


class Attachment:
    """The standard streams of one container; `rest` was read after the head of the engine's answer."""

    def __init__(self, sock: socket.socket, rest: bytes = b"") -> None:
        self.sock = sock
        self._streams, self._rest = StreamDemultiplexer(), rest
        self._text = bytearray()
        sock.setblocking(False)

    def fileno(self) -> int:
        return self.sock.fileno()

    def read(self) -> bytes | None:
        """Read from the container's standard output, without waiting; return None at the end."""
        data, self._rest = self._rest, b""
        try:
            while True:  # TLS may hold decrypted bytes for which the descriptor is not readable
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
        try:
            return self.sock.send(data)
        except BLOCKED:
            return 0

    def text(self) -> str:
        """The last part of what the container has written to its standard error."""
        return bytes(self._text).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """The container's standard input ends with the connection. Calling it again does nothing."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # close alone leaves a fork's open
        self.sock.close()


def attach(sock: socket.socket, path: str) -> Attachment:
    """Attach by an API path with version and query; LinkError, and a closed socket, where the engine refuses."""
    try:
        return Attachment(sock, upgrade(sock, path))
    except OSError as error:
        sock.close()
        raise LinkError(
            f"The engine refuses the sidecar: it did not attach to it: {error}"
        ) from error
    except BaseException:
        sock.close()
        raise


class OutputError(Exception):
    """A container, or a command in one, has written more than `MAX_OUTPUT_BYTES`."""


class Output:
    """The output of a container, or of a command in one, as an engine sends it. Sans-IO.

    Args:
        terminal: Whether it has a terminal, which joins both streams on standard output, without frames.
        joined: Whether to keep both streams as one, in order, as standard output.
        whole: Whether to keep more than the tail.
    """

    def __init__(self, *, terminal: bool = False, joined: bool = False, whole: bool = True) -> None:
        self._frames = None if terminal else StreamDemultiplexer()
        self._stdout, self._stderr = io.BytesIO(), io.BytesIO()
        self._joined, self._whole, self._size = joined, whole, 0
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, which may be cut anywhere; OutputError where they are too many to be kept whole."""
        pieces = [(STDOUT, chunk)] if self._frames is None else self._frames.feed(chunk)
        text = b"".join(piece for _, piece in pieces)
        self._tail += text[-TAIL_BYTES:]
        if len(self._tail) > 2 * TAIL_BYTES:  # not at each line
            del self._tail[:-TAIL_BYTES]
        if not self._whole:
            return
        self._size += len(text)
        if self._size > MAX_OUTPUT_BYTES:
            raise OutputError(f"more than {MAX_OUTPUT_BYTES >> 20} MiB")
        if self._joined:
            self._stdout.write(text)
            return
        for stream, piece in pieces:
            (self._stdout if stream == STDOUT else self._stderr).write(piece)

    @property
    def stdout(self) -> bytes:
        return self._stdout.getvalue()  # which copies nothing

    @property
    def stderr(self) -> bytes:
        return self._stderr.getvalue()

    @property
    def tail(self) -> bytes:
        """The last `TAIL_BYTES` of both, in order."""
        return bytes(self._tail[-TAIL_BYTES:])


def read_output(sock: socket.socket, path: str, output: Output, left: Callable[[], float]) -> None:
    """Run an exec without a terminal to its end, and read its output (`POST /exec/{id}/start`); `left` is in seconds.

    Raises:
        OSError: The engine refused, or broke off.
        TimeoutError: The time is over.
        OutputError: It has written too much.
    """
    try:
        first = upgrade(sock, path, b'{"Detach": false, "Tty": false}')
    except TimeoutError:
        raise OSError(f"it has not begun within {ANSWER_SECONDS:g} s") from None
    output.feed(first)
    while (seconds := left()) > 0:
        sock.settimeout(seconds)
        try:
            chunk = sock.recv(READ_BYTES)
        except TimeoutError:
            continue  # a prompt may have stopped the clock
        if not chunk:
            return
        output.feed(chunk)
    raise TimeoutError


def upgrade(sock: socket.socket, path: str, body: bytes = b"") -> bytes:
    """Return the bytes of the container's streams that were read so far; OSError where the engine refuses."""
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
    if not isinstance(event, h11.Response):
        return "it closed the connection."
    said = bytearray()
    while not isinstance(part := http.next_event(), (h11.EndOfMessage, h11.ConnectionClosed)):
        if part is h11.NEED_DATA:
            http.receive_data(sock.recv(READ_BYTES))
        elif isinstance(part, h11.Data):
            said += part.data
    text = bytes(said).decode("utf-8", "replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):  # a proxy's is no JSON
        text = json.loads(text)["message"]
    return f"{event.status_code} {text}"


def connect(
    address: str, certificate: tuple[str, str] | None = None, verify: str | bool = True
) -> socket.socket:
    """Connect to an engine.

    Args:
        address: `unix://` and a path, or the URL of a host.
        verify: The file of the CA that issued the engine's certificate, or whether to verify that at all.

    Raises:
        LinkError: No engine can be reached at this address.
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
