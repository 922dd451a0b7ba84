"""Threads that are kept for a while after their job."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

from pytest_egress.base.workers import Workers

SECONDS = 10.0


def eventually(condition: object) -> bool:
    deadline = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def ends(workers: Workers) -> bool:
    """Whether every thread ends, however slow the machine is."""
    return workers.join(time.monotonic() + SECONDS)


class Jobs:
    """Jobs that wait to be let go, and what ran them."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ran: list[int] = []
        self.began = threading.Semaphore(0)

    def job(self) -> None:
        self.ran.append(threading.get_ident())
        self.began.release()
        assert self.go.wait(SECONDS)


def test_jobs_that_wait_for_each_other_run_at_once() -> None:
    workers, barrier, met = Workers("job", 100), threading.Barrier(20), []

    def job() -> None:
        met.append(barrier.wait(SECONDS))

    for _ in range(20):
        workers.run(job)
    assert eventually(lambda: len(met) == 20)


def test_a_thread_is_kept_for_its_next_job() -> None:
    workers, jobs = Workers("job", 10, seconds=SECONDS), Jobs()
    jobs.go.set()
    for count in range(1, 6):
        workers.run(jobs.job)
        assert eventually(lambda count=count: len(jobs.ran) == count and workers._idle)
    assert len(set(jobs.ran)) == 1
    workers.stop()
    assert ends(workers)


def test_only_so_many_idle_threads_are_kept() -> None:
    workers, jobs = Workers("job", 10, seconds=None, most_idle=2), Jobs()
    for _ in range(5):
        workers.run(jobs.job)
    jobs.go.set()
    assert eventually(lambda: len(jobs.ran) == 5 and len(workers) == len(workers._idle) == 2)
    workers.run(jobs.job)
    assert eventually(lambda: len(jobs.ran) == 6 and len(workers._idle) == 2)
    assert len(set(jobs.ran)) <= 5
    workers.stop()
    assert ends(workers)


def test_an_idle_thread_keeps_nothing_of_its_last_job_and_has_its_own_name() -> None:
    class Thing:
        def job(self) -> None:
            threading.current_thread().name = "something"

    workers, thing = Workers("idle", 10, seconds=None), Thing()
    reference = weakref.ref(thing)
    workers.run(thing.job)
    del thing
    assert eventually(lambda: workers._idle)
    assert reference() is None
    assert [thread.name for thread in workers._threads] == ["idle"]
    workers.stop()
    assert ends(workers)


def test_a_job_may_wait_for_all_threads_but_its_own_to_end() -> None:
    workers, ended = Workers("job", 10, seconds=None), []

    def stop() -> None:
        workers.stop()
        ended.append(ends(workers))

    workers.run(stop)
    assert eventually(lambda: ended == [True])


def test_an_idle_thread_ends_after_a_while() -> None:
    workers, jobs = Workers("job", 10, seconds=0.01), Jobs()
    jobs.go.set()
    workers.run(jobs.job)
    assert eventually(lambda: jobs.ran and not len(workers))


def test_beyond_the_limit_jobs_wait_for_others_to_end() -> None:
    workers, jobs = Workers("job", 2), Jobs()
    for _ in range(5):
        workers.run(jobs.job)
    for _ in range(2):
        assert jobs.began.acquire(timeout=SECONDS)
    assert (len(jobs.ran), len(workers)) == (2, 2)
    jobs.go.set()
    assert eventually(lambda: len(jobs.ran) == 5)
    assert len(set(jobs.ran)) == 2


def test_stopped_workers_run_what_waits_and_keep_no_thread() -> None:
    workers, jobs = Workers("job", 1, seconds=SECONDS), Jobs()
    workers.run(jobs.job)
    workers.run(jobs.job)
    workers.stop()
    assert not workers.join(0.0)
    jobs.go.set()
    assert ends(workers)
    assert len(jobs.ran) == 2


def test_without_any_thread_a_job_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, jobs = Workers("job", 10), Jobs()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="no thread"):
        workers.run(jobs.job)
    assert not len(workers)


def test_where_no_more_threads_start_those_that_run_take_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers, jobs = Workers("job", 10), Jobs()
    workers.run(jobs.job)
    assert jobs.began.acquire(timeout=SECONDS)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers.run(jobs.job)
    jobs.go.set()
    assert eventually(lambda: len(jobs.ran) == 2)
