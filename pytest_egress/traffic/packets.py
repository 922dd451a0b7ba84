"""Parses the packets that the kernel logs (NFLOG): attempts that are neither DNS nor connections. Sans-IO.

Only the test process uses this module; the agent never imports it. For any bytes whatever it yields
values or nothing, and never raises: the packets come from the container under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from pytest_egress.agent.netlink import attributes, messages

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
"""Names of IANA's protocol numbers, in their usual spelling."""

ETHERTYPE_NAMES = {
    0x0004: "IEEE 802.2",  # the kernel's number (ETH_P_802_2): such a frame has a length instead
    0x0800: "IPv4",
    0x0806: "ARP",
    0x8863: "PPPoE",
    0x8864: "PPPoE",
    0x86DD: "IPv6",
    0x88CC: "LLDP",
}
"""Names of IEEE's ethertypes, for frames without a complete IP packet."""

_PACKET = 4 << 8  # NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
_HEADER, _PAYLOAD, _PREFIX, _SEQUENCE, _FRAME_HEADER = 1, 9, 10, 12, 16  # NFULA_*
_DIAL_BYTES = 8  # of the TCP header: both ports and the sequence number
_ARP, _IP = 0x0806, (0x0800, 0x86DD)
_FRAME_HEADER_BYTES, _ARP_BYTES = 14, 28  # IEEE 802.3; RFC 826 for IPv4 on Ethernet
_HAVE_PORTS = (TCP, UDP, DCCP, SCTP, UDPLITE)
_HEADER_BYTES = {ICMP: 8, UDP: 8, ICMPV6: 8, SCTP: 12, UDPLITE: 8}
_EXTENSIONS = (0, 43, 60)  # RFC 8200: hop-by-hop options, routing, destination options
_FRAGMENT = 44
_FRAGMENTED = 0x3FFF  # RFC 791: the offset, and the flag for more fragments


@dataclass(frozen=True, kw_only=True)
class Packet:
    """A packet that the kernel recorded and rejected.

    TCP connections are accepted instead, so a TCP packet here comes from a raw or packet socket, or
    had no source address. Packets of a connection that has ended are not recorded.

    Attributes:
        sequence: Its number; a gap means that packets were lost. None where the kernel gave none.
        protocol: The protocol number (IANA), after IPv6 extension headers; None for what is not IP.
        protocol_name: The protocol's name, such as "UDP", or "protocol 253" where it has none. For a
            frame that is not IP the ethertype's, such as "ARP" or "ethertype 0x88b5".
        destination: The IP address it was for; for ARP the one that is asked for; for other frames
            the Ethernet address.
        port: The port it was for; None for a protocol without ports, or a later fragment.
        size: Bytes of the IP payload, transport header included; for a frame those that were recorded.
        payload: The first bytes after the transport header, as many as were recorded.
        type: The ICMP type; None for other protocols.
        code: The ICMP code; None for other protocols.
        begins: The ports and the sequence number of a TCP packet, as bytes; a repetition of it has the same.
        prefix: The prefix that the rule which logged it has; "" for none.
        is_plain: Whether it is no fragment, and has no IP options or extension headers.
    """

    protocol: int | None
    protocol_name: str
    destination: str
    port: int | None
    size: int
    payload: bytes
    sequence: int | None = None
    type: int | None = None
    code: int | None = None
    begins: bytes = b""
    prefix: str = ""
    is_plain: bool = True


def parse_packets(data: bytes) -> Iterator[Packet]:
    """The packets in one datagram of the NFLOG socket (linux/netfilter/nfnetlink_log.h)."""
    for kind, _sequence, body in messages(data):
        if kind != _PACKET:
            continue
        found = attributes(body[4:])
        payload, sequence = found.get(_PAYLOAD, b""), found.get(_SEQUENCE, b"")
        ethertype = int.from_bytes(found[_HEADER][:2], "big") if _HEADER in found else 0
        packet = _ip(payload) if not ethertype or ethertype in _IP else None
        packet = packet or _frame(ethertype, found.get(_FRAME_HEADER, b""), payload)
        if packet is None:
            continue
        prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
        number = int.from_bytes(sequence, "big") if len(sequence) == 4 else None
        yield replace(packet, sequence=number, prefix=prefix)


def parse_packet(data: bytes) -> Packet | None:
    """An IP packet as it came from an interface; None where its header is not complete."""
    return _ip(data)


def _frame(ethertype: int, header: bytes, payload: bytes) -> Packet | None:
    """The packet as known by its Ethernet frame alone; None where it came without one."""
    if len(header) < _FRAME_HEADER_BYTES:
        return None
    asked = ethertype == _ARP and len(payload) >= _ARP_BYTES
    return Packet(
        protocol=None,
        protocol_name=ETHERTYPE_NAMES.get(ethertype, f"ethertype 0x{ethertype:04x}"),
        destination=str(IPv4Address(payload[24:28])) if asked else header[:6].hex(":"),
        port=None,
        size=len(payload),
        payload=payload,
    )


def _ip(data: bytes) -> Packet | None:
    """The IP packet (RFC 791, RFC 8200); None where its header is not complete."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        header = (data[0] & 15) * 4
        size = max(int.from_bytes(data[2:4], "big") - header, 0)
        first = not int.from_bytes(data[6:8], "big") & 0x1FFF  # the fragment offset
        address = str(IPv4Address(data[16:20]))
        is_plain = header == 20 and not int.from_bytes(data[6:8], "big") & _FRAGMENTED
        packet = _transport(data[9], address, size, data[header:], first)
        return packet if is_plain else replace(packet, is_plain=False)
    if version == 6 and len(data) >= 40:
        protocol, header, first = _after_extensions(data)
        size = max(int.from_bytes(data[4:6], "big") + 40 - header, 0)
        address = str(IPv6Address(data[24:40]))
        packet = _transport(protocol, address, size, data[header:], first)
        return packet if header == 40 else replace(packet, is_plain=False)
    return None


def _after_extensions(data: bytes) -> tuple[int, int, bool]:
    """The protocol after the extension headers, its offset, and whether this is its first or only fragment."""
    protocol, offset, first = data[6], 40, True
    while first and offset + 8 <= len(data):
        if protocol in _EXTENSIONS:
            length = (data[offset + 1] + 1) * 8
        elif protocol == _FRAGMENT:
            length, first = 8, not int.from_bytes(data[offset + 2 : offset + 4], "big") >> 3
        else:
            break
        protocol, offset = data[offset], offset + length
    return protocol, offset, first


def _transport(protocol: int, destination: str, size: int, data: bytes, first: bool) -> Packet:
    ports = first and protocol in _HAVE_PORTS and len(data) >= 4
    icmp = first and protocol in (ICMP, ICMPV6) and len(data) >= 2
    return Packet(
        protocol=protocol,
        protocol_name=PROTOCOL_NAMES.get(protocol, f"protocol {protocol}"),
        destination=destination,
        port=int.from_bytes(data[2:4], "big") if ports else None,
        size=size,
        payload=data[_header_bytes(protocol, data) if first else 0 :],
        type=data[0] if icmp else None,
        code=data[1] if icmp else None,
        begins=data[:_DIAL_BYTES] if first and protocol == TCP else b"",
    )


def _header_bytes(protocol: int, data: bytes) -> int:
    if protocol == TCP and len(data) > 12:
        return (data[12] >> 4) * 4  # RFC 9293, section 3.1: the data offset
    return _HEADER_BYTES.get(protocol, 0)
