"""The packets of a target that no socket takes: what is recorded of them, and which are an offence."""

from __future__ import annotations

import socket
import struct

import pytest

from pytest_egress.agent import netlink
from pytest_egress.gateway.packets import NOT_BETWEEN
from pytest_egress.ledger.verdict import judge
from pytest_egress.traffic.entries import ASIDE_DATAGRAM, NO_HTTP3, PacketAttempt
from tests.support.stage import ADDRESS, FIRST, NoPort, Stage, log_of, udp
from tests.support.traffic import quic_initial


def test_packets_are_attempts_with_the_name_that_was_meant(stage: Stage) -> None:
    stage.resolve("time.test")
    stage.route("block", f"{ADDRESS}:123")
    for destination, protocol, transport in (
        (FIRST, 17, udp(123, b"what time is it?" * 8)),
        (ADDRESS, 17, udp(123, b"x")),
        (ADDRESS, 1, bytes(8)),
        (ADDRESS, 6, bytes(12) + b"\x50" + bytes(7)),
    ):
        stage.link.packet_source.send(log_of(protocol, destination, transport))
    found = [
        (p.outcome, p.protocol, p.host, p.port, p.address, p.size, p.first_bytes[:4])
        for p in stage.entries(PacketAttempt)
    ]
    assert found == [
        ("unrouted", "UDP", "time.test", 123, FIRST, 136, b"what"),
        ("blocked", "UDP", ADDRESS, 123, ADDRESS, 9, b"x"),
        ("unrouted", "ICMP", ADDRESS, None, ADDRESS, 8, b""),
        ("unrouted", "TCP", ADDRESS, 0, ADDRESS, 20, b""),  # of a raw socket
    ]
    assert len(stage.entries(PacketAttempt)[0].first_bytes) == 64


@pytest.mark.parametrize(("protocol", "transport"), [(17, udp(8125, b"x")), (1, bytes(8))])
def test_a_packet_to_a_container_says_that_those_are_reached_by_tcp_alone(
    stage: Stage, protocol: int, transport: bytes
) -> None:
    stage.containers = {"db": [NoPort()], ADDRESS: [NoPort()]}
    stage.resolve("db")
    for destination in (FIRST, ADDRESS):
        stage.link.packet_source.send(log_of(protocol, destination, transport))
    told, other = stage.entries(PacketAttempt)
    assert (told.outcome, told.note) == ("unrouted", NOT_BETWEEN)
    assert other.note == ""


def test_packets_that_are_missing_are_counted(stage: Stage) -> None:
    for number in (0, 1, 5):
        packet = log_of(17, ADDRESS, udp(123, b"x"), number.to_bytes(4, "big"))
        stage.link.packet_source.send(packet)
    stage.settle()
    assert stage.window.unrecorded == 3
    stage.link.packet_source.send(b"")  # what a link says that has lost some
    stage.settle()
    assert stage.window.complaints == ["target: packets came faster than they could be recorded"]
    stage.window.complaints.clear()


def test_packets_that_were_lost_are_counted_once_whether_others_follow_or_not(stage: Stage) -> None:
    def arrive(number: int) -> None:
        packet = log_of(17, ADDRESS, udp(123, b"x"), number.to_bytes(4, "big"))
        stage.link.packet_source.send(packet)
        stage.settle()

    arrive(0)
    stage.link.lost_packets = 7
    stage.settle()
    assert stage.window.unrecorded == 7
    arrive(8)  # what came after them tells of the same
    assert stage.window.unrecorded == 7
    arrive(11)
    assert stage.window.unrecorded == 9
    stage.link.lost_packets = 9
    stage.settle()
    assert stage.window.unrecorded == 9


def test_quic_where_https_is_answered_is_no_offence(stage: Stage) -> None:
    stage.https(ADDRESS)
    for port in (443, 444):
        stage.link.packet_source.send(log_of(17, ADDRESS, udp(port, quic_initial())))
    quic, other = stage.entries(PacketAttempt)
    assert (quic.outcome, quic.note) == ("recorded", NO_HTTP3)
    assert (other.outcome, other.note) == ("unrouted", "")


def test_what_is_no_quic_is_unrouted_where_https_is_answered(stage: Stage) -> None:
    route = stage.https(ADDRESS, optional=True)
    for payload in (b"customer row 42", b"x" * 1300):
        stage.link.packet_source.send(log_of(17, ADDRESS, udp(443, payload)))
    assert {packet.outcome for packet in stage.entries(PacketAttempt)} == {"unrouted"}
    text = str(judge(stage.window, [route]))
    assert "UDP 203.0.113.9:443, 15 bytes, first b'customer row 42'  (2 times)\n" in text
    assert "  it does not begin QUIC (RFC 9000 section 17.2.2), and intercept_https(" in text
    assert "to expect it" not in text


def test_a_frame_that_is_no_ip_is_recorded(stage: Stage) -> None:
    attributes = {
        1: struct.pack("!HBx", 0x0806, 5),  # NFULA_PACKET_HDR: the ethertype of ARP
        16: bytes(14),  # NFULA_HWHEADER
        9: bytes(24) + socket.inet_aton("192.0.2.9"),  # NFULA_PAYLOAD: whom it asks for
    }
    body = b"".join(netlink.attribute(kind, data) for kind, data in attributes.items())
    stage.link.packet_source.send(netlink.message(4 << 8, 0, bytes(4) + body))
    (frame,) = stage.entries(PacketAttempt)
    assert (frame.outcome, frame.protocol, frame.host) == ("recorded", "ARP", "192.0.2.9")


def test_a_datagram_that_no_rule_lets_out_is_told_as_one_that_no_route_answers(
    stage: Stage,
) -> None:
    stage.route("intercept_udp", f"{ADDRESS}:124", optional=True)
    stage.link.packet_source.send(log_of(17, ADDRESS, udp(123, b"x"), prefix=b"aside"))
    stage.link.packet_source.send(log_of(17, ADDRESS, udp(53, b"x"), prefix=b"aside"))
    stage.link.packet_source.send(log_of(17, ADDRESS, udp(123, b"x")))
    raw, raw_dns, usual = stage.entries(PacketAttempt)
    assert raw.note == ASIDE_DATAGRAM
    assert raw_dns.note.startswith(f"{ASIDE_DATAGRAM}; ")
    assert usual.note == ""
    assert [len(each.near) for each in (raw, raw_dns, usual)] == [0, 0, 1]
