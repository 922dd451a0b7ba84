"""`CallStream`: the messages of one call on a `Duplex`, its metadata and its status.

Messages and what was sent are noted in the `GrpcCall` of the exchange, and the call is counted before its client can
know that it is over. This module is imported when the first `grpc_server` is made, since it imports grpcio.

Threads: one thread at a time reads; any thread sends and ends the call, in turns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from pytest_egress.base.account import OverLimitError
from pytest_egress.base.clock import SELDOM_SECONDS
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex
from pytest_egress.routes.grpc.turns import OverError, SendTurns
from pytest_egress.traffic.entries import note_message
from pytest_egress.traffic.grpc import (
    CONTENT_TYPE,
    ENCODINGS,
    WINDOWS,
    Code,
    GrpcCall,
    MessageBuffer,
    Metadata,
    StatusError,
    accepted_encodings,
    deflate,
    frame,
    metadata_fields,
    status_fields,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.shown import shown

MESSAGES: Final = "messages of gRPC"
MESSAGE_BYTES: Final = 640  # what an empty one takes: protobuf gives each an arena of its own
CLIENT_LEFT: Final = "the client cancelled the call, or its connection ended"
Deserialize = Callable[[bytes], Any] | None
Serialize = Callable[[Any], bytes] | None


class CallEndedError(OverError, grpc.RpcError):
    """The call is over, so that its messages cannot be read or sent: what grpc's own server raises in a servicer."""


class UnreadableError(Exception):
    """A message of the client is not of the type that the method takes; the text says so."""


def received(receive: Callable[[], bytes]) -> bytes:
    """A piece, where nothing is searched."""
    return receive()


class UnsendableError(TypeError):
    """A servicer answers with what is no message of its method; the text quotes it."""


class CallStream:
    """The two directions of one call.

    Attributes:
        lost: Whether the client left before the call had a status.
        encoding: The encoding in which the servicer wants to send messages, or None.
        plain_next: Whether the next message is sent without that encoding.
    """

    def __init__(self, call: GrpcCall, duplex: Duplex, conversation: Conversation) -> None:
        self.call = call
        self._duplex, self._conversation = duplex, conversation
        # A message that a servicer does not take, or cannot read, is searched for secrets too.
        body = conversation.exchange.request._body
        self._searched: Callable[[Callable[[], bytes]], bytes] = getattr(body, "searched", received)
        headers = conversation.exchange.request.headers
        self._buffer = MessageBuffer(headers.get("grpc-encoding", "identity").lower())
        self._accepted = accepted_encodings(headers)
        self._turns = SendTurns()
        self._unread = conversation.account.hold(MESSAGES)
        self._head_sent = False
        self._last: tuple[list[tuple[str, str]], bytes] | None = None
        self._sent_encoding: str | None = None
        self.lost = self.plain_next = False
        self.encoding: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the call has a status, or has been noted as lost."""
        return self._turns.over

    @property
    def over(self) -> bool:
        return self.ended or self._duplex.disconnected

    # The client's messages.

    def read(self, deserialize: Deserialize) -> Iterator[Any]:
        """A call that is over raises CallEndedError, an unreadable message StatusError or UnreadableError."""
        number = 0
        try:
            while (data := self._next_bytes()) is not None:
                number += 1
                message = self._deserialized(data, deserialize, number)
                self._keep(self.call.requests, message, data, from_client=True)
                yield message
        except OverLimitError as error:
            raise StatusError(Code.RESOURCE_EXHAUSTED, str(error)) from error
        finally:
            self._unread.release()

    def _next_bytes(self) -> bytes | None:
        while (data := self._buffer.next_message()) is None:
            if not (piece := self._receive()):
                self._buffer.check_end()
                self.call.is_read_out = True
                return None
            self._buffer.receive(piece)
            self._unread.resize(self._buffer.size)
        return data

    def _receive(self) -> bytes:
        while not self._turns.over:
            with contextlib.suppress(TimeoutError):
                return self._received()
        raise CallEndedError("the call is over")

    def _received(self) -> bytes:
        try:
            return self._searched(lambda: self._duplex.receive(SELDOM_SECONDS))
        except ClientLeftError as error:
            raise CallEndedError(str(error)) from error

    def _deserialized(self, data: bytes, deserialize: Deserialize, number: int) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except Exception as error:
            name = getattr(getattr(deserialize, "__self__", deserialize), "__name__", "message")
            raise UnreadableError(
                f"message {number} of {self.call.path} is no {name}: {error} ({shown(data)})"
            ) from error

    def _keep(self, messages: list[Any], message: Any, data: bytes, *, from_client: bool) -> None:
        account, entry = self._conversation.account, self._conversation.exchange
        is_kept = account.has_room(len(data) + MESSAGE_BYTES, MESSAGES)
        if is_kept:
            messages.append(message)
        decoded = message if is_kept else None
        note_message(entry, account, data, from_client=from_client, decoded=decoded)

    # The servicer's.

    def send_head(self, metadata: Metadata = ()) -> None:
        """Send the initial metadata, unless that has been sent. A call that is over raises CallEndedError."""
        with self._turn():
            self._send_head(metadata)

    def write(self, message: Any, serialize: Serialize, *, is_last: bool = False) -> None:
        """Where nothing was sent before, the last message is sent together with the status, in one write.

        Raises:
            CallEndedError: The call is over.
            UnsendableError: It is no message of the method.
        """
        data = self._serialized(message, serialize)
        with self._turn():
            head = self._head() if is_last and not self._head_sent else None
            if head is None:
                self._send_head()
            encoding, plain = self._sent_encoding, self.plain_next
            self.plain_next = False
            if encoding is not None and not plain:
                sent = frame(deflate(data, encoding), compressed=True)
            else:
                sent = frame(data)
            self._keep(self.call.responses, message, data, from_client=False)
            if head is None:
                self._duplex.send(sent)
            else:
                self._last = head, sent

    def _serialized(self, message: Any, serialize: Serialize) -> bytes:
        try:
            data = serialize(message) if serialize else message
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise UnsendableError(
                f"the servicer answered {self.call.path} with {shown(message)}, which cannot be sent: {said}"
            ) from error
        if not isinstance(data, bytes):
            raise UnsendableError(
                f"the servicer answered {self.call.path} with {shown(message)}, which cannot be sent as bytes"
            )
        return data

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        try:
            with self._turns.turn():
                yield
        except (OverError, ClientLeftError) as error:
            raise CallEndedError(str(error) or "the call is over") from error

    def _send_head(self, metadata: Metadata = ()) -> None:
        if not self._head_sent:
            self._duplex.start(200, Headers(self._head(metadata)))

    def _head(self, metadata: Metadata = ()) -> list[tuple[str, str]]:
        self._head_sent = True
        self.call.initial_metadata = metadata
        head = [("content-type", CONTENT_TYPE), ("grpc-accept-encoding", ",".join(ENCODINGS))]
        if self.encoding in WINDOWS and self.encoding in self._accepted:
            self._sent_encoding = self.encoding
            head.append(("grpc-encoding", self._sent_encoding))
        return [*head, *metadata_fields(metadata)]

    # The end.

    def end(self, code: Code, details: str, trailing: Metadata = ()) -> bool:
        """False where the call has ended before. The status of a client that left is CANCELLED."""
        if self._duplex.disconnected:
            return self.lose()

        def last() -> None:
            self._note_end(code, details, trailing)
            fields = status_fields(code, details, trailing)
            with contextlib.suppress(ClientLeftError):
                if self._last is not None:
                    head, message = self._last
                    self._duplex.respond(
                        Response.received(
                            200,
                            Headers(head),
                            reason="OK",
                            content=message,
                            trailers=Headers(fields),
                        )
                    )
                elif self._head_sent:
                    self._duplex.finish(Headers(fields))
                else:  # "Trailers-Only"
                    self._duplex.start(200, Headers([*self._head(), *fields]), ends=True)

        return self._turns.end(last)

    def lose(self) -> bool:
        """The client has left before the end; False where the call has ended before."""

        def note() -> None:
            self.lost = True

        return self._turns.end(lambda: self._note_end(Code.CANCELLED, "", ()), note)

    def _note_end(self, code: Code, details: str, trailing: Metadata) -> None:
        self.call.code, self.call.details = code, details
        self.call.trailing_metadata = trailing
        self._conversation.count()  # before the client can know
