"""`Locking`: compares the destinations of a run with `egress.lock`, or writes them there.

A test that reaches what is not listed fails in its call phase. A run that is whole and green takes out of the file what
no test has reached; any other adds only. With pytest-xdist each worker compares, and the controller writes, once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.escaping import escaped
from pytest_egress.errors import LockFileError
from pytest_egress.evidence.destinations import Sighting, is_listable, offence, sightings
from pytest_egress.evidence.lock import Lock, LockLine
from pytest_egress.ledger.verdict import find_leaks
from pytest_egress.plugin.usage import may_use_egress
from pytest_egress.shelf import write_whole
from pytest_egress.traffic.shown import counted

if TYPE_CHECKING:
    from pytest_egress.ledger.verdict import Offence
    from pytest_egress.ledger.windows import Window
    from pytest_egress.session import Session

MAX_LINES: Final = 20_000
"""The most destinations of a run: a target that makes names up would fill the file, and the memory."""

SHOWN_LINES: Final = 10  # of a note at the end of a run
OUTPUT: Final = "egress lock"
COLLECTING: Final = ("testpaths", "python_", "norecursedirs", "collect_")
"""How options of the ini file begin that say what a test is."""


class Locking:
    """The lock of a run.

    Attributes:
        name: The file, as people know it.
        seen: What was reached so far.
        withheld: What was reached and must not be written, as it is shown.
        gap: Why the run is not the whole suite; "" where it is, as far as is known.
        notes: Lines for the summary.
    """

    def __init__(self, config: pytest.Config, path: Path, *, updates: bool) -> None:
        self.path, self.updates = path, updates
        self.name: Final = shown_path(path, config.rootpath)
        self.exists = path.exists()
        self.lock = read(path, self.name) if self.exists else Lock()
        self.seen: set[LockLine] = set()
        self.withheld: set[str] = set()
        self.is_worker: Final = hasattr(config, "workerinput")
        self.gap = "" if self.is_worker else narrowed(config)
        self.notes: list[str] = []
        self._has_run = False
        self._session: Session | None = None

    # What a test has reached.

    def watch(self, session: Session) -> None:
        self.take("the end of the run")
        self._session = session
        session.ledger.witness = []

    def take(self, test: str, window: Window | None = None) -> Callable[[], Offence | None]:
        """Take what was reached since the last time; return what tells whether that fails the test of this name.

        Args:
            window: The test's window: what has leaked a secret in it is no destination.
        """
        if self._session is None:
            return lambda: None
        if window is not None:
            find_leaks(window)
        session = self._session
        found = sightings(session.ledger.take_witnessed(), session.images)
        self._note(found)
        if self.updates:
            return lambda: None
        return lambda: offence(found, self.lock, file=self.name, exists=self.exists, test=test)

    def _note(self, found: dict[LockLine, Sighting]) -> None:
        for line, each in found.items():
            if len(self.seen) >= MAX_LINES:
                self.gap = f"it reached more than {MAX_LINES:,} destinations"
            elif is_listable(each):
                self.seen.add(line)
            elif len(self.withheld) < SHOWN_LINES and not self.lock.covers(line):
                self.withheld.add(f"{line.image}  {each.shown}")

    def new(self) -> set[str]:
        """What was reached and is not in the file, as a report names it: `https api.stripe.com:443`."""
        return {f"{line.kind} {line.where}" for line in self.seen if not self.lock.covers(line)}

    # Whether the run is whole.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Some plugins take tests away and tell nobody."""
        before = len(items)
        result = yield
        if len(items) < before:
            self.gap = self.gap or f"{counted(before - len(items), 'test')} of it did not run"
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Options such as --fixtures and --cache-show end a run green, without any test."""
        self._has_run = True

    def pytest_keyboard_interrupt(self) -> None:
        """`pytest.exit` may end a run green too: it has a `returncode`."""
        self.gap = self.gap or "it was stopped"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.gap = self.gap or f"{report.nodeid} was skipped"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        if report.skipped and may_use_egress(item):
            what = "failed as expected" if hasattr(report, "wasxfail") else "was skipped"
            self.gap = self.gap or f"{item.nodeid} {what}"
        return report

    # The end of the run.

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """What a worker of pytest-xdist has found; one that crashed says nothing."""
        output = getattr(node, "workeroutput", {}).get(OUTPUT)
        if output is None or error:
            self.gap = self.gap or f"the worker {node.gateway.id} crashed"
            return
        self.seen |= {LockLine(*line) for line in output["seen"]}
        self.withheld |= {*output["withheld"]}
        self.gap = self.gap or output["gap"]

    # After the last fixture's teardown, and before pytest-xdist sends workeroutput.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self.take("the end of the run")
        if self.is_worker:
            session.config.workeroutput[OUTPUT] = {  # type: ignore[attr-defined]
                "seen": [tuple(line) for line in self.seen],
                "withheld": [*self.withheld],
                "gap": self._hidden(self.gap),
            }
            return
        gap = self.gap or ("" if exitstatus == pytest.ExitCode.OK else "it was not green")
        gap = gap or ("" if self._has_run else "no test ran")
        if self.updates:
            self._write(gap)
        elif not gap and (stale := self.lock.stale(self.seen)):
            self._tell("that no test reached; --egress-lock=update takes them out", sorted(stale))

    def _write(self, gap: str) -> None:
        """The file is read again: another run, or a person, may have changed it meanwhile."""
        try:
            old = read(self.path, self.name) if self.path.exists() else Lock()
            new = old.updated(self.seen, is_whole=not gap, new=old.lines - self.lock.lines)
            if new.lines or self.exists:
                write_whole(self.path, new.text())
        except (OSError, pytest.UsageError) as error:
            self.notes.append(f"{self.name} could not be written: {error}")
            return
        added, gone = sorted(new.lines - old.lines), sorted(old.lines - new.lines)
        if added:
            self._tell("added", added)
        if gone:
            self._tell("taken out", gone)
        stale = new.stale(self.seen)
        if gap and stale:
            self._tell(f"that no test reached stay, since this was not the whole suite: {gap}", [])
        if self.withheld:
            what = "not written, since they have a secret in them, or are no hosts"
            self._tell(what, sorted(self.withheld))
        if not self.notes:
            self.notes.append(f"{self.name}: nothing new")

    def _tell(self, what: str, lines: Sequence[object]) -> None:
        count = f"{counted(len(lines), 'line')} " if lines else "lines "
        self.notes.append(f"{self.name}: {count}{what}")
        self.notes += [f"  {line}" for line in lines[:SHOWN_LINES]]
        if len(lines) > SHOWN_LINES:
            self.notes.append(f"  and {len(lines) - SHOWN_LINES} more")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for note in map(self._hidden, self.notes):
            terminalreporter.write_line(escaped(f"egress: {note}" if note[0] != " " else note))

    def _hidden(self, text: str) -> str:
        """Names of parametrized tests may have a secret in them."""
        return text if self._session is None else self._session.ledger.redactor.hidden(text)


def read(path: Path, name: str) -> Lock:
    """The lock of a file; `pytest.UsageError` where it is none."""
    try:
        return Lock.read(path.read_text("utf-8"))
    except (LockFileError, OSError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{name}: {error}") from None


def shown_path(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def narrowed(config: pytest.Config) -> str:
    """Why a command line asks for less than the whole suite; "" where it asks for all."""
    if config.getoption("lf", False):
        return "--lf"
    for name in ("ignore", "ignore_glob"):
        if config.getoption(name, None):
            return f"--{name.replace('_', '-')}"
    for name in ("collectonly", "setuponly", "setupplan", "forked"):
        if config.getoption(name, False):
            return f"--{name}"
    for each in config.getoption("override_ini", None) or ():
        if each.startswith(COLLECTING):
            return f"-o {each[:200]}"
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return ""
    asked = [Path(config.invocation_params.dir, each).resolve() for each in config.args]
    paths = config.getini("testpaths")
    whole = [each for path in paths for each in config.rootpath.glob(path)] or [config.rootpath]
    if all(any(each.resolve().is_relative_to(path) for path in asked) for each in whole):
        return ""
    return f"it was asked for {' '.join(config.args)[:200]}"
