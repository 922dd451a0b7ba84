"""Runs pytest in pytest with a stand-in for the gateway, so that no engine is needed."""

from __future__ import annotations

import textwrap
from typing import Final, Protocol

# Before pytester takes its snapshot of sys.modules: hypothesis would take a second at the end of every run, and
# cryptography can be imported only once in a process.
import hypothesis.internal.observability  # noqa: F401
import pytest

GATEWAY: Final = '''
"""Records and answers requests as the gateway does, without a container."""
import threading, time
import pytest_egress
__file__ = pytest_egress.__path__[0] + "/gateway.py"  # tracebacks leave its frames out, too
from urllib.parse import urlsplit
from pytest_egress.routes.answers import answered_by
from pytest_egress.gateway.handlers import call
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.ledger.windows import Activity
from pytest_egress.routes.table import decide

class Target:
    name, start_window = "shop", None
    def __init__(self, egress):
        self.owner = egress._inner

def attempt(egress, url):
    session = egress._inner.session
    place, activity = session.attempt_context(Target(egress)), Activity(thread=threading.get_ident())
    session.ledger.begin(place.window, activity)
    try:
        return answer(session.ledger, place, activity, url)
    finally:
        session.ledger.end(place.window, activity)

def answer(ledger, place, activity, url):
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}[parts.scheme]
    request = Request(method="GET", scheme=parts.scheme, host=parts.hostname, port=port, path=parts.path or "/")
    trial = place.window.trial
    decision = decide(place.tables, request, intervene=None if trial is None else trial.intervene)
    route, instead = decision.route, decision.instead
    unclaimed = "unrouted" if place.window.policy == "fail" else "blocked"
    outcome = unclaimed if route is None else "blocked" if route.kind.refuses else "routed"
    entry = Exchange(container="shop", started=time.time(), outcome=outcome, host=request.host, port=port,
                     request=request, route=route, near=decision.near)
    ledger.record(place.window, entry)
    if outcome != "routed":
        return 502
    if instead is not None:
        entry.duration, entry.swept = 0.0, True
        if not instead.is_processed:
            return given(instead)
    activity.route, activity.what = route, str(entry)
    try:
        answer, context = route.turns.answer(decision.turn)
        found = call(answer, request, context) if callable(answer) else answer
        entry.response = answered_by(answer, found)
    except BaseException as error:
        entry.error = error
        return 500
    ledger.count(route, place.window, entry)
    return entry.response.text if instead is None else given(instead)

def given(instead):
    """What the client of a call gets that a sweep has fail: a text, or an error of its own."""
    answer = instead.answer
    return answer.text if hasattr(answer, "text") else f"{answer}"

def ends(egress, code, says=True):
    """A container of the test has ended."""
    egress._inner.session.ledger.window.trial.note_end("shop", code, has_spoken=says)

def traffic(egress, *urls):
    """On a thread, as connections are; returns when all are answered."""
    thread = threading.Thread(target=lambda: [attempt(egress, url) for url in urls], daemon=True)
    thread.start()
    thread.join()

def behind(egress, url):
    """On a thread that goes on."""
    threading.Thread(target=attempt, args=[egress, url], daemon=True).start()
'''

HEAD: Final = "import asyncio, threading, unittest, pytest\nfrom gateway import attempt, behind, ends, traffic\n"
INI: Final = """[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
    ignore::pytest.PytestConfigWarning
"""
UNROUTED_X: Final = "GET https://x.test/: no route claims it"
ENVIRONMENT: Final = (
    *("CI", "BUILD_NUMBER", "PYTEST_XDIST_WORKER", "PYTEST_THEME"),
    *("PYTEST_EGRESS_UNROUTED", "PYTEST_EGRESS_KEEP", "PYTEST_EGRESS_REPORT"),
    "GITHUB_STEP_SUMMARY",
)


class RunPytest(Protocol):
    def __call__(self, source: str, *args: str, subprocess: bool = False) -> pytest.RunResult: ...


def keep_quiet(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    """An environment that says nothing, and the stand-in."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    # No sidecar is prepared for tests that start no container, but for those in a process of their own.
    monkeypatch.setattr("pytest_egress.plugin.run.is_overridden", lambda *_: True)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    pytester.makepyfile(gateway=GATEWAY)
    pytester.syspathinsert()
    pytester.makeini(INI)


def runner_of(pytester: pytest.Pytester) -> RunPytest:
    """Run pytest on the source of a module."""

    def run(source: str, *args: str, subprocess: bool = False) -> pytest.RunResult:
        if source:
            pytester.makepyfile(test_x=HEAD + textwrap.dedent(source))
        runner = pytester.runpytest_subprocess if subprocess else pytester.runpytest_inprocess
        return runner(*args)

    return run


def lines_of(result: pytest.RunResult, *wanted: str) -> None:
    result.stdout.fnmatch_lines(list(wanted))
