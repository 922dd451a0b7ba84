"""The packets that NFLOG tells of, taken apart: what was attempted besides TCP and DNS. Sans-IO.

Read by the test process only; the agent never imports it. Whatever the bytes, it yields values or
nothing: the packets come from the container under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from .netlink import attributes, messages

ICMP, TCP, UDP, DCCP, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 58, 132, 136

PROTOCOL_NAMES = {
    ICMP: "ICMP",
    2: "IGMP",
    TCP: "TCP",
    UDP: "UDP",
    DCCP: "DCCP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    ICMPV6: "ICMPv6",
    103: "PIM",
    112: "VRRP",
    SCTP: "SCTP",
    UDPLITE: "UDP-Lite",
}
"""Names of IANA's protocol numbers, as people write them."""

_PACKET = 4 << 8  # NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
_PAYLOAD, _SEQUENCE = 9, 12  # NFULA_PAYLOAD, NFULA_SEQ
_HAVE_PORTS = (TCP, UDP, DCCP, SCTP, UDPLITE)
_HEADER_BYTES = {ICMP: 8, UDP: 8, ICMPV6: 8, SCTP: 12, UDPLITE: 8}
_EXTENSIONS = (0, 43, 60)  # RFC 8200: hop-by-hop options, routing, destination options
_FRAGMENT = 44


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One packet that was recorded and rejected.

    Attributes:
        sequence: Its number; a gap means that packets were lost. None where the kernel gave none.
        protocol: The protocol number (IANA), after IPv6 extension headers.
        protocol_name: Its name, such as "UDP", or "protocol 253" for one without.
        source_port: The port it came from; None for a protocol without ports.
        destination: The address it was for.
        port: The port it was for; None for a protocol without ports.
        size: Bytes of the IP payload, transport header included.
        payload: The first bytes after the transport header, as many as were recorded.
        type: The ICMP type; None for other protocols.
        code: The ICMP code; None for other protocols.
    """

    sequence: int | None
    protocol: int
    protocol_name: str
    source_port: int | None
    destination: str
    port: int | None
    size: int
    payload: bytes
    type: int | None = None
    code: int | None = None


def parse_packets(data: bytes) -> Iterator[Packet]:
    """The packets in one datagram of the NFLOG socket (linux/netfilter/nfnetlink_log.h)."""
    for kind, _sequence, body in messages(data):
        if kind != _PACKET:
            continue
        found = attributes(body[4:])
        packet = _ip(found.get(_PAYLOAD, b""), _number(found.get(_SEQUENCE, b"")))
        if packet is not None:
            yield packet


def _number(data: bytes) -> int | None:
    return int.from_bytes(data, "big") if len(data) == 4 else None


def _ip(data: bytes, sequence: int | None) -> Packet | None:
    """The IP packet (RFC 791, RFC 8200), or None for what has no whole header."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        header = (data[0] & 15) * 4
        size = max(int.from_bytes(data[2:4], "big") - header, 0)
        return _transport(data[9], str(IPv4Address(data[16:20])), size, data[header:], sequence)
    if version == 6 and len(data) >= 40:
        protocol, header = _after_extensions(data)
        size = max(int.from_bytes(data[4:6], "big") + 40 - header, 0)
        return _transport(protocol, str(IPv6Address(data[24:40])), size, data[header:], sequence)
    return None


def _after_extensions(data: bytes) -> tuple[int, int]:
    """The protocol behind the extension headers and where it begins."""
    protocol, offset = data[6], 40
    while offset + 8 <= len(data):
        if protocol in _EXTENSIONS:
            length = (data[offset + 1] + 1) * 8
        elif protocol == _FRAGMENT:
            length = 8
        else:
            break
        protocol, offset = data[offset], offset + length
    return protocol, offset


def _transport(
    protocol: int, destination: str, size: int, data: bytes, sequence: int | None
) -> Packet:
    ports = protocol in _HAVE_PORTS and len(data) >= 4
    icmp = protocol in (ICMP, ICMPV6) and len(data) >= 2
    return Packet(
        sequence=sequence,
        protocol=protocol,
        protocol_name=PROTOCOL_NAMES.get(protocol, f"protocol {protocol}"),
        source_port=int.from_bytes(data[0:2], "big") if ports else None,
        destination=destination,
        port=int.from_bytes(data[2:4], "big") if ports else None,
        size=size,
        payload=data[_header_bytes(protocol, data) :],
        type=data[0] if icmp else None,
        code=data[1] if icmp else None,
    )


def _header_bytes(protocol: int, data: bytes) -> int:
    if protocol == TCP and len(data) > 12:
        return (data[12] >> 4) * 4  # RFC 9293, section 3.1: the data offset
    return _HEADER_BYTES.get(protocol, 0)
