"""Calls that a fault sweep fails: what the client gets, whether the route was called, and when there is no fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trustme

from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import delayed, disconnect, reset, truncated
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.sweep.cells import CallRow, Cell
from pytest_egress.sweep.trial import SweepTrial
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.echo import read_to_end
from tests.support.http2_client import Http2Client
from tests.support.stage import Stage, ask, client_context, end_of, eventually, read_reply

CALL = "POST https://api.test/charges"
POST = b"POST /charges HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello"
INTERNAL_ERROR = 2
HEAD = b"HEAD / HTTP/1.1\r\nHost: api.test\r\n\r\n"


def sweep(
    stage: Stage, fault: str, call: str = CALL, seconds: float = 30, **row: int
) -> SweepTrial:
    trial = SweepTrial(Cell(row=CallRow(call, **row), fault=fault), seconds)
    stage.window.trial = trial
    return trial


def once(stage: Stage, fault: str) -> None:
    stage.window.trial = SweepTrial(Cell(row=CallRow(CALL), fault=fault, is_once=True), 30)


def handled(stage: Stage, answer: object = None, **options: object) -> tuple[InnerRoute, list[str]]:
    """A route, and the paths that its handler was called for."""
    ran: list[str] = []

    def handler(request: Request) -> object:
        ran.append(request.path)
        return {"id": 1} if answer is None else answer

    return stage.https("api.test", handler, **options), ran


@pytest.mark.parametrize(("fault", "status"), [("503", 503), ("429", 429)])
def test_a_status_in_place_of_an_answer_is_no_call_of_the_route(
    stage: Stage, fault: str, status: int
) -> None:
    route, ran = handled(stage, times=1)
    sweep(stage, fault)
    sock = stage.tls()
    sock.sendall(POST + POST)
    replies = [read_reply(sock), read_reply(sock)]
    assert [reply.status for reply in replies] == [status, status]
    assert (replies[0].headers.get("retry-after") == "1") == (status == 429)
    assert (ran, route.calls, route.turns.taken) == ([], [], 0)
    entries = stage.entries(Exchange)
    assert [(e.outcome, e.swept, e.request.content) for e in entries] == [
        ("routed", True, b"hello")
    ] * 2
    assert outcome_text(entries[0]).endswith("  (sweep)")
    assert judge(stage.window, stage.table.routes, assert_all_called=False) is None


def test_a_reset_in_place_of_an_answer_is_no_call_of_the_route(stage: Stage) -> None:
    route, ran = handled(stage)
    sweep(stage, "reset")
    sock = stage.tls()
    sock.sendall(POST)
    assert end_of(sock) == "reset"
    assert (ran, route.calls, stage.only(Exchange).swept) == ([], [], True)


def test_a_call_that_fails_takes_no_answer_of_a_sequence(stage: Stage) -> None:
    route = stage.https("api.test", sequence(b"first", b"second"))
    once(stage, "503")
    sock = stage.tls()
    sock.sendall(POST * 3)
    assert [read_reply(sock).body for _ in range(3)] == [
        b"Service Unavailable",
        b"first",
        b"second",
    ]
    assert [entry.swept for entry in stage.entries(Exchange)] == [True, False, False]
    assert len(route.calls) == 2


def test_the_call_with_its_number_and_all_that_follow_fail(stage: Stage) -> None:
    handled(stage)
    sweep(stage, "503", number=2)
    sock = stage.tls()
    sock.sendall(POST * 3)
    assert [read_reply(sock).status for _ in range(3)] == [200, 503, 503]


def test_another_call_is_answered_as_ever(stage: Stage) -> None:
    handled(stage)
    sweep(stage, "503", "POST https://api.test/refunds")
    assert ask(stage.tls(), POST).status == 200
    assert not stage.only(Exchange).swept


def test_silence_ends_by_itself_when_the_time_is_over(stage: Stage) -> None:
    route, ran = handled(stage)
    sweep(stage, "silence", seconds=0.2)
    sock = stage.strict_tls()
    sock.sendall(POST)
    assert read_to_end(sock) == b""
    entry = stage.only(Exchange)
    assert (ran, route.calls, entry.note) == ([], [], "")
    assert entry.duration is not None


def test_a_client_that_gives_up_a_silent_call_is_noted(stage: Stage) -> None:
    handled(stage)
    sweep(stage, "silence")
    sock = stage.tls()
    sock.sendall(POST)
    assert eventually(lambda: stage.window.entries)
    sock.close()
    assert stage.only(Exchange).note.startswith("the client closed")


@pytest.mark.parametrize(
    ("fault", "type_", "part"), [("html", "text/html; charset=utf-8", b"<p>"), ("empty", None, b"")]
)
def test_a_page_or_nothing_in_place_of_the_answer_is_a_call(
    stage: Stage, fault: str, type_: str | None, part: bytes
) -> None:
    route, ran = handled(stage)
    sweep(stage, fault)
    reply = ask(stage.tls(), POST)
    assert (reply.status, reply.headers.get("content-type")) == (200, type_)
    assert part in reply.body
    assert b"id" not in reply.body
    assert (ran, len(route.calls), stage.only(Exchange).swept) == (["/charges"], 1, True)


def test_a_lost_answer_is_a_call_each_time(stage: Stage) -> None:
    route, ran = handled(stage)
    sweep(stage, "lost")
    for _ in range(2):
        sock = stage.tls()
        sock.sendall(POST)
        assert end_of(sock) == "reset"
    assert (len(ran), len(route.calls)) == (2, 2)


@pytest.mark.parametrize(("body", "comes"), [(b"0123456789", b"0"), (b"0", b"")])
def test_a_cut_answer_ends_within_its_body(stage: Stage, body: bytes, comes: bytes) -> None:
    handled(stage, body)
    sweep(stage, "cut")
    sock = stage.strict_tls()
    sock.sendall(POST)
    head, _, rest = read_to_end(sock).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert rest == comes
    assert stage.only(Exchange).swept


@pytest.mark.parametrize("fault", ["html", "empty", "lost", "cut"])
def test_a_streamed_answer_is_closed_and_nothing_of_it_is_sent_but_one_byte(
    stage: Stage, fault: str
) -> None:
    closed: list[bool] = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"first"
            yield b"second"
        finally:
            closed.append(True)

    stage.https("api.test", lambda request: Response(200, stream=pieces()))
    sweep(stage, fault)
    sock = stage.tls()
    sock.sendall(POST)
    if fault in ("html", "empty"):
        assert b"first" not in read_reply(sock).body
    elif fault == "lost":
        assert end_of(sock) == "reset"
    else:
        data = read_to_end(sock)
        assert data.endswith(b"\r\n\r\n1\r\nf\r\n")
    stage.settle()
    assert closed == [True]
    assert stage.only(Exchange).swept


@pytest.mark.parametrize(
    ("fault", "answer"), [("cut", b""), ("cut", 204), ("empty", 200), ("empty", b"")]
)
def test_a_fault_that_no_client_can_see_is_none(stage: Stage, fault: str, answer: object) -> None:
    stage.https("api.test", answer)
    sweep(stage, fault)
    assert ask(stage.tls(), POST).body == b""
    assert not stage.only(Exchange).swept


def test_the_answer_to_a_head_request_is_not_cut(stage: Stage) -> None:
    handled(stage)
    sweep(stage, "cut", "HEAD https://api.test/")
    assert ask(stage.tls(), HEAD, "HEAD").status == 200
    assert not stage.only(Exchange).swept


@pytest.mark.parametrize("fault", ["html", "empty", "cut"])
@pytest.mark.parametrize("own", [reset(), disconnect({"id": 1}), truncated({"id": 1}, 2)])
def test_the_fault_of_a_route_stays_as_it_is(stage: Stage, fault: str, own: object) -> None:
    stage.https("api.test", own)
    sweep(stage, fault)
    sock = stage.tls()
    sock.sendall(POST)
    end_of(sock)
    entry = stage.only(Exchange)
    assert (entry.fault, entry.swept) == (own, False)


def test_a_late_answer_is_replaced_as_late(stage: Stage) -> None:
    stage.https("api.test", delayed({"id": 1}, 0.05))
    sweep(stage, "html")
    assert b"<p>" in ask(stage.tls(), POST).body
    entry = stage.only(Exchange)
    assert entry.swept
    assert entry.duration >= 0.05


def test_a_handler_that_raises_is_no_fault_of_the_sweep(stage: Stage) -> None:
    def handler(request: Request) -> None:
        raise ValueError

    stage.https("api.test", handler)
    sweep(stage, "html")
    assert ask(stage.tls(), POST).status == 500
    entry = stage.only(Exchange)
    assert (type(entry.error), entry.swept) == (ValueError, False)


def test_a_route_without_a_turn_does_not_answer_a_lost_call_again(stage: Stage) -> None:
    handled(stage, times=1)
    sweep(stage, "lost")
    sock = stage.tls()
    sock.sendall(POST)
    assert end_of(sock) == "reset"
    assert ask(stage.tls(), POST).status == 502
    assert [entry.outcome for entry in stage.entries(Exchange)] == ["routed", "unrouted"]


def test_what_no_route_answers_is_no_call(stage: Stage) -> None:
    trial = sweep(stage, "503")
    stage.route("block", "api.test")
    assert ask(stage.tls(), POST).status == 502
    assert trial.calls == {}


@pytest.fixture
def dial(stage: Stage, ca: trustme.CA) -> Callable[[], Http2Client]:
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return lambda: Http2Client(stage.tls(context=context))


@pytest.mark.parametrize(
    ("fault", "calls"),
    [("503", 0), ("reset", 0), ("html", 1), ("lost", 1), ("cut", 1), ("silence", 0)],
)
def test_calls_over_http2_fail_in_the_same_ways(
    stage: Stage, dial: Callable[[], Http2Client], fault: str, calls: int
) -> None:
    route, ran = handled(stage)
    sweep(stage, fault, "GET https://api.test/", seconds=0.2)
    client = dial()
    if fault in ("503", "html"):
        assert client.ask().status == (503 if fault == "503" else 200)
    elif fault == "cut":
        answer = client.ask()
        assert (answer.body, answer.ended, answer.reset) == (b"{", False, INTERNAL_ERROR)
    else:
        client.begin("/")
        client.flush()
        end_of(client.sock)
    stage.settle()
    assert (len(ran), len(route.calls), stage.only(Exchange).swept) == (calls, calls, True)


UPGRADE = b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"


def test_a_websocket_that_is_closed_by_an_error_is_no_call_of_the_route(stage: Stage) -> None:
    route = stage.https("api.test", websocket(lambda ws: ws.send("7")), times=1)
    sweep(stage, "1011", "GET https://api.test/")
    sock = stage.tls()
    sock.sendall(UPGRADE + KEY)
    received = b""
    while not received.endswith(b"\r\n\r\n\x88\x02\x03\xf3"):  # a close frame with 1011
        received += (piece := sock.recv(4096))
        assert piece, received
    assert received.startswith(b"HTTP/1.1 101 ")
    assert (route.calls, route.turns.taken, stage.only(Exchange).swept) == ([], 0, True)


def test_a_handshake_that_is_none_is_refused_and_not_closed(stage: Stage) -> None:
    route = stage.https("api.test", websocket(lambda ws: ws.send("7")), times=1)
    sweep(stage, "1011", "GET https://api.test/")
    sock = stage.tls()
    sock.sendall(UPGRADE + b"\r\n")
    assert (read_reply(sock).status, route.turns.taken) == (400, 0)
