"""What the CA costs: the whole step between create and start, and a bare call of the engine's beside it.

Both are measured while the sidecar is started, as in every start, and alone, when that is done. The first container of
an image looks up what the image trusts; the next one knows.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal
from unittest import mock

from benchmarks.figures import ratio, table
from pytest_egress import Egress
from pytest_egress.containers import Container
from pytest_egress.sidecar import Sidecar

IMAGES = {
    "with a bundle": "pytest-egress-test/clients:latest",
    "with a bundle and a JDK": "pytest-egress-test/java-home:latest",
    "without": "pytest-egress-test/bare:latest",
}
FILE = "/etc/debian_version"
ROUNDS = 15

Subject = Literal["first container", "next container", "calls"]
Figures = Mapping[str, list[float]]


def main() -> None:
    for content, image in IMAGES.items():
        with Egress() as egress:
            egress.run(image, ["true"])  # reads image and modules from disk
            print_result(content, measure(egress, image))


def print_result(content: str, figures: Figures) -> None:
    print(table(f"The CA, in an image {content}", "ms", figures))
    for step in [name for name in figures if "container" in name]:
        head = figures[f"one HEAD{step.partition('container')[2]}"]
        print(ratio(f"{step} / HEAD", figures[step], head))
    print()


def measure(egress: Egress, image: str) -> Figures:
    """Return the milliseconds of interleaved rounds."""
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for when in ("", ", alone"):
            subjects: tuple[Subject, ...] = ("first container", "next container", "calls")
            for subject in subjects:
                if subject == "first container":
                    egress.session.roots.clear()
                run_once(egress, image, subject, when, figures)
    return figures


def run_once(
    egress: Egress, image: str, subject: Subject, when: str, figures: dict[str, list[float]]
) -> None:
    """Run a container, and add what its trust step, or calls in its place, take."""
    fill, start, started = Container._fill, Sidecar.start, threading.Event()

    def start_sidecar(sidecar: Sidecar) -> Any:
        try:
            return start(sidecar)
        finally:
            started.set()

    def timed_fill(container: Container, created: Any, *rest: Any) -> None:
        if when:
            started.wait()
        stat = egress.session.engine.stat
        actions: dict[str, Callable[[], object]] = {
            subject: lambda: fill(container, created, *rest)
        }
        if subject == "calls":
            actions = {
                "one HEAD": lambda: stat(created, FILE),
                "one GET": lambda: b"".join(created.get_archive(FILE)[0]),
            }
        for name, action in actions.items():
            figures[f"{name}{when}"].append(milliseconds(action))

    with (
        mock.patch.object(Sidecar, "start", start_sidecar),
        mock.patch.object(Container, "_fill", timed_fill),
    ):
        whole = milliseconds(lambda: egress.run(image, ["true"]))
    if subject != "calls" and not when:
        figures[f"egress.run, {subject}"].append(whole)


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3
