"""Who ends an exchange with a real server that has not answered: its client, the end of its test, or the server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import h2.errors
import pytest

from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.session import AFTER_TEST, Session
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.request import Request
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, read_reply, reset
from tests.support.upstreams import tcp_server

AGES = 1000.0  # longer than any test waits
POST = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi"

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Mute:
    """A server that reads what it is asked, and answers when, and if, it is told to.

    Attributes:
        url: Its URL.
        begins: What it has sent before that.
        asked: Set when it has been asked.
        goes_on: Set to have it answer.
        ended: Set when its client has closed.
    """

    def __init__(self, begins: bytes) -> None:
        self.url, self.begins = "", begins
        self.asked, self.goes_on, self.ended = (threading.Event() for _ in range(3))

    def serve(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        with contextlib.suppress(OSError):
            sock.recv(65536)
            sock.sendall(self.begins)
            self.asked.set()
            threading.Thread(target=self.answer, args=[sock], daemon=True).start()
            while sock.recv(65536):
                pass
        self.ended.set()

    def answer(self, sock: socket.socket) -> None:
        if self.goes_on.wait(SECONDS):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")


@pytest.fixture
def mute() -> Iterator[Callable[..., Mute]]:
    """Starts a server that does not answer."""
    with contextlib.ExitStack() as stack:

        def start(begins: bytes = b"") -> Mute:
            mute = Mute(begins)
            port = stack.enter_context(tcp_server(mute.serve))
            mute.url = f"http://127.0.0.1:{port}"
            return mute

        yield start


@pytest.fixture
def session(stage: Stage) -> Session:
    """What closes the stage's window."""
    session = Session()
    session.ledger = stage.ledger
    return session


def by_route(url: str) -> object:
    return forward(url)


def by_handler(url: str) -> object:
    return lambda request: request.forward(url)


async def ask(request: Request, url: str) -> object:
    return request.forward(url)


def by_coroutine(url: str) -> object:
    return lambda request: ask(request, url)


WAYS = pytest.mark.parametrize("answer", [by_route, by_handler, by_coroutine])
LEAVES = pytest.mark.parametrize("leave", [socket.socket.close, reset])


@WAYS
@LEAVES
@pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])
def test_a_server_that_is_waited_for_in_vain_holds_no_test_up(
    stage: Stage,
    session: Session,
    mute: Callable[..., Mute],
    answer: Callable[[str], object],
    leave: Callable[[socket.socket], None],
    request_: bytes,
) -> None:
    server = mute()
    route = stage.http(ADDRESS, answer(server.url))
    client = stage.dial(ADDRESS, 80)
    client.sendall(request_)
    assert server.asked.wait(SECONDS)
    leave(client)
    session.drain(stage.window, AGES, AFTER_TEST)
    assert server.ended.wait(SECONDS)
    call = route.assert_called_once()
    assert (call.error, stage.window.stuck, judge(stage.window, [route])) == (None, [], None)
    assert call.note == (
        "pytest-egress ended the exchange before the upstream had answered: its test, its container, or what let it "
        "pass was over"
    )


def test_a_websocket_that_a_server_never_opens_holds_no_test_up(
    stage: Stage, session: Session, mute: Callable[..., Mute]
) -> None:
    server = mute()
    route = stage.http(ADDRESS, forward(server.url))
    client = stage.dial(ADDRESS, 80)
    client.sendall(HANDSHAKE)
    assert server.asked.wait(SECONDS)
    client.close()
    session.drain(stage.window, AGES, AFTER_TEST)
    assert server.ended.wait(SECONDS)
    assert (stage.window.stuck, judge(stage.window, [route])) == ([], None)


def test_an_answer_that_has_begun_and_does_not_end_holds_no_test_up_either(
    stage: Stage, session: Session, mute: Callable[..., Mute]
) -> None:
    server = mute(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    route = stage.http(ADDRESS, forward(server.url))
    client = stage.dial(ADDRESS, 80)
    client.sendall(GET)
    data = b""
    while not data.endswith(b"half"):
        data += client.recv(1000)
    client.close()
    session.drain(stage.window, AGES, AFTER_TEST)
    assert server.ended.wait(SECONDS)
    assert (stage.window.stuck, judge(stage.window, [route])) == ([], None)
    assert route.assert_called_once().note.startswith("pytest-egress ended the exchange before ")


def test_it_is_quiet_where_a_server_is_waited_for_in_vain(
    stage: Stage, session: Session, mute: Callable[..., Mute]
) -> None:
    server = mute()
    stage.http(ADDRESS, forward(server.url))
    client = stage.dial(ADDRESS, 80)
    client.sendall(GET)
    assert server.asked.wait(SECONDS)
    client.close()
    session.wait_until_quiet(0.1, SECONDS)


def test_a_client_that_waits_is_waited_for_and_told(
    stage: Stage, session: Session, mute: Callable[..., Mute]
) -> None:
    server = mute()
    route = stage.http(ADDRESS, forward(server.url))
    stage.dial(ADDRESS, 80).sendall(GET)
    assert server.asked.wait(SECONDS)
    session.drain(stage.window, 0.1, AFTER_TEST)
    (text,) = stage.window.stuck
    assert text.startswith(f'the handler of intercept_http("{ADDRESS}")')
    assert stage.ledger.wait_for(lambda: route.call_count == 1, SECONDS)


def test_a_client_that_half_closes_gets_the_answer_of_a_server(
    stage: Stage, mute: Callable[..., Mute]
) -> None:
    server = mute()
    stage.http(ADDRESS, forward(server.url))
    client = stage.dial(ADDRESS, 80)
    client.sendall(GET)
    client.shutdown(socket.SHUT_WR)
    assert server.asked.wait(SECONDS)
    server.goes_on.set()
    assert read_reply(client).body == b"late"


@WAYS
def test_a_stream_that_is_reset_is_told_as_the_clients(
    stage: Stage, mute: Callable[..., Mute], answer: Callable[[str], object]
) -> None:
    server = mute()
    route = stage.http(ADDRESS, answer(server.url))
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    number = client.begin()
    client.flush()
    assert server.asked.wait(SECONDS)
    client.h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert server.ended.wait(SECONDS)
    entry = stage.only(Exchange)
    assert (entry.error, judge(stage.window, [route])) == (None, None)
    assert entry.note == (
        "the client closed before its response was sent (its exchange with the upstream ended with it)"
    )


@WAYS
@pytest.mark.parametrize("ends", ["the server", "we"])
@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_server_that_closes_is_told_apart_from_our_own_cut(
    stage: Stage,
    mute: Callable[..., Mute],
    answering: Callable[..., str],
    answer: Callable[[str], object],
    ends: str,
    version: str,
) -> None:
    server = mute()
    stage.http(ADDRESS, answer(server.url if ends == "we" else answering(b"")))
    client = stage.dial(ADDRESS, 80)
    if version == "2":
        client_2 = Http2Client(client, "http")
        client_2.begin()
        client_2.flush()
    else:
        client.sendall(GET)
    if ends == "we":
        assert server.asked.wait(SECONDS)
        (connection,) = stage.gateway.connections
        connection.cut()
    entry = stage.only(Exchange)
    told = str(entry.error or entry.note)
    if ends == "we":
        assert (entry.error, told[:27]) == (None, "pytest-egress ended the exc")
    else:
        assert told == f"GET http://{ADDRESS}/: the upstream failed: it closed without an answer"
