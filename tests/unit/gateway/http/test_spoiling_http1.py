"""Faults of requests over HTTP/1.1: what a client sees, and what the ledger tells."""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pytest_egress.base.sockets import await_ready
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.routes.faults import (
    Delayed,
    delayed,
    disconnect,
    raw,
    refuse,
    reset,
    reset_stream,
    silence,
    throttled,
    truncated,
)
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.echo import read_to_end
from tests.support.stage import GET, SECONDS, Stage, ask, end_of, eventually, read_reply

POST = b"POST /charges HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello"
SOON = 0.05


def fault_of(stage: Stage) -> str:
    """The only exchange's fault; without a handler's error, and no offence."""
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.error) == ("routed", None)
    assert judge(stage.window, stage.table.routes) is None
    return str(entry.fault)


def split(reply: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a response's head, in lower case, and what follows."""
    head, _, body = reply.partition(b"\r\n\r\n")
    return head.lower().split(b"\r\n"), body


# Ends.


@pytest.mark.parametrize("fault", [reset(), reset_stream()])
def test_reset_ends_the_connection_by_rst_once_the_request_is_read(
    stage: Stage, fault: object
) -> None:
    route = stage.https("api.test", fault)
    sock = stage.tls()
    sock.sendall(POST)
    assert end_of(sock) == "reset"
    (call,) = route.calls
    assert (call.request.content, call.response, call.fault) == (b"hello", None, fault)
    assert fault_of(stage) == str(fault)


def test_a_fault_is_told_in_the_timeline(stage: Stage) -> None:
    stage.https("api.test", reset())
    sock = stage.tls()
    sock.sendall(POST)
    end_of(sock)
    told = outcome_text(stage.only(Exchange))
    assert told.startswith("POST https://api.test/charges -> reset() in ")


def test_disconnect_closes_in_order_without_a_byte(stage: Stage) -> None:
    stage.https("api.test", disconnect())
    sock = stage.strict_tls()
    sock.sendall(POST)
    assert read_to_end(sock) == b""
    sock.close()
    assert fault_of(stage) == "disconnect()"


def test_disconnect_over_plain_http_is_a_fin(stage: Stage) -> None:
    stage.http("api.test", disconnect())
    sock = stage.dial(port=80)
    sock.sendall(POST + b"POST / HTTP/1.1\r\n" * 2000)  # which is left unread
    assert end_of(sock) == "closed"


def test_disconnect_with_an_answer_does_not_announce_the_end(stage: Stage) -> None:
    stage.https("api.test", disconnect({"id": 1}))
    sock = stage.strict_tls()
    sock.sendall(GET)
    head, body = split(read_to_end(sock))
    assert (head[0], body) == (b"http/1.1 200 ok", b'{"id": 1}')
    assert b"connection: keep-alive" in head
    sock.close()
    assert fault_of(stage) == "disconnect({'id': 1})"
    assert stage.only(Exchange).response.status_code == 200


def test_a_request_that_crosses_the_end_is_in_the_ledger(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http1.server.LINGER_SECONDS", SECONDS)
    stage.https("api.test", disconnect({"id": 1}))
    sock = stage.tls()
    assert ask(sock).status == 200
    assert eventually(lambda: not stage.window.activities)  # though the client closes nothing
    assert await_ready(sock, select.POLLRDHUP, SECONDS)
    sock.sendall(GET)
    assert eventually(lambda: len(stage.window.entries) > 1)
    late = stage.window.entries[-1]
    assert isinstance(late, Exchange)
    assert late.note.endswith(": disconnect({'id': 1}) has ended its connection")
    assert late.outcome == "recorded"


def test_a_request_that_was_pipelined_behind_a_fault_is_in_the_ledger(stage: Stage) -> None:
    route = stage.https("api.test", reset())
    sock = stage.tls()
    sock.sendall(GET + GET)
    assert end_of(sock) == "reset"
    _, left = stage.entries(Exchange)
    assert (left.outcome, left.response, left.fault) == ("recorded", None, None)
    assert route.call_count == 1


def test_silence_lasts_until_the_client_leaves(stage: Stage) -> None:
    route = stage.https("api.test", silence())
    sock = stage.tls()
    sock.sendall(POST)
    call = route.wait_for_call(timeout=SECONDS)  # counts when it is read
    assert not call.duration
    sock.settimeout(SOON)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    assert [str(pause) for pause in stage.ledger.pauses_of("target")] == [f"{call} -> silence()"]
    sock.close()
    stage.settle()
    assert call.duration >= SOON
    assert (
        call.note
        == "the client closed before its response was sent (it did not wait for the end of silence())"
    )
    assert fault_of(stage) == "silence()"


def test_silence_ends_with_its_window_and_is_no_handlers_error(stage: Stage) -> None:
    route = stage.https("api.test", silence())
    sock = stage.tls()
    sock.sendall(POST)
    call = route.wait_for_call(timeout=SECONDS)
    stage.window.over.set()
    assert end_of(sock) == "closed"
    stage.settle()
    assert call.note == "its window was closed before silence() was over"
    assert fault_of(stage) == "silence()"


def test_silence_for_some_seconds_ends_by_fin(stage: Stage) -> None:
    stage.https("api.test", silence(lambda: SOON))
    sock = stage.strict_tls()
    sock.sendall(POST)
    assert read_to_end(sock) == b""
    sock.close()
    assert fault_of(stage) == f"silence({SOON})"
    assert stage.only(Exchange).duration >= SOON


def test_raw_sends_exactly_these_bytes(stage: Stage) -> None:
    stage.https("api.test", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"))
    sock = stage.strict_tls()
    sock.sendall(POST)
    assert read_to_end(sock) == b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"
    sock.close()
    assert fault_of(stage).startswith("raw(b'HTTP/1.1 200 OK")


# Wrappers.


def test_delayed_sends_later(stage: Stage) -> None:
    stage.https("api.test", delayed({"id": 1}, SOON))
    sock = stage.tls()
    assert ask(sock).body == b'{"id": 1}'
    assert ask(sock).status == 200  # on the same connection
    first, second = stage.entries(Exchange)
    assert first.duration >= SOON
    assert second.duration >= SOON
    assert outcome_text(first).startswith("GET https://api.test/ -> 200 OK in ")
    assert outcome_text(first).endswith(f", by delayed({{'id': 1}}, {SOON})")


def test_a_delay_is_drawn_for_each_answer(stage: Stage) -> None:
    numbers = iter([0.01, 0.02])
    stage.https("api.test", delayed({}, lambda: next(numbers)))
    sock = stage.tls()
    for _ in range(2):
        assert ask(sock).status == 200
    faults = [exchange.fault for exchange in stage.entries(Exchange)]
    assert [fault.seconds for fault in faults if isinstance(fault, Delayed)] == [0.01, 0.02]


@pytest.mark.parametrize("answer", [{}, lambda request: {}])
@pytest.mark.parametrize("seconds", [lambda: "soon", lambda: 1 / 0, lambda: -1])
def test_seconds_that_cannot_be_drawn_are_the_handlers_error(
    stage: Stage, answer: Any, seconds: Callable[[], Any]
) -> None:
    stage.https("api.test", delayed(answer, seconds))
    assert ask(stage.tls()).status == 500
    entry = stage.only(Exchange)
    assert isinstance(entry.error, (TypeError, ValueError, ZeroDivisionError))
    assert entry.fault is None


def test_a_handler_runs_before_its_delay(stage: Stage) -> None:
    route = stage.https("api.test", delayed(lambda request: {"id": 1}, 1000))
    sock = stage.tls()
    sock.sendall(GET)
    assert route.wait_for_call(timeout=SECONDS).response.json() == {"id": 1}
    (activity,) = stage.window.activities
    assert eventually(lambda: activity.pause)
    assert str(activity.pause) == "GET https://api.test/ -> delayed(<lambda>, 1000)"
    stage.window.over.set()
    assert end_of(sock) == "closed"


def test_a_delayed_stream_is_closed_where_nobody_waits_for_it(stage: Stage) -> None:
    closed = []

    def pieces(request: Request) -> Iterator[str]:
        try:
            yield "one"
        finally:
            closed.append(True)

    route = stage.https("api.test", delayed(pieces, 1000))
    sock = stage.tls()
    sock.sendall(GET)
    route.wait_for_call(timeout=SECONDS)
    sock.close()
    stage.settle()
    assert closed == [True]


def test_throttled_takes_as_long_as_its_bytes(stage: Stage) -> None:
    stage.https("api.test", throttled(b"x" * 100, 1000))
    sock = stage.tls()
    before = stage.ledger.clock()
    assert ask(sock).body == b"x" * 100
    assert stage.ledger.clock() - before >= 0.1
    assert ask(sock).headers["content-length"] == "100"
    assert stage.entries(Exchange)[0].fault is not None


def test_a_throttled_stream_comes_in_small_pieces(stage: Stage) -> None:
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        yield b"x" * 60
        yield b"y" * 40

    stage.https("api.test", throttled(pieces, 1000))
    sock = stage.tls()
    sock.sendall(GET)
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        data += sock.recv(65536)
    _, body = split(data)
    assert body == b"32\r\n" + b"x" * 50 + b"\r\na\r\n" + b"x" * 10 + b"\r\n28\r\n" + b"y" * 40 + (
        b"\r\n0\r\n\r\n"
    )


def test_a_throttled_body_ends_with_its_window(stage: Stage) -> None:
    route = stage.https("api.test", throttled(b"x" * 100, 0.001))
    sock = stage.tls()
    sock.sendall(GET)
    route.wait_for_call(timeout=SECONDS)
    assert eventually(lambda: stage.ledger.pauses)
    stage.window.over.set()
    assert end_of(sock) == "closed"
    stage.settle()
    assert fault_of(stage).startswith("throttled(")
    assert stage.only(Exchange).note.startswith("its window was closed before throttled(")


@pytest.mark.parametrize("is_reset", [False, True])
def test_truncated_says_the_whole_length_and_sends_a_part(stage: Stage, is_reset: bool) -> None:
    stage.https("api.test", truncated({"id": 1}, 3, reset=is_reset))
    sock = stage.tls() if is_reset else stage.strict_tls()
    sock.sendall(GET)
    data = sock.recv(65536)
    while len(split(data)[1]) < 3:
        data += sock.recv(65536)
    head, body = split(data)
    assert (body, b"content-length: 9" in head) == (b'{"i', True)
    assert end_of(sock) == ("reset" if is_reset else "closed")
    sock.close()
    assert fault_of(stage).startswith("truncated({'id': 1}, 3")
    assert stage.only(Exchange).response.content == b'{"id": 1}'


def test_a_large_body_comes_up_to_the_byte_before_the_reset(stage: Stage) -> None:
    stage.http("api.test", truncated(b"x" * 1_000_000, 300_000, reset=True))
    sock = stage.dial(port=80)
    sock.sendall(GET)
    data = sock.recv(65536)
    while len(split(data)[1]) < 300_000:
        data += sock.recv(65536)
    assert end_of(sock) == "reset"
    assert len(split(data)[1]) == 300_000


@pytest.mark.parametrize("after", [0, 4, 100])
def test_the_last_chunk_of_a_truncated_stream_is_missing(stage: Stage, after: int) -> None:
    stage.https("api.test", truncated(lambda request: iter(["abc", "def"]), after))
    sock = stage.strict_tls()
    sock.sendall(GET)
    _, body = split(read_to_end(sock))
    sent = {0: b"", 4: b"3\r\nabc\r\n1\r\nd\r\n"}.get(after, b"3\r\nabc\r\n3\r\ndef\r\n")
    assert body == sent
    sock.close()
    assert fault_of(stage).startswith("truncated(<lambda>")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_response_without_a_body_is_whole_and_then_its_connection_ends(
    stage: Stage, method: str, status: int
) -> None:
    stage.https(
        "api.test",
        truncated(throttled(Response(status, text="hello" if status == 200 else ""), 1), 2),
    )
    sock = stage.strict_tls()
    sock.sendall(GET.replace(b"GET", method.encode()))
    head, body = split(read_to_end(sock))
    assert (head[0].split()[1], body) == (str(status).encode(), b"")
    assert (b"content-length: 5" in head) is (method == "HEAD")
    sock.close()
    assert fault_of(stage).startswith("truncated(throttled(")


def test_faults_nest(stage: Stage) -> None:
    stage.https("api.test", disconnect(delayed(throttled(truncated(b"x" * 100, 80), 1000), SOON)))
    sock = stage.strict_tls()
    sock.sendall(GET)
    assert split(read_to_end(sock))[1] == b"x" * 80
    sock.close()
    assert fault_of(stage).startswith("disconnect(delayed(throttled(truncated(")


# What is within.


def test_an_error_of_a_handler_in_a_fault_is_answered_as_ever(stage: Stage) -> None:
    stage.https("api.test", delayed(lambda request: 1 / 0, 1000))
    assert ask(stage.tls()).status == 500
    entry = stage.only(Exchange)
    assert (type(entry.error), entry.fault) == (ZeroDivisionError, None)


def test_an_error_of_a_body_in_a_fault_resets(stage: Stage) -> None:
    def pieces(request: Request) -> Iterator[str]:
        yield "one"
        raise LookupError("no more")

    stage.https("api.test", truncated(pieces, 100))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert isinstance(stage.only(Exchange).error, LookupError)


@pytest.mark.parametrize("returned", [reset(), raw(b"bytes"), disconnect(), silence(0.01)])
def test_a_handler_may_return_an_end(stage: Stage, returned: object) -> None:
    route = stage.https("api.test", lambda request: returned)
    sock = stage.tls()
    sock.sendall(GET)
    end_of(sock)
    sock.close()
    assert fault_of(stage) == str(returned)
    assert route.call_count == 1


def test_an_async_handler_may_return_a_wrapper_of_whatever_it_may_return(stage: Stage) -> None:
    async def handle(request: Request) -> Any:
        return truncated((201, "hello"), 2)

    stage.https("api.test", handle)
    sock = stage.strict_tls()
    sock.sendall(GET)
    head, body = split(read_to_end(sock))
    assert (head[0], body) == (b"http/1.1 201 created", b"he")
    sock.close()
    assert fault_of(stage) == "truncated((201, 'hello'), 2)"


def test_a_fault_that_is_returned_stands_within_that_of_the_route(stage: Stage) -> None:
    stage.https("api.test", delayed(lambda request: truncated("hello", 2), SOON))
    sock = stage.strict_tls()
    sock.sendall(GET)
    assert split(read_to_end(sock))[1] == b"he"
    sock.close()
    assert fault_of(stage) == f"delayed(truncated('hello', 2), {SOON})"
    assert stage.only(Exchange).duration >= SOON


def test_an_end_that_is_returned_comes_after_the_delay_of_the_route(stage: Stage) -> None:
    stage.https("api.test", delayed(lambda request: reset(), SOON))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert fault_of(stage) == f"delayed(reset(), {SOON})"
    assert stage.only(Exchange).duration >= SOON


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (refuse(), "returned refuse(), a fault of connecting, and its connection is made"),
        (delayed(object(), 1), "is no answer: it takes a Response"),
        ((200, reset()), "returned (200, reset()): a fault stands alone"),
    ],
)
def test_a_handler_returns_no_fault_that_comes_too_late_or_has_no_answer(
    stage: Stage, returned: object, text: str
) -> None:
    stage.https("api.test", lambda request: returned)
    assert ask(stage.tls()).status == 500
    error = stage.only(Exchange).error
    assert isinstance(error, TypeError)
    assert text in str(error)


def test_a_returned_fault_whose_seconds_fail_closes_its_stream(stage: Stage) -> None:
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield "one"
        finally:
            closed.append(True)

    stage.https("api.test", lambda request: delayed(pieces(), lambda: -1))
    assert ask(stage.tls()).status == 500
    assert isinstance(stage.only(Exchange).error, ValueError)
    assert closed == [True]


def test_an_application_may_be_slow(stage: Stage) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    stage.https("api.test", delayed(throttled(wsgi(app), 1000), SOON))
    assert ask(stage.tls()).body == b"hello"
    assert stage.only(Exchange).duration >= SOON


def test_a_fault_may_answer_before_the_body_has_come(stage: Stage) -> None:
    stage.https("api.test", reset(), stream=True)
    sock = stage.tls()
    sock.sendall(POST.replace(b"Content-Length: 5", b"Content-Length: 500"))
    assert end_of(sock) == "reset"


def test_a_websocket_is_opened_late(stage: Stage) -> None:
    stage.https("api.test", delayed(websocket(lambda ws: ws.send("hello")), SOON))
    sock = stage.tls()
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head, frames = split(read_to_end(sock))
    assert head[0] == b"http/1.1 101 switching protocols"
    assert frames.startswith(b"\x81\x05hello")
    assert stage.only(Exchange).duration >= SOON


def test_a_websocket_is_cut(stage: Stage) -> None:
    stage.https("api.test", truncated(websocket(lambda ws: ws.send("hello")), 4))
    sock = stage.tls()
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert split(read_to_end(sock))[1] == b"\x81\x05he"
    sock.close()
    assert fault_of(stage).startswith("truncated(websocket(")


# Sequences, counts and intervals.


def test_a_sequence_fails_once_and_then_works(stage: Stage) -> None:
    route = stage.https("api.test", sequence(reset(), 503, delayed({"id": 1}, SOON)))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    sock = stage.tls()
    assert [ask(sock).status for _ in range(2)] == [503, 200]
    stage.settle()
    assert [str(call.fault) for call in route.calls] == [
        "reset()",
        "None",
        f"delayed({{'id': 1}}, {SOON})",
    ]
    assert len(route.intervals) == 2
    assert all(seconds >= 0 for seconds in route.intervals)


def test_a_client_that_repeats_what_a_fault_has_answered_is_told_so(stage: Stage) -> None:
    stage.https("api.test", sequence(200, reset()))
    sock = stage.tls()
    assert ask(sock).status == 200
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    body = ask(stage.tls()).body.decode()
    told = (
        "sequence(...): it has ended, after 2 answers; the call before it was answered by reset(): the client may have "
        "repeated it by itself"
    )
    assert told in body
    stage.settle()
    assert told in str(judge(stage.window, stage.table.routes))


def test_intervals_are_between_the_starts_of_visible_calls(stage: Stage) -> None:
    route: InnerRoute = stage.https("api.test", {})
    sock = stage.tls()
    for _ in range(3):
        assert ask(sock).status == 200
    starts = [call.started for call in route.calls]
    assert route.intervals == [starts[1] - starts[0], starts[2] - starts[1]]
    stage.settle()
    stage.next_window()
    assert route.intervals == []


def test_a_client_that_reads_no_more_is_noted_as_ever(stage: Stage) -> None:
    route = stage.https("api.test", throttled(b"x" * 1_000_000, 10_000))
    sock = stage.tls()
    sock.sendall(GET)
    assert isinstance(sock, ssl.SSLSocket)
    sock.recv(100)
    sock.close()
    stage.settle()
    (call,) = route.calls
    assert call.note.startswith("the client closed before the whole response was sent (")


def test_a_reply_is_read_by_a_client_that_keeps_the_connection(stage: Stage) -> None:
    stage.https("api.test", sequence(throttled(b"slow", 10_000), {"id": 1}))
    sock = stage.tls()
    sock.sendall(GET + GET)
    assert read_reply(sock).body == b"slow"


def test_a_cut_body_may_be_longer_than_its_content_length_says(stage: Stage) -> None:
    def handle(request: Request) -> Response:
        return Response(stream=["0123456789"], headers={"Content-Length": "5"})

    stage.https("api.test", truncated(handle, 3))
    sock = stage.tls()
    sock.sendall(GET)
    assert split(read_to_end(sock))[1] == b"012"
    assert fault_of(stage).startswith("truncated(")
