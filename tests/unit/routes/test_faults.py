"""What faults refuse where they are declared, and how they are shown."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from pytest_egress import (
    blackhole,
    delayed,
    disconnect,
    forward,
    raw,
    refuse,
    reset,
    reset_stream,
    sequence,
    silence,
    smtp,
    throttled,
    truncated,
)
from pytest_egress.gateway.http.spoiling import settled
from pytest_egress.routes.answers import returned
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.faults import drawn, layers, with_answer
from pytest_egress.routes.kinds import DNS, INTERCEPT_HTTPS, INTERCEPT_TCP, INTERCEPT_TLS
from pytest_egress.traffic.http.response import Response


def wrong(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call with arguments that a type checker would refuse."""
    return make(*args, **options)


def jitter() -> float:
    return random.Random(1).random()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (reset(), "reset()"),
        (reset_stream(), "reset_stream()"),
        (disconnect(), "disconnect()"),
        (disconnect({"id": 1}), "disconnect({'id': 1})"),
        (disconnect(None), "disconnect(None)"),
        (silence(), "silence()"),
        (silence(2), "silence(2)"),
        (raw(b"HTTP"), "raw(b'HTTP')"),
        (refuse(), "refuse()"),
        (blackhole(), "blackhole()"),
        (delayed(503, 0.2), "delayed(503, 0.2)"),
        (delayed(503, jitter), "delayed(503, jitter)"),
        (throttled(b"abc", 2), "throttled(b'abc', 2)"),
        (truncated(forward(), 3, reset=True), "truncated(forward(), 3, reset=True)"),
        (delayed(truncated(b"abc", 1), 1), "delayed(truncated(b'abc', 1), 1)"),
    ],
)
def test_a_fault_is_shown_as_the_code_that_makes_it(fault: object, text: str) -> None:
    assert str(fault) == repr(fault) == text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: disconnect({"id": 1}), "disconnect({'id': 1})"),
        (lambda: delayed(503, 0.2), "delayed(503, 0.2)"),
        (lambda: throttled(delayed({}, 1), 9), "throttled(delayed({}, 1), 9)"),
        (lambda: truncated(delayed({"id": 1}, jitter), 1), "truncated(delayed({'id': 1}, 0.5), 1)"),
    ],
)
def test_the_fault_of_a_call_is_shown_and_compared_as_it_was_declared(
    make: Callable[[], Any], text: str
) -> None:
    declared: Any = declare(INTERCEPT_HTTPS, "api.test", make()).answer
    fault: Any = settled(declared, lambda *_: 0.5)
    assert str(fault) == text
    assert fault == make() or "jitter" in str(make())
    assert fault != delayed({"id": 2}, 0.2)
    assert isinstance(layers(fault)[1], Response)


def test_what_a_handler_has_returned_is_shown_within_the_faults_around_it() -> None:
    around: Any = declare(INTERCEPT_HTTPS, "api.test", delayed(lambda request: reset(), 1)).answer
    assert str(with_answer(around, reset())) == "delayed(reset(), 1)"


def test_a_large_answer_is_shown_in_part() -> None:
    class Bytes(bytes):
        def __repr__(self) -> str:
            raise AssertionError("the repr of all of it")

    text = str(throttled(Bytes(b"begin" + bytes(5000) + b"end"), 9))
    assert text.startswith("throttled(b'begin")
    assert text.endswith("end', 9)")
    assert len(text) < 500


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: wrong(delayed, 1, {"id": 1}), TypeError, r"the answer comes first, delayed\(\{'id': 1\}, 1\)"),
        (lambda: wrong(delayed, {}, "1"), TypeError, "seconds are a number"),
        (lambda: wrong(delayed, {}, True), TypeError, "not True"),
        (lambda: wrong(delayed, {}, -1), ValueError, "from 0 on, and finite, not -1"),
        (lambda: wrong(delayed, {}, math.inf), ValueError, "not inf"),
        (lambda: wrong(silence, math.nan), ValueError, "not nan"),
        (lambda: wrong(delayed, {}, lambda request: 1), TypeError, "takes no argument"),
        (lambda: wrong(delayed, sequence(1, 2), 1), TypeError, r"put delayed\(...\) around each"),
        (lambda: wrong(disconnect, sequence(1, 2)), TypeError, r"put disconnect\(...\) around each"),
        (lambda: wrong(delayed, reset(), 1), TypeError, r"reset\(\) in delayed\(\): it has no body"),
        (lambda: wrong(throttled, refuse(), 1), TypeError, r"refuse\(\) in throttled\(\)"),
        (lambda: wrong(truncated, {}, 1.5), TypeError, "after= is a number of bytes"),
        (lambda: wrong(truncated, {}, -1), ValueError, "0 or more"),
        (lambda: wrong(throttled, {}, 0), ValueError, "over 0"),
        (lambda: wrong(throttled, 8, {}), TypeError, "the answer, and a number of bytes"),
        (lambda: wrong(raw, "text"), TypeError, "takes bytes: write b'text'"),
        (lambda: wrong(truncated, {}, 1, reset=1), TypeError, "True or False"),
    ],
)  # fmt: skip
def test_what_is_no_fault_is_refused_where_it_is_made(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("kind", "answer", "text"),
    [
        (INTERCEPT_HTTPS, reset, r"reset without parentheses is no answer: write reset\(\)"),
        (INTERCEPT_HTTPS, silence, r"write silence\(\)"),
        (INTERCEPT_HTTPS, sequence(disconnect, {}), r"write disconnect\(\)"),
        (INTERCEPT_TCP, refuse, r"write refuse\(\)"),
        (INTERCEPT_TCP, smtp, r"smtp without parentheses is no answer: write smtp\(\)"),
        (INTERCEPT_HTTPS, forward, r"write forward\(\)"),
        (INTERCEPT_TCP, raw, r"write raw\(data\)"),
        (INTERCEPT_TCP, truncated, r"write truncated\(answer, after\)"),
        (INTERCEPT_HTTPS, (503, reset()), r"\(503, reset\(\)\): a fault stands alone"),
        (INTERCEPT_HTTPS, (503, delayed({}, 1)), r"around the pair: \(503, {}\) in place"),
        (INTERCEPT_HTTPS, [reset(), {}], r"one after the other are sequence\(...\)"),
    ],
)
def test_a_fault_that_is_written_wrongly_is_told_how(kind: Any, answer: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        declare(kind, "api.test:1", answer)


def test_a_handler_that_returns_a_fault_without_parentheses_is_told_how() -> None:
    with pytest.raises(TypeError, match=r"write silence\(\)"):
        returned(silence)


@pytest.mark.parametrize("kind", [INTERCEPT_HTTPS, INTERCEPT_TLS])
@pytest.mark.parametrize("fault", [refuse(), blackhole()])
def test_a_fault_of_connecting_is_for_raw_routes_of_tcp(kind: Any, fault: Any) -> None:
    with pytest.raises(TypeError, match=r"intercept_tcp\('api.test(:443)?', sequence\((ref|bla)"):
        declare(kind, "api.test", sequence(fault, None))


def test_an_answer_within_a_fault_is_checked_for_its_route() -> None:
    declared: Any = declare(INTERCEPT_HTTPS, "api.test", delayed({"id": 1}, 1)).answer
    assert isinstance(declared.answer, Response)
    with pytest.raises(TypeError, match="no answer of a raw route"):
        declare(INTERCEPT_TCP, "api.test:1", delayed({"id": 1}, 1))


@pytest.mark.parametrize(
    ("address", "answer", "told"),
    [
        (
            "api.test",
            sequence(refuse(), refuse(), {}),
            "after this route declare intercept_tcp('api.test:443', sequence(refuse(), refuse())), whose turns",
        ),
        (
            "[2001:db8::1]:8443",
            sequence(blackhole(), 503),
            "intercept_tcp('[2001:db8::1]:8443', sequence(blackhole()))",
        ),
        ("2001:db8::1", sequence(refuse(), 503), "intercept_tcp('[2001:db8::1]:443', "),
        (
            "api.test",
            sequence(503, refuse(), {}),
            "to fail later, the test declares intercept_tcp('api.test:443', sequence(refuse())) then",
        ),
        ("*.test", refuse(), "use intercept_tcp('*.test', refuse())"),
    ],
    ids=["first", "port", "IPv6", "later", "alone"],
)
def test_a_fault_of_connecting_in_a_sequence_of_requests_is_told_how(
    address: str, answer: Any, told: str
) -> None:
    with pytest.raises(TypeError) as caught:
        declare(INTERCEPT_HTTPS, address, answer)
    assert told in str(caught.value)


def test_seconds_are_drawn_for_each_answer() -> None:
    drawn_seconds = iter([0.5, -1.0])
    fault = delayed({}, lambda: next(drawn_seconds))
    assert drawn(fault.seconds, fault) == 0.5
    with pytest.raises(ValueError, match=r"delayed\(\{\}, <lambda>\): .* not -1.0"):
        drawn(fault.seconds, fault)


@pytest.mark.parametrize("fault", [reset(), refuse(), raw(b"")])
def test_a_name_has_no_fault_of_connections(fault: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        declare(DNS, "api.test", fault)
