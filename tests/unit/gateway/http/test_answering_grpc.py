"""gRPC by grpcio's own client and the gateway's HTTP/2: servicers, and calls that no route answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import freezegun
import grpc
import pytest
import trustme
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from pytest_egress.gateway.http.replies import unproved_reply
from pytest_egress.ledger.report import attempt_lines
from pytest_egress.ledger.timeline import outcome_text
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.grpc.server import GrpcServer, grpc_server
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import decode_details
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.search.needles import checked
from pytest_egress.traffic.search.verdict import search
from tests.support.greeter import pb, pb_grpc
from tests.support.stage import ADDRESS, SECONDS, Stage

WHERE = ContextVar("WHERE", default="nowhere")
GREETER = "/greet.v1.Greeter"


class DirectedGreeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    """Does what the name in the request says."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.stopped, self.closed = threading.Event(), threading.Event()

    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "nobody is called 'abort': ü, 100 %")
        if request.name == "rich":
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.QuotaFailure(violations=[{"description": "too much"}]))
            rich = status_pb2.Status(
                code=code_pb2.RESOURCE_EXHAUSTED, message="quota", details=[detail]
            )
            context.abort_with_status(rpc_status.to_status(rich))
        if request.name == "raise":
            raise ValueError("of the servicer")
        if request.name == "slow":
            if not context.add_callback(self.stopped.set):
                self.stopped.set()  # it is over already
            assert self.stopped.wait(SECONDS)
        if request.name == "gzip":
            context.set_compression(grpc.Compression.Gzip)
        context.send_initial_metadata((("x-initial", "1"), ("x-raw-bin", b"\0\1")))
        context.set_trailing_metadata((("x-trailing", "2"),))
        self.seen["where"] = WHERE.get()
        return pb.Reply(text=f"hello {request.name}", blob=request.blob)

    def Down(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            for number in range(request.count):
                yield pb.Reply(text=str(number), blob=request.blob)
        finally:
            self.closed.set()

    def Up(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return pb.Reply(text="+".join(request.name for request in request_iterator))

    def Both(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in request_iterator:
            yield pb.Reply(text=request.name.upper())


class AsyncGreeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
    def __init__(self) -> None:
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def Unary(self, request: Any, context: Any) -> Any:
        if request.name == "slow":
            self.begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return pb.Reply(text=f"hello {request.name}")

    async def Both(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        async for request in request_iterator:
            yield pb.Reply(text=request.name.upper())


class GrpcClient:
    """grpcio's client, over TLS or in plain text."""

    def __init__(self, stage: Stage, ca: trustme.CA, kind: str) -> None:
        self.stage, self.ca, self.kind = stage, ca, kind
        self.open = contextlib.ExitStack()

    @property
    def port(self) -> int:
        return {"intercept_https": 443, "intercept_http": 80}[self.kind]

    def channel(self) -> grpc.Channel:
        """A channel to the gateway, as a target has it that dials an address and names a host."""
        where = f"127.0.0.1:{self.stage.link.ports[ADDRESS, self.port]}"
        options = [
            ("grpc.ssl_target_name_override", "api.test"),
            ("grpc.default_authority", "api.test"),
        ]
        if self.kind == "intercept_http":
            channel = grpc.insecure_channel(where, options[1:])
        else:
            credentials = grpc.ssl_channel_credentials(self.ca.cert_pem.bytes())
            channel = grpc.secure_channel(where, credentials, options)
        return self.open.enter_context(channel)

    def route(self, answer: Any, **options: Any) -> Any:
        return self.stage.route(self.kind, "api.test", answer, **options)

    def stub(self) -> Any:
        return pb_grpc.GreeterStub(self.channel())


@pytest.fixture(params=["intercept_https", "intercept_http"])
def client(stage: Stage, ca: trustme.CA, request: pytest.FixtureRequest) -> Iterator[GrpcClient]:
    client = GrpcClient(stage, ca, request.param)
    with client.open:
        yield client


@pytest.fixture
def secure(stage: Stage, ca: trustme.CA) -> Iterator[GrpcClient]:
    client = GrpcClient(stage, ca, "intercept_https")
    with client.open:
        yield client


def served(servicer: Any) -> GrpcServer:
    return grpc_server((pb_grpc.add_GreeterServicer_to_server, servicer))


def error_of(call: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_a_call_is_answered_with_its_metadata_and_is_in_the_ledger(client: GrpcClient) -> None:
    greeter = DirectedGreeter()
    WHERE.set("the test")
    route = client.route(served(greeter))
    WHERE.set("elsewhere")
    metadata = [("x-token", "abc"), ("x-in-bin", b"\xff\0")]
    reply, call = client.stub().Unary.with_call(pb.Hello(name="you"), metadata=metadata)
    assert reply.text == "hello you"
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["x-initial"], initial["x-raw-bin"]) == ("1", b"\0\1")
    assert trailing["x-trailing"] == "2"
    assert greeter.seen["where"] == "the test"
    (exchange,) = route.calls  # the client knows no earlier than the test
    kept = exchange.grpc
    assert (kept.service, kept.method, kept.status) == ("greet.v1.Greeter", "Unary", "OK")
    assert (kept.request, kept.response.text) == (pb.Hello(name="you"), "hello you")
    assert {*metadata} <= {*kept.metadata}
    assert exchange.request.http_version == "2"
    assert exchange.response.status_code == 200
    with pytest.raises(RuntimeError, match=r"is not kept: call.grpc.responses has its messages"):
        _ = exchange.response.text


def test_an_abort_and_a_rich_error_reach_the_client(client: GrpcClient) -> None:
    route = client.route(served(DirectedGreeter()))
    stub = client.stub()
    error = error_of(lambda: stub.Unary(pb.Hello(name="abort")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "nobody is called 'abort': ü, 100 %"
    status = rpc_status.from_call(error_of(lambda: stub.Unary(pb.Hello(name="rich"))))
    quota = error_details_pb2.QuotaFailure()
    assert status is not None
    assert status.details[0].Unpack(quota)
    assert quota.violations[0].description == "too much"
    assert [call.grpc.status for call in route.calls] == ["NOT_FOUND", "RESOURCE_EXHAUSTED"]


def test_streams_go_each_way_and_both_at_once(client: GrpcClient) -> None:
    client.route(served(DirectedGreeter()))
    stub = client.stub()
    assert [reply.text for reply in stub.Down(pb.Hello(count=5))] == list("01234")
    assert stub.Up(pb.Hello(name=name) for name in "abc").text == "a+b+c"
    turn, heard = threading.Semaphore(1), []

    def asks() -> Iterator[Any]:
        for word in ("one", "two"):
            assert turn.acquire(timeout=SECONDS)
            yield pb.Hello(name=word)

    for reply in stub.Both(asks()):
        heard.append(reply.text)
        turn.release()  # the next request is made of this answer
    assert heard == ["ONE", "TWO"]


def test_async_servicers_answer_streams_too(client: GrpcClient) -> None:
    greeter = AsyncGreeter()
    route = client.route(served(greeter))
    stub = client.stub()
    assert stub.Unary(pb.Hello(name="you")).text == "hello you"
    assert [r.text for r in stub.Both(pb.Hello(name=name) for name in "ab")] == ["A", "B"]
    future = stub.Unary.future(pb.Hello(name="slow"))
    assert greeter.begun.wait(SECONDS)
    future.cancel()
    assert greeter.cancelled.wait(SECONDS)
    assert route.wait_for_call(3).grpc.status == "CANCELLED"
    route.release()


def test_messages_are_large_and_compressed_within_the_limit(client: GrpcClient) -> None:
    client.route(served(DirectedGreeter()))
    stub, big = client.stub(), bytes(3_000_000)
    reply = stub.Unary(pb.Hello(name="gzip", blob=big), compression=grpc.Compression.Gzip)
    assert reply.blob == big
    error = error_of(lambda: stub.Unary(pb.Hello(blob=bytes(5_000_000))))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    bomb = pb.Hello(blob=bytes(50_000_000))
    error = error_of(lambda: stub.Unary(bomb, compression=grpc.Compression.Gzip))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "inflates to more" in error.details()


def test_a_deadline_ends_a_call_whose_servicer_is_slow(client: GrpcClient) -> None:
    greeter = DirectedGreeter()
    route = client.route(served(greeter))
    stub = client.stub()
    stub.Unary(pb.Hello(name="you"))  # so that the connection is there
    error = error_of(lambda: stub.Unary(pb.Hello(name="slow"), timeout=1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert greeter.stopped.wait(SECONDS)
    assert route.wait_for_call(2).grpc.status in (
        "DEADLINE_EXCEEDED",
        "CANCELLED",
    )  # whose clock is first
    route.release()


def test_a_client_that_cancels_stops_the_servicer(client: GrpcClient) -> None:
    greeter = DirectedGreeter()
    route = client.route(served(greeter))
    stub = client.stub()
    replies = stub.Down(
        pb.Hello(count=1_000_000, blob=bytes(100_000))
    )  # 100 GB: its window holds it back
    next(replies)
    replies.cancel()
    assert greeter.closed.wait(SECONDS)
    assert route.wait_for_call().grpc.status == "CANCELLED"
    assert route.calls[0].error is None


def test_health_and_reflection_answer_unmodified(secure: GrpcClient) -> None:
    server = served(DirectedGreeter())
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    reflection.enable_server_reflection(["greet.v1.Greeter", reflection.SERVICE_NAME], server)
    secure.route(server)
    channel = secure.channel()
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert "greet.v1.Greeter" in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_an_error_of_the_servicer_is_the_entrys_and_its_client_is_told(secure: GrpcClient) -> None:
    route = secure.route(served(DirectedGreeter()))
    error = error_of(lambda: secure.stub().Unary(pb.Hello(name="raise")))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "ValueError: of the servicer" in error.details()
    exchange = secure.stage.only(Exchange)
    assert (exchange.route, exchange.outcome, route.calls) == (
        route,
        "routed",
        [],
    )  # it did not answer
    assert isinstance(exchange.error, ValueError)
    assert traceback.extract_tb(exchange.error.__traceback__)[-1].name == "Unary"
    line = outcome_text(exchange)
    assert line.startswith(f"gRPC https://api.test{GREETER}/Unary -> UNKNOWN in ")
    assert "ms: pytest-egress: the servicer raised ValueError: of the servicer" in line


def test_a_method_that_nobody_wrote_is_unrouted_and_gives_its_turn_back(secure: GrpcClient) -> None:
    route = secure.route(served(pb_grpc.GreeterServicer()), times=1)
    for _ in range(2):
        error = error_of(lambda: secure.stub().Unary(pb.Hello()))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "def Unary(self, request, context)" in error.details()
    assert route.calls == []
    entries = secure.stage.entries(Exchange)
    assert [entry.outcome for entry in entries] == ["unrouted", "unrouted"]
    lines = attempt_lines(entries[0], 1)
    assert lines[0] == f"  gRPC https://api.test{GREETER}/Unary"
    assert "To answer it: def Unary(self, request, context)" in "\n".join(lines)


def test_a_call_that_no_route_claims_tells_its_client_so(client: GrpcClient) -> None:
    client.route({}, path="/other")
    error = error_of(lambda: client.stub().Unary(pb.Hello()))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    scheme = "https" if client.port == 443 else "http"
    assert error.details() == "\n".join(
        [
            f"pytest-egress: no route answers gRPC {scheme}://api.test{GREETER}/Unary",
            f"nearest route: {client.kind}(\"api.test\", path='/other')",
            "    declared at test_it.py:7",
            f"    path: '{GREETER}/Unary' is not '/other'",
            f'to answer it: egress.{client.kind}("api.test", '
            "grpc_server((add_GreeterServicer_to_server, Greeter())))",
        ]
    )
    entry = client.stage.only(Exchange)
    assert (entry.outcome, entry.grpc.status) == ("unrouted", "UNIMPLEMENTED")


def test_a_stream_that_no_route_claims_is_told_before_its_end(client: GrpcClient) -> None:
    told = threading.Event()

    def asks() -> Iterator[Any]:
        yield pb.Hello(name="one")
        assert told.wait(SECONDS)  # nothing more, and no end, until there is an answer

    error = error_of(lambda: list(client.stub().Both(asks())))
    told.set()
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (
        f"no route answers gRPC {client.stage.only(Exchange).request.shown_url}" in error.details()
    )


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("by", ["a route", "the policy"])
def test_a_blocked_stream_is_told_before_its_end_and_what_came_soon_can_be_searched(
    secure: GrpcClient, by: str, ends: bool
) -> None:
    if by == "a route":
        secure.stage.route("block", "api.test")
    else:
        secure.stage.window.policy = "block"
    told = threading.Event()

    def asks() -> Iterator[Any]:
        yield pb.Hello(name="one")
        assert ends or told.wait(SECONDS)

    error = error_of(lambda: list(secure.stub().Both(asks())))
    told.set()
    assert "is blocked by" in error.details()
    call = secure.stage.only(Exchange)
    assert (call.outcome, call.request.is_cut) == ("blocked", not ends)
    assert search([call], checked(("one",)))
    missing = search([call], checked(("two",)))
    assert missing is None if ends else "may have more messages than were read" in str(missing)


def test_a_blocked_call_tells_its_client_so(secure: GrpcClient) -> None:
    secure.stage.route("block", "api.test")
    error = error_of(lambda: secure.stub().Unary(pb.Hello()))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"gRPC https://api.test{GREETER}/Unary is blocked by" in error.details()
    assert secure.stage.only(Exchange).outcome == "blocked"


def test_a_plain_handler_that_raises_is_a_status_too(secure: GrpcClient) -> None:
    def fail(request: Any) -> None:
        raise ValueError("of the handler")

    secure.route(fail)
    error = error_of(lambda: secure.stub().Unary(pb.Hello()))
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "raised ValueError: of the handler" in error.details()


def test_a_plain_handler_may_answer_a_call_by_hand(secure: GrpcClient) -> None:
    fields = {"content-type": "application/grpc", "grpc-status": "7", "grpc-message": "by%20hand"}
    route = secure.route(lambda request: Response(headers=fields))
    error = error_of(lambda: secure.stub().Unary(pb.Hello()))
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "by hand")
    assert (route.calls[0].grpc.status, route.calls[0].grpc.details) == (
        "PERMISSION_DENIED",
        "by hand",
    )
    assert "/Unary -> PERMISSION_DENIED in " in outcome_text(route.calls[0])
    assert outcome_text(route.calls[0]).endswith(" ms: by hand")


def test_a_route_takes_calls_by_path_metadata_and_turn(secure: GrpcClient) -> None:
    by_path = secure.route(
        served(DirectedGreeter()), path=f"{GREETER}/*", headers={"x-token": "abc"}
    )
    stub = secure.stub()
    assert stub.Unary(pb.Hello(name="you"), metadata=[("x-token", "abc")]).text == "hello you"
    error = error_of(lambda: stub.Unary(pb.Hello(), metadata=[("x-token", "wrong")]))
    assert "headers['x-token']" in error.details()
    assert by_path.call_count == 1
    down = Response(headers={"content-type": "application/grpc", "grpc-status": "14"})
    by_path.respond(sequence(down, served(DirectedGreeter())))
    error = error_of(lambda: stub.Unary(pb.Hello(), metadata=[("x-token", "abc")]))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert stub.Unary(pb.Hello(name="you"), metadata=[("x-token", "abc")]).text == "hello you"


def test_a_plain_request_to_a_grpc_server_is_unrouted(secure: GrpcClient) -> None:
    secure.route(served(DirectedGreeter()))
    sock = secure.stage.tls()
    sock.sendall(b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
    assert sock.recv(65536).startswith(b"HTTP/1.1 415 ")
    entry = secure.stage.only(Exchange)
    assert entry.outcome == "unrouted"
    assert "GET over HTTP/1.1 with no Content-Type" in entry.note


def test_calls_are_answered_while_the_tests_clock_is_frozen(secure: GrpcClient) -> None:
    secure.route(served(DirectedGreeter()))
    stub = secure.stub()
    with freezegun.freeze_time("2020-01-01"):  # which the client's own deadlines would be in
        assert stub.Unary(pb.Hello(name="you")).text == "hello you"


def test_secrets_in_a_status_are_masked_in_the_timeline(secure: GrpcClient) -> None:
    class Refusing(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
        def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "token=sk_live_0123456789abcdef is old")

    route = secure.route(served(Refusing()))
    error_of(lambda: secure.stub().Unary(pb.Hello()))
    line = outcome_text(route.calls[0])
    assert "-> UNAUTHENTICATED in " in line
    assert line.endswith(" ms: token=sk_l... (24 characters) is old")


def test_many_calls_of_one_channel_are_answered_at_once(secure: GrpcClient) -> None:
    everybody = threading.Barrier(60)

    class Meeting(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
        def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
            everybody.wait(SECONDS)  # breaks unless all are there
            return pb.Reply(text=request.name)

    route = secure.route(served(Meeting()))
    stub = secure.stub()
    futures = [stub.Unary.future(pb.Hello(name=str(n)), timeout=60) for n in range(60)]
    assert [future.result().text for future in futures] == [str(n) for n in range(60)]
    assert {call.grpc.request.name for call in route.calls} == {str(n) for n in range(60)}
    route.release()


@pytest.mark.parametrize("body", [{"json": {}}, {"content": b""}])
def test_a_route_of_a_grpc_server_takes_no_condition_on_the_body(
    secure: GrpcClient, body: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(body))}= needs the whole body"):
        secure.route(served(DirectedGreeter()), **body)


def test_a_call_that_needs_another_connection_ends_this_one(secure: GrpcClient) -> None:
    fields = {"content-type": "application/grpc"}
    request = Request(
        method="POST",
        scheme="https",
        host="api.test",
        port=443,
        path=f"{GREETER}/Unary",
        headers=Headers(fields),
        http_version="2",
    )
    about: dict[str, Any] = {"container": "one", "started": 0.0, "host": "api.test", "port": 443}
    entry = Exchange(**about, outcome="unrouted", note="it has no certificate", request=request)
    reply = unproved_reply(entry)
    assert reply.headers["connection"] == "close"
    assert reply.headers["grpc-status"] == "12"
    assert decode_details(reply.headers["grpc-message"]).endswith("it has no certificate")
