"""`Container`: a target with its sidecar, from its creation to its removal.

The order of a start is what all guarantees depend on: the sidecar captures before the target runs in its namespace, and
the CA is in the target before its first instruction.

Threads: the test's starts, asks and ends it; handlers may ask it too. While it starts, a second thread starts the
sidecar, and both use the docker client; another one feeds its standard input. Threads of the gateway call
`attempt_context` and `lost`. `roots_lock` is held while an image is looked at, and the container's own lock guards
which ports are open; `Ledger.changed` is not taken while either is held.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import posixpath
import re
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urljoin

import docker.errors
import requests.exceptions
from docker.types import Mount

import pytest_egress.targets.runtimes as runtimes
import pytest_egress.targets.trust as trust
from pytest_egress.agent.addresses import ADDRESS4
from pytest_egress.base.clock import LOOK_SECONDS, check_seconds, monotonic, wall
from pytest_egress.base.sockets import shut
from pytest_egress.engine.archive import build_tar
from pytest_egress.engine.engine import Engine
from pytest_egress.engine.failures import engine_errors, explanation, start_failure
from pytest_egress.engine.leftovers import SIDECAR, is_known_as_ours, is_ours
from pytest_egress.errors import CommandError, ContainerTimeoutError, EngineError, LinkError
from pytest_egress.gateway.server import Gateway
from pytest_egress.ledger.ledger import CUT_SECONDS
from pytest_egress.ledger.report import awaited_text
from pytest_egress.ledger.windows import DRAIN_SECONDS
from pytest_egress.link.attach import Output
from pytest_egress.targets.handle import STOP_SECONDS
from pytest_egress.targets.handle import Container as Interface
from pytest_egress.targets.ingress import CONNECT_SECONDS, Ingress
from pytest_egress.targets.mounts import (
    MOUNT_OPTIONS,
    directory_for,
    foreign_mounts,
    is_under,
    normal,
)
from pytest_egress.targets.options import (
    SIDECAR_OPTIONS,
)
from pytest_egress.targets.packages import LEADING, Packaged, find_packaged, places
from pytest_egress.targets.plan import Plan, check_command
from pytest_egress.targets.provision import DESCRIPTOR, Provisioner, SidecarError, SidecarSetup
from pytest_egress.targets.readiness import Strategy, check_port
from pytest_egress.targets.ready import NotReadyError, ReadySidecar, ReadySidecars
from pytest_egress.targets.results import (
    OUT_OF_MEMORY,
    TAIL_LINES,
    CompletedContainer,
    exit_text,
    tail_of,
    with_logs,
)
from pytest_egress.targets.roots import FileKind, Files, Roots, find_roots
from pytest_egress.targets.runtimes import DIRECTORY
from pytest_egress.targets.sidecar import (
    NAMESERVER,
    SYSCTLS,
    Sidecar,
    made_up_hostname,
    tells_of_joining,
)
from pytest_egress.traffic.dns_answers import NO_ADDRESS, NameAnswer
from pytest_egress.traffic.messages import shown
from pytest_egress.traffic.searchlist import normal_suffixes, suffixes_in

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

    from pytest_egress.gateway.authority import Authority
    from pytest_egress.ledger.ledger import Ledger
    from pytest_egress.ledger.windows import AttemptContext, Window
    from pytest_egress.link.interface import Link
    from pytest_egress.routes.route import Scope
    from pytest_egress.routes.table import RouteTable

UNREAD_SECONDS: Final = 0.002  # for a thread to read what has arrived
POLL_SECONDS: Final = 0.02  # between two checks whether a container is ready
SAME_CLOCK_SECONDS: Final = 0.1  # a smaller difference to the engine's clock is none
NO_ANSWER_YET: Final = (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError)
NO_LOG: Final = (
    docker.errors.DockerException,  # the container has been removed
    requests.exceptions.RequestException,  # the engine does not answer
    AttributeError,  # the container was never created
)
KILL_SECONDS: Final = 10.0  # for the kernel to end a killed container
STOP_SIGNAL: Final = "SIGTERM"  # where the image has none of its own
NOT_RUNNING: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)  # answers to a signal
UNHEARD: Final = (
    "PID 1 of a container ignores a signal that it does not handle, and a shell there passes none on: "
    "handle it, `exec` the program, or start it with init=True"
)
PAUSED: Final = ", and is paused (`docker unpause` would let it go on)"
# A log driver that can be read, whatever the engine's default is. It keeps all bytes; json-file replaces invalid UTF-8.
LOG: Final = {"type": "local", "config": {"max-size": "1g", "max-file": "1", "compress": "false"}}
# Podman writes no resolv.conf for the network "none".
RESOLV_CONF: Final = "/etc/resolv.conf"
MOUNTED: Final = "/pytest-egress-mounted"
RESOLVER: Final = build_tar(
    {RESOLV_CONF: f"nameserver {NAMESERVER}\nsearch .\noptions ndots:1\n".encode()}
)
TIME: Final = re.compile(
    r"(?P<whole>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d)"
)
PODMAN_LOG: Final = {"type": "k8s-file", "config": {}}  # it has no "local"
# With these a target can set attributes of its sidecar's files that the sidecar does not see (xattr(7), "trusted").
SECRETIVE: Final = {"CAP_SYS_ADMIN", "SYS_ADMIN", "ALL"}
SCRATCH_OPTIONS: Final = (*MOUNT_OPTIONS, "entrypoint")


class Owner(Protocol):
    """The part of an egress that a container uses."""

    @property
    def scope(self) -> Scope: ...

    @property
    def between(self) -> Window:
        """The window for attempts outside of tests."""
        ...

    def tables(self) -> Sequence[RouteTable]:
        """The route tables that apply, nearest first."""
        ...


class RunServices(Protocol):
    """The part of a session that a container uses.

    Attributes:
        sidecars: Those that are ahead of their targets.
        keep: Whether containers stay until it is known whether their test has failed.
        packaged: The roots of SDKs and browsers in images, by image and the other inputs of that search.
        trust: Paths of files that get the CA in every image that has them.
        roots_lock: Guards `roots` and `packaged`; held while an image is searched.
    """

    engine: Engine
    provisioner: Provisioner
    sidecars: ReadySidecars
    keep: bool
    ledger: Ledger
    roots: dict[str, Roots]
    packaged: dict[object, Packaged]
    trust: Sequence[str]
    roots_lock: threading.Lock

    @property
    def authority(self) -> Authority: ...

    def attempt_context(self, container: Container, /) -> AttemptContext: ...


class Container(Interface):
    """A target, running behind its sidecar. Made by `Egress.start`; usable as a context manager.

    Attributes:
        name: Its name in the ledger: the image's name, numbered where there are several.
        hints: Reasons why its clients may not trust the CA, as sentences.
        origin: Where it was started, as `file.py:12`.
        fixture: The wider fixture that was being set up when it was started; "" for none.
        hosts: The names in its own /etc/hosts, with the answers of DNS to them.
        search: The suffixes of the search lists of its resolvers. What it gets of us has none: they come from a
            resolv.conf that is mounted, and from LOCALDOMAIN.
        is_ending: Whether it is being stopped, or has been.
        loss: A sentence about what has ended the capture of its traffic while it ran, or may have; usually "".
        killed: A sentence why `stop` had to kill it; usually "".
    """

    name: str = ""  # in place of the interface's property

    def __init__(
        self, services: RunServices, name: str, plan: Plan, owner: Owner, origin: str = ""
    ) -> None:
        self.name = name
        self.owner: Final = owner
        self.born: Final = services.ledger.window  # the test that started it
        self.origin: Final = origin
        self.fixture: Final = next(reversed(services.ledger.wide_set_ups), "")
        self.start_window: Window | None = None
        self._services, self._plan = services, plan
        self._cleanup = contextlib.ExitStack()
        self._ingresses: dict[int, Ingress] = {}
        self._lock = threading.Lock()
        self._started, self._starting = 0.0, (0.0, 0.0)
        self._log_tail = ""
        self._directory = DIRECTORY
        self.hints: list[str] = []
        self.search: set[str] = set()
        self._note_local_domain(plan.env)
        self.loss, self.killed = "", ""
        self._use_name(plan.options.get("hostname") or made_up_hostname())
        self._docker: DockerContainer
        self._sidecar: Sidecar
        self.gateway: Gateway

    # Starting. `close` undoes each step that was made, even if a later one fails.

    def launch(self) -> None:
        """Create sidecar and target, put the CA and the files in, start both.

        Raises:
            ImageError, LinkError, EngineError: Nothing is left behind.
        """
        engine = self._services.engine
        try:
            with engine.progress.step(f"starting {self.name}"):
                image = engine.image(self._plan.image)
                check_command(image, self._plan)
                self._open_gateway(
                    self._services.provisioner.sidecar(
                        lambda setup: self._open_link(image, setup), self._undo
                    )
                )
                self._start()
        except BaseException:
            self.close()
            raise
        # Not earlier: two starts at once slow each other down.
        self._services.sidecars.prepare_next(self._sidecar)

    def _undo(self) -> None:
        """Undo an attempt that failed by its sidecar, before another one."""
        self.close()
        self.is_ending = self._is_removed = False

    def _open_link(self, image: Image, setup: SidecarSetup) -> Link:
        """Take the sidecar that is ready, or start one, and create the target meanwhile."""
        options = self._plan.options
        if options.keys().isdisjoint(SIDECAR_OPTIONS) and tells_of_joining(options):
            ready = self._services.sidecars.take()
            if ready is not None:
                self._cleanup.callback(self._release, ready)
                try:
                    return self._open_ready(image, setup, ready)
                except NotReadyError:
                    self._undo()
        try:
            return self._open_own(image, setup)
        except LinkError as error:
            if isinstance(error, SidecarError):  # another setup may work
                raise
            if setup != DESCRIPTOR or not self._services.sidecars.give_up_reuse(error):
                raise
        self._undo()
        return self._open_own(image, setup)

    def _open_ready(self, image: Image, setup: SidecarSetup, ready: ReadySidecar) -> Link:
        """Create the target for a sidecar that has been started ahead, or is being started."""
        sidecar = ready.created(setup)
        self._use_name(sidecar.hostname)
        self._cleanup.callback(self._end_gateway)  # `close` runs it after the target's removal
        try:
            self._create(image, sidecar, dict(self._plan.options))
        except Exception:
            ready.link()  # the engine may have refused the target since its sidecar has failed
            raise
        return ready.link()

    def _use_name(self, hostname: str) -> None:
        self._hostname = hostname
        self.hosts = hosts_of({**self._plan.options, "hostname": hostname})

    def _open_own(self, image: Image, setup: SidecarSetup) -> Link:
        options = dict(self._plan.options)
        sidecar = self._create_sidecar(options, setup, reusable=True)
        with ThreadPoolExecutor(1) as pool:
            link = pool.submit(sidecar.start)
            try:
                self._create(image, sidecar, options)
            except BaseException:
                if isinstance(failed := link.exception(), SidecarError):
                    raise failed from None  # another setup of the sidecar may work
                raise  # the target's own error says more, such as a full disk
            return link.result()

    def _create_sidecar(
        self, options: dict[str, Any], setup: SidecarSetup, *, reusable: bool = False
    ) -> Sidecar:
        """The options that apply to the sidecar are removed from `options`."""
        mine = {name: options.pop(name) for name in SIDECAR_OPTIONS if name in options}
        reusable = reusable and not mine  # another target would get its names
        mine["hostname"] = self._hostname
        with engine_errors("create the sidecar"):
            sidecar = self._services.sidecars.create(setup, reusable=reusable, **mine)
        self._cleanup.callback(self._release_sidecar, sidecar)
        self._cleanup.callback(self._end_gateway)  # `close` runs it after the target's removal
        return sidecar

    def _open_gateway(self, link: Link) -> None:
        self.gateway = Gateway(link, self, self._services.authority, self._services.ledger)
        self._serves = True
        self.gateway.start()

    def _end_gateway(self) -> None:
        if self._serves:
            try:
                self._gather()
            finally:
                self.gateway.stop()

    def _create(self, image: Image, sidecar: Sidecar, options: dict[str, Any]) -> None:
        self._sidecar, engine = sidecar, self._services.engine
        env = runtimes.variables(image.attrs["Config"].get("Env") or [])
        declared = image.attrs["Config"].get("Volumes") or ()
        self._directory = directory_for(options, declared)
        if sidecar.has_served:
            options["sysctls"] = {**SYSCTLS, **(options.get("sysctls") or {})}
        filled = self._filled_image(image, env, options) if options.get("read_only") else image
        self._docker = engine.create(
            filled,
            self._plan.image,
            command=self._plan.command,
            environment=runtimes.environment(env, self._plan.env, self._directory),
            network_mode=f"container:{sidecar.id}",
            stdin_open=self._plan.input is not None,
            **self._engine_options(),
            **options,
        )
        self._cleanup.callback(self._remove)
        check_processes(engine, self._docker)
        self._note_processes(self._docker)
        added = self._docker.attrs["HostConfig"].get("CapAdd") or ()
        self._may_hide = not SECRETIVE.isdisjoint(added)
        if filled is image:
            self._fill(self._docker, image, env)

    def _note_local_domain(self, env: Mapping[str, str]) -> None:
        """Note the search list that a variable gives to glibc's resolver, and to c-ares."""
        self.search |= {*normal_suffixes(env.get("LOCALDOMAIN", "").split())}

    def _note_searches(
        self, container: DockerContainer, image: Image, env: Mapping[str, str]
    ) -> None:
        """Note the search lists of a created container: an image's variable, and a resolv.conf that is not ours."""
        self._note_local_domain({**env, **self._plan.env})
        files = self._files(container, env)
        mounted = [point for point in files.foreign if is_under(RESOLV_CONF, point)]
        # Docker puts its own over any other mount, and over what is put into the container.
        is_other = RESOLV_CONF in mounted
        if self._services.engine.is_podman:
            is_other = bool(mounted) or RESOLV_CONF in self._plan.file_paths
        if not is_other:
            return
        if self._services.engine.is_podman and RESOLV_CONF in mounted:
            text = self._mounted_resolv_conf(container, image)
        else:
            text = text_of(files, RESOLV_CONF)
        suffixes = suffixes_in(text)
        if suffixes is None:  # then it is the domain in the host name
            suffixes = normal_suffixes([self._hostname.partition(".")[2]])
        self.search |= {*suffixes}

    def _mounted_resolv_conf(self, container: DockerContainer, image: Image) -> str:
        """A resolv.conf that is a mount by itself; "" where it cannot be read.

        Podman's archive has no file that is one until its container runs, which asks for names by then. So the folder
        that the file lies in is mounted into a container that never runs.
        """
        engine, mounts = self._services.engine, container.attrs.get("Mounts") or ()
        sources = [each["Source"] for each in mounts if normal(each["Destination"]) == RESOLV_CONF]
        folder, name = posixpath.split(sources[-1])
        scratch = engine.create(
            image,
            self._plan.image,
            command=self._plan.command,
            network_mode="none",
            mounts=[Mount(MOUNTED, folder, type="bind", read_only=True)],
        )
        try:
            return text_of(Files(engine, scratch, foreign_mounts(scratch)), f"{MOUNTED}/{name}")
        finally:
            engine.remove(scratch)

    def _note_processes(self, container: DockerContainer) -> None:
        """Have no sidecar reused where targets share processes: one may keep a file of another's, which is removed."""
        if is_shared(container.attrs["HostConfig"].get("PidMode")):
            self._services.sidecars.stop_reuse()

    def _engine_options(self) -> dict[str, Any]:
        log = PODMAN_LOG if self._services.engine.is_podman else LOG
        return {"log_config": log, **self._names()}

    def _names(self) -> dict[str, Any]:
        """Only Podman takes a host and a domain name: with Docker a target has its sidecar's."""
        if not self._services.engine.is_podman:
            return {}
        return {"hostname": self._hostname, "domainname": self._plan.options.get("domainname")}

    def _filled_image(self, image: Image, env: dict[str, str], options: dict[str, Any]) -> Image:
        """Make an image with the CA and the files in it, since nothing can be put under a root that is read-only."""
        engine = self._services.engine
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

    def _fill(self, container: DockerContainer, image: Image, env: dict[str, str]) -> None:
        """Put the CA and the files into the container, except into mounts that are not its own."""
        engine, ca = self._services.engine, self._services.authority
        files = self._files(container, env)
        if files.foreign:
            trust.check_directory(files, self._directory)
            trust.check_places(files, self._plan.file_paths)
        roots = self._roots(files, image, env)
        packaged = self._packaged(files, image, env)
        besides, left = trust.placed(files, trust.extended(packaged, ca.ca_pem, self._directory))
        besides |= trust.named_files(
            files, self._plan.trust, ca.ca_pem, wherever=self._services.trust
        )
        wanted = besides | trust.trusting(ca.ca_pem, ca.ca_subject, roots, self._directory)
        try:
            trust.put(container, build_tar(trust.placed(files, wanted)[0]), "the CA")
        except EngineError:  # a container that was removed meanwhile seemed to have no roots
            self._services.roots.pop(str(image.id), None)
            self._services.packaged.clear()
            raise
        self.hints = runtimes.defeated(env, self._plan.env, [*roots.extended(), *besides])
        self.hints += [
            f"{path} is in a mount, and was left as it is" for path in (*packaged.mounted, *left)
        ]
        self.hints += [
            f"{path} is larger than any roots, and was left as it is"
            for path in (*roots.large, *packaged.large)
        ]
        if engine.is_podman:
            trust.put(container, RESOLVER, "resolv.conf")
        if self._plan.files is not None:
            trust.put(container, self._plan.files, "files=")
        self._note_searches(container, image, env)

    def _files(self, container: DockerContainer, env: Mapping[str, str]) -> Files:
        java_home = {**env, **self._plan.env}.get("JAVA_HOME", "")
        return Files(self._services.engine, container, foreign_mounts(container), java_home)

    def _roots(self, files: Files, image: Image, env: dict[str, str]) -> Roots:
        """The roots that the image trusts, searched once; those of a container with mounts are searched each time."""
        services, user_env = self._services, self._plan.env
        if files.foreign or not user_env.keys().isdisjoint(runtimes.LEADING):
            return find_roots(files, env, user_env)
        with services.roots_lock:  # another start of this image waits for the result
            if str(image.id) not in services.roots:
                services.roots[str(image.id)] = find_roots(files, env, user_env)
            return services.roots[str(image.id)]

    def _packaged(self, files: Files, image: Image, env: dict[str, str]) -> Packaged:
        """The roots of SDKs and browsers in the image, searched once for each set of mounts: these may hide some."""
        services, theirs = self._services, {**env, **self._plan.env}
        config, workdir = image.attrs["Config"], self._plan.options.get("working_dir")
        named = [theirs.get(name, "") for name in LEADING]
        key = (image.id, workdir, *named, *files.foreign)
        with services.roots_lock:  # another start of this image waits for the result
            if key not in services.packaged:
                where = places(
                    theirs,
                    workdir or config.get("WorkingDir") or "",
                    config.get("User") or "",
                    services.engine.history(image),
                )
                services.packaged[key] = find_packaged(files, where)
            return services.packaged[key]

    def _start(self) -> None:
        standard_input = self._attach_input() if self._plan.input is not None else None
        self._started, before = monotonic(), wall()
        try:
            with engine_errors(f"start {self._plan.image!r}", passing=(docker.errors.APIError,)):
                self._services.engine.start(self._docker)
            self._starting = before, wall()
            self._check_joined()
        except docker.errors.APIError as error:
            failure = start_failure(self._plan.image, self._plan.command, error)
            raise EngineError(failure) from None
        if standard_input is not None:
            self._feed(standard_input, self._plan.input or b"")

    def _check_joined(self) -> None:
        """Raise LinkError where the sidecar has moved, and the target is not in its new namespace."""
        if not self._sidecar.has_served:
            return
        try:
            self._sidecar.check_joined(self.name)
        except LinkError:
            self._services.sidecars.stop_reuse()
            raise

    def _attach_input(self) -> socket.socket:
        """The endpoint is `POST /containers/{id}/attach`."""
        with engine_errors(f"attach to the standard input of {self.name}"):
            stream = self._docker.attach_socket(params={"stdin": 1, "stream": 1})
        sock: socket.socket = getattr(stream, "_sock", stream)  # type: ignore[arg-type]  # docker-py hides it in a reader
        for opened in (sock, stream, getattr(stream, "_response", stream)):
            self._cleanup.callback(opened.close)
        return sock

    def _feed(self, sock: socket.socket, content: bytes) -> None:
        """The content is written on a thread, since the container may read late or never."""

        def write() -> None:
            with contextlib.suppress(OSError):  # the container has ended, or is being removed
                sock.sendall(content)
                sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=write, name=f"egress input {self.name}", daemon=True)
        thread.start()
        self._cleanup.callback(thread.join)
        self._cleanup.callback(shut, sock)

    # The gateway's view.

    def attempt_context(self) -> AttemptContext:
        return self._services.attempt_context(self)

    def lost(self, text: str) -> None:
        """Fail this test and those after it, since attempts may be unseen; `text` is a sentence that says why."""
        text = f"{self.name}: {text}"
        self.loss = self.loss or text  # first: a window that opens meanwhile has one of both
        self._services.ledger.complain(self.attempt_context().window, text)

    # The methods that tests use; `handle.Container` documents them.

    @property
    def id(self) -> str:
        return str(self._docker.id)

    def connect(self, port: int, timeout: float = CONNECT_SECONDS) -> socket.socket:
        return self.gateway.link.connect(check_port(port), timeout)

    def address(self, port: int) -> tuple[str, int]:
        check_port(port)
        with self._lock:
            if port not in self._ingresses:
                self._ingresses[port] = Ingress(lambda: self.connect(port))
                self._cleanup.callback(self._ingresses[port].close)
            return self._ingresses[port].address

    def url(self, port: int, path: str = "/") -> str:
        host, local = self.address(port)
        return urljoin(f"http://{host}:{local}/", path)

    def logs(self) -> str:
        return self._output(joined=True).stdout.decode("utf-8", "replace")

    def _output(self, *, joined: bool = False, whole: bool = True, **parameters: float) -> Output:
        terminal = bool(self._docker.attrs["Config"].get("Tty"))
        output = Output(terminal=terminal, joined=joined, whole=whole)
        return self._services.engine.output(self._docker, self.name, output, **parameters)

    def _last_lines(self, **parameters: float) -> str:
        output = self._output(joined=False, whole=False, tail=TAIL_LINES, **parameters)
        return tail_of(output.tail.decode("utf-8", "replace"))

    def log_since(self, moment: float) -> str:
        """The last lines since a moment, in seconds since the epoch by this machine's clock; "" for none."""
        with contextlib.suppress(EngineError, *NO_LOG):
            self._services.engine.check_owner()
            self._docker.reload()
            since = moment + self._clock_ahead()
            return self._last_lines(since=since)
        return self._log_tail

    def _clock_ahead(self) -> float:
        """Seconds by which the engine's clock is ahead of ours: its time of the start, less ours before and after."""
        before, after = self._starting
        noted = seconds_of(self._docker.attrs["State"]["StartedAt"])
        if noted is None or not after or self._docker.attrs.get("RestartCount"):
            return 0.0  # the engine seems to use this machine's clock
        ahead = noted - min(max(noted, before), after)
        return ahead if abs(ahead) > SAME_CLOCK_SECONDS else 0.0

    def log_tail(self) -> str:
        """The last lines are known after the removal too; "" where there are none."""
        with contextlib.suppress(EngineError, *NO_LOG):
            self._services.engine.check_owner()
            self._log_tail = self._last_lines()
        return self._log_tail

    def is_running(self) -> bool:
        with contextlib.suppress(EngineError, *NO_LOG), engine_errors(f"look at {self.name}"):
            if not self.is_ending:
                self._docker.reload()
                return self._docker.status == "running"
        return False

    def exec(
        self,
        command: Sequence[str] | str,
        *,
        user: str = "",
        workdir: str | None = None,
        environment: Mapping[str, str] | None = None,
        privileged: bool = False,
        timeout: float = 60,
    ) -> CompletedContainer:
        check_seconds(timeout)
        began, clock = monotonic(), self._services.ledger.clock
        deadline = clock() + timeout
        self._may_hide |= privileged
        self._note_local_domain(environment or {})
        options = {
            "user": user,
            "workdir": workdir,
            "environment": dict(environment or {}),
            "privileged": privileged,
        }
        action, output = f"run {shown(command)} in {self.name}", Output()
        try:
            code = self._services.engine.exec(
                self._docker, command, options, action, output, lambda: deadline - clock()
            )
        except TimeoutError:
            logs = output.tail.decode("utf-8", "replace")
            text = f"{shown(command)} in {self.name} still ran after {timeout:g} s{self._paused()}, and runs on"
            text = with_logs(text + self._awaited(), logs)
            raise ContainerTimeoutError(text, logs=logs, container=self.name) from None
        self.settle()
        return CompletedContainer(
            exit_code=code,
            stdout_bytes=output.stdout,
            stderr_bytes=output.stderr,
            duration=monotonic() - began,
        )

    def wait(self, timeout: float = 60) -> CompletedContainer:
        check_seconds(timeout)
        with self._services.engine.progress.step(f"waiting for the end of {self.name}"):
            code = self._wait_for_exit(timeout)
        duration = monotonic() - self._started
        self._settle_all()
        output = self._output()
        with engine_errors(f"look at {self.name}"):
            note = "" if code == 0 and output.tail else self._note_of_end(output.tail)
        self._log_tail = tail_of(output.tail.decode("utf-8", "replace"))
        return CompletedContainer(
            exit_code=code,
            stdout_bytes=output.stdout,
            stderr_bytes=output.stderr,
            duration=duration,
            note=note,
        )

    def _note_of_end(self, written: bytes) -> str:
        """The note of a result with an error, or without output: what the engine knows of the container's end.

        On a busy machine Docker 26.1 sometimes loses the output of a container that ends before the engine has noted
        its start. `docker run` loses it too.
        """
        self._docker.reload()
        state = self._docker.attrs["State"]
        if state.get("OOMKilled"):
            return OUT_OF_MEMORY
        if self.killed:
            return self.killed
        if written or state["FinishedAt"] > state["StartedAt"]:
            return ""
        return "it ended before the engine had noted its start: on a busy machine Docker may lose such output"

    def _wait_for_exit(self, timeout: float) -> int:
        if (code := self._exit_code(timeout)) is not None:
            return code
        done = "killed" if self._services.keep else "removed"
        text = f"{self.name} still ran after {timeout:g} s{self._paused()}; it has been {done}"
        text += self._awaited()
        logs = self.finish()
        raise ContainerTimeoutError(with_logs(text, logs), logs=logs, container=self.name)

    def _exit_code(self, timeout: float) -> int | None:
        """Wait for its exit code (`POST /containers/{id}/wait`); None on a timeout. An open prompt stops the clock."""
        clock = self._services.ledger.clock
        deadline = clock() + timeout
        while (left := deadline - clock()) > 0:
            with (
                contextlib.suppress(*NO_ANSWER_YET),
                engine_errors(f"wait for {self.name}", passing=NO_ANSWER_YET),
            ):
                return int(self._docker.wait(timeout=left)["StatusCode"])
            self._check_engine()
        return None

    def _paused(self) -> str:
        with contextlib.suppress(*NO_LOG):
            self._docker.reload()
        return PAUSED if self._docker.status == "paused" else ""

    def _awaited(self) -> str:
        """Lines about the faults that it still waits for, for an error's text; "" for none."""
        return awaited_text(self._services.ledger.pauses_of(self.name))

    def _check_engine(self) -> None:
        """A connection error means that the time is over only where the engine still answers."""
        with engine_errors(f"wait for {self.name}"):
            self._services.engine.client.ping()

    def settle(self) -> None:
        """Return when the gateway has read, and assigned to a window, all that the container has sent."""
        self.gateway.flush()
        clock = self._services.ledger.clock
        deadline = clock() + DRAIN_SECONDS
        while self.gateway.unread() and clock() < deadline:
            time.sleep(UNREAD_SECONDS)

    def _settle_all(self) -> None:
        """Return when all that the container sent until its end has been handled.

        A handler that asks does not wait for itself. A connection that waits for a real server, and whose client has
        left, is cut.
        """
        self.settle()
        seconds, me = self.attempt_context().window.drain_seconds, threading.get_ident()

        def open_ones() -> list[Any]:
            return [each for each in self.gateway.connections if {*each.threads()} != {me}]

        wait_for = self._services.ledger.wait_for
        wait_for(
            lambda: all(each.activity.is_abandoned() for each in open_ones()), seconds, LOOK_SECONDS
        )
        with self._services.ledger.changed:
            left = [each for each in open_ones() if each.activity.is_abandoned()]
        for each in left:
            each.cut()
        wait_for(lambda: not any(each.is_cut for each in open_ones()), CUT_SECONDS)

    def become_ready(self, strategies: Sequence[Strategy], timeout: float) -> None:
        """Wait for every strategy.

        Raises:
            CommandError: The container ended before.
            ContainerTimeoutError: It is not ready in time.
        """
        deadline = self._services.ledger.clock() + timeout
        with self._services.engine.progress.step(f"waiting until {self.name} is ready") as step:
            for strategy in strategies:
                while missing := strategy.missing(self):
                    step.text = f"waiting until {self.name} is ready: {missing}"
                    self._check_waiting(missing, timeout, deadline)
                    time.sleep(POLL_SECONDS)

    def _check_waiting(self, missing: str, timeout: float, deadline: float) -> None:
        """Raise an error if the container has ended, or the time is over."""
        with engine_errors(f"look at {self.name}"):
            self._docker.reload()
        if self._docker.status in ("exited", "dead"):
            state = self._docker.attrs["State"]
            code, why = state["ExitCode"], OUT_OF_MEMORY if state.get("OOMKilled") else ""
            text = f"{exit_text(self.name, code, why)} before it was ready: {missing}"
            logs = self.log_tail()
            raise CommandError(
                with_logs(text, logs), logs=logs, exit_code=code, container=self.name
            )
        if self._services.ledger.clock() >= deadline:
            text = f"{self.name} was not ready after {timeout:g} s{self._paused()}: {missing}"
            text += self._awaited()
            logs = self.log_tail()
            raise ContainerTimeoutError(with_logs(text, logs), logs=logs, container=self.name)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        check_seconds(timeout)
        if self.is_ending:
            return
        name = signal_name(self._docker.attrs["Config"].get("StopSignal") or STOP_SIGNAL)
        with self._services.engine.progress.step(f"stopping {self.name}"):
            if self._send(name) and self._exit_code(timeout) is None:
                self._kill(
                    f"it still ran {timeout:g} s after {name}{self._paused()}, and was killed"
                )
            self._settle_all()

    def _kill(self, why: str) -> None:
        self.is_ending = True
        if self._send("SIGKILL"):
            self.killed = f"{why}; {UNHEARD}"
            self._exit_code(KILL_SECONDS)

    def _send(self, name: str) -> bool:
        """The endpoint is `POST /containers/{id}/kill`; False where the container does not run."""
        try:
            with engine_errors(f"signal {self.name}", passing=(docker.errors.APIError,)):
                self._docker.kill(name)
        except docker.errors.APIError as error:
            if error.status_code in NOT_RUNNING:
                return False
            said = explanation(error)
            raise EngineError(f"the engine did not send {name} to {self.name}: {said}") from None
        return True

    def _gather(self) -> None:
        """Record the attempts that the container has begun, as they are now."""
        if self.gateway.stopping:
            return
        self.settle()
        busy = self.gateway.busy()
        for connection in busy:
            connection.cut()
        self._services.ledger.wait_for(lambda: all(c.ended for c in busy), CUT_SECONDS)

    def finish(self, *, has_ended: bool = False) -> str:
        """Remove the container, or end it if it may have to be kept. Return its logs.

        Args:
            has_ended: Whether `wait` has returned, so that the log has been read to its end.
        """
        logs = self._log_tail if has_ended else self.log_tail()
        self.is_ending = True
        if self._services.keep:  # it stays until its test is known to have passed
            with contextlib.suppress(*NO_LOG):
                self._docker.kill()
            self._gather()
        elif not self._services.engine.inherited:
            self._cleanup.close()
        return logs

    def close(self, keep: bool = False) -> None:
        """Undo every step of the start, the last one first; with `keep` (`--egress-keep`) the target itself is left.

        A forked child leaves its parent's containers alone.
        """
        if self._services.engine.inherited:
            return
        self._keep = keep
        try:
            self.log_tail()
        finally:
            self._cleanup.close()

    is_ending = False
    _keep = False
    _is_removed = False
    _may_hide = False  # whether it may have left in its sidecar's files what cannot be seen
    _serves = False

    def _remove(self) -> None:
        self.is_ending = True
        if self._keep:
            self._services.engine.keep(self._docker)
        else:
            self._is_removed = self._services.engine.remove(self._docker)

    def _release(self, ready: ReadySidecar) -> None:
        if (sidecar := ready.join()) is not None:
            self._release_sidecar(sidecar)

    def _release_sidecar(self, sidecar: Sidecar) -> None:
        with engine_errors(f"remove the sidecar of {self.name}"):
            if self._is_removed and not self._may_hide:
                self._services.sidecars.retire(sidecar)
            else:
                self._services.sidecars.release(sidecar)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def __repr__(self) -> str:
        return f"<Container {self.name}>"


def check_processes(engine: Engine, container: DockerContainer) -> None:
    """Raise ValueError for processes shared with a container of another network, which could be entered (setns(2))."""
    mode = container.attrs["HostConfig"].get("PidMode") or ""
    name = mode.partition(":")[2]
    if is_shared(mode) and not is_captured(engine, other := engine.container(name)):
        reach = (
            "the capabilities of a sidecar"
            if is_sidecar(other)
            else "the network of that container"
        )
        raise ValueError(
            f"pid_mode={mode!r} is refused: with it a target can reach {reach}; name another target"
        )


def is_shared(mode: str | None) -> bool:
    """The mode is that in `GET /containers/{id}/json`."""
    return (mode or "").startswith("container:")


def is_captured(engine: Engine, container: DockerContainer) -> bool:
    """Whether a container has the network of a sidecar, or none, and no processes but a target's.

    The processes of a sidecar are not a target's: the first one may make network namespaces.
    """
    config = container.attrs["HostConfig"]
    if config.get("Privileged") or config.get("PidMode") == "host" or is_sidecar(container):
        return False
    kind, _, name = (config.get("NetworkMode") or "").partition(":")
    if kind != "none" and not (kind == "container" and is_known_as_ours(engine.client.api, name)):
        return False
    kind, _, name = (config.get("PidMode") or "").partition(":")
    return kind != "container" or is_captured(engine, engine.container(name))


def is_sidecar(container: DockerContainer) -> bool:
    listed = {"Names": [container.attrs["Name"]], "Labels": container.attrs["Config"]["Labels"]}
    return is_ours(listed) and str(container.name).startswith(SIDECAR)


def signal_name(value: object) -> str:
    """An image, and Podman, may give the signal's number."""
    with contextlib.suppress(ValueError):
        return signal.Signals(int(str(value))).name
    return str(value)


def seconds_of(text: str) -> float | None:
    """Parse a time of the engine's (RFC 3339, up to nine decimals) into seconds since the epoch; None if malformed."""
    if (found := TIME.fullmatch(text)) is None:
        return None
    whole = datetime.datetime.fromisoformat(found["whole"] + found["zone"].replace("Z", "+00:00"))
    return whole.timestamp() + float(found["fraction"] or 0)


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
    """The answer has no address where only the engine knows it ("host-gateway")."""
    with contextlib.suppress(ValueError):
        return NameAnswer(addresses=(str(ipaddress.ip_address(address)),))
    return NO_ADDRESS


def text_of(files: Files, path: str) -> str:
    """A file that does not exist, or is too large, has the text ""."""
    real, kind = files.resolve(path)
    found = files.read_small([real] if kind is FileKind.REGULAR else ())
    return b"".join(file.content for file in found.values()).decode("utf-8", "replace")
