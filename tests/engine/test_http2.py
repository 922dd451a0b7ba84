"""A client of gRPC in a container is told what answers it."""

from __future__ import annotations

import re

import pytest
import trustme

from pytest_egress import Egress, NeverCalledError, UnroutedError, forward, port_open
from pytest_egress.targets.handle import Container

# gRPC, told and following.

CALL = """
import grpc
credentials = grpc.ssl_channel_credentials()
channel = grpc.{channel}
try:
    print(channel.unary_unary("/shop.Orders/Get")(b"ping", timeout=20).decode())
except grpc.RpcError as error:
    print(error.details())
"""
SERVE = """
import grpc, os
from concurrent import futures
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"pong of " + request)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Handler(),))
if os.path.exists("/own/key"):
    pair = open("/own/key", "rb").read(), open("/own/chain", "rb").read()
    server.add_secure_port("127.0.0.1:50051", grpc.ssl_server_credentials([pair]))
else:
    server.add_insecure_port("127.0.0.1:50051")
server.start()
server.wait_for_termination()
"""
CHANNELS = {
    "plain": 'insecure_channel("api.test:50051")',
    "tls": 'secure_channel("api.test:50051", credentials)',
}


def served(egress: Egress, image: str, kind: str, ca: trustme.CA) -> Container:
    """A server of gRPC."""
    leaf = ca.issue_cert("api.test")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    own = {"/own/key": leaf.private_key_pem.bytes(), "/own/chain": chain} if kind == "tls" else {}
    return egress.start(image, ["python3", "-c", SERVE], files=own, wait=port_open(50051))


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("declared", [None, "intercept_https"])
def test_grpc_is_told_a_line_that_answers_it(
    egress: Egress, egress_ca: trustme.CA, runtimes_image: str, kind: str, declared: str | None
) -> None:
    call = ["python3", "-c", CALL.format(channel=CHANNELS[kind])]

    def told() -> None:
        with Egress() as other:
            if declared is not None:
                other.intercept_https("api.test:50051")
            other.run(runtimes_image, call)

    with pytest.raises((UnroutedError, NeverCalledError)) as caught:
        told()
    lines = set(re.findall(r"to answer it: (.*)", str(caught.value)))
    assert lines == {'egress.intercept_tcp("api.test:50051", forward("tcp://127.0.0.1:50051"))'}
    server = served(egress, runtimes_image, kind, egress_ca)
    route = egress.intercept_tcp("api.test:50051", forward(server, 50051))
    assert egress.run(runtimes_image, call).stdout == "pong of ping\n"
    assert route.called
