"""The head of a response goes alone where the first piece of its body takes long, whatever makes that."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from pytest_egress.base.alarms import Alarm
from pytest_egress.gateway.http.late_heads import LateHead
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.faults import delayed
from pytest_egress.session import AFTER_TEST, Session
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import (
    ADDRESS,
    SECONDS,
    Stage,
    ask,
    client_context,
    comes_not,
    end_of,
    eventually,
    read_reply,
    reset,
)

GET = b"%b / HTTP/1.1\r\nHost: api.test\r\n\r\n"


class Answers:
    """Answers of each kind, whose first piece waits for `go`.

    Attributes:
        go: Lets them make it.
        error: What they raise in its place; None for nothing.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.error: BaseException | None = None

    def wait(self) -> None:
        assert self.go.wait(SECONDS)
        if self.error is not None:
            raise self.error

    def pieces(self) -> Iterator[bytes]:
        self.wait()
        yield b"la"
        yield b"te"

    async def async_pieces(self) -> AsyncIterator[bytes]:
        await asyncio.to_thread(self.wait)
        yield b"la"
        yield b"te"

    def generator(self, request: Request) -> Iterator[bytes]:
        yield from self.pieces()

    async def async_generator(self, request: Request) -> AsyncIterator[bytes]:
        async for piece in self.async_pieces():
            yield piece

    def stream(self, request: Request) -> Response:
        return Response(stream=self.pieces())

    def compressed(self, request: Request) -> Response:
        return Response(stream=self.pieces(), compress="gzip")

    async def async_stream(self, request: Request) -> Response:
        return Response(stream=self.async_pieces())

    def events(self, request: Request) -> Response:
        return Response(events=(piece.decode() for piece in self.pieces()))

    @property
    def asgi(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for piece in self.async_pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})

        return asgi(app)

    @property
    def wsgi(self) -> Any:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            return self.pieces()

        return wsgi(app)

    @property
    def wsgi_generator(self) -> Any:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b""
            yield from self.pieces()

        return wsgi(app)


KINDS = (
    *("generator", "async_generator", "stream", "compressed", "async_stream", "events"),
    *("asgi", "wsgi", "wsgi_generator"),
)
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.go.set()


@pytest.fixture
def session(stage: Stage) -> Session:
    """What closes the stage's window."""
    session = Session()
    session.ledger = stage.ledger
    return session


class Http1Asker:
    """A client that tells when it has a head, and then what follows."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.head = sock, b""

    def send(self, method: bytes = b"GET") -> None:
        self.sock.settimeout(SECONDS)
        self.sock.sendall(GET % method)

    def await_head(self) -> bytes:
        while not self.head.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            assert byte, "it closed"
            self.head += byte
        return self.head.lower()

    def body(self) -> bytes:
        rest = b""
        while not rest.endswith(b"0\r\n\r\n"):
            rest += self.sock.recv(4096)
        return rest


class Http2Asker:
    def __init__(self, sock: Any, scheme: str) -> None:
        self.client = Http2Client(sock, scheme)

    def send(self) -> None:
        self.answer = self.client.answers[self.client.begin()]
        self.client.flush()

    def await_head(self) -> bytes:
        assert self.client.until(lambda: self.answer.status)
        assert not self.answer.body
        return repr(self.answer.headers).encode().lower()

    def body(self) -> bytes:
        assert self.client.until(lambda: self.answer.ended)
        return self.answer.body


@pytest.fixture(params=["http/1.1", "https/1.1", "http/2", "https/2"])
def asker(stage: Stage, ca: trustme.CA, request: pytest.FixtureRequest) -> Any:
    scheme, _, version = request.param.partition("/")
    context = client_context(ca)
    context.set_alpn_protocols(["h2" if version == "2" else "http/1.1"])
    sock = stage.tls(context=context) if scheme == "https" else stage.dial(ADDRESS, 80)
    return Http2Asker(sock, scheme) if version == "2" else Http1Asker(sock)


def declare(stage: Stage, answer: Any) -> tuple[Any, Any]:
    """Routes for both schemes."""
    return stage.http(ADDRESS, answer), stage.https("api.test", answer)


@each_kind
def test_a_client_has_the_head_before_there_is_a_piece(
    stage: Stage, answers: Answers, asker: Any, kind: str
) -> None:
    routes = declare(stage, getattr(answers, kind))
    asker.send()
    asker.await_head()
    (call,) = [call for route in routes for call in route.calls]  # before the client knows
    assert (call.response.status_code, call.response.content) == (200, b"")
    assert call.duration is not None
    answers.go.set()
    body = asker.body()
    if kind not in ("compressed", "events"):
        assert body.replace(b"\r\n2\r\n", b"") in (b"late", b"2\r\nlate\r\n0\r\n\r\n")
    stage.settle()
    assert sum(route.call_count for route in routes) == 1
    assert call.response.text == ("data: la\n\ndata: te\n\n" if kind == "events" else "late")
    assert call.error is None


@each_kind
def test_what_is_raised_after_the_head_breaks_the_response_off(
    stage: Stage, answers: Answers, kind: str
) -> None:
    answers.error = LookupError("no first piece")
    route = stage.http(ADDRESS, getattr(answers, kind))
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    asker.await_head()
    answers.go.set()
    assert end_of(asker.sock) == "reset"
    assert stage.only(Exchange).error is answers.error
    assert route.call_count == 1


def test_over_http_2_it_is_the_stream_that_is_reset(stage: Stage, answers: Answers) -> None:
    answers.error = LookupError("no first piece")
    stage.http(ADDRESS, answers.generator)
    asker = Http2Asker(stage.dial(ADDRESS, 80), "http")
    asker.send()
    asker.await_head()
    answers.go.set()
    assert asker.client.until(lambda: asker.answer.reset is not None)
    assert asker.answer.reset == 2  # INTERNAL_ERROR
    assert stage.only(Exchange).error is answers.error


@pytest.mark.parametrize("kind", ["generator", "async_generator", "asgi", "wsgi"])
def test_a_connection_goes_on_after_such_a_response(
    stage: Stage, answers: Answers, kind: str
) -> None:
    stage.http(ADDRESS, getattr(answers, kind))
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    assert b"keep-alive" in asker.await_head()
    answers.go.set()
    asker.body()
    assert ask(asker.sock).body == b"late"


@pytest.mark.parametrize(("is_late", "kind"), [(False, b"text/plain"), (True, b"")])
@pytest.mark.parametrize("given", [b"", b"text/csv"])
def test_text_has_a_type_where_its_head_goes_with_a_piece_or_where_one_is_given(
    stage: Stage, answers: Answers, is_late: bool, kind: bytes, given: bytes
) -> None:
    def text() -> Iterator[str]:
        answers.wait()
        yield "late"

    headers = {"Content-Type": given.decode()} if given else {}
    stage.http(ADDRESS, lambda request: Response(stream=text(), headers=headers))
    if not is_late:
        answers.go.set()
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    lines = asker.await_head().splitlines()
    answers.go.set()
    asker.body()
    kinds = [line.split()[1] for line in lines if line.startswith(b"content-type:")]
    assert [each.rstrip(b";") for each in kinds] == list(filter(None, [given or kind]))


def test_a_head_alone_is_all_that_a_head_gets(stage: Stage, answers: Answers) -> None:
    route = stage.http(ADDRESS, answers.generator)
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send(b"HEAD")
    asker.await_head()
    answers.go.set()
    assert ask(asker.sock).body == b"late"
    assert [call.request.method for call in route.calls] == ["HEAD", "GET"]


def test_a_fault_says_when_the_head_goes(stage: Stage, answers: Answers) -> None:
    stage.http(ADDRESS, delayed(answers.stream, 0.01))
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET % b"GET")
    assert comes_not(sock)
    answers.go.set()
    assert read_reply(sock).body == b"late"


def test_an_interim_response_comes_too_late_then(stage: Stage, answers: Answers) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        answers.wait()
        request.send_interim(103)
        yield b"never"

    stage.http(ADDRESS, handler)
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    asker.await_head()
    answers.go.set()
    assert end_of(asker.sock) == "reset"
    assert "cannot follow the response, which has begun" in str(stage.only(Exchange).error)


def test_the_client_of_a_head_may_leave_before_there_is_a_piece(
    stage: Stage, answers: Answers
) -> None:
    has_ended = threading.Event()

    async def handler(request: Request) -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
            yield b"never"
        finally:
            has_ended.set()

    stage.http(ADDRESS, handler)
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    asker.await_head()
    reset(asker.sock)
    assert has_ended.wait(SECONDS)
    assert stage.only(Exchange).error is None


def test_an_error_cannot_replace_the_head_of_a_wsgi_application_any_more(
    stage: Stage, answers: Answers
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b""
            answers.wait()
        except LookupError:
            start_response("500 Oops", [], sys.exc_info())
            yield b"sorry"

    stage.http(ADDRESS, wsgi(app))
    answers.error = LookupError("late")
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    assert b"200 ok" in asker.await_head()
    answers.go.set()
    assert end_of(asker.sock) == "reset"
    assert eventually(lambda: stage.only(Exchange).error is answers.error)
    assert ask(stage.dial(ADDRESS, 80)).status == 500  # at once, it can


def test_a_wsgi_application_that_takes_long_for_the_whole_has_it_sent_as_a_stream(
    stage: Stage, answers: Answers
) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        yield b""
        answers.wait()
        yield b"late"

    route = stage.http(ADDRESS, wsgi(app))
    asker = Http1Asker(stage.dial(ADDRESS, 80))
    asker.send()
    assert b"content-length: 4" in asker.await_head()
    answers.go.set()
    assert asker.sock.recv(4) == b"late"
    assert route.calls[0].response.content == b"late"


def test_a_client_that_resets_its_stream_before_the_head_goes_is_one_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings: list[Callable[[], object]] = []

    def keep(ring: Callable[[], object]) -> Alarm:
        rings.append(ring)
        return Alarm(0, ring)

    def handler(request: Request) -> Iterator[bytes]:
        begun.set()
        assert eventually(lambda: request.disconnected)
        rings[0]()  # the head is due now
        yield b"late"

    monkeypatch.setattr(stage.ledger, "late_heads", SimpleNamespace(set=keep))
    begun, route = threading.Event(), stage.http(ADDRESS, handler)
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    number = client.begin()
    client.flush()
    assert begun.wait(SECONDS)
    client.h2.reset_stream(number)
    client.flush()
    assert stage.only(Exchange).note.startswith("the client closed before its response was sent (")
    assert (route.call_count, stage.window.calls) == (1, 1)


def events_of(request: Request) -> Response:
    def events() -> Iterator[str]:
        assert eventually(lambda: request.disconnected)
        yield "nobody reads it"

    return Response(events=events())


async def async_events_of(request: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "never"

    return Response(events=events())


def pieces_of(request: Request) -> Iterator[bytes]:
    assert eventually(lambda: request.disconnected)
    yield b"nobody reads it"


@pytest.mark.parametrize("handler", [events_of, async_events_of, pieces_of])
def test_a_stream_whose_head_has_gone_alone_is_ended_with_its_test(
    stage: Stage, session: Session, asker: Any, handler: Any
) -> None:
    declare(stage, handler)
    asker.send()
    asker.await_head()
    session.drain(stage.window, 0.1, AFTER_TEST)
    assert stage.window.activities  # `drain` leaves it to the next one
    session.end_streams(stage.window, SECONDS, AFTER_TEST)
    assert (stage.window.stuck, stage.window.activities) == ([], set())
    entry = stage.only(Exchange)
    assert (entry.error, entry.note) == (None, "it still streamed after the test, and was ended")


# The head itself.


def test_a_head_is_not_sent_once_there_is_a_piece() -> None:
    head = LateHead(pytest.fail)
    head.end()
    head.ring()
    head.check()
    assert not head.has_gone


@pytest.mark.parametrize("error", [ClientLeftError("it left"), ValueError("no head")])
def test_what_goes_wrong_with_a_head_is_raised_on_the_thread_that_makes_the_piece(
    error: Exception,
) -> None:
    def send() -> bool:
        raise error

    head = LateHead(send)
    head.ring()
    assert head.has_gone
    with pytest.raises(type(error), match=str(error)):
        head.check()


def test_a_head_that_is_not_to_be_sent_alone_is_not_gone() -> None:
    head = LateHead(lambda: False)
    head.ring()
    assert not head.has_gone


def test_a_piece_waits_for_the_head_that_is_being_sent() -> None:
    sending, go_on, order = threading.Event(), threading.Event(), []

    def send() -> bool:
        sending.set()
        assert go_on.wait(SECONDS)
        order.append("head")
        return True

    def end() -> None:
        head.end()
        order.append("piece")

    head = LateHead(send)
    threads = [threading.Thread(target=function) for function in (head.ring, end)]
    threads[0].start()
    assert sending.wait(SECONDS)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(SECONDS)
    assert order == ["head", "piece"]
