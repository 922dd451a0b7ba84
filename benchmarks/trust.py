"""What the CA costs: the whole step between create and start, and bare calls of the engine's, of which it takes four.

Both are measured while the sidecar is started, as in every start, and alone, when that is done. The first container of
an image looks up what the image trusts; the next one knows.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from benchmarks.figures import ratio, table
from pytest_egress import Egress
from pytest_egress.engine.archive import build_tar
from pytest_egress.targets.container import Container
from pytest_egress.targets.roots import FOLDER_BYTES
from pytest_egress.targets.sidecar import Sidecar

IMAGES = {
    "with a bundle": "pytest-egress-test/clients:latest",
    "with a bundle and a JDK": "pytest-egress-test/java-home:latest",
    "without a bundle": "pytest-egress-test/bare:latest",
}
FIRST, NEXT, CALLS = "first container", "next container", "calls"
FILE, FOLDER = "/etc/debian_version", "/etc/ssl"
ROUNDS = 15

Figures = Mapping[str, list[float]]


def main() -> None:
    for content, image in IMAGES.items():
        with Egress() as egress:
            egress.run(image, ["true"])  # reads image and modules from disk
            print_result(content, measure(egress, image))


def print_result(content: str, figures: Figures) -> None:
    print(table(f"The CA, in an image {content}", "ms", figures))
    for when in ("", ", alone"):
        for step in (FIRST, NEXT):
            text = f"{step}{when} / HEAD"
            print(ratio(text, figures[f"{step}{when}"], figures[f"HEAD of a file{when}"]))
    print()


def measure(egress: Egress, image: str) -> Figures:
    """Return the milliseconds of interleaved rounds."""
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for when in ("", ", alone"):
            for subject in (FIRST, NEXT, CALLS):
                if subject == FIRST:
                    egress.session.roots.clear()
                whole = run_once(egress, image, subject, when, figures)
                if subject != CALLS and not when:
                    figures[f"egress.run, {subject}"].append(whole)
    return figures


def run_once(
    egress: Egress, image: str, subject: str, when: str, figures: dict[str, list[float]]
) -> float:
    """Run a container, add what its step, or calls in the place of it, take, and return what all of it takes."""
    fill, start, started = Container._fill, Sidecar.start, threading.Event()

    def start_sidecar(sidecar: Sidecar) -> Any:
        try:
            return start(sidecar)
        finally:
            started.set()

    def timed_fill(container: Container, created: Any, *rest: Any) -> None:
        if when:
            started.wait()
        actions: dict[str, Callable[[], object]] = {
            subject: lambda: fill(container, created, *rest)
        }
        if subject == CALLS:
            actions = {
                "HEAD of a file": lambda: egress.session.engine.stat(created, FILE),
                "GET of a file": lambda: b"".join(created.get_archive(FILE)[0]),
                f"GET of {FOLDER}": lambda: egress.session.engine.members(
                    created, FOLDER, FOLDER_BYTES
                ),
                "PUT of a file": lambda: created.put_archive("/", build_tar({"/tmp/file": b""})),
            }
        for name, action in actions.items():
            figures[f"{name}{when}"].append(milliseconds(action))

    with (
        mock.patch.object(Sidecar, "start", start_sidecar),
        mock.patch.object(Container, "_fill", timed_fill),
    ):
        return milliseconds(lambda: egress.run(image, ["true"]))


def milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1e3
