"""Prints how much memory one subject takes in this process.

usage: python -m benchmarks.memory_process SUBJECT
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.servers import HERE, NAME
from pytest_egress import Container, Egress, Request, Response

IMAGE: Final = "pytest-egress-test/clients:latest"
CLIENT: Final = "/benchmark/client.py"
DOWN, UP = "1 GB down, as a stream", "1 GB up, as a stream"
KEPT: Final = "a recorded exchange, keep-alive"
NEW: Final = "a recorded exchange, with a connection of its own"
PIECE: Final = bytes(1_000_000)
PIECES: Final = 1000
SECONDS: Final = 2.0
ASK: Final = {
    DOWN: f"curl -sS --fail -o /dev/null https://{NAME}/down",
    UP: f"head -c {PIECES * len(PIECE)} /dev/zero | curl -sS --fail -T - https://{NAME}/up",
}


def main(subject: str) -> None:
    with Egress() as egress:
        declare(egress)
        target = egress.start(IMAGE, ["sleep", "infinity"], files={CLIENT: HERE / "client.py"})
        ask(
            target, "keep-alive", 0.2
        )  # what the first request brings about is not what is measured
        print(peak(target, ASK[subject]) if subject in ASK else held(target, subject))


def declare(egress: Egress) -> None:
    """Declare a short answer, one of a gigabyte, and one that reads a stream of any length."""
    egress.intercept_https(NAME, {"ok": True}, optional=True)

    @egress.intercept_https(NAME, path="/down", optional=True)
    def down(request: Request) -> Iterator[bytes]:
        for _ in range(PIECES):
            yield PIECE

    @egress.intercept_https(NAME, path="/up", method="PUT", stream=True, optional=True)
    def up(request: Request) -> Response:
        return Response(200 if sum(map(len, request.stream())) == PIECES * len(PIECE) else 500)


def peak(target: Container, command: str) -> float:
    """How many megabytes are resident at the most while a command runs, beyond those before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again (proc_pid_clear_refs(5))
    before = resident("VmRSS")
    result = target.exec(["sh", "-c", command], check=False)
    if result.exit_code:
        raise RuntimeError(f"the client failed: {result.stderr}")
    return (resident("VmHWM") - before) / 1e6


def held(target: Container, subject: str) -> float:
    """How many bytes more are resident for each request."""
    mode = {KEPT: "keep-alive", NEW: "new"}[subject]
    before = settled()
    count = ask(target, mode, SECONDS)
    return (settled() - before) / count


def ask(target: Container, mode: str, seconds: float) -> int:
    result = target.exec(["python3", CLIENT, NAME, "443", mode, str(seconds)], check=False)
    if result.exit_code:
        raise RuntimeError(f"the client failed: {result.stderr}")
    return int(result.stdout.split()[0])


def settled() -> int:
    """How many bytes are resident, without garbage."""
    gc.collect()
    return resident("VmRSS")


def resident(field: str) -> int:
    """A field of proc_pid_status(5), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main(sys.argv[1])
