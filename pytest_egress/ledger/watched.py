"""`Watched`: the lines about attempts while they happen, one for each when its outcome is known.

It has no thread and no clock: `watcher` tells it what was recorded, what is still being answered, and the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from pytest_egress.base.escaping import one_line
from pytest_egress.ledger.declaring import declaration, is_declarable
from pytest_egress.ledger.report import attempt_text, problem, rejection_text
from pytest_egress.ledger.timeline import grpc_status, is_plain
from pytest_egress.ledger.verdict import NO_OFFENCE
from pytest_egress.traffic.entries import (
    DatagramFlow,
    DnsQuery,
    Entry,
    Exchange,
    PacketAttempt,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SHOWN_VALUE, counted, cut

Colour = Literal["", "red", "yellow", "purple", "light", "green"]

LONG_SECONDS: Final = 1.0
"""An attempt that is not over by then has a line before its end, and another one at it."""

LOOKUP_SECONDS: Final = 1.0  # within which an attempt follows a lookup that leads to it
LEAST_ATTEMPT: Final = 24  # columns of an attempt on the narrowest terminal
INDENT: Final = " " * 10  # past the time
SHOWN_ATTEMPTS: Final = (
    1000  # of a test, or of a run of a command: whoever floods a terminal is told of by a number
)


@dataclass(frozen=True, kw_only=True)
class WatchedLine:
    """A line, and the colour that says what became of the attempt, as in a report's page."""

    text: str
    colour: Colour = ""


class Watched:
    """Makes the lines of one run.

    Args:
        began: When the run began, in seconds since the epoch, by the clock of the ledger.
        width: Returns the columns of a line.
    """

    def __init__(self, began: float, width: Callable[[], int]) -> None:
        self._began, self._width = began, width
        self._pending: list[Entry] = []
        self._open: list[Entry] = []
        self._shown = self._left_out = 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Take what was recorded since the last call. A lookup that led to an attempt is forgotten."""
        new = list(entries)
        led = {(each.container, each.host) for each in new if not isinstance(each, DnsQuery)}
        self._pending = [
            e for e in [*self._pending, *new] if not (is_lookup(e) and name_of(e) in led)
        ]

    def lines(self, now: float, busy: set[int], *, last: bool = False) -> list[WatchedLine]:
        """The lines that are due.

        Args:
            now: The time, by the clock of the ledger.
            busy: The ids of the entries that are being answered.
            last: Whether nothing more is to be waited for, as at the end of a test.
        """
        due = [e for e in self._pending if last or self._is_due(e, now)]
        waiting = {id(each) for each in due}
        self._pending = [entry for entry in self._pending if id(entry) not in waiting]
        lines = [*self._ended(now, busy)]
        for entry in without_twins(due):
            if self._shown == SHOWN_ATTEMPTS:
                if not self._left_out:
                    lines.append(WatchedLine(text=f"{INDENT}... the next ones are only counted"))
                self._left_out += 1
                continue
            self._shown += 1
            lines += self._of(entry)
            if not is_over(entry, busy):
                self._open.append(entry)
        return [*lines, *self._end()] if last else lines

    def _end(self) -> Iterator[WatchedLine]:
        if self._left_out:
            yield WatchedLine(text=f"{INDENT}... {counted(self._left_out, 'more attempt')}")
        self._open, self._shown, self._left_out = [], 0, 0

    def _is_due(self, entry: Entry, now: float) -> bool:
        age = now - entry.started
        if is_lookup(entry):
            return age >= LOOKUP_SECONDS
        return is_decided(entry) or age >= LONG_SECONDS

    def _ended(self, now: float, busy: set[int]) -> Iterator[WatchedLine]:
        """A second line for each attempt that had one before it was over."""
        over = [entry for entry in self._open if is_over(entry, busy)]
        self._open = [entry for entry in self._open if not is_over(entry, busy)]
        for entry in over:
            took = now - entry.started
            if isinstance(entry, TcpConnection) and entry.duration is not None:
                took = entry.duration
            if took >= LONG_SECONDS:
                said = f"… {answer_text(entry)} after {took:.1f} s"
                yield self._line(now, entry, said, attempt=attempt_text(entry))

    def _of(self, entry: Entry) -> Iterator[WatchedLine]:
        took = getattr(entry, "duration", None)
        said = [answer_text(entry), "" if took is None else time_taken(took)]
        yield self._line(entry.started, entry, "  ".join(filter(None, said)), attempt_text(entry))
        if fails(entry):
            why = problem(entry)
            if why and why != "no route claims it":
                yield WatchedLine(text=f"{INDENT}{why}", colour="red")
        if (fails(entry) or is_undeclared(entry)) and is_declarable(entry):
            yield WatchedLine(text=f"{INDENT}{declaration(entry)}", colour="green")

    def _line(self, at: float, entry: Entry, said: str, attempt: str) -> WatchedLine:
        head = f"{at - self._began:8.3f}  {of_even_width(entry.container)}  "
        said = of_even_width(redactor_of(entry).hidden(said))
        room = max(self._width() - len(head) - len(said) - 2, LEAST_ATTEMPT)
        text = f"{head}{cut(of_even_width(attempt), room)}  {said}"
        return WatchedLine(text=text, colour=colour_of(entry))


def of_even_width(text: str) -> str:
    return one_line(text).replace("\t", " ")


def name_of(entry: Entry) -> tuple[str, str]:
    return entry.container, entry.host


def is_lookup(entry: Entry) -> bool:
    """Whether it is a lookup that any client makes before it connects."""
    return isinstance(entry, DnsQuery) and is_plain(entry)


def without_twins(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Of the lookups of a name, which asks for several types, the first."""
    seen: set[tuple[str, str]] = set()
    for entry in entries:
        if isinstance(entry, DnsQuery):
            if name_of(entry) in seen:
                continue
            seen.add(name_of(entry))
        yield entry


def is_undeclared(entry: Entry) -> bool:
    """Whether no route claims it, be that a failure or not."""
    return entry.outcome == "unrouted" or (entry.outcome == "blocked" and entry.route is None)


def is_decided(entry: Entry) -> bool:
    if isinstance(entry, Exchange):
        return entry.duration is not None
    if isinstance(entry, TcpConnection) and entry.outcome in ("routed", "passthrough"):
        return entry.duration is not None or entry.error is not None
    return True


def is_over(entry: Entry, busy: set[int]) -> bool:
    """Whether nothing more will be sent, such as the rest of a stream."""
    return is_decided(entry) and id(entry) not in busy


def fails(entry: Entry) -> bool:
    """Whether it fails its test by itself, whatever comes later: a client may repeat a handshake that has failed."""
    raised = getattr(entry, "error", None) is not None
    return entry.outcome == "unrouted" or raised or entry.accepted is not None


def colour_of(entry: Entry) -> Colour:
    if fails(entry):
        return "red"
    if isinstance(entry, TlsFailure):
        return (
            "green"
            if entry.reason == "rejected"
            else "light"
            if entry.reason in NO_OFFENCE
            else "red"
        )
    if getattr(entry, "fault", None) is not None:
        return "yellow"
    if entry.outcome == "passthrough":
        return "purple"
    return "green" if entry.outcome == "routed" else "light"


def answer_text(entry: Entry) -> str:
    """What became of an attempt, in a few words."""
    if entry.accepted is not None:
        return f"ACCEPTED {entry.accepted.route.presented.given}"
    if is_undeclared(entry):
        return "no route"
    if entry.outcome == "blocked":
        return "blocked"
    if (error := getattr(entry, "error", None)) is not None:
        return f"raised {type(error).__name__}"
    if (fault := getattr(entry, "fault", None)) is not None:
        return cut(str(fault), SHOWN_VALUE)
    if isinstance(entry, Exchange):
        return passed(entry, exchange_answer(entry))
    if isinstance(entry, DnsQuery):
        return cut(", ".join(entry.answer) or entry.rcode or "no answer", SHOWN_VALUE)
    if isinstance(entry, TcpConnection):
        return passed(entry, connection_answer(entry))
    if isinstance(entry, TlsFailure):
        return (
            rejection_text([entry])
            or cut(entry.note.partition(". ")[0], SHOWN_VALUE)
            or entry.reason
        )
    if isinstance(entry, DatagramFlow):
        return "answered" if any(each.replies for each in [*entry.datagrams]) else "taken"
    if isinstance(entry, PacketAttempt):
        return cut(entry.note.partition(". ")[0], SHOWN_VALUE) or "listed"
    return "taken" if entry.outcome == "routed" else "listed"


def passed(entry: Entry, said: str) -> str:
    """The real server is named where it was the one that answered."""
    return f"{said} of the real server" if entry.outcome == "passthrough" else said


def exchange_answer(entry: Exchange) -> str:
    if (status := grpc_status(entry)) is not None:
        return status[0]
    if entry.response is None:
        return "no answer yet" if entry.duration is None else "no answer"
    return f"{entry.response.status_code}"


def connection_answer(entry: TcpConnection) -> str:
    if entry.sent or entry.received:
        return f"{counted(entry.sent, 'byte')} out, {entry.received} back"
    read = f", {counted(len(entry.kept), 'byte')} read" if entry.kept else ""
    return f"{'open' if entry.duration is None else 'closed'}{read}"


def time_taken(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
