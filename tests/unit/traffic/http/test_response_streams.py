"""Responses that stream, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress.traffic.http.events import Event
from pytest_egress.traffic.http.response import Response

NO_ITERABLE: Any = 7


def test_events_come_with_their_type_unless_another_is_given() -> None:
    response = Response(events=["a"])
    assert response.headers.raw == (
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
    )
    assert response.encode_piece is not None
    assert response.encode_piece(Event(data="a")) == b"data: a\n\n"
    typed = Response(events=["a"], headers={"content-type": "text/event-stream; charset=utf-8"})
    assert typed.headers.get_all("Content-Type") == ["text/event-stream; charset=utf-8"]


def pieces() -> Iterator[str]:
    yield "x"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: Response(events=["a"], stream=["b"]),
            TypeError,
            "one body, not stream and events",
        ),
        (lambda: Response(events="a"), TypeError, "an iterable of events, not str: 'a'"),
        (lambda: Response(events={"a": 1}), TypeError, "an iterable of events, not dict"),
        (lambda: Response(events=NO_ITERABLE), TypeError, "an iterable of events, not int: 7"),
        (lambda: Response(trailers=dict), TypeError, "trailers after a streamed body only"),
    ],
)
def test_a_response_that_cannot_stream_is_refused(
    make: Callable[[], Response], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


def test_trailers_are_made_when_the_body_has_been_sent() -> None:
    made: list[str] = []

    def trailers() -> dict[str, str]:
        made.append("now")
        return {"Size": "1"}

    response = Response(stream=pieces(), trailers=trailers)
    assert (made, response.trailers.raw) == ([], ())
    assert response.last_trailers()["size"] == "1"
    assert (made, response.trailers["size"]) == (["now"], "1")
    with pytest.raises(ValueError, match="is no header field"):
        Response(stream=pieces(), trailers=lambda: {"a b": "c"}).last_trailers()


async def no_plain_function() -> dict[str, str]:
    return {}


def an_int() -> Any:
    return 5


@pytest.mark.parametrize(
    ("trailers", "message"),
    [
        (no_plain_function, "returned a coroutine: give a plain function"),
        (an_int, "returned 5: it returns a dict, or a list of pairs"),
    ],
)
def test_a_function_of_trailers_that_returns_no_fields_is_told_so(
    trailers: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Response(stream=iter([b""]), trailers=trailers).last_trailers()
