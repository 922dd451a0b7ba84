"""`Case`: one run of a test that uses egress, with its window, its verdict, and the sections of its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Final

import pytest

from pytest_egress.plugin.reports import land_at_user

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_egress.errors import EgressError
    from pytest_egress.inner_egress import InnerEgress
    from pytest_egress.ledger.verdict import Offence
    from pytest_egress.ledger.windows import Window
    from pytest_egress.plugin.options import Options
    from pytest_egress.session import Session
    from pytest_egress.targets.container import Container
    from pytest_egress.traffic.entries import Entry


QUIET: Final = (
    KeyboardInterrupt,
    SystemExit,
    pytest.exit.Exception,
    pytest.skip.Exception,
    pytest.xfail.Exception,
)
"""Exceptions that end a test without failing it. They are left as they are."""


@dataclasses.dataclass(kw_only=True)
class Case:
    """One run of a test that uses egress. A rerun of the test is another case.

    Attributes:
        window: The window from before its first fixture until the end of its call phase.
        egress: The test's own `Egress`, once the fixture is set up.
        cause: The exception of a handler, where it is the cause of the test's own failure.
        passed: Whether its call phase has passed.
        frame: With --pdb, the frame in which the test's function ran.
        folder: That of its report, once it is written.
        unlisted: Returns the offence of what it reached and no `egress.lock` lists, once its window is closed.
    """

    session: Session
    window: Window
    options: Options
    egress: InnerEgress | None = None
    verdict: EgressError | None = None
    cause: BaseException | None = None
    passed: bool = False
    frame: FrameType | None = None
    folder: Path | None = None
    unlisted: Callable[[], Offence | None] = lambda: None

    def close(self, own: BaseException | None = None) -> None:
        """Close the window after its handlers have ended; do not wait for them where the user ends the run."""
        at_once = isinstance(own, (KeyboardInterrupt, pytest.exit.Exception))
        self.session.close_window(self.window, 0 if at_once else self.options.timeout)

    def errors(self) -> list[BaseException]:
        errors = (getattr(entry, "error", None) for entry in self.window.entries)
        return [error for error in errors if error is not None]

    def explain(self, own: BaseException) -> None:
        """A handler's exception is the cause of the test's failure, unless that has one. A `pytest.exit` is raised."""
        if isinstance(own, QUIET):
            return
        self.check_exit()
        others = [error for error in self.errors() if error is not own]
        if others and own.__cause__ is None:
            BaseException.__setattr__(own, "__cause__", others[0])  # it may be a frozen dataclass
            self.cause = others[0]

    def check_exit(self) -> None:
        """Raise a handler's `pytest.exit` on the test's thread: the user typed "q" at a breakpoint in the handler."""
        for error in self.errors():
            if isinstance(error, pytest.exit.Exception):
                raise error

    def shorten_tracebacks(self) -> None:
        """Cut the tracebacks of handlers' exceptions so that they begin in the handler."""
        from pytest_egress.base.frames import from_user

        for error in self.errors():
            error.with_traceback(from_user(error.__traceback__))

    def land_at_user(
        self, excinfo: pytest.ExceptionInfo[BaseException], *, is_verdict: bool
    ) -> None:
        """Make a debugger stop in the handler that failed the test, or else in the test."""
        cause = excinfo.value.__cause__
        is_of_handler = is_verdict or any(cause is error for error in self.errors())
        raised_by = cause if is_of_handler else None
        land_at_user(excinfo, frame=self.frame, raised_by=raised_by, is_verdict=is_verdict)

    def judge(self, unlisted: Callable[[], Offence | None]) -> EgressError | None:
        """The verdict on a test that has not failed by itself.

        Args:
            unlisted: Returns the offence of what was reached and is listed in no `egress.lock`.
        """
        from pytest_egress.ledger.verdict import judge

        self.verdict = judge(
            self.window,
            self.egress.routes if self.egress else (),
            assert_all_called=self.options.assert_all_called,
            any_container=self.session.any_container(self.window),
            running=self.session.running,
            shared=self.session.shared(self.window),
            unlisted=unlisted,
        )
        return self.verdict

    def sections(self, when: str, *, in_full: bool) -> Iterator[tuple[str, str]]:
        """The timeline, then the containers' logs; before them other problems that egress found, if any.

        Args:
            in_full: Whether the timeline has what was sent both ways.
        """
        from pytest_egress.errors import (
            CertificateAcceptedError,
            HandshakeError,
            LeakError,
            NeverCalledError,
            UnroutedError,
        )
        from pytest_egress.ledger.declaring import block_lines
        from pytest_egress.ledger.refusals import without_advice
        from pytest_egress.ledger.report import (
            accepted_text,
            handler_errors_lines,
            handshakes_text,
            lost_lines,
            shared_note,
            shared_text,
            unrouted_text,
        )
        from pytest_egress.ledger.timeline import closed_port_lines, ledger_lines
        from pytest_egress.ledger.verdict import (
            accepted_entries,
            broken_handshakes,
            leak_text,
            unrouted_entries,
        )

        entries: dict[int, Entry] = {id(entry): entry for entry in self.window.entries}
        if when == "setup":  # the traffic of a wider fixture is in the ledger of its own scope
            entries |= {
                id(entry): entry for scope in self.session.open_scopes() for entry in scope.ledger
            }
        lost = lost_lines(self.window.account.lost)
        besides = [] if self.verdict else [*self.window.complaints, *lost, *self.window.stuck]
        if not isinstance(self.verdict, LeakError) and (leaked := leak_text(self.window)):
            besides += [leaked, ""]
        told = self.cause or (self.verdict and self.verdict.__cause__)
        besides += handler_errors_lines(self.window.entries, told)
        accepted = accepted_entries(self.window)
        if accepted and not isinstance(self.verdict, CertificateAcceptedError):
            besides += [accepted_text(accepted), ""]
        unrouted = unrouted_entries(self.window.entries)
        if unrouted and not isinstance(self.verdict, UnroutedError):
            besides += [unrouted_text(unrouted, self.window.entries), ""]
            if text := shared_text(unrouted, self.session.shared(self.window)):
                besides += [text, ""]
        failures = broken_handshakes(self.window)
        if failures and not isinstance(self.verdict, (HandshakeError, NeverCalledError)):
            besides += [handshakes_text(failures), ""]
        closed = closed_port_lines(self.window.closed_ports)
        above = "\n".join([f"{self.verdict or ''}", *besides])
        timeline = ledger_lines(
            entries.values(), began=self.window.opened, told=above, in_full=in_full
        )
        lines = [*besides, *block_lines(unrouted), *timeline, *closed]
        if self.verdict is None and not unrouted:
            lines += shared_note(self.window.entries, self.session.shared(self.window))
        if lines:
            yield "egress", "\n".join(lines)
        for title, log in self.session.log_sections(self.window):
            yield title, without_advice(log, entries.values())

    def windows(self, when: str) -> list[Window]:
        """The windows whose attempts a report of this phase shows, that of the test first."""
        scopes = self.session.open_scopes() if when == "setup" else []
        scopes += [self.egress] if self.egress is not None and when == "teardown" else []
        others = [window for scope in scopes for window in scope.windows()]
        return [self.window, *(each for each in others if each is not self.window)]

    def let_go(self) -> None:
        """Release the bodies and other values that the test received, after its reports have been made."""
        self.session.release(self.window)
        if self.egress is not None:
            self.egress.let_go()

    def kept(self) -> Iterator[tuple[str, str]]:
        return kept_section(self.session.live())


def case_of(item: pytest.Item) -> Case | None:
    """None where the test has no case, or where this forked child must leave it to its parent."""
    case = item.stash.get(CASE, None)
    return None if case is None or case.session.engine.inherited else case


def has_passed(node: pytest.Item | pytest.Collector) -> bool:
    """True for a node of several tests."""
    return not isinstance(node, pytest.Item) or (
        (case := case_of(node)) is not None and case.passed
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Late:
    """A verdict that a fixture's teardown raises, and the sections of its report."""

    verdict: EgressError
    sections: list[tuple[str, str]]


def late_sections(
    egress: InnerEgress, containers: Sequence[Container], *, in_full: bool
) -> Iterator[tuple[str, str]]:
    """The sections of a report on late traffic, which is that of the latest test: times count from its beginning."""
    from pytest_egress.ledger.refusals import without_advice
    from pytest_egress.ledger.timeline import ledger_lines
    from pytest_egress.session import log_sections

    entries, began = egress.ledger, egress.session.latest_opened
    yield "egress", "\n".join(ledger_lines(entries, began=began, in_full=in_full))
    for title, log in log_sections(containers, egress.session.ledger.redactor):
        yield title, without_advice(log, entries)


def kept_section(containers: Sequence[Container]) -> Iterator[tuple[str, str]]:
    if containers:
        lines = [f"{each.name}: docker logs {each.id[:12]}" for each in containers]
        removal = " ".join(["docker rm --force", *(each.id[:12] for each in containers)])
        yield "egress keeps", "\n".join([*lines, f"to remove: {removal}"])


CASE: Final = pytest.StashKey[Case]()
FAILED: Final = pytest.StashKey[set[str]]()
"""The node ids of failed tests, kept on the item and on each node above it, until a rerun begins."""


def has_failed(node: pytest.Item | pytest.Collector) -> bool:
    """Whether this test, or a test below this node, has failed."""
    return bool(node.stash.get(FAILED, ()))


def forget(item: pytest.Item) -> None:
    """Drop the case and the failure of an earlier run of this test, before a rerun."""
    if CASE in item.stash:
        del item.stash[CASE]
    for node in item.listchain():
        node.stash.get(FAILED, set()).discard(item.nodeid)
