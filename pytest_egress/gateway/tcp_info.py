"""Whether a TCP connection has carried a byte, as the kernel counts (TCP_INFO, tcp(7)).

A handler does with its socket what it likes, so nobody but the kernel sees every byte of both directions.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

CLOSED: Final = 7  # TCP_CLOSE: it was reset, or both ends are over
UNACKNOWLEDGED: Final = struct.Struct("@24xI")  # tcpi_unacked
COUNTERS: Final = struct.Struct("@120xQ24xII")
"""tcpi_bytes_acked, tcpi_data_segs_in and tcpi_data_segs_out (linux/tcp.h). The last two are there since Linux 4.6, and
unlike `tcpi_bytes_received` they count no FIN."""


class Traffic(NamedTuple):
    """What a connection has carried so far.

    Attributes:
        came: Whether its client has sent a byte, read or not.
        sent: Whether we have sent one.
        heard: Whether the client's kernel has acknowledged that, or else our FIN.
        settled: Whether `heard` is what it will be.
        is_over: Whether it was reset, or both sides have closed.
    """

    came: bool
    sent: bool
    heard: bool
    settled: bool
    is_over: bool


ANYTHING: Final = Traffic(came=True, sent=True, heard=True, settled=True, is_over=True)
"""What is assumed where the kernel does not tell."""


def traffic(sock: socket.socket) -> Traffic:
    """What a TCP connection has carried so far; `ANYTHING` where its socket is closed, or the kernel does not count."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, COUNTERS.size)
    except OSError:
        return ANYTHING
    if len(info) < COUNTERS.size:
        return ANYTHING
    acknowledged, came, sent = COUNTERS.unpack(info)
    (waiting,) = UNACKNOWLEDGED.unpack_from(info)
    return Traffic(
        came=came > 0,
        sent=sent > 0,
        heard=acknowledged > 0,
        settled=not waiting or info[0] == CLOSED,
        is_over=info[0] == CLOSED,
    )
