"""What a TCP connection has carried, as the kernel counts (TCP_INFO, tcp(7)).

A raw handler may do anything with its socket, so that only the kernel sees every byte of both directions.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

from pytest_egress.link.stream_sockets import AcceptedSocket

CLOSED: Final = 7  # TCP_CLOSE: the connection was reset, or both sides have closed
UNACKNOWLEDGED: Final = struct.Struct("@24xI")  # tcpi_unacked
COUNTERS: Final = struct.Struct("@120xQQ16xII")
"""tcpi_bytes_acked, tcpi_bytes_received, tcpi_data_segs_in and tcpi_data_segs_out (linux/tcp.h). The last two are there
since Linux 4.6, and unlike `tcpi_bytes_received` they count no FIN."""

FIN: Final = 1  # what one counts in `Traffic.received`


class Traffic(NamedTuple):
    """What a connection has carried so far.

    Attributes:
        came: Whether its client has sent a byte, read or not.
        sent: Whether we have sent a byte.
        heard: Whether the client's kernel has acknowledged a byte of ours, or, where we sent none, our FIN.
        settled: Whether `heard` can no longer change: nothing of ours is unacknowledged.
        is_over: Whether the connection was reset, or both sides have closed.
        received: How many bytes its client has sent, read or not, and its FIN as one more.
    """

    came: bool
    sent: bool
    heard: bool
    settled: bool
    is_over: bool
    received: int = 0


ANYTHING: Final = Traffic(came=True, sent=True, heard=True, settled=True, is_over=True)
"""The traffic that is assumed where the kernel's counters cannot be had."""


def has_heard(sock: socket.socket, accepted: socket.socket) -> bool:
    """Whether a client that has ended had got a byte of ours; the accepted socket object knows behind a stream link."""
    if sock.fileno() < 0:  # reset before the handshake: wrap_socket() has closed it
        return False
    if isinstance(accepted, AcceptedSocket) and accepted.fate != "heard":
        return False
    return traffic(sock).heard


def traffic(sock: socket.socket) -> Traffic:
    """The result is `ANYTHING` where the socket is closed, or the kernel has no such counters."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, COUNTERS.size)
    except OSError:
        return ANYTHING
    if len(info) < COUNTERS.size:
        return ANYTHING
    acknowledged, received, came, sent = COUNTERS.unpack(info)
    (waiting,) = UNACKNOWLEDGED.unpack_from(info)
    return Traffic(
        came=came > 0,
        sent=sent > 0,
        heard=acknowledged > 0,
        settled=not waiting or info[0] == CLOSED,
        is_over=info[0] == CLOSED,
        received=received,
    )
