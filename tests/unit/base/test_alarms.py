"""Functions that are called after a while, unless they are called off."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pytest_egress.base.alarms import Alarms
from tests.support.stage import SECONDS, eventually


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Its thread ends when nothing waits."""
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(threading.enumerate()) - before)


def test_alarms_ring_in_their_order_each_on_a_thread_of_its_own() -> None:
    alarms, rung = Alarms("of the test", 0.01), threading.Semaphore(0)
    order, blocked = [], threading.Event()

    def block() -> None:
        order.append("first")
        rung.release()
        assert blocked.wait(SECONDS)

    def ring() -> None:
        order.append("second")
        rung.release()

    alarms.set(block)
    alarms.set(ring)
    for _ in range(2):
        assert rung.acquire(timeout=SECONDS)
    blocked.set()
    assert order == ["first", "second"]


def test_what_is_called_off_does_not_ring() -> None:
    alarms, rung = Alarms("of the test", 0.05), threading.Event()
    off = alarms.set(pytest.fail)
    off.call_off()
    alarms.set(rung.set)
    assert rung.wait(SECONDS)


def test_alarms_are_set_again_when_the_thread_has_ended() -> None:
    alarms = Alarms("of the test", 0.0)
    before = set(threading.enumerate())
    for _ in range(3):
        rung = threading.Event()
        alarms.set(rung.set)
        assert rung.wait(SECONDS)
        assert eventually(lambda: not set(threading.enumerate()) - before)


def test_without_a_thread_nothing_rings_and_nothing_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    alarms, rung = Alarms("of the test", 0.0), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        alarms.set(pytest.fail)
    alarms.set(rung.set)
    assert rung.wait(SECONDS)


def test_an_alarm_waits_by_nothing_that_a_test_may_have_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[float] = []
    monkeypatch.setattr("time.sleep", calls.append)
    alarms, rung = Alarms("of the test", 0.05), threading.Event()
    alarms.set(rung.set)
    assert rung.wait(SECONDS)
    assert calls == []
