"""`Spoiling`: what the wrappers around an answer do to what is sent: it comes late, slowly, or in part.

The rule: no version of HTTP is known here. What a fault does to a whole stream or connection is the `Line`'s.

Threads: the thread that answers a request calls everything, but for `SpoiledDuplex`, whose methods any thread may call.
A lock of its own makes what is sent there go piece by piece. It is held while a throttled piece waits, as the lock of a
stream is held while its client takes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import replace
from math import ceil
from typing import Any, Final, Protocol

from pytest_egress.gateway.attempt import Attempt
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.pauses import pause
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.duplex import ClientLeftError, Duplex
from pytest_egress.routes.faults import (
    Delayed,
    End,
    Fault,
    Raw,
    Reset,
    Seconds,
    Silence,
    Truncated,
    drawn,
    plan,
)
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.response import OF_FRAMING, Response, carries_body

PIECE_SECONDS: Final = 0.05  # of a throttled body, for which a piece is enough
PIECE_BYTES: Final = 64 * 1024
OVER: Final = "its window was closed before {} was over"
LEFT_EARLY: Final = "the client closed before its response was sent ({})"
LEFT: Final = "it did not wait for the end of {}"


class Line(Duplex, Protocol):
    """A `Duplex` that a fault can break. Afterwards nothing comes and nothing goes: whoever waits gets an error."""

    @property
    def broken_by(self) -> str:
        """The sentence that names the fault of another request which has ended the connection; "" for none."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether the head of the response has been sent."""
        ...

    def abort(self, why: str) -> None:
        """Reset the connection (RST of TCP) once the client has what was sent; `why` is for all else it carries."""
        ...

    def hang_up(self, why: str) -> None:
        """Close our side of the connection by FIN, and say nothing of it in the words of HTTP."""
        ...

    def reset_stream(self, why: str) -> bool:
        """Reset the request's stream by RST_STREAM; False where its version of HTTP has none."""
        ...

    def send_raw(self, data: bytes) -> None:
        """Send bytes in place of the protocol's. Raises ClientLeftError where the client has left."""
        ...


class StoppedError(ClientLeftError):
    """A fault has ended what is sent, and the client is still there."""


def left_note(error: ClientLeftError) -> str:
    return str(error) if isinstance(error, StoppedError) else LEFT_EARLY.format(error)


def settled(fault: Fault, run: Callable[..., Any]) -> Fault:
    """A fault for one answer: each function of seconds has been called.

    Raises:
        TypeError, ValueError: A function has returned no number of seconds.
        BaseException: A function has raised it.
    """
    if isinstance(fault, (Delayed, Silence)) and callable(fault.seconds):
        fault = replace(fault, seconds=run(drawn, fault.seconds, fault))
    inner = getattr(fault, "answer", None)
    return replace(fault, answer=settled(inner, run)) if isinstance(inner, Fault) else fault  # type: ignore[type-var]


def settle(entry: Exchange, context: Context) -> bool:
    """Call the functions of seconds in an entry's fault; False where one has failed, which is the handler's error."""
    try:
        if isinstance(entry.fault, Fault):
            entry.fault = settled(entry.fault, context.run)
    except BaseException as error:
        entry.error, entry.fault = error, None
        return False
    return True


class Spoiling:
    """The wrappers around one answer. Where there are several of one kind, the strictest counts, and delays add up.

    Args:
        entry: Its entry, whose fault is `settled`.

    Attributes:
        truncated: The fault that cuts the body; None where none does.
    """

    def __init__(self, ledger: Ledger, attempt: Attempt, entry: Exchange, line: Line) -> None:
        found = plan(entry.fault)
        self._end, self._delays, self.truncated = found.end, found.delays, found.cut
        self.entry, self.line, self._ledger, self._attempt = entry, line, ledger, attempt
        self._throttled, self._left = found.slow, found.shape.limit
        self._due: float | None = None

    def delay(self) -> None:
        """Wait as long as the wrappers say, before the first byte of the response.

        Raises:
            ClientLeftError: The client has left meanwhile.
            StoppedError: The window has been closed.
        """
        for fault in self._delays:
            self.wait(fault, fault.seconds)

    def wait(self, fault: Fault, seconds: Seconds | None) -> None:
        """None is without end. Raises as `delay` does."""
        assert not callable(seconds)
        self._pause(fault, seconds, self._attempt.context.window)

    def _pause(self, fault: Fault, seconds: float | None, window: Window) -> None:
        line = self.line
        end = pause(
            self._ledger,
            window,
            self.entry,
            fault,
            seconds,
            has_left=lambda: line.disconnected,
            activity=self._attempt.activity,
        )
        if end == "over":
            self.entry.note = self.entry.note or OVER.format(fault)
            self._attempt.activity.cut()
            raise StoppedError(self.entry.note)
        if end == "left":
            raise ClientLeftError(line.broken_by or LEFT.format(fault))

    def pieces(self, data: bytes, *, outlives: bool = False) -> Iterator[bytes]:
        """The part of a piece of the body that is sent, in pieces, each when its time has come.

        With `outlives` the request goes on after its window. Raises as `delay` does.
        """
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        size = self._size()
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._await_turn(len(piece), outlives=outlives)
            yield piece

    @property
    def is_cut(self) -> bool:
        """Whether nothing more of the body is to be sent: a fault cuts the rest."""
        return self._left == 0

    def _size(self) -> int:
        if self._throttled is None:
            return PIECE_BYTES
        return min(ceil(self._throttled.bytes_per_second * PIECE_SECONDS), PIECE_BYTES)

    def _await_turn(self, size: int, *, outlives: bool) -> None:
        if self._throttled is None:
            return
        now = self._ledger.clock()
        self._due = max(self._due or now, now) + size / self._throttled.bytes_per_second
        window = Window() if outlives else self._attempt.context.window
        self._pause(self._throttled, self._due - now, window)

    def duplex(self, outlives: Callable[[], bool] = lambda: False) -> Duplex:
        """What the response is sent by: the request's own duplex, unless its body is spoiled.

        Args:
            outlives: Whether the request goes on after its window.
        """
        is_spoiled = self.truncated is not None or self._throttled is not None
        return SpoiledDuplex(self, outlives) if is_spoiled else self.line

    def end(self) -> None:
        """End the connection where a fault says so, in place of an answer or after one. Raises as `delay` does."""
        if isinstance(self._end, Silence):
            self.wait(self._end, self._end.seconds)
        if self._end is not None:
            break_line(self.line, self._end)


class PassingDuplex:
    """A `Duplex` that has another one receive. A subclass sends in a way of its own."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex

    @property
    def trailers(self) -> Headers:
        return self._duplex.trailers

    @property
    def disconnected(self) -> bool:
        return self._duplex.disconnected

    def receive(self, timeout: float | None = None) -> bytes:
        return self._duplex.receive(timeout)

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._duplex.on_disconnect(callback)

    def send_interim(self, status_code: int, headers: Headers = NO_FIELDS) -> None:
        self._duplex.send_interim(status_code, headers)

    def reset(self) -> None:
        self._duplex.reset()


class SpoiledDuplex(PassingDuplex):
    """The `Duplex` of a response that is sent slowly or in part."""

    def __init__(self, spoiling: Spoiling, outlives: Callable[[], bool]) -> None:
        super().__init__(spoiling.line)
        self._line, self._spoiling, self._outlives = spoiling.line, spoiling, outlives
        self._sending = threading.RLock()

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        """Where the body is cut, the head is not the end, even if there is no body."""
        ends_line = ends and self._spoiling.truncated is None
        with self._sending:
            self._line.start(status_code, headers, reason=reason, ends=ends_line)
            if ends or self._spoiling.is_cut:
                self._cut()

    def send(self, data: bytes) -> None:
        with self._sending:
            for piece in self._spoiling.pieces(data, outlives=self._outlives()):
                self._line.send(piece)
            if self._spoiling.is_cut:
                self._cut()

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        """The end of a body that is cut is never sent."""
        with self._sending:
            self._cut()
            self._line.finish(trailers)

    def respond(self, response: Response) -> None:
        """The Content-Length is that of the whole body. A response without a body is sent as ever."""
        with self._sending:
            if not carries_body(self._spoiling.entry.request.method, response):
                self._line.respond(response)
                self._cut()
                return
            headers = response.headers
            if not response.trailers.raw and headers.keys().isdisjoint(OF_FRAMING):
                length = ("Content-Length", str(len(response.content)))
                headers = Headers([*headers.raw, length])
            self.start(response.status_code, headers, reason=response.reason)
            self.send(response.content)
            self.finish(response.trailers)

    def _cut(self) -> None:
        """Raise StoppedError once the response has been ended where it is to be cut."""
        if (fault := self._spoiling.truncated) is not None:
            cut(self._line, fault)
            raise StoppedError(f"{fault} has cut it")


def break_line(line: Line, fault: End) -> None:
    """End a connection as a fault says that is used in place of an answer, or after one that sends by itself."""
    why = f"{fault} has ended its connection"
    if isinstance(fault, Reset):
        if not (fault.stream and line.reset_stream(why)):
            line.abort(why)
        return
    if isinstance(fault, Raw):
        line.send_raw(fault.data)
    line.hang_up(why)


def cut(line: Line, fault: Truncated) -> None:
    why = f"{fault} has ended its connection"
    if fault.reset:
        line.abort(why)
    elif not line.reset_stream(why):
        line.hang_up(why)
