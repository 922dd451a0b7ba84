"""A Docker engine of a test's own, to be restarted and killed while others use the machine's. It needs root."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import docker
import pytest
import requests.exceptions
import trustme

from tests.support.leftovers import until
from tests.support.reaper import EngineRemains, Reaper, has_interface

SECONDS = 60.0  # for an engine to start or stop, on however slow a machine


class PrivateEngine:
    """A dockerd with its own containerd, images and containers, and without a network that leads out.

    It goes with this process, however that ends.

    Attributes:
        address: Where it listens, as DOCKER_HOST takes it.
        tls_address: Where it listens on loopback, to clients that show a certificate.
        cert_path: What DOCKER_CERT_PATH takes: `ca.pem`, `cert.pem` and `key.pem`.
    """

    def __init__(
        self, folder: Path, tls: bool, size: str, hidden: Sequence[str], options: Sequence[str]
    ) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self.cert_path = folder / "certificates"
        self._open = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._remains = EngineRemains(folder)
        self._reaper = Reaper("engine", str(folder))
        if size:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True
            )
        name, bridge = self._remains.name, self._remains.bridge
        self._command = [
            *hiding(hidden),
            *("dockerd", "--host", self.address, "--pidfile", f"{folder}/pid"),
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--containerd-namespace", name, "--containerd-plugins-namespace", f"{name}-plugins"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{name}"),
            # With "none" it would remove docker0, which is the machine's engine's; without any, take it.
            *("--bridge", bridge, "--ip-forward=false"),
            *("--iptables=false", "--ip6tables=false"),
            *options,
        ]
        if tls:
            self.tls_address = f"tcp://127.0.0.1:{free_port()}"
            self._command += ["--host", self.tls_address, *self._certificates()]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if not has_interface(bridge := self._remains.bridge):
            address = f"203.0.113.{8 * random.randrange(32) + 1}/29"
            host_ip("link", "add", bridge, "type", "bridge")
            host_ip("address", "add", address, "dev", bridge)
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self._process
        if not until(lambda: self._answers() or process.poll() is not None, SECONDS) or (
            process.poll() is not None
        ):
            log_tail = (self.folder / "log").read_text(errors="replace")[-3000:]
            pytest.fail(f"a private Docker engine does not start:\n{log_tail}", pytrace=False)

    def stop(self) -> None:
        """Stop it, and its containers with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; its containers run on, until it starts again."""
        self._end(signal.SIGKILL)
        # Its containerd goes with it, but dockerd takes a zombie for alive and waits for it.
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop it and start it again at the same addresses, with the images it had."""
        self.stop()
        self.start()

    def client(self) -> docker.DockerClient:
        """A client, closed with the engine."""
        return self._open.enter_context(
            contextlib.closing(docker.DockerClient(base_url=self.address))
        )

    def load(self, client: docker.DockerClient, tag: str) -> None:
        """Copy an image from another engine, where it is not there yet."""
        image = client.images.get(tag)
        if not any(image.id == each.id for each in self.client().images.list(tag)):
            self.client().images.load(b"".join(image.save(named=True)))

    def remove(self) -> None:
        """Leave nothing of it: containers, processes, cgroups, mounts, files."""
        try:
            if self._process is not None:
                self._remains.end_containers()
                self._remove_containers()
                self.stop()
        finally:
            self._open.close()
            self._reaper.close()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:  # docker-py would leave its own open
            if sock.connect_ex(f"{self.folder}/docker.sock"):
                return False
        with contextlib.closing(docker.DockerClient(base_url=self.address, version="1.41")) as each:
            try:
                return bool(each.ping())
            except (docker.errors.DockerException, requests.exceptions.RequestException):
                return False

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(SECONDS)

    def _remove_containers(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            self.start()
        for container in self.client().containers.list(all=True, ignore_removed=True):
            with contextlib.suppress(docker.errors.APIError):  # it is being removed
                container.remove(force=True, v=True)

    def _certificates(self) -> list[str]:
        """Write what server and client show alike, and return dockerd's options for it."""
        ca = trustme.CA()
        leaf = ca.issue_cert("127.0.0.1", "localhost", "docker", "engine.example.test")
        self.cert_path.mkdir()
        ca.cert_pem.write_to_path(self.cert_path / "ca.pem")
        leaf.cert_chain_pems[0].write_to_path(self.cert_path / "cert.pem")
        leaf.private_key_pem.write_to_path(self.cert_path / "key.pem")
        files = {"--tlscacert": "ca.pem", "--tlscert": "cert.pem", "--tlskey": "key.pem"}
        return ["--tlsverify", *(f"{option}={self.cert_path}/{f}" for option, f in files.items())]


@contextlib.contextmanager
def private_engine(
    folder: Path,
    tls: bool = False,
    size: str = "",
    hidden: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[PrivateEngine]:
    """A Docker engine of its own, in a folder below *folder* that goes with it.

    Args:
        folder: One whose path is short: a socket's has at most 107 bytes.
        tls: Whether it also listens on loopback, to clients that show a certificate.
        size: Of a disk of its own, as tmpfs(5) takes it.
        hidden: Folders of this machine that it does not see, as if it ran on another one.
        options: More of dockerd's.
    """
    own = folder / f"engine-{uuid.uuid4().hex[:8]}"
    own.mkdir(mode=0o700)
    engine = PrivateEngine(own, tls, size, hidden, options)
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


OwnEngine = Callable[..., contextlib.AbstractContextManager[PrivateEngine]]


def hiding(folders: Sequence[str]) -> list[str]:
    """The beginning of a command that sees these folders empty."""
    if not folders:
        return []
    mounts = [f"mount -t tmpfs none {folder}" for folder in folders]
    script = " && ".join([*mounts, 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


def host_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
