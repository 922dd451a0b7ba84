"""Tells the datagram by which a client begins QUIC from any other one. Values only; any bytes have an answer.

The first packet of a client is an Initial packet with a long header (RFC 9000, section 17.2.2). No packet with a short
header begins a connection, and version negotiation is a server's.
"""

from __future__ import annotations

from typing import Final

LEAST_BYTES: Final = 1200
"""The shortest datagram with an Initial packet (RFC 9000, section 14.1)."""

FORM_AND_FIXED: Final = 0xC0  # bits in the first byte of a long header (RFC 9000, section 17.2)
VERSION_2: Final = 0x6B3343CF  # RFC 9369, section 3.1
DRAFTS: Final = 0xFF0000  # high bytes of the versions of drafts, which have the form of version 1
RESERVED: Final = 0x0A0A0A0A  # low half-bytes of versions that have others negotiated (section 15)

LEAST_ID_BYTES: Final = 8  # of the destination's ID, random at first (RFC 9000, section 7.2)
MOST_ID_BYTES: Final = 20  # of any connection ID (RFC 9000, section 17.2)
FLAGS_TO_IDS: Final = 7  # bytes of flags, version, and the lengths of both IDs
OWN_ID_BYTES: Final = 8  # of the IDs that aioquic gives a client

LENGTH_BYTES: Final = 2
NOTHING: Final = bytes(LENGTH_BYTES)
"""A datagram without content, behind its length: it has what came before read, and is no end."""


def begins_quic(data: bytes, size: int) -> bool:
    """An Initial packet needs some fifty of the first bytes, `data`; `size` is that of the whole datagram."""
    if size < LEAST_BYTES or len(data) < FLAGS_TO_IDS or data[0] & FORM_AND_FIXED != FORM_AND_FIXED:
        return False
    if not is_initial(data[0] >> 4 & 3, int.from_bytes(data[1:5], "big")):
        return False
    destination = data[5]
    source_at = 6 + destination
    if not LEAST_ID_BYTES <= destination <= MOST_ID_BYTES or len(data) <= source_at:
        return False
    return data[source_at] <= MOST_ID_BYTES and fits(data, source_at + 1 + data[source_at], size)


def is_initial(kind: int, version: int) -> bool:
    """Whether the type in a long header is that of an Initial packet, in a version that clients offer."""
    if version == VERSION_2:
        return kind == 1  # RFC 9369, section 3.2
    if version == 1 or version >> 8 == DRAFTS:
        return kind == 0
    return version & 0x0F0F0F0F == RESERVED


def fits(data: bytes, at: int, size: int) -> bool:
    """Whether the token, whose length is at `at`, and the rest of the packet after its own are within the datagram."""
    if (token := varint(data, at)) is None:
        return False
    at = token[1] + token[0]
    if (rest := varint(data, at)) is None:  # a long token: its end is not among the first bytes
        return at < size
    return 0 < rest[0] <= size - rest[1]


def varint(data: bytes, at: int) -> tuple[int, int] | None:
    """An integer of variable length (RFC 9000, section 16), and where it ends; None where the bytes do not have it."""
    if at >= len(data):
        return None
    end = at + (1 << (data[at] >> 6))
    if end > len(data):
        return None
    bits = 8 * (end - at) - 2
    return int.from_bytes(data[at:end], "big") & ((1 << bits) - 1), end


def destination_of(data: bytes) -> bytes:
    """The connection ID that a datagram is for (RFC 9000, section 5.2); b"" where it has none."""
    if data[:1] >= b"\x80":  # a long header
        size = data[5] if len(data) > 5 else 0
        return data[6 : 6 + size] if size <= MOST_ID_BYTES else b""
    return data[1 : 1 + OWN_ID_BYTES]
