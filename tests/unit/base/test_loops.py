"""Event loops on threads of their own: what runs on them, timers, and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context

import pytest

from pytest_egress.base import loops
from pytest_egress.base.callers import where_stands
from pytest_egress.base.loops import LoopThread, SharedLoop
from tests.support.stage import SECONDS, eventually

WORD = ContextVar("WORD", default="")


class LeftError(Exception):
    pass


def new_loop_thread() -> LoopThread:
    return LoopThread("of the test", LeftError)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its loop."""
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(threading.enumerate()) - before)


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = new_loop_thread()
    yield loop
    loop.stop()


# What runs on a loop.


def test_no_thread_is_started_before_it_is_needed() -> None:
    loop = new_loop_thread()
    before = threading.active_count()
    loop.call(pytest.fail)
    loop.stop()
    assert threading.active_count() == before


def test_a_coroutine_runs_in_its_context(loop: LoopThread) -> None:
    WORD.set("the test's")
    context = copy_context()
    WORD.set("")

    async def say() -> str:
        await asyncio.sleep(0)
        return WORD.get()

    assert loop.run(say, context).result(SECONDS) == "the test's"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_coroutine_raises_is_raised_and_the_loop_runs_on(
    loop: LoopThread, error: type[BaseException]
) -> None:
    async def fail() -> None:
        raise error

    async def answer() -> int:
        return 1

    with pytest.raises(error):
        loop.run(fail, copy_context()).result(SECONDS)
    assert loop.run(answer, copy_context()).result(SECONDS) == 1


def test_a_coroutine_is_interrupted(loop: LoopThread) -> None:
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = loop.run(wait, copy_context())
    assert begun.wait(SECONDS)
    running.interrupt()
    with pytest.raises(asyncio.CancelledError):
        running.result(SECONDS)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_coroutine_is_interrupted_before_it_has_begun(loop: LoopThread, at_once: bool) -> None:
    begun, release = threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        assert release.wait(SECONDS)

    async def answer() -> str:
        return "answered"

    blocking = loop.run(block, copy_context())
    assert begun.wait(SECONDS)
    waiting = loop.run(answer, copy_context())
    if at_once:
        waiting._is_interrupted = True  # as if it had been interrupted before it was begun
    waiting.interrupt()
    release.set()
    blocking.result(SECONDS)
    with pytest.raises(asyncio.CancelledError):
        waiting.result(SECONDS)


def test_who_waits_for_a_coroutine_stands_where_that_does(loop: LoopThread) -> None:
    begun = threading.Event()

    async def stands_here() -> None:
        begun.set()
        await asyncio.Event().wait()

    running = loop.run(stands_here, copy_context())
    thread = threading.Thread(target=running.exception, args=(SECONDS,))
    thread.start()
    assert begun.wait(SECONDS)
    assert eventually(lambda: "in stands_here: await" in where_stands(thread.ident))
    running.interrupt()
    thread.join(SECONDS)


def test_a_timer_calls_on_a_thread_that_may_block(loop: LoopThread) -> None:
    called, release = [threading.Event() for _ in range(2)], threading.Event()

    def block(number: int) -> None:
        called[number].set()
        release.wait(SECONDS)

    loop.later(0.01, lambda: block(0))
    loop.later(0.02, lambda: block(1))
    assert all(each.wait(SECONDS) for each in called)
    release.set()


def test_a_cancelled_timer_calls_nothing(loop: LoopThread) -> None:
    later = threading.Event()
    loop.later(0.05, pytest.fail)()
    loop.later(0.1, later.set)
    assert later.wait(SECONDS)


def test_the_end_of_a_loop_cancels_what_runs_and_ends_its_threads() -> None:
    loop, seen, begun = new_loop_thread(), [], threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    running = loop.run(wait, copy_context())
    assert begun.wait(SECONDS)
    loop.stop()
    assert seen == ["cancelled"]
    with pytest.raises(asyncio.CancelledError):
        running.result(SECONDS)
    loop.submit(pytest.fail)  # too late, and no error
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(wait, copy_context())


def test_a_loop_that_does_not_end_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "END_SECONDS", 0.05)
    loop, begun, release = new_loop_thread(), threading.Event(), threading.Event()

    async def block() -> None:
        begun.set()
        release.wait(SECONDS)

    loop.run(block, copy_context())
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
        loop = new_loop_thread()
        with pytest.raises(error):
            loop.run(begin, copy_context()).result(SECONDS)
        assert loop.run(answer, copy_context()).result(SECONDS) == "answered"
        loop.stop()
    loop = new_loop_thread()
    loop.run(leave_it_behind, copy_context()).result(SECONDS)
    loop.call(go_on.set)
    assert eventually(lambda: left[1].done())
    assert loop.run(answer, copy_context()).result(SECONDS) == "answered"
    with pytest.raises(error):
        loop.stop()
    assert [type(task.exception()) for task in left] == [error, error]


def cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda: asyncio.get_running_loop().stop(), RuntimeError),
        (cancel_all, asyncio.CancelledError),
    ],
    ids=["stop", "cancel"],
)
def test_a_loop_that_its_own_code_ends_is_told_of_and_ends_its_tasks(
    end: Callable[[], None], error: type[BaseException]
) -> None:
    async def leave() -> None:
        left.append(asyncio.create_task(asyncio.sleep(SECONDS)))

    left: list[asyncio.Task[None]] = []
    loop = new_loop_thread()
    loop.run(leave, copy_context()).result(SECONDS)
    loop.call(end)
    with pytest.raises(error):
        loop.stop()
    assert left[0].cancelled()


def test_a_thread_that_does_not_start_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer() -> str:
        return "answered"

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop = new_loop_thread()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.run(answer, copy_context())
    assert loop.run(answer, copy_context()).result(SECONDS) == "answered"
    loop.stop()


# Shared by users.


def test_users_share_one_loop_which_ends_with_the_last() -> None:
    shared = SharedLoop("of the test", new_loop_thread)
    shared.acquire()
    shared.acquire()
    one, _ = shared.borrow()
    shared.release()
    assert shared.borrow()[0] is one
    shared.release()
    assert shared.borrow()[0] is not one
    with pytest.raises(RuntimeError, match="of the test has ended: nothing uses it any more"):
        one.later(0, pytest.fail)
    with pytest.raises(RuntimeError, match="more often than acquired"):
        shared.release()


def test_a_call_without_a_user_has_a_loop_of_its_own() -> None:
    shared = SharedLoop("of the test", new_loop_thread)
    (one, let_go), (other, _) = shared.borrow(), shared.borrow()
    assert one is not other
    done = threading.Event()
    one.later(0, done.set)
    assert done.wait(SECONDS)
    let_go()
