"""`Http2Server`: reads the requests of an HTTP/2 connection, many at once, and has each answered.

The thread that reads never waits for a handler, nor for a client to take what was sent. It gives requests that have
come whole to `Batches`, and each other one to a worker, which may take as long as it likes. A connection is idle while
no stream is open, and waits then as one of HTTP/1.1 does: parked, without a thread. Frames that bring no request begin
no attempt: from the first byte that is read until the streams that it brings have begun, `Connection.is_reading` keeps
a window open.

The rule about requests: one that has come whole is answered, whatever its client does afterwards; one that has not is
recorded.

Threads: `serve` runs on the connection's thread, which alone writes what has no lock, and each stream on a worker. Any
thread calls `farewell`, `threads` and `carriers`. The wire's lock guards `_http` and `_streams`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Final, NamedTuple

from pytest_egress.base.account import OverLimitError
from pytest_egress.base.acknowledged import await_acknowledged
from pytest_egress.base.clock import monotonic
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.connection import LINGER_SECONDS, PARK_SECONDS, Connection, Parked
from pytest_egress.gateway.http.answering import Answering
from pytest_egress.gateway.http2.batches import Batches
from pytest_egress.gateway.http2.stream import Http2Stream, run_all
from pytest_egress.gateway.http2.wire import Http2Wire
from pytest_egress.gateway.patience import Patience, StalledError
from pytest_egress.gateway.recorder import Heard, silent_outcome
from pytest_egress.gateway.tls.failures import broken_after_handshake
from pytest_egress.gateway.tls.handshake import record_silence
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.entries import BEGAN, UNREADABLE
from pytest_egress.traffic.http.http2 import Http2
from pytest_egress.traffic.http.multiplexed import (
    Asked,
    BodyCame,
    BrokenRuleError,
    Came,
    CameLate,
    Ended,
    ManyRequests,
    Unreadable,
    WasReset,
    WindowGrew,
)
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import cut

CLOSED: Final = "the client closed the connection"
FIRST_REQUEST_SECONDS: Final = 1.0
"""A client that asks for nothing until then connects ahead of need."""
SILENT: Final = f"{BEGAN} and asked for nothing within {FIRST_REQUEST_SECONDS:g} s"
LATE: Final = "made a request just as its connection was said to end (GOAWAY): clients make it again on another one"
SHOWN_REASON: Final = 400  # characters of what is wrong with a request
NEVER_ASKED: Final = f"{BEGAN} and closed without a request"

MAX_LATE: Final = 100
"""The streams of a connection whose late bytes are searched: as many as may be open at once."""

MakeAnswering = Callable[[Http2Stream], Answering]
"""Makes the `Answering` whose carrier is a stream."""


class MalformedRequest(NamedTuple):
    """A request that is refused: why, and what has come of it."""

    why: str
    sent: bytearray


class Http2Server:
    """Serves the requests of one connection.

    Args:
        idle_seconds: How many seconds the connection may wait for its next request until it is closed.
        http: The state of the connection; by default a new one of HTTP/2.
    """

    name = "HTTP/2"

    def __init__(
        self,
        connection: Connection,
        answering: MakeAnswering,
        workers: Workers,
        *,
        idle_seconds: float,
        http: ManyRequests | None = None,
    ) -> None:
        self.connection, self.ledger = connection, connection.ledger
        self._answering, self._workers, self._idle_seconds = answering, workers, idle_seconds
        self._wire = Http2Wire(connection.sock)
        self._lock = self._wire.lock
        self._emptied = threading.Condition(self._lock)
        self._http = Http2(monotonic) if http is None else http
        self._streams: dict[int, Http2Stream] = {}
        self._late: dict[int, Heard] = {}  # what searches late bytes of streams that are over
        self._fresh: list[Http2Stream] = []
        self._malformed: dict[int, list[MalformedRequest]] = {}
        self._batches = Batches(
            self._wire, workers, self._serve_stream, self._close, self._give_out
        )
        self._last = inf  # the last stream that is answered
        self._awaits_first, self._opened = True, monotonic()
        self._idle_from = self._opened
        self._has_said_farewell = False
        self._hung_up = ""  # why a fault has closed our side
        connection.multiplexed, connection.read_late = self, self.read_late
        # Our SETTINGS go out with what answers the client's first bytes: a client that distrusts the CA closes instead,
        # and the reason would be lost in an error of writing.

    # The connection's thread.

    def serve(self, first: bytes = b"") -> None:
        """Read to the end of the connection; `first` was read before it was known to be HTTP/2.

        Raises:
            Parked: The next request does not come soon. Or a fault has closed our side, and the client may yet send it.
        """
        try:
            why = self._read_on(first)
        except BrokenRuleError as error:
            why = str(error)
            self._refuse(why, error.sent)
        except StalledError as error:
            why = str(error)
            self._record_broken_head(f"{why} within the head of a request")
        except OSError as error:
            why = str(error)
            self._broke_off(error)
        self._end(why)

    def _read_on(self, first: bytes) -> str:
        """Read until the connection ends; return why it does."""
        if first and not self._read(lambda: first):
            self._note_end()
            return CLOSED
        while self._await_bytes():
            if not self._read(self._receive):
                self._note_end()
                return CLOSED
            if self._is_over():
                break
        if self._hung_up:
            self.connection.tell_end(self._hung_up)
            raise Parked(self.serve, LINGER_SECONDS)
        return "the connection was idle for too long"

    def _is_over(self) -> bool:
        with self._lock:
            is_ending = self._http.is_leaving or self._has_said_farewell
            return self._http.is_closed or (is_ending and not self._streams)

    def _await_bytes(self) -> bool:
        """Wait until there are bytes to read; False where they are not waited for any longer.

        Raises:
            Parked: They do not come soon.
            StalledError: The client has stopped within the head of a request.
        """
        connection, patience = self.connection, Patience(self.ledger.clock)
        while True:
            connection.awaits = connection.idle_since is not None
            seconds = min(self._patience(), self._batches.seconds_left, self._timer_seconds())
            if self._wire.wait(seconds):
                return True
            self._tick()
            self._batches.look()
            if self._is_over():
                return False
            if self._http.is_within_head and patience.is_over:
                raise StalledError
            if self._awaits_first:
                if monotonic() >= self._opened + FIRST_REQUEST_SECONDS and not self._be_silent():
                    return False
            elif connection.idle_since is not None and self._rests() <= 0:
                left = connection.idle_seconds - (monotonic() - self._idle_from)
                if self._may_park():
                    raise Parked(self.serve, max(left, 0))
                if left <= 0:
                    return False

    def _patience(self) -> float:
        """How many seconds to wait for bytes until the state of the connection is looked at again."""
        if self._awaits_first:
            return max(self._opened + FIRST_REQUEST_SECONDS - monotonic(), 0)
        if self.connection.idle_since is None or not self._may_park():
            return PARK_SECONDS
        return max(self._rests(), 0)

    def _may_park(self) -> bool:
        """Whether an idle connection can do without a thread."""
        return not self._wire.has_unsent

    def _timer_seconds(self) -> float:
        """After how many seconds `_tick` has to be called."""
        return inf

    def _tick(self) -> None:
        """Do what a timer of the protocol asks for."""

    def _rests(self) -> float:
        """How many seconds an idle connection keeps its thread."""
        seconds = 0.0 if self.connection.is_crowded else PARK_SECONDS
        return min(seconds, self.connection.idle_seconds) - (monotonic() - self._idle_from)

    def _receive(self) -> bytes | None:
        with self._lock:
            return self._wire.receive(0)

    def _read(self, receive: Callable[[], bytes | None]) -> bool:
        """Read what has come, and begin the streams that it brings; False at the end of the connection."""
        connection = self.connection
        connection.is_reading, connection.awaits = True, False
        try:
            data = receive()
            if data:
                self._take(data)
        finally:
            self._rest()
        self._batches.look()
        return data != b"" and not self._http.is_closed

    def _take(self, data: bytes) -> None:
        connection = self.connection
        connection.started = self.ledger.now()
        connection.accounted = True
        callbacks: list[Callable[[], None]] = []
        try:
            with self._lock:
                try:
                    for came in self._http.receive(data):
                        callbacks += self._act_on(came)
                except BrokenRuleError as error:
                    self._has_said_farewell = True
                    callbacks += self._leave_all(str(error))
                    raise
                finally:
                    self._wire.queue(self._http.outgoing())
        finally:
            run_all(callbacks)
            self._begin_fresh()

    def _act_on(self, came: Came) -> list[Callable[[], None]]:
        """Act on what came; return what has to be called without the lock."""
        if isinstance(came, Asked):
            stream = Http2Stream(self.connection, self._wire, self._http, came.stream, came.head)
            if came.stream > self._last:
                is_told = self.connection.is_ending or self._hung_up
                stream.late_note = self.connection.late_note(self._hung_up) if is_told else LATE
            self._streams[came.stream] = stream
            self._fresh.append(stream)
        elif isinstance(came, Unreadable):
            malformed = MalformedRequest(came.why, bytearray(came.sent))
            self._malformed.setdefault(came.stream, []).append(malformed)
        elif isinstance(came, WindowGrew) and came.stream == 0:
            for each in self._streams.values():
                each.window_grew()
        elif isinstance(came, CameLate):
            self._search_late(came)
        elif (known := self._streams.get(came.stream)) is not None:
            if isinstance(came, BodyCame):
                known.feed(came.data)
            elif isinstance(came, Ended):
                known.end_request(came.trailers)
            elif isinstance(came, WasReset):
                return known.leave(came.why)
            else:
                known.window_grew()
        return []

    def _search_late(self, came: CameLate) -> None:
        """Search what a client sends of a request after the response has ended: nobody reads it."""
        if (malformed := self._malformed.get(came.stream)) is not None:
            malformed[-1].sent.extend(came.data)
        elif (heard := self._late.get(came.stream)) is not None:
            heard(came.data)
        elif (known := self._streams.get(came.stream)) is not None:
            known.hear_late(came)

    def _begin_fresh(self) -> None:
        connection = self.connection
        fresh, self._fresh = self._fresh, []
        malformed, self._malformed = self._malformed, {}
        if fresh or malformed:
            self._awaits_first = False
            connection.idle_seconds = self._idle_seconds
        if connection.destination.tls:
            connection.note_trust()
        whole: list[Http2Stream] = []
        for stream in fresh:
            stream.begin()
            if stream.is_whole:
                whole.append(stream)
            else:
                self._give_out(stream)
        if whole:
            self._batches.serve(whole)
        for number, each in ((n, each) for n, several in malformed.items() for each in several):
            note = unreadable_note(each.why, connection.ledger.redactor)
            sent = bytes(each.sent)
            heard = connection.recorder.record_unreadable(connection.attempt, note, sent)
            self._hear_late(number, heard)

    def _hear_late(self, number: int, heard: Heard | None) -> None:
        """Have what still comes on a stream that is over searched."""
        if heard is None:
            return
        self._late[number] = heard
        if len(self._late) > MAX_LATE:
            del self._late[next(iter(self._late))]

    def _rest(self) -> None:
        """The connection has an attempt of its own before its first request, and while a head comes in parts."""
        connection = self.connection
        has_begun = self._awaits_first or self._http.is_within_head
        if has_begun and not connection.has_attempt:
            connection.begin()
        elif not has_begun and connection.has_attempt:
            connection.detach()
        with self._lock:
            is_idle = not (has_begun or self._streams)
            connection.idle_since = self._idle_from if is_idle else None
            connection.is_reading = False

    def _be_silent(self) -> bool:
        """Record a client that has asked for nothing so far; False where its connection is reset."""
        connection = self.connection
        self._awaits_first = False
        self._record_silent(SILENT.format(self.name))
        if silent_outcome(connection.attempt) == "unrouted":
            connection.reset()
            return False
        self._idle_from = monotonic()
        self._rest()
        return True

    def _record_silent(self, note: str) -> None:
        """Record a connection on which HTTP/2 began and no request came; its TLS client trusts the CA."""
        if self.connection.destination.tls:
            self.connection.record_tls("silent", note)
            self.connection.note_trust()
        else:
            self.connection.record_tcp(b"", note)

    # Streams.

    def _give_out(self, stream: Http2Stream) -> None:
        """Have a worker serve a stream."""
        try:
            self._workers.run(partial(self._serve_alone, stream))
        except RuntimeError as error:  # no thread can be started
            self.connection.recorder.complain(f"a request was not looked at: {error}")
            self._close(stream)

    def _serve_alone(self, stream: Http2Stream) -> None:
        try:
            self._serve_stream(stream)
        finally:
            self._close(stream)

    def _serve_stream(self, stream: Http2Stream) -> None:
        try:
            stream.activity.thread = threading.get_ident()
            answer(stream, self._answering(stream))
        except OverLimitError as error:
            self._refuse_head(stream, str(error))
        except BaseException as error:
            # It must fail the test, not vanish with its thread, nor end the batch's worker.
            self.connection.recorder.complain("the gateway failed", error)

    def _refuse_head(self, stream: Http2Stream, why: str) -> None:
        """Record a request whose head there is no room for, and answer with 413."""
        self.connection.recorder.record_unreadable(stream.attempt, why)
        with contextlib.suppress(ClientLeftError):
            stream.respond(Response(413, content=why.encode()))

    def _close(self, stream: Http2Stream) -> None:
        stream.close()
        connection = self.connection
        with self._lock:
            self._streams.pop(stream.number, None)
            self._hear_late(stream.number, stream.heard_late)
            if not self._streams:
                self._idle_from = monotonic()
                if not connection.is_reading and not connection.has_attempt:
                    connection.idle_since = self._idle_from
                self._emptied.notify_all()
        if stream.ends_connection:
            self.farewell()

    # The end.

    def _note_end(self) -> None:
        """Record a connection that its client closed before it had made a whole request."""
        connection = self.connection
        if not connection.accounted:
            if connection.destination.tls:
                record_silence(connection)
            else:
                connection.record_tcp(b"", NEVER_ASKED.format(self.name))
        elif self._http.is_within_head and self._http.has_begun:
            self._record_broken_head("broke off within the head of a request")
        elif self._awaits_first and not self._http.has_asked:
            self._record_silent(NEVER_ASKED.format(self.name))

    def _broke_off(self, error: OSError) -> None:
        connection, to = self.connection, self.connection.destination
        if to.tls and not connection.accounted:
            failure = broken_after_handshake(error, to.host, to.hello, to.tls.version, to.presented)
            connection.fail_tls(*failure)
        elif self._http.is_within_head:
            self._record_broken_head(f"broke off within the head of a request: {error}")
        else:
            self._note_end()

    def _record_broken_head(self, note: str) -> None:
        """Record a request whose head has not come whole. Up to three bytes may be those of any frame."""
        if self._http.has_part_of_head:
            self.connection.record_broken(note)
        else:
            self.connection.record_tcp(b"", note)

    def _refuse(self, why: str, sent: bytes) -> None:
        """Record a connection that cannot go on. Its GOAWAY has been written."""
        connection = self.connection
        note = unreadable_note(why, connection.ledger.redactor)
        connection.recorder.record_unreadable(connection.attempt, note, sent)

    def _leave_all(self, why: str, *, by_fault: bool = False) -> list[Callable[[], None]]:
        streams = self._streams.values()
        return [each for stream in streams for each in stream.leave(why, by_fault=by_fault)]

    def _end(self, why: str) -> None:
        """End the connection: let the client read what was sent, and wait for the handlers that still run."""
        self._batches.spread()  # handlers may wait for each other, and nobody looks any more
        with self._lock:
            callbacks = self._leave_all(why)
        run_all(callbacks)
        deadline = monotonic() + LINGER_SECONDS
        with self._lock:
            self._wire.flush()
            self._wire.drain(lambda: monotonic() > deadline)
        if self.connection.is_reset:
            self.connection.drop()  # the client shall see it before handlers have returned
        with self._lock:
            self._emptied.wait_for(lambda: not self._streams)
        if not self.connection.is_cut:
            self._linger()

    def _linger(self) -> None:
        self.connection.linger()

    # What `Connection` asks: `Multiplexed`.

    def farewell(self) -> None:
        """Send GOAWAY, once. Requests that came before are answered."""
        with self._lock:
            if not self._has_said_farewell:
                self._has_said_farewell, self._last = True, self._http.last_stream
                self._wire.queue(self._http.outgoing() + self._http.goaway())

    def abort(self, why: str) -> None:
        """The client has what was sent before the connection is reset."""
        with self._lock:
            self._wire.flush()
        await_acknowledged(self.connection.sock)
        with self._lock:
            self._wire.stop()
            callbacks = self._end_all(why)
        self.connection.abort()
        run_all(callbacks)

    def hang_up(self, why: str) -> None:
        """The client has what was sent and gathered before: a fault's own answer, and those of other streams."""
        with self._lock:
            place = self._wire.release()
            self._wire.drain(lambda: self.connection.is_cut, place)
            self._hung_up = why
            self._wire.hang_up()
            callbacks = self._end_all(why)
        run_all(callbacks)

    def _end_all(self, why: str) -> list[Callable[[], None]]:
        """Have every request find its client gone, and take no other; the lock is held."""
        self._has_said_farewell, self._last = True, self._http.last_stream
        return self._leave_all(why, by_fault=True)

    def close(self) -> None:
        with self._lock:
            self._wire.stop()

    def threads(self) -> list[int | None]:
        with self._lock:
            return [stream.activity.thread for stream in self._streams.values()]

    def carriers(self) -> Sequence[Http2Stream]:
        with self._lock:
            return list(self._streams.values())

    def read_late(self) -> None:
        """Read what the client sends after `farewell`, for a moment. A request is recorded, and gets no answer."""
        deadline = monotonic() + LINGER_SECONDS
        why = CLOSED
        try:
            while (left := deadline - monotonic()) > 0:
                if self._wire.wait(left) and not self._read(self._receive):
                    break
        except (OSError, BrokenRuleError) as error:
            why = str(error)
        self._end(why)


def answer(stream: Http2Stream, answering: Answering) -> None:
    """Have the request of a stream answered, on the thread that serves it."""
    incoming = answering.take(stream.attempt, stream.head, stream)
    if stream.late_note:
        if stream.is_whole:
            _ = incoming.body.content
        answering.record_unanswered(incoming, stream.late_note)
        return
    try:
        # What follows CONNECT is no body, and has no end before there is an answer (RFC 9113 section 8.5).
        if stream.head.method != "CONNECT" and not answering.begins_at_head(incoming):
            stream.is_kept_whole = True
            _ = incoming.body.content
            stream.is_kept_whole = False
        answering.answer(incoming)
        stream.search_late(incoming.body)
    except (OverLimitError, ClientLeftError, StalledError) as error:
        entry, status_code, text = answering.give_up(incoming, error)
        response = Response(status_code, text=text)
        with contextlib.suppress(ClientLeftError):
            stream.respond(response)
            entry.response = response


def unreadable_note(why: str, redactor: Redactor) -> str:
    """The reason may quote what the client has sent."""
    return f"{UNREADABLE}: {cut(redactor.text(why), SHOWN_REASON)}"
