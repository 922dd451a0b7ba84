"""`Index`: texts that are searched for all at once, in time linear in the text, however many there are."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import cached_property
from typing import Final, NamedTuple

from pytest_egress.traffic.redaction.variables import SHORT

PIECE: Final = 5  # characters that are looked up at once
STRIDE: Final = SHORT - PIECE + 1  # from one piece to the next
BROKEN: Final = (
    6  # characters at the end of a text that was cut which may be the beginning of a form
)
LONGEST_BROKEN: Final = 4096  # and so many of them are looked at
MARK: Final = re.compile(r"\.{3,}|\u2026")
"""Where a text was cut in its middle: by pytest, or by us."""

LEFT: Final = (
    5  # characters beside a mark that may be of a form; by its name four of a secret are shown
)
LOOKED_AT: Final = 256  # characters on each side of a mark: pytest shows 240 of a value


class Span(NamedTuple):
    start: int
    end: int
    name: str


class Index:
    """Texts that are searched for at once, each with the name of its secret. None is shorter than `SHORT`.

    One piece of every few of the searched text is looked up, so that the number of texts costs nothing: each of them
    has such a piece near its beginning.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        lengths: dict[str, set[int]] = {}
        offsets: dict[str, set[int]] = {}
        for text in names:
            lengths.setdefault(text[:SHORT], set()).add(len(text))
            for offset in range(STRIDE):
                offsets.setdefault(text[offset : offset + PIECE], set()).add(offset)
        self._lengths = {head: sorted(each, reverse=True) for head, each in lengths.items()}
        self._offsets = offsets

    def spans(self, text: str) -> list[Span]:
        """Where the texts are, in order; those that overlap are one span."""
        found: list[Span] = []
        begun, until = 0, -1  # the span that may still be made longer
        for start in sorted(self._starts(text)):
            if start < 0 or (end := self._end(text, start)) <= until:
                continue
            if start >= until >= 0:
                found.append(self._span(text, begun, until))
            begun, until = (begun if start < until else start), end
        return found if until < 0 else [*found, self._span(text, begun, until)]

    def _starts(self, text: str) -> list[int]:
        """Where one of the texts may begin; what is below 0 is none."""
        offsets = self._offsets
        return [
            at - offset
            for at in range(0, len(text) - PIECE + 1, STRIDE)
            if (piece := text[at : at + PIECE]) in offsets
            for offset in offsets[piece]
        ]

    def all_in(self, text: str) -> set[str]:
        """All of the texts that are in it, those within a longer one too.

        One that was found is not compared again, and a comparison copies nothing: a text that repeats the beginning of
        a long one, or all of it, is searched as fast as any.
        """
        found: set[str] = set()
        by_head = self._by_head
        for start in self._starts(text):
            if start >= 0:
                for each in by_head.get(text[start : start + SHORT], ()):
                    if each not in found and text.startswith(each, start):
                        found.add(each)
        return found

    @cached_property
    def _by_head(self) -> dict[str, list[str]]:
        heads: dict[str, list[str]] = {}
        for text in self._names:
            heads.setdefault(text[:SHORT], []).append(text)
        return heads

    def _end(self, text: str, start: int) -> int:
        """The end of the longest of the texts that begins there; -1 for none."""
        for length in self._lengths.get(text[start : start + SHORT], ()):
            end = start + length
            if end <= len(text) and text[start:end] in self._names:
                return end
        return -1

    def _span(self, text: str, start: int, end: int) -> Span:
        return Span(start, end, self._names[text[start : self._end(text, start)]])

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._names)

    @cached_property
    def _ends(self) -> dict[str, str]:
        """Each text by its reverse."""
        return {text[::-1]: text for text in self._names}

    @cached_property
    def _sorted_ends(self) -> list[str]:
        return sorted(self._ends)

    @cached_property
    def _heads(self) -> frozenset[str]:
        return frozenset(text[:LEFT] for text in self._names)

    @cached_property
    def _tails(self) -> frozenset[str]:
        return frozenset(text[-LEFT:] for text in self._names)

    def at_marks(self, text: str) -> list[Span]:
        """The pieces of texts that are left beside the marks of where something was cut.

        Between two marks each character is looked at twice, so that it takes no longer where there are many.
        """
        marks = [mark.span() for mark in MARK.finditer(text)]
        ends = [0, *(end for _, end in marks)]
        starts = [*(start for start, _ in marks[1:]), len(text)]
        found: list[Span] = []
        for (start, end), before, after in zip(marks, ends, starts, strict=False):
            for span in (
                self._head_before(text, max(start - LOOKED_AT, before), start),
                self._tail_after(text, end, min(end + LOOKED_AT, after)),
            ):
                if span is not None and (not found or span.start >= found[-1].end):
                    found.append(span)
        return found

    def _head_before(self, text: str, begin: int, end: int) -> Span | None:
        for start in range(begin, end - LEFT + 1):
            if text[start : start + LEFT] in self._heads:
                piece = text[start:end]
                at = bisect_left(self._sorted, piece)
                if at < len(self._sorted) and self._sorted[at].startswith(piece):
                    return Span(start, end, self._names[self._sorted[at]])
        return None

    def _tail_after(self, text: str, start: int, until: int) -> Span | None:
        for end in range(until, start + LEFT - 1, -1):
            if text[end - LEFT : end] in self._tails:
                piece = text[start:end][::-1]
                at = bisect_left(self._sorted_ends, piece)
                if at < len(self._sorted_ends) and self._sorted_ends[at].startswith(piece):
                    return Span(start, end, self._names[self._ends[self._sorted_ends[at]]])
        return None

    def broken(self, text: str) -> Span | None:
        """Where a text that was cut ends in the beginning of one that is searched for."""
        for length in range(min(len(text), LONGEST_BROKEN), BROKEN - 1, -1):
            end = text[-length:]
            at = bisect_left(self._sorted, end)
            if at < len(self._sorted) and self._sorted[at].startswith(end):
                return Span(len(text) - length, len(text), self._names[self._sorted[at]])
        return None


class Indexes:
    """Two indexes that are searched as one: that of many texts, which stays, and that of few that have come since."""

    def __init__(self, many: Index | Indexes, few: Index) -> None:
        self._many, self._few = many, few

    def spans(self, text: str) -> list[Span]:
        return joined(self._many.spans(text), self._few.spans(text))

    def at_marks(self, text: str) -> list[Span]:
        return joined(self._many.at_marks(text), self._few.at_marks(text))

    def all_in(self, text: str) -> set[str]:
        return self._many.all_in(text) | self._few.all_in(text)

    def broken(self, text: str) -> Span | None:
        found = [each for each in (self._many.broken(text), self._few.broken(text)) if each]
        return min(found, key=lambda span: span.start, default=None)


def joined(spans: list[Span], others: list[Span]) -> list[Span]:
    """Spans of both, in order; those that overlap are one, by the name of the first."""
    if not spans or not others:
        return spans or others
    found: list[Span] = []
    for span in sorted([*spans, *others], key=lambda span: (span.start, -span.end)):
        if found and span.start < found[-1].end:
            found[-1] = found[-1]._replace(end=max(found[-1].end, span.end))
        else:
            found.append(span)
    return found
