"""Tables of routes, and the ledger that they share."""

from __future__ import annotations

from typing import Any

from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import KINDS
from pytest_egress.routes.table import Decision, RouteTable, decide
from pytest_egress.traffic.entries import Exchange
from tests.support.traffic import request

KIND_OF = {kind.method: kind for kind in KINDS}


def called(route: InnerRoute) -> Any:
    """What the route's handler returns."""
    answer, context = route.turns.answer()
    return context.run(answer, request())


class Routes:
    """Tables of the four scopes, nearest first, and the ledger that they share."""

    def __init__(self) -> None:
        self.ledger, self.window = Ledger(), Window()
        self.tables = {scope: RouteTable() for scope in ("test", "class", "module", "session")}

    def add(
        self, kind: str, address: str, answer: object = None, scope: Any = "test", **options: Any
    ) -> InnerRoute:
        declaration = declare(KIND_OF[kind], address, answer, **options)
        route: InnerRoute = InnerRoute(declaration, scope=scope, declared_at="", log=self.ledger)
        self.tables[scope].add(route)
        return route

    def https(self, address: str = "api.test", **options: Any) -> InnerRoute:
        return self.add("intercept_https", address, **options)

    def decide(self, *args: Any, **fields: Any) -> Decision:
        return decide(list(self.tables.values()), request(*args, **fields))

    def call(
        self,
        route: InnerRoute,
        url: str = "https://api.test/",
        window: Window | None = None,
        **fields: Any,
    ) -> Exchange:
        exchange = Exchange(
            container="target",
            started=0.0,
            outcome="routed",
            host="api.test",
            request=request(url, **fields),
        )
        self.ledger.count(route, window or self.window, exchange)
        return exchange
