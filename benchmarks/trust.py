"""What the CA costs: the whole step between create and start, and bare calls of the engine's, of which it takes four.

Both are measured while the sidecar is started, as in every start, and alone, when that is done. The first container of
an image looks up what the image trusts; the next one knows. It is no part of the table.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from benchmarks.figures import Row
from benchmarks.parts import Measure, Part
from benchmarks.start import milliseconds
from pytest_egress import Egress
from pytest_egress.engine.archive import build_tar
from pytest_egress.targets.contents import Contents
from pytest_egress.targets.sidecars.sidecar import Sidecar
from pytest_egress.targets.trust.roots import FOLDER_BYTES

IMAGES: Final = {
    "a bundle": "pytest-egress-test/clients:latest",
    "a bundle and a JDK": "pytest-egress-test/java-home:latest",
    "no bundle": "pytest-egress-test/bare:latest",
}
UNIT: Final = "ms"
FIRST, NEXT = "first container", "next container"
HEAD, GET, GET_FOLDER, PUT = "HEAD of a file", "GET of a file", "GET of a folder", "PUT of a file"
FILE, FOLDER = "/etc/debian_version", "/etc/ssl"
STARTED_SECONDS: Final = 5.0  # after which a sidecar was ready before, and is not started here

SUBJECTS: Final = {
    f"the CA, in an image with {content}{', alone' if alone else ''}": (image, alone)
    for content, image in IMAGES.items()
    for alone in (False, True)
}
ROWS: Final = tuple(
    Row(subject=subject, unit=UNIT, ours=ours, against=against)
    for subject in SUBJECTS
    for ours, against in ((FIRST, HEAD), (NEXT, HEAD), (NEXT, GET), (NEXT, GET_FOLDER), (NEXT, PUT))
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with Egress() as egress:
        for image in IMAGES.values():
            egress.run(image, ["true"])  # reads image and modules from disk

        def measure(subject: str, name: str) -> Mapping[str, float]:
            if name == FIRST:
                egress._inner.session.roots.clear()
            image, alone = SUBJECTS[subject]
            return {UNIT: run_once(egress, image, name, alone)}

        yield measure


def run_once(egress: Egress, image: str, name: str, alone: bool) -> float:
    """Run a container, and return how long its step takes, or the call that is made in the place of it."""
    fill, start, started = Contents.fill, Sidecar.start, threading.Event()
    found: list[float] = []

    def start_sidecar(sidecar: Sidecar) -> Any:
        try:
            return start(sidecar)
        finally:
            started.set()

    def timed_fill(contents: Contents, created: Any) -> None:
        if alone:
            started.wait(STARTED_SECONDS)
        calls = calls_of(egress, created)
        found.append(milliseconds(calls.get(name, lambda: fill(contents, created))))

    with (
        mock.patch.object(Sidecar, "start", start_sidecar),
        mock.patch.object(Contents, "fill", timed_fill),
    ):
        egress.run(image, ["true"])
    (took,) = found
    return took


def calls_of(egress: Egress, created: Any) -> Mapping[str, Callable[[], object]]:
    """Bare calls of the engine about a container that is not started yet."""
    engine = egress._inner.session.engine
    return {
        HEAD: lambda: engine.stat(created, FILE),
        GET: lambda: b"".join(created.get_archive(FILE)[0]),
        GET_FOLDER: lambda: engine.members(created, FOLDER, FOLDER_BYTES),
        PUT: lambda: created.put_archive("/", build_tar({"/tmp/file": b""})),
    }


PART: Final = Part(name="trust", rows=ROWS, rounds=5, prepare=prepare, in_table=False)
