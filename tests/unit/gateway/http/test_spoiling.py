"""The wrappers around an answer: which of several counts, and how what is sent becomes late, slow or short."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.destination import Destination
from pytest_egress.gateway.http.spoiling import (
    SpoiledDuplex,
    Spoiling,
    StoppedError,
    cut,
    settled,
)
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import Activity, AttemptContext, Window
from pytest_egress.routes.faults import (
    Fault,
    Truncated,
    delayed,
    disconnect,
    reset,
    silence,
    throttled,
    truncated,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.response import Response
from tests.support.attempts import exchange
from tests.support.duplexes import FakeDuplex
from tests.support.duplexes import whole as response_of

FAST = 1e9


class Spoiled:
    """A fault, and the two ends of its request."""

    def __init__(self, fault: Fault) -> None:
        self.window, self.duplex, self.cuts = Window(), FakeDuplex(), list[str]()
        self.ledger, self.entry = Ledger(), exchange()
        self.entry.fault = fault
        attempt = Attempt(
            context=AttemptContext(window=self.window, tables=()),
            destination=Destination(),
            started=1.0,
            activity=Activity(cut=lambda: self.cuts.append("cut")),
        )
        self.spoiling = Spoiling(self.ledger, attempt, self.entry, self.duplex)

    def spoiled(self, *, outlives: bool = False) -> SpoiledDuplex:
        return SpoiledDuplex(self.spoiling, lambda: outlives)


def run(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


def test_functions_of_seconds_are_called_wherever_they_stand() -> None:
    fault = disconnect(delayed(throttled(delayed({}, lambda: 2), 10), lambda: 1))
    assert str(settled(fault, run)) == "disconnect(delayed(throttled(delayed({}, 2.0), 10), 1.0))"
    assert settled(silence(lambda: 3), run) == silence(3.0)
    assert settled(reset(), run) == reset()


def test_the_strictest_wrapper_counts_and_delays_add_up() -> None:
    fault = truncated(truncated(throttled(throttled({}, 2 * FAST), FAST), 5, reset=True), 9)
    scene = Spoiled(delayed(delayed(fault, 0.01), 0.02))
    assert isinstance(scene.spoiling.truncated, Truncated)
    assert (scene.spoiling.truncated.after, scene.spoiling.truncated.reset) == (5, True)
    began = scene.ledger.clock()
    scene.spoiling.delay()
    assert scene.ledger.clock() - began >= 0.03


def test_what_is_sent_by_itself_is_cut_at_the_byte() -> None:
    scene = Spoiled(truncated(throttled({}, FAST), 7))
    spoiled = scene.spoiled()
    spoiled.start(200)
    spoiled.send(b"four")
    with pytest.raises(StoppedError):
        spoiled.send(b"more")
    assert spoiled.disconnected
    why = f"{scene.spoiling.truncated} has ended its connection"
    assert scene.duplex.sent == [(200, {}), b"four", b"mor", ("reset stream", why)]


def test_the_end_is_never_sent_even_of_a_body_that_is_shorter() -> None:
    whole, empty = Spoiled(truncated({}, 100)), Spoiled(truncated({}, 100))
    with pytest.raises(StoppedError):
        whole.spoiled().respond(Response(content=b"four"))
    with pytest.raises(StoppedError):
        empty.spoiled().start(200, ends=True)
    why = f"{whole.spoiling.truncated} has ended its connection"
    assert whole.duplex.sent == [(200, {"content-length": "4"}), b"four", ("reset stream", why)]
    assert empty.duplex.sent == [(200, {}), ("reset stream", why)]


def test_nothing_of_the_body_is_sent_after_0() -> None:
    scene = Spoiled(truncated({}, 0))
    with pytest.raises(StoppedError):
        scene.spoiled().start(101)
    assert scene.duplex.sent[0] == (101, {})
    assert len(scene.duplex.sent) == 2


def test_whatever_else_a_duplex_does_it_does_as_ever() -> None:
    scene = Spoiled(throttled({}, FAST))
    spoiled, left = scene.spoiled(), list[bool]()
    spoiled.on_disconnect(lambda: left.append(True))
    spoiled.send_interim(103)
    spoiled.respond(response_of(b"four", Headers(), Headers({"x": "1"})))
    spoiled.reset()
    assert spoiled.receive() == b""
    assert not spoiled.trailers
    assert scene.duplex.sent == [
        (103, {}),
        (200, {}),
        b"four",
        ("end", {"x": "1"}),
        "reset",
    ]
    scene.duplex.leave()
    assert (spoiled.disconnected, left) == (True, [True])


def test_a_call_that_outlives_its_window_is_slow_and_goes_on() -> None:
    scene = Spoiled(throttled({}, 1000))
    scene.window.over.set()
    scene.spoiled(outlives=True).send(b"four")
    assert scene.duplex.sent == [b"four"]
    with pytest.raises(StoppedError):
        scene.spoiled().send(b"four")
    assert scene.cuts == ["cut"]


def test_a_version_without_streams_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    duplex = FakeDuplex()
    monkeypatch.setattr(duplex, "reset_stream", lambda why: False)
    cut(duplex, truncated({}, 1))
    cut(duplex, truncated({}, 1, reset=True))
    assert [sent[0] for sent in duplex.sent if isinstance(sent, tuple)] == ["hang up", "abort"]
