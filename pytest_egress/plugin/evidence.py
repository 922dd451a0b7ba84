"""`Evidence`: the report of a run (`--egress-report`): the folder of each test, the index, the summary.

A worker of pytest-xdist writes the folders of its tests. The controller empties the report at the beginning, and writes
the index and the summary at the end, of the rows that are noted in the folders. What cannot be written is told in a
line of the summary, and fails nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.escaping import escaped
from pytest_egress.evidence.folder import ReportFolder, folder_name
from pytest_egress.evidence.later import LaterSecrets
from pytest_egress.evidence.pages.index import write_index
from pytest_egress.evidence.rewriting import value_without
from pytest_egress.evidence.sealing import new_key
from pytest_egress.evidence.summary import summary
from pytest_egress.evidence.writing import (
    ContainerFacts,
    Failure,
    TestFacts,
    facts_of,
    write_test,
)
from pytest_egress.traffic.shown import counted

if TYPE_CHECKING:
    from pytest_egress.inner_egress import InnerEgress
    from pytest_egress.ledger.windows import Window
    from pytest_egress.plugin.case import Case
    from pytest_egress.plugin.locking import Locking
    from pytest_egress.plugin.swept import SweptTests
    from pytest_egress.session import Session

OUTSIDE: Final = "outside"
"""The name of the page of what came outside of any test."""

CRASHED: Final = "???"
"""The phase of the report that the controller of pytest-xdist makes of a test whose worker has crashed."""

MOST_FAILURES: Final = 5  # that are told
TAKEN: Final = (
    "the report is not written: another run writes one to {} now. "
    "Name another folder, as by --egress-report={}-2"
)


class Evidence:
    """The report of a run, as one process sees it.

    Attributes:
        rows: Those of the index, once it is written, and of each test that a worker took with it.
        failures: Lines about what could not be written, by the reason: a disk that is full is told of once.
    """

    def __init__(
        self,
        config: pytest.Config,
        path: Path,
        *,
        of_all: bool,
        hidden: Callable[[str], str],
        locking: Locking | None = None,
    ) -> None:
        self.folder, self.of_all = ReportFolder(path), of_all
        self._config, self._hidden, self._locking = config, hidden, locking
        self._is_worker = hasattr(config, "workerinput")
        given = getattr(config, "workerinput", {})
        self._worker: str = given.get("workerid", "")
        self._key = bytes.fromhex(given.get("egress report key", "")) or new_key()
        self.later = LaterSecrets(self.folder, self._worker, self._key, self._try)
        self.rows: list[dict[str, Any]] = []
        self.failures: dict[str, str] = {}
        self._is_off = False  # another run has the folder
        self._swept: SweptTests | None = None
        self._sweeps: list[dict[str, Any]] = []  # their matrices, once the index is written
        self._ended: set[str] = set()  # the workers that have told how they ended
        self._linked: dict[str, int] = {}  # how many pages of a test pytest-html was told of

    # The run.

    @pytest.hookimpl(tryfirst=True)  # before the workers of pytest-xdist begin
    def pytest_sessionstart(self) -> None:
        if self._is_worker or self._config.getoption("collectonly"):
            return
        if self.folder.claim():
            self._try(self.folder.begin)
        else:
            self._is_off = True
            where = shown_path(self.folder.path)
            self.failures[TAKEN] = self._hidden(TAKEN.format(where, where))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker may have another folder as its current one. One with "" writes no report."""
        node.workerinput["egress report"] = "" if self._is_off else str(self.folder.path)
        node.workerinput["egress report key"] = self._key.hex()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", None) or {}  # absent when the worker crashed
        if "egress report failures" in output:
            self._ended.add(node.workerinput["workerid"])
            self.failures = {**output["egress report failures"], **self.failures}
            self.rows += output["egress report rows"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test during which its worker crashed has no folder; the index names it all the same."""
        if not self._is_worker:
            self._note_cell(report)
        when: str | None = report.when
        if when == CRASHED and report.failed:
            self._miss(report, str(report.longrepr).partition("\n")[0])

    def _miss(self, report: pytest.TestReport, headline: str) -> None:
        """Have the index name a test that has no folder."""
        row = {
            "id": self._hidden(report.nodeid),
            "folder": "",
            "outcome": report.outcome,
            "duration": 0.0,
            "worker": "",
            "attempts": 0,
            "error": "",
            "headline": self._hidden(headline),
            "images": [],
            "hosts": {},
            "paste": [],
            "unrouted": [],
            "failing": 0,
        }
        self.rows.append(row)

    def _note_cell(self, report: pytest.TestReport) -> None:
        """The workers of pytest-xdist run the cells; a run without a fault sweep imports nothing of it."""
        plugins = self._config.pluginmanager
        if self._swept is None and any(map(plugins.has_plugin, ("egress-sweep", "dsession"))):
            from pytest_egress.plugin.swept import SweptTests

            self._swept = SweptTests()
        if self._swept is not None:
            self._swept.add(report)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        self.later.end_test()

    @pytest.hookimpl(trylast=True)  # inside the wrapper of pytest-xdist that sends workeroutput
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.later.hide()
        if self._is_worker:
            output = session.config.workeroutput  # type: ignore[attr-defined]
            output["egress report failures"] = self.failures
            output["egress report rows"] = self.rows
        elif not session.config.getoption("collectonly") and not self._is_off:
            self._try(self._finish)
        self.folder.release()

    def _finish(self) -> None:
        redactor = self.later.hide_of_workers(self._ended)
        noted = [row for _, row in self.folder.rows() if row]
        told = {row["id"] for row in noted}
        missed = {row["id"]: value_without(row, redactor) for row in self.rows}
        lost = [row for row in missed.values() if row["id"] not in told]
        rows = self.rows = sorted((*noted, *lost), key=lambda row: row["id"])
        tables = [] if self._swept is None else [*self._swept.tables()]
        self._sweeps = [value_without(table, redactor) for table in tables]
        if not rows and not self._sweeps:
            self.folder.leave()
            return
        self._try(lambda: self.folder.path.mkdir(parents=True, exist_ok=True))
        self._try(self.folder.settle)
        self._try(lambda: self._write_run(rows))

    def _write_run(self, rows: list[dict[str, Any]]) -> None:
        """Write the index and the summary. One that cannot be written keeps no other from that."""
        locking = self._locking
        new = set() if locking is None else locking.new()
        name = "" if locking is None else locking.name
        index, page = self.folder.path / "index.html", self.folder.path / "summary.md"
        self._try(lambda: write_index(index, rows, new=new, lock=name, sweeps=self._sweeps))
        accepts = locking is not None and not locking.updates
        text = summary(rows, new, accepting="pytest --egress-lock=update" if accepts else "")
        if not text:
            return
        self._try(lambda: page.write_text(text, encoding="utf-8"))
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(step, "a", encoding="utf-8") as file:
                file.write(text)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for failure in [*self.failures.values()][:MOST_FAILURES]:
            terminalreporter.write_line(escaped(self._hidden(f"egress: {failure}")))
        is_there = self.rows or self._sweeps
        if is_there and terminalreporter.verbosity >= 0 and not self.failures:
            where = shown_path(self.folder.path / "index.html")
            terminalreporter.write_line(f"egress: the report is {where}")
        if renamed := sum(row.get("renamed", False) for row in self.rows):
            terminalreporter.write_line(f"egress: {RENAMED.format(counted(renamed, 'folder'))}")

    def _try(self, write: Callable[[], object]) -> Any:
        """Call what writes files. What it raises is told, and fails nothing."""
        try:
            return write()
        except Exception as error:
            why, place = reason_of(error)
            said = f"the report in {shown_path(self.folder.path)} is not whole: {why}{place}"
            self.failures.setdefault(why, self._hidden(said))
        return None

    # One test.

    def write(
        self,
        case: Case,
        report: pytest.TestReport,
        error: BaseException | None,
        windows: Sequence[Window],
    ) -> str:
        """Write the folder of a test; return the line that leads to its page, or "" where it cannot be written.

        Args:
            error: What the test failed by; None where it has not failed.
            windows: Those whose entries are its own, that of the test first.
        """
        facts = TestFacts(
            id=report.nodeid,
            outcome=report.outcome,
            duration=report.duration,
            worker=self._worker,
            verdict=None if error is None else verdict_of(error),
        )
        if self._is_off:
            return ""
        line = self._try(lambda: self._write(case, report, facts, windows))
        if line is None:
            self._miss(report, "" if facts.verdict is None else facts.verdict.headline)
        return str(line or "")

    def _write(
        self,
        case: Case,
        report: pytest.TestReport,
        facts: TestFacts,
        windows: Sequence[Window],
    ) -> str:
        session = case.session
        redactor, is_first = session.ledger.redactor, case.folder is None
        folder = case.folder = self._folder_of(case, redactor.hidden(facts.id))
        containers = containers_of(session, case.window)
        row = write_test(folder, windows, facts, containers, redactor)
        self._keep(folder, row)
        number = f"#entry-{row['unrouted'][0][2]}" if row["unrouted"] else ""
        page = folder / "timeline.html"
        if is_first:
            self._link(report, page, number)
        self._attach(page)
        return f"{LINK}{shown_path(page)}{number}"

    def _folder_of(self, case: Case, test: str) -> Path:
        """The folder of a test, by its name without secrets: one more may be known in its teardown."""
        if case.folder is None:
            return self.folder.make(folder_name(test))
        if self.folder.row(case.folder).get("id", test) == test:
            return case.folder
        return self.later.rename(case.folder, test)

    def outside(self, egress: InnerEgress, error: BaseException | None) -> None:
        """Write a folder of what containers of a wider scope did outside of any test, where that is to be shown."""
        windows = [egress.between, *(w for w in egress.windows() if w is not egress.between)]
        if self._is_off or (error is None and not (self.of_all and egress.between.entries)):
            return
        self._try(lambda: self._write_outside(egress, windows, error))

    def _write_outside(
        self, egress: InnerEgress, windows: Sequence[Window], error: BaseException | None
    ) -> None:
        session = egress.session
        facts = TestFacts(
            id=f"{OUTSIDE} of any test, on {egress.scope}_egress",
            outcome="passed" if error is None else "failed",
            duration=0.0,
            worker=self._worker,
            verdict=None if error is None else verdict_of(error),
        )
        containers = [facts_of(each) for each in egress.live()]
        folder = self.folder.make(OUTSIDE)
        row = write_test(folder, windows, facts, containers, session.ledger.redactor)
        self._keep(folder, row)

    def _keep(self, folder: Path, row: dict[str, Any]) -> None:
        self.folder.note(folder, row)
        self.later.wrote(folder)

    def _link(self, report: Any, page: Path, number: str) -> None:
        """Name the page in the report of pytest-html, which has the links of all reruns beside each of them."""
        html, target = sys.modules.get("pytest_html"), self._config.getoption("htmlpath", None)
        if html is None or not target:
            return
        count = self._linked[report.nodeid] = self._linked.get(report.nodeid, 0) + 1
        base = Path(os.path.expandvars(target)).expanduser().absolute().parent
        where = Path(os.path.relpath(page, base)).as_posix()
        name = "egress" if count == 1 else f"egress {count}"
        link = html.extras.url(f"{where}{number}", name=name)
        report.extras = [*getattr(report, "extras", ()), link]

    def _attach(self, page: Path) -> None:
        """Give the page to Allure, which keeps a copy with the part of the test that failed."""
        allure = sys.modules.get("allure")
        if allure is not None and self._config.pluginmanager.hasplugin("allure_listener"):
            allure.attach.file(str(page), "egress", allure.attachment_type.HTML)


LINK: Final = "the whole of it: "
RENAMED: Final = (
    "{} of the report had a secret in the name that became known later, and has another name:"
    " follow the index, since a link above may lead nowhere"
)


def reason_of(error: Exception) -> tuple[str, str]:
    """Why something was not written, and where."""
    if not isinstance(error, OSError) or not error.strerror:
        return f"{type(error).__name__}: {error}", ""
    named = error.filename2 or error.filename
    is_file = isinstance(error, (FileExistsError, NotADirectoryError))
    why = "a file is where a folder has to be" if is_file else error.strerror
    return why, f" ({shown_path(Path(os.fsdecode(named)))})" if named else ""


def verdict_of(error: BaseException) -> Failure:
    from pytest_egress.base.raising import said_of
    from pytest_egress.plugin.reports import error_line

    text, name = said_of(error), type(error).__name__
    is_ours = type(error).__module__ == "pytest_egress.errors"
    line = error_line(error) if is_ours else text
    headline = getattr(error, "headline", "") or line.partition("\n")[0]
    return Failure(error=name, headline=headline or name, text=text)


def containers_of(session: Session, window: Window) -> list[ContainerFacts]:
    """The containers of a test, and those that it shares with others."""
    listed = {id(each): each for each in (*session.containers_of(window), *session.live())}
    return [facts_of(each) for each in listed.values()]


def shown_path(path: Path) -> str:
    """A path as it is typed here: from the current folder, where it is in that."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
