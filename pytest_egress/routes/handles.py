"""The interface of a route for tests: the names that editors complete, type checkers see and the reference lists.

The methods of `Egress` return a subclass, `route.Route`, whose further names are for the gateway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, Mail, TcpConnection, TlsFailure

if TYPE_CHECKING:
    # Type checkers bring `typing_extensions` with them; users need not install it.
    from typing_extensions import TypeVar as TypeVarWithDefault

    from pytest_egress.routes.answers import (
        DnsAnswer,
        HttpAnswer,
        HttpHandler,
        RawAnswer,
        RawHandler,
        Service,
        StreamsFunction,
    )

    Call = TypeVarWithDefault("Call", bound=Entry, default=Exchange)
else:
    Call = TypeVar("Call", bound=Entry)
"""The type of a route's calls: `Exchange` (the default), `TcpConnection`, `Mail` or `DnsQuery`."""


class Route(Generic[Call]):
    """A declared route: an address, the conditions for a request, and an answer. The methods of `Egress` make it.

    Use it as a decorator to give it its handler. Calls and counts are those of the running test; outside of tests,
    those of the route's lifetime.

    Attributes:
        name: The name that it was declared with, or None.
        times: How many calls it answers, or None for any number.
    """

    name: str | None
    times: int | None

    def __dir__(self) -> list[str]:
        return sorted({*dir(Route), *Route.__annotations__})

    @property
    def address(self) -> str:
        """The address as it was declared."""
        raise NotImplementedError

    @overload
    def __call__(self: Route[Exchange], handler: HttpHandler) -> Route[Exchange]: ...
    @overload
    def __call__(
        self: Route[TcpConnection], handler: RawHandler | StreamsFunction
    ) -> Route[TcpConnection]: ...
    def __call__(self, handler: Any) -> Any:
        """Make a function the route's handler: the decorator form."""
        raise NotImplementedError

    @overload
    def respond(self: Route[Exchange], handler: HttpAnswer) -> Route[Exchange]: ...
    @overload
    def respond(
        self: Route[TcpConnection], handler: RawAnswer | Service
    ) -> Route[TcpConnection]: ...
    @overload
    def respond(self: Route[Mail], handler: RawAnswer | Service) -> Route[Mail]: ...
    @overload
    def respond(self: Route[DnsQuery], handler: DnsAnswer) -> Route[DnsQuery]: ...
    def respond(self, handler: Any) -> Any:
        """Replace the answer; requests and connections that begin from now on get the new one."""
        raise NotImplementedError

    def remove(self) -> None:
        """Stop matching. Its calls stay; raw connections that it allowed are cut. A removed route is not required."""
        raise NotImplementedError

    @property
    def calls(self) -> list[Call]:
        """The calls that the route answered, in order: exchanges, raw connections, mails, or DNS queries.

        Raises:
            CallError: The route's scope has ended, and its calls are no longer kept.
        """
        raise NotImplementedError

    @property
    def call_count(self) -> int:
        """How many calls the route answered; inside its handler, how many before this one."""
        raise NotImplementedError

    @property
    def intervals(self) -> list[float]:
        """Seconds from the start of each call to that of the next, in order of the starts: one less than calls.

        Of a client that backs off: `assert route.intervals == [approx(1, abs=0.3), approx(2, abs=0.3)]`.

        Raises:
            CallError: The route's scope has ended, and its calls are no longer kept.
        """
        raise NotImplementedError

    @property
    def called(self) -> bool:
        """Whether the route answered any call."""
        raise NotImplementedError

    def wait_for_call(self, count: int = 1, timeout: float = 5) -> Call:
        """Wait until the route has answered `count` calls, and return the last of these; no call is consumed.

        Args:
            count: The number of the call, 1 for the first.
            timeout: Seconds to wait.

        Raises:
            CallError: There were fewer calls in that time.
        """
        raise NotImplementedError

    def assert_called_once(self) -> Call:
        """Return the only call.

        Raises:
            CallError: There were none, or several.
        """
        raise NotImplementedError

    def assert_called_with(self, **match: Any) -> Call:
        """Return the first call that matches `method`, `path`, `query`, `headers`, `json`, `content` and `match`.

        Raises:
            CallError: No call matches; the text says in which fields each differs.
        """
        raise NotImplementedError

    def assert_not_called(self) -> None:
        """Assert that the route was not called; from then on the test does not require it to be.

        Raises:
            CallError: It was called; the text lists the calls.
        """
        raise NotImplementedError

    @property
    def rejections(self) -> list[TlsFailure]:
        """The connections whose client has rejected what the route presents, in order.

        Only a route with `certificate=`, or with `tls_version=` "TLSv1" or "TLSv1.1", has any.

        Raises:
            CallError: The route's scope has ended, and its rejections are no longer kept.
        """
        raise NotImplementedError

    def assert_rejected(self, timeout: float = 5) -> TlsFailure:
        """Return the first rejection of what the route presents, by `certificate=` or an old `tls_version=`.

        A client may be seen to reject a moment after it has said so: while a container runs, that is waited for.

        Args:
            timeout: Seconds to wait.

        Raises:
            CallError: Nobody has rejected it, or a request came over it; the text says what came instead.
        """
        raise NotImplementedError
