"""HAR files of browsers, proxies and Playwright, version 1.2: their requests and responses. They are never written."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urldefrag, urlencode

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
from pytest_egress.traffic.http.headers import checked_fields

FILE: Final = re.compile(r"[\w.-]{1,200}", re.ASCII)
"""The name of a file beside a HAR, as Playwright writes it: no path."""


def tape_of_har(value: dict[str, Any], name: str, beside: Callable[[str], bytes]) -> Tape:
    """Entries without a response are left out: they were cut, or blocked. So are those whose body was not kept."""
    entries = value["log"].get("entries")
    if not isinstance(entries, list):
        raise CassetteError(f"{name}: the HAR has no entries")
    recordings = []
    for number, entry in enumerate(entries, 1):
        try:
            if is_answered(entry):
                recordings.append(recording_from(entry, beside))
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise CassetteError(
                f"{name}: entry {number} cannot be replayed: {type(error).__name__}: {error}"
            ) from None
    return Tape(recordings=tuple(recordings))


def is_answered(entry: Any) -> bool:
    status = entry["response"].get("status")
    is_http = str(entry["request"]["url"]).partition(":")[0].lower() in ("http", "https")
    return is_http and type(status) is int and 200 <= status <= 599 and has_body(entry)


def has_body(entry: Any) -> bool:
    """False where the response had a body that the file has not, as browsers leave out what they no longer keep."""
    content = entry["response"].get("content") or {}
    size = content.get("size")
    is_without = not any(key in content for key in ("text", "_file"))
    is_head = str(entry["request"]["method"]).upper() == "HEAD"
    return not (is_without and not is_head and isinstance(size, (int, float)) and size > 0)


def recording_from(entry: Any, beside: Callable[[str], bytes]) -> Recording:
    asked, answered = entry["request"], entry["response"]
    request = RecordedRequest(
        method=str(asked["method"]).upper(),
        url=urldefrag(asked["url"])[0],
        headers=tuple(fields(asked)),
        body=posted(asked.get("postData")),
    )
    headers = tuple(pair for pair in fields(answered) if pair[0] != "content-encoding")
    checked_fields(headers)
    return Recording(
        request=request,
        response=RecordedResponse(
            status=answered["status"],
            headers=headers,
            body=content_from(answered.get("content") or {}, headers, beside),
        ),
    )


def fields(message: Any) -> Iterator[tuple[str, str]]:
    """Those of HTTP/2 that begin with a colon are no fields. Chrome joins repeated ones by a line feed."""
    for each in message.get("headers") or []:
        name = str(each["name"]).lower()
        if name not in NOT_KEPT and not name.startswith(":"):
            for value in str(each["value"]).split("\n"):
                yield name, value.strip()


def posted(data: Any) -> RecordedBody:
    if not data:
        return NO_BODY
    content_type = str(data.get("mimeType") or "")
    text = data.get("text")
    if not text and data.get("params"):
        pairs = [(each["name"], each.get("value") or "") for each in data["params"]]
        text = urlencode(pairs)
    return body_of(str(text or "").encode(), content_type, of="request")


def content_from(
    content: Any, headers: RecordedFields, beside: Callable[[str], bytes]
) -> RecordedBody:
    content_type = dict(headers).get("content-type") or str(content.get("mimeType") or "")
    if file := content.get("_file"):
        if not FILE.fullmatch(file):
            raise ValueError(f"{file!r} is no file beside it")
        data = beside(file)
    elif content.get("encoding") == "base64":
        data = base64.b64decode(content.get("text") or "")
    else:
        data = str(content.get("text") or "").encode()
    return body_of(data, content_type, of="response")
