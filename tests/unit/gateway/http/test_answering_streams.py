"""Routes with `stream=True`: their handlers are called at the head of a request, and the body comes while they run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from wsproto.events import TextMessage

from pytest_egress.gateway import connection
from pytest_egress.gateway.http import bodies
from pytest_egress.routes.faults import reset as reset_fault
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.values import KnownValues
from tests.support.raw_websockets import raw_client
from tests.support.stage import (
    ADDRESS,
    SECONDS,
    Stage,
    ask,
    end_of,
    eventually,
    read_reply,
    reset,
)

HEAD = b"POST /x HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\n"
POST = HEAD + b"hello"
GET = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)


# The request.


def test_a_handler_is_called_before_the_body_has_come_and_gets_it_in_pieces(stage: Stage) -> None:
    called = threading.Event()

    def handler(request: Request) -> str:
        assert not request.is_whole
        called.set()
        return "+".join(piece.decode() for piece in request.stream())

    route = stage.https("api.test", handler, stream=True)
    sock = stage.tls()
    sock.sendall(
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    )
    assert called.wait(SECONDS)
    reply = ask(sock, b"3\r\ntwo\r\n0\r\nDigest: x\r\n\r\n", "POST")
    assert reply.body in (b"one+two", b"one+t+wo")
    (call,) = route.calls
    assert call.request.trailers["digest"] == "x"
    assert repr(call.request) == "<Request POST https://api.test/, 6 bytes streamed>"
    with pytest.raises(RuntimeError, match=r"was streamed \(6 bytes\)"):
        _ = call.request.content
    assert ask(sock, POST, "POST").body == b"hello"  # the connection goes on


def test_content_after_stream_is_the_handlers_error(stage: Stage) -> None:
    def handler(request: Request) -> bytes:
        for _ in request.stream():
            pass
        return request.content

    stage.https("api.test", handler, stream=True)
    assert ask(stage.tls(), POST, "POST").status == 500
    error = stage.only(Exchange).error
    assert isinstance(error, RuntimeError)
    assert "was streamed (5 bytes), so that its content is not kept" in str(error)


def test_a_handler_of_a_stream_may_ask_for_the_whole_content(stage: Stage) -> None:
    route = stage.https("api.test", lambda request: request.content.upper(), stream=True)
    sock = stage.tls()
    assert [ask(sock, POST, "POST").body for _ in range(2)] == [b"HELLO", b"HELLO"]
    assert [call.request.content for call in route.calls] == [b"hello", b"hello"]


def test_a_body_that_no_handler_reads_is_forgotten_and_the_connection_ends(stage: Stage) -> None:
    route = stage.https("api.test", 413, stream=True)
    sock = stage.tls()
    reply = ask(sock, HEAD, "POST")
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert end_of(sock) == "closed"
    (call,) = route.calls
    stage.settle()
    with pytest.raises(RuntimeError, match="was never read"):
        _ = call.request.content


def test_a_connection_goes_on_after_a_body_that_had_come_with_its_head(stage: Stage) -> None:
    route = stage.https("api.test", 413, stream=True)
    sock = stage.tls()
    assert [ask(sock, POST, "POST").status for _ in range(3)] == [413, 413, 413]
    assert [ask(sock, GET).status for _ in range(2)] == [413, 413]
    assert route.call_count == 5


def test_pipelined_requests_of_a_stream_are_answered_in_order(stage: Stage) -> None:
    stage.https("api.test", lambda request: b"".join(request.stream()), stream=True)
    sock = stage.tls()
    sock.sendall(POST + POST.replace(b"hello", b"world") + GET)
    replies = b""
    while replies.count(b"HTTP/1.1 200") < 3 or not replies.endswith(b"\r\n\r\n"):
        replies += sock.recv(65536)
    assert replies.index(b"hello") < replies.index(b"world")


def test_an_earlier_route_that_needs_the_body_makes_it_be_read_first(stage: Stage) -> None:
    seen: list[list[bytes]] = []

    def handler(request: Request) -> str:
        assert request.is_whole
        seen.append([*request.stream()])
        return "streamed"

    stage.https("api.test", handler, stream=True)
    stage.https("api.test", b"matched", content=b"other")  # later, so asked first
    sock = stage.tls()
    assert ask(sock, POST, "POST").body == b"streamed"
    assert ask(sock, POST.replace(b"hello", b"other"), "POST").body == b"matched"
    assert seen == [[b"hello"]]


def test_a_later_route_gets_what_the_predicate_of_a_stream_refuses(stage: Stage) -> None:
    wholes: list[bool] = []

    def handler(request: Request) -> bytes:
        wholes.append(request.is_whole)
        return request.content

    stage.https("api.test", handler)
    stage.https("api.test", b"x", stream=True, match=lambda r: "x-one" in r.headers)
    sock = stage.tls()
    assert ask(sock, POST, "POST").body == b"hello"
    assert ask(sock, POST.replace(b"Host", b"X-One: 1\r\nHost"), "POST").body == b"x"
    assert wholes == [True]


def test_a_predicate_of_a_stream_may_read_the_body(stage: Stage) -> None:
    stage.https(
        "api.test",
        lambda request: b"".join(request.stream()),
        stream=True,
        match=lambda request: request.content == b"hello",
    )
    sock = stage.tls()
    assert ask(sock, POST, "POST").body == b"hello"
    assert ask(sock, POST.replace(b"hello", b"other"), "POST").status == 502


def test_a_body_that_breaks_off_before_its_predicate_has_it_is_only_recorded(stage: Stage) -> None:
    stage.https("api.test", stream=True, match=lambda request: request.content == b"hello")
    sock = stage.tls()
    sock.sendall(POST[:-1])
    sock.close()
    entry = stage.only(Exchange)
    assert (entry.outcome, entry.request.content) == ("recorded", b"hell")


@pytest.mark.parametrize("matcher", [{"json": 1}, {"content": b"x"}])
def test_a_stream_cannot_be_matched_by_what_has_not_come(
    stage: Stage, matcher: dict[str, Any]
) -> None:
    (name,) = matcher
    with pytest.raises(ValueError, match=f"{name}= needs the whole body, and stream=True answers"):
        stage.https("api.test", stream=True, **matcher)
    with pytest.raises(TypeError, match="stream= takes True or False, not 'yes'"):
        stage.https("api.test", stream="yes")


def test_a_client_that_breaks_off_ends_the_handler_and_is_no_error_of_its(stage: Stage) -> None:
    ended: list[str] = []

    def handler(request: Request) -> None:
        try:
            for _ in request.stream():
                pass
        except ConnectionError:
            ended.append("broke off")
            raise

    route = stage.https("api.test", handler, stream=True)
    sock = stage.tls()
    sock.sendall(POST[:-1])
    sock.close()
    entry = stage.only(Exchange)
    assert (ended, entry.error, entry.outcome) == (["broke off"], None, "routed")
    assert entry.note.startswith("the client closed before its response was sent (")
    assert route.call_count == 1


def test_a_body_that_is_not_http_is_answered_with_400(stage: Stage) -> None:
    def handler(request: Request) -> None:
        for _ in request.stream():
            pass

    stage.https("api.test", handler, stream=True)
    sock = stage.tls()
    reply = ask(
        sock,
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        "POST",
    )
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert stage.only(Exchange).response.status_code == 400


def test_what_a_stream_keeps_is_bounded_and_what_it_streams_is_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 4)
    stage.https("api.test", lambda request: b"".join(request.stream()), path="/x", stream=True)
    stage.https("api.test", lambda request: request.content, path="/kept", stream=True)
    assert ask(stage.tls(), POST, "POST").body == b"hello"
    reply = ask(stage.tls(), POST.replace(b"/x", b"/kept"), "POST")
    assert (reply.status, b"the body is over MAX_BODY_BYTES, 4 bytes" in reply.body) == (500, True)


def test_a_client_that_waits_for_100_is_told_to_continue_when_its_body_is_read(
    stage: Stage,
) -> None:
    stage.https("api.test", lambda request: request.content, path="/x", stream=True)
    stage.https("api.test", 403, path="/no", stream=True)
    waiting = HEAD.replace(b"Host", b"Expect: 100-continue\r\nHost")
    sock = stage.tls()
    sock.sendall(waiting)
    assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
    assert ask(sock, b"hello", "POST").body == b"hello"
    refused = ask(stage.tls(), waiting.replace(b"/x", b"/no"), "POST")
    assert (refused.status, refused.interim) == (403, [])


def test_early_hints_go_out_before_the_response_on_any_route(stage: Stage) -> None:
    def handler(request: Request) -> str:
        request.send_interim(103, {"Link": "</style.css>; rel=preload"})
        return "page"

    stage.https("api.test", handler)
    reply = ask(stage.tls())
    assert (reply.status, reply.interim, reply.body) == (200, [103], b"page")


# The response.


def test_a_response_streams_while_the_request_does(stage: Stage) -> None:
    def handler(request: Request) -> Response:
        return Response(stream=(piece.upper() for piece in request.stream()))

    stage.https("api.test", handler, stream=True)
    sock = stage.tls()
    sock.sendall(
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
    )
    data = b""
    while not data.endswith(b"ONE\r\n"):
        data += sock.recv(65536)
    sock.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
    while not data.endswith(b"0\r\n\r\n"):
        data += sock.recv(65536)
    assert b"TWO" in data


def test_events_are_sent_as_they_are_made(stage: Stage) -> None:
    async def events() -> AsyncIterator[Any]:
        yield "one"
        await asyncio.sleep(0.01)
        yield {"n": 2}

    stage.https("api.test", lambda request: Response(events=events()), path="/async")
    stage.https("api.test", Response(events=["one", {"n": 2}]), path="/static")
    sock = stage.tls()
    for path in (b"/async", b"/static", b"/static"):
        reply = ask(sock, GET.replace(b"/", path, 1))
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.body == b'data: one\n\ndata: {"n": 2}\n\n'


def test_what_is_no_event_is_an_error_that_names_the_generator(stage: Stage) -> None:
    def events() -> Iterator[Any]:
        yield b"one"

    stage.https("api.test", lambda request: Response(events=events()))
    assert ask(stage.tls()).status == 500
    error = stage.only(Exchange).error
    assert "events, at test_answering_streams.py:" in str(error)
    assert "yielded b'one' is no event: it takes an Event" in str(error)


def test_trailers_may_be_made_at_the_end_in_the_variables_of_the_test(stage: Stage) -> None:
    sizes: list[int] = []

    def handler(request: Request) -> Response:
        def body() -> Iterator[bytes]:
            for piece in request.stream():
                sizes.append(len(piece))
                yield piece

        return Response(stream=body(), trailers=lambda: {"Size": str(sum(sizes))})

    route = stage.https("api.test", handler, stream=True)
    reply = ask(stage.tls(), POST, "POST")
    assert (reply.body, reply.trailers) == (b"hello", [(b"size", b"5")])
    stage.settle()
    assert route.calls[0].response.trailers["size"] == "5"


def test_an_error_of_trailers_is_the_handlers(stage: Stage) -> None:
    def trailers() -> dict[str, str]:
        raise ZeroDivisionError

    stage.https("api.test", lambda request: Response(stream=iter([b"x"]), trailers=trailers))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert isinstance(stage.only(Exchange).error, ZeroDivisionError)


# A client that leaves.


def leaves_from(stage: Stage, begun: threading.Event) -> None:
    sock = stage.tls()
    sock.sendall(GET)
    assert begun.wait(SECONDS)
    sock.close()


def test_an_async_handler_that_waits_is_cancelled_when_its_client_leaves(stage: Stage) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def handler(request: Request) -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    route = stage.https("api.test", handler)
    leaves_from(stage, begun)
    assert ended.wait(SECONDS)
    call = route.wait_for_call(timeout=SECONDS)
    assert call.error is None
    assert call.note.startswith("the client closed before its response was sent")


def test_an_async_generator_that_waits_is_closed_when_its_client_leaves(stage: Stage) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def handler(request: Request) -> AsyncIterator[str]:
        try:
            yield "first"
            begun.set()
            await asyncio.sleep(600)
        finally:
            ended.set()

    stage.https("api.test", handler)
    leaves_from(stage, begun)
    assert ended.wait(SECONDS)
    entry = stage.only(Exchange)
    assert entry.error is None
    assert entry.note.startswith("the client closed before the whole response was sent")


def test_a_generator_that_yields_is_closed_when_its_client_leaves(stage: Stage) -> None:
    begun, ended = threading.Event(), threading.Event()

    def handler(request: Request) -> Iterator[str]:
        try:
            while True:
                yield "tick"
                begun.set()
                ended.wait(0.01)
        finally:
            ended.set()

    stage.https("api.test", handler)
    leaves_from(stage, begun)
    assert ended.wait(SECONDS)
    assert stage.only(Exchange).error is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_handler_can_ask_whether_its_client_has_left(stage: Stage, stream: bool) -> None:
    begun, seen = threading.Event(), threading.Event()

    def handler(request: Request) -> None:
        assert not request.disconnected
        begun.set()
        assert eventually(lambda: request.disconnected)
        seen.set()

    stage.https("api.test", handler, stream=stream)
    leaves_from(stage, begun)
    assert seen.wait(SECONDS)


def test_a_request_whose_response_was_sent_counts_as_left(stage: Stage) -> None:
    route = stage.https("api.test", lambda request: str(request.disconnected))
    assert ask(stage.tls()).body == b"False"
    stage.settle()
    assert route.calls[0].request.disconnected


def test_a_queue_of_an_async_handler_serves_its_body(stage: Stage) -> None:
    async def handler(request: Request) -> Response:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def feed() -> None:
            for number in range(3):
                await asyncio.sleep(0.01)
                await queue.put(b"%d" % number)
            await queue.put(None)

        async def body() -> AsyncIterator[bytes]:
            while (piece := await queue.get()) is not None:
                yield piece
            await task

        task = asyncio.create_task(feed())
        return Response(stream=body())

    stage.https("api.test", handler, stream=True)
    sock = stage.tls()
    assert [ask(sock).body for _ in range(2)] == [b"012", b"012"]


# Applications.


def wsgi_echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("X-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [environ["wsgi.input"].read(2), b"|", environ["wsgi.input"].read()]


async def asgi_echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


def test_a_wsgi_application_reads_a_body_as_it_comes(stage: Stage) -> None:
    from pytest_egress import wsgi

    stage.https("api.test", wsgi(wsgi_echo), stream=True)
    sock = stage.tls()
    sock.sendall(POST[:-3])
    reply = ask(sock, POST[-3:], "POST")
    assert (reply.body, reply.headers["x-length"]) == (b"he|llo", "5")
    chunked = ask(
        stage.tls(),
        b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "POST",
    )
    assert (chunked.body, chunked.headers["x-length"]) == (b"he|llo", "none")


def test_an_asgi_application_reads_a_body_as_it_comes(stage: Stage) -> None:
    from pytest_egress import asgi

    stage.https("api.test", asgi(asgi_echo), stream=True)
    sock = stage.tls()
    sock.sendall(POST[:-3])
    data = b""
    while b"he" not in data.partition(b"\r\n\r\n")[2]:
        data += sock.recv(65536)
    sock.sendall(POST[-3:])
    while not data.endswith(b"0\r\n\r\n"):
        data += sock.recv(65536)
    assert b"llo" in data


def test_an_asgi_application_is_disconnected_when_its_client_leaves(stage: Stage) -> None:
    from pytest_egress import asgi

    begun, told = threading.Event(), threading.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        begun.set()
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    stage.https("api.test", asgi(app))
    leaves_from(stage, begun)
    assert told.wait(SECONDS)
    assert stage.only(Exchange).error is None


def test_a_body_that_breaks_off_disconnects_an_asgi_application(stage: Stage) -> None:
    from pytest_egress import asgi

    messages: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while scope["type"] == "http":
            messages.append((await receive())["type"])
            if messages[-1] == "http.disconnect":
                return

    stage.https("api.test", asgi(app), stream=True)
    sock = stage.tls()
    sock.sendall(POST[:-3])
    assert eventually(lambda: messages)
    sock.close()
    assert eventually(lambda: messages == ["http.request", "http.disconnect"])
    assert stage.only(Exchange).error is None


def test_the_reply_to_a_response_that_is_complete_is_read_by_a_client_that_still_sends(
    stage: Stage,
) -> None:
    stage.https("api.test", 413, stream=True)
    sock = stage.tls()
    sock.sendall(HEAD.replace(b"5", b"500000"))
    sock.sendall(bytes(100_000))
    assert read_reply(sock, "POST").status == 413


def test_a_body_that_an_asgi_application_gave_up_waiting_for_is_not_reported_as_lost(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    from pytest_egress import asgi

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await receive()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), 0.05)
        await send({"type": "http.response.start", "status": 408, "headers": []})
        await send({"type": "http.response.body", "body": b"too slow"})

    route = stage.https("api.test", asgi(app), stream=True)
    sock = stage.tls()
    sock.sendall(HEAD + b"he")
    assert read_reply(sock).status == 408
    sock.close()
    assert stage.only(Exchange).error is None
    route.release()
    gc.collect()
    assert caplog.messages == []


def test_what_is_wrong_with_a_body_is_told_and_not_what_its_generator_raises_at_its_end(
    stage: Stage,
) -> None:
    def body() -> Iterator[bytes]:
        try:
            yield b"0123456789"
        finally:
            raise RuntimeError("cleanup")

    length = {"Content-Length": "3"}
    stage.http("api.test", lambda request: Response(stream=body(), headers=length))
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert "Content-Length is 3" in str(stage.only(Exchange).error)


def test_the_response_to_a_client_that_has_reset_is_in_the_entry(stage: Stage) -> None:
    left = threading.Event()

    def handler(request: Request) -> Response:
        with contextlib.suppress(ConnectionError):
            for _ in request.stream():
                left.set()
        return Response(stream=["too late"])

    stage.http("api.test", handler, stream=True)
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\nabc")
    assert left.wait(SECONDS)
    reset(sock)
    stage.settle()
    assert eventually(lambda: stage.only(Exchange).response is not None)
    assert stage.only(Exchange).response.status_code == 200


# The search for secrets.


@pytest.mark.parametrize(
    "answer",
    [
        413,
        lambda request: next(request.stream()).decode(),
        lambda request: Response(stream=iter(["a", "b"])),
        lambda request: reset_fault(),
    ],
    ids=["static", "read in part", "streamed", "a fault"],
)
def test_the_rest_of_a_body_that_nobody_reads_is_searched(stage: Stage, answer: Any) -> None:
    stage.window.account._others.secrets = KnownValues([("KEY", "sk-of-the-test-1")])
    stage.https("api.test", answer, stream=True)

    def found() -> Any:
        return stage.entries(Exchange) and stage.only(Exchange).request._body.passing.found

    sock = stage.tls()
    sock.sendall(b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n")
    sock.sendall(b"3\r\none\r\n")
    time.sleep(0.4)  # shorter than it is waited for
    sock.sendall(b"10\r\nsk-of-the-test-1\r\n0\r\n\r\n")
    assert eventually(lambda: found() == {("KEY", "")})


def test_what_a_websocket_sends_and_is_no_message_is_searched(stage: Stage) -> None:
    known = [("PINGED", "sk-of-the-test-1"), ("BEGUN", "sk-of-the-test-2")]
    stage.window.account._others.secrets = KnownValues(known)
    stage.http("api.test", websocket(lambda ws: [*ws]))
    client = raw_client(stage)
    begun = TextMessage(data="a sk-of-the-test-2", message_finished=False)
    client.send(client.frames.ping(b"sk-of-the-test-1"), client.frames._sent(begun))
    client.sock.close()
    passing = stage.only(Exchange).request._body.passing
    assert eventually(lambda: passing.found == {("PINGED", ""), ("BEGUN", "")})
