"""`Http2Exchange`: one request of HTTP/2 and its response. It reads the body, has it answered, and sends the response.

Everything runs on the stream's worker. `answering` decides the response to the request.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_egress.gateway.answering import Answering, BodyError, Incoming
from pytest_egress.gateway.http1_server import http_date
from pytest_egress.gateway.http2_stream import Http2Stream
from pytest_egress.ledger.ledger import MAX_HELD_BYTES, Ledger
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.entries import Exchange, Outcome
from pytest_egress.traffic.fields import MAX_BODY_BYTES, RequestTooLargeError, carries_body
from pytest_egress.traffic.http1 import of_length
from pytest_egress.traffic.http2 import response_headers, sendable
from pytest_egress.traffic.messages import Response, stated_length

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


class Http2Exchange:
    """One request, and its response.

    Args:
        stream: The request's stream.
        answering: Answers the request.
        ledger: Counts what is kept of it.
    """

    def __init__(self, stream: Http2Stream, answering: Answering, ledger: Ledger) -> None:
        self.stream, self.answering, self.ledger = stream, answering, ledger
        self._body = bytearray()

    def serve(self) -> None:
        """Read the body, have the request answered, send the response."""
        try:
            self._read_body()
        except RequestTooLargeError as error:
            text = str(error) or f"the body is over MAX_BODY_BYTES, {MAX_BODY_BYTES} bytes"
            self._refuse_body(413, text, at_claimed="unrouted")
        except ClientLeftError as error:
            text = f"the body broke off after {len(self._body)} bytes ({error})"
            self._refuse_body(400, text, at_claimed="recorded")
        else:
            incoming = self._take()
            entry, response = self.answering.answer(incoming)
            said = response.headers.get("connection", "").lower()
            self.stream.ends_connection = "close" in said
            self._send(incoming, entry, response)

    def _take(self) -> Incoming:
        stream = self.stream
        return self.answering.take(stream.attempt, stream.head, bytes(self._body), stream.trailers)

    def _read_body(self) -> None:
        """Read the whole body.

        Raises:
            RequestTooLargeError: It is, or is announced to be, over a limit.
            ClientLeftError: The client has left before its end.
        """
        if (self.stream.head.expected or 0) > MAX_BODY_BYTES:
            raise RequestTooLargeError
        window = self.stream.attempt.context.window
        while piece := self.stream.receive():
            if not self.ledger.hold(window, len(piece)):
                text = f"all that was sent is over MAX_HELD_BYTES, {MAX_HELD_BYTES} bytes"
                raise RequestTooLargeError(text)
            self._body += piece
            if len(self._body) > MAX_BODY_BYTES:
                raise RequestTooLargeError

    def _refuse_body(self, status_code: int, text: str, at_claimed: Outcome) -> None:
        """Record a request whose body was not read to its end, and answer with an error status."""
        entry = self.answering.record_unanswered(self._take(), at_claimed, text)
        response = Response(status_code, text=text)
        try:
            self._send_whole(response, "GET")
        except ClientLeftError:
            return
        entry.response = response

    def _send(self, incoming: Incoming, entry: Exchange, response: Response) -> None:
        """Send a response. One whose body fails after its head ends with RST_STREAM."""
        stream, method = self.stream, entry.request.method
        streams = response.stream is not None and carries_body(method, response)
        pieces = self.answering.pieces(
            incoming, entry, response, lambda: body_of(response, streams=streams)
        )
        try:
            next(pieces)
            if not streams:
                self._send_whole(response, method)
                return
            date = http_date(int(entry.started))
            stream.start(response.status_code, response_headers(response, date, framed=False))
            for piece in pieces:
                stream.send(piece)
            stream.finish(response.trailers)
        except BodyError:
            stream.reset()
        except OSError as error:
            self.answering.client_left(entry, error)
        finally:
            pieces.close()
            if response.stream is not None:
                self.answering.close_body(entry, response)

    def _send_whole(self, response: Response, method: str) -> None:
        date = http_date(int(self.ledger.now()))
        headers = response_headers(response, date, framed=response.stream is None)
        content = response.content if carries_body(method, response) else b""
        self.stream.respond(response.status_code, headers, content)


def body_of(response: Response, *, streams: bool) -> Iterator[bytes]:
    """Yield b"" where HTTP/2 can carry the head of a response, and then the pieces of a streamed body.

    Raises:
        ValueError: A field cannot be sent, or the body is not as long as Content-Length says.
    """
    sendable(response.headers)
    yield b""
    if streams and response.stream is not None:
        yield from of_length(response.stream, stated_length(response.headers))
        sendable(response.trailers)
