"""A response without a length is passed on as it comes while it is recorded, by both versions of HTTP."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress import cassette, openapi, truncated
from pytest_egress.errors import CassetteError, UpstreamError
from pytest_egress.routes.faults import with_answer
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.traffic.cassettes.tape import Recording
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http import made_body
from tests.support.http2_client import Http2Client
from tests.support.http2_server import Http2Peer, http2_server
from tests.support.reels import reel_of
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, eventually, reset
from tests.support.upstreams import tcp_server

EVENTS = "text/event-stream"
BROKEN = object()
Versions = pytest.mark.parametrize("version", ["1.1", "2"])


class Feed:
    """A real server whose answer a test sends piece by piece; None is its end."""

    def __init__(self, kind: str) -> None:
        self.kind, self.pieces = kind, queue.Queue[Any]()
        self.is_over = threading.Event()

    def send(self, *pieces: Any) -> None:
        for piece in pieces:
            self.pieces.put(piece)

    def serve(self, sock: socket.socket) -> None:
        sock.recv(65536)
        with contextlib.suppress(OSError):
            sock.sendall(
                f"HTTP/1.1 200 OK\r\nContent-Type: {self.kind}\r\n"
                "Transfer-Encoding: chunked\r\n\r\n".encode()
            )
            while isinstance(piece := self.pieces.get(timeout=SECONDS), bytes):
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            if piece is None:
                sock.sendall(b"0\r\n\r\n")
        self.is_over.set()

    def serve_http2(self, peer: Http2Peer) -> None:
        peer.head()
        peer.respond([(":status", "200"), ("content-type", self.kind)], end=False)
        while isinstance(piece := self.pieces.get(timeout=SECONDS), bytes):
            peer.send(piece)
        peer.end() if piece is None else peer.sock.shutdown(socket.SHUT_RDWR)
        self.is_over.set()


class LeavingReader:
    """A client that reads a response as far as it likes."""

    def __init__(self, stage: Stage, version: str) -> None:
        self.sock = stage.dial(ADDRESS, 80)
        self.http2 = Http2Client(self.sock, "http") if version == "2" else None
        self.stream = 0
        if self.http2 is None:
            self.sock.sendall(GET)
        else:
            self.stream = self.http2.begin("/")
            self.http2.flush()
        self.sock.settimeout(SECONDS)
        self._got = b""

    def has(self, data: bytes) -> bool:
        """Read until that is there."""
        if self.http2 is not None:
            answer = self.http2.answers[self.stream]
            return self.http2.until(lambda: data in answer.body)
        while data not in self._got:
            self._got += self.sock.recv(65536)
        return True

    def end(self) -> bytes:
        if self.http2 is not None:
            return self.http2.answer(self.stream).body
        pieces = [self._got]
        while not b"".join(pieces).endswith(b"0\r\n\r\n"):
            pieces.append(self.sock.recv(65536))
        return b"".join(pieces)

    def leave(self) -> None:
        if self.http2 is not None:
            self.http2.h2.reset_stream(self.stream, 8)
            self.http2.flush()
        else:
            reset(self.sock)


Opened = Callable[[str, str], Feed]


@pytest.fixture
def deck() -> Deck:
    reel = reel_of(command="pytest --egress-record-mode=rewrite test_a.py")
    return Deck(reel, cassette(), is_required=False)


@pytest.fixture
def opened(stage: Stage, deck: Deck, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Start a real server of one version, which the route of the deck reaches."""
    with contextlib.ExitStack() as servers:

        def start(version: str, kind: str) -> Feed:
            feed = Feed(kind)
            served = http2_server(feed.serve_http2) if version == "2" else tcp_server(feed.serve)
            port = servers.enter_context(served)
            servers.callback(feed.send, None)
            monkeypatch.setattr(
                stage.gateway.upstreams,
                "reach",
                lambda owner, *_: owner.adopt(socket.create_connection(("127.0.0.1", port))),
            )
            return feed

        yield start


def only_of(deck: Deck) -> Recording:
    assert eventually(lambda: deck.reel.taken)
    (recording,) = deck.reel.taken
    return recording


def data_of(recording: Recording) -> list[str]:
    return [event["data"] for event in recording.response.body.value]


@Versions
def test_a_client_may_wait_for_the_first_event_before_the_second_is_made(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, EVENTS)
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"data: one\n\n")
    assert reader.has(b"one")
    assert not deck.reel.taken
    feed.send(b"data: two\n\n", None)
    reader.end()
    assert data_of(only_of(deck)) == ["one", "two"]
    entry = stage.only(Exchange)
    assert (entry.note, entry.error) == ("recorded into a.yaml", None)
    assert entry.response is not None
    assert entry.response.content == b"data: one\n\ndata: two\n\n"


@Versions
def test_the_recording_is_there_before_the_client_sees_the_end(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, "application/json")
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b'{"a":', b"1}", None)
    reader.end()
    (recording,) = deck.reel.taken
    assert recording.response.body == ("json", {"a": 1})
    deck.reel.settle()


@Versions
def test_of_an_event_stream_that_its_client_leaves_the_events_until_then_are_recorded(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, EVENTS)
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"data: one\n\n")
    assert reader.has(b"one")
    reader.leave()
    while not deck.reel.taken:  # HTTP/1.1 notices by what it cannot send any more
        feed.send(b"data: ")
        assert eventually(lambda: feed.pieces.empty() or deck.reel.taken)
    feed.send(None)
    assert data_of(only_of(deck))[0] == "one"
    entry = stage.only(Exchange)
    assert entry.error is None
    assert entry.note.startswith("the client closed before the whole response was sent (")
    assert entry.note.endswith("); recorded into a.yaml")
    deck.reel.settle()


@Versions
def test_of_any_other_body_the_rest_is_recorded_too(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, "text/plain")
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"one")
    assert reader.has(b"one")
    reader.leave()
    feed.send(b" and ", b"two", None)
    assert only_of(deck).response.body == ("text", "one and two")
    assert stage.only(Exchange).error is None


@Versions
def test_a_body_that_is_cut_by_us_is_not_recorded_and_the_test_fails(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, "text/plain")
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"one")
    assert reader.has(b"one")
    with stage.ledger.changed:
        (activity,) = stage.window.activities
    activity.cut()
    error = stage.only(Exchange).error
    assert isinstance(error, CassetteError)
    assert "a.yaml: GET http://" in str(error)
    assert "is not recorded: its client has left, or its test was over" in str(error)
    assert not deck.reel.taken
    deck.reel.settle()


@Versions
def test_an_event_stream_that_ends_with_its_test_is_recorded_until_then(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, EVENTS)
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"data: one\n\ndata: tw")
    assert reader.has(b"tw")
    with stage.ledger.changed:
        (activity,) = stage.window.activities
    assert activity.streams == "events"
    activity.cut()
    assert data_of(only_of(deck)) == ["one"]
    assert stage.only(Exchange).error is None


@Versions
def test_a_server_that_breaks_off_is_an_error_and_no_recording(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, EVENTS)
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"data: one\n\n")
    assert reader.has(b"one")
    feed.send(BROKEN)
    assert isinstance(stage.only(Exchange).error, UpstreamError)
    assert not deck.reel.taken
    deck.reel.settle()


@Versions
def test_a_body_over_the_limit_passes_and_fails_its_test(
    stage: Stage, deck: Deck, opened: Opened, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.gateway.http.forwarding.MAX_BODY_BYTES", 8)
    feed = opened(version, EVENTS)
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, version)
    feed.send(b"data: one\n\n", b"data: two\n\n")
    assert reader.has(b"two")
    feed.send(None)
    error = stage.only(Exchange).error
    assert made_body.OVER_LIMIT.format(8) in str(error)
    assert isinstance(error, CassetteError)
    assert not deck.reel.taken


@Versions
def test_a_fault_cuts_what_the_client_gets_and_not_what_is_recorded(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, "text/plain")
    stage.http(ADDRESS, with_answer(truncated("", after=2), deck))
    reader = LeavingReader(stage, version)
    feed.send(b"one", b" and two", None)
    assert only_of(deck).response.body == ("text", "one and two")
    assert reader.has(b"on")
    assert stage.only(Exchange).error is None


def test_a_client_that_waits_behind_its_own_end_gets_all_of_it(
    stage: Stage, deck: Deck, opened: Opened
) -> None:
    feed = opened("1.1", EVENTS)
    stage.http(ADDRESS, deck)
    reader = LeavingReader(stage, "1.1")
    reader.sock.shutdown(socket.SHUT_WR)
    feed.send(b"data: one\n\n")
    assert reader.has(b"one")
    feed.send(b"data: two\n\n", None)
    reader.end()
    assert data_of(only_of(deck)) == ["one", "two"]


SPEC: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "feed", "version": "1"},
    "paths": {
        "/": {
            "get": {
                "responses": {
                    "200": {
                        "description": "events, or a number",
                        "content": {
                            "text/event-stream": {},
                            "application/json": {"schema": {"type": "integer"}},
                        },
                    }
                }
            }
        }
    },
}


@Versions
def test_a_document_around_a_cassette_holds_no_event_back(
    stage: Stage, deck: Deck, opened: Opened, version: str
) -> None:
    feed = opened(version, EVENTS)
    stage.http(ADDRESS, openapi(SPEC).around(deck))
    reader = LeavingReader(stage, version)
    feed.send(b"data: one\n\n")
    assert reader.has(b"one")
    feed.send(b"data: two\n\n", None)
    reader.end()
    assert data_of(only_of(deck)) == ["one", "two"]
    entry = stage.only(Exchange)
    assert (entry.note, entry.error) == ("recorded into a.yaml", None)


@Versions
@pytest.mark.parametrize("value", ["12", '"no"'])
def test_json_without_a_length_is_checked_by_the_document_around_the_cassette(
    stage: Stage, deck: Deck, opened: Opened, version: str, value: str
) -> None:
    feed = opened(version, "application/json")
    stage.http(ADDRESS, openapi(SPEC).around(deck))
    reader = LeavingReader(stage, version)
    feed.send(value.encode(), None)
    assert reader.has(value.encode())
    assert only_of(deck).response.body.value == json.loads(value)
    error = stage.only(Exchange).error
    assert error is None if value == "12" else "body: 'no' is no integer" in str(error)
