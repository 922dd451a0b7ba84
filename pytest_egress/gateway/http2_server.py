"""`Http2Server`: reads the requests of an HTTP/2 connection, many at once, and has each answered.

The thread that reads never waits for long for a handler, nor for a client to take what was sent. It gives each request
to a worker, which may take as long as it likes. Where the client asks all the time, it serves requests that have come
whole by itself, watched by a `Deputy`, and sends what it has answered in one write. A connection is idle while no
stream is open, and waits then as one of HTTP/1.1 does: parked, without a thread. Frames that bring no request begin no
attempt: from the first byte that is read until the streams that it brings have begun, `Connection.is_reading` keeps a
window open.

The rule about requests: one that has come whole is answered, whatever its client does afterwards; one that has not is
recorded.

Threads: `serve` runs on the connection's thread, and each stream on a worker or on the thread that reads, which is the
connection's own or that of a deputy: only that one writes what has no lock. Any thread calls `farewell`, `threads` and
`carriers`. The wire's lock guards `_http` and `_streams`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Final

from pytest_egress.base.account import OverLimitError
from pytest_egress.base.acknowledged import await_acknowledged
from pytest_egress.base.clock import monotonic
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.answering import Answering
from pytest_egress.gateway.connection import LINGER_SECONDS, PARK_SECONDS, Connection, Parked
from pytest_egress.gateway.http2_deputy import Deputy, Relieved
from pytest_egress.gateway.http2_exchange import Http2Exchange
from pytest_egress.gateway.http2_stream import Http2Stream, run_all
from pytest_egress.gateway.http2_wire import Wire
from pytest_egress.gateway.patience import Patience, StalledError
from pytest_egress.gateway.recorder import silent_outcome
from pytest_egress.gateway.tls import record_silence
from pytest_egress.gateway.tls_failures import broken_after_handshake
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.entries import BEGAN_HTTP2, UNREADABLE
from pytest_egress.traffic.http2 import (
    Asked,
    BodyCame,
    Came,
    Ended,
    Http2,
    Http2Error,
    Unreadable,
    WasReset,
)
from pytest_egress.traffic.messages import NO_FIELDS, cut
from pytest_egress.traffic.redaction import masked_text

CLOSED: Final = "the client closed the connection"
FIRST_REQUEST_SECONDS: Final = (
    1.0  # a client that asks for nothing until then connects ahead of need
)
SILENT: Final = f"{BEGAN_HTTP2} and asked for nothing within {FIRST_REQUEST_SECONDS:g} s"
LATE: Final = "made a request just as its connection was said to end (GOAWAY): clients make it again on another one"
BUSY_SECONDS: Final = 0.05  # a client that asks again within them gets a deputy
QUICK_SECONDS: Final = 0.002  # that a request may take on the thread that reads
SLOW_COUNTS: Final = 8
SLOW_LIMIT: Final = 2 * SLOW_COUNTS
"""Where slow requests outweigh quick ones by this, workers serve all for `WORKERS_SECONDS`. A slow one counts as eight
quick ones: a few are slow on any busy machine, and handlers that wait, for another server say, are often.
"""

WORKERS_SECONDS: Final = 0.25
BATCH_SECONDS: Final = 0.05  # for all that was read at once: meanwhile nothing is read, nor sent
SHOWN_REASON: Final = 400  # characters of what is wrong with a request
NEVER_ASKED: Final = f"{BEGAN_HTTP2} and closed without a request"

MakeAnswering = Callable[[Http2Stream], Answering]
"""Makes the `Answering` whose carrier is a stream."""


class GivenBack(Exception):
    """The thread from which a deputy took over reads again."""


class Http2Server:
    """Serves the requests of one connection.

    Args:
        answering: Makes what answers a stream's request.
        workers: Threads for the streams.
        idle_seconds: How many seconds the connection may wait for its next request until it is closed.
    """

    def __init__(
        self,
        connection: Connection,
        answering: MakeAnswering,
        workers: Workers,
        *,
        idle_seconds: float,
    ) -> None:
        self.connection, self.ledger = connection, connection.ledger
        self._answering, self._workers, self._idle_seconds = answering, workers, idle_seconds
        self._wire = Wire(connection.sock)
        self._lock = self._wire.lock
        self._emptied = threading.Condition(self._lock)
        self._http = Http2(monotonic)
        self._streams: dict[int, Http2Stream] = {}
        self._fresh: list[Http2Stream] = []
        self._malformed: list[str] = []
        self._deputy: Deputy | None = None
        self._here: deque[Http2Stream] = deque()  # to be served by the thread that reads
        self._served: deque[Http2Stream] = deque()  # whose responses may have been gathered
        self._asked_at = self._workers_until = 0.0
        self._slow = 0
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
        """Read to the end of the connection.

        Args:
            first: The bytes that were read before it was known that they are HTTP/2.

        Raises:
            Parked: The next request does not come soon. Or a fault has closed our side, and the client may yet send it.
        """
        try:
            self._serve(first)
        except Relieved as relieved:
            if relieved.error is not None:
                raise relieved.error from None
        finally:
            self._dismiss()

    def _serve(self, first: bytes, relieves: Deputy | None = None) -> None:
        """Read to the end of the connection.

        Args:
            relieves: The deputy that does, whose first thread gets the reading back.

        Raises:
            GivenBack: It has got it.
            Relieved: A further deputy has read to the end.
        """
        try:
            why = self._read_on(first, relieves)
        except Http2Error as error:
            why = str(error)
            self._refuse(why)
        except StalledError as error:
            why = str(error)
            self._record_broken_head(f"{why} within the head of a request")
        except OSError as error:
            why = str(error)
            self._broke_off(error)
        self._end(why)

    def _read_on(self, first: bytes, relieves: Deputy | None) -> str:
        """Read until the connection ends; return why it does."""
        if first:
            self._read(lambda: first)
        while self._await_bytes():
            if relieves is not None and relieves.is_awaited and monotonic() >= self._workers_until:
                raise GivenBack
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
        """Whether one side has said that no request comes any more, and every answer has been sent."""
        with self._lock:
            return not self._streams and (self._http.is_leaving or self._has_said_farewell)

    def _await_bytes(self) -> bool:
        """Wait until there are bytes to read; False where they are not waited for any longer.

        Raises:
            Parked: They do not come soon.
            StalledError: The client has stopped within the head of a request.
        """
        connection, patience = self.connection, Patience(self.ledger.clock)
        while True:
            connection.awaits = connection.idle_since is not None
            if self._wire.wait(self._patience()):
                return True
            if self._is_over():
                return False
            if self._http.is_within_head and patience.is_over:
                raise StalledError
            if self._awaits_first:
                if monotonic() >= self._opened + FIRST_REQUEST_SECONDS and not self._be_silent():
                    return False
            elif connection.idle_since is not None and self._rests() <= 0:
                left = connection.idle_seconds - (monotonic() - self._idle_from)
                if not self._wire.has_unsent:
                    raise Parked(self.serve, max(left, 0))
                if left <= 0:
                    return False

    def _patience(self) -> float:
        """How many seconds to wait for bytes until the state of the connection is looked at again."""
        if self._awaits_first:
            return max(self._opened + FIRST_REQUEST_SECONDS - monotonic(), 0)
        if self.connection.idle_since is None or self._wire.has_unsent:
            return PARK_SECONDS
        return max(self._rests(), 0)

    def _rests(self) -> float:
        """How many seconds an idle connection keeps its thread."""
        seconds = 0.0 if self.connection.is_crowded else PARK_SECONDS
        return min(seconds, self.connection.idle_seconds) - (monotonic() - self._idle_from)

    def _receive(self) -> bytes | None:
        with self._lock:
            return self._wire.receive()

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
        if self._here:
            self._serve_here()
        return data != b""

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
                except Http2Error as error:
                    self._has_said_farewell = True
                    callbacks += self._leave_all(str(error))
                    raise
                finally:
                    self._wire.write(self._http.outgoing())
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
            self._malformed.append(came.why)
        elif came.stream == 0:
            for each in self._streams.values():
                each.window_grew()
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

    def _begin_fresh(self) -> None:
        """Begin the streams that were read, and record the requests that cannot be read."""
        connection = self.connection
        fresh, self._fresh = self._fresh, []
        malformed, self._malformed = self._malformed, []
        if fresh or malformed:
            self._awaits_first = False
            connection.idle_seconds = self._idle_seconds
        if connection.destination.tls:
            connection.note_trust()
        has_deputy = bool(fresh) and self._has_deputy()
        for stream in fresh:
            stream.begin()
            if has_deputy and stream.is_whole:
                self._here.append(stream)
            else:
                self._give_out(stream)
        for why in malformed:
            connection.recorder.record_unreadable(connection.attempt, unreadable_note(why))

    def _rest(self) -> None:
        """Bring the connection's state in line with what has been read.

        It has an attempt of its own before its first request, and while a request's head comes in parts.
        """
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
        self._record_silent(SILENT)
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
            answering = self._answering(stream)  # which its carrier's server keeps
            Http2Exchange(stream, answering).serve()
        except OverLimitError as error:
            self._refuse_head(stream, str(error))
        except BaseException as error:
            # It must fail the test, not vanish with its thread, nor end the thread that reads.
            self.connection.recorder.complain("the gateway failed", error)

    def _refuse_head(self, stream: Http2Stream, why: str) -> None:
        """Record a request whose head there is no room for, and answer with 413."""
        self.connection.recorder.record_unreadable(stream.attempt, why)
        with contextlib.suppress(ClientLeftError):
            stream.respond(413, NO_FIELDS, why.encode())

    def _close(self, stream: Http2Stream) -> None:
        stream.close()
        connection = self.connection
        with self._lock:
            self._streams.pop(stream.number, None)
            if not self._streams:
                self._idle_from = monotonic()
                if not connection.is_reading and not connection.has_attempt:
                    connection.idle_since = self._idle_from
                self._emptied.notify_all()
        if stream.ends_connection:
            self.farewell()

    # Streams, on the thread that reads.

    def _has_deputy(self) -> bool:
        """Whether what has just come may be served here. A busy client gets a deputy for what comes next."""
        now = monotonic()
        is_busy = now < self._asked_at + BUSY_SECONDS and now >= self._workers_until
        self._asked_at = now
        if self._deputy is not None and self._deputy.has_left:
            self._deputy = None
        if self._deputy is None and is_busy:
            self._deputy = Deputy(self._lock)
            with contextlib.suppress(RuntimeError):  # no thread can be started: none watches
                self._workers.run(partial(self._stand_by, self._deputy))
            return False
        return is_busy and self._deputy is not None and not self._has_said_farewell

    def _serve_here(self) -> None:
        """Serve what has come, and send the responses together. What takes its time is left to workers.

        Raises:
            Relieved: A deputy has taken over, and served the connection to its end.
        """
        deputy, here, served = self._deputy, self._here, self._served
        assert deputy is not None
        # From here on the deputy may take over, and the server has other deques then.
        if not deputy.begin():
            self._give_out_all(here)
            return
        with self._lock:
            self._wire.begin_to_gather()
        began = monotonic()
        over = began + BATCH_SECONDS
        while here:
            with contextlib.suppress(IndexError):  # the deputy has just taken the last one
                stream = here.popleft()
                deputy.step()
                self._serve_stream(stream)
                served.append(stream)
            was, began = began, monotonic()
            if began < was + QUICK_SECONDS:
                self._slow = max(self._slow - 1, 0)
            elif self._are_slow():
                self._give_out_all(here)
            if began >= over:
                self._give_out_all(here)
        self._finish(served)
        if not deputy.end():
            deputy.relieve()

    def _are_slow(self) -> bool:
        """Count a slow request; return whether workers serve the next ones, so that these hold up none."""
        self._slow += SLOW_COUNTS
        if self._slow < SLOW_LIMIT:
            return False
        self._slow = SLOW_LIMIT - 1  # the next one is enough
        self._workers_until = monotonic() + WORKERS_SECONDS
        return True

    def _give_out_all(self, here: deque[Http2Stream]) -> None:
        """Have workers serve what was to be served on the thread that reads."""
        with contextlib.suppress(IndexError):
            while True:
                self._give_out(here.popleft())

    def _finish(self, served: deque[Http2Stream]) -> None:
        """Send the responses of streams that were served on the thread that reads, and close these."""
        with self._lock:
            place = self._wire.release()
        with contextlib.suppress(IndexError):  # after a take-over two threads do this
            while True:
                self._close_sent(served.popleft(), place)

    def _close_sent(self, stream: Http2Stream, place: int) -> None:
        """Close a stream once its response has been sent, or nobody waits for that any more."""
        self._wire.await_sent(place, lambda: stream.disconnected)
        self._close(stream)

    def _stand_by(self, deputy: Deputy) -> None:
        """Read on where a request keeps the thread that reads; runs on the deputy's."""
        if not deputy.watch():
            return
        report: Relieved | None
        try:
            self._take_over()
            self._serve(b"", deputy)
            report = Relieved(None)
        except GivenBack:
            report = None
        except Relieved as relieved:
            report = relieved
        except BaseException as error:
            report = Relieved(error)
        self._dismiss()
        deputy.report(report)

    def _take_over(self) -> None:
        """Give to workers what the first thread was to serve, and what it has served."""
        self._deputy, self._workers_until = None, monotonic() + WORKERS_SECONDS
        (here, served), self._here, self._served = (self._here, self._served), deque(), deque()
        self._give_out_all(here)
        with contextlib.suppress(RuntimeError):  # no thread can be started: the first one does it
            self._workers.run(partial(self._finish, served))

    def _dismiss(self) -> None:
        deputy, self._deputy = self._deputy, None
        if deputy is not None:
            deputy.dismiss()

    # The end.

    def _note_end(self) -> None:
        """Record a connection that its client closed before it had made a whole request."""
        connection = self.connection
        if not connection.accounted:
            if connection.destination.tls:
                record_silence(connection)
            else:
                connection.record_tcp(b"", NEVER_ASKED)
        elif self._http.is_within_head and self._http.has_begun:
            self._record_broken_head("broke off within the head of a request")
        elif self._awaits_first and not self._http.has_asked:
            self._record_silent(NEVER_ASKED)

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

    def _refuse(self, why: str) -> None:
        """Record a connection that cannot go on. Its GOAWAY has been written."""
        connection = self.connection
        connection.recorder.record_unreadable(connection.attempt, unreadable_note(why))

    def _leave_all(self, why: str, *, by_fault: bool = False) -> list[Callable[[], None]]:
        streams = self._streams.values()
        return [each for stream in streams for each in stream.leave(why, by_fault=by_fault)]

    def _end(self, why: str) -> None:
        """End the connection: let the client read what was sent, and wait for the handlers that still run."""
        with self._lock:
            callbacks = self._leave_all(why)
            place = self._wire.write(b"")
        run_all(callbacks)
        deadline = monotonic() + LINGER_SECONDS
        self._wire.await_sent(place, lambda: monotonic() > deadline)
        if self.connection.is_reset:
            self.connection.drop()  # the client shall see it before handlers have returned
        with self._lock:
            self._emptied.wait_for(lambda: not self._streams)
        if not self.connection.is_cut:
            self.connection.linger()

    # What `Connection` asks: `Multiplexed`.

    def farewell(self) -> None:
        """Send GOAWAY, once: no request is wanted any more, and those that came are answered."""
        with self._lock:
            if not self._has_said_farewell:
                self._has_said_farewell, self._last = True, self._http.last_stream
                self._wire.write(self._http.outgoing() + self._http.goaway())

    def abort(self, why: str) -> None:
        """Reset the connection once the client has what was sent, and end all requests on it."""
        with self._lock:
            self._wire.flush()
        await_acknowledged(self.connection.sock)
        with self._lock:
            self._wire.abort()
            callbacks = self._end_all(why)
        self.connection.abort()
        run_all(callbacks)

    def hang_up(self, why: str) -> None:
        """Close our side of the connection without GOAWAY, and end all requests on it."""
        with self._lock:
            self._hung_up = why
            self._wire.flush()
            self._wire.hang_up()
            callbacks = self._end_all(why)
        run_all(callbacks)

    def _end_all(self, why: str) -> list[Callable[[], None]]:
        """Have every request find its client gone, and take no other; the lock is held."""
        self._has_said_farewell, self._last = True, self._http.last_stream
        return self._leave_all(why, by_fault=True)

    def close(self) -> None:
        """Send nothing any more: the socket is about to be closed."""
        with self._lock:
            self._wire.close()

    def threads(self) -> list[int | None]:
        """The threads that serve its streams."""
        with self._lock:
            return [stream.activity.thread for stream in self._streams.values()]

    def carriers(self) -> Sequence[Http2Stream]:
        """The streams that are open."""
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
        except (OSError, Http2Error) as error:
            why = str(error)
        self._end(why)


def unreadable_note(why: str) -> str:
    """The note of a request that cannot be read.

    Args:
        why: What is wrong with it. It may quote what the client has sent.
    """
    return f"{UNREADABLE}: {cut(masked_text(why), SHOWN_REASON)}"
