"""Turns, callbacks, timers and the loop of async servicers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar, copy_context

import pytest

import pytest_egress.routes.grpc_threads as grpc_threads
from pytest_egress.base.callers import where_stands
from pytest_egress.routes.grpc_threads import Callbacks, Loop, OverError, SharedLoop, Turns
from tests.support.stage import SECONDS, eventually

WORD = ContextVar("WORD", default="")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its loop."""
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(threading.enumerate()) - before)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop("of the test")
    yield loop
    loop.stop()


# Turns.


def test_one_thread_sends_at_a_time() -> None:
    turns, order = Turns(), []
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
    turns, ends = Turns(), []
    assert turns.end(lambda: ends.append("first"))
    assert not turns.end(lambda: ends.append("second"))
    assert turns.over
    with pytest.raises(OverError), turns.turn():
        pytest.fail("sent after the end")
    assert ends == ["first"]


def test_an_end_while_another_thread_sends_is_that_threads_to_send() -> None:
    turns, ends = Turns(), []
    with turns.turn():
        assert turns.end(lambda: ends.append(threading.current_thread()))
        assert ends == []
        assert turns.over
    assert ends == [threading.current_thread()]


def test_an_end_wakes_who_waits_for_a_turn() -> None:
    turns, refused = Turns(), threading.Event()

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


# The loop.


def test_no_thread_is_started_before_it_is_needed() -> None:
    loop = Loop("of the test")
    before = threading.active_count()
    loop.call(pytest.fail)
    loop.stop()
    assert threading.active_count() == before


def test_a_coroutine_runs_in_its_context(loop: Loop) -> None:
    WORD.set("the test's")
    context = copy_context()
    WORD.set("")

    async def say() -> str:
        await asyncio.sleep(0)
        return WORD.get()

    assert loop.begin(say, context).result(SECONDS) == "the test's"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_coroutine_raises_is_raised_and_the_loop_runs_on(
    loop: Loop, error: type[BaseException]
) -> None:
    async def fail() -> None:
        raise error

    async def answer() -> int:
        return 1

    with pytest.raises(error):
        loop.begin(fail, copy_context()).result(SECONDS)
    assert loop.begin(answer, copy_context()).result(SECONDS) == 1


def test_a_coroutine_is_interrupted(loop: Loop) -> None:
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = loop.begin(wait, copy_context())
    assert begun.wait(SECONDS)
    running.interrupt()
    with pytest.raises(asyncio.CancelledError):
        running.result(SECONDS)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_coroutine_is_interrupted_before_it_has_begun(loop: Loop, at_once: bool) -> None:
    begun, release = threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        assert release.wait(SECONDS)

    async def answer() -> str:
        return "answered"

    blocking = loop.begin(block, copy_context())
    assert begun.wait(SECONDS)
    waiting = loop.begin(answer, copy_context())
    if at_once:
        waiting._cut = True  # as if it had been interrupted before it was begun
    waiting.interrupt()
    release.set()
    blocking.result(SECONDS)
    with pytest.raises(asyncio.CancelledError):
        waiting.result(SECONDS)


def test_who_waits_for_a_coroutine_stands_where_that_does(loop: Loop) -> None:
    begun = threading.Event()

    async def stands_here() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = loop.begin(stands_here, copy_context())
    thread = threading.Thread(target=running.exception, args=(SECONDS,))
    thread.start()
    assert begun.wait(SECONDS)
    assert eventually(lambda: "in stands_here: await" in where_stands(thread.ident))
    running.interrupt()
    thread.join(SECONDS)


def test_a_timer_calls_on_a_thread_that_may_block(loop: Loop) -> None:
    called, release = [threading.Event() for _ in range(2)], threading.Event()

    def block(number: int) -> None:
        called[number].set()
        release.wait(SECONDS)

    loop.later(0.01, lambda: block(0))
    loop.later(0.02, lambda: block(1))
    assert all(each.wait(SECONDS) for each in called)
    release.set()


def test_a_cancelled_timer_calls_nothing(loop: Loop) -> None:
    later = threading.Event()
    loop.later(0.05, pytest.fail).cancel()
    loop.later(0.1, later.set)
    assert later.wait(SECONDS)


def test_the_end_of_a_loop_cancels_what_runs_and_ends_its_threads() -> None:
    loop, seen, begun = Loop("of the test"), [], threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    running = loop.begin(wait, copy_context())
    assert begun.wait(SECONDS)
    loop.stop()
    assert seen == ["cancelled"]
    with pytest.raises(asyncio.CancelledError):
        running.result(SECONDS)
    loop.submit(pytest.fail)  # too late, and no error
    with pytest.raises(RuntimeError, match="closed"):
        loop.begin(wait, copy_context())


def test_a_loop_that_does_not_end_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_threads, "END_SECONDS", 0.05)
    loop, begun, release = Loop("of the test"), threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        release.wait(SECONDS)

    loop.begin(block, copy_context())
    assert begun.wait(SECONDS)
    with pytest.raises(RuntimeError, match=r"of the test has not ended 0\.05 seconds after"):
        loop.stop()
    release.set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_no_loop_and_is_raised_once(error: type[BaseException]) -> None:
    async def fail() -> None:
        raise error

    async def await_it() -> None:
        await asyncio.create_task(fail())

    async def leave_it() -> None:
        left.append(asyncio.create_task(fail()))

    async def leave_it_behind() -> None:
        left.append(asyncio.create_task(fail_later()))

    async def fail_later() -> None:
        await go_on.wait()
        raise error

    async def answer() -> str:
        return "answered"

    go_on = asyncio.Event()
    left: list[asyncio.Task[None]] = []
    for begin in (await_it, leave_it):
        loop = Loop("of the test")
        with pytest.raises(error):
            loop.begin(begin, copy_context()).result(SECONDS)
        assert loop.begin(answer, copy_context()).result(SECONDS) == "answered"
        loop.stop()
    loop = Loop("of the test")
    loop.begin(leave_it_behind, copy_context()).result(SECONDS)
    loop.call(go_on.set)
    assert eventually(lambda: left[1].done())
    assert loop.begin(answer, copy_context()).result(SECONDS) == "answered"
    with pytest.raises(error):
        loop.stop()
    assert [type(task.exception()) for task in left] == [error, error]


# Shared by routes.


def test_routes_share_one_loop_which_ends_with_the_last() -> None:
    shared = SharedLoop("of the test")
    shared.acquire()
    shared.acquire()
    with shared.borrowed() as one:
        pass
    shared.release()
    with shared.borrowed() as other:
        assert other is one
    shared.release()
    with shared.borrowed() as later:
        assert later is not one
    with pytest.raises(RuntimeError, match="more often than acquired"):
        shared.release()


def test_a_call_without_a_route_has_a_loop_of_its_own() -> None:
    shared = SharedLoop("of the test")
    with shared.borrowed() as one, shared.borrowed() as other:
        assert one is not other
        done = threading.Event()
        one.later(0, done.set)
        assert done.wait(SECONDS)
