"""`Run`: one run of pytest: its options, the session that all its tests share, and the screen and prompts beside it.

Every run of pytest imports this module: what only tests that use egress need is imported by the functions that need it.

Threads: pytest calls the hooks on its own, but `pytest_enter_pdb` and `pytest_leave_pdb`, which any thread may call
that stops at a breakpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.choices import LINKS, NAME_POLICIES, POLICIES, RECORD_MODES, SWITCH
from pytest_egress.plugin.options import (
    Options,
    choice_option,
    engine_addresses,
    keep_option,
    lock_option,
    report_option,
    sidecar_image_option,
    trust_option,
    watch_option,
    worker_number,
)
from pytest_egress.plugin.usage import is_overridden, uses_egress

if TYPE_CHECKING:
    import docker

    from pytest_egress.base.account import Accounts
    from pytest_egress.cassettes import Cassettes, Done
    from pytest_egress.ledger.verdict import Offence
    from pytest_egress.ledger.windows import Window
    from pytest_egress.plugin.locking import Locking
    from pytest_egress.plugin.prompts import Prompts
    from pytest_egress.plugin.screen import Terminal
    from pytest_egress.plugin.watching import Watching
    from pytest_egress.session import Session
    from pytest_egress.traffic.redaction.declared import Redaction


class Run:
    """One run of pytest.

    Attributes:
        request: That of `session_egress`.
        outside: Lines about the traffic outside of any test.
        used: Lines for the summary: engines, sidecar setups, notes.
        answers: Whether an engine answered when the header was made, if it was asked.
        locking: What compares destinations with `egress.lock`; None where nobody asks for it.
        current: The session; None before the first test that uses egress, and after `close`.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.keep: Final = keep_option(config)
        self.link: Final = choice_option(config, "egress_link", LINKS)
        self.record_mode: Final = choice_option(config, "egress_record_mode", RECORD_MODES)
        self.is_worker: Final = hasattr(config, "workerinput")
        self.sidecar_image: Final = sidecar_image_option(config)
        self.sidecar_reuse: Final = choice_option(config, "egress_sidecar_reuse", SWITCH) == "on"
        self.engines: Final = engine_addresses(config)
        self.trust: Final = trust_option(config)
        self.watches: Final = watch_option(config)
        self.report: Final = report_option(config)
        self.sweep: Final = choice_option(config, "egress_sweep", SWITCH)
        self.engine: Final = (
            self.engines[worker_number(config) % len(self.engines)] if self.engines else None
        )
        self.options: Final = Options(
            unrouted=choice_option(config, "egress_unrouted", POLICIES),
            dns=choice_option(config, "egress_dns", NAME_POLICIES),
        )
        self.locking: Final = locking_of(config)
        self.request: pytest.FixtureRequest | None = None
        self.outside: list[str] = []
        self.used: list[str] = []
        self.client: docker.DockerClient | None = None  # made for the header, not yet used
        self.answers = True
        self._taped: Cassettes | None = None
        self._is_prepared = False
        self._running: tuple[pytest.Item, pytest.Item | None] | None = None  # a test, and the next
        self._prompts: Prompts | None = None
        self._screen: Terminal | None = None
        self._watching: Watching | None = None  # with --egress-watch, while tests run
        self.current: Session | None = None
        self._accounts: Accounts | None = None  # of the latest session, which may be closed
        self.watch: Callable[[Session], None]  # called with a new session

    def session(self) -> Session:  # no property: pytest 7.4 looks at every one of a plugin's
        """No engine is contacted until a container starts."""
        if self.current is None:
            from pytest_egress.session import Session

            self.prompts()  # here, and not by the first that opens: any thread may do that
            self.current = Session(
                client=self._docker_client,
                ca=lambda: self.fixture("egress_ca"),
                defaults={"policy": self.options.unrouted, "dns": self.options.dns},
                link=self.link,
                sidecar_image=self.sidecar_image,
                address=self.engine,
                keep=self.keep,
                trust=self.trust,
                sidecar_reuse=self.sidecar_reuse,
                rules=self._redaction,
                cassettes=self._cassettes(),
            )
            self._accounts = self.current.ledger.accounts
            if self.locking is not None:
                self.locking.watch(self.current)
            if self.report is not None:
                self.current.take_notes()
            self.watch(self.current)
            self.current.engine.progress.screen = self._screen
            self.current.sidecars.expects_more = self._expects_more
            if self._watching is not None:
                self._watching.start(self.current.ledger)
        return self.current

    def _cassettes(self) -> Cassettes:
        from pytest_egress.cassettes import Cassettes

        self._taped = Cassettes(self.record_mode, is_worker=self.is_worker)
        return self._taped

    def _docker_client(self) -> docker.DockerClient:
        """Before fixtures can be requested, the client is made in the same way as the fixture makes it."""
        if self._is_prepared:
            return self.engine_client()
        client: docker.DockerClient = self.fixture("egress_docker_client")
        return client

    def _redaction(self) -> Redaction:
        """What the fixture egress_redaction declares."""
        from pytest_egress.traffic.redaction.declared import Redaction
        from pytest_egress.traffic.shown import shown

        rules = self.fixture("egress_redaction")
        if not isinstance(rules, Redaction):
            raise pytest.UsageError(
                f"the fixture egress_redaction returned {shown(rules)}; it returns a Redaction, such as "
                'pytest_egress.Redaction(headers=["X-Tenant"])'
            )
        return rules

    def unlisted(self, test: str, window: Window | None = None) -> Callable[[], Offence | None]:
        """What tells whether a test has reached what no lock lists, since this was called last."""
        return no_offence if self.locking is None else self.locking.take(test, window)

    def hidden(self, text: str) -> str:
        """A text without the secrets that are known, or that have the form of one."""
        if self.current is not None:
            self.current.secrets.learn()
        redactor = self._accounts and self._accounts.redactor
        return redactor.hidden(text) if redactor else text

    def prompts(self) -> Prompts:
        if self._prompts is None:
            from pytest_egress.plugin.prompts import Prompts

            self._prompts = Prompts()
        return self._prompts

    def engine_client(self) -> docker.DockerClient:
        from pytest_egress.session import default_client

        client, self.client = self.client, None
        return client or default_client(self.engine)

    def fixture(self, name: str) -> Any:
        """A session fixture's value. `close` runs before the teardown of the fixture, which users may override."""
        assert self.request is not None, "an Egress comes from session_egress"
        value = self.request.getfixturevalue(name)
        self.request.node.addfinalizer(self.close)  # before the fixture's own: last in, first out
        return value

    def close(self) -> None:
        """Closing again does nothing."""
        if self.current is not None:
            from pytest_egress.plugin.case import has_failed

            session, self.current = self.current, None
            failed = self.request is not None and has_failed(self.request.node)
            with contextlib.ExitStack() as ends:  # all are called, even if one raises
                ends.callback(session.close)
                for egress in session.open_scopes():  # the narrowest is closed first
                    ends.callback(egress.close, keep=self.keep and failed)
            self.used += [session.provisioner.summary] if session.provisioner.summary else []
            self.used += session.engine.notes
            self.outside += session.outside()

    # After the last fixture's teardown, which writes cassettes of its scope.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A green run of all tests takes out of shared cassettes what none of them has asked for."""
        if self._taped is None:
            return
        from pytest_egress.errors import CassetteError

        try:
            done = done_by(session.config) if exitstatus == pytest.ExitCode.OK else "nothing"
            self.used += self._taped.finish(done)
        except CassetteError as error:
            self.used.append(str(error))

    def pytest_unconfigure(self) -> None:
        """An interrupted run has left the session open."""
        self.close()
        if self.client is not None:
            self.client.close()

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
        if self.watches and self._screen is not None:
            self._watch(session.config.pluginmanager, self._screen)
        if self.current is not None:
            self.current.engine.progress.screen = self._screen
        try:
            return (yield)
        finally:
            if self._watching is not None:
                self._watching.close()
            if self._screen is not None:
                self._screen.close()

    def _watch(self, plugins: pytest.PytestPluginManager, screen: Terminal) -> None:
        """Have the lines of --egress-watch written from now on."""
        from pytest_egress.plugin.watching import Watching

        self._watching = Watching(screen)
        plugins.register(self._watching, "egress-watching")
        if self.current is not None:
            self._watching.start(self.current.ledger)

    def _prepare(self, session: pytest.Session, users: list[pytest.Item]) -> None:
        """Start a sidecar for the first container, and import meanwhile what that needs.

        The imports stay on this thread: a test might freeze the time while cryptography is imported on another.
        """
        fails = session.testsfailed and not session.config.option.continue_on_collection_errors
        unused = session.config.getoption("collectonly") or session.config.getoption(
            "setupplan", False
        )
        if fails or unused or not self.answers or is_overridden(users, "egress_docker_client"):
            return
        with contextlib.suppress(ImportError, RuntimeError):  # the test that needs it will raise it
            self._is_prepared = True
            self.session().sidecars.prepare()
            import pytest_egress.egress  # noqa: F401
            from pytest_egress.gateway.tls.authority import load_cryptography_unfrozen

            load_cryptography_unfrozen()

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Beside a test that needs no sidecar, none is being started."""
        self._running = item, nextitem
        if self.current is not None and not uses_egress(item):
            self.current.sidecars.settle()

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

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C may come where Python has no line, and pytest's report of it would fail (pytest-xdist issue 1196)."""
        from pytest_egress.base.frames import with_lines

        mended = with_lines(excinfo.tb)
        if mended is not None and mended is not excinfo.tb:
            excinfo.traceback = type(excinfo.traceback)(mended)

    def pytest_enter_pdb(self, config: pytest.Config, pdb: Any) -> None:
        """The hook is called on the thread that stopped."""
        if self._screen is not None:
            self._screen.clear()
        if self.current is not None:
            capture = config.pluginmanager.getplugin("capturemanager")
            self.prompts().enter(pdb, self.current.ledger, capture)

    def pytest_leave_pdb(self, pdb: Any) -> None:
        if self._prompts is not None:
            self._prompts.leave(pdb)


def locking_of(config: pytest.Config) -> Locking | None:
    mode, path = lock_option(config)
    if mode == "off":
        return None
    from pytest_egress.plugin.locking import Locking

    return Locking(config, path, updates=mode == "update")


def done_by(config: pytest.Config) -> Done:
    """Which tests a green run has run."""
    from pytest_egress.plugin.locking import narrowed

    reporter = config.pluginmanager.getplugin("terminalreporter")
    left_out = ("deselected", "skipped", "xfailed")
    is_known = reporter is not None and not any(map(reporter.stats.get, left_out))
    if not is_known or config.getoption("lf", False) or any("::" in each for each in config.args):
        return "nothing"
    return "modules" if narrowed(config) else "all"


def no_offence() -> None:
    """That of a run without a lock."""


RUN: Final = pytest.StashKey[Run]()
