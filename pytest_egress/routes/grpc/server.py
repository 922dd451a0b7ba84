"""`grpc_server`: gRPC servicers as the answer of a route.

The code that `protoc` generates registers servicers with a `grpc.Server`. A `GrpcServer` stands for one: it has no
port, and answers the calls of the routes that it is given to. grpcio is imported when the first one is made.

Calls are served by hand. grpcio's own server, which got a connection's decrypted bytes over a unix socket and recorded
calls by an interceptor, took 0.6 of the CPU of a call here, and some 300 lines would go. But the calls of a connection
have routes, faults and turns each; it answers what it refuses (a GET) before Python sees it, so that no entry is made;
it tells servicers neither the client's address nor of TLS; a SystemExit leaves the client without a status; async
servicers need another server; and each fork of the test's process logs a line.

Threads: the test's thread registers servicers; calls run on the gateway's threads. What is registered is replaced,
never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pytest_egress.base.loops import LoopThread, SharedLoop
from pytest_egress.routes.duplex import Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.grpc.turns import OverError
from pytest_egress.traffic.grpc import Code, GrpcCall, is_grpc, registering, status_head
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.shown import shown

if TYPE_CHECKING:
    from threading import Event

    import grpc

    Server = grpc.Server  # so that type checkers take a GrpcServer where generated code wants one
else:
    Server = object

Registration = tuple[Callable[[Any, Any], object], object]
"""A generated function, such as `add_PaymentsServicer_to_server`, and the servicer that it registers."""

WANTED: Final = (
    "a pair of a generated function and a servicer: (add_PaymentsServicer_to_server, Payments())"
)
NO_PORT: Final = (
    "a grpc_server() has no port and is not started: it answers the calls of a route. Give it to one: "
    'egress.intercept_https("payments.test:50051", server)'
)


def grpc_server(*registrations: Registration) -> GrpcServer:
    """Make an answer of gRPC servicers, which stands where generated code wants a `grpc.Server`.

    The servicers are those of grpcio's servers: plain functions or async ones, with a context. A call of a method that
    no servicer defines is unrouted. It needs grpcio, which generated code imports too.

    Args:
        registrations: Pairs of a generated function and a servicer, to register at once.

    Raises:
        TypeError: A registration is none; the text says what is accepted.
        ImportError: grpcio is not installed.
    """
    import_grpc()
    server = GrpcServer()
    for registration in registrations:
        register, servicer = checked_registration(registration)
        register(servicer, server)
    return server


def import_grpc() -> None:
    try:
        import grpc  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ImportError(
            f"grpc_server() needs grpcio, and it cannot be imported: {error}. To install it: pip install grpcio"
        ) from error


def checked_registration(registration: object) -> Registration:
    if (
        not isinstance(registration, tuple)
        or len(registration) != 2
        or not callable(registration[0])
    ):
        hint = ""
        if callable(registration) or hasattr(registration, "__dict__"):
            hint = "; one that is registered later needs none: add_PaymentsServicer_to_server(Payments(), server)"
        raise TypeError(f"grpc_server() takes {WANTED}, not {registration!r}{hint}")
    register, servicer = registration
    if isinstance(servicer, type):
        raise TypeError(
            f"grpc_server() takes a servicer, and {servicer.__name__} is the class of one: write {servicer.__name__}()"
        )
    return register, servicer


class GrpcServer(DuplexAnswer, Server):
    """The answer that `grpc_server` makes: the servicers of a `grpc.Server`, without its port."""

    def __init__(self) -> None:
        self._methods: dict[str, Any] = {}
        self._generic: tuple[Any, ...] = ()
        name = "grpc_server"
        self._loop = SharedLoop(name, lambda: LoopThread(name, OverError))

    # grpc.Server.

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """Generated code calls this since grpcio 1.63."""
        added = {f"/{service_name}/{name}": method for name, method in method_handlers.items()}
        self._methods = {**self._methods, **added}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """The handlers are asked whether they have a method; generated code calls this."""
        self._generic = (*self._generic, *generic_rpc_handlers)

    def add_insecure_port(self, address: str) -> NoReturn:
        raise TypeError(f"add_insecure_port({address!r}): {NO_PORT}")

    def add_secure_port(self, address: str, server_credentials: object = None) -> NoReturn:
        raise TypeError(f"add_secure_port({address!r}): {NO_PORT}")

    def start(self) -> None:
        raise TypeError(f"start(): {NO_PORT}")

    def stop(self, grace: float | None) -> Event:
        raise TypeError(f"stop({grace!r}): {NO_PORT}")

    def wait_for_termination(self, timeout: float | None = None) -> NoReturn:
        raise TypeError(f"wait_for_termination({timeout!r}): {NO_PORT}")

    # DuplexAnswer.

    def acquire(self) -> None:
        self._loop.acquire()

    def release(self) -> None:
        """After the last release, async servicers that still run are cancelled, and the loop ends."""
        self._loop.release()

    def __call__(self, request: Request) -> NoReturn:
        raise TypeError(f"{self!r} answers as a route's answer, and not when it is called")

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        """A request that is no call of gRPC gets a 415."""
        if is_grpc(request) and request.method == "POST" and request.http_version == "2":
            return None
        note = not_a_call(request)
        return Response(415, text=f"pytest-egress: {note}\n"), note

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        """An exception of the servicer is raised here."""
        from pytest_egress.routes.grpc.call import CallDetails, ServicerCall

        call = conversation.exchange.grpc
        assert call is not None  # `refusal` has seen to it
        handler = self._methods.get(request.path)
        if handler is None:
            details = CallDetails(request.path, call.metadata)
            found = (conversation.run(generic.service, details) for generic in self._generic)
            handler = next((handler for handler in found if handler is not None), None)
        if handler is None:
            self._refuse(call, duplex, conversation)
            return
        loop, let_go = self._loop.borrow()
        try:
            ServicerCall(handler, call, duplex, conversation, loop).serve()
        finally:
            let_go()

    def _refuse(self, call: GrpcCall, duplex: Duplex, conversation: Conversation) -> None:
        note = self._unknown(call)
        conversation.reject(note)
        call.code, call.details = Code.UNIMPLEMENTED, f"pytest-egress: {note}"
        conversation.count()
        duplex.start(200, status_head(call.code, call.details), ends=True)

    def _unknown(self, call: GrpcCall) -> str:
        if not call.service:
            return f"the path {shown(call.path)} names no method: calls of gRPC are for '/package.Service/Method'"
        methods = sorted(
            path.rpartition("/")[2]
            for path in self._methods
            if path.startswith(f"/{call.service}/")
        )
        if methods:
            return f"{call.service} has no method {shown(call.method)}. It has {', '.join(methods)}"
        has = f"It has {', '.join(self.services)}" if self.services else "It has none"
        return (
            f"the grpc_server() has no servicer of {call.service}, which the call is for. {has}. "
            f"To add one: {registering(call.service)}(..., server)"
        )

    @property
    def services(self) -> list[str]:
        """A generic handler need not tell its services."""
        registered = {path.rpartition("/")[0].removeprefix("/") for path in self._methods}
        named = {each.service_name() for each in self._generic if hasattr(each, "service_name")}
        return sorted(registered | named)

    def __repr__(self) -> str:
        return f"grpc_server({', '.join(self.services)})"


def not_a_call(request: Request) -> str:
    kind = request.headers.get("content-type")
    said = f"Content-Type {shown(kind)}" if kind is not None else "no Content-Type"
    return (
        f"a grpc_server() answers calls of gRPC, which are a POST of application/grpc over HTTP/2, and this is "
        f"{request.method} over HTTP/{request.http_version} with {said}. To answer it, declare a route with path= "
        "after that of the grpc_server()"
    )
