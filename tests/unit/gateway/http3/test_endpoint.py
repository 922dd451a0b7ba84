"""To which connection of QUIC a datagram belongs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from pytest_egress.gateway.http3 import endpoint as module
from pytest_egress.gateway.http3 import sockets
from pytest_egress.gateway.http3.endpoint import QuicEndpoint
from pytest_egress.gateway.http3.sockets import QuicSocket
from pytest_egress.traffic.datagrams import SentDatagram, parse
from tests.support.http3_client import let_out

FIRST, GIVEN, OTHER = b"first-id", b"given-id", b"other-id"


def datagram(content: bytes) -> SentDatagram:
    sent = parse(let_out(content))
    assert sent is not None
    return sent


def initial(identifier: bytes) -> SentDatagram:
    """An Initial packet of version 1, whose content nobody looks at here."""
    head = b"\xc0\0\0\0\1" + bytes([len(identifier)]) + identifier + b"\0\0\x44\xb0"
    return datagram(head + bytes(1200))


def short(identifier: bytes, content: bytes = b"?") -> SentDatagram:
    return datagram(b"\x40" + identifier + content)


@pytest.fixture
def begun() -> Iterator[tuple[QuicEndpoint, QuicSocket]]:
    """An endpoint with one connection."""
    connections: list[QuicSocket] = []

    def begin(sock: QuicSocket, sent: SentDatagram) -> bool:
        connections.append(sock)
        return len(connections) == 1

    endpoint = QuicEndpoint(lambda frame: None, begin)
    assert endpoint.begin(initial(FIRST))
    with closing(connections[0]):
        connections[0].give_id(GIVEN, True)
        yield endpoint, connections[0]


def test_datagrams_go_to_the_connection_of_their_id(
    begun: tuple[QuicEndpoint, QuicSocket],
) -> None:
    endpoint, sock = begun
    assert sock.recv(70000)[2:] == initial(FIRST).content
    assert endpoint.take(short(GIVEN, b"1"))
    assert endpoint.take(short(FIRST, b"2"))
    assert not endpoint.take(short(OTHER))
    assert sock.recv(70000) == b"\0\x0a\x40given-id1\0\x0a\x40first-id2"


def test_what_comes_for_a_connection_that_is_over_is_dropped(
    begun: tuple[QuicEndpoint, QuicSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, sock = begun
    sock.close()
    assert endpoint.take(short(GIVEN))
    assert endpoint.take(initial(FIRST))
    monkeypatch.setattr(module, "MAX_ENDED", 2)
    endpoint.give_id(sock, OTHER, False)
    assert [endpoint.take(short(each)) for each in (FIRST, GIVEN, OTHER)] == [False, True, True]


def test_a_client_that_finds_no_room_sends_again(begun: tuple[QuicEndpoint, QuicSocket]) -> None:
    endpoint, _ = begun
    assert endpoint.begin(initial(OTHER))
    assert not endpoint.take(short(OTHER))


def test_what_begins_no_connection_is_not_taken(begun: tuple[QuicEndpoint, QuicSocket]) -> None:
    endpoint, _ = begun
    for content in (b"", b"\x80", b"customer row 42", initial(OTHER).content[:1199]):
        assert not endpoint.take(datagram(content))
        assert not endpoint.begin(datagram(content))


def test_datagrams_that_nobody_reads_are_bounded(
    begun: tuple[QuicEndpoint, QuicSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, sock = begun
    sock.recv(70000)
    monkeypatch.setattr(sockets, "MAX_WAITING", 3)
    for number in range(9):
        assert endpoint.take(short(GIVEN, b"%d" % number))
    assert sock.recv(70000).count(GIVEN) == 3
