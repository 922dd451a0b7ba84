"""`Sending`: sends a response by the duplex of its request, and notes what comes of it.

The rule: no version of HTTP is known here. A whole response is one call of `Duplex.respond`, which knows how that
becomes one write. A stream is `start`, `send` and `finish`. Everything runs on the thread that answers the request, but
for the head of a stream whose first piece is late: an alarm's thread sends that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from pytest_egress.gateway.http.forwarding import RESPONSES, Carrier
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.http.late_heads import LateHead
from pytest_egress.gateway.http.replies import opens_no_websocket
from pytest_egress.gateway.http.spoiling import StoppedError
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.gateway.upstream.body import UpstreamBody
from pytest_egress.ledger.windows import STILL_STREAMED, Streams
from pytest_egress.routes.duplex import ClientLeftError, Duplex
from pytest_egress.traffic.entries import Exchange, note_message
from pytest_egress.traffic.http.head import MAX_BODY_BYTES
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers, size_of
from pytest_egress.traffic.http.made_body import (
    BY_ITS_ROUTE,
    MAX_MADE_BYTES,
    OVER_HELD,
    KeptStream,
    MadeBody,
    never,
)
from pytest_egress.traffic.http.response import (
    Response,
    as_stated,
    carries_body,
    streams_events,
)

ALT_SVC: Final = 'h3=":{}"; ma=60'
"""A minute is longer than most tests. A container that goes on to the next one asks anew."""

FREE_BYTES: Final = 1024
"""The content of a response that is kept without being counted: `MAX_ENTRIES` bounds all of them well enough."""


class Sending:
    """Sends the responses to the requests of one carrier. It keeps no state of a request."""

    def __init__(self, carrier: Carrier, recorder: Recorder) -> None:
        self._carrier, self._recorder, self._ledger = carrier, recorder, recorder.ledger

    def count(self, incoming: Incoming, entry: Exchange) -> None:
        """No lock is needed: the alarm's thread that sends a head alone counts too, but `LateHead.end` waits for it."""
        if not incoming.is_counted:
            incoming.is_counted = True
            self._recorder.count(incoming.attempt.context, entry)

    def kept(self, incoming: Incoming, response: Response) -> Response:
        """A response as its entry has it: where it streams, its body is kept there as it is made, if it is not long."""
        if response.stream is None:
            return self._kept_whole(incoming, response)
        if response._record is not None:
            return response._record
        limit, why = MAX_MADE_BYTES, ""
        if isinstance(response.stream, UpstreamBody):
            route, limit = incoming.forwarding.route, MAX_BODY_BYTES
            why = BY_ITS_ROUTE if route is not None and route.stream else ""
        account = incoming.attempt.context.window.account
        made = MadeBody(limit, account.hold(RESPONSES).fits, why)
        response.stream = KeptStream(response.stream, made)
        record = response.recorded(made)
        if not account.has_room(size_of(response.headers), RESPONSES):
            record.headers = NO_FIELDS
        return record

    def _kept_whole(self, incoming: Incoming, response: Response) -> Response:
        """The response has no content in its entry where the window has no room for that."""
        content, account = response.own_content, incoming.attempt.context.window.account
        if len(content) <= FREE_BYTES or account.has_room_once(content, RESPONSES):
            return response
        made = MadeBody(0, never, OVER_HELD)
        made.add(response.content)
        fields, reason = response.headers, response.reason
        return Response.received(response.status_code, fields, reason=reason, made=made)

    @contextmanager
    def beginning(
        self, incoming: Incoming, entry: Exchange, response: Response
    ) -> Iterator[LateHead]:
        """Send the head of a response alone where the `with` block takes long: it makes the first piece of the body."""
        head = LateHead(partial(self._send_head, incoming, entry, response))
        alarm = self._ledger.late_heads.set(head.ring)
        try:
            yield head
        finally:
            alarm.call_off()
            head.end()

    def _send_head(self, incoming: Incoming, entry: Exchange, response: Response) -> bool:
        """The call is counted before the head is sent; False where the head is not to be sent."""
        if opens_no_websocket(incoming, response):
            return False
        entry.response = self.kept(incoming, response)
        entry.duration = self._ledger.now() - entry.started
        self.count(incoming, entry)
        headers = advertising(incoming, response).headers
        incoming.duplex.start(response.status_code, headers, reason=response.reason)
        incoming.attempt.activity.streams = streams_of(response)
        return True

    def send(
        self,
        incoming: Incoming,
        entry: Exchange,
        response: Response,
        duplex: Duplex,
        *,
        is_cut: bool = False,
    ) -> bool:
        """False where the response was broken off: by its client, or by an error that its entry has then.

        Args:
            duplex: That of the request, or what a fault has put before it.
            is_cut: Whether that cuts the body, which then need not be as long as its Content-Length says.
        """
        response = advertising(incoming, response)
        try:
            if response.stream is None:
                duplex.respond(response)
            else:
                self._stream(incoming, entry, response, duplex, is_cut=is_cut)
        except ClientLeftError as error:
            if entry.outcome == "routed" and not isinstance(error, StoppedError):
                why = f"the client closed before the whole response was sent ({error})"
                why = f"{why}; {response._note}" if response._note else why
                entry.note = entry.note if entry.note.startswith(STILL_STREAMED) else why
            return False
        except BaseException as error:  # of the body, or about a response that HTTP cannot carry
            if is_forwarded(response):  # no handler is to blame
                entry.note = str(incoming.forwarding.left() or error)
            else:
                entry.error = entry.error or error
            duplex.reset()
            return False
        finally:
            if response.stream is not None:
                self.close(entry, response)
        return True

    def _stream(
        self,
        incoming: Incoming,
        entry: Exchange,
        response: Response,
        duplex: Duplex,
        *,
        is_cut: bool,
    ) -> None:
        activity = incoming.attempt.activity
        if is_forwarded(response) or incoming.forwarding.passes_on:
            activity.is_abandoned = self._carrier.has_left
        if entry.outcome == "passthrough":
            self._carrier.allow_unread(entry.route, entry.host)
            activity.passes = entry.route
        else:
            activity.what, activity.route = entry, entry.route  # its handler still runs
        activity.streams = streams_of(response)
        try:
            self._send_pieces(incoming, entry, response, duplex, is_cut=is_cut)
        except ClientLeftError:
            raise
        except BaseException as error:
            left = incoming.forwarding.left() if is_forwarded(response) else None
            if left is None or isinstance(left, StoppedError):
                raise
            raise left from error
        finally:
            activity.rest()
            self._carrier.read_again()

    def _send_pieces(
        self,
        incoming: Incoming,
        entry: Exchange,
        response: Response,
        duplex: Duplex,
        *,
        is_cut: bool,
    ) -> None:
        has_begun = incoming.duplex.has_begun  # its head has gone alone
        if not carries_body(incoming.head.method, response):
            duplex.finish() if has_begun else duplex.respond(response)
            return
        if not has_begun:
            duplex.start(response.status_code, response.headers, reason=response.reason)
        pieces = response.stream if is_cut else as_stated(response.stream, response)
        account = incoming.attempt.context.window.account
        for piece in pieces:
            note_message(entry, account, piece, from_client=False)
            duplex.send(piece)
        if not is_forwarded(response):  # else another thread may send what still comes
            self.search_rest(incoming)
        duplex.finish(response.last_trailers())

    def search_rest(self, incoming: Incoming, response: Response | None = None) -> None:
        """Search what comes before a response ends, since the rest is discarded; of one that streams when it has."""
        body, head = incoming.body, incoming.head
        if body.passing is None or head.method == "CONNECT":  # which has no body
            return
        if response is not None and response.stream is not None:
            return
        if (
            body.streamed is not None or "expect" not in head.headers
        ):  # who waits for 100 sends nothing
            body.search_rest()

    def close(self, entry: Exchange, response: Response) -> None:
        """Close a streamed body, so that its generator's `finally` runs, even if the client has not read it all."""
        try:
            getattr(response.stream, "close", lambda: None)()
        except BaseException as error:  # raised in its `finally`
            entry.error = entry.error or error


def advertising(incoming: Incoming, response: Response) -> Response:
    """A response that tells its client of HTTP/3 where its route speaks that (RFC 7838 section 3)."""
    route = incoming.forwarding.route
    if route is None or not route.http3 or incoming.head.http_version == "3":
        return response
    if "alt-svc" in response.headers:
        return response
    response = copy.copy(response)
    field = "Alt-Svc", ALT_SVC.format(incoming.request.port)
    response.headers = Headers([*response.headers.raw, field])
    return response


def streams_of(response: Response) -> Streams:
    """What a response sends piece by piece: "events", which usually have no end, another "body", or ""."""
    if response.stream is None:
        return ""
    return "events" if streams_events(response) else "body"


def is_forwarded(response: Response) -> bool:
    """Whether the body is that of a real server's response, as it comes."""
    stream = response.stream
    return isinstance(stream.source if isinstance(stream, KeptStream) else stream, UpstreamBody)
