"""What a client sends on a stream that has ended is an attempt, unless it crosses an end or a reset of ours."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame

from pytest_egress.traffic.entries import Exchange, TcpConnection
from pytest_egress.traffic.http.request import Request
from tests.support.http2_client import FrameClient
from tests.support.stage import ADDRESS, SECONDS, Stage, eventually

HOST: Final = f"{ADDRESS}:8443"
PING: Final = b"the end!"
ENDED: Final = "came for stream 1, whose request had come whole or was reset (RFC 9113 section 5.1)"
UNREADABLE: Final = "the request cannot be read: "
EVIL: Final = f"HEADERS {ENDED}: POST http://{HOST}/evil?secret=... (8 characters)"


class Talk:
    """A client with one table of fields, as a real one has: what it sends later refers to what was sent before."""

    def __init__(self, sock: socket.socket) -> None:
        self.client, self._encoder, self._unsent = FrameClient(sock), hpack.Encoder(), b""
        self.client.begin()

    def head(self, number: int, path: str, *, ends: bool = True, cut: bool = False) -> None:
        pairs = (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", HOST)
        self.fields(number, [*pairs, ("x-table", path)], ends=ends, cut=cut)

    def fields(
        self, number: int, pairs: Sequence[tuple[str, str]], *, ends: bool = True, cut: bool = False
    ) -> None:
        block, ending = self._encoder.encode(pairs), ["END_STREAM"] * ends
        if not cut:
            self.send(HeadersFrame(number, block, flags=["END_HEADERS", *ending]).serialize())
            return
        self.send(HeadersFrame(number, block[:3], flags=ending).serialize())
        length = (len(block) - 3).to_bytes(3, "big")
        self.send(length + b"\x09\x04" + number.to_bytes(4, "big") + block[3:])  # CONTINUATION

    def data(self, number: int, content: bytes, *flags: str) -> None:
        self.send(DataFrame(number, content, flags=flags).serialize())

    def reset(self, number: int) -> None:
        self.send(RstStreamFrame(number, 8).serialize())

    def send(self, data: bytes) -> None:
        """Send a frame with those that follow, so that the server reads them at once."""
        self._unsent += data

    def until(self, condition: Callable[[Frame], object]) -> Frame | None:
        self.client.sock.sendall(self._unsent)
        self._unsent = b""
        return self.client.until(condition)

    def await_answer(self, number: int) -> None:
        assert self.until(lambda f: f.stream_id == number and "END_STREAM" in f.flags)

    def await_reset(self, number: int) -> None:
        assert self.until(lambda f: isinstance(f, RstStreamFrame) and f.stream_id == number)

    def await_pong(self) -> None:
        """Wait until the server has read all that was sent."""
        self.send(PingFrame(0, opaque_data=PING).serialize())
        assert self.until(lambda f: isinstance(f, PingFrame) and f.opaque_data == PING)

    def ends_well(self) -> None:
        """The connection goes on: a request whose fields are in both tables is answered."""
        self.head(99, "/ok")
        self.await_answer(99)


@pytest.fixture
def talk(stage: Stage) -> Talk:
    return Talk(stage.dial(ADDRESS, 8443))


def unrouted(stage: Stage) -> list[str]:
    entries = stage.entries(TcpConnection)
    assert all(entry.outcome == "unrouted" for entry in entries)
    assert all(entry.note.startswith(UNREADABLE) for entry in entries)
    return [entry.note.removeprefix(UNREADABLE) for entry in entries]


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "continued"])
def test_a_second_request_on_a_stream_that_is_not_answered_yet_is_unrouted(
    stage: Stage, talk: Talk, cut: bool
) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(1, "/ok")
    talk.head(1, "/evil?secret=12345678", cut=cut)
    talk.ends_well()
    assert unrouted(stage) == [EVIL.replace("=...", "=12...")]
    assert [entry.outcome for entry in stage.entries(Exchange)] == ["routed", "routed"]


def test_a_request_on_a_stream_that_its_client_has_reset_is_unrouted(
    stage: Stage, talk: Talk
) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(1, "/ok", ends=False)
    talk.reset(1)
    talk.head(1, "/evil?secret=12345678", ends=False)
    talk.data(1, b"secret", "END_STREAM")
    talk.ends_well()
    assert unrouted(stage) == [EVIL.replace("=...", "=12...")]


def test_one_on_a_stream_that_was_answered_ends_the_connection_and_says_what_it_is(
    stage: Stage, talk: Talk
) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(1, "/ok")
    talk.await_answer(1)
    talk.head(1, "/evil?secret=12345678")
    assert talk.until(lambda frame: False) is None
    assert talk.client.closed
    (note,) = unrouted(stage)
    assert EVIL.replace("=...", "=12...") in note


@pytest.mark.parametrize("by_client", [False, True], ids=["answered", "reset by its client"])
def test_a_body_on_a_stream_that_has_ended_is_unrouted_once(
    stage: Stage, talk: Talk, by_client: bool
) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(1, "/ok", ends=not by_client)
    if by_client:
        talk.reset(1)
    else:
        talk.await_answer(1)
    talk.data(1, b"secret" * 1000)
    talk.data(1, b"secret", "END_STREAM")
    talk.ends_well()
    assert unrouted(stage) == [f"DATA of 6000 bytes {ENDED}"]


def test_a_body_on_a_stream_that_was_never_opened_is_unrouted(stage: Stage, talk: Talk) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(5, "/ok")
    talk.data(3, b"secret")
    talk.ends_well()
    (note,) = unrouted(stage)
    assert note.startswith("DATA of 6 bytes came for stream 3, ")


def test_data_without_a_byte_is_no_attempt(stage: Stage, talk: Talk) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(1, "/ok")
    talk.await_answer(1)
    talk.data(1, b"", "END_STREAM")
    talk.ends_well()
    assert unrouted(stage) == []


def answer_early(stage: Stage, talk: Talk) -> None:
    """Have stream 1 answered, and reset by us, before its request has ended."""
    stage.http(HOST, lambda request: 204, path="/early", stream=True, optional=True)
    talk.head(1, "/early", ends=False)
    talk.await_reset(1)


@pytest.mark.parametrize("trailers", [False, True])
def test_what_crosses_our_reset_is_no_offence(stage: Stage, talk: Talk, trailers: bool) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    answer_early(stage, talk)
    talk.data(1, b"x" * 1000)
    if trailers:
        talk.fields(1, [("digest", "x"), ("x-table", "/ok")])
    else:
        talk.data(1, b"x", "END_STREAM")
    talk.ends_well()
    assert unrouted(stage) == []


def test_what_crosses_the_end_of_a_test_is_no_offence(stage: Stage, talk: Talk) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    talk.head(1, "/ok", ends=False)
    talk.await_pong()
    assert eventually(lambda: not stage.gateway.unread() and bool(stage.window.activities))
    for activity in list(stage.window.activities):
        activity.cut()
    talk.await_reset(1)
    talk.data(1, b"x" * 1000)
    talk.fields(1, [("digest", "x")])
    talk.ends_well()
    assert unrouted(stage) == []


@pytest.mark.parametrize("ends", [False, True])
def test_a_request_that_crosses_our_reset_is_unrouted(stage: Stage, talk: Talk, ends: bool) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    answer_early(stage, talk)
    talk.head(1, "/evil?secret=12345678", ends=ends)
    talk.ends_well()
    assert unrouted(stage) == [EVIL.replace("=...", "=12...")]


@pytest.mark.parametrize("by_client", [False, True], ids=["its end", "its reset"])
def test_so_is_what_comes_after_the_client_has_ended_what_we_have_reset(
    stage: Stage, talk: Talk, by_client: bool
) -> None:
    stage.http(HOST, b"yes", path="/ok", optional=True)
    answer_early(stage, talk)
    if by_client:
        talk.reset(1)
    else:
        talk.data(1, b"", "END_STREAM")
    talk.fields(1, [("x-secret", "12345678"), ("x", "y")])
    talk.ends_well()
    assert unrouted(stage) == [f"HEADERS {ENDED}: x-secret: 123... (14 characters)"]


def test_an_answer_that_still_runs_is_broken_off_and_recorded_beside(
    stage: Stage, talk: Talk
) -> None:
    go_on = threading.Event()

    def handler(request: Request) -> bytes:
        go_on.wait(SECONDS)
        return b"yes"

    stage.http(HOST, handler, path="/ok", optional=True)
    talk.head(1, "/ok")
    talk.head(1, "/evil?secret=12345678")
    talk.await_reset(1)
    go_on.set()
    talk.ends_well()
    assert len(unrouted(stage)) == 1
    assert [entry.outcome for entry in stage.entries(Exchange)] == ["routed", "routed"]


def test_those_that_never_end_end_the_connection(
    stage: Stage, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.traffic.http.http2.RESET_BURST", 20)
    stage.http(HOST, b"yes", path="/ok", optional=True)
    for number in (1, 3):
        talk.head(number, "/ok", ends=False)
        talk.reset(number)
    for _ in range(20):
        talk.data(1, b"x")
        talk.data(3, b"x")
    assert talk.until(lambda frame: False) is None
    assert talk.client.closed
    assert "streams were reset within seconds" in unrouted(stage)[-1]
