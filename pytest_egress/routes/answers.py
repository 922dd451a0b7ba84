"""The answers of routes: handler functions, static answers, `forward` and `sequence`.

Answers are checked where they are declared. Values only: this module never touches a socket.
"""

from __future__ import annotations

import inspect
import os
from asyncio import BaseProtocol, StreamReader, StreamWriter
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer
from types import CodeType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    overload,
    runtime_checkable,
)
from urllib.parse import urlsplit

from pytest_egress.base.callers import ROOT
from pytest_egress.base.unset import UNSET
from pytest_egress.routes.cassette import NO_REQUESTS, NOT_IN_SEQUENCE, Cassette, cassette
from pytest_egress.routes.faults import ConnectFault, Fault, check_fault, is_maker, layers
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.address import MAX_PORT
from pytest_egress.traffic.dns.answers import NamesAnswer
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import NO_BODY, Response, check_bodiless, check_status
from pytest_egress.traffic.shown import SCHEME_PORTS, host_port, shown

if TYPE_CHECKING:
    from pytest_egress.traffic.entries import Datagram, Entry
    from pytest_egress.traffic.kafka.records import ProducedRecord
    from pytest_egress.traffic.smtp import Envelope

    Delivery = Envelope | ProducedRecord
    """What a service takes: a mail, or a record of Kafka."""

Handler = Callable[[Any], Any]  # of a Request, or of a socket

# Types for type checkers. A static answer may be sent many times, so it contains no iterator.
StaticBody = dict[Any, Any] | list[Any] | bytes | bytearray | None
ResultBody = StaticBody | str | Iterator[bytes | str] | AsyncIterator[bytes | str]
HandlerResult = Response | ResultBody | int | tuple[int, ResultBody] | Fault
"""The values that a handler of requests may return."""
HttpHandler = Callable[[Request], HandlerResult | Awaitable[HandlerResult]]
RawHandler = Callable[[Any], int | Awaitable[int | None] | None]
"""A function of the connected socket, an `ssl.SSLSocket` within TLS; returning int lets a lambda call `send`."""
StreamsFunction = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]
"""A function of a reader and a writer, as `asyncio.start_server` takes one."""
ProtocolFactory = Callable[[], BaseProtocol]
"""A factory as `loop.create_server` takes one: a class of protocols, or a `functools.partial` of one."""

HEAD_SECONDS: Final = 0.2  # for the first piece of a body to follow its head, which then goes alone


class ResponseHead(Protocol):
    """The head of a response whose first piece is being made."""

    @property
    def has_gone(self) -> bool: ...

    def check(self) -> None:
        """Raise what has gone wrong when the head was sent; called after the `with` block."""


Begin = Callable[[Response], AbstractContextManager[ResponseHead]]
"""Has the head of a response sent where the `with` block, which makes the first piece of its body, takes long."""


class Held:
    """A head that is not sent alone: there is nobody to send it to, or a fault says when that is."""

    has_gone: Final = False

    def check(self) -> None: ...


def held(response: Response) -> AbstractContextManager[ResponseHead]:
    """The `Begin` where no head is sent alone."""
    return nullcontext(Held())


class AnsweredError(Exception):
    """An application has raised `error` after a complete `response`: the client gets it, and the test fails."""

    def __init__(self, response: Response, error: BaseException) -> None:
        super().__init__(response, error)
        self.response, self.error = response, error


class Application:
    """A handler that holds something open while routes use it, such as the event loop of an ASGI application.

    Attributes:
        within: The answer that it is around; UNSET where there is none.
    """

    within: Any = UNSET

    def around(self, answer: Any) -> Application:
        """Itself around another answer, where it is around one."""
        raise NotImplementedError

    def acquire(self) -> None: ...

    def release(self) -> None:
        """After the last release, everything that was open is closed."""

    def __call__(self, request: Request) -> Response:
        """Any thread may call an application."""
        try:
            return self.answer(request, held)
        except AnsweredError as answered:
            error = answered.error
        raise error

    def answer(self, request: Request, begin: Begin) -> Response:
        """Raises `AnsweredError` where the application has raised after it had answered."""
        raise NotImplementedError


def innermost(answer: Any) -> Any:
    """The answer within faults, and within an application that is around one."""
    answer = layers(answer)[1]
    within = answer.within if isinstance(answer, Application) else UNSET
    return answer if within is UNSET else innermost(within)


Receipt = Literal["taken", "elsewhere", "used up", "no room"]
"""What becomes of a delivery: a mail, or a record of Kafka.

It is a call; its route has another answer for the next turn; its route has no turn left; or too much is kept already.
"""


class Desk(Protocol):
    """Where a service hands over what came on one connection."""

    def take(self, delivery: Delivery) -> Receipt:
        """Make a delivery a call of the route, which takes one of its turns."""

    def has_room(self, size: int) -> bool:
        """Whether there is room for so many bytes of a delivery that has not come whole; 0 gives the room back."""

    def refuse(self, delivery: Delivery, why: str) -> None:
        """Record a refused delivery, which fails the test; `why` is a sentence without its full stop."""

    def fail(self, error: Exception) -> None:
        """Fail the test by what cannot be answered, as by an error of a handler; the connection goes on."""

    def keep(self, data: bytes) -> None:
        """Keep bytes of the client that are in no delivery, in the entry of the connection, as far as there is room."""

    def note(self, text: str, unread: str = "") -> None:
        """Add a sentence to the entry of the connection; `unread` says what of its bytes no delivery has."""


Delivered = TypeVar("Delivered", bound="Entry")
"""The type of a service's calls, which are those of its route: `Mail` of `smtp()`."""


class Service(Generic[Delivered]):
    """An answer that serves a connection by itself, and has calls of its own, such as the mails of `smtp()`.

    Its connections are no calls of the route and take none of its turns; its calls do, as it delivers them.

    Attributes:
        deliveries: The kind of its calls, for a report: "mails".
        none_came: The note of a connection that was no port probe and brought no call.
    """

    deliveries: str
    none_came: str

    def serve(self, sock: Any, name: str, port: int, desk: Desk) -> None:
        """`name` and `port` are those that the client dialled."""
        raise NotImplementedError


@runtime_checkable
class Connectable(Protocol):
    """An object with ports that `forward` can connect to: a `Container`."""

    @property
    def name(self) -> str:
        """The name that the ledger uses."""

    def connect(self, port: int, timeout: float = ...) -> Any:
        """The result is the connected socket."""


@runtime_checkable
class DatagramConnectable(Connectable, Protocol):
    """One to whose ports `forward` can send datagrams too."""

    def connect_datagrams(self, port: int) -> Any:
        """A connected socket that exchanges datagrams with the port alone, as `Link.connect_datagrams` gives it."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """An answer by another server; `forward` makes it."""

    scheme: str | None = (
        None  # "http", "https", "tcp" or "udp"; None for the scheme that the target used
    )
    host: str | None = None  # None for the host that the target dialled
    port: int | None = None  # None for the port that the target dialled
    path: str = ""  # the path that is put before that of each request
    container: Connectable | None = None  # the container that the port is of, or None

    def __str__(self) -> str:
        if self.container is not None:
            return f"forward({self.container.name}, {self.port})"
        if self.host is None:
            return "forward()"
        return f'forward("{self.scheme}://{host_port(self.host, self.port)}{self.path}")'


def forward(to: str | Connectable | None = None, port: int | None = None) -> Forward:
    """Have another server answer; its answers are recorded in the ledger.

    Requests are forwarded as they are, `Host` and trailers included, without the fields that belong to a single
    connection (RFC 9110 section 7.6.1). One that came by HTTP/2 goes on by HTTP/2 where the server agrees to that by
    ALPN; to a server without TLS it does where the target had no TLS either, or calls gRPC. Certificates are verified
    with this machine's roots.

    Args:
        to: None for the real upstream, the server that the target dialled; `"http://127.0.0.1:8000"` or an https URL,
            whose path is put before that of each request; `"tcp://127.0.0.1:5432"` for a raw route;
            `"udp://127.0.0.1:514"` for one of datagrams; or a container.
        port: The port, where `to` is a container.

    Raises:
        TypeError, ValueError: The arguments name no server; the text quotes them and lists what is accepted.
    """
    if to is None and port is None:
        return Forward()
    if isinstance(to, str) and port is None:
        return forward_to_url(to)
    if isinstance(to, Connectable):
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= MAX_PORT:
            raise ValueError(
                f"forward({to.name}, {port!r}): the port is a number from 1 to {MAX_PORT}, "
                "as in forward(container, 5432)"
            )
        return Forward(port=port, container=to)
    given = repr(to) if port is None else f"{to!r}, {port!r}"
    raise TypeError(f"forward({given}): {FORWARDS}")


FORWARDS: Final = (
    'it takes nothing (the real upstream), a URL ("http://127.0.0.1:8000", "tcp://127.0.0.1:5432", '
    '"udp://127.0.0.1:514"), or a container and its port'
)


BARE: Final = ("tcp", "udp")
"""The schemes of URLs that are a host and a port alone."""


def forward_to_url(url: str) -> Forward:
    """A URL that names no server that can be forwarded to raises ValueError."""
    try:
        parts = urlsplit(url)
        port = parts.port or SCHEME_PORTS.get(parts.scheme)
    except ValueError as error:  # of the port, or of brackets
        raise ValueError(f"forward({url!r}): {error}; {FORWARDS}") from None
    surplus = parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in ("http", "https", *BARE) or not parts.hostname or surplus:
        raise ValueError(f"forward({url!r}): {FORWARDS}")
    if port is None:
        raise ValueError(f"forward({url!r}): a {parts.scheme} URL needs a port")
    path = parts.path.rstrip("/")
    if parts.scheme in BARE and path:
        raise ValueError(f"forward({url!r}): a {parts.scheme} URL has no path")
    return Forward(scheme=parts.scheme, host=parts.hostname, port=port, path=path)


StaticAnswer = (
    Response
    | StaticBody
    | int
    | tuple[int, StaticBody | str]
    | Forward
    | Cassette
    | AnswerSequence
    | Fault
)
HttpAnswer = HttpHandler | StaticAnswer
LibraryServer = StreamsFunction | BaseServer | ProtocolFactory
RawAnswer = RawHandler | LibraryServer | bytes | Forward | AnswerSequence | Fault | None
DnsAnswer = NamesAnswer | AnswerSequence | Fault
DatagramsResult = bytes | Sequence[bytes | Fault] | Fault | Forward | None
DatagramsHandler = Callable[["Datagram"], DatagramsResult | Awaitable[DatagramsResult]]
DatagramsAnswer = DatagramsHandler | DatagramsResult | AnswerSequence


@overload
def sequence(*answers: RawAnswer | Service[Any]) -> AnswerSequence: ...
@overload
def sequence(*answers: HttpAnswer) -> AnswerSequence: ...
@overload
def sequence(*answers: NamesAnswer | Fault) -> AnswerSequence: ...
@overload
def sequence(*answers: DatagramsHandler | DatagramsResult) -> AnswerSequence: ...
def sequence(*answers: Any) -> AnswerSequence:
    """Answer with each of these once, in order; then the route stops matching. Implies `times`.

    Args:
        answers: Answers as a route takes them: functions, static answers, `forward()`.

    Raises:
        TypeError: There are no answers, or they are in a list.
    """
    if not answers:
        raise TypeError("sequence() takes the answers in order: sequence(503, {'id': 1})")
    if len(answers) == 1 and isinstance(answers[0], list):
        raise TypeError(
            "sequence() takes each answer as an argument, and no list of them: sequence(503, {'id': 1}); "
            "a list that is one answer, as JSON, is Response(json=[...])"
        )
    return AnswerSequence(answers)


HTTP_HINTS: Final = {
    2: "; a WSGI application goes into wsgi(...)",
    3: "; an ASGI one goes into asgi(...)",
}
RAW_HINTS: Final = {
    0: "; a factory of asyncio.Protocol is its class, or functools.partial(its class, ...)",
}
"""What a function is that cannot be called as a handler, by how many arguments it takes."""


def check_answer(answer: object, *, raw: bool) -> object:
    """Check an answer: a function, a static answer, `forward()`, `sequence()` or an application; convert static ones.

    Args:
        raw: Whether the route is raw: its handler gets a socket, and no requests.

    Raises:
        TypeError, ValueError: The route cannot answer with it; the text lists what it takes.
    """
    check = partial(check_answer, raw=raw)
    if isinstance(answer, AnswerSequence):
        if any(isinstance(innermost(each), Cassette) for each in answer.answers):
            raise TypeError(NOT_IN_SEQUENCE)
        return answer.checked(check)
    if isinstance(answer, Fault):
        return check_fault(answer, check=check)
    if isinstance(answer, Cassette):
        if raw:
            raise TypeError(NO_REQUESTS.format(answer))
        return answer
    if is_maker(answer) or answer is cassette:
        raise TypeError(not_made(answer))
    if isinstance(answer, Forward):
        return check_forward(answer, raw=raw)
    if raw and isinstance(answer, Application):
        raise TypeError(
            f"{answer!r} answers requests, and a raw route has none: use intercept_https"
        )
    if callable(answer) and (isinstance(answer, type) or not takes(answer, 1)):
        argument = "a connected socket" if raw else "the Request"
        hints = RAW_HINTS if raw else HTTP_HINTS
        is_function = not isinstance(answer, type)
        hint = next((hints[n] for n in hints if is_function and takes(answer, n)), "")
        raise TypeError(
            f"the handler {answer!r} cannot be called with one argument, {argument}{hint}"
        )
    if callable(answer):
        return answer
    if isinstance(answer, Service) and not raw:
        raise TypeError(
            f"{answer!r} answers connections, and this route requests: use intercept_tcp or intercept_tls"
        )
    return check_raw(answer) if raw else check_static(answer)


def check_forward(answer: Forward, *, raw: bool) -> Forward:
    schemes = (None, "tcp") if raw else (None, "http", "https")
    if answer.scheme not in schemes:
        wanted = '"tcp://host:port"' if raw else '"http://host:port" or an https URL'
        raise ValueError(f"{answer}: this route takes {wanted}")
    return answer


def check_raw(answer: object) -> bytes | Service[Any] | None:
    """A raw route's answer that is no function: bytes that are sent at once, a service, or None."""
    if answer is None or isinstance(answer, (bytes, Service)):
        return answer
    raise TypeError(
        f"{answer!r} is no answer of a raw route: it takes a function of the connected socket, or of a reader and a "
        "writer, a socketserver, an asyncio.Protocol's class, bytes that are sent at once, smtp(), kafka(), "
        "forward(...), "
        "sequence(...), or None"
    )


def check_static(answer: object) -> Response:
    response = response_from(answer, of_function=False)
    if isinstance(response.stream, (Iterator, AsyncIterable)):
        raise TypeError(
            "a static answer is sent many times, its iterator is read once; return it from a function"
        )
    return response


def answered_by(handler: object, result: object) -> Response | Fault:
    """Convert a handler's result to a `Response` or a fault; TypeError or ValueError says where the handler is."""
    try:
        return returned(result)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError  # no UnicodeError
        raise kind(f"{place_of(handler)} returned {error}") from None


def returned(result: object) -> Response | Fault:
    """A result as a `Response` or a fault, within which there may be one. Any other raises TypeError or ValueError."""
    if isinstance(result, (dict, Response)):  # the usual ones
        return response_from(result, of_function=True)
    if is_maker(result):
        raise TypeError(not_made(result))
    if not isinstance(result, Fault):
        return response_from(result, of_function=True)
    if isinstance(result, ConnectFault):
        raise TypeError(RETURNED_TOO_LATE.format(result))
    return check_fault(result, check=returned)


def not_made(maker: object) -> str:
    name = name_of(maker)
    given = inspect.signature(maker).parameters.values()  # type: ignore[arg-type]  # it is a function
    needed = ", ".join(each.name for each in given if each.default is each.empty)
    return f"{name} without parentheses is no answer: write {name}({needed})"


RETURNED_TOO_LATE: Final = (
    "{0}, a fault of connecting, and its connection is made: reset() or disconnect() ends that, and "
    "intercept_tcp(address, {0}) lets none be made"
)

LIBRARY: Final = os.path.dirname(os.__file__)


def place_of(handler: object) -> str:
    """A text such as `charges, at test_shop.py:12,`."""
    name, code = name_of(handler), getattr(unwrapped(handler), "__code__", None)
    if code is None or code.co_filename.startswith((LIBRARY, ROOT)):  # a Mock's, a WebSocket's
        return name
    return f"{name}, at {line_of(code, code.co_firstlineno)},"


def name_of(handler: object) -> str:
    return str(getattr(handler, "__name__", None) or repr(handler))


def line_of(code: CodeType, line: int) -> str:
    """A text such as `test_shop.py:12`."""
    return f"{os.path.basename(code.co_filename)}:{line}"


def unwrapped(handler: Any) -> Any:
    """The user's function inside a handler that is a partial, a callable object or a decorated function."""
    while isinstance(handler, partial):
        handler = handler.func
    if not inspect.isroutine(handler):
        handler = getattr(type(handler), "__call__", handler)  # noqa: B004 - not whether, but which
    return getattr(inspect.unwrap(handler), "__func__", inspect.unwrap(handler))


def takes(handler: Callable[..., Any], count: int) -> bool:
    """Whether a callable takes so many positional arguments; True where its signature is unknown."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # such as those of functions written in C
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def response_from(result: object, *, of_function: bool) -> Response:
    """A value that is none of the accepted results raises TypeError; the text lists them."""
    if isinstance(result, Response):
        return result
    if result is None:
        return Response()
    if isinstance(result, list) and any(isinstance(each, (Fault, Response)) for each in result):
        raise TypeError(
            f"{shown(result)}: a list is sent as JSON; answers one after the other are sequence(...)"
        )
    if isinstance(result, (dict, list)):
        return Response(json=result)
    if isinstance(result, (bytes, bytearray)):
        return Response(content=bytes(result))
    if isinstance(result, int) and not isinstance(result, bool):
        return Response(result)
    if isinstance(result, tuple) and len(result) == 2:
        return with_status(result)
    if isinstance(result, str) and of_function:
        return Response(text=result)
    if isinstance(result, (Iterator, AsyncIterator)) and of_function:
        return Response(stream=result)
    raise TypeError(not_an_answer(result, of_function))


def with_status(result: tuple[Any, Any]) -> Response:
    """The `Response` of a `(status, body)` pair. With a status, the body may also be a str."""
    status, body = result
    if isinstance(body, Fault):
        within = layers(body)[1]
        pair = f", around the pair: ({shown(status)}, {shown(within)}) in place of its answer"
        end = "" if within is UNSET else pair
        raise TypeError(f"({shown(status)}, {body}): a fault stands alone{end}")
    if isinstance(body, (Response, tuple)) or (
        isinstance(body, int) and not isinstance(body, bool)
    ):
        raise TypeError(not_an_answer(result, of_function=True))
    response = response_from(body, of_function=True)
    response.status_code = check_status(status)
    if status in NO_BODY:
        check_bodiless(status, response.content or response.stream)
    return response


def not_an_answer(result: object, of_function: bool) -> str:
    if isinstance(result, str):
        return f"{result!r}: a text as static answer is ambiguous; write Response(text={result!r})"
    text = (
        f"{result!r} is no answer: it takes a Response, dict or list (sent as JSON), bytes, "
        "a status (int), (status, body), None"
    )
    return text + (
        ", str, an iterator of bytes or str, async or not, or a fault such as reset()"
        if of_function
        else ", or a fault such as reset(); or a function of the request"
    )
