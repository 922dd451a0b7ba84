"""`Evidence`: the report of a run (`--egress-report`): the folder of each test, the index, the summary.

A worker of pytest-xdist writes the folders of its tests. The controller empties the report at the beginning, and writes
the index and the summary at the end. What cannot be written is told in a line of the summary, and fails nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.escaping import escaped
from pytest_egress.evidence.folder import ReportFolder, folder_name
from pytest_egress.evidence.pages.index import write_index
from pytest_egress.evidence.rewriting import rewrite_test, value_without
from pytest_egress.evidence.summary import summary
from pytest_egress.evidence.writing import (
    ContainerFacts,
    Failure,
    TestFacts,
    facts_of,
    write_test,
)
from pytest_egress.traffic.redaction.redactor import Redactor

if TYPE_CHECKING:
    from pytest_egress.base.account import Accounts
    from pytest_egress.inner_egress import InnerEgress
    from pytest_egress.ledger.windows import Window
    from pytest_egress.plugin.case import Case
    from pytest_egress.plugin.locking import Locking
    from pytest_egress.session import Session

OUTSIDE: Final = "outside"
"""The name of the page of what came outside of any test."""

CRASHED: Final = "???"
"""The phase of the report that the controller of pytest-xdist makes of a test whose worker has crashed."""

MOST_FAILURES: Final = 5  # that are told


class Evidence:
    """The report of a run, as one process sees it.

    Attributes:
        rows: What is known of each test with a folder, and of those that a worker took with it.
        failures: Lines about what could not be written.
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
        self._worker: str = getattr(config, "workerinput", {}).get("workerid", "")
        self.rows: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []
        self._accounts: Accounts | None = None  # with the redactor that the run has now
        self._known: dict[str, tuple[tuple[str, str], ...]] = {}  # when a folder was written

    # The run.

    @pytest.hookimpl(tryfirst=True)  # before the workers of pytest-xdist begin
    def pytest_sessionstart(self) -> None:
        if not self._is_worker and not self._config.getoption("collectonly"):
            self._try(self.folder.begin)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker may have another folder as its current one."""
        node.workerinput["egress report"] = str(self.folder.path)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", None) or {}  # absent when the worker crashed
        self.rows |= output.get("egress report", {})
        self.failures += output.get("egress report failures", ())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test during which its worker crashed has no folder; the index names it all the same."""
        when: str | None = report.when
        if when == CRASHED and report.failed:
            said = self._hidden(str(report.longrepr)).partition("\n")[0]
            self.rows[f"{CRASHED} {report.nodeid}"] = {
                "id": self._hidden(report.nodeid),
                "folder": "",
                "outcome": "failed",
                "duration": 0.0,
                "worker": "",
                "attempts": 0,
                "error": "",
                "headline": said,
                "images": [],
                "hosts": {},
                "paste": [],
                "unrouted": [],
                "failing": 0,
            }

    @pytest.hookimpl(trylast=True)  # inside the wrapper of pytest-xdist that sends workeroutput
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not session.config.getoption("collectonly"):
            self._try(self._hide_what_is_known_by_now)
        if self._is_worker:
            output = session.config.workeroutput  # type: ignore[attr-defined]
            output["egress report"] = self.rows
            output["egress report failures"] = self.failures[:MOST_FAILURES]
        elif not session.config.getoption("collectonly"):
            self._try(self._finish)

    def _hide_what_is_known_by_now(self) -> None:
        """Take the secrets out of what was written before they were known: a later test may have declared them."""
        if self._accounts is None or self._accounts.redactor is None:
            return
        redactors: dict[frozenset[tuple[str, str]], Redactor] = {}
        secrets = self._accounts.redactor.secrets
        for name, known in self._known.items():
            if new := frozenset(secrets) - frozenset(known):
                redactor = redactors.setdefault(new, Redactor(secrets=tuple(sorted(new))))
                self.rows[name] = value_without(self.rows[name], redactor)
                self._try(partial(rewrite_test, self.folder.path / name, redactor))

    def _finish(self) -> None:
        """Write the index and the summary: of what workers have sent, and of what those that crashed have noted."""
        noted = {row["folder"]: row for row in self.folder.rows() if "id" in row}
        rows = sorted((noted | self.rows).values(), key=lambda row: row["id"])
        if not rows:
            self.folder.leave()
            return
        self.rows = {row["folder"] or row["id"]: row for row in rows}
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.settle()
        locking = self._locking
        new = set() if locking is None else locking.new()
        name = "" if locking is None else locking.name
        write_index(self.folder.path / "index.html", rows, new=new, lock=name)
        accepts = locking is not None and not locking.updates
        text = summary(rows, new, accepting="pytest --egress-lock=update" if accepts else "")
        if not text:
            return
        (self.folder.path / "summary.md").write_text(text, encoding="utf-8")
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with open(step, "a", encoding="utf-8") as file:
                file.write(text)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for failure in self.failures[:MOST_FAILURES]:
            terminalreporter.write_line(escaped(self._hidden(f"egress: {failure}")))
        if self.rows and terminalreporter.verbosity >= 0 and not self.failures:
            where = shown_path(self.folder.path / "index.html")
            terminalreporter.write_line(f"egress: the report is {where}")

    def _try(self, write: Callable[[], object]) -> Any:
        """Call what writes files. What it raises is told, and fails nothing."""
        try:
            return write()
        except Exception as error:
            why = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else error
            self.failures.append(
                f"the report in {shown_path(self.folder.path)} is not whole: {why}"
            )
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
        return str(self._try(lambda: self._write(case, report, facts, windows)) or "")

    def _write(
        self,
        case: Case,
        report: pytest.TestReport,
        facts: TestFacts,
        windows: Sequence[Window],
    ) -> str:
        session = case.session
        redactor = session.ledger.redactor
        folder = case.folder or self.folder.make(folder_name(redactor.hidden(facts.id)))
        case.folder = folder
        containers = containers_of(session, case.window)
        row = write_test(folder, windows, facts, containers, redactor)
        self._keep(row, session)
        number = f"#entry-{row['unrouted'][0][2]}" if row["unrouted"] else ""
        page = folder / "timeline.html"
        self._attach(report, page, number)
        return f"{LINK}{shown_path(page)}{number}"

    def outside(self, egress: InnerEgress, error: BaseException | None) -> None:
        """Write a folder of what containers of a wider scope did outside of any test, where that is to be shown."""
        windows = [egress.between, *(w for w in egress.windows() if w is not egress.between)]
        if error is None and not (self.of_all and egress.between.entries):
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
        self._keep(row, session)

    def _keep(self, row: dict[str, Any], session: Session) -> None:
        self._accounts = session.ledger.accounts
        self._known[row["folder"]] = session.ledger.redactor.secrets
        self.rows[row["folder"]] = row
        self.folder.note(row)

    def _attach(self, report: Any, page: Path, number: str) -> None:
        """Name the page in the reports of other plugins, where they are used."""
        plugins = self._config.pluginmanager
        html = sys.modules.get("pytest_html")
        if html is not None and (target := self._config.getoption("htmlpath", None)):
            base = Path(os.path.expandvars(target)).expanduser().absolute().parent
            where = Path(os.path.relpath(page, base)).as_posix()
            link = html.extras.url(f"{where}{number}", name="egress")
            report.extras = [*getattr(report, "extras", ()), link]
        allure = sys.modules.get("allure")
        if allure is not None and plugins.hasplugin("allure_listener"):
            allure.attach.file(str(page), "egress", allure.attachment_type.HTML)


LINK: Final = "the whole of it: "


def verdict_of(error: BaseException) -> Failure:
    from pytest_egress.base.raising import said_of

    text = said_of(error)
    headline = getattr(error, "headline", "") or text.partition("\n")[0]
    name = type(error).__name__
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
