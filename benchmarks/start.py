"""A container, one after the other, with everything intercepted: against docker-py's plain run on the bridge.

To the first instruction: the container prints the clock that the caller has read before the call; it is one kernel's.
The whole: create, start, wait and remove. Each round is a few of one's, of which the first does not count, since it
comes after another's, and the median of the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Final

import docker

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.peers import TESTCONTAINERS
from pytest_egress import Egress

IMAGE: Final = "pytest-egress-test/clients:latest"
PRINT_CLOCK: Final = ["date", "+%s%N"]  # nanoseconds since 1970
DOCKER_PY: Final = "docker-py"
FIRST_INSTRUCTION: Final = "next container, from the call to its first instruction"
WHOLE: Final = "a container that ends at once, from the call until it is removed"
UNIT: Final = "ms"
BLOCK: Final = {FIRST_INSTRUCTION: 6, WHOLE: 10}
"""How many in a row are measured at once."""

ROWS: Final = (
    *rows_of(FIRST_INSTRUCTION, UNIT, DOCKER_PY),
    *rows_of(WHOLE, UNIT, DOCKER_PY, TESTCONTAINERS),
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(docker.from_env()))
        egress = stack.enter_context(Egress())
        ours = our_actions(egress)
        actions: Mapping[tuple[str, str], Callable[[], float]] = {
            (FIRST_INSTRUCTION, OURS): ours[FIRST_INSTRUCTION],
            (FIRST_INSTRUCTION, DOCKER_PY): lambda: until_clock(
                lambda: client.containers.run(IMAGE, PRINT_CLOCK, remove=True).decode()
            ),
            (WHOLE, OURS): ours[WHOLE],
            (WHOLE, DOCKER_PY): lambda: milliseconds(lambda: run_plain(client)),
            (WHOLE, TESTCONTAINERS): lambda: milliseconds(run_by_testcontainers),
        }

        def measure(subject: str, name: str) -> Mapping[str, float]:
            action = actions[subject, name]
            action()
            return {UNIT: median(action() for _ in range(BLOCK[subject]))}

        yield measure


def our_actions(egress: Egress) -> Mapping[str, Callable[[], float]]:
    """What measures each subject of ours once, with a route declared."""
    egress.intercept_https("api.test", {"ok": True}, optional=True)
    return {
        FIRST_INSTRUCTION: lambda: until_clock(lambda: egress.run(IMAGE, PRINT_CLOCK).stdout),
        WHOLE: lambda: milliseconds(lambda: egress.run(IMAGE, ["true"])),
    }


def run_plain(client: docker.DockerClient) -> None:
    """What a test does without this package: create, start, wait, remove."""
    container = client.containers.create(IMAGE, ["true"])
    container.start()
    container.wait()
    container.remove()


def run_by_testcontainers() -> None:
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True  # its helper is an image of a registry
    with DockerContainer(IMAGE).with_command("true") as container:
        container.get_wrapped_container().wait()


def until_clock(run: Callable[[], str]) -> float:
    """Milliseconds from the call to the clock that the container has printed."""
    called = time.time_ns()
    return (int(run()) - called) / 1e6


def milliseconds(action: Callable[[], object]) -> float:
    """How long an action takes."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3


PART: Final = Part(name="start", rows=ROWS, rounds=5, prepare=prepare)
