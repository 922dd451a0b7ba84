"""What a recorded exchange keeps in memory once its connection has ended: tests record thousands."""

from __future__ import annotations

import contextlib
import gc
import ssl
import tracemalloc
from collections.abc import Callable

import pytest

from pytest_egress.gateway.connection import Connection
from pytest_egress.gateway.destination import Destination
from tests.support.stage import ADDRESS, Stage, ask, eventually

WARM_UP, COUNT = 20, 100
NAME = "kept.test"  # of no other test
GET = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()


def dial(stage: Stage) -> ssl.SSLSocket:
    """A client that the stage keeps nothing of."""
    sock = stage.link.dial(ADDRESS, 443)
    return stage.trusting.wrap_socket(sock, server_hostname=NAME)


def on_one_connection(stage: Stage, count: int) -> None:
    with contextlib.closing(dial(stage)) as sock:
        for _ in range(count):
            assert ask(sock, GET).status == 200


def on_its_own(stage: Stage, count: int) -> None:
    for _ in range(count):
        with contextlib.closing(dial(stage)) as sock:
            assert ask(sock, GET).status == 200


def bytes_of_each(stage: Stage, exchange: Callable[[Stage, int], None]) -> float:
    def run(count: int) -> int:
        exchange(stage, count)
        assert eventually(lambda: not len(stage.gateway.connections))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = run(WARM_UP)
        return (run(COUNT) - before) / COUNT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("exchange", "most"), [(on_one_connection, 2_000), (on_its_own, 2_800)], ids=["one", "own"]
)
def test_an_exchange_keeps_little(
    stage: Stage, exchange: Callable[[Stage, int], None], most: int
) -> None:
    stage.https(NAME, lambda request: {"ok": True})
    assert bytes_of_each(stage, exchange) < most


def test_an_exchange_keeps_nothing_of_its_connection(stage: Stage) -> None:
    stage.https(NAME, lambda request: {"ok": True})
    on_its_own(stage, 5)
    assert eventually(lambda: not len(stage.gateway.connections))
    assert len(stage.window.entries) == 5
    gc.collect()
    connections = [each for each in gc.get_objects() if type(each) is Connection]
    destinations = [each for each in gc.get_objects() if type(each) is Destination]
    assert NAME not in {each.host for each in destinations}
    assert NAME not in {each.destination.host for each in connections}
