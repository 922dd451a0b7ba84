"""The pytest side: fixtures, markers, options, windows, verdicts. Only here pytest is imported.

A verdict is raised in the call phase by the innermost wrapper, so that capture, xfail, --pdb, -x
and reruns treat it like any failure of the test itself. Importing this module costs about a
millisecond: everything else of the package is imported where a test uses it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.choices import (
    LINKS,
    NAME_POLICIES,
    POLICIES,
    NamePolicy,
    Policy,
    alternatives,
    union,
)
from pytest_egress.kinds import KINDS

if TYPE_CHECKING:
    import docker
    import trustme

    from pytest_egress.containers import Container
    from pytest_egress.egress import Egress
    from pytest_egress.entries import Entry
    from pytest_egress.errors import EgressError
    from pytest_egress.ledger import Ledger
    from pytest_egress.route import Scope
    from pytest_egress.session import Session
    from pytest_egress.windows import Window

ROUTE_MARKERS: Final = {kind.marker: kind for kind in KINDS}
"""Marker to the kind of route that it declares."""

MARKERS: Final[Mapping[str, str]] = {
    **{kind.marker: kind.usage for kind in KINDS},
    "egress_container": "(image, command=None, **options): start a container with the options of "
    "`egress.start`; the fixture egress_container is it",
    "egress": f"(*, unrouted={union(POLICIES)}, dns={union(NAME_POLICIES)}, "
    "assert_all_called=True, timeout=5): what an attempt means that no route claims, what DNS says "
    "of a name that no route names, whether the test's own routes must be called, and how many "
    "seconds handlers may go on after the test",
}
"""Marker to what `pytest --markers` says of it."""

EGRESS_FIXTURES: Final = frozenset(
    {"egress", "class_egress", "module_egress", "session_egress", "egress_container"}
)
"""A test that uses one of them, however it asks for it, has a window, and is judged."""

QUIET: Final = (
    KeyboardInterrupt,
    SystemExit,
    pytest.exit.Exception,
    pytest.skip.Exception,
    pytest.xfail.Exception,
)
"""Ends of a test that are no failure of it: they are left as they are."""

SUMMARY_CHARACTERS: Final = 300  # of a verdict in the short summary, which CI does not cut
STDIN_SECONDS: Final = 0.5  # what a debugger's command may take before another prompt gets input


# Options: marker, then command line, then environment, then ini, then default.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What holds for a test.

    Attributes:
        unrouted: What an attempt that no route claims means.
        dns: What DNS says of a name that no route names.
        assert_all_called: Whether the test's own routes must be called.
        timeout: Seconds that handlers may go on after the test.
    """

    unrouted: Policy = "fail"
    dns: NamePolicy = "synthetic"
    assert_all_called: bool = True
    timeout: float = 5.0


def is_seconds(value: object) -> bool:
    """Whether a value is a time that can be waited for."""
    from pytest_egress.clock import is_seconds as is_time

    return is_time(value)


ACCEPTED_OPTIONS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "unrouted": (lambda value: value in POLICIES, alternatives([*map(repr, POLICIES)])),
    "dns": (lambda value: value in NAME_POLICIES, alternatives([*map(repr, NAME_POLICIES)])),
    "assert_all_called": (lambda value: isinstance(value, bool), "True or False"),
    "timeout": (is_seconds, "a number of seconds"),
}
"""Option of `@pytest.mark.egress` to what is a value of it, as a function and in words."""


def check_options(args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Refuse a malformed `@pytest.mark.egress`.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    keywords = f"it takes the keywords {', '.join(ACCEPTED_OPTIONS)}"
    if args:
        raise TypeError(f"{args[0]!r} needs a name; {keywords}")
    for name, value in options.items():
        if name not in ACCEPTED_OPTIONS:
            raise TypeError(f"it does not take {name}=; {keywords}")
        accepts, words = ACCEPTED_OPTIONS[name]
        if not accepts(value):
            raise ValueError(f"{name}={value!r}: it takes {words}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("egress", "egress of containers")
    group.addoption(
        "--egress-unrouted",
        metavar="|".join(POLICIES),
        help="What a container's attempt means that no route claims: "
        "fail the test (default), just be refused, or reach the real upstream (TCP).",
    )
    group.addoption(
        "--egress-dns",
        metavar="|".join(NAME_POLICIES),
        help="What DNS says of a name that no route names: an address of its own (default), "
        "or NXDOMAIN, which is an attempt that no route claims.",
    )
    group.addoption(
        "--egress-keep",
        action="store_true",
        default=None,
        help="Leave the containers of failed tests, stopped, for a look at them.",
    )
    group.addoption(
        "--egress-link",
        metavar="|".join(LINKS),
        help="How the sidecar of a container is reached: by its sockets' descriptors, which takes an "
        "engine on this machine, or over one stream of the engine's API; auto (default) tries both.",
    )
    group.addoption(
        "--egress-sidecar-image",
        metavar="IMAGE",
        help="An image with Python 3.10 or newer that sidecars run, instead of this machine's "
        "Python, which is the default where the engine sees it.",
    )
    group.addoption(
        "--egress-engines",
        metavar="ADDRESS,...",
        help="Engines, each as DOCKER_HOST has it: worker gwN of pytest-xdist takes number N, "
        "from the start again where there are fewer; without workers it is the first.",
    )
    parser.addini("egress_unrouted", "Default of --egress-unrouted.", default="fail")
    parser.addini("egress_dns", "Default of --egress-dns.", default="synthetic")
    parser.addini("egress_link", "Default of --egress-link.", default="auto")
    parser.addini("egress_sidecar_image", "Default of --egress-sidecar-image.", default="")
    parser.addini("egress_engines", "Default of --egress-engines.", type="linelist", default=[])
    parser.addini(
        "egress_trust",
        "Files in containers, by their absolute paths, that get the CA where they are there: PEM bundles "
        "or Java keystores.",
        type="linelist",
        default=[],
    )
    parser.addini("egress_keep", "Default of --egress-keep.", type="bool", default=False)


def chosen(config: pytest.Config, name: str, accepted: tuple[str, ...]) -> Any:
    """The value of an option that has a few, wherever it was set.

    Raises:
        pytest.UsageError: It is none of the accepted ones.
    """
    dashed, variable = name.replace("_", "-"), f"PYTEST_{name.upper()}"
    if value := config.getoption(name):
        source = f"--{dashed}={value}"
    elif value := os.environ.get(variable):
        source = f"{variable}={value} in the environment"
    else:
        value = config.getini(name)
        source = f"{name} = {value} in {config.inipath or '-o'}"
    if value not in accepted:
        raise pytest.UsageError(f"{source}: it takes {alternatives(accepted)}")
    return value


ENGINE_SCHEMES: Final = ("unix", "tcp", "ssh", "http", "https")


def engine_addresses(config: pytest.Config) -> list[str]:
    """The addresses of the engines, wherever they were set; none is the environment's own.

    Raises:
        pytest.UsageError: One is no address of an engine.
    """
    if text := config.getoption("egress_engines"):
        source = "--egress-engines"
    elif text := os.environ.get("PYTEST_EGRESS_ENGINES"):
        source = "PYTEST_EGRESS_ENGINES in the environment"
    else:
        text = "\n".join(config.getini("egress_engines"))
        source = f"egress_engines in {config.inipath or '-o'}"
    addresses = str(text).replace(",", " ").split()
    for address in addresses:
        scheme, _, rest = address.partition("://")
        if scheme not in ENGINE_SCHEMES or not rest:
            raise pytest.UsageError(
                f"{source}: {address!r} is no address of an engine; it takes what DOCKER_HOST does, "
                "unix:///run/docker.sock or tcp://192.0.2.1:2376, several with commas between them"
            )
    return addresses


def trust_option(config: pytest.Config) -> list[str]:
    """The paths of the files that get the CA in every container.

    Raises:
        pytest.UsageError: One is no absolute path.
    """
    paths: list[str] = config.getini("egress_trust")
    for path in paths:
        if not path.startswith("/"):
            raise pytest.UsageError(
                f"egress_trust in {config.inipath or '-o'}: {path!r} is no absolute path of a file in a container; "
                "it takes one a line"
            )
    return paths


def worker_number(config: pytest.Config) -> int:
    """Which worker of pytest-xdist this process is: 0 where it is none, or has a name that was made up."""
    worker: str = getattr(config, "workerinput", {}).get("workerid", "")
    number = worker.removeprefix("gw")
    return int(number) if number.isdigit() else 0


TRUE: Final = ("1", "true", "yes", "on")
FALSE: Final = ("0", "false", "no", "off")


def keep_option(config: pytest.Config) -> bool:
    """The value of --egress-keep, wherever it was set.

    Raises:
        pytest.UsageError: It is neither true nor false.
    """
    if config.getoption("egress_keep") is not None:
        return True
    valid = f"it takes one of {', '.join((*TRUE, *FALSE))}"
    if text := os.environ.get("PYTEST_EGRESS_KEEP"):
        if text.lower() not in (*TRUE, *FALSE):
            raise pytest.UsageError(f"PYTEST_EGRESS_KEEP={text} in the environment: {valid}")
        return text.lower() in TRUE
    try:
        return bool(config.getini("egress_keep"))
    except (pytest.UsageError, TypeError, ValueError) as error:  # by the version of pytest
        source = f"egress_keep in {config.inipath or '-o'}"
        raise pytest.UsageError(f"{source}: {error}; {valid}") from None


def sidecar_image_option(config: pytest.Config) -> str | None:
    """The value of --egress-sidecar-image, wherever it was set."""
    given = config.getoption("egress_sidecar_image") or os.environ.get(
        "PYTEST_EGRESS_SIDECAR_IMAGE"
    )
    return given or config.getini("egress_sidecar_image") or None


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and what acts while tests run."""
    for name, text in MARKERS.items():
        config.addinivalue_line("markers", name + text)
    run = config.stash[RUN] = Run(config)
    config.pluginmanager.register(run, "egress-run")


# Markers: a test's own are routes of the test, its class's of the class, its module's and
# packages' of the module.


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """Let the collection of a test with a malformed marker fail."""
    report = yield
    if report.passed:
        report.result = [
            checked(node) if isinstance(node, pytest.Item) else node for node in report.result
        ]
    return report


@pytest.hookimpl(trylast=True)  # other plugins add markers here
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test with a marker of ours use `egress` without naming it."""
    for item in items:
        markers = {marker.name for marker in item.iter_markers() if marker.name in MARKERS}
        if markers and hasattr(item, "fixturenames"):
            item.fixturenames = fixture_names(item.fixturenames, markers)


class Malformed(pytest.Collector):
    """Stands where a test with a malformed marker would: only its collection fails."""

    problem: str

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Fail."""
        raise self.CollectError(self.problem)


def checked(item: pytest.Item) -> pytest.Item | pytest.Collector:
    """The item itself, or a collector that fails in its place."""
    for marker in item.iter_markers():
        try:
            check_marker(marker)
        except (TypeError, ValueError) as error:
            return malformed(item, f"@pytest.mark.{marker.name}: {error}")
    return item


def check_marker(marker: pytest.Mark) -> None:
    """Refuse a malformed marker of ours.

    Raises:
        TypeError, ValueError: With the value, and what is accepted.
    """
    if marker.name not in MARKERS:
        return
    if marker.name == "egress":
        check_options(marker.args, marker.kwargs)
        return
    if kind := ROUTE_MARKERS.get(marker.name):
        from pytest_egress.declarations import declaring

        declaring(kind)(*marker.args, **marker.kwargs)
        return
    from pytest_egress.clock import check_seconds
    from pytest_egress.container_options import START_OPTIONS, container
    from pytest_egress.waiting import strategies

    container(*marker.args, **marker.kwargs)
    strategies(marker.kwargs.get("wait"))
    check_seconds(marker.kwargs.get("timeout", 0))
    if others := [name for name in marker.kwargs if name not in START_OPTIONS]:
        from pytest_egress.containers import check_docker_options  # which imports docker

        check_docker_options(others)


def malformed(item: pytest.Item, problem: str) -> Malformed:
    """What stands in the item's place. Its text names the test: pytest's headline does not."""
    collector: Malformed = Malformed.from_parent(item.parent or item.session, name=item.name)
    path, line, _ = item.reportinfo()
    collector.problem = f"{os.path.relpath(path)}:{(line or 0) + 1}: {item.name}: {problem}"
    return collector


def fixture_names(names: Iterable[str], markers: set[str]) -> list[str]:
    """The fixtures of a marked test: a new list, since parametrized siblings share the old one.

    `egress` comes first, so that its routes answer what other fixtures set off; the container of
    `egress_container` last, since other fixtures may declare the routes that it needs.
    """
    found = ["egress", *(name for name in names if name != "egress")]
    if "egress_container" in markers and "egress_container" not in found:
        found.append("egress_container")
    return found


def own_markers(request: pytest.FixtureRequest) -> list[pytest.Mark]:
    """The markers that belong to a fixture's scope, the one that wins last."""
    nodes = request.node.listchain()
    if request.scope == "module":
        nodes = nodes[1:]  # its packages' too, but not the session's
    elif request.scope == "class":  # outer ones too; where a function has no class, it is the node
        nodes = [node for node in nodes if isinstance(node, pytest.Class)]
    else:
        nodes = nodes[-1:]
    return [marker for node in nodes for marker in node.own_markers]


def declare(egress: Egress, markers: Iterable[pytest.Mark]) -> None:
    """Declare the routes of markers, in order: the latest wins, and that is the topmost."""
    for marker in markers:
        if kind := ROUTE_MARKERS.get(marker.name):
            getattr(egress, kind.method)(*marker.args, **marker.kwargs)


def closest(item: pytest.Item, name: str) -> list[pytest.Mark]:
    """All markers of a name, the nearest and topmost last."""
    return [
        marker for node in item.listchain() for marker in node.own_markers if marker.name == name
    ]


# Fixtures.


@pytest.fixture
def egress(class_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """Routes, containers, ledger and assertions of this test.

    What its containers send is answered by its routes, then by those of its class, module and
    session; what no route claims fails the test, and so does a route of its own that is never
    called. Its containers are removed at its end.
    """
    yield from open_egress(request, "test", parent=class_egress)


@pytest.fixture(scope="class")
def class_egress(module_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """As `egress`, for a class.

    Its containers run on between tests, and its routes are never required.
    """
    yield from open_egress(request, "class", parent=module_egress)


@pytest.fixture(scope="module")
def module_egress(session_egress: Egress, request: pytest.FixtureRequest) -> Iterator[Egress]:
    """As `egress`, for a module.

    Its containers run on between tests, and its routes are never required.
    """
    yield from open_egress(request, "module", parent=session_egress)


@pytest.fixture(scope="session")
def session_egress(request: pytest.FixtureRequest) -> Iterator[Egress]:
    """As `egress`, for the whole run.

    Its containers run on between tests, and its routes are never required.
    """
    run = request.config.stash[RUN]
    run.request = request
    try:
        yield from open_egress(request, "session", parent=None)
    finally:
        run.close()


@pytest.fixture
def egress_container(egress: Egress, request: pytest.FixtureRequest) -> Container:
    """The container of `@pytest.mark.egress_container`, started and ready.

    Raises:
        pytest.UsageError: The test has no such marker.
    """
    markers = closest(request.node, "egress_container")
    if not markers:
        form = "@pytest.mark.egress_container(image, command=None, **options)"
        raise pytest.UsageError(
            f"the fixture egress_container starts what {form} says; this test has none"
        )
    return egress.start(*markers[-1].args, **markers[-1].kwargs)


@pytest.fixture(scope="session")
def egress_ca() -> trustme.CA:
    """The `trustme.CA` that every leaf certificate is issued from; override it to use your own."""
    import trustme

    from pytest_egress.authority import see_real_dates

    see_real_dates()
    return trustme.CA()


@pytest.fixture(scope="session")
def egress_docker_client(pytestconfig: pytest.Config) -> Iterator[docker.DockerClient]:
    """The `docker.DockerClient` that starts containers; override it to use another engine.

    That of the engine which egress_engines gives this worker, or else of DOCKER_HOST or the Docker context; requested
    when the first container starts, closed at the end of the run.
    """
    client = pytestconfig.stash[RUN].engine_client()
    yield client
    client.close()


def open_egress(
    request: pytest.FixtureRequest, scope: Scope, *, parent: Egress | None
) -> Iterator[Egress]:
    """An `Egress` with the routes of its markers; at its end its containers are removed, and what came late is judged.

    Raises:
        EgressError: In its teardown. What came after a test that has not passed only goes to the summary.
    """
    from pytest_egress.egress import Egress

    run = request.config.stash[RUN]
    case = run.case(request.node) if scope == "test" else None
    egress = Egress(session=run.session(), parent=parent, scope=scope)
    if case is not None:
        case.egress = egress
    try:
        declare(egress, own_markers(request))
        yield egress
    finally:
        late = run.end(egress, request.node)
    if late is not None:
        raise late


def uses_egress(item: pytest.Item) -> bool:
    """Whether it is known to use egress before it is set up."""
    return not EGRESS_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


def requested_fixtures(item: pytest.Item) -> Iterable[str]:
    """The names of all fixtures that a running test has asked for so far, `request.getfixturevalue` included."""
    names: Iterable[str] = getattr(item, "fixturenames", ())
    for attribute in ("_request", "fixture_request"):  # the latter of a doctest, by pytest 7.4
        if request := getattr(item, attribute, None):
            names = request.fixturenames
    return names


def fixture_of(item: pytest.Item, name: str) -> object:
    """The fixture of a name that a test has, or is to get; None where pytest does not tell."""
    request = getattr(item, "_request", None) or getattr(item, "fixture_request", None)
    if found := getattr(request, "_fixture_defs", {}).get(name):
        return found
    named = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return next(iter(named.get(name, ())[-1:]), None)


# While tests run.


@dataclasses.dataclass(kw_only=True)
class Case:
    """One run of a test that uses egress; a rerun is another.

    Attributes:
        window: From before its first fixture until the end of its call phase.
        egress: The function-scoped one, once it is set up.
        verdict: What failed it, if egress did.
        passed: Whether its call phase has.
    """

    session: Session
    window: Window
    options: Options
    egress: Egress | None = None
    verdict: EgressError | None = None
    passed: bool = False

    def close(self, own: BaseException | None = None) -> None:
        """End the window, drained; where the user ends the run, no handler is waited for."""
        at_once = isinstance(own, (KeyboardInterrupt, pytest.exit.Exception))
        self.session.close_window(self.window, 0 if at_once else self.options.timeout)

    def errors(self) -> list[BaseException]:
        """What handlers raised."""
        errors = (getattr(entry, "error", None) for entry in self.window.entries)
        return [error for error in errors if error is not None]

    def explain(self, own: BaseException) -> None:
        """Let the test's own failure stand; a handler's exception becomes its cause.

        Raises:
            pytest.exit.Exception: The user left the debugger in a handler.
        """
        if isinstance(own, QUIET):
            return
        self.check_exit()
        others = [error for error in self.errors() if error is not own]
        if others and own.__cause__ is None:
            BaseException.__setattr__(own, "__cause__", others[0])  # it may be a frozen dataclass

    def check_exit(self) -> None:
        """Raise a handler's `pytest.exit` on the test's thread: "q" at a breakpoint there."""
        for error in self.errors():
            if isinstance(error, pytest.exit.Exception):
                raise error

    def shorten_tracebacks(self) -> None:
        """Let what handlers raised be shown from the handler on, without what called it."""
        for error in self.errors():
            error.with_traceback(without_our_frames(error.__traceback__))

    def judge(self) -> EgressError | None:
        """The verdict on a test that has not failed by itself."""
        from pytest_egress.verdict import judge

        self.verdict = judge(
            self.window,
            self.egress.routes if self.egress else (),
            assert_all_called=self.options.assert_all_called,
            any_container=self.session.any_container(self.window),
        )
        return self.verdict

    def sections(self, when: str) -> Iterator[tuple[str, str]]:
        """Titles and texts for the report of a failure: the timeline, then the containers' logs.

        Before the timeline what speaks against the containers and is not what failed the test.
        """
        from pytest_egress.errors import HandshakeError, NeverCalledError, UnroutedError
        from pytest_egress.report import handshakes_text, ledger_lines, unrouted_text
        from pytest_egress.verdict import broken_handshakes, unrouted_entries

        entries: dict[int, Entry] = {id(entry): entry for entry in self.window.entries}
        if when == "setup":  # what a wider fixture set off belongs to its own scope
            entries |= {
                id(entry): entry for scope in self.session.open_scopes() for entry in scope.ledger
            }
        besides = [] if self.verdict else [*self.window.complaints, *self.window.stuck]
        unrouted = unrouted_entries(self.window.entries)
        if unrouted and not isinstance(self.verdict, UnroutedError):
            besides += [unrouted_text(unrouted), ""]
        failures = broken_handshakes(self.window)
        if failures and not isinstance(self.verdict, (HandshakeError, NeverCalledError)):
            besides += [handshakes_text(failures), ""]
        if lines := [*besides, *ledger_lines(entries.values())]:
            yield "egress", "\n".join(lines)
        yield from self.session.log_sections(self.window)

    def let_go(self) -> None:
        """Let go of what the test received; all its reports have been made."""
        self.session.release(self.window)
        if self.egress is not None:
            self.egress.let_go()

    def kept(self) -> Iterator[tuple[str, str]]:
        """What --egress-keep leaves of those that run."""
        return kept_section(self.session.live())


def case_of(item: pytest.Item) -> Case | None:
    """The run of a test that is to be judged here: no forked child judges, or ends, its parent's."""
    case = item.stash.get(CASE, None)
    return None if case is None or case.session.engine.inherited else case


def has_passed(node: pytest.Item | pytest.Collector) -> bool:
    """Whether a test that uses egress has passed its call phase; of several it is not asked."""
    return not isinstance(node, pytest.Item) or (
        (case := case_of(node)) is not None and case.passed
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Late:
    """A verdict that a teardown raises, and what its report shows beside it."""

    verdict: EgressError
    sections: list[tuple[str, str]]


def late_sections(egress: Egress, containers: Sequence[Container]) -> list[tuple[str, str]]:
    """The timeline of an egress that has ended, and the logs of its containers."""
    from pytest_egress.report import ledger_lines
    from pytest_egress.session import log_sections

    return [("egress", "\n".join(ledger_lines(egress.ledger))), *log_sections(containers)]


def kept_section(containers: Sequence[Container]) -> Iterator[tuple[str, str]]:
    """The section that says what --egress-keep leaves, and how to remove it."""
    if containers:
        lines = [f"{each.name}: docker logs {each.id[:12]}" for each in containers]
        removal = " ".join(["docker rm --force", *(each.id[:12] for each in containers)])
        yield "egress keeps", "\n".join([*lines, f"to remove: {removal}"])


class Run:
    """The hooks that act while tests run, and what they share with the fixtures."""

    def __init__(self, config: pytest.Config) -> None:
        self.keep: Final = keep_option(config)
        self.link: Final = chosen(config, "egress_link", LINKS)
        self.sidecar_image: Final = sidecar_image_option(config)
        self.engines: Final = engine_addresses(config)
        self.trust: Final = trust_option(config)
        self.engine: Final = (
            self.engines[worker_number(config) % len(self.engines)] if self.engines else None
        )
        self.options: Final = Options(
            unrouted=chosen(config, "egress_unrouted", POLICIES),
            dns=chosen(config, "egress_dns", NAME_POLICIES),
        )
        self.request: pytest.FixtureRequest | None = None  # of session_egress
        self.outside: list[str] = []
        self.used: list[str] = []  # engines, how sidecars were had, and what fails no test
        self._announced = ""
        self._client: docker.DockerClient | None = None  # of the header, not yet taken
        self._prompts = Prompts()
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
            self.used += [session.engine.summary] if session.engine.summary else []
            self.used += session.engine.notes
            self.outside += session.outside()

    def pytest_unconfigure(self) -> None:
        """Close what an interrupted run left open."""
        self.close()
        if self._client is not None:
            self._client.close()

    # Windows and verdicts.

    def case(self, item: pytest.Item) -> Case:
        """The running test; its window opens now where it was not known to use egress."""
        if CASE not in item.stash:
            options = self.options
            for marker in closest(item, "egress"):
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
                        policy=options.unrouted, dns=options.dns, drain_seconds=options.timeout
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
        with self._session.ledger.wide_set_up():
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
            yield
        except BaseException as own:
            self.end_failed(item, own)
            raise
        if (case := self.end_of(item)) is None:
            if self._asks_for_egress(item):
                self.case(item)  # which says why it has no window
            return
        case.close()
        case.check_exit()
        if excinfos := getattr(item, "_excinfo", None):  # unittest shows its failures only later
            case.explain(excinfos[0].value)
        elif verdict := case.judge():
            raise verdict
        else:
            case.passed = True

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
        if brief and call.excinfo and call.excinfo.value is case.verdict:
            show_text_only(report, item, call.excinfo)
        if report.failed:
            for node in item.listchain():
                node.stash.setdefault(FAILED, set()).add(item.nodeid)
            report.sections += [*case.sections(report.when), *(case.kept() if self.keep else ())]
        return report

    def _report_teardown(
        self, item: pytest.Item, call: pytest.CallInfo[None], brief: bool
    ) -> Generator[None, Any, Any]:
        """Show what came late, and let go of what the test received."""
        report = yield
        found, self._late = self._late, []
        if report.failed:
            if brief and call.excinfo and any(call.excinfo.value is late.verdict for late in found):
                show_text_only(report, item, call.excinfo)
            report.sections += [section for late in found for section in late.sections]
        if (case := case_of(item)) is not None:
            del item.stash[CASE]
            case.let_go()
        return report

    # Prompts.

    def pytest_enter_pdb(self, config: pytest.Config, pdb: Any) -> None:
        """Stop the clock; called on the thread that stopped."""
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
            from pytest_egress.engine import contact

            self._client, name = contact(self.engine_client, self.engine)
        except (EngineError, ImportError):  # a project may have a docker.py of its own
            return None  # which a test will say, unless a fixture of the user's names another one
        self._announced = f"{name}, {self.session().engine.ways[0]}"
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
CASE: Final = pytest.StashKey[Case]()
FAILED: Final = pytest.StashKey[set[str]]()
"""On an item that failed, and on everything it is in: its name, until a rerun of it passes."""


def has_failed(node: pytest.Item | pytest.Collector) -> bool:
    """Whether a test that this is, or has, failed."""
    return bool(node.stash.get(FAILED, ()))


def forget(item: pytest.Item) -> None:
    """Drop what the run before a rerun left."""
    if CASE in item.stash:
        del item.stash[CASE]
    for node in item.listchain():
        node.stash.get(FAILED, set()).discard(item.nodeid)


# Reports.


def show_text_only(
    report: Any, item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]
) -> None:
    """Show a verdict as its text, at the place of the test, after what a handler raised.

    The attributes are undocumented, and all that survives pytest-xdist and junitxml.
    """
    text: Any = excinfo.getrepr(style="value", chain=False)
    path, line, _ = item.reportinfo()
    name = type(excinfo.value).__name__
    crash = text.reprcrash
    crash.path, crash.lineno = str(path), (line or 0) + 1
    crash.message = f"{name}: {one_line(str(excinfo.value))}"
    location = dataclasses.replace(crash, path=os.path.relpath(path), message=name)
    text.reprtraceback.reprentries[-1].reprfileloc = location
    if excinfo.value.__cause__ is not None:
        text = after_cause(text, item, excinfo.value.__cause__)
    report.longrepr = text


def after_cause(text: Any, item: pytest.Item, cause: BaseException) -> Any:
    """The traceback of what a handler raised, then the verdict."""
    longrepr: Any = item.repr_failure(pytest.ExceptionInfo.from_exception(cause))
    if hasattr(longrepr, "chain"):
        longrepr.chain[-1] = (*longrepr.chain[-1][:2], "It failed the test:")
        longrepr.chain.append((text.reprtraceback, text.reprcrash, None))
        longrepr.reprtraceback = text.reprtraceback
    elif hasattr(longrepr, "reprtraceback"):  # --tb=native
        longrepr.reprtraceback.reprentries.extend(text.reprtraceback.reprentries)
    else:  # a plain text, as of a failure with pytrace=False
        return text
    longrepr.reprcrash = text.reprcrash
    return longrepr


def one_line(text: str) -> str:
    """A text for the short summary, which has room for one line."""
    line = " ".join(text.split())
    return line if len(line) <= SUMMARY_CHARACTERS else f"{line[:SUMMARY_CHARACTERS]}..."


def without_our_frames(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback from the handler on, without the gateway that called it."""
    from pytest_egress.callers import is_plumbing

    while traceback and traceback.tb_next and is_plumbing(traceback.tb_frame):
        traceback = traceback.tb_next
    return traceback


# Debugger prompts.


class Prompts:
    """Lets no deadline of ours pass while a prompt is open, and one at a time read standard input.

    A prompt holds standard input while it waits for a line, not while it acts upon one: `next` may
    run code that waits for a handler, and that handler may have a prompt of its own.
    """

    def __init__(self) -> None:
        self._open: dict[int, Ledger] = {}  # by debugger
        self._changed = threading.Condition()
        self._reader: object = None
        self._free_at = 0.0  # when another prompt may take over from the reader

    def enter(self, pdb: Any, ledger: Ledger, capture: Any) -> None:
        """A prompt opens; *capture* is pytest's capture manager, or None."""
        self._open[id(pdb)] = ledger
        ledger.enter_prompt()
        interaction, onecmd = pdb.interaction, pdb.onecmd

        def interact(*args: Any) -> None:
            self._take(pdb, capture)
            interaction(*args)

        def act(line: str) -> Any:
            with self._acting(pdb):
                stop = onecmd(line)
            if not stop:
                self._take(pdb, capture)
            return stop

        pdb.interaction, pdb.onecmd = interact, act

    def leave(self, pdb: Any) -> None:
        """It is closed."""
        if (ledger := self._open.pop(id(pdb), None)) is not None:
            ledger.leave_prompt()
            with self._changed:
                if self._reader is pdb:
                    self._reader = None
                self._changed.notify_all()

    def _take(self, pdb: object, capture: Any) -> None:
        """Wait for standard input; it is this debugger's until it acts upon a line."""
        from pytest_egress.clock import monotonic

        with self._changed:
            while self._reader not in (None, pdb):
                if (left := self._free_at - monotonic()) <= 0:
                    break
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            self._reader, self._free_at = pdb, float("inf")
        if capture is not None:
            capture.suspend(in_=True)  # the end of another prompt has resumed it

    @contextlib.contextmanager
    def _acting(self, pdb: Any) -> Iterator[None]:
        """Let another prompt take over while it acts; not at once, or they would alternate."""
        from pytest_egress.clock import monotonic

        with self._changed:
            self._free_at = monotonic() + STDIN_SECONDS
            self._changed.notify_all()
        try:
            yield
        finally:
            if pdb.quitting:  # "q", or end of file: pytest does not call it leaving
                self.leave(pdb)
