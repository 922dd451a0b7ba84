"""The trial of a way to a relay."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from pytest_egress.link.relay import try_way
from tests.support.stream_scene import RelayScene
from tests.support.target_shell import SECONDS


@pytest.fixture
def relay() -> Iterator[RelayScene]:
    made = RelayScene()
    yield made
    made.close()


def expected(relay: RelayScene, line: bytes, seconds: float) -> None:
    ready, _, _ = select.select([relay.ours], [], [], seconds)
    said = relay.ours.recv(64) if ready else b""
    if said != line:
        raise OSError(f"it said {said!r}")


def test_a_way_that_passes_resets_is_of_use(relay: RelayScene) -> None:
    try_way(relay.address, relay.secret, lambda line, seconds: expected(relay, line, seconds))


def test_a_way_by_a_proxy_that_makes_an_end_of_a_reset_is_not(relay: RelayScene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        thread = threading.Thread(target=pass_on, args=(proxy, relay.address))
        thread.start()
        with pytest.raises(OSError, match="a reset arrives there as an end"):
            try_way(
                proxy.getsockname(),
                relay.secret,
                lambda line, seconds: expected(relay, line, seconds),
            )
        thread.join(SECONDS)


def test_what_does_not_know_the_secret_is_no_way(relay: RelayScene) -> None:
    with pytest.raises(OSError, match="a reset arrives there as an end"):
        try_way(relay.address, bytes(32), lambda line, seconds: None)


def pass_on(proxy: socket.socket, address: tuple[str, int]) -> None:
    """One connection, as docker-proxy does: whatever ends one side, the other sees an end."""
    one, _ = proxy.accept()
    with one, socket.create_connection(address, SECONDS) as other:
        other.sendall(one.recv(64))
        with contextlib.suppress(ConnectionResetError):
            other.recv(1)
        one.shutdown(socket.SHUT_WR)
