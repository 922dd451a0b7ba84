"""Every text that a user reads about traffic: verdicts, the timeline of the ledger, and the bodies of refusals.

What happened with the value quoted, what was registered, and what to type. Pure functions of values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pytest_egress.exchange import (
    DnsQuery,
    Entry,
    Exchange,
    PacketAttempt,
    TcpAttempt,
    TlsFailure,
    reason_phrase,
)
from pytest_egress.routing import NearMiss, Route, shown

SHOWN_ENTRIES: Final = 200  # of a timeline: the first and the last hundred
SHOWN_NEAR: Final = 2  # near misses of an attempt


def host_port(host: str, port: int | None) -> str:
    """`host:port`, an IPv6 address in brackets."""
    host = f"[{host}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def subject(entry: Entry) -> str:
    """What was attempted, in a line."""
    if isinstance(entry, Exchange):
        return f"{entry.request.method} {entry.request.url}"
    if isinstance(entry, DnsQuery):
        return f"{entry.host} {entry.type}"
    where = host_port(entry.host, entry.port)
    address = getattr(entry, "address", "")
    dialled = f" ({address})" if address and address != entry.host else ""
    if isinstance(entry, TlsFailure):
        return f"TLS {where}{dialled}"
    if isinstance(entry, TcpAttempt):
        return f"TCP {where}{dialled}" + (
            f", first bytes {shown(entry.first_bytes)}" if entry.first_bytes else ""
        )
    if isinstance(entry, PacketAttempt):
        quic = ", probably QUIC" if entry.protocol == "UDP" and entry.port == 443 else ""
        return f"{entry.protocol} {where}{dialled}, {entry.size} bytes{quic}"
    return where


def remedy(entry: Entry) -> str:
    """The line of code that would route an attempt."""
    if isinstance(entry, Exchange):
        request = entry.request
        address = host_port(
            request.host,
            None if request.port == {"https": 443, "http": 80}[request.scheme] else request.port,
        )
        path = "" if request.method == "CONNECT" else f", path={quoted(request.path)}"
        return f'egress.intercept_{request.scheme}("{address}", method="{request.method}"{path})'
    if isinstance(entry, TlsFailure):
        return f'egress.intercept_https("{host_port(entry.host, None if entry.port == 443 else entry.port)}")'
    return f'egress.block("{host_port(entry.host, entry.port)}")'


def quoted(text: str) -> str:
    """A text as it stands in code, with the quotes that formatters use."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'


def route_line(route: Route) -> str:
    """A route with the place of its declaration."""
    return f"{route}" + (f"  declared at {route.place}" if route.place else "")


def near_lines(near: Sequence[NearMiss]) -> list[str]:
    """The nearest routes, and the fields in which the attempt differs."""
    lines = []
    for miss in near[:SHOWN_NEAR]:
        lines.append(f"nearest route: {route_line(miss.route)}")
        lines += [f"    {difference}" for difference in miss.differences]
    return lines


def attempt_lines(entry: Entry, count: int) -> list[str]:
    """An unrouted attempt: what, why, and what to type."""
    times = f"  ({count} times)" if count > 1 else ""
    lines = [f"  {subject(entry)}{times}"]
    details = [entry.note] if entry.note else []
    if isinstance(entry, Exchange):
        details += near_lines(entry.near)
    if isinstance(entry, Exchange) and entry.note:
        return lines + [
            f"      {line}" for line in details
        ]  # refused for its form: no route would help
    verb = "to answer it" if remedy(entry).startswith("egress.intercept") else "to expect it"
    details.append(f"{verb}: {remedy(entry)}")
    return lines + [f"      {line}" for line in details]


def fold(entries: Iterable[Entry]) -> list[tuple[Entry, int]]:
    """Identical attempts once, with their number, in the order of the first."""
    counted: dict[tuple[str, ...], tuple[Entry, int]] = {}
    for entry in entries:
        key = (entry.container, subject(entry), entry.note)
        first, count = counted.get(key, (entry, 0))
        counted[key] = first, count + 1
    return list(counted.values())


def unrouted_text(entries: Sequence[Entry]) -> str:
    """The verdict on what no route claims."""
    containers = list(dict.fromkeys(entry.container for entry in entries))
    number = f"{len(entries)} unrouted attempt{'s' * (len(entries) > 1)}"
    lines = [f"{number} of {' and '.join(containers)}; nothing got out:"]
    for entry, count in fold(entries):
        lines += ["", *attempt_lines(entry, count)]
    return "\n".join(lines)


def never_called_text(
    routes: Sequence[Route], entries: Sequence[Entry], *, any_container: bool
) -> str:
    """The verdict on routes that were declared and not used."""
    number = "a route was" if len(routes) == 1 else f"{len(routes)} routes were"
    lines = [f"{number} never called:"]
    for route in routes:
        missing = (
            f", answered {route.lifetime_count} of {route.times} times"
            if route.times and route.called
            else ""
        )
        lines += ["", f"  {route_line(route)}{missing}"]
        lines += [f"      {subject(entry)}: {entry.note}" for entry in close_to(route, entries)]
    if not any_container:
        lines += [
            "",
            "No container ran in this test. egress answers what containers send: egress.run(image, command) or",
        ]
        lines += [
            "egress.start(image) starts one. What the test process itself sends is not intercepted."
        ]
    else:
        lines += ["", "Remove it, or declare it with optional=True."]
    return "\n".join(lines)


def close_to(route: Route, entries: Sequence[Entry]) -> list[Entry]:
    """Failed connections that may be why a route was not called."""
    return [
        entry
        for entry, _ in fold(entries)
        if isinstance(entry, (TlsFailure, TcpAttempt))
        and entry.note
        and route.parsed_address.matches(entry.host, entry.port or 0)
    ]


def handler_error_text(exchange: Exchange) -> str:
    """The verdict on a handler that raised."""
    error, route = exchange.error, exchange.route
    who = f"the handler of {route_line(route)}" if route is not None else "a match= predicate"
    text = f"{who} raised {type(error).__name__}: {error}".rstrip(": ")
    return f"{text}\n  for {subject(exchange)} of {exchange.container}"


def ledger_lines(entries: Iterable[Entry]) -> list[str]:
    """The timeline: seconds since the first entry, the container, what, and what became of it."""
    listed = sorted(entries, key=lambda entry: entry.started)
    if not listed:
        return []
    first, several = listed[0].started, len({entry.container for entry in listed}) > 1
    lines = []
    for entry in listed:
        container = f"{entry.container}  " if several else ""
        lines.append(f"{entry.started - first:8.3f} s  {container}{outcome_text(entry)}")
    if len(lines) > SHOWN_ENTRIES:
        half = SHOWN_ENTRIES // 2
        lines[half:-half] = [f"  ... {len(lines) - SHOWN_ENTRIES} more ..."]
    return lines


def outcome_text(entry: Entry) -> str:
    """An entry's line in the timeline."""
    note = f"  [{entry.note}]" if entry.note else ""
    if isinstance(entry, DnsQuery):
        return f"DNS {subject(entry)} -> {', '.join(entry.answer) or entry.rcode}"
    outcome = entry.outcome.upper() if entry.outcome in ("unrouted", "blocked") else ""
    if isinstance(entry, Exchange):
        status = entry.response.status_code if entry.response else None
        answered = (
            f" -> {status} {reason_phrase(status)}".rstrip() if status else " -> no response yet"
        )
        took = f" in {entry.duration * 1000:.1f} ms" if entry.duration is not None else ""
        raised = f", handler raised {type(entry.error).__name__}" if entry.error is not None else ""
        return f"{subject(entry)}{answered}{took}{raised}  {outcome}{note}".rstrip()
    return f"{subject(entry)}  {outcome}{note}".rstrip()


# What a client reads.


def unrouted_body(exchange: Exchange) -> str:
    """The 502 of a request that no route answers."""
    lines = [f"pytest-egress: no route answers {subject(exchange)}"]
    return "\n".join([*lines, *near_lines(exchange.near), f"to answer it: {remedy(exchange)}", ""])


def blocked_body(exchange: Exchange) -> str:
    """The 502 of a request that is blocked."""
    why = route_line(exchange.route) if exchange.route is not None else 'unrouted="block"'
    return f"pytest-egress: {subject(exchange)} is blocked by {why}\n"


def refused_body(exchange: Exchange) -> str:
    """The 421 of a request whose Host is another's."""
    return f"pytest-egress: {subject(exchange)}: {exchange.note}\n"


def handler_error_body(exchange: Exchange) -> str:
    """The 500 of a handler that raised."""
    return f"pytest-egress: {handler_error_text(exchange)}\nThe test fails with its traceback.\n"
