"""`PassedBody`: the body of a response that its client gets as it comes, and that is recorded when it is over.

A client may wait for the first event of a stream before it goes on, so that nothing is held back here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final, Protocol

from pytest_egress.errors import CassetteError, UpstreamError
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.recordings.reel import Reel
from pytest_egress.traffic.cassettes.making import recording_of
from pytest_egress.traffic.grpc import StatusError
from pytest_egress.traffic.http.made_body import MadeBody
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response, streams_events

CUT_SHORT: Final = (
    "its client has left, or its test was over, before the response was whole; of an event stream alone is recorded "
    "what came until then"
)
ENDS_OF_EVENTS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class RealServer(Protocol):
    """Sends one request to the real server. `gateway` implements it."""

    def ask_to_record(self) -> tuple[Response, MadeBody | None]:
        """Return the response, and what is to keep its body where that streams."""

    def left(self) -> ClientLeftError | None:
        """What has ended an exchange that broke off; None where the server did."""


def recorded(reel: Reel, request: Request, server: RealServer) -> Response:
    """The response of the real server, which is recorded when it is over.

    Raises:
        UpstreamError: The server cannot be reached, or broke off.
        CassetteError: The response cannot be recorded.
    """
    response, made = server.ask_to_record()
    if made is None:
        take(reel, request, response)
    else:
        response.stream = PassedBody(reel, request, response, made, server.left)
    return response


def take(reel: Reel, request: Request, response: Response) -> None:
    """Record a whole response. Raises CassetteError where it cannot be recorded."""
    try:
        reel.add(recording_of(request, response))
    except StatusError as error:
        raise unrecorded(reel, request, error.details) from None


def unrecorded(reel: Reel, request: Request, why: object) -> CassetteError:
    return CassetteError(
        f"{reel.name}: {request.method} {request.shown_url} is not recorded: {why}"
    )


class PassedBody(Iterator[bytes]):
    """The body of one response. It is recorded at its end; one that breaks off, by its server, is not.

    An event stream often has no end before its client leaves: then the events that came until then are recorded. Of any
    other body the rest is read when its client has left.

    Args:
        made: Keeps the body, for the ledger as well.
        left: Tells what has ended the exchange, as `RealServer.left`.
    """

    def __init__(
        self,
        reel: Reel,
        request: Request,
        response: Response,
        made: MadeBody,
        left: Callable[[], ClientLeftError | None],
    ) -> None:
        self._reel, self._request, self._left = reel, request, left
        self._response: Response | None = response  # its body refers to it weakly
        self._source: Any = response.stream
        self._pieces: Iterator[bytes] = iter(self._source)
        self._made, self._is_over = made, False
        self._is_of_events = streams_events(response)
        self._open = ExitStack()
        self._open.enter_context(reel.taking())

    def __next__(self) -> bytes:
        if self._is_over:
            raise StopIteration
        try:
            piece = self._next()
        except BaseException:
            self._release()
            raise
        if piece is None:
            raise StopIteration
        return piece

    def _next(self) -> bytes | None:
        """Return None at the end, when the recording has been taken."""
        try:
            piece = next(self._pieces, None)
        except UpstreamError as error:
            if (left := self._left()) is None:
                raise
            self._take(is_whole=False)
            raise left from error
        if piece is not None:
            self._made.add(piece)
            return piece
        self._take(is_whole=self._left() is None)  # the end of a body without a length may be ours
        self._release()
        return None

    def close(self) -> None:
        """Nobody reads the rest. Raises CassetteError where it cannot be recorded."""
        if self._is_over:
            return
        try:
            if self._is_of_events:
                self._take(is_whole=False)
                return
            while self._next() is not None:
                pass
        finally:
            self._release()

    def _release(self) -> None:
        self._is_over, self._response = True, None
        self._made.end()
        getattr(self._source, "close", lambda: None)()
        self._open.close()

    def _take(self, *, is_whole: bool) -> None:
        if not (is_whole or self._is_of_events):
            raise unrecorded(self._reel, self._request, CUT_SHORT)
        head = self._response
        assert head is not None
        try:
            content = self._made.content
        except RuntimeError as error:
            raise unrecorded(self._reel, self._request, error) from None
        content = content if is_whole else ended_events(content)
        whole = Response.received(
            head.status_code, head.headers, reason=head.reason, content=content
        )
        take(self._reel, self._request, whole)


def ended_events(content: bytes) -> bytes:
    """The events that have come whole, of a stream that was left."""
    ends = ((content.rfind(end), len(end)) for end in ENDS_OF_EVENTS)
    return content[: max(place + size if place >= 0 else 0 for place, size in ends)]
