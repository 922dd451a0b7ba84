"""Tells the DNS queries that a resolver's search list made from those that a program asked for. Values only.

A resolver tries a name with each suffix of its search list (resolv.conf(5)). glibc does so after the name itself
where that has enough dots (`ndots`) and is not found, else before it; musl does so only before it. The suffixes are
not known here, since an image or a program may bring a list of its own. But the queries with a suffix come right
before or after that for the name itself, or between those of other searches at the same time with the same suffixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from pytest_egress.traffic.entries import DnsQuery, Entry

APPENDED: Final = "made by a resolver's search list, so no attempt of its own"
LOOKED_AT: Final = 256
"""Entries before a query that are looked at: twenty concurrent searches with six suffixes and two types each."""


def mark_searches(entries: Sequence[Entry], query: DnsQuery) -> None:
    """Mark queries that a search list made as recorded, and so no attempts: this query, or those before it.

    Args:
        entries: The entries of the query's window so far.
        query: A query that is not among them yet.
    """
    if query.outcome != "recorded" and is_appended(entries, query):
        query.outcome, query.note, query.near = "recorded", APPENDED, ()
    before = [*queries_before(entries, query)]
    suffixes = tuple(q.host[len(query.host) :] for q in before if is_longer(q, query))
    if not suffixes:
        return
    asked = {q.host for q in before}
    for earlier in before:
        if is_longer(earlier, query):
            if earlier.outcome != "recorded":
                earlier.outcome, earlier.note, earlier.near = "recorded", APPENDED, ()
        elif not is_searched_for(earlier.host, suffixes, asked):
            return


def is_searched_for(name: str, suffixes: tuple[str, ...], asked: set[str]) -> bool:
    """Whether a name is of another search with one of these suffixes: it ends in one, or was asked for with one."""
    return name.endswith(suffixes) or any(name + suffix in asked for suffix in suffixes)


def is_appended(entries: Sequence[Entry], query: DnsQuery) -> bool:
    """Whether a query is for an earlier name plus a suffix, and that name's query of the same type found nothing."""
    for earlier in queries_before(entries, query):
        if is_longer(query, earlier):
            if earlier.type == query.type:
                return not earlier.answer
        elif earlier.note != APPENDED:
            return False
    return False


def queries_before(entries: Sequence[Entry], query: DnsQuery) -> Iterator[DnsQuery]:
    """The queries of the same container for other names just before this one, the latest first."""
    for entry in islice(reversed(entries), LOOKED_AT):
        own = isinstance(entry, DnsQuery) and entry.container == query.container
        if own and isinstance(entry, DnsQuery) and entry.host != query.host:
            yield entry


def is_longer(query: DnsQuery, other: DnsQuery) -> bool:
    """Whether a query's name is the other's with more labels appended."""
    return query.host.startswith(f"{other.host}.")
