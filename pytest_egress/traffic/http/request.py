"""`Request`: an HTTP request as a value, and its body, which may still be on its way."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pytest_egress.base.account import Account, Hold, OverLimitError
from pytest_egress.base.unset import UNSET
from pytest_egress.errors import ContentError
from pytest_egress.traffic.http.content_coding import (
    MAX_DECODED_BYTES,
    codings,
    decode,
    decoded,
)
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
from pytest_egress.traffic.http.headers import (
    NO_FIELDS,
    Headers,
    HeaderSource,
    as_fields,
    checked_fields,
)
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SCHEME_PORTS, SHOWN_TARGET, counted, cut, host_port

JSON_MARKS: Final = (b",", b":", b"[", b"{")

JSON_VALUE_BYTES: Final = 112
"""What one of them brings, text apart: a list, a dict, an item or a name. CPython takes up to 95 (3.11 to 3.13)."""


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
    def is_cut(self) -> bool:
        """Whether more may have followed than was waited for."""

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

    @property
    def is_cut(self) -> bool:
        return self._content is UNSET and self._other is not None and self._other.is_cut

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
        http_version: "3", "2", "1.1" or "1.0".
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
    # Whether it was sent to a real server; of the class for those that were not.
    _got_out: bool = field(default=False, init=False, repr=False)

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
    def is_cut(self) -> bool:
        """Whether more may have followed: a call of gRPC that no route answers is not read to its end."""
        return bool(self._body.is_cut)

    @property
    def shown_stream(self) -> str:
        """For a report: how many bytes of the body were streamed, and so not kept; "" where it was not."""
        streamed = self._body.streamed
        return "" if streamed is None else f", {counted(streamed, 'byte')} streamed"

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
        """The URL for a report: its secrets are masked, and a long one is cut in the middle."""
        redactor = redactor_of(self)
        query = f"?{redactor.query(self.query_string)}" if self.query_string else ""
        return (
            f"{redactor.host(self._origin)}{cut(redactor.path(self._path) + query, SHOWN_TARGET)}"
        )

    @property
    def _asks_for_tunnel(self) -> bool:
        """Whether it is a plain CONNECT, whose path is the `host:port` of the tunnel (RFC 9112 section 3.2.3)."""
        return self.method == "CONNECT" and not self.path.startswith("/")

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
            beginning = redactor_of(self).content(content)[:80]
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


def room_for_json(content: bytes) -> int:
    """What the value of a body of JSON takes in memory at most, as an `Account` counts it.

    Each character of a text takes four bytes where one of them is outside the Basic Multilingual Plane.
    """
    width = 1 if content.isascii() and b"\\u" not in content else 4
    return width * len(content) + (sum(map(content.count, JSON_MARKS)) + 1) * JSON_VALUE_BYTES


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
