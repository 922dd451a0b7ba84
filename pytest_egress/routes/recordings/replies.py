"""The response that was recorded, as a client gets it now: that of a request, or of a handshake that was refused."""

from __future__ import annotations

from typing import Any

from pytest_egress.routes.recordings.calls import replayed_call
from pytest_egress.routes.recordings.reel import PLAYED, Played, Reel
from pytest_egress.traffic.cassettes.bodies import RecordedBody, content_of, sent_events
from pytest_egress.traffic.cassettes.placeholders import Stands
from pytest_egress.traffic.http.headers import checked_fields
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response, reason_phrase


def played(found: Played, request: Request, reel: Reel) -> Response:
    """The recorded response, with what placeholders stand for in the container."""
    answered, stands = found.recording.response, reel.stands(request)
    if found.recording.request.is_call:
        response = replayed_call(answered, request, stands, reel.place_of(found.number - 1))
    else:
        headers = checked_fields([(name, stands.filled(value)) for name, value in answered.headers])
        response = Response.received(
            answered.status,
            headers,
            reason=reason_phrase(answered.status),
            **content_and_stream(answered.body, stands),
        )
    response._note = PLAYED.format(found.number, reel.name)
    return response


def content_and_stream(body: RecordedBody, stands: Stands) -> dict[str, Any]:
    """Events are a stream."""
    if body.key == "events":
        return {"stream": [bytes(event) for event in sent_events(stands.filling(body.value))]}
    return {"content": content_of(filled(body, stands))}


def refused(found: Played, request: Request, reel: Reel) -> Response:
    """As `played`, whole: of a handshake, which no stream answers."""
    response = played(found, request, reel)
    if response.stream is None:
        return response
    whole = Response.received(
        response.status_code,
        response.headers,
        reason=response.reason,
        content=b"".join(response.stream),
    )
    whole._note = response._note
    return whole


def filled(body: RecordedBody, stands: Stands) -> RecordedBody:
    return body if body.key == "base64" else body._replace(value=stands.filling(body.value))
