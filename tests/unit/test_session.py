"""A test waits until all is quiet, and what is shown of a run hides the secrets of its containers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from pytest_egress import CallError, Egress
from pytest_egress.base import account
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.pauses import PauseEnd, pause
from pytest_egress.ledger.verdict import judge
from pytest_egress.ledger.windows import Activity, Pause, Window
from pytest_egress.routes.faults import delayed, silence
from pytest_egress.session import AFTER_TEST, Session, under_way_lines
from pytest_egress.traffic.entries import Entry, PacketAttempt
from pytest_egress.traffic.redaction.declared import Redaction
from tests.support.attempts import SECONDS, attempt, exchange, query, route, route_in
from tests.support.entries import tcp, tls

QUIET = 0.1


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

    def stirred(condition: Callable[[], bool], timeout: float, *look: float) -> bool:
        for entry in entries if next(times, None) is not None else ():
            ledger.record(Window(), entry)
        return wait_for(condition, timeout, *look)

    monkeypatch.setattr(ledger, "wait_for", stirred)


def test_it_is_quiet_where_nothing_is_attempted(alone: Egress) -> None:
    alone.wait_until_quiet(QUIET)


def test_what_is_attempted_meanwhile_begins_the_wait_anew(
    alone: Egress, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(5))
    stir(monkeypatch, alone._inner.session.ledger, times, attempt())
    alone.wait_until_quiet(QUIET, timeout=SECONDS)
    assert list(times) == []


def test_what_is_under_way_is_waited_for(alone: Egress) -> None:
    ledger, window, activity = alone._inner.session.ledger, Window(), Activity()

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
    ledger, over, window = alone._inner.session.ledger, threading.Event(), Window()
    route = route_in(ledger)

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
    assert caught.value.headline.endswith(": it was never quiet for 0.1 s")


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        ([query(), attempt()], ["  TCP db.test:5432 (198.18.0.1)  of shop"]),
        ([query()], ["  DNS db.test  of shop"]),
    ],
)
def test_what_comes_again_and_again_is_named_and_names_where_there_is_nothing_else(
    alone: Egress, monkeypatch: pytest.MonkeyPatch, entries: list[Entry], lines: list[str]
) -> None:
    stir(monkeypatch, alone._inner.session.ledger, count(), *entries)
    with pytest.raises(CallError) as caught:
        alone.wait_until_quiet(0.1, timeout=0.3)
    _, heading, *rest = str(caught.value).splitlines()
    assert heading == "Attempted meanwhile:"
    assert [line.rpartition("  (")[0] for line in rest] == lines
    named = lines[0].strip().removesuffix("  of shop")
    assert caught.value.headline == f"{named}: it was never quiet for 0.1 s"


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


# A drain.


class EndsMeanwhile(Activity):
    """What a handler does that returns as soon as somebody has looked."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "route":
            self.route = None
        return value


def test_a_handler_that_ends_while_it_is_looked_at_fails_no_report() -> None:
    window, session = Window(), Session()
    activity = EndsMeanwhile(route=route_in(Ledger()))
    session.ledger.begin(window, activity)
    activity.cut = lambda: session.ledger.end(window, activity)
    session.drain(window, 0.01, AFTER_TEST)
    assert (window.stuck, window.activities) == ([], set())


def test_what_waits_for_a_fault_is_not_waited_for_and_is_no_stuck_handler() -> None:
    session = Session()
    window = session.open_window()
    ledger, activity, ends = session.ledger, Activity(route=route_in(Ledger())), list[PauseEnd]()
    ledger.begin(window, activity)

    def wait() -> None:
        ends.append(pause(ledger, window, exchange(), silence(), activity=activity))
        ledger.end(window, activity)

    thread = threading.Thread(target=wait)
    thread.start()
    assert ledger.wait_for(lambda: bool(ledger.pauses), SECONDS)
    session.drain(window, 1000, AFTER_TEST)
    assert (ends, window.stuck) == ([], [])  # what its client does at its end is not the test's
    session.close_window(window, 1000)
    assert not window.activities
    thread.join()
    assert (ends, window.stuck) == (["over"], [])


def test_it_is_not_quiet_while_a_delay_has_not_ended() -> None:
    """A late answer of DNS has no activity, and its client goes on when it comes."""
    session = Session()
    late = Pause(query(), delayed("192.0.2.7", 60))
    with session.ledger.pausing(late, None, is_endless=False):
        with pytest.raises(CallError) as error:
            session.wait_until_quiet(0.01, 0.05)
        assert f"Under way:\n  {late}  of shop" in str(error.value)
    with session.ledger.pausing(Pause(query(), silence()), None, is_endless=True):
        session.wait_until_quiet(0.01, 60)


def test_a_handler_is_waited_for_while_something_waits_for_a_fault() -> None:
    window, session = Window(), Session()
    ledger, silent, busy = session.ledger, Activity(), Activity(route=route_in(Ledger()))
    for each in (silent, busy):
        ledger.begin(window, each)
    with ledger.pausing(Pause(exchange(), silence()), silent, is_endless=True):
        assert "GET https://api.test/ -> silence()  of " in "".join(under_way_lines([silent]))
        busy.cut = lambda: ledger.end(window, busy)
        session.drain(window, 0.01, AFTER_TEST)
        assert len(window.stuck) == 1
        assert window.activities == {silent}


def test_a_stream_ends_with_what_lets_it_go_on() -> None:
    session, wide, own = Session(), route("session"), route("test")
    window, cut = Window(), list[str]()
    for name, activity in {
        "passes by a route of the session": Activity(streams="events", passes=wide),
        "is answered by a route of the session": Activity(streams="events", route=wide),
        "passes by a route of the test": Activity(streams="events", passes=own),
        "passes by the test's policy": Activity(streams="body"),
    }.items():
        activity.cut = partial(cut.append, name)
        session.ledger.begin(window, activity)
    session.end_streams(window, 0.0, AFTER_TEST)
    assert sorted(cut) == ["passes by a route of the test", "passes by the test's policy"]


def test_what_is_cut_after_the_last_test_is_told_at_the_end_of_the_run() -> None:
    session = Session()
    window = session.open_window()
    session.close_window(window)
    assert not window.account.has_room(account.MAX_HELD_BYTES + 1, "mails")
    assert session.outside() == [
        "2,147,483,649 bytes of mails were cut: all that is kept of a test is over MAX_HELD_BYTES, 2147483648 bytes"
    ]


def test_what_has_lost_its_capture_fails_each_test_that_comes_later() -> None:
    session = Session()
    shop = SimpleNamespace(loss="shop: something closed a socket", gateway=Mock())
    session.scopes.append(SimpleNamespace(containers=[shop], tables=tuple))
    for _ in range(2):
        verdict = judge(session.open_window(), [])
        assert str(verdict) == (
            "shop: something closed a socket; that was before this test, and what the container has sent since may not "
            "have been seen"
        )


# Secrets.


KEY = "tk_7hQ2vR9xLm4Zp8Wd3Ns6"


def test_what_is_shown_of_a_run_hides_the_secrets_of_all_its_containers() -> None:
    session = Session()
    window = session.open_window()
    told = tls(host=f"{KEY.lower()}.api.test", port=443)
    session.ledger.record(window, told)
    assert KEY.lower() in str(told)
    session.hide({"SHOP_KEY": KEY})  # such as that of a container that starts later
    session.hide({"OTHER_TOKEN": "Other-token-1"})
    assert "<SHOP_KEY>.api.test" in str(told)
    session.ledger.record(window, tcp(host=f"{KEY.lower()}.api.test", outcome="unrouted"))
    error = judge(window, [])
    assert error is not None
    assert "<SHOP_KEY>.api.test" in f"{error}"
    assert KEY.lower() not in f"{error}{error.headline}"
    assert 'egress.intercept_tcp("*.api.test:5432")' in f"{error}"


def test_a_suite_is_asked_once_for_its_rules_when_the_first_container_starts() -> None:
    rules = Mock(return_value=Redaction(values=["swordfish"]))
    session = Session(rules=rules)
    assert not rules.called
    session.hide({})
    session.hide({"A_KEY": KEY})
    rules.assert_called_once_with()
    assert session.ledger.redactor.hidden(f"swordfish {KEY}") == "<SECRET> <A_KEY>"


def test_rules_that_cannot_be_had_fail_every_start() -> None:
    session = Session(rules=Mock(side_effect=ValueError("no rules")))
    for _ in range(2):
        with pytest.raises(ValueError, match="no rules"):
            session.hide({})


def test_the_same_variables_again_make_no_other_redactor() -> None:
    session = Session()
    session.hide({"A_KEY": KEY})
    before = session.ledger.redactor
    session.hide({"A_KEY": KEY})
    assert session.ledger.redactor is before
