"""Judges a window: the most telling complaint about it, or None. Says what; `report` says how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_egress.entries import Entry, Exchange, TcpConnection, TlsFailure
from pytest_egress.errors import (
    EgressError,
    HandlerError,
    HandshakeError,
    NeverCalledError,
    TamperingError,
    UnroutedError,
)
from pytest_egress.report import (
    complaints_text,
    handler_error_text,
    handshakes_text,
    never_called_text,
    unrouted_text,
)
from pytest_egress.route import Route
from pytest_egress.windows import Window

NO_OFFENCE = ("silent", "cut")
"""Reasons of a `TlsFailure` that speak of no distrust: a connection opened ahead of its need, or ended by us."""


def judge(
    window: Window,
    routes: Sequence[Route[Any]],
    *,
    assert_all_called: bool = True,
    any_container: bool = True,
) -> EgressError | None:
    """Tampering, then a handler's error, unrouted attempts, routes never called, and handshakes that failed for good.

    The latter come last, since a route that was never called quotes those that may be why.

    Args:
        window: Closed and drained.
        routes: Those declared for the test alone.
        assert_all_called: Whether they must have been called.
        any_container: Whether a container ran: without one, the text says that egress does not see the test process.
    """
    if window.complaints or window.unrecorded or window.evicted:
        told = (window.complaints, window.repeated, window.unrecorded, window.evicted)
        return TamperingError(complaints_text(*told))
    if (broken := first_handler_error(window.entries)) is not None:
        error = HandlerError(handler_error_text(broken))
        error.__cause__ = broken.error
        return error
    if window.stuck:
        return HandlerError("\n".join(window.stuck))
    if unrouted := unrouted_entries(window.entries):
        return UnroutedError(unrouted_text(unrouted))
    if assert_all_called and (idle := [route for route in routes if is_missing(route)]):
        return NeverCalledError(
            never_called_text(idle, window.entries, any_container=any_container)
        )
    if failures := broken_handshakes(window):
        return HandshakeError(handshakes_text(failures))
    return None


def first_handler_error(entries: Sequence[Entry]) -> Exchange | TcpConnection | None:
    """The first entry whose handler raised."""
    called = (e for e in entries if isinstance(e, (Exchange, TcpConnection)))
    return next((entry for entry in called if entry.error is not None), None)


def unrouted_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The attempts that fail a test."""
    return [entry for entry in entries if entry.outcome == "unrouted"]


def broken_handshakes(window: Window) -> list[TlsFailure]:
    """The handshakes with claimed hosts that failed, and of whose client no later one succeeded."""
    return [
        entry
        for entry in window.entries
        if isinstance(entry, TlsFailure)
        and entry.outcome == "recorded"
        and entry.reason not in NO_OFFENCE
        and not came_through(entry, window)
    ]


def came_through(failure: TlsFailure, window: Window) -> bool:
    """Whether the client of a handshake that failed succeeded with that host: later, or ever where it may trust us."""
    succeeded = window.handshakes.get(failure.peers)
    if succeeded is None or not failure.client:
        return False
    return failure.reason == "unused" or succeeded > failure.started


def is_missing(route: Route[Any]) -> bool:
    """Whether a route had to be called and was not, or not as often as its `times`."""
    if (
        not route.kind.must_be_called
        or route.optional
        or route.removed
        or route.expected_idle
        or route.scope != "test"
    ):
        return False
    return route.lifetime_count < (route.times or 1)
