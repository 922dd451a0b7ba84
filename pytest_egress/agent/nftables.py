"""The rules that bring a namespace's traffic to us, as nftables messages: no socket, no state.

The numbers are those of linux/netfilter/nf_tables.h; each expression is named as `nft` prints it.
Containment does not depend on these rules: the namespace has no way out with them or without.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton
from struct import pack

from .addresses import ADDRESS4, ADDRESS6
from .netlink import APPEND, CREATE, NEW, Request, attribute, message, nest, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "egress"
LOG_GROUP = 213
"""The NFLOG group of what is not TCP and not DNS."""

SNAPLEN = 2048
"""Bytes of such a packet that are recorded: more than any that fits an Ethernet frame."""

RESOLVERS = (b"\x7f\0\0\x0b", b"\x7f\0\0\x35")
"""127.0.0.11 and 127.0.0.53: where engines and systemd put a resolver, inside 127.0.0.0/8 but not
the target's own. Every other loopback address, 127.0.0.1:53 too, stays with the target."""

_OWN4, _OWN6 = inet_pton(AF_INET, ADDRESS4), inet_pton(AF_INET6, ADDRESS6)
_LOOPBACK6 = inet_pton(AF_INET6, "::1")

NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 0, 1, 2, 10
IGMP, TCP, UDP, ICMPV6 = 2, 6, 17, 58

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_BATCH_BEGIN, _BATCH_END = 16, 17
_HOOK_OUTPUT = 3
_PRIORITY_DSTNAT, _PRIORITY_FILTER = -100, 0
_EQUAL, _DIFFERENT = 0, 1
_DNAT_STATUS = 32  # IPS_DST_NAT


def batch(requests: Sequence[bytes]) -> bytes:
    """The messages as one transaction: the kernel loads all of them or none."""
    edge = pack("!BBH", NFPROTO_UNSPEC, 0, _SUBSYSTEM)
    return b"".join((message(_BATCH_BEGIN, 0, edge), *requests, message(_BATCH_END, 0, edge)))


def ruleset(ports4: tuple[int, int], ports6: tuple[int, int] | None) -> list[Request]:
    """The table, its two chains and their rules.

    Args:
        ports4: The ports of the TCP and of the DNS socket on 127.0.0.1.
        ports6: Those on ::1, or None where IPv6 is disabled.
    """
    return [
        _request(
            "the table inet egress", "NF_TABLES_INET", _NEWTABLE, NEW, attribute(1, text(TABLE))
        ),
        _chain("redirect", "nat", _PRIORITY_DSTNAT, "NFT_NAT"),
        *_redirect_rules(ports4, ports6),
        _chain("record", "filter", _PRIORITY_FILTER, "NF_TABLES_INET"),
        *_record_rules(),
    ]


# ------------------------------------------------------------------ what the two chains hold


def _redirect_rules(ports4: tuple[int, int], ports6: tuple[int, int] | None) -> list[Request]:
    tcp4, dns4 = ports4
    rules = []
    for resolver in RESOLVERS:
        rules.append(_redirect("resolver DNS over UDP", _to_ipv4(resolver) + _is_dns(UDP), dns4))
        rules.append(_redirect("resolver DNS over TCP", _to_ipv4(resolver) + _is_dns(TCP), tcp4))
    rules += _accept_own("redirect")
    rules.append(_redirect("IPv4 DNS", _family(NFPROTO_IPV4) + _is_dns(UDP), dns4))
    rules.append(_redirect("IPv4 TCP", _family(NFPROTO_IPV4) + _protocol(TCP), tcp4))
    if ports6 is not None:
        tcp6, dns6 = ports6
        rules.append(_redirect("IPv6 DNS", _family(NFPROTO_IPV6) + _is_dns(UDP), dns6))
        rules.append(_redirect("IPv6 TCP", _family(NFPROTO_IPV6) + _protocol(TCP), tcp6))
    return rules


def _record_rules() -> list[Request]:
    icmpv6_type = _protocol(ICMPV6) + _payload(_TRANSPORT, 0, 1)
    return [
        _rule("record", "what was redirected", "NFT_CT", _was_redirected() + _ACCEPT),
        *_accept_own("record"),
        # The kernel's own packets: nobody asked for them, and none of them leaves.
        _rule("record", "IGMP", "NF_TABLES", _protocol(IGMP) + _ACCEPT),
        _rule("record", "neighbours", "NF_TABLES", icmpv6_type + _in_range(130, 137) + _ACCEPT),
        _rule("record", "MLDv2", "NF_TABLES", icmpv6_type + _compare(bytes([143])) + _ACCEPT),
        _rule("record", "log", "NFT_LOG", _log()),
        _rule("record", "reset of TCP", "NFT_REJECT_INET", _protocol(TCP) + _reject(1)),
        _rule("record", "rejection", "NFT_REJECT_INET", _reject(2, 1)),
    ]


def _accept_own(chain: str) -> list[Request]:
    """Loopback and the namespace's own addresses, by address: `oif lo` is stale in later chains."""
    loopback4 = _family(NFPROTO_IPV4) + _payload(_NETWORK, 16, 1) + _compare(b"\x7f")
    conditions = (loopback4, _to_ipv4(_OWN4), _to_ipv6(_LOOPBACK6), _to_ipv6(_OWN6))
    return [_rule(chain, "own addresses", "NF_TABLES", it + _ACCEPT) for it in conditions]


# ------------------------------------------------------------------ messages


def _request(what: str, needs: str, kind: int, flags: int, body: bytes) -> Request:
    header = pack("!BBH", NFPROTO_INET, 0, 0)
    needs = f"nf_tables NAT (CONFIG_{needs})"
    return Request(what, needs, _SUBSYSTEM << 8 | kind, flags, header + body)


def _chain(name: str, kind: str, priority: int, needs: str) -> Request:
    hook = nest(4, attribute(1, pack("!I", _HOOK_OUTPUT)), attribute(2, pack("!i", priority)))
    body = attribute(1, text(TABLE)) + attribute(3, text(name)) + hook + attribute(7, text(kind))
    return _request(f"the nftables chain of type {kind}", needs, _NEWCHAIN, NEW, body)


def _rule(chain: str, what: str, needs: str, expressions: bytes) -> Request:
    body = attribute(1, text(TABLE)) + attribute(2, text(chain)) + nest(4, expressions)
    return _request(f"the nftables rule ({what})", needs, _NEWRULE, CREATE | APPEND, body)


def _redirect(what: str, condition: bytes, port: int) -> Request:
    load_port = _expression(
        "immediate", attribute(1, _REGISTER), nest(2, attribute(1, pack("!H", port)))
    )
    to_port = load_port + _expression("redir", attribute(1, _REGISTER))
    return _rule("redirect", f"redirect of {what}", "NFT_REDIR", condition + to_port)


# ------------------------------------------------------------------ expressions

_REGISTER = pack("!I", 1)  # NFT_REG_1, the only one that is needed
_NETWORK, _TRANSPORT = 1, 2  # payload bases: the IP header, the header after it


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, attribute(1, text(name)), nest(2, *parts))


_ACCEPT = _expression(
    "immediate", attribute(1, pack("!I", 0)), nest(2, nest(2, attribute(1, pack("!I", 1))))
)


def _compare(data: bytes, operator: int = _EQUAL) -> bytes:
    return _expression(
        "cmp",
        attribute(1, _REGISTER),
        attribute(2, pack("!I", operator)),
        nest(3, attribute(1, data)),
    )


def _in_range(first: int, last: int) -> bytes:
    low, high = nest(3, attribute(1, bytes([first]))), nest(4, attribute(1, bytes([last])))
    return _expression(
        "range", attribute(1, _REGISTER), attribute(2, pack("!I", _EQUAL)), low, high
    )


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload",
        attribute(1, _REGISTER),
        attribute(2, pack("!I", base)),
        attribute(3, pack("!I", offset)),
        attribute(4, pack("!I", length)),
    )


def _meta(key: int) -> bytes:
    return _expression("meta", attribute(2, pack("!I", key)), attribute(1, _REGISTER))


def _family(number: int) -> bytes:
    return _meta(15) + _compare(bytes([number]))  # meta nfproto


def _protocol(number: int) -> bytes:
    return _meta(16) + _compare(bytes([number]))  # meta l4proto


def _is_dns(protocol: int) -> bytes:
    return _protocol(protocol) + _payload(_TRANSPORT, 2, 2) + _compare(pack("!H", 53))


def _to_ipv4(address: bytes) -> bytes:
    return _family(NFPROTO_IPV4) + _payload(_NETWORK, 16, 4) + _compare(address)


def _to_ipv6(address: bytes) -> bytes:
    return _family(NFPROTO_IPV6) + _payload(_NETWORK, 24, 16) + _compare(address)


def _was_redirected() -> bytes:
    status = _expression("ct", attribute(1, _REGISTER), attribute(2, pack("!I", 2)))
    only_dnat = _expression(
        "bitwise",
        attribute(1, _REGISTER),
        attribute(2, _REGISTER),
        attribute(3, pack("!I", 4)),
        nest(4, attribute(1, pack("=I", _DNAT_STATUS))),
        nest(5, attribute(1, bytes(4))),
    )
    return status + only_dnat + _compare(bytes(4), _DIFFERENT)


def _log() -> bytes:
    return _expression(
        "log", attribute(1, pack("!H", LOG_GROUP)), attribute(3, pack("!I", SNAPLEN))
    )


def _reject(kind: int, code: int = 0) -> bytes:
    """Kind 1 is a TCP reset, kind 2 with code 1 is `icmpx port-unreachable`."""
    return _expression("reject", attribute(1, pack("!I", kind)), attribute(2, bytes([code])))
