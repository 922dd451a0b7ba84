"""`grpc_server`: what it takes, which method it finds, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pytest_egress.routes.grpc.server import grpc_server
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from tests.support import grpc_calls
from tests.support.greeter import pb, pb_grpc


class Greeter(pb_grpc.GreeterServicer):  # type: ignore[misc]  # made by protoc, without types
    def Unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.Reply(text=f"hello {request.name}")


REGISTRATION = (pb_grpc.add_GreeterServicer_to_server, Greeter())


def test_it_stands_where_generated_code_wants_a_server() -> None:
    server = grpc_server()
    pb_grpc.add_GreeterServicer_to_server(Greeter(), server)
    call = grpc_calls.served_call(server, "/greet.v1.Greeter/Unary", pb.Hello(name="you"))
    assert call.hear(pb.Reply).text == "hello you"
    assert call.status == ("OK", "")


def test_a_pair_is_registered_at_once_and_several_are() -> None:
    servicer = health.HealthServicer()
    server = grpc_server(REGISTRATION, (health_pb2_grpc.add_HealthServicer_to_server, servicer))
    assert repr(server) == "grpc_server(greet.v1.Greeter, grpc.health.v1.Health)"
    call = grpc_calls.served_call(
        server, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest()
    )
    assert call.hear(health_pb2.HealthCheckResponse).status == 1


def test_a_server_that_older_generated_code_fills_answers_too() -> None:
    server = grpc_server()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(
            Greeter().Unary, pb.Hello.FromString, pb.Reply.SerializeToString
        )
    }
    handler = grpc.method_handlers_generic_handler("greet.v1.Greeter", methods)
    server.add_generic_rpc_handlers((handler,))
    call = grpc_calls.served_call(server, "/greet.v1.Greeter/Unary", pb.Hello(name="you"))
    assert call.hear(pb.Reply).text == "hello you"
    assert repr(server) == "grpc_server(greet.v1.Greeter)"


@pytest.mark.parametrize(
    ("registration", "text"),
    [
        (Greeter(), "one that is registered later needs none: add_PaymentsServicer_to_server"),
        ((Greeter(), pb_grpc.add_GreeterServicer_to_server), "a pair of a generated function"),
        ((pb_grpc.add_GreeterServicer_to_server,), "a pair of a generated function"),
        (
            (pb_grpc.add_GreeterServicer_to_server, Greeter),
            r"Greeter is the class of one: write Greeter\(\)",
        ),
    ],
)
def test_what_is_no_registration_is_refused(registration: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        grpc_server(registration)


def test_it_has_no_port_and_says_where_it_goes() -> None:
    server = grpc_server()
    for refuse in (
        lambda: server.add_insecure_port("[::]:50051"),
        lambda: server.add_secure_port("[::]:50051", grpc.local_server_credentials()),
        server.start,
        lambda: server.stop(None),
        server.wait_for_termination,
    ):
        with pytest.raises(
            TypeError, match=r'egress\.intercept_https\("payments\.test:50051", server\)'
        ):
            refuse()


def request(**changes: Any) -> Request:
    options: dict[str, Any] = {
        "method": "POST",
        "path": "/greet.v1.Greeter/Unary",
        "http_version": "2",
    }
    return Request(scheme="https", host="greeter.test", port=443, **{**options, **changes})


@pytest.mark.parametrize(
    "content_type",
    ["application/grpc", "application/grpc+proto", "Application/GRPC; x=y"],
)
def test_a_call_is_known_by_its_content_type(content_type: str) -> None:
    headers = Headers({"Content-Type": content_type})
    assert grpc_server().refusal(request(headers=headers)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "GET"}, "GET over HTTP/2 with Content-Type 'application/grpc'"),
        ({"headers": Headers()}, "POST over HTTP/2 with no Content-Type"),
        (
            {"headers": Headers({"content-type": "application/grpc-web+proto"})},
            "POST over HTTP/2 with Content-Type 'application/grpc-web+proto'",
        ),
        ({"http_version": "1.1"}, "POST over HTTP/1.1 with Content-Type 'application/grpc'"),
    ],
)
def test_a_request_that_is_no_call_is_refused_with_415(changes: dict[str, Any], said: str) -> None:
    headers = Headers({"content-type": "application/grpc"})
    refused = grpc_server(REGISTRATION).refusal(request(**{"headers": headers, **changes}))
    assert refused is not None
    response, note = refused
    assert response.status_code == 415
    assert said in note
    assert "declare a route with path= after that of the grpc_server()" in note
    assert note in response.text


def test_a_method_that_the_service_does_not_have_is_unrouted() -> None:
    call = grpc_calls.served_call(grpc_server(REGISTRATION), "/greet.v1.Greeter/None", pb.Hello())
    note = "greet.v1.Greeter has no method 'None'. It has Both, Down, Unary, Up"
    assert call.conversation.rejected == [note]
    assert call.status == ("UNIMPLEMENTED", f"pytest-egress: {note}")
    assert call.grpc.status == "UNIMPLEMENTED"
    assert call.error is None


@pytest.mark.parametrize(
    ("registrations", "has"), [([], "It has none"), ([REGISTRATION], "It has greet.v1.Greeter")]
)
def test_a_service_that_nobody_registered_is_unrouted(registrations: Any, has: str) -> None:
    call = grpc_calls.served_call(
        grpc_server(*registrations), "/shop.v1.Payments/Charge", pb.Hello()
    )
    (note,) = call.conversation.rejected
    assert note == (
        f"the grpc_server() has no servicer of shop.v1.Payments, which the call is for. {has}. "
        "To add one: add_PaymentsServicer_to_server(..., server)"
    )
    assert call.conversation.counted == [("UNIMPLEMENTED", False)]


@pytest.mark.parametrize("path", ["/", "/Charge"])
def test_a_path_that_names_no_method_is_unrouted(path: str) -> None:
    call = grpc_calls.served_call(grpc_server(REGISTRATION), path, pb.Hello())
    (note,) = call.conversation.rejected
    assert note == (
        f"the path {path!r} names no method: calls of gRPC are for '/package.Service/Method'"
    )


def test_calling_it_as_a_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="answers as a route's answer"):
        grpc_server()(request())


def test_grpcio_is_imported_by_the_first_server_alone() -> None:
    script = """
import sys
import pytest_egress.plugin
from pytest_egress import grpc_server
assert "grpc" not in sys.modules
grpc_server()
assert "grpc" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_grpcio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ImportError, match="pip install grpcio"):
        grpc_server()
