"""HTTP messages as values: `Request`, `Response` and their parts.

Nothing here reads a socket, a clock or a container.
"""

from __future__ import annotations

import copy
import json as json_module
import re
import sys
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar, overload

from pytest_egress.base.account import Account, Hold, OverLimitError
from pytest_egress.base.escaping import escaped
from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import (
    MAX_DECODED_BYTES,
    Coding,
    EncodedStream,
    codings,
    decode,
    decoded,
    encode,
    encoder,
    mismatch,
)
from pytest_egress.traffic.http.events import Event, event_bytes
from pytest_egress.traffic.http.forms import (
    Form,
    FormFile,
    MultiDict,
    decode_text,
    parse_cookies,
    parse_form,
    parse_query,
    room_for,
)
from pytest_egress.traffic.http.made_body import MadeBody
from pytest_egress.traffic.redaction import masked_bytes, masked_query


class Unset:
    """The type of `UNSET`, which tells "not given" from None (JSON's null)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()

JSON_MARKS: Final = (b",", b":", b"[", b"{")
JSON_VALUE_BYTES: Final = 112
"""What one of them brings, text apart: a list, a dict, an item or a name. CPython takes up to 95 (3.11 to 3.13)."""

SCHEME_PORTS: Final = {"http": 80, "https": 443}  # RFC 9110 sections 4.2.1 and 4.2.2
SHOWN_VALUE: Final = 60  # characters of a value in a message: two fit on a line of a terminal
SHOWN_TARGET: Final = 100  # characters of a URL's path and query: the line stays one of a log


def shown(value: object) -> str:
    """The value's repr, cut in the middle where it is long."""
    if isinstance(value, (bytes, str)) and len(value) > 2 * SHOWN_VALUE:
        # The repr of a body of 1 GB would take a second, and as much memory again.
        ends = slice(SHOWN_VALUE), slice(-SHOWN_VALUE, None)
        begins, rest = (repr(value[each]) for each in ends)
        return cut(begins + rest, SHOWN_VALUE)
    return cut(repr(value), SHOWN_VALUE)


def cut(text: str, size: int, gap: str = "...") -> str:
    if len(text) <= size:
        return text
    half = (size - len(gap)) // 2
    return f"{text[:half]}{gap}{text[-half:]}"


def host_port(host: str, port: int | None) -> str:
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


Default = TypeVar("Default")
HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]


class Headers(Mapping[str, str]):
    """Header fields in their original order and spelling; names compare without case (RFC 9110 section 5.1).

    `headers["accept"]` joins repeated fields with a comma; `get_all` keeps them apart.
    """

    __slots__ = ("raw",)  # the ledger keeps them with each request

    def __init__(self, source: HeaderSource = ()) -> None:
        if type(source) is not list:  # most are one, and to ask whether it is a Mapping is slow
            if isinstance(source, Headers):
                source = source.raw  # its items() would join repeated fields
            source = source.items() if isinstance(source, Mapping) else source
        self.raw: tuple[tuple[str, str], ...] = tuple(source)

    def get_all(self, name: str) -> list[str]:
        """Every value of the field, in order; empty where there is none."""
        name = name.lower()
        return [value for key, value in self.raw if key.lower() == name]

    def __getitem__(self, name: str) -> str:
        if values := self.get_all(name):
            return ", ".join(values)
        raise KeyError(name)

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str | Default) -> str | Default: ...
    def get(self, name: str, /, default: Any = None) -> Any:  # that of `Mapping` catches a KeyError
        """The value of the field, repeated ones joined, or the default."""
        return ", ".join(values) if (values := self.get_all(name)) else default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.lower() for key, _ in self.raw))

    def __len__(self) -> int:
        return len({key.lower() for key, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


NO_FIELDS: Final = Headers()


@lru_cache(maxsize=16)
def only_field(name: str, value: str) -> Headers:
    """One value for all responses that have only the default field."""
    return Headers([(name, value)])


@dataclass(frozen=True, kw_only=True)
class TlsInfo:
    """The TLS of a connection, as the handshake negotiated it.

    Attributes:
        version: "TLSv1.3" or "TLSv1.2".
        cipher: The cipher suite, by OpenSSL's name.
        alpn: The protocol that ALPN selected, or None.
        client_certificate: The client's certificate in DER, verified; None where it sent none.
    """

    version: str
    cipher: str
    alpn: str | None = None
    client_certificate: bytes | None = None


class Incomplete(Protocol):
    """The rest of a request on its connection: its body as it comes, and the way back to its client."""

    @property
    def content(self) -> bytes:
        """The whole body, as it was sent. Where it has not been read, it is read and kept."""

    @property
    def trailers(self) -> Headers:
        """They are there once the body has been read."""

    @property
    def streamed(self) -> int | None:
        """How many bytes `stream` has given; None where nobody has called it, and the content can be read."""

    @property
    def is_whole(self) -> bool:
        """Whether the content is there, so that nobody has to wait for it."""

    @property
    def disconnected(self) -> bool: ...

    def stream(self) -> Iterator[bytes]:
        """None of the pieces is kept."""

    def send_interim(self, status_code: int, headers: Headers) -> None: ...


class GivenBody:
    """A body of which a part was given to the constructor of `Request`. What is `UNSET` is the other body's.

    `other` is None for a request of no connection.
    """

    def __init__(self, content: Any, trailers: Any, other: Incomplete | None) -> None:
        self._content = b"" if other is None and content is UNSET else content
        self._trailers = NO_FIELDS if other is None and trailers is UNSET else trailers
        self._other = other

    @property
    def content(self) -> bytes:
        content: bytes = self._given_or(self._content, "content")
        return content

    @property
    def trailers(self) -> Headers:
        trailers: Headers = self._given_or(self._trailers, "trailers")
        return trailers

    @property
    def streamed(self) -> int | None:
        return None if self._content is not UNSET or self._other is None else self._other.streamed

    @property
    def disconnected(self) -> bool:
        return self._other is not None and self._other.disconnected

    @property
    def is_whole(self) -> bool:
        return self._content is not UNSET or self._other is None or self._other.is_whole

    def _given_or(self, given: Any, name: str) -> Any:
        return getattr(self._other, name) if given is UNSET else given

    def stream(self) -> Iterator[bytes]:
        if self._content is UNSET and self._other is not None:
            yield from self._other.stream()
        elif self._content:
            yield self._content

    def send_interim(self, status_code: int, headers: Headers) -> None:
        if self._other is None:
            raise TypeError("the request came from no container: there is nobody to send it to")
        self._other.send_interim(status_code, headers)


class OfBody:
    """A parameter of `Request` for a part of its body, and the attribute, which `read` reads from there."""

    def __init__(self, read: Callable[[Request], object]) -> None:
        self._read = read
        self._name = ""

    def __set_name__(self, owner: object, name: str) -> None:
        self._name = name

    def __get__(self, request: Any, owner: object = None) -> Any:
        if request is None:  # `dataclass` asks for the default
            return UNSET
        return self._read(request)

    def __set__(self, request: Any, value: object) -> None:
        request.__dict__[self._name] = value  # until `__post_init__`


CONTENT: Any = OfBody(lambda request: request._decoded())
RAW_CONTENT: Any = OfBody(lambda request: request._body.content)
TRAILERS: Any = OfBody(lambda request: request._body.trailers)


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One HTTP request of a container.

    Attributes:
        method: The method as sent: "GET".
        scheme: "https" or "http".
        host: The host that the container asked for, normalised; an IP literal where it dialled one.
        port: The port it dialled.
        path: The path without query, as sent (percent-encoding kept).
        query_string: The part after the "?", as sent.
        headers: The header fields; names are case-insensitive, and a name may repeat.
        content: The whole body, without its Content-Encoding. Reading it raises `ContentError` where it cannot be
            decoded. On a route with `stream=True` it is read when it is first asked for, and is an error after
            `stream()`. A request that is made with it has no Content-Encoding.
        raw_content: The whole body, as sent; otherwise as `content`.
        trailers: The fields after the body, once that has been read.
        http_version: "1.1" or "1.0".
        sni: The server name on the wire, or None.
        tls: Version, cipher and ALPN of its connection; None for plain HTTP.
        client: Address and port of the client inside the container.
        container: Name of the container that sent it.
    """

    method: str
    scheme: str
    host: str
    port: int
    path: str
    query_string: str = ""
    headers: Headers = field(default_factory=Headers)
    content: bytes = CONTENT
    raw_content: bytes = RAW_CONTENT
    trailers: Headers = TRAILERS
    http_version: str = "1.1"
    sni: str | None = None
    tls: TlsInfo | None = None
    client: tuple[str, int] = ("", 0)
    container: str = ""
    _forward: Callable[[], Callable[..., Response] | None] = field(default=lambda: None, repr=False)
    _body: Any = field(default=None, repr=False)  # an `Incomplete`
    _account: Account | None = field(default=None, repr=False)  # of what came from a target
    _has_empty_query: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        given = self.__dict__
        content, raw_content = given.pop("content"), given.pop("raw_content")
        trailers = given.pop("trailers")
        given["headers"] = as_fields(self.headers)
        if trailers is not UNSET:
            trailers = as_fields(trailers)
        if content is not UNSET:
            if raw_content is not UNSET:
                raise TypeError("a Request has content, or raw_content with its Content-Encoding")
            raw_content, given["headers"] = content, fields_of_plain(self.headers, content)
        if self._body is None or raw_content is not UNSET or trailers is not UNSET:
            given["_body"] = GivenBody(raw_content, trailers, self._body)

    @classmethod
    def received(cls, **fields: Any) -> Request:
        """A request of a connection, by all fields but those of its body, which are `_body`'s.

        Each request passes here, and so does without the constructor: what that adds for those who give a part of the
        body costs as much again, and half of the memory of a request, whose dict it makes.
        """
        request = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(request, name, value)
        return request

    def _decoded(self) -> bytes:
        coding, raw_content = self.headers.get("content-encoding", ""), self._body.content
        if not codings(coding):
            return bytes(raw_content)
        known = self.__dict__  # the only place of a frozen value to keep something in
        if "_content" not in known:
            known["_content"] = self._decode(raw_content, coding)
        content: bytes | str = known["_content"]
        if isinstance(content, str):
            raise ContentError(content)
        return content

    def _decode(self, content: bytes, coding: str) -> bytes | str:
        """A body without its coding; as text, why there is none."""
        hold = (self._account or Account()).hold("decoded bodies")
        try:
            return decode(content, coding, MAX_DECODED_BYTES, hold)
        except ContentError as error:
            hold.release()
            return str(error)
        except OverLimitError as error:
            hold.release()
            return f"the body cannot be decoded: {error}"

    @property
    def disconnected(self) -> bool:
        """Whether the client has left, or has got its response, so that nobody reads what a handler makes now.

        A client that has closed its sending side alone has not left: it reads the response. Over a stream link, and in
        HTTP/2, it counts as one that has.
        """
        return bool(self._body.disconnected)

    @property
    def is_whole(self) -> bool:
        """Whether the whole body is here: always, but on a route with `stream=True`."""
        return bool(self._body.is_whole)

    @property
    def shown_stream(self) -> str:
        """For a report: how many bytes of the body were streamed, and so not kept; "" where it was not."""
        streamed = self._body.streamed
        return "" if streamed is None else f", {streamed} bytes streamed"

    def raw_stream(self) -> Iterator[bytes]:
        """The body in pieces as `stream` gives it, and as it was sent: with its Content-Encoding."""
        yield from self._body.stream()

    def stream(self) -> Iterator[bytes]:
        """The body in pieces, as they come, without its Content-Encoding. It can be read once, and is not kept.

        A route with `stream=True` calls its handler when the head of a request has come. On every other route the whole
        body has come before, and is one piece here unless it was compressed.

        Raises:
            RuntimeError: It has been streamed already.
            ConnectionError: The client has left before the end.
            ContentError: What comes cannot be decoded.
        """
        coding = self.headers.get("content-encoding", "")
        yield from decoded(self._body.stream(), coding, sys.maxsize)

    def send_interim(self, status_code: int, headers: HeaderSource | None = None) -> None:
        """Send an interim response, such as 103 with a Link field (RFC 8297); HTTP/1.0 has none, and gets none.

        Args:
            status_code: 102 to 199; 101 is no interim response, and 100 is sent by itself.
            headers: A mapping, or pairs where a field repeats.

        Raises:
            TypeError, ValueError: It cannot be sent; the text quotes it.
            ConnectionError: The client has left.
        """
        if type(status_code) is not int or not 102 <= status_code <= 199:
            raise ValueError(
                f"{status_code!r} is no status of an interim response; it takes an int from 102 to 199"
            )
        self._body.send_interim(status_code, checked_fields(headers))

    def forward(self, to: object = None, port: int | None = None) -> Response:
        """Send this request to the real upstream, or to another server, and return the whole response.

        The request is sent as it is, except that fields of a single connection are left out and
        `Accept-Encoding: identity` is set, so that the content can be read. To change it, forward
        `dataclasses.replace(request, ...)`.

        Args:
            to: The server, as `pytest_egress.forward` takes it; None is the real upstream.
            port: The port, where `to` is a container.

        Raises:
            UpstreamError: The server cannot be reached, its certificate is not valid, or it breaks off.
        """
        if (forward := self._forward()) is None:
            why = "has no connection any more" if self.container else "came from no container"
            raise TypeError(f"{self!r} {why}: there is nothing to forward")
        return forward(self, to, port)

    @property
    def authority(self) -> str:
        """The host, and the port unless it is the scheme's default, as in the Host field (RFC 9110 section 7.2)."""
        own = self.port == SCHEME_PORTS[self.scheme]
        return host_port(self.host, None if own else self.port)

    @property
    def url(self) -> str:
        """The whole URL: scheme, host, port unless it is the scheme's default, path and query."""
        return f"{self._origin}{self.request_target if self._path else ''}"

    @property
    def request_target(self) -> str:
        """The path and the query, as sent: with its "?" where the query is empty."""
        asks = self.query_string or self._has_empty_query
        return f"{self.path}?{self.query_string}" if asks else self.path

    @property
    def shown_url(self) -> str:
        """The URL for a report: secrets in its query are masked, and a long one is cut in the middle."""
        query = f"?{masked_query(self.query_string)}" if self.query_string else ""
        return f"{self._origin}{cut(self._path + query, SHOWN_TARGET)}"

    @property
    def _origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def _path(self) -> str:
        return self.path if self.path.startswith("/") else ""  # `OPTIONS *` and CONNECT have none

    @property
    def query(self) -> MultiDict[str]:
        """The query as a dict of decoded keys and values. A repeated key has its last value; `get_all` gives all."""
        return parse_query(self.query_string)

    @property
    def cookies(self) -> MultiDict[str]:
        """The cookies as a dict. A repeated name has its last value; `get_all` gives all."""
        return parse_cookies(self.headers.get_all("cookie"))

    @property
    def text(self) -> str:
        """The body as text, in the charset of Content-Type, else UTF-8; undecodable bytes are replaced."""
        return decode_text(self.content, self.headers.get("content-type", ""))

    @property
    def form(self) -> MultiDict[str]:
        """The fields of a form as a dict: those of a `multipart/form-data` body, without its files, or urlencoded ones.

        They are empty for a body of another Content-Type, such as JSON.

        A repeated key has its last value; `get_all` gives all.

        Raises:
            ValueError: The multipart body is malformed; the text says where.
        """
        return self._form.fields

    @property
    def files(self) -> MultiDict[FormFile]:
        """The files of a `multipart/form-data` body by the names of their fields; empty for any other body.

        A repeated name has its last file; `get_all` gives all.

        Raises:
            ValueError: The multipart body is malformed; the text says where.
        """
        return self._form.files

    @property
    def _form(self) -> Form:
        known = self.__dict__
        if "_parsed_form" not in known:
            known["_parsed_form"] = self._parse_form()
        form: Form = known["_parsed_form"]
        return form

    def _parse_form(self) -> Form:
        """The form, which is kept beside the body that it is in."""
        content, content_type = self.content, self.headers.get("content-type", "")
        hold = (self._account or Account()).hold("parsed forms")
        try:
            hold.resize(room_for(content, content_type))
            return parse_form(content, content_type)
        except OverLimitError as error:
            raise ContentError(f"the form cannot be parsed: {error}") from None
        except ValueError:
            hold.release()
            raise

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            ValueError: The body is no JSON, and the text quotes its beginning; or it cannot be decoded; or its value
                would be more than is kept of a test.
        """
        with lent_json(self, times=1) as value:
            return value

    def _parse_json(self, hold: Hold, times: int) -> Any:
        content = self.content
        try:
            hold.resize(times * room_for_json(content))
            return json_module.loads(content)
        except OverLimitError as error:
            raise ContentError(f"the JSON cannot be parsed: {error}") from None
        except ValueError as error:
            beginning = masked_bytes(content)[:80]
            raise ValueError(
                f"{self.method} {self.shown_url} has no JSON body: {error}: {beginning!r}"
            ) from None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.shown_url}{self.shown_stream}>"


@contextmanager
def lent_json(request: Request, *, times: int) -> Iterator[Any]:
    """As `request.json()`, with room for it within the `with` block: whoever keeps it longer is code of the test's.

    The room is for as many values of this size as `times` says.
    """
    hold = (request._account or Account()).hold("parsed JSON")
    try:
        yield request._parse_json(hold, times)
    finally:
        hold.release()


# `dataclasses.replace` reads each field that it is not given: these would read the whole body.
for each in ("content", "raw_content", "trailers"):
    del Request.__dataclass_fields__[each]


def fields_of_plain(headers: Headers, content: bytes) -> Headers:
    """The fields of a request whose body is this, without a coding: Content-Length, if there is one, fits."""
    size = str(len(content))
    return Headers(
        (name, size if name.lower() == "content-length" else value)
        for name, value in headers.raw
        if name.lower() != "content-encoding"
    )


Stream = Iterable["bytes | str"] | AsyncIterable["bytes | str"]
"""A body in pieces; text is sent as UTF-8."""
EventData = Event | str | dict[Any, Any] | list[Any]
Events = Iterable[EventData] | AsyncIterable[EventData]
"""Server-sent events; what is no `Event` is its data."""
TrailerSource = HeaderSource | Callable[[], HeaderSource]
"""Fields after a body, or a function that makes them when the body has been sent."""
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


def room_for_json(content: bytes) -> int:
    """What the value of a body of JSON takes in memory at most, as an `Account` counts it.

    Each character of a text takes four bytes where one of them is outside the Basic Multilingual Plane.
    """
    width = 1 if content.isascii() and b"\\u" not in content else 4
    return width * len(content) + (sum(map(content.count, JSON_MARKS)) + 1) * JSON_VALUE_BYTES


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
            f"Content-Length is {length}, and the body has {size} bytes: leave the field out, it is "
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


FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1
FIELD_VALUE: Final = re.compile(  # 5.5
    r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?"
)

REASON: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9112 section 4


def check_reason(reason: object) -> str:
    text: str = check_type("reason", reason, str)
    if not REASON.fullmatch(text):
        raise ValueError(f"{text!r} is no reason phrase: it has a control character")
    return text


def checked_fields(source: HeaderSource | None) -> Headers:
    if not source:
        return NO_FIELDS
    headers = Headers(source)
    for name, value in headers.raw:
        check_field(name, value)
    return headers


def as_fields(source: HeaderSource) -> Headers:
    """Only fields that are no `Headers` are checked. They were given in place of received ones."""
    return source if isinstance(source, Headers) else checked_fields(source)


def checked_trailers(returned: Any) -> HeaderSource | None:
    """Return what a function of `trailers=` has returned, or raise where that is no fields."""
    if isinstance(returned, Coroutine):
        returned.close()
        raise TypeError(
            "the function of trailers=... returned a coroutine: give a plain function, which is called at the end of "
            "the body"
        )
    if returned is not None and not isinstance(returned, (Mapping, Iterable)):
        raise TypeError(
            f"the function of trailers=... returned {shown(returned)}: it returns a dict, or a list of pairs"
        )
    source: HeaderSource | None = returned
    return source


def check_field(name: object, value: object) -> None:
    """Refuse a header field that would break the message (RFC 9110 section 5), or that is no str."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header fields are str, not {name!r}: {value!r}")
    if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        raise ValueError(f"{name!r}: {value!r} is no header field")
    if name.lower() == "content-length" and not (value.isascii() and value.isdigit()):
        raise ValueError(f"{name!r}: {value!r} is no number of bytes; leave the field out")


@lru_cache(maxsize=64)
def reason_phrase(status_code: int) -> str:
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return ""
