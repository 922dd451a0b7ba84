"""Faults of requests over HTTP/2, where one connection has several requests: what ends, and what goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import sequence
from pytest_egress.routes.faults import (
    delayed,
    disconnect,
    raw,
    reset,
    reset_stream,
    silence,
    throttled,
    truncated,
)
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import SECONDS, Stage, client_context, end_of, eventually

INTERNAL_ERROR = 2
SOON = 0.05
Dial = Callable[[], Http2Client]


@pytest.fixture
def dial(stage: Stage, ca: trustme.CA) -> Dial:
    """Connects, and agrees on HTTP/2 by ALPN."""
    context = client_context(ca)
    context.set_alpn_protocols(["h2"])
    return lambda: Http2Client(stage.tls(context=context))


@pytest.fixture
def dial_plainly(stage: Stage) -> Dial:
    return lambda: Http2Client(stage.dial(stage.resolve("api.test"), 80), "http")


def sends(client: Http2Client, path: str = "/") -> int:
    number = client.begin(path)
    client.flush()
    return number


def ends(client: Http2Client) -> str:
    """How the connection ends: by a reset or a FIN; nothing has announced that."""
    end = end_of(client.sock)
    assert client.goaway is None
    return end


def check(stage: Stage, *faults: str) -> None:
    """The exchanges have these faults, and no test fails by them."""
    exchanges = stage.entries(Exchange)
    assert [str(exchange.fault) for exchange in exchanges] == [*faults]
    assert not any(exchange.error for exchange in exchanges)
    assert judge(stage.window, stage.table.routes) is None


@pytest.mark.parametrize("is_plain", [False, True])
def test_reset_ends_the_whole_connection(
    stage: Stage, dial: Dial, dial_plainly: Dial, is_plain: bool
) -> None:
    (stage.http if is_plain else stage.https)("api.test", sequence(200, reset()))
    client = dial_plainly() if is_plain else dial()
    assert client.ask().status == 200
    sends(client)
    assert ends(client) == "reset"
    client.close()
    check(stage, "None", "reset()")


def test_reset_does_not_wait_for_the_handlers_of_other_streams(stage: Stage, dial: Dial) -> None:
    release, begun = threading.Event(), threading.Event()

    def waits(request: Request) -> int:
        begun.set()
        release.wait(SECONDS)
        return 200

    stage.https("api.test", waits)
    stage.https("api.test", reset(), path="/reset")
    client = dial()
    sends(client, "/waits")
    assert begun.wait(SECONDS)
    sends(client, "/reset")
    assert ends(client) == "reset"
    release.set()
    stage.settle()
    waited, _ = stage.entries(Exchange)
    assert (
        waited.note
        == "the client closed before the whole response was sent (reset() has ended its connection)"
    )


def test_a_connection_that_is_reset_already_is_reset_again(stage: Stage, dial: Dial) -> None:
    def handler(request: Request) -> Any:
        if request.path == "/second":
            assert eventually(lambda: all(c.sock.fileno() < 0 for c in stage.gateway.connections))
        return reset()

    stage.https("api.test", handler)
    client = dial()
    sends(client, "/second")
    sends(client, "/first")
    assert ends(client) == "reset"
    assert [entry.fault for entry in stage.entries(Exchange)] == [reset()] * 2


@pytest.mark.parametrize("waits", [silence(), delayed(200, SECONDS)])
def test_a_wait_that_the_fault_of_another_stream_ends_is_not_called_the_clients(
    stage: Stage, dial: Dial, waits: Any
) -> None:
    stage.https("api.test", waits)
    stage.https("api.test", disconnect({}), path="/last")
    client = dial()
    sends(client, "/waits")
    assert eventually(lambda: stage.count("/waits"))
    sends(client, "/last")
    assert ends(client) == "closed"
    waited, _ = stage.entries(Exchange)
    assert eventually(lambda: waited.note)
    assert (
        waited.note
        == "the client closed before its response was sent (disconnect({}) has ended its connection)"
    )


def test_reset_of_a_stream_leaves_the_connection(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", sequence(reset_stream(), {"id": 1}))
    client = dial()
    assert client.ask().reset == INTERNAL_ERROR
    assert client.ask().body == b'{"id": 1}'
    check(stage, "reset_stream()", "None")


def test_disconnect_is_a_fin_without_goaway(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", disconnect())
    client = dial()
    sends(client)
    assert not client.until(lambda: False)
    assert (client.closed, client.goaway) == (True, None)
    assert ends(client) == "closed"
    client.close()
    check(stage, "disconnect()")


def test_disconnect_comes_after_its_answer(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", disconnect({"id": 1}))
    client = dial()
    assert client.ask().body == b'{"id": 1}'
    assert not client.until(lambda: False)
    assert (client.closed, client.goaway) == (True, None)
    client.close()
    check(stage, "disconnect({'id': 1})")


def test_a_request_that_crosses_the_end_is_in_the_ledger(
    stage: Stage, dial_plainly: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http2.server.LINGER_SECONDS", SECONDS)
    stage.http("api.test", disconnect({"id": 1}))
    client = dial_plainly()
    assert client.ask().status == 200
    assert not client.until(lambda: False)  # the end of our side: what comes now is late
    sends(client)
    assert eventually(lambda: "in the moment in which" in stage.window.entries[-1].note)
    late = stage.window.entries[-1]
    assert late.outcome == "recorded"


def test_silence_is_of_one_stream_and_holds_no_window(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", {"id": 1})
    stage.https("api.test", silence(), path="/silent")
    client = dial()
    number = sends(client, "/silent")
    assert client.ask("/other").status == 200
    assert not client.until(lambda: client.answers[number].reset, SOON)
    assert eventually(lambda: not stage.ledger.under_way)
    stage.window.over.set()
    assert client.until(lambda: client.answers[number].reset is not None)
    assert client.ask("/other").status == 200
    stage.settle()
    silent = stage.entries(Exchange)[0]
    assert silent.note == "its window was closed before silence() was over"


def test_silence_ends_with_its_client(stage: Stage, dial: Dial) -> None:
    route = stage.https("api.test", silence())
    client = dial()
    number = sends(client)
    route.wait_for_call(timeout=SECONDS)
    client.h2.reset_stream(number, 8)
    client.flush()
    stage.settle()
    assert "it did not wait for the end of silence()" in route.calls[0].note
    check(stage, "silence()")


def test_silence_for_some_seconds_ends_the_connection(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", silence(SOON))
    client = dial()
    sends(client)
    assert ends(client) == "closed"
    client.close()
    check(stage, f"silence({SOON})")


def test_raw_bytes_take_the_place_of_frames(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", sequence(200, raw(b"HTTP/1.1 200 OK\r\n\r\n")))
    client = dial()
    assert client.ask().status == 200
    sends(client)
    client.sock.settimeout(SECONDS)
    data = b""
    while piece := client.sock.recv(65536):
        data += piece
    assert data.endswith(b"HTTP/1.1 200 OK\r\n\r\n")
    client.close()
    check(stage, "None", r"raw(b'HTTP/1.1 200 OK\r\n\r\n')")


def test_delayed_and_throttled_answers_come_late_and_others_meanwhile(
    stage: Stage, dial: Dial
) -> None:
    slow = delayed(throttled(lambda request: iter(["a" * 60, "b" * 40]), 1000), SOON)
    stage.https("api.test", {"id": 1})
    stage.https("api.test", slow, path="/slow")
    client = dial()
    number = sends(client, "/slow")
    assert client.ask("/other").status == 200
    assert client.answer(number).body == b"a" * 60 + b"b" * 40
    stage.settle()
    slow_one = next(e for e in stage.entries(Exchange) if e.request.path == "/slow")
    assert slow_one.duration >= SOON


def test_truncated_resets_the_stream_after_its_bytes(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", sequence(truncated({"id": 1}, 3), {"id": 2}))
    client = dial()
    answer = client.ask()
    assert (answer.headers["content-length"], answer.body) == ("9", b'{"i')
    assert (answer.ended, answer.reset) == (False, INTERNAL_ERROR)
    assert client.ask().body == b'{"id": 2}'
    check(stage, "truncated({'id': 1}, 3)", "None")


def test_truncated_may_reset_the_connection(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", sequence(200, truncated(b"x" * 50_000, 40_000, reset=True)))
    client = dial()
    client.ask()  # acknowledges the settings
    client.reads = False  # gives no window back: what is written after a reset would take its error
    number = sends(client)
    assert client.until(lambda: len(client.answers[number].body) == 40_000)
    assert ends(client) == "reset"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
def test_a_truncated_response_without_a_body_is_whole(
    stage: Stage, dial: Dial, method: str, status: int
) -> None:
    stage.https("api.test", truncated(Response(status, text="hello" if status == 200 else ""), 2))
    answer = dial().ask(method=method)
    assert (answer.status, answer.body, answer.ended) == (status, b"", True)


def test_trailers_come_with_a_slow_body_and_not_with_a_short_one(stage: Stage, dial: Dial) -> None:
    def handle(request: Request) -> Response:
        return Response(stream=["hello"], trailers=lambda: {"x-sum": "1"})

    stage.https("api.test", sequence(throttled(handle, 1000), truncated(handle, 100)))
    client = dial()
    assert client.ask().trailers == {"x-sum": "1"}
    short = client.ask()
    assert (short.body, short.trailers, short.reset) == (b"hello", {}, INTERNAL_ERROR)


def test_a_websocket_over_a_stream_is_cut(stage: Stage, dial: Dial) -> None:
    stage.https("api.test", truncated(websocket(lambda ws: ws.send("hello")), 4))
    client = dial()
    number = client.begin(
        method="CONNECT",
        protocol="websocket",
        headers=[("sec-websocket-version", "13")],
        ends=False,
    )
    client.flush()
    answer = client.answer(number)
    assert (answer.status, answer.body, answer.reset) == (200, b"\x81\x05he", INTERNAL_ERROR)
    check(stage, str(stage.entries(Exchange)[0].fault))
