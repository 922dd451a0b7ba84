"""WSGI and ASGI applications as handlers of a route.

A WSGI application runs in the thread that asks. An ASGI application runs on one event loop in a thread of its own, from
the first request until no route uses it any more; then nothing of it is left. No framework is known here: PEP 3333
and the ASGI specification (3.0) are all that this module relies on.

Threads: any thread asks, acquires and releases; `LoopThread` is the loop's, and what it shares with those that ask are
queues. The lock of an ASGI application guards its users and its loop; the application never runs while it is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from pytest_egress.answers import Application, takes
from pytest_egress.clock import run_by_real_clock
from pytest_egress.fields import end_to_end, raw_value
from pytest_egress.messages import Headers, Request, Response

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

HEAD_SECONDS: Final = 0.2  # for a body to follow its head; then the head is sent alone
RAISE_SECONDS: Final = 0.05  # for an application to raise after its last message, as Starlette does
LEAVE_SECONDS: Final = 1.0  # between http.disconnect and the cancellation
END_SECONDS: Final = 10.0  # for everything to end; then the error says what has not

App = Callable[..., Any]
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType]
Message = dict[str, Any]


def wsgi(app: App) -> WsgiApplication:
    """Make a handler of a WSGI application (PEP 3333), such as those of Flask, Django and moto.

    Raises:
        TypeError: It is none; the text says what is taken.
    """
    wanted = "wsgi() takes a WSGI application, a callable of (environ, start_response)"
    if not callable(app):
        raise TypeError(f"{wanted}, not {app!r}")
    if is_async(app) or takes(app, 3) > takes(app, 2):
        raise TypeError(f"{wanted}; {app!r} looks like an ASGI application: use asgi(...)")
    if not takes(app, 2):
        raise TypeError(f"{wanted}; {app!r} does not take two arguments")
    return WsgiApplication(app)


def asgi(app: App) -> AsgiApplication:
    """Make a handler of an ASGI 3 application, such as those of FastAPI, Starlette and Django.

    Its lifespan begins with the first request, and ends when no route uses it any more.

    Raises:
        TypeError: It is none; the text says what is taken.
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


def is_async(app: App) -> bool:
    """Whether calling it gives a coroutine, as far as can be told; a class gives an instance."""
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - not whether it is there, but what it is
    )


def name_of(app: App) -> str:
    """What to call it in an error."""
    name = getattr(app, "__qualname__", None)
    return f"{app.__module__}.{name}" if name else repr(app)


def declared_length(headers: Headers) -> int | None:
    """Content-Length, or None where there is none that counts."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


# WSGI.


class WsgiApplication(Application):
    """A WSGI application as a handler. It keeps nothing open, and is called by many threads at once."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, request: Request) -> Response:
        """Answer a request; what the application raises comes through."""
        return WsgiCall(self.app).respond(request)

    def __repr__(self) -> str:
        return f"wsgi({self.app!r})"


def environ_of(request: Request) -> dict[str, Any]:
    """The environment of a request (PEP 3333, RFC 3875 section 4.1); its text is latin-1 of the bytes."""
    query_string = native(request.query_string)
    target = native(request.path) + (f"?{query_string}" if query_string else "")
    return {
        **field_variables(request),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw_value(request.path)).decode("latin-1"),
        "QUERY_STRING": query_string,
        "REQUEST_URI": target,
        "RAW_URI": target,
        "SERVER_NAME": f"[{request.host}]" if ":" in request.host else native(request.host),
        "SERVER_PORT": str(request.port),
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "SERVER_SOFTWARE": "pytest-egress",
        "REMOTE_ADDR": request.client[0],
        "REMOTE_PORT": str(request.client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": BytesIO(request.content),
        "wsgi.input_terminated": True,  # reading ends where the body does, chunked or not
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def field_variables(request: Request) -> dict[str, str]:
    """HTTP_* for each field, CONTENT_TYPE, and CONTENT_LENGTH as the body is (RFC 3875 section 4.1.18)."""
    variables: dict[str, str] = {}
    for name, value in request.headers.raw:
        key, text = f"HTTP_{name.upper().replace('-', '_')}", native(value)
        if key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
            continue
        if key in variables:
            text = f"{variables[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        variables[key] = text
    if "content-type" in request.headers:
        variables["CONTENT_TYPE"] = native(request.headers["content-type"])
    if request.content or {"content-length", "transfer-encoding"} & set(request.headers):
        variables["CONTENT_LENGTH"] = str(len(request.content))
    return variables


def native(text: str) -> str:
    """The text of PEP 3333: each character is a byte."""
    return raw_value(text).decode("latin-1")


class WsgiCall:
    """One call of a WSGI application: its `start_response`, its `write`, and what it returns."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._head: Response | None = None
        self._head_is_final = False
        self._written: list[bytes] = []

    def respond(self, request: Request) -> Response:
        """The response; unless it is streamed, what the application returned is closed."""
        iterable, streamed = self._app(environ_of(request), self.start_response), False
        try:
            response = self._answer(iterable)
            streamed = response.stream is not None
        finally:
            if not streamed:
                close(iterable)
        return response

    def start_response(
        self,
        status: Any,
        headers: Iterable[tuple[str, str]],
        exc_info: ExceptionInfo | None = None,
        /,
    ) -> Callable[[bytes], None]:
        """Take status and header fields; a second time only with the error that replaces them."""
        if exc_info is not None and self._head_is_final:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise RuntimeError(
                f"{name_of(self._app)} called start_response a second time, without exc_info"
            )
        if not isinstance(status, str) or not re.fullmatch(r"[0-9]{3}(?: .*)?", status):
            raise ValueError(f"{status!r} is no status; start_response takes text such as '200 OK'")
        self._head = Response(int(status[:3]), headers=headers, reason=status[4:] or None)
        self._head.headers = end_to_end(self._head.headers)
        return self.write

    def write(self, data: bytes) -> None:
        """Send a piece, by the older way; it goes out before what is iterated over next."""
        if data:
            self._written.append(self._checked(data))
            self._head_is_final = True

    def _answer(self, iterable: Any) -> Response:
        if isinstance(iterable, (str, bytes)) or not isinstance(iterable, Iterable):
            raise TypeError(
                f"{name_of(self._app)} returned {iterable!r}, which is no iterable of bytes"
            )
        pieces = self._pieces(iterable)
        if isinstance(iterable, (list, tuple)):
            content = b"".join(pieces)
            return self._whole(content)
        first = next(pieces, b"")
        head = self._started()
        if not first or len(first) == declared_length(head.headers):
            self._refuse_more(pieces)
            return self._whole(first)
        body = WsgiBody(chain([first], pieces), iterable)
        return Response(head.status_code, headers=head.headers.raw, stream=body, reason=head.reason)

    def _pieces(self, iterable: Iterable[bytes]) -> Iterator[bytes]:
        """What goes out, without the empty pieces that only keep the server going."""
        yield from self._take_written()
        for piece in iterable:
            yield from self._take_written()
            if self._checked(piece):
                yield piece
        yield from self._take_written()

    def _take_written(self) -> list[bytes]:
        written, self._written = self._written, []
        return written

    def _checked(self, piece: Any) -> bytes:
        if not isinstance(piece, bytes):
            raise TypeError(
                f"{name_of(self._app)} sent {piece!r}, {type(piece).__name__} and not bytes"
            )
        return piece

    def _started(self) -> Response:
        if self._head is None:
            raise RuntimeError(f"{name_of(self._app)} answered without calling start_response")
        self._head_is_final = True
        return self._head

    def _whole(self, content: bytes) -> Response:
        head = self._started()
        return Response(
            head.status_code, headers=head.headers.raw, content=content, reason=head.reason
        )

    def _refuse_more(self, pieces: Iterator[bytes]) -> None:
        """Let it run to its end, which runs what stands behind its last `yield`."""
        for piece in pieces:
            raise RuntimeError(
                f"{name_of(self._app)} sent {piece!r} after the end by its Content-Length"
            )


class WsgiBody(Iterator[bytes]):
    """A body in the pieces that a WSGI application yields. `close` also counts before the first is taken."""

    def __init__(self, pieces: Iterator[bytes], iterable: object) -> None:
        self._pieces, self._iterable = pieces, iterable

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Tell the application that this is the end."""
        iterable, self._iterable = self._iterable, None
        close(iterable)


def close(iterable: object) -> None:
    """Close what has something to close."""
    getattr(iterable, "close", lambda: None)()


# ASGI.


class AsgiApplication(Application):
    """An ASGI application as a handler, on one event loop for as long as routes use it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._lock = threading.Lock()
        self._users = 0
        self._thread: LoopThread | None = None

    def acquire(self) -> None:
        """A route begins to use it; the event loop starts with the first request."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """A route has ended. After the last one the application is shut down, and nothing of it is left.

        Raises:
            BaseException: What the application raised after a response, or at its shutdown.
        """
        with self._lock:
            if not self._users:
                raise RuntimeError(f"{self!r} is released more often than acquired")
            self._users -= 1
            thread = None
            if not self._users:
                thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __call__(self, request: Request) -> Response:
        """Answer a request; what the application raises comes through. Without a route it has a loop of its own."""
        with self._lock:  # or the loop could be stopped before it knows of the request
            alone = not self._users
            if alone:
                thread = LoopThread(self.app)
            else:
                thread = self._thread = self._thread or LoopThread(self.app)
            conversation = thread.begin(request)
        return AsgiBody(conversation, thread.stop if alone else lambda: None).respond()

    def __repr__(self) -> str:
        return f"asgi({self.app!r})"


# By 2.3, and no more by 2.4, frameworks end a stream at http.disconnect, and not with the next piece.
ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


def scope_of(request: Request, state: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection scope of a request."""
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
class Begin:
    """The application's response; without content a streamed body follows."""

    head: Response
    content: bytes | None


@dataclass(frozen=True)
class End:
    """Nothing more comes from the application, which has raised this."""

    error: BaseException | None = None


class LoopThread:
    """The thread of one ASGI application: its event loop, its lifespan, and the requests that it answers."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()
        run_by_real_clock(self.loop)
        self.lifespan = Lifespan(app)
        self.open: set[Conversation] = set()
        self.errors: list[BaseException] = []
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"asgi({name_of(app)})", daemon=True)
        self._thread.start()

    def begin(self, request: Request) -> Conversation:
        """Let the application answer a request; its task sees the context of this thread."""
        conversation = Conversation(self, request)
        self.open.add(conversation)
        self.loop.call_soon_threadsafe(conversation.start, context=copy_context())
        return conversation

    def call(self, callback: Callable[[], object]) -> None:
        """Have the loop call this, unless it has ended."""
        with contextlib.suppress(RuntimeError):  # closed
            self.loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """End everything, and raise the first error that nobody has seen."""
        self.call(self._stopping.set)
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(
                f"{name_of(self.app)} has not ended {END_SECONDS:g} seconds after it was told to"
            )
        if self.errors:
            raise self.errors[0]
        if self.lifespan.error is not None:
            raise self.lifespan.error

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self._main())
        except BaseException as error:  # SystemExit of a task of the application's own
            self.errors.append(error)
            for conversation in list(self.open):
                conversation.cut(error)
        finally:
            self._wind_up()

    async def _main(self) -> None:
        lifespan = asyncio.create_task(self.lifespan.run())
        await self._stopping.wait()
        await self._end_conversations()
        await self.lifespan.shutdown(lifespan)

    async def _end_conversations(self) -> None:
        error = RuntimeError(
            f"{name_of(self.app)} was ended while it answered: no route uses it any more"
        )
        if tasks := [conversation.leave(error) for conversation in self.open]:
            await asyncio.wait(tasks)

    def _wind_up(self) -> None:
        try:
            self.loop.run_until_complete(end_everything())
        finally:
            self.loop.close()  # from here on `begin` raises
            for conversation in list(self.open):
                conversation.items.put(End(RuntimeError(f"{name_of(self.app)} ended its loop")))


async def end_everything() -> None:
    """What `asyncio.run` does at its end, and the generators that are dropped while it does."""
    loop = asyncio.get_running_loop()
    await cancel_others()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
    await cancel_others()


async def cancel_others() -> None:
    """Cancel every task but this one, and wait until they have ended."""
    while others := await other_tasks():
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def other_tasks() -> set[asyncio.Task[Any]]:
    """Every task but this one. A generator that was dropped is closed by a task, which has begun by then."""
    for _ in range(2):  # one turn to make that task, one for it to begin
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


class Lifespan:
    """The lifespan of an ASGI application. One that raises at its start is taken to know nothing of lifespans.

    Attributes:
        state: What startup leaves for the requests.
        started: Set when requests may come, or startup has failed.
        error: Of its shutdown.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.state: dict[str, Any] = {}
        self.started = asyncio.Event()
        self.error: BaseException | None = None
        self._failure = ""
        self._asked = self._told = False
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Run the application on the lifespan scope."""
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
            await asyncio.get_running_loop().create_future()  # nothing follows: it is cancelled
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
        """Wait until requests may come.

        Raises:
            RuntimeError: The application says that it cannot start.
        """
        await self.started.wait()
        if self._failure:
            raise RuntimeError(self._failure)

    async def shutdown(self, task: asyncio.Task[None]) -> None:
        """Wait until the application says that it has shut down; one that never started is cancelled."""
        if self.started.is_set() and not self._failure and not task.done():
            self._stopping.set()
            await self._stopped.wait()


class Conversation:
    """One request of an ASGI application: all but `items` belongs to the event loop.

    Attributes:
        items: For the thread that asks: the response, pieces of a streamed body, the end.
    """

    def __init__(self, thread: LoopThread, request: Request) -> None:
        self.thread = thread
        self.items: SimpleQueue[Begin | bytes | End] = SimpleQueue()
        self._request = request
        self._received = False
        self._over = asyncio.Event()  # the body is complete, or the client is gone
        self._taken = asyncio.Event()
        self._head: Response | None = None
        self._content: bytes | None = None
        self._streamed = self._complete = self._finished = False
        self._gone = self._leaving = False
        self._cut: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, in the context that the task is to see."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._done)

    def piece_taken(self) -> None:
        """The thread has taken a piece: the application may send the next."""
        self._taken.set()

    def cut(self, error: BaseException | None) -> None:
        """It is over: by this error, or because the client has gone."""
        self._gone, self._cut = True, self._cut or error

    def leave(self, cut: BaseException | None = None) -> asyncio.Task[Any]:
        """The client has gone, or this error ends it: disconnect, and cancel what does not end by itself."""
        self.cut(cut)
        self._over.set()
        self._taken.set()
        if not self._leaving and (cut is not None or not self._complete):
            self._leaving = True  # once: a second cancellation would break into its clean-up
            self.thread.loop.call_later(LEAVE_SECONDS, self._task.cancel)
        return self._task

    async def _run(self) -> BaseException | None:
        """What the application raises is returned: SystemExit would end the loop."""
        try:
            await self.thread.lifespan.ready()
            scope = scope_of(self._request, self.thread.lifespan.state.copy())
            await self.thread.app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return error
        return None

    async def _receive(self) -> Message:
        if not self._received:
            self._received = True
            return {"type": "http.request", "body": self._request.content, "more_body": False}
        await self._over.wait()
        await asyncio.sleep(0)  # or one that asks for ever would keep the loop from cancelling it
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._gone and kind.startswith("http.response."):
            await asyncio.sleep(0)  # likewise for one that sends for ever
        elif kind == "http.response.start" and self._head is None:
            self._head = head_of(message)
            self._later(HEAD_SECONDS, self._give_stream)
        elif kind == "http.response.body" and self._head is not None:
            await self._body(bytes(message.get("body", b"")), message.get("more_body", False))
        else:
            raise RuntimeError(f"{self._name} sent {kind!r} out of turn")

    async def _body(self, piece: bytes, more: bool) -> None:
        if self._complete:
            if piece:
                raise RuntimeError(f"{self._name} sent {piece!r} after the end of its body")
        elif not self._streamed and (not more or len(piece) == self._declared):
            self._content = piece
            self._end_of_body(self._give_content)
        else:
            self._give_stream()
            await self._piece(piece, more)

    async def _piece(self, piece: bytes, more: bool) -> None:
        self._taken.clear()
        if piece:
            self.items.put(piece)
        if not more:
            self._end_of_body(self._give_end)
        elif piece:
            await self._taken.wait()
        else:
            await asyncio.sleep(0)

    @property
    def _name(self) -> str:
        return name_of(self.thread.app)

    @property
    def _declared(self) -> int | None:
        return declared_length(self._head.headers) if self._head is not None else None

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self.thread.loop.call_later(seconds, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_of_body(self, give: Callable[[], None]) -> None:
        self._complete = True
        self._over.set()
        self._later(RAISE_SECONDS, give)

    def _give_stream(self) -> None:
        """Give a response whose body follows."""
        if not self._streamed:
            self._cancel_timer()
            self._streamed = True
            self._give_head()

    def _give_content(self) -> None:
        self._finished = True
        self._give_head()

    def _give_head(self) -> None:
        if self._head is not None:
            self.items.put(Begin(self._head, self._content))

    def _give_end(self, error: BaseException | None = None) -> None:
        self._finished = True
        self.items.put(End(error))

    def _done(self, task: asyncio.Task[BaseException | None]) -> None:
        """The application has ended: with what it raised, or what it left out."""
        self._cancel_timer()
        self.thread.open.discard(self)
        error = self._error(task)
        if self._finished:
            if error is not None:  # nobody waits for it any more
                self.thread.errors.append(error)
        elif error is None and self._content is not None:
            self._give_content()
        else:
            self._give_end(error)

    def _error(self, task: asyncio.Task[BaseException | None]) -> BaseException | None:
        error = None if task.cancelled() else task.result()
        if error is not None or self._complete:
            return error
        if self._gone:
            return self._cut
        if task.cancelled():
            return RuntimeError(f"{self._name} cancelled itself")
        missing = "http.response.start" if self._head is None else "the end of its body"
        return RuntimeError(f"{self._name} ended without sending {missing}")


def head_of(message: Message) -> Response:
    """The head of a response, from `http.response.start`."""
    fields = list(message.get("headers", ()))
    for name, value in fields:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(f"header fields of ASGI are bytes, not {name!r}: {value!r}")
    text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
    head = Response(message["status"], headers=text)
    head.headers = end_to_end(head.headers)
    return head


class AsgiBody(Iterator[bytes]):
    """The side of a conversation that the asking thread holds: its response, and the pieces of a streamed body."""

    def __init__(self, conversation: Conversation, let_go: Callable[[], None]) -> None:
        self._conversation, self._let_go = conversation, let_go
        self._ended = self._closed = False

    def respond(self) -> Response:
        """The response. Unless it is streamed, the loop is let go."""
        try:
            begin = self._conversation.items.get()
            if isinstance(begin, End) and begin.error is not None:
                raise begin.error
            assert isinstance(begin, Begin)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error counts
                self._let_go()
            raise
        head = begin.head
        if begin.content is None:
            return Response(head.status_code, headers=head.headers.raw, stream=self)
        self._let_go()
        return Response(head.status_code, headers=head.headers.raw, content=begin.content)

    def __next__(self) -> bytes:
        piece = None if self._ended else self._take()
        if piece is None:
            raise StopIteration
        return piece

    def _take(self, timeout: float | None = None) -> bytes | None:
        """The next piece, or None at the end."""
        item = self._conversation.items.get(timeout=timeout)
        if isinstance(item, bytes):
            self._conversation.thread.call(self._conversation.piece_taken)
            return item
        self._ended = True
        if isinstance(item, End) and item.error is not None:
            raise item.error
        return None

    def close(self) -> None:
        """The client has it all, or is gone: then the application is told, and has a moment to end.

        Raises:
            BaseException: What it raises meanwhile.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._leave()
        finally:
            self._let_go()

    def _leave(self) -> None:
        self._conversation.thread.call(self._conversation.leave)
        try:
            while not self._ended:
                self._take(LEAVE_SECONDS + END_SECONDS)
        except Empty:
            name = name_of(self._conversation.thread.app)
            raise RuntimeError(
                f"{name} has not ended {END_SECONDS:g} seconds after http.disconnect"
            ) from None
