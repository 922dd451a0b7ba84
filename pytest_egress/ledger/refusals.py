"""The bodies of the responses by which the gateway refuses a request: a client reads them, and its logs show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from pytest_egress.ledger.remedies import remedy
from pytest_egress.ledger.report import (
    SHOWN_ATTEMPTS,
    errors_by_text,
    fold,
    handler_error_text,
    near_lines,
    route_line,
)
from pytest_egress.traffic.entries import Entry, Exchange
from pytest_egress.traffic.redaction.redactor import redactor_of

OURS: Final = "pytest-egress: "


def unrouted_body(exchange: Exchange) -> str:
    """The body of the 502 for a request that no route answers."""
    if exchange.note:  # refused for its form: no route would help
        return refused_body(exchange)
    lines = [f"{OURS}no route answers {exchange}", *near_lines(exchange.near)]
    return without_known(exchange, "\n".join([*lines, f"to answer it: {remedy(exchange)}", ""]))


def blocked_body(exchange: Exchange) -> str:
    why = route_line(exchange.route) if exchange.route is not None else 'unrouted="block"'
    return without_known(exchange, f"{OURS}{exchange} is blocked by {why}\n")


def failed_upstream_body(exchange: Exchange) -> str:
    return without_known(exchange, f"{OURS}{exchange.note}\n")


def refused_body(exchange: Exchange) -> str:
    """The request is refused whatever routes there are, such as one for another Host: 421."""
    return without_known(exchange, f"{OURS}{exchange}: {exchange.note}\n")


def handler_error_body(exchange: Exchange) -> str:
    text = f"{OURS}{handler_error_text(exchange)}\nThe test fails with its traceback.\n"
    return without_known(exchange, text)


def without_known(exchange: Exchange, text: str) -> str:
    """The client's log may show it."""
    return redactor_of(exchange).known(text)


def without_advice(log: str, entries: Iterable[Entry]) -> str:
    """A log of a failure without what the failure says already.

    A client that prints the body of a refusal has its reason and advice in its log, once for each request. There they
    become a line which names the request. The refusal of a request that the failure does not show stays.
    """
    if OURS not in log:
        return log
    listed = list(entries)
    told = {
        refusal_of(entry): f"{OURS}{entry} [its refusal, see above]"
        for entry in (*shown_unrouted(listed), *shown_errors(listed))
        if isinstance(entry, Exchange)
    }
    for said in sorted(told, key=len, reverse=True):  # one may begin another
        log = log.replace(said, told[said]) if said else log
    return log


def shown_unrouted(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The unrouted attempts that a failure shows: the first of each kind."""
    folded_entries = fold(entry for entry in entries if entry.outcome == "unrouted")
    return (entry for entry, _ in folded_entries[:SHOWN_ATTEMPTS])


def shown_errors(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The first entries with errors of handlers that a failure shows: one for each text."""
    return (same[0] for same in islice(errors_by_text(entries).values(), SHOWN_ATTEMPTS))


def refusal_of(exchange: Exchange) -> str:
    """The text of several lines by which a request was refused; "" where there is none such."""
    body = handler_error_body(exchange) if exchange.error is not None else unrouted_body(exchange)
    body = body.strip()
    return body if "\n" in body else ""
