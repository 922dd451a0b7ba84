"""WSGI applications as handlers of a route, by PEP 3333, without any framework.

An application runs in the thread of the connection that sent the request.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BufferedReader, BytesIO, RawIOBase
from itertools import chain
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from pytest_egress.base.sockets import READ_BYTES
from pytest_egress.routes.answers import (
    AnsweredError,
    Application,
    Begin,
    Held,
    ResponseHead,
    takes,
)
from pytest_egress.routes.applications.shared import (
    App,
    answer_of,
    declared_length,
    is_async,
    name_of,
)
from pytest_egress.traffic.http.headers import end_to_end, raw_value
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType]


def wsgi(app: App) -> WsgiApplication:
    """Make a handler of a WSGI application (PEP 3333), such as those of Flask, Django and moto.

    Raises:
        TypeError: It is no WSGI application; the text says what is accepted.
    """
    wanted = "wsgi() takes a WSGI application, a callable of (environ, start_response)"
    if not callable(app):
        raise TypeError(f"{wanted}, not {app!r}")
    if is_async(app) or takes(app, 3) > takes(app, 2):
        raise TypeError(f"{wanted}; {app!r} looks like an ASGI application: use asgi(...)")
    if not takes(app, 2):
        raise TypeError(f"{wanted}; {app!r} does not take two arguments")
    return WsgiApplication(app)


class WsgiApplication(Application):
    """A WSGI application as a handler. Many threads may call it at once; it holds nothing open between calls."""

    def __init__(self, app: App) -> None:
        self.app = app

    def answer(self, request: Request, begin: Begin) -> Response:
        """An exception of the application is not caught."""
        return WsgiCall(self.app, begin).respond(request)

    def __repr__(self) -> str:
        return f"wsgi({self.app!r})"


def environ_of(request: Request) -> dict[str, Any]:
    """The environ of a request (PEP 3333, RFC 3875 section 4.1). Its strings are the bytes decoded as latin-1."""
    query_string = native(request.query_string)
    target = native(request.request_target)
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
        "wsgi.input": input_of(request),
        "wsgi.input_terminated": True,  # reading ends where the body does, chunked or not
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def field_variables(request: Request) -> dict[str, str]:
    """The variables are HTTP_*, CONTENT_TYPE and CONTENT_LENGTH (RFC 3875 section 4.1.18)."""
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
    if (length := content_length(request)) is not None:
        variables["CONTENT_LENGTH"] = length
    return variables


def content_length(request: Request) -> str | None:
    """None where there is no body, or where its length is not known before it has come."""
    if not request.is_whole:
        framed = "transfer-encoding" not in request.headers
        return request.headers.get("content-length") if framed else None
    framed = bool({"content-length", "transfer-encoding"} & set(request.headers))
    return str(len(request.raw_content)) if framed or request.raw_content else None


def input_of(request: Request) -> BinaryIO:
    """A body that is still to come is read as it comes."""
    if request.is_whole:
        return BytesIO(request.raw_content)
    return BufferedReader(Piecewise(request.raw_stream()), READ_BYTES)


class Piecewise(RawIOBase):
    """A body that is still to come, as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._rest or next(self._pieces, b"")
        size = min(len(piece), len(buffer))
        buffer[:size], self._rest = piece[:size], piece[size:]
        return size


def native(text: str) -> str:
    """Each character of a native string of PEP 3333 stands for a byte."""
    return raw_value(text).decode("latin-1")


class WsgiCall:
    """One call of a WSGI application: its `start_response`, its `write`, and what it returns.

    Once it has returned, its head is sent alone where the first piece takes long. From then on it is final.
    """

    def __init__(self, app: App, begin: Begin) -> None:
        self._app, self._begin = app, begin
        self._head: Response | None = None
        self._head_is_final = False
        self._written: list[bytes] = []
        self._body: WsgiBody | None = None  # once it has returned an iterable
        self._sent: ResponseHead = Held()
        self._waiting = ExitStack()
        self._streaming: Response | None = None
        self._raised: BaseException | None = None  # after the whole body

    def respond(self, request: Request) -> Response:
        """The returned iterable is closed, unless it streams. AnsweredError: the application raised after its body."""
        iterable, response = self._app(environ_of(request), self.start_response), None
        try:
            response = self._answer(iterable)
        finally:
            self._waiting.close()
            if response is None:
                close(iterable)
        if response.stream is None:
            self._afterwards(partial(close, iterable))
            if self._raised is not None:
                raise AnsweredError(response, self._raised)
        return response

    def _afterwards(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            self._raised = self._raised or error

    def start_response(
        self,
        status: Any,
        headers: Iterable[tuple[str, str]],
        exc_info: ExceptionInfo | None = None,
        /,
    ) -> Callable[[bytes], None]:
        """A second call has to pass the `exc_info` of an error."""
        self._waiting.close()
        if exc_info is not None and (self._head_is_final or self._sent.has_gone):
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise RuntimeError(
                f"{name_of(self._app)} called start_response a second time, without exc_info"
            )
        if not isinstance(status, str) or not re.fullmatch(r"[0-9]{3}(?: .*)?", status):
            raise ValueError(f"{status!r} is no status; start_response takes text such as '200 OK'")
        self._head = Response(int(status[:3]), headers=headers, reason=status[4:] or None)
        self._head.headers = end_to_end(self._head.headers)
        self._await_piece()
        return self.write

    def _await_piece(self) -> None:
        """The head is sent where the first piece takes long from now on."""
        if self._head is not None and self._body is not None and not self._head_is_final:
            self._streaming = answer_of(self._head, stream=self._body)
            self._sent = self._waiting.enter_context(self._begin(self._streaming))

    def write(self, data: bytes) -> None:
        """PEP 3333's older interface; the piece goes out before the next piece of the iterable."""
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
        body = self._body = WsgiBody(pieces, iterable)
        self._await_piece()
        first = next(pieces, b"")
        self._waiting.close()
        self._sent.check()
        body.put_back(first)
        if self._sent.has_gone and self._streaming is not None:
            return self._streaming
        head = self._started()
        if not first or len(first) == declared_length(head.headers):
            self._afterwards(partial(self._refuse_more, pieces))
            return self._whole(first)
        return answer_of(head, stream=body)

    def _pieces(self, iterable: Iterable[bytes]) -> Iterator[bytes]:
        """Empty pieces are left out."""
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
        return answer_of(self._started(), content=content)

    def _refuse_more(self, pieces: Iterator[bytes]) -> None:
        """Code after the last `yield` of the iterable runs; a further piece is an error."""
        for piece in pieces:
            raise RuntimeError(
                f"{name_of(self._app)} sent {piece!r} after the end by its Content-Length"
            )


class WsgiBody(Iterator[bytes]):
    """A streamed body: the pieces that a WSGI application yields. `close` works before the first is taken, too."""

    def __init__(self, pieces: Iterator[bytes], iterable: object) -> None:
        self._pieces, self._iterable = pieces, iterable

    def put_back(self, piece: bytes) -> None:
        if piece:
            self._pieces = chain([piece], self._pieces)

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Closing again does nothing."""
        iterable, self._iterable = self._iterable, None
        close(iterable)


def close(iterable: object) -> None:
    getattr(iterable, "close", lambda: None)()
