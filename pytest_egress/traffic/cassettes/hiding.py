"""Recordings without their secrets: a placeholder stands for the whole of each.

A beginning and a length, as reports have it, is for people; a client would be given it as a value. The values that a
name says are secrets are hidden wherever else they stand too, such as a session's in a path: what a client is given as
`<session_id>` it sends as that, and it is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote_plus

from pytest_egress.traffic.cassettes.bodies import RecordedBody, base64_lines, content_of
from pytest_egress.traffic.cassettes.tape import (
    RecordedFields,
    RecordedRequest,
    RecordedResponse,
    Recording,
    Tape,
)
from pytest_egress.traffic.redaction.names import is_of_a_place
from pytest_egress.traffic.redaction.redactor import (
    FOUND,
    IN_QUOTES,
    NAMES,
    PARTS,
    Redactor,
    end_of_value,
)
from pytest_egress.traffic.redaction.shapes import without_shapes
from pytest_egress.traffic.redaction.variables import LONG, is_worth_hiding

UNSHOWN: Final = re.compile(r"[^\w.-]", re.ASCII)
NAME_CHARACTERS: Final = 64
ALONE: Final = re.compile(r"<[\w.#-]{1,80}>\Z")
SCHEME: Final = re.compile(r"[A-Za-z0-9_-]{1,32} +")
USER: Final = re.compile(r"(://)([^/@\s?#\"'<>]{1,256})@")
PARAMETER: Final = re.compile(r"([?&;#])([\w.%\[\]-]{1,64})=([^&\s\"'<>;,#]+)")
"""A parameter of a URL in a header field, such as Location and Link have."""

COLON: Final = re.compile(r"\s{0,9}:")

COOKIES: Final = ("cookie", "set-cookie")


def hidden(recordings: Iterable[Recording], redactor: Redactor) -> Tape:
    """A tape of these recordings without secrets.

    Args:
        redactor: That of the run, with the values of `env=`.
    """
    recordings = tuple(recordings)
    first = Eraser(redactor)
    for each in recordings:
        first.recording(each)
    last = Eraser(redactor.hiding(first.by_name))
    return Tape(
        recordings=tuple(last.recording(each) for each in recordings),
        secrets=frozenset(last.names),
    )


class Eraser:
    """Replaces secrets, and notes the names of the placeholders.

    Attributes:
        names: Of the placeholders so far.
        by_name: Names and values of what was a secret by its name, where the value is worth hiding elsewhere.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.names: set[str] = set()
        self.by_name: list[tuple[str, str]] = []

    def recording(self, recording: Recording) -> Recording:
        asked, answered = recording.request, recording.response
        return replace(recording, request=self._request(asked), response=self._response(answered))

    def _request(self, request: RecordedRequest) -> RecordedRequest:
        headers = self._headers(request.headers)
        return replace(
            request, url=self.url(request.url), headers=headers, body=self.body(request.body)
        )

    def _response(self, response: RecordedResponse) -> RecordedResponse:
        return replace(
            response,
            headers=self._headers(response.headers),
            body=self.body(response.body),
            details=self.named(response.details),
            trailers=self._headers(response.trailers),
        )

    # Placeholders.

    def _is_secret(self, name: str) -> bool:
        """A `token_type` is no secret: a client reads it."""
        return self._redactor.is_secret(name) and not is_of_a_place(name)

    def _placeholder(self, name: str) -> str:
        self.names.add(name)
        return f"<{name}>"

    def _instead(self, name: str, value: str, *, is_cookie: bool = False) -> str:
        """The placeholder of a value that is a secret by its name. One that is a placeholder already stays."""
        if not value or ALONE.match(value):
            return value
        name = UNSHOWN.sub("_", name)[:NAME_CHARACTERS] or "_"
        if is_worth_hiding(value) and "<" not in value and (len(value) >= LONG or not is_cookie):
            self.by_name.append((name, value))
        return self._placeholder(name)

    def text(self, text: str) -> str:
        """Without known values, and without what is a secret by its form."""
        text = self._redactor.known(text, self._placeholder)
        return without_shapes(text, lambda _: self._placeholder(FOUND))

    # What has names.

    def _headers(self, headers: RecordedFields) -> RecordedFields:
        return tuple((name, self.field(name, value)) for name, value in headers)

    def field(self, name: str, value: str) -> str:
        value = self.text(value)
        if name in COOKIES:
            return self._cookies(name, value)
        if not self._is_secret(name):
            return self._within(value)
        scheme = SCHEME.match(value)
        if scheme is None:
            return self._instead(name, value)
        return f"{scheme[0]}{self._instead(name, value[scheme.end() :])}"

    def _cookies(self, name: str, value: str) -> str:
        """The names of cookies stay, and the attributes of Set-Cookie."""
        pairs = value.split(";")
        last = 1 if name == "set-cookie" else len(pairs)
        return ";".join([*map(self._cookie, pairs[:last]), *map(self._within, pairs[last:])])

    def _cookie(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        if not equals:
            return self._instead("cookie", pair)
        if not self._redactor.is_secret("cookie") or name.strip() in self._redactor.rules.keep:
            return pair
        return f"{name}={self._instead(name.strip(), value, is_cookie=True)}"

    def _within(self, text: str) -> str:
        """A text that may have URLs in it."""
        text = USER.sub(lambda found: f"{found[1]}{self._instead('userinfo', found[2])}@", text)
        return PARAMETER.sub(self._parameter, text)

    def _parameter(self, found: re.Match[str]) -> str:
        mark, name, value = found.groups()
        plain = unquote_plus(name)
        return f"{mark}{name}={self._instead(plain, value)}" if self._is_secret(plain) else found[0]

    def url(self, url: str) -> str:
        """The host too, in which case tells nothing."""
        scheme, mark, rest = url.partition("://")
        if mark:
            authority, slash, target = rest.partition("/")
            authority = self._redactor.host(authority, self._placeholder)
            url = f"{scheme}://{authority}{slash}{target}"
        return self._within(self.text(url))

    # Bodies.

    def body(self, body: RecordedBody) -> RecordedBody:
        if body.key in ("json", "form"):
            return RecordedBody(body.key, self.json(body.value))
        if body.key == "events":
            return RecordedBody("events", [self._event(each) for each in body.value])
        if body.key == "messages":
            return RecordedBody("messages", [self._message(each) for each in body.value])
        if body.key == "turns":
            return RecordedBody("turns", [self._turn_of_call(each) for each in body.value])
        if body.key == "conversation":
            return RecordedBody("conversation", [self._turn(each) for each in body.value])
        if body.key == "text":
            return RecordedBody("text", self.named(body.value))
        if body.key == "base64":
            return self._bytes(body)
        return body

    def _bytes(self, body: RecordedBody) -> RecordedBody:
        """Bytes are read one character for each, so that what is hidden of them keeps the rest as it was."""
        text = content_of(body).decode("latin-1")
        shown = PARTS.sub(self._part, self.text(text))
        return (
            body if shown == text else RecordedBody("base64", base64_lines(shown.encode("latin-1")))
        )

    def _message(self, message: Any) -> Any:
        if not isinstance(message, str):
            return self.json(message)
        return self._bytes(RecordedBody("base64", message)).value

    def _turn_of_call(self, turn: Any) -> Any:
        if not isinstance(turn, dict):  # the end of the client's messages
            return turn
        return {direction: self._message(message) for direction, message in turn.items()}

    def _turn(self, turn: dict[str, Any]) -> dict[str, Any]:
        """One message of a WebSocket."""
        return {direction: self._content(content) for direction, content in turn.items()}

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return self.named(content)
        if "json" in content:
            return {"json": self.json(content["json"])}
        return {"base64": self._bytes(RecordedBody("base64", content["base64"])).value}

    def _event(self, event: Any) -> Any:
        if not isinstance(event, dict):
            return self.named(str(event))
        return {
            key: self.json(value)
            if key == "json"
            else self.named(value)
            if isinstance(value, str)
            else value
            for key, value in event.items()
        }

    def json(self, value: Any, secret: str = "") -> Any:
        """Every text is hidden that is at any depth under the name of a secret, which `secret` is; numbers stay."""
        if isinstance(value, dict):
            return self._keyed(value, secret)
        if isinstance(value, list):
            return [self.json(each, secret) for each in value]
        if not isinstance(value, str):
            return value
        value = self.text(value)
        return self._instead(secret, value) if secret else self._within(value)

    def _keyed(self, value: dict[Any, Any], secret: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, each in value.items():
            name = number = self._redactor.known(str(key), self._placeholder)
            count = 1
            while number in found:
                number = f"{name}#{(count := count + 1)}"
            inner = str(key) if self._is_secret(str(key)) else secret
            found[number] = self.json(each, inner)
        return found

    def named(self, text: str) -> str:
        """A text that may be JSON, a form in parts, or lines with names and values."""
        text = PARTS.sub(self._part, self.text(text))
        return self._within("".join(self._pieces(text)))

    def _part(self, found: re.Match[str]) -> str:
        head, name, value = found.groups()
        return f"{head}{self._instead(name, value)}" if self._is_secret(name) else found[0]

    def _pieces(self, text: str) -> Iterator[str]:
        position = 0
        while (found := NAMES.search(text, position)) is not None:
            quoted, opening, name, sign = found.groups()
            start = end = found.end()
            yield text[position:start]
            called = quoted or unquote_plus(name)
            if self._is_secret(called):
                end = end_of_value(text, start, opening or sign)
                yield self._value(called, text[start:end], is_opened=opening in ("[", "{"))
            position = end
        yield text[position:]

    def _value(self, name: str, value: str, *, is_opened: bool) -> str:
        """What is within brackets has each of its texts hidden."""
        if not is_opened:
            return self._instead(name, value)
        return "".join(self._texts(name, value))

    def _texts(self, name: str, value: str) -> Iterator[str]:
        """A text of JSON that a colon follows is a key; one without an end is hidden too. No part is read twice."""
        position = 0
        while (begin := value.find('"', position)) >= 0:
            found = IN_QUOTES.match(value, begin + 1)
            end = begin + 1 if found is None else found.end()
            text, close = value[begin + 1 : end], value[end : end + 1]
            is_key = close == '"' and COLON.match(value, end + 1) is not None
            shown = text if is_key else self._instead(name, text)
            yield f'{value[position:begin]}"{shown}'
            yield '"' if close == '"' else ""
            position = end + (close == '"')
        yield value[position:]
