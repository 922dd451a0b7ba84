"""`ReadySidecars`: sidecars that are started ahead of their targets, in the background.

What fails here is silent: the container that needs a sidecar then starts one itself, and that raises the real error.

Threads: the threads that start containers ask for sidecars. Each sidecar is created and started on a thread of its own,
which uses the engine's client beside them, and which `close` waits for. The lock guards which sidecar waits; nothing is
waited for while it is held. A test that does not use egress runs beside none of these threads: see `settle`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pytest_egress.base.polling import BYTE_OR_END
from pytest_egress.base.sockets import await_ready
from pytest_egress.engine.failures import engine_errors
from pytest_egress.errors import LinkError
from pytest_egress.targets.sidecars.relay import RelayOfRun
from pytest_egress.targets.sidecars.sidecar import Sidecar

if TYPE_CHECKING:
    from pytest_egress.engine.engine import Engine
    from pytest_egress.targets.sidecars.provision import Provisioner, SidecarSetup
    from pytest_egress.targets.sidecars.sidecar import AnyLink

log = logging.getLogger("pytest_egress.engine")  # users filter logs by this name
T = TypeVar("T")
MOST_RETIRED: Final = 4  # each one is a process of 10 MB
EACH_ITS_OWN: Final = "Each container has a sidecar of its own from now on: %s"

SETTLE_SECONDS: Final = 5.0  # far more than a start takes; a hanging engine may cost that much


class NotReadyError(Exception):
    """A sidecar that was to be ready has failed, has ended, or has another setup than is needed."""


class ReadySidecar:
    """One sidecar that is created and started on a thread of its own."""

    def __init__(
        self,
        create: Callable[[], Sidecar],
        start: Callable[[Sidecar], AnyLink] = lambda sidecar: sidecar.start(),
    ) -> None:
        self._create, self._start = create, start
        self._created: Future[Sidecar] = Future()
        self._link: Future[AnyLink] = Future()
        self._thread = threading.Thread(target=self._run, name="egress sidecar", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            sidecar = self._create()
            self._created.set_result(sidecar)
            self._link.set_result(self._start(sidecar))
        except BaseException as error:  # each has removed what it had made
            for step in (self._created, self._link):
                if not step.done():
                    step.set_exception(error)

    def created(self, setup: SidecarSetup) -> Sidecar:
        """Wait until the sidecar has been created; NotReadyError where another one has to be started instead."""
        sidecar = result_of(self._created)
        if sidecar.setup != setup:
            raise NotReadyError(f"it has the setup {sidecar.setup}, not {setup}")
        if self._link.done() and link_has_ended(self.link()):
            raise NotReadyError("it has ended")
        return sidecar

    def link(self) -> AnyLink:
        """Wait until the sidecar has started; NotReadyError where it has not."""
        return result_of(self._link)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def join(self) -> Sidecar | None:
        """The result is None where no sidecar was created."""
        self._thread.join()
        return None if self._created.exception() else self._created.result()


class ReadySidecars:
    """The sidecars of a session that are ahead of their targets: one that is new, and those that have served others.

    A sidecar whose target has been removed moves to a new network namespace for its next one. Where a sidecar cannot,
    or must not, each target has a new one.

    Attributes:
        expects_more: Whether a container is likely to be started after the present one, which the session cannot know.
    """

    def __init__(self, engine: Engine, provisioner: Provisioner, *, reuse: bool = False) -> None:
        self._engine, self._provisioner = engine, provisioner
        self._reuse = reuse  # until the kernel refuses it
        self._has_reused = False
        self._relay = RelayOfRun(engine)
        self._retired: list[Sidecar] = []
        self._lock: Final = threading.Lock()
        self._waiting: ReadySidecar | None = None
        self.expects_more: Callable[[], bool] = lambda: False

    def prepare(self) -> None:
        """Start a sidecar in the background, unless one waits."""
        with self._lock:
            if self._waiting is None and not self._retired:
                with contextlib.suppress(RuntimeError):  # no thread can be started
                    self._waiting = ReadySidecar(self._create)

    def prepare_next(self, present: Sidecar) -> None:
        """Start a sidecar in the background, unless that of the target that has just started can serve the next one."""
        if not (self._reuse and present.is_reusable) and self.expects_more():
            self.prepare()

    def _create(self) -> Sidecar:
        engine, setup = self._engine, self._provisioner.setups[0]
        if setup.image is not None:
            # A pull would show its progress, which is a test's to show.
            engine.client.images.get(setup.image)
        return self.create(setup, reusable=True)

    def create(self, setup: SidecarSetup, *, reusable: bool, **options: Any) -> Sidecar:
        """A reusable sidecar may serve several targets, if any sidecar of this session may."""
        engine = self._engine
        return Sidecar.create(
            engine.client,
            labels=engine.marks,
            folder=engine.folder,
            setup=setup,
            reusable=reusable and self._reuse and not engine.is_podman,
            relay=self._relay.for_sidecar(setup),
            removes_itself=not engine.is_podman,  # two removals of one container can deadlock Podman
            **options,
        )

    def settle(self) -> None:
        """Wait until nothing goes on in the background: it would be seen in a test's log, and by its mocks."""
        with self._lock:
            waiting = self._waiting
        if waiting is not None:
            waiting.wait(SETTLE_SECONDS)

    def take(self) -> ReadySidecar | None:
        """The sidecar may still be starting; the caller releases it."""
        with self._lock:
            taken, self._waiting = self._waiting, None
            if taken is not None or not self._retired:
                return taken
            sidecar = self._retired.pop()
        return ReadySidecar(lambda: sidecar, self._renew)

    def _renew(self, sidecar: Sidecar) -> AnyLink:
        try:
            return sidecar.renew()
        except LinkError as error:
            self._reuse = False
            log.warning(EACH_ITS_OWN, error)
            raise

    def stop_reuse(self) -> None:
        """Sidecars that wait already serve one more target."""
        self._reuse = False

    def check_joined(self, sidecar: Sidecar, name: str) -> None:
        """Raise LinkError where the sidecar has moved, and the target is not in its new namespace."""
        if not sidecar.has_served:
            return
        try:
            sidecar.check_joined(name)
        except LinkError:
            self.stop_reuse()
            raise

    def give_up_reuse(self, error: LinkError) -> bool:
        """After a sidecar's failure, have each target served by a sidecar of its own; return whether that may help.

        It may where no sidecar of this session has served a target, since one that is to serve several needs more.
        """
        if not self._reuse or self._has_reused or self._engine.is_podman:
            return False
        self._reuse = False
        log.warning(EACH_ITS_OWN, error)
        return True

    def retire(self, sidecar: Sidecar) -> None:
        """Keep a sidecar, whose target has been removed, for another target; release it where it cannot serve one."""
        if self._reuse and sidecar.retire():
            self._has_reused = True
            with self._lock:
                if len(self._retired) < MOST_RETIRED:
                    self._retired.append(sidecar)
                    return
        self.release(sidecar)

    def release(self, sidecar: Sidecar) -> None:
        """End the sidecar by its link, if it has one.

        Docker removes a container that has ended. Podman is not asked to, and a sidecar without a link may not have
        started: these are removed.
        """
        if sidecar.link is not None:
            sidecar.end()
            if not self._engine.is_podman:
                return
        sidecar.remove()

    def close(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
            left, self._retired = self._retired, []
        if waiting is not None and (sidecar := waiting.join()) is not None:
            left.append(sidecar)
        with contextlib.ExitStack() as releases:  # all are called, even if one raises
            releases.enter_context(engine_errors("remove the relay"))
            releases.callback(self._relay.close)
            for sidecar in left:
                releases.enter_context(engine_errors("remove a sidecar"))
                releases.callback(self.release, sidecar)


def result_of(step: Future[T]) -> T:
    try:
        return step.result()
    except Exception as error:
        raise NotReadyError(f"it has failed: {error}") from error


def link_has_ended(link: AnyLink) -> bool:
    """Whether the sidecar of a link that nothing reads has ended."""
    return bool(await_ready(link.channel, BYTE_OR_END, 0))
