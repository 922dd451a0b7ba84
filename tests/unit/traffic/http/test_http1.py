"""HTTP/1.1 from bytes to requests: what is read does not depend on how the bytes arrive."""

from __future__ import annotations

from collections.abc import Iterable

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.http1 import Http1
from pytest_egress.traffic.http.response import Response

GET = b"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = st.sampled_from(
    [
        *(GET, CHUNKED, b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\n\r\n"),
        *(b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"\n", b"X: y\r\n", b" z\r\n", b"hey", b"\xc3\xa9"),
        *(b"GET /\xc3\xa9 HTTP/1.1\r\n", b"Host: api.test\r\n", b"Connection: close\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"HTTP/1.0", b"0\r\n\r\n"),
    ]
)
Found = tuple[list[tuple[Head, bytes, list[tuple[str, str]]]], bool]


def read(pieces: Iterable[bytes]) -> Found:
    """The whole requests that arrive, and whether what follows is refused. Each is answered before the next is read."""
    http, found, head, body = Http1(), [], None, b""
    try:
        for data in pieces:
            http.receive(data)
            while not http.closed:
                if head is None and (head := http.read_head()) is None:
                    break
                while piece := http.read_piece():
                    body += piece
                if piece is None:
                    break
                found.append((head, body, list(http.trailers.raw)))
                b"".join(http.whole(answer(), head.method, "now"))
                head, body = None, b""
                if not http.next_request():
                    return found, False
    except h11.RemoteProtocolError:
        return found, True
    return found, False


def answer() -> Response:
    """A response that CONNECT may get too, and that switches no protocol."""
    return Response(404)


@given(st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join))
@example(CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\n" + GET)
@example(GET + b"\r\n" + GET.replace(b"/ ", b"/\xc3\xa9 ", 1))
def test_any_bytes_are_the_same_requests_however_they_are_cut(data: bytes) -> None:
    whole, was_refused = read([data])
    for size in (1, 3, 16):
        found, refused = read(data[at : at + size] for at in range(0, len(data), size))
        assert (found, refused) == (whole, was_refused)
