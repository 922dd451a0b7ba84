"""HTTPS requests a second of one client: the gateway, peers, and the bare minimum.

All are processes of this machine, outside of any container, that serve one and the same container: it reaches the
gateway as every target does, by its name and the redirect, and the others on its own loopback, since they have been
started inside its network namespace. So the path differs by the redirect alone, which counts against the gateway. The
client is one script for all, with TLS 1.3; it waits for each answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.peers import BARE, MITMPROXY, MOCKSERVER, MOCKTTP, WIREMOCK
from benchmarks.servers import (
    HERE,
    NAME,
    Command,
    all_running_inside,
    leaf_folder,
    mitmproxy_command,
    mockttp_command,
    one_test,
    python_command,
    timed_load,
    wiremock_command,
)
from pytest_egress import Container, Egress

IMAGE: Final = "pytest-egress-test/clients:latest"
CLIENT: Final = "/benchmark/client.py"
PORTS: Final = {MITMPROXY: 8001, BARE: 8002, WIREMOCK: 8005, MOCKTTP: 8006}
RATE, CPU = "requests/s", "µs of CPU a request"
KEPT, KEPT_32 = "HTTPS, keep-alive", "HTTPS, keep-alive, 32 connections"
NEW, NEW_4 = "HTTPS, new connections", "HTTPS, new connections, 4 clients at once"
MODES: Final = {
    KEPT: ("keep-alive", 1),
    KEPT_32: ("keep-alive", 32),
    NEW: ("new", 1),
    NEW_4: ("new", 4),
}
SECONDS: Final = 0.7
WARM_UP_SECONDS: Final = 2.0  # in which a server in Java or JavaScript compiles what is used often

ROWS: Final = (
    *rows_of(KEPT, RATE, BARE, MITMPROXY, MOCKTTP, WIREMOCK, MOCKSERVER),
    *rows_of(KEPT, CPU, BARE, MITMPROXY),
    *rows_of(KEPT_32, RATE, BARE, MITMPROXY),
    *rows_of(NEW, RATE, BARE),
    *rows_of(NEW, CPU, BARE, MITMPROXY),
    *rows_of(NEW_4, RATE, BARE, MITMPROXY, MOCKTTP, WIREMOCK),
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with Egress() as egress, leaf_folder() as folder:
        target = egress.start(IMAGE, ["sleep", "infinity"], files={CLIENT: HERE / "client.py"})
        with all_running_inside(target, commands(folder, of)) as pids:
            warm: set[str] = set()

            def measured(mode: str, at_once: int, seconds: float, name: str) -> tuple[float, float]:
                with one_test(egress) as test:
                    test.intercept_https(NAME, lambda request: {"ok": True}, optional=True)
                    return load(target, name, pids[name], mode, at_once, seconds)

            def measure(subject: str, name: str) -> Mapping[str, float]:
                if name not in warm:
                    measured("keep-alive", 1, WARM_UP_SECONDS, name)
                    warm.add(name)
                rate, cpu = measured(*MODES[subject], SECONDS, name)
                return {RATE: rate, CPU: cpu}

            yield measure


def commands(folder: Path, of: Collection[str]) -> dict[str, list[str]]:
    """What starts each of these servers, by name."""
    makers: dict[str, Command] = {
        MITMPROXY: lambda folder, port: mitmproxy_command(folder, port, http2=False),
        BARE: lambda folder, port: python_command("bare_server.py", port, folder / "leaf.pem"),
        WIREMOCK: wiremock_command,
        MOCKTTP: mockttp_command,
    }
    return {name: make(folder, PORTS[name]) for name, make in makers.items() if name in of}


def load(
    target: Container, name: str, pid: int, mode: str, at_once: int, seconds: float
) -> tuple[float, float]:
    host, port = (NAME, 443) if name == OURS else ("127.0.0.1", PORTS[name])
    command = ["python3", CLIENT, host, str(port), mode, str(seconds), str(at_once)]
    return timed_load(target, pid, command)


PART: Final = Part(name="throughput", rows=ROWS, rounds=5, prepare=prepare)
