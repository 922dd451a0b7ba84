"""Unary calls of gRPC: the gateway with a servicer, and grpcio's own server with the same one.

How the servers run is as in `throughput`. The client keeps one call open, then ten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

import grpc

from benchmarks.grpc_server import register
from benchmarks.servers import (
    HERE,
    NAME,
    Figure,
    can_start_inside,
    cpu_seconds,
    print_figures,
    python_command,
    running_inside,
)
from pytest_egress import Container, Egress, grpc_server

IMAGE: Final = "pytest-egress-test/runtimes:latest"
CLIENT: Final = "/benchmark/grpc_client.py"
PORT, GRPCIO_PORT = 50051, 50052
ADDRESSES: Final = {"gateway": (NAME, PORT), "grpcio": ("127.0.0.1", GRPCIO_PORT)}
AT_ONCE: Final = (1, 10)
ROUNDS, SECONDS = 7, 2.0


def main() -> None:
    if not can_start_inside():
        return
    with Egress() as egress:
        egress.intercept_http(f"{NAME}:{PORT}", grpc_server((register, None)))
        files = {CLIENT: HERE / "grpc_client.py"}
        target = egress.start(IMAGE, ["sleep", "infinity"], files=files)
        command = python_command("grpc_server.py", GRPCIO_PORT, max(AT_ONCE))
        with running_inside(target, command) as pid:
            pids = {"gateway": os.getpid(), "grpcio": pid}
            print(f"Python {sys.version.split()[0]}; grpcio {grpc.__version__}, without TLS.")
            print()
            for at_once, figures in measure(target, pids).items():
                print_figures(f"gRPC, unary, {at_once} at once", "call", figures)


def measure(target: Container, pids: Mapping[str, int]) -> Mapping[int, dict[str, list[Figure]]]:
    """Return the figures by the calls at once and server, in interleaved rounds."""
    figures: dict[int, dict[str, list[Figure]]] = {
        at_once: {server: [] for server in ADDRESSES} for at_once in AT_ONCE
    }
    for _ in range(ROUNDS):
        for at_once in AT_ONCE:
            for server, pid in pids.items():
                figures[at_once][server].append(measure_once(target, server, pid, at_once))
    return figures


def measure_once(target: Container, server: str, pid: int, at_once: int) -> Figure:
    host, port = ADDRESSES[server]
    before = cpu_seconds(pid)
    result = target.exec(["python3", CLIENT, host, str(port), str(at_once), str(SECONDS)])
    if result.exit_code:
        raise RuntimeError(f"the client failed at the {server}: {result.stderr}")
    count, seconds = result.stdout.split()
    return Figure(
        rate=int(count) / float(seconds), cpu=(cpu_seconds(pid) - before) / int(count) * 1e6
    )
