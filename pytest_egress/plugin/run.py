"""`Run`: the hooks that act while tests run, and the state that they share with the fixtures.

Every run of pytest imports this module: what only tests that use egress need is imported by the functions that need it.

Threads: pytest calls the hooks on its own, but `pytest_enter_pdb` and `pytest_leave_pdb`, which any thread may call
that stops at a breakpoint, and `look`, which any thread calls that asks for the window. What `look` changes, it changes
under `Ledger.changed`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.choices import LINKS, NAME_POLICIES, POLICIES, SWITCH
from pytest_egress.plugin.markers import MARKERS, check_marker, markers_named
from pytest_egress.plugin.options import (
    Options,
    choice_option,
    engine_addresses,
    keep_option,
    sidecar_image_option,
    trust_option,
    worker_number,
)
from pytest_egress.plugin.usage import (
    EGRESS_FIXTURES,
    fixture_of,
    is_overridden,
    requested_fixtures,
    uses_egress,
)

if TYPE_CHECKING:
    import docker

    from pytest_egress.egress import Egress
    from pytest_egress.errors import EgressError
    from pytest_egress.plugin.case import Case, Late
    from pytest_egress.plugin.prompts import Prompts
    from pytest_egress.plugin.screen import Terminal
    from pytest_egress.session import Session


def pytest_configure(config: pytest.Config) -> None:
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", name + text)
    run = config.stash[RUN] = Run(config)
    config.pluginmanager.register(run, "egress-run")


class Run:
    """One run of pytest: its options, its `Session`, and the hooks that act while tests run."""

    def __init__(self, config: pytest.Config) -> None:
        self.keep: Final = keep_option(config)
        self.link: Final = choice_option(config, "egress_link", LINKS)
        self.sidecar_image: Final = sidecar_image_option(config)
        self.sidecar_reuse: Final = choice_option(config, "egress_sidecar_reuse", SWITCH) == "on"
        self.engines: Final = engine_addresses(config)
        self.trust: Final = trust_option(config)
        self.engine: Final = (
            self.engines[worker_number(config) % len(self.engines)] if self.engines else None
        )
        self.options: Final = Options(
            unrouted=choice_option(config, "egress_unrouted", POLICIES),
            dns=choice_option(config, "egress_dns", NAME_POLICIES),
        )
        self._plugins: Final = config.pluginmanager
        self.request: pytest.FixtureRequest | None = None  # that of session_egress
        self.outside: list[str] = []
        self.used: list[str] = []  # lines for the summary: engines, sidecar setups, notes
        self._announced = ""
        self._client: docker.DockerClient | None = None  # made for the header, not yet used
        self._answers = True  # whether an engine answered when the header was made, if it was asked
        self._is_prepared = False
        self._running: tuple[pytest.Item, pytest.Item | None] | None = None  # a test, and the next
        self._prompts: Prompts | None = None
        self._screen: Terminal | None = None
        self._session: Session | None = None
        self._has_cases = False  # of this run so far, or of one that has been closed
        self._item: pytest.Item | None = None  # the test that runs, if not known to use egress
        self._egress_users: dict[str, set[object]] = {}  # wider fixtures that use egress, by name
        self._late: list[Late] = []

    # The session that every egress of the run shares.

    def session(self) -> Session:  # no property: pytest 7.4 looks at every one of a plugin's
        """No engine is contacted until a container starts."""
        if self._session is None:
            from pytest_egress.session import Session

            self.prompts()  # here, and not by the first that opens: any thread may do that
            if not self._plugins.has_plugin("egress-reports"):
                self._plugins.register(Reports(self), "egress-reports")
            self._session = Session(
                client=self._docker_client,
                ca=lambda: self.fixture("egress_ca"),
                defaults={"policy": self.options.unrouted, "dns": self.options.dns},
                link=self.link,
                sidecar_image=self.sidecar_image,
                address=self.engine,
                keep=self.keep,
                trust=self.trust,
                sidecar_reuse=self.sidecar_reuse,
            )
            self._session.ledger.open_window_if_used = self.look
            self._session.engine.progress.screen = self._screen
            self._session.sidecars.expects_more = self._expects_more
        return self._session

    def _docker_client(self) -> docker.DockerClient:
        """Before fixtures can be requested, the client is made in the same way as the fixture makes it."""
        if self._is_prepared:
            return self.engine_client()
        client: docker.DockerClient = self.fixture("egress_docker_client")
        return client

    def prompts(self) -> Prompts:
        if self._prompts is None:
            from pytest_egress.plugin.prompts import Prompts

            self._prompts = Prompts()
        return self._prompts

    def engine_client(self) -> docker.DockerClient:
        from pytest_egress.session import default_client

        client, self._client = self._client, None
        return client or default_client(self.engine)

    def fixture(self, name: str) -> Any:
        """A session fixture's value. `close` runs before the teardown of the fixture, which users may override."""
        assert self.request is not None, "an Egress comes from session_egress"
        value = self.request.getfixturevalue(name)
        self.request.node.addfinalizer(self.close)  # before the fixture's own: last in, first out
        return value

    def close(self) -> None:
        """Closing again does nothing."""
        if self._session is not None:
            from pytest_egress.plugin.case import has_failed

            session, self._session = self._session, None
            failed = self.request is not None and has_failed(self.request.node)
            with contextlib.ExitStack() as ends:  # all are called, even if one raises
                ends.callback(session.close)
                for egress in session.open_scopes():  # the narrowest is closed first
                    ends.callback(egress.close, keep=self.keep and failed)
            self.used += [session.provisioner.summary] if session.provisioner.summary else []
            self.used += session.engine.notes
            self.outside += session.outside()

    def pytest_unconfigure(self) -> None:
        """An interrupted run has left the session open."""
        self.close()
        if self._client is not None:
            self._client.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Prepare the first container, and open the screen for what takes long, before pytest captures.

        A worker of pytest-xdist has no screen, and its controller has no items.
        """
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        items = getattr(session, "items", ())  # absent from the controller's, by pytest 7.4
        users = [*filter(uses_egress, items)]
        if users:
            self._prepare(session, users)
        if reporter is not None and users:
            from pytest_egress.plugin.screen import Terminal

            with contextlib.suppress(AttributeError, OSError, ValueError):  # it writes to no file
                self._screen = Terminal(reporter, self.prompts())
        if self._session is not None:
            self._session.engine.progress.screen = self._screen
        try:
            return (yield)
        finally:
            if self._screen is not None:
                self._screen.close()

    def _prepare(self, session: pytest.Session, users: list[pytest.Item]) -> None:
        """Start a sidecar for the first container, and import meanwhile what that needs.

        The imports stay on this thread: a test might freeze the time while cryptography is imported on another.
        """
        fails = session.testsfailed and not session.config.option.continue_on_collection_errors
        unused = session.config.getoption("collectonly") or session.config.getoption(
            "setupplan", False
        )
        if fails or unused or not self._answers or is_overridden(users, "egress_docker_client"):
            return
        with contextlib.suppress(ImportError, RuntimeError):  # the test that needs it will raise it
            self._is_prepared = True
            self.session().sidecars.prepare()
            import pytest_egress.egress  # noqa: F401
            from pytest_egress.gateway.authority import load_cryptography_unfrozen

            load_cryptography_unfrozen()

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Beside a test that needs no sidecar, none is being started."""
        self._running = item, nextitem
        if self._session is not None and not uses_egress(item):
            self._session.sidecars.settle()

    def _expects_more(self) -> bool:
        """Of a pytest-xdist worker's tests only the next is known."""
        item, following = self._running or (None, None)
        if item is None or following is None:
            return False
        items = [] if hasattr(item.config, "workerinput") else item.session.items
        try:
            return any(map(uses_egress, items[items.index(item) + 1 :]))
        except ValueError:  # or a plugin's own loop takes away what it runs
            return uses_egress(following)

    # Windows and verdicts.

    def case(self, item: pytest.Item) -> Case:
        """The window opens now if the test was not known to use egress."""
        from pytest_egress.plugin.case import CASE, Case

        if CASE not in item.stash:
            options = self.options
            for marker in markers_named(item, "egress"):
                try:  # another plugin may have added it after the collection
                    check_marker(marker)
                except (TypeError, ValueError) as error:
                    raise pytest.UsageError(f"@pytest.mark.egress: {error}") from None
                options = options._replace(**marker.kwargs)
            session = self.session()
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
        if self._session is None or self._session.engine.inherited:
            return
        with self._session.ledger.changed:
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
        if self._session is None and not self._has_cases:  # no test has used it yet
            self._item = None
            return None
        self.look()
        self._item = None
        return self.case_of(item)

    def end_failed(self, item: pytest.Item, own: BaseException) -> None:
        """The failure may be in set-up or call."""
        if (case := self.end_of(item)) is not None:
            case.close(own)
            case.explain(own)

    def end(self, egress: Egress, node: Any) -> EgressError | None:
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

        with egress.session.ledger.changed:
            containers = egress.containers.copy()
        if self.keep:  # end the containers, but keep them until it is known whether a test failed
            for container in containers:
                container.finish()
        else:
            egress.close()
        late = egress.late_verdict() if has_passed(node) else None
        egress.close(keep=self.keep and (late is not None or has_failed(node)))
        if late is not None:
            kept = kept_section(containers) if self.keep else ()
            sections = [*late_sections(egress, containers), *kept]
            self._late.append(Late(verdict=late, sections=sections))
        if egress.scope != "test":  # a test's own is released when its report has been made
            egress.let_go()
        return late

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
        if self._session is None:
            return (yield)
        with self._session.ledger.wide_set_up(fixturedef.argname):
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
            if self._session is None:
                yield
            else:
                frame = yield from self._call(item)
        except BaseException as own:
            self.end_failed(item, own)
            raise
        if (case := self.end_of(item)) is None:
            if self._session is not None and self._asks_for_egress(item):
                self.case(item)  # raises the reason why the test has no window
            return
        case.frame = frame
        case.close()
        case.check_exit()
        # pytest raises unittest's failures only later.
        if excinfos := getattr(item, "_excinfo", None):
            case.explain(excinfos[0].value)
        elif verdict := case.judge():
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
            show_text_only(report, item, call.excinfo)
        if report.failed:
            for node in item.listchain():
                node.stash.setdefault(FAILED, set()).add(item.nodeid)
            sections = [*case.sections(report.when), *(case.kept() if self.keep else ())]
            show_sections(report, item.config, without_told(sections, call.excinfo))
            if call.excinfo:
                show_headline(report, call.excinfo.value, None if is_verdict else case.window)
        if brief and call.excinfo and item.config.getoption("usepdb", False):
            case.land_at_user(call.excinfo, is_verdict=is_verdict)
        return report

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
                show_text_only(report, item, call.excinfo)
            sections = [section for each in found for section in each.sections]
            show_sections(report, item.config, without_told(sections, call.excinfo))
            if call.excinfo:
                show_headline(report, call.excinfo.value, None)
            if brief and call.excinfo and case and item.config.getoption("usepdb", False):
                case.land_at_user(call.excinfo, is_verdict=bool(late))
        if case is not None:
            from pytest_egress.plugin.case import CASE

            del item.stash[CASE]
            case.let_go()
        return report

    # Prompts.

    def pytest_enter_pdb(self, config: pytest.Config, pdb: Any) -> None:
        """The hook is called on the thread that stopped."""
        if self._screen is not None:
            self._screen.clear()
        if self._session is not None:
            capture = config.pluginmanager.getplugin("capturemanager")
            self.prompts().enter(pdb, self._session.ledger, capture)

    def pytest_leave_pdb(self, pdb: Any) -> None:
        if self._prompts is not None:
            self._prompts.leave(pdb)

    # The header and the summary, with the traffic outside of any test.

    def pytest_report_header(self) -> str | None:
        default = Options()
        said = [
            f"{name}={getattr(self.options, name)}"
            for name in ("unrouted", "dns")
            if getattr(self.options, name) != getattr(default, name)
        ]
        said += [f"engines={', '.join(self.engines)}"] if self.engines else []
        said += [*(["keeps containers of failed tests"] if self.keep else [])]
        return f"egress: {', '.join(said)}" if said else None

    def pytest_report_collectionfinish(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> str | None:
        """The line names the engine of the environment; the summary names other engines that were used."""
        quiet = config.getoption("verbose") < 0 or config.getoption("collectonly")
        if quiet or not any(map(uses_egress, items)):
            return None
        from pytest_egress.errors import EngineError

        try:
            from pytest_egress.engine.engine import contact

            self._client, name = contact(self.engine_client, self.engine)
        except (EngineError, ImportError):  # a project may have a docker.py of its own
            self._answers = False
            return None  # a test will raise it, unless a fixture of the user's names another engine
        self._announced = f"{name}, {self.session().provisioner.setups[0]}"
        return f"egress: {self._announced}"

    # Runs after the last fixture's teardown, and inside the wrapper of pytest-xdist that sends workeroutput.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The controller of pytest-xdist gets this worker's traffic outside of any test, and its engines."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["egress"] = self.outside
            session.config.workeroutput["egress engines"] = self.used

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})  # absent when the worker crashed
        self.outside += [f"[{node.gateway.id}] {line}" for line in output.get("egress", ())]
        self.used += output.get("egress engines", ())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the traffic outside of any test, and the engines that the header could not name."""
        if terminalreporter.verbosity >= 0:
            for engine in sorted({*self.used} - {self._announced}):
                terminalreporter.write_line(f"egress: {engine}")
        if self.outside:
            from pytest_egress.base.escaping import escaped

            terminalreporter.section("egress: traffic outside of any test")
            terminalreporter.write_line(escaped("\n".join(self.outside)))


class Reports:
    """The hook is registered for the first test that uses egress: most suites have none."""

    def __init__(self, run: Run) -> None:
        self._run = run

    # The outermost wrapper, so that xfail has been applied to the report.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        if call.excinfo is not None or getattr(item, "_excinfo", None):  # that of unittest's tests
            from pytest_egress.base.callers import hide_from_tracebacks

            hide_from_tracebacks()
        is_ours = uses_egress(item) or self._run.case_of(item) is not None
        report = yield from self._run.report(item, call)
        if report.longrepr is not None and is_ours:
            from pytest_egress.plugin.reports import show_escaped

            show_escaped(report)
        return report


RUN: Final = pytest.StashKey[Run]()
