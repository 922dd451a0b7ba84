"""Tells datagrams of DTLS and of QUIC from those in the clear. Values only; any bytes have an answer.

A client of DTLS begins with a ClientHello in a record of its own (RFC 6347, section 4.2; RFC 9147, section 5.3). QUIC
always is in TLS 1.3 (RFC 9001).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import unpack_from
from typing import Final

from pytest_egress.traffic.tls.quic import begins_quic

RECORD_BYTES: Final = 13  # the header of a record: type, version, epoch, number, length
MESSAGE_BYTES: Final = 12  # that of a handshake message, with the place of its fragment
HANDSHAKE, CLIENT_HELLO, SUPPORTED_VERSIONS = 22, 1, 43
TYPES: Final = range(20, 27)  # of records with such a header
UNIFIED: Final = (
    0x20  # RFC 9147, section 4: the first three bits of an encrypted record of version 1.3
)
FIXED: Final = 0x40  # RFC 9000, section 17: a bit of every packet
NAMES: Final = {0xFEFF: "TLSv1.1", 0xFEFD: "TLSv1.2", 0xFEFC: "TLSv1.3"}
"""The version of TLS that one of DTLS is made of."""


def version_of(contents: Sequence[bytes]) -> str:
    """The newest version of TLS that the client of a flow offers in DTLS, or that of QUIC; "" for any in the clear."""
    first = contents[0] if contents else b""
    if begins_quic(first, len(first)):
        return "TLSv1.3" if all(each and each[0] & FIXED for each in contents) else ""
    version = offered(first)
    return version if version and all(map(is_record, contents)) else ""


def is_record(content: bytes) -> bool:
    kind = content[0] if content else 0
    if kind & 0xE0 == UNIFIED:
        return True
    return kind in TYPES and len(content) >= RECORD_BYTES and content[1] == 0xFE


def offered(content: bytes) -> str:
    """The newest version that a ClientHello of DTLS offers, by OpenSSL's name of TLS; "" where it is none."""
    body = content[RECORD_BYTES + MESSAGE_BYTES :]
    if not is_record(content) or content[0] != HANDSHAKE or len(body) < 34:
        return ""
    if content[RECORD_BYTES] != CLIENT_HELLO:
        return ""
    versions = [int.from_bytes(body[:2], "big"), *supported(body)]
    return max((NAMES[each] for each in versions if each in NAMES), default="")


def supported(body: bytes) -> list[int]:
    """The numbers in the extension supported_versions (RFC 8446, section 4.2.1), as far as the bytes have it."""
    at = 34
    for size in (1, 1, 2, 1):  # the session's ID, the cookie, the suites, and compression
        at += size + int.from_bytes(body[at : at + size], "big")
    at += 2
    while at + 4 <= len(body):
        kind, size = unpack_from("!HH", body, at)
        if kind == SUPPORTED_VERSIONS:
            listed = body[at + 5 : at + 4 + size]
            return [int.from_bytes(listed[i : i + 2], "big") for i in range(0, len(listed), 2)]
        at += 4 + size
    return []
