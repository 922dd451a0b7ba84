"""Servers to compare with, started inside the network namespace of the client's container, and their CPU time.

All are processes of this machine, outside of any container, as the gateway is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import docker
import trustme
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate

from benchmarks.figures import OURS
from benchmarks.peers import HYPERCORN, MITMPROXY, MOCKTTP, WIREMOCK, path_of
from pytest_egress import Container, Egress
from pytest_egress.ledger.verdict import judge

HERE: Final = Path(__file__).resolve().parent
NAME: Final = "api.test"
CPU_CLOCK: Final = 2  # of a process, in the number that the kernel makes of its PID
PASSWORD: Final = "password"  # of WireMock's key store: its own default
STUB: Final = {
    "request": {"method": "ANY", "urlPattern": ".*"},
    "response": {
        "status": 200,
        "body": '{"ok": true}',
        "headers": {"Content-Type": "application/json"},
    },
}

Command = Callable[[Path, int], list[str]]
"""What starts a server, by the folder with its certificate, and the port."""


@contextmanager
def leaf_folder() -> Iterator[Path]:
    """A folder with a leaf certificate, ECDSA like the gateway's, that the other servers show, and with its CA."""
    with tempfile.TemporaryDirectory(prefix="pytest-egress-bench-") as name:
        folder, ca = Path(name), trustme.CA()
        leaf = ca.issue_cert(NAME)
        leaf.private_key_and_cert_chain_pem.write_to_path(folder / "leaf.pem")
        ca.cert_pem.write_to_path(folder / "ca.pem")
        ca.private_key_pem.write_to_path(folder / "ca.key")
        (folder / "leaf.p12").write_bytes(key_store(leaf))
        yield folder


def key_store(leaf: trustme.LeafCert) -> bytes:
    """The leaf in the form that Java reads."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    certificate = load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    encryption = BestAvailableEncryption(PASSWORD.encode())
    return pkcs12.serialize_key_and_certificates(b"leaf", key, certificate, None, encryption)


def mitmproxy_command(folder: Path, port: int, *, http2: bool) -> list[str]:
    """Return mitmproxy in the fastest set-up that makes sense: quiet, one protocol, no upstream."""
    options = {
        "confdir": str(folder),
        "connection_strategy": "lazy",
        "upstream_cert": "false",
        "http2": "true" if http2 else "false",
        "flow_detail": "0",
        "certs": f"*={folder / 'leaf.pem'}",
        "listen_host": "127.0.0.1",
        "listen_port": str(port),
    }
    settings = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    program = str(path_of(MITMPROXY, "venv", "bin", "mitmdump"))
    mode = ["--mode", f"reverse:https://{NAME}"]
    return [program, "-q", *mode, *settings, "-s", str(HERE / "mitmproxy_addon.py")]


def wiremock_command(folder: Path, port: int) -> list[str]:
    """Return WireMock with one stub, which records requests as it does by default."""
    (folder / "mappings").mkdir(exist_ok=True)
    (folder / "mappings" / "any.json").write_text(json.dumps(STUB))
    (jar,) = path_of(WIREMOCK, "node_modules", "wiremock", "build").glob("*.jar")
    options = {
        "https-port": port,
        "bind-address": "127.0.0.1",
        "root-dir": folder,
        "https-keystore": folder / "leaf.p12",
        "keystore-type": "PKCS12",
        "keystore-password": PASSWORD,
        "key-manager-password": PASSWORD,
        "use-chunked-encoding": "never",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return ["java", "-jar", str(jar), "--disable-http", "--disable-banner", *flags]


def mockttp_command(folder: Path, port: int) -> list[str]:
    """Return mockttp, which issues leaves of its own by the folder's CA."""
    package = path_of(MOCKTTP, "node_modules", "mockttp")
    arguments = [package, port, folder / "ca.key", folder / "ca.pem"]
    return ["node", str(HERE / "mockttp_server.js"), *map(str, arguments)]


def hypercorn_command(folder: Path, port: int) -> list[str]:
    """Return hypercorn with an application that answers at once."""
    program = str(path_of(HYPERCORN, "venv", "bin", "python"))
    return [program, str(HERE / "hypercorn_server.py"), str(port), str(folder / "leaf.pem")]


def python_command(script: str, *arguments: object) -> list[str]:
    """Return a script of this folder, run by this interpreter."""
    return [sys.executable, str(HERE / script), *map(str, arguments)]


@contextmanager
def running_inside(target: Container, command: Sequence[str]) -> Iterator[int]:
    """Run a server of this machine with the network namespace of *target*; the value is its PID."""
    client = docker.from_env()
    pid = client.containers.get(target.id).attrs["State"]["Pid"]
    client.close()
    process = subprocess.Popen(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "--", *command], stdout=subprocess.DEVNULL
    )
    try:
        yield process.pid  # nsenter becomes the command: it does not fork
    finally:
        process.terminate()
        process.wait()


@contextmanager
def all_running_inside(
    target: Container, commands: Mapping[str, Sequence[str]]
) -> Iterator[Mapping[str, int]]:
    """Run several servers so; the value is the PID of each by its name, and of this process by ours."""
    with ExitStack() as servers:
        yield {OURS: os.getpid()} | {
            name: servers.enter_context(running_inside(target, command))
            for name, command in commands.items()
        }


@contextmanager
def one_test(wider: Egress) -> Iterator[Egress]:
    """A scope for one measurement, as a test has one: what it has recorded is forgotten with it.

    Raises:
        EgressError: The scope's verdict, as that of a test.
    """
    session = wider._inner.session
    window, egress = session.open_window(), Egress(session=session, parent=wider)
    try:
        yield egress
        session.close_window(window)
        if (verdict := judge(window, egress._inner.routes)) is not None:
            raise verdict
    finally:
        egress.close()
        egress._inner.let_go()
        session.release(window)


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used so far, those that have ended included.

    By the clock that clock_getcpuclockid(3) names: it counts nanoseconds, and proc_pid_stat(5) hundredths.
    """
    return time.clock_gettime((~pid << 3) | CPU_CLOCK)


def timed_load(target: Container, pid: int, command: Sequence[str]) -> tuple[float, float]:
    """Run a client that prints a count and seconds: return the rate, and the server's CPU for one in microseconds."""
    before = cpu_seconds(pid)
    result = target.exec(list(command), check=False)
    if result.exit_code:
        raise RuntimeError(f"the client failed: {last_line(result.stderr)}")
    count, seconds = result.stdout.split()
    return int(count) / float(seconds), (cpu_seconds(pid) - before) / int(count) * 1e6


def last_line(text: str) -> str:
    """The last line of an output, which names the error."""
    return (text.strip().splitlines() or ["without a word"])[-1]
