"""Connections of a stream link that go by a relay, and what becomes of them where that fails."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

import pytest_egress.agent.direct as direct
import pytest_egress.agent.stream as agent
from pytest_egress.agent.direct import NUMBER, Direct
from pytest_egress.agent.pump import Interests, reset
from pytest_egress.link.direct import MOST_FAILURES, STOCK, DirectWay, Stock
from pytest_egress.link.stream import RELAY_ENDED
from pytest_egress.link.stream_sockets import AcceptedSocket
from tests.support.stage import eventually
from tests.support.stream_scene import RelayScene, StreamScene, ended, read_all
from tests.support.target_shell import SECONDS


@pytest.fixture
def relay() -> Iterator[RelayScene]:
    made = RelayScene()
    yield made
    made.close()


@pytest.fixture
def scene(relay: RelayScene) -> Iterator[StreamScene]:
    made = StreamScene(relay=relay)
    yield made
    made.close()


def test_connections_go_by_the_relay_and_those_for_which_there_is_none_by_the_engines_stream(
    scene: StreamScene,
) -> None:
    pairs = [scene.dial() for _ in range(3 * STOCK)]
    ways = {ours.is_direct for _, ours in pairs if isinstance(ours, AcceptedSocket)}
    assert True in ways
    for number, (client, ours) in enumerate(pairs):
        with client, ours:
            client.sendall(b"%d" % number)
            client.shutdown(socket.SHUT_WR)
            assert read_all(ours) == b"%d" % number
    assert eventually(lambda: not len(scene.served._direct or ""))


def test_the_stock_is_filled_again(scene: StreamScene) -> None:
    for _ in range(3 * STOCK):
        assert eventually(scene.has_stock)
        client, ours = scene.dial()
        with client, ours:
            assert isinstance(ours, AcceptedSocket)
            assert ours.is_direct


def test_the_end_of_the_relay_ends_the_link_and_its_connections_with_the_reason(
    relay: RelayScene, scene: StreamScene
) -> None:
    client, ours = scene.dial()
    relay.end()
    assert scene.link.channel.recv(1) == b""
    assert scene.link.reason == RELAY_ENDED
    with client, ours:
        assert ended(ours)


def test_a_relay_that_takes_no_connections_is_tried_no_further(relay: RelayScene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    interests = Interests()
    stock = Stock(DirectWay(address, b"", relay.ours), interests, lambda *_: None)
    stock.fill()
    while stock._waiting:
        for descriptor, events in interests.wait(SECONDS):
            stock.ready(descriptor, events)
    assert MOST_FAILURES <= stock._failures < MOST_FAILURES + STOCK
    assert stock.broken == []  # the agent cannot have joined one of them
    interests.close()


def test_a_connection_that_breaks_off_may_have_been_joined_and_one_that_ends_in_order_not(
    relay: RelayScene,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        interests = Interests()
        stock = Stock(
            DirectWay(server.getsockname(), b"words", relay.ours), interests, lambda *_: None
        )
        stock.fill()
        server.settimeout(SECONDS)
        peer, _ = server.accept()
        peer.settimeout(SECONDS)
        assert turn(stock, interests, lambda: any(each.number for each in stock._waiting.values()))
        assert peer.recv(64) == b"words" + NUMBER.pack(1)
        peer.close()
        assert turn(stock, interests, lambda: stock._failures == 1)
        assert stock.broken == []
        peer, _ = server.accept()
        reset(peer)
        assert turn(stock, interests, lambda: stock._failures == 2)
        assert stock.broken == [2]
    stock.close()
    interests.close()


def turn(stock: Stock, interests: Interests, until: Callable[[], bool]) -> bool:
    for _ in range(100):
        if until():
            return True
        for descriptor, events in interests.wait(SECONDS):
            stock.ready(descriptor, events)
    return until()


def direct_of(scene: StreamScene) -> Direct:
    assert scene.served._direct is not None
    return scene.served._direct


def break_off(scene: StreamScene) -> int:
    """Reset a connection in stock for the test process alone, as a relay does that has no room for it; its number."""
    descriptor, (number, sock) = next(iter(direct_of(scene)._stock.items()))
    copy = socket.socket(fileno=sock.detach())
    del direct_of(scene)._stock[descriptor]
    direct_of(scene)._interests.want(descriptor, 0)
    reset(copy)
    return number


def test_a_connection_that_breaks_off_unjoined_is_no_lost_traffic_and_ends_no_flush_early(
    scene: StreamScene,
) -> None:
    link = scene.link
    direct_of(scene).passed += 1  # one is on its way
    break_off(scene)
    assert eventually(lambda: scene.has_stock() and not link._doubts)
    link.flush(0.2)
    assert link.lost_packets == 0
    assert link._awaiting


def test_a_joined_connection_that_breaks_off_before_its_head_comes_is_lost_traffic(
    scene: StreamScene,
) -> None:
    link, served = scene.link, direct_of(scene)
    descriptor, (number, sock) = next(iter(served._stock.items()))
    del served._stock[descriptor], served._unjoined[number]  # as `join` does
    served.passed += 1
    served._interests.want(descriptor, 0)
    reset(sock)  # and the head is lost on the way
    link.flush(SECONDS)
    assert link.lost_packets == 1
    client, ours = scene.dial()  # the count is right afterwards
    with client, ours:
        link.flush(SECONDS)
        assert (link._joined, link.lost_packets) == (2, 1)


def test_a_connection_that_has_broken_off_is_not_joined_when_it_comes_late() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    interests = Interests()
    served = Direct(ours, interests)
    assert not served.was_joined(2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for number in (1, 2):
            with socket.create_connection(server.getsockname(), SECONDS) as late:
                socket.send_fds(theirs, [NUMBER.pack(number)], [late.fileno()])
    served.ready(ours.fileno(), 0)
    assert [number for number, _ in served._stock.values()] == [1]
    served.close()
    theirs.close()
    interests.close()


def test_a_flush_waits_for_what_the_test_process_has_not_acknowledged(
    monkeypatch: pytest.MonkeyPatch, scene: StreamScene
) -> None:
    client, ours = scene.dial()
    under_way = [1]
    monkeypatch.setattr(direct, "arrived", lambda sock: (0, under_way[0]))
    link = scene.link
    with client, ours:
        link.flush(0.2)
        assert scene.served._flushes
        under_way[0] = 0
        link.flush(SECONDS)
        assert not scene.served._flushes


def test_a_flush_waits_for_no_bytes_that_came_after_it(
    monkeypatch: pytest.MonkeyPatch, scene: StreamScene
) -> None:
    client, ours = scene.dial()
    acknowledged = iter(range(1000))
    monkeypatch.setattr(direct, "arrived", lambda sock: (next(acknowledged), 9))
    monkeypatch.setattr(agent, "ARRIVAL_SECONDS", SECONDS)
    with client, ours:
        scene.link.flush(SECONDS)
        assert not scene.served._flushes


def test_the_relay_is_tried_again_after_a_while(relay: RelayScene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        interests = Interests()
        stock = Stock(DirectWay(server.getsockname(), b"", relay.ours), interests, lambda *_: None)
        stock._failures = MOST_FAILURES
        stock.fill()
        assert not stock._waiting
        stock.try_again()
        assert len(stock._waiting) == STOCK
    stock.close()
    interests.close()


def test_the_end_of_the_relay_is_seen_though_another_thread_has_closed_it(
    relay: RelayScene, scene: StreamScene
) -> None:
    way_end = relay.ours.dup()
    relay.ours.close()  # as `RelayOfRun.for_sidecar` does
    way_end.shutdown(socket.SHUT_WR)
    relay._thread.join(SECONDS)
    relay._theirs.shutdown(socket.SHUT_WR)
    way_end.close()
    assert scene.link.channel.recv(1) == b""
    assert scene.link.reason == RELAY_ENDED
