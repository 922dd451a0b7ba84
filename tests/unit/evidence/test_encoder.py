"""An entry as a line of the ledger's file: its keys, its times, what it names, and no secret in any of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from pytest_egress import forward
from pytest_egress.base.account import Accounts
from pytest_egress.evidence.encoder import LineEncoder
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import INTERCEPT_HTTPS, INTERCEPT_TCP
from pytest_egress.routes.table import NearMiss
from pytest_egress.traffic.entries import (
    Accepted,
    AskedProxy,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    ProxyCall,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request, TlsInfo
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.notes import Marks, NotedMessages, Notes
from pytest_egress.traffic.redaction.redactor import BY_NAMES
from pytest_egress.traffic.websocket import WebSocketMessage
from tests.support.attempts import route, route_of
from tests.support.entries import about, datagrams, dns_query, http_exchange, packet, tcp, tls

KEY = "live_key_0123456789abcdef"
COMMON = {
    *("n", "kind", "container", "at", "host", "port", "outcome", "text", "fails", "problem"),
    *("reached", "note", "route", "route_text", "near", "remedy", "fault", "duration"),
    *("through", "accepted", "error", "connection", "marks"),
}


def encoded(*entries: Entry, secrets: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The lines of entries in a window that opened at 100 s."""
    accounts = Accounts()
    variables = {f"API_KEY_{n}": value for n, value in enumerate(secrets)}
    accounts.redactor = BY_NAMES.knowing(variables)
    window = Window(entries=[*entries], opened=100.0, account=accounts.open())
    for entry in entries:
        entry._account = window.account
        if isinstance(entry, Exchange):
            object.__setattr__(entry.request, "_account", window.account)
    encoder = LineEncoder([window], accounts.redactor)
    return [encoder.encoded(n, entry) for n, entry in enumerate(entries, 1)]


def mail() -> Mail:
    content = f"Subject: {KEY}\r\nContent-Type: text/plain\r\n\r\n{KEY}".encode()
    fields = about(port=25, address="198.18.0.1", sender=KEY, recipients=(KEY,))
    return Mail(**fields, content=content, user=KEY)


def record() -> KafkaRecord:
    fields = about(port=9092, address="198.18.0.1", topic=KEY, client_id=KEY)
    key, headers = KEY.encode(), ((KEY, KEY.encode()), ("x", None))
    return KafkaRecord(**fields, key=key, value=key, headers=headers, user=KEY)


def proxied() -> ProxyCall:
    fields = about(port=3128, address="198.18.0.1", method="GET", target=f"http://a.test/{KEY}")
    return ProxyCall(**fields, headers=Headers([("x", KEY)]), user=KEY, password=KEY)


class Opened:
    """A WebSocket that is over."""

    subprotocol, close_code, close_reason, unkept = KEY, 1000, KEY, 3


def exchange(path: str = f"/{KEY}", **fields: Any) -> Exchange:
    """A request that has the key wherever one can be."""
    request = Request(
        method="POST",
        scheme="https",
        host=f"{KEY}.test",
        port=443,
        path=path,
        query_string=f"k={KEY}",
        headers=Headers([(f"X-{KEY}", KEY), ("Authorization", "Bearer abcdefgh01234567")]),
        content=f'{{"a": "{KEY}"}}'.encode(),
    )
    response = Response(text=KEY, headers={"X-Echo": KEY})
    common = about(host=f"{KEY}.test", port=443, outcome="routed", note=KEY)
    return Exchange(**common | {"response": response, "duration": 0.5} | fields, request=request)


def opened() -> Exchange:
    entry = exchange()
    entry.websocket = Opened()
    for content in (KEY, b"\xff" + KEY.encode()):
        entry.messages.append(WebSocketMessage(content=content, from_client=True, at=101.0))
    return entry


ENTRIES = [
    (exchange(), "http"),
    (opened(), "websocket"),
    (tcp(first_bytes=KEY.encode(), sni=f"{KEY}.test", host=f"{KEY}.test"), "tcp"),
    (mail(), "mail"),
    (record(), "kafka"),
    (proxied(), "proxy"),
    (tls(sni=f"{KEY}.test", note=KEY), "tls"),
    (dns_query(host=f"{KEY}.test", answer=(KEY,), cnames=(f"{KEY}.test",)), "dns"),
    (packet(first_bytes=KEY.encode()), "udp"),
    (datagrams(KEY.encode(), b"x" * 60 + KEY.encode()), "udp"),
]


@pytest.mark.parametrize(("entry", "kind"), ENTRIES, ids=[kind for _, kind in ENTRIES])
def test_a_line_of_each_kind_has_all_keys_and_no_secret(entry: Entry, kind: str) -> None:
    (line,) = encoded(entry, secrets=[KEY])
    assert line["kind"] == kind
    assert line.keys() >= COMMON
    text = json.dumps(line)
    assert KEY not in text
    assert "abcdefgh01234567" not in text
    assert "<API_KEY_0>" in text


def test_datagrams_are_counted_and_the_first_is_kept() -> None:
    flow = datagrams(b"shop.orders:1|c", b"shop.ms:3|ms")
    flow.datagrams[1].replies.append(b"ok")
    (line,) = encoded(flow)
    assert (line["datagrams"], line["sent"], line["received"]) == (2, 27, 2)
    assert line["body"]["text"] == "shop.orders:1|c"


def test_times_are_milliseconds_from_the_opening_of_the_window() -> None:
    entry = http_exchange(started=100.25, duration=0.5)
    entry.marks = Marks(100.25)
    entry.marks.answered = 100.75
    (line,) = encoded(entry)
    assert (line["at"], line["duration"]) == (250.0, 500.0)
    assert line["marks"] == {
        "begun": 250.0,
        "whole": None,
        "called": None,
        "answered": 750.0,
        "sent": None,
    }


def test_what_fails_the_test_says_why_and_what_to_type() -> None:
    miss = NearMiss(route=route(), differences=("path: '/a' is not '/b'",))
    unrouted, fine, lookup = http_exchange(near=(miss,)), tcp(outcome="routed"), dns_query()
    broken = tls(outcome="recorded", reason="untrusted")
    lines = encoded(unrouted, fine, lookup, broken)
    assert [line["fails"] for line in lines] == [True, False, False, True]
    assert lines[0]["problem"] == "path: '/a' is not '/b'"
    assert lines[0]["near"][0]["differences"] == ["path: '/a' is not '/b'"]
    assert lines[0]["remedy"] == [
        ["to answer it", 'egress.intercept_https("api.test", method="GET", path="/")']
    ]
    assert lines[1]["remedy"] == lines[2]["remedy"] == []
    assert lines[3]["remedy"] == [
        ["to expect it, and answer nobody there", 'egress.block("api.test:443")']
    ]


def test_a_host_that_is_asked_as_a_proxy_has_two_ways_out() -> None:
    entry = http_exchange(note="asked as a proxy")
    entry._asked_proxy = AskedProxy("proxy.test:3128", ("HTTP_PROXY",))
    (line,) = encoded(entry)
    assert [code for _, code in line["remedy"]] == [
        'env={"HTTP_PROXY": ""}',
        'egress.proxy("proxy.test:3128")',
    ]


def test_a_handlers_error_has_its_traceback_and_its_route_the_handlers_place() -> None:
    def handler(request: Request) -> None:
        raise LookupError(f"no {KEY}")

    declared = route_of(declare(INTERCEPT_HTTPS, "api.test", handler))
    entry = exchange(route=declared)
    try:
        handler(entry.request)
    except LookupError as error:
        entry.error = error
    other = exchange(route=declared)
    first, second = encoded(entry, other, secrets=[KEY])
    assert first["error"]["type"] == "LookupError"
    assert "raise LookupError" in first["error"]["traceback"]
    assert first["handler"].startswith("handler at test_encoder.py:")
    assert first["route"] == second["route"] == 0
    assert first["route_text"].startswith('intercept_https("api.test"')
    assert KEY not in json.dumps(first)


def test_an_accepted_certificate_is_told_with_the_clients_library() -> None:
    bad = route_of(declare(INTERCEPT_HTTPS, "api.test", certificate="expired"))
    entry = http_exchange(outcome="routed", route=bad)
    entry.accepted = Accepted(bad, "OpenSSL 3")
    (line,) = encoded(entry)
    assert line["fails"]
    assert line["accepted"]["presented"] == "an expired certificate of api.test"
    assert line["accepted"]["library"] == "OpenSSL 3"


def forwarding(kind: Any, address: str) -> InnerRoute:
    return route_of(
        declare(kind, address, forward("tcp://127.0.0.1:1") if kind is INTERCEPT_TCP else forward())
    )


def test_what_got_out_says_so() -> None:
    sent = http_exchange(outcome="routed")
    object.__setattr__(sent.request, "_got_out", True)
    entries = [
        http_exchange(outcome="passthrough"),
        tcp(outcome="passthrough"),
        sent,
        tcp(outcome="routed", sent=1),
        tcp(outcome="routed", route=forwarding(INTERCEPT_TCP, "db.test:5432")),
    ]
    assert [line["reached"] for line in encoded(*entries)] == [True] * 5
    others = [http_exchange(outcome="routed"), tcp(outcome="routed"), tls(), dns_query(), packet()]
    assert not any(line["reached"] for line in encoded(*others))


def test_a_connection_is_one_for_its_entries_and_knows_its_first() -> None:
    note = Notes(lambda: 100.1).connection()
    note.hello, note.secured, note.library = 100.2, 100.3, "OpenSSL 3"
    note.tls = TlsInfo(version="TLSv1.3", cipher="x", alpn="h2", client_certificate=b"\x30\x00")
    entries = [http_exchange() for _ in range(3)]
    entries[1].connection = entries[2].connection = note
    window = Window(entries=[*entries], opened=100.0)
    encoder = LineEncoder([window], BY_NAMES)
    lines = [encoder.encoded(n, entry) for n, entry in enumerate(entries, 1)]
    assert [line["connection"] for line in lines] == [None, 1, 1]
    (facts,) = encoder.connections.values()
    assert (facts["first"], facts["requests"]) == (2, 2)
    assert (facts["opened"], facts["hello"], facts["secured"]) == (100.0, 200.0, 300.0)
    assert facts["tls"]["client_certificate"] == "2 bytes of DER"


def test_the_answer_to_a_question_for_a_password_is_masked_in_messages_and_is_in_no_body() -> None:
    entry = tcp(outcome="routed", kept=bytearray(b"AUTH LOGIN\r\naHVudGVyMg==\r\n"))
    entry.noted = NotedMessages(Accounts().open())
    for at, (content, from_client) in enumerate(
        [(b"AUTH LOGIN\r\n", True), (b"334 UGFzc3dvcmQ6\r\n", False), (b"aHVudGVyMg==\r\n", True)]
    ):
        entry.noted.add(101.0 + at, content, from_client=from_client)
    (line,) = encoded(entry)
    assert "aHVudGVyMg" not in json.dumps(line)
    assert [each["from_client"] for each in line["messages"]] == [True, False, True]
    assert (line["sent"], line["received"]) == (26, 18)
    assert line["body"] == {"size": 26}


def conversation(*said: tuple[bytes, bool]) -> Entry:
    entry = tcp(outcome="routed")
    entry.noted = NotedMessages(Accounts().open())
    for at, (content, from_client) in enumerate(said):
        entry.noted.add(101.0 + at, content, from_client=from_client)
    return entry


def test_a_secret_that_comes_byte_by_byte_is_hidden_all_the_same() -> None:
    pieces = [(bytes([byte]), True) for byte in f"k={KEY}!".encode()]
    (line,) = encoded(conversation(*pieces, (b"ok", False), (b"no", False)), secrets=[KEY])
    assert [(each["text"], each["size"]) for each in line["messages"]] == [
        ("k=<API_KEY_0>!", len(KEY) + 3),
        ("ok", 2),
        ("no", 2),
    ]
    assert line["first"] == "k=<API_KEY_0>!"


def test_a_secret_far_behind_is_hidden_too_and_a_message_is_shown_in_part() -> None:
    pieces = [(b"x" * 1500, True), (b"y" * 1500 + KEY[:9].encode(), True), (KEY[9:].encode(), True)]
    (line,) = encoded(conversation(*pieces), secrets=[KEY])
    (message,) = line["messages"]
    assert (len(message["text"]), message["size"]) == (2000, 3000 + len(KEY))
    assert KEY[9:] not in json.dumps(line)


def test_pieces_without_a_secret_stay_apart() -> None:
    (line,) = encoded(conversation((b"a", True), (b"b", True), (b"c", False)))
    assert [each["text"] for each in line["messages"]] == ["a", "b", "c"]


def test_a_message_of_grpc_is_what_it_means() -> None:
    entry = http_exchange("POST", "/shop.Orders/Get", headers={"Content-Type": "application/grpc"})
    entry.noted = NotedMessages(Accounts().open())
    entry.noted.add(101.0, b"\n\x01a", from_client=True, decoded=b"a plain one")
    entry.noted.add(102.0, b"", from_client=False, decoded=StringValue(value=f"x {KEY}"))
    (line,) = encoded(entry, secrets=[KEY])
    assert [each["text"] for each in line["messages"]] == ["a plain one", '"x <API_KEY_0>"']
    assert line["grpc"]["path"] == "/shop.Orders/Get"
    assert line["request"]["body"] is None


def test_a_binary_message_of_a_websocket_has_its_bytes() -> None:
    (line,) = encoded(opened(), secrets=[KEY])
    text, binary = line["messages"]
    assert text["text"] == "<API_KEY_0>"
    assert "base64" not in text
    assert binary["base64"] == "/zxBUElfS0VZXzA+"
    assert line["unkept"] == 3
    assert line["request"]["body"] is None


def test_the_block_that_declares_all_is_of_what_no_route_claims() -> None:
    window = Window(entries=[tcp(), tcp(), http_exchange(outcome="routed")])
    assert LineEncoder([window], BY_NAMES).paste() == ['egress.intercept_tcp("api.test:5432")']
    assert LineEncoder([Window()], BY_NAMES).paste() == []
