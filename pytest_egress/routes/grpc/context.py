"""The contexts of servicers: `grpc.ServicerContext` and `grpc.aio.ServicerContext` of one call.

This module is imported when the first `grpc_server` is made, since it imports grpcio.

Threads: a servicer uses its context on any thread; the call ends on any. The lock guards the callbacks, which are
called without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from pytest_egress.base.clock import monotonic
from pytest_egress.base.loops import Reads, in_thread
from pytest_egress.routes.grpc.stream import CallStream
from pytest_egress.routes.grpc.turns import Callbacks
from pytest_egress.traffic.grpc import Code, Metadata, checked_metadata
from pytest_egress.traffic.http.request import Request

ENCODING_OF: Final = {grpc.Compression.Gzip: "gzip", grpc.Compression.Deflate: "deflate"}
STATUS_CODES: Final = {Code(code.value[0]): code for code in grpc.StatusCode}
CANCELLED_BY_SERVICER: Final = "the servicer cancelled the call"


class AbortError(Exception):
    pass


def comes_of_abort(error: BaseException | None) -> bool:
    """Whether an exception is that of `abort`, or was raised from it: another one is a fault of the servicer."""
    while error is not None and not isinstance(error, AbortError):
        error = error.__cause__
    return error is not None


def code_of(code: object) -> Code:
    """A servicer's code is a `grpc.StatusCode`, or its number; any other value raises TypeError."""
    if isinstance(code, grpc.StatusCode):
        return Code(code.value[0])
    if isinstance(code, int) and not isinstance(code, bool) and 0 <= code < len(Code):
        return Code(code)
    raise TypeError(f"{code!r} is no status code: it takes a grpc.StatusCode")


class Context:
    """The part that both kinds of contexts share; `ends` is the deadline by the kernel's clock, None without one."""

    def __init__(self, stream: CallStream, request: Request, ends: float | None) -> None:
        self.stream, self.ends = stream, ends
        self.callbacks = Callbacks()
        self.aborted = False
        self._request = request
        self._code: Any = None
        self._details: Any = None
        self._trailing: Metadata = ()

    # What the call ends with.

    def end(self, code: Code, details: str) -> bool:
        """False where the call has ended before."""
        return self.stream.end(code, details, self._trailing)

    @property
    def status(self) -> Code | None:
        return None if self._code is None else code_of(self._code)

    @property
    def text(self) -> str:
        details = self._details
        return details.decode("utf-8", "replace") if isinstance(details, bytes) else details or ""

    def _abort(self, code: object, details: Any, trailing: Iterable[Any] = ()) -> NoReturn:
        number = code_of(code)
        if trailing:
            self.set_trailing_metadata(trailing)
        self._code, self._details = STATUS_CODES[number], details
        if number is Code.OK:  # as grpc's own server does
            self._code, self._details = (
                grpc.StatusCode.UNKNOWN,
                "abort() was called with StatusCode.OK",
            )
        self.aborted = True
        raise AbortError(f"the servicer aborted with {self._code.name}: {self.text}")

    # grpc.ServicerContext, as far as both kinds agree.

    def invocation_metadata(self) -> Any:
        return self.stream.call.metadata

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = checked_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailing

    def set_code(self, code: Any) -> None:
        code_of(code)
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> Any:
        return self._code

    def details(self) -> Any:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Messages are compressed from here on, where the client takes that."""
        self.stream.encoding = ENCODING_OF.get(compression)

    def disable_next_message_compression(self) -> None:
        self.stream.plain_next = True

    def peer(self) -> str:
        """The client's address, as grpc writes it."""
        host, port = self._request.client
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def peer_identities(self) -> None:
        """None, as for a server without client certificates."""

    def peer_identity_key(self) -> None:
        """None, as for a server without client certificates."""

    def auth_context(self) -> Mapping[str, Any]:
        return {"transport_security_type": [b"ssl"]} if self._request.scheme == "https" else {}

    def time_remaining(self) -> Any:
        """Seconds; None without a deadline."""
        return None if self.ends is None else max(self.ends - monotonic(), 0)


class SyncContext(Context, grpc.ServicerContext):
    """The context of a servicer's plain function."""

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        self.stream.send_head(checked_metadata(initial_metadata))

    def abort(self, code: Any, details: str = "") -> NoReturn:
        self._abort(code, details)

    def abort_with_status(self, status: Any) -> NoReturn:
        """The status has metadata, such as one of grpcio-status."""
        self._abort(status.code, status.details, status.trailing_metadata or ())

    def is_active(self) -> bool:
        return not self.stream.over

    def cancel(self) -> bool:
        return self.stream.end(Code.CANCELLED, CANCELLED_BY_SERVICER)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """False where the call is over already."""
        return not self.stream.over and self.callbacks.add(callback)


class AsyncContext(Context, grpc.aio.ServicerContext[Any, Any]):
    """The context of a servicer's async function; `serialize` makes bytes of its messages."""

    def __init__(
        self,
        stream: CallStream,
        request: Request,
        ends: float | None,
        messages: AsyncMessages,
        serialize: Callable[[Any], bytes] | None,
    ) -> None:
        super().__init__(stream, request, ends)
        self.messages, self._serialize = messages, serialize

    async def read(self) -> Any:
        """The client's next message, or `grpc.aio.EOF`."""
        return await self.messages.read()

    async def write(self, message: Any) -> None:
        await in_thread(lambda: self.stream.write(message, self._serialize))

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        metadata = checked_metadata(initial_metadata)
        await in_thread(lambda: self.stream.send_head(metadata))

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> NoReturn:
        """The status has metadata, such as one of grpcio-status."""
        self._abort(status.code, status.details, status.trailing_metadata or ())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if not self.callbacks.add(lambda: callback(self)):
            callback(self)

    def cancelled(self) -> bool:
        stream = self.stream
        return stream.call.code is Code.CANCELLED or (stream.over and not stream.ended)

    def done(self) -> bool:
        return self.stream.over


class AsyncMessages:
    """An async iterator of the client's messages, whose `read` returns `grpc.aio.EOF` at the end."""

    def __init__(self, messages: Iterable[Any]) -> None:
        self.read: Final = Reads(partial(next, iter(messages), grpc.aio.EOF))

    def __aiter__(self) -> AsyncMessages:
        return self

    async def __anext__(self) -> Any:
        if (message := await self.read()) is grpc.aio.EOF:
            raise StopAsyncIteration
        return message
