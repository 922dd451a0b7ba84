"""The endpoint's two connections, against a tool and an engine that are sockets of the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import h11
import pytest

from pytest_egress.base.sockets import pair
from pytest_egress.endpoint.refusal import RefusedCall
from pytest_egress.endpoint.wire import Tool, Upstream, answer_of, copy, pass_on
from pytest_egress.errors import LinkError

GET = b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


class WireEnds:
    """A tool's end and an engine's end, and the endpoint between them."""

    def __init__(self) -> None:
        self.tools, ours = pair()
        self.engines, upstream = pair()
        for sock in (self.tools, self.engines):
            sock.settimeout(5)
        self.tool, self.upstream = Tool(ours), Upstream(upstream)

    def ask(self, data: bytes) -> Tool:
        self.tools.sendall(data)
        assert self.tool.read_request()
        return self.tool

    def close(self) -> None:
        for sock in (self.tools, self.engines, self.tool.sock, self.upstream.sock):
            sock.close()


@pytest.fixture
def ends() -> Iterator[WireEnds]:
    with closing(WireEnds()) as made:
        yield made


def rest_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_response_is_passed_on_as_it_comes(ends: WireEnds) -> None:
    tool = ends.ask(GET)
    tool.skip()
    ends.upstream.send("GET", "/info", tool.headers())
    assert ends.engines.recv(65536).startswith(b"GET /info HTTP/1.1\r\nHost: docker\r\n")
    ends.engines.sendall(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok")
    assert pass_on(tool, ends.upstream) == 200
    ends.tool.sock.close()
    head, _, body = rest_of(ends.tools).partition(b"\r\n\r\n")
    assert (b"Connection: close" in head, b"x-a: 1" in head.lower(), body) == (True, True, b"ok")


def test_headers_that_ask_to_switch_are_not_passed_on(ends: WireEnds) -> None:
    tool = ends.ask(GET.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"Accept: a\r\n\r\n") + GET)
    tool.skip()
    assert tool.headers() == [(b"accept", b"a")]
    tool.answer(200, b"{}")
    ends.tool.sock.close()
    assert rest_of(ends.tools).count(b"HTTP/1.1") == 1  # a second request is nobody's


def test_streams_are_copied_only_after_the_engine_has_switched(ends: WireEnds) -> None:
    tool = ends.ask(b"POST /a HTTP/1.1\r\nHost: d\r\n" + UPGRADE + b"\r\nearly")
    tool.skip()
    assert tool.asks_to_switch
    ends.upstream.send("POST", "/a", [], switches=True)
    assert ends.engines.recv(65536).endswith(b"Content-Length: 0\r\n\r\n")  # and nothing of `early`
    ends.engines.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhi")
    ends.engines.shutdown(socket.SHUT_WR)
    response = answer_of(tool, ends.upstream)
    assert isinstance(response, h11.InformationalResponse)
    copy(tool, ends.upstream, response)
    ends.tool.sock.close()
    assert ends.engines.recv(65536) == b"early"
    assert rest_of(ends.tools).endswith(b"\r\n\r\nhi")


def test_an_engine_that_breaks_off_is_an_error(ends: WireEnds) -> None:
    ends.upstream.send("GET", "/info", [])
    ends.engines.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")
    ends.engines.shutdown(socket.SHUT_WR)
    ends.upstream.response()
    with pytest.raises((LinkError, h11.RemoteProtocolError)):
        ends.upstream.body()


def test_a_tool_that_leaves_is_not_waited_for(ends: WireEnds) -> None:
    tool = ends.ask(GET)
    ends.upstream.send("GET", "/info", [])
    ends.tools.close()
    with pytest.raises(ConnectionError, match="the tool has left"):
        answer_of(tool, ends.upstream)


def test_a_large_body_is_refused(ends: WireEnds) -> None:
    tool = ends.ask(b"POST /a HTTP/1.1\r\nHost: d\r\nContent-Length: 9\r\n\r\n123456789")
    with pytest.raises(RefusedCall, match="more than 8 bytes"):
        tool.body(8)


def test_a_response_to_head_has_no_body(ends: WireEnds) -> None:
    tool = ends.ask(GET.replace(b"GET", b"HEAD"))
    tool.skip()
    tool.answer(404, b"{}")
    ends.tool.sock.close()
    assert rest_of(ends.tools).endswith(b"\r\n\r\n")
