"""A client of HTTP/3 by aioquic, for a stage: its datagrams are frames as the kernel of a target lets them out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import trustme
from aioquic.h3.connection import H3Connection, HeadersState
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamReset

from pytest_egress.traffic.datagrams import SentDatagram, answer, parse
from tests.support.stage import ADDRESS, SECONDS, Stage

OWN = "10.213.0.2"
SERVER = ("server", 443)


def let_out(
    content: bytes, *, source: int = 40000, port: int = 443, server: str = ADDRESS
) -> bytes:
    """A frame as the kernel lets it out; it is made as the answer to one the other way."""
    other = SentDatagram(
        version=4,
        client=(server, port),
        server=(OWN, source),
        content=b"",
        hops=64,
        frame=bytes(12) + b"\x08\x00" + bytes(28),
    )
    return answer(other, content)


@dataclass
class Http3Answer:
    """What has come on one stream."""

    heads: list[dict[str, str]] = field(default_factory=list)
    body: bytes = b""
    has_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.heads[0][":status"])


class Http3Client:
    """One connection. Nothing is read but within `until`."""

    def __init__(
        self, stage: Stage, ca: trustme.CA, name: str = "api.test", source: int = 40000, **more: Any
    ) -> None:
        options: dict[str, Any] = {"alpn_protocols": ["h3"], "server_name": name, **more}
        configuration = QuicConfiguration(is_client=True, **options)
        configuration.load_verify_locations(cadata=ca.cert_pem.bytes())
        self.quic = QuicConnection(configuration=configuration)
        self.h3: H3Connection | None = None
        self.streams: dict[int, Http3Answer] = {}
        self.terminated: ConnectionTerminated | None = None
        self.is_refused = False
        self._sock, self._source = stage.link.datagram_source, source
        self.quic.connect(SERVER, now=time.monotonic())
        self.send()

    def send(self) -> None:
        self._sock.settimeout(SECONDS)
        for data, _ in self.quic.datagrams_to_send(now=time.monotonic()):
            self._sock.send(let_out(data, source=self._source))

    def until(self, is_so: Any) -> None:
        """Read and send until something is so."""
        deadline = time.monotonic() + SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"it has not come: {self.streams}, {self.terminated}")
            timer = self.quic.get_timer()
            left = SECONDS if timer is None else timer - time.monotonic()
            self._sock.settimeout(min(max(left, 0.001), 0.2))
            try:
                self._take(self._sock.recv(70000))
            except (TimeoutError, BlockingIOError):
                if timer is not None and timer <= time.monotonic():
                    self.quic.handle_timer(now=time.monotonic())
            self._act()
            self.send()

    def _take(self, data: bytes) -> None:
        sent = parse(data)
        if sent is None:  # ICMP
            self.is_refused = True
        else:
            assert sent.server == (OWN, self._source)
            self.quic.receive_datagram(sent.content, SERVER, now=time.monotonic())

    def _act(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.h3 = H3Connection(self.quic)
            elif isinstance(event, ConnectionTerminated):
                self.terminated = event
            elif isinstance(event, StreamReset):
                self.streams[event.stream_id].reset = event.error_code
            elif self.h3 is not None:
                for each in self.h3.handle_event(event):
                    self._note(each)

    def _note(self, event: Any) -> None:
        if not isinstance(event, (HeadersReceived, DataReceived)):
            return
        stream = self.streams[event.stream_id]
        if isinstance(event, HeadersReceived):
            stream.heads.append({name.decode(): value.decode() for name, value in event.headers})
            if stream.heads[-1].get(":status", "").startswith("1") and self.h3 is not None:
                # aioquic 1.3 would take the head of the response for trailers.
                self.h3._stream[event.stream_id].headers_recv_state = HeadersState.INITIAL
        else:
            stream.body += event.data
        stream.has_ended |= event.stream_ended

    def begin(
        self,
        path: str = "/",
        method: str = "GET",
        *,
        fields: Iterable[tuple[bytes, bytes]] = (),
        ends: bool = True,
        authority: str = "api.test",
    ) -> int:
        """Send the head of a request, once the handshake has been made; return its stream."""
        self.until(lambda: self.h3 is not None or self.terminated)
        assert self.h3 is not None, self.terminated
        number = self.quic.get_next_available_stream_id()
        self.streams[number] = Http3Answer()
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", path.encode()),
            *fields,
        ]
        self.h3.send_headers(number, head, end_stream=ends)
        self.send()
        return number

    def body(self, number: int, data: bytes, *, ends: bool = False) -> None:
        assert self.h3 is not None
        self.h3.send_data(number, data, end_stream=ends)
        self.send()

    def answer(self, number: int) -> Http3Answer:
        """Wait for the end of an answer."""
        stream = self.streams[number]
        self.until(lambda: stream.has_ended or stream.reset is not None or self.terminated)
        return stream

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes = b"", **more: Any
    ) -> Http3Answer:
        number = self.begin(path, method, ends=not body, **more)
        if body:
            self.body(number, body, ends=True)
        return self.answer(number)

    def close(self) -> None:
        self.quic.close()
        self.send()
