"""Plain requests of HTTP/1.1 and plain answers to them, which need no state machine. Nothing here touches a socket.

h11 takes half of the time of a request. Most requests are as simple as they can be: they have come whole, are valid by
the strictest rules, and no field of theirs says how the connection goes on. Two expressions tell. Whatever is not
exactly so is h11's from its first byte, so that nothing here decides what is an error, and h11 reads a plain request
after all where its answer is not plain. `test_http1_plain` compares this module with h11: what it takes, h11 reads as
the same, and what it writes, h11 writes as the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import h11

from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.headers import Headers, raw_fields, raw_value, size_of
from pytest_egress.traffic.http.response import NO_BODY

FIELD: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?:[!-~]+(?: +[!-~]+)*)?\r\n"
FIELDS: Final = re.compile(rb"(?:%b)*" % FIELD)
REQUEST_LINE: Final = re.compile(rb"(?!CONNECT |HEAD )([A-Z]{1,24}) (/[!-~]{0,4000}) HTTP/1\.1\r\n")
"""A HEAD is answered without its content: too rare for a rule of its own."""

KNOWN_BYTES: Final = 1024  # of fields that are kept to be recognised
METHODS: Final = {name.encode(): name for name in ("GET", "POST", "PUT", "PATCH", "DELETE")}
"""The usual methods, which the ledger has once."""

FEW_FIELDS: Final = re.compile(rb"(?:%b){1,64}" % FIELD)
NAME_AND_VALUE: Final = re.compile(r"([^:]+): ([^\r]*)\r\n")
LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,8}")
OF_REQUESTS: Final = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer"})
OF_ANSWERS: Final = frozenset(
    {b"connection", b"keep-alive", b"content-length", b"transfer-encoding", b"upgrade", b"host"}
)
REASON: Final = re.compile(rb"[ -~]*")


class PlainFields(NamedTuple):
    """`authority` is Host, None where that is empty; `length` is Content-Length; `size` is in memory."""

    headers: Headers
    authority: str | None
    length: int | None
    size: int


def plain_fields(lines: bytes) -> PlainFields | None:
    """None where these are not the lines of a plain request."""
    if FEW_FIELDS.fullmatch(lines) is None:
        return None
    pairs = NAME_AND_VALUE.findall(lines.decode())
    known = {name.lower(): value for name, value in pairs}
    length = known.get("content-length")
    if (
        len(known) != len(pairs)  # some may not be repeated
        or "host" not in known
        or not OF_REQUESTS.isdisjoint(known)
        or known.get("connection", "keep-alive").lower() != "keep-alive"
        or (length is not None and LENGTH.fullmatch(length) is None)
    ):
        return None
    return PlainFields(
        headers=(headers := Headers(pairs)),
        authority=known["host"] or None,
        length=None if length is None else int(length),
        size=size_of(headers),
    )


known_fields: Final = lru_cache(maxsize=64)(plain_fields)
"""A client sends the same fields again and again. They are read once, and the ledger has them once."""


class PlainRequest:
    """A plain request that has come whole. `body` is the end of `data`.

    Attributes:
        is_taken: Whether its head has been read.
        has_ended: Whether its body has been read to the end.
        is_answered: Whether it has a plain answer.
    """

    def __init__(self, head: Head, data: bytes, body: bytes) -> None:
        self.head, self._data, self._unread = head, data, body
        self.is_taken = self.has_ended = self.is_answered = False

    @property
    def waiting(self) -> bytes:
        return self._unread if self.is_taken else self._data

    def read_whole(self) -> bytes:
        body, self._unread = self._unread, b""
        self.has_ended = True
        return body

    def read_piece(self) -> bytes:
        """The body, and then b"" for its end."""
        piece, self._unread = self._unread, b""
        self.has_ended = not piece
        return piece

    def hand_to(self, machine: h11.Connection) -> None:
        """Have h11 read it, as far as it has been read."""
        machine.receive_data(self._data)
        if self.is_taken:
            machine.next_event()
        if self.head.expected and not self._unread:
            machine.next_event()
        if self.has_ended:
            machine.next_event()


def plain_request(data: bytes) -> PlainRequest | None:
    """The request that these bytes are; None where they are none, more or less than one, or it is not plain."""
    line = REQUEST_LINE.match(data)
    if line is None:
        return None
    end = data.find(b"\r\n\r\n", line.end()) + 2
    lines, body = data[line.end() : end], data[end + 2 :]
    known = known_fields(lines) if len(lines) <= KNOWN_BYTES else plain_fields(lines)
    if known is None or len(body) != (known.length or 0):
        return None
    method, target = line.groups()
    path, mark, query_string = target.decode().partition("?")
    head = Head(
        method=METHODS.get(method) or method.decode(),
        path=path,
        query_string=query_string,
        headers=known.headers,
        http_version="1.1",
        scheme=None,
        authority=known.authority,
        expected=known.length,
        size=known.size + len(target),
        has_empty_query=bool(mark) and not query_string,
    )
    return PlainRequest(head, data, body)


@lru_cache(maxsize=32)
def plain_head(
    status_code: int,
    reason: str,
    headers: tuple[tuple[str, str], ...],
    length: int,
    date: str,
    last: bytes,
) -> bytes | None:
    """The head of a plain answer, which leaves the connection open; None where it is not plain.

    It is cached for the answers that do not change. `date` is used where the answer has no Date; `last` are lines that
    follow its fields.
    """
    fields, phrase = raw_fields(Headers(headers)), raw_value(reason)
    names = {name.lower() for name, _ in fields}
    if not 200 <= status_code <= 599 or status_code in NO_BODY or not OF_ANSWERS.isdisjoint(names):
        return None
    if b"date" not in names:
        fields.append((b"Date", date.encode()))
    fields.append((b"Content-Length", b"%d" % length))
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    if not (FIELDS.fullmatch(lines) and REASON.fullmatch(phrase)):
        return None
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status_code, phrase, lines, last)
