"""What goes to a real server as it came, and back: request-targets, interim responses, and what a handler replaces."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_egress.routes.answers import forward
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.http2_server import OK, Http2Peer, http2_server
from tests.support.stage import ADDRESS, SECONDS, Stage, ask, read_reply
from tests.support.upstreams import tcp_server

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n"


class Seeing:
    """A server that notes the heads of requests, and answers each with "yes".

    Attributes:
        port: Its port.
        heads: The heads.
    """

    def __init__(self, port: int, heads: list[bytes]) -> None:
        self.port, self.heads = port, heads


@pytest.fixture
def seeing() -> Iterator[Seeing]:
    heads: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        heads.append(sock.recv(65536).partition(b"\r\n\r\n")[0])
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")

    with tcp_server(serve) as port:
        yield Seeing(port, heads)


def target_of(head: bytes) -> bytes:
    return head.split(b" ")[1]


def request(target: str, method: str = "GET", *lines: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: api.test", *lines, "", ""]).encode()


TARGETS = {
    "/signed?": "/signed?",
    "/signed??": "/signed??",
    "/signed": "/signed",
    "/?": "/?",
    "/a?b?c=%20&&": "/a?b?c=%20&&",
    "//a//b/../c;d": "//a//b/../c;d",
    "http://api.test?": "/?",
    "http://api.test/x?": "/x?",
}


@pytest.mark.parametrize(("target", "wanted"), TARGETS.items(), ids=TARGETS.keys())
@pytest.mark.parametrize("line", ["", "X: caf\xc3\xa9"], ids=["plain", "h11"])
@pytest.mark.parametrize("how", ["streamed", "handled", "altered"])
def test_a_request_target_is_sent_as_it_came(
    stage: Stage, seeing: Seeing, target: str, wanted: str, line: str, how: str
) -> None:
    url = f"http://127.0.0.1:{seeing.port}/base"

    def handler(request: Request) -> Response:
        return dataclasses.replace(request, method="PUT").forward(url)

    answers = {"streamed": forward(url), "handled": lambda r: r.forward(url), "altered": handler}
    stage.http("api.test", answers[how])
    client = stage.dial(stage.resolve("api.test"), 80)
    assert ask(client, request(target, "GET", *filter(None, [line]))).body == b"yes"
    assert target_of(seeing.heads[0]) == f"/base{wanted}".encode()
    assert stage.entries(Exchange)[0].request.url == f"http://api.test{wanted}"


def test_a_websockets_request_target_is_sent_as_it_came(stage: Stage, seeing: Seeing) -> None:
    stage.http("api.test", forward(f"http://127.0.0.1:{seeing.port}/base"))
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    client = stage.dial(stage.resolve("api.test"), 80)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    assert ask(client, request("/ws?", "GET", *fields, key)).body == b"yes"
    assert target_of(seeing.heads[0]) == b"/base/ws?"


def test_options_of_a_whole_server_has_no_path_to_put_a_base_before(
    stage: Stage, seeing: Seeing
) -> None:
    stage.http("api.test", forward(f"http://127.0.0.1:{seeing.port}/base"))
    client = stage.dial(stage.resolve("api.test"), 80)
    assert ask(client, request("*", "OPTIONS")).body == b"yes"
    assert target_of(seeing.heads[0]) == b"*"


@pytest.mark.parametrize("target", [b"/signed?", b"/signed", b"/?"])
def test_a_path_of_http2_is_sent_as_it_came(stage: Stage, target: bytes) -> None:
    seen: list[str] = []

    def serve(peer: Http2Peer) -> None:
        seen.append(dict(peer.head())[":path"])
        peer.respond(OK)

    with http2_server(serve) as port:
        stage.http(ADDRESS, forward(f"http://127.0.0.1:{port}"))
        assert Http2Client(stage.dial(ADDRESS, 80), "http").ask(target.decode()).status == 200
    assert seen == [target.decode()]


# Interim responses.


@contextlib.contextmanager
def hinting(version: str, goes_on: threading.Event) -> Iterator[str]:
    """The URL of a server that sends 100, 103 twice, and its response only when it is told to."""

    def serve_1(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS + HINTS)
        goes_on.wait(SECONDS)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")

    def serve_2(peer: Http2Peer) -> None:
        peer.head()
        peer.respond([(":status", "100")], end=False)
        for _ in range(2):
            peer.respond([(":status", "103"), ("link", "</a.css>")], end=False)
        goes_on.wait(SECONDS)
        peer.respond(OK, b"yes")

    with tcp_server(serve_1) if version == "1.1" else http2_server(serve_2) as port:
        yield f"http://127.0.0.1:{port}"


def test_interim_responses_pass_as_they_come(stage: Stage) -> None:
    goes_on = threading.Event()
    with hinting("1.1", goes_on) as url:
        stage.http(ADDRESS, forward(url))
        client = stage.dial(ADDRESS, 80)
        client.settimeout(SECONDS)
        client.sendall(request("/"))
        data = b""
        while data.count(b"\r\n\r\n") < 2:
            data += client.recv(65536)
        assert data == 2 * b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
        goes_on.set()
        assert read_reply(client).body == b"yes"


def test_interim_responses_of_http2_pass_as_they_come(stage: Stage) -> None:
    goes_on = threading.Event()
    with hinting("2", goes_on) as url:
        stage.http(ADDRESS, forward(url))
        client = Http2Client(stage.dial(ADDRESS, 80), "http")
        number = client.begin()
        client.flush()
        answer = client.answers[number]
        assert client.until(lambda: len(answer.interim) == 2)
        assert answer.interim == [103, 103]
        goes_on.set()
        assert client.answer(number).body == b"yes"


def test_a_client_of_http_1_0_gets_no_interim_response(stage: Stage) -> None:
    goes_on = threading.Event()
    goes_on.set()
    with hinting("1.1", goes_on) as url:
        stage.http(ADDRESS, forward(url))
        reply = ask(stage.dial(ADDRESS, 80), b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n")
        assert (reply.body, reply.interim) == (b"yes", [])


def test_a_handler_gets_the_whole_response_and_its_client_no_interim_one(stage: Stage) -> None:
    goes_on = threading.Event()
    goes_on.set()
    with hinting("1.1", goes_on) as url:
        stage.http(ADDRESS, lambda request: request.forward(url))
        reply = ask(stage.dial(ADDRESS, 80))
        assert (reply.body, reply.interim) == (b"yes", [])


# What a handler replaces.


@pytest.mark.parametrize("given", [{"X": "1"}, [("X", "1")], (("X", "1"),)])
def test_fields_may_be_replaced_as_they_may_be_given(
    stage: Stage, seeing: Seeing, given: object
) -> None:
    def handler(request: Request) -> Response:
        changes: dict[str, Any] = {"headers": given, "trailers": given}
        changed = dataclasses.replace(request, **changes)
        assert (changed.headers["x"], changed.trailers["x"]) == ("1", "1")
        changed = dataclasses.replace(changed, trailers=Headers())
        answer: Any = changed.forward(f"http://127.0.0.1:{seeing.port}")
        answer.headers = given
        assert isinstance(answer, Response)
        return answer

    stage.http(ADDRESS, handler)
    for method in ("GET", "HEAD"):
        reply = ask(stage.dial(ADDRESS, 80), request("/", method), method)
        assert (reply.status, reply.headers["x"]) == (200, "1")
    names = [line.partition(b":")[0] for line in seeing.heads[0].split(b"\r\n")[1:]]
    assert names == [b"Host", b"X", b"Accept-Encoding", b"Connection"]


def test_fields_that_cannot_be_sent_are_refused_where_they_are_replaced() -> None:
    request = Request(method="GET", scheme="http", host="api.test", port=80, path="/")
    with pytest.raises(ValueError, match="is no header field"):
        dataclasses.replace(request, headers={"a b": "1"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no header field"):
        dataclasses.replace(request, trailers={"a": "\n"})  # type: ignore[arg-type]
