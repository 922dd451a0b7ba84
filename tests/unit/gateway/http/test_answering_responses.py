"""Streamed responses as the ledger has them: with what was sent, whatever made it, and to be answered with again."""

from __future__ import annotations

import gzip
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pytest_egress.routes.answers import forward
from pytest_egress.routes.applications.asgi import asgi
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.routes.faults import throttled
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http import made_body
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, SECONDS, Stage, ask

SECRET = b"card 4242"
GET = b"GET %b HTTP/1.1\r\nHost: api.test\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Real: yes\r\n\r\ncard 4242"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncard 4242\r\n0\r\nX-Sum: 9\r\n\r\n"
)


def yields(request: Request) -> Iterator[bytes]:
    yield SECRET[:4]
    yield SECRET[4:]


async def yields_async(request: Request) -> AsyncIterator[str]:
    yield SECRET[:4].decode()
    yield SECRET[4:].decode()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": SECRET[:4], "more_body": True})
    await send({"type": "http.response.body", "body": SECRET[4:]})


def wsgi_app(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield SECRET[:4]
    yield SECRET[4:]


def packed(request: Request) -> Response:
    return Response(stream=yields(request), compress="gzip")


ANSWERS: dict[str, Any] = {
    "generator": yields,
    "async generator": yields_async,
    "compressed": packed,
    "asgi": asgi(asgi_app),
    "wsgi": wsgi(wsgi_app),
    "list": Response(stream=["card ", "4242"]),
    "throttled": throttled(Response(stream=["card ", "4242"]), bytes_per_second=1000),
}


def got(stage: Stage, version: str, path: str = "/") -> bytes:
    """The body that a client is sent, decoded."""
    if version == "2":
        client = Http2Client(stage.dial(ADDRESS, 80), "http")
        answer = client.answer(client.begin(path))
        headers, body = answer.headers, answer.body
    else:
        reply = ask(stage.dial(ADDRESS, 80), GET % path.encode())
        headers, body = reply.headers, reply.body
    return gzip.decompress(body) if "content-encoding" in headers else body


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_what_was_sent_is_in_the_ledger_before_its_client_has_it(
    stage: Stage, answer: Any, version: str
) -> None:
    route = stage.http(ADDRESS, answer)
    assert got(stage, version) == SECRET
    (call,) = route.calls
    assert call.response.content == SECRET
    assert "4242" in call.response.text


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("answer", [LENGTH, CHUNKED], ids=["length", "chunked"])
def test_what_a_server_has_answered_can_be_answered_again(
    stage: Stage, answering: Callable[..., str], answer: bytes, version: str
) -> None:
    recorded = stage.http(ADDRESS, forward(answering(answer)), path="/real")
    again = stage.http(ADDRESS, lambda request: recorded.calls[0].response, path="/again")
    assert got(stage, "1.1", "/real") == SECRET
    assert [got(stage, version, "/again") for _ in range(2)] == [SECRET] * 2
    assert [call.response.content for call in (*recorded.calls, *again.calls)] == [SECRET] * 3
    assert [entry.error for entry in stage.entries(Exchange)] == [None] * 3


@pytest.mark.parametrize("name", ["generator", "compressed", "asgi"])
def test_what_a_handler_has_streamed_can_be_answered_again(stage: Stage, name: str) -> None:
    recorded = stage.http(ADDRESS, ANSWERS[name], path="/first")
    got(stage, "1.1", "/first")
    stage.http(ADDRESS, recorded.calls[0].response, path="/static")
    stage.http(ADDRESS, lambda request: recorded.calls[0].response, path="/returned")
    assert [got(stage, "1.1", path) for path in ("/static", "/returned")] == [SECRET] * 2


def test_trailers_are_recorded_and_sent_again(stage: Stage) -> None:
    def handler(request: Request) -> Response:
        return Response(stream=yields(request), trailers=lambda: {"Sum": "9"}, compress="gzip")

    recorded = stage.http(ADDRESS, handler, path="/first")
    again = stage.http(ADDRESS, lambda request: recorded.calls[0].response, path="/again")
    sock = stage.dial(ADDRESS, 80)
    for path in (b"/first", b"/again"):
        reply = ask(sock, GET % path)
        assert (gzip.decompress(reply.body), reply.trailers) == (SECRET, [(b"sum", b"9")])
    for call in (*recorded.calls, *again.calls):
        assert call.response.trailers == {"sum": "9"}


def test_what_has_been_sent_so_far_can_be_read_while_more_is_made(stage: Stage) -> None:
    go_on = threading.Event()

    def handler(request: Request) -> Iterator[bytes]:
        yield b"first"
        assert go_on.wait(SECONDS)
        yield b", last"

    route = stage.http(ADDRESS, handler)
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET % b"/")
    sock.settimeout(SECONDS)
    head = b""
    while b"first" not in head:
        head += sock.recv(4096)
    assert route.calls[0].response.content == b"first"
    go_on.set()
    stage.settle()
    assert route.calls[0].response.content == b"first, last"


def test_a_response_that_is_too_long_to_keep_is_sent_and_cannot_be_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http.sending.MAX_MADE_BYTES", 8)
    route = stage.http(ADDRESS, yields)
    again = stage.http(ADDRESS, lambda request: route.calls[0].response, path="/again")
    assert got(stage, "1.1") == SECRET
    with pytest.raises(RuntimeError, match=r"\(9 bytes\) is not kept: that is over 8 bytes"):
        _ = route.calls[0].response.text
    assert ask(stage.dial(ADDRESS, 80), GET % b"/again").status == 500
    assert isinstance(stage.entries(Exchange)[1].error, RuntimeError)
    assert not again.called
    assert made_body.MAX_MADE_BYTES == 4 << 20


def test_what_is_kept_of_responses_is_within_the_account_of_the_test(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    route, account = stage.http(ADDRESS, yields), stage.window.account
    assert got(stage, "1.1") == SECRET
    stage.settle()
    once = account.held
    assert once > len(SECRET)
    monkeypatch.setattr("pytest_egress.base.account.MAX_HELD_BYTES", 2 * once - 1)
    assert got(stage, "1.1") == SECRET
    stage.settle()
    with pytest.raises(RuntimeError, match="all that is kept of the test has reached its limit"):
        _ = route.calls[1].response.content
    assert account.held == 2 * once - len(SECRET)
    assert [*account.lost] == ["responses"]


def test_the_response_to_a_head_is_empty(stage: Stage) -> None:
    route = stage.http(ADDRESS, yields)
    reply = ask(stage.dial(ADDRESS, 80), b"HEAD / HTTP/1.1\r\nHost: api.test\r\n\r\n", "HEAD")
    assert (reply.status, route.calls[0].response.content) == (200, b"")


def test_of_a_body_that_raises_what_came_before_is_kept(stage: Stage) -> None:
    def handler(request: Request) -> Iterator[bytes]:
        yield b"before"
        raise LookupError

    stage.http(ADDRESS, handler)
    stage.dial(ADDRESS, 80).sendall(GET % b"/")
    exchange = stage.only(Exchange)
    assert exchange.response.content == b"before"


def test_a_content_that_a_test_has_no_room_for_is_sent_and_cannot_be_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(100_000)
    route = stage.http(ADDRESS, lambda request: content)
    monkeypatch.setattr("pytest_egress.base.account.MAX_HELD_BYTES", 50_000)
    assert got(stage, "1.1") == content
    with pytest.raises(RuntimeError, match=r"\(100000 bytes\) is not kept: all that is kept of"):
        _ = route.calls[0].response.content
