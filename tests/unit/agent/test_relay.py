"""The relay's program, on a thread, with sidecars and a test process that are sockets of this machine."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from pytest_egress.agent.relay import ENDED, IS_HELD, IS_RESET, MOST_UNPROVED, RESET
from tests.support.stage import reset
from tests.support.stream_scene import RelayScene
from tests.support.target_shell import SECONDS

OTHER = b"o" * 16


@pytest.fixture
def relay() -> Iterator[RelayScene]:
    made = RelayScene()
    yield made
    made.close()


def dial(relay: RelayScene, words: bytes) -> socket.socket:
    sock = socket.create_connection(relay.address, SECONDS)
    sock.sendall(words)
    return sock


def passed(sidecar: socket.socket) -> socket.socket:
    """The next connection that a sidecar has got."""
    sidecar.settimeout(SECONDS)
    _, descriptors, _, _ = socket.recv_fds(sidecar, 16, 1)
    sock = socket.socket(fileno=descriptors[0])
    sock.settimeout(SECONDS)
    return sock


def test_a_connection_goes_to_the_sidecar_whose_key_it_names_with_every_byte_behind_that(
    relay: RelayScene,
) -> None:
    with (
        relay.enter() as sidecar,
        relay.enter(OTHER) as other,
        dial(relay, relay.words(OTHER) + b"behind it") as ours,
        passed(other) as theirs,
    ):
        assert theirs.recv(64) == b"behind it"
        theirs.sendall(b"back")
        assert ours.recv(64) == b"back"
        sidecar.setblocking(False)
        with pytest.raises(BlockingIOError):
            sidecar.recv(16)


@pytest.mark.parametrize(
    "words",
    [
        b"x" * 32 + RelayScene.key + bytes(4),
        RelayScene.secret + OTHER + bytes(4),
        b"GET / HTTP/1.1\r\nHost: relay\r\n" * 2,
    ],
    ids=["another secret", "no sidecar of this key", "HTTP"],
)
def test_a_connection_without_the_secret_or_a_sidecar_is_closed(
    relay: RelayScene, words: bytes
) -> None:
    with relay.enter() as sidecar, dial(relay, words) as ours:
        with contextlib.suppress(ConnectionResetError):  # bytes behind the key were not read
            assert ours.recv(64) == b""
        with dial(relay, relay.words() + b"the next"), passed(sidecar) as theirs:
            assert theirs.recv(64) == b"the next"


def test_a_connection_that_is_silent_is_closed(relay: RelayScene) -> None:
    with dial(relay, relay.secret) as ours:  # and no key
        assert ours.recv(64) == b""


def test_silent_connections_take_no_room_from_one_that_proves_itself(relay: RelayScene) -> None:
    silent = [dial(relay, b"x") for _ in range(MOST_UNPROVED + 1)]
    try:
        with (
            relay.enter() as sidecar,
            dial(relay, relay.words() + b"!") as _,
            passed(sidecar) as theirs,
        ):
            assert theirs.recv(64) == b"!"
            assert silent[0].recv(64) == b""
    finally:
        for sock in silent:
            sock.close()


def test_a_sidecar_that_has_ended_gets_nothing_and_its_successor_does(relay: RelayScene) -> None:
    relay.enter().close()
    with (
        relay.enter() as sidecar,
        dial(relay, relay.words() + b"!"),
        passed(sidecar) as theirs,
    ):
        assert theirs.recv(64) == b"!"


def test_a_way_is_tried_by_a_reset_in_both_directions(relay: RelayScene) -> None:
    with (
        dial(relay, relay.secret + IS_RESET + bytes(4)) as ours,
        pytest.raises(ConnectionResetError),
    ):
        ours.recv(1)
    held = dial(relay, relay.secret + IS_HELD + bytes(4))
    assert held.recv(1) == b"!"
    reset(held)
    assert relay.ours.recv(64) == RESET
    with dial(relay, relay.secret + IS_HELD + bytes(4)) as ended:
        assert ended.recv(1) == b"!"
    assert relay.ours.recv(64) == ENDED
