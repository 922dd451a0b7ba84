"""ASGI applications: what arrives in them, what comes out, and errors."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import fastapi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from pytest_egress.base import loops
from pytest_egress.routes.applications import asgi as asgi_module
from pytest_egress.routes.applications.asgi import asgi
from tests.support.applications import (
    BYTES,
    FIELDS,
    METHOD,
    application_request,
    body_of,
    close,
    quoted,
    respond,
    streaming_app,
    used,
)
from tests.support.stage import eventually

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# ASGI: what arrives.


class AsgiRecorder:
    """An ASGI application that keeps what it is called with, and answers 204."""

    def __init__(self) -> None:
        self.scope: Scope = {}
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.scope, self.received = scope, [await receive()]
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        self.received.append(await receive())


def test_the_scope_is_whole() -> None:
    app = AsgiRecorder()
    response = asgi(app)(
        application_request(
            "post",
            "/caf%C3%A9/a%2Fb%FF",
            query_string="q=%20x",
            headers=[("Host", "api.test"), ("X-Twice", "1"), ("x-twice", "caf\u00e9")],
            content=b"body",
            client=("10.0.0.7", 40000),
        )
    )
    assert (response.status_code, response.content) == (204, b"")
    assert app.scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/caf\u00e9/a/b\ufffd",
        "raw_path": b"/caf%C3%A9/a%2Fb%FF",
        "query_string": b"q=%20x",
        "root_path": "",
        "headers": [(b"host", b"api.test"), (b"x-twice", b"1"), (b"x-twice", b"caf\xe9")],
        "client": ("10.0.0.7", 40000),
        "server": ("api.test", 443),
        "state": {},
    }
    assert app.received == [
        {"type": "http.request", "body": b"body", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_whatever_is_sent_arrives_in_an_asgi_application() -> None:
    app = AsgiRecorder()

    @given(method=METHOD, path=st.text(max_size=20), query=BYTES, fields=FIELDS, content=BYTES)
    def arrives(
        method: str, path: str, query: bytes, fields: list[tuple[str, str]], content: bytes
    ) -> None:
        raw = f"/{quoted(path.encode())}"
        handler(
            application_request(
                method, raw, query_string=quoted(query), headers=fields, content=content
            )
        )
        assert app.scope["method"] == method
        assert (app.scope["path"], app.scope["raw_path"]) == (f"/{path}", raw.encode("latin-1"))
        assert app.scope["query_string"] == quoted(query).encode("latin-1")
        assert app.scope["headers"] == [
            (name.lower().encode(), value.encode("latin-1")) for name, value in fields
        ]
        assert app.received[0]["body"] == content

    with used(app) as handler:
        arrives()


COLOUR: ContextVar[str] = ContextVar("COLOUR")


def test_the_context_of_the_calling_thread_is_seen() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, COLOUR.get().encode())

    with used(app) as handler:
        for colour in ("red", "blue"):
            COLOUR.set(colour)
            assert handler(application_request()).content == colour.encode()


# ASGI: what comes out.


def test_a_body_in_one_message_is_content_without_the_connections_own_fields() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-name", b"caf\xe9"), (b"Connection", b"close"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    response = asgi(app)(application_request())
    assert (response.status_code, response.content, response.stream) == (201, b"ok", None)
    assert response.headers.raw == (("x-name", "caf\u00e9"), ("content-length", "2"))


def test_a_body_whose_length_says_that_it_is_whole_is_content_also_with_middleware() -> None:
    async def pass_on(request: StarletteRequest, call_next: Any) -> Any:
        return await call_next(request)

    def charge(request: StarletteRequest) -> JSONResponse:
        return JSONResponse({"id": "ch_1"})

    app = Starlette(
        routes=[Route("/", charge)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)]
    )
    with used(app) as handler:
        assert handler(application_request()).json() == {"id": "ch_1"}
        assert handler(application_request("HEAD")).headers["content-length"] == "13"


def test_a_streamed_body_comes_out_as_it_is_sent_and_no_faster_than_it_is_taken() -> None:
    sent: list[int] = []
    go = threading.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(5):
            await asyncio.to_thread(go.acquire)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            sent.append(number)
        await send({"type": "http.response.body", "body": b"end"})

    with used(app) as handler:
        go.release()
        response = handler(application_request())
        assert response.stream is not None
        stream = iter(response.stream)
        assert next(stream) == b"0"
        go.release(9)
        time.sleep(0.1)  # the second has been sent by now, and nobody has taken it
        assert sent == [0]
        assert [*stream] == [b"1", b"2", b"3", b"4", b"end"]
        close(response)
        close(response)


def test_the_head_goes_out_before_the_first_piece_where_that_is_late() -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.to_thread(go.wait)
        await send({"type": "http.response.body", "body": b"late"})

    with used(app) as handler:
        response = handler(application_request())
        assert response.status_code == 200
        go.set()
        assert body_of(response) == b"late"


def test_an_empty_first_piece_sends_the_head() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"", more=True)
        await receive()
        await receive()

    with used(app) as handler:
        response = handler(application_request())
        assert response.stream is not None
        close(response)


def test_a_client_that_leaves_ends_the_stream_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_module, "LEAVE_SECONDS", 3600.0)  # nothing is cancelled before
    ended: list[str] = []
    with used(streaming_app(ended)) as handler:
        response = handler(application_request())
        assert response.stream is not None
        assert next(iter(response.stream)) == b"data: 1\n\n"
        close(response)
        assert ended == ["events"]


def test_an_application_that_does_not_listen_is_cancelled_when_the_client_has_left() -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        finally:
            ended.append("app")

    with used(app) as handler:
        response = handler(application_request())
        close(response)
        assert ended == ["app"]


def test_what_is_raised_when_the_client_has_left_comes_out_of_close() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"x", more=True)
        await receive()
        assert await receive() == {"type": "http.disconnect"}
        raise LookupError("cannot roll back")

    with used(app) as handler:
        response = handler(application_request())
        with pytest.raises(LookupError, match="cannot roll back"):
            close(response)


def test_an_application_that_cannot_be_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_module, "LEAVE_SECONDS", 0.05)
    for module in (asgi_module, loops):
        monkeypatch.setattr(module, "END_SECONDS", 0.2)
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await respond(send, b"x", more=True)
        go.wait()  # blocks the loop

    handler = asgi(app)
    handler.acquire()
    response = handler(application_request())
    assert response.stream is not None
    next(iter(response.stream))
    name = f"{__name__}.test_an_application_that_cannot_be_ended_is_named.<locals>.app"
    with pytest.raises(RuntimeError) as caught:
        close(response)
    assert str(caught.value) == f"{name} has not ended 0.2 seconds after http.disconnect"
    with pytest.raises(RuntimeError) as caught:
        handler.release()
    assert str(caught.value) == f"{name} has not ended 0.2 seconds after it was told to"
    go.set()


def test_slow_and_fast_requests_are_answered_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["path"] == "/last":
            order.append("last")
            everybody.set()
        order.append(scope["path"])
        await everybody.wait()
        await respond(send, threading.current_thread().name.encode())

    everybody = asyncio.Event()
    order: list[str] = []
    with used(app) as handler, ThreadPoolExecutor(21) as pool:
        waiting = [pool.submit(handler, application_request(path="/wait")) for _ in range(20)]
        while order.count("/wait") < 20:
            time.sleep(0.01)
        last = pool.submit(handler, application_request(path="/last"))
        names = {future.result(timeout=10).content for future in [*waiting, last]}
    assert len(names) == 1


def test_a_request_is_freed_after_its_answer_without_the_garbage_collector() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await receive()
            await respond(send, b"ok")

    with used(app) as handler:
        gc.disable()
        try:
            request = application_request(content=b"large")
            alive = weakref.ref(request)
            assert handler(request).content == b"ok"
            del request
            assert eventually(lambda: alive() is None)
        finally:
            gc.enable()


# ASGI: errors.


def failing(*messages: Message, error: BaseException | None = None) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for message in messages:
                await send(message)
            if error is not None:
                raise error

    return app


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PIECE: Message = {"type": "http.response.body", "body": b"a", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"b"}
FAILING = f"{__name__}.failing.<locals>.app"


@pytest.mark.parametrize(
    ("messages", "error", "text"),
    [
        ([], RuntimeError, f"{FAILING} ended without sending http.response.start"),
        ([START], RuntimeError, f"{FAILING} ended without sending the end of its body"),
        ([PIECE], RuntimeError, f"{FAILING} sent 'http.response.body' out of turn"),
        ([START, START], RuntimeError, f"{FAILING} sent 'http.response.start' out of turn"),
        ([START, {"type": "odd"}], RuntimeError, f"{FAILING} sent 'odd' out of turn"),
        ([START, LAST, LAST], RuntimeError, f"{FAILING} sent b'b' after the end of its body"),
        (
            [{**START, "status": 101}],
            ValueError,
            "101 is no status of a response; it takes an int from 200 to 599",
        ),
        ([{**START, "headers": [(b"x", b"a\nb")]}], ValueError, r"'x': 'a\nb' is no header field"),
        (
            [{**START, "headers": [("x", "a")]}],
            TypeError,
            "header fields of ASGI are bytes, not 'x': 'a'",
        ),
    ],
)
def test_what_asgi_forbids_is_an_error_that_says_so(
    messages: list[Message], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        asgi(failing(*messages))(application_request())
    assert str(caught.value) == text


def test_what_an_application_raises_before_its_response_comes_through_with_its_own_lines() -> None:
    with pytest.raises(LookupError, match="no such charge") as caught:
        asgi(failing(error=LookupError("no such charge")))(application_request())
    assert caught.traceback[-1].name == "app"


def test_what_an_application_raises_in_a_stream_comes_through_the_stream() -> None:
    response = asgi(failing(START, PIECE, error=LookupError("lost it")))(application_request())
    with pytest.raises(LookupError, match="lost it"):
        body_of(response)
    response = asgi(failing(START, PIECE))(application_request())
    with pytest.raises(RuntimeError, match="ended without sending the end of its body"):
        body_of(response)


def test_what_an_endpoint_raises_counts_and_not_the_500_that_a_framework_sends_for_it() -> None:
    api = fastapi.FastAPI()

    @api.get("/")
    def charge() -> None:
        raise LookupError("no such charge")

    with used(api) as handler, pytest.raises(LookupError, match="no such charge") as caught:
        handler(application_request())
    assert caught.traceback[-1].name == "charge"


def test_the_end_of_the_process_is_an_error_like_any_other() -> None:
    with used(failing(error=SystemExit(3))) as handler:
        for _ in range(2):
            with pytest.raises(SystemExit):
                handler(application_request())


def test_an_application_may_be_cancelled_by_itself() -> None:
    with pytest.raises(RuntimeError) as caught:
        asgi(failing(error=asyncio.CancelledError()))(application_request())
    assert str(caught.value) == f"{FAILING} cancelled itself"


def test_what_is_raised_after_a_response_comes_out_when_the_last_route_ends() -> None:
    answered, failing = threading.Event(), threading.Event()

    async def fail() -> None:
        await asyncio.to_thread(answered.wait)
        failing.set()
        raise LookupError("no such hook")

    def charge(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(fail))

    handler = asgi(Starlette(routes=[Route("/", charge)]))
    handler.acquire()
    assert handler(application_request()).content == b"ok"
    answered.set()
    assert failing.wait(10)  # seconds; it has ended before its loop does anything else
    with pytest.raises(LookupError, match="no such hook"):
        handler.release()


def test_a_loop_that_a_task_of_the_application_ends_answers_with_an_error() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        tasks.append(asyncio.create_task(leave()))
        await asyncio.sleep(60)

    tasks: list[asyncio.Task[None]] = []
    handler = asgi(app)
    handler.acquire()
    with pytest.raises(SystemExit):
        handler(application_request())
    with pytest.raises(SystemExit):
        handler.release()
    assert isinstance(tasks[0].exception(), SystemExit)  # nobody else asks, and asyncio complains
