"""The timeline: a line for each entry of the ledger, with its outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection
from pytest_egress.traffic.redaction import masked_text
from pytest_egress.traffic.shown import SHOWN_TARGET, cut

SHOWN_ENTRIES: Final = 200  # its first and last hundred
SHOWN_MESSAGES: Final = 10  # of a WebSocket: its first and last five


def ledger_lines(entries: Iterable[Entry]) -> list[str]:
    """The timeline, a line for each entry: seconds since the first one, the container, the attempt and its outcome."""
    listed = sorted(entries, key=lambda entry: entry.started)
    if not listed:
        return []
    first, several = listed[0].started, len({entry.container for entry in listed}) > 1
    lines = []
    for entry in listed:
        container = f"{entry.container}  " if several else ""
        for at, line in ((entry.started, outcome_text(entry)), *message_lines(entry)):
            lines.append(f"{at - first:8.3f} s  {container}{line}")
    if len(lines) > SHOWN_ENTRIES:
        half = SHOWN_ENTRIES // 2
        lines[half:-half] = [f"  ... {len(lines) - SHOWN_ENTRIES} more ..."]
    return lines


def closed_port_lines(closed: Mapping[tuple[str, int], int]) -> Iterator[str]:
    """Lines about each port of a container where nothing listened when the test connected, and how to wait for it."""
    for (container, port), count in closed.items():
        times = "" if count == 1 else f", {count} times"
        yield f"{container}: nothing listened on port {port} when the test connected to it{times}"
        yield f"  to wait until something does: start(..., wait=port_open({port}))"


def outcome_text(entry: Entry) -> str:
    if isinstance(entry, DnsQuery):
        return query_text(entry)
    what = str(entry)
    if isinstance(entry, Exchange):
        what = exchange_text(entry)
    elif isinstance(entry, TcpConnection):
        what = connection_text(entry)
    outcome = "" if entry.outcome in ("routed", "recorded") else entry.outcome.upper()
    if entry.accepted is not None:
        outcome = " ".join([outcome, f"ACCEPTED {entry.accepted.route.presented.given}"]).strip()
    note = f"[{entry.note.partition('. ')[0]}]" if entry.note else ""  # the verdict has all of it
    return "  ".join(filter(None, [what, through_text(entry), outcome, note]))


def through_text(entry: Entry) -> str:
    return f"through {entry.through}" if entry.through else ""


def query_text(entry: DnsQuery) -> str:
    answered = ", ".join(entry.answer) or entry.rcode or entry.fault or "no answer"
    found = " -> ".join(map(str, (entry, *entry.cnames, cut(str(answered), SHOWN_TARGET))))
    outcome = "" if entry.outcome == "recorded" else entry.outcome.upper()
    fault = f"[{entry.fault}]" if entry.fault not in (None, answered) else ""
    note = f"[{entry.note}]" if not outcome and entry.note and entry.fault != answered else ""
    raised = raised_text(entry).removeprefix(", ")
    return "  ".join(
        filter(None, [f"DNS {found}", through_text(entry), outcome, fault, note, raised])
    )


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
    said = cut(masked_text(details.partition("\n")[0]), SHOWN_TARGET)
    return code.name, f": {said}" if said else ""


def spoken_text(entry: Exchange) -> str:
    """Empty where the exchange has opened no WebSocket."""
    if (ws := entry.websocket) is None:
        return ""
    count = len(entry.messages) + ws.unkept
    state = "open" if ws.close_code is None else f"closed with {ws.close_code}"
    return f", {count} message{'s' * (count != 1)}, {state}"


def message_lines(entry: Entry) -> list[tuple[float, str]]:
    """The messages of a WebSocket for the timeline: when, and a line; those in the middle are left out."""
    if not isinstance(entry, Exchange) or entry.websocket is None:
        return []
    lines = [(message.at, f"  {message}") for message in entry.messages]
    if len(lines) > SHOWN_MESSAGES:
        half = SHOWN_MESSAGES // 2
        lines[half:-half] = [
            (lines[half][0], f"  ... {len(lines) - SHOWN_MESSAGES} more messages ...")
        ]
    return lines


def connection_text(entry: TcpConnection) -> str:
    copied = entry.sent or entry.received
    passed = f"{entry.sent} bytes out, {entry.received} back" if copied else ""
    answered = ", ".join(filter(None, [str(entry.fault or ""), passed]))
    return f"{entry}{f' -> {answered}' if answered else ''}{raised_text(entry)}"


def raised_text(entry: Exchange | TcpConnection | DnsQuery) -> str:
    if entry.error is None:
        return ""
    who = "match= predicate" if isinstance(entry, Exchange) and entry.route is None else "handler"
    return f", {who} raised {type(entry.error).__name__}"
