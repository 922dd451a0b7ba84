"""What a client sends while a call of gRPC is recorded: all of it is searched, also what its server has not taken."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from pytest_egress import cassette
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.routes.recordings.turns import CallRecorder
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import frame
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.leaks import leaks
from pytest_egress.traffic.search.secrets import Secret
from tests.support.http2_client import Http2Client
from tests.support.http2_server import Http2Peer, http2_server
from tests.support.reels import reel_of
from tests.support.stage import ADDRESS, SECONDS, Stage

GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
KEY = "sk-of-the-test-1"
NOT_FOUND = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")]


@pytest.fixture
def deck() -> Deck:
    reel = reel_of(command="pytest --egress-record-mode=rewrite test_a.py")
    return Deck(reel, cassette(), is_required=False)


def test_what_comes_after_the_servers_end_is_searched_too(
    stage: Stage, deck: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Secret(KEY)
    stage.window.account._others.secrets = KnownValues([(KEY, made)])
    client = Http2Client(stage.dial(ADDRESS, 80), "http")
    has_ended, is_sent = threading.Event(), threading.Event()
    take = CallRecorder._take

    def take_later(recorder: CallRecorder, response: Any, **options: Any) -> Any:
        has_ended.set()
        assert is_sent.wait(SECONDS)
        return take(recorder, response, **options)

    def end_early(peer: Http2Peer) -> None:
        peer.head()
        peer.piece()
        peer.respond(NOT_FOUND)

    monkeypatch.setattr(CallRecorder, "_take", take_later)
    with http2_server(end_early) as port:
        monkeypatch.setattr(
            stage.gateway.upstreams,
            "reach",
            lambda *_: socket.create_connection(("127.0.0.1", port)),
        )
        stage.http(ADDRESS, deck)
        number = client.begin("/a.B/Both", "POST", headers=GRPC, ends=False)
        client.h2.send_data(number, frame(b"one"))
        client.flush()
        assert has_ended.wait(SECONDS)
        last = frame(b"and " + KEY.encode())
        for piece in (frame(b"two"), last[:12], last[12:]):
            client.h2.send_data(number, piece)
            client.flush()
        client.h2.ping(b"12345678")
        client.flush()
        assert client.until(lambda: client.pongs)  # the gateway has read all of it
        is_sent.set()
        client.answer(number)
    (leak,) = leaks([stage.only(Exchange)], [made])
    assert leak.secret == KEY
