"""`Account`: what targets make this process keep, in bytes, within one limit. Each window has one.

The rule: what comes from outside is kept by this module, or not at all. What stays with the entries is kept by `keep`,
for as long as the account is there. What stays for a while, such as a message that has not come whole, has a `Hold`,
whose size goes up and down. An object counts as `OBJECT_BYTES` beside its content: many empty ones are too many. What
is refused is counted by its kind. That alone fails the test, whatever the caller does about it.

Threads: any thread calls everything. The lock is the innermost one: nothing is called while it is held.
"""

from __future__ import annotations

import threading
from typing import Any, Final

MAX_HELD_BYTES: Final = 2 << 30
"""The most bytes that an account keeps: twice the longest body."""

OBJECT_BYTES: Final = 256
"""What an object takes beside its content: a message, or a name and a value with their tuple."""


class OverLimitError(Exception):
    """Something is larger than what is kept; the text says which limit it is over."""


class Account:
    """`others` are the accounts of the same run, None for an account that is alone; `held` is in bytes."""

    __slots__ = ("_is_closed", "_lock", "_lost", "_once", "_others", "held", "noted")

    def __init__(self, others: Accounts | None = None) -> None:
        self._others = others or Accounts()
        self._lock = self._others.lock
        self._lost: dict[str, int] = {}
        self._once: dict[int, bytes] = {}  # by identity, which is nobody else's while it is here
        self._is_closed = False
        self.held = self.noted = 0

    @property
    def notes(self) -> Any:
        """The run's `Notes`, while someone asks for more than entries have; else None."""
        return self._others.notes

    def notes_fit(self, size: int, limit: int) -> bool:
        """Whether so many bytes more may be kept of what is only noted. What may not is no loss."""
        with self._lock:
            if self.noted + size > limit:
                return False
            self.noted += size
        return True

    @property
    def redactor(self) -> Any:
        """What hides secrets in what is shown of this; None for what hides no known ones."""
        return self._others.redactor

    @property
    def secrets(self) -> Any:
        """The secrets that what passes is searched for; None where none is declared."""
        return self._others.secrets

    def keep(self, size: int, what: str) -> None:
        """`what` is the kind of the bytes, for a report: "requests". Those over the limit raise OverLimitError."""
        if not self.has_room(size, what):
            raise over_limit()

    def has_room(self, size: int, what: str) -> bool:
        """As `keep`, but False where they would be too many."""
        with self._lock:
            held = self.held + size
            if held <= MAX_HELD_BYTES or size <= 0:
                self.held = held
                return True
            lost = self._others.lost_late if self._is_closed else self._lost
            lost[what] = lost.get(what, 0) + size
        return False

    def has_room_once(self, content: bytes, what: str) -> bool:
        """As `has_room`, for content that several entries may have: it is counted once, and kept as long as this is."""
        with self._lock:
            if id(content) in self._once:
                return True
            if not self.has_room(len(content), what):
                return False
            self._once[id(content)] = content
        return True

    def hold(self, what: str) -> Hold:
        return Hold(self, what)

    @property
    def lost(self) -> dict[str, int]:
        """How many bytes were not kept, by their kind."""
        with self._lock:
            return self._lost.copy()

    def close(self) -> None:
        """Take over what was lost by closed accounts. What is lost from now on is told by the next one that closes."""
        with self._lock:
            for what, size in self._others.lost_late.items():
                self._lost[what] = self._lost.get(what, 0) + size
            self._others.lost_late.clear()
            self._once.clear()  # the entries have them, as long as they are there
            self._is_closed = True


class Accounts:
    """What the accounts of a run share.

    Attributes:
        lock: Guards all of them.
        lost_late: What the closed ones have lost, in bytes by kind.
        redactor: The run's `Redactor` at present. It is here since everything that a target has sent leads to its
            account; it is replaced as a whole, so that any thread reads it without the lock.
        secrets: The `KnownValues` that what passes is searched for, likewise; None for none.
        notes: The run's `Notes`; None where nobody asks for them. It is set before the first container starts.
    """

    redactor: Any = None
    secrets: Any = None
    notes: Any = None

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.lost_late: dict[str, int] = {}

    def open(self) -> Account:
        return Account(self)


class Hold:
    """Something that an account keeps for a while, with its size in bytes. One thread at a time changes it."""

    __slots__ = ("_account", "_what", "size")

    def __init__(self, account: Account, what: str) -> None:
        self._account, self._what = account, what
        self.size = 0

    def resize(self, size: int) -> None:
        """An OverLimitError, where the account would keep too many bytes, leaves the size as it was."""
        if not self.fits(size):
            raise over_limit()

    def fits(self, size: int) -> bool:
        """As `resize`, but False where the account would keep too many."""
        if size != self.size and not self._account.has_room(size - self.size, self._what):
            return False
        self.size = size
        return True

    def release(self) -> None:
        self.fits(0)


def over_limit() -> OverLimitError:
    return OverLimitError(
        f"all that is kept of a test is over MAX_HELD_BYTES, {MAX_HELD_BYTES} bytes"
    )
