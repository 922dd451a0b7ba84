"""grpcio's own server, with one method: a message of bytes comes back as it is.

usage: grpc_server.py PORT THREADS
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE, METHOD = "bench.Echo", "Echo"


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(int(sys.argv[2])))
    register(None, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


def register(_: object, server: grpc.Server) -> None:
    """Register the method, as generated code does; without a codec, so that messages are bytes."""
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
        lambda message, context: message
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )


if __name__ == "__main__":
    main()
