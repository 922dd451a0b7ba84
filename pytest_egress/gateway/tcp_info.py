"""What a TCP connection has carried, as the kernel counts (TCP_INFO, tcp(7)).

A raw handler may do anything with its socket, so that only the kernel sees every byte of both directions.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import Final, NamedTuple

from pytest_egress.base.acknowledged import unsent
from pytest_egress.link.stream_sockets import AcceptedSocket

CLOSED: Final = 7  # TCP_CLOSE: the connection was reset, or both sides have closed
UNACKNOWLEDGED: Final = struct.Struct("@24xI")  # tcpi_unacked
COUNTERS: Final = struct.Struct("@120xQQ16xII")
"""tcpi_bytes_acked, tcpi_bytes_received, tcpi_data_segs_in and tcpi_data_segs_out (linux/tcp.h). The last two are there
since Linux 4.6, and unlike `tcpi_bytes_received` they count no FIN."""

FIN: Final = 1  # what one counts in `Traffic.received`


class Counts(NamedTuple):
    """What a connection had carried before it began to lead elsewhere, by a tunnel; nothing, as a rule.

    Attributes:
        heard: How many bytes we had sent.
        came: In how many segments its client had sent bytes.
        sent: In how many segments we had.
        received: How many bytes of its client we had read.
    """

    heard: int = 0
    came: int = 0
    sent: int = 0
    received: int = 0


NOTHING: Final = Counts()


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


def carried_so_far(sock: socket.socket) -> Counts:
    """What is counted is all that was sent, whether the client's kernel has acknowledged it or not."""
    while True:  # until nothing is acknowledged between the two questions
        before = _counters(sock)
        if before is None:
            return NOTHING
        queued, unread = unsent(sock), unread_bytes(sock)
        if _counters(sock) == before:
            acknowledged, received, came, sent = before
            came -= unread > 0  # the segment that is unread in part
            return Counts(acknowledged + queued, came, sent, received - unread)


def unread_bytes(sock: socket.socket) -> int:
    """How many bytes have come and were not read (FIONREAD, tcp(7))."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder)


def _counters(sock: socket.socket) -> tuple[int, int, int, int] | None:
    info = _info(sock)
    return None if info is None else COUNTERS.unpack(info)


def _info(sock: socket.socket) -> bytes | None:
    """TCP_INFO as far as `COUNTERS`; None where the socket is closed, or the kernel has no such counters."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, COUNTERS.size)
    except OSError:
        return None
    return info if len(info) == COUNTERS.size else None


def has_heard(sock: socket.socket, accepted: socket.socket, before: Counts) -> bool:
    """Whether a client that has ended had got a byte of ours; the accepted socket object knows behind a stream link."""
    if sock.fileno() < 0:  # reset before the handshake: wrap_socket() has closed it
        return False
    if isinstance(accepted, AcceptedSocket) and accepted.fate != "heard":
        return False
    return traffic(sock, before).heard


def traffic(sock: socket.socket, before: Counts) -> Traffic:
    """The traffic since `before`; `ANYTHING` where the socket is closed, or the kernel has no such counters."""
    if (info := _info(sock)) is None:
        return ANYTHING
    acknowledged, received, came, sent = COUNTERS.unpack(info)
    (waiting,) = UNACKNOWLEDGED.unpack_from(info)
    return Traffic(
        came=came > before.came,
        sent=sent > before.sent,
        heard=acknowledged > before.heard,
        settled=not waiting or info[0] == CLOSED,
        is_over=info[0] == CLOSED,
        received=received - before.received,
    )
