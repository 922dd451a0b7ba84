"""WebSockets of a cassette: played in their order, compared message by message, and recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pytest_egress import cassette
from pytest_egress.errors import CassetteError
from pytest_egress.routes.answers import held
from pytest_egress.routes.duplex import Conversation, Duplex
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.routes.recordings.reel import ToRecord
from pytest_egress.routes.websocket.answer import refuse, websocket
from pytest_egress.traffic.cassettes.tape import Tape, tape_of, text_of
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.reels import reel_of
from tests.support.websocket_server import DuplexServer, serving

TEXT = """\
egress_cassette: 1
secrets: [KEY]
interactions:

- request:
    websocket: ws://ws.test/
  messages:
  - receive: welcome
  - send: {json: {key: <KEY>, n: 2}}
  - receive: {json: {key: <KEY>}}
  - send: {base64: /wA=}
  - receive: {base64: AA==}
"""
CLOSED = f"{TEXT}  close: 4001\n  reason: enough\n"
ASKED = '{"n": 2, "key": "k1"}'


class Relayed:
    """In the place of a real server: says hello, and closes with 4002 after one message."""

    closing: tuple[int, str] | None = (4002, "done")
    refused: Response | None = None

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        websocket(lambda ws: (ws.send("hello"), ws.recv(), ws.close(4002, "done"))[2]).converse(
            request, duplex, conversation
        )


class Refusing(Relayed):
    def __init__(self, *, is_ours: bool = False) -> None:
        self._is_ours = is_ours

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        response = Response(403, json={"error": "no"}, headers={"X-Why": "k"})
        if not self._is_ours:
            self.refused = response
        conversation.detach(lambda: None)
        refuse(response, duplex, conversation)


def deck(text: str = "", records: ToRecord = "nothing", ignore: Any = ()) -> Deck:
    reel = reel_of(
        tape_of(text, "a.yaml") if text else None,
        records=records,
        variables={"KEY": "k1"},
        command="pytest --egress-record-mode=new_episodes test_a.py",
    )
    return Deck(reel, cassette(ignore=ignore), is_required=False)


@contextmanager
def playing(one: Deck) -> Iterator[tuple[DuplexServer, ClientConnection]]:
    with serving(one.websocket(Relayed())) as server, connect(server.url) as client:
        yield server, client


def error_of(server: DuplexServer) -> BaseException | None:
    call = server.call()
    assert call.done.wait(20)
    return call.error


def code_of(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=20)
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


@pytest.mark.parametrize("text", [TEXT, CLOSED])
def test_what_the_server_sent_comes_when_what_the_client_sent_before_it_has_come(text: str) -> None:
    with playing(deck(text)) as (server, client):
        assert client.recv() == "welcome"
        client.send(ASKED)
        assert client.recv() == '{"key":"k1"}'
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.05)
        client.send(b"\xff\0")
        assert client.recv() == b"\0"
        if text is CLOSED:
            assert code_of(client) == 4001
    assert error_of(server) is None
    assert server.call().exchange.note == "recording 1 of a.yaml"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ('{"n": 3, "key": "k1"}', "messages[1].json.n: 3 is not 2"),
        ('{"n": 3, "n": 2, "key": "k1"}', "messages[1].json: the name 'n' repeats in one object"),
        ("hello", "messages[1].json: the message is no JSON: 'hello'"),
        (b"\xff", r"messages[1].json: the message is no JSON: b'\xff'"),
    ],
)
def test_a_message_that_differs_fails_with_its_place_and_closes_with_1008(
    sent: str | bytes, said: str
) -> None:
    with playing(deck(TEXT)) as (server, client):
        assert client.recv() == "welcome"
        client.send(sent)
        assert code_of(client) == 1008
    error = error_of(server)
    assert isinstance(error, CassetteError)
    assert str(error) == (
        f"http://ws.test/: {said}; so says a.yaml:5; "
        "record it again: pytest --egress-record-mode=rewrite test_a.py"
    )


def test_texts_and_bytes_differ() -> None:
    for wanted, sent, said in (
        ("hi", "ho", "messages[0]: 'ho' is not 'hi'"),
        ("hi", b"hi", "messages[0]: it sent bytes, and the recorded message is text"),
        ("{base64: AA==}", "hi", "messages[0]: it sent text, and the recorded message is bytes"),
    ):
        text = f"{TEXT.partition('  - receive')[0]}  - send: {wanted}\n"
        with playing(deck(text)) as (server, client):
            client.send(sent)
            assert code_of(client) == 1008
        assert said in str(error_of(server))


def test_a_place_of_a_message_may_be_ignored() -> None:
    with playing(deck(TEXT, ignore=["messages[1].json.n", "messages[5]"])) as (server, client):
        client.send('{"n": 3, "key": "k1"}')
        client.send(b"\xff\0")
        client.send("more")
    assert error_of(server) is None


def test_a_message_too_many_and_one_too_few_are_errors() -> None:
    with playing(deck(TEXT)) as (server, client):
        client.send(ASKED)
        client.send(b"\xff\0")
        client.send("more")
    assert "messages[5]: 'more' was not expected: the recording has ended" in str(error_of(server))
    with playing(deck(TEXT)) as (server, client):
        client.send(ASKED)
        client.close(1000)
    assert "messages[3]: the client has closed with 1000 before it" in str(error_of(server))


def test_two_websockets_of_one_url_may_be_opened_in_another_order() -> None:
    other = TEXT.partition("interactions:\n")[2].replace("n: 2", "n: 3")
    one = deck(f"{TEXT}{other}")
    with playing(one) as (first_server, first), playing(one) as (second_server, second):
        for client, asked in ((first, '{"n": 3, "key": "k1"}'), (second, ASKED)):
            assert client.recv() == "welcome"
            client.send(asked)
            assert client.recv() == '{"key":"k1"}'
            client.send(b"\xff\0")
            assert client.recv() == b"\0"
    assert error_of(first_server) is None
    assert error_of(second_server) is None
    assert first_server.call().exchange.note == "recording 2 of a.yaml"
    assert one.reel.unplayed() == []


def test_the_end_of_the_test_is_no_difference() -> None:
    with playing(deck(TEXT)) as (server, client):
        assert client.recv() == "welcome"
        call = server.call()
        assert call.end is not None
        call.end()
        assert code_of(client) == 1001
    assert error_of(server) is None


def test_a_handshake_is_recorded_once_and_a_second_one_is_used_up() -> None:
    one = deck(TEXT)
    with playing(one) as (server, client):
        client.send(ASKED)
        client.send(b"\xff\0")
    assert error_of(server) is None
    upgrade = Headers({"Upgrade": "websocket", "Connection": "Upgrade"})
    request = Request(
        method="GET", scheme="http", host="ws.test", port=80, path="/", headers=upgrade
    )
    assert "recorded 1 time in a.yaml, and asked once more" in one.misses(request)[0]
    assert deck(TEXT).reel.unplayed() == ["a.yaml:5: WebSocket ws://ws.test/"]
    plain = Request(method="GET", scheme="http", host="ws.test", port=80, path="/")
    assert deck(TEXT).misses(plain)[0] == (
        "upgrade: one of them opens a WebSocket, and the other does not"
    )


def test_a_websocket_is_recorded_through_the_relay_with_the_close_of_the_server() -> None:
    one = deck(records="all")
    with playing(one) as (server, client):
        assert client.recv() == "hello"
        client.send("hi")
        assert code_of(client) == 4002
    assert error_of(server) is None
    (taken,) = one.reel.taken
    assert taken.request.url == "ws://ws.test/"
    assert taken.response.body.value == [{"receive": "hello"}, {"send": "hi"}]
    assert (taken.response.status, taken.response.details) == (4002, "done")


def refusal_by(one: Deck, relay: Relayed) -> tuple[Any, BaseException | None]:
    with serving(one.websocket(relay)) as server:
        with pytest.raises(InvalidStatus) as refused, connect(server.url):
            pass
        (call,) = server.calls
        assert call.done.wait(20)
        return refused.value.response, call.error


def test_a_server_that_is_not_reached_is_an_error_and_no_recording() -> None:
    one = deck(records="all")
    response, error = refusal_by(one, Refusing(is_ours=True))
    assert response.status_code == 403
    assert "is not recorded: the upstream has opened no WebSocket" in str(error)
    assert one.reel.taken == []


REFUSED = """\

- request:
    websocket: ws://ws.test/
  response:
    status: 403
    headers: {content-type: application/json, x-why: k}
    json: {error: no}
"""


def test_a_handshake_that_the_server_refuses_is_recorded_and_replayed_as_that() -> None:
    one = deck(records="all")
    response, error = refusal_by(one, Refusing())
    assert (json.loads(response.body), error) == ({"error": "no"}, None)
    text = text_of(Tape(recordings=tuple(one.reel.taken)))
    assert text == f"egress_cassette: 1\ninteractions:\n{REFUSED}"
    played = deck(text)
    response, error = refusal_by(played, Relayed())
    assert (response.status_code, response.headers["x-why"]) == (403, "k")
    assert (response.body, error) == (b'{"error":"no"}', None)
    assert played.reel.unplayed() == []


def test_a_refusal_before_a_websocket_of_the_same_url_is_played_before_it_and_in_its_place_never() -> (
    None
):
    opens = "\n- request: {websocket: ws://ws.test/}\n  messages: [{send: hi}]\n"
    one = deck(f"egress_cassette: 1\ninteractions:\n{REFUSED}{opens}{REFUSED}")
    assert refusal_by(one, Relayed())[0].status_code == 403
    with playing(one) as (server, client):
        client.close()
    assert "the client has closed with 1000 before it" in str(error_of(server))
    assert one.reel.unplayed() == ["a.yaml:14: WebSocket ws://ws.test/"]


def test_an_ordinary_request_is_never_answered_by_a_websocket() -> None:
    plain = Request(method="GET", scheme="http", host="ws.test", port=80, path="/")
    with pytest.raises(CassetteError, match="another request has taken the last recording"):
        deck(TEXT).answer(plain, held)
