"""HTTP/1.1 on both sides of the endpoint: one request a connection, and streams that take a connection over.

What a tool sends is never passed on as bytes, but after the engine has switched protocols (101) for a call that may.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Final

import h11

from pytest_egress.base.clock import monotonic
from pytest_egress.base.polling import ENDED
from pytest_egress.base.relay import relay
from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.errors import LinkError

HEAD_SECONDS: Final = 60.0  # for a tool to send its request
MAX_SKIPPED: Final = 64 << 10  # bytes of a body that is not passed on
LEAVE_SECONDS: Final = 5.0  # for a tool to close its connection after the response
ENGINE_SECONDS: Final = 60.0  # for the engine to take a piece of a request
FORWARDED: Final = frozenset((b"accept", b"content-type", b"x-registry-auth", b"user-agent"))
OF_CONNECTION: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip
LOST: Final = "the engine ended the connection before it had answered"

HeaderPairs = list[tuple[bytes, bytes]]


class Peer:
    """One side of the endpoint."""

    def __init__(
        self, sock: socket.socket, role: type[h11.CLIENT | h11.SERVER], seconds: float
    ) -> None:
        self.sock: Final = sock
        self._http: Final = h11.Connection(role)
        sock.settimeout(seconds)

    def _next(self, before: Callable[[], object] = lambda: None) -> object:
        """The next event; `before` is called before each read."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            before()
            self._http.receive_data(self.sock.recv(READ_BYTES))
        return event

    def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self.sock.sendall(data)


class Tool(Peer):
    """The connection of a tool, as its server sees it.

    Attributes:
        method, target: Of its request.
        is_open: Whether a response may still be begun.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, h11.SERVER, HEAD_SECONDS)
        self._request: h11.Request | None = None
        self.is_open = True

    def read_request(self) -> bool:
        """Read the head of the request; return whether there is one."""
        event = self._next()
        if isinstance(event, h11.Request):
            self._request = event
            return True
        return False

    @property
    def has_request(self) -> bool:
        return self._request is not None

    @property
    def request(self) -> h11.Request:
        assert self._request is not None
        return self._request

    @property
    def method(self) -> str:
        return self.request.method.decode("ascii")

    @property
    def target(self) -> str:
        return self.request.target.decode("latin-1")

    @property
    def asks_to_switch(self) -> bool:
        return (b"upgrade", b"tcp") in ((n, v.lower()) for n, v in self.request.headers)

    def headers(self) -> HeaderPairs:
        """Those that are passed on."""
        return [(name, value) for name, value in self.request.headers if name in FORWARDED]

    def pieces(self) -> Iterator[bytes]:
        """The body, in pieces."""
        if self._http.they_are_waiting_for_100_continue:
            self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while isinstance(event := self._next(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionError("the tool has left within its request")

    def body(self, limit: int) -> bytes:
        found = bytearray()
        for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise RefusedCall(
                    f"the body has more than {limit} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                )
        return bytes(found)

    def skip(self) -> None:
        """Read a body that is not passed on."""
        self.body(MAX_SKIPPED)

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.is_open = False
        kept = [(name, value) for name, value in headers if name.lower() not in OF_CONNECTION]
        self._send(h11.Response(status_code=status, headers=[*kept, (b"Connection", b"close")]))

    def send(self, data: bytes) -> None:
        self._send(h11.Data(data=data))

    def end(self) -> None:
        self._send(h11.EndOfMessage())

    def answer(self, status: int, body: bytes, headers: HeaderPairs | None = None) -> None:
        """Send a whole response; to HEAD without its body."""
        own = [(b"Content-Type", b"application/json")] if headers is None else headers
        kept = [(name, value) for name, value in own if name.lower() != b"content-length"]
        has_body = status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        if has_body:
            kept.append((b"Content-Length", b"%d" % len(body)))
        self.begin(status, kept)
        if has_body and self.method != "HEAD" and body:
            self.send(body)
        self.end()

    def switch(self, headers: HeaderPairs) -> bytes:
        """Switch protocols; return what the tool has sent beyond its request."""
        self.is_open = False
        kept = [(name, value) for name, value in headers if name == b"content-type"]
        fields = [*kept, (b"Connection", b"Upgrade"), (b"Upgrade", b"tcp")]
        self._send(h11.InformationalResponse(status_code=101, reason=b"UPGRADED", headers=fields))
        return self._http.trailing_data[0]

    def leave(self) -> None:
        """Drop what the tool still sends: a Unix socket that is closed before loses the response (`ECONNRESET`)."""
        self.sock.shutdown(socket.SHUT_WR)
        end = monotonic() + LEAVE_SECONDS
        while (left := end - monotonic()) > 0:
            self.sock.settimeout(left)
            if not self.sock.recv(READ_BYTES):
                return


class Upstream(Peer):
    """One request to the engine.

    Args:
        sock: A connection to the engine; closed by `close`.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, h11.CLIENT, ENGINE_SECONDS)

    def send(
        self,
        method: str,
        target: str,
        headers: HeaderPairs,
        body: bytes = b"",
        *,
        switches: bool = False,
    ) -> None:
        """Send a request with a whole body."""
        fields = [*headers, (b"Content-Length", b"%d" % len(body))]
        self._begin(method, target, fields, switches)
        if body:
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())

    def upload(
        self, method: str, target: str, headers: HeaderPairs, pieces: Iterable[bytes]
    ) -> None:
        """Send a request whose body is passed on in pieces. The engine may answer before its end."""
        self._begin(method, target, [*headers, (b"Transfer-Encoding", b"chunked")], False)
        for piece in pieces:
            self._send(h11.Data(data=piece))
        self._send(h11.EndOfMessage())

    def _begin(self, method: str, target: str, headers: HeaderPairs, switches: bool) -> None:
        own = [(b"Connection", b"Upgrade"), (b"Upgrade", b"tcp")]
        own = own if switches else [(b"Connection", b"close")]
        fields = [(b"Host", b"docker"), *own, *headers]
        self._send(h11.Request(method=method, target=target, headers=fields))

    def response(self) -> h11.Response | h11.InformationalResponse:
        """The head of the response, which may take as long as the call; 101 where the engine has switched."""
        self.sock.settimeout(None)
        while True:
            event = self._next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                    return event
            else:
                raise LinkError(LOST)

    def pieces(self, before: Callable[[], object] = lambda: None) -> Iterator[bytes]:
        """The body, in pieces; `before` is called before each read."""
        while isinstance(event := self._next(before), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise LinkError(LOST)

    def body(self) -> bytes:
        return b"".join(self.pieces())

    @property
    def beyond(self) -> bytes:
        """What the engine has sent after it had switched."""
        return self._http.trailing_data[0]

    def close(self) -> None:
        self.sock.close()


def pass_on(
    tool: Tool,
    upstream: Upstream,
    before_end: Callable[[], object] = lambda: None,
    change: Callable[[bytes], bytes] = bytes,
) -> int:
    """Pass a response on as it comes, and return its status.

    Args:
        before_end: Called before the body, and so before the end of what the engine waits for.
        change: What becomes of a piece of the body.
    """
    response = answer_of(tool, upstream)
    tool.begin(response.status_code, response.headers)
    for piece in upstream.pieces(lambda: watch(tool, upstream)):
        if piece and tool.method != "HEAD":
            before_end()
            tool.send(change(piece))
    tool.end()
    return response.status_code


def answer_of(tool: Tool, upstream: Upstream) -> h11.Response | h11.InformationalResponse:
    """The head of the response; ConnectionError where the tool has left before it."""
    watch(tool, upstream)
    return upstream.response()


def watch(tool: Tool, upstream: Upstream) -> None:
    """Wait until the engine sends something; ConnectionError where the tool leaves before."""
    pending = getattr(upstream.sock, "pending", lambda: 0)
    if pending():
        return
    poll = select.poll()
    poll.register(upstream.sock, select.POLLIN)
    poll.register(tool.sock, ENDED)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if upstream.sock.fileno() not in ready:
        raise ConnectionError("the tool has left")


def copy(tool: Tool, upstream: Upstream, response: h11.InformationalResponse) -> None:
    """Copy both ways, until the engine has ended its stream."""
    early = tool.switch(list(response.headers))
    for sock in (tool.sock, upstream.sock):
        sock.settimeout(None)
    if early:
        upstream.sock.sendall(early)
    if upstream.beyond:
        tool.sock.sendall(upstream.beyond)
    relay(tool.sock, upstream.sock, lambda out, back: back.done)
