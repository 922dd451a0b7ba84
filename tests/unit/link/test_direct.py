"""Connections of a stream link that go by a relay, and what becomes of them where that fails."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

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
    assert stock.lost == 0  # the agent cannot have joined one of them
    interests.close()


def test_a_connection_in_stock_that_ends_in_order_is_not_lost(relay: RelayScene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        interests = Interests()
        stock = Stock(
            DirectWay(server.getsockname(), b"words", relay.ours), interests, lambda *_: None
        )
        stock.fill()
        server.settimeout(SECONDS)
        peer, _ = server.accept()
        peer.settimeout(SECONDS)
        assert turn(
            stock, interests, lambda: any(each.is_connected for each in stock._waiting.values())
        )
        assert peer.recv(5) == b"words"
        peer.close()
        assert turn(stock, interests, lambda: stock._failures == 1)
        assert stock.lost == 0
        peer, _ = server.accept()
        reset(peer)
        assert turn(stock, interests, lambda: stock._failures == 2)
        assert stock.lost == 1
    stock.close()
    interests.close()


def turn(stock: Stock, interests: Interests, until: Callable[[], bool]) -> bool:
    for _ in range(100):
        if until():
            return True
        for descriptor, events in interests.wait(SECONDS):
            stock.ready(descriptor, events)
    return until()


def test_a_flush_waits_for_a_joined_connection_though_others_were_lost_before(
    scene: StreamScene,
) -> None:
    link = scene.link
    assert link._stock is not None
    assert scene.served._direct is not None
    link._stock.lost = 1  # one broke off that was never joined
    link.flush(SECONDS)
    scene.served._direct.passed += 1  # one is on its way
    link.flush(0.1)
    assert eventually(lambda: bool(link._awaiting))
    assert link.lost_packets == 0


def test_a_joined_connection_that_breaks_off_before_its_number_comes_is_lost_traffic(
    scene: StreamScene,
) -> None:
    link = scene.link
    assert link._stock is not None
    assert scene.served._direct is not None
    scene.served._direct.passed += 1
    link._stock.lost = 1
    link.flush(SECONDS)
    assert link.lost_packets == 1
