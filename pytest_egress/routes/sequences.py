"""`AnswerSequence`: the answers of a route that are used one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AnswerSequence:
    """Answers that are used one after the other; `sequence` makes it."""

    answers: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"sequence({', '.join(map(repr, self.answers))})"

    def __len__(self) -> int:
        return len(self.answers)

    def checked(self, check: Callable[[Any], object]) -> AnswerSequence:
        """`check` converts each answer to the form that the route uses; a sequence among them raises TypeError."""
        if any(isinstance(each, AnswerSequence) for each in self.answers):
            raise TypeError("a sequence() in a sequence(): write its answers in place")
        return AnswerSequence(tuple(map(check, self.answers)))
