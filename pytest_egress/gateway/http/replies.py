"""Replies of our own: to requests that no route answers, and to those whose handler has raised."""

from __future__ import annotations

from typing import Final

from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.ledger.refusals import (
    blocked_body,
    handler_error_body,
    refused_body,
    unrouted_body,
)
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import SHOWN_DETAILS, Code, status_head
from pytest_egress.traffic.http.headers import Headers, HeaderSource
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.shown import cut
from pytest_egress.traffic.websocket import WEBSOCKET

NO_WEBSOCKET: Final = (
    "over HTTP/2 the status {} would tell its client that a WebSocket is open (RFC 8441 section 5), so that 501 was "
    "sent: websocket(handler) opens one"
)


def own_reply(
    entry: Exchange,
    status_code: int,
    text: str,
    code: Code = Code.UNIMPLEMENTED,
    headers: HeaderSource | None = None,
) -> Response:
    """To a call of gRPC the response is a status, since clients show no body.

    Args:
        code: The status of gRPC. UNIMPLEMENTED keeps clients from trying again.
    """
    call = entry.grpc
    if call is None or entry.request.http_version != "2":
        return Response(status_code, text=text, headers=headers)
    call.code, call.details = code, cut(text.strip(), SHOWN_DETAILS)
    fields = [*status_head(code, call.details).raw, *Headers(headers or ()).raw]
    return Response(200, headers=fields)


def misdirected_reply(entry: Exchange) -> Response:
    """The request is for another host than its connection is for: 421 (RFC 9110 section 15.5.20)."""
    return own_reply(entry, 421, refused_body(entry))


def unproved_reply(entry: Exchange) -> Response:
    """The handshake was another than the route wants: 421, after which a client may make another connection."""
    return own_reply(entry, 421, refused_body(entry), headers={"Connection": "close"})


def failed_reply(entry: Exchange) -> Response:
    return own_reply(entry, 500, handler_error_body(entry), Code.UNKNOWN)


def rejected_reply(entry: Exchange) -> Response:
    blocked = entry.outcome == "blocked"
    return own_reply(entry, 502, blocked_body(entry) if blocked else unrouted_body(entry))


def no_reply(entry: Exchange) -> Response | None:
    raise AssertionError(f"{entry} gets no answer here")


def opens_no_websocket(incoming: Incoming, response: Response) -> bool:
    """Whether a response would tell a client of HTTP/2 that its WebSocket is open, and none is."""
    return incoming.head.protocol == WEBSOCKET and response.status_code < 300


def no_websocket_reply(entry: Exchange, response: Response) -> Response:
    """In place of a response that `opens_no_websocket`."""
    entry.note = NO_WEBSOCKET.format(response.status_code)
    return Response(501, text=entry.note)
