"""What a handler returns, or a route is given, becomes a response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pytest_egress.routes.answers import place_of, response_from, sequence
from pytest_egress.routes.websocket.answer import websocket
from pytest_egress.traffic.http.response import Response

# What handlers return.


@pytest.mark.parametrize(
    ("result", "status", "content"),
    [
        (None, 200, b""),
        (b"x", 200, b"x"),
        (bytearray(b"x"), 200, b"x"),
        ({"a": 1}, 200, b'{"a": 1}'),
        ([], 200, b"[]"),
        (503, 503, b""),
        ((201, {"a": 1}), 201, b'{"a": 1}'),
        ((404, None), 404, b""),
        ((404, "text"), 404, b"text"),
    ],
)
@pytest.mark.parametrize("of_function", [True, False])
def test_a_result_becomes_a_response(
    result: object, status: int, content: bytes, of_function: bool
) -> None:
    response = response_from(result, of_function=of_function)
    assert (response.status_code, response.content) == (status, content)


def test_a_response_stays_itself() -> None:
    response = Response()
    assert response_from(response, of_function=True) is response


def test_a_function_may_return_text_and_an_iterator() -> None:
    assert response_from("x", of_function=True).headers["content-type"].startswith("text/plain")
    stream = iter([b"x"])
    assert response_from(stream, of_function=True).stream is stream
    assert response_from((206, stream), of_function=True).stream is stream


def test_text_as_static_answer_is_ambiguous() -> None:
    with pytest.raises(TypeError) as caught:
        response_from("x", of_function=False)
    text = "'x': a text as static answer is ambiguous; write Response(text='x')"
    assert str(caught.value) == text


def generator() -> Iterator[bytes]:
    yield b""


@pytest.mark.parametrize(
    "result",
    [
        True,
        1.5,
        {1},
        object(),
        (1, 2, 3),
        (),
        (200, 200),
        (200, (200, b"")),
        (200, Response()),
    ],
)
@pytest.mark.parametrize("of_function", [True, False])
def test_anything_else_is_no_answer_and_what_is_gets_listed(result: Any, of_function: bool) -> None:
    with pytest.raises(TypeError) as caught:
        response_from(result, of_function=of_function or isinstance(result, tuple))
    where = ", str, an iterator of bytes or str, async or not, or a fault such as reset()"
    if not of_function and not isinstance(result, tuple):
        where = ", or a fault such as reset(); or a function of the request"
    assert str(caught.value) == (
        f"{result!r} is no answer: it takes a Response, dict or list (sent as JSON), bytes, "
        f"a status (int), (status, body), None{where}"
    )


def test_an_iterator_is_no_static_answer() -> None:
    with pytest.raises(TypeError, match="is no answer"):
        response_from(generator(), of_function=False)


def test_a_pair_whose_first_is_no_status_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^'a' is no status of a response"):
        response_from(("a", "b"), of_function=True)


def test_a_list_of_answers_is_no_sequence_of_them() -> None:
    with pytest.raises(TypeError, match=r"sequence\(503, \{'id': 1\}\); a list .* Response\(json="):
        sequence([503, {"id": 1}])
    assert len(sequence([1], [2])) == 2
    assert repr(sequence(503, {"id": 1})) == "sequence(503, {'id': 1})"


def test_the_place_of_a_handler_is_a_line_of_the_test() -> None:
    def ticks(ws: Any) -> None:
        del ws

    line = ticks.__code__.co_firstlineno
    assert place_of(ticks) == f"{ticks.__name__}, at test_answers.py:{line},"
    assert place_of(websocket(ticks)) == "websocket(ticks)"
