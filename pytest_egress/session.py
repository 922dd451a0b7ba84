"""`Session`: the engine, the CA, the ledger and the windows that all egresses of a run share.

This module knows nothing of pytest. It is long, since what ends a window, and in which order, stands here in one piece.

Threads: tests run on one thread. Every thread of a gateway calls `attempt_context`, and any thread that changes a route
calls `revise`. `scopes`, `containers` and `InnerEgress.containers` are changed, and copied before iteration, under
`Ledger.changed`. Nothing else is waited for while that is held.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from pytest_egress.base.callers import where_stands
from pytest_egress.base.clock import LOOK_SECONDS
from pytest_egress.base.once import once_property
from pytest_egress.engine.engine import Engine
from pytest_egress.errors import CallError
from pytest_egress.gateway.tls.authority import (
    Authority,
    check_tls_version,
    load_cryptography_unfrozen,
)
from pytest_egress.ledger.ledger import CUT_SECONDS, Ledger
from pytest_egress.ledger.report import (
    Shared,
    evicted_lines,
    fold,
    lost_lines,
    prose,
    restless_headline,
    restless_text,
    route_line,
)
from pytest_egress.ledger.secrets import DeclaredSecrets
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.windows import (
    DRAIN_SECONDS,
    EVENTS_SECONDS,
    STILL_STREAMED,
    Activity,
    AttemptContext,
    Pause,
    Streams,
    Window,
)
from pytest_egress.targets.container import Container, Owner
from pytest_egress.targets.results import TAIL_LINES, tail_of
from pytest_egress.targets.sidecars.provision import Provisioner, reuse_of_environment
from pytest_egress.targets.sidecars.ready import ReadySidecars
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange
from pytest_egress.traffic.notes import Notes
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor

if TYPE_CHECKING:
    import docker
    import trustme

    from pytest_egress.cassettes import Cassettes, CassetteStack, Home
    from pytest_egress.targets.trust.packages import Packaged
    from pytest_egress.targets.trust.roots import Roots
    from pytest_egress.traffic.redaction.declared import Redaction


def default_client(address: str | None = None) -> docker.DockerClient:
    """The address replaces DOCKER_HOST, and has its form; other variables still count."""
    from pytest_egress.engine.endpoint import make_client

    return make_client(address)


def default_ca() -> trustme.CA:
    import trustme

    return trustme.CA()


class Scoped(Owner, Protocol):
    """The part of an `InnerEgress` that a session uses."""

    containers: list[Container]

    @property
    def ledger(self) -> list[Entry]: ...

    def windows(self) -> list[Window]: ...

    def close(self, keep: bool = False) -> None: ...


class Session:
    """The engine, the CA, the ledger and the windows that all egresses of a run share.

    Args:
        client: Makes the engine's client; called when the first container starts.
        ca: Makes the CA; called when the first container starts.
        defaults: The fields of windows that are not a test's.
        address: The engine's address, where a setting names one; for errors.
        keep: Whether containers stay until it is known whether their test has failed.
        sidecar_reuse: Whether a sidecar may serve several targets, one after the other; None for the environment's
            setting.
        rules: Returns what the suite declares to be secret; called when the first container starts.
        cassettes: The cassettes of the run.

    Raises:
        EngineError: `PYTEST_EGRESS_SIDECAR_REUSE` is neither "on" nor "off".
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
        sidecar_reuse: bool | None = None,
        rules: Callable[[], Redaction] | None = None,
        cassettes: Cassettes | None = None,
    ) -> None:
        self.keep, self.trust = keep, trust
        self._make_ca, self._defaults, self._rules = ca, defaults, rules
        self.engine = Engine(client, uuid.uuid4().hex, address)
        self.provisioner = Provisioner(self.engine, link, sidecar_image)
        reuse = reuse_of_environment() if sidecar_reuse is None else sidecar_reuse
        self.sidecars = ReadySidecars(self.engine, self.provisioner, reuse=reuse)
        self.ledger = Ledger()
        self._cassettes = cassettes
        self.ledger.routes_changed, self.ledger.running = self.act_on_routes, self.running
        self.ledger.turns_changed = self.act_on_turns
        self.secrets = DeclaredSecrets(self.ledger)
        self.ledger.learn = self.secrets.learn
        self.scopes: list[Scoped] = []
        # Those that have not been removed, and those that the running test has started.
        self.containers: list[Container] = []
        self.images: dict[str, str] = {}  # of containers, by the latest of each name
        self.roots: dict[str, Roots] = {}
        self.packaged: dict[object, Packaged] = {}
        self.roots_lock = threading.Lock()
        self._outside: list[str] = []
        self._latest_test = ""
        self.latest_opened: float | None = None  # when the latest test began

    @property
    def notes(self) -> Notes | None:
        """What is kept beside the entries; None where nobody has asked for it by `take_notes`."""
        found: Notes | None = self.ledger.accounts.notes
        return found

    def take_notes(self) -> None:
        """Keep more than the entries have, for a report: times, connections, messages, logs. No container runs yet."""
        self.ledger.accounts.notes = Notes(self.ledger.now)

    @once_property
    def authority(self) -> Authority:
        load_cryptography_unfrozen()
        return Authority(self._make_ca())

    def check_tls_version(self, word: str) -> None:
        """Refuse a value of `tls_version=` that this Python's OpenSSL is built without: ValueError."""
        check_tls_version(word)

    def stack(self, place: Home) -> CassetteStack:
        """The cassettes of a scope."""
        from pytest_egress.cassettes import Cassettes, CassetteStack

        self._cassettes = self._cassettes or Cassettes()
        return CassetteStack(
            self._cassettes, place, self._variables_of, lambda: self.ledger.redactor
        )

    def _variables_of(self, container: str) -> Mapping[str, str]:
        """The environment that a container was given, by its name."""
        with self.ledger.changed:
            named = [each for each in self.containers if each.name == container]
        return named[-1].variables if named else {}

    def hide(self, variables: Mapping[str, str]) -> None:
        """Hide the secrets among the variables of a container from now on, in whatever is shown of the run."""
        declared, accounts = self._declared, self.ledger.accounts
        with self.ledger.changed:
            redactor = accounts.redactor or declared
            if redactor.rules is not declared.rules:  # that of secrets which no container has had
                redactor = declared.hiding(redactor.secrets)
            self.ledger.hide_by(redactor)
            self.secrets.learn(variables)
            self.ledger.hide_by(self.ledger.redactor.knowing(variables))

    @once_property
    def _declared(self) -> Redactor:
        return BY_NAMES if self._rules is None else Redactor.declared(self._rules())

    def attempt_context(self, container: Container) -> AttemptContext:
        with self.ledger.changed:
            if container.start_window is not None:
                return AttemptContext(
                    window=container.start_window, tables=container.owner.tables()
                )
            if (window := self.ledger.window) is not None:
                tables = self.scopes[-1].tables() if self.scopes else ()
                if window.trial is not None:
                    tables = (*window.trial.tables, *tables)
                return AttemptContext(window=window, tables=tables)
            return AttemptContext(window=container.owner.between, tables=container.owner.tables())

    def open_window(self, **fields: Any) -> Window:
        """Attempts that begin from now on belong to the window; `fields` replace the defaults."""
        with self.ledger.changed:
            self.secrets.learn(opens_window=True)
            window = self._window(**{**self._defaults, "previous": self._latest_test, **fields})
            self.ledger.window, self._latest_test = window, window.name
            self.latest_opened = window.opened
            self.containers = self.live()
            window.complaints += [
                f"{each.loss}; {LOST_BEFORE}" for each in self.containers if each.loss
            ]
        self.revise()
        return window

    def close_window(self, window: Window, timeout: float = DRAIN_SECONDS) -> None:
        """Close the window of a test, after its activities have ended; nothing happens where another one is open.

        Args:
            timeout: Seconds for handlers to end; one that still runs becomes part of the verdict.
        """
        if self.ledger.window is not window:
            return
        self.secrets.learn()
        for container in self.live():
            container.gateway.settle()
            container.gateway.turn_away()
        self.drain(window, timeout, AFTER_TEST)
        with self.ledger.changed:
            self.ledger.window, self.ledger.closing = None, window
        try:
            self._end_pauses(window)
            self.end_streams(window, timeout, AFTER_TEST)
            self._end_raw(window, timeout)
        finally:
            with self.ledger.changed:
                self.ledger.closing = None
            window.account.close()

    def end_start(self, containers: Sequence[Container], window: Window) -> None:
        """Raw connections of shared containers stay open after their start, such as those of a pool."""
        for container in containers:
            container.gateway.settle()
            container.gateway.turn_away()
        self.drain(window, window.drain_seconds, AFTER_START)
        with self.ledger.changed:
            for container in containers:
                container.start_window = None
        self._end_pauses(window)
        self.end_streams(window, window.drain_seconds, AFTER_START)
        window.account.close()
        for container in containers:
            container.gateway.revise()

    def drain(self, window: Window, timeout: float, after: str) -> None:
        """Wait until the activities of a window have ended, and cut those that have not.

        An activity that waits for a fault, such as `silence()`, is not waited for, and goes on. One that waits for a
        real server, and whose client has left, is cut at once. A streamed answer may have no end: it is left to
        `end_streams`, one of events after a moment.

        Args:
            timeout: Seconds for handlers to end; one that still runs becomes part of the verdict.
            after: The event after which the handlers ran on, in words.
        """
        with self.engine.progress.step("waiting until what containers have sent is answered"):
            wait_for, soon = self.ledger.wait_for, min(timeout, EVENTS_SECONDS)
            done = wait_for(lambda: not awaited(window), soon, LOOK_SECONDS) or wait_for(
                lambda: not awaited(window, but="events"), timeout - soon, LOOK_SECONDS
            )
        if done:
            self._cut_abandoned(window)
        else:
            self._cut_off(window, timeout, after)

    def revise(self) -> None:
        """Have each gateway check whether a route still allows its open raw connections."""
        for container in self.live():
            container.gateway.revise()

    def act_on_routes(self) -> None:
        """Have each gateway act on a change of the routes; LinkError where a target's kernel cannot act on it."""
        live = self.live()
        for container in live:
            container.gateway.revise()
        for container in live:
            container.gateway.dials.check()

    def act_on_turns(self) -> None:
        """Have each target's kernel know what the next connections are answered by."""
        for container in self.live():
            container.gateway.dials.apply()

    def _cut_abandoned(self, window: Window) -> None:
        with self.ledger.changed:
            left = {activity for activity in at_work(window) if activity.is_abandoned()}
        for activity in left:
            activity.cut()
        self.ledger.wait_for(lambda: left.isdisjoint(window.activities), CUT_SECONDS)

    def _cut_off(self, window: Window, timeout: float, after: str) -> None:
        """A handler that still runs after the cut is noted."""
        with self.ledger.changed:
            left = [activity for activity in at_work(window) if not activity.streams]
            running = [a for a in left if a.route is not None and not a.is_abandoned()]
        stuck = [*stuck_texts(running, timeout, after)]
        with self.ledger.changed:
            window.stuck += stuck
        for activity in left:
            activity.cut()
        self.ledger.wait_for(
            lambda: {a for a in at_work(window) if not a.streams} <= {*running}, CUT_SECONDS
        )

    def end_streams(self, window: Window, timeout: float, after: str) -> None:
        """End the streamed answers that go on in a window that has been closed: most of them never end by themselves.

        A stream of a wider route's goes on, as its raw connections do.

        Args:
            timeout: Seconds for their bodies to be closed; one that still runs becomes part of the verdict.
            after: The event after which they ran on, in words.
        """
        with self.ledger.changed:
            over = {a for a in at_work(window) if a.streams and is_over(a.route or a.passes)}
        for activity in over:
            if isinstance(entry := activity.what, Exchange) and activity.streams:
                entry.note = f"{STILL_STREAMED} {after}, and was ended"
            activity.cut()
        if not self.ledger.wait_for(lambda: over.isdisjoint(window.activities), timeout):
            stuck = [*stuck_texts(over & window.activities, timeout, after)]
            with self.ledger.changed:
                window.stuck += stuck

    def _end_pauses(self, window: Window) -> None:
        """End the activities that wait for a fault in a closed window: what clients do then belongs to no test."""
        window.over.set()
        with self.ledger.changed:
            paused = {activity for activity in window.activities if activity.pause is not None}
        self.ledger.wait_for(lambda: not window.activities & paused, CUT_SECONDS)

    def _end_raw(self, window: Window, timeout: float) -> None:
        """Cut the raw connections that routes of the test allowed, and wait for their handlers to return."""
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
        """The widest scope is the first."""
        with self.ledger.changed:
            return self.scopes.copy()

    def running(self) -> list[str]:
        return [container.name for container in self.live() if container.is_running()]

    def shared(self, window: Window) -> list[Shared]:
        """The origins of the containers that several tests share; `window` is that of the judged test."""
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
        """Return when nothing has been attempted for `seconds`, and nothing is under way; CallError after `timeout`."""
        clock = self.ledger.clock
        deadline = clock() + timeout
        step = self.engine.progress.step(f"waiting for {seconds:g} s without an attempt")
        with step, self.ledger.watch() as seen:
            while (left := deadline - clock()) > 0:
                if self._stays_quiet(min(seconds, left), seen) and left >= seconds:
                    return
                self.ledger.wait_for(
                    lambda: not self.ledger.is_busy, deadline - clock(), LOOK_SECONDS
                )
            with self.ledger.changed:
                activities, pauses = [*self.ledger.under_way], [*self.ledger.pauses.items()]
            under_way = [*under_way_lines(activities), *delay_lines(activities, pauses)]
            known = self.ledger.redactor.known
            error = CallError(known(restless_text(seconds, timeout, under_way, seen)))
            error.headline = known(restless_headline(seconds, under_way, seen))
            raise error

    def _stays_quiet(self, seconds: float, seen: Sequence[Entry]) -> bool:
        """Attempts that have arrived and are not yet served count too."""

        def stirs() -> bool:
            now = self.ledger.begun, len(seen)
            return self.ledger.is_busy or now != before

        with self.ledger.changed:
            before = self.ledger.begun, len(seen)
            if self.ledger.wait_for(stirs, seconds):
                return False
        for container in self.live():
            container.gateway.settle()
        with self.ledger.changed:
            return not stirs()

    def any_container(self, window: Window | None) -> bool:
        return bool(self.live() or (window and self.containers_of(window)))

    def containers_of(self, window: Window) -> list[Container]:
        with self.ledger.changed:
            return [container for container in self.containers if container.born is window]

    def name(self, image: str, called: str = "") -> str:
        """The name of a new container, by what it is called or by its image. The caller holds `Ledger.changed`."""
        short = called or image.rpartition("/")[2]
        taken = sum(1 for container in self.containers if container.name.partition("#")[0] == short)
        name = f"{short}#{taken + 1}" if taken else short
        self.images[name] = image
        return name

    def outside(self) -> list[str]:
        """Lines about what containers of ended scopes did outside of any test, and what was cut after the last one."""
        lines = [*self._outside, *lost_lines(self.ledger.accounts.lost_late)]
        return [*map(self.ledger.redactor.known, lines)]

    def leave(self, scope: Scoped) -> None:
        with self.ledger.changed:
            if scope in self.scopes:
                self.scopes.remove(scope)
                self._outside += outside_lines(scope.between)

    def release(self, window: Window) -> None:
        """The window has been judged and reported."""
        with self.ledger.changed:
            window.entries = []
            self.containers = self.live()

    def log_sections(self, window: Window | None = None) -> list[tuple[str, str]]:
        containers = self.live() + (self.containers_of(window) if window else [])
        return log_sections(containers, self.ledger.redactor, window)

    def new_window(self) -> Window:
        """Outside of a test the window has the defaults."""
        running = self.ledger.window
        if running is None:
            return self._window(**self._defaults)
        return self._window(
            policy=running.policy,
            dns=running.dns,
            drain_seconds=running.drain_seconds,
            secrets=running.secrets,
        )

    def between(self) -> Window:
        return self._window(**self._defaults)

    def _window(self, **fields: Any) -> Window:
        account = self.ledger.accounts.open()
        return Window(**fields, account=account, wider_secrets=self.secrets.wider)

    def close(self) -> None:
        """Calling it again, or in a forked child, does nothing."""
        if self.engine.inherited:
            return
        with contextlib.ExitStack() as ends:  # all are called, even if one raises
            ends.callback(self.engine.close)
            ends.callback(self.sidecars.close)
            # The last one, which is the narrowest, is closed first.
            for egress in self.open_scopes():
                ends.callback(egress.close)


LOST_BEFORE: Final = (
    "that was before this test, and what the container has sent since may not have been seen"
)
AFTER_TEST: Final = "the test"
AFTER_START: Final = "its container had started"
AFTER_END: Final = "its container had ended"


def outside_lines(window: Window) -> list[str]:
    """Lines about the attempts in a window that is no test's."""
    entries = (e for e in window.entries if not isinstance(e, DnsQuery) or e.outcome != "recorded")
    told = [*window.complaints, *evicted_lines(window.evicted), *lost_lines(window.account.lost)]
    return told + [
        f"{entry.container}: {outcome_text(entry)}" + (f"  ({count} times)" if count > 1 else "")
        for entry, count in fold(entries)
    ]


def log_sections(
    containers: Sequence[Container], redactor: Redactor, window: Window | None = None
) -> list[tuple[str, str]]:
    """Of shared containers only the output since `window`, that of the failed test, was opened is shown."""
    tails = {container.name: log_text(container, window, redactor) for container in containers}
    return [(f"container {name}", tail) for name, tail in tails.items() if tail]


def log_text(container: Container, window: Window | None, redactor: Redactor) -> str:
    if window is None or container.owner.scope == "test" or container.born is window:
        tail = tail_of(container.log.tail(), redactor)
        lines = [LAST_PART if len(tail.splitlines()) >= TAIL_LINES else "", tail]
    else:
        tail = tail_of(container.log.since(window.opened), redactor)
        lines = [THIS_PART if tail else NO_PART, tail]
    lines += prose(f"({container.killed})", "") if container.killed else []
    return "\n".join(filter(None, lines))


ALL_OF_IT: Final = "all of it: its .logs(), or `docker logs` after --egress-keep"
LAST_PART: Final = f"(the last {TAIL_LINES} lines; {ALL_OF_IT})"
THIS_PART: Final = f"(since this test began; {ALL_OF_IT})"
NO_PART: Final = f"(nothing since this test began; {ALL_OF_IT})"


def at_work(window: Window) -> list[Activity]:
    """Activities that just wait for a fault are left out."""
    return [activity for activity in window.activities if activity.pause is None]


def awaited(window: Window, *, but: Streams = "") -> list[Activity]:
    """The activities at work whose client waits too; streamed answers of the kind `but` are left out."""
    return [
        activity
        for activity in at_work(window)
        if not activity.is_abandoned() and not (but and activity.streams == but)
    ]


def is_over(route: Any) -> bool:
    """A route of None is a policy of the window's."""
    return route is None or route.scope == "test" or route.removed or route.ended


def stuck_texts(activities: Iterable[Activity], timeout: float, after: str) -> Iterator[str]:
    """Yield a text about each handler that still runs; `after` is the event after which it ran on, in words."""
    for activity in activities:
        if (route := activity.route) is not None:  # read once: it may end meanwhile
            yield (
                f"the {activity.part} of {route_line(route)} still ran {timeout:g} s after {after}\n"
                f"  for {activity.what}\n  at {where_stands(activity.thread)}"
            )


def delay_lines(
    activities: Sequence[Activity], pauses: Iterable[tuple[Pause, bool]]
) -> Iterator[str]:
    """Lines about delays that none of these activities waits for, such as those of late answers of DNS."""
    told = {activity.pause for activity in activities}
    for pause, is_endless in pauses:
        if not is_endless and pause not in told:
            yield f"  {pause}  of {pause.entry.container}"


def under_way_lines(activities: Iterable[Activity]) -> Iterator[str]:
    for activity in activities:
        route = activity.route
        pause = activity.pause  # read once, too
        yield f"  {pause or (activity.what if route else activity.told())}  of {activity.container}"
        if route is not None and pause is None:
            yield f"      in the {activity.part} of {route_line(route)}"
            yield f"      at {where_stands(activity.thread)}"
