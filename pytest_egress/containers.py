"""A target with its sidecar: created, trusted, started, read and removed.

The order that everything stands on: the sidecar captures before the target exists in its namespace, and the CA is in
the target before its first instruction.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import docker.errors
import requests.exceptions
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS

import pytest_egress.trust as trust
from pytest_egress.agent.addresses import ADDRESS4
from pytest_egress.archive import File, build_tar
from pytest_egress.clock import check_seconds, monotonic
from pytest_egress.container_options import (
    REFUSED_OPTIONS,
    SIDECAR_OPTIONS,
    check_container_options,
)
from pytest_egress.container_options import container as check_container
from pytest_egress.dns_answers import NO_ADDRESS, NameAnswer
from pytest_egress.engine import Engine, check_runtime
from pytest_egress.errors import CommandError, ContainerTimeoutError, EngineError
from pytest_egress.failures import engine_errors, start_failure
from pytest_egress.gateway import Gateway
from pytest_egress.ingress import CONNECT_SECONDS, Ingress
from pytest_egress.ledger import CUT_SECONDS
from pytest_egress.leftovers import is_known_as_ours
from pytest_egress.packages import LEADING, Packaged, find_packaged, places
from pytest_egress.roots import Roots
from pytest_egress.sidecar import NAMESERVER, Sidecar, SidecarError, Way, made_up_hostname
from pytest_egress.sockets import shut
from pytest_egress.waiting import Strategy, check_port
from pytest_egress.windows import DRAIN_SECONDS

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

    from pytest_egress.authority import Authority
    from pytest_egress.interface import Link
    from pytest_egress.ledger import Ledger
    from pytest_egress.windows import AttemptContext, Window

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

TAIL_LINES: Final = 50  # of a log in a message
UNREAD_SECONDS: Final = 0.002  # for a thread to take what has arrived
POLL_SECONDS: Final = 0.02  # between two looks at whether a container is ready
NO_ANSWER_YET: Final = (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError)
NO_LOG: Final = (
    docker.errors.DockerException,  # it has gone
    requests.exceptions.RequestException,  # the engine has
    AttributeError,  # it has never been
)
PAUSED: Final = ", and is paused (`docker unpause` would let it go on)"
OUT_OF_MEMORY: Final = (
    "the kernel killed a process of it for want of memory: OOMKilled; mem_limit= gives it more"
)
# Readable, whatever the engine's default is, and byte by byte: json-file replaces what is no UTF-8.
LOG: Final = {"type": "local", "config": {"max-size": "1g", "max-file": "1", "compress": "false"}}
# Podman writes no resolv.conf for the network "none".
RESOLVER: Final = build_tar(
    {"/etc/resolv.conf": f"nameserver {NAMESERVER}\nsearch .\noptions ndots:1\n".encode()}
)
# What `GET /containers/{id}/json` calls the options with which a container can leave its namespaces.
ESCAPES: Final = {
    "privileged": "Privileged",
    "pid_mode": "PidMode",
    "ipc_mode": "IpcMode",
    "uts_mode": "UTSMode",
}
PODMAN_LOG: Final = {"type": "k8s-file", "config": {}}  # it has no "local"
SCRATCH_OPTIONS: Final = (*trust.MOUNT_OPTIONS, "entrypoint")
NEVER_RUN: Final = ["never-run"]  # the engine creates nothing that has no command
DOCKER_OPTIONS: Final = frozenset({*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS, "volumes"})


@dataclass(frozen=True, kw_only=True)
class CompletedContainer:
    """What a container's command did.

    Attributes:
        exit_code: 0 as a rule; 128 + n after signal n.
        stdout_bytes: What it wrote to its standard output.
        stderr_bytes: What it wrote to its standard error.
        duration: Seconds from its start to its end.
        note: A sentence, where it was killed for want of memory, or the engine may have lost what it wrote; else "".
    """

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    duration: float
    note: str = ""

    @property
    def stdout(self) -> str:
        """Standard output as UTF-8 text; what cannot be decoded is replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as UTF-8 text; what cannot be decoded is replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to start, checked.

    Attributes:
        files: An archive to extract at `/`, or None.
        trust: The paths of files that get the CA besides those that are known.
        options: As docker-py takes them.
    """

    image: str
    command: Sequence[str] | str | None
    env: Mapping[str, str]
    files: bytes | None
    input: bytes | None
    trust: Sequence[str]
    options: Mapping[str, Any]


def plan(
    image: str,
    command: Sequence[str] | str | None,
    *,
    env: Mapping[str, str] | None,
    files: Mapping[str, str | bytes | Path] | None,
    input: str | bytes | None,
    trust: Sequence[str] | None = None,
    own: Mapping[str, Any],
    docker_options: Mapping[str, Any],
) -> Plan:
    """Check what `start` and `run` were given.

    Args:
        own: Those of docker-py's options that have a parameter of ours.
        docker_options: The others.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    check_container(
        image, command, env=env, files=files, input=input, trust=trust, **docker_options
    )
    check_docker_options(docker_options)
    # One that is refused and not set, as stdin_open=False, does no harm, and says nothing.
    harmless = {n: value for n, value in docker_options.items() if n not in REFUSED_OPTIONS}
    members = {os.fspath(path): file_of(content) for path, content in (files or {}).items()}
    return Plan(
        image=image,
        command=command,
        env={name: str(value) for name, value in (env or {}).items()},
        files=build_tar(members) if members else None,
        input=input.encode() if isinstance(input, str) else input,
        trust=tuple(trust or ()),
        options={name: value for name, value in {**harmless, **own}.items() if value is not None},
    )


def check_command(image: Any, plan: Plan) -> None:
    """Refuse to start an image that has no command where none is given: Podman would tell of it badly.

    Raises:
        EngineError: Says what to type.
    """
    config = image.attrs["Config"]
    given = plan.command or plan.options.get("entrypoint")
    if not (given or config.get("Cmd") or config.get("Entrypoint")):
        raise EngineError(
            f"{plan.image!r} has no command of its own: give it one, as in run({plan.image!r}, [...])"
        )


def check_docker_options(names: Iterable[str]) -> None:
    """Refuse options that neither docker-py nor we have.

    Raises:
        TypeError: Names the option.
    """
    for name in names:
        if name not in DOCKER_OPTIONS:
            raise TypeError(
                f"there is no option {name}=; besides their own, run() and start() take those of "
                "docker-py's containers.create()"
            )


def file_of(content: str | bytes | Path) -> File:
    """A file for the archive; one from disk keeps whether it can be executed."""
    if isinstance(content, str):
        return File(content=content.encode())
    if isinstance(content, bytes):
        return File(content=content)
    return File(content=content.read_bytes(), mode=0o755 if os.access(content, os.X_OK) else 0o644)


class Host:
    """What a container needs of the egress that starts it."""

    engine: Engine
    keep: bool
    authority: Authority
    ledger: Ledger
    roots: dict[str, Roots]  # by image
    packaged: dict[object, Packaged]  # by image, and what else matters
    trust: Sequence[str]  # the files that get the CA wherever they are
    roots_lock: threading.Lock

    def attempt_context(self, container: Container) -> AttemptContext:
        """Where what a container attempts now belongs."""
        raise NotImplementedError


class Container:
    """A target, running behind its sidecar. Made by `Egress.start`; usable as a context manager.

    Attributes:
        name: As in the ledger: the image's name, numbered where there are several.
        id: The engine's.
        gateway: What answers its connections.
        hints: Why its clients may not trust the CA, as sentences.
        hosts: The names in its own /etc/hosts, and what DNS says of them.
        is_ending: Whether it is being ended, or has been.
        loss: How its sidecar was lost under it, as a sentence; "" as a rule.
    """

    def __init__(self, host: Host, name: str, plan: Plan, owner: Any) -> None:
        self.name: Final = name
        self.owner: Final = owner
        self.born: Final = host.ledger.window  # the test that started it
        self.start_window: Window | None = None
        self._host, self._plan = host, plan
        self._cleanup = contextlib.ExitStack()
        self._ingresses: dict[int, Ingress] = {}
        self._lock = threading.Lock()
        self._started = 0.0
        self._log_tail = ""
        self._directory = trust.DIRECTORY
        self.hints: list[str] = []
        self.loss = ""
        self._hostname: Final = plan.options.get("hostname") or made_up_hostname()
        self.hosts: Final = hosts_of({**plan.options, "hostname": self._hostname})
        self._docker: DockerContainer
        self.gateway: Gateway

    # Starting. Each step is undone by `close`, whatever the next one does.

    def launch(self) -> None:
        """Create sidecar and target, put the CA and the files in, start both.

        Raises:
            ImageError, LinkError, EngineError: Nothing is left behind.
        """
        try:
            image = self._host.engine.image(self._plan.image)
            check_command(image, self._plan)
            self._serve(
                self._host.engine.sidecar(lambda way: self._open_link(image, way), self.close)
            )
            self._start()
        except BaseException:
            self.close()
            raise

    def _open_link(self, image: Any, way: Way) -> Link:
        """Start the sidecar, and create the target meanwhile."""
        options = dict(self._plan.options)
        sidecar = self._create_sidecar(options, way)
        with ThreadPoolExecutor(1) as pool:
            link = pool.submit(sidecar.start)
            try:
                self._create(image, sidecar.id, options)
            except BaseException:
                if isinstance(failed := link.exception(), SidecarError):
                    raise failed from None  # there may be another way
                raise  # says more: a disk that files= have filled
            return link.result()

    def _create_sidecar(self, options: dict[str, Any], way: Way) -> Sidecar:
        """Create the sidecar, with those of the options that are its own; they are taken out."""
        engine = self._host.engine
        mine = {name: options.pop(name) for name in SIDECAR_OPTIONS if name in options}
        mine["hostname"] = self._hostname
        with engine_errors("create the sidecar"):
            sidecar = Sidecar.create(
                engine.client, labels=engine.marks, folder=engine.folder, way=way, **mine
            )
        self._cleanup.callback(self._remove_sidecar, sidecar)
        self._cleanup.callback(close_link, sidecar)
        self._cleanup.callback(self._end_gateway)  # after the target's end, which comes next
        return sidecar

    def _serve(self, link: Link) -> None:
        self.gateway = Gateway(link, self, self._host.authority, self._host.ledger)
        self._serves = True
        self.gateway.start()

    def _end_gateway(self) -> None:
        """Have recorded what the target attempted until its end, then stop to answer."""
        if self._serves:
            try:
                self._gather()
            finally:
                self.gateway.stop()

    def _create(self, image: Any, sidecar: str, options: dict[str, Any]) -> None:
        engine, env = self._host.engine, trust.variables(image.attrs["Config"].get("Env") or [])
        declared = image.attrs["Config"].get("Volumes") or ()
        self._directory = trust.directory_for(options, declared)
        filled = self._filled_image(image, env, options) if options.get("read_only") else image
        self._docker = engine.create(
            filled,
            self._plan.image,
            command=self._plan.command,
            environment=trust.environment(env, self._plan.env, self._directory),
            network_mode=f"container:{sidecar}",
            stdin_open=self._plan.input is not None,
            **self._engine_options(),
            **options,
        )
        self._cleanup.callback(self._remove)
        check_processes(engine, self._docker)
        if filled is image:
            self._fill(self._docker, image, env)

    def _engine_options(self) -> dict[str, Any]:
        """What the engine is told of every target."""
        log = PODMAN_LOG if self._host.engine.is_podman else LOG
        return {"log_config": log, **self._names()}

    def _names(self) -> dict[str, Any]:
        """Host and domain name, which Podman gives each container of its own, and Docker the sidecar alone."""
        if not self._host.engine.is_podman:
            return {}
        return {"hostname": self._hostname, "domainname": self._plan.options.get("domainname")}

    def _filled_image(self, image: Any, env: dict[str, str], options: dict[str, Any]) -> Any:
        """The image with the CA and the files in: nothing can be put under a root that is read-only."""
        engine = self._host.engine
        kept = {name: options[name] for name in SCRATCH_OPTIONS if name in options}
        command = self._plan.command  # the image may have none
        scratch = engine.create(
            image, self._plan.image, command=command, network_mode="none", **kept
        )
        try:
            self._fill(scratch, image, env)
            filled = engine.commit(scratch)
        finally:
            engine.remove(scratch)
        self._cleanup.callback(engine.remove_image, filled)
        return filled

    def _fill(self, container: DockerContainer, image: Any, env: dict[str, str]) -> None:
        """Put the CA and the files in, and nothing into a mount that is not the container's own."""
        engine, foreign = self._host.engine, trust.foreign_mounts(container)
        roots = self._roots(container, image, env, foreign)
        authority = self._host.authority
        packaged = self._packaged(container, image, env, foreign)
        besides = trust.extended(packaged, authority.ca_pem, self._directory)
        besides |= trust.named_files(
            engine,
            container,
            self._plan.trust,
            authority.ca_pem,
            foreign,
            wherever=self._host.trust,
        )
        archive = trust.trust_tar(
            authority.ca_pem,
            authority.ca_subject,
            roots,
            besides,
            directory=self._directory,
            foreign=foreign,
        )
        try:
            trust.put(container, archive, "the CA")
        except EngineError:  # what has gone meanwhile seemed to trust nothing
            self._host.roots.pop(image.id, None)
            self._host.packaged.clear()
            raise
        self.hints = trust.defeated(env, self._plan.env, [*roots.extended(), *besides])
        self.hints += [f"{path} is in a mount, and was left as it is" for path in packaged.mounted]
        if engine.is_podman:
            trust.put(container, RESOLVER, "resolv.conf")
        if self._plan.files is not None:
            trust.put(container, self._plan.files, "files=")

    def _roots(
        self, container: DockerContainer, image: Any, env: dict[str, str], foreign: list[str]
    ) -> Roots:
        """What the image trusts, looked up once; a container with mounts of its own is looked at itself."""
        host, user_env = self._host, self._plan.env
        if foreign or not user_env.keys().isdisjoint(trust.LEADING):
            return trust.find_roots(host.engine, container, env, user_env)
        with host.roots_lock:  # whoever else starts this image now waits for what is found
            if image.id not in host.roots:
                host.roots[image.id] = trust.find_roots(host.engine, container, env, user_env)
            return host.roots[image.id]

    def _packaged(
        self, container: DockerContainer, image: Any, env: dict[str, str], foreign: list[str]
    ) -> Packaged:
        """What the image has of SDKs and browsers, looked up once; mounts may hide it, or have more."""
        host, theirs = self._host, {**env, **self._plan.env}
        config, workdir = image.attrs["Config"], self._plan.options.get("working_dir")
        named = [theirs.get(name, "") for name in LEADING]
        key = (image.id, workdir, *named, *foreign)
        with host.roots_lock:  # as for the roots
            if key not in host.packaged:
                where = places(
                    theirs,
                    workdir or config.get("WorkingDir") or "",
                    config.get("User") or "",
                    host.engine.history(image),
                )
                host.packaged[key] = find_packaged(host.engine, container, where, foreign)
            return host.packaged[key]

    def _start(self) -> None:
        standard_input = self._attach_input() if self._plan.input is not None else None
        self._started = monotonic()
        try:
            with engine_errors(f"start {self._plan.image!r}", passing=(docker.errors.APIError,)):
                self._docker.start()
        except docker.errors.APIError as error:
            failure = start_failure(self._plan.image, self._plan.command, error)
            raise EngineError(failure) from None
        if standard_input is not None:
            self._feed(standard_input, self._plan.input or b"")

    def _attach_input(self) -> socket.socket:
        """A stream into its standard input (`POST /containers/{id}/attach`)."""
        with engine_errors(f"attach to the standard input of {self.name}"):
            stream = self._docker.attach_socket(params={"stdin": 1, "stream": 1})
        sock: socket.socket = getattr(stream, "_sock", stream)  # type: ignore[arg-type]  # docker-py hides it in a reader
        for opened in (sock, stream, getattr(stream, "_response", stream)):
            self._cleanup.callback(opened.close)
        return sock

    def _feed(self, sock: socket.socket, content: bytes) -> None:
        """Write its standard input, then end of file; on a thread, since it may read late, or never."""

        def write() -> None:
            with contextlib.suppress(OSError):  # it has ended, or is being removed
                sock.sendall(content)
                sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=write, name=f"egress input {self.name}", daemon=True)
        thread.start()
        self._cleanup.callback(thread.join)
        self._cleanup.callback(shut, sock)

    # The gateway's view.

    def attempt_context(self) -> AttemptContext:
        """The window and the routes for what it attempts now."""
        return self._host.attempt_context(self)

    def lost(self) -> None:
        """Its sidecar died: what it attempts from now on is unseen, so the test fails, and those after it."""
        self.loss = (
            f"{self.name}: its sidecar was lost while it ran ({self.gateway.link.reason}); "
            "nothing it sent after that was seen, and nothing got out"
        )
        self._host.ledger.complain(self.attempt_context().window, self.loss)

    # What a test uses.

    @property
    def id(self) -> str:
        """The engine's identifier."""
        return str(self._docker.id)

    def connect(self, port: int, timeout: float = CONNECT_SECONDS) -> socket.socket:
        """A TCP connection to a port of the container, through its namespace.

        Args:
            timeout: Seconds.

        Raises:
            OSError: Nothing listens there.
        """
        return self.gateway.link.connect(check_port(port), timeout)

    def address(self, port: int) -> tuple[str, int]:
        """Host and port, in the test process, that lead to a port of the container."""
        check_port(port)
        with self._lock:
            if port not in self._ingresses:
                self._ingresses[port] = Ingress(lambda: self.connect(port))
                self._cleanup.callback(self._ingresses[port].close)
            return self._ingresses[port].address

    def url(self, port: int, path: str = "/") -> str:
        """An `http://` URL that leads to a port of the container."""
        host, local = self.address(port)
        return urljoin(f"http://{host}:{local}/", path)

    def logs(self) -> str:
        """What it has written, both streams, as text; UTF-8, what cannot be decoded is replaced."""
        with engine_errors(f"read the log of {self.name}"):
            return self._docker.logs().decode("utf-8", "replace")

    def log_tail(self) -> str:
        """The last lines of its log, also after it has been removed; "" where there are none."""
        with contextlib.suppress(EngineError, *NO_LOG):
            self._host.engine.check_owner()
            self._log_tail = self._docker.logs(tail=TAIL_LINES).decode("utf-8", "replace").rstrip()
        return self._log_tail

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        user: str = "",
        workdir: str | None = None,
        environment: Mapping[str, str] | None = None,
        privileged: bool = False,
    ) -> CompletedContainer:
        """Run a command inside and wait for it.

        Args:
            command: A list of arguments, or a string that is split.
            user: A name or number, by default that of the container.
            workdir: An absolute path, by default that of the container.
            environment: More variables.
            privileged: Whether with all capabilities.
        """
        began = monotonic()
        options = {
            "user": user,
            "workdir": workdir,
            "environment": dict(environment or {}),
            "privileged": privileged,
        }
        code, stdout, stderr = self._host.engine.exec(self._docker, command, options, self.name)
        self.settle()
        return CompletedContainer(
            exit_code=code,
            stdout_bytes=stdout,
            stderr_bytes=stderr,
            duration=monotonic() - began,
        )

    def wait(self, timeout: float = 60) -> CompletedContainer:
        """Wait for its end, and until everything it sent has been handled.

        Args:
            timeout: Seconds.

        Raises:
            ContainerTimeoutError: It still runs; it is removed, and its logs are in the text.
        """
        check_seconds(timeout)
        code = self._wait_for_exit(timeout)
        duration = monotonic() - self._started
        self.settle()
        seconds = self.attempt_context().window.drain_seconds
        self._host.ledger.wait_for(lambda: not self.gateway.connections, seconds)
        with engine_errors(f"read the log of {self.name}"):
            stdout = self._docker.logs(stdout=True, stderr=False)
            stderr = self._docker.logs(stdout=False, stderr=True)
            note = "" if code == 0 and (stdout or stderr) else self._note_of_end(stdout + stderr)
        return CompletedContainer(
            exit_code=code, stdout_bytes=stdout, stderr_bytes=stderr, duration=duration, note=note
        )

    def _note_of_end(self, written: bytes) -> str:
        """What the engine knows of an end with an error, or without output.

        On a busy machine Docker 26.1 loses, now and then, the output of a container which ends before the engine has
        noted its start; so `docker run` does too.
        """
        self._docker.reload()
        state = self._docker.attrs["State"]
        if state.get("OOMKilled"):
            return OUT_OF_MEMORY
        if written or state["FinishedAt"] > state["StartedAt"]:
            return ""
        return "it ended before the engine had noted its start: on a busy machine Docker may lose such output"

    def _wait_for_exit(self, timeout: float) -> int:
        """Its exit code (`POST /containers/{id}/wait`); a prompt that is open stops the clock."""
        clock = self._host.ledger.clock
        deadline = clock() + timeout
        while (left := deadline - clock()) > 0:
            with (
                contextlib.suppress(*NO_ANSWER_YET),
                engine_errors(f"wait for {self.name}", passing=NO_ANSWER_YET),
            ):
                return int(self._docker.wait(timeout=left)["StatusCode"])
            self._check_engine()
        done = "killed" if self._host.keep else "removed"
        text = f"{self.name} still ran after {timeout:g} s{self._paused()}; it has been {done}"
        logs = self.finish()
        raise ContainerTimeoutError(with_logs(text, logs), logs=logs)

    def _paused(self) -> str:
        """Why it does nothing, where something has paused it."""
        with contextlib.suppress(*NO_LOG):
            self._docker.reload()
        return PAUSED if self._docker.status == "paused" else ""

    def _check_engine(self) -> None:
        """A connection error is a timeout only as long as the engine answers."""
        with engine_errors(f"wait for {self.name}"):
            self._host.engine.client.ping()

    def settle(self) -> None:
        """Return when all that it has sent has been taken up by its threads."""
        self.gateway.flush()
        clock = self._host.ledger.clock
        deadline = clock() + DRAIN_SECONDS
        while self.gateway.unread() and clock() < deadline:
            time.sleep(UNREAD_SECONDS)

    def become_ready(self, strategies: Sequence[Strategy], timeout: float) -> None:
        """Wait until every strategy is satisfied.

        Raises:
            CommandError: The container ended before.
            ContainerTimeoutError: It is not ready in time.
        """
        clock = self._host.ledger.clock
        deadline = clock() + timeout
        for strategy in strategies:
            while missing := strategy.missing(self):
                with engine_errors(f"look at {self.name}"):
                    self._docker.reload()
                if self._docker.status in ("exited", "dead"):
                    state = self._docker.attrs["State"]
                    code, why = state["ExitCode"], OUT_OF_MEMORY if state.get("OOMKilled") else ""
                    text = f"{exit_text(self, code, why)} before it was ready: {missing}"
                    raise CommandError(
                        with_logs(text, self.log_tail()), logs=self.log_tail(), exit_code=code
                    )
                if clock() >= deadline:
                    paused = self._paused()
                    text = f"{self.name} was not ready after {timeout:g} s{paused}: {missing}"
                    raise ContainerTimeoutError(
                        with_logs(text, self.log_tail()), logs=self.log_tail()
                    )
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Remove it and its sidecar at once; calling it again does nothing.

        All that it attempted until its end is in the ledger, what it had just begun as it is.
        """
        self.finish()

    def _gather(self) -> None:
        """Have what it has begun recorded as it is."""
        if self.gateway.stopping:
            return
        self.settle()
        busy = self.gateway.busy()
        for connection in busy:
            connection.cut()
        self._host.ledger.wait_for(lambda: all(c.ended for c in busy), CUT_SECONDS)

    def finish(self) -> str:
        """Remove it, or where it may be kept, end it; its logs."""
        logs = self.log_tail()
        self.is_ending = True
        if self._host.keep:  # until its test is known to have passed
            with contextlib.suppress(*NO_LOG):
                self._docker.kill()
            self._gather()
        else:
            self.close()
        return logs

    def close(self, keep: bool = False) -> None:
        """Undo every step of the start, the last first; a forked child undoes nothing of its parent's.

        Args:
            keep: Leave the target itself (`--egress-keep`), without its sidecar.
        """
        if self._host.engine.inherited:
            return
        self._keep = keep
        try:
            self.log_tail()
        finally:
            self._cleanup.close()

    is_ending = False
    _keep = False
    _serves = False

    def _remove(self) -> None:
        self.is_ending = True
        if self._keep:
            self._host.engine.keep(self._docker)
        else:
            self._host.engine.remove(self._docker)

    def _remove_sidecar(self, sidecar: Sidecar) -> None:
        with engine_errors(f"remove the sidecar of {self.name}"):
            sidecar.remove()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Container {self.name}>"


class Guest(Container):
    """A target that something else creates and starts, beside a sidecar of ours.

    Attributes:
        network_mode: What such a target is created with; by it we know it again.
    """

    network_mode = ""

    def open(self) -> dict[str, Any]:
        """Start the sidecar; return what to create the target with, as docker-py takes it.

        Raises:
            ImageError, LinkError, EngineError: Nothing is left behind.
        """
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> dict[str, Any]:
        image = self._host.engine.image(self._plan.image)
        sidecar, way = self._host.engine.sidecar(self._start_sidecar, self.close)
        self.hints = ["trust(container) was not called for it: variables alone lead to the CA"]
        self.network_mode = f"container:{sidecar.id}"
        env = trust.variables(image.attrs["Config"].get("Env") or [])
        found = {
            "network_mode": self.network_mode,
            "environment": trust.environment(env, self._plan.env),
            **self._names(),
        }
        if way.image is None:  # or the engine may not see this machine's folders
            found["volumes"] = {self._folder(image, env): {"bind": trust.DIRECTORY, "mode": "ro"}}
        return found

    def _start_sidecar(self, way: Way) -> tuple[Sidecar, Way]:
        sidecar = self._create_sidecar(dict(self._plan.options), way)
        self._serve(sidecar.start())
        return sidecar, way

    def _folder(self, image: Any, env: dict[str, str]) -> str:
        """A folder of this machine with our files, to be mounted: so a target trusts that nobody calls `adopt` for."""
        engine, authority = self._host.engine, self._host.authority
        scratch = engine.create(image, self._plan.image, command=NEVER_RUN)
        try:
            roots = self._roots(scratch, image, env, [])
        finally:
            engine.remove(scratch)
        folder = tempfile.mkdtemp(dir=engine.folder)
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        os.chmod(folder, 0o755)  # whoever the target runs as reads it
        for name, content in trust.own_files(authority.ca_pem, roots).items():
            path = Path(folder, name)
            path.write_bytes(content)
            path.chmod(0o644)
        return folder

    def adopt(self, container: DockerContainer) -> None:
        """Put the CA into the target's own bundles, before its first instruction.

        Raises:
            ValueError: It runs already, or was created with what `start` refuses.
        """
        if container.status != "created":
            raise ValueError(
                f"{container.name} is {container.status}: trust() takes a container that is created and not yet started"
            )
        check_runtime(container)
        check_created(self._host.engine, container)
        self._docker = container
        image = container.image
        assert image is not None
        env = trust.variables(image.attrs["Config"].get("Env") or [])
        self._fill(container, image, env)


def check_created(engine: Engine, container: DockerContainer) -> None:
    """Refuse a container that was created with what would let it leave its sidecar, in the words of `start`.

    What else `start` refuses the engine itself does beside another container's network.

    Raises:
        ValueError: Names the container and the option.
    """
    config = container.attrs["HostConfig"]
    try:
        check_container_options({name: config.get(field) for name, field in ESCAPES.items()})
        check_processes(engine, container)
    except ValueError as error:
        raise ValueError(f"{container.name}: {error}") from None


def check_processes(engine: Engine, container: DockerContainer) -> None:
    """Refuse a container among the processes of one whose network is not captured: they lead to it (setns(2)).

    Raises:
        ValueError: Names the option.
    """
    mode = container.attrs["HostConfig"].get("PidMode") or ""
    kind, _, name = mode.partition(":")
    if kind == "container" and not is_captured(engine, engine.container(name)):
        raise ValueError(
            f"pid_mode={mode!r} is refused: with it a target can reach the network of that container; "
            "name another target"
        )


def is_captured(engine: Engine, container: DockerContainer) -> bool:
    """Whether a container has no network but a sidecar's, or none at all, and sees nobody else's processes."""
    config = container.attrs["HostConfig"]
    if config.get("Privileged") or config.get("PidMode") == "host":
        return False
    kind, _, name = (config.get("NetworkMode") or "").partition(":")
    if kind != "none" and not (kind == "container" and is_known_as_ours(engine.client.api, name)):
        return False
    kind, _, name = (config.get("PidMode") or "").partition(":")
    return kind != "container" or is_captured(engine, engine.container(name))


def hosts_of(options: Mapping[str, Any]) -> dict[str, NameAnswer]:
    """The names that a container's options give addresses to: its own, and `extra_hosts`."""
    host, domain = options["hostname"], options.get("domainname")
    lines = {host: ADDRESS4, **(options.get("extra_hosts") or {})}
    if domain:
        lines[f"{host}.{domain}"] = ADDRESS4
    return {
        name.lower(): host_answer(address)
        for line, address in lines.items()
        for name in line.split()
    }


def host_answer(address: str) -> NameAnswer:
    """What DNS says of such a name; nothing where only the engine knows its address ("host-gateway")."""
    with contextlib.suppress(ValueError):
        return NameAnswer(addresses=(str(ipaddress.ip_address(address)),))
    return NO_ADDRESS


def close_link(sidecar: Sidecar) -> None:
    """Close the sidecar's sockets, where they had arrived before something else failed."""
    if sidecar.link is not None:
        sidecar.link.close()


def with_logs(text: str, logs: str) -> str:
    """A sentence, and the tail of a log under it."""
    tail = "\n".join(f"  | {line}" for line in logs.splitlines()[-TAIL_LINES:])
    return f"{text}\nThe end of its log:\n{tail}" if tail else f"{text}\nIt wrote nothing."


def check_result(container: Container, result: CompletedContainer) -> None:
    """Raise `CommandError` where a command failed, with both of its streams."""
    if result.exit_code:
        logs = result.stdout + result.stderr
        text = exit_text(container, result.exit_code, result.note)
        raise CommandError(with_logs(text, logs), logs=logs, exit_code=result.exit_code)


def exit_text(container: Container, code: int, note: str) -> str:
    """That a container has ended, and why, where the engine knows."""
    return f"{container.name} exited with code {code}" + (f" ({note})" if note else "")
