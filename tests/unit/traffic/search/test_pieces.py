"""What is decoded of an entry is bounded, and so is the work: it grows as what was sent does, and no faster."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, SupportsIndex

import pytest

from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import deflate, frame
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.search import contents
from pytest_egress.traffic.search.attempts import pieces_of
from pytest_egress.traffic.search.needles import checked
from pytest_egress.traffic.search.pieces import Budget, Piece, Room, Unread
from pytest_egress.traffic.search.verdict import search
from tests.support.entries import about

MIB = 1 << 20
MORE = "is more, decoded, than is searched"


def sent(content: bytes, content_type: str, **fields: str) -> Exchange:
    request = Request(
        method="POST",
        scheme="https",
        host="api.test",
        port=443,
        path="/",
        headers=Headers({"Content-Type": content_type} | fields),
        raw_content=content,
    )
    return Exchange(**about(outcome="routed", port=443), request=request)


def unread(exchange: Exchange) -> list[str]:
    return [each.why for each in pieces_of(exchange) if isinstance(each, Unread)]


@contextmanager
def peak() -> Iterator[Callable[[], int]]:
    """The most bytes that were allocated at one time in the block so far."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def calls_in(work: Callable[[], object]) -> int:
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


# JSON.


def nested(value: Any, name: str, times: int) -> bytes:
    for _ in range(times):
        value = {name: value}
    return json.dumps(value).encode()


def test_no_path_is_kept_for_each_item_of_json() -> None:
    body = nested([0] * 50_000, "k" * 60, 40)
    with peak() as most:
        for _ in pieces_of(sent(body, "application/json")):
            pass
        assert most() < 10 * MIB


def test_a_path_in_json_is_cut_and_has_both_its_ends() -> None:
    body = nested({"last": ["ann"]}, "k" * 60, 300).replace(b'"kk', b'"first', 1)
    (place,) = {
        each.place
        for each in pieces_of(sent(body, "application/json"))
        if isinstance(each, Piece) and each.value == "ann"
    }
    assert len(place) < 350
    assert place.startswith("body json: first")
    assert place.endswith("k.last[0]")


def test_json_of_more_values_than_are_kept_is_said_and_not_parsed() -> None:
    body = b"[" + b"[]," * 9_700_000 + b"0]"
    with peak() as most:
        assert unread(sent(body, "application/json")) == ["has more values than are decoded"]
        assert most() < 5 * len(body)


# Messages and items.


def test_messages_that_inflate_to_more_than_is_searched_are_inflated_one_at_a_time() -> None:
    body = frame(deflate(bytes(4 * MIB - 1), "gzip"), compressed=True) * 20
    call = sent(body, "application/grpc", **{"grpc-encoding": "gzip"})
    with peak() as most:
        assert unread(call) == [MORE]
        assert most() < 40 * MIB


class Counted(bytes):
    """Bytes that count how many of them are copied out of them."""

    copied = 0

    def __getitem__(self, part: SupportsIndex | slice) -> Any:
        found = super().__getitem__(part)
        return self.counted(found) if isinstance(found, bytes) else found

    def partition(self, sep: Any) -> Any:
        return tuple(map(self.counted, super().partition(sep)))

    def removeprefix(self, prefix: Any) -> Any:
        return self.counted(super().removeprefix(prefix))

    def counted(self, part: bytes) -> bytes:
        Counted.copied += len(part)
        return Counted(part)


def test_an_envelope_of_many_items_is_copied_a_few_times_in_all() -> None:
    items = b'{"type":"event"}\n{}\n{"length":2}\n{}\n' * 1000
    body = Counted(b"{}\n" + items)
    assert [*contents.content_pieces("body", body, contents.ENVELOPE, Room())]
    assert 0 < Counted.copied < 5 * len(body)


# All that is decoded of an entry.


def test_what_is_decoded_of_an_entry_is_bounded_in_all() -> None:
    zeros = base64.b64encode(gzip.compress(bytes(60 * MIB))).decode()
    assert unread(sent(json.dumps([zeros] * 5).encode(), "application/json")) == [MORE]


WORD = b"abcdefgh" * 20
DECODED = {
    "zlib": (zlib.compress(WORD), ""),
    "gzip": (gzip.compress(WORD), ""),
    "base64": (base64.b64encode(WORD), ""),
    "percent-encoding": (b"%41" + WORD, ""),
    "percent-encoding in a form": (b"a=%2541" + WORD, "application/x-www-form-urlencoded"),
    "a mail": (b"--B\r\n\r\n" + WORD + b"\r\n--B--\r\n", "multipart/mixed; boundary=B"),
}


@pytest.mark.parametrize(("data", "content_type"), DECODED.values(), ids=DECODED)
def test_what_is_over_the_budget_is_said(data: bytes, content_type: str) -> None:
    def said(budget: int) -> bool:
        room = Room(Budget(budget))
        pieces = [*contents.content_pieces("body", data, content_type, room)]
        assert data in [each.value for each in pieces if isinstance(each, Piece)]
        return MORE in [each.why for each in pieces if isinstance(each, Unread)]

    assert said(100)
    assert not said(2000)


def test_the_parts_of_a_mail_are_within_the_budget_as_the_mail_is() -> None:
    mail = b"\r\n" + WORD
    room = Room(Budget(len(mail) + 10))
    pieces = [*contents.mail_pieces("mail", mail, room)]
    assert Unread(place="mail body", why=MORE) in pieces


# Finds.


def finds(count: int) -> int:
    entry = sent(json.dumps(["ann@example.com"] * count).encode(), "application/json")
    return calls_in(lambda: search([entry], checked(["ann@example.com"])))


def test_many_finds_are_not_each_compared_with_all_others() -> None:
    assert finds(2000) < 6 * finds(500)


def test_what_cannot_be_searched_is_cut_as_what_is_found_is() -> None:
    archives = [base64.b64encode(b"PK\x03\x04......").decode()] * 150
    entry = sent(json.dumps(archives).encode(), "application/json")
    assert "      and more\n" in str(search([entry], checked(["nowhere"])))
