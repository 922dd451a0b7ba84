"""`Lasting`: a call that goes on after its handshake, a WebSocket, and keeps no window open.

As a raw connection it may be one of a pool, and outlive its test. It ends with its route; a test's own end with the
test. Unlike a raw connection it is not cut, but told, so that it can say goodbye to its client.

Threads: `tell` is called by whoever finds that it is over; it may be called again.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import Exchange


class Lasting:
    """A call that may outlive its test; `end` ends it without blocking, and is called once."""

    def __init__(self, exchange: Exchange, end: Callable[[], None]) -> None:
        self.exchange = exchange
        self.route: InnerRoute | None = exchange.route
        self._end: Callable[[], None] | None = end

    def is_over(self, *, test_over: bool = False) -> bool:
        """Whether the call has to end; `test_over` ends what the test's own routes and options allowed."""
        route = self.route
        if route is None:  # `unrouted="passthrough"`
            return test_over
        return route.is_over(test_over=test_over)

    def tell_if_over(self) -> None:
        """A route that was removed before `Gateway.revise` could see the call ends it here."""
        if self.is_over():
            self.tell()

    def tell(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end()
