"""ASGI applications as handlers of a route, by the ASGI specification (3.0), without any framework.

An application runs on one event loop in a thread of its own, from the first request until no route uses it any more.
Then its thread, its loop and its tasks are ended.

Threads: any thread sends requests, acquires and releases. An `AppThread` runs the loop; it gives responses to the
requesting threads through queues.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

from pytest_egress.base.clock import LOOK_SECONDS
from pytest_egress.base.loops import END_SECONDS, LoopThread, Reads, Running, SharedLoop
from pytest_egress.routes.answers import HEAD_SECONDS, AnsweredError, Application, Begin, takes
from pytest_egress.routes.applications.shared import (
    App,
    answer_of,
    declared_length,
    is_async,
    name_of,
)
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.http.headers import end_to_end, raw_value
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response

RAISE_SECONDS: Final = 0.05  # for an application to raise after its last message, as Starlette's do
LEAVE_SECONDS: Final = 1.0  # between http.disconnect and the cancellation
Message = dict[str, Any]


def asgi(app: App) -> AsgiApplication:
    """Make a handler of an ASGI 3 application, such as those of FastAPI, Starlette and Django.

    Its lifespan begins with the first request, and ends when no route uses it any more.

    Raises:
        TypeError: It is no ASGI 3 application; the text says what is accepted.
    """
    wanted = "asgi() takes an ASGI 3 application, an async callable of (scope, receive, send)"
    if not callable(app):
        raise TypeError(f"{wanted}, not {app!r}")
    if not is_async(app) and takes(app, 2) > takes(app, 3):
        raise TypeError(f"{wanted}; {app!r} looks like a WSGI application: use wsgi(...)")
    if takes(app, 1) > takes(app, 3):
        raise TypeError(
            f"{wanted}; {app!r} takes one argument, as those of ASGI 2 do. "
            "A function of the request is given to the route as it is"
        )
    if not takes(app, 3):
        raise TypeError(f"{wanted}; {app!r} does not take three arguments")
    return AsgiApplication(app)


class AsgiApplication(Application):
    """An ASGI application as a handler, on one event loop for as long as routes use it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._loop = SharedLoop(repr(self), partial(AppThread, app))

    def acquire(self) -> None:
        """The event loop starts with the first request."""
        self._loop.acquire()

    def release(self) -> None:
        """After the last release the application is shut down; what it raised then, or after a response, is raised."""
        self._loop.release()

    def answer(self, request: Request, begin: Begin) -> Response:
        """Exceptions are not caught. An application sends its head when it likes: nothing has to be begun for it."""
        conversation, let_go = self.begin(partial(AsgiExchange, request))
        return AsgiBody(conversation, let_go).respond()

    def begin(self, make: Callable[[AppThread], CallT]) -> tuple[CallT, Callable[[], None]]:
        """Give the application something to answer, in a copy of the calling thread's context.

        Returns:
            The result of `make`, and a function to call when the loop is no longer needed for it: without a route, the
            application answers on a loop of its own.
        """
        thread, let_go = self._loop.borrow()
        return thread.begin(make(thread), copy_context()), let_go

    def __repr__(self) -> str:
        return f"asgi({self.app!r})"


# With 2.3 frameworks end a stream at http.disconnect; with 2.4 only when the next piece is sent.
ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


def scope_of(request: Request, state: dict[str, Any]) -> dict[str, Any]:
    raw_path = raw_value(request.path)
    return {
        "type": "http",
        "asgi": dict(ASGI),
        "http_version": request.http_version,
        "method": request.method.upper(),
        "scheme": request.scheme,
        "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": raw_path,
        "query_string": raw_value(request.query_string),
        "root_path": "",
        "headers": [
            (raw_value(name.lower()), raw_value(value)) for name, value in request.headers.raw
        ],
        "client": request.client,
        "server": (request.host, request.port),
        "state": state,
    }


@dataclass(frozen=True)
class Beginning:
    """The response begins; with `content` None, its pieces follow. An `error` came after a complete response."""

    head: Response
    content: bytes | None
    error: BaseException | None = None


@dataclass(frozen=True)
class AppEnded:
    """The application sends nothing more; `is_whole` says that it raised `error` after a complete response."""

    error: BaseException | None = None
    is_whole: bool = False


class AppThread(LoopThread):
    """The thread of one ASGI application: its event loop, its lifespan, and the calls that it answers."""

    def __init__(self, app: App) -> None:
        super().__init__(name_of(app))
        self.app = app
        self.lifespan = Lifespan(app)

    def stop(self) -> None:
        """End the application and its thread, and raise the first error that no request has got."""
        super().stop()
        if self.lifespan.error is not None:
            raise self.lifespan.error

    def raised(self, error: BaseException) -> None:
        """An exception of a task of the application, such as SystemExit, ends everything."""
        super().raised(error)
        for call in self.calls:
            call.lose(error)
        self.stopping.set()

    async def main(self) -> None:
        """At the end of the lifespan disconnect every call, and wait until they have ended."""
        lifespan = asyncio.create_task(self.lifespan.run())
        await super().main()
        error = RuntimeError(f"{self.name} was ended while it answered: no route uses it any more")
        for call in self.calls:
            call.leave(error)
        if tasks := [call.task for call in self.calls if call.task is not None]:
            await asyncio.wait(tasks)
        await self.lifespan.shutdown(lifespan)

    @property
    def calls(self) -> list[AppCall]:
        return [call for call in list(self.open) if isinstance(call, AppCall)]


class AppCall(Running[None]):
    """A call that an application answers: a request, or a WebSocket.

    Only the loop's thread touches it, except for `items`.

    Args:
        events: Events that the application may wait for; they are set when the client leaves.

    Attributes:
        items: The queue for the thread that waits for the answer; an `AppEnded` is its last item.
        is_complete: Whether the application has sent all that there is to send.
    """

    def __init__(self, request: Request, thread: AppThread, *events: asyncio.Event) -> None:
        super().__init__(thread, self._call)
        self.request, self.thread = request, thread
        self.items: SimpleQueue[Any] = SimpleQueue()
        self.is_complete = self.is_gone = self._is_leaving = False
        self._events = events
        self._cut: BaseException | None = None
        self.add_done_callback(methodcaller("ended"))  # a bound method would keep it alive

    async def _call(self) -> None:
        lifespan = self.thread.lifespan
        await lifespan.ready()
        await self.thread.app(self._scope(lifespan.state.copy()), self._receive, self._send)

    def _scope(self, state: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def _receive(self) -> Message:
        raise NotImplementedError

    async def _send(self, message: Message) -> None:
        raise NotImplementedError

    def lose(self, error: BaseException | None) -> None:
        """Nobody waits for the answer any more: by this error, or because the client has disconnected."""
        self.is_gone, self._cut = True, self._cut or error

    def leave(self, error: BaseException | None = None) -> None:
        """Disconnect the application, and cancel its task later if that has not ended."""
        self.lose(error)
        for event in self._events:
            event.set()
        if not self._is_leaving and (error is not None or not self.is_complete):
            self._is_leaving = True  # only once: a second cancellation would interrupt its clean-up
            asyncio.get_running_loop().call_later(LEAVE_SECONDS, self.cancel_task)

    def next_item(self, has_left: Callable[[], bool]) -> Any:
        """The next item for the calling thread. A client that has left meanwhile raises ClientLeftError."""
        while True:
            with contextlib.suppress(Empty):
                return self.items.get(timeout=LOOK_SECONDS)
            if has_left():
                raise ClientLeftError("the client has closed the connection")

    def ended(self) -> None:
        self.items.put(AppEnded(self.failure()))

    def failure(self) -> BaseException | None:
        """The exception of the application, or an error for how it has ended, or None."""
        error = self.exception()
        if error is not None and not isinstance(error, asyncio.CancelledError):
            return error
        if self.is_complete:
            return None
        if self.is_gone:
            return self._cut
        return None if error is None else RuntimeError(f"{self.thread.name} cancelled itself")


class Lifespan:
    """The lifespan of an ASGI application. One that raises at startup is taken not to support lifespans."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.state: dict[str, Any] = {}  # the values that startup stored for the requests
        self.started = asyncio.Event()  # set when requests may be sent, or startup has failed
        self.error: BaseException | None = None  # the error of its shutdown, or None
        self._failure = ""
        self._asked = self._told = False
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        try:
            await self._app(
                {"type": "lifespan", "asgi": dict(ASGI), "state": self.state},
                self._receive,
                self._send,
            )
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if self._stopping.is_set():
                self.error = self.error or error
        finally:
            self.started.set()
            self._stopped.set()

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._told:
            await asyncio.get_running_loop().create_future()  # nothing follows: cancelled
        self._told = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind, text = message["type"], message.get("message") or "it does not say why"
        if kind == "lifespan.startup.failed":
            self._failure = f"{name_of(self._app)} failed to start: {text}"
        elif kind == "lifespan.shutdown.failed":
            self.error = RuntimeError(f"{name_of(self._app)} failed to shut down: {text}")
        elif kind not in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            raise RuntimeError(f"{name_of(self._app)} sent {kind!r} to its lifespan")
        (self.started if "startup" in kind else self._stopped).set()

    async def ready(self) -> None:
        """Raise RuntimeError where the application reported that it failed to start."""
        await self.started.wait()
        if self._failure:
            raise RuntimeError(self._failure)

    async def shutdown(self, task: asyncio.Task[None]) -> None:
        """An application that never started is cancelled later."""
        if self.started.is_set() and not self._failure and not task.done():
            self._stopping.set()
            await self._stopped.wait()


CallT = TypeVar("CallT", bound=AppCall)


class AsgiExchange(AppCall):
    """One request to an ASGI application. Its `items` are a `Beginning`, pieces of a streamed body, and the end."""

    def __init__(self, request: Request, thread: AppThread) -> None:
        self._over = asyncio.Event()  # the body is complete, or the client is gone
        self.taken = asyncio.Event()  # the last piece: the application may send the next
        super().__init__(request, thread, self._over, self.taken)
        self._received = False
        self._next_piece = Reads(partial(next, request.raw_stream(), b""))
        self._head: Response | None = None
        self._content: bytes | None = None
        self._streamed = self._finished = False
        self._timer: asyncio.TimerHandle | None = None

    def _scope(self, state: dict[str, Any]) -> dict[str, Any]:
        return scope_of(self.request, state)

    async def _receive(self) -> Message:
        if not self._received and self.request.is_whole:
            self._received = True
            return {"type": "http.request", "body": self.request.raw_content, "more_body": False}
        if not self._received and not self.is_gone:
            try:
                piece = await self._next_piece()
            except ConnectionError as error:  # the client has left within its body
                self.lose(error)
                return {"type": "http.disconnect"}
            self._received = not piece
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}
        await self._over.wait()
        await asyncio.sleep(0)  # lets the loop cancel an application that calls this endlessly
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self.is_gone and kind.startswith("http.response."):
            await asyncio.sleep(0)  # lets the loop cancel an application that sends endlessly
        elif kind == "http.response.start" and self._head is None:
            self._head = response_of(message)
            self._later(HEAD_SECONDS, self._give_stream)
        elif kind == "http.response.body" and self._head is not None:
            body, more = bytes(message.get("body", b"")), message.get("more_body", False)
            await self._body(self._head, body, more)
        else:
            raise RuntimeError(f"{self.thread.name} sent {kind!r} out of turn")

    async def _body(self, head: Response, piece: bytes, more: bool) -> None:
        if self.is_complete:
            if piece:
                raise RuntimeError(f"{self.thread.name} sent {piece!r} after the end of its body")
        elif not self._streamed and (not more or len(piece) == declared_length(head.headers)):
            self._content = piece
            self._end_of_body()
        else:
            self._give_stream()
            await self._piece(piece, more)

    async def _piece(self, piece: bytes, more: bool) -> None:
        self.taken.clear()
        if piece:
            self.items.put(piece)
        if not more:
            self._end_of_body()
        elif piece:
            await self.taken.wait()
        else:
            await asyncio.sleep(0)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_of_body(self) -> None:
        self.is_complete = True
        self._over.set()
        self._later(RAISE_SECONDS, self._finish)

    def _give_stream(self) -> None:
        if not self._streamed and self._head is not None:
            self._cancel_timer()
            self._streamed = True
            self.items.put(Beginning(self._head, None))

    def _finish(self, error: BaseException | None = None) -> None:
        self._finished = True
        if self._head is None or self._content is None:
            self.items.put(AppEnded(error, self.is_complete))
        else:
            self.items.put(Beginning(self._head, self._content, error))

    def ended(self) -> None:
        self._cancel_timer()
        error = self.failure()
        if not self._finished:
            self._finish(error)
        elif error is not None:  # no thread reads `items` any more
            self.thread.errors.append(error)

    def failure(self) -> BaseException | None:
        """An application that did not send all has an error too."""
        error = super().failure()
        if error is not None or self.is_complete or self.is_gone:
            return error
        missing = "http.response.start" if self._head is None else "the end of its body"
        return RuntimeError(f"{self.thread.name} ended without sending {missing}")


def response_of(message: Message) -> Response:
    fields = list(message.get("headers", ()))
    for name, value in fields:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"header fields of ASGI are bytes, not {name!r}: {value!r}")
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
    head = Response(message["status"], headers=text)
    head.headers = end_to_end(head.headers)
    return head


class AsgiBody(Iterator[bytes]):
    """The requesting thread's side of a conversation: the response, and the pieces of a streamed body.

    An exception of the application after the last piece comes out of `close`: the body is whole without it.

    Attributes:
        has_begun: Whether the application has sent the head, which is then to be sent even without a piece.
    """

    has_begun: Final = True

    def __init__(self, conversation: AsgiExchange, let_go: Callable[[], None]) -> None:
        self._conversation, self._let_go = conversation, let_go
        self._ended = self._closed = False
        self._raised: BaseException | None = None

    def respond(self) -> Response:
        """Unless the body of the response is streamed, the loop is no longer used afterwards.

        Raises:
            AnsweredError: The application has raised after it had sent the whole response.
        """
        try:
            begin = self._next_item()
            if isinstance(begin, AppEnded) and begin.error is not None:
                self._ended = True
                raise begin.error
            assert isinstance(begin, Beginning)
        except ClientLeftError:
            self.close()
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # the first error counts
                self._let_go()
            raise
        head = begin.head
        if begin.content is None:
            return answer_of(head, stream=self)
        self._let_go()
        response = answer_of(head, content=begin.content)
        if begin.error is not None:
            raise AnsweredError(response, begin.error)
        return response

    def __next__(self) -> bytes:
        piece = None if self._ended else self._take(self._next_item())
        if piece is None:
            raise StopIteration
        return piece

    def _next_item(self) -> Beginning | bytes | AppEnded:
        request = self._conversation.request
        item: Beginning | bytes | AppEnded = self._conversation.next_item(
            lambda: request.disconnected
        )
        return item

    def _take(self, item: Beginning | bytes | AppEnded) -> bytes | None:
        """The piece that has been sent; None at the end."""
        if isinstance(item, bytes):
            self._conversation.thread.call(self._conversation.taken.set)
            return item
        self._ended = True
        if isinstance(item, AppEnded) and item.error is not None:
            if not item.is_whole:
                raise item.error
            self._raised = item.error
        return None

    def close(self) -> None:
        """Disconnect the application, when the client has the whole body or is gone, and wait until it has ended.

        Raises:
            BaseException: The application raised it meanwhile.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._leave()
        finally:
            self._let_go()
        if self._raised is not None:
            raise self._raised

    def _leave(self) -> None:
        self._conversation.thread.call(self._conversation.leave)
        try:
            while not self._ended:
                self._take(self._conversation.items.get(timeout=LEAVE_SECONDS + END_SECONDS))
        except Empty:
            raise RuntimeError(
                f"{self._conversation.thread.name} has not ended {END_SECONDS:g} seconds after http.disconnect"
            ) from None
