"""The answers of routes of datagrams: what they take, and what they say of the rest."""

from __future__ import annotations

import re

import pytest

from pytest_egress import (
    blackhole,
    delayed,
    disconnect,
    forward,
    refuse,
    reset,
    sequence,
    silence,
    throttled,
    truncated,
)
from pytest_egress.routes.datagrams import checked_datagrams, content_of, takes_long
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, INTERCEPT_TCP, INTERCEPT_UDP
from pytest_egress.routes.sequences import AnswerSequence


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        (None, ()),
        (b"x", (b"x",)),
        (bytearray(b"x"), (b"x",)),
        ([b"x", b"y"], (b"x", b"y")),
        (refuse(), (refuse(),)),
        ([delayed(b"1", 0.1), b"2"], (delayed(b"1", 0.1), b"2")),
    ],
)
def test_an_answer_is_a_tuple_of_datagrams_and_faults(answer: object, parts: object) -> None:
    assert checked_datagrams(answer) == parts


def test_a_sequence_has_such_an_answer_for_each_turn() -> None:
    checked = checked_datagrams(sequence(b"one", silence(), [b"x", b"x"]))
    assert checked == AnswerSequence(((b"one",), (silence(),), (b"x", b"x")))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("text", "'text' is no datagram: write b'text', or .encode()"),
        ({"id": 1}, "{'id': 1} is no datagram"),
        (404, "404 is no datagram"),
        (refuse, "refuse without parentheses is no answer; write refuse(...)"),
        (reset(), "reset() is a fault of connections, and a datagram has none"),
        (disconnect(), "disconnect() is a fault of connections"),
        (blackhole(), "blackhole() is a fault of connections"),
        (throttled(b"x", 1), "throttled(b'x', 1) is a fault of connections"),
        (truncated(b"xy", 1, reset=True), "is a fault of connections"),
        (silence(1), "a datagram has no connection to close; write silence()"),
        ([b"x", refuse()], "refuse() and silence() are answers by themselves"),
        (delayed("x", 1), "'x' is no datagram"),
    ],
)
def test_what_cannot_answer_a_datagram_is_refused_where_it_is_declared(
    answer: object, said: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(said)):
        declare(INTERCEPT_UDP, "a.test:9", answer)


class WithPorts:
    """What has ports that a raw route connects to."""

    name = "shop"

    def connect(self, port: int, timeout: float = 1.0) -> None: ...


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (forward("tcp://127.0.0.1:9"), 'forward("tcp://127.0.0.1:9"): this route takes "udp://'),
        (forward("http://127.0.0.1"), 'this route takes "udp://host:port"'),
        (
            forward(WithPorts(), 53),
            "forward(shop, 53): no datagram can be sent to <",
        ),
        ([b"x", forward()], "forward() is an answer by itself, in no list and no fault"),
        (delayed(forward(), 1), "forward() is an answer by itself, in no list and no fault"),
        (forward, "forward without parentheses is no answer"),
    ],
)
def test_a_server_of_datagrams_answers_alone(answer: object, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        declare(INTERCEPT_UDP, "a.test:9", answer)


def test_a_server_of_datagrams_answers_no_connections() -> None:
    for kind in (INTERCEPT_TCP, INTERCEPT_HTTPS):
        with pytest.raises(ValueError, match=re.escape('forward("udp://127.0.0.1:9"): this route')):
            declare(kind, "a.test:9", forward("udp://127.0.0.1:9"))
    with pytest.raises(ValueError, match="a udp URL needs a port"):
        forward("udp://127.0.0.1")
    with pytest.raises(ValueError, match="a udp URL has no path"):
        forward("udp://127.0.0.1:9/path")


def test_a_match_is_a_function() -> None:
    with pytest.raises(TypeError, match=r"match=b'x': it takes a function of the datagram"):
        declare(INTERCEPT_UDP, "a.test:9", None, match=b"x")
    with pytest.raises(
        TypeError, match=r"does not take path=; it takes match, times, optional, name"
    ):
        declare(INTERCEPT_UDP, "a.test:9", None, path="/")


def test_the_bytes_of_a_part() -> None:
    assert content_of(truncated(delayed(b"content", 1), 3)) == b"con"
    assert content_of(b"content") == b"content"
    assert content_of(silence()) is None


def test_functions_of_the_test_are_not_called_by_the_reader() -> None:
    assert takes_long(checked_datagrams(lambda datagram: b"x"))
    assert takes_long(checked_datagrams(delayed(b"x", lambda: 0.1)))
    assert takes_long(checked_datagrams(forward("udp://127.0.0.1:9")))
    assert not takes_long(checked_datagrams([delayed(b"x", 0.1), b"y"]))
