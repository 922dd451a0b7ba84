"""What begins QUIC, and what does not, whatever the port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.traffic.tls.quic import begins_quic
from tests.support.traffic import quic_initial

VERSION_2 = 0x6B3343CF
INITIAL = quic_initial()


def with_ids(destination: int, source: int, token: bytes = b"") -> bytes:
    """An Initial packet with connection IDs of these lengths."""
    ids = bytes([destination]) + b"d" * destination + bytes([source]) + b"s" * source
    head = b"\xc3\0\0\0\x01" + ids + bytes([0x40, len(token)]) + token
    return (head + (0x4000 | 1200 - len(head) - 2).to_bytes(2, "big")).ljust(1200, b"x")


@pytest.mark.parametrize(
    "data",
    [
        INITIAL,
        quic_initial(VERSION_2, kind=1),
        quic_initial(0xFF00001D),  # a draft
        quic_initial(0x1A2A3A4A, kind=3),  # reserved: it has another version negotiated
        quic_initial(size=1452),
        with_ids(20, 20),
        with_ids(8, 0, b"t" * 60),
        INITIAL + b"another packet",
    ],
)
def test_an_initial_packet_begins_quic(data: bytes) -> None:
    assert begins_quic(data, len(data))
    assert begins_quic(data[:64], len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"customer row 42",
        b"\xc0customer row 42".ljust(1200, b"."),
        INITIAL[:1199],
        quic_initial(kind=1),  # 0-RTT, which follows
        quic_initial(kind=2),  # a handshake that goes on
        quic_initial(kind=3),  # a server's Retry
        quic_initial(VERSION_2),  # its Retry
        quic_initial(0),  # a server's version negotiation
        quic_initial(7),  # of nobody
        b"\x40" + INITIAL[1:],  # a short header, of a connection that is open
        b"\x80" + INITIAL[1:],  # without the fixed bit
        with_ids(7, 0),
        with_ids(21, 0),
        with_ids(8, 21),
        quic_initial(size=1300)[:1200],  # longer than its datagram
        INITIAL[:15] + b"\x7f\xff" + INITIAL[17:],  # its token is
        INITIAL[:16] + b"\0" + INITIAL[17:],  # it is empty
    ],
)
def test_nothing_else_does(data: bytes) -> None:
    assert not begins_quic(data, len(data))


@given(st.binary(max_size=80), st.integers(0, 70000))
def test_any_bytes_are_quic_or_not(tail: bytes, size: int) -> None:
    for data in (tail, INITIAL[:5] + tail, INITIAL[:15] + tail):
        assert begins_quic(data, size) in (False, True)
