"""`Turns`: the answers of a route, and which of its `times` are reserved.

A turn is reserved where a route is found, and its number says which answer of a sequence it gets. It is given back
where the attempt proves to be no call.

Threads: the test's thread replaces the answer; the gateway's threads reserve turns. The answer and its context are
replaced as one value, and read without a lock. Everything else changes under the ledger's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import pytest_egress.routes.answers as answers
from pytest_egress.base.unset import UNSET
from pytest_egress.routes.duplex import DuplexAnswer
from pytest_egress.routes.faults import ConnectFault, layers
from pytest_egress.routes.recordings.deck import Deck
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.shown import counted


class Holder(Protocol):
    """A connection that has taken one of a route's `times`, and gives it back where it proves to be no call."""

    def is_silent(self) -> bool:
        """Whether the connection may yet prove to be no call."""

    def has_left(self) -> bool:
        """Whether the client has closed, so that it is soon known whether there was a call."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """The current answer of a route. It is replaced as a whole, so readers take no lock."""

    answer: object  # as `checked_answer` returned it
    context: Context  # the context variables at the place that declared it
    first_turn: int  # the first turn that it answers, as `Turns.reserve` counts turns

    @cached_property
    def may_begin_at_head(self) -> bool:
        kinds = DuplexAnswer, answers.Forward
        return any(part is UNSET or isinstance(part, kinds) for part in parts_of(self.answer))

    def of_turn(self, turn: int) -> Any:
        if not isinstance(self.answer, AnswerSequence):
            return self.answer
        answers = self.answer.answers
        return answers[min(max(turn - self.first_turn, 0), len(answers) - 1)]


class Turns:
    """The answers of one route, and how often it may give them.

    Attributes:
        times: None for any number of turns.
        refuses: Whether a fault of connecting is among the answers.
        deck: The recordings that answer; None where none do.
        on_answer: Called under the ledger's lock where the answer has been replaced.
    """

    # Of the class until they change: they take no memory of most routes.
    refuses = False
    deck: Deck | None = None
    _reserved, _vacant = 0, 0

    def __init__(
        self,
        answer: object,
        times: int | None,
        lock: AbstractContextManager[Any],
        bind: Callable[[object], object] = lambda answer: answer,
    ) -> None:
        self._declared_times: Final = times
        self._bind: Final = bind
        self._lock = lock
        self._given_back: list[int] = []
        self._holders: list[Holder] = []
        self._held: list[answers.Application] = []
        self.on_answer: Callable[[], None] = lambda: None
        self.times: int | None
        self._given: Given
        self.replace(answer)

    def replace(self, answer: object) -> None:
        """The new answer is for turns that are reserved from now on; it has been checked."""
        answer = self._bind(answer)
        deck = answers.innermost(answer)
        for part in parts_of(answer):
            if isinstance(part, answers.Application):
                part.acquire()
                self._held.append(part)  # until the end: a running request may use it
        context = copy_context()  # handlers see the test's context variables
        with self._lock:
            first = self._reserved
            self._given = Given(answer=answer, context=context, first_turn=first)
            if isinstance(deck, Deck) or self.deck is not None:
                self.deck = deck if isinstance(deck, Deck) else None
            self.times = self._declared_times
            if isinstance(answer, AnswerSequence):
                self._vacant += len(self._given_back)
                self._given_back.clear()
                self.times = first - self._vacant + len(answer)
            self.refuses = any(isinstance(part, ConnectFault) for part in turns_of(answer))
            self.on_answer()

    def release(self) -> None:
        """Calling it again does nothing."""
        with ExitStack() as releases:  # all are released, even if one raises
            while self._held:
                releases.callback(self._held.pop().release)

    @property
    def is_exhausted(self) -> bool:
        return self.times is not None and self.taken >= self.times

    @property
    def ended(self) -> str:
        """Why no turn is left, in a line that begins with what the test has written: `times` or `sequence(...)`."""
        if (sequence := self.sequence) is None:
            return f"times: it has answered {self.times} of {self.times}"
        return f"sequence(...): it has ended, after {counted(len(sequence), 'answer')}"

    @property
    def taken(self) -> int:
        return self._reserved - self._vacant - len(self._given_back)

    @property
    def sequence(self) -> AnswerSequence | None:
        answer = self._given.answer
        return answer if isinstance(answer, AnswerSequence) else None

    @property
    def may_begin_at_head(self) -> bool:
        return self._given.may_begin_at_head

    def begins_at_head(self, request: Request) -> bool:
        return any(takes_what_comes(part, request) for part in parts_of(self._given.answer))

    def reserve(self) -> int | None:
        """The turn is counted from 0; None where all are reserved."""
        with self._lock:
            if self.is_exhausted:
                return None
            if self._given_back:
                return self._given_back.pop(0)
            self._reserved += 1
            return self._reserved - 1

    def give_back(self, turn: int) -> None:
        """A turn that proved to be no call is the next connection's, with its answer.

        A turn from before a sequence is dropped: a sequence has an answer for its own turns alone.
        """
        with self._lock:
            given = self._given
            if turn >= given.first_turn or not isinstance(given.answer, AnswerSequence):
                self._given_back = sorted([*self._given_back, turn])
            elif self.times is not None:
                self._vacant += 1
                self.times -= 1

    @contextmanager
    def turn_of(self, holder: Holder) -> Iterator[int | None]:
        """Reserve a turn for a connection, which others know of until the end of the `with` block.

        The turn of an answer with calls of its own stays free: each of its calls, such as a mail, takes one
        (`reserve_delivery`).
        """
        with self._lock:
            is_held = (turn := self.reserve()) is not None
            if turn is not None and self.is_service_turn(turn):
                is_held = False
                self.give_back(turn)
            if is_held:
                self._holders.append(holder)
        try:
            yield turn
        finally:
            if is_held:
                with self._lock:
                    self._holders.remove(holder)

    def is_service_turn(self, turn: int) -> bool:
        return isinstance(layers(self._given.of_turn(turn))[1], answers.Service)

    def reserve_delivery(self, has_room: Callable[[], bool]) -> answers.Receipt:
        """Reserve a turn for a call of a service, such as a mail, or say why not.

        `has_room`, asked where there is a turn, makes room or says no.
        """
        with self._lock:
            if (turn := self.reserve()) is None:
                return "used up"
            is_for_it = self.is_service_turn(turn)
            if is_for_it and has_room():
                return "taken"
            self.give_back(turn)
            return "no room" if is_for_it else "elsewhere"

    @property
    def may_come_free(self) -> bool:
        """Whether a turn may come free that is the next connection's: the last one, or an earlier one of a sequence."""
        with self._lock:
            silent = [holder for holder in self._holders if holder.is_silent()]
            if isinstance(self._given.answer, AnswerSequence) and not self.is_exhausted:
                return any(holder.has_left() for holder in silent)
            return self.is_exhausted and bool(silent)

    def answer(self, turn: int = 0) -> tuple[Any, Context]:
        """An answer, and a copy of its context for one call. Both are of one declaration, even during `respond`.

        It takes no lock, so that DNS answers can be looked up while the resolver's lock is held.
        """
        given = self._given
        return given.of_turn(turn), given.context.copy()

    # Faults of connecting, which the target's kernel carries out before there is a connection.

    @property
    def next_fault(self) -> ConnectFault | None:
        """The fault of connecting that the next connection is answered by. It takes no lock."""
        if not self.refuses:
            return None
        given, given_back = self._given, self._given_back
        answer = given.of_turn(given_back[0] if given_back else self._reserved)
        return answer if isinstance(answer, ConnectFault) else None

    def reserve_fault(self, fault: ConnectFault) -> int | None:
        """None where the next connection is not answered by this fault."""
        with self._lock:
            return self.reserve() if self.next_fault == fault else None

    def is_replaced(self, turn: int) -> bool:
        return turn < self._given.first_turn

    def is_outage(self, turn: int) -> bool:
        """Whether a fault of connecting has been given since a turn was reserved: it cuts what that turn let live."""
        given = self._given
        begins_by = given.of_turn(given.first_turn)
        return turn < given.first_turn and isinstance(begins_by, ConnectFault)


def takes_what_comes(answer: object, request: Request) -> bool:
    """Whether an answer reads the body of a request by itself. A call of gRPC is forwarded, and fails, as it comes.

    Both sides of such a call may wait for each other.

    Args:
        answer: An answer without the faults around it; UNSET of a fault in place of one.
    """
    if isinstance(answer, DuplexAnswer):
        return True
    if isinstance(answer, Deck):
        return answer.takes_what_comes(request)
    return (isinstance(answer, answers.Forward) or answer is UNSET) and is_grpc(request)


def turns_of(answer: object) -> tuple[object, ...]:
    return answer.answers if isinstance(answer, AnswerSequence) else (answer,)


def parts_of(answer: object) -> tuple[object, ...]:
    """A fault counts as the answer within it."""
    return tuple(layers(part)[1] for part in turns_of(answer))
