"""Calls a Greeter by grpcio, in every way, and prints what came of each as JSON: client.py HOST:PORT [plain]."""

import json
import sys
import threading

import greeter_pb2 as pb
import greeter_pb2_grpc as pb_grpc
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SECONDS = 30.0


def status_of(call):
    """The status of a call that fails, and its text."""
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]


def unary(stub):
    metadata = [("x-token", "abc"), ("x-in-bin", b"\xff\0")]
    reply, call = stub.Unary.with_call(pb.Hello(name="you"), metadata=metadata)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    return [reply.text, initial["x-initial"], initial["x-raw-bin"].hex(), trailing["x-trailing"]]


def both(stub):
    turn, heard = threading.Semaphore(1), []

    def asks():
        for word in ("one", "two"):
            turn.acquire(timeout=SECONDS)
            yield pb.Hello(name=word)

    for reply in stub.Both(asks()):
        heard.append(reply.text)
        turn.release()
    return heard


def rich(stub):
    try:
        stub.Unary(pb.Hello(name="rich"))
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        return [error.code().name, b"too much" in details]


def cancel(stub):
    call = stub.Down(pb.Hello(name="endless", count=1_000_000_000))
    next(call)
    call.cancel()
    return status_of(lambda: list(call))[0]


def main(where, kind="tls"):
    credentials = grpc.ssl_channel_credentials()
    plain = kind == "plain"
    channel = grpc.insecure_channel(where) if plain else grpc.secure_channel(where, credentials)
    stub, health = pb_grpc.GreeterStub(channel), health_pb2_grpc.HealthStub(channel)
    big = pb.Hello(blob=bytes(3_000_000))
    results = {
        "unary": unary(stub),
        "down": [reply.text for reply in stub.Down(pb.Hello(count=3))],
        "up": stub.Up(pb.Hello(name=name) for name in "abc").text,
        "both": both(stub),
        "abort": status_of(lambda: stub.Unary(pb.Hello(name="abort"))),
        "rich": rich(stub),
        "deadline": status_of(lambda: stub.Unary(pb.Hello(name="slow"), timeout=0.5))[0],
        "cancel": cancel(stub),
        "big": len(stub.Unary(big).blob),
        "gzip": len(stub.Unary(big, compression=grpc.Compression.Gzip).blob),
        "too big": status_of(lambda: stub.Unary(pb.Hello(blob=bytes(5_000_000))))[0],
        "health": health.Check(health_pb2.HealthCheckRequest()).status,
        "reflection": list(ProtoReflectionDescriptorDatabase(channel).get_services()),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
