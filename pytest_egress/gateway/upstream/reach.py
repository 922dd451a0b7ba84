"""Reserved addresses: those of real servers that are reached only where a user has named the very host.

A name, a pattern or a policy that lets traffic through does not open this machine's own services to a container. The
check is on the address that is connected to, whatever name led to it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from struct import pack
from typing import Final

from pytest_egress.agent.netlink import REQUEST, ROUTE, attribute, message, messages
from pytest_egress.base.sockets import Socket

THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")  # RFC 1122 section 3.2.1.3; 0.0.0.0 is loopback
AS_IPV4: Final = (
    (IPv6Network("::/96"), 0),  # IPv4-compatible (RFC 4291 section 2.5.5.1)
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped (2.5.5.2): the kernel connects by IPv4
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64 (RFC 6052)
    (IPv6Network("2002::/16"), 80),  # 6to4 (RFC 3056)
)
"""IPv6 networks whose addresses contain an IPv4 address, and how many bits follow that address."""

LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
"""NAT64 by prefixes of a network's own (RFC 8215), of any length from 48 bits on."""

NAT64_SHIFTS: Final = (40, 32, 24, 0)
"""How many bits follow the IPv4 address, by a prefix of 48, 56, 64 and 96 bits (RFC 6052 section 2.2).

The bits from 64 to 71, which are zero, are left out.
"""

GET_ROUTE: Final = 26  # RTM_GETROUTE (rtnetlink(7))
ROUTE_TO: Final = 1  # RTA_DST
NEW_ROUTE: Final = 24  # RTM_NEWROUTE, which answers it
OWN: Final = (2, 4)  # RTN_LOCAL, RTN_ANYCAST: routes that end here
ANSWER_BYTES: Final = 1 << 16


def reserved(address: str) -> str:
    """Why a socket's address, with its zone, is reserved, in words that follow "is"; "" where it is not."""
    for each in forms(ip_address(address)):
        if each.is_loopback:
            return "loopback"
        if each.is_unspecified or (each.version == 4 and each in THIS_NETWORK):
            return "unspecified, which means loopback"
        if each.is_link_local:
            return "link-local"
        if each.is_multicast:
            return "multicast"
        if is_own(each):
            return "an address of the machine that runs the tests"
    return ""


def forms(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """The address itself, and the IPv4 addresses that it contains."""
    yield address
    if isinstance(address, IPv6Address):
        for network, shift in AS_IPV4:
            if address in network:
                yield IPv4Address(int(address) >> shift & 0xFFFFFFFF)
        if address in LOCAL_NAT64:
            without_zero = int(address) >> 64 << 56 | int(address) & (1 << 56) - 1
            found = (IPv4Address(without_zero >> shift & 0xFFFFFFFF) for shift in NAT64_SHIFTS)
            yield from (each for each in found if each not in THIS_NETWORK)  # of another length


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether the kernel delivers packets for an address to this machine itself.

    The kernel is asked (`ip route get`), because it also knows secondary addresses and whole networks that are local.
    An address without a route is not this machine's; a connection to it fails anyway.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    if sys.platform == "darwin":
        return can_bind(family, str(address))
    header = pack("=BBBBBBBBI", family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)  # rtmsg
    body = header + attribute(ROUTE_TO, address.packed)
    with Socket(socket.AF_NETLINK, socket.SOCK_RAW, ROUTE) as sock:
        sock.send(message(GET_ROUTE, REQUEST, body))
        answers = messages(sock.recv(ANSWER_BYTES))
        kinds = [found[7] for kind, _, found in answers if kind == NEW_ROUTE]  # rtm_type
    return any(kind in OWN for kind in kinds)


def can_bind(family: int, address: str) -> bool:
    """Whether a socket can be bound to an address, which has to be this machine's for that.

    macOS has no other question that is as quick. Linux has, and knows more: no socket can be bound to a network of IPv6
    that is local (`ip route add local`).
    """
    with Socket(family, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        if family == socket.AF_INET6:  # else mapped addresses are taken
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, 0))
        return True
    return False
