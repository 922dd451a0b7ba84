"""The interface of a route, as tests hold it: what an editor completes, a type checker sees and the reference lists.

What `Egress` gives is a subclass (`route.Route`) with more names, which are the gateway's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection

if TYPE_CHECKING:
    # Type checkers bring this module along; nobody has to install it.
    from typing_extensions import TypeVar as TypeVarWithDefault

    from pytest_egress.routes.answers import HttpAnswer, HttpHandler, RawAnswer, RawHandler
    from pytest_egress.traffic.dns_answers import NamesAnswer

    Call = TypeVarWithDefault("Call", bound=Entry, default=Exchange)
else:
    Call = TypeVar("Call", bound=Entry)
"""What a route's calls are: an `Exchange` (the default), a `TcpConnection` or a `DnsQuery`."""

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


class Route(Generic[Call]):
    """One declaration: an address, what a request must be like, and what answers it. Made by `Egress`.

    Use it as a decorator to give it its handler. Calls and counts are those of the running test; outside of tests,
    of the route's lifetime.

    Attributes:
        name: The name given, or None.
        times: How many calls it answers, or None for any number.
    """

    name: str | None
    times: int | None

    def __dir__(self) -> list[str]:
        return sorted({*dir(Route), *Route.__annotations__})

    @property
    def address(self) -> str:
        """As it was declared."""
        raise NotImplementedError

    @overload
    def __call__(self: Route[Exchange], handler: HttpHandler) -> Route[Exchange]: ...
    @overload
    def __call__(self: Route[TcpConnection], handler: RawHandler) -> Route[TcpConnection]: ...
    def __call__(self, handler: Any) -> Any:
        """Make this the route's handler: the decorator form."""
        raise NotImplementedError

    @overload
    def respond(self: Route[Exchange], handler: HttpAnswer) -> Route[Exchange]: ...
    @overload
    def respond(self: Route[TcpConnection], handler: RawAnswer) -> Route[TcpConnection]: ...
    @overload
    def respond(self: Route[DnsQuery], handler: NamesAnswer) -> Route[DnsQuery]: ...
    def respond(self, handler: Any) -> Any:
        """Change the answer in place; requests and connections that come from now on get it."""
        raise NotImplementedError

    def remove(self) -> None:
        """Stop matching; calls so far stay, what it let live is cut. A removed route is never required."""
        raise NotImplementedError

    @property
    def calls(self) -> list[Call]:
        """What it answered, in order: exchanges; connections of a raw route; queries of a DNS one.

        Raises:
            CallError: Its scope has ended and been reported, and nobody knows them any more.
        """
        raise NotImplementedError

    @property
    def call_count(self) -> int:
        """How many calls it answered; inside its handler, how many before this one."""
        raise NotImplementedError

    @property
    def called(self) -> bool:
        """Whether it answered a request."""
        raise NotImplementedError

    def wait_for_call(self, count: int = 1, timeout: float = 5) -> Call:
        """The count-th call, as soon as it has happened; nothing is consumed.

        Args:
            count: 1 for the first.
            timeout: Seconds.

        Raises:
            CallError: There were fewer calls in that time.
        """
        raise NotImplementedError

    def assert_called_once(self) -> Call:
        """The only call.

        Raises:
            CallError: There were none, or several.
        """
        raise NotImplementedError

    def assert_called_with(self, **match: Any) -> Call:
        """The first call that matches; takes `method`, `path`, `query`, `headers`, `json`, `content`, `match`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        raise NotImplementedError

    def assert_not_called(self) -> None:
        """Hold that it was not called; it is then not required to be.

        Raises:
            CallError: It was.
        """
        raise NotImplementedError
