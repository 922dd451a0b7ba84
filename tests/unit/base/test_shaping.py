"""Bytes come later, no faster, or in part, by a clock that a test sets; a relay passes on what comes before an end."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.base.clock import monotonic
from pytest_egress.base.relay import unsent
from pytest_egress.base.shaping import PLAIN, SLICE_SECONDS, Pacer, Shape, play, poll, relay
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.link.stream_sockets import loopback_pair
from tests.support.stage import SECONDS, end_of, eventually, reset


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def take(pacer: Pacer) -> bytes:
    """All that is due now."""
    taken = b""
    while (data := pacer.due()) is not None:
        taken += data
        pacer.took(len(data))
    return taken


def test_a_delay_may_be_longer_than_poll_can_wait() -> None:
    one, other = loopback_pair()
    with one, other:
        other.sendall(b"now")
        for seconds in (1e9, math.inf):
            assert poll([(one, select.POLLIN)], seconds) == {one.fileno(): select.POLLIN}


# The pacer.


def test_without_a_shape_bytes_are_due_at_once() -> None:
    pacer = Pacer(PLAIN, Clock())
    assert pacer.due() is None
    assert pacer.seconds is None
    pacer.put(b"one")
    pacer.put(b"two")
    assert pacer.seconds is None  # whoever waits, waits for room
    assert take(pacer) == b"onetwo"
    pacer.end()
    assert pacer.is_over


def test_each_byte_comes_so_much_later_and_so_does_the_end() -> None:
    clock = Clock()
    pacer = Pacer(Shape(delay=2), clock)
    pacer.put(b"one")
    clock.now += 1
    pacer.put(b"two")
    pacer.end()
    assert (pacer.due(), pacer.seconds) == (None, 1)
    clock.now += 1
    assert take(pacer) == b"one"
    assert pacer.seconds == 1
    clock.now += 1
    assert take(pacer) == b"two"
    assert pacer.is_over


def test_the_end_waits_though_nothing_else_does() -> None:
    clock = Clock()
    pacer = Pacer(Shape(delay=2), clock)
    pacer.end()
    assert (pacer.is_over, pacer.seconds) == (False, 2)
    clock.now += 2
    assert pacer.is_over


def test_a_rate_lets_a_slice_go_at_a_time() -> None:
    clock = Clock()
    pacer = Pacer(Shape(rate=1000), clock)
    pacer.put(b"x" * 120)
    sizes = []
    while not pacer.is_empty:
        sizes.append(len(take(pacer)))
        clock.now += pacer.seconds or 0
    assert sizes == [50, 50, 20]
    assert clock.now == pytest.approx(100.12 - 0.02)  # nothing waits behind the last slice


def test_even_the_slowest_rate_lets_a_byte_go() -> None:
    clock = Clock()
    pacer = Pacer(Shape(rate=0.5), clock)
    pacer.put(b"ab")
    assert (take(pacer), pacer.seconds) == (b"a", 2)


def test_part_of_what_is_due_may_go() -> None:
    pacer = Pacer(PLAIN, Clock())
    pacer.put(b"abc")
    pacer.took(1)
    assert bytes(pacer.due() or b"") == b"bc"


@pytest.mark.parametrize(
    ("limit", "pieces", "is_cut", "gone"),
    [
        (0, [b"a"], True, b""),
        (0, [], False, b""),
        (2, [b"a"], False, b"a"),
        (2, [b"a", b"b"], True, b"ab"),
        (2, [b"abc", b"d"], True, b"ab"),
    ],
)
def test_the_limit_is_reached_with_its_last_byte_and_never_before_a_byte_came(
    limit: int, pieces: list[bytes], is_cut: bool, gone: bytes
) -> None:
    pacer = Pacer(Shape(limit=limit), Clock())
    for piece in pieces:
        pacer.put(piece)
    assert (take(pacer), pacer.is_cut) == (gone, is_cut)


@pytest.mark.parametrize(("shape", "most"), [(PLAIN, 64 << 10), (Shape(delay=1), 4 << 20)])
def test_reading_stops_where_much_is_on_its_way(shape: Shape, most: int) -> None:
    pacer = Pacer(shape, Clock())

    def put(size: int) -> None:
        pacer.put(b"x" * size)

    states = []
    for change in (partial(put, most - 1), partial(put, 1), pacer.drop):
        change()
        states.append((pacer.is_full, pacer.is_empty, pacer.is_over))
    assert states == [(False, False, False), (True, False, False), (False, True, False)]


def test_what_is_dropped_keeps_no_end_waiting() -> None:
    pacer = Pacer(Shape(delay=5), Clock())
    pacer.put(b"x")
    pacer.end()
    pacer.drop()
    assert pacer.is_over


@given(
    st.lists(st.binary(max_size=200)),
    st.floats(0, 10),
    st.one_of(st.just(math.inf), st.floats(1, 1e6)),
    st.one_of(st.none(), st.integers(0, 500)),
)
def test_whatever_the_shape_the_bytes_are_those_up_to_the_limit(
    pieces: list[bytes], delay: float, rate: float, limit: int | None
) -> None:
    clock = Clock()
    pacer = Pacer(Shape(delay=delay, rate=rate, limit=limit), clock)
    started, gone = clock.now, b""
    for piece in pieces:
        if piece:
            pacer.put(piece)
    pacer.end()
    while not pacer.is_over:
        clock.now += (pacer.seconds or 0) + 1e-9
        gone += take(pacer)
    assert gone == b"".join(pieces)[:limit]
    assert clock.now >= started + delay
    slack = max(rate * SLICE_SECONDS, 1)
    assert rate == math.inf or len(gone) <= rate * (clock.now - started - delay) + slack + 1e-3


# The loops.


@contextlib.contextmanager
def running(run: Callable[[], Any], *socks: socket.socket) -> Iterator[list[Any]]:
    """Run a loop on a thread of its own; what it returned or raised."""
    results: list[Any] = []

    def body() -> None:
        try:
            results.append(run())
        except OSError as error:
            results.append(error)
        finally:
            for sock in socks:
                sock.close()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield results
    finally:
        thread.join(SECONDS)
        assert not thread.is_alive()


class Line:
    """A client and a server, with a shaped relay between them."""

    def __init__(self, shape: Shape, clock: Callable[[], float] = monotonic) -> None:
        self.client, one = loopback_pair()
        other, self.server = loopback_pair()
        self.client.settimeout(SECONDS)
        self.server.settimeout(SECONDS)
        self.counts = (0, 0)

        def watch(out: Any, back: Any) -> None:
            self.counts = (out.count, back.count)

        self.run = running(lambda: relay(one, other, shape, clock, watch), one, other)

    def __enter__(self) -> Line:
        self.results = self.run.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for sock in (self.client, self.server):
            sock.close()
        self.run.__exit__(*error)


def read(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def test_only_one_direction_has_the_shape() -> None:
    ledger = Ledger()
    ledger.enter_prompt()
    with Line(Shape(delay=0.05), ledger.clock) as line:
        line.client.sendall(b"hello")
        assert line.server.recv(100) == b"hello"
        line.server.sendall(b"answer")
        line.client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line.client.recv(100)
        ledger.leave_prompt()
        line.client.settimeout(SECONDS)
        assert line.client.recv(100) == b"answer"
        assert eventually(lambda: line.counts == (5, 6))


def test_a_half_close_is_passed_on_and_the_answer_still_comes() -> None:
    with Line(Shape(delay=0.05)) as line:
        line.client.sendall(b"question")
        line.client.shutdown(socket.SHUT_WR)
        assert read(line.server) == b"question"
        line.server.sendall(b"x" * 300_000)
        line.server.shutdown(socket.SHUT_WR)
        assert len(read(line.client)) == 300_000
        assert eventually(lambda: line.results == [False])


def test_a_limit_ends_the_relay_after_its_last_byte() -> None:
    with Line(Shape(limit=4)) as line:
        line.server.sendall(b"answer")
        assert line.client.recv(100) == b"answ"
        assert eventually(lambda: line.results == [True])


def test_a_client_that_breaks_off_ends_what_is_on_its_way_to_it() -> None:
    with Line(Shape(delay=1000)) as line:
        line.server.sendall(b"never comes")
        reset(line.client)
        assert end_of(line.server) == "reset"
        assert isinstance(line.results[0], OSError)


def test_a_server_that_breaks_off_resets_the_client_after_its_last_words() -> None:
    with Line(Shape(delay=0.05)) as line:
        line.server.sendall(b"last words")
        assert eventually(lambda: not unsent(line.server))
        reset(line.server)
        assert line.client.recv(100) == b"last words"
        assert end_of(line.client) == "reset"


def test_a_relay_ends_when_it_is_told() -> None:
    client, one = loopback_pair()
    other, server = loopback_pair()
    run = running(lambda: relay(one, other, PLAIN, monotonic, lambda out, back: True), one, other)
    with client, server, run as results:
        assert end_of(client) == "closed"
    assert results == [False]


@contextlib.contextmanager
def playing(data: bytes, shape: Shape, seconds: float | None) -> Iterator[tuple[Any, Any, Any]]:
    """A client of `play`, what was heard of it, and the result."""
    client, one = loopback_pair()
    one.settimeout(0)
    client.settimeout(SECONDS)
    pacer, heard = Pacer(shape, monotonic), bytearray()
    pacer.put(data)
    with (
        running(lambda: play(one, pacer, heard.extend, seconds, monotonic), one) as results,
        client,
    ):
        yield client, heard, results


def test_what_is_held_is_sent_and_what_comes_is_heard() -> None:
    with playing(b"greeting", Shape(delay=0.05), None) as (client, heard, results):
        client.sendall(b"hello")
        assert client.recv(100) == b"greeting"
        client.close()
        assert eventually(lambda: results == [True])
        assert heard == b"hello"


def test_a_client_that_only_listens_any_more_still_gets_what_is_late() -> None:
    with playing(b"greeting", Shape(delay=0.05), None) as (client, _, results):
        client.shutdown(socket.SHUT_WR)
        assert read(client) == b"greeting"
        assert results == [True]


def test_a_client_that_has_gone_keeps_nothing_waiting() -> None:
    with playing(b"greeting", Shape(delay=1000), None) as (client, _, results):
        reset(client)
        assert eventually(lambda: results == [True])


@pytest.mark.parametrize(
    ("shape", "got"),
    [(PLAIN, b"greeting"), (Shape(limit=5), b"greet"), (Shape(rate=100), b"greeting")],
)
def test_it_ends_after_its_time_or_at_its_limit(shape: Shape, got: bytes) -> None:
    with playing(b"greeting", shape, 0.0) as (client, _, results):
        assert read(client) == got
        assert results == [False]
