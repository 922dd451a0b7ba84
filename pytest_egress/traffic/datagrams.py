"""Datagrams of UDP as Ethernet frames: parses those that a target sends, and builds those that it gets. Sans-IO.

For any bytes whatever `parse` returns a value or None, and never raises: the frames come from the container under test.
Checksums are not verified: the kernel leaves those of what it has not sent yet unfinished.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct, pack
from typing import Final

UDP, ICMP, ICMPV6 = 17, 1, 58
ETHERNET_BYTES: Final = 14
HOPS: Final = 64
"""The hop limit of what a target gets: that of a server nearby."""

MOST_BYTES: Final = {4: 65535 - 28, 6: 65535 - 48}
"""The longest content of a datagram that is one frame, by the IP version."""

ETHERTYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}
"""What the Ethernet header of a packet says that it is, by the IP version."""

ROUTERS: Final = {4: "10.213.0.1", 6: "fd00:213::1"}
"""From where an answer to a multicast or broadcast datagram comes: Linux takes none whose source is such an address."""

QUOTED_BYTES: Final = 1000
"""How much of a packet an ICMPv6 error quotes: with its headers it is under 1280 bytes (RFC 4443, section 2.4)."""

_IPV4, _IPV6, _PORTS = Struct("!BxH2xHBB2x4s4s"), Struct("!4xHBB16s16s"), Struct("!HHH")
_FRAGMENTED: Final = 0x3FFF  # RFC 791: the offset, and the flag for more fragments


@dataclass(frozen=True, kw_only=True, slots=True)
class SentDatagram:
    """A datagram that a target has sent.

    Attributes:
        version: The IP version.
        client: The address and port that it came from.
        server: Those that it was for.
        hops: The hop limit (TTL) that it had.
        frame: The frame as far as the content, of which an answer is made.
    """

    version: int
    client: tuple[str, int]
    server: tuple[str, int]
    content: bytes
    hops: int
    frame: bytes

    @property
    def ethernet(self) -> bytes:
        """The Ethernet header of an answer: the addresses change places."""
        return self.frame[6:12] + self.frame[:6] + self.frame[12:ETHERNET_BYTES]

    @property
    def packet(self) -> bytes:
        return self.frame[ETHERNET_BYTES:]


def parse(frame: bytes) -> SentDatagram | None:
    """None where a frame has no whole datagram of UDP. What follows its end is ignored.

    IP options and extension headers may lead to another server than the address (source routes): None too.
    """
    length = len(frame) - ETHERNET_BYTES
    version = frame[ETHERNET_BYTES] >> 4 if length >= 28 else 0
    if version not in ETHERTYPES or frame[12:ETHERNET_BYTES] != ETHERTYPES[version]:
        return None
    if version == 4:
        start, end, fragment, hops, protocol, source, target = _IPV4.unpack_from(
            frame, ETHERNET_BYTES
        )
        header, is_whole = 20, start & 15 == 5 and not fragment & _FRAGMENTED
    elif length >= 48:
        size, protocol, hops, source, target = _IPV6.unpack_from(frame, ETHERNET_BYTES)
        header, end, is_whole = 40, 40 + size, True
    else:
        return None
    if protocol != UDP or not is_whole or not header + 8 <= end <= length:
        return None
    source_port, target_port, size = _PORTS.unpack_from(frame, ETHERNET_BYTES + header)
    if size < 8 or header + size > end:
        return None
    begin = ETHERNET_BYTES + header + 8
    return SentDatagram(
        version=version,
        client=(text(source), source_port),
        server=(text(target), target_port),
        content=frame[begin : begin + size - 8],
        hops=hops,
        frame=frame[:begin] + frame[begin : begin + QUOTED_BYTES] * (version == 6),
    )


@lru_cache(maxsize=4096)
def text(address: bytes) -> str:
    return str(IPv4Address(address) if len(address) == 4 else IPv6Address(address))


@lru_cache(maxsize=4096)
def packed(address: str) -> bytes:
    return ip_address(address).packed


def answer(sent: SentDatagram, content: bytes) -> bytes:
    """The frame that answers a datagram; ValueError where the content is longer than a datagram can be."""
    if len(content) > (most := MOST_BYTES[sent.version]):
        raise ValueError(
            f"{len(content)} bytes do not fit into a datagram of IPv{sent.version}, which has {most} at most"
        )
    source, target = packed(answering(sent)), packed(sent.client[0])
    header = pack("!4H", sent.server[1], sent.client[1], 8 + len(content), 0)
    body = with_checksum(UDP, source, target, header + content, 6)
    return sent.ethernet + ip_header(UDP, source, target, len(body)) + body


def refusal(sent: SentDatagram) -> bytes:
    """The frame that tells a client that nobody listens (ICMP: port unreachable), so that it gets ECONNREFUSED."""
    source, target = packed(answering(sent)), packed(sent.client[0])
    if sent.version == 4:
        body = pack("!BBHI", 3, 3, 0, 0) + sent.packet
        body = with_checksum(ICMP, b"", b"", body, 2)
        return sent.ethernet + ip_header(ICMP, source, target, len(body)) + body
    body = pack("!BBHI", 1, 4, 0, 0) + sent.packet[:QUOTED_BYTES]
    body = with_checksum(ICMPV6, source, target, body, 2)
    return sent.ethernet + ip_header(ICMPV6, source, target, len(body)) + body


def answering(sent: SentDatagram) -> str:
    """The address that an answer comes from."""
    address = packed(sent.server[0])
    if sent.version == 6:
        return ROUTERS[6] if address[0] == 0xFF else sent.server[0]
    own = packed(sent.client[0])
    is_broadcast = address == own[:3] + b"\xff"
    return ROUTERS[4] if address[0] >= 224 or is_broadcast else sent.server[0]


def ip_header(protocol: int, source: bytes, target: bytes, length: int) -> bytes:
    if len(source) == 16:
        return pack("!IHBB", 6 << 28, length, protocol, HOPS) + source + target
    header = pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, HOPS, protocol, 0)
    header += source + target
    return header[:10] + pack("!H", checksum(header)) + header[12:]


def with_checksum(protocol: int, source: bytes, target: bytes, body: bytes, place: int) -> bytes:
    """The checksum is at a place of the body; it covers the addresses too, where they are given."""
    pseudo = source + target + pack("!II", len(body), protocol) if source else b""
    return body[:place] + pack("!H", checksum(pseudo + body) or 0xFFFF) + body[place + 2 :]


def checksum(data: bytes) -> int:
    """RFC 1071: the one's complement of the sum of all words, which is their value modulo 0xFFFF."""
    value = int.from_bytes(data + b"\0" if len(data) % 2 else data, "big")
    rest = value % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if value else 0))
