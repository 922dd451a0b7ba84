"""What the function had at hand that raised an exception: its variables and its attributes, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from pytest_egress.base.raising import at_hand


class Reader:
    def __init__(self, source: object) -> None:
        self.source = source

    def read(self, size: int) -> None:
        raise EOFError(size)


def of_caller(mine: object, other: object) -> None:
    assert mine
    Reader(other).read(4)


def test_the_innermost_function_counts_with_its_variables_and_attributes() -> None:
    mine, other = object(), object()
    with pytest.raises(EOFError) as caught:
        of_caller(mine, other)
    values = [*at_hand(caught.value)]
    assert other in values
    assert 4 in values
    assert mine not in values


def test_of_asyncio_its_callers_within_asyncio_count_too() -> None:
    async def main(reader: asyncio.StreamReader) -> None:
        reader.feed_eof()
        await reader.readexactly(4)

    async def begin() -> asyncio.StreamReader:
        return asyncio.StreamReader()

    async def run(seen: list[asyncio.StreamReader]) -> None:
        seen.append(await begin())
        await main(seen[0])

    seen: list[asyncio.StreamReader] = []
    with pytest.raises(EOFError) as caught:
        asyncio.run(run(seen))
    values = [*at_hand(caught.value)]
    assert any(value is seen[0] for value in values)
    assert not any(value is seen for value in values)


def test_an_error_that_was_never_raised_has_nothing() -> None:
    assert [*at_hand(ValueError())] == []


class Proxy:
    """Stands for another object, which is not there now."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(f"no object to ask for {name}")


def test_what_stands_for_another_object_is_not_asked() -> None:
    def fail(self: object) -> None:
        raise EOFError

    with pytest.raises(EOFError) as caught:
        fail(Proxy())
    assert [type(value) for value in at_hand(caught.value)] == [Proxy]
