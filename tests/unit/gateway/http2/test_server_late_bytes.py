"""What a client sends of a body after the response has ended is dropped, but it is searched for secrets first."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hyperframe.frame import DataFrame

from pytest_egress import forward
from pytest_egress.gateway.http import bodies
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.search.leaks import leaks
from pytest_egress.traffic.search.secrets import Secret
from tests.support.http2_client import Http2Client
from tests.support.http2_server import Http2Peer, http2_server
from tests.support.stage import ADDRESS, Stage

KEY = "sk-of-the-test-1"


def answer_early(peer: Http2Peer) -> None:
    peer.head()
    peer.respond([(":status", "413")])


@pytest.mark.parametrize("answer", [413, forward()], ids=["static", "forwarded"])
@pytest.mark.parametrize("pieces", [[KEY.encode()], [KEY[:7].encode(), KEY[7:].encode()]])
@pytest.mark.parametrize("padding", [0, 9])
def test_a_secret_after_the_end_of_the_response_is_found(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    pieces: list[bytes],
    padding: int,
) -> None:
    monkeypatch.setattr(bodies, "REST_SECONDS", 0.01)
    made = Secret(KEY)
    stage.window.account._others.secrets = KnownValues([(KEY, made)])
    with http2_server(answer_early) as port:
        monkeypatch.setattr(
            stage.gateway.upstreams,
            "reach",
            lambda owner, *_: owner.adopt(socket.create_connection(("127.0.0.1", port))),
        )
        stage.http(ADDRESS, answer, stream=True)
        client = Http2Client(stage.dial(ADDRESS, 80), "http")
        number = client.begin("/a", "POST", ends=False)
        client.flush()
        assert client.until(lambda: client.answers[number].ended)
        for piece in pieces:
            frame = DataFrame(number, piece, pad_length=padding)
            frame.flags |= {"PADDED"} if padding else set()
            client.sock.sendall(frame.serialize())
        client.h2.ping(b"12345678")
        client.flush()
        assert client.until(lambda: client.pongs)  # the gateway has read all of it
        (leak,) = leaks([stage.only(Exchange)], [made])
        assert leak.secret == KEY
        assert client.ask("/a").status == 413  # the connection goes on
