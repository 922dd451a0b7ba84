"""`Http3Server`: reads the requests of an HTTP/3 connection, and has each answered, as `Http2Server` does.

The differences: QUIC has timers, so that an idle connection keeps its thread. Its end is a frame, CONNECTION_CLOSE, and
what is behind that is lost: the client has to acknowledge all before.
"""

from __future__ import annotations

from pytest_egress.base.clock import monotonic
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.connection import LINGER_SECONDS, Connection
from pytest_egress.gateway.http2.server import Http2Server, MakeAnswering
from pytest_egress.gateway.http2.stream import run_all
from pytest_egress.traffic.http.http3 import Http3
from pytest_egress.traffic.tls.quic import NOTHING


class Http3Server(Http2Server):
    """Serves the requests of one connection, whose handshake has been made."""

    name = "HTTP/3"

    def __init__(
        self,
        connection: Connection,
        answering: MakeAnswering,
        workers: Workers,
        *,
        idle_seconds: float,
        http: Http3,
    ) -> None:
        super().__init__(connection, answering, workers, idle_seconds=idle_seconds, http=http)
        self._http3 = http

    # The connection's thread.

    def _may_park(self) -> bool:
        return False

    def _timer_seconds(self) -> float:
        return self._http3.seconds_left

    def _tick(self) -> None:
        with self._lock:
            self._http3.tick()
            self._wire.queue(self._http3.outgoing())
            has_come = self._http3.has_come
        if has_come:
            self._read(lambda: NOTHING)

    def _note_end(self) -> None:
        """The client has ended the connection, or it was cut."""
        if self._http.is_within_head:
            self._record_broken_head("broke off within the head of a request")
        elif self._awaits_first and not self._http.has_asked:
            self._record_silent(f"began {self.name} and closed without a request")

    def _linger(self) -> None:
        """Wait until the client has acknowledged what was sent, for a moment: it is lost behind an end."""
        deadline = monotonic() + LINGER_SECONDS
        while not self._http3.has_delivered and (left := deadline - monotonic()) > 0:
            self._wire.wait(min(left, self._http3.seconds_left))
            data = self._receive()
            if data == b"":
                return
            with self._lock:
                self._http3.take(data or NOTHING)
                self._http3.tick()
                self._wire.queue(self._http3.outgoing())

    # What `Connection` asks: `Multiplexed`.

    def abort(self, why: str) -> None:
        with self._lock:
            self._wire.queue(self._http3.close(is_error=True))
        super().abort(why)

    def hang_up(self, why: str) -> None:
        with self._lock:
            self._wire.queue(self._http3.close(is_error=False))
            self._wire.stop()
            callbacks = self._end_all(why)
        run_all(callbacks)

    def close(self) -> None:
        with self._lock:
            if not self._http.is_closed:
                self._wire.queue(self._http3.close(is_error=self.connection.is_reset))
        super().close()
