"""`Quic`: the server side of a connection of QUIC, by aioquic (RFC 9000): its certificate is chosen by its ClientHello.

This module never touches a socket. aioquic has one certificate for all names, and no event for a ClientHello. `Quic`
looks at that message before aioquic does. It also notes why aioquic closes a connection, which it tells by its log
alone, and how much of what was written has been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from logging import CRITICAL, Logger, LoggerAdapter
from typing import Any, Final, Protocol

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from pytest_egress.errors import ClientHelloError
from pytest_egress.traffic.tls.hello import ClientHello, parse_client_hello

DATAGRAM_BYTES: Final = 1350  # curl reads 2,048 bytes at a time, and quic-go 1,452
STREAM_WINDOW: Final = (
    1 << 20
)  # bytes that a client may send at first; aioquic doubles it as they come
LIMIT_BYTES: Final = 17  # of MAX_STREAM_DATA, with two numbers (RFC 9000 section 19.10)
IDLE_SECONDS: Final = 60.0  # after which aioquic forgets a client that has gone without a word
SILENT: Final = Logger("pytest_egress.quic", CRITICAL)
"""In place of aioquic's logger: what a target does wrong is no message for the log of a test."""

RECORD: Final = b"\x16\x03\x01"  # of TLS, which QUIC has none of (RFC 9001 section 4.1.3)


class Shown(Protocol):
    """What a server shows in its handshake: objects of `cryptography`."""

    @property
    def certificate(self) -> Any: ...

    @property
    def chain(self) -> Sequence[Any]:
        """The certificates that lead from its own to the root."""
        ...

    @property
    def key(self) -> Any: ...


Identify = Callable[["ClientHello | None"], Shown]
"""Says by which certificate a ClientHello is answered; None for one that cannot be parsed."""


class Quic(QuicConnection):
    """One connection.

    Attributes:
        refused: Why this side has ended it; "" for no reason.
        ended: By which code and text the client has; None where it has not. aioquic tells it seconds later.
        unread: How many bytes of a request nobody has read yet, by its stream.
    """

    def __init__(self, first_id: bytes, identify: Identify) -> None:
        self._identify, self.refused = identify, ""
        self.ended: tuple[int, str] | None = None
        self._written: dict[int, int] = {}
        self.unread: dict[int, int] = {}
        configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=["h3"],
            certificate="",  # `_greet` has it
            private_key="",
            idle_timeout=IDLE_SECONDS,
            max_datagram_size=DATAGRAM_BYTES,
            max_stream_data=STREAM_WINDOW,
            max_data=STREAM_WINDOW * 16,
        )
        super().__init__(configuration=configuration, original_destination_connection_id=first_id)
        self._logger: Any = LoggerAdapter(SILENT)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        own: Any = self.tls
        answer_hello = own._server_handle_hello

        def greet(message: Any, *buffers: Any) -> None:
            shown = self._identify(hello_of(message.data_slice(0, message.capacity)))
            own.certificate, own.certificate_private_key = shown.certificate, shown.key
            own.certificate_chain = [*shown.chain]
            answer_hello(message, *buffers)

        own._server_handle_hello = greet

    @property
    def cipher(self) -> str:
        """The name of the cipher suite, as OpenSSL has it."""
        schedule = self.tls.key_schedule
        assert schedule is not None
        return f"TLS_{schedule.cipher_suite.name}"

    def close(
        self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = ""
    ) -> None:
        self.refused = self.refused or reason_phrase
        super().close(error_code, frame_type, reason_phrase)

    def _close_begin(self, is_initiator: bool, now: float) -> None:
        super()._close_begin(is_initiator, now)
        if not is_initiator and self._close_event is not None:
            self.ended = self._close_event.error_code, self._close_event.reason_phrase

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None:
        super().send_stream_data(stream_id, data, end_stream)
        self._written[stream_id] = self._written.get(stream_id, 0) + len(data)

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        """Let a client send as much ahead of a handler as there is room for; aioquic asks for more as it comes."""
        number = stream.stream_id
        unread = None if number is None else self.unread.get(number)
        if number is None or unread is None:
            super()._write_stream_limits(builder, space, stream)
            return
        limit = stream.receiver.highest_offset - unread + STREAM_WINDOW
        if limit - stream.max_stream_data_local >= STREAM_WINDOW // 2:
            stream.max_stream_data_local = limit
        if stream.max_stream_data_local_sent != stream.max_stream_data_local:
            buffer = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=LIMIT_BYTES,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buffer.push_uint_var(number)
            buffer.push_uint_var(stream.max_stream_data_local)
            stream.max_stream_data_local_sent = stream.max_stream_data_local

    def unsent(self, stream_id: int) -> int:
        """How many bytes of a stream have been written, and not sent."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        return self._written.get(stream_id, 0) - stream.sender.next_offset

    @property
    def has_begun(self) -> bool:
        """Whether a packet has come that could be read."""
        return bool(self._network_paths)

    @property
    def has_delivered(self) -> bool:
        return all(stream.sender.buffer_is_empty for stream in self._streams.values())


def hello_of(message: bytes) -> ClientHello | None:
    """Aioquic refuses what cannot be parsed."""
    try:
        return parse_client_hello(RECORD + len(message).to_bytes(2, "big") + message)
    except (ClientHelloError, OverflowError):
        return None
