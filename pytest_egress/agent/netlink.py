"""Builds and parses netlink messages as bytes, without a socket (linux/netlink.h).

Builders trust their caller. Parsers trust no input: for any bytes they yield values or nothing.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False  # importing typing would double what the agent imports
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUTE, NETFILTER = 0, 12
"""Netlink families: NETLINK_ROUTE and NETLINK_NETFILTER."""

REQUEST, ACK, DUMP, EXCLUSIVE, CREATE, APPEND = 0x1, 0x4, 0x300, 0x200, 0x400, 0x800
NEW = CREATE | EXCLUSIVE
"""Flags of a message, NLM_F_*. `NEW` refuses what is already there."""

ERROR, DONE = 2, 3
"""Message types that every family shares, NLMSG_*. An ERROR with code 0 is an acknowledgement."""

NESTED = 0x8000
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK: without the flags for nesting and byte order

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = Struct("=HH")  # nlattr: length, type
_CODE = Struct("=i")


class NetlinkRequest:
    """A request to the kernel, with the words for the error if the kernel refuses it.

    Attributes:
        what: What is requested, as a phrase that follows "refused".
        needs: What a kernel must have for it, as a phrase that follows "lacks".
    """

    __slots__ = ("body", "flags", "kind", "needs", "what")

    def __init__(self, what: str, needs: str, kind: int, flags: int, body: bytes) -> None:
        self.what = what
        self.needs = needs
        self.kind = kind
        self.flags = flags
        self.body = body


def attribute(kind: int, data: bytes = b"") -> bytes:
    """The data is padded to a multiple of four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, flags | REQUEST, sequence, 0) + body


def numbered(requests: Sequence[NetlinkRequest], acknowledged: int = 1) -> bytes:
    """One datagram of requests, numbered from 1; those from `acknowledged` on ask for an acknowledgement."""
    return b"".join(
        message(
            request.kind,
            request.flags | (ACK if sequence >= acknowledged else 0),
            request.body,
            sequence,
        )
        for sequence, request in enumerate(requests, 1)
    )


def messages(data: bytes, but: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """The type, sequence number and body of each message in a datagram; those of the port id `but` are left out."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        if not but or port != but:
            yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Where a type repeats, its last attribute counts."""
    found, offset = {}, 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def answers(data: bytes) -> Iterator[tuple[int, int]]:
    """The sequence number and errno of each answer in a datagram; errno 0 is an acknowledgement."""
    for kind, sequence, body in messages(data):
        if kind == ERROR and len(body) >= _CODE.size:
            yield sequence, -_CODE.unpack_from(body)[0]


def text(value: str) -> bytes:
    return value.encode() + b"\0"
