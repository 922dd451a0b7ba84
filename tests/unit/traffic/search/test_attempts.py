"""What a target has sent in an attempt, and what of it was not kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_egress.traffic.entries import Entry, Exchange, KafkaRecord, ProxyCall
from pytest_egress.traffic.grpc import frame
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.search.attempts import pieces_of
from pytest_egress.traffic.search.pieces import Piece, Unread
from pytest_egress.traffic.websocket import WebSocketMessage
from tests.support.entries import about

GRPC = Headers({"Content-Type": "application/grpc", "X-Data-Bin": "YW5uQGV4YW1wbGU"})


class Unfinished:
    """The rest of a request: its body is not whole, and nobody is to wait for it."""

    is_whole = is_cut = False

    def __init__(self, streamed: int | None = None) -> None:
        self.streamed = streamed

    @property
    def content(self) -> Any:
        raise AssertionError("the search waits for a body")

    @property
    def trailers(self) -> Headers:
        return Headers() if self.streamed is not None else self.content


def exchange(headers: Headers, body: Any = None, content: bytes = b"") -> Exchange:
    about_request: dict[str, Any] = {
        "method": "POST",
        "scheme": "https",
        "host": "api.test",
        "port": 443,
        "path": "/shop.V1/Pay",
    }
    if body is not None:
        request = Request.received(
            **about_request, query_string="", headers=headers, sni=None, _body=body, _account=None,
            _has_empty_query=False,
        )  # fmt: skip
    else:
        request = Request(**about_request, headers=headers, raw_content=content)
    return Exchange(**about(outcome="routed", port=443), request=request)


def values(entry: Entry) -> list[tuple[str, str | bytes]]:
    return [(each.place, each.value) for each in pieces_of(entry) if isinstance(each, Piece)]


def unread(entry: Entry) -> list[str]:
    return [f"{each.place} {each.why}" for each in pieces_of(entry) if isinstance(each, Unread)]


@pytest.mark.parametrize(
    ("streamed", "why"),
    [
        (None, "body has not been read to its end"),
        (7, "body was streamed, and is not kept, 7 bytes streamed"),
    ],
)
def test_a_body_that_is_not_kept_is_not_waited_for(streamed: int | None, why: str) -> None:
    assert unread(exchange(Headers(), Unfinished(streamed))) == [why]


def test_the_trailers_of_a_body_that_was_streamed_are_searched() -> None:
    body = SimpleNamespace(
        streamed=7, is_whole=False, is_cut=False, trailers=Headers({"X-Sum": "abc"})
    )
    assert ("trailer X-Sum", "abc") in values(exchange(Headers(), body))


# gRPC.


class Field:
    def __init__(self, name: str) -> None:
        self.name = name


class Message:
    """A message as protobuf has them."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def ListFields(self) -> list[tuple[Field, Any]]:
        return [(Field(name), value) for name, value in self._fields.items()]

    def SerializeToString(self) -> bytes:
        return b"the whole message"


def test_messages_of_grpc_have_the_names_of_their_fields() -> None:
    call = exchange(GRPC, Unfinished())
    people = [Message(email="ann@example.com", data=b"raw"), Message(tags={"vip": "yes"}, id=7)]
    call.grpc.requests.append(Message(to=people))
    call.grpc.is_read_out = True
    found = dict(values(call))
    assert found["message 0: to[0].email"] == "ann@example.com"
    assert found["message 0: to[0].data"] == b"raw"
    assert found["message 0: to[1].tags['vip']"] == "yes"
    assert found["message 0"] == b"the whole message"
    assert found["metadata x-data-bin"] == b"ann@example"
    assert not unread(call)


def test_messages_that_a_servicer_has_not_read_are_said() -> None:
    call = exchange(GRPC, Unfinished())
    assert unread(call) == ["body may have more messages than were read"]
    call.grpc.requests.append(object())
    call.grpc.is_read_out = True
    assert unread(call) == ["message 0 is a object, whose bytes are not kept"]


def test_messages_of_a_body_that_was_kept_are_those_that_were_sent() -> None:
    content = frame(b"one") + frame(b"two")
    assert [each for each in values(exchange(GRPC, content=content)) if "message" in each[0]] == [
        ("message 0", b"one"),
        ("message 1", b"two"),
    ]
    cut = exchange(GRPC, content=content[:-1])
    assert ("message 0", b"one") in values(cut)
    assert unread(cut) == [
        "body cannot be decoded: the request ended within a message, after 7 bytes of it"
    ]


# WebSockets.


def test_messages_of_a_websocket_are_those_of_the_client() -> None:
    chat = exchange(Headers(), content=b"")
    chat.websocket = SimpleNamespace(unkept=0, close_reason="bye ann")
    for content, from_client in (("hello", False), ('{"to": "ann"}', True), (b"ann", True)):
        chat.messages.append(WebSocketMessage(content=content, from_client=from_client, at=1.0))
    found = values(chat)
    assert ("message 1 json: to", "ann") in found
    assert ("message 2", b"ann") in found
    assert ("the reason of its close frame", "bye ann") in found
    assert all(place != "message 0" for place, _ in found)
    chat.websocket.unkept = 3
    assert unread(chat) == ["messages are not all kept: 3 are missing"]


def test_an_entry_of_another_kind_is_not_passed_over() -> None:
    assert unread(Entry(**about())) == ["it is a Entry, which is not known here"]


def test_all_of_a_record_of_kafka_is_searched() -> None:
    record = KafkaRecord(
        **about(outcome="routed", port=9092),
        address="",
        topic="orders",
        key=b"ann",
        value=b'{"user": {"email": "ann\\u0040example.com"}}',
        headers=(("trace", b"4711"), ("none", None)),
        client_id="shop",
        user="login",
    )
    found = values(record)
    for piece in (
        ("topic", "orders"),
        ("value json: user.email", "ann@example.com"),
        ("header 'trace' (its name)", "trace"),
        ("client.id", "shop"),
        ("the name of its login", "login"),
    ):
        assert piece in found
    assert {b"ann", b"4711"} <= {value for _, value in found}
    assert unread(record) == []


def test_what_was_asked_of_a_proxy_is_searched_with_its_credentials() -> None:
    call = ProxyCall(
        **about(outcome="recorded", port=3128),
        address="192.0.2.7",
        method="CONNECT",
        target="ann.example.test:443",
        headers=Headers({"Proxy-Authorization": "Basic YW5uOnNlY3JldA=="}),
    )

    assert ("url", "ann.example.test:443") in values(call)
    assert [v for _, v in values(call) if "ann" in str(v) and "secret" in str(v)]
    assert unread(call) == []
