"""Unary calls of gRPC: the gateway with a servicer, and grpcio's own server with the same one, both without TLS.

How the servers run is as in `throughput`. The client keeps one call open, or ten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.figures import OURS, rows_of
from benchmarks.grpc_server import register
from benchmarks.parts import Measure, Part
from benchmarks.peers import GRPCIO
from benchmarks.servers import HERE, NAME, all_running_inside, python_command, timed_load
from pytest_egress import Egress, grpc_server

IMAGE: Final = "pytest-egress-test/runtimes:latest"
CLIENT: Final = "/benchmark/grpc_client.py"
PORT, GRPCIO_PORT = 50051, 50052
ADDRESSES: Final = {OURS: (NAME, PORT), GRPCIO: ("127.0.0.1", GRPCIO_PORT)}
AT_ONCE: Final = {"gRPC, unary calls": 1, "gRPC, unary calls, 10 at once": 10}
RATE, CPU = "calls/s", "µs of CPU a call"
SECONDS: Final = 1.0

ROWS: Final = tuple(
    row for subject in AT_ONCE for unit in (RATE, CPU) for row in rows_of(subject, unit, GRPCIO)
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with Egress() as egress:
        egress.intercept_http(f"{NAME}:{PORT}", grpc_server((register, None)), optional=True)
        files = {CLIENT: HERE / "grpc_client.py"}
        target = egress.start(IMAGE, ["sleep", "infinity"], files=files)
        command = python_command("grpc_server.py", GRPCIO_PORT, max(AT_ONCE.values()))
        with all_running_inside(target, {GRPCIO: command} if GRPCIO in of else {}) as pids:

            def measure(subject: str, name: str) -> Mapping[str, float]:
                host, port = ADDRESSES[name]
                client = ["python3", CLIENT, host, str(port), str(AT_ONCE[subject]), str(SECONDS)]
                rate, cpu = timed_load(target, pids[name], client)
                return {RATE: rate, CPU: cpu}

            yield measure


PART: Final = Part(name="grpc", rows=ROWS, rounds=5, prepare=prepare)
