"""`outage`: fails what comes before a call, by a route in front of the test's own: a dial, or the look-up of a name.

`places_of` tells which hosts and ports a test has dialled on its happy path, and which names it has looked up for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from pytest_egress.errors import AddressError
from pytest_egress.routes.declarations import declare
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.kinds import DNS, INTERCEPT_TCP
from pytest_egress.routes.route import CallLog
from pytest_egress.routes.table import RouteTable
from pytest_egress.sweep.calls import connection_call, name_call
from pytest_egress.sweep.faults import FAULTS
from pytest_egress.traffic.address import parse_address
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import host_port


class SweptPlace(NamedTuple):
    """What is dialled; without a port, what is looked up."""

    host: str
    port: int | None = None

    @property
    def address(self) -> str:
        return self.host if self.port is None else host_port(self.host, self.port)

    @property
    def is_exact(self) -> bool:
        """Whether a route can be for this place alone: a target may send any name."""
        with suppress(AddressError):
            return parse_address(self.address, default_port=None).is_exact
        return False


def places_of(entries: Iterable[Entry]) -> dict[str, SweptPlace]:
    """The places of the calls that routes have answered, each by the name of the call that it is.

    What came through a proxy has dialled that, and not its host.
    """
    entries = [*entries]
    looked_up = {each.host for each in entries if isinstance(each, DnsQuery) and each.answer}
    dialled: dict[str, SweptPlace] = {}
    names: dict[str, SweptPlace] = {}
    for entry in entries:
        is_call = isinstance(entry, (Exchange, TcpConnection)) and entry.outcome == "routed"
        if not is_call or entry.through or entry.port is None:
            continue
        host = redactor_of(entry).host_glob(entry.host)
        if (place := SweptPlace(entry.host, entry.port)).is_exact:
            dialled[connection_call(host, entry.port)] = place
        if (name := SweptPlace(entry.host)).is_exact and entry.host in looked_up:
            names[name_call(host)] = name
    return dialled | names


def outage(fault: str, place: SweptPlace, log: CallLog) -> RouteTable:
    """The only route of this table fails each dial, or each look-up, of a place."""
    answer, table = FAULTS[fault].outage, RouteTable()
    kind = DNS if isinstance(answer, str) else INTERCEPT_TCP
    declaration = declare(kind, place.address, answer, optional=True)
    route = InnerRoute(declaration, scope="test", declared_at="", log=log)
    route.is_swept = True
    with log.changed:
        table.add(route)
    return table
