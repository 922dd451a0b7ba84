"""Containers a minute with 1, 2 and 4 processes at once, as workers of pytest-xdist are, against docker-py's.

Each process has its own `Egress`, or its own client of docker-py, on one engine, and runs one container after the
other. All begin together, so the slowest has the time of all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Final

import docker

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.start import DOCKER_PY, IMAGE, run_plain
from pytest_egress import Egress

UNIT: Final = "containers a minute"
COUNTS: Final = {
    "containers, one worker": 1,
    "containers, 2 workers": 2,
    "containers, 4 workers": 4,
}
RUNS: Final = 5

ROWS: Final = tuple(row for subject in COUNTS for row in rows_of(subject, UNIT, DOCKER_PY))


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    def measure(subject: str, name: str) -> Mapping[str, float]:
        count = COUNTS[subject]
        return {UNIT: 60 * count * RUNS / seconds_together(count, name)}

    yield measure


def seconds_together(count: int, name: str) -> float:
    """How long that many processes take together."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=work, args=(name, barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    seconds = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return float(max(seconds))


def work(name: str, barrier: Barrier, queue: multiprocessing.SimpleQueue[float]) -> None:
    """Run containers one after the other, once every process is ready; the first of each process does not count."""
    with Egress() as egress, contextlib.closing(docker.from_env()) as client:

        def run() -> None:
            if name == OURS:
                egress.run(IMAGE, ["true"])
            else:
                run_plain(client)

        run()
        barrier.wait()
        began = time.perf_counter()
        for _ in range(RUNS):
            run()
        queue.put(time.perf_counter() - began)


PART: Final = Part(name="scaling", rows=ROWS, rounds=3, prepare=prepare)
