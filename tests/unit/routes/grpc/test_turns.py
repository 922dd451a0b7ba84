"""Turns and callbacks of a call."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pytest_egress.routes.grpc.turns import Callbacks, OverError, SendTurns
from tests.support.stage import SECONDS, eventually


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its loop."""
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(threading.enumerate()) - before)


# Turns.


def test_one_thread_sends_at_a_time() -> None:
    turns, order = SendTurns(), []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with turns.turn():
            entered.set()
            assert leave.wait(SECONDS)
            order.append("first")

    def second() -> None:
        with turns.turn():
            order.append("second")

    threads = [threading.Thread(target=function) for function in (first, second)]
    threads[0].start()
    assert entered.wait(SECONDS)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join(SECONDS)
    assert order == ["first", "second"]


def test_the_first_end_counts_and_nothing_is_sent_after_it() -> None:
    turns, ends = SendTurns(), []
    assert turns.end(lambda: ends.append("first"))
    assert not turns.end(lambda: ends.append("second"))
    assert turns.over
    with pytest.raises(OverError), turns.turn():
        pytest.fail("sent after the end")
    assert ends == ["first"]


def test_an_end_while_another_thread_sends_is_that_threads_to_send() -> None:
    turns, ends = SendTurns(), []
    with turns.turn():
        assert turns.end(lambda: ends.append(threading.current_thread()))
        assert ends == []
        assert turns.over
    assert ends == [threading.current_thread()]


def test_an_end_wakes_who_waits_for_a_turn() -> None:
    turns, refused = SendTurns(), threading.Event()

    def wait() -> None:
        with pytest.raises(OverError), turns.turn():
            pytest.fail("it is over")
        refused.set()

    thread = threading.Thread(target=wait)
    with turns.turn():
        thread.start()
        turns.end(lambda: None)
        assert refused.wait(SECONDS)
    thread.join(SECONDS)


# Callbacks.


def test_callbacks_are_called_once_even_if_one_raises() -> None:
    callbacks, called = Callbacks(), []

    def fail() -> None:
        raise ValueError("of the callback")

    assert not callbacks
    assert callbacks.add(fail)
    assert callbacks.add(lambda: called.append(1))
    assert callbacks
    callbacks.check()
    callbacks.call()
    callbacks.call()
    assert called == [1]
    assert not callbacks.add(lambda: called.append(2))
    with pytest.raises(ValueError, match="of the callback"):
        callbacks.check()


def test_callbacks_that_another_thread_calls_are_waited_for() -> None:
    callbacks, begun, release = Callbacks(), threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        assert release.wait(SECONDS)
        raise ValueError("of the callback")

    callbacks.add(fail)
    caller = threading.Thread(target=callbacks.call)
    caller.start()
    assert begun.wait(SECONDS)
    threading.Timer(0.05, release.set).start()
    callbacks.join()
    with pytest.raises(ValueError, match="of the callback"):
        callbacks.check()
    caller.join()


def test_what_an_end_notes_is_so_before_another_thread_finds_the_call_over() -> None:
    turns, noting, go = SendTurns(), threading.Event(), threading.Event()
    found: list[bool] = []

    def note() -> None:
        noting.set()
        assert go.wait(SECONDS)

    first = threading.Thread(target=turns.end, args=(lambda: None, note))
    second = threading.Thread(target=lambda: found.append(turns.end(lambda: None)))
    first.start()
    assert noting.wait(SECONDS)
    second.start()
    second.join(0.05)
    assert found == []
    go.set()
    first.join(SECONDS)
    second.join(SECONDS)
    assert found == [False]
