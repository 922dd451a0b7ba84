"""`NameTurns`: which turn of a DNS route's `sequence` a question takes.

A turn is one question of each type: those of one lookup, such as A and AAAA, share it, in whichever order they come and
from however many sockets. A question that is sent again keeps its turn: after an error or a time-out, which glibc does
from another socket with the same ID, or over TCP because its answer was truncated.

Threads: any thread may call. Everything changes under `Ledger.changed`, as the turns of routes do.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.routes.inner_route import InnerRoute


@dataclass(frozen=True, kw_only=True)
class AskedName:
    """A question, as far as turns depend on it; its name is normalised."""

    name: str
    type: str
    id: int
    client: Hashable
    over_tcp: bool


@dataclass(eq=False, kw_only=True)
class Turn:
    """A turn that has been taken.

    Attributes:
        number: The turn, as `Turns.reserve` has returned it.
        truncated: The types whose answer was truncated, and that have not been asked for over TCP since.
    """

    number: int
    answers: object
    questions: set[AskedName] = field(default_factory=set)
    truncated: set[str] = field(default_factory=set)

    def has_asked(self, asked: AskedName) -> bool:
        """Whether a question is one of the turn's, sent again."""
        is_known = any((q.type, q.id) == (asked.type, asked.id) for q in self.questions)
        return is_known or (asked.over_tcp and asked.type in self.truncated)

    def takes(self, asked: AskedName) -> bool:
        return all(question.type != asked.type for question in self.questions)


class Answered(NamedTuple):
    """The answer of a DNS route to a question, with the faults around it, and its turn of a sequence, or None."""

    answer: Any
    context: Context
    turn: Turn | None = None


class NameTurns:
    """The turns that the questions of one target have taken, guarded by the ledger's lock."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._taken: WeakKeyDictionary[InnerRoute, list[tuple[str, Turn]]] = WeakKeyDictionary()

    def answer(self, route: InnerRoute, asked: AskedName) -> Answered | None:
        """None where all answers of the route's sequence have been used."""
        if route.turns.sequence is None:
            return Answered(*route.turns.answer())
        with self._ledger.changed:
            turn = self._turn(route, asked)
            return None if turn is None else Answered(*route.turns.answer(turn.number), turn)

    def note_truncated(self, turns: Iterable[Turn], type: str) -> None:
        """Note that a client has to ask questions of a type again over TCP, which is the same turn then."""
        with self._ledger.changed:
            for turn in turns:
                turn.truncated.add(type)

    def _turn(self, route: InnerRoute, asked: AskedName) -> Turn | None:
        answers, taken = route.turns.sequence, self._taken.get(route, [])
        mine = [turn for name, turn in taken if name == asked.name and turn.answers is answers]
        turn = next(self._shared(mine, asked), None)
        if turn is None:
            if (number := route.turns.reserve()) is None:
                return None
            turn = Turn(number=number, answers=answers)
            self._taken.setdefault(route, []).append((asked.name, turn))
        if asked.over_tcp:
            turn.truncated.discard(asked.type)
        turn.questions.add(asked)
        return turn

    def _shared(self, turns: list[Turn], asked: AskedName) -> Iterator[Turn]:
        """The turns of a name that a question may share, the best first.

        That is the one which it has already; else the latest of its own socket, or of any, if that lacks its type.
        """
        latest = turns[::-1]
        yield from (turn for turn in latest if turn.has_asked(asked))
        own = (t for t in latest if any(asked.client == other.client for other in t.questions))
        yield from (turn for turn in (next(own, None), *latest[:1]) if turn and turn.takes(asked))
