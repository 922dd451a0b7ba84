"""The head of a request, for every version of HTTP: its authority, and the limits that hold for it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pytest_egress.base.account import OverLimitError
from pytest_egress.traffic.http.headers import Headers

MAX_HEADER_BYTES: Final = 64 * 1024  # of a request's head; h11's own 16 KiB refuses real cookies

MAX_BODY_BYTES: Final = 1 << 30  # 1 GiB: it is held in memory, for the handler

MULTIPLEXED: Final = ("2", "3")
"""The versions of HTTP whose connection carries many requests at once, and whose heads have :scheme and :authority."""

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
    def asks_for_tunnel(self) -> bool:
        """Whether it is a plain CONNECT (RFC 9110 section 9.3.6), and none for a protocol (RFC 8441)."""
        return self.method == "CONNECT" and self.protocol is None

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


def split_authority(authority: str) -> tuple[str, int | None] | None:
    """Host and port of `host[:port]`, an IPv6 address without its brackets; None for anything else.

    User information is an error here (RFC 9110 section 4.2.4).
    """
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        return None
    literal, name, port = found.groups()
    return literal or name, int(port) if port else None


def percent_encoded(data: bytes) -> bytes:
    """The bytes with each one beyond ASCII percent-encoded (RFC 3986 section 2.1)."""
    return b"".join(b"%%%02X" % byte if byte >= 0x80 else bytes((byte,)) for byte in data)
