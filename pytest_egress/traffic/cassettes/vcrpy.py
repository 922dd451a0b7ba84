"""Cassettes of VCR.py, version 1: `interactions`, and `version: 1`. They are read, never written."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.bodies import NO_BODY, RecordedBody, body_of
from pytest_egress.traffic.cassettes.making import NOT_KEPT
from pytest_egress.traffic.cassettes.tape import (
    RecordedFields,
    RecordedRequest,
    RecordedResponse,
    Recording,
    Tape,
)
from pytest_egress.traffic.http.content_coding import MAX_DECODED_BYTES, decode
from pytest_egress.traffic.http.headers import checked_fields
from pytest_egress.traffic.shown import shown


def is_vcrpy(value: Any) -> bool:
    return isinstance(value, dict) and value.get("version") == 1 and "interactions" in value


def tape_of_vcrpy(value: dict[str, Any], name: str) -> Tape:
    interactions = value["interactions"] or []
    if not isinstance(interactions, list):
        raise CassetteError(f"{name}: interactions is no list")
    recordings = []
    for number, each in enumerate(interactions, 1):
        try:
            recordings.append(recording_from(each))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            line = getattr(each, "line", 0)
            raise CassetteError(
                f"{name}: line {line}: interaction {number} is none of VCR.py's: "
                f"{type(error).__name__}: {error}"
            ) from None
    return Tape(recordings=tuple(recordings))


def recording_from(each: Any) -> Recording:
    asked, answered = each["request"], each["response"]
    for key in ("method", "uri"):
        if not isinstance(asked[key], str) or not asked[key]:
            raise ValueError(f"{key}: {shown(asked[key])} is no text")
    status = int(answered["status"]["code"])
    if not 200 <= status <= 599:
        raise ValueError(f"its status, {status}, is no number from 200 to 599")
    asked_fields = tuple(fields(asked.get("headers") or {}))
    request = RecordedRequest(
        method=asked["method"],
        url=asked["uri"],
        headers=asked_fields,
        body=body_from(asked.get("body"), asked_fields, of="request"),
    )
    headers = tuple(fields(answered.get("headers") or {}))
    checked_fields(headers)
    response = RecordedResponse(
        status=status,
        headers=without_coding(headers),
        body=body_from(answered.get("body"), headers, of="response"),
    )
    return Recording(request=request, response=response, line=getattr(each, "line", 0))


def fields(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            if name.lower() not in NOT_KEPT:
                text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
                yield name.lower(), text


def without_coding(headers: RecordedFields) -> RecordedFields:
    return tuple(pair for pair in headers if pair[0] != "content-encoding")


def body_from(body: Any, headers: RecordedFields, *, of: str) -> RecordedBody:
    """The text that VCR.py has put into a string, or the bytes into base64, as what it is."""
    if isinstance(body, dict):
        encoded = body.get("base64_string")
        body = base64.b64decode(encoded) if encoded else body.get("string")
    if not body:
        return NO_BODY
    content = body if isinstance(body, bytes) else str(body).encode()
    known = dict(headers)
    if of == "response" and (coding := known.get("content-encoding")) and isinstance(body, bytes):
        content = decode(content, coding, MAX_DECODED_BYTES)
    return body_of(content, known.get("content-type", ""), of=of)
