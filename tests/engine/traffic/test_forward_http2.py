"""Requests of containers that came by HTTP/2, forwarded by HTTP/2: nghttp2, curl and grpcio on both sides."""

from __future__ import annotations

import pytest

from pytest_egress import Egress, Request, Response, forward, port_open
from pytest_egress.targets.handle import Container
from tests.support.upstreams import succeed

PORT, GRPC_PORT = 8080, 50051
TRAILER = "x-sum: 12"


@pytest.fixture(scope="module")
def nghttpd(module_egress: Egress, http2_image: str) -> Container:
    """A server that speaks HTTP/2 without TLS, and nothing else; its responses have a trailer."""
    command = ["nghttpd", "--no-tls", "-d", "/srv/www", "--trailer", TRAILER, str(PORT)]
    return module_egress.start(http2_image, command, wait=port_open(PORT))


@pytest.fixture(scope="module")
def client(module_egress: Egress, http2_image: str) -> Container:
    return module_egress.start(http2_image, ["sleep", "infinity"])


def test_a_request_of_curl_reaches_a_server_of_http2_alone(
    egress: Egress, client: Container, nghttpd: Container
) -> None:
    route = egress.intercept_http("api.test", forward(nghttpd, PORT))
    command = ["curl", "-sS", "--http2-prior-knowledge", "-w", " %{http_version}"]
    assert succeed(client.exec([*command, "http://api.test/file"])) == "from nghttpd 2"
    call = route.assert_called_once()
    assert call.request.http_version == "2"
    assert call.response is not None
    assert call.response.headers["server"].startswith("nghttpd")
    assert call.response.content == b"from nghttpd"


def test_trailers_of_a_server_reach_the_client(
    egress: Egress, client: Container, nghttpd: Container
) -> None:
    route = egress.intercept_http("api.test", forward(nghttpd, PORT))
    assert TRAILER in succeed(client.exec("nghttp -v http://api.test/file"))
    call = route.assert_called_once()
    assert call.response is not None
    assert call.response.trailers == {"x-sum": "12"}


def test_a_handler_gets_the_answer_of_a_server_of_http2_alone(
    egress: Egress, client: Container, nghttpd: Container
) -> None:
    @egress.intercept_http("api.test")
    def shouted(request: Request) -> Response:
        answer = request.forward(nghttpd, PORT)
        return Response(answer.status_code, text=answer.text.upper(), headers={"X-Mine": "1"})

    command = ["curl", "-sS", "--http2-prior-knowledge", "http://api.test/file"]
    assert succeed(client.exec(command)) == "FROM NGHTTPD"
    assert shouted.call_count == 1


# gRPC.

SERVE = """
import grpc
from concurrent import futures

def fail(message, context):
    context.set_trailing_metadata([("reason", "none left")])
    context.abort(grpc.StatusCode.NOT_FOUND, "no such order: " + message.decode())

def chat(messages, context):
    context.send_initial_metadata([("greeting", "hello")])
    for message in messages:
        yield message.upper()

methods = {
    "Unary": grpc.unary_unary_rpc_method_handler(lambda message, context: message.upper()),
    "Collect": grpc.stream_unary_rpc_method_handler(lambda messages, context: b"".join(messages)),
    "Repeat": grpc.unary_stream_rpc_method_handler(lambda message, context: iter([message] * 3)),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", methods),))
server.add_insecure_port("0.0.0.0:50051")
server.start()
server.wait_for_termination()
"""
CALL = """
import grpc, queue
credentials = grpc.ssl_channel_credentials()
channel = grpc.{channel}
method = lambda kind, name: getattr(channel, kind)("/shop.Orders/" + name)
print(method("unary_unary", "Unary")(b"ping", timeout=30).decode())
print(len(method("unary_unary", "Unary")(b"x" * 3_000_000, timeout=30)))
print(method("stream_unary", "Collect")(iter([b"one", b"two"]), timeout=30).decode())
print([each.decode() for each in method("unary_stream", "Repeat")(b"again", timeout=30)])
said = queue.Queue()
heard = method("stream_stream", "Chat")(iter(said.get, None), timeout=30)
print(heard.initial_metadata()[0].value)
for word in (b"one", b"two"):
    said.put(word)
    print(next(heard).decode())
said.put(None)
print(list(heard), heard.code().name)
try:
    method("unary_unary", "Fail")(b"7", timeout=30)
except grpc.RpcError as error:
    print(error.code().name, error.details(), error.trailing_metadata()[0].value)
"""
HEARD = """PING
3000000
onetwo
['again', 'again', 'again']
hello
ONE
TWO
[] OK
NOT_FOUND no such order: 7 none left"""


@pytest.fixture(scope="module")
def orders(module_egress: Egress, runtimes_image: str) -> Container:
    """grpcio's own server, in a container, without TLS."""
    command = ["python3", "-c", SERVE]
    return module_egress.start(runtimes_image, command, wait=port_open(GRPC_PORT))


@pytest.mark.parametrize(
    ("method", "channel"),
    [
        ("intercept_http", 'insecure_channel("orders.test:50051")'),
        ("intercept_https", 'secure_channel("orders.test:50051", credentials)'),
    ],
    ids=["plain", "tls"],
)
def test_grpc_of_every_kind_passes_to_a_server_in_another_container(
    egress: Egress, runtimes_image: str, orders: Container, method: str, channel: str
) -> None:
    declare = getattr(egress, method)
    route = declare(f"orders.test:{GRPC_PORT}", forward(orders, GRPC_PORT))
    result = egress.run(runtimes_image, ["python3", "-c", CALL.format(channel=channel)])
    assert succeed(result) == HEARD
    assert route.call_count == 6
    assert [call.request.path for call in route.calls][-1] == "/shop.Orders/Fail"
