"""The stream link against the descriptor link: the same client, the same gateway, and the way between them another.

The descriptor link hands over the sockets themselves; the stream link carries every byte through the engine, which may
be on another machine.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.figures import Row
from benchmarks.parts import Measure, Part
from benchmarks.servers import HERE, NAME, timed_load
from pytest_egress import Egress
from pytest_egress.session import Session

IMAGE: Final = "pytest-egress-test/clients:latest"
CLIENT: Final = "/benchmark/client.py"
STREAM, DESCRIPTOR = "stream link", "descriptor link"
LINKS: Final = {STREAM: "stream", DESCRIPTOR: "descriptor"}
REQUESTS, BULK = "a link, HTTPS with keep-alive", "a link, bodies of 16 MB"
RATE, SPEED = "requests/s", "MB/s"
BODY: Final = bytes(16_000_000)
SECONDS: Final = 0.8

ROWS: Final = (
    Row(subject=REQUESTS, unit=RATE, ours=STREAM, against=DESCRIPTOR),
    Row(subject=BULK, unit=SPEED, ours=STREAM, against=DESCRIPTOR),
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with one_target(STREAM) as over_stream, one_target(DESCRIPTOR) as over_descriptor:
        measures = {STREAM: over_stream, DESCRIPTOR: over_descriptor}
        yield lambda subject, name: measures[name](subject, name)


@contextmanager
def one_target(link: str) -> Iterator[Measure]:
    """A target whose sidecar is reached by this link, and what measures there."""
    with Egress(session=Session(link=LINKS[link])) as egress:
        egress.intercept_https(NAME, {"ok": True}, optional=True)
        egress.intercept_https(NAME, BODY, path="/bulk", optional=True)
        target = egress.start(IMAGE, ["sleep", "infinity"], files={CLIENT: HERE / "client.py"})

        def measure(subject: str, _: str) -> Mapping[str, float]:
            path = "/bulk" if subject == BULK else "/"
            client = ["python3", CLIENT, NAME, "443", "keep-alive", str(SECONDS), "1", path]
            rate, _cpu = timed_load(target, os.getpid(), client)
            return {RATE: rate, SPEED: rate * len(BODY) / 1e6}

        yield measure


PART: Final = Part(name="links", rows=ROWS, rounds=5, prepare=prepare)
