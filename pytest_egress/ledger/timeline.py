"""The timeline: a line for each entry of the ledger, with its outcome. `details` has what each was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from pytest_egress.ledger.details import detail_lines
from pytest_egress.traffic.entries import (
    Called,
    DatagramFlow,
    DnsQuery,
    Entry,
    Exchange,
    PacketAttempt,
    TcpConnection,
)
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SHOWN_TARGET, counted, cut
from pytest_egress.traffic.websocket import message_text

SHOWN_ENTRIES: Final = 200  # its first and last hundred
SHOWN_MESSAGES: Final = 10  # of a WebSocket: its first and last five
SEE_ABOVE: Final = "see above"  # in place of a note


def ledger_lines(
    entries: Iterable[Entry], *, began: float | None = None, told: str = "", in_full: bool = False
) -> list[str]:
    """The timeline: for each entry the time, its container, the attempt and its outcome.

    A lookup that led to an attempt, and was none of the test's business, is on the line of that attempt.

    Args:
        began: When the test began, in seconds since the epoch: times count from then. None is the first entry's time.
        told: A text that is shown above: a note that is in it is not repeated.
        in_full: Whether what was sent both ways is shown, too.
    """
    listed = sorted(entries, key=lambda entry: entry.started)
    if not listed:
        return []
    first, several = listed[0].started, len({entry.container for entry in listed}) > 1
    first, told = first if began is None else began, " ".join(told.split())
    led = lookups(listed)
    merged = {id(query) for queries in led.values() for query in queries}
    lines: list[tuple[Entry | None, str]] = []  # with the entry whose details are to follow
    for entry in listed:
        if id(entry) in merged:
            continue
        container = f"{entry.container}  " if several else ""
        said = outcome_text(entry, told) + looked_up(entry, led.get(id(entry), ()))
        lines.append((entry, f"{time_text(entry.started - first)}{container}{said}"))
        for at, line in message_lines(entry):
            lines.append((None, f"{time_text(at - first)}{container}{line}"))
    if len(lines) > SHOWN_ENTRIES:
        half = SHOWN_ENTRIES // 2
        lines[half:-half] = [(None, f"  ... {len(lines) - SHOWN_ENTRIES} more ...")]
    return [
        "\n".join([line, *indented_details(entry)]) if in_full and entry is not None else line
        for entry, line in lines
    ]


def indented_details(entry: Entry) -> Iterator[str]:
    yield from (" " * len(time_text(0)) + line for line in detail_lines(entry))


def closed_port_lines(closed: Mapping[tuple[str, int], int]) -> Iterator[str]:
    """Lines about each port of a container where nothing listened when the test connected, and how to wait for it."""
    for (container, port), count in closed.items():
        times = "" if count == 1 else f", {count} times"
        yield f"{container}: nothing listened on port {port} when the test connected to it{times}"
        yield f"  to wait until something does: start(..., wait=port_open({port}))"


def lookups(entries: Sequence[Entry]) -> dict[int, list[DnsQuery]]:
    """The plain lookups that led to an attempt, by the `id` of the first attempt that followed them."""
    waiting: dict[tuple[str, str], list[DnsQuery]] = {}
    led: dict[int, list[DnsQuery]] = {}
    for entry in entries:
        name = entry.container, entry.host
        if isinstance(entry, DnsQuery):
            if is_plain(entry):
                waiting.setdefault(name, []).append(entry)
        elif name in waiting:
            led[id(entry)] = waiting.pop(name)
    return led


def is_plain(query: DnsQuery) -> bool:
    """Whether a query was answered as any is that no test has declared."""
    declared = query.route is not None or query.cnames or query.fault is not None
    failed = query.error is not None or query.note or query.rcode != "NOERROR"
    return query.outcome == "recorded" and not declared and not failed


def looked_up(entry: Entry, queries: Sequence[DnsQuery]) -> str:
    if not queries:
        return ""
    return f"  (looked up {(entry.started - queries[0].started) * 1000:.1f} ms before)"


def outcome_text(entry: Entry, told: str = "") -> str:
    """What was attempted, and what became of it.

    Args:
        told: A text that is shown above, with single spaces: a note that is in it is not repeated.
    """
    if isinstance(entry, DnsQuery):
        return query_text(entry)
    what = str(entry)
    if isinstance(entry, Exchange):
        what = exchange_text(entry)
    elif isinstance(entry, TcpConnection):
        what = connection_text(entry)
    elif isinstance(entry, (DatagramFlow, PacketAttempt)):
        what = f"{entry}{raised_text(entry)}"
    outcome = "" if entry.outcome in ("routed", "recorded") else entry.outcome.upper()
    if entry.accepted is not None:
        outcome = " ".join([outcome, f"ACCEPTED {entry.accepted.route.presented.given}"]).strip()
    note = entry.note.partition(". ")[0]  # the verdict has all of it
    note = SEE_ABOVE if note and " ".join(note.split()) in told else note
    note = f"[{note}]" if note else ""
    shown = [what, through_text(entry), outcome, note, swept_text(entry)]
    return "  ".join(filter(None, shown))


def through_text(entry: Entry) -> str:
    return f"through {entry.through}" if entry.through else ""


def query_text(entry: DnsQuery) -> str:
    answered = ", ".join(entry.answer) or entry.rcode or entry.fault or "no answer"
    answered_text = cut(redactor_of(entry).hidden(str(answered)), SHOWN_TARGET)
    found = " -> ".join(map(str, (entry, *entry.cnames, answered_text)))
    outcome = "" if entry.outcome == "recorded" else entry.outcome.upper()
    fault = f"[{entry.fault}]" if entry.fault not in (None, answered) else ""
    note = f"[{entry.note}]" if not outcome and entry.note and entry.fault != answered else ""
    raised = raised_text(entry).removeprefix(", ")
    shown = [f"DNS {found}", through_text(entry), outcome, fault, note, raised, swept_text(entry)]
    return "  ".join(filter(None, shown))


def swept_text(entry: Entry) -> str:
    return "(sweep)" if entry.swept else ""


def exchange_text(entry: Exchange) -> str:
    answered, details = " -> no response yet", ""
    if (status := grpc_status(entry)) is not None:
        answered, details = f" -> {status[0]}", status[1]
    elif entry.response is not None:
        answered = f" -> {entry.response.status_code} {entry.response.reason}".rstrip()
    elif entry.fault is not None:
        answered = f" -> {entry.fault}"
    if entry.fault is not None and not answered.endswith(f"{entry.fault}"):
        details += f", by {entry.fault}"
    took = f" in {entry.duration * 1000:.1f} ms" if entry.duration is not None else ""
    return f"{entry}{entry.request.shown_stream}{answered}{took}{details}{spoken_text(entry)}{raised_text(entry)}"


def grpc_status(entry: Exchange) -> tuple[str, str] | None:
    """None while the call runs, and for other requests."""
    if entry.grpc is None:
        return None
    code, details = entry.grpc.code, entry.grpc.details
    if code is None:
        head = entry.response.headers if entry.response is not None else {}
        return ("no status yet", "") if "grpc-accept-encoding" in head else None
    said = cut(redactor_of(entry).text(details.partition("\n")[0]), SHOWN_TARGET)
    return code.name, f": {said}" if said else ""


def spoken_text(entry: Exchange) -> str:
    """Empty where the exchange has opened no WebSocket."""
    if (ws := entry.websocket) is None:
        return ""
    count = len(entry.messages) + ws.unkept
    state = "open" if ws.close_code is None else f"closed with {ws.close_code}"
    return f", {counted(count, 'message')}, {state}"


def message_lines(entry: Entry) -> list[tuple[float, str]]:
    """The messages of a WebSocket for the timeline: when, and a line; those in the middle are left out."""
    if not isinstance(entry, Exchange) or entry.websocket is None:
        return []
    redactor = redactor_of(entry)
    lines = [(each.at, f"  {message_text(each, redactor)}") for each in entry.messages]
    if len(lines) > SHOWN_MESSAGES:
        half = SHOWN_MESSAGES // 2
        lines[half:-half] = [
            (lines[half][0], f"  ... {len(lines) - SHOWN_MESSAGES} more messages ...")
        ]
    return lines


def connection_text(entry: TcpConnection) -> str:
    copied = entry.sent or entry.received
    passed = f"{counted(entry.sent, 'byte')} out, {entry.received} back" if copied else ""
    between = f"container {entry.between}" if entry.between else ""
    answered = ", ".join(filter(None, [str(entry.fault or ""), between, passed]))
    return f"{entry}{f' -> {answered}' if answered else ''}{raised_text(entry)}"


def raised_text(entry: Called) -> str:
    if entry.error is None:
        return ""
    asked = isinstance(entry, (Exchange, PacketAttempt)) and entry.route is None
    who = "match= predicate" if asked else "handler"
    return f", {who} raised {type(entry.error).__name__}"


def time_text(seconds: float) -> str:
    """The beginning of a line: the time into the test."""
    return f"{seconds:8.3f} s  "
