"""The hooks that act while tests run, and what they share with the fixtures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.choices import LINKS, NAME_POLICIES, POLICIES
from pytest_egress.plugin.case import (
    CASE,
    FAILED,
    Case,
    Late,
    case_of,
    forget,
    has_failed,
    has_passed,
    kept_section,
    late_sections,
)
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
from pytest_egress.plugin.prompts import Prompts
from pytest_egress.plugin.reports import show_headline, show_sections, show_text_only, without_told
from pytest_egress.plugin.screen import Terminal
from pytest_egress.plugin.usage import EGRESS_FIXTURES, fixture_of, requested_fixtures, uses_egress

if TYPE_CHECKING:
    import docker

    from pytest_egress.egress import Egress
    from pytest_egress.errors import EgressError
    from pytest_egress.session import Session


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and what acts while tests run."""
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", name + text)
    run = config.stash[RUN] = Run(config)
    config.pluginmanager.register(run, "egress-run")


class Run:
    """The hooks that act while tests run, and what they share with the fixtures."""

    def __init__(self, config: pytest.Config) -> None:
        self.keep: Final = keep_option(config)
        self.link: Final = choice_option(config, "egress_link", LINKS)
        self.sidecar_image: Final = sidecar_image_option(config)
        self.engines: Final = engine_addresses(config)
        self.trust: Final = trust_option(config)
        self.engine: Final = (
            self.engines[worker_number(config) % len(self.engines)] if self.engines else None
        )
        self.options: Final = Options(
            unrouted=choice_option(config, "egress_unrouted", POLICIES),
            dns=choice_option(config, "egress_dns", NAME_POLICIES),
        )
        self.request: pytest.FixtureRequest | None = None  # of session_egress
        self.outside: list[str] = []
        self.used: list[str] = []  # engines, how sidecars were had, and what fails no test
        self._announced = ""
        self._client: docker.DockerClient | None = None  # of the header, not yet taken
        self._prompts = Prompts()
        self._screen: Terminal | None = None
        self._session: Session | None = None
        self._item: pytest.Item | None = None  # set up or called, and not known to use egress
        self._egress_users: dict[str, set[object]] = {}  # wider fixtures of the user's, by name
        self._late: list[Late] = []

    # What every egress of the run shares.

    def session(self) -> Session:  # no property: pytest 7.4 looks at every one of a plugin's
        """Made for the first test that uses egress; contacts nothing until a container starts."""
        if self._session is None:
            from pytest_egress.session import Session

            self._session = Session(
                client=lambda: self.fixture("egress_docker_client"),
                ca=lambda: self.fixture("egress_ca"),
                defaults={"policy": self.options.unrouted, "dns": self.options.dns},
                link=self.link,
                sidecar_image=self.sidecar_image,
                address=self.engine,
                keep=self.keep,
                trust=self.trust,
            )
            self._session.ledger.look = self.look
            self._session.engine.progress.screen = self._screen
        return self._session

    def engine_client(self) -> docker.DockerClient:
        """That of the header, or a new one."""
        from pytest_egress.session import default_client

        client, self._client = self._client, None
        return client or default_client(self.engine)

    def fixture(self, name: str) -> Any:
        """The value of a session fixture that users may override; `close` comes before its end."""
        assert self.request is not None, "an Egress comes from session_egress"
        value = self.request.getfixturevalue(name)
        self.request.node.addfinalizer(self.close)  # before the fixture's own: last in, first out
        return value

    def close(self) -> None:
        """Remove all that is left; calling it again does nothing."""
        if self._session is not None:
            session, self._session = self._session, None
            failed = self.request is not None and has_failed(self.request.node)
            for egress in reversed(session.open_scopes()):
                egress.close(keep=self.keep and failed)
            session.close()
            self.used += [session.provisioner.summary] if session.provisioner.summary else []
            self.used += session.engine.notes
            self.outside += session.outside()

    def pytest_unconfigure(self) -> None:
        """Close what an interrupted run left open."""
        self.close()
        if self._client is not None:
            self._client.close()
        if self._screen is not None:
            self._screen.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Have a screen for what takes long, while nothing is captured; a worker of pytest-xdist has none."""
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        items = getattr(session, "items", ())  # absent from the controller's, by pytest 7.4
        if reporter is not None and any(map(uses_egress, items)):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # it writes to no file
                self._screen = Terminal(reporter, self._prompts)
        if self._session is not None:
            self._session.engine.progress.screen = self._screen

    # Windows and verdicts.

    def case(self, item: pytest.Item) -> Case:
        """The running test; its window opens now where it was not known to use egress."""
        if CASE not in item.stash:
            options = self.options
            for marker in markers_named(item, "egress"):
                try:  # another plugin may have added it after the collection
                    check_marker(marker)
                except (TypeError, ValueError) as error:
                    raise pytest.UsageError(f"@pytest.mark.egress: {error}") from None
                options = dataclasses.replace(options, **marker.kwargs)
            session = self.session()
            session.engine.check_owner()
            with session.ledger.changed:
                if CASE not in item.stash:  # by now: another thread may have looked
                    window = session.open_window(
                        policy=options.unrouted,
                        dns=options.dns,
                        drain_seconds=options.timeout,
                        name=item.nodeid,
                    )
                    item.stash[CASE] = Case(session=session, window=window, options=options)
        return item.stash[CASE]

    def look(self) -> None:
        """Open the window of a test that is seen to use egress while it runs; on any thread."""
        if self._session is None or self._session.engine.inherited:
            return
        with self._session.ledger.changed:
            item = self._item
            if item is None or not self._asks_for_egress(item):
                return
            self._item = None  # or what opens the window would look for it
            try:
                self.case(item)
            except pytest.UsageError:  # a malformed marker, that its own thread has to tell of
                self._item = item

    def _asks_for_egress(self, item: pytest.Item) -> bool:
        """Whether it has asked for a fixture that uses egress; several of its module may have that name."""
        for name in requested_fixtures(item):
            if name in EGRESS_FIXTURES:
                return True
            if users := self._egress_users.get(name):
                found = fixture_of(item, name)
                if found is None or found in users:
                    return True
        return False

    def end_of(self, item: pytest.Item) -> Case | None:
        """The run of a test that ends, where it has used egress; it is looked at for the last time."""
        self.look()
        self._item = None
        return case_of(item)

    def end_failed(self, item: pytest.Item, own: BaseException) -> None:
        """End the window of a test that has failed by itself, in set-up or call."""
        if (case := self.end_of(item)) is not None:
            case.close(own)
            case.explain(own)

    def end(self, egress: Egress, node: Any) -> EgressError | None:
        """Close an egress; the verdict on what came late, which a report is to show."""
        if egress.session.engine.inherited:  # a child's copy: what is in it is its parent's
            return None
        with egress.session.ledger.changed:
            containers = egress.containers.copy()
        if self.keep:  # until it is known whether its test has failed
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
        if egress.scope != "test":  # a test's is let go of when its report has been made
            egress.let_go()
        return late

    # Not pytest_runtest_protocol, which encloses all reruns.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        """Open the window of a test that uses egress, before its first fixture."""
        forget(item)
        refusal: Exception | None = None
        if uses_egress(item):
            try:
                self.case(item)
            except Exception as error:  # raised when pytest has set up what it tears down
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
        """Note whether a wider fixture uses egress, and let the calls of all its lifetime count while it is set up."""
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
        """Know a wider fixture that uses egress by its name: of one that is cached pytest tells no more.

        What it asks for by `request.getfixturevalue` is seen by taking that method's place on its own request.
        """
        name, get = fixturedef.argname, request.getfixturevalue
        if name in EGRESS_FIXTURES:
            return
        self._egress_users.get(name, set()).discard(fixturedef)  # it may do without this time

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

    # Innermost: still captured, timed, and seen by xfail.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Close the window, and raise the verdict."""
        try:
            frame = yield from self._call(item)
        except BaseException as own:
            self.end_failed(item, own)
            raise
        if (case := self.end_of(item)) is None:
            if self._asks_for_egress(item):
                self.case(item)  # which says why it has no window
            return
        case.frame = frame
        case.close()
        case.check_exit()
        if excinfos := getattr(item, "_excinfo", None):  # unittest shows its failures only later
            case.explain(excinfos[0].value)
        elif verdict := case.judge():
            raise verdict
        else:
            case.passed = True

    def _call(self, item: pytest.Item) -> Generator[None, Any, FrameType | None]:
        """Let the test run; with --pdb, the frame of its function."""
        if self._session is None or not item.config.getoption("usepdb", False):
            yield
            return None
        from pytest_egress.base.frames import code_of, first_frame

        with first_frame(code_of(getattr(item, "obj", None))) as running:
            yield
        return running.found

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Close the window of a test without a call phase (--setup-only)."""
        if (case := self.end_of(item)) is not None:
            case.close()
        yield

    # Outermost: xfail has been applied.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        """Show a verdict as its text, and what led to a failure as sections."""
        case, brief = case_of(item), not item.config.getoption("fulltrace", False)
        if call.when == "teardown":
            return (yield from self._report_teardown(item, call, brief))
        if case is None:
            return (yield)
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
        """Show what came late, and let go of what the test received."""
        report = yield
        found, self._late = self._late, []
        case = case_of(item)
        if report.failed:
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
            del item.stash[CASE]
            case.let_go()
        return report

    # Prompts.

    def pytest_enter_pdb(self, config: pytest.Config, pdb: Any) -> None:
        """Stop the clock; called on the thread that stopped."""
        if self._screen is not None:
            self._screen.clear()
        if self._session is not None:
            capture = config.pluginmanager.getplugin("capturemanager")
            self._prompts.enter(pdb, self._session.ledger, capture)

    def pytest_leave_pdb(self, pdb: Any) -> None:
        """Let the clock go on."""
        self._prompts.leave(pdb)

    # What fell outside of any test.

    def pytest_report_header(self) -> str | None:
        """Say which options are set."""
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
        """Say which engine the environment names, where a test uses one; the end says what the header did not."""
        quiet = config.getoption("verbose") < 0 or config.getoption("collectonly")
        if quiet or not any(map(uses_egress, items)):
            return None
        from pytest_egress.errors import EngineError

        try:
            from pytest_egress.engine.engine import contact

            self._client, name = contact(self.engine_client, self.engine)
        except (EngineError, ImportError):  # a project may have a docker.py of its own
            return None  # which a test will say, unless a fixture of the user's names another one
        self._announced = f"{name}, {self.session().provisioner.setups[0]}"
        return f"egress: {self._announced}"

    # After the last fixture's teardown, inside the wrapper of pytest-xdist that sends workeroutput.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand the controller of pytest-xdist what fell outside in this worker."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["egress"] = self.outside
            session.config.workeroutput["egress engines"] = self.used

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of pytest-xdist hands over."""
        output = getattr(node, "workeroutput", {})  # absent when the worker crashed
        self.outside += [f"[{node.gateway.id}] {line}" for line in output.get("egress", ())]
        self.used += output.get("egress engines", ())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List it, and the engines that the header could not name."""
        if terminalreporter.verbosity >= 0:
            for engine in sorted({*self.used} - {self._announced}):
                terminalreporter.write_line(f"egress: {engine}")
        if self.outside:
            terminalreporter.section("egress: traffic outside of any test")
            terminalreporter.write_line("\n".join(self.outside))


RUN: Final = pytest.StashKey[Run]()
