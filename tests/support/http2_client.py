"""A client of HTTP/2 that does what it is told, good manners or not: by h2, and by frames of its own."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import Frame

from pytest_egress.traffic.http.http2_frames import PREFACE
from tests.support.stage import SECONDS

Fields = Sequence[tuple[str, str]]


@dataclass
class Http2Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None


class Http2Client:
    """One connection, connected and past its preface.

    Attributes:
        answers: What has come back so far, by stream.
        goaway: The GOAWAY that came, if one did.
        closed: Whether the server has closed the connection.
        reads: Whether windows are given back.
        pongs: How many answers to PING have come.
    """

    def __init__(self, sock: socket.socket, scheme: str = "https", **settings: int) -> None:
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.sock, self.scheme = sock, scheme
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.answers: dict[int, Http2Answer] = {}
        self.goaway: h2.events.ConnectionTerminated | None = None
        self.closed, self.reads = False, True
        self.next_id, self.pongs = 1, 0
        self.flush()

    def flush(self) -> None:
        self.sock.settimeout(SECONDS)
        self.sock.sendall(self.h2.data_to_send())

    def begin(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        host: str = "api.test",
        headers: Fields = (),
        protocol: str = "",
        ends: bool = True,
    ) -> int:
        """Begin a request, and return its stream; nothing is sent until `flush`."""
        number, self.next_id = self.next_id, self.next_id + 2
        pseudo = [
            (":method", method),
            (":scheme", self.scheme),
            (":authority", host),
            (":path", path),
        ]
        if protocol:  # RFC 8441
            pseudo.append((":protocol", protocol))
        self.h2.send_headers(number, [*pseudo, *headers], end_stream=ends)
        self.answers[number] = Http2Answer()
        return number

    def ask(self, path: str = "/", method: str = "GET", **said: Any) -> Http2Answer:
        """Make a request, and return its whole answer."""
        number = self.begin(path, method, **said)
        self.flush()
        return self.answer(number)

    def post(self, path: str, body: bytes, trailers: Fields = (), **said: Any) -> Http2Answer:
        """Make a request with a body, as fast as windows allow, and return its whole answer."""
        number = self.begin(path, "POST", ends=False, **said)
        self.flush()
        self.send(number, body)
        if trailers:
            self.h2.send_headers(number, list(trailers), end_stream=True)
        else:
            self.h2.end_stream(number)
        self.flush()
        return self.answer(number)

    def send(self, number: int, body: bytes) -> None:
        """Send a body, waiting for windows."""
        while body:
            window = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if window <= 0:
                assert self.read(), "the server has closed, or gives no window"
                continue
            self.h2.send_data(number, body[:window])
            body = body[window:]
            self.flush()

    def answer(self, number: int) -> Http2Answer:
        """Wait for the end of an answer."""
        answer = self.answers[number]
        assert self.until(lambda: answer.ended or answer.reset is not None), answer
        return answer

    def until(self, condition: Callable[[], object], seconds: float = SECONDS) -> bool:
        """Read until a condition holds; False where the connection ends, or time is up, before."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if self.closed or left <= 0:
                return False
            self.read(left)
        return True

    def read(self, seconds: float = SECONDS) -> bool:
        """Read once; False where nothing comes, or the connection has ended."""
        if not (data := receive(self.sock, seconds)):
            self.closed |= data is not None
            return False
        for event in self.receive(data):
            self.note(event)
        with contextlib.suppress(OSError):  # it has closed; what it sent before is yet to be read
            self.flush()
        return True

    def receive(self, data: bytes) -> list[Any]:
        return list(self.h2.receive_data(data))

    def note(self, event: object) -> None:
        number = getattr(event, "stream_id", None)
        answer = self.answers.setdefault(number or 0, Http2Answer())
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = texts(event.headers)
            answer.status = int(answer.headers[":status"])
        elif isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(int(texts(event.headers)[":status"]))
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.reads:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = texts(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1

    def close(self) -> None:
        self.sock.close()


def texts(headers: Any) -> dict[str, str]:
    """The fields of an event, which this configuration decodes."""
    return dict(headers)


class FrameClient:
    """A connection on which frames are sent as they are, and read as they come; no state is kept.

    Attributes:
        frames: What has come.
        closed: Whether the server has closed the connection.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.closed = sock, False
        self.frames: list[Frame] = []
        self._waiting = b""

    def begin(self) -> None:
        """Send the preface and empty SETTINGS, and acknowledge the server's."""
        self.sock.sendall(
            PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
        )

    def read(self, seconds: float = SECONDS) -> bool:
        """Read once; False where nothing comes, or the connection has ended."""
        if not (data := receive(self.sock, seconds)):
            self.closed |= data is not None
            return False
        self._waiting += data
        while len(self._waiting) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._waiting[:9]))
            if len(self._waiting) < 9 + length:
                break
            frame.parse_body(memoryview(self._waiting[9 : 9 + length]))
            self.frames.append(frame)
            self._waiting = self._waiting[9 + length :]
        return True

    def until(self, condition: Callable[[Frame], object]) -> Frame | None:
        """Read until a frame comes that a condition holds for; None where the connection ends before."""
        seen = 0
        deadline = time.monotonic() + SECONDS
        while True:
            for frame in self.frames[seen:]:
                if condition(frame):
                    return frame
            seen = len(self.frames)
            if self.closed or time.monotonic() > deadline:
                return None
            self.read(max(deadline - time.monotonic(), 0.01))


def receive(sock: socket.socket, seconds: float) -> bytes | None:
    """What comes next on a socket; b"" at its end, however it ends, and None where nothing comes in time."""
    sock.settimeout(seconds)
    try:
        return sock.recv(65536)
    except TimeoutError:
        return None
    except OSError:
        return b""
