"""Handlers are called, and what they return or raise becomes a response."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import h11
import pytest

from pytest_egress.ledger.report import handler_error_text
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stage import (
    GET,
    SECONDS,
    Stage,
    ask,
    drain,
    end_of,
    eventually,
    read_reply,
    reset,
)

# What handlers do.


def test_an_async_handler_runs_on_a_loop_of_its_own(stage: Stage) -> None:
    loops = []

    async def handler(request: Request) -> str:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return request.path

    stage.https("api.test", handler)
    sock = stage.tls()
    assert [ask(sock).body for _ in range(2)] == [b"/", b"/"]
    assert loops[0] is not loops[1]


def test_a_handler_that_raises_gives_500_and_the_connection_goes_on(stage: Stage) -> None:
    error = LookupError("no such charge")

    def charges(request: Request) -> dict[str, int]:
        if request.path == "/bad":
            raise error
        return {"ok": 1}

    route = stage.https("api.test", charges)
    sock = stage.tls()
    reply = ask(sock, b"GET /bad HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert reply.status == 500
    assert reply.body.decode() == (
        'pytest-egress: the handler of intercept_https("api.test")  declared at test_it.py:7'
        " raised LookupError: no such charge\n"
        "  for GET https://api.test/bad of target\n"
        "The test fails with its traceback.\n"
    )
    assert ask(sock).body == b'{"ok": 1}'
    first, second = stage.entries(Exchange)
    assert (first.error, second.error) == (error, None)
    assert route.call_count == 1


def test_whatever_a_handler_raises_is_kept_for_the_test(stage: Stage) -> None:
    def handler(request: Request) -> None:
        pytest.fail("not like this")

    stage.https("api.test", handler)
    assert ask(stage.tls()).status == 500
    assert type(stage.only(Exchange).error) is pytest.fail.Exception


def test_a_handler_that_returns_nonsense_is_an_error_that_lists_the_answers(stage: Stage) -> None:
    stage.https("api.test", lambda request: object)
    assert ask(stage.tls()).status == 500
    error = stage.only(Exchange).error
    assert isinstance(error, TypeError)
    _, _, text = str(error).partition(" returned ")
    assert text == (
        "<class 'object'> is no answer: it takes a Response, dict or list (sent as JSON), bytes, a status (int), "
        "(status, body), None, str, an iterator of bytes or str, async or not, or a fault such as reset()"
    )


def test_a_predicate_that_raises_gives_500_and_counts_no_call(stage: Stage) -> None:
    route = stage.https("api.test", match=lambda request: request.json()["id"] == 1)
    assert ask(stage.tls()).status == 500
    entry = stage.only(Exchange)
    assert isinstance(entry.error, ValueError)
    assert not route.called
    place, attempt = handler_error_text(entry).splitlines()[1:]
    assert re.fullmatch(r"  at test_handlers\.py:\d+", place)
    assert attempt == "  for GET https://api.test/ of target"


LOST: dict[str, str] = {}


def test_what_another_route_answers_has_a_note_about_the_predicate_that_raised(
    stage: Stage,
) -> None:
    stage.https("api.test", 201)
    broken = stage.https("api.test", match=lambda request: LOST["x"], path="/", optional=True)
    assert ask(stage.tls()).status == 201
    entry = stage.only(Exchange)
    assert (entry.error, broken.called) == (None, False)
    note = r"match: <lambda> raised KeyError: 'x', at test_handlers\.py:\d+"
    assert re.fullmatch(note, entry.note)
    assert entry.note in outcome_text(entry)


def test_a_streamed_body_that_raises_cuts_the_response(stage: Stage) -> None:
    error = OSError("disk on fire")  # not to be taken for an error of the connection

    def stream() -> Iterator[bytes]:
        yield b"beginning"
        raise error

    stage.https("api.test", lambda request: stream())
    sock = stage.strict_tls()
    sock.sendall(GET)
    with pytest.raises(OSError, match=r"EOF|unknown error|reset"):  # and no end in good order
        drain(sock)
    exchange = stage.only(Exchange)
    assert (exchange.error, exchange.note) == (error, "")


def test_a_streamed_body_that_yields_neither_bytes_nor_text_is_an_error(stage: Stage) -> None:
    stage.https("api.test", lambda request: iter([b"beginning", 7]))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    error = str(stage.only(Exchange).error)
    assert error.endswith(" yielded 7: a streamed body is of bytes or str, and this is int")


def test_a_response_that_http_cannot_carry_is_an_error(stage: Stage) -> None:
    stage.https("api.test", Response(content=b"four", headers={"Transfer-Encoding": "gzip"}))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert isinstance(stage.only(Exchange).error, h11.LocalProtocolError)


def test_a_client_that_closes_early_ends_the_stream(stage: Stage) -> None:
    ended = threading.Event()

    def stream() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(65536)
        finally:
            ended.set()

    stage.https("api.test", lambda request: stream())
    sock = stage.tls()
    sock.sendall(GET)
    sock.recv(1)
    reset(sock)
    assert ended.wait(SECONDS)
    exchange = stage.only(Exchange)
    assert exchange.note.startswith("the client closed before the whole response was sent (")
    assert (exchange.outcome, exchange.error) == ("routed", None)


def test_a_client_that_does_not_wait_for_its_refusal_is_told_of_as_any_other(stage: Stage) -> None:
    has_gone = threading.Event()
    stage.https("api.test", match=lambda request: not has_gone.wait(SECONDS))
    sock = stage.tls()
    sock.sendall(GET)
    assert eventually(lambda: not stage.gateway.unread())
    reset(sock)
    has_gone.set()
    exchange = stage.only(Exchange)
    assert (exchange.outcome, exchange.note) == ("unrouted", "")  # a note would hide the remedy


def test_a_slow_handler_delays_no_other_connection(stage: Stage) -> None:
    go_on = threading.Event()

    def handler(request: Request) -> str:
        if request.path == "/slow":
            assert go_on.wait(SECONDS)
        return request.path

    stage.https("api.test", handler)
    slow = stage.tls()
    slow.sendall(b"GET /slow HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert ask(stage.tls()).body == b"/"
    go_on.set()
    assert read_reply(slow).body == b"/slow"


def test_a_call_counts_when_its_handler_has_returned_and_before_the_client_hears(
    stage: Stage,
) -> None:
    counts = []

    def handler(request: Request) -> None:
        counts.append(route.call_count)

    route = stage.https("api.test", handler)
    sock = stage.tls()
    for number in (1, 2, 3):
        ask(sock)
        assert route.call_count == number
    assert counts == [0, 1, 2]


def test_an_exchange_begins_with_its_request_and_not_with_its_connection(stage: Stage) -> None:
    route = stage.https("api.test")
    sock = stage.tls()
    for _ in range(2):
        before = stage.ledger.now()
        ask(sock)
        exchange = route.calls[-1]
        assert exchange.duration is not None
        assert before <= exchange.started <= exchange.started + exchange.duration
        assert exchange.started + exchange.duration <= stage.ledger.now()


def test_an_exchange_that_was_waited_for_is_complete(stage: Stage) -> None:
    route = stage.https("api.test", b"yes")
    sock = stage.tls()
    for number in range(1, 50):
        sock.sendall(GET)
        exchange = route.wait_for_call(number)
        assert exchange.response is not None
        assert exchange.response.content == b"yes"
        assert exchange.duration is not None
        read_reply(sock)


def test_a_handler_that_runs_is_known_by_its_route_and_request(stage: Stage) -> None:
    seen: list[tuple[object, str]] = []

    def note(request: Request) -> None:
        (activity,) = stage.window.activities
        seen.append((activity.route, str(activity.what)))

    def stream() -> Iterator[bytes]:
        note_route()
        yield b"x"

    def note_route() -> None:
        (activity,) = stage.window.activities
        seen.append((activity.route, str(activity.what)))

    whole = stage.https("api.test", note, path="/whole")
    streamed = stage.https("api.test", lambda request: stream(), path="/stream")
    sock = stage.tls()
    for path in (b"/whole", b"/stream"):
        ask(sock, GET.replace(b" / ", b" %b " % path))
    assert seen == [
        (whole, "GET https://api.test/whole"),
        (streamed, "GET https://api.test/stream"),
    ]


# Bodies that a generator makes.


def test_a_generator_runs_in_its_handlers_context_and_is_counted_after_its_first_piece(
    stage: Stage,
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="lost")
    variable.set("of the test")

    def handler(request: Request) -> Iterator[bytes]:
        yield f"{variable.get()}, {route.call_count} calls; ".encode()
        variable.set("of the first piece")
        yield variable.get().encode()

    route = stage.https("api.test", handler)
    assert ask(stage.tls()).body == b"of the test, 0 calls; of the first piece"
    stage.settle()
    assert route.call_count == 1


def test_what_a_generator_raises_before_its_first_piece_is_a_500(stage: Stage) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        assert request.method == "POST"
        yield b"never"

    stage.https("api.test", handler)
    reply = ask(stage.tls())
    assert (reply.status, b"AssertionError" in reply.body) == (500, True)
    assert isinstance(stage.only(Exchange).error, AssertionError)


def test_a_generator_that_yields_nothing_is_an_empty_body(stage: Stage) -> None:
    stage.https("api.test", lambda request: iter(()))
    assert ask(stage.tls()).body == b""


class Unsayable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("error", [ValueError("half \ud83d"), Unsayable()], ids=["text", "str"])
def test_an_exception_that_cannot_be_said_is_the_handlers_all_the_same(
    stage: Stage, error: Exception
) -> None:
    def handler(request: Request) -> None:
        raise error

    stage.https("api.test", handler)
    assert ask(stage.tls()).status == 500
    assert stage.only(Exchange).error is error
    assert not stage.window.complaints
