"""Requests and responses that stream, as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress.traffic.http.events import Event
from pytest_egress.traffic.http.messages import Headers, Request, Response
from tests.support.duplexes import FakeDuplex, coming_body

NO_ITERABLE: Any = 7
REQUEST: dict[str, Any] = {
    "method": "POST",
    "scheme": "https",
    "host": "api.test",
    "port": 443,
    "path": "/x",
}


def coming(*pieces: bytes, **fields: Any) -> tuple[Request, FakeDuplex]:
    """A request whose body is still to come."""
    duplex = FakeDuplex(*pieces)
    return Request(**REQUEST, _body=coming_body(duplex), **fields), duplex


def test_a_request_of_a_stream_reads_its_body_when_it_is_asked_for() -> None:
    request, duplex = coming(b"one", b"two")
    assert (duplex.asked, request.is_whole) == (0, False)
    assert [*request.stream()] == [b"one", b"two"]
    assert repr(request) == "<Request POST https://api.test/x, 6 bytes streamed>"
    kept, _duplex = coming(b'{"n": ', b"1}")
    assert (kept.json(), kept.content, kept.is_whole) == ({"n": 1}, b'{"n": 1}', True)
    assert repr(kept) == "<Request POST https://api.test/x>"


def test_a_request_that_is_made_is_whole() -> None:
    request = Request(**REQUEST, content=b"x", trailers=Headers({"Digest": "y"}))
    assert (request.is_whole, [*request.stream()], [*request.raw_stream()]) == (
        True,
        [b"x"],
        [b"x"],
    )
    assert (request.disconnected, request.trailers["digest"]) == (False, "y")
    assert [*Request(**REQUEST).stream()] == []
    with pytest.raises(TypeError, match="came from no container: there is nobody to send it to"):
        request.send_interim(103)


def test_replacing_a_part_reads_no_body_and_a_new_content_replaces_it() -> None:
    request, duplex = coming(b"one")
    other = dataclasses.replace(request, path="/y")
    assert duplex.asked == 0
    replaced = dataclasses.replace(other, content=b"new")
    assert (replaced.content, replaced.path, duplex.asked) == (b"new", "/y", 0)
    again = dataclasses.replace(replaced, method="PUT")
    assert (again.content, [*again.stream()], again.is_whole) == (b"new", [b"new"], True)
    assert [*other.stream()] == [b"one"]
    assert "1 byte" not in repr(replaced)
    duplex.leave()
    assert replaced.disconnected
    trailing = dataclasses.replace(request, trailers=Headers({"a": "b"}))
    assert (trailing.trailers["a"], trailing.is_whole) == ("b", False)


def test_an_interim_response_has_a_status_that_is_one() -> None:
    request, duplex = coming()
    request.send_interim(103, {"Link": "</style.css>; rel=preload"})
    assert duplex.sent == [(103, {"link": "</style.css>; rel=preload"})]
    statuses: list[Any] = [100, 101, 200, True, "103"]
    for status in statuses:
        with pytest.raises(
            ValueError, match="is no status of an interim response; it takes an int"
        ):
            request.send_interim(status)
    with pytest.raises(ValueError, match="is no header field"):
        request.send_interim(103, {"Link": "a\nb"})


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
