"""The body of a request is read once: it is kept whole, or streamed."""

from __future__ import annotations

import gc
import gzip
import weakref
from typing import Any

import pytest

from pytest_egress.base.account import Account, Accounts
from pytest_egress.gateway.http import bodies
from pytest_egress.gateway.http.bodies import Body, searched
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.http.head import RequestTooLargeError
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.redaction.values import KnownValues
from tests.support.duplexes import FakeDuplex, coming_body


def test_the_content_is_read_when_it_is_first_asked_for_and_kept() -> None:
    duplex = FakeDuplex(b"one", b"two", trailers=Headers({"Digest": "x"}))
    body = coming_body(duplex)
    assert duplex.asked == 0
    assert (body.content, body.content, body.size) == (b"onetwo", b"onetwo", 6)
    assert duplex.asked == 3
    assert body.trailers["digest"] == "x"


def test_a_streamed_body_is_not_kept_and_an_error_says_so() -> None:
    duplex = FakeDuplex(b"one", b"two", trailers=Headers({"Digest": "x"}))
    body = coming_body(duplex)
    pieces = body.stream()
    assert next(pieces) == b"one"
    assert (body.streamed, duplex.asked, body.trailers.raw) == (3, 1, ())
    assert [*pieces] == [b"two"]
    assert (body.streamed, body.size, body.trailers["digest"]) == (6, 6, "x")
    with pytest.raises(RuntimeError, match=r"was streamed \(6 bytes\), so that its content is not"):
        _ = body.content
    with pytest.raises(RuntimeError, match="it is read once, and not kept"):
        [*body.stream()]


def test_a_relayed_body_says_which_piece_is_its_last_where_the_end_has_come_with_it() -> None:
    duplex = FakeDuplex(b"one", b"two", trailers=Headers({"Digest": "x"}))
    body = coming_body(duplex)
    assert [*body.relay_to_end()] == [(b"one", False), (b"two", True)]
    assert (body.is_whole, body.content, body.trailers["digest"]) == (True, b"onetwo", "x")
    assert [*body.relay_to_end()] == [(b"onetwo", True)]
    empty, broken = FakeDuplex(), FakeDuplex(b"one", breaks=True)
    assert [*coming_body(empty).relay_to_end()] == [(b"", True)]
    pieces = coming_body(broken).relay_to_end()
    assert next(pieces) == (b"one", False)
    with pytest.raises(ClientLeftError):
        next(pieces)


def test_what_comes_of_a_relayed_body_that_nobody_reads_on_is_searched_with_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "REST_SECONDS", 0.01)

    class Noted:
        def __init__(self) -> None:
            self.fed: list[bytes] = []

        def feed(self, piece: bytes) -> None:
            self.fed.append(piece)

    passing: Any = Noted()
    body = coming_body(duplex := FakeDuplex(b"one", b"two", b"three", b"four"))
    body.passing = passing
    pieces = body.relay_to_end()
    assert next(pieces) == (b"one", False)
    assert (body.so_far, duplex.asked) == (b"onetwo", 2)
    body.search_rest()  # which another one may read
    assert passing.fed == []
    pieces.close()
    monkeypatch.undo()
    body.search_rest()
    assert passing.fed == [b"onetwo", b"three", b"four"]
    assert (body.is_cut, body.is_whole, body.content) == (True, False, b"onetwo")


def test_a_body_that_is_kept_can_still_be_streamed() -> None:
    duplex = FakeDuplex(b"one", b"two")
    body = coming_body(duplex)
    assert body.content == b"onetwo"
    assert [*body.stream()] == [*body.stream()] == [b"onetwo"]
    empty = FakeDuplex()
    without = coming_body(empty)
    assert (without.content, [*without.stream()], without.streamed) == (b"", [], None)


def test_what_is_kept_is_counted_and_what_is_streamed_is_not() -> None:
    account = Account()
    duplex, other = FakeDuplex(b"one", b"three"), FakeDuplex(b"one", b"three")
    kept, streamed = Body(duplex, account, None), Body(other, account, None)
    assert kept.content == b"".join(streamed.stream()) == b"onethree"
    assert account.held == 8


def test_a_body_that_is_too_large_is_refused_and_its_begin_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 5)
    duplex, announced = FakeDuplex(b"one", b"two", b"more"), FakeDuplex(b"one")
    body = coming_body(duplex)
    with pytest.raises(RequestTooLargeError, match="the body is over MAX_BODY_BYTES, 5 bytes"):
        _ = body.content
    body.give_up()
    assert (body.content, duplex.asked) == (b"onetwo", 2)
    with pytest.raises(RequestTooLargeError):
        _ = coming_body(announced, expected=6).content
    assert announced.asked == 0
    larger = FakeDuplex(b"one", b"two", b"more")
    assert b"".join(coming_body(larger, expected=10).stream()) == b"onetwomore"


def test_a_body_that_breaks_off_is_an_error_and_its_begin_is_kept() -> None:
    duplex = FakeDuplex(b"one", breaks=True)
    body = coming_body(duplex)
    with pytest.raises(ClientLeftError):
        _ = body.content
    assert (body.so_far, body.size) == (b"one", 3)
    body.give_up()
    assert body.content == b"one"


def test_a_body_keeps_neither_its_connection_nor_its_window() -> None:
    window, duplex = Window(), FakeDuplex(b"one")
    body, gone = Body(duplex, window.account, None), weakref.ref(window)
    assert body.content == b"one"
    assert not body.disconnected
    del window, duplex
    gc.collect()
    assert gone() is None
    assert (body.content, body.disconnected) == (b"one", True)
    with pytest.raises(RuntimeError, match="cannot follow the response, which has been sent"):
        body.send_interim(103, Headers())


def test_a_body_that_nobody_has_read_says_so_when_its_connection_has_gone_on() -> None:
    body = coming_body(FakeDuplex(b"one"))
    gc.collect()
    with pytest.raises(RuntimeError, match="was never read"):
        _ = body.content


def test_interim_responses_go_to_the_client() -> None:
    duplex = FakeDuplex()
    coming_body(duplex).send_interim(103, Headers({"Link": "</style.css>"}))
    assert duplex.sent == [(103, {"link": "</style.css>"})]


def test_a_body_that_may_have_no_end_is_kept_as_far_as_it_comes_soon() -> None:
    duplex = FakeDuplex(b"one", b"two")
    body = coming_body(duplex)
    body.keep_soon(0.01)
    body.keep_soon(0.01)  # again is harmless
    assert (body.content, body.is_whole, duplex.asked) == (b"onetwo", True, 3)
    leaves = FakeDuplex(b"one", breaks=True)
    broken = coming_body(leaves)
    broken.keep_soon(0.01)
    assert broken.content == b"one"


def test_compressed_messages_of_grpc_that_nobody_reads_are_searched() -> None:
    accounts = Accounts()
    accounts.secrets = KnownValues([("KEY", "sk-of-the-test-1")])
    account = accounts.open()
    packed = gzip.compress(b"sk-of-the-test-1" * 20)
    message = b"\1" + len(packed).to_bytes(4, "big") + packed
    duplex = FakeDuplex(b"\0\0\0\0\2hi", message[:30], message[30:])
    headers = Headers({"Content-Type": "application/grpc+proto", "Grpc-Encoding": "gzip"})
    body = Body(duplex, account, None, searched(account, headers))
    body.search_rest()
    assert body.passing is not None
    assert body.passing.found == {("KEY", "")}
