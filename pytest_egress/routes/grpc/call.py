"""`ServicerCall`: calls the method of a servicer for one request, and sends what comes of it.

A plain method runs on the thread that asks; an async one on the server's event loop, while that thread waits. Both run
in the context variables of the route's declaration. This module is imported when the first `grpc_server` is made, since
it imports grpcio.

Threads: the asking thread; the loop's; the one that reports that the client has left, which only marks that; a thread
of the loop at the deadline. Whoever ends the call first decides its status (`SendTurns`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc

from pytest_egress.base.clock import monotonic
from pytest_egress.base.loops import LoopThread, Running, in_thread
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex
from pytest_egress.routes.grpc.context import (
    AsyncContext,
    AsyncMessages,
    Context,
    SyncContext,
    comes_of_abort,
)
from pytest_egress.routes.grpc.stream import (
    CLIENT_LEFT,
    CallEndedError,
    CallStream,
    UnreadableError,
)
from pytest_egress.traffic.grpc import (
    SHOWN_DETAILS,
    Code,
    GrpcCall,
    Metadata,
    StatusError,
    parse_timeout,
)
from pytest_egress.traffic.shown import cut

END: Final = object()  # of an iterator
CANCELLED: Final = "the servicer was cancelled"
DEADLINE_PASSED: Final = "the client's deadline has passed"


@dataclass(frozen=True)
class CallDetails(grpc.HandlerCallDetails):
    method: str
    invocation_metadata: Metadata


class ServicerCall:
    """One call of a servicer's method."""

    def __init__(
        self,
        handler: Any,  # the `grpc.RpcMethodHandler` of the method
        call: GrpcCall,
        duplex: Duplex,
        conversation: Conversation,
        loop: LoopThread,  # runs async servicers, and measures deadlines
    ) -> None:
        self._handler, self._call, self._loop = handler, call, loop
        self._duplex, self._conversation = duplex, conversation
        self._function = function_of(handler)
        self._stream = CallStream(call, duplex, conversation)
        self._variables = conversation.run(copy_context)
        self._running: Running[Any] | None = None
        self._context: Context

    def serve(self) -> None:
        """An exception of the servicer is raised here, after the client has its status."""
        request = self._conversation.exchange.request
        try:
            seconds = parse_timeout(request.headers.get("grpc-timeout"))
        except StatusError as error:
            self._stream.end(error.code, error.details)
            return
        context = self._context = self._new_context(seconds)
        call_off = None if seconds is None else self._loop.later(seconds, self._expire)
        self._duplex.on_disconnect(self._client_left)
        try:
            self._answer(context)
        finally:
            if call_off is not None:
                call_off()
            self._stream.lose()  # unless it has a status
            self._call_back()
            context.callbacks.join()  # those that another thread calls, since the client left or the deadline passed
        context.callbacks.check()
        if self._stream.lost:
            raise ClientLeftError(CLIENT_LEFT)

    def _new_context(self, seconds: float | None) -> SyncContext | AsyncContext:
        request = self._conversation.exchange.request
        ends = None if seconds is None else monotonic() + seconds
        if not is_async(self._function):
            return SyncContext(self._stream, request, ends)
        messages = AsyncMessages(self._messages())
        serialize = self._handler.response_serializer
        return AsyncContext(self._stream, request, ends, messages, serialize)

    # Other threads.

    def _expire(self) -> None:
        """A plain servicer that does not look runs on; what it sends is dropped."""
        if self._context.end(Code.DEADLINE_EXCEEDED, DEADLINE_PASSED):
            self._interrupt()

    def _is_late(self, context: Context) -> bool:
        """The call ends by the deadline even if the timer is late."""
        if context.ends is None or monotonic() < context.ends:
            return False
        self._expire()
        return True

    def _client_left(self) -> None:
        if not self._stream.ended:
            self._interrupt()

    def _interrupt(self) -> None:
        """The callbacks are called on a thread of their own."""
        if self._running is not None:
            self._running.interrupt()
        if self._context.callbacks:
            self._loop.submit(self._call_back)

    def _call_back(self) -> None:
        self._variables.copy().run(self._context.callbacks.call)

    # The servicer.

    def _answer(self, context: SyncContext | AsyncContext) -> None:
        try:
            self._call_servicer(context)
            if not self._is_late(context):
                context.end(context.status or Code.OK, context.text)
        except StatusError as error:
            context.end(error.code, error.details)
        except UnreadableError as error:
            self._conversation.exchange.note = str(error)
            context.end(Code.INTERNAL, cut(str(error), SHOWN_DETAILS))
        except CallEndedError:
            context.end(Code.CANCELLED, CANCELLED)  # unless it has a status
        except BaseException as error:
            if not (self._is_of_an_end(error, context) or self._is_status(error, context)):
                self._fail(error, context)
                raise

    def _is_of_an_end(self, error: BaseException, context: Context) -> bool:
        """Whether an exception of the servicer is that by which we have cancelled it, and not one of its own tasks."""
        if not isinstance(error, asyncio.CancelledError):
            return False
        if not (self._stream.over or self._loop.is_ending):
            return False
        context.end(Code.CANCELLED, CANCELLED)
        return True

    def _is_status(self, error: BaseException, context: Context) -> bool:
        """Whether an exception of the servicer is a status: it has aborted, or nobody wrote the method."""
        if context.aborted and comes_of_abort(error):
            context.end(context.status or Code.UNKNOWN, context.text)
            return True
        if isinstance(error, NotImplementedError) and context.status is Code.UNIMPLEMENTED:
            note = unwritten(self._call, self._function, self._handler.request_streaming)
            self._conversation.reject(note)
            context.end(Code.UNIMPLEMENTED, f"pytest-egress: {note}")
            return True
        return False

    def _fail(self, error: BaseException, context: Context) -> None:
        self._conversation.exchange.error = error
        text = f"pytest-egress: the servicer raised {type(error).__name__}: {error}"
        context.end(context.status or Code.UNKNOWN, cut(context.text or text, SHOWN_DETAILS))

    def _call_servicer(self, context: SyncContext | AsyncContext) -> None:
        handler, function = self._handler, self._function
        argument: Any = self._messages()
        if not handler.request_streaming:
            argument = self._only(argument)
        elif isinstance(context, AsyncContext):
            argument = context.messages
        if isinstance(context, AsyncContext):
            result = self._on_loop(lambda: self._finished(function(argument, context)))
        else:
            result = self._variables.run(function, argument, context)
            if inspect.isawaitable(result) or hasattr(result, "__aiter__"):  # of a decorator
                result = self._on_loop(lambda: self._finished(result))
        if handler.response_streaming:
            self._write_all(() if result is None else result)
        elif not self._is_late(context):
            self._stream.write(result, handler.response_serializer, is_last=True)

    def _messages(self) -> Iterator[Any]:
        return self._stream.read(self._handler.request_deserializer)

    def _only(self, messages: Iterator[Any]) -> Any:
        first, second = next(messages, END), next(messages, END)
        if first is END or second is not END:
            count = "none" if first is END else "several"
            text = f"{self._call.path} takes one message, and the client sent {count}"
            raise StatusError(Code.UNIMPLEMENTED, text)
        return first

    def _write_all(self, messages: Any) -> None:
        run, serialize = self._variables.run, self._handler.response_serializer
        iterator = run(iter, messages)
        try:
            while (message := run(next, iterator, END)) is not END:
                self._stream.write(message, serialize)
        finally:
            run(getattr(iterator, "close", lambda: None))

    # Async servicers.

    def _on_loop(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        running = self._running = self._loop.run(make, self._variables.copy())
        if self._stream.over:  # since before it could be interrupted
            running.interrupt()
        return running.result()

    async def _finished(self, result: Any) -> Any:
        """The messages that an async servicer yields are sent."""
        if not hasattr(result, "__aiter__"):
            return await result
        serialize = self._handler.response_serializer
        try:
            async for message in result:
                await in_thread(partial(self._stream.write, message, serialize))
        finally:
            if (close := getattr(result, "aclose", None)) is not None:
                await close()
        return None


def function_of(handler: Any) -> Callable[[Any, Any], Any]:
    ways = ("unary", "stream")
    name = f"{ways[bool(handler.request_streaming)]}_{ways[bool(handler.response_streaming)]}"
    function: Callable[[Any, Any], Any] = getattr(handler, name)
    return function


def is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def unwritten(call: GrpcCall, function: Any, streaming: bool) -> str:
    """The method is inherited from the generated class: nobody wrote it."""
    servicer = type(getattr(function, "__self__", None)).__name__
    who = servicer if hasattr(function, "__self__") else "the servicer"
    argument = "request_iterator" if streaming else "request"
    return (
        f"{who} does not define {call.method} of {call.service}. "
        f"To answer it: def {call.method}(self, {argument}, context)"
    )
