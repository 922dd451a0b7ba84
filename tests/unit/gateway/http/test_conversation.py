"""Answers that read the request and send the response by themselves, whatever version of HTTP there is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from pytest_egress.routes.answers import sequence
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.stage import Reply, Stage, ask, end_of

POST = b"POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello"
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Answer(DuplexAnswer):
    """An answer made of two functions."""

    def __init__(
        self,
        converse: Callable[[Request, Duplex, Conversation], None],
        refusal: Callable[[Request], tuple[Response, str] | None] = lambda request: None,
    ) -> None:
        self._converse, self._refusal = converse, refusal

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        return self._refusal(request)

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        self._converse(request, duplex, conversation)

    def __repr__(self) -> str:
        return "Answer()"


def echo(request: Request, duplex: Duplex, conversation: Conversation) -> None:
    pieces = [*iter(duplex.receive, b"")]
    duplex.start(200, Headers({"Trailer": "Size"}))
    for piece in pieces:
        duplex.send(piece)
    duplex.finish(Headers({"Size": str(sum(map(len, pieces)))}))


def test_an_answer_reads_and_sends_by_itself_and_its_connection_goes_on(stage: Stage) -> None:
    route = stage.https("api.test", Answer(echo))
    sock = stage.tls()
    for count in (1, 2):
        reply = ask(sock, POST, "POST")
        assert (reply.body, reply.trailers) == (b"hello", [(b"size", b"5")])
        assert route.wait_for_call(count).response.trailers["size"] == "5"
    (first, _) = route.calls
    assert (first.outcome, first.response.status_code, first.error) == ("routed", 200, None)
    assert first.duration >= 0


def test_an_answer_is_called_before_the_body_has_come(stage: Stage) -> None:
    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        duplex.start(200)
        duplex.send(b"first")
        duplex.send(duplex.receive())
        duplex.finish()

    stage.https("api.test", Answer(converse))
    sock = stage.tls()
    sock.sendall(POST.removesuffix(b"hello"))
    head = b""
    while b"first" not in head:
        head += sock.recv(65536)
    assert b"hello" not in head
    sock.sendall(b"hello")
    while not head.endswith(b"0\r\n\r\n"):
        head += sock.recv(65536)
    assert b"hello" in head


def test_another_protocol_follows_101_in_both_directions(stage: Stage) -> None:
    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        duplex.start(101, Headers({"Connection": "Upgrade", "Upgrade": "shout"}))
        while piece := duplex.receive():
            duplex.send(piece.upper())
        duplex.finish()

    route = stage.http("api.test", Answer(converse))
    sock = stage.dial("198.18.0.1" if stage.resolve("api.test") else "", 80)
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nearly"
    )
    data = b""
    while not data.endswith(b"EARLY"):
        data += sock.recv(65536)
    assert data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    sock.sendall(b"late")
    assert sock.recv(65536) == b"LATE"
    sock.shutdown(1)
    assert end_of(sock) == "closed"
    assert route.wait_for_call().response.status_code == 101


def refused(reply: Reply, exchange: Exchange) -> None:
    assert (reply.status, reply.body) == (426, b"no")
    assert (exchange.outcome, exchange.note, exchange.route) == ("unrouted", "it is no shout", None)
    assert exchange.response.status_code == 426


def test_a_request_that_an_answer_cannot_serve_is_unrouted(stage: Stage) -> None:
    answer = Answer(echo, lambda request: (Response(426, text="no"), "it is no shout"))
    route = stage.https("api.test", answer, times=1)
    refused(ask(stage.tls()), stage.only(Exchange))
    assert (route.calls, route.turns.is_exhausted) == ([], False)


def test_a_call_that_is_rejected_while_it_runs_is_unrouted(stage: Stage) -> None:
    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        conversation.reject("it is no shout")
        conversation.count()
        duplex.start(426)
        duplex.send(b"no")
        duplex.finish()

    route = stage.https("api.test", Answer(converse), times=1)
    refused(ask(stage.tls()), stage.only(Exchange))
    assert (route.calls, route.turns.is_exhausted) == ([], False)


def test_a_call_is_counted_once_and_before_its_client_knows_where_the_answer_says_so(
    stage: Stage,
) -> None:
    counts: list[int] = []

    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        duplex.start(200)
        conversation.count()
        conversation.count()
        counts.append(route.call_count)
        duplex.finish()

    route = stage.https("api.test", Answer(converse))
    assert ask(stage.tls()).status == 200
    assert (counts, route.call_count) == ([1], 1)


def test_an_error_before_the_response_is_a_500(stage: Stage) -> None:
    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        raise ZeroDivisionError("nothing to divide")

    route = stage.https("api.test", Answer(converse))
    reply = ask(stage.tls())
    exchange = stage.only(Exchange)
    assert reply.status == exchange.response.status_code == 500
    assert isinstance(exchange.error, ZeroDivisionError)
    assert route.calls == []


@pytest.mark.parametrize("ends", [False, True])
def test_an_error_within_the_response_breaks_it_off(stage: Stage, ends: bool) -> None:
    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        duplex.start(200)
        if not ends:
            raise ZeroDivisionError("nothing to divide")

    stage.https("api.test", Answer(converse))
    sock = stage.tls()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert end_of(sock) == "reset"
    error = stage.only(Exchange).error
    wanted = "Answer() returned before it had ended its response" if ends else "nothing to divide"
    assert str(error) == wanted


def test_an_error_of_a_refusal_is_its_handlers(stage: Stage) -> None:
    def refusal(request: Request) -> None:
        raise ZeroDivisionError

    stage.https("api.test", Answer(echo, refusal))
    assert ask(stage.tls()).status == 500
    assert isinstance(stage.only(Exchange).error, ZeroDivisionError)


def test_a_client_that_leaves_is_no_error_of_the_answer(stage: Stage) -> None:
    left = threading.Event()

    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        duplex.on_disconnect(left.set)
        begun.set()
        duplex.start(200)
        while True:
            duplex.send(bytes(65536))

    begun = threading.Event()
    route = stage.https("api.test", Answer(converse))
    sock = stage.tls()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert begun.wait(10)
    sock.close()
    assert left.wait(10)
    exchange = route.wait_for_call(timeout=10)
    assert exchange.error is None
    assert exchange.note.startswith("the client closed before its response was sent")


def test_functions_of_the_test_run_in_the_variables_of_the_declaration(stage: Stage) -> None:
    seen: list[str] = []

    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        seen.append(WHO.get())
        thread = threading.Thread(
            target=lambda: seen.append(conversation.run(lambda word: word + WHO.get(), "in "))
        )
        thread.start()
        thread.join()
        duplex.start(204, ends=True)

    WHO.set("the test")
    stage.https("api.test", Answer(converse))
    assert ask(stage.tls()).status == 204
    assert seen == ["the test", "in the test"]


def test_an_answer_stands_in_a_sequence(stage: Stage) -> None:
    stage.https("api.test", sequence(503, Answer(echo)))
    sock = stage.tls()
    assert [ask(sock, POST, "POST").status for _ in range(2)] == [503, 200]


def test_a_client_that_resets_within_its_request_ends_receiving(stage: Stage) -> None:
    errors: list[BaseException] = []

    def converse(request: Request, duplex: Duplex, conversation: Conversation) -> None:
        try:
            duplex.receive()
            duplex.receive()
        except ClientLeftError as error:
            errors.append(error)
            raise

    stage.https("api.test", Answer(converse))
    sock = stage.tls()
    sock.sendall(POST[:-2])
    sock.close()
    exchange = stage.only(Exchange)
    assert errors
    assert (exchange.error, exchange.outcome) == (None, "routed")
