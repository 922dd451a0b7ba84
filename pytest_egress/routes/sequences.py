"""`AnswerSequence`: the answers of a route that are used one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AnswerSequence:
    """Answers that are used one after the other; `sequence` makes it."""

    answers: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.answers)
