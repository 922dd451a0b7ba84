"""The messages of a WebSocket as a cassette has them, in their order: `send` is the client's, `receive` the server's.

A text is itself, or its value where it is an object or a list of JSON. A binary message is base64.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, Final

from pytest_egress.traffic.cassettes.bodies import (
    NOT_EXACT,
    base64_lines,
    exact_json,
    json_text,
)
from pytest_egress.traffic.websocket import MAX_REASON_BYTES, WebSocketMessage, can_be_sent

DIRECTIONS: Final = ("send", "receive")
SCHEMES: Final = {"https": "wss", "http": "ws"}


def url_of_websocket(url: str) -> str:
    """The URL of a handshake, as clients of WebSockets write it."""
    scheme, _, rest = url.partition(":")
    return f"{SCHEMES.get(scheme, scheme)}:{rest}"


# As it is written.


def shown_conversation(messages: Iterable[WebSocketMessage]) -> list[dict[str, Any]]:
    return [
        {"send" if each.from_client else "receive": shown_content(each.content)}
        for each in messages
    ]


def shown_content(content: str | bytes) -> Any:
    if isinstance(content, bytes):
        return {"base64": base64_lines(content)}
    value = exact_json(content) if content[:1] in ("{", "[") else NOT_EXACT
    return content if value is NOT_EXACT else {"json": value}


# As it is sent again.


def sent_content(value: Any) -> str | bytes:
    if isinstance(value, str):
        return value
    if "json" in value:
        return json_text(value["json"])
    return base64.b64decode("".join(value["base64"].split()))


# What somebody may have written by hand.


def check_conversation(value: Any) -> str:
    """Why a value is no list of messages; "" where it is one."""
    if not isinstance(value, list):
        return "it takes a list of messages, each `send: ...` or `receive: ...`"
    for number, each in enumerate(value):
        if not isinstance(each, dict) or len(each) != 1 or next(iter(each)) not in DIRECTIONS:
            return f"messages[{number}] is neither `send: ...` nor `receive: ...`"
        if why := check_content(next(iter(each.values()))):
            return f"messages[{number}] {why}"
    return ""


def check_content(value: Any) -> str:
    if isinstance(value, str):
        return ""
    if not isinstance(value, dict) or [*value] not in (["json"], ["base64"]):
        return (
            "is a text, {json: ...} or {base64: ...}; a number, null, true and false are in quotes"
        )
    if "json" in value:
        return ""
    try:
        base64.b64decode("".join(value["base64"].split()), validate=True)
    except (AttributeError, ValueError) as error:
        return f"is no base64: {error}"
    return ""


def check_closing(code: Any, reason: Any) -> str:
    """Why these are no code and reason of a close frame; "" where they are, or the code is None: the client closes."""
    if code is not None and (type(code) is not int or not can_be_sent(code)):
        return "it takes 1000 to 1003, 1007 to 1014, or a code from 3000 to 4999"
    if not isinstance(reason, str) or len(reason.encode("utf-8", "replace")) > MAX_REASON_BYTES:
        return f"its reason takes a text of at most {MAX_REASON_BYTES} bytes"
    return "" if code is not None or not reason else "a reason needs a code"
