"""HTTPS requests a second of one client: the gateway, mitmproxy, and the bare minimum.

All three are processes of this machine, outside of any container, that serve one and the same
container: it reaches the gateway as every target does, by its name and the redirect, and the other
two on its own loopback, since they have been started inside its network namespace. So the path
differs by the redirect alone, which counts against the gateway. The client is one script for all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from benchmarks.servers import (
    HERE,
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

IMAGE: Final = "pytest-egress-test/clients:latest"
CLIENT: Final = "/benchmark/client.py"
MITMPROXY_PORT, BARE_PORT = 8001, 8002
ADDRESSES: Final = {
    "gateway": (NAME, 443),
    "mitmproxy": ("127.0.0.1", MITMPROXY_PORT),
    "bare minimum": ("127.0.0.1", BARE_PORT),
}
TITLES: Final = {"keep-alive": "On one connection", "new": "A new connection each"}
ROUNDS, SECONDS = 7, 1.0

Figures = dict[str, dict[str, list[Figure]]]


def main() -> None:
    if not can_start_inside():
        return
    with Egress() as egress, ExitStack() as servers:
        egress.intercept_https(NAME, lambda request: {"ok": True})
        target = egress.start(IMAGE, ["sleep", "infinity"], files={CLIENT: HERE / "client.py"})
        leaf = servers.enter_context(leaf_file())
        commands = {
            "mitmproxy": mitmproxy_command(leaf, MITMPROXY_PORT, http2=False),
            "bare minimum": python_command("bare_server.py", BARE_PORT, leaf),
        }
        pids = {"gateway": os.getpid()} | {
            server: servers.enter_context(running_inside(target, command))
            for server, command in commands.items()
        }
        print_header()
        for mode, figures in measure(target, pids).items():
            print_figures(TITLES[mode], "request", figures)


def measure(target: Container, pids: Mapping[str, int]) -> Figures:
    """Return the figures by mode and server, in interleaved rounds."""
    figures: Figures = {mode: {server: [] for server in ADDRESSES} for mode in TITLES}
    for _ in range(ROUNDS):
        for mode in TITLES:
            for server in ADDRESSES:
                figures[mode][server].append(measure_once(target, server, pids[server], mode))
    return figures


def measure_once(target: Container, server: str, pid: int, mode: str) -> Figure:
    host, port = ADDRESSES[server]
    before = cpu_seconds(pid)
    result = target.exec(["python3", CLIENT, host, str(port), mode, str(SECONDS)])
    if result.exit_code:
        raise RuntimeError(f"the client failed at the {server}: {result.stderr}")
    count, seconds = result.stdout.split()
    return Figure(
        rate=int(count) / float(seconds), cpu=(cpu_seconds(pid) - before) / int(count) * 1e6
    )


def print_header() -> None:
    print(
        "One client in a container, TLS 1.3, ECDSA leaf, one request after the other. All servers"
    )
    print("run outside of containers; the client reaches the gateway by name through the redirect,")
    print("and the others, started inside its network namespace, on its loopback.")
    print(f"Python {sys.version.split()[0]}; {mitmproxy_version()}.")
    print()
