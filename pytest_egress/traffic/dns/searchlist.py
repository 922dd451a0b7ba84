"""Tells the DNS queries that a resolver's search list made from those that a program asked for. Values only.

A resolver tries a name with each suffix of its search list (resolv.conf(5)). glibc does so after the name itself
where that has enough dots (`ndots`) and is not found, else before it; musl does so only before it. A query is made so
where it is for a name with a suffix of the list, and comes right before or after that for the name itself, or between
those of other searches at the same time with the same suffixes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pytest_egress.errors import AddressError
from pytest_egress.traffic.address import normalise_host
from pytest_egress.traffic.entries import DnsQuery, Entry

APPENDED: Final = "made by a resolver's search list, so no attempt of its own"
LOOKED_AT: Final = 256
"""Entries before a query that are looked at: twenty concurrent searches with six suffixes and two types each."""


def suffixes_in(resolv_conf: str) -> list[str] | None:
    """The search list in a file as resolv.conf(5) has it: the last line of `search` or `domain`; None without one."""
    lines = [line.split() for line in resolv_conf.splitlines()]
    found = [words[1:] for words in lines if words[:1] in (["search"], ["domain"])]
    return normal_suffixes(found[-1]) if found else None


def normal_suffixes(names: Iterable[str]) -> list[str]:
    """The root is left out, and what is no name."""
    suffixes = []
    for name in names:
        try:
            suffixes.append(normalise_host(name))
        except AddressError:
            continue
    return suffixes


def mark_searches(entries: Sequence[Entry], query: DnsQuery, searched: Collection[str]) -> None:
    """Mark queries that a search list made as recorded, and so no attempts: this query, or those before it.

    `entries` are those of its window before it; `searched` are the suffixes of the target's search lists.
    """
    if not searched:
        return
    if query.outcome != "recorded" and is_appended(entries, query, searched):
        query.outcome, query.note, query.near = "recorded", APPENDED, ()
    before = [*queries_before(entries, query)]
    longer = [q for q in before if is_longer(q, query, searched)]
    suffixes = tuple(q.host[len(query.host) :] for q in longer)
    if not suffixes:
        return
    asked = {q.host for q in before}
    for earlier in before:
        if is_longer(earlier, query, searched):
            if earlier.outcome != "recorded":
                earlier.outcome, earlier.note, earlier.near = "recorded", APPENDED, ()
        elif not is_searched_for(earlier.host, suffixes, asked):
            return


def is_searched_for(name: str, suffixes: tuple[str, ...], asked: set[str]) -> bool:
    """A name of another search ends in one of the suffixes, or was asked for with one."""
    return name.endswith(suffixes) or any(name + suffix in asked for suffix in suffixes)


def is_appended(entries: Sequence[Entry], query: DnsQuery, searched: Collection[str]) -> bool:
    """Whether a query is for an earlier name plus a suffix, and that name's query of the same type found nothing."""
    for earlier in queries_before(entries, query):
        if is_longer(query, earlier, searched):
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


def is_longer(query: DnsQuery, other: DnsQuery, searched: Collection[str]) -> bool:
    beginning = f"{other.host}."
    return query.host.startswith(beginning) and query.host[len(beginning) :] in searched
