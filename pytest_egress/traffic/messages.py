"""HTTP messages as values: `Request`, `Response` and their parts.

Nothing here reads a socket, a clock or a container.
"""

from __future__ import annotations

import json as json_module
import re
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from pytest_egress.traffic.redaction import masked_bytes, masked_query

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


class Unset:
    """The type of `UNSET`, which tells "not given" from None (JSON's null)."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()

SCHEME_PORTS: Final = {"http": 80, "https": 443}  # RFC 9110 sections 4.2.1 and 4.2.2
SHOWN_VALUE: Final = 60  # characters of a value in a message: two fit on a line of a terminal
SHOWN_TARGET: Final = 100  # characters of a URL's path and query: the line stays one of a log


def shown(value: object) -> str:
    """The value's repr, cut in the middle where it is long."""
    return cut(repr(value), SHOWN_VALUE)


def cut(text: str, size: int, gap: str = "...") -> str:
    """The text, with `gap` for its middle where it has more than `size` characters."""
    if len(text) <= size:
        return text
    half = (size - len(gap)) // 2
    return f"{text[:half]}{gap}{text[-half:]}"


def host_port(host: str, port: int | None) -> str:
    """`host:port`, an IPv6 address in brackets."""
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


HeaderSource = Mapping[str, str] | Iterable[tuple[str, str]]


class Headers(Mapping[str, str]):
    """Header fields in their original order and spelling; names compare without case (RFC 9110 section 5.1).

    `headers["accept"]` joins repeated fields with a comma; `get_all` keeps them apart.
    """

    def __init__(self, source: HeaderSource = ()) -> None:
        if isinstance(source, Headers):
            source = source.raw  # its items() would join repeated fields
        pairs = source.items() if isinstance(source, Mapping) else source
        self.raw: tuple[tuple[str, str], ...] = tuple(pairs)

    def get_all(self, name: str) -> list[str]:
        """Every value of the field, in order; empty where there is none."""
        name = name.lower()
        return [value for key, value in self.raw if key.lower() == name]

    def __getitem__(self, name: str) -> str:
        if values := self.get_all(name):
            return ", ".join(values)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.lower() for key, _ in self.raw))

    def __len__(self) -> int:
        return len({key.lower() for key, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


NO_FIELDS: Final = Headers()


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
        ...

    @property
    def trailers(self) -> Headers:
        """The fields after the body, once that has been read."""
        ...

    @property
    def streamed(self) -> int | None:
        """How many bytes `stream` has given; None where nobody has called it, and the content can be read."""
        ...

    @property
    def disconnected(self) -> bool:
        """Whether the client has left."""
        ...

    def stream(self) -> Iterator[bytes]:
        """The body in pieces, as they come; none is kept."""
        ...

    def send_interim(self, status_code: int, headers: Headers) -> None:
        """Send an interim response."""
        ...


class Given:
    """A body of which a part was given to the constructor of `Request`. The rest is another body's.

    Args:
        content: The content, or `UNSET` for the other body's.
        trailers: The trailers, or `UNSET` likewise.
        other: The other body; None for a request of no connection.
    """

    def __init__(self, content: Any, trailers: Any, other: Incomplete | None) -> None:
        self._content = b"" if other is None and content is UNSET else content
        self._trailers = NO_FIELDS if other is None and trailers is UNSET else trailers
        self._other = other

    @property
    def content(self) -> bytes:
        """The content that was given, else the other body's."""
        content: bytes = self._given_or(self._content, "content")
        return content

    @property
    def trailers(self) -> Headers:
        """The trailers that were given, else the other body's."""
        trailers: Headers = self._given_or(self._trailers, "trailers")
        return trailers

    @property
    def streamed(self) -> int | None:
        """How much of the other body was streamed; None where the content was given."""
        return None if self._content is not UNSET or self._other is None else self._other.streamed

    @property
    def disconnected(self) -> bool:
        """Whether the client of the other body has left; True where there is none."""
        return self._other is None or self._other.disconnected

    def _given_or(self, given: Any, name: str) -> Any:
        return getattr(self._other, name) if given is UNSET else given

    def stream(self) -> Iterator[bytes]:
        """The content that was given as one piece, else the other body."""
        if self._content is UNSET and self._other is not None:
            yield from self._other.stream()
        elif self._content:
            yield self._content

    def send_interim(self, status_code: int, headers: Headers) -> None:
        """Send an interim response to the client of the other body."""
        if self._other is None:
            raise TypeError("the request came from no container: there is nobody to send it to")
        self._other.send_interim(status_code, headers)


class OfBody:
    """A parameter of `Request` for a part of its body, and the attribute that reads it from there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, request: Any, owner: object = None) -> Any:
        if request is None:  # `dataclass` asks for the default
            return UNSET
        return getattr(request._body, self.name)

    def __set__(self, request: Any, value: object) -> None:
        request.__dict__[self.name] = value  # until `__post_init__`


CONTENT: Any = OfBody("content")
TRAILERS: Any = OfBody("trailers")


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
        content: The whole body. On a route with `stream=True` it is read when it is first asked for, and is an error
            after `stream()`.
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
    trailers: Headers = TRAILERS
    http_version: str = "1.1"
    sni: str | None = None
    tls: TlsInfo | None = None
    client: tuple[str, int] = ("", 0)
    container: str = ""
    _forward: Callable[[], Callable[..., Response] | None] = field(default=lambda: None, repr=False)
    _body: Any = field(default=None, repr=False)  # an `Incomplete`

    def __post_init__(self) -> None:
        given = self.__dict__
        content, trailers = given.pop("content"), given.pop("trailers")
        if self._body is None or content is not UNSET or trailers is not UNSET:
            given["_body"] = Given(content, trailers, self._body)

    @property
    def raw_content(self) -> bytes:
        """The whole body as it was sent."""
        content: bytes = self._body.content
        return content

    @property
    def disconnected(self) -> bool:
        """Whether the client has left, or has got its response, so that nobody reads what a handler makes now.

        A client that has closed its sending side counts as one that has left.
        """
        return bool(self._body.disconnected)

    def stream(self) -> Iterator[bytes]:
        """The body in pieces, as they come. It can be read once, and is not kept.

        A route with `stream=True` calls its handler when the head of a request has come. On every other route the whole
        body has come before, and is one piece here.

        Raises:
            RuntimeError: It has been streamed already.
            ConnectionError: The client has left before the end.
        """
        yield from self._body.stream()

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
        return f"{self._origin}{self._path}{f'?{self.query_string}' if self.query_string else ''}"

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
    def query(self) -> dict[str, str]:
        """The query as a dict of decoded keys and values; of a repeated key the last value."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    @property
    def text(self) -> str:
        """The body as text, in the charset of Content-Type, else UTF-8; undecodable bytes are replaced."""
        charset = "utf-8"
        for part in self.headers.get("content-type", "").split(";")[1:]:
            key, _, value = part.strip().partition("=")
            if key.lower() == "charset" and value:
                charset = value.strip("\"'")
        try:
            return self.content.decode(charset, "replace")
        except (LookupError, ValueError):  # no such charset, or one that cannot replace
            return self.content.decode("utf-8", "replace")

    @property
    def form(self) -> dict[str, str]:
        """The fields of an `application/x-www-form-urlencoded` body as a dict; of a repeated key the last value."""
        return dict(parse_qsl(self.text, keep_blank_values=True))

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            ValueError: The body is no JSON; the text quotes its beginning.
        """
        try:
            return json_module.loads(self.content)
        except ValueError as error:
            beginning = masked_bytes(self.content)[:80]
            raise ValueError(
                f"{self.method} {self.shown_url} has no JSON body: {error}: {beginning!r}"
            ) from None

    def __repr__(self) -> str:
        streamed = self._body.streamed
        body = "" if streamed is None else f", {streamed} bytes streamed"
        return f"<Request {self.method} {self.shown_url}{body}>"


# `dataclasses.replace` reads each field that it is not given: these two would read the whole body.
del Request.__dataclass_fields__["content"], Request.__dataclass_fields__["trailers"]


Stream = Iterable["bytes | str"] | AsyncIterable["bytes | str"]
"""A body in pieces; text is sent as UTF-8."""


class Response:
    """A response to a request. Its body is at most one of content, text, json and stream.

    Args:
        status_code: 200 to 599.
        headers: A mapping, or pairs where a field repeats.
        content: The body as bytes.
        text: The body as text, sent as UTF-8.
        json: The body as a value that `json.dumps` takes.
        stream: An iterable of bytes or str, async or not, sent chunk by chunk as it yields.
        trailers: Fields sent after a streamed body.
        reason: The reason phrase; None is the registered one (RFC 9112 section 4).

    Raises:
        TypeError, ValueError: An argument cannot be sent; the text quotes it.
    """

    def __init__(
        self,
        status_code: int = 200,
        *,
        headers: HeaderSource | None = None,
        content: bytes | None = None,
        text: str | None = None,
        json: Any = UNSET,
        stream: Stream | None = None,
        trailers: HeaderSource | None = None,
        reason: str | None = None,
    ) -> None:
        bodies = {
            "content": content,
            "text": text,
            "json": None if json is UNSET else (json,),
            "stream": stream,
        }
        if len(given := [name for name, body in bodies.items() if body is not None]) > 1:
            raise TypeError(f"Response takes one body, not {' and '.join(given)}")
        self.status_code = check_status(status_code)
        self._phrases = {} if reason is None else {status_code: check_reason(reason)}
        self.stream: Any = stream
        self.headers, self.trailers = checked_fields(headers), checked_fields(trailers)
        if trailers and stream is None:
            raise TypeError("Response sends trailers after a streamed body only: give stream=")
        if text is not None:
            content = check_type("text", text, str).encode()
            self._default_type("text/plain; charset=utf-8")
        elif json is not UNSET:
            content = json_bytes(json)
            self._default_type("application/json")
        elif stream is not None:
            check_stream(stream)
        body = b"" if content is None else check_type("content", content, bytes, bytearray)
        self.content: bytes = bytes(body)
        if body:  # a response to HEAD has a length and no body
            check_length(self.headers, len(body))

    @classmethod
    def received(
        cls,
        status_code: int,
        headers: Headers,
        *,
        reason: str,
        content: bytes | None = None,
        stream: Iterable[bytes] | None = None,
    ) -> Response:
        """A response as another server sent it, without the checks of what a handler may answer."""
        response = cls(content=content, stream=stream)
        response.status_code, response.headers = status_code, headers
        response._phrases = {status_code: reason}
        return response

    @property
    def reason(self) -> str:
        """The reason phrase: the one given with this status, else the registered one, or ""."""
        return self._phrases.get(self.status_code, reason_phrase(self.status_code))

    def _default_type(self, content_type: str) -> None:
        if "content-type" not in self.headers:
            self.headers = Headers([*self.headers.raw, ("Content-Type", content_type)])

    @property
    def text(self) -> str:
        """The body as UTF-8 text; undecodable bytes are replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json_module.loads(self.content)

    def __repr__(self) -> str:
        return f"<Response {self.status_code} {self.reason}>".replace(" >", ">")


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
    """Return the value, or raise a TypeError that names the argument."""
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


def check_stream(stream: object) -> None:
    """Refuse a stream that is no iterable, or a str or bytes, whose items are no pieces of a body."""
    is_iterable = isinstance(stream, (Iterable, AsyncIterable))
    if isinstance(stream, (str, bytes, bytearray)) or not is_iterable:
        raise TypeError(
            f"Response(stream=...) takes an iterable of bytes or str, not {type(stream).__name__}: {stream!r}"
        )


def stated_length(headers: Headers) -> int | None:
    """The Content-Length of a message; None where it is absent, or overridden (RFC 9112 section 6.3)."""
    lengths = headers.get_all("content-length")
    return int(lengths[0]) if lengths and "transfer-encoding" not in headers else None


def check_length(headers: Headers, size: int) -> None:
    """Refuse a Content-Length that differs from the body's length (RFC 9110 section 8.6).

    Args:
        size: The length of the body in bytes.
    """
    if (length := stated_length(headers)) not in (None, size):
        raise ValueError(
            f"Content-Length is {length}, and the body has {size} bytes: leave the field out, it is "
            "sent by itself"
        )


FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1
FIELD_VALUE: Final = re.compile(
    r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?"
)  # 5.5


REASON: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9112 section 4


def check_reason(reason: object) -> str:
    """Return the reason phrase, or raise where it would break the status line."""
    text: str = check_type("reason", reason, str)
    if not REASON.fullmatch(text):
        raise ValueError(f"{text!r} is no reason phrase: it has a control character")
    return text


def checked_fields(source: HeaderSource | None) -> Headers:
    """Return the header fields, or raise for the first that cannot be sent."""
    if not source:
        return NO_FIELDS
    headers = Headers(source)
    for name, value in headers.raw:
        check_field(name, value)
    return headers


def check_field(name: object, value: object) -> None:
    """Refuse a header field that would break the message (RFC 9110 section 5), or that is no str."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError(f"header fields are str, not {name!r}: {value!r}")
    if not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
        raise ValueError(f"{name!r}: {value!r} is no header field")
    if name.lower() == "content-length" and not (value.isascii() and value.isdigit()):
        raise ValueError(f"{name!r}: {value!r} is no number of bytes; leave the field out")


def reason_phrase(status_code: int) -> str:
    """The registered reason phrase of a status, or "" where there is none."""
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return ""
