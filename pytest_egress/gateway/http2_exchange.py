"""`Http2Exchange`: one request of HTTP/2 and its response. It has the request answered, and sends the response.

Everything runs on the thread that serves the stream. `answering` decides the response to the request.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_egress.base.account import OverLimitError
from pytest_egress.gateway.answering import Answering, BodyError
from pytest_egress.gateway.http1_server import http_date
from pytest_egress.gateway.http2_stream import Http2Stream
from pytest_egress.gateway.incoming import Incoming
from pytest_egress.gateway.patience import StalledError
from pytest_egress.gateway.request_faults import RequestFault
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.fields import carries_body
from pytest_egress.traffic.http1 import as_stated
from pytest_egress.traffic.http2 import response_headers, sendable
from pytest_egress.traffic.messages import Response


class Http2Exchange:
    """One request, and its response."""

    def __init__(self, stream: Http2Stream, answering: Answering) -> None:
        self.stream, self.answering = stream, answering
        self.incoming = answering.take(stream.attempt, stream.head, stream)

    def serve(self) -> None:
        answering, incoming = self.answering, self.incoming
        if note := self.stream.late_note:
            if self.stream.is_whole:
                _ = incoming.body.content
            answering.record_unanswered(incoming, note)
            return
        try:
            # What follows CONNECT is no body, and has no end before there is an answer (RFC 9113 section 8.5).
            if self.stream.head.method != "CONNECT" and not answering.begins_at_head(incoming):
                self._keep_body()
            entry, response = answering.answer(incoming)
        except OverLimitError as error:
            self._refuse_body(413, str(error), is_refused=True)
        except ClientLeftError as error:
            text = f"the body broke off after {incoming.body.size} bytes ({error})"
            self._refuse_body(400, text)
        except StalledError as error:
            text = f"{error} after {incoming.body.size} bytes of a body"
            self._refuse_body(408, text)
        else:
            if entry.fault is not None:
                self._fail(entry, response)
            elif response is not None:
                self._respond(entry, response)

    def _fail(self, entry: Exchange, response: Response | None) -> None:
        def send(spoiled: Response | None) -> bool:
            return spoiled is None or self._respond(entry, spoiled)

        RequestFault(self.answering, self.incoming, entry, response, send).carry_out()

    def _respond(self, entry: Exchange, response: Response) -> bool:
        """False where the response was broken off."""
        said = response.headers.get("connection", "").lower()
        self.stream.ends_connection = "close" in said
        return self._send(self.incoming, entry, response)

    def _keep_body(self) -> None:
        self.stream.is_kept_whole = True
        _ = self.incoming.body.content
        self.stream.is_kept_whole = False

    def _refuse_body(self, status_code: int, text: str, *, is_refused: bool = False) -> None:
        """Record a request whose body was not read to its end, and answer with an error status."""
        entry = self.answering.record_unanswered(self.incoming, text, is_refused=is_refused)
        response = Response(status_code, text=text)
        try:
            self._send_whole(entry, response)
        except ClientLeftError:
            return
        entry.response = response

    def _send(self, incoming: Incoming, entry: Exchange, response: Response) -> bool:
        """False where the response was broken off: one whose body fails after its head ends with RST_STREAM."""
        streams = response.stream is not None and carries_body(entry.request.method, response)
        pieces = self.answering.pieces(
            incoming, entry, response, lambda: body_of(response, streams=streams)
        )
        try:
            next(pieces)
            if streams:
                self._send_stream(entry, response, pieces)
            else:
                self._send_whole(entry, response)
        except BodyError:
            self.stream.reset()
            return False
        except OSError as error:
            self.answering.client_left(entry, error)
            return False
        finally:
            pieces.close()
            if response.stream is not None:
                self.answering.close_body(entry, response)
        return True

    def _send_stream(self, entry: Exchange, response: Response, pieces: Iterator[bytes]) -> None:
        if not self.stream.has_begun:
            date = http_date(int(entry.started))
            head = response_headers(response, date, framed=False)
            self.stream.start(response.status_code, head)
        for piece in pieces:
            self.stream.send(piece)
        self.stream.finish(response.trailers)

    def _send_whole(self, entry: Exchange, response: Response) -> None:
        if self.stream.has_begun:  # a body that is not sent was late
            self.stream.finish()
            return
        date = http_date(int(entry.started))
        head = response_headers(response, date, framed=response.stream is None)
        bodiless = response.stream is not None or not carries_body(entry.request.method, response)
        content = b"" if bodiless else response.content
        self.stream.respond(response.status_code, head, content)


def body_of(response: Response, *, streams: bool) -> Iterator[bytes]:
    """Yield b"" where HTTP/2 can carry the head of a response, and then the pieces of a streamed body.

    Raises:
        ValueError: A field cannot be sent, or the body is not what the fields say.
    """
    sendable(response.headers)
    yield b""
    if streams and response.stream is not None:
        yield from as_stated(response.stream, response)
        sendable(response.last_trailers())
