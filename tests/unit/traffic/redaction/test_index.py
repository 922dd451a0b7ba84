"""The search for many texts at once."""

from __future__ import annotations

from typing import Any

from pytest_egress.traffic.redaction.index import Index, Indexes, Span

PLAIN = "whsec_4f9aB7c2D8e1"


def test_between_two_marks_of_cuts_each_character_is_looked_at_twice() -> None:
    looked: list[int] = []

    class Counted(Index):
        def _head_before(self, text: str, begin: int, end: int) -> Span | None:
            looked.append(end - begin)
            return super()._head_before(text, begin, end)

        def _tail_after(self, text: str, start: int, until: int) -> Span | None:
            looked.append(until - start)
            return super()._tail_after(text, start, until)

    index = Counted({PLAIN: "K"})
    for text in ("a..." * 3000, "." * 3000, f"{'b' * 3000}...{'b' * 3000}"):
        looked.clear()
        assert index.at_marks(text) == []
        assert sum(looked) <= min(2 * len(text.replace(".", "")), 2 * 3000)
    assert index.at_marks(f"{PLAIN[:9]}...{PLAIN[5:]}...") == [Span(0, 9, "K"), Span(12, 25, "K")]


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


def test_a_span_ends_with_its_text_where_a_longer_one_begins_alike() -> None:
    index = Index({"key-of-shop": "A", "key-of-shop-and-more": "B"})
    assert index.spans("the key-of-shop") == [Span(4, 15, "A")]
