"""What a shared container goes on with after a test: how the next one tells of it, and how to wait for its end."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from pytest_egress import CallError, Egress, Request, log_line
from pytest_egress.errors import HandlerError, NeverCalledError, UnroutedError
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.report import Shared, shared_note
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Activity, Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, INTERCEPT_TLS
from pytest_egress.routes.route import Route
from pytest_egress.session import Session
from pytest_egress.targets.container import seconds_of
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, PacketAttempt, TcpConnection

SECONDS = 30.0  # for what is bound to happen
QUIET = 0.1
UP = ["bash", "-c", "echo up; exec sleep 600"]


def shared(**fields: Any) -> Shared:
    about: dict[str, Any] = {
        "container": "shop",
        "scope": "module",
        "place": "conftest.py:7",
        "fixture": "web",
        "test": "test_x.py::test_a",
        "previous": "test_x.py::test_b",
        "opened": 0.5,
    }
    return Shared(**{**about, **fields})


def attempt(container: str = "shop", error: BaseException | None = None) -> TcpConnection:
    return TcpConnection(
        container=container,
        started=1.0,
        outcome="routed" if error else "unrouted",
        host="db.test",
        port=5432,
        address="198.18.0.1",
        error=error,
    )


def query() -> DnsQuery:
    about: dict[str, Any] = {"host": "db.test", "port": None, "type": "A", "rcode": "NOERROR"}
    return DnsQuery(container="shop", started=1.0, outcome="recorded", answer=(), **about)


# The verdict.


def test_a_verdict_on_a_shared_container_says_who_started_it_and_what_ran_before() -> None:
    verdict = judge(Window(entries=[attempt()]), [], shared=[shared()])
    assert isinstance(verdict, UnroutedError)
    assert str(verdict).split("\n\n")[-1] == (
        "shop is shared by all tests of its module. "
        "It was started by the fixture 'web' for test_x.py::test_a at conftest.py:7.\n"
        "  test_x.py::test_b ran before this test, and may have set this off: "
        "the first of it came 0.500 s into this test.\n"
        "  To let a test wait for what it sets off: egress.wait_until_quiet(seconds)\n"
        "  What it does by itself, routes of module_egress answer for every test."
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"fixture": ""}, "started by test_x.py::test_a at conftest.py:7."),
        ({"test": "", "place": ""}, "started by the fixture 'web'."),
        ({"fixture": "", "test": "", "place": ""}, "started."),
    ],
)
def test_of_who_started_it_the_verdict_says_what_is_known(
    fields: dict[str, Any], text: str
) -> None:
    verdict = judge(Window(entries=[attempt()]), [], shared=[shared(**fields)])
    assert f"its module. It was {text}\n" in str(verdict)


def test_where_no_test_ran_before_there_is_nothing_to_say() -> None:
    verdict = judge(Window(entries=[attempt()]), [], shared=[shared(previous="")])
    assert "shared" not in str(verdict)


def test_what_a_handler_raised_for_a_shared_container_keeps_its_cause() -> None:
    error = LookupError("no such charge")
    verdict = judge(Window(entries=[attempt(error=error)]), [], shared=[shared()])
    assert isinstance(verdict, HandlerError)
    assert "shop is shared" in str(verdict)
    assert verdict.__cause__ is error


def test_a_verdict_on_a_tests_own_container_says_nothing_of_shared_ones() -> None:
    verdict = judge(Window(entries=[attempt("own")]), [], shared=[shared()])
    assert "shared" not in str(verdict)


def test_beside_a_failure_of_the_test_itself_it_is_a_note() -> None:
    assert list(shared_note([attempt()], [shared()])) == [
        "shop is shared: what test_x.py::test_b set off, which ran before, may be among this.",
        "  To let a test wait for that: egress.wait_until_quiet(seconds)",
    ]
    assert not [*shared_note([attempt("own"), query()], [shared()])]
    assert not [*shared_note([attempt()], [shared(previous="")])]


# What may come later.


def route_of(log: Ledger, **options: Any) -> Route[Any]:
    declared = declare(INTERCEPT_HTTPS, "api.test", **options)
    return Route(declared, scope="test", declared_at="", log=log)


@pytest.mark.parametrize(
    ("running", "text"),
    [
        ([], ""),
        (["shop"], "\n  shop still runs, and may call later: wait_for_call() waits for that"),
        (["a", "b"], "\n  a and b still run, and may call later: wait_for_call() waits for that"),
    ],
)
def test_a_call_that_is_missing_names_wait_for_call_while_a_container_runs(
    running: list[str], text: str
) -> None:
    log = Ledger()
    log.running = lambda: running
    with pytest.raises(CallError) as caught:
        route_of(log).assert_called_once()
    assert (
        str(caught.value) == f'intercept_https("api.test"): expected 1 call, there was none{text}'
    )
    with pytest.raises(CallError) as caught:
        route_of(log).assert_called_with(path="/")
    assert str(caught.value) == f'intercept_https("api.test"): was not called{text}'


def test_calls_that_are_too_many_or_other_ones_name_it_where_it_helps() -> None:
    log, window = Ledger(), Window()
    log.running = lambda: ["shop"]
    route = route_of(log)
    request = Request(method="GET", scheme="https", host="api.test", port=443, path="/a")
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "routed"}
    for _ in range(2):
        log.count(route, window, Exchange(**about, host="api.test", port=443, request=request))
    with pytest.raises(CallError) as caught:
        route.assert_called_once()
    assert "wait_for_call" not in str(caught.value)
    with pytest.raises(CallError) as caught:
        route.assert_called_with(path="/b")
    assert str(caught.value).endswith("may call later: wait_for_call(3) waits for that")


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ([{}], "wait_for_call()"),
        ([{"times": 3}], "wait_for_call(3)"),
        ([{"times": 2}, {}], "wait_for_call(times)"),
    ],
)
def test_a_route_that_was_not_called_often_enough_names_it_too(
    options: list[dict[str, Any]], call: str
) -> None:
    routes = [route_of(Ledger(), **each) for each in options]
    ended, running = judge(Window(), routes), judge(Window(), routes, running=lambda: ["shop"])
    assert isinstance(running, NeverCalledError)
    assert f"\nshop still runs, and may call later: {call} waits for that.\n" in str(running)
    assert "wait_for_call" not in str(ended)


def test_where_a_handshake_failed_waiting_is_no_advice() -> None:
    entry = attempt()
    entry.note = "the target does not trust the CA"
    route: Route[Any] = Route(
        declare(INTERCEPT_TLS, "db.test"), scope="test", declared_at="", log=Ledger()
    )
    entry.outcome = "recorded"
    verdict = judge(Window(entries=[entry]), [route], running=lambda: ["shop"])
    assert isinstance(verdict, NeverCalledError)
    assert entry.note in str(verdict)
    assert "wait_for_call" not in str(verdict)


def test_what_runs_is_asked_of_the_engine(egress: Egress, bare_image: str) -> None:
    egress.start(bare_image, ["true"]).wait()
    assert egress.session.running() == []
    runs = egress.start(bare_image, ["sleep", "600"])
    assert egress.session.running() == [runs.name]
    runs.stop(timeout=0)
    assert egress.session.running() == []


# Quiet.


@pytest.fixture
def alone() -> Iterator[Egress]:
    """An egress without a container."""
    session = Session()
    with Egress(session=session) as egress:
        yield egress


def stir(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, times: Iterator[int], *entries: Entry
) -> None:
    """Have something attempted within each wait for quiet, so many times."""
    wait_for = ledger.wait_for

    def stirred(condition: Callable[[], bool], timeout: float) -> bool:
        for entry in entries if next(times, None) is not None else ():
            ledger.record(Window(), entry)
        return wait_for(condition, timeout)

    monkeypatch.setattr(ledger, "wait_for", stirred)


def test_it_is_quiet_where_nothing_is_attempted(alone: Egress) -> None:
    alone.wait_until_quiet(QUIET)


def test_what_is_attempted_meanwhile_begins_the_wait_anew(
    alone: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(5))
    stir(monkeypatch, alone.session.ledger, times, attempt())
    alone.wait_until_quiet(QUIET, timeout=SECONDS)
    assert list(times) == []


def test_what_is_under_way_is_waited_for(alone: Egress) -> None:
    ledger, window, activity = alone.session.ledger, Window(), Activity()

    def end() -> None:
        threading.Event().wait(2 * QUIET)
        ledger.end(window, activity)

    ledger.begin(window, activity)
    thread = threading.Thread(target=end)
    thread.start()
    alone.wait_until_quiet(QUIET, timeout=SECONDS)
    assert not ledger.under_way
    thread.join()


def test_what_never_ends_is_named_with_the_line_where_it_stands(alone: Egress) -> None:
    ledger, over, window = alone.session.ledger, threading.Event(), Window()
    route = route_of(ledger)

    def handle() -> None:
        with ledger.changed:
            activity = Activity(
                container="shop", thread=threading.get_ident(), route=route, what="GET x"
            )
            ledger.begin(window, activity)
        over.wait(SECONDS)
        ledger.end(window, activity)

    thread = threading.Thread(target=handle)
    thread.start()
    assert ledger.wait_for(lambda: bool(ledger.under_way), SECONDS)
    ledger.begin(window, Activity(container="db", told=lambda: "a connection to x.test:1"))
    with pytest.raises(CallError) as caught:
        alone.wait_until_quiet(0.1, timeout=0.3)
    over.set()
    thread.join()
    first, under_way, *rest = str(caught.value).splitlines()
    assert first == "waited 0.3 s for 0.1 s without an attempt, and there always was one"
    assert under_way == "Under way:"
    assert "  a connection to x.test:1  of db" in rest
    assert "  GET x  of shop" in rest
    assert '      in the handler of intercept_https("api.test")' in rest
    assert any(line.startswith("      at ") and "in handle" in line for line in rest)


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        ([attempt(), query()], ["  TCP db.test:5432 (198.18.0.1)  of shop"]),
        ([query()], ["  DNS db.test  of shop"]),
    ],
)
def test_what_comes_again_and_again_is_named_and_names_where_there_is_nothing_else(
    alone: Egress, monkeypatch: pytest.MonkeyPatch, entries: list[Entry], lines: list[str]
) -> None:
    stir(monkeypatch, alone.session.ledger, count(), *entries)
    with pytest.raises(CallError) as caught:
        alone.wait_until_quiet(0.1, timeout=0.3)
    _, heading, *rest = str(caught.value).splitlines()
    assert heading == "Attempted meanwhile:"
    assert [line.rpartition("  (")[0] for line in rest] == lines


def test_packets_of_the_kernel_break_no_quiet() -> None:
    ledger, window = Ledger(), Window()
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "host": "ff02::2", "port": None}
    packet: dict[str, Any] = {"protocol": "ICMPv6", "address": "ff02::2", "size": 8}
    with ledger.watch() as seen, ledger.watch() as other:
        ledger.record(window, PacketAttempt(**about, **packet, outcome="recorded"))
        assert seen == []
        ledger.record(window, PacketAttempt(**about, **packet, outcome="unrouted"))
    ledger.record(window, attempt())
    assert len(window.entries) == 3
    assert [type(entry) for entry in (*seen, *other)] == [PacketAttempt, PacketAttempt]


@pytest.mark.parametrize("seconds", [0, -1, 11, None, "1", True])
def test_a_time_for_which_it_can_never_be_quiet_is_refused(alone: Egress, seconds: Any) -> None:
    with pytest.raises(
        ValueError, match="it takes a number over 0, and at most the timeout, which is 10 s"
    ):
        alone.wait_until_quiet(seconds)


@pytest.mark.parametrize("link", ["descriptor", "stream"])
def test_what_a_container_does_in_the_background_is_over_when_it_is_quiet(
    clients_image: str, link: str
) -> None:
    shell = "echo up; for n in 1 2 3; do curl -sS http://api.test/$n; sleep 0.1; done; sleep 600"
    with Egress(session=Session(link=link)) as egress:
        route = egress.intercept_http("api.test")
        egress.start(clients_image, ["bash", "-c", shell], wait=log_line("up"))
        egress.wait_until_quiet(2, timeout=SECONDS)
        assert [call.request.path for call in route.calls] == ["/1", "/2", "/3"]


# Inside pytest.

HEAD = """
import pytest
from pytest_egress import log_line

@pytest.fixture(scope="module")
def shop(module_egress):
    return module_egress.start(IMAGE, UP, wait=log_line("up"))

def say(shop, text):
    shop.exec(["sh", "-c", f"echo {text} >/proc/1/fd/1"])

LATER = "(until [ -e /tmp/go ]; do sleep 0.02; done; curl -s http://api.test/late) >/dev/null 2>&1 &"
"""


def run(pytester: pytest.Pytester, image: str, code: str, *args: str) -> pytest.RunResult:
    head = f"IMAGE, UP = {image!r}, {UP!r}\n{HEAD}"
    pytester.makepyfile(test_x=head + textwrap.dedent(code))
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly", *args)


def test_what_one_test_sets_off_and_the_next_one_gets_names_the_first(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        def test_a(shop):
            say(shop, "said by a")
            shop.exec(["bash", "-c", LATER])
        def test_without_egress(): pass
        def test_b(shop, egress):
            say(shop, "said by b")
            shop.exec(["touch", "/tmp/go"])
            ledger = egress.session.ledger
            assert ledger.wait_for(lambda: bool(egress.exchanges), 30)
        def test_c(shop, egress):
            egress.intercept_http("api.test")
            shop.exec(["curl", "-s", "http://api.test/1"])
            assert 1 == 2
        """,
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "1 unrouted attempt of clients:latest; nothing got out:",
            "  GET http://api.test/late",
            "",
            "clients:latest is shared by all tests of its module. "
            "It was started by the fixture 'shop' for test_x.py::test_a at test_x.py:8.",
            "  test_x.py::test_a ran before this test, and may have set this off: *first of it came * s into*",
            "  To let a test wait for what it sets off: egress.wait_until_quiet(seconds)",
            "test_x.py:*: UnroutedError",
            "*- container clients:latest -*",
            "(since this test began; all of it: its .logs(), or `docker logs` after --egress-keep)",
            "said by b",
            "*_ test_c _*",
            "*- egress -*",
            "*GET http://api.test/1 -> 200*",
            "clients:latest is shared: what test_x.py::test_b set off, which ran before, may be among this.",
            "*- container clients:latest -*",
            "(nothing since this test began; all of it: its .logs(), or `docker logs` after --egress-keep)",
        ]
    )
    result.stdout.no_fnmatch_line("said by a")


def test_a_test_that_waits_for_quiet_leaves_the_next_one_nothing(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        def test_a(shop, egress):
            late = egress.intercept_http("api.test")
            shop.exec(["bash", "-c", LATER])
            shop.exec(["touch", "/tmp/go"])
            egress.wait_until_quiet(2, timeout=30)
            late.assert_called_once()
        def test_b(shop, egress): assert not egress.ledger
        """,
    )
    result.assert_outcomes(passed=2)


def test_the_first_test_of_a_shared_container_sees_its_log_from_the_start(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(pytester, clients_image, "def test_a(shop): assert 1 == 2")
    result.stdout.fnmatch_lines(["*- container clients:latest -*", "up"])
    result.stdout.no_fnmatch_line("*since this test began*")


# The part of a log.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:00.123456789Z", 0.123456789),
        ("1970-01-01T02:00:01.25+02:00", 1.25),
        ("1970-01-01 00:00:01 +0000 UTC", None),
    ],
)
def test_the_engines_times_are_read_whatever_their_decimals_and_zone(
    text: str, seconds: float | None
) -> None:
    assert seconds_of(text) == seconds


def test_a_clock_of_the_engine_that_is_another_is_allowed_for(
    egress: Egress, bare_image: str
) -> None:
    script = "mkfifo /tmp/pipe; echo first; read x </tmp/pipe; echo second; exec sleep 600"
    egress.start(bare_image, ["sh", "-c", script], wait=log_line("first"))
    (container,) = egress.containers
    between = Window().opened
    container.exec(["sh", "-c", "echo go >/tmp/pipe"])
    assert egress.session.ledger.wait_for(lambda: "second" in container.logs(), SECONDS)
    assert container.log_since(between) == "second"
    before, after = container._starting
    container._starting = before - 3600, after - 3600  # as if ours were an hour late
    assert container.log_since(between - 3600) == "second"
