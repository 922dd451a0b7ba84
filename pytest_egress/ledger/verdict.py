"""Judges a window: decides by which error its attempts fail the test, or that they do not. `report` has the texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard

from pytest_egress.errors import (
    CertificateAcceptedError,
    EgressError,
    HandlerError,
    HandshakeError,
    LeakError,
    NeverCalledError,
    TamperingError,
    UnroutedError,
)
from pytest_egress.ledger.report import (
    Shared,
    accepted_headline,
    accepted_text,
    complaints_text,
    handler_error_text,
    handler_headline,
    handshakes_headline,
    handshakes_text,
    never_called_headline,
    never_called_text,
    route_line,
    shared_text,
    stuck_headline,
    unplayed_headline,
    unplayed_text,
    unrouted_headline,
    unrouted_text,
)
from pytest_egress.ledger.windows import Window
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import (
    CERTAIN,
    REJECTED,
    Called,
    DatagramFlow,
    Entry,
    TlsFailure,
    peers_of,
)
from pytest_egress.traffic.redaction.redactor import redactor_in

if TYPE_CHECKING:
    from pytest_egress.traffic.search.leaks import Leak

NO_OFFENCE = ("silent", "probe", "cut", REJECTED)
"""Reasons of a `TlsFailure` that fail no test.

A connection was opened ahead of need, or only to see that there is one, or this package ended it, or its client
rejected what it had to reject.
"""

RACE_SECONDS: Final = 1.0
"""From the first connection of a client to the last that it opens beside it, to another address of the same host:
gRPC's next comes after 0.25 s, as RFC 8305 section 8 has it, and a busy machine is late."""


def judge(
    window: Window,
    routes: Sequence[InnerRoute],
    *,
    assert_all_called: bool = True,
    any_container: bool = True,
    running: Callable[[], Sequence[str]] = tuple,
    shared: Sequence[Shared] = (),
    unlisted: Callable[[], Offence | None] = lambda: None,
) -> EgressError | None:
    """Judge a window, and return the error that fails its test, or None.

    The first of these counts: tampering, a leaked secret, a handler's error, requests over a bad certificate, unrouted
    attempts, what no `egress.lock` lists, routes that were never called, and TLS handshakes that failed for good.
    Handshakes come last because the text about a route that was never called quotes those that may be the reason.

    Args:
        window: The window, closed and drained.
        routes: The routes that were declared for the test alone.
        any_container: Without one, the text says that egress does not see the test process.
        shared: The containers that other tests share: an earlier test may have set off what fails this one.
        unlisted: Returns the offence of what was reached and is listed in no `egress.lock`.
    """
    offence = first_offence(
        window,
        routes if assert_all_called else (),
        any_container=any_container,
        running=running,
        unlisted=unlisted,
    )
    if offence is None:
        return None
    told = shared_text(offence.entries, shared)
    text = "\n\n".join(filter(None, [offence.text, told]))
    return error_of(offence._replace(text=text), redactor_in(window.account).hidden)


class Offence(NamedTuple):
    """The reason why the test of a window fails.

    Attributes:
        kind: The class of the error.
        text: The text of the error, without the paragraph on shared containers.
        entries: The entries that it reports, which an earlier test may have set off.
        cause: The exception of a handler, or None.
    """

    kind: type[EgressError]
    text: str
    headline: str = ""
    entries: Sequence[Entry] = ()
    cause: BaseException | None = None


def error_of(offence: Offence, hidden: Callable[[str], str]) -> EgressError:
    """The error that fails a test; `hidden` takes the secrets out of a text."""
    error = offence.kind(hidden(offence.text))
    error.headline, error.__cause__ = hidden(offence.headline), offence.cause
    return error


def first_offence(
    window: Window,
    routes: Sequence[InnerRoute],
    *,
    any_container: bool,
    running: Callable[[], Sequence[str]],
    unlisted: Callable[[], Offence | None],
) -> Offence | None:
    if incomplete := incomplete_text(window):
        return Offence(TamperingError, incomplete)
    found = failing(window)
    if window.leaks:
        return leak_offence(window.leaks)
    if window.unseen:
        return unseen_offence(window.unseen)
    if (broken := first_handler_error(found)) is not None:
        text, headline = handler_error_text(broken), handler_headline(broken)
        return Offence(HandlerError, text, headline, [broken], broken.error)
    if window.stuck:
        return Offence(HandlerError, "\n".join(window.stuck), stuck_headline(window.stuck))
    if accepted := [entry for entry in found if is_accepted(entry, window)]:
        text, headline = accepted_text(accepted), accepted_headline(accepted)
        return Offence(CertificateAcceptedError, text, headline, accepted)
    if unrouted := unrouted_entries(found):
        text = unrouted_text(unrouted, window.entries)
        headline = unrouted_headline(unrouted)
        return Offence(UnroutedError, text, headline, unrouted)
    if (offence := unlisted()) is not None:
        return offence
    if idle := [route for route in routes if is_missing(route)]:
        text = never_called_text(
            idle,
            window.entries,
            any_container=any_container,
            running=running(),
            declared=routes,
        )
        return Offence(NeverCalledError, text, never_called_headline(idle, window.entries))
    if unplayed := unplayed_recordings(routes):
        return Offence(NeverCalledError, unplayed_text(unplayed), unplayed_headline(unplayed))
    if failures := [entry for entry in found if is_broken(entry, window)]:
        text, headline = handshakes_text(failures), handshakes_headline(failures)
        return Offence(HandshakeError, text, headline, failures)
    return None


def incomplete_text(window: Window) -> str:
    """Why not all that was attempted may have been seen; "" where it was."""
    lost = window.account.lost
    if not (window.complaints or window.unrecorded or window.evicted or lost):
        return ""
    is_flooded = window.unrecorded or "datagrams" in lost
    flooded = flooded_line(window.entries) if is_flooded else ""
    text = complaints_text(
        window.complaints, window.repeated, window.unrecorded, window.evicted, lost
    )
    return "\n".join(filter(None, (text, flooded)))


def flooded_line(entries: Iterable[Entry]) -> str:
    """The route that took most of many datagrams, of which others could not be kept; "" where none took several."""
    taken: Counter[InnerRoute] = Counter()
    for entry in entries:
        if isinstance(entry, DatagramFlow) and entry.route is not None:
            taken[entry.route] += len(entry.datagrams)
    for route, count in taken.most_common(1):
        if count > 1:
            return f"most datagrams came to {route_line(route)}: {count:,}"
    return ""


def failing(window: Window) -> list[Entry]:
    """The entries that fail the test of a window, each of which would do so alone, in the order of the window.

    Those of unrouted attempts, of handlers that have raised, of bad certificates that were accepted, of handshakes that
    failed for good, and those with a secret. `report.problem` says why each does.
    """
    find_leaks(window)
    return [
        entry
        for entry in window.entries
        if entry.outcome == "unrouted"
        or getattr(entry, "error", None) is not None
        or is_accepted(entry, window)
        or is_broken(entry, window)
        or entry.leak
    ]


def leak_offence(found: Sequence[Leak]) -> Offence:
    from pytest_egress.traffic.search.leaks import leaks_headline, leaks_text

    entries = [*{id(leak.entry): leak.entry for leak in found}.values()]
    return Offence(LeakError, leaks_text(found), leaks_headline(found), entries)


def unseen_offence(found: Sequence[Entry]) -> Offence:
    from pytest_egress.ledger.secrets import UNSEEN, unseen_text

    return Offence(LeakError, unseen_text(found), f"{found[0]}: it {UNSEEN}", found)


def leak_text(window: Window) -> str:
    """The text about the secrets that were sent where they must not be; "" where there are none."""
    find_leaks(window)
    return leak_offence(window.leaks).text if window.leaks else ""


def find_leaks(window: Window) -> None:
    """Search what was attempted for secrets, where one is declared; of a window that is over, once.

    Until then more may come of an entry that was searched.
    """
    secrets = [*window.wider_secrets, *window.secrets]
    if not secrets or window.searched == len(window.entries):
        return
    from pytest_egress.ledger.secrets import UNSEEN, is_unseen
    from pytest_egress.traffic.search.leaks import leaks

    if window.over.is_set():
        window.searched = len(window.entries)
    window.leaks = leaks(window.entries, secrets)
    window.unseen = [entry for entry in window.entries if is_unseen(entry)]
    for entry in window.unseen:
        entry.leak = UNSEEN
    for leak in reversed(window.leaks):  # the first of an entry is told
        leak.entry.leak = f"sent {leak.told}"


def unplayed_recordings(routes: Sequence[InnerRoute]) -> list[str]:
    """Those of cassettes that belong to the test alone, each with its line in the file."""
    decks = (route.turns.deck for route in routes if not route.removed and route.scope == "test")
    reels = {id(deck.reel): deck.reel for deck in decks if deck is not None and deck.is_required}
    return [line for reel in reels.values() for line in reel.unplayed()]


def suspicion(window: Window) -> str:
    """The headline of an offence that may be why a test has failed by itself; "" where there is none."""
    find_leaks(window)
    if window.leaks:
        return leak_offence(window.leaks).headline
    if (broken := first_handler_error(window.entries)) is not None:
        return handler_headline(broken)
    unrouted = unrouted_entries(window.entries)
    return unrouted_headline(unrouted) if unrouted else ""


def first_handler_error(
    entries: Sequence[Entry],
) -> Called | None:
    called = (e for e in entries if isinstance(e, Called))
    return next((entry for entry in called if entry.error is not None), None)


def accepted_entries(window: Window) -> list[Entry]:
    """Calls over a bad certificate or an old version of TLS, unless the test says that they are meant."""
    return [entry for entry in window.entries if is_accepted(entry, window)]


def is_accepted(entry: Entry, window: Window) -> bool:
    return entry.accepted is not None and not entry.accepted.route.expects_calls(window)


def unrouted_entries(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.outcome == "unrouted"]


def broken_handshakes(window: Window) -> list[TlsFailure]:
    """The failed TLS handshakes with claimed hosts that no later success excuses."""
    return [entry for entry in window.entries if is_broken(entry, window)]


def is_broken(entry: Entry, window: Window) -> TypeGuard[TlsFailure]:
    return (
        isinstance(entry, TlsFailure)
        and entry.outcome == "recorded"
        and entry.reason not in NO_OFFENCE
        and not came_through(entry, window)
    )


def came_through(failure: TlsFailure, window: Window) -> bool:
    """Whether the client of a failed handshake succeeded with that host later, or at any time if it failed "unused".

    A client that connects to two addresses at once leaves all but the first that answers, without an alert. An alert
    counts, whoever succeeds later: two programs of a container may have equal ClientHellos.
    """
    succeeded = window.handshakes.get(peers_of(failure))
    if succeeded is None or not failure.client or failure.reason in CERTAIN:
        return False
    races = failure.reason == "likely-untrusted" and succeeded.address != failure.address
    until = succeeded.started + (RACE_SECONDS if races else 0)
    return failure.reason == "unused" or until > failure.started


def is_missing(route: InnerRoute) -> bool:
    """Whether a route that had to be called, or rejected, was not, or not as often as its `times`.

    A route for names has to be called if it has a sequence, to its end.
    """
    if (
        not (route.kind.must_be_called or (route.kind.answers_names and route.turns.sequence))
        or route.optional
        or route.removed
        or route.expected_idle
        or route.scope != "test"
    ):
        return False
    if route.is_rejected:
        return False
    return route.times_called < (route.times or 1)
