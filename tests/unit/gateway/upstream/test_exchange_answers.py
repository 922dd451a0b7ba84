"""What upstreams answer goes on as it came, and what is wrong with it is no fault of a handler's."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_egress.errors import UpstreamError
from pytest_egress.ledger.verdict import judge
from pytest_egress.routes.answers import forward
from pytest_egress.routes.applications.wsgi import wsgi
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.content_coding import encode
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from tests.support.http2_client import Http2Client
from tests.support.stage import ADDRESS, GET, SECONDS, Stage, ask, end_of, eventually

Answer = Callable[..., str]


def raw(
    stage: Stage, request: bytes = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
) -> bytes:
    """All that a client is sent in answer to one request."""
    client = stage.dial(ADDRESS, 80)
    client.settimeout(SECONDS)
    client.sendall(request)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            data += piece
    return data


BOTH = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n"
)


def test_of_two_lengths_the_stale_one_is_dropped(stage: Stage, answering: Answer) -> None:
    stage.http(ADDRESS, forward(answering(BOTH)))
    client = stage.dial(ADDRESS, 80)
    for _ in range(2):
        reply = ask(client)
        assert (reply.status, reply.body) == (200, b"hello")
        assert "content-length" not in reply.headers
    assert [(e.error, e.note) for e in stage.entries(Exchange)] == [(None, "")] * 2


def test_a_handler_reads_an_answer_of_two_lengths(stage: Stage, answering: Answer) -> None:
    url = answering(BOTH)

    @stage.http(ADDRESS)
    def handler(request: Request) -> Response:
        answer = request.forward(url)
        assert "content-length" not in answer.headers
        return Response(answer.status_code, headers=answer.headers, content=answer.content + b"!")

    assert ask(stage.dial(ADDRESS, 80)).body == b"hello!"


def test_a_head_request_is_told_no_stale_length(stage: Stage, answering: Answer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\nTransfer-Encoding: chunked\r\n\r\n"
    stage.http(ADDRESS, forward(answering(head)))
    reply = ask(stage.dial(ADDRESS, 80), GET.replace(b"GET", b"HEAD"), "HEAD")
    assert (reply.status, "content-length" in reply.headers) == (200, False)


ODD = {
    "over-599": b"HTTP/1.1 799 Beyond\r\nContent-Length: 2\r\nX: 1\r\n\r\nhi",
    "999": b"HTTP/1.1 999 Denied By Us\r\nContent-Length: 2\r\nX: 1\r\n\r\nhi",
    "phrase": b"HTTP/1.1 200 Fine, and caf\xe9\r\nContent-Length: 2\r\nX: 1\r\n\r\nhi",
    "no-phrase": b"HTTP/1.1 200 \r\nContent-Length: 2\r\nX: 1\r\n\r\nhi",
    "unregistered": b"HTTP/1.1 299 Ours\r\nContent-Length: 2\r\nX: 1\r\n\r\nhi",
    "bytes": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \xe9\x01\r\n\r\nhi",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("how", ["streamed", "handled"])
def test_what_an_upstream_answers_arrives_as_it_came(
    stage: Stage, answering: Answer, answer: bytes, how: str
) -> None:
    url = answering(answer)
    stage.http(ADDRESS, forward(url) if how == "streamed" else lambda r: r.forward(url))
    got = raw(stage)
    line, _, rest = answer.partition(b"\r\n")
    assert got.startswith(line + b"\r\n")
    assert rest.partition(b"X: ")[2].partition(b"\r\n")[0] in got
    assert got.endswith(b"\r\n\r\nhi")
    entry = stage.only(Exchange)
    assert (entry.error, entry.note) == (None, "")


MALFORMED = {
    "nothing": [b""],
    "nonsense": [b"nonsense\r\n\r\n"],
    "another-protocol": [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "status-of-no-answer": [b"HTTP/1.1 1000 Odd\r\n\r\n"],
    "two-lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"],
    "bad-length": [b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhi"],
    "bad-field": [b"HTTP/1.1 200 OK\r\nX y: 1\r\n\r\nhi"],
    "compressed-transfer": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi"],
    "switching": [b"HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    "broken-chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"],
    "long-head": [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"],
}


@pytest.mark.parametrize("pieces", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_answer_is_a_bad_gateway_and_a_note(
    stage: Stage, answering: Answer, pieces: list[bytes]
) -> None:
    stage.http(ADDRESS, forward(answering(*pieces)))
    reply = ask(stage.dial(ADDRESS, 80))
    entry = stage.only(Exchange)
    assert (reply.status, entry.error) == (502, None)
    assert reply.body.decode() == f"pytest-egress: {entry.note}\n"
    assert entry.note.startswith(f"GET http://{ADDRESS}/: the upstream failed: ")
    assert judge(stage.window, []) is None


@pytest.mark.parametrize("pieces", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_handler_may_catch_what_is_no_answer(
    stage: Stage, answering: Answer, pieces: list[bytes]
) -> None:
    url = answering(*pieces)

    @stage.http(ADDRESS)
    def handler(request: Request) -> int:
        with pytest.raises(UpstreamError, match="the upstream failed: "):
            request.forward(url)
        return 204

    assert ask(stage.dial(ADDRESS, 80)).status == 204
    assert stage.only(Exchange).error is None


BREAKS_OFF = {
    "length": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"],
    "chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    "within-a-chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"],
    "later": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n"],
    "trailers": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX y: 1\r\n\r\n"
    ],
}


@pytest.mark.parametrize("pieces", BREAKS_OFF.values(), ids=BREAKS_OFF.keys())
def test_an_answer_that_breaks_off_is_cut_and_a_note(
    stage: Stage, answering: Answer, pieces: list[bytes]
) -> None:
    stage.http(ADDRESS, forward(answering(*pieces)))
    client = stage.dial(ADDRESS, 80)
    client.sendall(GET)
    assert end_of(client) == "reset"
    entry = stage.only(Exchange)
    assert entry.error is None
    assert entry.note.startswith(f"GET http://{ADDRESS}/: the upstream broke off: ")
    assert judge(stage.window, []) is None


def test_what_stands_behind_the_end_of_an_answer_is_no_part_of_it(
    stage: Stage, answering: Answer
) -> None:
    stage.http(ADDRESS, forward(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!!!")))
    assert ask(stage.dial(ADDRESS, 80)).body == b"hi"
    assert stage.only(Exchange).note == ""


# What a handler streams.


def streams(*pieces: object) -> Callable[[Request], Iterator[Any]]:
    def handler(request: Request) -> Iterator[Any]:
        for piece in pieces:
            yield piece(request) if callable(piece) else piece

    return handler


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_an_upstream_that_fails_within_a_stream_of_a_handler_is_the_handlers_error(
    stage: Stage, first: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    before = () if first else (b"piece",)
    stage.http(ADDRESS, streams(*before, lambda request: request.forward(url).content))
    got = raw(stage)
    assert (b"500" in got) is first
    entry = stage.only(Exchange)
    assert isinstance(entry.error, UpstreamError)
    verdict = judge(stage.window, [])
    assert verdict is not None
    assert "raised UpstreamError: " in str(verdict)


def test_an_upstream_that_breaks_off_within_a_stream_of_a_handler_is_the_handlers_error(
    stage: Stage, answering: Answer
) -> None:
    url = answering(*BREAKS_OFF["length"])
    stage.http(ADDRESS, streams(b"piece", lambda request: request.forward(url).content))
    raw(stage)
    assert isinstance(stage.only(Exchange).error, UpstreamError)


# What a handler makes of them.


def altered(url: str) -> Callable[[Request], Response]:
    """A handler that alters a real answer as the docs do."""

    def handler(request: Request) -> Response:
        answer = request.forward(url)
        return Response(answer.status_code, headers=answer.headers, json={"mine": True})

    return handler


HEAD_OF_BOTH = BOTH[: BOTH.index(b"5\r\n")]
HEAD = GET.replace(b"GET", b"HEAD")
ZIPPED = encode(b'{"id": 1}', "gzip")
CODED = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nX: 1\r\nContent-Length: %d\r\n\r\n"
SPITEFUL = CODED % (b"gzip", len(ZIPPED)) + ZIPPED
"""Compressed, though the request accepts "identity" alone."""


@pytest.mark.parametrize("head", [b"", HEAD_OF_BOTH, SPITEFUL[: -len(ZIPPED)]])
def test_the_answer_to_a_head_request_is_altered_as_any_other(
    stage: Stage, answering: Answer, head: bytes
) -> None:
    head = head or b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    stage.http(ADDRESS, altered(answering(head)))
    client = stage.dial(ADDRESS, 80)
    for _ in range(2):
        reply = ask(client, HEAD, "HEAD")
        assert (reply.status, reply.headers["content-length"]) == (200, "14")  # that of a GET
        assert "content-encoding" not in reply.headers
    assert stage.entries(Exchange)[0].error is None


@pytest.mark.parametrize("length", [b"Content-Length: 9\r\n", b""])
def test_the_answer_to_a_head_request_is_passed_on_as_it_came(
    stage: Stage, answering: Answer, length: bytes
) -> None:
    url = answering(b"HTTP/1.1 200 OK\r\nX: 1\r\n" + length + b"\r\n")
    stage.http(ADDRESS, lambda request: request.forward(url))
    reply = ask(stage.dial(ADDRESS, 80), HEAD, "HEAD")
    assert reply.headers["x"] == "1"
    assert reply.headers.get("content-length") == ("9" if length else None)


def test_an_answer_that_is_compressed_in_spite_of_all_is_read_altered_and_passed_on(
    stage: Stage, answering: Answer
) -> None:
    url = answering(SPITEFUL)

    @stage.http(ADDRESS)
    def handler(request: Request) -> Response:
        answer = request.forward(url)
        assert (answer.content, answer.headers.raw) == (b'{"id": 1}', (("X", "1"),))
        return answer if request.path == "/as-it-is" else altered(url)(request)

    client = stage.dial(ADDRESS, 80)
    for path, body in (("/", b'{"mine": true}'), ("/as-it-is", b'{"id": 1}')):
        reply = ask(client, GET.replace(b"/", path.encode(), 1))
        assert (reply.body, "content-encoding" in reply.headers) == (body, False)
    assert [entry.error for entry in stage.entries(Exchange)] == [None, None]


@pytest.mark.parametrize(
    "answer", [CODED % (b"gzip", 2) + b"hi", CODED % (b"odd", 2) + b"hi"], ids=["gzip", "odd"]
)
@pytest.mark.parametrize("how", ["streamed", "handled"])
def test_an_answer_that_is_not_what_its_coding_says_goes_on_as_it_came(
    stage: Stage, answering: Answer, answer: bytes, how: str
) -> None:
    url = answering(answer)
    stage.http(ADDRESS, forward(url) if how == "streamed" else lambda r: r.forward(url))
    reply = ask(stage.dial(ADDRESS, 80))
    assert (reply.body, "content-encoding" in reply.headers) == (b"hi", True)
    assert stage.only(Exchange).error is None


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_a_stream_that_is_not_in_its_coding_is_its_handlers_error(
    stage: Stage, version: str
) -> None:
    pieces = Response(headers={"Content-Encoding": "gzip"}, stream=[b"plain ", b"text"])
    stage.http(ADDRESS, pieces)
    client = stage.dial(ADDRESS, 80)
    if version == "2":
        client_2 = Http2Client(client, "http")
        assert client_2.ask().reset
    else:
        client.sendall(GET)
        assert end_of(client) == "reset"
    error = stage.only(Exchange).error
    assert str(error).startswith("Content-Encoding is gzip, and the body is not in that coding (")


def test_a_stream_in_its_coding_is_sent(stage: Stage) -> None:
    pieces = [ZIPPED[at : at + 1] for at in range(len(ZIPPED))]
    stage.http(ADDRESS, Response(headers={"Content-Encoding": "gzip"}, stream=pieces))
    assert ask(stage.dial(ADDRESS, 80)).body == ZIPPED


# Reason phrases.


def status_line(stage: Stage) -> bytes:
    return raw(stage).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    ("response", "line"),
    [
        (Response(), b"HTTP/1.1 200 OK"),
        (Response(418), b"HTTP/1.1 418 I'm a Teapot"),
        (Response(299), b"HTTP/1.1 299 "),
        (Response(200, reason="Fine"), b"HTTP/1.1 200 Fine"),
        (Response(200, reason=""), b"HTTP/1.1 200 "),
        (Response(503, reason="Café closed \u2014 no beans"), None),
    ],
)
def test_the_phrase_is_the_one_given_or_the_registered_one(
    stage: Stage, response: Response, line: bytes | None
) -> None:
    stage.http(ADDRESS, response)
    wanted = "HTTP/1.1 503 Café closed \u2014 no beans".encode() if line is None else line
    assert status_line(stage) == wanted
    assert response.reason == wanted.partition(b" ")[2].partition(b" ")[2].decode()


@pytest.mark.parametrize("status", [600, 799, 999, 1000])
def test_a_status_over_599_is_still_no_answer_of_a_users(status: int) -> None:
    with pytest.raises(ValueError, match="takes an int from 200 to 599"):
        Response(status)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("299 Paid In Full", b"HTTP/1.1 299 Paid In Full"),
        ("404 Nothing Of The Kind", b"HTTP/1.1 404 Nothing Of The Kind"),
        ("200 Caf\xe9", b"HTTP/1.1 200 Caf\xe9"),
        ("404", b"HTTP/1.1 404 Not Found"),
    ],
)
def test_the_phrase_of_a_wsgi_application_reaches_the_client(
    stage: Stage, status: str, line: bytes, streamed: bool
) -> None:
    def application(environ: Any, start_response: Any) -> Any:
        start_response(status, [])
        return iter([b"one", b"two"]) if streamed else [b"one"]

    stage.http(ADDRESS, wsgi(application))
    assert status_line(stage) == line
    entry = stage.only(Exchange)
    assert eventually(lambda: entry.response is not None)
    assert entry.response is not None
    assert f"{entry.response.status_code} {entry.response.reason}".startswith(status)


def test_a_phrase_is_that_of_its_status(stage: Stage, answering: Answer) -> None:
    url = answering(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nhi")

    @stage.http(ADDRESS)
    def handler(request: Request) -> Response:
        answer = request.forward(url)
        assert (answer.reason, repr(answer)) == ("Fine", "<Response 200 Fine>")
        answer.status_code = 404
        return answer

    assert status_line(stage) == b"HTTP/1.1 404 Not Found"
