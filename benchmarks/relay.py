"""Raw connections that are forwarded to a server outside, against the same server reached directly.

Directly means: on loopback, in the client's own network namespace. A forwarded byte goes through one connection more,
and through this process.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.peers import DIRECT
from benchmarks.servers import HERE, python_command, running_inside, timed_load
from pytest_egress import Container, Egress, forward

IMAGE: Final = "pytest-egress-test/clients:latest"
CLIENT: Final = "/benchmark/relay_client.py"
NAME: Final = "raw.test"
PORT: Final = 8100
BULK, ECHO = "raw forward, a long download", "raw forward, 32 bytes there and back"
MODES: Final = {BULK: "bulk", ECHO: "echo"}
UNITS: Final = {BULK: ("MB/s", 1e-6), ECHO: ("echoes/s", 1.0)}
SECONDS: Final = 0.8

ROWS: Final = tuple(row for subject in MODES for row in rows_of(subject, UNITS[subject][0], DIRECT))


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    outside_port = free_port()
    outside = subprocess.Popen(python_command("relay_server.py", "127.0.0.1", outside_port))
    try:
        with Egress() as egress:
            egress.intercept_tcp(
                f"{NAME}:{PORT}", forward(f"tcp://127.0.0.1:{outside_port}"), optional=True
            )
            files = {CLIENT: HERE / "relay_client.py"}
            target = egress.start(IMAGE, ["sleep", "infinity"], files=files)
            with directly(target, of):
                yield lambda subject, name: measure_once(target, subject, name)
    finally:
        outside.terminate()
        outside.wait()


def free_port() -> int:
    """A port of its own for each process: two trees that are compared have a server each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def directly(target: Container, of: Collection[str]) -> Iterator[None]:
    """The same server in the client's network namespace, if it is to be measured."""
    if DIRECT not in of:
        yield
        return
    with running_inside(target, python_command("relay_server.py", "127.0.0.1", PORT)):
        yield


def measure_once(target: Container, subject: str, name: str) -> Mapping[str, float]:
    host = NAME if name == OURS else "127.0.0.1"
    client = ["python3", CLIENT, host, str(PORT), MODES[subject], str(SECONDS)]
    unit, factor = UNITS[subject]
    rate, _ = timed_load(target, os.getpid(), client)
    return {unit: rate * factor}


PART: Final = Part(name="relay", rows=ROWS, rounds=5, prepare=prepare)
