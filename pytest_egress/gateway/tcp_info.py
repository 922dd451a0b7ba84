"""What a TCP connection has carried, as the kernel counts (TCP_INFO, tcp(7); TCP_CONNECTION_INFO of macOS).

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

CONNECTION_INFO: Final = 0x106  # TCP_CONNECTION_INFO (netinet/tcp.h of macOS)
OF_MACOS: Final = struct.Struct("@B31xI28xQ16xQ")
"""tcpi_state, tcpi_snd_sbbytes, tcpi_txbytes and tcpi_rxbytes; the last two count bytes, and no FIN."""

FIN: Final = 1  # what one counts in `Traffic.received`


class Counts(NamedTuple):
    """What a connection had carried before it began to lead elsewhere, by a tunnel; nothing, as a rule.

    Attributes:
        heard: How many bytes we had sent.
        came: In how many segments its client had sent bytes; on macOS, how many bytes.
        sent: In how many segments we had, likewise.
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
            came -= unread if sys.platform == "darwin" else unread > 0  # the latter: a part of one
            return Counts(acknowledged + queued, came, sent, received - unread)


def unread_bytes(sock: socket.socket) -> int:
    """How many bytes have come and were not read (FIONREAD, tcp(7))."""
    return int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder)


class _Info(NamedTuple):
    """What the kernel tells of a connection.

    Attributes:
        counters: What has been acknowledged, received, has come and was sent, as in `Counts`.
        waiting: How much of what was sent is not acknowledged.
        is_over: Whether the connection was reset, or both sides have closed.
    """

    counters: tuple[int, int, int, int]
    waiting: int
    is_over: bool


def _counters(sock: socket.socket) -> tuple[int, int, int, int] | None:
    info = _info(sock)
    return None if info is None else info.counters


def _info(sock: socket.socket) -> _Info | None:
    """None where the socket is closed, or the kernel has no such counters; macOS has none of one that was reset."""
    try:
        if sys.platform == "darwin":
            return _of_macos(sock.getsockopt(socket.IPPROTO_TCP, CONNECTION_INFO, OF_MACOS.size))
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, COUNTERS.size)
    except OSError:
        return None
    if len(info) < COUNTERS.size:
        return None
    (waiting,) = UNACKNOWLEDGED.unpack_from(info)
    return _Info(COUNTERS.unpack(info), waiting, info[0] == CLOSED)


def _of_macos(info: bytes) -> _Info | None:
    if len(info) < OF_MACOS.size:
        return None
    state, waiting, sent, came = OF_MACOS.unpack(info)
    return _Info((sent - waiting, came, came, sent), waiting, is_over=not state)


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
    acknowledged, received, came, sent = info.counters
    return Traffic(
        came=came > before.came,
        sent=sent > before.sent,
        heard=acknowledged > before.heard,
        settled=not info.waiting or info.is_over,
        is_over=info.is_over,
        received=received - before.received,
    )
