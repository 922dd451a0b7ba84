"""`InnerEgress`: what an `Egress` is for its session, its containers and the plugin.

It holds the routes, containers and windows of the scope, and has the steps by which a container starts and a scope
ends. Tests get an `Egress`, which has none of these names.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from pytest_egress.base.callers import caller
from pytest_egress.errors import CallError, ContainerError, EgressError
from pytest_egress.ledger.report import attempt_lines, fold
from pytest_egress.ledger.verdict import (
    Offence,
    error_of,
    first_handler_error,
    judge,
    unrouted_entries,
)
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.answers import innermost
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.declarations import Declaration, declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import INTERCEPT_HTTP, INTERCEPT_HTTPS
from pytest_egress.routes.route import LET_GO, Scope
from pytest_egress.routes.table import RouteTable
from pytest_egress.session import AFTER_END, Session
from pytest_egress.targets.container import Container
from pytest_egress.targets.plan import Plan
from pytest_egress.traffic.entries import Entry, Exchange, TcpConnection

if TYPE_CHECKING:
    from pytest_egress.cassettes import CassetteStack, Home

AnyContainer = TypeVar("AnyContainer", bound=Container)
Result = TypeVar("Result")


class InnerEgress:
    """One scope.

    Args:
        session: The session of the run.
        parent: The next wider scope.
        scope: How long it lasts.

    Attributes:
        table: Its routes, for attempts.
        routes: The routes declared in it, in order, removed ones included.
        containers: The containers started in it that have not been removed.
        between: The window for attempts of its containers outside of tests.
        window: The window of the test that ran when it was opened.
    """

    def __init__(
        self, session: Session, parent: InnerEgress | None = None, scope: Scope = "test"
    ) -> None:
        self.session: Final = session
        self.parent: Final = parent
        self.scope: Final[Scope] = scope
        self.table: Final = RouteTable()
        wider = () if parent is None else parent.tables()
        self._tables = (self.table, *wider)  # each attempt asks for them
        self.routes: list[InnerRoute] = []
        self.containers: list[Container] = []
        self.endings: list[Callable[[], object]] = []  # called before the containers are removed
        self.between: Final = (
            self.session.new_window() if scope == "test" else self.session.between()
        )
        self._starts: list[Window] = []
        self._to_judge: list[Window] = [self.between] if scope == "test" else []
        self._shared_start: Window | None = None  # of containers that something else starts
        self._has_started, self._has_let_go = False, False
        self.window: Window | None = self.session.ledger.window
        self.place: Home | None = None
        self._stack: CassetteStack | None = None  # the cassettes of its routes
        with self.session.ledger.changed:
            self.session.scopes.append(self)

    def tables(self) -> tuple[RouteTable, ...]:
        """The route tables of this scope and the wider ones, nearest first."""
        return self._tables

    def scopes(self) -> Iterator[InnerEgress]:
        """This scope and the wider ones, nearest first."""
        yield self
        if self.parent is not None:
            yield from self.parent.scopes()

    def add_below(self, cassette: Cassette, *, optional: bool) -> None:
        """Have a cassette answer every request that no route claims, of this scope or a wider one."""
        below = RouteTable()
        for kind in (INTERCEPT_HTTPS, INTERCEPT_HTTP):
            declaration = declare(kind, "*:*", cassette, optional=True)
            self.add(declaration, table=below, is_required=not optional)
        with self.session.ledger.changed:
            self._tables = (*self._tables, below)
        self.session.act_on_routes()

    def add(
        self,
        declaration: Declaration,
        *,
        table: RouteTable | None = None,
        is_required: bool | None = None,
    ) -> InnerRoute:
        """The route takes effect at once, for containers that run too.

        Args:
            table: Where it is looked up; the scope's own by default.
            is_required: Whether its recordings have to be played; by default, where it is not optional.
        """
        if declaration.tls_version is not None:
            self.session.check_tls_version(declaration.tls_version)
        route: InnerRoute = InnerRoute(
            declaration,
            scope=self.scope,
            declared_at=caller(),
            log=self.session.ledger,
            bind=partial(
                self._bind,
                optional=declaration.optional if is_required is None else not is_required,
            ),
        )
        if route.kind.passes_through:
            self._check_secrets(route)
        with self.session.ledger.changed:
            self.routes.append(route)
            (table or self.table).add(route)
        self.session.act_on_routes()
        return route

    def _check_secrets(self, *routes: InnerRoute) -> None:
        """Raise ValueError where a secret could pass through unseen, wherever it went, by these routes or others."""
        self.session.secrets.learn()
        declared = (route for table in self.tables() for route in table.routes)
        self.session.secrets.check_routes(chain(routes, declared))

    def _bind(self, answer: object, *, optional: bool) -> object:
        """An answer with the recordings that its cassette names."""
        if not isinstance(innermost(answer), Cassette):
            return answer
        from pytest_egress.cassettes import Home
        from pytest_egress.routes.recordings.deck import bound

        if self._stack is None:
            self._stack = self.session.stack(self.place or Home(folder=Path.cwd()))
        return bound(answer, partial(self._stack.deck, optional=optional))

    def write_cassettes(self) -> None:
        """Write what was recorded; call it when the tests of the scope have passed.

        Raises:
            CassetteError: A file cannot be written.
        """
        if self._stack is not None:
            self._stack.write()

    # Containers.

    def hide(self, env: object) -> None:
        """Hide the secrets among the variables of a container, before an error quotes one."""
        if isinstance(env, Mapping):
            texts = {n: v for n, v in env.items() if isinstance(n, str) and isinstance(v, str)}
            self.session.hide(texts)

    def new(self, kind: type[AnyContainer], checked: Plan, called: str = "") -> AnyContainer:
        """A container that is not yet started; it is called so in the ledger, or else by its image."""
        self.session.engine.check_owner()
        self.session.hide(checked.env)
        self._check_secrets()
        self._has_started = True
        with self.session.ledger.changed:  # so that no other thread gets the same name
            name = self.session.name(checked.image, called)
            container = kind(self.session, name, checked, self, caller())
            container.start_window = self._shared_start
            self.session.containers.append(container)
        return container

    def launch(self, checked: Plan) -> Container:
        container = self.new(Container, checked)
        if self.scope != "test":
            container.start_window = self.session.new_window()
            self._starts.append(container.start_window)
        container.launch()
        self.keep(container)
        return container

    def wait_for(self, container: Container, wait: Callable[[], Result]) -> Result:
        """Wait for a container. Where that fails, it is removed, and the error explained."""
        try:
            result = wait()
            if container.start_window is not None:
                self._end_start([container], container.start_window)
        except BaseException as error:
            self.discard(container)
            explained = self._explain(container, error)
            raise explained from explained.__cause__
        return result

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Have the containers that something else starts meanwhile share one window, which is judged at the end."""
        if self.scope == "test":
            yield
            return
        window = self._shared_start = self.session.new_window()
        self._starts.append(window)
        try:
            yield
        finally:
            self._shared_start = None
        self._end_start([each for each in self.live() if each.start_window is window], window)

    def discard(self, container: Container, *, has_ended: bool = False) -> None:
        container.finish(has_ended=has_ended)
        if not self.session.keep:
            with self.session.ledger.changed:
                self.containers.remove(container)

    def keep(self, container: Container) -> None:
        with self.session.ledger.changed:
            self.containers.append(container)

    def live(self) -> list[Container]:
        with self.session.ledger.changed:
            return self.containers.copy()

    def _end_start(self, containers: Sequence[Container], window: Window) -> None:
        """Close and judge the window of shared containers' start: an unrouted attempt fails the fixture's set-up."""
        self.session.end_start(containers, window)
        if (verdict := judge(window, [])) is not None:
            raise verdict
        self._to_judge.append(window)  # an activity of the start may still end, or raise, later

    def _explain(self, container: Container, error: BaseException) -> BaseException:
        """An error about a container, with its unrouted attempts added, and a handler's exception as the cause."""
        if not isinstance(error, ContainerError):
            return error
        return self.explained(error, {container.name}, container.start_window)

    def explained(
        self, error: ContainerError, names: Collection[str], start: Window | None = None
    ) -> ContainerError:
        """An error about some containers, with what no route has claimed of them, in their start or the test."""
        window = start or self._shared_start or self.session.ledger.window
        if window is None:
            return error
        entries = [e for e in window.entries if e.container in names]
        broken = first_handler_error(entries)
        cause = error.__cause__ or (broken.error if broken else None)
        if unrouted := unrouted_entries(entries):
            lines = [line for entry, n in fold(unrouted) for line in attempt_lines(entry, n)]
            text = "\n".join([str(error), "Meanwhile no route claimed:", *lines])
            text = self.session.ledger.redactor.known(text)
            error = type(error)(
                text, logs=error.logs, exit_code=error.exit_code, container=error.container
            )
        error.__cause__ = cause
        return error

    # The ledger.

    @property
    def ledger(self) -> list[Entry]:
        """See `Egress.ledger`."""
        if self._has_let_go:
            raise CallError(f"the ledger of a {self.scope} is asked for too late: {LET_GO}")
        with self.session.ledger.changed:
            entries = {id(entry): entry for window in self._seen() for entry in window.entries}
            return sorted(entries.values(), key=lambda entry: entry.started)

    def windows(self) -> list[Window]:
        """The windows that `ledger` is of."""
        with self.session.ledger.changed:
            return [*self._seen()]

    def _seen(self) -> Iterator[Window]:
        own = (self.scope == "test" and self.window) or self.session.ledger.window
        return filter(None, [*self._starts, self.between, own])

    def has_kept_all(self) -> bool:
        """Whether the ledger has all that was attempted, and all of each attempt that is to be kept."""
        return not any(window.unrecorded or window.account.lost for window in self._seen())

    def may_have_sent(self) -> bool:
        """Whether a container ran that could have attempted something."""
        window = self.window if self.scope == "test" else self.session.ledger.window
        return self._has_started or self.session.any_container(window)

    # The end of the scope.

    def close(self, keep: bool = False) -> None:
        """Remove the containers of this scope. Calling it again, or in a forked child, does nothing.

        Their attempts until then are in the ledger; `late_verdict` judges those that no other verdict has judged.

        Args:
            keep: Whether to stop the targets and leave them for a look, instead of removing them.
        """
        if self.session.engine.inherited:
            return
        with contextlib.ExitStack() as removals:  # all are called, even if one raises
            removals.callback(self._leave)
            for container in self.live():
                removals.callback(container.close, keep)
            while self.endings:
                self.endings.pop()()

    def _leave(self) -> None:
        with self.session.ledger.changed:
            self.containers.clear()
        self.session.leave(self)
        with contextlib.ExitStack() as releases:  # all are called, even if one raises
            for route in self.routes:
                releases.callback(route.release)
        self.session.revise()

    def late_verdict(self) -> EgressError | None:
        """The verdict on attempts that came too late for any other. Call it once, when all containers have ended.

        For a test these are the attempts of its own containers between its end and theirs. For a wider scope they are
        activities that began while a container started, and failed only after `start` had returned.
        """
        windows, self._to_judge = self._to_judge, []
        for window in windows:
            self.session.drain(window, window.drain_seconds, AFTER_END)
            self.session.end_streams(window, window.drain_seconds, AFTER_END)
            entries = [entry for entry in window.entries if not came_back(entry)]
            if (verdict := judge(dataclasses.replace(window, entries=entries), [])) is not None:
                why = LATE_IN_TEST if window is self.between else LATE_OF_START
                late = type(verdict)(f"{verdict}\n\n{why}")
                late.headline = verdict.headline
                late.__cause__ = verdict.__cause__
                return late
        return None

    def late_error(self, offence: Offence) -> EgressError:
        """The verdict on what was reached too late for any other, and is listed in no `egress.lock`."""
        late = offence._replace(text=f"{offence.text}\n\n{LATE_IN_TEST}")
        return error_of(late, self.session.ledger.redactor.hidden)

    def let_go(self) -> None:
        """Forget the entries and calls of this scope, after it has been reported."""
        self._has_let_go = True
        for window in (*self._starts, self.between):
            self.session.release(window)
        for route in self.routes:
            route.let_go()

    def open_window(self) -> None:
        """Begin a test of its own, outside of pytest."""
        self.window = self.session.open_window()

    def end(self, *, has_passed: bool) -> None:
        """End that test, and the session: raise the verdict, where the test has passed so far."""
        if self.session.engine.inherited:
            return
        window = self.window or Window()
        try:
            self.session.close_window(window)
            verdict: EgressError | None = None
            if has_passed:
                verdict = judge(
                    window,
                    self.routes,
                    any_container=self.session.any_container(window),
                    running=self.session.running,
                )
        finally:
            self.close()
            self.session.close()
        if has_passed and (verdict := verdict or self.late_verdict()) is not None:
            raise verdict
        if has_passed:
            self.write_cassettes()


LATE_IN_TEST: Final = "This came after the test had ended, and before its containers were removed."
LATE_OF_START: Final = (
    "This began while a container of a wider scope started, and ended after start() had returned."
)


def came_back(entry: Entry) -> bool:
    """Whether an entry is a client that was cut at the end of its test and dialled again, with all `times` used up.

    It asks for what the route would have answered, were it not for its `times`.
    """
    if entry.outcome != "unrouted" or not isinstance(entry, (TcpConnection, Exchange)):
        return False
    spent = (miss.route for miss in entry.near if miss.is_spent)
    return any(route.kind.reads_bytes or route.latest_fault is not None for route in spent)
