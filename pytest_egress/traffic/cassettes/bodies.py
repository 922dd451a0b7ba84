"""A body as a cassette has it, in the form that people read, and the bytes that are sent for it again."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from pytest_egress.traffic.cassettes.notation import MAX_DEPTH
from pytest_egress.traffic.http.events import Event
from pytest_egress.traffic.http.forms import is_urlencoded, media_type, parse_query

KINDS: Final = {
    "request": ("json", "form", "text", "base64"),
    "response": ("json", "events", "text", "base64"),
}
"""The keys of a body, at most one of which a request or a response has."""

EVENT: Final = ("comment", "event", "id", "retry", "json", "data")
"""The keys of an event, in the order in which they are written and sent."""

SIGNS_BYTES: Final = frozenset(
    {"digest", "repr-digest", "content-digest", "content-md5", "signature"}
)
"""RecordedFields that a client checks against the very bytes of a body, so that JSON stays the text that it was."""

LINE: Final = 76  # characters of a line of base64


class RecordedBody(NamedTuple):
    """A body.

    Attributes:
        key: The key that it has in the file; "" for no body.
        value: As that key has it.
    """

    key: str
    value: Any


NO_BODY: Final = RecordedBody("", None)


# What was sent, for people.


def body_of(content: bytes, content_type: str, *, of: str, is_signed: bool = False) -> RecordedBody:
    """A body in the form that says most: a value of JSON, a form, events, a text, or base64.

    Args:
        of: "request" or "response".
        is_signed: Whether a field is about the very bytes.
    """
    if not content:
        return NO_BODY
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return RecordedBody("base64", base64_lines(content))
    kind = media_type(content_type)
    if (kind == "application/json" or kind.endswith("+json")) and not is_signed:
        value = exact_json(text)
        if value is not NOT_EXACT:
            return RecordedBody("json", value)
    if of == "request" and kind and is_urlencoded(content_type):
        form = form_of(text)
        if form is not None:
            return RecordedBody("form", form)
    if of == "response" and kind == "text/event-stream":
        events = events_of(text)
        if events is not None:
            return RecordedBody("events", events)
    return RecordedBody("text", text)


def base64_lines(content: bytes) -> str:
    text = base64.b64encode(content).decode()
    return "\n".join(text[at : at + LINE] for at in range(0, len(text), LINE))


NOT_EXACT: Final = object()


class NotExactError(ValueError):
    """A text of JSON whose value does not say all of it."""


def exact_json(text: str) -> Any:
    """The value of a text of JSON, or NOT_EXACT where that loses something, or cannot be written.

    A name that repeats, a number with more digits than Python keeps, a surrogate alone, and what is nested deeply are
    written as text.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=exact_pairs, parse_float=exact_float, parse_constant=inexact
        )
        check_depth_and_text(value)
    except (ValueError, RecursionError):
        return NOT_EXACT
    return value


def exact_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotExactError("a name repeats")
    return found


def repeated_name(text: str | bytes) -> str | None:
    """The first name that an object in a text of JSON has twice; ValueError where the text is none."""
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.extend(name for name, count in counts.items() if count > 1)

    json.loads(text, object_pairs_hook=note)
    return repeated[0] if repeated else None


def exact_float(text: str) -> float:
    number = float(text)
    try:
        is_exact = len(text) < LINE and Decimal(text) == Decimal(repr(number))
    except InvalidOperation:
        is_exact = False
    if not is_exact:
        raise NotExactError(text)
    return number


def inexact(text: str) -> Any:
    raise NotExactError(text)


def check_depth_and_text(value: Any) -> None:
    """Raise a ValueError where a value cannot be written."""
    level, depth = [value], 0
    while level:
        if (depth := depth + 1) > MAX_DEPTH:
            raise NotExactError("it is nested deeply")
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += [*each, *each.values()]
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str):
                each.encode()  # a surrogate alone is a ValueError
            elif isinstance(each, float) and not math.isfinite(each):
                raise NotExactError(f"it has {each}, which is no number of JSON")
            elif isinstance(each, int) and abs(each) >= 10**1000:
                raise NotExactError("it has too many digits")
        level = inner


def form_of(text: str) -> dict[str, Any] | None:
    """The pairs of a urlencoded form by their names, a list where one repeats; None where that loses something."""
    pairs = parse_query(text).raw
    if not pairs or any("\ufffd" in part for pair in pairs for part in pair):
        return None
    found: dict[str, Any] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: each if len(each) > 1 else each[0] for name, each in found.items()}


def pairs_of(form: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, str(each))
        for name, value in form.items()
        for each in (value if isinstance(value, list) else [value])
    ]


# Server-sent events.


def events_of(text: str) -> list[Any] | None:
    """The events of a stream; None where it has what would be lost."""
    blocks = text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n")
    if blocks.pop().strip("\n"):  # the last event is not ended, so that no client has seen it
        return None
    events = [event_of(block.strip("\n")) for block in blocks if block.strip("\n")]
    return None if not events or None in events else events


def event_of(block: str) -> dict[str, Any] | None:
    """One event; None where it has a field that is none, or one twice."""
    found: dict[str, Any] = {}
    data: list[str] = []
    for line in block.split("\n"):
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif not colon or not is_kept(name, value) or (name or "comment") in found:
            return None
        else:
            found[name or "comment"] = int(value) if name == "retry" else value
    if "\0" in found.get("id", ""):
        return None
    if data:
        text = "\n".join(data)
        parsed = exact_json(text) if text[:1] in ("{", "[") else NOT_EXACT
        found |= {"data": text} if parsed is NOT_EXACT else {"json": parsed}
    return {key: found[key] for key in EVENT if key in found} or None


def is_kept(name: str, value: str) -> bool:
    if name == "retry":
        return value.isascii() and value.isdigit() and len(value) < LINE
    return name in ("", "event", "id")


# What is sent again.


def content_of(body: RecordedBody) -> bytes:
    """The bytes of a body, but for events."""
    if body.key == "json":
        return json_text(body.value).encode()
    if body.key == "text":
        return str(body.value).encode()
    if body.key == "base64":
        return base64.b64decode("".join(body.value.split()))
    if body.key == "form":
        return urlencode(pairs_of(body.value)).encode()
    return b""


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sent_events(events: Iterable[Any]) -> Iterator[Event]:
    for each in events:
        given = dict(each) if isinstance(each, dict) else {"data": each}
        if "json" in given:
            given["data"] = json_text(given.pop("json"))
        yield Event(**given)


# What somebody may have written by hand.


def check_body(kind: str, value: Any) -> str:
    """Why a value is no body of a kind; "" where it is one."""
    if kind in ("text", "base64") and not isinstance(value, str):
        return "it takes a text; a number, null, true and false are in quotes"
    if kind == "base64":
        try:
            base64.b64decode("".join(value.split()), validate=True)
        except ValueError as error:
            return f"it takes base64: {error}"
    if kind == "form" and not (isinstance(value, dict) and all(map(is_of_form, value.values()))):
        return "it takes the names of a form, each with a text or a list of texts"
    return check_events(value) if kind == "events" else ""


def is_of_form(value: Any) -> bool:
    several = value if isinstance(value, list) else [value]
    return all(isinstance(each, (str, int)) and not isinstance(each, bool) for each in several)


def check_events(value: Any) -> str:
    if not isinstance(value, list):
        return "it takes a list of events"
    for number, each in enumerate(value, 1):
        if not isinstance(each, (dict, str)):
            return f"event {number} is a text, or has the keys {', '.join(EVENT)}"
        unknown = [key for key in each if key not in EVENT] if isinstance(each, dict) else []
        if unknown:
            return f"event {number} has no {unknown[0]!r}; it has {', '.join(EVENT)}"
    try:
        for event in sent_events(value):
            bytes(event)
    except (TypeError, ValueError) as error:
        return f"an event cannot be sent: {error}"
    return ""
