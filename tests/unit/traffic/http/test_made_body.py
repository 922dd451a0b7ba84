"""Bodies of streamed responses are kept whole, or not at all."""

from __future__ import annotations

import pytest

from pytest_egress.traffic.http.made_body import BY_ITS_ROUTE, KeptStream, MadeBody
from pytest_egress.traffic.http.response import Response


class Account:
    """What would be kept of a test: at most so many bytes."""

    def __init__(self, most: int = 100) -> None:
        self.most, self.held = most, 0

    def fits(self, size: int) -> bool:
        if size > self.most:
            return False
        self.held = size
        return True


def test_a_body_can_be_read_while_it_is_made_and_afterwards() -> None:
    account = Account()
    made = MadeBody(10, account.fits)
    record = Response(stream=[b"one", b"two"]).recorded(made)
    stream = KeptStream([b"one", b"two"], made)
    assert record.content == b""
    assert next(stream) == b"one"
    assert record.text == "one"
    assert [*stream] == [b"two"]
    stream.close()
    assert (record.content, account.held) == (b"onetwo", 6)


def test_of_a_body_over_the_limit_nothing_is_kept_and_reading_it_says_so() -> None:
    account = Account()
    made = MadeBody(5, account.fits)
    record = Response(stream=[b""]).recorded(made)
    assert [*KeptStream([b"one", b"two", b"three"], made)] == [b"one", b"two", b"three"]
    for read in (lambda: record.content, lambda: record.text, record.json):
        with pytest.raises(RuntimeError) as caught:
            read()
        assert str(caught.value) == (
            "the body of this response (11 bytes) is not kept: that is over 5 bytes"
        )
    assert account.held == 0


def test_a_body_that_a_test_has_no_room_for_is_not_kept_either() -> None:
    made = MadeBody(10, Account(most=4).fits)
    made.add(b"four")
    made.add(b"!")
    with pytest.raises(RuntimeError, match=r"\(5 bytes\).*: all that is kept of the test has"):
        _ = made.content


def test_where_nothing_is_to_be_kept_nothing_is_counted() -> None:
    account = Account()
    made = MadeBody(10, account.fits, BY_ITS_ROUTE)
    assert made.content == b""
    made.add(b"four")
    with pytest.raises(RuntimeError, match=r"\(4 bytes\).*: its route has stream=True"):
        _ = made.content
    assert (made.size, account.held) == (4, 0)


def test_a_content_that_is_set_takes_the_place_of_what_was_streamed() -> None:
    record = Response(stream=[b""]).recorded(MadeBody(10, Account().fits, BY_ITS_ROUTE))
    record.content = b"mine"
    assert record.text == "mine"
