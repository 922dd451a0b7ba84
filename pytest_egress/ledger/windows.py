"""`Window`: the attempts that are judged together, and the activities that have not ended.

A window changes only under `Ledger.changed`; see `ledger`. Its account has a lock of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from pytest_egress.base.account import Account
from pytest_egress.base.choices import NamePolicy, Policy
from pytest_egress.base.clock import wall
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.table import Instead, RouteTable, SweptFault
from pytest_egress.traffic.entries import Entry, Handshake, TlsPeers
from pytest_egress.traffic.http.request import Request

if TYPE_CHECKING:
    from pytest_egress.traffic.search.leaks import Leak
    from pytest_egress.traffic.search.secrets import Secret

Streams = Literal["", "events", "body"]
EVENTS_SECONDS: Final = 1.0
"""For a stream of events to end after its test, or after its container's start: most of them never do."""

STILL_STREAMED: Final = "it still streamed after"
"""Begins the note of a call whose streamed answer was ended together with its window."""

DRAIN_SECONDS: Final = 5.0  # for the activities of a container, or a test, to end after it


@dataclass(frozen=True, eq=False)
class Pause:
    """An attempt that waits for a fault, such as `silence()`."""

    entry: Entry
    fault: object

    def __str__(self) -> str:
        return f"{self.entry} -> {self.fault}"


def stays() -> bool:
    """The `has_left` where nothing tells whether a client has left."""
    return False


@dataclass(eq=False)
class Activity:
    """A connection that is being opened, or a request that is being answered.

    Attributes:
        container: The name of its target.
        thread: The identifier of the thread that serves it.
        route: The route whose handler runs, or whose predicate is asked; else None.
        what: The attempt that the handler was called for; `str` of it is made only for a report.
        cut: Ends its connection. Any thread may call it.
        told: Describes the activity in words, while no handler runs.
        pause: The fault that it waits for, or None. Meanwhile it keeps no window open.
        is_abandoned: Whether it waits for a real server, and its client has left. Then it keeps no window open either.
            It is called under `Ledger.changed`.
        part: What runs of the route: its "handler", or its "match= predicate".
        streams: What it sends piece by piece, if its response has begun: "events", or another "body"; else "".
        passes: The route that lets this pass unread, while no handler runs; None is `unrouted="passthrough"`.
    """

    container: str = ""
    thread: int | None = None
    route: InnerRoute | None = None
    what: object = ""
    cut: Callable[[], None] = lambda: None
    told: Callable[[], str] = lambda: "a connection"
    pause: Pause | None = None
    is_abandoned: Callable[[], bool] = stays
    part: str = "handler"
    streams: Streams = ""
    passes: InnerRoute | None = None

    def rest(self) -> None:
        self.route, self.what, self.streams, self.passes = None, "", "", None
        self.is_abandoned = stays


class SweptRun(Protocol):
    """The run of a test of which a fault sweep counts the calls, and fails one of them."""

    @property
    def tables(self) -> Sequence[RouteTable]:
        """The routes before those of the test: what fails by them is dialled, or looked up."""

    def intervene(self, request: Request, /) -> Instead | None:
        """What answers a request in place of its route; None where nothing does. Asked once about each request."""

    def intervene_in_connection(self, host: str, port: int, /) -> Instead | None:
        """What a raw connection is answered by in place of its route. Asked once about each that is no port probe.

        Args:
            host: The host, without secrets.
        """

    def asked_fault(self) -> SweptFault | None:
        """What fails in this run, for a test that then judges it by itself; None on the happy path."""

    def seconds_left(self) -> float:
        """For the test's containers to end, or to be ready."""

    def note_end(self, container: str, exit_code: int, *, has_spoken: bool) -> None:
        """Note that a container has ended, and whether it has written anything."""

    def note_late(self, container: str) -> None:
        """Note that a container still runs, and that the time for its end is over."""


@dataclass(eq=False)
class Window:
    """The attempts that are judged together: those of a test, of a container's start, or between tests.

    Attributes:
        policy: What happens to an attempt that no route claims (`unrouted=`).
        dns: How DNS answers a name that no route names.
        drain_seconds: Seconds for which handlers may run on after their container has ended.
        entries: The entries, in the order in which they were recorded: when their outcome was decided, or before that,
            when a predicate (`match=`) was first asked about them.
        complaints: Sentences that fail the test whatever else happened: tampering, a sidecar that died. Each once.
        repeated: How many complaints were not added: equal ones, and those over the limit.
        unrecorded: How many attempts have no entry.
        evicted: How many idle connections were cut to make room, by the resource that was short.
        closed_ports: How often the test connected to a port of a container where nothing listened, by both.
        account: What is kept of it. What that has refused fails the test.
        datagrams: How many datagrams came that were let out.
        stuck: A text for each handler that still ran when the window was closed, with the line it was at.
        handshakes: The latest successful TLS handshake of each client and host.
        name: The name of its test in pytest; "" where there is none.
        previous: The name of the test before this one that used egress.
        opened: Seconds since the epoch.
        secrets: What its test has declared by `secret()`.
        wider_secrets: What is declared for the whole run, at present.
        leaks: The secrets that were found where they must not be, among the first `searched` entries.
        unseen: Those of them in which one may have passed unseen.
        over: Set when the window has been closed. What waits for a fault then waits no longer.
        trial: The run of a fault sweep that its test is; None of any other.
    """

    policy: Policy = "fail"
    dns: NamePolicy = "synthetic"
    drain_seconds: float = DRAIN_SECONDS
    entries: list[Entry] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    repeated: int = 0
    unrecorded: int = 0
    evicted: dict[str, int] = field(default_factory=dict)
    closed_ports: dict[tuple[str, int], int] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    calls: int = 0
    datagrams: int = 0
    stuck: list[str] = field(default_factory=list)
    activities: set[Activity] = field(default_factory=set)
    handshakes: dict[TlsPeers, Handshake] = field(default_factory=dict)
    name: str = ""
    previous: str = ""
    opened: float = field(default_factory=wall)
    secrets: list[Secret] = field(default_factory=list)
    wider_secrets: Sequence[Secret] = ()
    leaks: Sequence[Leak] = ()
    unseen: Sequence[Entry] = ()
    searched: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    trial: SweptRun | None = None


class AttemptContext(NamedTuple):
    """`tables` are the route tables that may answer the attempt, nearest scope first."""

    window: Window
    tables: Sequence[RouteTable]
