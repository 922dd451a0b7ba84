"""Servers to compare with, started inside the network namespace of the client's container, and their CPU time.

All are processes of this machine, outside of any container, as the gateway is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import trustme

from benchmarks.figures import ratio, table
from pytest_egress import Container

HERE = Path(__file__).resolve().parent
MITMDUMP = HERE.parent / ".venv-mitmproxy" / "bin" / "mitmdump"
NAME = "api.test"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one round gave: requests a second, and the server's CPU time for one in microseconds."""

    rate: float
    cpu: float


def can_start_inside() -> bool:
    """Whether servers can be started in a container's network namespace; it says so where they cannot."""
    if os.geteuid() == 0 and shutil.which("nsenter"):
        return True
    print("Left out; it takes root and nsenter (util-linux) to start the other servers in the")
    print("network namespace of the client.")
    return False


@contextmanager
def leaf_file() -> Iterator[Path]:
    """A file with the leaf certificate, ECDSA like the gateway's, that the other servers show."""
    with tempfile.TemporaryDirectory(prefix="pytest-egress-bench-") as folder:
        path = Path(folder) / "leaf.pem"
        trustme.CA().issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(path)
        yield path


def mitmproxy_command(leaf: Path, port: int, *, http2: bool) -> list[str]:
    """Return mitmproxy in the fastest set-up that makes sense: quiet, one protocol, no upstream."""
    options = {
        "confdir": str(leaf.parent),
        "connection_strategy": "lazy",
        "upstream_cert": "false",
        "http2": "true" if http2 else "false",
        "flow_detail": "0",
        "certs": f"*={leaf}",
        "listen_host": "127.0.0.1",
        "listen_port": str(port),
    }
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    mode = ["--mode", f"reverse:https://{NAME}"]
    return [str(MITMDUMP), "-q", *mode, *settings, "-s", str(HERE / "mitmproxy_addon.py")]


def python_command(script: str, *arguments: object) -> list[str]:
    """Return a script of this folder, run by this interpreter."""
    return [sys.executable, str(HERE / script), *map(str, arguments)]


@contextmanager
def running_inside(target: Container, command: Sequence[str]) -> Iterator[int]:
    """Run a server of this machine with the network namespace of *target*; the value is its PID."""
    client = docker.from_env()
    pid = client.containers.get(target.id).attrs["State"]["Pid"]
    client.close()
    process = subprocess.Popen(["nsenter", f"--net=/proc/{pid}/ns/net", "--", *command])
    try:
        yield process.pid  # nsenter becomes the command: it does not fork
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def mitmproxy_version() -> str:
    """Return the version of mitmproxy, and of its Python."""
    version = subprocess.run([MITMDUMP, "--version"], capture_output=True, text=True, check=True)
    mitmproxy, python = (line.split()[-1] for line in version.stdout.splitlines()[:2])
    return f"mitmproxy {mitmproxy} on Python {python}"


def print_figures(
    title: str, unit: str, figures: dict[str, list[Figure]], ours: str = "gateway"
) -> None:
    """Print the rates and the CPU times of the servers, and the ratios of ours to each other one."""
    rates = {server: [one.rate for one in all_] for server, all_ in figures.items()}
    cpu = {server: [one.cpu for one in all_] for server, all_ in figures.items()}
    others = [server for server in figures if server != ours]
    print(table(title, f"{unit}s/s", rates))
    for other in others:
        print(ratio(f"{ours} / {other}", rates[ours], rates[other]))
    print(table(f"{title}: CPU of the server", f"microseconds a {unit}", cpu))
    for other in others:
        print(ratio(f"{ours} / {other}", cpu[ours], cpu[other]))
    print()
