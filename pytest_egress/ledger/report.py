"""The texts of verdicts and errors about traffic, and their headlines.

A text says what happened with the value quoted, which routes there were, and what to type. Pure functions of values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pytest_egress.base.account import over_limit
from pytest_egress.base.escaping import escaped
from pytest_egress.base.frames import raised_at
from pytest_egress.base.raising import said_of
from pytest_egress.errors import EgressError
from pytest_egress.ledger.nearest import nearest_lines
from pytest_egress.ledger.remedies import has_remedy, purpose, remedy, typed
from pytest_egress.ledger.upstream import reached_hosts
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.routes.route import Scope, later_text
from pytest_egress.routes.table import NearMiss
from pytest_egress.traffic.entries import (
    CERTAIN,
    AskedProxy,
    Called,
    DnsQuery,
    Entry,
    Exchange,
    PacketAttempt,
    TcpConnection,
    TlsFailure,
    needs_server,
)
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import counted, cut, host_port

SHOWN_ATTEMPTS: Final = 50  # different attempts of a verdict
SHOWN_AWAITED: Final = 5  # faults that a container waited for
SHOWN_REACHED: Final = 3  # real servers, in the first line of a verdict
SHOWN_NEAR: Final = 2  # near misses of an attempt
SHOWN_PROBLEM: Final = 200  # characters of the line that says why an entry fails its test


def route_line(route: InnerRoute) -> str:
    return f"{route}" + (f"  declared at {route.declared_at}" if route.declared_at else "")


def near_lines(near: Sequence[NearMiss]) -> list[str]:
    lines = []
    for miss in near[:SHOWN_NEAR]:
        lines.append(f"nearest route: {miss.route}")
        lines += [f"    declared at {miss.route.declared_at}"] if miss.route.declared_at else []
        lines += [f"    {difference}" for difference in miss.differences]
    return lines


def prose(text: str, indent: str) -> list[str]:
    """A line for each sentence, however long: `plugin.painting` has it fit a terminal."""
    return [indent + line for line in text.replace(". ", ".\n").replace("; ", ";\n").splitlines()]


def attempt_lines(entry: Entry, count: int, *, container: str = "") -> list[str]:
    """Lines about an unrouted attempt: what it was, why no route claims it, and what to type.

    Args:
        container: The container that made it; "" where only one made any.
    """
    who = f"  of {container}" if container else ""
    lines = [f"  {attempt_text(entry)}{who}{times_text(count)}", *prose(entry.note, DETAIL)]
    lines += [DETAIL + line for line in near_lines(entry.near)]
    if isinstance(entry, Exchange) and entry._asked_proxy is not None:
        return [*lines, *(DETAIL + line for line in proxy_lines(entry._asked_proxy))]
    if not has_remedy(entry):
        return lines
    lines.append(f"{DETAIL}{purpose(entry)}: {remedy(entry)}")
    if needs_server(entry):
        where = host_port(typed(entry), entry.port)
        lines.append(f'{DETAIL}to let the real server answer it: egress.passthrough("{where}")')
    if isinstance(entry, DnsQuery):
        lines.append(
            f'{DETAIL}to expect that it does not exist: egress.dns("{typed(entry)}", "NXDOMAIN")'
        )
    return lines


def proxy_lines(asked: AskedProxy) -> Iterator[str]:
    """What to type where a container asks a proxy that no route is."""
    without = ", ".join(f'"{name}": ""' for name in asked.variables)
    yield f"to have it dial by itself: env={{{without}}}"
    yield f'to answer as that proxy: egress.proxy("{asked.address}")'


def attempt_text(entry: Entry) -> str:
    """DNS queries of all types for a name are one attempt."""
    is_query = isinstance(entry, DnsQuery)
    text = f"DNS {redactor_of(entry).host(entry.host)}" if is_query else str(entry)
    return f"{text}  through the proxy {entry.through}" if entry.through else text


DETAIL: Final = " " * 6  # indents the details of an attempt


def fold(entries: Iterable[Entry]) -> list[tuple[Entry, int]]:
    """Fold identical attempts into the first of them and their number, in the order of the first.

    A lookup of a name asks for several types; these count as one attempt. Datagrams to one server are folded whatever
    they carry, and QUIC apart.
    """
    found: dict[tuple[str, ...], tuple[Entry, Counter[str]]] = {}
    for entry in entries:
        text = entry.where if is_datagram(entry) else attempt_text(entry)
        key = (entry.container, entry.kind, text, entry.note)
        _, types = found.setdefault(key, (entry, Counter()))
        types[entry.type if isinstance(entry, DnsQuery) else ""] += 1
    return [(first, max(types.values())) for first, types in found.values()]


def is_datagram(entry: Entry) -> bool:
    return isinstance(entry, PacketAttempt) and entry.protocol == "UDP" and not entry.is_quic


def unrouted_text(entries: Sequence[Entry], window: Iterable[Entry] = ()) -> str:
    """The verdict on unrouted attempts.

    Args:
        window: All entries of the test: a route, or the policy, may have let others reach their real servers.
    """
    containers = list(dict.fromkeys(entry.container for entry in entries))
    folded_entries = fold(entries)
    attempts = sum(count for _, count in folded_entries)
    number = counted(attempts, "unrouted attempt")
    lines = [f"{number} of {' and '.join(containers)}; {stayed_text(attempts, window)}:"]
    for entry, count in folded_entries[:SHOWN_ATTEMPTS]:
        container = entry.container if len(containers) > 1 else ""
        lines += ["", *attempt_lines(entry, count, container=container)]
    return "\n".join(lines + more_lines(folded_entries))


def stayed_text(attempts: int, window: Iterable[Entry]) -> str:
    """That unrouted attempts did not get out, and whom others have reached."""
    reached = reached_hosts(window)
    if not reached:
        return "nothing got out"
    shown = [host or "*" for host in reached[:SHOWN_REACHED]]
    more = [f"{len(reached) - SHOWN_REACHED} more"] if len(reached) > SHOWN_REACHED else []
    none = "it did not get out" if attempts == 1 else "none of these got out"
    return f"{none}, others reached the real {' and '.join([', '.join(shown), *more])}"


def more_lines(entries: Sequence[tuple[Entry, int]]) -> list[str]:
    hidden = entries[SHOWN_ATTEMPTS:]
    total = sum(count for _, count in hidden)
    return ["", f"  and {total} more, of {counted(len(hidden), 'kind')}"] if hidden else []


def accepted_text(entries: Sequence[Entry]) -> str:
    """The verdict on requests over a bad certificate or an old version of TLS."""
    by_fault: dict[str, list[Entry]] = {}
    for entry in entries:
        by_fault.setdefault(accepted_line(entry), []).append(entry)
    lines = []
    for fault, its_entries in by_fault.items():
        folded_entries = fold(its_entries)
        lines.append(f"{fault}:")
        for entry, count in folded_entries[:SHOWN_ATTEMPTS]:
            lines += ["", f"  {entry}{times_text(count)}", *prose(entry.note, DETAIL)]
            lines += [DETAIL + line for line in presented_lines(entry)]
        lines += [*more_lines(folded_entries), ""]
    return "\n".join([*lines, ACCEPTANCE])


def accepted_line(entry: Entry) -> str:
    assert entry.accepted is not None
    return f"{entry.container} accepted {entry.accepted.route.presented.to(entry.host)}"


def presented_lines(entry: Entry) -> Iterator[str]:
    assert entry.accepted is not None
    route, library = entry.accepted
    if library is not None:
        yield f"its client's TLS library, by its ClientHello: {library}"
    yield f"presented by: {route_line(route)}"


ACCEPTANCE: Final = (
    "Whoever is between it and that host can read and change what they send each other.\n"
    "If this is meant, assert the call, as by assert_called_once(): the test then requires it."
)


def handshakes_text(entries: Sequence[Entry]) -> str:
    """The verdict on TLS handshakes that failed at routes, and that nothing excuses."""
    containers = list(dict.fromkeys(entry.container for entry in entries))
    number = "a TLS handshake" if len(entries) == 1 else f"{len(entries)} TLS handshakes"
    excusable = not any(isinstance(e, TlsFailure) and e.reason in CERTAIN for e in entries)
    later = ", and no later one of the same client succeeded" if excusable else ""
    lines = [f"{number} of {' and '.join(containers)} failed at what a route claims{later}:"]
    failures = fold(entries)
    for entry, count in failures[:SHOWN_ATTEMPTS]:
        who = f"  of {entry.container}" if len(containers) > 1 else ""
        lines += [
            "",
            f"  {attempt_text(entry)}{who}{times_text(count)}",
            *prose(entry.note, DETAIL),
        ]
        lines += [f"{DETAIL}claimed by: {route_line(miss.route)}" for miss in entry.near]
        lines += [f"{DETAIL}to answer it: {remedy(entry)}"] if needs_server(entry) else []
        address = host_port(typed(entry), entry.port)
        lines.append(f'{DETAIL}to expect it, and answer nobody there: egress.block("{address}")')
    return "\n".join(lines + more_lines(failures))


def complaints_text(
    complaints: Sequence[str],
    repeated: int,
    unrecorded: int,
    evicted: Mapping[str, int] = MappingProxyType({}),
    lost: Mapping[str, int] = MappingProxyType({}),
) -> str:
    lines = [*complaints, *evicted_lines(evicted), *lost_lines(lost)]
    if repeated:
        lines.append(f"and {repeated} more of this kind")
    if unrecorded:
        number = f"at least {counted(unrecorded, 'attempt')}"
        lines.append(f"{number} could not be recorded: there were too many, or too many at once")
    return "\n".join(lines)


def evicted_lines(evicted: Mapping[str, int]) -> Iterator[str]:
    for why, count in evicted.items():
        number = "an idle connection was" if count == 1 else f"{count} idle connections were"
        yield f"{number} cut to make room for others, the longest idle first: {why}"
        yield "  have the target close what it does not use, or give this process more descriptors"


def lost_lines(lost: Mapping[str, int]) -> Iterator[str]:
    for what, size in lost.items():
        yield f"{size:,} bytes of {what} were cut: {over_limit()}"


def never_called_text(
    routes: Sequence[InnerRoute],
    entries: Sequence[Entry],
    *,
    any_container: bool,
    running: Sequence[str] = (),
    declared: Sequence[InnerRoute] = (),
) -> str:
    """The verdict on routes that were never called, or less often than declared.

    Args:
        declared: All routes of the test, in the order of their declarations.
    """
    number = "a route was" if len(routes) == 1 else f"{len(routes)} routes were"
    seldom = any(route.times_called for route in routes)
    lines = [f"{number} {'called less often than declared' if seldom else 'never called'}:"]
    for route in routes:
        lines += ["", f"  {route_line(route)}"]
        lines += [f"{DETAIL}{called_text(route)}"] if seldom else []
        lines += [DETAIL + line for line in nearest_lines(route, entries, declared)]
        for entry in close_to(route, entries):
            lines += [f"{DETAIL}{entry}", *prose(entry.note, DETAIL + "    ")]
            if needs_server(entry):
                lines.append(f"{DETAIL}    to answer it: {remedy(entry)}")
    return "\n".join([*lines, "", *advice(routes, entries, any_container, running)])


MOST_UNPLAYED: Final = 20


def unplayed_text(lines: Sequence[str]) -> str:
    """The verdict on recordings that nothing has asked for."""
    number = "a recording was" if len(lines) == 1 else f"{len(lines)} recordings were"
    more = len(lines) - MOST_UNPLAYED
    shown = [f"  {line}" for line in lines[:MOST_UNPLAYED]]
    shown += [f"  and {more} more"] if more > 0 else []
    advice = (
        "If it is no longer sent, record the test anew with --egress-record-mode=rewrite, or take it out of the file; "
        "with optional=True it may be left."
    )
    return "\n".join([f"{number} never asked for:", "", *shown, "", advice])


def unplayed_headline(lines: Sequence[str]) -> str:
    return f"{lines[0]}: recorded, and never asked for{more_text(len(lines) - 1)}"


def called_text(route: InnerRoute) -> str:
    """How often a route was called, in the terms of its declaration."""
    called, times, sequence = route.times_called, route.times or 1, route.turns.sequence
    if sequence is None:
        return f"called {called} of {counted(times, 'time')}"
    # Calls from before `respond(sequence(...))` are in both numbers.
    given = max(len(sequence) - (times - called), 0)
    return f"its sequence(...) gave {given} of {counted(len(sequence), 'answer')}"


def advice(
    routes: Sequence[InnerRoute],
    entries: Sequence[Entry],
    any_container: bool,
    running: Sequence[str],
) -> Iterator[str]:
    """Sentences that say what to do about routes that were not called."""
    if not any_container:
        yield NO_CONTAINER
        return
    if not entries:
        yield "No container sent anything in this test."
    it, is_told = "it" if len(routes) == 1 else "them", any(close_to(r, entries) for r in routes)
    if running and not is_told:
        counts = {"times" if r.kind.answers_names else r.times or 1 for r in routes}
        yield f"{later_text(running, counts.pop() if len(counts) == 1 else 'times')}."
    if is_told:
        yield f"Mend what is said there, or declare {it} with optional=True: without a route that is unrouted."
    else:
        yield f"Remove {it}, or declare {it} with optional=True."


NO_CONTAINER: Final = (
    "No container ran in this test. egress answers what containers send: start one with\n"
    "egress.run(image, command) or egress.start(image).\n"
    "What the test process itself sends is not intercepted."
)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The origin of a container that several tests share.

    Attributes:
        scope: The scope of the egress that started it.
        place: The line that started it, as `file.py:12`; "" where that is not known.
        fixture: The fixture that was being set up then; "" for none.
        test: The test that it was started for.
        previous: The test that ran before this one; "" where none did since the container was started.
        opened: When this test began, in seconds since the epoch.
    """

    container: str
    scope: Scope
    place: str
    fixture: str
    test: str
    previous: str
    opened: float


def shared_text(entries: Sequence[Entry], shared: Sequence[Shared]) -> str:
    """A paragraph for each shared container whose attempts an earlier test may have set off; "" for none."""
    texts = []
    for one in shared:
        started = [entry.started for entry in entries if entry.container == one.container]
        if started and one.previous:
            texts.append("\n".join(shared_lines(one, max(min(started) - one.opened, 0))))
    return "\n\n".join(texts)


def shared_lines(one: Shared, seconds: float) -> Iterator[str]:
    """Lines about a shared container, and the earlier test that may have set off its attempts.

    Args:
        seconds: The time from the beginning of this test to the first attempt.
    """
    starter = " for ".join(filter(None, [one.fixture and f"the fixture {one.fixture!r}", one.test]))
    by = f" by {starter}" if starter else ""
    where = f" at {one.place}" if one.place else ""
    yield f"{one.container} is shared by all tests of its {one.scope}. It was started{by}{where}."
    yield (
        f"  {one.previous} ran before this test, and may have set this off: "
        f"the first of it came {seconds:.3f} s into this test."
    )
    yield f"  To let a test wait for what it sets off: {UNTIL_QUIET}"
    yield (
        f"  If the container sends this by itself, declare the route on {one.scope}_egress: "
        "it then answers in every test."
    )


def shared_note(entries: Iterable[Entry], shared: Sequence[Shared]) -> Iterator[str]:
    """Lines for each shared container among whose attempts some may be set off by the test before."""
    names = {entry.container for entry in entries if not isinstance(entry, DnsQuery)}
    for one in shared:
        if one.container in names and one.previous:
            yield f"{one.container} is shared: what {one.previous} set off, which ran before, may be among this."
            yield f"  To let a test wait for that: {UNTIL_QUIET}"


UNTIL_QUIET: Final = "egress.wait_until_quiet(seconds)"


def restless_text(
    seconds: float,
    timeout: float,
    under_way: Sequence[str],
    entries: Sequence[Entry],
) -> str:
    """The error of `wait_until_quiet`: there was no quiet of `seconds` within `timeout`."""
    lines = [f"waited {timeout:g} s for {seconds:g} s without an attempt, and there always was one"]
    lines += ["Under way:", *under_way] if under_way else []
    listed = fold([e for e in entries if not isinstance(e, DnsQuery)] or entries)
    shown = listed[:SHOWN_ATTEMPTS]
    lines += ["Attempted meanwhile:"] if shown else []
    lines += [f"  {attempt_text(e)}  of {e.container}{times_text(count)}" for e, count in shown]
    return "\n".join([*lines, *more_lines(listed)])


def close_to(route: InnerRoute, entries: Sequence[Entry]) -> list[Entry]:
    """The failed connections and packets that may be the reason why a route was not called."""
    return [
        entry
        for entry, _ in fold(entries)
        if isinstance(entry, (TlsFailure, TcpConnection, PacketAttempt))
        and entry.note
        and route.parsed_address.matches(entry.host, entry.port or 0)
    ]


def handler_error_text(exchange: Called) -> str:
    error, route = exchange.error, exchange.route
    who = f"the handler of {route_line(route)}" if route is not None else "a match= predicate"
    asked = next((miss.route for miss in exchange.near if miss.error is error), None)
    if route is None and asked is not None:
        who = f"the match= predicate of {route_line(asked)}"
    said = said_of(error)
    if not isinstance(error, EgressError) or raised_at(error):
        said = said.partition("\n")[0]  # the traceback has the rest
    text = f"{who} raised {type(error).__name__}: {said}".rstrip(": ")
    where = f"\n  at {place}" if asked is not None and (place := raised_at(error)) else ""
    return f"{text}{where}\n  for {exchange} of {exchange.container}"


def errors_by_text(
    entries: Iterable[Entry],
) -> dict[str, list[Called]]:
    """The entries with errors of handlers, by the text that a failure has of each."""
    found: dict[str, list[Called]] = {}
    for entry in entries:
        if isinstance(entry, Called) and entry.error is not None:
            found.setdefault(handler_error_text(entry), []).append(entry)
    return found


def handler_errors_lines(entries: Iterable[Entry], told: BaseException | None) -> list[str]:
    """Lines about the errors of handlers, each text once, without the error that is reported already (`told`)."""
    found = errors_by_text(entries).items()
    untold = [text for text, same in found if all(entry.error is not told for entry in same)]
    return [line for text in untold[:SHOWN_ATTEMPTS] for line in (text, "")]


def problem(entry: Entry) -> str:
    """Why an entry fails its test (`verdict.failing`), in one line without its secrets; "" where it does not."""
    text = " ".join(redactor_of(entry).hidden(why_it_fails(entry)).split())
    return cut(escaped(text), SHOWN_PROBLEM)


def why_it_fails(entry: Entry) -> str:
    if entry.leak:
        return entry.leak
    error = getattr(entry, "error", None)
    if error is not None:
        is_predicate = isinstance(entry, Exchange) and entry.route is None
        who = "a match= predicate" if is_predicate else "its handler"
        return f"{who} raised {type(error).__name__}: {said_of(error)}".rstrip(": ")
    if entry.accepted is not None:
        return f"accepted {entry.accepted.route.presented.to(entry.host)}"
    note = entry.note.partition(". ")[0]
    if isinstance(entry, TlsFailure):
        return rejection_text([entry]) or f"its TLS handshake failed: {note}"
    if entry.outcome != "unrouted":
        return ""
    differences = entry.near[0].differences if entry.near else ()
    return note or (differences[0] if differences else "no route claims it")


# Headlines: a failure in one line. pytest cuts it at the end, so it begins with what was attempted.


def unrouted_headline(entries: Sequence[Entry]) -> str:
    return first_and_more(fold(entries), "no route claims it")


def accepted_headline(entries: Sequence[Entry]) -> str:
    text = f"{accepted_line(entries[0])}: {entries[0]}"
    return f"{text}{more_text(len(fold(entries)) - 1)}"


def handler_headline(exchange: Called) -> str:
    who = "its handler" if exchange.route is not None else "a match= predicate"
    said = said_of(exchange.error).partition("\n")[0]
    return f"{exchange}: {who} raised {type(exchange.error).__name__}: {said}".rstrip(": ")


def stuck_headline(texts: Sequence[str]) -> str:
    """The attempt is taken from the first text, after "for"."""
    who, _, rest = texts[0].partition("\n  for ")
    what = rest.partition("\n")[0]
    return (f"{what}: {who}" if what else who) + more_text(len(texts) - 1)


def never_called_headline(routes: Sequence[InnerRoute], entries: Sequence[Entry]) -> str:
    """The route whose client has rejected the handshake comes first: that is why it was not called."""
    rejected = ((route, rejection_text(close_to(route, entries))) for route in routes)
    route, what = next((found for found in rejected if found[1]), (routes[0], ""))
    what = what or (called_text(route) if route.times_called else "never called")
    return f"{route.address}: {what}, {route}" + more_text(len(routes) - 1)


def rejection_text(entries: Iterable[Entry]) -> str:
    """What the first client that gave a reason has rejected, in a few words; "" where none did."""
    reasons = (entry.reason for entry in entries if isinstance(entry, TlsFailure))
    return next((REJECTIONS[reason] for reason in reasons if reason in REJECTIONS), "")


REJECTIONS: Final = {
    "untrusted": "its client does not trust the CA",
    "likely-untrusted": "likely its client does not trust the CA",
    "wrong-name": "its client expects another name in the certificate",
}
"""Reasons of a `TlsFailure` in the few words that pytest's line of 80 characters has room for."""


def handshakes_headline(entries: Sequence[Entry]) -> str:
    entry, note = entries[0], entries[0].note.partition(". ")[0]
    where = host_port(entry.host, entry.port)
    what = rejection_text(entries[:1]) or f"the TLS handshake failed, {note}"
    return f"{where}: {what}{more_text(len(fold(entries)) - 1)}"


def surplus_headline(others: Iterable[Entry]) -> str:
    return first_and_more(fold(others), "not expected")


def restless_headline(seconds: float, under_way: Sequence[str], entries: Sequence[Entry]) -> str:
    never = f"it was never quiet for {seconds:g} s"
    told = [attempt_text(entry) for entry in entries if not isinstance(entry, DnsQuery)]
    told += [line.strip() for line in under_way[:1]]
    told += [attempt_text(entry) for entry in entries[:1]]
    return f"{told[0]}: {never}" if told else never


def first_and_more(entries: Sequence[tuple[Entry, int]], what: str) -> str:
    return f"{attempt_text(entries[0][0])}: {what}{more_text(len(entries) - 1)}"


def more_text(number: int) -> str:
    return f" (and {number} more)" if number else ""


def awaited_text(pauses: Iterable[object]) -> str:
    """The end of an error about a container that took too long: the faults that it still waited for; "" for none."""
    found = Counter(map(str, pauses))
    lines = [f"  {line}{times_text(count)}" for line, count in found.items()]
    shown = lines[:SHOWN_AWAITED]
    more = [f"  and {len(lines) - len(shown)} more"] if len(lines) > len(shown) else []
    return "\n".join(["\nIt still waited for:", *shown, *more]) if lines else ""


def surplus_text(addresses: Sequence[str], others: Iterable[Entry]) -> str:
    """The error of `assert_only` and `assert_no_egress`."""
    expected = (
        f"only {', '.join(addresses)}; there also was:" if addresses else "no egress; there was:"
    )
    listed = fold(others)
    shown = listed[:SHOWN_ATTEMPTS]
    lines = [f"  {attempt_text(entry)}" + times_text(count) for entry, count in shown]
    return "\n".join([f"expected {expected}", *lines, *more_lines(listed)])


def no_container_text(expected: str) -> str:
    """The error of an assertion about all attempts where no container ran that could attempt anything."""
    return f"expected {expected}, which proves nothing here.\n{NO_CONTAINER}"


def times_text(count: int) -> str:
    return f"  ({count} times)" if count > 1 else ""
