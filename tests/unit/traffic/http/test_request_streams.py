"""Requests whose bodies are still to come, as values."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.request import Request
from tests.support.duplexes import FakeDuplex, coming_body

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
