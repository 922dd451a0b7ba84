"""`Packets`: records what a target sends without a connection: packets, and datagrams for DNS that are no query.

The gateway's reader calls it, and no other thread.
"""

from __future__ import annotations

import socket
from typing import Final

from pytest_egress.gateway.dials import FAULTS, ConnectFaults
from pytest_egress.gateway.dns.names import NAMES_PORT, Names
from pytest_egress.gateway.recorder import FIRST_BYTES_KEPT, Claim, Recorder
from pytest_egress.ledger.windows import AttemptContext
from pytest_egress.link.changes import ASIDE, LONGEST6
from pytest_egress.routes.table import claimed, keyed_on, nearest_by_address
from pytest_egress.traffic.dns.resolver import why_no_query
from pytest_egress.traffic.entries import (
    ASIDE_DATAGRAM,
    EXTENDED_DATAGRAM,
    LONG_DATAGRAM,
    NO_HTTP3,
    NO_QUIC,
    UDP_HEADER_BYTES,
    PacketAttempt,
)
from pytest_egress.traffic.packets import Packet, parse_packet, parse_packets

ANY_HOST: Final = "*"  # a redirected datagram does not tell its original destination
NOT_BETWEEN: Final = "a container of the same network has this name, and containers reach each other by TCP alone here"
BATCH: Final = 256  # datagrams to read before the reader returns to connections


class Packets:
    def __init__(self, recorder: Recorder, names: Names, dials: ConnectFaults) -> None:
        self._recorder, self._names, self._dials = recorder, names, dials
        self._next = self._missing = self._told_missing = 0

    def read(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel has dropped packets
                data = b""
            if not data:  # by an empty message a link says that it has dropped packets
                self._recorder.complain("packets came faster than they could be recorded")
                return
            for packet in parse_packets(data):
                self._record(packet)

    def count_missing(self, missing: int) -> None:
        """A gap in sequence numbers, or the link, shows how many were lost since the start; each is counted once."""
        if (more := missing - self._told_missing) > 0:
            self._told_missing = missing
            self._recorder.miss(more)

    def record_no_query(self, datagram: bytes, why: str) -> None:
        """Record a datagram that was sent to a DNS server, and is no query."""
        context = self._recorder.target.attempt_context()
        claim = self._recorder.outcome(context, ANY_HOST, NAMES_PORT)
        entry = PacketAttempt(
            **self._recorder.about(claim, ANY_HOST, NAMES_PORT),
            protocol="UDP",
            address="",
            size=UDP_HEADER_BYTES + len(datagram),
            first_bytes=datagram[:FIRST_BYTES_KEPT],
            note=f"{why}; for which server it was is not known",
        )
        self._recorder.record(context, entry)

    def record_unreadable(self, data: bytes) -> None:
        """Record what was let out as a datagram, and is no whole one: a fragment, or a packet with a forged mark."""
        packet = parse_packet(data)
        if packet is None:
            self._recorder.miss(1)
        else:
            self._record(packet)

    def _record(self, packet: Packet) -> None:
        if packet.sequence is not None:
            self._missing += packet.sequence - self._next
            self._next = packet.sequence + 1
            self.count_missing(self._missing)
        if packet.prefix in FAULTS:
            self._dials.take_packet(packet)
            return
        context = self._recorder.target.attempt_context()
        hosts = *self._names.of(packet.destination), packet.destination
        host = keyed_on(context.tables, hosts, packet.port or 0)
        entry = PacketAttempt(
            **self._recorder.about(Claim("recorded"), host, packet.port),
            protocol=packet.protocol_name,
            address=packet.destination,
            size=packet.size,
            first_bytes=packet.payload[:FIRST_BYTES_KEPT],
        )
        if packet.protocol is not None:  # what is not IP has no address that a route could name
            self._judge(context, entry)
        if not_answerable(packet):
            entry.near = ()  # no route of datagrams would have got it
        if entry.protocol == "UDP" and not entry.note:
            no_query = why_no_query(packet.payload) if entry.port == NAMES_PORT else ""
            entry.note = "; ".join(filter(None, (not_answerable(packet), no_query)))
        self._recorder.record(context, entry)

    def _judge(self, context: AttemptContext, packet: PacketAttempt) -> None:
        """QUIC to an address whose HTTPS a route answers is recorded only: its client falls back to TCP."""
        host, port = packet.host, packet.port or 0
        route = claimed(context.tables, host, port)
        falls_back = route is not None and route.kind.answers_https
        if packet.host != packet.address and self._recorder.target.peers(packet.host):
            packet.note = NOT_BETWEEN
        packet.outcome, packet.route = self._recorder.outcome(
            context, host, port, "recorded" if falls_back and packet.is_quic else "unrouted"
        )
        if falls_back and packet.protocol == "UDP":
            other = f"{NO_QUIC}, and {route} answers HTTPS over TCP alone"
            packet.note = NO_HTTP3 if packet.is_quic else other
        if packet.protocol == "UDP" and packet.outcome == "unrouted":
            miss = nearest_by_address(context.tables, "udp", host, port)
            packet.near = (miss,) if miss is not None else ()


def not_answerable(packet: Packet) -> str:
    """Why no route of datagrams gets a packet of UDP; "" where one could."""
    if packet.prefix == ASIDE:
        return ASIDE_DATAGRAM
    if not packet.is_plain:
        return EXTENDED_DATAGRAM
    is_long = ":" in packet.destination and packet.size > LONGEST6
    return LONG_DATAGRAM if is_long else ""
