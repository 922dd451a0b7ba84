"""`Container`: a target with its sidecar, from its creation to its removal.

The order of a start is what all guarantees depend on: the sidecar captures before the target runs in its namespace, and
the CA is in the target before its first instruction. Each step of a start leaves its undoing on one stack, which
`close` unwinds: so all steps are methods of one long class, which has more than thirty.

Threads: the test's starts, asks and ends it; handlers may ask it too. While it starts, a second thread starts the
sidecar, and both use the docker client. Threads of the gateway call `attempt_context` and `lost`. The container's own
lock guards which ports are open; `Ledger.changed` is not taken while it is held.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urljoin

import docker.errors

from pytest_egress.base.clock import check_seconds, monotonic, wall
from pytest_egress.base.renamed import renamed
from pytest_egress.engine.failures import descriptor_errors, engine_errors, start_failure
from pytest_egress.errors import EngineError, LinkError
from pytest_egress.gateway.server import Gateway
from pytest_egress.link.attach import Output
from pytest_egress.targets.contents import (
    Contents,
    FillServices,
    attach_input,
    feed,
    local_domains,
)
from pytest_egress.targets.created import check_machine
from pytest_egress.targets.ending import Ending
from pytest_egress.targets.handle import STOP_SECONDS
from pytest_egress.targets.handle import Container as Interface
from pytest_egress.targets.ingress import CONNECT_SECONDS, Ingress
from pytest_egress.targets.logs import NO_LOG, Life, Log
from pytest_egress.targets.options import SIDECAR_OPTIONS, check_exec, check_privileged
from pytest_egress.targets.plan import Plan, check_command
from pytest_egress.targets.processes import check_processes, shares_processes
from pytest_egress.targets.proxies import proxies_in
from pytest_egress.targets.readiness import Strategy, check_port
from pytest_egress.targets.results import CompletedContainer, check_result
from pytest_egress.targets.sidecars.provision import (
    DESCRIPTOR,
    Provisioner,
    SidecarError,
    SidecarSetup,
)
from pytest_egress.targets.sidecars.ready import NotReadyError, ReadySidecar, ReadySidecars
from pytest_egress.targets.sidecars.sidecar import (
    SYSCTLS,
    Sidecar,
    hosts_of,
    made_up_hostname,
    tells_of_joining,
)
from pytest_egress.targets.trust.mounts import directory_for
from pytest_egress.targets.trust.runtimes import variables

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image

    from pytest_egress.ledger.ledger import Ledger
    from pytest_egress.ledger.windows import AttemptContext, SweptRun, Window
    from pytest_egress.link.interface import Link
    from pytest_egress.routes.route import Scope
    from pytest_egress.routes.table import RouteTable

SERVES: Final = "A server is for egress.start(...), which returns while it runs."
POLL_SECONDS: Final = 0.02  # between two checks whether a container is ready
KILL_SECONDS: Final = 10.0  # for the kernel to end a killed container
UNHEARD: Final = (
    "PID 1 of a container ignores a signal that it does not handle, and a shell there passes none on: "
    "handle it, `exec` the program, or start it with init=True"
)
# A log driver that can be read, whatever the engine's default is. It keeps all bytes; json-file replaces invalid UTF-8.
LOG: Final = {"type": "local", "config": {"max-size": "1g", "max-file": "1", "compress": "false"}}
PODMAN_LOG: Final = {"type": "k8s-file", "config": {}}  # it has no "local"


class Owner(Protocol):
    """The part of an `InnerEgress` that a container uses."""

    @property
    def scope(self) -> Scope: ...

    @property
    def between(self) -> Window:
        """The window for attempts outside of tests."""
        ...

    def tables(self) -> Sequence[RouteTable]:
        """The route tables that apply, nearest first."""
        ...


class RunServices(FillServices, Protocol):
    """The part of a session that a container uses.

    Attributes:
        sidecars: Those that are ahead of their targets.
        keep: Whether containers stay until it is known whether their test has failed.
    """

    provisioner: Provisioner
    sidecars: ReadySidecars
    keep: bool
    ledger: Ledger

    def attempt_context(self, container: Container, /) -> AttemptContext: ...

    def hide(self, variables: Mapping[str, str], /) -> None:
        """Hide the secrets among the variables of a container in whatever is shown."""


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
        proxies: The names and values of its variables that name a proxy, as far as they are known.
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
        self._started = 0.0
        self.log: Final = Log(services.engine, name)
        self.hints: list[str] = []
        self.search = local_domains(plan.env)
        self.proxies = proxies_in(plan.env)
        self.variables = dict(plan.env)  # those that a test has given, the latest value of each
        self.loss, self.killed = "", ""
        self._use_name(plan.options.get("hostname") or made_up_hostname())
        self._docker: DockerContainer
        self._ending: Ending
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
            with engine.progress.step(f"starting {self.name}"), descriptor_errors(self.name):
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
                self.gateway.gather()
            finally:
                self.gateway.stop()

    def _create(self, image: Image, sidecar: Sidecar, options: dict[str, Any]) -> None:
        self._sidecar, engine = sidecar, self._services.engine
        declared = image.attrs["Config"].get("Volumes") or ()
        directory = directory_for(options, declared)
        contents = Contents(self._services, self._plan, image, self._hostname, directory)
        if sidecar.has_served:
            options["sysctls"] = {**SYSCTLS, **(options.get("sysctls") or {})}
        filled = image
        if options.get("read_only"):
            filled = contents.filled_image(options)
            self._cleanup.callback(engine.remove_image, filled)
        self._docker = engine.create(
            filled,
            self._plan.image,
            command=self._plan.command,
            environment=contents.environment(),
            network_mode=f"container:{sidecar.id}",
            stdin_open=self._plan.input is not None,
            log_config=PODMAN_LOG if engine.is_podman else LOG,
            **self._names(),
            **options,
        )
        self._cleanup.callback(self._remove)
        check_machine(engine, self._docker)
        check_processes(engine, self._docker)
        self._take(self._docker)
        if filled is image:
            contents.fill(self._docker)
        self.hints = contents.hints
        self.search |= contents.search

    def _take(self, container: DockerContainer) -> None:
        services = self._services
        self._docker = self.log.container = container
        self.proxies |= proxies_in(variables(container.attrs["Config"].get("Env") or []))
        self._ending = Ending(
            container=container,
            name=self.name,
            log=self.log,
            engine=services.engine,
            ledger=services.ledger,
        )
        if shares_processes(container):
            services.sidecars.stop_reuse()  # one target may keep a file of another's

    def _names(self) -> dict[str, Any]:
        """Only Podman takes a host and a domain name: with Docker a target has its sidecar's."""
        if not self._services.engine.is_podman:
            return {}
        return {"hostname": self._hostname, "domainname": self._plan.options.get("domainname")}

    def _start(self) -> None:
        standard_input = None
        if self._plan.input is not None:
            standard_input = attach_input(self._docker, self.name, self._cleanup)
        self._started, before = monotonic(), wall()
        try:
            with engine_errors(f"start {self._plan.image!r}", passing=(docker.errors.APIError,)):
                self._services.engine.start(self._docker)
            self.log.starting = before, wall()
            self._services.sidecars.check_joined(self._sidecar, self.name)
        except docker.errors.APIError as error:
            failure = start_failure(self._plan.image, self._plan.command, error)
            raise EngineError(self._services.ledger.redactor.known(failure)) from None
        if standard_input is not None:
            feed(standard_input, self._plan.input or b"", self.name, self._cleanup)

    # The gateway's view.

    def attempt_context(self) -> AttemptContext:
        return self._services.attempt_context(self)

    def peers(self, name: str) -> Sequence[Container]:
        """None: it is in no network of others."""
        return ()

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

    def connect_datagrams(self, port: int) -> socket.socket:
        """As `Link.connect_datagrams`. For `forward` alone: on the stream link it is no UDP socket."""
        return self.gateway.link.connect_datagrams(check_port(port))

    def address(self, port: int) -> tuple[str, int]:
        check_port(port)
        with self._lock:
            if port not in self._ingresses:
                self._ingresses[port] = Ingress(
                    lambda: self.connect(port), lambda: self._note_closed(port)
                )
                self._cleanup.callback(self._ingresses[port].close)
            return self._ingresses[port].address

    def _note_closed(self, port: int) -> None:
        ledger = self._services.ledger
        ledger.note_closed_port(self.attempt_context().window, self.name, port)

    def url(self, port: int, path: str = "/") -> str:
        host, local = self.address(port)
        return urljoin(f"http://{host}:{local}/", path)

    def logs(self) -> str:
        return self.log.text()

    def life(self) -> Life | None:
        """How it ran, and what it has written with the times; None where the engine has never told."""
        if not self._is_removed:
            self._life = self.log.life() or self._life
        return self._life

    @property
    def image(self) -> str:
        """The name of its image, as the test gave it."""
        return str(self._plan.image)

    def is_running(self) -> bool:
        with contextlib.suppress(EngineError, *NO_LOG), engine_errors(f"look at {self.name}"):
            if not self.is_ending:
                self._docker.reload()
                return self._docker.status == "running"
        return False

    @renamed(environment="env=")
    def exec(
        self,
        command: Sequence[str] | str,
        *,
        user: str = "",
        workdir: str | None = None,
        env: Mapping[str, str] | None = None,
        privileged: bool = False,
        timeout: float = 60,
        check: bool = True,
    ) -> CompletedContainer:
        env = env or {}
        check_exec(command, env)
        check_seconds(timeout)
        if privileged:
            security = self._docker.attrs["HostConfig"].get("SecurityOpt")
            check_privileged(security, self._services.engine.privileged_profile())
        began, clock = monotonic(), self._services.ledger.clock
        deadline = clock() + timeout
        self._may_hide |= privileged
        self.search |= local_domains(env)
        self.proxies |= proxies_in(env)
        given = {
            "user": user,
            "workdir": workdir,
            "environment": dict(env),
            "privileged": privileged,
        }
        texts = {name: str(value) for name, value in env.items()}
        self._services.hide(texts)
        self.variables.update(texts)
        said = self._services.ledger.redactor.shown(command)
        what, output, ending = f"{said} in {self.name}", Output(), self._ending
        try:
            code = self._services.engine.exec(
                self._docker, command, given, f"run {what}", output, lambda: deadline - clock()
            )
        except TimeoutError:
            logs = output.tail.decode("utf-8", "replace")
            text = f"{what} still ran after {timeout:g} s"
            raise ending.timeout(ending.late(text, ", and runs on"), logs) from None
        self.gateway.settle()
        result = CompletedContainer(
            exit_code=code,
            stdout_bytes=output.stdout,
            stderr_bytes=output.stderr,
            duration=monotonic() - began,
        )
        if check:
            entries = self.attempt_context().window.entries
            check_result(what, result, self.name, entries, self._services.ledger.redactor)
        return result

    def wait_unread(self, timeout: float = 60) -> tuple[int, float]:
        """Return the exit code and the seconds that it ran, and leave what it has written: it may be without end."""
        check_seconds(timeout)
        trial = self.attempt_context().window.trial
        with self._services.engine.progress.step(f"waiting for the end of {self.name}"):
            code = self._wait_for_exit(timeout, trial)
        duration = monotonic() - self._started
        self.gateway.settle_all()
        return code, duration

    def wait(self, timeout: float = 60) -> CompletedContainer:
        code, duration = self.wait_unread(timeout)
        output = self.log.whole()
        if (trial := self.attempt_context().window.trial) is not None:
            has_spoken = bool(output.stdout.strip() or output.stderr.strip())
            trial.note_end(self.name, code, has_spoken=has_spoken)
        with engine_errors(f"look at {self.name}"):
            is_clear = code == 0 and output.tail
            note = "" if is_clear else self._ending.note(output.tail, self.killed)
        return CompletedContainer(
            exit_code=code,
            stdout_bytes=output.stdout,
            stderr_bytes=output.stderr,
            duration=duration,
            note=note,
        )

    def _wait_for_exit(self, timeout: float, trial: SweptRun | None) -> int:
        ending = self._ending
        timeout = timeout if trial is None else min(timeout, trial.seconds_left())
        if (code := ending.exit_code(timeout)) is not None:
            return code
        if trial is not None:
            trial.note_late(self.name)
        done = "killed" if self._services.keep else "removed"
        text = ending.late(
            f"{self.name} still ran after {timeout:g} s", f"; it has been {done}. {SERVES}"
        )
        raise ending.timeout(text, self.finish())

    def become_ready(self, strategies: Sequence[Strategy], timeout: float) -> None:
        """Wait for every strategy.

        Raises:
            CommandError: The container ended before.
            ContainerTimeoutError: It is not ready in time.
        """
        if (trial := self.attempt_context().window.trial) is not None:
            timeout = min(timeout, trial.seconds_left())
        deadline = self._services.ledger.clock() + timeout
        with self._services.engine.progress.step(f"waiting until {self.name} is ready") as step:
            for strategy in strategies:
                while missing := strategy.missing(self):
                    text = f"waiting until {self.name} is ready: {missing}"
                    step.text = self._services.ledger.redactor.known(text)
                    self._ending.check_waiting(missing, timeout, deadline)
                    time.sleep(POLL_SECONDS)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        check_seconds(timeout)
        if self.is_ending:
            return
        with self._services.engine.progress.step(f"stopping {self.name}"):
            if why := self._ending.ask(timeout):
                self.is_ending = True
                if self._ending.send("SIGKILL"):
                    self.killed = f"{why}; {UNHEARD}"
                    self._ending.exit_code(KILL_SECONDS)
            self.gateway.settle_all()

    def finish(self, *, has_ended: bool = False) -> str:
        """Remove the container, or end it if it may have to be kept. Return its logs.

        Args:
            has_ended: Whether `wait` has returned, so that the log has been read to its end.
        """
        logs = self.log.last if has_ended else self.log.tail()
        self.is_ending = True
        if self._services.keep:  # it stays until its test is known to have passed
            with contextlib.suppress(*NO_LOG):
                self._docker.kill()
            self.gateway.gather()
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
            self.log.tail()
        finally:
            self._cleanup.close()

    is_ending = False
    _keep = False
    _is_removed = False
    _life: Life | None = None
    _may_hide = False  # whether it may have left in its sidecar's files what cannot be seen
    _serves = False

    def _remove(self) -> None:
        self.is_ending = True
        if self._services.ledger.accounts.notes is not None:
            self.life()
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

    def __dir__(self) -> Iterable[str]:
        return dir(Interface)

    def __repr__(self) -> str:
        return f"<Container {self.name}>"
