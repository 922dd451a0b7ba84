"""Connections of a stream link that go by a relay, and what becomes of them where that fails."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_egress.agent.pump import Interests
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
    assert MOST_FAILURES <= stock.lost < MOST_FAILURES + STOCK
    interests.close()
