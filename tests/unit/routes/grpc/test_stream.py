"""The messages of one call: what is kept of them, and the order in which things are sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pytest_egress.base.account as account
from pytest_egress.routes.grpc.server import GrpcServer, grpc_server
from pytest_egress.routes.grpc.stream import MESSAGE_BYTES, CallEndedError, CallStream
from pytest_egress.traffic.grpc import Code, frame
from pytest_egress.traffic.http.headers import NO_FIELDS
from pytest_egress.traffic.http.request import GivenBody
from tests.support.greeter import pb, pb_grpc
from tests.support.grpc_calls import SECONDS, Call, pairs

DOWN, BOTH = "/greet.v1.Greeter/Down", "/greet.v1.Greeter/Both"


def server_of(**methods: Any) -> GrpcServer:
    servicer = type("Greeter", (pb_grpc.GreeterServicer,), methods)()
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, servicer))


@pytest.fixture
def call() -> Call:
    return Call(grpc_server(), BOTH)


@pytest.fixture
def stream(call: Call) -> CallStream:
    return CallStream(call.grpc, call.duplex, call.conversation)


def test_messages_count_with_all_that_their_test_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(self: object, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in request_iterator:
            yield pb.Reply(blob=request.blob)

    call = Call(server_of(Both=both), BOTH)
    monkeypatch.setattr(account, "MAX_HELD_BYTES", 2 * (1000 + MESSAGE_BYTES) + 1100)
    call.start(*[pb.Hello(blob=bytes(1000))] * 5).join()
    assert len(call.heard(pb.Reply)) == 5
    assert call.conversation.account.lost["messages of gRPC"] > 7000
    assert len(call.grpc.requests) + len(call.grpc.responses) == 2


def test_what_a_servicer_does_not_take_is_searched_as_it_comes() -> None:
    def up(self: object, request_iterator: Iterator[Any], context: Any) -> Any:
        return pb.Reply(text=next(request_iterator).name)

    class Noted(GivenBody):
        def searched(self, receive: Callable[[], bytes]) -> bytes:
            fed.append(piece := receive())
            return piece

    fed: list[bytes] = []
    call = Call(server_of(Up=up), "/greet.v1.Greeter/Up")
    object.__setattr__(call.conversation.exchange.request, "_body", Noted(b"", NO_FIELDS, None))
    both = frame(pb.Hello(name="one").SerializeToString()) + frame(b"\1 is no Hello")
    call.start(both).join()
    assert len(call.grpc.requests) == 1
    assert fed == [both]


def test_messages_without_a_byte_count_as_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(self: object, request_iterator: Iterator[Any], context: Any) -> Any:
        return pb.Reply(text=str(sum(1 for _ in request_iterator)))

    monkeypatch.setattr(account, "MAX_HELD_BYTES", 10 * MESSAGE_BYTES + 100)
    call = Call(server_of(Up=count), "/greet.v1.Greeter/Up")
    call.start(*[pb.Hello()] * 50).join()
    assert len(call.grpc.requests) == 10
    assert call.conversation.account.lost["messages of gRPC"] >= 40 * MESSAGE_BYTES


def test_a_message_that_does_not_come_whole_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(self: object, request_iterator: Iterator[Any], context: Any) -> Any:
        return pb.Reply(text=str(sum(1 for _ in request_iterator)))

    monkeypatch.setattr(account, "MAX_HELD_BYTES", 1000)
    call = Call(server_of(Up=count), "/greet.v1.Greeter/Up")
    call.duplex.pieces.put(frame(bytes(2000))[:1500])
    call.start().join()
    assert call.grpc.status == "RESOURCE_EXHAUSTED"
    assert call.conversation.account.held == 0
    assert call.conversation.account.lost["messages of gRPC"] == 1500


def test_the_head_goes_out_once_and_says_what_is_taken(call: Call, stream: CallStream) -> None:
    stream.send_head((("x-a", "1"),))
    stream.send_head((("x-b", "2"),))
    stream.write(b"message", None)
    assert pairs(call.duplex.head, "content-type", "grpc-accept-encoding", "x-a", "x-b") == [
        ("content-type", "application/grpc"),
        ("grpc-accept-encoding", "identity,gzip,deflate"),
        ("x-a", "1"),
    ]
    assert call.duplex.sent.get_nowait() == b"\0\0\0\0\7message"


def test_a_status_without_a_message_is_the_head_alone(call: Call, stream: CallStream) -> None:
    assert stream.end(Code.NOT_FOUND, "no", (("x-t", "1"),))
    assert pairs(call.duplex.head, "grpc-status", "grpc-message", "x-t") == [
        ("grpc-status", "5"),
        ("grpc-message", "no"),
        ("x-t", "1"),
    ]
    assert call.duplex.trailers_sent is None


def test_a_call_is_counted_once_and_before_its_client_knows(call: Call, stream: CallStream) -> None:
    assert stream.end(Code.OK, "")
    assert not stream.end(Code.ABORTED, "later")
    assert not stream.lose()
    assert call.conversation.counted == [("OK", False)]
    assert call.duplex.finished.is_set()


@pytest.mark.parametrize("act", ["write", "send_head"])
def test_nothing_is_sent_after_the_end(stream: CallStream, act: str) -> None:
    stream.end(Code.OK, "")
    with pytest.raises(CallEndedError, match="the call is over"):
        stream.write(b"", None) if act == "write" else stream.send_head()


def test_a_client_that_left_gets_nothing_and_its_call_is_cancelled(
    call: Call, stream: CallStream
) -> None:
    call.duplex.leave()
    with pytest.raises(CallEndedError, match="reset by the client"):
        stream.write(b"", None)
    with pytest.raises(CallEndedError, match="reset by the client"):
        next(stream.read(None))
    assert stream.end(Code.OK, "")
    assert stream.lost
    assert call.grpc.code is Code.CANCELLED
    assert call.duplex.head is None


def test_a_reader_notices_an_end_by_another_thread(stream: CallStream) -> None:
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(CallEndedError, match="the call is over"):
            next(stream.read(None))
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    stream.end(Code.DEADLINE_EXCEEDED, "")
    assert ended.wait(SECONDS)
    thread.join(SECONDS)


def test_a_message_of_a_method_without_types_is_bytes(stream: CallStream) -> None:
    with pytest.raises(TypeError, match=f"the servicer answered {BOTH} with 'text', which cannot"):
        stream.write("text", None)
