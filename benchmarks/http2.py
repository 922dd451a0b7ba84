"""HTTP/2 requests a second on one connection with ten streams: the gateway, peers, and the bare minimum.

h2load, in a container, keeps ten requests open at once. How the servers run is as in `throughput`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.figures import OURS, rows_of
from benchmarks.parts import Measure, Part
from benchmarks.peers import BARE, HYPERCORN, MITMPROXY
from benchmarks.servers import (
    NAME,
    Command,
    all_running_inside,
    cpu_seconds,
    hypercorn_command,
    leaf_folder,
    mitmproxy_command,
    one_test,
    python_command,
)
from pytest_egress import Container, Egress

IMAGE: Final = "pytest-egress-test/http2:latest"
PORTS: Final = {MITMPROXY: 8003, BARE: 8004, HYPERCORN: 8007}
STREAMS: Final = 10
SUBJECT: Final = f"HTTP/2, one connection with {STREAMS} streams"
RATE, CPU = "requests/s", "µs of CPU a request"
SECONDS: Final = 1
SUCCEEDED: Final = re.compile(r"(\d+) succeeded, (\d+) failed")
REFUSED: Final = 100  # times that a server is tried, a tenth of a second apart, until it listens

ROWS: Final = (
    *rows_of(SUBJECT, RATE, BARE, HYPERCORN, MITMPROXY),
    *rows_of(SUBJECT, CPU, BARE, HYPERCORN),
)


@contextmanager
def prepare(of: Collection[str]) -> Iterator[Measure]:
    with Egress() as egress, leaf_folder() as folder:
        target = egress.start(IMAGE, ["sleep", "infinity"])
        with all_running_inside(target, commands(folder, of)) as pids:
            listening: set[str] = set()

            def measure(_: str, name: str) -> Mapping[str, float]:
                with one_test(egress) as test:
                    test.intercept_https(NAME, lambda request: {"ok": True}, optional=True)
                    if name not in listening:
                        await_server(target, url(name))
                        listening.add(name)
                    return measure_once(target, name, pids[name])

            yield measure


def commands(folder: Path, of: Collection[str]) -> dict[str, list[str]]:
    """What starts each of these servers, by name."""
    makers: dict[str, Command] = {
        MITMPROXY: lambda folder, port: mitmproxy_command(folder, port, http2=True),
        BARE: lambda folder, port: python_command(
            "bare_http2_server.py", port, folder / "leaf.pem"
        ),
        HYPERCORN: hypercorn_command,
    }
    return {name: make(folder, PORTS[name]) for name, make in makers.items() if name in of}


def url(name: str) -> str:
    return f"https://{NAME}/" if name == OURS else f"https://127.0.0.1:{PORTS[name]}/"


def await_server(target: Container, url: str) -> None:
    """Wait until a server answers."""
    ask = f"for i in $(seq {REFUSED}); do h2load -n 1 {url} | grep -q ' 1 2xx' && exit; sleep 0.1; done; exit 1"
    if target.exec(["sh", "-c", ask], check=False).exit_code:
        raise RuntimeError(f"nothing answers at {url}")


def measure_once(target: Container, name: str, pid: int) -> Mapping[str, float]:
    before = cpu_seconds(pid)
    command = ["h2load", "-c", "1", "-m", str(STREAMS), "-D", str(SECONDS), url(name)]
    result = target.exec(command)
    found = SUCCEEDED.search(result.stdout)
    if found is None or int(found[2]) or not int(found[1]):
        raise RuntimeError(f"h2load failed: {result.stdout}{result.stderr}")
    count = int(found[1])
    return {RATE: count / SECONDS, CPU: (cpu_seconds(pid) - before) / count * 1e6}


PART: Final = Part(name="http2", rows=ROWS, rounds=5, prepare=prepare)
