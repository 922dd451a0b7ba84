"""HTTP/2 requests a second on one connection with ten streams: the gateway, mitmproxy, and the bare minimum.

h2load, in a container, keeps ten requests open at once. How the servers run is as in `throughput`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from benchmarks.servers import (
    NAME,
    Figure,
    can_start_inside,
    cpu_seconds,
    leaf_file,
    mitmproxy_command,
    mitmproxy_version,
    print_figures,
    python_command,
    running_inside,
)
from pytest_egress import Container, Egress

IMAGE: Final = "pytest-egress-test/http2:latest"
MITMPROXY_PORT, BARE_PORT = 8003, 8004
URLS: Final = {
    "gateway": f"https://{NAME}/",
    "mitmproxy": f"https://127.0.0.1:{MITMPROXY_PORT}/",
    "bare minimum": f"https://127.0.0.1:{BARE_PORT}/",
}
STREAMS: Final = 10
ROUNDS, SECONDS = 7, 2
SUCCEEDED: Final = re.compile(r"(\d+) succeeded, (\d+) failed")
REFUSED: Final = 50  # times that a server is tried, a tenth of a second apart, until it listens


def main() -> None:
    if not can_start_inside():
        return
    with Egress() as egress, ExitStack() as servers:
        egress.intercept_https(NAME, lambda request: {"ok": True})
        target = egress.start(IMAGE, ["sleep", "infinity"])
        leaf = servers.enter_context(leaf_file())
        commands = {
            "mitmproxy": mitmproxy_command(leaf, MITMPROXY_PORT, http2=True),
            "bare minimum": python_command("bare_http2_server.py", BARE_PORT, leaf),
        }
        pids = {"gateway": os.getpid()} | {
            server: servers.enter_context(running_inside(target, command))
            for server, command in commands.items()
        }
        for url in URLS.values():
            await_server(target, url)
        print(f"h2load in a container, one connection, {STREAMS} streams at once, TLS 1.3.")
        print(f"Python {sys.version.split()[0]}; {mitmproxy_version()}.")
        print()
        print_figures(f"HTTP/2, 1 x {STREAMS} streams", "request", measure(target, pids))


def await_server(target: Container, url: str) -> None:
    """Wait until a server answers."""
    ask = f"for i in $(seq {REFUSED}); do h2load -n 1 {url} | grep -q ' 1 2xx' && exit; sleep 0.1; done; exit 1"
    if target.exec(["sh", "-c", ask]).exit_code:
        raise RuntimeError(f"nothing answers at {url}")


def measure(target: Container, pids: Mapping[str, int]) -> dict[str, list[Figure]]:
    """Return the figures by server, in interleaved rounds."""
    figures: dict[str, list[Figure]] = {server: [] for server in URLS}
    for _ in range(ROUNDS):
        for server in URLS:
            figures[server].append(measure_once(target, server, pids[server]))
    return figures


def measure_once(target: Container, server: str, pid: int) -> Figure:
    before = cpu_seconds(pid)
    command = ["h2load", "-c", "1", "-m", str(STREAMS), "-D", str(SECONDS), URLS[server]]
    result = target.exec(command)
    found = SUCCEEDED.search(result.stdout)
    if found is None or int(found[2]) or not int(found[1]):
        raise RuntimeError(f"h2load failed at the {server}: {result.stdout}{result.stderr}")
    count = int(found[1])
    return Figure(rate=count / SECONDS, cpu=(cpu_seconds(pid) - before) / count * 1e6)
