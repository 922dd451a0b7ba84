"""Calls of gRPC: how one differs from a recorded one, and the answer that was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_egress.errors import CassetteError
from pytest_egress.routes.json_bodies import json_differences
from pytest_egress.routes.patterns import contrast
from pytest_egress.traffic.cassettes.messages import (
    class_of,
    messages_in,
    not_imported,
    sent_message,
    shown_message,
    untextual,
)
from pytest_egress.traffic.cassettes.placeholders import Stands
from pytest_egress.traffic.cassettes.tape import RecordedResponse
from pytest_egress.traffic.grpc import CONTENT_TYPE, StatusError, frame, status_fields
from pytest_egress.traffic.http.headers import checked_fields
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import counted, shown


def call_differences(wanted: list[Any], request: Request, stands: Stands) -> Iterator[str]:
    """How the messages of a call differ from the recorded ones."""
    try:
        found = messages_in(request.content, request.headers)
    except StatusError as error:
        yield f"messages: {error.details}"
        return
    if len(found) != len(wanted):
        yield f"messages: {counted(len(found), 'message')}, expected {len(wanted)}"
        return
    for number, (mine, theirs) in enumerate(zip(wanted, found, strict=True)):
        yield from message_differences(f"messages[{number}]", mine, theirs, request, stands)


def message_differences(
    place: str, wanted: Any, data: bytes, request: Request, stands: Stands
) -> Iterator[str]:
    redactor = redactor_of(request)
    if isinstance(wanted, str):
        mine = sent_message(wanted, request.path, "request")
        if not stands.fits(mine.decode("latin-1"), data.decode("latin-1")):
            masks: tuple[Any, Any] = redactor.content(data), redactor.content(mine)
            yield f"{place}: {contrast(data, mine, masks, masks[1])}"
        return
    if (kind := class_of(request.path, "request")) is None:
        yield f"{place}: {not_imported(request.path)}"
        return
    found = shown_message(data, kind)
    if isinstance(found, str):
        yield f"{place}: it has what the imported code of {kind.DESCRIPTOR.full_name} does not know"
        return
    yield from json_differences(stands.expecting(wanted), found, place, redactor=redactor)


def replayed_message(message: Any, path: str, stands: Stands) -> bytes:
    """The bytes of a recorded message. ValueError says why there are none."""
    if isinstance(message, str):
        return sent_message(message, path, "response")
    if (kind := class_of(path, "response")) is not None:
        for place, text in untextual(message, kind.DESCRIPTOR):
            if stands.has_any(text):
                raise ValueError(
                    f"{place}: {shown(text)} has a placeholder in a field that takes no text: write a value for it"
                )
    return sent_message(stands.filling(message), path, "response")


def replayed_call(
    answered: RecordedResponse, request: Request, stands: Stands, place: str
) -> Response:
    """The recorded answer to a call. CassetteError says which message cannot be sent."""
    pieces = []
    for number, each in enumerate(answered.body.value or ()):
        try:
            pieces.append(frame(replayed_message(each, request.path, stands)))
        except ValueError as error:
            raise CassetteError(f"{place}: response.messages[{number}]: {error}") from None
    status = status_fields(answered.status, stands.filled(answered.details))
    head, tail = (
        [(name, stands.filled(value)) for name, value in fields]
        for fields in (answered.headers, answered.trailers)
    )
    return Response.received(
        200,
        checked_fields([("content-type", CONTENT_TYPE), *head]),
        reason="OK",
        stream=tuple(pieces),
        trailers=checked_fields([*status, *tail]),
    )
