"""`Cases`: the hooks that act while one test runs: its window, its verdict, and the report of both.

Every run of pytest imports this module: what only tests that use egress need is imported by the functions that need it.

Threads: pytest calls the hooks on its own. Any thread that asks for the window calls `look`. What `look` changes, it
changes under `Ledger.changed`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.plugin.header import Header
from pytest_egress.plugin.markers import MARKERS, check_marker, markers_named
from pytest_egress.plugin.run import RUN, Run
from pytest_egress.plugin.usage import (
    EGRESS_FIXTURES,
    fixture_of,
    requested_fixtures,
    uses_egress,
)

if TYPE_CHECKING:
    from pytest_egress.errors import EgressError
    from pytest_egress.inner_egress import InnerEgress
    from pytest_egress.plugin.case import Case, Late
    from pytest_egress.plugin.evidence import Evidence
    from pytest_egress.session import Session


def pytest_configure(config: pytest.Config) -> None:
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", name + text)
    run = config.stash[RUN] = Run(config)
    cases = config.stash[CASES] = Cases(run, config.pluginmanager)
    if (
        config.pluginmanager.register(run, "egress-run") is not None
    ):  # it closes what the others open
        config.pluginmanager.register(cases, "egress-cases")
        config.pluginmanager.register(Header(run), "egress-header")
        if run.locking is not None:
            config.pluginmanager.register(run.locking, "egress-lock")
        if run.report is not None:
            from pathlib import Path

            from pytest_egress.plugin.evidence import Evidence

            path, of_all = run.report
            cases.evidence = Evidence(
                config, Path(path), of_all=of_all, hidden=run.hidden, locking=run.locking
            )
            config.pluginmanager.register(cases.evidence, "egress-evidence")


class Cases:
    """The tests of a run, and those of its fixtures that use egress."""

    def __init__(self, run: Run, plugins: pytest.PytestPluginManager) -> None:
        self._run, self._plugins = run, plugins
        run.watch = self._watch
        self.hidden = run.hidden
        self.evidence: Evidence | None = None
        self._has_cases = False  # of this run so far, or of one that has been closed
        self._item: pytest.Item | None = None  # the test that runs, if not known to use egress
        self._egress_users: dict[str, set[object]] = {}  # wider fixtures that use egress, by name
        self._late: list[Late] = []

    def _watch(self, session: Session) -> None:
        if not self._plugins.has_plugin("egress-reports"):
            self._plugins.register(Reports(self), "egress-reports")
        session.ledger.open_window_if_used = self.look
        if self.evidence is not None:
            self.evidence.later.watch(session.ledger)

    def case(self, item: pytest.Item) -> Case:
        """The window opens now if the test was not known to use egress."""
        from pytest_egress.plugin.case import CASE, Case

        if CASE not in item.stash:
            options = self._run.options
            for marker in markers_named(item, "egress"):
                try:  # another plugin may have added it after the collection
                    check_marker(marker)
                except (TypeError, ValueError) as error:
                    raise pytest.UsageError(f"@pytest.mark.egress: {error}") from None
                options = options._replace(**marker.kwargs)
            session = self._run.session()
            session.engine.check_owner()
            with session.ledger.changed:
                if CASE not in item.stash:  # another thread may have opened it meanwhile
                    window = session.open_window(
                        policy=options.unrouted,
                        dns=options.dns,
                        drain_seconds=options.timeout,
                        name=item.nodeid,
                    )
                    item.stash[CASE] = Case(session=session, window=window, options=options)
                    self._has_cases = True
        return item.stash[CASE]

    def case_of(self, item: pytest.Item) -> Case | None:
        """None of a test that does not use egress."""
        if not self._has_cases:
            return None
        from pytest_egress.plugin.case import case_of

        return case_of(item)

    def look(self) -> None:
        """Open the running test's window if it has come to use egress. Any thread may call it."""
        if self._run.current is None or self._run.current.engine.inherited:
            return
        with self._run.current.ledger.changed:
            item = self._item
            if item is None or not self._asks_for_egress(item):
                return
            self._item = None  # `case` may come back here: there must be nothing left to open
            try:
                self.case(item)
            except pytest.UsageError:  # a malformed marker: the test's own thread reports it
                self._item = item

    def _asks_for_egress(self, item: pytest.Item) -> bool:
        """Several fixtures may have one name."""
        for name in requested_fixtures(item):
            if name in EGRESS_FIXTURES:
                return True
            if users := self._egress_users.get(name):
                found = fixture_of(item, name)
                if found is None or found in users:
                    return True
        return False

    def end_of(self, item: pytest.Item) -> Case | None:
        """The case of a test that ends, after a last check whether it has come to use egress."""
        if self._run.current is None and not self._has_cases:  # no test has used it yet
            self._item = None
            return None
        self.look()
        self._item = None
        return self.case_of(item)

    def end_failed(self, item: pytest.Item, own: BaseException) -> None:
        """The failure may be in set-up or call."""
        if (case := self.end_of(item)) is not None:
            case.close(own)
            case.unlisted = self._run.unlisted(item.nodeid, case.window)
            case.explain(own)

    def end(self, egress: InnerEgress, node: Any) -> EgressError | None:
        """The verdict is on late traffic. A report will show it."""
        if egress.session.engine.inherited:  # a forked child: its parent closes the egress
            return None
        from pytest_egress.plugin.case import (
            Late,
            has_failed,
            has_passed,
            kept_section,
            late_sections,
        )

        containers = egress.live()
        if self._run.keep:
            # The containers are ended, but stay until it is known whether a test failed.
            for container in containers:
                container.finish()
        else:
            egress.close()
        late = egress.late_verdict() if has_passed(node) else None
        unlisted = self._run.unlisted(node.nodeid or "the end of the run")()
        if late is None and unlisted is not None and has_passed(node):
            late = egress.late_error(unlisted)
        if self.evidence is not None and egress.scope != "test":
            self.evidence.outside(egress, late)
        egress.close(keep=self._run.keep and (late is not None or has_failed(node)))
        if late is not None:
            kept = kept_section(containers) if self._run.keep else ()
            in_full = is_verbose(node.config)
            sections = [*late_sections(egress, containers, in_full=in_full), *kept]
            self._late.append(Late(verdict=late, sections=sections))
        if egress.scope != "test":  # a test's own is released when its report has been made
            egress.let_go()
        return late

    def write_cassettes(self, egress: InnerEgress, node: Any) -> None:
        """Write what a scope has recorded, where all of its tests have passed; a failed one leaves the old file."""
        from pytest_egress.plugin.case import has_failed, has_passed

        if has_passed(node) and not has_failed(node) and not egress.session.engine.inherited:
            egress.write_cassettes()

    # In pytest_runtest_setup, not in pytest_runtest_protocol, which encloses all reruns of a test.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """The window of a test that uses egress opens before its first fixture."""
        if self._has_cases:
            from pytest_egress.plugin.case import forget

            forget(item)
        refusal: Exception | None = None
        if uses_egress(item):
            try:
                self.case(item)
            except Exception as error:
                # Raised later, when pytest has set up the nodes that it tears down.
                refusal = error
        else:
            self._item = item
        try:
            yield
            if refusal is not None:
                raise refusal
        except BaseException as own:
            self.end_failed(item, own)
            raise

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        """Note whether a wider fixture uses egress. While it is set up, calls of its scope's whole lifetime count."""
        if fixturedef.scope == "function":
            return (yield)
        self._note_users(fixturedef, request)
        if self._run.current is None:
            return (yield)
        with self._run.current.ledger.wide_set_up(fixturedef.argname):
            return (yield)

    def _note_users(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> None:
        """Note by name the wider fixtures that use egress: of a cached fixture pytest later tells nothing but its name.

        To see what a fixture requests by `request.getfixturevalue`, that method of its own request is replaced.
        """
        name, get = fixturedef.argname, request.getfixturevalue
        if name in EGRESS_FIXTURES:
            return
        self._egress_users.get(name, set()).discard(fixturedef)  # it may not use egress this time

        def note_if_user(argname: str) -> None:
            if argname in EGRESS_FIXTURES or self._egress_users.get(argname):
                self._egress_users.setdefault(name, set()).add(fixturedef)

        def get_and_note(argname: str) -> Any:
            value = get(argname)
            note_if_user(argname)
            return value

        request.getfixturevalue = get_and_note  # type: ignore[method-assign]
        for argname in fixturedef.argnames:
            note_if_user(argname)

    # The innermost wrapper, so that output is captured, time is counted, and xfail sees the verdict.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        frame = None
        try:
            if self._run.current is None:
                yield
            else:
                frame = yield from self._call(item)
        except BaseException as own:
            self.end_failed(item, own)
            raise
        if (case := self.end_of(item)) is None:
            if self._run.current is not None and self._asks_for_egress(item):
                self.case(item)  # raises the reason why the test has no window
            return
        case.frame = frame
        case.close()
        case.unlisted = self._run.unlisted(item.nodeid, case.window)
        case.check_exit()
        # pytest raises unittest's failures only later.
        if excinfos := getattr(item, "_excinfo", None):
            case.explain(excinfos[0].value)
        elif verdict := case.judge(case.unlisted):
            raise verdict
        else:
            case.passed = True

    def _call(self, item: pytest.Item) -> Generator[None, Any, FrameType | None]:
        """With --pdb, return the frame of the test's function."""
        if not item.config.getoption("usepdb", False):
            yield
            return None
        from pytest_egress.base.frames import code_of, first_frame

        with first_frame(code_of(getattr(item, "obj", None))) as running:
            yield
        return running.found

    @pytest.hookimpl(tryfirst=True)  # no wrapper, which would cost each test four times as much
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Close the window of a test without a call phase (--setup-only)."""
        if (case := self.end_of(item)) is not None:
            case.close()

    def report(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Show a verdict as its text, and add the sections that explain a failure."""
        case, brief = self.case_of(item), not item.config.getoption("fulltrace", False)
        if call.when == "teardown":
            return (yield from self._report_teardown(item, call, brief))
        if case is None:
            return (yield)
        from pytest_egress.plugin.case import FAILED
        from pytest_egress.plugin.reports import (
            show_headline,
            show_sections,
            show_text_only,
            without_told,
        )

        if brief:
            case.shorten_tracebacks()
        report = yield
        is_verdict = call.excinfo is not None and call.excinfo.value is case.verdict
        if brief and call.excinfo and is_verdict:
            show_text_only(report, item, call.excinfo, self.hidden)
        if report.failed:
            for node in item.listchain():
                node.stash.setdefault(FAILED, set()).add(item.nodeid)
            found = case.sections(report.when, in_full=is_verbose(item.config))
            sections = [*found, *(case.kept() if self._run.keep else ())]
            sections = with_link(sections, self._written(case, report, call))
            show_sections(report, item.config, without_told(sections, call.excinfo), self.hidden)
            if call.excinfo:
                window = None if is_verdict else case.window
                show_headline(report, call.excinfo.value, window, self.hidden)
        elif self.evidence is not None and self.evidence.of_all and report.when == "call":
            self._written(case, report, call)
        if brief and call.excinfo and item.config.getoption("usepdb", False):
            case.land_at_user(call.excinfo, is_verdict=is_verdict)
        return report

    def _written(self, case: Case, report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
        """Write the test's part of the run's report, if there is one; return the line that leads to it."""
        if self.evidence is None:
            return ""
        error = call.excinfo.value if call.excinfo and report.failed else None
        return self.evidence.write(case, report, error, case.windows(report.when))

    def _report_teardown(
        self, item: pytest.Item, call: pytest.CallInfo[None], brief: bool
    ) -> Generator[None, Any, Any]:
        """Show late traffic in the report of a teardown, and release what the test received."""
        report = yield
        found, self._late = self._late, []
        case = self.case_of(item)
        if report.failed:
            from pytest_egress.plugin.reports import (
                show_headline,
                show_sections,
                show_text_only,
                without_told,
            )

            late = [each for each in found if call.excinfo and call.excinfo.value is each.verdict]
            if brief and call.excinfo and late:
                show_text_only(report, item, call.excinfo, self.hidden)
            sections = [section for each in found for section in each.sections]
            if case is not None:
                sections = with_link(sections, self._written(case, report, call))
            show_sections(report, item.config, without_told(sections, call.excinfo), self.hidden)
            if call.excinfo:
                show_headline(report, call.excinfo.value, None, self.hidden)
            if brief and call.excinfo and case and item.config.getoption("usepdb", False):
                case.land_at_user(call.excinfo, is_verdict=bool(late))
        if case is not None:
            from pytest_egress.plugin.case import CASE

            del item.stash[CASE]
            case.let_go()
        return report


def with_link(sections: list[tuple[str, str]], link: str) -> list[tuple[str, str]]:
    """The sections of a failing test, of which that on its attempts ends with the line that leads to its page."""
    if not link:
        return sections
    title, text = next((each for each in sections if each[0] == "egress"), ("egress", ""))
    linked = (title, f"{text}\n\n{link}" if text else link)
    others = [each for each in sections if each[0] != "egress"]
    return [linked, *others]


def is_verbose(config: pytest.Config) -> bool:
    """Whether failures show what was sent both ways: with -v."""
    return bool(config.getoption("verbose", 0) > 0)


class Reports:
    """The hook is registered for the first test that uses egress: most suites have none."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases

    # The outermost wrapper, so that xfail has been applied to the report.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        if call.excinfo is not None or getattr(item, "_excinfo", None):  # that of unittest's tests
            from pytest_egress.base.callers import hide_from_tracebacks

            hide_from_tracebacks()
        is_ours = uses_egress(item) or self._cases.case_of(item) is not None
        report = yield from self._cases.report(item, call)
        if is_ours and (report.longrepr is not None or report.sections):
            from pytest_egress.plugin.reports import show_escaped

            show_escaped(report, self._cases.hidden)
        return report


CASES: Final = pytest.StashKey[Cases]()
