"""Servers of libraries as handlers of a raw route: those of `socketserver`, and asyncio's streams and protocols.

Each is called with the connected socket. This module never opens one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socketserver import BaseServer
from typing import Any, Final

from pytest_egress.base.unawaited import Unawaited
from pytest_egress.routes.answers import Forward, takes
from pytest_egress.routes.faults import Disconnect, End, Fault, check_fault, is_maker, layers
from pytest_egress.routes.sequences import AnswerSequence


def adapted(answer: object) -> object:
    """The answer of a raw route as a function of the socket, where it is a server of a library; any other as it is.

    * An instance of `socketserver.BaseServer`; it need not listen.
    * A function of a reader and a writer, as `asyncio.start_server` takes one.
    * A class of `asyncio.Protocol`, or a `functools.partial` of one, as `loop.create_server` takes a factory.
    """
    if isinstance(answer, AnswerSequence):
        return AnswerSequence(tuple(map(adapted, answer.answers)))
    if isinstance(answer, Fault):
        check_end(answer)
        return check_fault(answer, check=adapted)
    if isinstance(answer, BaseServer):
        return ServerHandler(answer)
    if is_protocol_factory(answer):
        return ProtocolHandler(answer)
    if is_maker(answer):
        return answer  # which is refused later, with the reason
    if callable(answer) and not isinstance(answer, type) and takes(answer, 2):
        return answer if takes(answer, 1) else StreamsHandler(answer)
    return answer


def check_end(fault: Fault) -> None:
    """A `disconnect` after an answer that has no end before its connection's raises TypeError."""
    server = layers(fault)[1]
    if isinstance(fault, Disconnect) and isinstance(server, Forward):
        raise TypeError(
            f"{fault}: the server's connection ends when the server closes it; truncated({server}, 4096) ends it after "
            "so many bytes"
        )


def is_protocol_factory(answer: object) -> bool:
    """Whether an answer is a class of `asyncio.Protocol`, or a partial of one, that can be called without arguments."""
    made = answer.func if isinstance(answer, partial) else answer
    if not (isinstance(made, type) and issubclass(made, asyncio.BaseProtocol)):
        return False
    if takes(answer, 0):  # type: ignore[arg-type]  # both can be called
        return True
    raise TypeError(
        f"{answer!r} cannot be called without arguments, as a protocol is made for each connection: give it its "
        "arguments by functools.partial(...)"
    )


async def closed(sock: Any, transport: asyncio.BaseTransport) -> None:
    """Bytes that the transport has not sent yet are lost."""
    if sock.fileno() >= 0:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()
        await asyncio.sleep(0)  # it closes the socket in the loop's next turn


class LibraryHandler:
    """A handler that is made of what a test has given, and is shown as that."""

    def __init__(self, given: Any) -> None:
        self.given: Final = given

    def __repr__(self) -> str:
        return repr(self.given)


class ServerHandler(LibraryHandler):
    """A `socketserver` server as a handler: it handles the connection by `finish_request`, as it would its own."""

    def __call__(self, sock: Any) -> None:
        """The client's address is made up: two containers may have the same."""
        self.given.finish_request(sock, ("egress", sock.fileno()))


class AsyncHandler(LibraryHandler):
    """A handler on asyncio's transports, which know nothing of a TLS socket: within TLS the gateway decrypts for it."""


class Faults(Unawaited):
    """The exceptions of a connection's callbacks and tasks that nobody awaits. They end the connection."""

    def __init__(self, sock: Any) -> None:
        self._is_over = asyncio.Event()
        super().__init__(asyncio.get_running_loop(), self._is_over.set, of_transports=True)
        sock.when_closed = self._is_over.set

    async def end(self) -> None:
        """Wait until the socket is closed, or a callback has raised. A cancelled wait raises as `check` does."""
        try:
            await self._is_over.wait()
        except asyncio.CancelledError:
            self.check()
            raise


class StreamsHandler(AsyncHandler):
    """A function of a reader and a writer as a handler."""

    async def __call__(self, sock: Any) -> End | None:
        """Serve one connection, until the function has returned and all that it wrote has been sent.

        Returns:
            The fault that the function has returned, if that is one.

        Raises:
            BaseException: The function raised it, or a callback or a task that nobody awaits.
        """
        loop, faults = asyncio.get_running_loop(), Faults(sock)
        opened: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            loop.create_future()
        )
        # Not `open_connection(sock=...)`: that is a client's, and its `start_tls` would speak as one.
        protocol = asyncio.StreamReaderProtocol(
            asyncio.StreamReader(), lambda reader, writer: opened.set_result((reader, writer))
        )
        await loop.connect_accepted_socket(lambda: protocol, sock)
        reader, writer = await opened
        note_errors(sock, reader, "read", "readline", "readexactly", "readuntil")
        note_errors(sock, writer, "drain", "wait_closed")
        try:
            result: object = self.given(reader, writer)
            if inspect.isawaitable(result):
                result = await result
                writer.close()
            await faults.end()
        finally:
            await closed(sock, writer.transport)
        with suppress(OSError):  # the client has left
            await writer.wait_closed()
        faults.check()
        return result if isinstance(result, End) else None


def note_errors(sock: Any, stream: object, *names: str) -> None:
    """Coroutine methods of a client's stream note in its socket's `ends` what they raise: asyncio makes some."""

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        async def noted(*arguments: Any, **named: Any) -> Any:
            try:
                return await method(*arguments, **named)
            except (OSError, EOFError) as error:
                sock.ends.note(error)
                raise

        return noted

    for name in names:
        setattr(stream, name, noting(getattr(stream, name)))


class ProtocolHandler(AsyncHandler):
    """A factory of `asyncio.Protocol`s as a handler."""

    async def __call__(self, sock: Any) -> None:
        """Serve one connection, until its transport has closed the socket.

        A protocol's own `connection_lost` does not tell that: one that starts TLS gets a second transport.

        Raises:
            BaseException: The protocol raised it in a callback, or in a task that nobody awaits.
        """
        loop, faults = asyncio.get_running_loop(), Faults(sock)
        transport, _ = await loop.connect_accepted_socket(self.given, sock)
        try:
            await faults.end()
        finally:
            await closed(sock, transport)
        faults.check()
