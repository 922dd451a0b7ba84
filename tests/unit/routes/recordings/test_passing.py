"""Bodies that are recorded as they pass: how they end, and what of an event stream that was left is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_egress.errors import CassetteError
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.recordings.passing import PassedBody, ended_events, recorded
from pytest_egress.routes.recordings.reel import Reel
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.made_body import MadeBody
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.reels import reel_of

ASKED = Request(scheme="https", host="api.test", port=443, method="GET", path="/a")


class PiecesServer:
    """A real server that sends these pieces."""

    def __init__(self, *pieces: bytes, kind: str = "text/event-stream", status: int = 200) -> None:
        self.pieces, self.kind, self.status, self.is_closed = pieces, kind, status, False

    def ask_to_record(self) -> tuple[Response, MadeBody | None]:
        headers = Headers({"Content-Type": self.kind})
        response = Response.received(self.status, headers, reason="OK", stream=self._stream())
        return response, MadeBody(64, lambda size: True)

    def left(self) -> ClientLeftError | None:
        return None

    def _stream(self) -> Iterator[bytes]:
        try:
            yield from self.pieces
        finally:
            self.is_closed = True


@pytest.fixture
def reel() -> Reel:
    return reel_of()


def passed(reel: Reel, server: PiecesServer) -> PassedBody:
    body = recorded(reel, ASKED, server).stream
    assert isinstance(body, PassedBody)
    return body


def test_a_body_is_recorded_once_and_is_over_then(reel: Reel) -> None:
    body = passed(reel, server := PiecesServer(b"data: a\n\n"))
    assert [*body, *body] == [b"data: a\n\n"]
    body.close()
    assert (len(reel.taken), server.is_closed) == (1, True)


def test_a_body_that_nobody_has_read_leaves_nothing_open(reel: Reel) -> None:
    passed(reel, PiecesServer(b"data: a\n\n")).close()
    reel.settle()
    assert len(reel.taken) == 1


def test_a_cassette_is_not_written_while_a_body_still_comes(
    reel: Reel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_egress.routes.recordings.reel.SETTLE_SECONDS", 0)
    body = passed(reel, PiecesServer(b"data: a\n\n", b"data: b\n\n"))
    next(body)
    with pytest.raises(CassetteError, match="is still open"):
        reel.settle()
    body.close()
    reel.settle()


def test_a_body_that_is_too_long_to_be_kept_is_an_error_and_leaves_nothing_open(reel: Reel) -> None:
    body = passed(reel, server := PiecesServer(b"x" * 65, kind="text/plain"))
    with pytest.raises(CassetteError, match=r"a.yaml: GET .* is not recorded: .* over 64 bytes"):
        assert [*body]
    assert server.is_closed
    reel.settle()


def test_a_status_that_no_cassette_has_is_an_error(reel: Reel) -> None:
    with pytest.raises(CassetteError, match="is not recorded: its status, 999"):
        assert [*passed(reel, PiecesServer(b"a", status=999))]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_of_a_stream_that_was_left_the_last_event_is_kept_if_it_is_whole(end: bytes) -> None:
    assert ended_events(b"data: a" + end + b"data: b" + end) == b"data: a" + end + b"data: b" + end
    assert ended_events(b"data: a" + end + b"data: b") == b"data: a" + end


@given(st.binary())
def test_what_is_kept_is_the_beginning(content: bytes) -> None:
    assert content.startswith(ended_events(content))
