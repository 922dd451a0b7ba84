"""What is neither TCP nor a query, as the kernel of a captured namespace records it."""

from __future__ import annotations

import select
import socket
import struct
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import pytest

from pytest_egress.agent.nftables import LISTENERS
from pytest_egress.targets.sidecars.program import agent_archive
from pytest_egress.targets.sidecars.sidecar import AnyLink
from tests.support.target_shell import (
    LINK,
    QUERY,
    SECONDS,
    Target,
    accepted,
    captured_namespace,
    is_silent,
    packets,
    readable,
    target_in,
)


def flagged(flags: str, counts: str = "0001000000000000") -> bytes:
    """The same with other flags, or other numbers of records."""
    return QUERY[:2] + bytes.fromhex(flags + counts) + QUERY[12:]


# ------------------------------------------------------------------ what is neither


def udp(destination: str, port: int) -> tuple[str, tuple[object, ...]]:
    """A datagram, and how it is recorded."""
    family = "AF_INET6" if ":" in destination else "AF_INET"
    snippet = f"""
        sender = socket.socket(socket.{family}, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        seen = attempt(lambda: sender.sendto(b"hello", ({destination!r}, {port})))
    """
    return snippet, ("UDP", destination.partition("%")[0], port, 13, b"hello")


NO_QUERIES = {
    "nothing": b"",
    "too little": QUERY[:16],
    "a response": flagged("8180"),
    "an UPDATE": flagged("2800"),
    "a NOTIFY": flagged("2400"),
    "two questions": flagged("0100", "0002000000000000"),
    "an answer": flagged("0100", "0001000100000000"),
}

NEITHER = {
    **{
        f"{name} to {address}": udp(address, port)
        for name, port in {"QUIC": 443, "NTP": 123, "statsd": 8125, "DNS elsewhere": 5353}.items()
        for address in ("203.0.113.9", "2001:db8::9")
    },
    "DHCP broadcast": udp("255.255.255.255", 67),
    "broadcast of the subnet": udp("10.213.0.255", 9999),
    "multicast": udp("239.1.1.1", 8125),
    "mDNS": udp("224.0.0.251", 5353),
    "IPv6 mDNS": udp("ff02::fb%eth0", 5353),
    "IPv6 mDNS by way of the peer": udp("ff02::fb%egress0", 5353),
    "IPv6 multicast": udp("ff0e::fb", 5353),
    "link-local": udp("169.254.1.1", 5353),
    "IPv6 link-local": udp("fe80::1%eth0", 5353),
    "metadata": udp("169.254.169.254", 80),
    "IPv4-mapped UDP": (
        """
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        seen = attempt(lambda: sender.sendto(b"hello", ("::ffff:203.0.113.9", 443)))
        """,
        ("UDP", "203.0.113.9", 443, 13, b"hello"),
    ),
    **{
        f"UDP from {device} to {address}": (
            f"""
            sender = socket.socket({family}, socket.SOCK_DGRAM)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, {device!r}.encode())
            seen = attempt(lambda: sender.sendto(b"hello", ({address!r}, 443)))
            """,
            ("UDP", address, 443, 13, b"hello"),
        )
        for device in ("eth0", "egress0")
        for family, address in ((2, "203.0.113.9"), (10, "2001:db8::9"))
    },
    "fragments": (
        "seen = attempt(lambda: socket.socket(2, 2).sendto(b'x' * 4000, ('203.0.113.9', 443)))",
        ("UDP", "203.0.113.9", 443, 4008, b"x" * (2048 - 28)),
    ),
    "UDP-Lite": (
        "seen = attempt(lambda: socket.socket(2, 2, 136).sendto(b'hello', ('203.0.113.9', 99)))",
        ("UDP-Lite", "203.0.113.9", 99, 13, b"hello"),
    ),
    "IPv6 UDP-Lite": (
        "seen = attempt(lambda: socket.socket(10, 2, 136).sendto(b'hello', ('2001:db8::9', 99)))",
        ("UDP-Lite", "2001:db8::9", 99, 13, b"hello"),
    ),
    "ping": (
        """
        echo = b"\\x08" + bytes(7) + b"ping"
        seen = attempt(lambda: socket.socket(2, 2, 1).sendto(echo, ("203.0.113.9", 0)))
        """,
        ("ICMP", "203.0.113.9", None, 12, b"ping"),
    ),
    "raw ICMP": (
        "seen = raw(2, 1, b'\\x08' + bytes(7) + b'ping', '203.0.113.9')",
        ("ICMP", "203.0.113.9", None, 12, b"ping"),
    ),
    "raw ICMPv6": (
        "seen = raw(10, 58, b'\\x80' + bytes(7) + b'ping', '2001:db8::9')",
        ("ICMPv6", "2001:db8::9", None, 12, b"ping"),
    ),
    "raw ICMPv6 solicitation": (
        "seen = raw(10, 58, b'\\x87' + bytes(7) + b'whom', '2001:db8::9')",
        ("ICMPv6", "2001:db8::9", None, 12, b"whom"),
    ),
    "raw IGMP": (
        "seen = raw(2, 2, b'\\x16' + bytes(7), '224.0.0.2')",
        ("IGMP", "224.0.0.2", None, 8, b"\x16" + bytes(7)),
    ),
    "protocol 253": (
        "seen = raw(2, 253, b'zz', '203.0.113.9')",
        ("protocol 253", "203.0.113.9", None, 2, b"zz"),
    ),
    "IPv6 protocol 253": (
        "seen = raw(10, 253, b'zz', '2001:db8::9')",
        ("protocol 253", "2001:db8::9", None, 2, b"zz"),
    ),
    "SCTP": (
        "seen = raw(2, 132, struct.pack('!HHII', 5, 36412, 0, 0), '203.0.113.9')",
        ("SCTP", "203.0.113.9", 36412, 12, b""),
    ),
    "DCCP": (
        "seen = raw(2, 33, struct.pack('!HH', 5, 5001) + bytes(12), '203.0.113.9')",
        ("DCCP", "203.0.113.9", 5001, 16, struct.pack("!HH", 5, 5001) + bytes(12)),
    ),
    "a whole UDP packet": (
        "seen = raw(2, 255, ip(OWN4, '203.0.113.9', 17, udp(123, b'hello')), '203.0.113.9')",
        ("UDP", "203.0.113.9", 123, 13, b"hello"),
    ),
    "a whole UDP packet of IPv6": (
        "seen = raw(10, 255, ip(OWN6, '2001:db8::9', 17, udp(123, b'hello')), '2001:db8::9')",
        ("UDP", "2001:db8::9", 123, 13, b"hello"),
    ),
    "a false source": (
        "seen = raw(2, 255, ip('192.0.2.77', '203.0.113.9', 17, udp(1, b'hello')), '203.0.113.9')",
        ("UDP", "203.0.113.9", 1, 13, b"hello"),
    ),
    "raw DNS": (
        "seen = raw(2, 255, ip(OWN4, '203.0.113.9', 17, udp(53, b'hello')), '203.0.113.9')",
        ("UDP", "203.0.113.9", 53, 13, b"hello"),
    ),
    "raw DNS of IPv6": (
        "seen = raw(10, 255, ip(OWN6, '2001:db8::9', 17, udp(53, b'hello')), '2001:db8::9')",
        ("UDP", "2001:db8::9", 53, 13, b"hello"),
    ),
    "DNS by way of the peer": (
        """
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"egress0")
        seen = attempt(lambda: sender.sendto(b"hello", ("203.0.113.9", 53)))
        """,
        ("UDP", "203.0.113.9", 53, 13, b"hello"),
    ),
    "the first fragment": (
        "seen = raw(2, 255, ip(OWN4, '203.0.113.9', 17, udp(1, b'hello'), 0x2000), '203.0.113.9')",
        ("UDP", "203.0.113.9", 1, 13, b"hello"),
    ),
    "a later fragment": (
        "seen = raw(2, 255, ip(OWN4, '203.0.113.9', 17, b'hello', 2), '203.0.113.9')",
        ("UDP", "203.0.113.9", None, 5, b"hello"),
    ),
    "the first fragment of IPv6": (
        "seen = raw(10, 255, ip(OWN6, '2001:db8::9', 17, udp(1, b'hello'), 1), '2001:db8::9')",
        ("UDP", "2001:db8::9", 1, 13, b"hello"),
    ),
    "a later fragment of IPv6": (
        "seen = raw(10, 255, ip(OWN6, '2001:db8::9', 17, b'hello', 16), '2001:db8::9')",
        ("UDP", "2001:db8::9", None, 5, b"hello"),
    ),
    "a false source of IPv6": (
        "seen = raw(10, 255, ip('2001::7', '2001:db8::9', 17, udp(1, b'hello')), '2001:db8::9')",
        ("UDP", "2001:db8::9", 1, 13, b"hello"),
    ),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.docker] * (k == "ping")) for k in NEITHER]
)
def test_what_is_neither_tcp_nor_dns_fails_at_once_and_is_recorded(
    link: AnyLink, target: Target, kind: str
) -> None:
    snippet, expected = NEITHER[kind]
    assert target.python(f"{textwrap.dedent(snippet)}\nprint(seen)") == "EPERM"
    (packet,) = packets(link)
    seen = packet.protocol_name, packet.destination, packet.port, packet.size, packet.payload
    assert seen == expected
    if packet.protocol_name == "UDP":  # which rules could let out, but for these
        assert packet.prefix == "aside" * any(
            it in snippet for it in ("raw(", 'b"egress0"', "'egress0'")
        )


@pytest.mark.parametrize("server", ["203.0.113.53", "2001:db8::53"])
@pytest.mark.parametrize("what", NO_QUERIES)
def test_what_is_no_query_is_refused_and_recorded_with_the_server_that_it_was_for(
    link: AnyLink, target: Target, what: str, server: str
) -> None:
    payload = NO_QUERIES[what]
    seen = target.python(f"""
        family = socket.AF_INET6 if ":" in {server!r} else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM)
        client.connect(({server!r}, 53))
        print(client.send({QUERY!r}), attempt(lambda: client.send({payload!r})))
    """)
    assert seen == f"{len(QUERY)} EPERM"
    while not readable(link.dns).recv(512).endswith(QUERY):  # over a stream its client comes first
        pass  # a name that an earlier test's client asks for again
    (packet,) = packets(link)
    seen_as = packet.protocol_name, packet.destination, packet.port, packet.size, packet.payload
    assert seen_as == ("UDP", server, 53, 8 + len(payload), payload)


def test_a_connected_udp_socket_is_refused(link: AnyLink, target: Target) -> None:
    seen = target.python("""
        for family, address in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8::9")):
            client = socket.socket(family, socket.SOCK_DGRAM)
            client.settimeout(10)
            client.connect((address, 443))
            print(attempt(lambda: client.send(b"hello")), attempt(lambda: client.recv(1)), end=" ")
    """)
    assert seen == "EPERM ECONNREFUSED EPERM ECONNREFUSED"
    assert [it.destination for it in packets(link)] == ["203.0.113.9", "2001:db8::9"]


@pytest.mark.docker
def test_an_icmpv6_echo_is_refused_and_recorded(link: AnyLink, target: Target) -> None:
    assert "ECONNREFUSED" in target.python("""
        echo = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
        echo.settimeout(10)
        echo.connect(("2001:db8::9", 0))
        print(attempt(lambda: echo.send(bytes([128, 0, 0, 0, 0, 1, 0, 1]) + b"ping")))
        print(attempt(lambda: echo.recv(100)))
    """)
    (packet,) = packets(link)
    assert (packet.protocol_name, packet.type, packet.payload) == ("ICMPv6", 128, b"ping")


def test_every_packet_has_the_next_number(link: AnyLink, target: Target) -> None:
    target.python("""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(500):
            attempt(lambda: client.sendto(b"x" * 500, ("203.0.113.9", 9999)))
    """)
    numbers = [it.sequence for it in packets(link)]
    assert len(numbers) == 500
    assert numbers[0] is not None
    assert numbers == list(range(numbers[0], numbers[0] + 500))


def test_of_packets_that_nobody_reads_in_time_none_goes_uncounted(
    link: AnyLink, target: Target
) -> None:
    before = link.lost_packets
    target.python("""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for _ in range(20_000):
            attempt(lambda: client.sendto(b"x" * 1400, ("203.0.113.9", 9999)))
    """)
    found = packets(link)
    lost = link.lost_packets - before  # the last ones, so that no number tells of them
    assert lost > 0
    assert len(found) + lost == 20_000


def test_joining_a_multicast_group_is_not_an_attempt(link: AnyLink, target: Target) -> None:
    target.python("""
        group = socket.inet_aton("239.1.1.1") + socket.inet_aton("10.213.0.2")
        socket.socket(2, 2).setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        group = socket.inet_pton(10, "ff0e::1") + struct.pack("=I", socket.if_nametoindex("eth0"))
        socket.socket(10, 2).setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    """)
    assert packets(link) == []


# ------------------------------------------------------------------ TCP without a connection

RAW_TCP = {
    "a whole packet": "raw(2, 255, ip(OWN4, TO4, 6, tcp(OWN4, TO4, 81)), TO4)",
    "a wrong checksum": "raw(2, 255, ip(OWN4, TO4, 6, tcp(OWN4, TO4, 81, wrong=5)), TO4)",
    "a false source": "raw(2, 255, ip('192.0.2.7', TO4, 6, tcp('192.0.2.7', TO4, 81)), TO4)",
    "a segment": "raw(2, 6, tcp(OWN4, TO4, 81), TO4)",
    "a segment from the interface": "raw(2, 6, tcp(OWN4, TO4, 81), TO4, b'eth0')",
    "a segment from the peer": "raw(2, 6, tcp(OWN4, TO4, 81), TO4, b'egress0')",
    "an ACK": "raw(2, 6, tcp(OWN4, TO4, 81, flags=16), TO4)",
    "FIN, PSH and URG": "raw(2, 6, tcp(OWN4, TO4, 81, flags=41), TO4)",
    "a whole packet of IPv6": "raw(10, 255, ip(OWN6, TO6, 6, tcp(OWN6, TO6, 81)), TO6)",
    "a false source of IPv6": "raw(10, 255, ip('2001::7', TO6, 6, tcp('2001::7', TO6, 81)), TO6)",
    "a segment of IPv6": "raw(10, 6, tcp(OWN6, TO6, 81), TO6)",
    "a segment of IPv6 from the interface": "raw(10, 6, tcp(OWN6, TO6, 81), TO6, b'eth0')",
}
TO4, TO6 = "203.0.113.9", "2001:db8::9"


@pytest.mark.parametrize("kind", RAW_TCP)
def test_a_segment_of_a_raw_socket_is_a_packet_and_never_answered_by_a_listener(
    link: AnyLink, target: Target, kind: str
) -> None:
    family, to = (10, TO6) if "IPv6" in kind else (2, TO4)
    seen, answered = target.python(f"""
        TO4, TO6 = {TO4!r}, {TO6!r}
        sniffer = socket.socket({family}, socket.SOCK_RAW, socket.IPPROTO_TCP)
        print({RAW_TCP[kind]}, end=" ")
        sniffer.setblocking(False)
        heard = attempt(lambda: sniffer.recv(100))
        header = 20 if {family} == 2 else 0
        print("nothing" if heard == "EAGAIN" else "RST" if heard[header + 13] & 4 else "more")
    """).split()
    unanswerable = any(word in kind for word in ("wrong", "false", "peer"))
    assert (seen, answered) == ("EPERM", "nothing" if unanswerable else "RST")
    (packet,) = packets(link)
    assert (packet.protocol_name, packet.destination, packet.port) == ("TCP", to, 81)
    assert is_silent(link.tcp)


def test_port_0_is_refused_and_recorded(link: AnyLink, target: Target) -> None:
    for address in (TO4, TO6):
        connect = f"lambda: socket.create_connection(({address!r}, 0), 10)"
        assert target.python(f"print(attempt({connect}))") == "ECONNREFUSED"
        (packet,) = packets(link)
        assert (packet.protocol_name, packet.destination, packet.port) == ("TCP", address, 0)


def test_a_connection_from_the_peer_is_recorded(link: AnyLink, target: Target) -> None:
    target.python("""
        for family, address in ((socket.AF_INET, "203.0.113.9"), (socket.AF_INET6, "2001:db8::9")):
            sender = socket.socket(family)
            sender.setblocking(False)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"egress0")
            attempt(lambda: sender.connect((address, 443)))
            sender.close()
    """)
    seen = [(it.protocol_name, it.destination, it.port) for it in packets(link)]
    assert seen == [("TCP", TO4, 443), ("TCP", TO6, 443)]
    assert is_silent(link.tcp)


# ------------------------------------------------------------------ connections are not packets


@contextmanager
def serving(link: AnyLink) -> Iterator[Counter[bytes]]:
    """Accept every connection and end it as its first byte says; yields how many there were."""
    seen: Counter[bytes] = Counter()
    done, wake = socket.socketpair()

    def serve() -> None:
        while (listener := readable((wake, *link.tcp), 60)) is not wake:
            with listener.accept()[0] as connection:
                how = connection.recv(1)
                seen[how] += 1
                if how == b"r":  # a reset
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                elif how == b"h":  # half closed, and then read to the end
                    connection.shutdown(socket.SHUT_WR)
                if how in b"ch":
                    connection.recv(1)
                if how == b"u":  # more than the client reads
                    connection.sendall(b"x" * 1000)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with done, wake:
            yield seen
            done.send(b"!")
            thread.join()
    finally:
        thread.join()


def test_connections_that_end_in_any_way_leave_no_packet(link: AnyLink, target: Target) -> None:
    # One that its client gives up before the kernel has made it may be accepted nowhere: SYN_SENT (tcp(7), TCP_INFO).
    with serving(link) as seen:
        unmade = target.python("""
            reset, unmade = struct.pack("ii", 1, 0), 0
            for number in range(2000):
                for how in (b"s", b"r", b"c", b"h", b"u", b"a", b""):
                    client = socket.socket(socket.AF_INET6 if number % 2 else socket.AF_INET)
                    client.settimeout(10)
                    if not how:  # given up at once
                        client.setblocking(False)
                    address = "2001:db8::9" if number % 2 else "203.0.113.9"
                    attempt(lambda: client.connect((address, 65535 if number % 3 else 443)))
                    attempt(lambda: client.send(how))
                    if how == b"a":  # aborted by the client
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    elif how == b"c" and number % 5 == 0:
                        client.shutdown(socket.SHUT_WR)
                    elif how == b"u":
                        attempt(lambda: client.recv(10))
                    elif how in (b"s", b"r", b"h"):
                        while attempt(lambda: client.recv(10)) == b"x":
                            pass
                        attempt(lambda: client.send(b"too late"))
                    if not how:
                        unmade += client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\\2"
                    client.close()
            print(unmade)
        """)
        link.flush(SECONDS)
        while not all(is_silent((listener,)) for listener in link.tcp):
            select.select([], [], [], 0.01)
    assert 14_000 - int(unmade) <= sum(seen.values()) <= 14_000
    assert packets(link) == []


@pytest.mark.parametrize(("address", "port"), [(TO4, 443), (TO6, 443), (TO4, 65535)])
def test_a_connection_that_the_kernel_has_forgotten_leaves_no_packet(
    hostile: tuple[AnyLink, Target], address: str, port: int
) -> None:
    # As after days of silence: a segment to go on with, one to end with, and one after a reset.
    link, target = hostile
    said = target.python(f"""
        sys.path.insert(0, "/egress")
        from agent import capture, netlink
        def forget():
            flush = netlink.NetlinkRequest("", "", 1 << 8 | 2, 0, bytes([0, 0, 0, 0]))
            capture.ask(capture.open_netlink(netlink.NETFILTER), [flush])
        clients = [socket.create_connection(({address!r}, {port}), 10) for _ in range(3)]
        forget()
        clients[0].send(b"hello")
        clients[1].shutdown(socket.SHUT_WR)
        print(attempt(lambda: clients[1].recv(1)))
        reset = struct.pack("ii", 1, 0)
        clients[2].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        clients[2].close()
    """)
    for _ in range(3):
        accepted(link).close()
    assert said == "ECONNRESET"
    assert packets(link) == []


@pytest.mark.one_link
def test_60_000_connections_that_the_server_ends_do_not_wait_for_each_other(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    # To one listener's port they would: so many of their own are still in TIME_WAIT there that over
    # a thousand have to knock again, a second later. With eight, none does of the first 45,000.
    with (
        captured_namespace(engine_client) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image) as target,
        serving(link) as seen,
    ):
        sent_again = target.python("""
            total = 0
            for number in range(60_000):
                client = socket.create_connection((f"203.0.113.{number % 200}", 443), 10)
                total += struct.unpack_from("I", client.getsockopt(6, 11, 104), 100)[0]
                client.send(b"s")
                client.recv(1)
                client.close()
            print(total)  # of tcpi_total_retrans
        """)
        assert int(sent_again) < 100
    assert seen[b"s"] == 60_000


# ------------------------------------------------------------------ frames

FRAMES = {
    "IPv4": ("0x0800, ip(OWN4, TO4, 17, udp(123, b'hello'))", ("UDP", TO4, 123, 13, b"hello")),
    "IPv6": ("0x86dd, ip(OWN6, TO6, 17, udp(123, b'hello'))", ("UDP", TO6, 123, 13, b"hello")),
    "TCP": ("0x0800, ip(OWN4, TO4, 6, tcp(OWN4, TO4, 81))", ("TCP", TO4, 81, 20, b"")),
    "the peer": (
        "0x0800, ip(OWN4, TO4, 17, udp(123, b'hello')), 'egress0'",
        ("UDP", TO4, 123, 13, b"hello"),
    ),
    "VLAN": (
        "0x8100, b'\\0\\5\\x08\\0' + ip(OWN4, TO4, 17, udp(123, b'hello'))",
        ("UDP", TO4, 123, 13, b"hello"),
    ),
    "ARP": (
        "0x0806, bytes.fromhex('0001080006040001') + bytes(16) + socket.inet_aton(TO4)",
        ("ARP", TO4, None, 28, bytes.fromhex("0001080006040001") + bytes(16) + b"\xcb\0\x71\x09"),
    ),
    "another ethertype": (
        "0x88b5, b'hello'",
        ("ethertype 0x88b5", "02:02:02:02:02:02", None, 5, b"hello"),
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_of_a_packet_socket_is_recorded_once(
    link: AnyLink, target: Target, kind: str
) -> None:
    assert link.frames
    arguments, expected = FRAMES[kind]
    target.python(f"TO4, TO6 = {TO4!r}, {TO6!r}; frame({arguments})")
    readable((link.packets,))
    (packet,) = packets(link)
    seen = packet.protocol_name, packet.destination, packet.port, packet.size, packet.payload
    assert seen == expected
    assert is_silent((link.packets, *link.tcp))


def test_a_kernel_that_cannot_record_frames_captures_all_the_same(
    engine_client: docker.DockerClient, clients_image: str
) -> None:
    # A family that no kernel has is refused as one is that this kernel has not.
    snippet = """
import sys
sys.path.insert(0, "/egress")
from agent import capture, nftables
nftables.NFPROTO_NETDEV = 99
found = capture.Capture()
print(found.frames, found.ipv6, len(found.sockets()))
"""
    container = engine_client.containers.create(
        clients_image,
        ["python3", "-I", "-S", "-c", snippet],
        network_mode="none",
        cap_drop=["ALL"],
        cap_add=["NET_ADMIN"],
    )
    try:
        container.put_archive("/", agent_archive())
        container.start()
        container.wait()
        assert container.logs().decode().strip() == f"False True {2 * LISTENERS + 5}"
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module")
def hostile(
    engine_client: docker.DockerClient, clients_image: str
) -> Iterator[tuple[AnyLink, Target]]:
    with (
        captured_namespace(engine_client, LINK) as (sidecar, link),
        target_in(engine_client, sidecar, clients_image, cap_add=["NET_ADMIN"]) as target,
    ):
        target.container.put_archive("/", agent_archive())
        yield link, target
