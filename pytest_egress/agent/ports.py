"""Sockets that send datagrams to a port of the target's.

Nothing answers a datagram to an address where nobody listens in time to try the next one, as with connections. So the
kernel's table of sockets says which address has a listener.
"""

from __future__ import annotations

import _socket
import errno
from struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    Socket: TypeAlias = _socket.socket

TABLE4, TABLE6 = "/proc/net/udp", "/proc/net/udp6"
"""The UDP sockets of this process's network namespace (proc_net_udp(5))."""

_UNCONNECTED = "07"  # such a socket takes datagrams from anybody
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def connect_datagrams(port: int) -> Socket:
    """A socket that exchanges datagrams with a port of this namespace alone.

    OSError with ECONNREFUSED where nobody listens there.
    """
    for family, address in listening(port):
        sock = _socket.socket(family, _socket.SOCK_DGRAM)
        try:
            sock.connect((address, port))
        except OSError:  # such as ::1 without IPv6
            sock.close()
        else:
            return sock
    raise OSError(errno.ECONNREFUSED, "Connection refused")


def listening(port: int) -> Iterator[tuple[int, str]]:
    """The addresses at which a UDP port may be reached, each after its family. A socket of IPv6 may take IPv4 too."""
    for family, table in ((_socket.AF_INET, TABLE4), (_socket.AF_INET6, TABLE6)):
        for address in _addresses(family, table, port):
            yield family, _LOOPBACK.get(address, address)
            if address == "::":
                yield _socket.AF_INET, "127.0.0.1"


def _addresses(family: int, table: str, port: int) -> Iterator[str]:
    try:
        with open(table, encoding="ascii") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6
        return
    for line in lines:
        _, local, _, state, *_ = line.split()
        address, _, number = local.partition(":")
        if state == _UNCONNECTED and int(number, 16) == port:
            yield _socket.inet_ntop(family, _packed(address))


def _packed(digits: str) -> bytes:
    """The kernel prints an address as numbers of 32 bits in the machine's order."""
    words = (int(digits[start : start + 8], 16) for start in range(0, len(digits), 8))
    return b"".join(pack("=I", word) for word in words)
