"""Which verdict a window gets, and whose traffic it is: the ledger and the judge without a container."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import NoneType
from typing import Any

import pytest

from pytest_egress import sequence
from pytest_egress.errors import (
    CertificateAcceptedError,
    EgressError,
    HandlerError,
    HandshakeError,
    LeakError,
    NeverCalledError,
    TamperingError,
    UnroutedError,
)
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.report import problem
from pytest_egress.ledger.verdict import failing, judge
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import BLOCK, DNS, INTERCEPT_HTTPS
from pytest_egress.routes.table import NearMiss
from pytest_egress.traffic.entries import Accepted, DnsQuery, Outcome
from pytest_egress.traffic.search.secrets import Secret
from tests.support.attempts import attempt, exchange, route, route_of
from tests.support.entries import tls


def test_a_quiet_window_gets_no_verdict() -> None:
    assert judge(Window(), []) is None


def test_the_most_telling_verdict_comes_first() -> None:
    error = LookupError("no such charge")
    window = Window(
        complaints=["shop: a rule is gone"],
        entries=[attempt(), exchange(error)],
        stuck=["a handler still ran"],
    )
    idle = [route()]

    def verdict() -> type[EgressError] | None:
        found = judge(window, idle)
        return type(found) if found else None

    assert verdict() is TamperingError
    window.complaints.clear()
    window.secrets.append(Secret("api.test"))  # the host that was asked for
    assert verdict() is LeakError
    window.secrets, window.leaks = [], ()
    assert verdict() is HandlerError
    window.entries.pop()
    assert str(judge(window, idle)) == "a handler still ran"
    window.stuck.clear()
    assert verdict() is UnroutedError
    window.entries.clear()
    assert verdict() is NeverCalledError
    idle.clear()
    assert verdict() is None


def test_every_complaint_is_told() -> None:
    verdict = judge(Window(complaints=["one", "two"]), [])
    assert str(verdict) == "one\ntwo"


def test_every_handler_that_still_ran_is_told() -> None:
    verdict = judge(Window(stuck=["one", "two"]), [])
    assert isinstance(verdict, HandlerError)
    assert str(verdict) == "one\ntwo"


def test_a_handlers_error_is_the_cause_and_the_first_of_them_counts() -> None:
    first, second = LookupError("first"), LookupError("second")
    entries = [exchange(), exchange(first, route()), exchange(second)]
    verdict = judge(Window(entries=list(entries)), [])
    assert verdict is not None
    assert verdict.__cause__ is first
    assert str(verdict) == (
        'the handler of intercept_https("api.test")  declared at test_it.py:7'
        " raised LookupError: first\n"
        "  for GET https://api.test/ of shop"
    )


def test_a_predicates_error_says_that_it_is_one() -> None:
    verdict = judge(Window(entries=[exchange(AssertionError())]), [])
    assert str(verdict) == (
        "a match= predicate raised AssertionError\n  for GET https://api.test/ of shop"
    )
    error, declared = AssertionError("x"), route(match=bool)
    near = (NearMiss(route=declared, differences=("match: bool raised",), error=error),)
    verdict = judge(Window(entries=[replace(exchange(error), near=near)]), [])
    assert str(verdict) == (
        'the match= predicate of intercept_https("api.test", match=bool)  declared at test_it.py:7 '
        "raised AssertionError: x\n  for GET https://api.test/ of shop"
    )


@pytest.mark.parametrize("outcome", ["routed", "blocked", "recorded"])
def test_only_what_is_unrouted_fails(outcome: Outcome) -> None:
    assert judge(Window(entries=[attempt(outcome)]), []) is None


def test_a_name_that_nobody_declared_fails_once_whatever_types_it_is_asked_for() -> None:
    about: dict[str, Any] = {"container": "shop", "started": 1.0, "outcome": "unrouted"}
    queries = [DnsQuery(**about, host="x.test", type=kind) for kind in ("A", "AAAA")]
    assert str(judge(Window(entries=[*queries]), [])) == (
        "1 unrouted attempt of shop; nothing got out:\n"
        "\n"
        "  DNS x.test\n"
        '      to answer it: egress.intercept_https("x.test")\n'
        '      to expect that it does not exist: egress.dns("x.test", "NXDOMAIN")'
    )


@pytest.mark.parametrize("in_set_up", [False, True])
def test_one_test_that_means_an_acceptance_speaks_for_no_other(in_set_up: bool) -> None:
    """But a fixture of a wider scope that asserts the call speaks for all of its tests."""
    ledger, windows = Ledger(), (Window(), Window())
    bad = InnerRoute(
        declare(INTERCEPT_HTTPS, "api.test", certificate="expired"),
        scope="module",
        declared_at="",
        log=ledger,
    )
    for window in windows:
        window.entries.append(replace(exchange(), accepted=Accepted(bad, None)))
        bad.count(window, exchange())
    ledger.window = windows[0]
    with ledger.wide_set_up() if in_set_up else nullcontext():
        bad.wait_for_call()
    verdicts = [type(judge(window, [])) for window in windows]
    assert verdicts == [NoneType, NoneType if in_set_up else CertificateAcceptedError]


# Never called.


def removed(route: InnerRoute) -> InnerRoute:
    route.remove()
    return route


def expected_idle(route: InnerRoute) -> InnerRoute:
    route.assert_not_called()
    return route


def called(route: InnerRoute, times: int = 1) -> InnerRoute:
    for _ in range(times):
        route.count(None, exchange())
    return route


def asked(route: InnerRoute, lookups: int = 1) -> InnerRoute:
    for _ in range(lookups):
        route.turns.reserve()
        for _ in ("A", "AAAA"):
            route.count(None, exchange())
    return route


@pytest.mark.parametrize(
    ("idle", "is_required"),
    [
        (route(), True),
        (route(times=1), True),
        (called(route()), False),
        (called(route(times=2)), True),
        (called(route(times=2), 2), False),
        (called(route(times=2, optional=True)), False),
        (route(optional=True), False),
        (removed(route()), False),
        (expected_idle(route()), False),
        (route_of(declare(BLOCK, "api.test")), False),
        (route_of(declare(DNS, "api.test", "NXDOMAIN")), False),
        (route_of(declare(DNS, "api.test", sequence("NXDOMAIN", []))), True),
        (asked(route_of(declare(DNS, "api.test", sequence("NXDOMAIN", [])))), True),
        (asked(route_of(declare(DNS, "api.test", sequence("NXDOMAIN", []))), 2), False),
        (route_of(declare(DNS, "api.test", sequence("NXDOMAIN"), optional=True)), False),
        (route("class"), False),
        (route("module", times=2), False),
        (route("session"), False),
    ],
)
def test_a_route_of_the_test_alone_must_be_called(idle: InnerRoute, is_required: bool) -> None:
    assert (judge(Window(), [idle]) is not None) is is_required
    assert judge(Window(), [idle], assert_all_called=False) is None


def test_a_sequence_of_a_name_counts_lookups() -> None:
    name = asked(route_of(declare(DNS, "db.test", sequence("SERVFAIL", "silence", "192.0.2.7"))))
    verdict = judge(Window(), [name], running=lambda: ["shop"])
    assert verdict is not None
    assert verdict.headline == 'db.test: its sequence(...) gave 1 of 3 answers, dns("db.test")'
    assert "      its sequence(...) gave 1 of 3 answers\n" in str(verdict)


def test_a_sequence_is_told_by_its_own_answers_whatever_was_called_before_it() -> None:
    later = called(route(), 2)
    for _ in range(2):
        later.turns.reserve()
    later.respond(sequence(503, 502, 200))
    verdict = judge(Window(), [called(later)])
    assert verdict is not None
    assert "      its sequence(...) gave 1 of 3 answers\n" in str(verdict)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("untrusted", "its client does not trust the CA"),
        ("likely-untrusted", "likely its client does not trust the CA"),
        ("wrong-name", "its client expects another name in the certificate"),
    ],
)
def test_the_headline_of_a_client_that_rejects_the_handshake_says_so(
    reason: str, said: str
) -> None:
    about: dict[str, Any] = {"outcome": "recorded", "note": "The target rejected it. Long advice"}
    failed = tls(reason=reason, **about)
    idle = [route_of(declare(INTERCEPT_HTTPS, "other.test")), route()]
    verdict = judge(Window(entries=[failed]), idle)
    assert isinstance(verdict, NeverCalledError)
    assert verdict.headline == f'api.test: {said}, intercept_https("api.test") (and 1 more)'
    verdict = judge(Window(entries=[failed]), [route(optional=True)])
    assert isinstance(verdict, HandshakeError)
    assert verdict.headline == f"api.test:443: {said}"


def test_the_headline_of_a_connection_that_was_left_is_that_the_route_was_never_called() -> None:
    failed = tls(outcome="recorded", reason="probe", note="The target closed.")
    verdict = judge(Window(entries=[failed]), [route()])
    assert verdict is not None
    assert verdict.headline == 'api.test: never called, intercept_https("api.test")'


def test_every_route_that_was_not_called_is_told_and_no_other() -> None:
    verdict = judge(Window(), [route(path="/a"), called(route(path="/b")), route(path="/c")])
    text = str(verdict)
    assert text.startswith("2 routes were never called:\n")
    assert [path for path in ("/a", "/b", "/c") if f"path='{path}'" in text] == ["/a", "/c"]
    assert "declared at test_it.py:7" in text


def test_without_a_container_the_verdict_says_so() -> None:
    with_one, without = (
        str(judge(Window(), [route()], any_container=some)) for some in (True, False)
    )
    assert "No container ran in this test." in without
    assert "No container ran in this test." not in with_one
    assert str(judge(Window(), [route()])) == with_one


def test_the_entries_that_fail_a_test_are_listed_in_their_order() -> None:
    fine, broken = exchange(), exchange(LookupError("no such charge"))
    rejected = tls(outcome="recorded", reason="untrusted")
    listed = [fine, attempt(), tls(outcome="recorded", reason="probe"), broken, rejected]
    window = Window(entries=listed)
    assert failing(window) == [listed[1], broken, rejected]
    bad = route_of(declare(INTERCEPT_HTTPS, "api.test", certificate="expired"))
    fine.accepted = Accepted(bad, None)
    assert failing(window)[0] is fine
    window.entries = [fine]
    assert isinstance(judge(window, []), CertificateAcceptedError)


def test_an_entry_with_a_secret_fails_its_test_and_says_how() -> None:
    sent, other = tls(sni="key-4242.test", reason="rejected"), tls(reason="rejected")
    window = Window(entries=[sent, other], secrets=[Secret("key-4242")])
    sent.outcome = other.outcome = "recorded"
    assert failing(window) == [sent]
    assert problem(sent) == "sent the secret of a marker in the server name of its TLS"
    assert problem(other) != problem(sent)
    window.secrets.clear()
    assert failing(window) == [sent]  # it was searched, and is not searched again
