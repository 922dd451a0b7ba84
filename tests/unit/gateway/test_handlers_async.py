"""Async handlers, the bodies that they stream, and what handlers return that cannot be sent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any
from unittest.mock import Mock

import pytest

from pytest_egress import Request
from pytest_egress.base import callers
from pytest_egress.routes import answers
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.response import Response
from tests.support.stage import GET, SECONDS, Stage, ask, drain, end_of, eventually, reset

FILE = "test_handlers_async.py"


def line(function: Callable[..., Any], further: int = 0) -> str:
    """Where a function begins, or so many lines further."""
    return f"{FILE}:{function.__code__.co_firstlineno + further}"


def error_of(stage: Stage) -> BaseException:
    """What the handler of the only request raised."""
    error = stage.only(Exchange).error
    assert error is not None
    return error


# Async bodies.


def test_an_async_generator_streams_as_a_generator_does(stage: Stage) -> None:
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        yield b"first, "
        await asyncio.sleep(0)
        yield b"second"

    route = stage.https("api.test", pieces)
    sock = stage.tls()
    assert ask(sock).body == b"first, second"
    assert ask(sock).headers["transfer-encoding"] == "chunked"
    stage.settle()
    assert route.call_count == 2


def test_pieces_go_out_as_they_are_made(stage: Stage) -> None:
    has_arrived = threading.Event()

    async def pieces(request: Request) -> AsyncIterator[bytes]:
        yield b"first"
        assert await asyncio.to_thread(has_arrived.wait, SECONDS)
        yield b"second"

    stage.https("api.test", pieces)
    sock = stage.tls()
    sock.sendall(GET)
    received = b""
    while b"first" not in received:
        received += sock.recv(65536)
    assert b"second" not in received
    has_arrived.set()
    while b"second" not in received:
        received += sock.recv(65536)


def test_a_handler_and_its_body_share_a_loop_that_its_tasks_live_on(stage: Stage) -> None:
    loops = []

    async def events(request: Request) -> Response:
        queue: asyncio.Queue[str] = asyncio.Queue()
        loops.append(asyncio.get_running_loop())

        async def produce() -> None:
            for number in range(3):
                await asyncio.sleep(0)
                queue.put_nowait(f"data: {number}\n\n")

        async def stream() -> AsyncIterator[str]:
            loops.append(asyncio.get_running_loop())
            for _ in range(3):
                yield await queue.get()
            await producing

        producing = asyncio.create_task(produce())
        return Response(stream=stream(), headers={"Content-Type": "text/event-stream"})

    stage.https("api.test", events)
    reply = ask(stage.tls())
    assert reply.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert reply.headers["content-type"] == "text/event-stream"
    stage.settle()
    first, second = loops
    assert first is second
    assert first.is_closed()


def test_one_task_makes_all_pieces_of_an_async_body(stage: Stage) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    tasks = []

    async def pieces(request: Request) -> AsyncIterator[str]:
        for value in "ab":
            tasks.append(asyncio.current_task())
            variable.set(value)
            yield "x"
            yield variable.get()
        tasks.append(asyncio.current_task())

    stage.https("api.test", pieces)
    assert ask(stage.tls()).body == b"xaxb"
    assert len(tasks) == 3
    assert len(set(tasks)) == 1


def test_asyncio_is_whole_in_a_handler(stage: Stage) -> None:
    async def gather(request: Request) -> list[str]:
        process = await asyncio.create_subprocess_exec("echo", "c", stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        both = await asyncio.gather(asyncio.to_thread(str.lower, "A"), asyncio.sleep(0, "b"))
        return [*both, output.decode().strip()]

    stage.https("api.test", gather)
    assert ask(stage.tls()).body == b'["a", "b", "c"]'


def test_a_client_that_leaves_ends_an_async_body_with_all_its_tasks(stage: Stage) -> None:
    ended = []

    async def tick() -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ended.append("task")

    async def pieces(request: Request) -> AsyncIterator[bytes]:
        ticking = asyncio.create_task(tick())
        try:
            while not ticking.done():
                yield bytes(65536)
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)  # it may await to its end
            ended.append("generator")

    stage.https("api.test", pieces)
    sock = stage.tls()
    sock.sendall(GET)
    sock.recv(1)
    reset(sock)
    exchange = stage.only(Exchange)
    assert exchange.note.startswith("the client closed before the whole response was sent (")
    assert (exchange.error, ended) == (None, ["generator", "task"])


def test_what_an_async_generator_raises_first_is_a_500_and_later_cuts_the_response(
    stage: Stage,
) -> None:
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        assert request.path != "/first"
        yield b"beginning"
        raise LookupError("later")

    stage.https("api.test", pieces)
    assert ask(stage.tls(), GET.replace(b"/ ", b"/first ")).status == 500
    sock = stage.strict_tls()
    sock.sendall(GET)
    with pytest.raises(OSError, match=r"EOF|unknown error|reset"):
        drain(sock)
    first, later = (exchange.error for exchange in stage.entries(Exchange))
    assert isinstance(first, AssertionError)
    assert (type(later), str(later)) == (LookupError, "later")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("streams", [False, True], ids=["awaited", "streamed"])
def test_whatever_an_async_handler_raises_is_kept_for_the_test(
    stage: Stage, kind: type[BaseException], streams: bool
) -> None:
    async def give(request: Request) -> None:
        raise kind

    async def pieces(request: Request) -> AsyncIterator[bytes]:
        yield b""
        raise kind

    stage.https("api.test", pieces if streams else give)
    sock = stage.tls()
    sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert end_of(sock) == ("reset" if streams else "closed")
    assert type(error_of(stage)) is kind
    assert ask(stage.tls("other.test"), GET.replace(b"api", b"other")).status == 502  # it goes on


def test_what_an_async_generator_raises_at_its_end_is_the_handlers(stage: Stage) -> None:
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        try:
            yield b"never sent"
        finally:
            raise LookupError("at the end")

    stage.https("api.test", pieces)
    ask(stage.tls(), GET.replace(b"GET", b"HEAD"), "HEAD")
    assert str(error_of(stage)) == "at the end"


def test_an_async_generator_that_yields_nothing_is_an_empty_body(stage: Stage) -> None:
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        if request.method == "POST":
            yield b"never"

    stage.https("api.test", pieces)
    assert ask(stage.tls()).body == b""


def test_an_async_body_is_no_static_answer(stage: Stage) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b""

    with pytest.raises(TypeError, match="its iterator is read once; return it from a function"):
        stage.https("api.test", Response(stream=pieces()))


async def held(go_on: threading.Event) -> None:
    await asyncio.to_thread(go_on.wait, SECONDS)


@pytest.mark.parametrize("streams", [False, True], ids=["awaited", "streamed"])
def test_where_an_async_handler_stands_is_the_line_that_it_awaits(
    stage: Stage, streams: bool
) -> None:
    go_on = threading.Event()

    async def give(request: Request) -> None:
        beside = asyncio.create_task(asyncio.sleep(SECONDS))
        await held(go_on)
        beside.cancel()

    async def pieces(request: Request) -> AsyncIterator[bytes]:
        yield b"first"
        await give(request)

    stage.https("api.test", pieces if streams else give)
    sock = stage.tls()
    sock.sendall(GET)
    place = f"{line(held, 1)} in held: await asyncio.to_thread(go_on.wait, SECONDS)"

    def stands() -> list[str]:
        return [callers.where_stands(each.ident) for each in stage.gateway.connections]

    assert eventually(lambda: [text.rpartition("/")[2] for text in stands()] == [place])
    go_on.set()


# Text in pieces.


async def async_text(request: Request) -> AsyncIterator[str]:
    yield "caf"
    yield "é"


def text(request: Request) -> Iterator[str]:
    yield "caf"
    yield "é"


@pytest.mark.parametrize(
    "answer",
    [text, async_text, Response(stream=["caf", "é"]), lambda request: (200, text(request))],
    ids=["generator", "async", "static", "pair"],
)
def test_a_piece_may_be_text_which_is_sent_as_a_text_would_be(stage: Stage, answer: object) -> None:
    stage.https("api.test", answer)
    reply = ask(stage.tls())
    assert reply.body.decode() == "café"
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


def test_text_in_pieces_has_the_type_that_its_response_gives_it(stage: Stage) -> None:
    stage.https("api.test", Response(stream=["a,b\n"], headers={"Content-Type": "text/csv"}))
    assert ask(stage.tls()).headers["content-type"] == "text/csv"


def test_a_static_body_in_pieces_is_sent_again(stage: Stage) -> None:
    stage.https("api.test", Response(stream=["a", b"b"]))
    sock = stage.tls()
    assert [ask(sock).body for _ in range(2)] == [b"ab", b"ab"]


# What cannot be sent.


def test_a_result_that_cannot_be_sent_names_the_handler_and_its_line(stage: Stage) -> None:
    def give(request: Request) -> object:
        return {1}

    stage.https("api.test", give)
    reply = ask(stage.tls())
    said = f"TypeError: give, at {line(give)}, returned {{1}} is no answer: it takes a Response, "
    assert (reply.status, said in reply.body.decode()) == (500, True)


def test_a_result_that_json_cannot_carry_names_the_handler_and_its_line(stage: Stage) -> None:
    def give(request: Request) -> dict[str, object]:
        return {"at": {1}}

    stage.https("api.test", give)
    assert ask(stage.tls()).status == 500
    assert str(error_of(stage)) == (
        f"give, at {line(give)}, returned {{'at': {{1}}}} cannot be sent as JSON: Object of type set is not "
        "JSON serializable"
    )


def test_a_piece_that_cannot_be_sent_names_the_line_that_yields_it(stage: Stage) -> None:
    def give(request: Request) -> Iterator[object]:
        yield 7

    async def give_later(request: Request) -> AsyncIterator[object]:
        yield b"fine"
        yield None

    why = "a streamed body is of bytes or str, and this is"
    stage.https("api.test", give)
    assert ask(stage.tls()).status == 500
    stage.https("api.test", give_later)
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert [str(exchange.error) for exchange in stage.entries(Exchange)] == [
        f"give, at {line(give, 1)}, yielded 7: {why} int",
        f"give_later, at {line(give_later, 2)}, yielded None: {why} NoneType",
    ]


def test_a_generator_whose_first_piece_cannot_be_sent_ends_its_work_before_the_answer(
    stage: Stage,
) -> None:
    ended = []

    def give(request: Request) -> Iterator[object]:
        try:
            yield 7
        finally:
            ended.append("generator")

    async def give_later(request: Request) -> AsyncIterator[object]:
        try:
            yield 7
        finally:
            ended.append("async generator")

    stage.https("api.test", give)
    assert ask(stage.tls()).status == 500
    stage.https("api.test", give_later)
    assert ask(stage.tls()).status == 500
    assert ended == ["generator", "async generator"]


def decorated(function: Callable[[Request], object]) -> Callable[[Request], object]:
    @functools.wraps(function)
    def wrapper(request: Request) -> object:
        return function(request)

    return wrapper


class Service:
    def __call__(self, request: Request) -> object: ...

    def method(self, request: Request) -> object: ...


def plain(request: Request) -> object: ...


@pytest.mark.parametrize(
    ("handler", "name", "function"),
    [
        (plain, "plain", plain),
        (decorated(plain), "plain", plain),
        (Service().method, "method", Service.method),
        (Service.__call__, "__call__", Service.__call__),
    ],
    ids=["function", "decorated", "method", "call"],
)
def test_the_place_of_a_handler_is_that_of_its_function(
    handler: object, name: str, function: Callable[..., object]
) -> None:
    assert answers.place_of(handler) == f"{name}, at {line(function)},"


def test_the_place_of_an_object_that_is_called_is_that_of_its_call() -> None:
    for handler in (Service(), functools.partial(Service())):
        assert answers.place_of(handler) == f"{handler!r}, at {line(Service.__call__)},"


def test_what_has_no_place_is_named() -> None:
    mock = Mock()
    assert [answers.place_of(each) for each in (print, mock)] == ["print", repr(mock)]


# Content-Length.


ON_PURPOSE = "to break the response on purpose, answer truncated(answer, after=3), or raw(b'...') with each byte of it"


def test_a_response_whose_length_is_not_its_bodys_is_refused_where_it_is_made() -> None:
    for length in ("3", "5"):
        with pytest.raises(ValueError, match=r"^Content-Length is") as caught:
            Response(content=b"four", headers={"content-length": length})
        assert str(caught.value) == (
            f"Content-Length is {length}, and the body has 4 bytes: leave the field out, it is sent by itself; "
            f"{ON_PURPOSE}"
        )
    assert Response(text="four", headers={"Content-Length": "4"}).content == b"four"


def test_a_length_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'four' is no number of bytes; leave the field out$"):
        Response(headers={"Content-Length": "four"})


def test_a_length_without_a_body_is_for_a_head_alone(stage: Stage) -> None:
    stage.https("api.test", Response(headers={"Content-Length": "1234"}))
    sock = stage.tls()
    head = ask(sock, GET.replace(b"GET", b"HEAD"), "HEAD")
    assert (head.status, head.headers["content-length"]) == (200, "1234")
    assert ask(sock).status == 500
    _, error = (exchange.error for exchange in stage.entries(Exchange))
    assert str(error) == (
        f"Content-Length is 1234, and the body has 0 bytes: leave the field out, it is sent by itself; {ON_PURPOSE}"
    )


@pytest.mark.parametrize(("length", "found"), [("3", "more than 3"), ("5", "4")])
def test_a_streamed_body_of_another_length_says_to_leave_the_field_out(
    stage: Stage, length: str, found: str
) -> None:
    stage.https("api.test", Response(stream=["fo", "ur"], headers={"Content-Length": length}))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert str(error_of(stage)) == (
        f"Content-Length is {length}, and the streamed body has {found} bytes: leave the field out, the body is "
        f"sent in chunks; {ON_PURPOSE}"
    )


def test_a_streamed_body_may_have_the_length_that_it_says(stage: Stage) -> None:
    stage.https("api.test", Response(stream=["fo", "ur"], headers={"Content-Length": "4"}))
    reply = ask(stage.tls())
    assert (reply.body, reply.headers["content-length"]) == (b"four", "4")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["awaited", "streamed", "finally", "task"])
def test_asyncio_reports_nothing_as_lost_that_the_test_is_told_of(
    stage: Stage, kind: type[BaseException], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise kind

    async def other() -> None:
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(0)
            ended.append("other")

    async def handler(request: Request) -> Response:
        tasks.append(asyncio.create_task(other()))
        await asyncio.sleep(0)
        if where == "task":
            tasks.append(asyncio.create_task(fails()))
            await asyncio.sleep(SECONDS)
        if where == "awaited":
            await fails()
        return Response(stream=pieces())

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"beginning"
            if where == "streamed":
                await fails()
            yield b"end"
        finally:
            if where == "finally":
                await fails()

    stage.https("api.test", handler)
    sock = stage.tls()
    sock.sendall(GET)
    with contextlib.suppress(OSError):
        sock.recv(65536)
    assert type(error_of(stage)) is kind
    assert ended == ["other"]
    error_of(stage).with_traceback(None)  # it would keep the tasks
    tasks.clear()
    gc.collect()
    assert caplog.messages == []
