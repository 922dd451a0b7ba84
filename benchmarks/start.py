"""From the call to the first instruction of a target: with everything intercepted, and by a plain run.

The container prints the clock that the caller has read before: it is one kernel's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import docker

from benchmarks.figures import ratio, table
from pytest_egress import Egress

IMAGE = "pytest-egress-test/clients:latest"
PRINT_CLOCK = ["date", "+%s%N"]  # nanoseconds since 1970
ROUNDS = 15


def main() -> None:
    client = docker.from_env()
    intercepted: list[float] = []
    plain: list[float] = []
    with Egress() as egress:
        egress.intercept_https("api.test", {"ok": True}, optional=True)

        def run_intercepted() -> str:
            return egress.run(IMAGE, PRINT_CLOCK, check=True).stdout

        def run_plain() -> str:
            return client.containers.run(IMAGE, PRINT_CLOCK, remove=True).decode()

        for _ in range(ROUNDS + 1):
            intercepted.append(milliseconds_to_first_instruction(run_intercepted))
            plain.append(milliseconds_to_first_instruction(run_plain))
    client.close()
    # The first round reads image and modules from disk.
    print_result(intercepted[1:], plain[1:])


def milliseconds_to_first_instruction(run: Callable[[], str]) -> float:
    called = time.time_ns()
    return (int(run()) - called) / 1e6


def print_result(intercepted: list[float], plain: list[float]) -> None:
    rows = {"egress.run": intercepted, "containers.run of docker-py": plain}
    print(table("Call to first instruction", "ms", rows))
    print(ratio("egress.run / plain", intercepted, plain))
