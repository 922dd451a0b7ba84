"""The contexts of servicers: what they say of the call, and what they refuse."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from pytest_egress.routes.grpc.context import AsyncMessages, code_of
from pytest_egress.routes.grpc.server import GrpcServer, grpc_server
from pytest_egress.traffic.grpc import Code
from tests.support.greeter import pb, pb_grpc
from tests.support.grpc_calls import SECONDS, Call, served_call

UNARY, UP = "/greet.v1.Greeter/Unary", "/greet.v1.Greeter/Up"


def server_of(function: Callable[[Any], object], name: str = "Unary") -> GrpcServer:
    """A server whose method calls a function of the context, and answers."""

    def method(self: object, request: Any, context: Any) -> Any:
        function(context)
        return pb.Reply()

    servicer = type("Greeter", (pb_grpc.GreeterServicer,), {name: method})()
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, servicer))


def async_server_of(function: Callable[[Any], Any], name: str = "Unary") -> GrpcServer:
    """A server whose async method awaits a function of the context, and answers."""

    async def method(self: object, request: Any, context: Any) -> Any:
        await function(context)
        return pb.Reply()

    servicer = type("Greeter", (pb_grpc.GreeterServicer,), {name: method})()
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, servicer))


def test_a_plain_servicer_gets_a_context_of_grpc_and_an_async_one_that_of_aio() -> None:
    seen: list[object] = []

    async def note(context: Any) -> None:
        seen.append(context)

    served_call(server_of(seen.append), UNARY, pb.Hello())
    served_call(async_server_of(note), UNARY, pb.Hello())
    assert isinstance(seen[0], grpc.ServicerContext)
    assert isinstance(seen[1], grpc.aio.ServicerContext)


def test_a_context_tells_of_its_client() -> None:
    seen: list[object] = []

    def ask(context: grpc.ServicerContext) -> None:
        seen.extend([context.peer(), context.auth_context(), context.trailing_metadata()])
        seen.extend([context.peer_identities(), context.peer_identity_key(), context.is_active()])

    served_call(server_of(ask), UNARY, pb.Hello())
    assert seen == [
        "ipv4:192.0.2.7:50123",
        {"transport_security_type": [b"ssl"]},
        (),
        None,
        None,
        True,
    ]


@pytest.mark.parametrize(
    ("code", "known"), [(grpc.StatusCode.NOT_FOUND, Code.NOT_FOUND), (5, Code.NOT_FOUND)]
)
def test_a_code_is_one_of_grpcs_or_its_number(code: object, known: Code) -> None:
    assert code_of(code) is known


@pytest.mark.parametrize("code", [None, "NOT_FOUND", True, -1, 17, grpc.Compression.Gzip.name])
def test_what_is_no_code_is_refused_where_it_is_set(code: Any) -> None:
    with pytest.raises(TypeError, match=r"is no status code: it takes a grpc\.StatusCode"):
        code_of(code)
    call = served_call(server_of(lambda context: context.set_code(code)), UNARY, pb.Hello())
    assert isinstance(call.error, TypeError)


def test_metadata_that_cannot_be_sent_is_the_servicers_error() -> None:
    call = served_call(
        server_of(lambda context: context.set_trailing_metadata([("X-Upper", "1")])),
        UNARY,
        pb.Hello(),
    )
    assert isinstance(call.error, ValueError)
    assert "'X-Upper' is no key of metadata" in str(call.error)
    assert call.status[0] == "UNKNOWN"


def test_details_may_be_bytes() -> None:
    def fail(context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.ABORTED, "größer".encode())  # type: ignore[arg-type]

    assert served_call(server_of(fail), UNARY, pb.Hello()).status == ("ABORTED", "größer")


def test_a_servicer_cancels_its_call() -> None:
    seen: list[object] = []

    def cancel(context: grpc.ServicerContext) -> None:
        seen.extend([context.cancel(), context.is_active(), context.add_callback(pytest.fail)])
        seen.append(context.cancel())

    call = served_call(server_of(cancel), UNARY, pb.Hello())
    assert call.status == ("CANCELLED", "the servicer cancelled the call")
    assert seen == [True, False, False, False]
    assert call.error is None


def test_callbacks_are_called_at_the_end() -> None:
    order: list[object] = []
    call = Call(
        server_of(lambda context: context.add_callback(lambda: order.append("over"))), UNARY
    )
    call.start(pb.Hello()).join()
    assert order == ["over"]


def test_an_async_context_tells_when_it_is_done() -> None:
    seen: list[object] = []

    async def note(context: Any) -> None:
        context.add_done_callback(lambda same: seen.append((same is context, same.done())))
        seen.extend([context.done(), context.cancelled(), context.time_remaining()])

    served_call(async_server_of(note), UNARY, pb.Hello())
    assert seen == [False, False, None, (True, True)]


def test_a_done_callback_that_comes_too_late_is_called_at_once() -> None:
    seen: list[object] = []

    async def note(context: Any) -> None:
        context.callbacks.call()
        context.add_done_callback(seen.append)

    served_call(async_server_of(note), UNARY, pb.Hello())
    assert len(seen) == 1


def test_abort_of_an_async_servicer_takes_trailing_metadata() -> None:
    async def fail(context: Any) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no", (("x-why", "that"),))

    call = served_call(async_server_of(fail), UNARY, pb.Hello())
    assert call.status == ("NOT_FOUND", "no")
    assert call.grpc.trailing_metadata == (("x-why", "that"),)


def test_a_read_that_was_given_up_loses_no_message() -> None:
    heard: list[str] = []

    async def read(context: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(context.read(), 0.01)
        waiting.set()
        while (message := await context.read()) is not grpc.aio.EOF:
            heard.append(message.name)

    waiting = threading.Event()
    call = Call(async_server_of(read, "Up"), UP).start(ends=False)
    assert waiting.wait(SECONDS)
    call.say(pb.Hello(name="late"))
    call.half_close()
    assert call.join().status == ("OK", "")
    assert heard == ["late"]


def test_a_read_of_a_client_that_leaves_says_nothing_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun = threading.Event()

    async def read(context: Any) -> None:
        begun.set()
        await context.read()
        await context.read()

    call = Call(async_server_of(read, "Up"), UP).start(pb.Hello(), ends=False)
    assert begun.wait(SECONDS)
    call.duplex.leave()
    call.join()
    del call
    gc.collect()
    assert not caplog.records


def test_messages_are_an_async_iterator() -> None:
    def messages() -> Iterator[str]:
        yield from "ab"

    async def collect() -> list[str]:
        iterator: AsyncIterator[str] = AsyncMessages(messages())
        return [message async for message in iterator]

    assert asyncio.run(collect()) == ["a", "b"]
