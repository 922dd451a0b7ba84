"""One run with 1, 2 and 4 processes, as workers of pytest-xdist are: containers started and requests answered a second.

Each process has its own `Egress` on one engine, starts one container after the other, and then lets curl ask for
seconds in one that runs. All begin together; the rounds of the three counts are interleaved.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Barrier
from typing import Final

from benchmarks.figures import ratio, table
from pytest_egress import Egress

IMAGE: Final = "pytest-egress-test/clients:latest"
COUNTS: Final = (1, 2, 4)
ROUNDS, STARTS, REQUESTS = 5, 4, 2000
# curl asks for the same URL again and again on one connection.
ASK: Final = ["curl", "-sS", "--fail", "-o", "/dev/null", f"https://api.test/[1-{REQUESTS}]"]

Figures = Mapping[int, list[float]]


def main() -> None:
    starts: Figures = {count: [] for count in COUNTS}
    requests: Figures = {count: [] for count in COUNTS}
    for _ in range(ROUNDS):
        for count in COUNTS:
            start_rate, request_rate = measure(count)
            starts[count].append(start_rate)
            requests[count].append(request_rate)
    print(f"{os.cpu_count()} cores, which curl and the engine share")
    for title, unit, figures in (
        ("Containers started", "a minute", starts),
        ("Requests answered", "a second", requests),
    ):
        print(table(title, unit, {f"{count} workers": figures[count] for count in COUNTS}))
        for count in COUNTS[1:]:
            print(ratio(f"{count} workers / 1", figures[count], figures[1]))


def measure(count: int) -> tuple[float, float]:
    """Return starts a minute and requests a second of that many processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=work, args=(barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    seconds = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    # All begin together, so the slowest has the time of all.
    slowest = [max(each) for each in zip(*seconds, strict=True)]
    return 60 * count * STARTS / slowest[0], count * REQUESTS / slowest[1]


def work(barrier: Barrier, queue: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
    with Egress() as egress:
        egress.intercept_https("api.test", {"ok": True})
        shared = egress.start(IMAGE, ["sleep", "infinity"])
        barrier.wait()
        began = time.monotonic()
        for _ in range(STARTS):
            egress.run(IMAGE, ["true"], check=True)
        started = time.monotonic() - began
        barrier.wait()
        began = time.monotonic()
        assert shared.exec(ASK).exit_code == 0
        queue.put((started, time.monotonic() - began))
