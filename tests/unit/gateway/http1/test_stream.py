"""Both directions of an HTTP/1.1 request: any thread sends, one receives, over TLS and without."""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytest_egress.base.sockets import send_all
from pytest_egress.gateway.http1 import stream
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from tests.support.duplexes import whole as response_of
from tests.support.stage import (
    ADDRESS,
    MEGABYTE,
    SECONDS,
    Stage,
    ask,
    end_of,
    eventually,
    read_reply,
)

GET = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"


class Functional(DuplexAnswer):
    """An answer by a function of the duplex alone."""

    def __init__(self, function: Callable[[Duplex], None]) -> None:
        self._function = function

    def refusal(self, request: Request) -> None:
        return None

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        self._function(duplex)


@contextmanager
def joined(*threads: threading.Thread) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(SECONDS)


def both_ways(sock: ssl.SSLSocket, whole: bytes) -> bytes:
    """Send and receive, on one thread, since two in one `ssl.SSLSocket` corrupt it; return what came until the end."""
    sock.setblocking(False)
    data, unsent = bytearray(), memoryview(whole)
    while True:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while unsent:
                unsent = unsent[sock.send(unsent[:16384]) :]
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while piece := sock.recv(65536):
                data += piece
            return bytes(data)
        select.select([sock], [sock] if unsent else [], [], SECONDS)


def test_one_thread_receives_while_others_send_over_tls(stage: Stage) -> None:
    size, digest = 8 * MEGABYTE, hashlib.sha256()

    def answer(duplex: Duplex) -> None:
        duplex.start(101)

        def send(letter: bytes) -> None:
            for _ in range(40):
                duplex.send(letter * 50_000)

        threads = [threading.Thread(target=send, args=(letter,)) for letter in (b"a", b"b")]
        received = 0
        with joined(*threads):
            while received < size:
                data = duplex.receive()
                digest.update(data)
                received += len(data)
        duplex.finish()

    stage.https("api.test", Functional(answer))
    sock = stage.tls()
    sock.sendall(UPGRADE)
    whole = bytes(range(256)) * (size // 256)
    data = both_ways(sock, whole)
    assert digest.digest() == hashlib.sha256(whole).digest()
    sent = data.partition(b"\r\n\r\n")[2]
    assert len(sent) == 80 * 50_000
    pieces = [sent[at : at + 50_000] for at in range(0, len(sent), 50_000)]
    assert {piece[:1] * 50_000 for piece in pieces} == {*pieces}  # each piece came whole


def test_a_client_is_told_to_continue_when_its_body_is_first_wanted(stage: Stage) -> None:
    wanted, went_on = threading.Event(), threading.Event()

    def answer(duplex: Duplex) -> None:
        assert wanted.wait(SECONDS)
        body = duplex.receive()
        went_on.set()
        duplex.start(200)
        duplex.send(body)
        duplex.finish()

    stage.https("api.test", Functional(answer))
    sock = stage.tls()
    sock.sendall(
        b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    wanted.set()
    sock.settimeout(SECONDS)
    assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
    assert ask(sock, b"hello", "PUT").body == b"hello"


def test_a_client_that_waits_for_100_never_sends_a_body_that_nobody_wants(stage: Stage) -> None:
    def answer(duplex: Duplex) -> None:
        duplex.start(413, ends=True)

    stage.https("api.test", Functional(answer))
    sock = stage.tls()
    reply = ask(
        sock,
        b"PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        "PUT",
    )
    assert (reply.status, reply.interim, reply.headers["connection"]) == (413, [], "close")
    assert end_of(sock) == "closed"


def test_receiving_may_have_a_bound(stage: Stage) -> None:
    ticks: list[str] = []

    def answer(duplex: Duplex) -> None:
        duplex.start(101)
        try:
            duplex.receive(timeout=0.05)
        except TimeoutError as error:
            ticks.append(str(error))
        duplex.send(b"tick")
        ticks.append(duplex.receive(timeout=SECONDS).decode())

    stage.http("api.test", Functional(answer))
    stage.resolve("api.test")
    sock = stage.dial("198.18.0.1", 80)
    sock.sendall(UPGRADE)
    data = b""
    while not data.endswith(b"tick"):
        data += sock.recv(65536)
    sock.sendall(b"tock")
    stage.only(Exchange)
    assert ticks == ["the client has sent nothing in time", "tock"]


def test_sending_waits_while_the_client_takes_nothing(stage: Stage) -> None:
    sent: list[int] = []
    done = threading.Event()

    def answer(duplex: Duplex) -> None:
        duplex.start(200)
        for number in range(64):
            duplex.send(bytes(MEGABYTE))
            sent.append(number)
        duplex.finish()
        done.set()

    stage.https("api.test", Functional(answer))
    sock = stage.tls()
    sock.sendall(GET)
    assert not done.wait(0.5)
    assert len(sent) < 64
    assert len(read_reply(sock).body) == 64 * MEGABYTE
    assert done.wait(SECONDS)


def test_the_client_is_gone_when_it_has_closed_both_sides(stage: Stage) -> None:
    seen: list[bool] = []
    left = threading.Event()

    def answer(duplex: Duplex) -> None:
        seen.append(duplex.disconnected)
        begun.set()
        duplex.on_disconnect(left.set)
        assert left.wait(SECONDS)
        seen.append(duplex.disconnected)
        duplex.on_disconnect(again.set)  # it has left already
        assert again.wait(SECONDS)
        raise ClientLeftError("it has")

    again, begun = threading.Event(), threading.Event()
    stage.http(ADDRESS, Functional(answer))
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET.replace(b"api.test", ADDRESS.encode()))
    assert begun.wait(SECONDS)
    sock.shutdown(socket.SHUT_WR)
    assert not left.wait(0.3)  # it waits for the response
    sock.close()
    assert eventually(lambda: seen == [False, True])


def test_what_was_to_be_told_of_a_client_that_leaves_is_taken_back(stage: Stage) -> None:
    left: list[str] = []

    def watchers() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name == "egress client"]

    def answer(duplex: Duplex) -> None:
        take_back = duplex.on_disconnect(lambda: left.append("first"))
        take_second = duplex.on_disconnect(lambda: left.append("second"))
        take_back()
        take_back()  # again is harmless
        watched.append(len(watchers()))
        take_second()
        assert eventually(lambda: not watchers())
        duplex.on_disconnect(lambda: left.append("third"))
        begun.set()
        assert eventually(lambda: left)
        raise ClientLeftError("it has")

    watched: list[int] = []
    begun = threading.Event()
    stage.http(ADDRESS, Functional(answer))
    sock = stage.dial(ADDRESS, 80)
    sock.sendall(GET.replace(b"api.test", ADDRESS.encode()))
    assert begun.wait(SECONDS)
    sock.close()
    stage.settle()
    assert (left, watched) == (["third"], [1])


def test_interim_responses_precede_the_response(stage: Stage) -> None:
    errors: list[str] = []

    def answer(duplex: Duplex) -> None:
        duplex.send_interim(102)
        duplex.send_interim(103, Headers({"Link": "</style.css>"}))
        duplex.start(200)
        try:
            duplex.send_interim(103)
        except RuntimeError as error:
            errors.append(str(error))
        duplex.finish()

    stage.https("api.test", Functional(answer))
    reply = ask(stage.tls())
    assert (reply.status, reply.interim) == (200, [102, 103])
    assert errors == ["an interim response cannot follow the response, which has begun"]
    old = ask(stage.tls(), b"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n")
    assert (old.status, old.interim) == (200, [])


def test_an_interim_response_of_another_thread_is_sent_before_the_response(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, overtaken = threading.Event(), threading.Event()

    def slow(sock: socket.socket, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 103"):
            begun.set()
            overtaken.wait(0.3)
        send_all(sock, data)
        overtaken.set()

    def handler(request: Request) -> str:
        hints = threading.Thread(target=request.send_interim, args=(103, {"Link": "</a>"}))
        hints.start()
        assert begun.wait(SECONDS)
        return "hello"

    stage.http("api.test", handler)
    monkeypatch.setattr(stream, "send_all", slow)
    reply = ask(stage.dial(ADDRESS, 80))
    assert (reply.interim, reply.status, reply.body) == ([103], 200, b"hello")


def test_a_whole_response_is_sent_with_its_trailers(stage: Stage) -> None:
    def answer(duplex: Duplex) -> None:
        duplex.respond(response_of(b"hey", Headers({"X-A": "b"}), Headers({"X-Sum": "2"})))

    stage.https("api.test", Functional(answer))
    reply = ask(stage.tls())
    assert (reply.status, reply.headers["x-a"], reply.body) == (200, "b", b"hey")
    assert reply.trailers == [(b"x-sum", b"2")]


def test_a_response_that_is_reset_is_an_error_to_its_client(stage: Stage) -> None:
    errors: list[str] = []

    def answer(duplex: Duplex) -> None:
        duplex.start(200)
        duplex.reset()
        try:
            duplex.send(b"more")
        except ClientLeftError as error:
            errors.append(str(error))

    stage.https("api.test", Functional(answer))
    sock = stage.tls()
    sock.sendall(GET)
    assert end_of(sock) == "reset"
    assert errors == ["the request is over"]
    assert stage.only(Exchange).error is None


def test_nothing_is_sent_once_the_request_is_over(stage: Stage) -> None:
    kept: list[Duplex] = []

    def answer(duplex: Duplex) -> None:
        kept.append(duplex)
        duplex.start(204, ends=True)

    stage.https("api.test", Functional(answer))
    sock = stage.tls()
    assert ask(sock).status == 204
    stage.settle()
    assert kept[0].disconnected
    with pytest.raises(ClientLeftError, match="the request is over"):
        kept[0].send_interim(103)
    assert ask(sock).status == 204  # the connection goes on
