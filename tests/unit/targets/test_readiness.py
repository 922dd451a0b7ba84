"""What a container may be waited for."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pytest_egress.targets.readiness as module
from pytest_egress import http_ok, log_line, port_open


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        (b"ready", "log_line() takes a regular expression that is a str, not b'ready'"),
        (re.compile(b"x"), "log_line() takes a regular expression that is a str, not re.compile("),
        ("*ready", "log_line('*ready'): it is no regular expression (nothing to repeat at"),
    ],
    ids=["bytes", "pattern-of-bytes", "malformed"],
)
def test_a_line_to_wait_for_is_checked_where_it_is_declared(pattern: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        log_line(pattern)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (None, "http_ok(path=None): it takes a str such as '/health'"),
        (b"/", "http_ok(path=b'/'): it takes a str such as '/health'"),
        ("health", "http_ok(path='health'): a path starts with /"),
        (
            "/a b",
            "http_ok(path='/a b'): no space, control character or letter beyond ASCII goes into a request line; "
            "write '/a%20b'",
        ),
        (
            "/ü?q=ü",
            "http_ok(path='/ü?q=ü'): no space, control character or letter beyond ASCII goes into a request "
            "line; write '/%C3%BC?q=%C3%BC'",
        ),
        ("/x HTTP/1.1\r\nX: y", r"write '/x%20HTTP/1.1%0D%0AX:%20y'"),
        ("/\ud800", r"http_ok(path='/\ud800'): no space"),
        ("/" + "ü" * 10_000_000, "http_ok(path='/üüüüü"),
    ],
    ids=["None", "bytes", "relative", "space", "letter", "line", "surrogate", "large"],
)
def test_a_path_that_no_request_line_takes_is_refused(path: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)) as refused:
        http_ok(8080, path)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("port", [0, 65536, True, "80", None])
def test_what_is_no_port_is_refused(port: Any) -> None:
    for declare in (http_ok, port_open):
        with pytest.raises(ValueError, match=f"^{port!r} is no port; it takes an int from 1 to"):
            declare(port)


# What a server sends within the time of one probe.


class Listening:
    """A container whose port is a listener of this process."""

    def __init__(self, listener: socket.socket) -> None:
        self._address = listener.getsockname()

    def connect(self, port: int, timeout: float) -> socket.socket:
        return socket.create_connection(self._address, timeout)

    def logs(self) -> str:
        return ""


Serve = Callable[[Iterator[bytes]], Listening]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves one connection: each piece is sent when a little time has passed, until the client has left."""
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.5)
    over, stack = threading.Event(), contextlib.ExitStack()

    def start(pieces: Iterator[bytes]) -> Listening:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted, contextlib.suppress(OSError):
                for piece in pieces:
                    accepted.sendall(piece)
                    if over.wait(0.02):
                        return
                over.wait(60)

        thread = threading.Thread(target=answer)
        thread.start()
        stack.callback(thread.join)
        return Listening(listener)

    yield start
    over.set()
    stack.close()


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
        map(bytes, zip(itertools.repeat(32))),
        itertools.chain([OK], itertools.repeat(b"X-A: b\r\n"), [b""]),
        iter(()),
    ],
    ids=["continue", "status line", "fields", "silence"],
)
def test_a_probe_ends_whatever_the_server_sends(pieces: Iterator[bytes], serve: Serve) -> None:
    missing = http_ok(8080).missing(serve(pieces))
    assert missing is not None
    assert missing.startswith("GET :8080/ is not answered (")


def test_an_interim_response_is_not_the_answer(serve: Serve) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    once = serve(iter([early + early, b"HTTP/1.1 204 No Content\r\n\r\n"]))
    assert http_ok(8080).missing(once) is None
    without_end = serve(itertools.repeat(early))
    missing = http_ok(8080).missing(without_end)
    assert missing == "GET :8080/ is not answered (timed out)"


@pytest.mark.parametrize(
    ("status", "missing"),
    [(b"200", None), (b"399", None), (b"503", "GET :8080/x is answered with 503")],
)
@pytest.mark.parametrize(
    "rest",
    [
        [b"\r\n", *[b"data: 1\n\n"] * 1000],
        [b"Content-Length: 5\r\n\r\nhel"],
        [b"Transfer-Encoding: chunked\r\n\r\nnothing of the kind\r\n"],
    ],
    ids=["event stream", "cut", "malformed"],
)
def test_the_status_alone_decides(
    status: bytes, missing: str | None, rest: list[bytes], serve: Serve
) -> None:
    head = b"HTTP/1.1 " + status + b" x\r\n"
    assert http_ok(8080, "/x").missing(serve(iter([head, *rest]))) == missing
