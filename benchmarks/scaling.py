"""One run with 1, 2 and 4 processes, as workers of pytest-xdist are: containers started and requests answered a second.

Each process has its own `Egress` on one engine, starts one container after the other, the same without a sidecar, as
docker-py alone does, and then lets curl ask for seconds in one that runs. All begin together; the rounds of the three
counts are interleaved. How many cores were busy meanwhile, with whatever ran on the machine, tells whether more workers
would have found a free one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Barrier
from typing import Final

import docker

from benchmarks.figures import median, ratio, table
from pytest_egress import Egress

IMAGE: Final = "pytest-egress-test/clients:latest"
COUNTS: Final = (1, 2, 4)
ROUNDS, STARTS, REQUESTS = 5, 4, 2000
# curl asks for the same URL again and again on one connection.
ASK: Final = ["curl", "-sS", "--fail", "-o", "/dev/null", f"https://api.test/[1-{REQUESTS}]"]

Phase = tuple[float, float]  # how many seconds it took, and how many cores were busy


def main() -> None:
    phases: list[dict[int, list[Phase]]] = [{count: [] for count in COUNTS} for _ in range(3)]
    for _ in range(ROUNDS):
        for count in COUNTS:
            for phase, measured in zip(phases, measure(count), strict=True):
                phase[count].append(measured)
    print(f"{os.cpu_count()} cores, which curl and the engine share")
    report("Containers started", "a minute", 60 * STARTS, phases[0])
    report("The same without a sidecar, by docker-py", "a minute", 60 * STARTS, phases[1])
    report("Requests answered", "a second", REQUESTS, phases[2])


def report(title: str, unit: str, amount: int, phases: Mapping[int, list[Phase]]) -> None:
    """Print what each count of workers did, when each worker did *amount* in a phase."""
    rates = {count: [count * amount / seconds for seconds, _ in phases[count]] for count in COUNTS}
    print(table(title, unit, {f"{count} workers": rates[count] for count in COUNTS}))
    for count in COUNTS[1:]:
        print(ratio(f"{count} workers / 1", rates[count], rates[1]))
    for count in COUNTS:
        busy = median([cores for _, cores in phases[count]])
        print(f"  {f'cores busy, {count} workers':<28}{busy:>8.2f}")


def measure(count: int) -> list[Phase]:
    """Return the three phases of that many processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.SimpleQueue()
    processes = [context.Process(target=work, args=(barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    measured = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    # All begin together, so the slowest has the time of all.
    return [max(each) for each in zip(*measured, strict=True)]


def work(barrier: Barrier, queue: multiprocessing.SimpleQueue[list[Phase]]) -> None:
    with Egress() as egress, contextlib.closing(docker.from_env()) as client:
        egress.intercept_https("api.test", {"ok": True})
        shared = egress.start(IMAGE, ["sleep", "infinity"])

        def start() -> None:
            for _ in range(STARTS):
                egress.run(IMAGE, ["true"], check=True)

        def start_plain() -> None:
            for _ in range(STARTS):
                client.containers.run(IMAGE, ["true"], network_mode="none", remove=True)

        def ask() -> None:
            assert shared.exec(ASK).exit_code == 0

        phases = []
        for do in (start, start_plain, ask):
            barrier.wait()
            phases.append(timed(do))
        queue.put(phases)


def timed(do: Callable[[], None]) -> Phase:
    began, busy = time.monotonic(), busy_seconds()
    do()
    seconds = time.monotonic() - began
    return seconds, (busy_seconds() - busy) / seconds


def busy_seconds() -> float:
    """How long the machine's cores have been busy so far, all together (proc_stat(5))."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
            int, file.readline().split()[1:]
        )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
