"""`original_destination`: the address that the client of a redirected connection dialled, as the kernel reports it."""

from __future__ import annotations

import _socket
from struct import unpack_from

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST is 80 too
_SOL_IP, _SOL_IPV6 = 0, 41


def original_destination(sock: _socket.socket) -> tuple[str, int]:
    """The address that the client dialled; OSError with ENOENT where the kernel no longer tracks the connection."""
    if sock.family == _socket.AF_INET:
        name = sock.getsockopt(_SOL_IP, _SO_ORIGINAL_DST, 16)  # sockaddr_in
        packed = name[4:8]
    else:
        name = sock.getsockopt(_SOL_IPV6, _SO_ORIGINAL_DST, 28)  # sockaddr_in6
        packed = name[8:24]
    return _socket.inet_ntop(sock.family, packed), unpack_from("!H", name, 2)[0]
