"""A reset waits for a peer that still reads, and for no other."""

from __future__ import annotations

from pytest_egress.base.acknowledged import await_acknowledged, unsent
from pytest_egress.link.stream_sockets import loopback_pair


def test_a_peer_that_has_all_is_not_waited_for() -> None:
    one, other = loopback_pair()
    with one, other:
        one.sendall(b"said")
        assert other.recv(4) == b"said"
        await_acknowledged(one)
        assert unsent(one) == 0


def test_a_peer_that_reads_again_is_waited_for_and_one_that_does_not_for_a_while_alone() -> None:
    one, other = loopback_pair()
    with one, other:
        one.settimeout(0)
        while True:
            try:
                one.send(bytes(1 << 16))
            except BlockingIOError:
                break
        await_acknowledged(one)
        assert unsent(one)
        other.settimeout(0)

        def read(seconds: float) -> None:
            try:
                while other.recv(1 << 20):
                    pass
            except BlockingIOError:
                pass

        await_acknowledged(one, read)
        assert unsent(one) == 0


def test_a_socket_that_is_closed_has_nothing_unsent() -> None:
    one, other = loopback_pair()
    for sock in (one, other):
        sock.close()
    await_acknowledged(one)
