"""The conditions by which a started container is ready: `port_open`, `http_ok`, `log_line`.

Each is a value with a method `missing`, which returns what is still missing in words, or None.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from pytest_egress.base.clock import monotonic
from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.traffic.shown import shown

PROBE_SECONDS = 2.0  # of one attempt; the next one follows until the container's own timeout
REST_SECONDS = 0.2  # for the rest of an answer whose status is known: it may be an event stream
PATH = re.compile(r"/[!-~]*")  # what may stand in a request line (RFC 9112 section 3.2)


class Probed(Protocol):
    """The part of a container that a strategy uses."""

    def connect(self, port: int, timeout: float) -> socket.socket: ...

    def logs(self) -> str: ...


class Strategy(Protocol):
    """A condition of readiness."""

    def missing(self, container: Probed) -> str | None:
        """What is still missing, in words; None where the condition is met."""


@dataclass(frozen=True)
class PortOpen:
    port: int

    def missing(self, container: Probed) -> str | None:
        try:
            container.connect(self.port, PROBE_SECONDS).close()
        except OSError as error:
            return f"port {self.port} is not open ({error.strerror or error})"
        return None


@dataclass(frozen=True)
class HttpOk:
    port: int
    path: str

    def missing(self, container: Probed) -> str | None:
        what = f"GET :{self.port}{self.path}"
        deadline = monotonic() + PROBE_SECONDS
        connection = http.client.HTTPConnection("localhost", self.port)
        try:
            probe = Probe(container.connect(self.port, PROBE_SECONDS), deadline)
            connection.sock = probe
            connection.request("GET", self.path, headers={"Connection": "close"})
            response = final_response(probe)
            status = response.status
            probe.deadline = min(deadline, monotonic() + REST_SECONDS)
            with contextlib.suppress(OSError, http.client.HTTPException):
                response.read(READ_BYTES)  # if closed unread, the server would see a reset
        except (OSError, http.client.HTTPException) as error:
            return f"{what} is not answered ({getattr(error, 'strerror', None) or error})"
        finally:
            connection.close()
        return None if 200 <= status < 400 else f"{what} is answered with {status}"


class Probe:
    """The connection of one probe, as `http.client` uses a socket: all that it sends and reads has one deadline.

    A timeout of the socket itself would begin anew with each byte. The deadline is by `monotonic`.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self.deadline = sock, deadline
        self._reader = io.BufferedReader(_Reader(self))

    def sendall(self, data: bytes) -> None:
        self.bounded().sendall(data)

    def makefile(self, mode: str) -> io.BufferedIOBase:
        assert mode == "rb", "http.client reads bytes"
        return self._reader

    def close(self) -> None:
        self._sock.close()

    def bounded(self) -> socket.socket:
        """The socket, for one call; TimeoutError where the time is over."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._sock


def final_response(probe: Probe) -> http.client.HTTPResponse:
    """Interim responses may come before it (RFC 9110 section 15.2)."""
    while True:
        response = http.client.HTTPResponse(probe, method="GET")  # type: ignore[arg-type]  # it calls makefile alone
        response.begin()
        if response.status >= 200:
            return response
        response.fp = None  # type: ignore[assignment]  # else its end would close the reader


class _Reader(io.RawIOBase):
    """A file that reads from a `Probe`, and leaves it open."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._probe.bounded().recv_into(buffer)


@dataclass(frozen=True)
class LogLine:
    pattern: re.Pattern[str]

    def missing(self, container: Probed) -> str | None:
        if self.pattern.search(container.logs()):
            return None
        return f"no line of the log matches {shown(self.pattern.pattern)}"


def port_open(port: int) -> Strategy:
    """Ready when a TCP connection to this port of the container is accepted."""
    return PortOpen(check_port(port))


def http_ok(port: int, path: str = "/") -> Strategy:
    """Ready when `GET path` on this port is answered with a status from 200 to 399."""
    return HttpOk(check_port(port), check_path(path))


def log_line(pattern: str | re.Pattern[str]) -> Strategy:
    """Ready when a regular expression is found in what the container has written, both streams."""
    text: object = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
    if not isinstance(text, str):
        raise TypeError(
            f"log_line() takes a regular expression that is a str, not {shown(pattern)}"
        )
    try:
        return LogLine(re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern)
    except re.error as error:
        raise ValueError(
            f"log_line({shown(pattern)}): it is no regular expression ({error}); re.escape() takes a text as it is"
        ) from None


def check_port(port: object) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"{shown(port)} is no port; it takes an int from 1 to 65535")
    return port


def check_path(path: object) -> str:
    if not isinstance(path, str):
        raise TypeError(f"http_ok(path={shown(path)}): it takes a str such as '/health'")
    if not path.startswith("/"):
        raise ValueError(f"http_ok(path={shown(path)}): a path starts with /")
    if not PATH.fullmatch(path):
        sent = quote(path, safe="%/?#[]@!$&'()*+,;=:-._~", errors="replace")
        raise ValueError(
            f"http_ok(path={shown(path)}): no space, control character or letter beyond ASCII goes into a request "
            f"line; write {shown(sent)}"
        )
    return path


def strategies(wait: object) -> list[Strategy]:
    """`wait=` as a list; TypeError where a value is no strategy."""
    listed: list[Any]
    listed = list(wait) if isinstance(wait, (list, tuple)) else [] if wait is None else [wait]
    for strategy in listed:
        if not callable(getattr(strategy, "missing", None)):
            raise TypeError(
                "wait= takes port_open(port), http_ok(port, path), log_line(pattern), "
                f"or a list of them, not {shown(strategy)}"
            )
    return listed
