"""What every egress of a run shares: one engine, one CA, one ledger, and the windows of its tests.

Knows nothing of pytest.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pytest_egress.authority import Authority, see_real_dates
from pytest_egress.connection import where_stands
from pytest_egress.containers import Container, Host
from pytest_egress.engine import Engine
from pytest_egress.exchange import DnsQuery, Entry
from pytest_egress.ledger import CUT_SECONDS, DRAIN_SECONDS, Activity, Ledger, Place, Window
from pytest_egress.once import once_property
from pytest_egress.report import fold, outcome_text, route_line
from pytest_egress.routing import RouteTable

if TYPE_CHECKING:
    import docker
    import trustme

    from pytest_egress.roots import Roots

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


def default_client(address: str | None = None) -> docker.DockerClient:
    """The client of an engine, by default of the one that the environment names.

    Args:
        address: As DOCKER_HOST has it; what else the environment says holds for it too.
    """
    from pytest_egress.endpoint import make_client

    return make_client(address)


def default_ca() -> trustme.CA:
    """A CA of this run alone."""
    import trustme

    return trustme.CA()


class Scoped(Protocol):
    """What a session needs of an egress."""

    containers: list[Container]

    @property
    def ledger(self) -> list[Entry]:
        """Every attempt in order."""
        ...

    def tables(self) -> list[RouteTable]:
        """The route tables that apply, nearest first."""
        ...

    def close(self, keep: bool = False) -> None:
        """Remove its containers."""
        ...


class Session(Host):
    """One engine, one CA, one ledger.

    Args:
        client: Makes the engine's client; called when the first container starts.
        ca: Makes the CA; called when the first container starts.
        defaults: What holds outside of tests, as fields of a `Window`.
        link: How sidecars are reached, as `Engine` takes it.
        sidecar_image: Whose Python they run, likewise.
        address: The engine's, where a setting names one: for errors.
        keep: Whether containers stay until it is known whether their test has failed.
    """

    def __init__(
        self,
        *,
        client: Callable[[], docker.DockerClient] = default_client,
        ca: Callable[[], trustme.CA] = default_ca,
        defaults: Mapping[str, Any] = MappingProxyType({}),
        link: str | None = None,
        sidecar_image: str | None = None,
        address: str | None = None,
        keep: bool = False,
    ) -> None:
        self.keep = keep
        self._make_ca, self._defaults = ca, defaults
        self.engine = Engine(client, uuid.uuid4().hex, link, sidecar_image, address)
        self.ledger = Ledger()
        self.ledger.routes_changed = self.revise
        self.scopes: list[Scoped] = []
        self.containers: list[
            Container
        ] = []  # those that live, and those that this test has started
        self.roots: dict[str, Roots] = {}
        self.roots_lock = threading.Lock()
        self._between: list[Window] = []

    @once_property
    def authority(self) -> Authority:  # type: ignore[override]  # made when first needed
        """Issues the leaves."""
        see_real_dates()
        return Authority(self._make_ca())

    def place(self, container: Container) -> Place:
        """The window and the routes for what a container attempts now."""
        with self.ledger.changed:
            if container.start_window is not None:
                return Place(window=container.start_window, tables=container.owner.tables())
            if self.ledger.window is not None:
                return Place(
                    window=self.ledger.window,
                    tables=self.scopes[-1].tables() if self.scopes else (),
                )
            return Place(window=container.owner.between, tables=container.owner.tables())

    def open_window(self, **fields: Any) -> Window:
        """Begin a test: what begins from now on belongs to it.

        Args:
            fields: Of the `Window`.
        """
        window = Window(**{**self._defaults, **fields})
        with self.ledger.changed:
            self.ledger.window = window
            self.containers = self.live()
            window.complaints += [each.loss for each in self.containers if each.loss]
        self.revise()
        return window

    def close_window(self, window: Window, timeout: float = DRAIN_SECONDS) -> None:
        """End a test, when all that had begun in it has ended.

        Args:
            timeout: Seconds for handlers that still run; one that runs on becomes part of the verdict.
        """
        if self.ledger.window is not window:
            return
        for container in self.live():
            container.settle()
            container.gateway.turn_away()
        if not self.ledger.wait_for(lambda: not window.activities, timeout):
            self._cut_off(window, timeout)
        with self.ledger.changed:
            self.ledger.window, self.ledger.closing = None, window
        try:
            self._end_raw(window, timeout)
        finally:
            with self.ledger.changed:
                self.ledger.closing = None

    def revise(self) -> None:
        """Look again at what is open and is not read as requests."""
        for container in self.live():
            container.gateway.revise()

    def _cut_off(self, window: Window, timeout: float) -> None:
        """Cut what goes on; what breaks off by it is recorded in this window yet, a handler that runs is reported."""
        with self.ledger.changed:
            left = list(window.activities)
        running = [activity for activity in left if activity.route is not None]
        window.stuck += [stuck_text(activity, timeout) for activity in running]
        for activity in left:
            activity.cut()
        self.ledger.wait_for(lambda: window.activities <= {*running}, CUT_SECONDS)

    def _end_raw(self, window: Window, timeout: float) -> None:
        """Cut the raw connections that the test let live; their handlers see the end, and return."""
        over = [c for container in self.live() for c in container.gateway.revise(test_over=True)]
        if not self.ledger.wait_for(lambda: all(c.ended for c in over), timeout):
            left = (c.activity for c in over if not c.ended and c.activity.route is not None)
            window.stuck += [stuck_text(activity, timeout) for activity in left]

    def live(self) -> list[Container]:
        """The containers that have not been removed."""
        return [container for egress in self.scopes for container in egress.containers]

    def any_container(self, window: Window) -> bool:
        """Whether a container ran while a window was open."""
        return bool(self.live() or self.containers_of(window))

    def containers_of(self, window: Window) -> list[Container]:
        """The containers that were started in a window."""
        return [container for container in self.containers if container.born is window]

    def name(self, image: str) -> str:
        """A name for the ledger: the image's last part, numbered where it is taken."""
        short = image.rpartition("/")[2]
        taken = sum(1 for container in self.containers if container.name.partition("#")[0] == short)
        return f"{short}#{taken + 1}" if taken else short

    def outside(self) -> list[str]:
        """What shared containers did outside of any test, as lines."""
        entries = [
            e for window in self._between for e in window.entries if not isinstance(e, DnsQuery)
        ]
        complaints = [text for window in self._between for text in window.complaints]
        return complaints + [
            f"{e.container}: {outcome_text(e)}" + (f"  ({n} times)" if n > 1 else "")
            for e, n in fold(entries)
        ]

    def log_sections(self, window: Window | None = None) -> list[tuple[str, str]]:
        """Title and tail of the log, for each container that runs or ran in a window."""
        shown = self.live() + (self.containers_of(window) if window else [])
        tails = {container.name: container.log_tail() for container in shown}
        return [(f"container {name}", tail) for name, tail in tails.items() if tail]

    def new_window(self) -> Window:
        """A window that is judged as the running test's, outside of one by the defaults."""
        running = self.ledger.window
        return (
            Window(policy=running.policy, dns=running.dns, drain_seconds=running.drain_seconds)
            if running
            else Window(**self._defaults)
        )

    def between(self) -> Window:
        """A window for what falls outside of tests."""
        self._between.append(Window(**self._defaults))
        return self._between[-1]

    def close(self) -> None:
        """Remove all that is left; calling it again does nothing, and neither does a forked child."""
        if self.engine.inherited:
            return
        for egress in reversed(self.scopes.copy()):
            egress.close()
        self.engine.close()


def stuck_text(activity: Activity, timeout: float) -> str:
    """A handler that still runs after a test, and where it stands."""
    assert activity.route is not None
    return (
        f"the handler of {route_line(activity.route)} still ran {timeout:g} s after the test\n"
        f"  for {activity.what}\n  at {where_stands(activity.thread)}"
    )
