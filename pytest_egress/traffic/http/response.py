"""`Response`: what a handler returns or a server answers, and the checks that it can be sent."""

from __future__ import annotations

import copy
import json as json_module
import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from pytest_egress.base.escaping import escaped
from pytest_egress.base.unset import UNSET
from pytest_egress.traffic.http.content_coding import (
    MAX_DECODED_BYTES,
    Coding,
    EncodedStream,
    decode,
    encode,
    encoder,
    mismatch,
)
from pytest_egress.traffic.http.events import Event, event_bytes
from pytest_egress.traffic.http.headers import (
    NO_FIELDS,
    Headers,
    HeaderSource,
    TrailerSource,
    as_fields,
    checked_fields,
    checked_trailers,
    only_field,
)
from pytest_egress.traffic.http.made_body import MadeBody
from pytest_egress.traffic.shown import counted, shown

Stream = Iterable["bytes | str"] | AsyncIterable["bytes | str"]
"""A body in pieces; text is sent as UTF-8."""

EventData = Event | str | dict[Any, Any] | list[Any]

Events = Iterable[EventData] | AsyncIterable[EventData]
"""Server-sent events; what is no `Event` is its data."""

EVENT_FIELDS: Final = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"))

BODIES: Final = ("content", "text", "json", "stream", "events")

NO_BODY: Final = frozenset({204, 304})
"""The statuses of responses that have no body (RFC 9110 section 6.4.1)."""


class Response:
    """A response to a request. Its body is at most one of content, text, json, stream and events.

    Args:
        status_code: 200 to 599.
        headers: A mapping, or pairs where a field repeats.
        content: The body as bytes.
        text: The body as text, sent as UTF-8.
        json: The body as a value that `json.dumps` takes.
        stream: An iterable of bytes or str, async or not, sent chunk by chunk as it yields.
        events: An iterable of server-sent events, async or not: each an `Event`, or its data as a str, or as a dict or
            list that is sent as JSON. `Content-Type` and `Cache-Control` are set where they are not given.
        trailers: Fields sent after a streamed body, or a function that returns them, which is called at its end.
        reason: The reason phrase; None is the registered one (RFC 9112 section 4).
        compress: "gzip", "deflate", "br" or "zstd": the body is sent in that coding, and Content-Encoding says so,
            whether or not the client accepts it. Each piece of a stream can be decoded as soon as it has come.

    Attributes:
        is_received: Whether another server has sent it, so that its fields and its body are passed on as they came.

    Raises:
        TypeError, ValueError: An argument cannot be sent; the text quotes it.
    """

    is_received = False
    _length_of_none: int | None = 0
    _record: Response | None = None
    _made: MadeBody | None = None
    _note = ""  # a sentence for the entry of its exchange

    def __init__(
        self,
        status_code: int = 200,
        *,
        headers: HeaderSource | None = None,
        content: bytes | None = None,
        text: str | None = None,
        json: Any = UNSET,
        stream: Stream | None = None,
        events: Events | None = None,
        trailers: TrailerSource | None = None,
        reason: str | None = None,
        compress: Coding | None = None,
    ) -> None:
        has_json = json is not UNSET
        given = (
            content is not None,
            text is not None,
            has_json,
            stream is not None,
            events is not None,
        )
        if sum(given) > 1:
            names = (name for name, is_given in zip(BODIES, given, strict=True) if is_given)
            raise TypeError(f"Response takes one body, not {' and '.join(names)}")
        self.status_code = check_status(status_code)
        self._phrase = None if reason is None else (status_code, check_reason(reason))
        self.stream: Any = stream if events is None else events
        self.encode_piece: Callable[[Any], bytes] | None = None if events is None else event_bytes
        self.headers, self.trailers = checked_fields(headers), NO_FIELDS
        self.make_trailers: Callable[[], HeaderSource] | None = None
        if callable(trailers):
            self.make_trailers = trailers
        else:
            self.trailers = checked_fields(trailers)
        if trailers and self.stream is None:
            raise TypeError("Response sends trailers after a streamed body only: give stream=")
        if text is not None:
            content = check_type("text", text, str).encode()
            self._default_type("text/plain; charset=utf-8")
        elif has_json:
            content = json_bytes(json)
            self._default_type("application/json")
        elif stream is not None:
            check_stream("stream", stream, "bytes or str")
        elif events is not None:
            check_stream("events", events, "events")
            for name, value in EVENT_FIELDS:
                self._default_field(name, value)
        body = b"" if content is None else check_type("content", content, bytes, bytearray)
        self._content: bytes = bytes(body)
        if body and headers:  # a response to HEAD has a length and no body
            check_length(self.headers, len(body))
            check_coding(self.headers, self.content)
        if status_code in NO_BODY:
            check_bodiless(status_code, body or self.stream)
        self.compress = compress
        if compress is not None:
            check_compress(compress, self.headers)
            self.headers = Headers([*self.headers.raw, ("Content-Encoding", compress)])

    @classmethod
    def received(
        cls,
        status_code: int,
        headers: Headers,
        *,
        reason: str,
        content: bytes | None = None,
        stream: Iterable[bytes] | None = None,
        trailers: Headers = NO_FIELDS,
        made: MadeBody | None = None,
    ) -> Response:
        """A response as another server sent it, without the checks of what a handler may answer."""
        response = cls(content=content, stream=stream)
        response.status_code, response.headers, response.is_received = status_code, headers, True
        response.trailers, response._made = trailers, made
        response._phrase = status_code, reason
        return response

    @property
    def content(self) -> bytes:
        """The body as bytes. Of a response in the ledger that was streamed, all that has been made so far.

        Raises:
            RuntimeError: It was streamed, and is not kept: it is too long, or its route has `stream=True`.
        """
        return self._content if self._made is None else self._made.content

    @content.setter
    def content(self, content: bytes) -> None:
        self._content, self._made = content, None

    @property
    def own_content(self) -> bytes:
        """The content that it keeps by itself: not that of a body that was streamed and recorded."""
        return self._content

    def recorded(self, made: MadeBody) -> Response:
        """The response as the ledger keeps it, where its body streams: it can be read, and be answered with again.

        Args:
            made: The body, as far as it has been made. What makes it has to add it there.
        """
        record = self._record = copy.copy(self)
        record.stream = record.encode_piece = record.make_trailers = None
        record._made = made
        return record

    @property
    def content_length(self) -> int | None:
        """The Content-Length of a response that has no such field, and no stream; None where none is sent.

        A response to HEAD has no content, and the length that a GET would have.
        """
        return len(self.content) or self._length_of_none

    def of_length(self, length: int | None) -> Response:
        """This response, of a HEAD, with the length that a GET would have in place of the field."""
        self._length_of_none = length
        return self

    def check(self, method: str = "GET") -> None:
        """Refuse a body that its status or its fields do not allow; a handler may have changed each of them.

        Args:
            method: The method of the request: the response to a HEAD has fields about a body, and none.

        Raises:
            TypeError, ValueError: The body is not as long, or not in the coding, as the fields say, or none may be
                sent; or a field cannot be sent.
        """
        self.headers = as_fields(self.headers)
        if method == "HEAD":
            return
        if self.status_code in NO_BODY:
            if not self.is_received:
                check_bodiless(self.status_code, self.content)
        elif self.stream is None:
            check_length(self.headers, len(self.content))
            if self.compress is None and not self.is_received:
                check_coding(self.headers, self.content)

    @property
    def reason(self) -> str:
        """The reason phrase: the one given with this status, else the registered one, or ""."""
        if self._phrase is not None and self._phrase[0] == self.status_code:
            return self._phrase[1]
        return reason_phrase(self.status_code)

    def encoded(self) -> Response:
        """The response as it is sent, once its streamed body is bytes: compressed as `compress` says."""
        if self.compress is None:
            return self
        response = copy.copy(self)
        response.compress = None
        if self.stream is None:
            response.content = encode(self.content, self.compress)
        else:
            response.stream = EncodedStream(self.stream, self.compress)
        return response

    def _default_type(self, content_type: str) -> None:
        self._default_field("Content-Type", content_type)

    def _default_field(self, name: str, value: str) -> None:
        if self.headers is NO_FIELDS:
            self.headers = only_field(name, value)
        elif name not in self.headers:
            self.headers = Headers([*self.headers.raw, (name, value)])

    def last_trailers(self) -> Headers:
        """The trailers, once the body has been sent: a function that was given for them is called now."""
        if self.make_trailers is not None:
            self.trailers = checked_fields(checked_trailers(self.make_trailers()))
        if self._record is not None:
            self._record.trailers = self.trailers
        return self.trailers

    @property
    def text(self) -> str:
        """The body as UTF-8 text, without its Content-Encoding; undecodable bytes are replaced.

        Raises:
            ValueError: The body of another server's response cannot be decoded; the text says why.
            RuntimeError: As `content`.
        """
        return self._decoded.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body without its Content-Encoding, parsed as JSON.

        Raises:
            ValueError: The body is no JSON, or cannot be decoded.
            RuntimeError: As `content`.
        """
        return json_module.loads(self._decoded)

    @property
    def _decoded(self) -> bytes:
        if self.compress is not None:  # which happens when it is sent
            return self.content
        coding = self.headers.get("content-encoding", "")
        return decode(self.content, coding, MAX_DECODED_BYTES)

    def __repr__(self) -> str:
        return f"<Response {self.status_code} {escaped(self.reason)}>".replace(" >", ">")


def check_status(status_code: object) -> int:
    """Return the status, or raise ValueError unless it is an int from 200 to 599 (1xx is no final response)."""
    if (
        isinstance(status_code, bool)
        or not isinstance(status_code, int)
        or not 200 <= status_code <= 599
    ):
        raise ValueError(
            f"{status_code!r} is no status of a response; it takes an int from 200 to 599"
        )
    return int(status_code)


def check_type(name: str, value: Any, *types: type) -> Any:
    if not isinstance(value, types):
        wanted = " or ".join(kind.__name__ for kind in types)
        raise TypeError(
            f"Response({name}=...) takes {wanted}, not {type(value).__name__}: {value!r}"
        )
    return value


def json_bytes(value: object) -> bytes:
    """Encode a value as JSON, or raise the TypeError or ValueError of one that JSON cannot carry."""
    try:
        return json_module.dumps(value).encode()
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{shown(value)} cannot be sent as JSON: {error}") from None


def check_compress(name: object, headers: Headers) -> None:
    """Refuse an unknown coding, one whose library is not installed, and fields that `compress=` sets by itself."""
    if not isinstance(name, str):
        raise TypeError(f"Response(compress=...) takes the name of a coding, not {name!r}")
    for field_name in ("content-encoding", "content-length"):
        if field_name in headers:
            raise ValueError(
                f"Response(compress={name!r}) comes with {field_name.title()}: {headers[field_name]}, which it sets "
                "by itself: leave one of the two out"
            )
    encoder(name)


def check_stream(name: str, stream: object, of: str) -> None:
    """A str or bytes is no stream: its items are no pieces of a body. `of` is what a stream yields, in words."""
    is_iterable = isinstance(stream, (Iterable, AsyncIterable))
    if isinstance(stream, (str, bytes, bytearray, Mapping)) or not is_iterable:
        raise TypeError(
            f"Response({name}=...) takes an iterable of {of}, not {type(stream).__name__}: {stream!r}"
        )


def stated_length(headers: Headers) -> int | None:
    """None where there is no length, or it is overridden (RFC 9112 section 6.3)."""
    lengths = headers.get_all("content-length")
    return int(lengths[0]) if lengths and "transfer-encoding" not in headers else None


BROKEN_ON_PURPOSE: Final = (
    "to break the response on purpose, answer truncated(answer, after=3), or raw(b'...') with each "
    "byte of it"
)


def check_length(headers: Headers, size: int) -> None:
    """Content-Length is the body's length in bytes (RFC 9110 section 8.6)."""
    if (length := stated_length(headers)) not in (None, size):
        raise ValueError(
            f"Content-Length is {length}, and the body has {counted(size, 'byte')}: leave the field out, it is "
            f"sent by itself; {BROKEN_ON_PURPOSE}"
        )


def check_coding(headers: Headers, content: bytes, *, begins: bool = False) -> None:
    """Content-Encoding is that of the body (RFC 9110 section 8.4). With `begins`, more of the body follows."""
    coding = headers.get("content-encoding")
    if coding and (why := mismatch(content, coding, begins=begins)):
        raise ValueError(
            f"Content-Encoding is {coding}, and the body is not in that coding ({why}): leave the field out; "
            f"compress= compresses the body, and sets it; {BROKEN_ON_PURPOSE}"
        )


def check_bodiless(status_code: int, body: object) -> None:
    """An empty body counts as none."""
    if body:
        raise ValueError(
            f"a response of status {status_code} has no body (RFC 9110 section 6.4.1), and one is given: leave it out, "
            "or answer with another status"
        )


REASON: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9112 section 4


def check_reason(reason: object) -> str:
    text: str = check_type("reason", reason, str)
    if not REASON.fullmatch(text):
        raise ValueError(f"{text!r} is no reason phrase: it has a control character")
    return text


@lru_cache(maxsize=64)
def reason_phrase(status_code: int) -> str:
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return ""


def carries_body(method: str, response: Response) -> bool:
    """Whether a response to such a request has a body (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and response.status_code not in NO_BODY


def streams_events(response: Response) -> bool:
    """Whether its body is an event stream, which often has no end."""
    return response.headers.get("content-type", "").lower().startswith("text/event-stream")


OF_FRAMING: Final = ("content-length", "transfer-encoding")

WRONG_LENGTH: Final = (
    "Content-Length is {}, and the streamed body has {} bytes: leave the field out, the body is "
    f"sent in chunks; {BROKEN_ON_PURPOSE}"
)


def sent_fields(response: Response, date: str, *, framed: bool) -> Headers:
    """The fields to send: those of the response, Date, and Content-Length where the body's length is known."""
    headers = [*response.headers.raw]
    names = {name.lower() for name, _ in headers}
    if "date" not in names:
        headers.append(("Date", date))
    if framed and response.status_code not in NO_BODY and names.isdisjoint(OF_FRAMING):
        length = response.content_length
        if length is not None:
            headers.append(("Content-Length", str(length)))
    return Headers(headers)


@lru_cache(maxsize=1)
def http_date(second: int) -> str:
    """The value of a Date field (RFC 9110 section 6.6.1), cached, since it changes once a second."""
    return formatdate(second, usegmt=True)


def as_stated(stream: Iterable[bytes], response: Response) -> Iterator[bytes]:
    """Yield the pieces of a response's body, and check that it is what the fields say (RFC 9110 sections 8.4 and 8.6).

    Raises:
        ValueError: The body is longer or shorter than Content-Length, or begins in another way than Content-Encoding.
    """
    sent, length = 0, stated_length(response.headers)
    for chunk in stream:
        if not sent and not response.is_received:
            check_coding(response.headers, chunk, begins=True)
        sent += len(chunk)
        if length is not None and sent > length:
            raise ValueError(WRONG_LENGTH.format(length, f"more than {length}"))
        yield chunk
    if length is not None and sent < length:
        raise ValueError(WRONG_LENGTH.format(length, sent))
