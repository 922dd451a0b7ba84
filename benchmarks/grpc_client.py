"""The load of gRPC: keeps unary calls open on one channel for a while; prints how many there were, and seconds.

Runs alone, in a container with grpcio, without TLS: what C does for grpcio's server, Python's `ssl` does for the
gateway, and that is compared elsewhere.

usage: grpc_client.py HOST PORT AT_ONCE SECONDS
"""

from __future__ import annotations

import sys
import threading
import time

import grpc

PATIENCE_SECONDS = 15.0  # for a server that is still starting
MESSAGE = b"a message of some thirty bytes"


def main() -> None:
    host, port, at_once, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        grpc.channel_ready_future(channel).result(PATIENCE_SECONDS)
        echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/bench.Echo/Echo")
        counts: list[int] = []
        began = time.perf_counter()

        def call() -> None:
            count = 0
            while time.perf_counter() - began < seconds:
                assert echo(MESSAGE) == MESSAGE
                count += 1
            counts.append(count)

        threads = [threading.Thread(target=call) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(sum(counts), time.perf_counter() - began)


if __name__ == "__main__":
    main()
