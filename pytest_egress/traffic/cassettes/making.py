"""A recording of what was asked and answered, before its secrets are replaced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pytest_egress.errors import ContentError
from pytest_egress.traffic.cassettes.bodies import SIGNS_BYTES, RecordedBody, body_of
from pytest_egress.traffic.cassettes.messages import (
    CallTurn,
    messages_in,
    shown_turn,
    shown_turns,
    takes_turns,
)
from pytest_egress.traffic.cassettes.tape import (
    LEFT_OPEN,
    RecordedFields,
    RecordedRequest,
    RecordedResponse,
    Recording,
)
from pytest_egress.traffic.cassettes.websocket import shown_conversation, url_of_websocket
from pytest_egress.traffic.grpc import OF_THE_PROTOCOL, Code, StatusError, is_grpc, status_in
from pytest_egress.traffic.http.content_coding import MAX_DECODED_BYTES, decode
from pytest_egress.traffic.http.forms import is_multipart, parse_multipart
from pytest_egress.traffic.http.headers import OF_A_CONNECTION, Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.websocket import OF_A_HANDSHAKE, WebSocketMessage

NOT_KEPT: Final = OF_A_CONNECTION | {
    *("age", "content-length", "date", "expect", "host", "sec-websocket-accept"),
    *("sec-websocket-key", "traceparent", "tracestate", "user-agent"),
}
"""RecordedFields of one connection, of one message, and of the client's own version: they change without meaning."""

ITS_OWN: Final = OF_A_HANDSHAKE - {"sec-websocket-protocol"}
"""Fields that each handshake has anew."""

MOST_STATUS: Final = 599

BOUNDARY: Final = "egress-boundary"
"""In place of the boundary that a client has drawn for a form."""


def recording_of(request: Request, response: Response) -> Recording:
    """The recording of an exchange whose bodies are whole.

    Raises:
        StatusError: It is a call of gRPC that is malformed, or its status is none of HTTP's.
    """
    if is_grpc(request):
        content = response.content or b"".join(response.stream or ())
        asked = [CallTurn(True, each) for each in messages_in(request.content, request.headers)]
        answered = [CallTurn(False, each) for each in messages_in(content, response.headers)]
        return recording_of_call(request, [*asked, CallTurn(True, None), *answered], response)
    return Recording(
        request=recorded_request(request), response=recorded_response(request, response)
    )


def recording_of_call(
    request: Request, turns: Sequence[CallTurn], response: Response | None, *, is_left: bool = False
) -> Recording:
    """The recording of a call. StatusError: its answer is none of gRPC.

    Args:
        turns: What both sides have sent, in its order.
        response: Its head and its trailers; None where there was none.
        is_left: Whether the client has left before the status.
    """
    asked = RecordedRequest(
        method="POST",
        url=request.url,
        headers=kept(request.headers, "accept-encoding", *OF_THE_PROTOCOL),
        is_call=True,
    )
    answered = left_open(response) if is_left or response is None else outcome_of(response)
    if is_left or takes_turns(turns):
        body = RecordedBody("turns", shown_turns(turns, request.path))
        return Recording(request=asked, response=replace(answered, body=body))
    sent = [shown_turn(turn, request.path) for turn in turns if turn.message is not None]
    one, other = (
        RecordedBody("messages", [turn[which] for turn in sent if which in turn])
        for which in ("send", "receive")
    )
    return Recording(request=replace(asked, body=one), response=replace(answered, body=other))


def left_open(response: Response | None) -> RecordedResponse:
    headers = () if response is None else kept(response.headers, *OF_THE_PROTOCOL)
    return RecordedResponse(status=LEFT_OPEN, headers=headers)


def outcome_of(response: Response) -> RecordedResponse:
    """Of a status alone all fields are its metadata."""
    code, details = status_in(response.trailers, response.headers)
    if code is None:
        raise StatusError(Code.UNKNOWN, f"the answer, {response.status_code}, has no grpc-status")
    has_head = "grpc-status" in response.trailers
    return RecordedResponse(
        status=code,
        details=details,
        headers=kept(response.headers, *OF_THE_PROTOCOL) if has_head else (),
        trailers=kept(response.trailers if has_head else response.headers, *OF_THE_PROTOCOL),
    )


def recording_of_websocket(
    request: Request,
    response: Response,
    messages: Iterable[WebSocketMessage],
    closing: tuple[int, str] | None,
) -> Recording:
    """The recording of a WebSocket that is over.

    Args:
        closing: The code and the reason of the server, where it has closed first.
    """
    code, reason = closing or (0, "")
    return Recording(
        request=recorded_handshake(request),
        response=RecordedResponse(
            status=code,
            details=reason,
            headers=kept(response.headers, *ITS_OWN),
            body=RecordedBody("conversation", shown_conversation(messages)),
        ),
    )


def recording_of_refusal(request: Request, response: Response) -> Recording:
    """The recording of a handshake that the server has answered by a response, and has opened no WebSocket."""
    return Recording(
        request=recorded_handshake(request), response=recorded_response(request, response)
    )


def recorded_handshake(request: Request) -> RecordedRequest:
    return RecordedRequest(
        method="GET",
        url=url_of_websocket(request.url),
        headers=kept(request.headers, "accept-encoding", *ITS_OWN),
        is_websocket=True,
    )


def recorded_request(request: Request) -> RecordedRequest:
    headers = kept(request.headers, "accept-encoding")
    try:
        content = request.content
        headers = tuple(pair for pair in headers if pair[0] != "content-encoding")
    except ContentError:  # it is kept as it was sent
        content = request.raw_content
    content_type = request.headers.get("content-type", "")
    if is_multipart(content_type):
        content, headers = with_steady_boundary(content, content_type, headers)
    is_signed = is_signed_by(request.headers)
    body = body_of(content, content_type, of="request", is_signed=is_signed)
    return RecordedRequest(method=request.method, url=request.url, headers=headers, body=body)


def recorded_response(request: Request, response: Response) -> RecordedResponse:
    """The body is kept without its coding, and the response to a HEAD with its length.

    Raises:
        StatusError: No cassette has its status.
    """
    if response.status_code > MOST_STATUS:
        raise StatusError(
            Code.UNKNOWN,
            f"its status, {response.status_code}, is none of HTTP's: answer it by a handler",
        )
    headers, content = kept(response.headers), response.content
    coding = response.headers.get("content-encoding", "")
    try:
        content = decode(content, coding, MAX_DECODED_BYTES)
        headers = tuple(pair for pair in headers if pair[0] != "content-encoding")
    except ContentError:
        pass
    if request.method == "HEAD" and (length := response.headers.get("content-length")):
        headers = (*headers, ("content-length", length))
    is_signed = is_signed_by(response.headers)
    content_type = response.headers.get("content-type", "")
    body: RecordedBody = body_of(content, content_type, of="response", is_signed=is_signed)
    return RecordedResponse(status=response.status_code, headers=headers, body=body)


def kept(headers: Headers, *others: str) -> RecordedFields:
    """The fields that a recording has, by their names in lower case."""
    listed = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    dropped = NOT_KEPT | listed | {*others}
    return tuple(
        (name.lower(), value) for name, value in headers.raw if name.lower() not in dropped
    )


def is_signed_by(headers: Headers) -> bool:
    return any(name.lower() in SIGNS_BYTES for name, _ in headers.raw)


def with_steady_boundary(
    content: bytes, content_type: str, headers: RecordedFields
) -> tuple[bytes, RecordedFields]:
    """A form in parts with a boundary that is the same each time, where that changes nothing else."""
    from python_multipart.multipart import parse_options_header

    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    steady = content.replace(b"--" + boundary, b"--" + BOUNDARY.encode())
    new_type = f"multipart/form-data; boundary={BOUNDARY}"
    try:
        same = bool(boundary) and same_parts(content, content_type, steady, new_type)
    except ContentError:
        same = False
    if not same:
        return content, headers
    return steady, with_type(headers, new_type)


def same_parts(content: bytes, content_type: str, other: bytes, other_type: str) -> bool:
    one, two = parse_multipart(content, content_type), parse_multipart(other, other_type)
    return one.fields.raw == two.fields.raw and one.files.raw == two.files.raw


def with_type(headers: Iterable[tuple[str, str]], content_type: str) -> RecordedFields:
    return tuple(
        (name, content_type if name == "content-type" else value) for name, value in headers
    )
