"""What an account keeps, gives back and refuses."""

from __future__ import annotations

import threading

import pytest

from pytest_egress.base import account as module
from pytest_egress.base.account import Account, Accounts, OverLimitError


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 100)


def test_what_has_room_is_kept_and_the_rest_is_lost_by_its_kind() -> None:
    account = Account()
    account.keep(60, "mails")
    account.keep(40, "heads")
    assert (account.held, account.lost) == (100, {})
    with pytest.raises(
        OverLimitError, match="all that is kept of a test is over MAX_HELD_BYTES, 100 bytes"
    ):
        account.keep(1, "mails")
    assert not account.has_room(2, "mails")
    assert not account.has_room(5, "heads")
    assert (account.held, account.lost) == (100, {"mails": 3, "heads": 5})


def test_what_is_refused_takes_no_room_of_what_is_smaller() -> None:
    account = Account()
    assert not account.has_room(101, "mails")
    assert account.has_room(100, "mails")


def test_what_several_entries_have_counts_once() -> None:
    account = Account()
    content, other = bytes(60), bytearray(60)
    assert account.has_room_once(content, "responses")
    assert account.has_room_once(content, "responses")
    assert not account.has_room_once(bytes(other), "responses")
    assert (account.held, account.lost) == (60, {"responses": 60})


def test_other_content_in_the_place_of_some_that_is_gone_counts_too() -> None:
    account = Account()
    counted = 0
    for size in (40, 40, 40):
        counted += account.has_room_once(bytes(bytearray(size)), "responses")
    assert (counted, account.held, account.lost) == (2, 80, {"responses": 40})


def test_what_is_held_for_a_while_makes_room_when_it_is_released() -> None:
    account = Account()
    first, second = account.hold("messages"), account.hold("messages")
    first.resize(70)
    assert not second.fits(40)
    first.resize(60)
    second.resize(40)
    with pytest.raises(OverLimitError):
        second.resize(41)
    assert (first.size, second.size, account.held) == (60, 40, 100)
    second.resize(40)  # the same is no change
    first.release()
    first.release()
    assert (account.held, account.lost) == (40, {"messages": 41})


def test_what_is_held_shrinks_even_where_too_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    hold = account.hold("messages")
    hold.resize(100)
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 10)
    hold.resize(50)
    assert (account.held, account.lost) == (50, {})


def test_what_a_closed_account_refuses_is_lost_by_the_next_one_that_closes() -> None:
    accounts = Accounts()
    first, second, alone = accounts.open(), accounts.open(), Account()
    first.keep(100, "mails")
    first.close()
    assert not first.has_room(7, "mails")
    alone.close()
    assert (first.lost, second.lost, alone.lost) == ({}, {}, {})
    second.close()
    assert (first.lost, second.lost) == ({}, {"mails": 7})
    accounts.open().close()
    assert second.lost == {"mails": 7}


def test_threads_lose_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_BYTES", 1 << 30)
    account = Account()

    def work() -> None:
        hold = account.hold("messages")
        for size in range(5000):
            hold.resize(size)
            account.keep(1, "mails")
        hold.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert account.held == 20_000
