"""`UpstreamBody`: the body of a real server's response, as it comes, while the body of the request may still go out.

The rule: a body of a request that may take a while is sent by a thread of its own, so that a server may respond before
it has read all, and both sides may wait for each other. How a message looks on the wire is the business of `http1` and
`http2`. A thread that sends ends with the body of the response; while it waits for the next piece of a
streamed request, it ends when that comes, or fails.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from io import BytesIO
from typing import Final

from pytest_egress.base.account import Hold, OverLimitError
from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.base.wire import Wire
from pytest_egress.errors import ContentError, UpstreamError
from pytest_egress.traffic.http.content_coding import MAX_DECODED_BYTES, codings, decode
from pytest_egress.traffic.http.head import MAX_BODY_BYTES
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers, end_to_end, without
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response, stated_length

Content = bytes | Iterator[bytes]
"""The body of a request: whole, or in pieces as it comes."""
Interim = Callable[[int, Headers], None]
"""Sends an interim response on."""

CONTINUE: Final = 100
IN_PLACE: Final = 32 * 1024
"""Bytes of a body that go out at once: a socket takes them without waiting."""


class UpstreamBody:
    """One exchange: sends a request, and iterates over the body of its response, which is not kept here.

    Closing it closes the socket.

    Args:
        sock: A connection that has been used for nothing.
        interim: Is called with each interim response of the server, but for 100: that is about the request's body.

    Attributes:
        trailers: The fields after the body, once it has ended.
    """

    response: Response
    trailers: Headers = NO_FIELDS

    def __init__(
        self, sock: socket.socket, request: Request, content: Content, interim: Interim
    ) -> None:
        self._wire, self._interim = Wire(sock), interim
        self._request, self._content = request, content
        self._unsendable: BaseException | None = None

    @property
    def _what(self) -> str:
        return f"{self._request.method} {self._request.shown_url}"

    # The response.

    def exchange(self, prefix: str, *, encoded: bool) -> Response:
        """Send the request, and return its response with this as its body.

        Raises:
            UpstreamError: The body of the request broke off.
            OSError, ValueError: The server broke off, or broke its protocol.
        """
        raise NotImplementedError

    def _response(self, status_code: int, headers: Headers, reason: str) -> Response:
        response = Response.received(status_code, headers, reason=reason, stream=self)
        self.response = weakref.proxy(response)  # no cycle, so that a large body is freed at once
        return response

    def _received(self) -> Iterator[bytes]:
        """The pieces of the response's body as they come; at the end `trailers` is set.

        Raises:
            OSError, ValueError: The server broke off, or broke its protocol.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._received()
        except (OSError, ValueError) as error:
            raise UpstreamError(f"{self._what}: the upstream broke off: {error}") from error
        finally:
            self.close()
        self.response.trailers = self.trailers

    def close(self) -> None:
        """Any thread may call this, and more than once."""
        self._wire.close()

    # The request.

    @property
    def _goes_at_once(self) -> bool:
        return isinstance(self._content, bytes) and len(self._content) <= IN_PLACE

    def _start_sending(self) -> None:
        name = f"egress upstream {self._request.container}"
        threading.Thread(target=self._send_all, name=name, daemon=True).start()

    def _send_all(self) -> None:
        content = pieces(self._content)
        try:
            if all(self._send(piece) for piece in content if piece):
                self._send_end()
        except BaseException as error:
            # Of the client, whose bytes are read here, or of the protocol.
            with self._wire.lock:
                self._unsendable = error
            self._wire.shut()  # the thread that receives raises it
        finally:
            with contextlib.suppress(Exception):
                content.close()

    def _send(self, piece: bytes) -> bool:
        """Return False where the server takes no more."""
        raise NotImplementedError

    def _send_end(self) -> None:
        """Send the end of the request's body, with its trailers."""
        raise NotImplementedError

    def _check(self) -> None:
        if self._unsendable is not None:
            text = f"{self._what}: the body of the request broke off: {self._unsendable}"
            raise UpstreamError(text) from self._unsendable


def pieces(content: Content) -> Generator[bytes, None, None]:
    """Closing the generator closes the iterator that the content is."""
    if isinstance(content, bytes):
        for start in range(0, len(content), READ_BYTES):
            yield content[start : start + READ_BYTES]
        return
    try:
        yield from content
    finally:
        getattr(content, "close", lambda: None)()


def outgoing_fields(request: Request, content: Content, *, encoded: bool) -> Headers:
    """The fields of a request to a real server.

    They are those that are end-to-end, and Content-Length where that of the body is known and the client framed one.
    """
    dropped = {"expect", "content-length"} | (set() if encoded else {"accept-encoding"})
    kept = [*without(end_to_end(request.headers), *dropped).raw]
    if (length := length_of(request, content)) is not None:
        kept.append(("Content-Length", str(length)))
    return Headers(kept if encoded else [*kept, ("Accept-Encoding", "identity")])


def length_of(request: Request, content: Content) -> int | None:
    """The Content-Length of a request to a real server; None where it has none, or is not known."""
    if not isinstance(content, bytes):
        return stated_length(request.headers)
    framed = "content-length" in request.headers or "transfer-encoding" in request.headers
    return len(content) if framed or content else None


def authority_of(request: Request) -> str:
    """The value of Host, or of `:authority`: as the client sent it. An HTTP/1.0 request has none."""
    return request.headers.get("host") or request.authority


def target_of(request: Request, prefix: str) -> bytes:
    prefix = prefix if request.path.startswith("/") else ""  # `OPTIONS *` is about the server
    return f"{prefix}{request.request_target}".encode("latin-1")


def whole(response: Response, method: str, hold: Hold) -> Response:
    """Read a response to its end, and return it with its content. One with trailers streams that, since they follow it.

    Its fields fit whatever body is sent with them. They have no length, and no coding: that is undone where a server
    compresses in spite of `Accept-Encoding: identity`. A body that is not what its Content-Encoding says stays so.

    Raises:
        UpstreamError: The upstream broke off, or its answer is over `MAX_BODY_BYTES`, or there is no room for it.
    """
    if response.stream is None:
        return response
    whole_body = BytesIO()
    for piece in response.stream:
        whole_body.write(piece)
        try:
            check_room(whole_body.tell(), hold)
        except OverLimitError as error:
            response.stream.close()
            hold.release()
            raise UpstreamError(f"the answer of the upstream was cut: {error}") from error
    headers, content = plain(response.headers, whole_body.getvalue(), hold)
    kept = Response.received(
        response.status_code,
        without(headers, "content-length"),
        reason=response.reason,
        content=content,
    )
    if response.trailers:
        kept.stream, kept.trailers = (content,), response.trailers
    return kept.of_length(stated_length(headers)) if method == "HEAD" else kept


def check_room(size: int, hold: Hold) -> None:
    """Raise OverLimitError where so many bytes are over the limit of a body, or there is no room for them."""
    if size > MAX_BODY_BYTES:
        raise OverLimitError(f"it is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes")
    hold.resize(size)


def plain(headers: Headers, content: bytes, hold: Hold) -> tuple[Headers, bytes]:
    """The fields and the content of a response without its content coding, where that can be undone."""
    if not codings(coding := headers.get("content-encoding", "")):
        return headers, content
    with contextlib.suppress(ContentError, OverLimitError):
        content = decode(content, coding, MAX_DECODED_BYTES, hold)
        headers = without(headers, "content-encoding", "content-length")
    return headers, content
