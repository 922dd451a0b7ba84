"""Answers that have no end, to a container that still runs: they end with their test, and are no offence."""

from __future__ import annotations

import textwrap

import pytest

HEAD = """
import asyncio, threading, time
import pytest
from pytest_egress import Response, asgi, log_line, wsgi

closed, told = threading.Event(), []

@pytest.fixture(autouse=True)
def fresh():
    closed.clear()
    told.clear()

def read(egress, image, version, *options):
    command = ["curl", "-sSN", f"--{version}", *options, "https://events.test/"]
    client = egress.start(image, command, wait=log_line("tick"))
    assert client.is_running()

def events():
    def made(request):
        try:
            while True:
                yield {"data": "tick"}
                time.sleep(0.05)
        finally:
            told.append(request.disconnected)
            closed.set()
    return lambda request: Response(events=made(request))

def async_events():
    async def made(request):
        try:
            while True:
                yield {"data": "tick"}
                await asyncio.sleep(0.05)
        finally:
            told.append(request.disconnected)
            closed.set()
    async def handler(request):
        return Response(events=made(request))
    return handler

def rare_events():
    async def made(request):
        try:
            yield {"data": "tick"}
            await asyncio.Event().wait()
        finally:
            told.append(request.disconnected)
            closed.set()
    async def handler(request):
        return Response(events=made(request))
    return handler

def polled():
    def made(request):
        yield b"data: tick\\n\\n"
        while not request.disconnected:
            time.sleep(0.05)
        told.append(True)
        closed.set()
    headers = {"Content-Type": "text/event-stream; charset=utf-8"}
    return lambda request: Response(stream=made(request), headers=headers)

def of_asgi():
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: tick\\n\\n", "more_body": True})
        assert (await receive())["type"] == "http.request"
        told.append((await receive())["type"] == "http.disconnect")
        closed.set()
    return asgi(app)

def of_wsgi():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        try:
            while True:
                yield b"data: tick\\n\\n"
                time.sleep(0.05)
        finally:
            told.append(True)
            closed.set()
    return wsgi(app)

def lines():
    def made(request):
        try:
            while True:
                yield b"tick\\n"
                time.sleep(0.05)
        finally:
            told.append(request.disconnected)
            closed.set()
    return lambda request: Response(stream=made(request))

KINDS = [events, async_events, rare_events, polled, of_asgi, of_wsgi, lines]
"""


def run(pytester: pytest.Pytester, image: str, code: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_x=f"IMAGE = {image!r}\n{HEAD}{textwrap.dedent(code)}")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly", *args)


def test_an_answer_without_an_end_ends_with_its_test_and_is_no_offence(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.mark.egress(timeout=2)
        @pytest.mark.parametrize("version", ["http1.1", "http2"])
        @pytest.mark.parametrize("kind", KINDS)
        def test_a(egress, seen, kind, version):
            egress.intercept_https("events.test", kind())
            read(egress, IMAGE, version)

        @pytest.fixture
        def seen(egress):
            yield
            assert egress._inner.session.live()  # its containers are there
            assert closed.is_set()
            assert told == [True]
        """,
    )
    result.assert_outcomes(passed=14)


def test_one_of_a_wider_route_goes_on_and_ends_with_its_container(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.fixture(scope="module")
        def client(module_egress):
            module_egress.intercept_https("events.test", async_events())
            command = ["curl", "-sSN", "https://events.test/"]
            yield module_egress.start(IMAGE, command, wait=log_line("tick"))
            assert not closed.is_set()

        @pytest.mark.parametrize("number", [1, 2])
        def test_a(client, egress, number):
            before = client.logs().count("tick")
            while client.logs().count("tick") == before:
                time.sleep(0.05)
        """,
    )
    result.assert_outcomes(passed=2)


def test_a_generator_that_waits_where_nobody_can_end_it_is_still_told(
    pytester: pytest.Pytester, clients_image: str
) -> None:
    result = run(
        pytester,
        clients_image,
        """
        @pytest.mark.egress(timeout=0.5)
        def test_a(egress):
            def made():
                yield {"data": "tick"}
                threading.Event().wait()
            egress.intercept_https("events.test", lambda request: Response(events=made()))
            read(egress, IMAGE, "http1.1")
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*handler of intercept_https(*still ran 0.5 s after the test*"])


WATCH = """
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
stub = health_pb2_grpc.HealthStub(grpc.insecure_channel("api.test:50051"))
for reply in stub.Watch(health_pb2.HealthCheckRequest()):
    print("tick", flush=True)
"""


def test_a_stream_of_grpc_without_an_end_ends_with_its_test_too(
    pytester: pytest.Pytester, grpc_image: str
) -> None:
    result = run(
        pytester,
        grpc_image,
        f"""
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from pytest_egress import grpc_server

        class Ticks(health_pb2_grpc.HealthServicer):
            def Watch(self, request, context):
                try:
                    while True:
                        yield health_pb2.HealthCheckResponse(status=1)
                        time.sleep(0.05)
                finally:
                    closed.set()

        class AsyncTicks(health_pb2_grpc.HealthServicer):
            async def Watch(self, request, context):
                try:
                    while True:
                        yield health_pb2.HealthCheckResponse(status=1)
                        await asyncio.sleep(0.05)
                finally:
                    closed.set()

        @pytest.mark.egress(timeout=2)
        @pytest.mark.parametrize("servicer", [Ticks(), AsyncTicks(), health.HealthServicer()])
        def test_a(egress, servicer):
            server = grpc_server()
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            egress.intercept_http("api.test:50051", server)
            egress.start(IMAGE, ["python", "-c", {WATCH!r}], wait=log_line("tick"))

        @pytest.fixture(autouse=True)
        def seen(egress, servicer):
            yield
            assert closed.is_set() or isinstance(servicer, health.HealthServicer)
        """,
    )
    result.assert_outcomes(passed=3)
