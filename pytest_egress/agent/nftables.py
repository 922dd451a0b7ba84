"""The rules that capture a namespace's traffic, as nftables messages: no socket, no state.

A packet that a socket sends passes these chains of the output hook, in this order:

* `fragments` (before connection tracking) sends fragments, and port 53 without a DNS query, to `judge`. Between these
  it lets `datagrams` look at each datagram: a rule there, which `dials.Dials` adds while the target runs, has `let_out`
  mark it, so that no later chain stops it. It leaves by the interface, unchanged. A packet socket at the other end has
  it before it is dropped there, and what that socket sends has another mark, by which it is accepted.
* `redirect` redirects DNS and TCP connections to the sockets of `capture`. Before that it lets `dials` look at the
  first packet of each connection: a rule there, which `dials.Dials` adds while the target runs, has `refuse_dial` or
  `drop_dial` log that packet and reset the connection, or drop it.
* `record` accepts the packets that were redirected, and sends every other one to `judge`.
* `judge` accepts packets to the namespace's own addresses, drops the kernel's own packets, and sends
  the rest to `refuse`.
* `refuse` logs a packet, for the test process to record it, and rejects it.

The numbers are those of linux/netfilter/nf_tables.h; each expression is named as `nft` prints it.
Containment does not depend on these rules: the namespace has no route out with or without them.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton
from struct import pack, unpack

from .addresses import ADDRESS4, ADDRESS6, INTERFACE, PEER
from .netlink import APPEND, CREATE, NEW, NetlinkRequest, attribute, message, nest, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "egress"
LOG_GROUP = 213
"""The NFLOG group of packets that are neither DNS nor of a TCP connection."""

CHAINS = ("dials", "refuse_dial", "drop_dial", "datagrams", "let_out", "judge", "refuse")
"""The chains without a hook, to which others lead."""

LONGEST6 = 65535 - 40
"""The longest payload of an IPv6 packet that is one frame: 65,487 bytes in a datagram. No IPv4 packet is longer."""

REFUSED, DROPPED = "refused", "dropped"
"""The prefixes in the log of the dials that `refuse_dial` and `drop_dial` ended."""

ASIDE = "aside"
"""The prefix in the log of what does not go by the interface: from raw sockets, packet sockets, and those that are
bound to the peer. No rule lets its datagrams out."""

LISTENERS = 8
"""How many consecutive TCP ports of one family connections are spread over. With one listener, a
connection from a source port still in TIME_WAIT waits a second: 500 of 45,000 in a row to 200
destinations did, and then ever more. With eight none did, and two or three of 60,000."""

SNAPLEN = 2048
"""How many bytes of a logged packet are recorded: more than an Ethernet frame has."""

LAST_PORT = 65535
"""The one port that a routing rule cannot match, so that a TCP packet of a raw socket to it looks like
a connection's."""

RESOLVERS = (b"\x7f\0\0\x0b", b"\x7f\0\0\x35")
"""127.0.0.11 and 127.0.0.53, where engines and systemd put a resolver: they are in 127.0.0.0/8, but no
server of the target. Every other loopback address, 127.0.0.1:53 too, is the target's own."""

_OWN4, _OWN6 = inet_pton(AF_INET, ADDRESS4), inet_pton(AF_INET6, ADDRESS6)
_LOOPBACK6 = inet_pton(AF_INET6, "::1")

NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_NETDEV, NFPROTO_IPV6 = 0, 1, 2, 5, 10
ICMP, IGMP, TCP, UDP, ROUTING, FRAGMENT, ICMPV6 = 1, 2, 6, 17, 43, 44, 58

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _NEWCHAIN, _NEWRULE, _DELRULE = 0, 3, 6, 8
_BATCH_BEGIN, _BATCH_END = 16, 17
_HOOK_OUTPUT, _HOOK_INGRESS, _HOOK_PREROUTING = 3, 0, 0
_PRIORITY_FRAGMENTS, _PRIORITY_RAW, _PRIORITY_DSTNAT, _PRIORITY_FILTER = -450, -300, -100, 0
_EQUAL, _DIFFERENT, _LESS, _GREATER = 0, 1, 2, 4
_SHORTEST_QUERY = 8 + 12 + 5  # bytes: the headers of UDP and DNS; the root, its type and class
_DNAT_STATUS = 32  # IPS_DST_NAT
_SYN = 2
_DROP, _ACCEPTED = 0, 1  # NF_DROP, NF_ACCEPT
_JUMP, _GOTO, _RETURN = -3, -4, -5  # NFT_JUMP, NFT_GOTO, NFT_RETURN


def batch(requests: Sequence[bytes]) -> bytes:
    """The kernel applies all messages of a transaction, or none."""
    edge = pack("!BBH", NFPROTO_UNSPEC, 0, _SUBSYSTEM)
    return b"".join((message(_BATCH_BEGIN, 0, edge), *requests, message(_BATCH_END, 0, edge)))


class PacketMarks:
    """The marks of packets in one namespace.

    Attributes:
        sent: That of a datagram which a rule of the chain `datagrams` lets out.
        reply: That of what the packet socket for datagrams sends back.
    """

    __slots__ = ("reply", "sent")

    def __init__(self, random: bytes) -> None:
        """Eight random bytes make both, so that no target knows them; they differ in their last bit."""
        sent, reply = unpack("=II", random)
        self.sent, self.reply = sent | 1, (reply | 2) & ~1


def ruleset(
    ports4: tuple[int, int], ports6: tuple[int, int] | None, marks: PacketMarks
) -> list[NetlinkRequest]:
    """The table for packets that sockets send: its chains and their rules.

    Args:
        ports4: The first port of the TCP listeners and that of the DNS socket on 127.0.0.1.
        ports6: Those on ::1, or None where IPv6 is disabled.
    """
    return [
        _table("inet", NFPROTO_INET),
        _chain("redirect", "nat", _PRIORITY_DSTNAT, "NFT_NAT"),
        *(
            _request(f"the nftables chain {name}", "NF_TABLES", _NEWCHAIN, NEW, _named(name))
            for name in CHAINS
        ),
        *_redirect_rules(ports4, ports6),
        *_dial_rules(),
        _chain("fragments", "filter", _PRIORITY_FRAGMENTS, "NF_TABLES_INET"),
        _chain("record", "filter", _PRIORITY_FILTER, "NF_TABLES_INET"),
        *_datagram_rules(marks),
        *_record_rules(),
        *_judge_rules(),
        *_refuse_rules(),
    ]


def frame_ruleset(marks: PacketMarks) -> list[NetlinkRequest]:
    """The table for frames that packet sockets send, which bypass the output hook.

    They arrive at the other end of the veth pair, where the ingress hook sees them. Nothing else arrives there but
    datagrams that were let out, and their answers, so every other frame is recorded.
    """
    return [
        _table("netdev", NFPROTO_NETDEV),
        *(it for device in (PEER, INTERFACE) for it in _frame_chain(device, marks)),
    ]


# ------------------------------------------------------------------ rules of the chains


def _redirect_rules(
    ports4: tuple[int, int], ports6: tuple[int, int] | None
) -> list[NetlinkRequest]:
    tcp4, dns4 = ports4
    rules = []
    dials = _verdict(_JUMP, attribute(2, text("dials")))
    for resolver in RESOLVERS:
        rules.append(_redirect("resolver DNS over UDP", _to_ipv4(resolver) + _is_dns(UDP), dns4))
        rules.append(
            _rule("redirect", "dials", "NF_TABLES", _to_ipv4(resolver) + _is_dns(TCP) + dials)
        )
        rules.append(
            _redirect("resolver DNS over TCP", _to_ipv4(resolver) + _is_dns(TCP), tcp4, LISTENERS)
        )
    rules += _accept_own("redirect")
    # These packets are not redirected, but recorded. A raw socket, or one bound to the peer, would never
    # get an answer. A packet with source routing would never reach a listener: the kernel drops it on input.
    raw = _by_way_of("lo") + _to_last_port(_DIFFERENT)
    for sender in (raw, _by_way_of(PEER), _has_ipv4_options(), _has_routing_header()):
        rules.append(_rule("redirect", "no answer", "NF_TABLES", sender + _ACCEPT))
    rules.append(_rule("redirect", "dials", "NF_TABLES", _protocol(TCP) + dials))
    rules.append(_redirect("IPv4 DNS", _family(NFPROTO_IPV4) + _is_dns(UDP), dns4))
    rules.append(_redirect("IPv4 TCP", _family(NFPROTO_IPV4) + _protocol(TCP), tcp4, LISTENERS))
    if ports6 is not None:
        tcp6, dns6 = ports6
        rules.append(_redirect("IPv6 DNS", _family(NFPROTO_IPV6) + _is_dns(UDP), dns6))
        rules.append(_redirect("IPv6 TCP", _family(NFPROTO_IPV6) + _protocol(TCP), tcp6, LISTENERS))
    return rules


def _dial_rules() -> list[NetlinkRequest]:
    """Log a dial that a rule of the chain `dials` is for, and reset or drop it.

    Connection tracking does not keep either packet, so that the chain sees each repetition of it too.
    """
    return [
        _rule("refuse_dial", "log", "NFT_LOG", _log(REFUSED)),
        _rule("refuse_dial", "reset of TCP", "NFT_REJECT_INET", _reject(1)),
        _rule("drop_dial", "log", "NFT_LOG", _log(DROPPED)),
        _rule("drop_dial", "drop", "NF_TABLES", _verdict(_DROP)),
    ]


def dial_verdict(chain: str) -> bytes:
    """The chain "" lets a dial be captured as any other."""
    return _goto(chain) if chain else _verdict(_RETURN)


def dial_rule(
    address: bytes,
    prefix: int,
    port: int,
    begins: bytes,
    end: bytes,
    *,
    first: bool,
    chain: str = "dials",
) -> NetlinkRequest:
    """A rule of the chain `dials`, or of `datagrams`.

    Args:
        address: The packed address of a host or network, of 4 or 16 bytes.
        port: The port that is dialled; 0 for any.
        begins: The bytes that the TCP header begins with; b"" for any.
        end: As `dial_verdict` gives it.
        first: Whether it comes before the rules that are there, or after them.
    """
    condition = _to_network(address, prefix)
    if port:
        condition += _payload(_TRANSPORT, 2, 2) + _compare(pack("!H", port))
    if begins:
        condition += _payload(_TRANSPORT, 0, len(begins)) + _compare(begins)
    place = 0 if first else APPEND
    return _rule(chain, f"one of {chain}", "NF_TABLES", condition + end, place=place)


def no_rules(chain: str) -> NetlinkRequest:
    body = attribute(1, text(TABLE)) + attribute(2, text(chain))
    return _request("to delete nftables rules", "NF_TABLES", _DELRULE, 0, body)


def _to_network(address: bytes, prefix: int) -> bytes:
    family, offset = (NFPROTO_IPV4, 16) if len(address) == 4 else (NFPROTO_IPV6, 24)
    load, bits = _payload(_NETWORK, offset, len(address)), len(address) * 8
    if not prefix:
        return _family(family)
    if prefix < bits:
        mask = ((1 << prefix) - 1 << bits - prefix).to_bytes(len(address), "big")
        load += _masked(mask)
    return _family(family) + load + _compare(address)


def _record_rules() -> list[NetlinkRequest]:
    judge = _goto("judge")
    return [
        # At this hook only raw sockets send fragments. They are judged before connection tracking, which would
        # hold them back until the packet is complete.
        _rule("fragments", "IPv4 fragments", "NF_TABLES", _is_ipv4_fragment() + judge),
        _rule("fragments", "IPv6 fragments", "NF_TABLES", _is_ipv6_fragment() + judge),
        *_consider_datagrams(),
        # Judged before the redirect, such a packet still has the address of the server that it is for.
        *(
            _rule("fragments", "no DNS query", "NF_TABLES", _is_dns(UDP) + it + judge)
            for it in _no_query()
        ),
        _rule("record", "what was redirected", "NFT_CT", _was_redirected() + _ACCEPT),
        _rule("record", "the rest", "NF_TABLES", judge),
    ]


def _consider_datagrams() -> list[NetlinkRequest]:
    """Rules that have the chain `datagrams` look at a datagram.

    It sees none of a raw socket ("lo", by `capture`'s policy rules), and none of one that is bound to the peer.
    """
    udp = _protocol(UDP) + _by_way_of(INTERFACE)
    length = _payload(_NETWORK, 4, 2) + _compare(pack("!H", LONGEST6), _GREATER)
    long = udp + _family(NFPROTO_IPV6) + length  # the kernel would make fragments of it
    jump = _verdict(_JUMP, attribute(2, text("datagrams")))
    return [
        _rule("fragments", "long datagrams", "NF_TABLES", long + _goto("judge")),
        _rule("fragments", "datagrams", "NF_TABLES", udp + jump),
    ]


def _datagram_rules(marks: PacketMarks) -> list[NetlinkRequest]:
    """What becomes of a datagram that is let out, and of an answer to one.

    Connection tracking keeps neither, so that no flow outlives the rule that lets it out.
    """
    track = _expression("notrack")
    # Without the protocol and the interface, a raw socket with this mark could send to listeners on loopback, unseen.
    sent = _protocol(UDP) + _by_way_of(INTERFACE) + _is_marked(marks.sent)
    return [
        _rule("let_out", "the mark of datagrams", "NFT_CT", _mark(marks.sent) + track + _ACCEPT),
        _rule("record", "datagrams", "NF_TABLES", sent + _ACCEPT),
        _chain("replies", "filter", _PRIORITY_RAW, "NF_TABLES_INET", _HOOK_PREROUTING),
        _rule("replies", "replies", "NFT_CT", _is_marked(marks.reply) + track + _ACCEPT),
    ]


def _judge_rules() -> list[NetlinkRequest]:
    refuse = _goto("refuse")
    return [
        *_accept_own("judge"),
        _rule("judge", "what a process sends", "NF_TABLES", _meta(_SKUID) + refuse),
        # Packets without a socket's owner are the kernel's own: multicast joins, and replies to forged sources.
        # No program sent them, since the rule for those of processes comes before: they are dropped and not recorded.
        *(
            _rule("judge", "kernel", "NF_TABLES", _protocol(it) + _verdict(_DROP))
            for it in (ICMP, IGMP, ICMPV6)
        ),
        _rule("judge", "the rest", "NF_TABLES", refuse),
    ]


def _refuse_rules() -> list[NetlinkRequest]:
    tcp = _protocol(TCP)
    strays = (tcp + _by_way_of("lo", _DIFFERENT), tcp + _to_last_port())
    return [
        # A TCP packet without SYN belongs to a connection that the kernel no longer tracks. The connection was
        # recorded when it began, so the packet is rejected and not logged.
        *(
            _rule("refuse", "stray", "NFT_REJECT_INET", it + _tcp_flag(_SYN, 0) + _reject(1))
            for it in strays
        ),
        _rule("refuse", "log", "NFT_LOG", _by_way_of(INTERFACE) + _log()),
        _rule("refuse", "log", "NFT_LOG", _by_way_of(INTERFACE, _DIFFERENT) + _log(ASIDE)),
        # Dropped, because a rejection leaves by the peer too, and would itself be recorded as an attempt.
        _rule("refuse", "peer", "NF_TABLES", _by_way_of(PEER) + _verdict(_DROP)),
        _rule("refuse", "reset of TCP", "NFT_REJECT_INET", tcp + _reject(1)),
        _rule("refuse", "rejection", "NFT_REJECT_INET", _reject(2, 1)),
    ]


def _datagram_frames(device: str, marks: PacketMarks) -> list[bytes]:
    """The frames of a device that are not recorded as such: datagrams that were let out, and their answers."""
    if device == PEER:
        return [_is_marked(marks.sent) + _verdict(_DROP)]  # the packet socket has had it
    # The kernel hands a multicast or broadcast datagram to the target's own listeners too.
    copies = _meta(_PKTTYPE) + _compare(bytes([_PACKET_HOST]), _DIFFERENT)
    return [_is_marked(marks.reply) + _ACCEPT, _is_marked(marks.sent) + copies + _ACCEPT]


def _frame_chain(device: str, marks: PacketMarks) -> list[NetlinkRequest]:
    hook = _hook(_HOOK_INGRESS, 0, attribute(3, text(device)))
    drop = attribute(5, pack("!I", _DROP))
    body = _named(device) + hook + attribute(7, text("filter")) + drop
    what, needs = "the nftables chain for frames", "NF_TABLES_NETDEV"
    return [
        _request(what, needs, _NEWCHAIN, NEW, body, NFPROTO_NETDEV),
        *(
            _rule(device, "datagrams", "NF_TABLES", it, NFPROTO_NETDEV)
            for it in _datagram_frames(device, marks)
        ),
        _rule(device, "log of frames", "NFT_LOG", _log(ASIDE), NFPROTO_NETDEV),
    ]


def _accept_own(chain: str) -> list[NetlinkRequest]:
    """Rules that accept packets to the namespace's own addresses.

    They match addresses, not `oif lo`: after a redirect, later chains see the interface from before it.
    """
    loopback4 = _family(NFPROTO_IPV4) + _payload(_NETWORK, 16, 1) + _compare(b"\x7f")
    conditions = (loopback4, _to_ipv4(_OWN4), _to_ipv6(_LOOPBACK6), _to_ipv6(_OWN6))
    return [_rule(chain, "own addresses", "NF_TABLES", it + _ACCEPT) for it in conditions]


# ------------------------------------------------------------------ messages


def _request(
    what: str, needs: str, kind: int, flags: int, body: bytes, family: int = NFPROTO_INET
) -> NetlinkRequest:
    header = pack("!BBH", family, 0, 0)
    needs = f"nf_tables NAT (CONFIG_{needs})"
    return NetlinkRequest(what, needs, _SUBSYSTEM << 8 | kind, flags, header + body)


def _table(name: str, family: int) -> NetlinkRequest:
    what, needs = f"the table {name} {TABLE}", f"NF_TABLES_{name.upper()}"
    return _request(what, needs, _NEWTABLE, NEW, attribute(1, text(TABLE)), family)


def _named(chain: str) -> bytes:
    return attribute(1, text(TABLE)) + attribute(3, text(chain))


def _hook(number: int, priority: int, more: bytes = b"") -> bytes:
    return nest(4, attribute(1, pack("!I", number)), attribute(2, pack("!i", priority)), more)


def _chain(
    name: str, kind: str, priority: int, needs: str, hook: int = _HOOK_OUTPUT
) -> NetlinkRequest:
    body = _named(name) + _hook(hook, priority) + attribute(7, text(kind))
    return _request(f"the nftables chain of type {kind}", needs, _NEWCHAIN, NEW, body)


def _rule(
    chain: str,
    what: str,
    needs: str,
    expressions: bytes,
    family: int = NFPROTO_INET,
    *,
    place: int = APPEND,
) -> NetlinkRequest:
    body = attribute(1, text(TABLE)) + attribute(2, text(chain)) + nest(4, expressions)
    return _request(f"the nftables rule ({what})", needs, _NEWRULE, CREATE | place, body, family)


def _redirect(what: str, condition: bytes, port: int, ports: int = 1) -> NetlinkRequest:
    """The kernel chooses one of `ports` consecutive ports."""
    to_ports = (
        _load(_REGISTER, pack("!H", port))
        + _load(_REGISTER_2, pack("!H", port + ports - 1))
        + _expression("redir", attribute(1, _REGISTER), attribute(2, _REGISTER_2))
    )
    return _rule("redirect", f"redirect of {what}", "NFT_REDIR", condition + to_ports)


# ------------------------------------------------------------------ expressions

_REGISTER, _REGISTER_2 = pack("!I", 1), pack("!I", 2)  # NFT_REG_1, NFT_REG_2
_NETWORK, _TRANSPORT = 1, 2  # payload bases: the IP header, the header after it
_MARK, _OIFNAME, _SKUID, _NFPROTO, _L4PROTO, _PKTTYPE = 3, 7, 10, 15, 16, 19  # NFT_META_*
_PACKET_HOST = 0


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, attribute(1, text(name)), nest(2, *parts))


def _load(register: bytes, data: bytes) -> bytes:
    return _expression("immediate", attribute(1, register), nest(2, attribute(1, data)))


def _verdict(code: int, chain: bytes = b"") -> bytes:
    verdict = nest(2, attribute(1, pack("!i", code)), chain)
    return _expression("immediate", attribute(1, pack("!I", 0)), nest(2, verdict))


def _goto(chain: str) -> bytes:
    return _verdict(_GOTO, attribute(2, text(chain)))


_ACCEPT = _verdict(_ACCEPTED)
DROP_UNLOGGED = _verdict(_DROP)
"""The end of a rule of the chain `dials` that drops the repetition of a packet that was logged before."""


def _compare(data: bytes, operator: int = _EQUAL) -> bytes:
    return _expression(
        "cmp",
        attribute(1, _REGISTER),
        attribute(2, pack("!I", operator)),
        nest(3, attribute(1, data)),
    )


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload",
        attribute(1, _REGISTER),
        attribute(2, pack("!I", base)),
        attribute(3, pack("!I", offset)),
        attribute(4, pack("!I", length)),
    )


def _mark(mark: int) -> bytes:
    set_meta = _expression("meta", attribute(2, pack("!I", _MARK)), attribute(3, _REGISTER))
    return _load(_REGISTER, pack("=I", mark)) + set_meta


def _is_marked(mark: int) -> bytes:
    return _meta(_MARK) + _compare(pack("=I", mark))


def _meta(key: int) -> bytes:
    return _expression("meta", attribute(2, pack("!I", key)), attribute(1, _REGISTER))


def _family(number: int) -> bytes:
    return _meta(_NFPROTO) + _compare(bytes([number]))


def _protocol(number: int) -> bytes:
    return _meta(_L4PROTO) + _compare(bytes([number]))


def _is_dns(protocol: int) -> bytes:
    return _protocol(protocol) + _payload(_TRANSPORT, 2, 2) + _compare(pack("!H", 53))


def _no_query() -> list[bytes]:
    """Conditions of a message that is no DNS query (RFC 1035, section 4.1.1): each alone is enough.

    It is too short; it is a response or has another opcode; it has not exactly one question and no answer.
    """
    return [
        _payload(_TRANSPORT, 4, 2) + _compare(pack("!H", _SHORTEST_QUERY), _LESS),
        _payload(_TRANSPORT, 10, 1) + _masked(b"\xf8") + _compare(b"\0", _DIFFERENT),
        _payload(_TRANSPORT, 12, 4) + _compare(b"\0\1\0\0", _DIFFERENT),
    ]


def _to_ipv4(address: bytes) -> bytes:
    return _family(NFPROTO_IPV4) + _payload(_NETWORK, 16, 4) + _compare(address)


def _to_ipv6(address: bytes) -> bytes:
    return _family(NFPROTO_IPV6) + _payload(_NETWORK, 24, 16) + _compare(address)


def _is_ipv4_fragment() -> bytes:
    """A fragment has an offset, or the flag for more fragments (RFC 791)."""
    fields = _payload(_NETWORK, 6, 2) + _masked(b"\x3f\xff")
    return _family(NFPROTO_IPV4) + fields + _compare(bytes(2), _DIFFERENT)


def _is_ipv6_fragment() -> bytes:
    """A fragment's first extension header says so (RFC 8200)."""
    return _family(NFPROTO_IPV6) + _payload(_NETWORK, 6, 1) + _compare(bytes([FRAGMENT]))


def _has_ipv4_options() -> bytes:
    """Options, source routes among them, make the header longer (RFC 791)."""
    length = _payload(_NETWORK, 0, 1) + _masked(b"\x0f")
    return _family(NFPROTO_IPV4) + length + _compare(b"\5", _DIFFERENT)


def _has_routing_header() -> bytes:
    """Match an IPv6 routing header, anywhere among the extension headers (RFC 8200)."""
    present = _expression(
        "exthdr",
        attribute(1, _REGISTER),
        attribute(2, bytes([ROUTING])),
        attribute(3, bytes(4)),
        attribute(4, pack("!I", 1)),
        attribute(5, pack("!I", 1)),  # NFT_EXTHDR_F_PRESENT
    )
    return _family(NFPROTO_IPV6) + present + _compare(b"\1")


def _by_way_of(interface: str, operator: int = _EQUAL) -> bytes:
    """Before a redirect, "lo" is the interface of raw sockets, by `capture`'s policy rules."""
    return _meta(_OIFNAME) + _compare(interface.encode().ljust(16, b"\0"), operator)


def _to_last_port(operator: int = _EQUAL) -> bytes:
    return _payload(_TRANSPORT, 2, 2) + _compare(pack("!H", LAST_PORT), operator)


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise",
        attribute(1, _REGISTER),
        attribute(2, _REGISTER),
        attribute(3, pack("!I", len(mask))),
        nest(4, attribute(1, mask)),
        nest(5, attribute(1, bytes(len(mask)))),
    )


def _tcp_flag(flag: int, value: int) -> bytes:
    return _payload(_TRANSPORT, 13, 1) + _masked(bytes([flag])) + _compare(bytes([value]))


def _was_redirected() -> bytes:
    status = _expression("ct", attribute(1, _REGISTER), attribute(2, pack("!I", 2)))
    return status + _masked(pack("=I", _DNAT_STATUS)) + _compare(bytes(4), _DIFFERENT)


def _log(prefix: str = "") -> bytes:
    group, snaplen = attribute(1, pack("!H", LOG_GROUP)), attribute(3, pack("!I", SNAPLEN))
    return _expression("log", group, attribute(2, text(prefix)) if prefix else b"", snaplen)


def _reject(kind: int, code: int = 0) -> bytes:
    """Reject a packet: kind 1 sends a TCP reset, kind 2 with code 1 sends `icmpx port-unreachable`."""
    return _expression("reject", attribute(1, pack("!I", kind)), attribute(2, bytes([code])))
