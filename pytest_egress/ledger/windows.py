"""`Window`: the attempts that are judged together, and what is still going on in it.

Everything in a window changes under `Ledger.changed`; see `ledger`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_egress.base.choices import NamePolicy, Policy
from pytest_egress.base.clock import wall
from pytest_egress.routes.route import Route
from pytest_egress.routes.table import RouteTable
from pytest_egress.traffic.entries import Entry, TlsPeers

DRAIN_SECONDS: Final = 5.0  # for what has begun when a container, or a test, ends


@dataclass(eq=False)
class Activity:
    """Something that has begun and not ended: a connection that opens, or a request.

    Attributes:
        container: Which target it is of.
        thread: Identifier of the thread that serves it.
        route: The route whose handler runs, or None.
        what: What that handler was called for; its text is in words, and made where somebody asks.
        cut: Ends its connection; any thread.
        told: What it is, in words, as long as no handler runs.
    """

    container: str = ""
    thread: int | None = None
    route: Route[Any] | None = None
    what: object = ""
    cut: Callable[[], None] = lambda: None
    told: Callable[[], str] = lambda: "a connection"


@dataclass(eq=False)
class Window:
    """The attempts that are judged together.

    Attributes:
        policy: What an attempt that no route claims means here.
        dns: What a name is that no route names.
        drain_seconds: How long handlers are waited for whose container has ended.
        entries: In the order in which they were decided.
        complaints: Sentences that fail the test whatever else happened: tampering, a sidecar that died. Each once.
        repeated: How many more complaints there were.
        unrecorded: How many attempts have no entry.
        evicted: How many idle connections we cut, by what there was too little of.
        held: Bytes that were sent and are kept.
        calls: How many calls of routes there were.
        stuck: Handlers that still ran when the window was closed, and where they stood.
        activities: What has begun and not ended.
        handshakes: When the latest handshake began that succeeded, of each client with each host.
        name: Of its test, as pytest has it; "" where there is none.
        previous: The name of the test before it that used egress.
        opened: When it began, in seconds since the epoch.
    """

    policy: Policy = "fail"
    dns: NamePolicy = "synthetic"
    drain_seconds: float = DRAIN_SECONDS
    entries: list[Entry] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    repeated: int = 0
    unrecorded: int = 0
    evicted: dict[str, int] = field(default_factory=dict)
    held: int = 0
    calls: int = 0
    stuck: list[str] = field(default_factory=list)
    activities: set[Activity] = field(default_factory=set)
    handshakes: dict[TlsPeers, float] = field(default_factory=dict)
    name: str = ""
    previous: str = ""
    opened: float = field(default_factory=wall)


@dataclass(frozen=True, kw_only=True)
class AttemptContext:
    """Where an attempt belongs: its window, and the routes that may answer it, nearest scope first."""

    window: Window
    tables: Sequence[RouteTable]
