"""What a failure shows at `-v` of an entry: fields and bodies, masked and cut, and bytes both ways."""

from __future__ import annotations

import gzip
import os
from typing import Any

import pytest

from pytest_egress.base import account as accounts
from pytest_egress.ledger.details import (
    READ_BYTES,
    SHOWN_FIELDS,
    SHOWN_GRPC,
    SHOWN_LINE,
    SHOWN_LINES,
    detail_lines,
)
from pytest_egress.traffic.entries import Entry, Exchange, Mail, transcript_of
from pytest_egress.traffic.http.content_coding import FIRST_BYTES
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.entries import about, datagrams, dns_query, http_exchange, packet, tcp, tls


def exchange(content: bytes = b"", response: Any = None, **fields: Any) -> Exchange:
    """A routed exchange with that body."""
    headers = Headers(fields.pop("headers", {}))
    request = Request(
        method="POST",
        scheme="https",
        host="api.test",
        port=443,
        path="/",
        headers=headers,
        raw_content=content,
    )
    return Exchange(
        **about(outcome="routed", port=443) | fields, request=request, response=response
    )


def test_fields_and_bodies_are_shown_with_their_secrets_masked() -> None:
    entry = exchange(
        b'{"amount": 3, "api_key": "sk_live_123456789"}\n',
        Response(json={"id": 1}),
        headers={"Authorization": "Bearer abcdefghijklmnop", "X-Id": "7"},
    )
    assert detail_lines(entry) == [
        "> Authorization: Bearer abcd... (16 characters)",
        "> X-Id: 7",
        ">",
        '> {"amount": 3, "api_key": "sk_l... (17 characters)"}',
        "< Content-Type: application/json",
        "<",
        '< {"id": 1}',
    ]


def test_long_heads_lines_and_bodies_are_cut() -> None:
    fields = {f"X-{number}": "x" * 999 for number in range(SHOWN_FIELDS + 1)}
    lines = detail_lines(exchange(b"y" * 999 + b"\n" + b"z\r\n" * 999, headers=fields))
    assert lines[SHOWN_FIELDS] == "> ... 1 more field"
    assert lines[-1] == "> ...  (3997 bytes)"
    assert len(lines) == SHOWN_FIELDS + 1 + 1 + SHOWN_LINES + 1
    assert max(map(len, lines)) <= SHOWN_LINE + len("> ")
    assert detail_lines(exchange(b"\xc3\xa4" * 10_000))[-1] == "> ...  (20000 bytes)"


def test_what_is_no_text_is_shown_as_bytes_and_what_is_compressed_is_read() -> None:
    assert detail_lines(exchange(b"\x00\xff\x01")) == [">", r"> b'\x00\xff\x01'  (3 bytes)"]
    packed = exchange(gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
    assert detail_lines(packed)[-1] == "> hello"
    broken = exchange(b"\x1f\x8b?", headers={"Content-Encoding": "gzip"})
    assert detail_lines(broken)[-1] == r"> b'\x1f\x8b?'  (3 bytes)"
    assert detail_lines(exchange(b"\xff" * READ_BYTES * 2))[-1].startswith(r"> b'\xff")


def compressed(content: bytes, coding: str = "gzip", **fields: Any) -> Exchange:
    return exchange(content, headers={"Content-Encoding": coding}, **fields)


def test_the_beginning_of_a_compressed_body_is_decoded_and_its_size_is_that_which_was_sent() -> (
    None
):
    bomb = gzip.compress(b"line\n" * 1_000_000)
    # Whatever reads on finds that it is no gzip any more.
    spoilt = bomb[:FIRST_BYTES] + bytes(len(bomb))
    assert detail_lines(compressed(spoilt))[-1] == f"> ...  ({len(spoilt)} bytes of gzip)"
    noise = os.urandom(READ_BYTES).hex().encode()  # what is read of it is less than is shown
    packed = gzip.compress(b"begin\n" + noise)
    assert len(packed) > READ_BYTES
    lines = detail_lines(compressed(packed))
    assert (lines[2], lines[-1]) == ("> begin", f"> ...  ({len(packed)} bytes of gzip)")
    twice = gzip.compress(gzip.compress(b"hello"))
    assert detail_lines(compressed(twice, "gzip, x-gzip"))[-1] == "> hello"
    assert detail_lines(compressed(b"plain", "rot13"))[-1] == "> plain"


def test_a_report_takes_no_room_of_the_test_that_it_is_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = accounts.Accounts()
    of_test = run.open()
    monkeypatch.setattr(accounts, "MAX_HELD_BYTES", 0)
    of_test.close()
    request = Request(
        method="POST",
        scheme="https",
        host="api.test",
        port=443,
        path="/",
        headers=Headers({"Content-Encoding": "gzip"}),
        raw_content=gzip.compress(b"hello"),
        _account=of_test,
    )
    entry = Exchange(**about(outcome="routed", port=443), request=request, response=None)
    assert detail_lines(entry)[-1] == "> hello"
    assert (run.lost_late, of_test.held) == ({}, 0)


def test_the_response_of_another_server_is_decoded_and_one_that_is_compressed_here_is_not() -> None:
    made = Response(text="hello", compress="gzip")
    assert detail_lines(exchange(response=made))[-1] == "< hello"
    fields = Headers({"Content-Encoding": "gzip"})
    sent = Response.received(200, fields, reason="OK", content=gzip.compress(b"hello"))
    assert detail_lines(exchange(response=sent))[-1] == "< hello"


class Unprintable:
    """A message of a test's own class: how often it was asked for its text."""

    asked = 0

    def __str__(self) -> str:
        Unprintable.asked += 1
        raise KeyError("x")


def test_the_first_messages_of_a_grpc_call_are_shown_whatever_their_texts_do() -> None:
    entry = exchange(response=Response(200), headers={"Content-Type": "application/grpc"})
    entry.grpc.requests.extend(Unprintable() for _ in range(SHOWN_GRPC + 3))
    entry.grpc.responses.append("last")
    _, *lines = detail_lines(entry)
    assert lines[:2] == [">", "> its __str__ raised KeyError"]
    assert lines[2 * SHOWN_GRPC :] == ["> ... 3 more messages", "<", "< last"]
    assert Unprintable.asked == SHOWN_GRPC


def test_the_text_of_a_refusal_is_not_repeated() -> None:
    refusal = Response(502, text="pytest-egress: no route answers it\nto answer it: x\n")
    assert detail_lines(exchange(response=refusal, outcome="unrouted")) == []
    assert detail_lines(exchange(response=refusal, outcome="routed")) != []


@pytest.mark.parametrize("entry", [dns_query(), tls(), tcp(), packet(), http_exchange()])
def test_what_brought_nothing_has_no_lines(entry: Entry) -> None:
    assert detail_lines(entry) == []


def test_bytes_are_shown_both_ways_and_in_order() -> None:
    entry = tcp()
    for data, from_client in [(b"220 hi\r\n", False), (b"EH", True), (b"LO\r\n", True)]:
        transcript_of(entry).add(data, from_client=from_client)
    transcript_of(entry).add(b"token=abcdefghijkl", from_client=False)
    assert detail_lines(entry) == [
        r"< b'220 hi\r\n'",
        r"> b'EHLO\r\n'",
        "< b'token=abc... (12 characters)'",
    ]
    assert detail_lines(tcp(first_bytes=b"\0\1")) == [r"> b'\x00\x01'"]
    assert detail_lines(packet(first_bytes=b"x")) == ["> b'x'"]


def test_the_first_datagrams_are_shown_each_with_what_answers_it() -> None:
    flow = datagrams(b"token=abcdefghijkl", *(b"%d" % number for number in range(6)))
    flow.datagrams[0].replies.append(b"ok")
    assert detail_lines(flow) == [
        "> b'token=abc... (12 characters)'",
        "< b'ok'",
        *(f"> b'{number}'" for number in range(4)),
        "> ... 2 more datagrams",
    ]


def test_a_transcript_keeps_the_beginning() -> None:
    said = transcript_of(tcp())
    said.add(b"x" * 9999, from_client=True)
    said.add(b"y", from_client=False)
    ((_, data),) = said.pieces
    assert (len(data), said.room) == (512, 0)


def test_a_mail_is_shown_as_it_was_sent() -> None:
    mail = Mail(
        **about(outcome="routed", port=25),
        address="198.18.0.1",
        sender="a@x.test",
        recipients=("b@x.test",),
        content=b"Subject: hi\r\n\r\nyou\r\n",
    )
    assert detail_lines(mail) == [">", "> Subject: hi", "> ", "> you"]
