"""Datagrams of UDP, there and back: the gateway with a handler, and a bare socket of Python.

How the servers run is as in `throughput`. Each datagram of the gateway is recorded as a call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.servers import (
    HERE,
    NAME,
    all_running_inside,
    one_test,
    python_command,
    timed_load,
)
from pytest_egress import Egress

IMAGE: Final = "pytest-egress-test/clients:latest"
CLIENT: Final = "/benchmark/datagram_client.py"
BARE: Final = "bare socket"
PORT, BARE_PORT = 8125, 8126
ADDRESSES: Final = {OURS: (NAME, PORT), BARE: ("127.0.0.1", BARE_PORT)}
RATE, CPU = "datagrams/s", "µs of CPU a datagram"
SECONDS: Final = 1.0

ROWS: Final = tuple(
    row for unit in (RATE, CPU) for row in rows_of("UDP, there and back", unit, BARE)
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with Egress() as egress:
        files = {CLIENT: HERE / "datagram_client.py"}
        target = egress.start(IMAGE, ["sleep", "infinity"], files=files)
        command = python_command("datagram_server.py", BARE_PORT)
        with all_running_inside(target, {BARE: command} if BARE in of else {}) as pids:

            def measure(_: str, name: str) -> Mapping[str, float]:
                host, port = ADDRESSES[name]
                with one_test(egress) as scope:
                    scope.intercept_udp(
                        f"{NAME}:{PORT}", lambda datagram: datagram.content, optional=True
                    )
                    client = ["python3", CLIENT, host, str(port), str(SECONDS)]
                    rate, cpu = timed_load(target, pids[name], client)
                return {RATE: rate, CPU: cpu}

            yield measure


PART: Final = Part(name="datagrams", rows=ROWS, rounds=5, prepare=prepare, in_table=False)
