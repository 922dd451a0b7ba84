"""Bytes come later, no faster, or in part, by a clock that a test sets."""

from __future__ import annotations

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.base.pacing import PLAIN, SLICE_SECONDS, Pacer, Shape


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


@pytest.mark.parametrize(("shape", "most"), [(PLAIN, 1), (Shape(delay=1), 4 << 20)])
def test_reading_stops_where_much_is_on_its_way(shape: Shape, most: int) -> None:
    pacer = Pacer(shape, Clock())

    def put(size: int) -> None:
        pacer.put(b"x" * size)

    states = []
    for change in (partial(put, most - 1), partial(put, 1), pacer.drop):
        change()
        states.append((pacer.is_full, pacer.is_empty, pacer.is_over))
    assert states == [(False, most == 1, False), (True, False, False), (False, True, False)]


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
