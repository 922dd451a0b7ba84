"""Packets, as the kernel records them, are read."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.agent import netlink
from pytest_egress.traffic.packets import Packet, parse_packets

# As a kernel delivered them: "hello" to 203.0.113.9:443 over UDP, an echo request to 2001:db8::9.
UDP_RECORD = bytes.fromhex(
    "6c000000000400000000000000000000020000d5080001000800030005000a0000000000080005000000000308000b00"
    "0000000008000e000000000008000c000000000025000900450000214d8d40004011a65e0ad50002cb007109d43101bb"
    "000d46ff68656c6c6f000000"
)
ECHO_RECORD = bytes.fromhex(
    "7c0000000004000000000000000000000a0000d50800010086dd030005000a0000000000080005000000000308000b00"
    "0000000008000e000000000008000c000000000138000900600221b3000c3a40fd000213000000000000000000000002"
    "20010db80000000000000000000000098000153d5ed2000170696e67"
)


def record(packet: bytes, sequence: int = 0) -> bytes:
    """An NFLOG message around an IP packet."""
    numbered = netlink.attribute(12, struct.pack("!I", sequence))
    body = bytes([2, 0, 0, 213]) + numbered + netlink.attribute(9, packet)
    return netlink.message(4 << 8, 0, body)


def ipv4(protocol: int, destination: str, content: bytes, options: bytes = b"") -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        0,
        20 + len(options) + len(content),
        0,
        0,
        64,
        protocol,
        0,
        socket.inet_aton("10.213.0.2"),
        socket.inet_aton(destination),
    )
    return header + options + content


def ipv6(next_header: int, destination: str, content: bytes) -> bytes:
    source = ipaddress.IPv6Address("fd00:213::2").packed
    head = struct.pack("!IHBB", 6 << 28, len(content), next_header, 64)
    return head + source + ipaddress.IPv6Address(destination).packed + content


def only(data: bytes) -> Packet:
    (packet,) = parse_packets(data)
    return packet


def test_a_recorded_udp_datagram() -> None:
    assert only(UDP_RECORD) == Packet(
        sequence=0,
        protocol=17,
        protocol_name="UDP",
        destination="203.0.113.9",
        port=443,
        size=13,
        payload=b"hello",
    )


def test_a_recorded_icmpv6_echo() -> None:
    assert only(ECHO_RECORD) == Packet(
        sequence=1,
        protocol=58,
        protocol_name="ICMPv6",
        destination="2001:db8::9",
        port=None,
        size=12,
        payload=b"ping",
        type=128,
        code=0,
    )


def test_records_that_share_a_datagram_are_all_yielded() -> None:
    assert [it.sequence for it in parse_packets(UDP_RECORD + ECHO_RECORD)] == [0, 1]


def test_options_of_an_ipv4_header_are_skipped() -> None:
    udp = struct.pack("!HHHH", 1, 123, 12, 0) + b"time"
    packet = only(record(ipv4(17, "192.0.2.1", udp, options=bytes(8))))
    assert (packet.port, packet.size, packet.payload) == (123, 12, b"time")
    assert not packet.is_plain


def test_a_recorded_icmp_echo_has_type_and_code_and_no_port() -> None:
    packet = only(record(ipv4(1, "192.0.2.1", bytes([8, 0, 0, 0, 0, 1, 0, 1]) + b"ping")))
    assert (packet.protocol_name, packet.type, packet.code) == ("ICMP", 8, 0)
    assert (packet.port, packet.payload) == (None, b"ping")


def test_ipv6_extension_headers_are_skipped() -> None:
    hop_by_hop, fragment = bytes([44, 0, 1, 4, 0, 0, 0, 0]), bytes([58, 0, 0, 0, 0, 0, 0, 1])
    echo = bytes([128, 0, 0, 0, 0, 1, 0, 1]) + b"ping"
    packet = only(record(ipv6(0, "2001:db8::9", hop_by_hop + fragment + echo)))
    assert (packet.protocol_name, packet.type, packet.destination) == ("ICMPv6", 128, "2001:db8::9")
    assert (packet.size, packet.payload) == (12, b"ping")


def test_a_later_fragment_has_no_ports() -> None:
    later = bytearray(ipv4(17, "192.0.2.1", b"0123456789"))
    later[7] = 3  # times eight bytes
    extension = bytes([17, 0, 0, 24, 0, 0, 0, 7])
    for data in (bytes(later), ipv6(44, "2001:db8::9", extension + b"0123456789")):
        packet = only(record(data))
        assert (packet.protocol_name, packet.port) == ("UDP", None)
        assert (packet.size, packet.payload) == (10, b"0123456789")


def test_the_payload_of_tcp_begins_after_its_options() -> None:
    tcp = struct.pack("!HHIIBBHHH", 1, 80, 0, 0, 6 << 4, 2, 0, 0, 0) + bytes(4) + b"GET"
    assert only(record(ipv4(6, "192.0.2.1", tcp))).payload == b"GET"


def test_a_protocol_without_a_name_is_shown_by_number() -> None:
    packet = only(record(ipv4(253, "192.0.2.1", b"zz")))
    assert (packet.protocol_name, packet.port, packet.payload) == ("protocol 253", None, b"zz")


def framed(ethertype: int, header: bytes, payload: bytes) -> bytes:
    """An NFLOG message around what an Ethernet frame holds."""
    packet = netlink.attribute(1, struct.pack("!HBx", ethertype, 0))
    body = bytes([5, 0, 0, 213]) + packet + netlink.attribute(16, header)
    return netlink.message(4 << 8, 0, body + netlink.attribute(9, payload))


FRAME = bytes.fromhex("0180c200000e020202020202") + b"\0\0"


def test_an_ip_packet_in_a_frame_is_that_packet() -> None:
    udp = struct.pack("!HHHH", 1, 123, 12, 0) + b"time"
    for ethertype, packet in ((0x0800, ipv4(17, "192.0.2.1", udp)), (0x86DD, ipv6(17, "::2", udp))):
        found = only(framed(ethertype, FRAME, packet))
        assert (found.protocol_name, found.port, found.payload) == ("UDP", 123, b"time")


def test_an_arp_request_is_for_the_address_that_it_asks_for() -> None:
    ends = bytes(6) + socket.inet_aton("10.213.0.2"), bytes(6) + socket.inet_aton("192.0.2.1")
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + b"".join(ends)
    packet = only(framed(0x0806, FRAME, request))
    assert (packet.protocol, packet.protocol_name, packet.port) == (None, "ARP", None)
    assert (packet.destination, packet.size) == ("192.0.2.1", 28)


@pytest.mark.parametrize(
    ("ethertype", "payload", "name"),
    [
        (0x88CC, b"hello", "LLDP"),
        (0x88B5, b"\x45" + bytes(40), "ethertype 0x88b5"),  # it only looks like IP
        (0x0806, bytes(27), "ARP"),
        (0x0800, b"\x45cut", "IPv4"),
        (0x86DD, b"", "IPv6"),
    ],
)
def test_a_frame_without_an_ip_packet_is_for_its_own_destination(
    ethertype: int, payload: bytes, name: str
) -> None:
    packet = only(framed(ethertype, FRAME, payload))
    assert (packet.protocol, packet.protocol_name, packet.payload) == (None, name, payload)
    assert packet.destination == "01:80:c2:00:00:0e"


def test_a_frame_whose_header_is_cut_is_nothing() -> None:
    assert list(parse_packets(framed(0x88CC, FRAME[:13], b"hello"))) == []


@given(st.integers(0, 0xFFFF), st.binary(max_size=20), st.binary(max_size=60))
def test_a_garbled_frame_is_a_value_or_nothing(
    ethertype: int, header: bytes, payload: bytes
) -> None:
    for found in parse_packets(framed(ethertype, header, payload)):
        assert found.protocol_name
        assert len(found.payload) <= len(payload)


@pytest.mark.parametrize("cut", range(20))
def test_a_packet_without_a_whole_header_is_no_packet(cut: int) -> None:
    assert list(parse_packets(record(ipv4(17, "192.0.2.1", b"")[:cut]))) == []


def test_a_packet_cut_in_its_transport_header_has_no_port() -> None:
    assert only(record(ipv4(17, "192.0.2.1", b"\0\1\0"))).port is None


@given(st.binary(max_size=200))
def test_garbage_is_values_or_nothing(data: bytes) -> None:
    list(netlink.messages(data))
    list(netlink.answers(data))
    netlink.attributes(data)
    list(parse_packets(data))


@given(st.binary(max_size=120), st.sampled_from([4, 6]))
def test_a_garbled_packet_is_a_value_or_nothing(data: bytes, version: int) -> None:
    packet = bytes([version << 4 | 5]) + data
    for found in parse_packets(record(packet)):
        assert found.protocol is not None
        assert 0 <= found.protocol <= 255
        assert found.size >= 0
        assert len(found.payload) <= len(packet)
        ipaddress.ip_address(found.destination)


def test_a_dial_has_what_begins_its_header_and_the_prefix_of_its_rule() -> None:
    segment = struct.pack("!HHIIBBHHH", 4000, 443, 7, 0, 5 << 4, 2, 64240, 0, 0)
    packet = netlink.attribute(9, ipv4(6, "203.0.113.9", segment))
    prefix = netlink.attribute(10, b"refused\0")
    (logged,) = parse_packets(netlink.message(4 << 8, 0, bytes(4) + packet + prefix))
    assert (logged.begins, logged.prefix) == (segment[:8], "refused")
    assert (only(UDP_RECORD).begins, only(UDP_RECORD).prefix) == (b"", "")
