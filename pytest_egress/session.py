"""What every egress of a run shares: one engine, one CA, one ledger, and the windows of its tests.

Knows nothing of pytest.

Threads: tests run on one; `attempt_context` is called by every thread of a gateway, `revise` by whoever changes a
route. `scopes`, `containers` and `Egress.containers` change, and are copied before somebody goes over them, under
`Ledger.changed`; nothing is waited for while it is held.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from pytest_egress.base.callers import where_stands
from pytest_egress.base.once import once_property
from pytest_egress.engine.engine import Engine
from pytest_egress.errors import CallError
from pytest_egress.gateway.authority import Authority, load_cryptography_unfrozen
from pytest_egress.ledger.ledger import CUT_SECONDS, Ledger
from pytest_egress.ledger.report import (
    Shared,
    evicted_lines,
    fold,
    outcome_text,
    prose,
    restless_text,
    route_line,
)
from pytest_egress.ledger.windows import DRAIN_SECONDS, Activity, AttemptContext, Window
from pytest_egress.targets.container import Container, Owner
from pytest_egress.targets.provision import Provisioner
from pytest_egress.traffic.entries import DnsQuery, Entry

if TYPE_CHECKING:
    import docker
    import trustme

    from pytest_egress.targets.packages import Packaged
    from pytest_egress.targets.roots import Roots

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


def default_client(address: str | None = None) -> docker.DockerClient:
    """The client of an engine, by default of the one that the environment names.

    Args:
        address: As DOCKER_HOST has it; what else the environment says holds for it too.
    """
    from pytest_egress.engine.endpoint import make_client

    return make_client(address)


def default_ca() -> trustme.CA:
    """A CA of this run alone."""
    import trustme

    return trustme.CA()


class Scoped(Owner, Protocol):
    """What a session needs of an egress."""

    containers: list[Container]

    @property
    def ledger(self) -> list[Entry]:
        """Every attempt in order."""
        ...

    def close(self, keep: bool = False) -> None:
        """Remove its containers."""
        ...


class Session:
    """One engine, one CA, one ledger.

    Args:
        client: Makes the engine's client; called when the first container starts.
        ca: Makes the CA; called when the first container starts.
        defaults: What holds outside of tests, as fields of a `Window`.
        link: How sidecars are reached, as `Provisioner` takes it.
        sidecar_image: Whose Python they run, likewise.
        address: The engine's, where a setting names one: for errors.
        keep: Whether containers stay until it is known whether their test has failed.
        trust: The paths of files that get the CA in each container that has them.
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
        trust: Sequence[str] = (),
    ) -> None:
        self.keep, self.trust = keep, trust
        self._make_ca, self._defaults = ca, defaults
        self.engine = Engine(client, uuid.uuid4().hex, address)
        self.provisioner = Provisioner(self.engine, link, sidecar_image)
        self.ledger = Ledger()
        self.ledger.routes_changed, self.ledger.running = self.revise, self.running
        self.scopes: list[Scoped] = []
        self.containers: list[
            Container
        ] = []  # those that live, and those that this test has started
        self.roots: dict[str, Roots] = {}
        self.packaged: dict[object, Packaged] = {}
        self.roots_lock = threading.Lock()
        self._outside: list[str] = []
        self._latest = ""  # test

    @once_property
    def authority(self) -> Authority:
        """Issues the leaves."""
        load_cryptography_unfrozen()
        return Authority(self._make_ca())

    def attempt_context(self, container: Container) -> AttemptContext:
        """The window and the routes for what a container attempts now."""
        with self.ledger.changed:
            if container.start_window is not None:
                return AttemptContext(
                    window=container.start_window, tables=container.owner.tables()
                )
            if (window := self.ledger.window) is not None:
                return AttemptContext(
                    window=window, tables=self.scopes[-1].tables() if self.scopes else ()
                )
            return AttemptContext(window=container.owner.between, tables=container.owner.tables())

    def open_window(self, **fields: Any) -> Window:
        """Begin a test: what begins from now on belongs to it.

        Args:
            fields: Of the `Window`.
        """
        with self.ledger.changed:
            window = Window(**{**self._defaults, "previous": self._latest, **fields})
            self.ledger.window, self._latest = window, window.name
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
        self.drain(window, timeout, AFTER_TEST)
        with self.ledger.changed:
            self.ledger.window, self.ledger.closing = None, window
        try:
            self._end_raw(window, timeout)
        finally:
            with self.ledger.changed:
                self.ledger.closing = None

    def end_start(self, container: Container, window: Window) -> None:
        """End the start of a shared container as a test is ended; raw connections stay, as those of a pool."""
        container.settle()
        container.gateway.turn_away()
        self.drain(window, window.drain_seconds, AFTER_START)
        with self.ledger.changed:
            container.start_window = None
        container.gateway.revise()

    def drain(self, window: Window, timeout: float, after: str) -> None:
        """Wait until all that has begun in a window has ended, and cut what has not.

        Args:
            timeout: Seconds for handlers that still run; one that runs on becomes part of the verdict.
            after: What they have outlasted, in words.
        """
        with self.engine.progress.step("waiting until what containers have sent is answered"):
            done = self.ledger.wait_for(lambda: not window.activities, timeout)
        if not done:
            self._cut_off(window, timeout, after)

    def revise(self) -> None:
        """Look again at what is open and is not read as requests."""
        for container in self.live():
            container.gateway.revise()

    def _cut_off(self, window: Window, timeout: float, after: str) -> None:
        """Cut what goes on; what breaks off by it is recorded in this window yet, a handler that runs is reported."""
        with self.ledger.changed:
            left = list(window.activities)
        running = [activity for activity in left if activity.route is not None]
        stuck = [*stuck_texts(running, timeout, after)]
        with self.ledger.changed:
            window.stuck += stuck
        for activity in left:
            activity.cut()
        self.ledger.wait_for(lambda: window.activities <= {*running}, CUT_SECONDS)

    def _end_raw(self, window: Window, timeout: float) -> None:
        """Cut the raw connections that the test let live; their handlers see the end, and return."""
        over = [c for container in self.live() for c in container.gateway.revise(test_over=True)]
        if not self.ledger.wait_for(lambda: all(c.ended for c in over), timeout):
            left = (c.activity for c in over if not c.ended)
            stuck = [*stuck_texts(left, timeout, AFTER_TEST)]
            with self.ledger.changed:
                window.stuck += stuck

    def live(self) -> list[Container]:
        """The containers that have not been removed."""
        with self.ledger.changed:
            return [container for egress in self.scopes for container in egress.containers]

    def open_scopes(self) -> list[Scoped]:
        """The scopes that have not ended, the widest first."""
        with self.ledger.changed:
            return self.scopes.copy()

    def running(self) -> list[str]:
        """The names of the containers whose programs run: the engine is asked."""
        return [container.name for container in self.live() if container.is_running()]

    def shared(self, window: Window) -> list[Shared]:
        """Where the containers come from that other tests have too.

        Args:
            window: Of a test.
        """
        return [
            Shared(
                container=each.name,
                scope=each.owner.scope,
                place=each.origin,
                fixture=each.fixture,
                test=each.born.name if each.born else "",
                previous="" if each.born is window else window.previous,
                opened=window.opened,
            )
            for each in self.live()
            if each.owner.scope != "test"
        ]

    def wait_until_quiet(self, seconds: float, timeout: float) -> None:
        """Return when nothing has been attempted for so long, and nothing is under way.

        Raises:
            CallError: There was no such time.
        """
        clock = self.ledger.clock
        deadline = clock() + timeout
        with self.ledger.watch() as seen:
            while (left := deadline - clock()) > 0:
                if self._stays_quiet(min(seconds, left), seen) and left >= seconds:
                    return
                self.ledger.wait_for(lambda: not self.ledger.under_way, deadline - clock())
            with self.ledger.changed:
                under_way = list(self.ledger.under_way)
            raise CallError(restless_text(seconds, timeout, [*under_way_lines(under_way)], seen))

    def _stays_quiet(self, seconds: float, seen: Sequence[Entry]) -> bool:
        """Whether nothing is attempted for a time, what has arrived by its end included."""

        def stirs() -> bool:
            now = self.ledger.begun, len(seen)
            return bool(self.ledger.under_way) or now != before

        with self.ledger.changed:
            before = self.ledger.begun, len(seen)
            if self.ledger.wait_for(stirs, seconds):
                return False
        for container in self.live():
            container.settle()
        with self.ledger.changed:
            return not stirs()

    def any_container(self, window: Window | None) -> bool:
        """Whether a container runs, or ran while a window was open."""
        return bool(self.live() or (window and self.containers_of(window)))

    def containers_of(self, window: Window) -> list[Container]:
        """The containers that were started in a window."""
        with self.ledger.changed:
            return [container for container in self.containers if container.born is window]

    def name(self, image: str) -> str:
        """A name for the ledger: the image's last part, numbered where it is taken; `Ledger.changed` is held."""
        short = image.rpartition("/")[2]
        taken = sum(1 for container in self.containers if container.name.partition("#")[0] == short)
        return f"{short}#{taken + 1}" if taken else short

    def outside(self) -> list[str]:
        """What the containers of the scopes that have ended did outside of any test, as lines."""
        return self._outside

    def leave(self, scope: Scoped) -> None:
        """Note that a scope has ended, and what its containers did outside of any test."""
        with self.ledger.changed:
            if scope in self.scopes:
                self.scopes.remove(scope)
                self._outside += outside_lines(scope.between)

    def release(self, window: Window) -> None:
        """Let go of what a test received: it is judged and reported."""
        with self.ledger.changed:
            window.entries = []
            self.containers = self.live()

    def log_sections(self, window: Window | None = None) -> list[tuple[str, str]]:
        """Title and tail of the log, for each container that runs or ran in a window."""
        return log_sections(self.live() + (self.containers_of(window) if window else []), window)

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
        return Window(**self._defaults)

    def close(self) -> None:
        """Remove all that is left; calling it again does nothing, and neither does a forked child."""
        if self.engine.inherited:
            return
        for egress in reversed(self.open_scopes()):
            egress.close()
        self.engine.close()


AFTER_TEST: Final = "the test"
AFTER_START: Final = "its container had started"
AFTER_END: Final = "its container had ended"


def outside_lines(window: Window) -> list[str]:
    """What fell outside of tests, as lines."""
    entries = (e for e in window.entries if not isinstance(e, DnsQuery) or e.outcome != "recorded")
    told = [*window.complaints, *evicted_lines(window.evicted)]
    return told + [
        f"{entry.container}: {outcome_text(entry)}" + (f"  ({count} times)" if count > 1 else "")
        for entry, count in fold(entries)
    ]


def log_sections(
    containers: Sequence[Container], window: Window | None = None
) -> list[tuple[str, str]]:
    """Title and tail of the log of each container that has written something.

    Args:
        window: Of the test that failed: of what is shared only what it wrote since then is shown.
    """
    tails = {container.name: log_text(container, window) for container in containers}
    return [(f"container {name}", tail) for name, tail in tails.items() if tail]


def log_text(container: Container, window: Window | None) -> str:
    """The tail of a log, and what has to be said about it."""
    if window is None or container.owner.scope == "test" or container.born is window:
        lines = [container.log_tail()]
    else:
        tail = container.log_since(window.opened)
        lines = [THIS_PART if tail else NO_PART, tail]
    lines += prose(f"({container.killed})", "") if container.killed else []
    return "\n".join(filter(None, lines))


ALL_OF_IT: Final = "all of it: its .logs(), or `docker logs` after --egress-keep"
THIS_PART: Final = f"(since this test began; {ALL_OF_IT})"
NO_PART: Final = f"(nothing since this test began; {ALL_OF_IT})"


def stuck_texts(activities: Iterable[Activity], timeout: float, after: str) -> Iterator[str]:
    """The handlers that still run after what they should have ended in, and where they stand."""
    for activity in activities:
        if (route := activity.route) is not None:  # read once: it may end meanwhile
            yield (
                f"the handler of {route_line(route)} still ran {timeout:g} s after {after}\n"
                f"  for {activity.what}\n  at {where_stands(activity.thread)}"
            )


def under_way_lines(activities: Iterable[Activity]) -> Iterator[str]:
    """What has begun and not ended, and where its handlers stand."""
    for activity in activities:
        route = activity.route
        yield f"  {activity.what if route else activity.told()}  of {activity.container}"
        if route is not None:
            yield f"      in the handler of {route_line(route)}"
            yield f"      at {where_stands(activity.thread)}"
