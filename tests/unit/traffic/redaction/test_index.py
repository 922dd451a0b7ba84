"""The search for many texts at once."""

from __future__ import annotations

from typing import Any

from pytest_egress.traffic.redaction.index import Index, Indexes, Span

PLAIN = "whsec_4f9aB7c2D8e1"


def test_many_marks_of_cuts_are_searched_in_no_time_that_grows_faster_than_the_text() -> None:
    looked: list[int] = []

    class Counted(Index):
        def _head_before(self, text: str, end: int, look: int) -> Span | None:
            looked.append(look)
            return super()._head_before(text, end, look)

    index = Counted({PLAIN: "K"})
    index.at_marks("a..." * 10)
    index.at_marks("a..." * 3000)
    assert sum(looked) == 10 * 256 + 3000 * 32


def test_two_indexes_are_searched_as_one() -> None:
    both = Indexes(Index({PLAIN: "A"}), Index({"2D8e1-and-more": "B", "another-one": "C"}))
    assert both.spans(f"{PLAIN}-and-more, another-one") == [Span(0, 27, "A"), Span(29, 40, "C")]
    assert both.all_in(f"another-one {PLAIN}") == {PLAIN, "another-one"}
    assert both.at_marks(f"{PLAIN[:6]}...other-one") == [Span(0, 6, "A"), Span(9, 18, "C")]
    assert both.broken(f"x{PLAIN[:9]}") == Span(1, 10, "A")
    assert both.broken("nothing") is None


def test_a_text_that_repeats_a_long_value_is_compared_with_it_once() -> None:
    value = "aB3+dE5/" * 2000
    compared: list[str] = []

    class Repeating(str):
        def startswith(self, *given: Any) -> bool:
            compared.append(given[0])
            return super().startswith(*given)

    assert Index({value: "KEY"}).all_in(Repeating(value * 20)) == {value}
    assert compared == [value]
