"""gRPC in containers: grpcio, grpc-js and grpc-go call a servicer of the test, over TLS and in plain text."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from pytest_egress import Egress, HandlerError, UnroutedError, forward, grpc_server, port_open
from pytest_egress.ledger.timeline import outcome_text
from tests.support.greeter import pb, pb_grpc

SECONDS = 30.0
UNARY = "/greet.v1.Greeter/Unary"
CLIENTS = {
    "grpcio": ["python", "client.py"],
    "grpc-js": ["node", "client.js"],
    "grpc-go": ["client"],
}


class ObedientGreeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    """Does what the name in the request says."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "nobody, 100 % sure: ü")
        if request.name == "rich":
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.QuotaFailure(violations=[{"description": "too much"}]))
            rich = status_pb2.Status(
                code=code_pb2.RESOURCE_EXHAUSTED, message="q", details=[detail]
            )
            context.abort_with_status(rpc_status.to_status(rich))
        if request.name == "slow":
            over = threading.Event()
            assert not context.add_callback(over.set) or over.wait(SECONDS)
        context.send_initial_metadata((("x-initial", "1"), ("x-raw-bin", b"\0\1")))
        context.set_trailing_metadata((("x-trailing", "2"),))
        return pb.Reply(text=f"hello {request.name}", blob=request.blob)

    def Down(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            for number in range(request.count):
                yield pb.Reply(text=str(number))
        finally:
            if request.name == "endless":
                self.closed.set()

    def Up(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return pb.Reply(text="+".join(request.name for request in request_iterator))

    def Both(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in request_iterator:
            yield pb.Reply(text=request.name.upper())


class AwaitedGreeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
    async def Unary(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        return pb.Reply(text=f"hello {request.name}")


RESULTS = {
    "unary": ["hello you", "1", "0001", "2"],
    "down": ["0", "1", "2"],
    "up": "a+b+c",
    "both": ["ONE", "TWO"],
    "abort": ["NOT_FOUND", "nobody, 100 % sure: ü"],
    "rich": ["RESOURCE_EXHAUSTED", True],
    "deadline": "DEADLINE_EXCEEDED",
    "cancel": "CANCELLED",
    "big": 3_000_000,
    "gzip": 3_000_000,
    "too big": "RESOURCE_EXHAUSTED",
    "health": 1,
    "reflection": [
        "greet.v1.Greeter",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ],
}


@pytest.mark.parametrize("kind", ["tls", "plain"])
@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
def test_a_client_calls_a_servicer_in_every_way(
    egress: Egress, grpc_image: str, client: list[str], kind: str
) -> None:
    greeter = ObedientGreeter()
    server = grpc_server(
        (pb_grpc.add_GreeterServicer_to_server, greeter),
        (health_pb2_grpc.add_HealthServicer_to_server, health.HealthServicer()),
    )
    reflection.enable_server_reflection([*server.services, reflection.SERVICE_NAME], server)
    intercept = egress.intercept_http if kind == "plain" else egress.intercept_https
    route = intercept("greeter.test:50051", server)
    plain = ["plain"] if kind == "plain" else []
    result = egress.run(grpc_image, [*client, "greeter.test:50051", *plain])
    told = json.loads(result.stdout)
    assert told == {name: RESULTS[name] for name in told}
    assert {*RESULTS} - {*told} <= {"gzip", "reflection"}
    assert greeter.closed.wait(SECONDS)  # the servicer notices that its client has cancelled
    assert {call.request.http_version for call in route.calls} == {"2"}
    assert all(call.grpc.status is not None for call in route.calls)


@pytest.mark.intercept_https(
    "greeter.test:50051", grpc_server((pb_grpc.add_GreeterServicer_to_server, AwaitedGreeter()))
)
@pytest.mark.parametrize("name", ["one", "other"])
def test_a_marker_declares_one_server_for_each_of_its_tests(
    egress: Egress, grpc_image: str, name: str
) -> None:
    call = (
        "import grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc; "
        "channel = grpc.secure_channel('greeter.test:50051', grpc.ssl_channel_credentials()); "
        f"print(pb_grpc.GreeterStub(channel).Unary(pb.Hello(name={name!r}), timeout=30).text)"
    )
    assert egress.run(grpc_image, ["python", "-c", call]).stdout == f"hello {name}\n"
    assert [call.grpc.status for call in egress.exchanges if call.grpc] == ["OK"]


def test_calls_and_metadata_are_asserted_on(egress: Egress, grpc_image: str) -> None:
    route = egress.intercept_https(
        "greeter.test:50051",
        grpc_server((pb_grpc.add_GreeterServicer_to_server, ObedientGreeter())),
    )
    call = """
import grpc, greeter_pb2 as pb, greeter_pb2_grpc as pb_grpc
channel = grpc.secure_channel("greeter.test:50051", grpc.ssl_channel_credentials())
print(pb_grpc.GreeterStub(channel).Unary(pb.Hello(name="you"), metadata=[("x-tenant", "7")]).text)
"""
    assert egress.run(grpc_image, ["python", "-c", call]).stdout == "hello you\n"
    made = route.assert_called_once()
    assert (made.grpc.method, made.grpc.status) == ("Unary", "OK")
    assert made.grpc.request == pb.Hello(name="you")
    assert ("x-tenant", "7") in made.grpc.metadata
    assert str(made) == f"gRPC https://greeter.test:50051{UNARY}"


CALL = """
import grpc
channel = grpc.{channel}
try:
    print(channel.unary_unary("/shop.Orders/Get")(b"ping", timeout=20).decode())
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""
CHANNELS = {
    "intercept_http": 'insecure_channel("api.test:50051")',
    "intercept_https": 'secure_channel("api.test:50051", grpc.ssl_channel_credentials())',
}


@pytest.mark.parametrize("kind", CHANNELS)
def test_a_call_that_nobody_declared_is_told_a_line_that_answers_it(
    egress: Egress, grpc_image: str, kind: str
) -> None:
    said = []

    def call() -> None:
        with Egress() as other:
            said.append(
                other.run(
                    grpc_image, ["python", "-c", CALL.format(channel=CHANNELS[kind])], check=False
                )
            )

    with pytest.raises(UnroutedError) as caught:
        call()
    line = f'egress.{kind}("api.test:50051", grpc_server((add_OrdersServicer_to_server, Orders())))'
    assert f"to answer it: {line}" in str(caught.value)
    assert said[0].stdout.startswith("UNIMPLEMENTED pytest-egress: no route answers gRPC ")
    assert line in said[0].stdout


def test_what_a_servicer_raises_fails_the_test(grpc_image: str) -> None:
    class Failing(pb_grpc.GreeterServicer):  # type: ignore[misc]  # likewise
        def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
            raise LookupError("no such greeting")

    def run() -> None:
        with Egress() as egress:
            server = grpc_server((pb_grpc.add_GreeterServicer_to_server, Failing()))
            egress.intercept_https("greeter.test:50051", server)
            egress.run(grpc_image, ["python", "client.py", "greeter.test:50051"], check=False)

    with pytest.raises((HandlerError, LookupError), match="no such greeting"):
        run()


SERVE = """
import grpc
from concurrent import futures
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"pong of " + request)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("127.0.0.1:50051")
server.start()
server.wait_for_termination()
"""


def test_a_server_in_a_container_answers_by_bytes(egress: Egress, grpc_image: str) -> None:
    server = egress.start(grpc_image, ["python", "-c", SERVE], wait=port_open(50051))
    route = egress.intercept_tcp("api.test:50051", forward(server, 50051))
    call = ["python", "-c", CALL.format(channel=CHANNELS["intercept_http"])]
    assert egress.run(grpc_image, call).stdout == "pong of ping\n"
    assert route.called


def test_the_timeline_speaks_of_methods_and_statuses(egress: Egress, grpc_image: str) -> None:
    server = grpc_server((pb_grpc.add_GreeterServicer_to_server, ObedientGreeter()))
    egress.intercept_https("greeter.test:50051", server)
    call = CALL.format(
        channel='secure_channel("greeter.test:50051", grpc.ssl_channel_credentials())'
    )
    call = call.replace("/shop.Orders/Get", UNARY).replace('b"ping"', r'b"\n\5abort"')
    egress.run(grpc_image, ["python", "-c", call], check=False)
    (exchange,) = egress.exchanges
    line = outcome_text(exchange)
    assert line.startswith(f"gRPC https://greeter.test:50051{UNARY} -> NOT_FOUND in ")
    assert line.endswith(" ms: nobody, 100 % sure: ü")
