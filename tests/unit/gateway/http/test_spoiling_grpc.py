"""Faults of calls of gRPC, as grpcio's client sees them."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import trustme

from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import (
    delayed,
    disconnect,
    reset,
    reset_stream,
    silence,
    throttled,
    truncated,
)
from pytest_egress.routes.grpc.server import grpc_server
from pytest_egress.traffic.entries import Exchange
from tests.support.greeter import pb, pb_grpc
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, SECONDS, Stage, client_context, end_of, eventually

SOON = 0.05


class Repeats(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.Reply(text=f"hello {request.name}")

    async def Down(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for _ in range(3):
            yield pb.Reply(text=request.name)

    def Both(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in request_iterator:
            yield pb.Reply(text=request.name)


SERVED = (pb_grpc.add_GreeterServicer_to_server, Repeats())


@pytest.fixture
def stub(stage: Stage, ca: trustme.CA) -> Iterator[Any]:
    """A client that repeats no call by itself."""
    where = f"127.0.0.1:{stage.link.ports[ADDRESS, 443]}"
    options = [
        ("grpc.ssl_target_name_override", "api.test"),
        ("grpc.default_authority", "api.test"),
        ("grpc.enable_retries", 0),
    ]
    credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    with grpc.secure_channel(where, credentials, options) as channel:
        yield pb_grpc.GreeterStub(channel)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def check(stage: Stage, *faults: str) -> list[Exchange]:
    exchanges = stage.entries(Exchange)
    assert [str(exchange.fault).partition("(")[0] for exchange in exchanges] == [*faults]
    assert [exchange.error for exchange in exchanges] == [None] * len(faults)
    assert judge(stage.window, stage.table.routes) is None
    return exchanges


def test_a_stream_that_is_reset_is_an_internal_error_and_the_next_call_works(
    stage: Stage, stub: Any
) -> None:
    stage.https("api.test", sequence(reset_stream(), grpc_server(SERVED)))
    hello = pb.Hello(name="ada")
    assert code_of(lambda: stub.Unary(hello, timeout=SECONDS)) is grpc.StatusCode.INTERNAL
    assert stub.Unary(hello, timeout=SECONDS).text == "hello ada"
    first, second = check(stage, "reset_stream", "None")
    assert first.request.content.endswith(b"ada")
    assert first.response is None
    told = outcome_text(first)
    assert told.startswith("gRPC https://api.test/greet.v1.Greeter/Unary -> reset_stream()")
    assert second.grpc.responses[0].text == "hello ada"


def test_a_reset_is_of_the_whole_connection(stage: Stage, stub: Any) -> None:
    stage.https("api.test", sequence(reset(), grpc_server(SERVED)))
    hello = pb.Hello(name="ada")
    assert code_of(lambda: stub.Unary(hello, timeout=SECONDS)) is grpc.StatusCode.UNAVAILABLE
    assert eventually(lambda: is_greeted(stub, hello))
    check(stage, "reset", "None")


def is_greeted(stub: Any, hello: Any) -> bool:
    """Whether a call is answered; its client may have given it to a connection that was ending, and not sent it."""
    try:
        text: str = stub.Unary(hello, timeout=SECONDS, wait_for_ready=True).text
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return text == "hello ada"


def test_a_deadline_passes_at_the_client_of_a_silent_call(stage: Stage, stub: Any) -> None:
    route = stage.https("api.test", silence())
    code = code_of(lambda: stub.Unary(pb.Hello(name="ada"), timeout=0.5))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    check(stage, "silence")
    assert route.call_count == 1


def test_a_call_that_waits_for_an_answer_before_it_ends_is_reset(stage: Stage, stub: Any) -> None:
    stage.https("api.test", reset_stream())
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    messages.put(pb.Hello(name="ada"))
    call = stub.Both(iter(messages.get, None), timeout=SECONDS)
    assert code_of(lambda: next(call)) is grpc.StatusCode.INTERNAL
    messages.put(None)
    (exchange,) = check(stage, "reset_stream")
    assert exchange.request.content.endswith(b"ada")


def test_a_servicer_answers_late(stage: Stage, stub: Any) -> None:
    stage.https("api.test", delayed(grpc_server(SERVED), SOON))
    assert stub.Unary(pb.Hello(name="ada"), timeout=SECONDS).text == "hello ada"
    (exchange,) = check(stage, "delayed")
    assert exchange.duration >= SOON
    assert exchange.grpc.requests[0].name == "ada"


def test_a_deadline_passes_while_an_answer_is_late(stage: Stage, stub: Any) -> None:
    route = stage.https("api.test", delayed(grpc_server(SERVED), 1000))
    code = code_of(lambda: stub.Unary(pb.Hello(name="ada"), timeout=0.5))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    check(stage, "delayed")
    assert route.call_count == 1


def test_a_late_call_ends_with_its_window(stage: Stage, stub: Any) -> None:
    stage.https("api.test", delayed(grpc_server(SERVED), 1000))
    call = stub.Unary.future(pb.Hello(name="ada"))
    assert stage.ledger.wait_for(lambda: bool(stage.ledger.pauses), SECONDS)
    stage.window.over.set()
    assert code_of(call.result) is grpc.StatusCode.CANCELLED
    (exchange,) = check(stage, "delayed")
    assert exchange.note.startswith("its window was closed before delayed(")


def test_seconds_that_cannot_be_drawn_fail_the_call(stage: Stage, stub: Any) -> None:
    stage.https("api.test", delayed(grpc_server(SERVED), lambda: -1))
    code = code_of(lambda: stub.Unary(pb.Hello(name="ada"), timeout=SECONDS))
    assert code is grpc.StatusCode.UNKNOWN
    assert isinstance(stage.only(Exchange).error, ValueError)


def test_messages_come_slowly(stage: Stage, stub: Any) -> None:
    stage.https("api.test", throttled(grpc_server(SERVED), 1000))
    before = stage.ledger.clock()
    texts = [reply.text for reply in stub.Down(pb.Hello(name="ada"), timeout=SECONDS)]
    assert texts == ["ada"] * 3
    assert stage.ledger.clock() - before >= 0.03
    check(stage, "throttled")


def test_messages_are_cut_within_the_second(stage: Stage, stub: Any) -> None:
    stage.https("api.test", truncated(grpc_server(SERVED), 12))
    call = stub.Down(pb.Hello(name="ada"), timeout=SECONDS)
    texts = []
    with pytest.raises(grpc.RpcError) as caught, contextlib.suppress(StopIteration):
        texts += [next(call).text for _ in range(3)]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    (exchange,) = check(stage, "truncated")
    assert exchange.grpc.requests[0].name == "ada"


def test_a_status_is_cut_off(stage: Stage, stub: Any) -> None:
    stage.https("api.test", truncated(grpc_server(SERVED), 1000))
    code = code_of(lambda: stub.Unary(pb.Hello(name="ada"), timeout=SECONDS))
    assert code is grpc.StatusCode.INTERNAL
    check(stage, "truncated")


class Raises(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise RuntimeError("no reply")


def test_a_connection_ends_after_a_call_whose_servicer_raises_too(
    stage: Stage, ca: trustme.CA
) -> None:
    raising = grpc_server((pb_grpc.add_GreeterServicer_to_server, Raises()))
    stage.https("api.test", disconnect(raising))
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    client = Http2Client(stage.tls(context=context))
    fields = [("content-type", "application/grpc"), ("te", "trailers")]
    answer = client.post("/greet.v1.Greeter/Unary", bytes(5), headers=fields)
    assert {**answer.headers, **answer.trailers}["grpc-status"] == "2"
    assert end_of(client.sock) == "closed"
    assert str(stage.only(Exchange).error) == "no reply"
