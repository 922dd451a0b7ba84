"""HTTPS requests a second of one client: the gateway, mitmproxy, and the bare minimum.

All three are processes of this machine, outside of any container, that serve one and the same
container: it reaches the gateway as every target does, by its name and the redirect, and the other
two on its own loopback, since they have been started inside its network namespace. So the path
differs by the redirect alone, which counts against the gateway. The client is one script for all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import trustme

from benchmarks.figures import ratio, table
from pytest_egress import Container, Egress

IMAGE = "pytest-egress-test/clients:latest"
HERE = Path(__file__).resolve().parent
MITMDUMP = HERE.parent / ".venv-mitmproxy" / "bin" / "mitmdump"
CLIENT = "/benchmark/client.py"
MITMPROXY_PORT, BARE_PORT = 8001, 8002
ADDRESSES = {
    "gateway": ("api.test", 443),
    "mitmproxy": ("127.0.0.1", MITMPROXY_PORT),
    "bare minimum": ("127.0.0.1", BARE_PORT),
}
MODES = ("keep-alive", "new")
ROUNDS, SECONDS = 7, 1.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one round gave: requests a second, and the server's CPU time for one in microseconds."""

    rate: float
    cpu: float


Figures = Mapping[str, Mapping[str, list[Figure]]]


def main() -> None:
    if os.geteuid() != 0 or not shutil.which("nsenter"):
        print("Requests a second: left out; it takes root and nsenter (util-linux) to start")
        print("the other servers in the network namespace of the client.")
        return
    with Egress() as egress, ExitStack() as servers:
        egress.intercept_https("api.test", lambda request: {"ok": True})
        target = egress.start(IMAGE, ["sleep", "infinity"], files={CLIENT: HERE / "client.py"})
        leaf = servers.enter_context(leaf_file())
        commands = {"mitmproxy": mitmproxy_command(leaf), "bare minimum": bare_command(leaf)}
        pids = {"gateway": os.getpid()} | {
            server: servers.enter_context(running_inside(target, command))
            for server, command in commands.items()
        }
        print_header()
        print_result(measure(target, pids))


@contextmanager
def leaf_file() -> Iterator[Path]:
    """A file with the leaf certificate, ECDSA like the gateway's, that both other servers show."""
    with tempfile.TemporaryDirectory(prefix="pytest-egress-bench-") as folder:
        path = Path(folder) / "leaf.pem"
        trustme.CA().issue_cert("api.test").private_key_and_cert_chain_pem.write_to_path(path)
        yield path


def mitmproxy_command(leaf: Path) -> list[str]:
    """Return mitmproxy in the fastest set-up that makes sense: quiet, one protocol, no upstream."""
    options = {
        "confdir": str(leaf.parent),
        "connection_strategy": "lazy",
        "upstream_cert": "false",
        "http2": "false",
        "flow_detail": "0",
        "certs": f"*={leaf}",
        "listen_host": "127.0.0.1",
        "listen_port": str(MITMPROXY_PORT),
    }
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    mode = ["--mode", "reverse:https://api.test"]
    return [str(MITMDUMP), "-q", *mode, *settings, "-s", str(HERE / "mitmproxy_addon.py")]


def bare_command(leaf: Path) -> list[str]:
    return [sys.executable, str(HERE / "bare_server.py"), str(BARE_PORT), str(leaf)]


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


def measure(target: Container, pids: Mapping[str, int]) -> Figures:
    """Return the figures by mode and server, in interleaved rounds."""
    figures: Figures = {mode: {server: [] for server in ADDRESSES} for mode in MODES}
    for _ in range(ROUNDS):
        for mode in MODES:
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


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def print_header() -> None:
    version = subprocess.run([MITMDUMP, "--version"], capture_output=True, text=True, check=True)
    mitmproxy, python = (line.split()[-1] for line in version.stdout.splitlines()[:2])
    print(
        "One client in a container, TLS 1.3, ECDSA leaf, one request after the other. All servers"
    )
    print("run outside of containers; the client reaches the gateway by name through the redirect,")
    print("and the others, started inside its network namespace, on its loopback.")
    print(f"Python {sys.version.split()[0]}; mitmproxy {mitmproxy} on Python {python}.")
    print()


def print_result(figures: Figures) -> None:
    for mode, title in zip(MODES, ("On one connection", "A new connection each"), strict=True):
        rates = {server: [one.rate for one in all_] for server, all_ in figures[mode].items()}
        cpu = {server: [one.cpu for one in all_] for server, all_ in figures[mode].items()}
        print(table(title, "requests/s", rates))
        print(ratio("gateway / mitmproxy", rates["gateway"], rates["mitmproxy"]))
        print(ratio("gateway / bare minimum", rates["gateway"], rates["bare minimum"]))
        print(table(f"{title}: CPU of the server", "microseconds a request", cpu))
        print(ratio("mitmproxy / gateway", cpu["mitmproxy"], cpu["gateway"]))
        print(ratio("bare minimum / gateway", cpu["bare minimum"], cpu["gateway"]))
        print()
