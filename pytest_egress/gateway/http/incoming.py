"""`Incoming`: a request whose head a server has read. `Ruling`: what was decided about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pytest_egress.gateway.attempt import Attempt
from pytest_egress.gateway.http.bodies import Body
from pytest_egress.gateway.http.forwarding import Forwarding
from pytest_egress.gateway.http.spoiling import Line
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.routes.faults import Fault
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import NearMiss
from pytest_egress.traffic.entries import AskedProxy, Exchange, Outcome
from pytest_egress.traffic.http.head import Head
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response


class Ruling(NamedTuple):
    """The decision about a request. All but `reply` and `is_shared` are fields of its entry.

    Attributes:
        reply: Makes the response, after the request has been recorded; None where it has been sent, or nobody is left
            to get one, or a fault is used in its place. It is a `Calling`, a `Conversing`, or a function of their
            modules or of `replies`.
        is_shared: Whether the response is one object for all calls of the route.
        is_swept: Whether a fault sweep has it fail.
    """

    outcome: Outcome
    route: InnerRoute | None
    reply: Callable[[Exchange], Response | None]
    near: tuple[NearMiss, ...] = ()
    note: str = ""
    error: BaseException | None = None
    fault: Fault | None = None
    is_shared: bool = False
    is_swept: bool = False

    def timed(self, entry: Exchange, ledger: Ledger) -> Response | None:
        """As `reply`, with the times before and after in the marks of the entry."""
        assert entry.marks is not None
        entry.marks.called = ledger.now()
        try:
            return self.reply(entry)
        finally:
            entry.marks.answered = ledger.now()


@dataclass(eq=False, slots=True)
class Incoming:
    """A request whose head a server has read.

    Attributes:
        called: The name that the client has used for the host of the request, if that is another one; else "".
        entry: None until it is recorded.
        asked_proxy: The proxy that its client takes its server for, where no route is one; else None.
    """

    attempt: Attempt
    head: Head
    duplex: Line
    body: Body
    request: Request
    forwarding: Forwarding
    called: str
    entry: Exchange | None = None
    is_counted: bool = False
    asked_proxy: AskedProxy | None = None
