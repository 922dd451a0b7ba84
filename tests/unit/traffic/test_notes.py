"""Notes of messages are bounded by number and by bytes; connections are numbered."""

from __future__ import annotations

from pytest_egress.base.account import Account, Accounts
from pytest_egress.traffic.entries import note_message
from pytest_egress.traffic.notes import KEPT_ALONE, KEPT_CONTENT, NotedMessages, Notes
from tests.support.entries import tcp


def test_the_first_and_last_messages_are_kept_with_their_numbers() -> None:
    messages = NotedMessages(Account())
    for number in range(1000):
        messages.add(number, b"x" * number, from_client=number % 2 == 0)
    kept = [*messages]
    assert [each.number for each in kept] == [*range(100), *range(900, 1000)]
    assert all(each.at == each.size == each.number for each in kept)
    assert kept[1].from_client is False
    assert len(messages) == 1000


def test_a_long_message_is_kept_in_part() -> None:
    messages = NotedMessages(Account())
    messages.add(1.0, memoryview(b"y" * 9999), from_client=True)
    (kept,) = messages
    assert (kept.size, kept.content) == (9999, b"y" * KEPT_CONTENT)


def test_what_a_window_has_no_room_for_is_kept_without_its_content_and_is_no_loss() -> None:
    account = Account()
    several = [NotedMessages(account) for _ in range(KEPT_ALONE // KEPT_CONTENT // 100)]
    for messages in several:
        for _ in range(100):
            messages.add(1.0, bytes(KEPT_CONTENT), from_client=True, decoded=object())
    last = [*several[-1]][-1]
    assert (last.size, last.content, last.decoded) == (KEPT_CONTENT, b"", None)
    assert sum(len(each.content) for one in several for each in one) <= KEPT_ALONE
    assert account.lost == {}


def test_nothing_is_noted_unless_it_is_asked_for() -> None:
    accounts, silent, entry = Accounts(), tcp(), tcp()
    note_message(silent, accounts.open(), b"x", from_client=True)
    assert silent.noted is None
    accounts.notes = Notes(lambda: 7.0)
    note_message(entry, accounts.open(), b"x", from_client=True)
    assert entry.noted is not None
    assert [each.at for each in entry.noted] == [7.0]


def test_connections_are_numbered_and_have_the_time_at_which_they_opened() -> None:
    notes = Notes(lambda: 7.0)
    first, second = notes.connection(), notes.connection()
    assert (first.number, second.number, second.opened) == (1, 2, 7.0)
