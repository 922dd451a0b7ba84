"""`Trial`: one run of an image outside of pytest, and all that it attempted.

The session is that of tests, so that its containers are removed at the end, and by its watchdog where this process is
killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pytest_egress.base.escaping import one_line
from pytest_egress.cassettes import Cassettes, Home
from pytest_egress.commands.order import Order
from pytest_egress.egress import Egress, inner_of, run_unread
from pytest_egress.errors import ContainerTimeoutError
from pytest_egress.evidence.writing import ContainerFacts, facts_of
from pytest_egress.ledger.verdict import incomplete_text
from pytest_egress.ledger.windows import Window
from pytest_egress.session import Session
from pytest_egress.traffic.entries import Entry, Exchange
from pytest_egress.traffic.shown import cut

SHOWN_UNSEEN: Final = 400  # characters of why not all of a run was seen


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run.

    Attributes:
        entries: What it attempted, in order.
        exit_code: None where it did not end by itself.
        stopped: Whether the user has stopped it.
        window: That of its attempts, closed; None where none was opened.
        duration: Seconds that it ran.
        containers: What is known of its containers, where a report is asked for.
        unseen: Why not all that it attempted may have been seen, in one line; "" where it was.
    """

    entries: tuple[Entry, ...]
    exit_code: int | None = None
    stopped: bool = False
    window: Window | None = None
    duration: float = 0.0
    containers: tuple[ContainerFacts, ...] = ()
    unseen: str = ""


@contextlib.contextmanager
def opened(order: Order, cassettes: Cassettes | None = None) -> Iterator[Session]:
    """A session whose redactor knows the secrets of the order; everything that it has started is removed at the end."""
    session = Session(
        defaults={"policy": "block"},
        cassettes=cassettes,
        link=os.environ.get("PYTEST_EGRESS_LINK") or None,
        sidecar_image=os.environ.get("PYTEST_EGRESS_SIDECAR_IMAGE") or None,
    )
    session.take_notes()
    session.hide(order.env)
    try:
        yield session
    finally:
        session.close()


def is_whole(trial: Trial) -> bool:
    """Whether a run ended by itself, each request was answered, and all was seen."""
    return trial.exit_code is not None and not broken(trial) and not trial.unseen


def unseen_in(window: Window) -> str:
    lines = map(str.strip, incomplete_text(window).splitlines())
    return cut(one_line("; ".join(lines)), SHOWN_UNSEEN)


def broken(trial: Trial) -> list[Entry]:
    """The attempts whose answer failed, as where a real upstream is not reached, or their client did not wait for."""
    return [
        entry
        for entry in trial.entries
        if getattr(entry, "error", None) is not None or is_left(entry)
    ]


def is_left(entry: Entry) -> bool:
    """Whether a request has no answer that a cassette could have; a call of gRPC is recorded as far as it came."""
    return (
        isinstance(entry, Exchange)
        and entry.outcome == "routed"
        and entry.response is None
        and entry.grpc is None
    )


def is_recorded(entry: Entry) -> bool:
    """Whether an entry is a request that a cassette has taken."""
    return isinstance(entry, Exchange) and entry.outcome == "routed"


def declare_nothing(egress: Egress) -> None:
    """An image is to be run as it is."""


def run_once(
    session: Session,
    order: Order,
    declare: Callable[[Egress], None] = declare_nothing,
    place: Home | None = None,
) -> Trial:
    """Run the image once, to its end or that of its time; Ctrl-C ends it too.

    Args:
        declare: Declares routes, before the image is started.
        place: Where its cassette is written, where it ends by itself and has one; None for nowhere.

    Raises:
        CassetteError, EgressError, TypeError, ValueError: It cannot be run; the text may quote secrets.
    """
    egress = Egress(session=session)
    inner = inner_of(egress)
    inner.place = place
    inner.open_window()
    code, stopped, duration = None, False, order.timeout
    try:
        declare(egress)
        try:
            command = [*order.command] or None
            code, duration = run_unread(egress, order.image, command, order.env, order.timeout)
        except ContainerTimeoutError:
            code = None
        except KeyboardInterrupt:
            stopped = True
        if inner.window is not None:
            session.close_window(inner.window)
        told = (
            []
            if order.report is None or inner.window is None
            else (session.containers_of(inner.window))
        )
        trial = Trial(
            entries=tuple(inner.ledger),
            exit_code=code,
            stopped=stopped,
            window=inner.window,
            duration=duration,
            containers=tuple(map(facts_of, told)),
            unseen="" if inner.window is None else unseen_in(inner.window),
        )
        if place is not None and is_whole(trial) and any(map(is_recorded, trial.entries)):
            inner.write_cassettes()
        return trial
    finally:
        egress.close()
