"""Servicers, plain and async: what they get, what their clients get, and what becomes of what they raise."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import freezegun
import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_status import rpc_status

from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.grpc.server import GrpcServer, grpc_server
from pytest_egress.traffic.grpc import MAX_MESSAGE_BYTES, deflate, frame
from tests.support.greeter import pb, pb_grpc
from tests.support.grpc_calls import SECONDS, Call, pairs, served_call
from tests.support.stage import eventually

WHERE = ContextVar("WHERE", default="nowhere")
UNARY, DOWN, UP, BOTH = (f"/greet.v1.Greeter/{name}" for name in ("Unary", "Down", "Up", "Both"))
KINDS = ("plain", "async")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread outlives its calls."""
    before = set(threading.enumerate())
    yield
    assert eventually(lambda: not set(threading.enumerate()) - before)


def greeter(**methods: Any) -> GrpcServer:
    """A server whose servicer has these methods, and no others."""
    cls = type("Greeter", (pb_grpc.GreeterServicer,), methods)
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, cls()))


def unary(kind: str, function: Callable[[Any, Any], Any]) -> GrpcServer:
    """A server whose method Unary is this function, or an async one that does the same."""

    def plain(self: object, request: Any, context: Any) -> Any:
        return function(request, context)

    async def asynchronous(self: object, request: Any, context: Any) -> Any:
        result = function(request, context)
        return await result if asyncio.iscoroutine(result) else result

    return greeter(Unary=plain if kind == "plain" else asynchronous)


# The four kinds of methods.


class Plain(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    def Unary(self, request: Any, context: Any) -> Any:
        return pb.Reply(text=request.name.upper())

    def Down(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(request.count):
            yield pb.Reply(text=str(number))

    def Up(self, request_iterator: Iterator[Any], context: Any) -> Any:
        return pb.Reply(text="+".join(request.name for request in request_iterator))

    def Both(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in request_iterator:
            yield pb.Reply(text=request.name.upper())


class Async(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
    async def Unary(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        return pb.Reply(text=request.name.upper())

    async def Down(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(request.count):
            yield pb.Reply(text=str(number))

    async def Up(self, request_iterator: AsyncIterator[Any], context: Any) -> Any:
        return pb.Reply(text="+".join([request.name async for request in request_iterator]))

    async def Both(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            yield pb.Reply(text=request.name.upper())


class ReadsAndWrites(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
    """By `context.read` and `context.write`, as `grpc.aio` allows."""

    async def Unary(self, request: Any, context: Any) -> Any:
        return pb.Reply(text=request.name.upper())

    async def Down(self, request: Any, context: Any) -> None:
        for number in range(request.count):
            await context.write(pb.Reply(text=str(number)))

    async def Up(self, request_iterator: object, context: Any) -> Any:
        names = []
        while (request := await context.read()) is not grpc.aio.EOF:
            names.append(request.name)
        return pb.Reply(text="+".join(names))

    async def Both(self, request_iterator: object, context: Any) -> None:
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(pb.Reply(text=request.name.upper()))


@pytest.fixture(params=[Plain, Async, ReadsAndWrites])
def server(request: pytest.FixtureRequest) -> GrpcServer:
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, request.param()))


def test_one_message_gets_one(server: GrpcServer) -> None:
    call = served_call(server, UNARY, pb.Hello(name="you"))
    assert call.heard(pb.Reply) == [pb.Reply(text="YOU")]
    assert call.status == ("OK", "")
    assert (call.grpc.request, call.grpc.response) == (pb.Hello(name="you"), pb.Reply(text="YOU"))
    assert (call.grpc.service, call.grpc.method) == ("greet.v1.Greeter", "Unary")
    assert call.conversation.counted == [("OK", False)]


def test_one_message_gets_a_stream(server: GrpcServer) -> None:
    call = served_call(server, DOWN, pb.Hello(count=3))
    assert [reply.text for reply in call.heard(pb.Reply)] == ["0", "1", "2"]
    assert [reply.text for reply in call.grpc.responses] == ["0", "1", "2"]
    assert call.status == ("OK", "")


def test_a_stream_gets_one_message(server: GrpcServer) -> None:
    call = served_call(server, UP, *(pb.Hello(name=name) for name in "abc"))
    assert call.heard(pb.Reply) == [pb.Reply(text="a+b+c")]
    assert [request.name for request in call.grpc.requests] == ["a", "b", "c"]


def test_both_directions_run_at_once(server: GrpcServer) -> None:
    call = Call(server, BOTH).start(ends=False)
    for word in ("one", "two"):  # each is sent after the answer to the one before
        call.say(pb.Hello(name=word))
        assert call.hear(pb.Reply).text == word.upper()
    call.half_close()
    assert call.join().status == ("OK", "")


def test_a_streaming_method_may_send_nothing() -> None:
    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        yield from ()

    call = served_call(greeter(Down=down), DOWN, pb.Hello())
    assert (call.status, call.heard(pb.Reply)) == (("OK", ""), [])
    assert call.duplex.trailers_sent is None  # the status is in the head


def test_a_plain_function_may_return_what_is_async() -> None:
    def wrapped(method: Any) -> Any:
        return lambda *arguments: method(*arguments)

    server = greeter(Unary=wrapped(Async.Unary), Down=wrapped(Async.Down))
    assert served_call(server, UNARY, pb.Hello(name="you")).hear(pb.Reply).text == "YOU"
    assert len(served_call(server, DOWN, pb.Hello(count=3)).heard(pb.Reply)) == 3


def test_async_servicers_of_a_server_share_a_loop_while_a_route_uses_it() -> None:
    words: list[asyncio.Queue[str]] = []

    async def down(self: object, request: Any, context: Any) -> AsyncIterator[Any]:
        words.append(asyncio.Queue())
        yield pb.Reply(text=await words[0].get())

    async def unary(self: object, request: Any, context: Any) -> Any:
        await words[0].put(request.name)
        return pb.Reply()

    server = greeter(Down=down, Unary=unary)
    server.acquire()
    waiting = Call(server, DOWN).start(pb.Hello())
    assert eventually(lambda: words)
    served_call(server, UNARY, pb.Hello(name="word"))
    assert waiting.hear(pb.Reply).text == "word"
    waiting.join()
    server.release()


def test_the_end_of_the_last_route_cancels_what_still_runs() -> None:
    seen: list[object] = []

    async def slow(self: object, request: Any, context: Any) -> Any:
        try:
            seen.append("begun")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    server = greeter(Unary=slow)
    server.acquire()
    server.acquire()
    call = Call(server, UNARY).start(pb.Hello())
    assert eventually(lambda: seen)
    server.release()
    assert seen == ["begun"]
    server.release()
    assert call.join().status == ("CANCELLED", "the servicer was cancelled")
    assert seen == ["begun", "cancelled"]
    assert call.error is None


# Where a servicer runs.


@pytest.mark.parametrize("kind", KINDS)
def test_a_servicer_sees_the_context_variables_of_the_declaration(kind: str) -> None:
    token = WHERE.set("the test")
    context = copy_context()
    WHERE.reset(token)
    call = Call(
        unary(kind, lambda request, context: pb.Reply(text=WHERE.get())), UNARY, context=context
    )
    assert call.start(pb.Hello()).join().hear(pb.Reply).text == "the test"


def test_a_generator_keeps_its_context_from_one_message_to_the_next() -> None:
    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        token = WHERE.set("inside")
        try:
            yield pb.Reply(text=WHERE.get())
            yield pb.Reply(text=WHERE.get())
        finally:
            WHERE.reset(token)  # an error in another context

    call = served_call(greeter(Down=down), DOWN, pb.Hello())
    assert [reply.text for reply in call.heard(pb.Reply)] == ["inside", "inside"]
    assert call.error is None


def test_a_plain_servicer_runs_on_the_thread_that_asks() -> None:
    threads: list[threading.Thread] = []

    def note(request: Any, context: Any) -> Any:
        threads.append(threading.current_thread())
        return pb.Reply()

    call = served_call(unary("plain", note), UNARY, pb.Hello())
    assert threads == [call._thread]


# Metadata.


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_goes_both_ways(kind: str) -> None:
    seen = {}

    def answer(request: Any, context: Any) -> Any:
        seen.update(dict(context.invocation_metadata()))
        context.set_trailing_metadata([("x-trailing", "2"), ("x-raw-bin", b"\1")])
        sending = context.send_initial_metadata([("x-initial", "1"), ("x-first-bin", b"\0\1")])

        async def finish() -> Any:
            await sending
            return pb.Reply()

        return finish() if kind == "async" else pb.Reply()

    call = served_call(unary(kind, answer), UNARY, pb.Hello(), x_token="abc", x_in_bin="/wA")
    assert seen == {"x-token": "abc", "x-in-bin": b"\xff\0"}
    assert pairs(call.duplex.head, "x-initial", "x-first-bin") == [
        ("x-initial", "1"),
        ("x-first-bin", "AAE"),
    ]
    assert pairs(call.duplex.trailers_sent, "x-trailing", "x-raw-bin") == [
        ("x-trailing", "2"),
        ("x-raw-bin", "AQ"),
    ]
    assert call.grpc.metadata == (("x-token", "abc"), ("x-in-bin", b"\xff\0"))
    assert call.grpc.initial_metadata == (("x-initial", "1"), ("x-first-bin", b"\0\1"))
    assert call.grpc.trailing_metadata == (("x-trailing", "2"), ("x-raw-bin", b"\1"))


# Status.


@pytest.mark.parametrize("kind", KINDS)
def test_abort_ends_the_call_with_its_status(kind: str) -> None:
    def abort(request: Any, context: Any) -> Any:
        return context.abort(grpc.StatusCode.NOT_FOUND, "no ü 100 %")

    call = served_call(unary(kind, abort), UNARY, pb.Hello())
    assert call.status == ("NOT_FOUND", "no ü 100 %")
    assert (call.grpc.status, call.grpc.details) == ("NOT_FOUND", "no ü 100 %")
    assert (call.error, call.conversation.rejected) == (None, [])
    assert call.conversation.counted == [("NOT_FOUND", False)]


def test_abort_within_a_stream_comes_after_its_messages() -> None:
    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        yield pb.Reply(text="0")
        context.abort(grpc.StatusCode.DATA_LOSS, "after one")

    call = served_call(greeter(Down=down), DOWN, pb.Hello())
    assert [reply.text for reply in call.heard(pb.Reply)] == ["0"]
    assert call.status == ("DATA_LOSS", "after one")


def test_an_abort_stays_one_when_the_servicer_raises_something_else_of_it() -> None:
    def fail(request: Any, context: Any) -> Any:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "no")
        except Exception as error:
            raise RuntimeError("wrapped") from error

    call = served_call(unary("plain", fail), UNARY, pb.Hello())
    assert (call.status, call.error) == (("NOT_FOUND", "no"), None)


def test_another_error_after_an_abort_is_the_servicers() -> None:
    def fail(request: Any, context: Any) -> Any:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "no")
        finally:
            assert request.name == "another"

    call = served_call(unary("plain", fail), UNARY, pb.Hello())
    assert isinstance(call.error, AssertionError)
    assert call.status == ("NOT_FOUND", "no")


def test_abort_with_ok_is_unknown_as_in_grpc() -> None:
    call = served_call(
        unary("plain", lambda r, context: context.abort(grpc.StatusCode.OK, "x")), UNARY, pb.Hello()
    )
    assert call.status == ("UNKNOWN", "abort() was called with StatusCode.OK")


@pytest.mark.parametrize("kind", KINDS)
def test_a_rich_error_has_its_details(kind: str) -> None:
    detail = any_pb2.Any()
    detail.Pack(
        error_details_pb2.QuotaFailure(violations=[{"subject": "s", "description": "too much"}])
    )
    rich = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="quota", details=[detail])

    def abort(request: Any, context: Any) -> Any:
        return context.abort_with_status(rpc_status.to_status(rich))

    call = served_call(unary(kind, abort), UNARY, pb.Hello())
    assert call.status == ("RESOURCE_EXHAUSTED", "quota")
    ((key, value),) = call.grpc.trailing_metadata
    assert key == "grpc-status-details-bin"
    assert isinstance(value, bytes)
    assert status_pb2.Status.FromString(value) == rich


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_that_was_set_is_the_status(kind: str) -> None:
    def set_code(request: Any, context: Any) -> Any:
        context.set_code(grpc.StatusCode.ALREADY_EXISTS)
        context.set_details("there is one")
        assert context.code() is grpc.StatusCode.ALREADY_EXISTS
        assert context.details() == "there is one"
        return pb.Reply()

    call = served_call(unary(kind, set_code), UNARY, pb.Hello())
    assert call.status == ("ALREADY_EXISTS", "there is one")


# What a servicer raises.


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_servicer_raises_is_raised_and_its_client_gets_unknown(kind: str) -> None:
    def fail(request: Any, context: Any) -> Any:
        raise ValueError("of the servicer")

    call = served_call(unary(kind, fail), UNARY, pb.Hello())
    assert isinstance(call.error, ValueError)
    frames = [frame.name for frame in traceback.extract_tb(call.error.__traceback__)]
    assert frames[-1] == "fail"
    assert call.conversation.exchange.error is call.error
    assert call.status == (
        "UNKNOWN",
        "pytest-egress: the servicer raised ValueError: of the servicer",
    )
    assert call.conversation.counted == [("UNKNOWN", False)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_is_raised_too(kind: str, error: type[BaseException]) -> None:
    def fail(request: Any, context: Any) -> Any:
        raise error

    call = served_call(unary(kind, fail), UNARY, pb.Hello())
    assert isinstance(call.error, error)
    assert call.status[0] == "UNKNOWN"


def test_an_error_after_a_message_comes_after_it() -> None:
    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        yield pb.Reply(text="0")
        raise ValueError("later")

    call = served_call(greeter(Down=down), DOWN, pb.Hello())
    assert len(call.heard(pb.Reply)) == 1
    assert call.status[0] == "UNKNOWN"
    assert isinstance(call.error, ValueError)


def test_a_long_error_is_cut_so_that_clients_take_the_status() -> None:
    def fail(request: Any, context: Any) -> Any:
        raise ValueError("x" * 100_000)

    call = served_call(unary("plain", fail), UNARY, pb.Hello())
    assert len(call.status[1]) <= 2000
    assert len(str(call.error)) == 100_000


@pytest.mark.parametrize("answer", [None, "text", b"bytes"])
def test_an_answer_of_another_type_is_an_error_that_quotes_it(answer: Any) -> None:
    call = served_call(unary("plain", lambda request, context: answer), UNARY, pb.Hello())
    assert isinstance(call.error, TypeError)
    assert f"the servicer answered {UNARY} with {answer!r}, which cannot be sent" in str(call.error)
    assert call.status[0] == "UNKNOWN"


def test_a_method_that_nobody_wrote_is_unrouted() -> None:
    call = served_call(greeter(), UP, pb.Hello())
    note = (
        "Greeter does not define Up of greet.v1.Greeter. "
        "To answer it: def Up(self, request_iterator, context)"
    )
    assert call.conversation.rejected == [note]
    assert call.status == ("UNIMPLEMENTED", f"pytest-egress: {note}")
    assert (call.error, call.conversation.exchange.error) == (None, None)


def test_a_servicer_that_raises_notimplementederror_by_itself_has_failed() -> None:
    def fail(request: Any, context: Any) -> Any:
        raise NotImplementedError("not yet")

    call = served_call(unary("plain", fail), UNARY, pb.Hello())
    assert isinstance(call.error, NotImplementedError)
    assert call.conversation.rejected == []


# Deadlines.


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_is_told_at_its_deadline_while_the_servicer_runs(kind: str) -> None:
    told, seen = threading.Event(), []

    def slow(request: Any, context: Any) -> Any:
        seen.append(context.time_remaining())

        async def wait() -> Any:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        if kind == "async":
            return wait()
        assert told.wait(SECONDS)
        assert not context.is_active()
        return pb.Reply(text="too late")

    call = Call(unary(kind, slow), UNARY, {"grpc-timeout": "2S"}).start(pb.Hello())
    assert call.duplex.finished.wait(SECONDS)
    told.set()
    assert call.join().status == ("DEADLINE_EXCEEDED", "the client's deadline has passed")
    assert 0 < seen[0] <= 2
    assert seen[1:] == (["cancelled"] if kind == "async" else [])
    assert call.heard(pb.Reply) == []
    assert (call.error, call.conversation.counted) == (None, [("DEADLINE_EXCEEDED", False)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_clock_does_not_stop_a_deadline(kind: str) -> None:
    remaining: list[float] = []

    def slow(request: Any, context: Any) -> Any:
        async def wait() -> Any:
            await asyncio.Event().wait()

        remaining.append(context.time_remaining())
        if kind == "async":
            return wait()
        assert eventually(lambda: context.time_remaining() == 0)
        return pb.Reply()

    with freezegun.freeze_time("2020-01-01"):
        call = served_call(unary(kind, slow), UNARY, pb.Hello(), grpc_timeout="1S")
    assert call.status[0] == "DEADLINE_EXCEEDED"
    assert 0 < remaining[0] <= 1


def test_without_a_deadline_no_time_is_remaining() -> None:
    seen = []

    def note(request: Any, context: Any) -> Any:
        seen.append(context.time_remaining())
        return pb.Reply()

    served_call(unary("plain", note), UNARY, pb.Hello())
    assert seen == [None]


def test_a_malformed_deadline_ends_the_call_before_the_servicer() -> None:
    call = served_call(unary("plain", pytest.fail), UNARY, pb.Hello(), grpc_timeout="soon")
    assert call.status[0] == "INTERNAL"
    assert "grpc-timeout is 'soon'" in call.status[1]


def test_a_servicer_that_waits_for_messages_stops_at_the_deadline() -> None:
    def up(self: object, request_iterator: Iterator[Any], context: Any) -> Any:
        for _ in request_iterator:
            pass
        pytest.fail("the client has not ended its stream")

    call = Call(greeter(Up=up), UP, {"grpc-timeout": "50m"}).start(pb.Hello(), ends=False)
    assert call.join().status[0] == "DEADLINE_EXCEEDED"
    assert call.error is None


def test_a_deadline_within_a_message_that_is_being_sent_comes_after_it() -> None:
    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        contexts.append(context)
        yield pb.Reply(text="0")
        yield pb.Reply(text="1")

    contexts: list[grpc.ServicerContext] = []
    call = Call(greeter(Down=down), DOWN, {"grpc-timeout": "50m"})
    call.duplex.blocked.clear()
    call.start(pb.Hello())
    assert call.duplex.sending.wait(SECONDS)
    assert eventually(lambda: not contexts[0].is_active())
    assert not call.duplex.finished.is_set()
    call.duplex.blocked.set()
    assert call.join().status[0] == "DEADLINE_EXCEEDED"
    assert [reply.text for reply in call.heard(pb.Reply)] == ["0"]


# Clients that leave.


@pytest.mark.parametrize("kind", KINDS)
def test_a_servicer_notices_that_its_client_has_left(kind: str) -> None:
    begun, called, seen = threading.Event(), threading.Event(), []

    def slow(request: Any, context: Any) -> Any:
        async def wait() -> Any:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(context.cancelled())

        if kind == "async":
            context.add_done_callback(lambda context: called.set())
            return wait()
        assert context.add_callback(called.set)
        begun.set()
        assert called.wait(SECONDS)  # while the servicer runs
        seen.append(not context.is_active())
        return pb.Reply()

    call = Call(unary(kind, slow), UNARY).start(pb.Hello())
    assert begun.wait(SECONDS)
    call.duplex.leave()
    call.join()
    assert seen == [True]
    assert called.is_set()
    assert call.grpc.status == "CANCELLED"
    assert isinstance(
        call.error, ClientLeftError
    )  # the gateway notes that; it is no error of the servicer's
    assert call.conversation.exchange.error is None
    assert len(call.conversation.counted) == 1


def test_a_generator_is_closed_when_its_client_leaves() -> None:
    closed: list[str] = []

    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        try:
            for number in range(1_000_000):
                yield pb.Reply(text=str(number))
        finally:
            closed.append("closed")

    call = Call(greeter(Down=down), DOWN).start(pb.Hello())
    call.hear(pb.Reply)
    call.duplex.leave()
    call.join()
    assert closed == ["closed"]
    assert call.grpc.status == "CANCELLED"


def test_the_messages_of_a_client_that_left_end_in_an_rpcerror() -> None:
    caught: list[BaseException] = []

    def up(self: object, request_iterator: Iterator[Any], context: Any) -> Any:
        try:
            list(request_iterator)
        except grpc.RpcError as error:
            caught.append(error)
            raise

    call = Call(greeter(Up=up), UP).start(pb.Hello(), ends=False)
    assert eventually(lambda: call.grpc.requests)
    call.duplex.leave()
    call.join()
    assert len(caught) == 1
    assert call.conversation.exchange.error is None


def test_a_callback_that_raises_is_an_error_of_the_servicers() -> None:
    def answer(request: Any, context: Any) -> Any:
        def fail() -> None:
            raise ValueError("in the callback")

        context.add_callback(fail)
        return pb.Reply()

    call = served_call(unary("plain", answer), UNARY, pb.Hello())
    assert isinstance(call.error, ValueError)
    assert call.status == ("OK", "")


def test_a_callback_that_raises_after_the_servicer_has_returned_is_an_error_too() -> None:
    begun, release = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        assert release.wait(SECONDS)
        raise ValueError("in the callback")

    def answer(request: Any, context: Any) -> Any:
        context.add_callback(fail)
        call.duplex.leave()
        assert begun.wait(SECONDS)
        threading.Timer(0.05, release.set).start()
        return pb.Reply()

    call = Call(unary("plain", answer), UNARY)
    call.start(pb.Hello()).join()
    assert isinstance(call.error, ValueError)


def test_a_cancellation_that_is_the_servicers_own_is_its_error() -> None:
    async def answer(self: object, request: Any, context: Any) -> Any:
        task = asyncio.create_task(asyncio.sleep(SECONDS))
        task.cancel()
        await task

    call = served_call(greeter(Unary=answer), UNARY, pb.Hello())
    assert isinstance(call.error, asyncio.CancelledError)
    assert call.status[0] == "UNKNOWN"


# What the client sends.


def test_a_message_of_another_type_is_no_fault_of_the_servicers() -> None:
    call = served_call(unary("plain", pytest.fail), UNARY, frame(b"\xff\xff"))
    assert call.status[0] == "INTERNAL"
    assert f"message 1 of {UNARY} is no Hello" in call.conversation.exchange.note
    assert call.error is None


@pytest.mark.parametrize(
    ("messages", "count"), [((), "none"), ((pb.Hello(), pb.Hello()), "several")]
)
def test_a_method_of_one_message_gets_one(messages: tuple[Any, ...], count: str) -> None:
    call = served_call(unary("plain", pytest.fail), UNARY, *messages)
    assert call.status == (
        "UNIMPLEMENTED",
        f"{UNARY} takes one message, and the client sent {count}",
    )


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_messages_are_compressed_each_way(encoding: str) -> None:
    compression = grpc.Compression.Gzip if encoding == "gzip" else grpc.Compression.Deflate

    def down(self: object, request: Any, context: Any) -> Iterator[Any]:
        context.set_compression(compression)
        yield pb.Reply(blob=request.blob)
        context.disable_next_message_compression()
        yield pb.Reply(blob=request.blob)
        yield pb.Reply(blob=request.blob)

    message = pb.Hello(blob=bytes(100_000))
    sent = frame(deflate(message.SerializeToString(), encoding), compressed=True)
    fields = {"grpc_encoding": encoding, "grpc_accept_encoding": f"identity,{encoding}"}
    call = served_call(greeter(Down=down), DOWN, sent, **fields)
    assert call.grpc.requests == [message]
    assert pairs(call.duplex.head, "grpc-encoding") == [("grpc-encoding", encoding)]
    frames = [call.duplex.sent.get() for _ in range(3)]
    assert [each[0] for each in frames] == [1, 0, 1]
    assert [len(each) > 100_000 for each in frames] == [False, True, False]


def test_nothing_is_compressed_for_a_client_that_does_not_take_it() -> None:
    def answer(request: Any, context: Any) -> Any:
        context.set_compression(grpc.Compression.Gzip)
        return pb.Reply(text="x")

    call = served_call(unary("plain", answer), UNARY, pb.Hello())
    assert pairs(call.duplex.head, "grpc-encoding") == []
    assert call.hear(pb.Reply).text == "x"


def test_a_message_over_the_limit_is_refused() -> None:
    head = b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big")
    call = served_call(unary("plain", pytest.fail), UNARY, head)
    assert call.status[0] == "RESOURCE_EXHAUSTED"


# Servicers of grpc's own packages, unmodified.


def test_the_health_servicer_answers_and_is_watched() -> None:
    servicer = health.HealthServicer()
    server = grpc_server((health_pb2_grpc.add_HealthServicer_to_server, servicer))
    servicer.set("shop", health_pb2.HealthCheckResponse.NOT_SERVING)
    asked = health_pb2.HealthCheckRequest(service="shop")
    call = served_call(server, "/grpc.health.v1.Health/Check", asked)
    assert call.hear(health_pb2.HealthCheckResponse).status == 2
    watch = Call(server, "/grpc.health.v1.Health/Watch").start(asked)
    assert watch.hear(health_pb2.HealthCheckResponse).status == 2
    servicer.set("shop", health_pb2.HealthCheckResponse.SERVING)
    assert watch.hear(health_pb2.HealthCheckResponse).status == 1
    watch.duplex.leave()
    watch.join()


def test_the_reflection_servicer_lists_the_services() -> None:
    server = greeter()
    reflection.enable_server_reflection(["greet.v1.Greeter", reflection.SERVICE_NAME], server)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    call = served_call(
        server, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", asked
    )
    answer = call.hear(reflection_pb2.ServerReflectionResponse)
    names = [service.name for service in answer.list_services_response.service]
    assert names == ["greet.v1.Greeter", "grpc.reflection.v1alpha.ServerReflection"]
