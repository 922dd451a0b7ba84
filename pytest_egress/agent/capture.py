"""Makes an empty network namespace capture everything: a silent interface, the rules, the monitors.

It works on the namespace that it runs in, and refuses one that is in use: in a machine's own namespace
these rules would cut the machine off. A refusal of the kernel becomes an error with one sentence.
"""

from __future__ import annotations

import _socket
import errno
from array import array
from io import FileIO
from posix import urandom
from struct import pack, unpack, unpack_from

from .addresses import ADDRESS4, ADDRESS6, INTERFACE, PEER, PREFIX4, PREFIX6
from .netlink import (
    ACK,
    DONE,
    DUMP,
    ERROR,
    NETFILTER,
    NEW,
    ROUTE,
    NetlinkRequest,
    answers,
    attribute,
    attributes,
    message,
    messages,
    nest,
    numbered,
    text,
)
from .nftables import (
    LAST_PORT,
    LISTENERS,
    LOG_GROUP,
    SNAPLEN,
    PacketMarks,
    batch,
    frame_ruleset,
    ruleset,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Socket: TypeAlias = _socket.socket

ANSWER_SECONDS = 5.0
"""How long an answer of netlink may take. The kernel answers before `send` returns, unless it first
loads a module from disk."""

RECEIVE_BYTES = 4 << 20
"""The receive buffer of sockets that the test process reads: 100,000 rejected datagrams fit."""

DATAGRAM_BYTES = 64 << 20
"""The receive buffer of the socket for datagrams, which is memory only while datagrams wait. With 4 MiB, a sender of
100,000 datagrams of 200 bytes by sendmmsg(2) lost 9,855 of them."""

BACKLOG = 4096
"""How many connections may wait to be accepted; the kernel limits it to net.core.somaxconn."""

STATISTICS = "/proc/self/net/stat/nf_conntrack"
"""The counts of connection tracking in the network namespace of this process, a line for each processor."""

FRAMES = "frames"
"""The feature, in the agent's first message, of a kernel that records the frames of packet sockets."""

LISTENER = "a listener of ours in the target's network namespace"
"""The name, in errors, of a listener. A target with CAP_NET_ADMIN can close it; its connections are
then refused unseen."""

_RECEIVE_BUFFER_FORCE = 33  # SO_RCVBUFFORCE: past rmem_max, which CAP_NET_ADMIN allows
_SO_MEMINFO, _DROPS = 55, 8  # SK_MEMINFO_DROPS, the last of nine numbers
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_DATAGRAM = 1 << 16
_IFF_UP, _IFF_LOOPBACK, _IFF_NOARP, _IFF_MULTICAST = 0x1, 0x8, 0x80, 0x1000
_NEWLINK, _GETLINK, _NEWADDR, _NEWROUTE, _NEWRULE = 16, 18, 20, 24, 32
_IFNAME = 3
_IFA_F_NODAD = 2  # else the address is tentative for 1.6 seconds and cannot be bound
_MAIN_TABLE, _LOCAL_TABLE = 254, 200
_INVERT = 2  # FIB_RULE_INVERT
_WIDE = attribute(4, pack("=I", 65535))  # IFLA_MTU: any IPv4 datagram is one frame
_ONE_BY_ONE = attribute(40, pack("=I", 1))  # IFLA_GSO_MAX_SEGS: the kernel cuts UDP_SEGMENT before
_ATTACH_FILTER, _SO_MARK, _ALL_PROTOCOLS = 26, 36, 3  # socket(7), packet(7)
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_LAST = attribute(6, pack("=I", 9999))  # the metric of a route for sockets bound to its interface
_NO_IPV6 = (errno.EACCES, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_ABSENT = (
    errno.EAFNOSUPPORT,
    errno.EINVAL,
    errno.ENOENT,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.EPROTONOSUPPORT,
)


class CaptureError(Exception):
    """The namespace cannot be made to capture; the text says what was refused and what is missing."""


class Refusal(CaptureError):
    """The kernel refused a request; `number` is the errno."""

    def __init__(self, request: NetlinkRequest, number: int) -> None:
        super().__init__(refusal_text(request, number))
        self.number = number


class Capture:
    """A namespace that captures, and its sockets.

    Attributes:
        tcp: Listeners, `LISTENERS` on 127.0.0.1 and, with IPv6, as many on ::1.
        dns: UDP sockets for DNS, one of each family.
        datagrams: The packet socket with every datagram that a rule lets out, as an Ethernet frame; what it sends comes
            to the target. None where it cannot be opened, as without CAP_NET_RAW: every datagram is refused then.
        packets: The NFLOG socket with every packet that is neither DNS nor of a TCP connection.
        monitors: Sockets that report changes: one of nftables, one of interfaces and routes.
        frames: Whether the kernel can record the frames that packet sockets send.
        statistics: The kernel's counts of connection tracking here, for `untracked`; None where it tells none.
    """

    __slots__ = ("datagrams", "dns", "frames", "ipv6", "monitors", "packets", "statistics", "tcp")

    def __init__(self) -> None:
        refuse_namespace_in_use()
        tcp6, dns6 = _listeners(_socket.AF_INET6), _dns(_socket.AF_INET6)
        self.ipv6 = make_network(bool(tcp6 and dns6))
        self.tcp = _listeners(_socket.AF_INET)
        self.dns = [_required(_dns(_socket.AF_INET))]
        if self.ipv6:
            self.tcp += tcp6
            self.dns.append(_required(dns6))
        pairs = zip(self.tcp[::LISTENERS], self.dns, strict=True)
        ports = [(tcp.getsockname()[1], dns.getsockname()[1]) for tcp, dns in pairs]
        marks = PacketMarks(urandom(8))
        self.frames = load_rules(ports[0], ports[1] if self.ipv6 else None, marks)
        self.datagrams = _datagrams(marks)
        self.packets = _packets()
        self.statistics = _statistics()
        self.monitors = [_rules_monitor(), _network_monitor()]  # last: they must not report ours

    def sockets(self) -> list[Socket]:
        return [sock for sockets in self.named().values() for sock in sockets]

    def named(self) -> dict[str, list[Socket]]:
        """The names are those in the agent's first message."""
        found: dict[str, list[Socket]] = {}
        for name, sockets in (("tcp", self.tcp), ("dns", self.dns)):
            for sock in sockets:
                family = "4" if sock.family == _socket.AF_INET else "6"
                found.setdefault(name + family, []).append(sock)
        if self.datagrams is not None:
            found["datagrams"] = [self.datagrams]
        return {**found, "packets": [self.packets], "monitors": self.monitors}


def refusal_text(request: NetlinkRequest, number: int) -> str:
    name = errno.errorcode.get(number, str(number))
    said = f"The kernel refused {request.what} ({name})."
    if number == errno.EPERM:
        return f"{said} The sidecar has no CAP_NET_ADMIN in its own network namespace."
    if number in _ABSENT:
        return (
            f"{said} It lacks {request.needs}, which is neither built in nor loadable. "
            "Use an engine whose kernel has it: without it no target is started."
        )
    return said


# ------------------------------------------------------------------ asking the kernel


def ask(
    sock: Socket, requests: Sequence[NetlinkRequest], wrap: bool = False, acknowledged: int = 1
) -> None:
    """Send the requests and wait until they are acknowledged.

    Args:
        sock: A netlink socket; it gets a time-out.
        acknowledged: The number, from 1, of the first request that is acknowledged, as all after it are. A refusal
            is told in any case. Several hundred answers would not fit into a socket's buffer.

    Raises:
        Refusal: The kernel refused a request; it is about the first one.
    """
    data = numbered(requests, acknowledged)
    sock.settimeout(ANSWER_SECONDS)
    sock.send(batch([data]) if wrap else data)
    waiting = set(range(acknowledged, len(requests) + 1))
    while waiting:
        for sequence, number in answers(sock.recv(_DATAGRAM)):
            if number:
                # Sequence 0 is the bracket around a transaction: the whole subsystem is missing.
                raise Refusal(requests[max(sequence, 1) - 1], number)
            waiting.discard(sequence)
    sock.settimeout(None)


def open_netlink(family: int, groups: int = 0) -> Socket:
    """Open a netlink socket, subscribed to those of its family's first 32 groups that are in a bit mask.

    It is connected to the kernel, so that messages of a target with CAP_NET_ADMIN are refused.

    Raises:
        CaptureError: The kernel has no such family.
    """
    try:
        sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, family)
    except OSError as error:
        nft = family == NETFILTER
        what = "a netfilter socket" if nft else "a routing socket"
        needs = "nf_tables NAT (CONFIG_NF_TABLES)" if nft else "CONFIG_NET"
        raise Refusal(NetlinkRequest(what, needs, 0, 0, b""), error.errno or 0) from None
    sock.bind((0, groups))
    sock.connect((0, 0))
    return sock


def _ask_once(family: int, requests: Sequence[NetlinkRequest], wrap: bool = False) -> None:
    sock = open_netlink(family)
    try:
        ask(sock, requests, wrap)
    finally:
        sock.close()


# ------------------------------------------------------------------ interface, addresses, routes


def refuse_namespace_in_use() -> None:
    """Raise CaptureError where an interface is up, other than loopback.

    Interfaces that are down are accepted: modules for tunnels create some in each namespace.
    """
    up = [name for name, flags in _interfaces() if flags & _IFF_UP and not flags & _IFF_LOOPBACK]
    if up:
        raise CaptureError(
            f"This network namespace is in use: {', '.join(up)} is up. Capture needs an empty one, "
            'a container with network "none"; nothing was changed.'
        )


def _interfaces() -> list[tuple[str, int]]:
    sock = open_netlink(ROUTE)
    sock.settimeout(ANSWER_SECONDS)
    sock.send(message(_GETLINK, DUMP, _interface()))
    found: list[tuple[str, int]] = []
    while True:
        for kind, _sequence, body in messages(sock.recv(_DATAGRAM)):
            if kind in (DONE, ERROR):
                sock.close()
                return found
            name = attributes(body[16:]).get(_IFNAME, b"?\0")[:-1].decode("utf-8", "replace")
            found.append((name, unpack_from("=I", body, 8)[0]))


def start_loopback() -> None:
    """Engines do the same in a namespace that they make."""
    _ask_once(ROUTE, [_link("starting loopback", 1, _IFF_UP, _IFF_UP)])


def make_network(ipv6: bool) -> bool:
    """Make the interface with its addresses and default routes; return whether IPv6 is on.

    The kernel sends nothing on it by itself: there is no address resolution, no link-local address and
    no solicitation.
    """
    peer = nest(1, _interface() + attribute(_IFNAME, text(PEER)) + _WIDE)
    pair = nest(18, attribute(1, text("veth")), nest(2, peer))
    create = _interface() + attribute(_IFNAME, text(INTERFACE)) + _WIDE + _ONE_BY_ONE + pair
    _ask_once(ROUTE, [NetlinkRequest("a pair of interfaces", "CONFIG_VETH", _NEWLINK, NEW, create)])
    index, peer_index = _socket.if_nametoindex(INTERFACE), _socket.if_nametoindex(PEER)
    _ask_once(ROUTE, [*_silence(index, peer_index, ipv6), _address(_socket.AF_INET, index)])
    ipv6 = ipv6 and _has_ipv6_address(index)
    families = (_socket.AF_INET, _socket.AF_INET6) if ipv6 else (_socket.AF_INET,)
    up = [_link("starting an interface", it, _IFF_UP, _IFF_UP) for it in (peer_index, index)]
    routes = [it for family in families for it in _routes(family, index)]
    if ipv6:
        routes.append(_default(_socket.AF_INET6, peer_index, _MAIN_TABLE, 0, 1, _LAST))
    _ask_once(ROUTE, up + routes)
    return ipv6


def _silence(index: int, peer_index: int, ipv6: bool) -> list[NetlinkRequest]:
    """Requests that keep the kernel from sending packets of its own on both ends of the pair.

    They come before any address: otherwise the kernel sends 31 packets within six seconds.
    """
    no_link_local = nest(26, nest(_socket.AF_INET6, attribute(8, b"\1"))) if ipv6 else b""
    both = _IFF_NOARP | _IFF_MULTICAST
    return [
        _link("silence of the peer", peer_index, _IFF_NOARP, both, no_link_local),
        _link("silence of the interface", index, _IFF_NOARP, _IFF_NOARP, no_link_local),
    ]


def _has_ipv6_address(index: int) -> bool:
    try:
        _ask_once(ROUTE, [_address(_socket.AF_INET6, index)])
    except Refusal as refusal:
        if refusal.number in _NO_IPV6:
            return False
        raise
    return True


def target_addresses(ipv6: bool) -> list[tuple[int, str]]:
    """The addresses on which a target may listen, in the order in which they are tried, each after its family."""
    both = [(_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1")]
    both += [(_socket.AF_INET, ADDRESS4), (_socket.AF_INET6, ADDRESS6)]
    return both if ipv6 else both[::2]


def _interface(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return pack("=BxHiII", 0, 0, index, flags, change)  # ifinfomsg


def _link(what: str, index: int, flags: int, change: int, more: bytes = b"") -> NetlinkRequest:
    return NetlinkRequest(what, "CONFIG_VETH", _NEWLINK, 0, _interface(index, flags, change) + more)


def _own(family: int) -> bytes:
    return _socket.inet_pton(family, ADDRESS4 if family == _socket.AF_INET else ADDRESS6)


def _address(family: int, index: int) -> NetlinkRequest:
    prefix, flags = (PREFIX4, 0) if family == _socket.AF_INET else (PREFIX6, _IFA_F_NODAD)
    body = pack("=BBBBi", family, prefix, flags, 0, index)  # ifaddrmsg
    both = attribute(2, _own(family)) + attribute(1, _own(family))
    return NetlinkRequest("an address", "CONFIG_INET", _NEWADDR, NEW, body + both)


def _routes(family: int, index: int) -> list[NetlinkRequest]:
    """Default routes, and a table in which every destination is local, for two kinds of packets.

    The first kind are packets that have no ports when they are routed: they come from a raw socket. By
    this table their outgoing interface is "lo", by which `nftables` tells them from connections. The
    second are redirected packets of sockets bound to a device, which would otherwise wait for the
    address resolution of a neighbour that never answers.
    """
    version4 = family == _socket.AF_INET
    universe_or_link, universe_or_host = (253, 254) if version4 else (0, 0)
    loopback, prefix = (b"\x7f\0\0\0", 8) if version4 else (bytes(15) + b"\1", 128)
    ports = attribute(24, pack("=HH", 1, LAST_PORT - 1))  # FRA_DPORT_RANGE
    # An ICMP error has no ports either, and the kernel refuses one from a source that is local. Where a datagram is
    # refused by it, its source has to be looked up in the main table. IPv6 looks no source up.
    icmp = attribute(22, b"\1")  # FRA_IP_PROTO
    errors = [_policy("ICMP", family, 0, 0, icmp, _MAIN_TABLE, 99)] if version4 else []
    return [
        _default(family, index, _MAIN_TABLE, universe_or_link, 1),
        _default(family, index, _LOCAL_TABLE, universe_or_host, 2, attribute(7, _own(family))),
        _policy("what is redirected", family, prefix, 0, attribute(1, loopback)),
        _policy("what has no ports", family, 0, _INVERT, ports),
        *errors,
    ]


def _policy(
    what: str,
    family: int,
    prefix: int,
    flags: int,
    condition: bytes,
    table: int = _LOCAL_TABLE,
    place: int = 100,
) -> NetlinkRequest:
    """A policy rule: packets that meet a condition use a table, as a rule that in which every destination is local."""
    body = pack("=BBBBBBBBI", family, prefix, 0, 0, table, 0, 0, 1, flags)  # fib_rule_hdr
    priority = attribute(6, pack("=I", place + flags))
    needs = f"CONFIG_{'IP' if family == _socket.AF_INET else 'IPV6'}_MULTIPLE_TABLES"
    return NetlinkRequest(
        f"the routing rule for {what}", needs, _NEWRULE, NEW, body + priority + condition
    )


def _default(
    family: int, index: int, table: int, scope: int, kind: int, more: bytes = b""
) -> NetlinkRequest:
    """A default route of kind unicast (1) or local (2); 4 is RTPROT_STATIC."""
    body = pack("=BBBBBBBBI", family, 0, 0, 0, table, 4, scope, kind, 0)  # rtmsg
    device = attribute(4, pack("=i", index))
    return NetlinkRequest("a default route", "CONFIG_INET", _NEWROUTE, NEW, body + device + more)


# ------------------------------------------------------------------ rules and sockets


def load_rules(ports4: tuple[int, int], ports6: tuple[int, int] | None, marks: PacketMarks) -> bool:
    """Load the rules of `ruleset`, which explains the arguments; return whether frames are recorded too.

    Where the kernel cannot record them (CONFIG_NF_TABLES_NETDEV), the frames of packet sockets are
    dropped unseen. Targets are started all the same: no ordinary client sends any.
    """
    _ask_once(NETFILTER, ruleset(ports4, ports6, marks), wrap=True)
    try:
        _ask_once(NETFILTER, frame_ruleset(marks), wrap=True)
    except Refusal as refusal:
        if refusal.number in _ABSENT:
            return False
        raise
    return True


def _bound(family: int, kind: int, port: int = 0) -> Socket | None:
    """None where IPv6 is disabled."""
    try:
        sock = _socket.socket(family, kind)
        sock.bind(("127.0.0.1" if family == _socket.AF_INET else "::1", port))
    except OSError as error:
        if family == _socket.AF_INET6 and error.errno in _NO_IPV6:
            return None
        raise
    return sock


def _listeners(family: int) -> list[Socket]:
    """`LISTENERS` listeners on consecutive ports; an empty list where IPv6 is disabled."""
    while first := _bound(family, _socket.SOCK_STREAM):
        port = first.getsockname()[1]
        try:
            more = [
                _required(_bound(family, _socket.SOCK_STREAM, it))
                for it in range(port + 1, port + LISTENERS)
            ]
        except (OSError, OverflowError):  # one of the ports is taken, or over 65535
            continue
        listeners = [first, *more]
        for sock in listeners:
            sock.listen(BACKLOG)
        return listeners
    return []


def _dns(family: int) -> Socket | None:
    sock = _bound(family, _socket.SOCK_DGRAM)
    return sock and _roomy(sock)


def _required(sock: Socket | None) -> Socket:
    assert sock is not None
    return sock


def _roomy(sock: Socket, size: int = RECEIVE_BYTES) -> Socket:
    """Give a socket a large receive buffer; a smaller one where a user namespace forbids that."""
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, size)
    except OSError:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, size)
    return sock


def _datagrams(marks: PacketMarks) -> Socket | None:
    """The packet socket at the other end of the interface, for `Capture.datagrams`.

    It is bound after its filter is attached, so that it never has a frame of another kind.
    """
    try:
        sock = _socket.socket(_socket.AF_PACKET, _socket.SOCK_RAW, 0)
    except OSError:  # no CAP_NET_RAW, or a kernel without CONFIG_PACKET
        return None
    _roomy(sock, DATAGRAM_BYTES)
    program = array("B", b"".join(pack("=HBBI", *line) for line in _only_sent(marks.sent)))
    lines = len(program) // 8
    sock.setsockopt(_socket.SOL_SOCKET, _ATTACH_FILTER, pack("HL", lines, program.buffer_info()[0]))
    sock.setsockopt(_socket.SOL_SOCKET, _SO_MARK, pack("=I", marks.reply))
    sock.bind((PEER, _ALL_PROTOCOLS))
    return sock


def _only_sent(mark: int) -> tuple[tuple[int, int, int, int], ...]:
    """A classic BPF program (linux/filter.h) for frames with a mark, without those that the socket sends itself."""
    return (
        (0x28, 0, 0, 0xFFFFF004),  # ldh: the type of the frame
        (0x15, 3, 0, 4),  # is it PACKET_OUTGOING: return none of it
        (0x20, 0, 0, 0xFFFFF014),  # ld: its mark
        (0x15, 0, 1, mark),
        (0x06, 0, 0, 1 << 18),  # ret: all of it
        (0x06, 0, 0, 0),
    )


def _packets() -> Socket:
    """The NFLOG socket: it gets `SNAPLEN` bytes of each packet, without delay, numbered so that losses show."""
    sock = _roomy(open_netlink(NETFILTER))
    bind = attribute(1, b"\1")  # NFULNL_CFG_CMD_BIND
    mode = attribute(2, pack("!IBx", SNAPLEN, 2))  # NFULNL_COPY_PACKET
    at_once, counted = attribute(5, pack("!I", 1)), attribute(6, pack("!H", 1))
    ask(sock, [_log_config(bind), _log_config(mode + at_once + counted)])
    return sock


def dropped(packets: Socket) -> int:
    """How many packets the kernel has dropped because the NFLOG socket's buffer was full.

    Gaps in the packets' numbers show losses too, but only if a packet follows them. The count is 0 where
    the kernel does not report it (before Linux 4.12).
    """
    try:
        info = packets.getsockopt(_socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_DROPS + 1))
    except OSError:
        return 0
    return unpack_from("=I", info, 4 * _DROPS)[0] if len(info) > 4 * _DROPS else 0


def dropped_datagrams(datagrams: Socket) -> int:
    """How many datagrams the kernel has dropped because the socket's buffer was full, since this was last asked."""
    _, lost = unpack("=II", datagrams.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return int(lost)


def _statistics() -> FileIO | None:
    try:
        return FileIO(STATISTICS)
    except OSError:  # a kernel without CONFIG_NF_CONNTRACK_PROCFS
        return None


def untracked(statistics: FileIO | None) -> int:
    """How many packets the kernel has dropped because its table of connections was full (nf_conntrack_max).

    No rule sees such a packet. What is dropped for another reason counts as a failed insertion too, and is sent again.
    """
    if statistics is None:
        return 0
    statistics.seek(0)
    columns, *lines = [line.split() for line in statistics.read().splitlines()]
    table = zip(columns, *lines, strict=False)
    counts = {name: sum(int(it, 16) for it in each) for name, *each in table}
    return max(0, counts.get(b"drop", 0) - counts.get(b"insert_failed", 0))


def _log_config(body: bytes) -> NetlinkRequest:
    header = pack("!BBH", 0, 0, LOG_GROUP)
    return NetlinkRequest(
        "the nftables log", "CONFIG_NETFILTER_NETLINK_LOG", 4 << 8 | 1, ACK, header + body
    )


def _rules_monitor() -> Socket:
    """The rules for dials and those for datagrams may be replaced before the events about either are read."""
    sock = _roomy(open_netlink(NETFILTER), 2 * RECEIVE_BYTES)
    sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, 7)  # NFNLGRP_NFTABLES
    return sock


def _network_monitor() -> Socket:
    """The monitor of interfaces, traffic control, addresses, routes and policy rules of both families."""
    groups = (1, 4, 5, 7, 8, 9, 11, 19)  # RTNLGRP_*
    return _roomy(open_netlink(ROUTE, sum(1 << group - 1 for group in groups)))
