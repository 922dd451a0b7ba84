"""Heads and header fields of HTTP messages, for every version. This module never touches a socket."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from pytest_egress.base.account import OBJECT_BYTES, OverLimitError
from pytest_egress.traffic.http.messages import NO_BODY, Headers, Response

MAX_HEADER_BYTES: Final = 64 * 1024  # of a request's head; h11's own 16 KiB refuses real cookies
MAX_BODY_BYTES: Final = 1 << 30  # 1 GiB: it is held in memory, for the handler
AUTHORITY: Final = re.compile(
    r"(?:\[([0-9A-Fa-f:.]+)\]|([^:@\[\]\x00-\x20\x7f-\xff]+))(?::([0-9]{0,5}))?"
)  # RFC 9110 section 7.2; `normalise_host` checks the name itself


class Head(NamedTuple):
    """The head of a request: its request line and header fields.

    Attributes:
        headers: The fields. An absolute request-target replaces Host (RFC 9112 section 3.2.2).
        scheme: The scheme of an absolute request-target, in lower case; None for the other forms.
        authority: From an absolute request-target, else from Host; None where Host is empty or absent.
        expected: Content-Length; None where it is absent, or does not count because the body is chunked.
        protocol: The protocol that an extended CONNECT asks for (:protocol, RFC 8441), such as "websocket"; else None.
        size: What it takes in memory, as an `Account` counts it.
        has_empty_query: Whether the request-target ends with its only "?".
    """

    method: str
    path: str
    query_string: str
    headers: Headers
    http_version: str
    scheme: str | None
    authority: str | None
    expected: int | None
    protocol: str | None = None
    size: int = 0
    has_empty_query: bool = False

    @property
    def has_body(self) -> bool:
        """By the fields that frame a body in HTTP/1.1 (RFC 9112 section 6.3)."""
        return bool(self.expected) or "transfer-encoding" in self.headers

    @property
    def is_http2_preface(self) -> bool:
        """HTTP/2 begins so (RFC 9113 section 3.4)."""
        return (self.method, self.path, self.http_version) == ("PRI", "*", "2.0")


class RequestTooLargeError(OverLimitError):
    """The body of a request is longer than any that is kept."""


def fields(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Text in latin-1 keeps every byte (RFC 9110 section 5.5)."""
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw])


def size_of(headers: Headers) -> int:
    """As an `Account` counts memory."""
    return sum(len(name) + len(value) + OBJECT_BYTES for name, value in headers.raw)


def raw_fields(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), raw_value(value)) for name, value in headers.raw]


def raw_value(text: str) -> bytes:
    """Text that `fields` decoded gives its original bytes, other text UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


OF_A_CONNECTION: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that are not forwarded, beside those that Connection lists (RFC 9110 section 7.6.1)."""


def end_to_end(headers: Headers) -> Headers:
    """The fields to forward: all but those that belong to one connection (RFC 9110 section 7.6.1)."""
    listed = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    dropped = OF_A_CONNECTION | listed
    return Headers([(name, value) for name, value in headers.raw if name.lower() not in dropped])


def without(headers: Headers, *names: str) -> Headers:
    """The names are in lower case."""
    return Headers([pair for pair in headers.raw if pair[0].lower() not in names])


def split_authority(authority: str) -> tuple[str, int | None] | None:
    """Host and port of `host[:port]`, an IPv6 address without its brackets; None for anything else.

    User information is an error here (RFC 9110 section 4.2.4).
    """
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        return None
    literal, name, port = found.groups()
    return literal or name, int(port) if port else None


def carries_body(method: str, response: Response) -> bool:
    """Whether a response to such a request has a body (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and response.status_code not in NO_BODY
