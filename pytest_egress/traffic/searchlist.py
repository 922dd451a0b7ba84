"""Tells the names that a resolver makes, by its search list, from those that somebody asks for. Values only.

A resolver appends the suffixes of its list (resolv.conf(5)) to a name: glibc after the name itself where that has
dots enough (`ndots`) and is not found, else before it; musl before it alone. Which suffixes there are is not known
here, since an image and a program may bring a list of their own; but they come next to the name itself, or among
the names of searches at the same time that have the same suffixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from pytest_egress.traffic.entries import DnsQuery, Entry

APPENDED: Final = "made by a resolver's search list, so no attempt of its own"
LOOKED_AT: Final = 256
"""Entries before a query: twenty searches at once by six suffixes of two types each, a pool of threads."""


def tell_apart(entries: Sequence[Entry], query: DnsQuery) -> None:
    """Make names that a search list has made no attempts: the query's own, or those asked for before it.

    Args:
        entries: Of its window, up to now.
        query: Not yet among them.
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
    """Whether a name is of another thread's search by one of these suffixes: with it, or the name itself."""
    return name.endswith(suffixes) or any(name + suffix in asked for suffix in suffixes)


def is_appended(entries: Sequence[Entry], query: DnsQuery) -> bool:
    """Whether the name before a query's, of the same type, was not found, and is what its own begins with."""
    for earlier in queries_before(entries, query):
        if is_longer(query, earlier):
            if earlier.type == query.type:
                return not earlier.answer
        elif earlier.note != APPENDED:
            return False
    return False


def queries_before(entries: Sequence[Entry], query: DnsQuery) -> Iterator[DnsQuery]:
    """What the same container asked for just before, of other names, the latest first."""
    for entry in islice(reversed(entries), LOOKED_AT):
        own = isinstance(entry, DnsQuery) and entry.container == query.container
        if own and isinstance(entry, DnsQuery) and entry.host != query.host:
            yield entry


def is_longer(query: DnsQuery, other: DnsQuery) -> bool:
    """Whether a name is another with labels behind it."""
    return query.host.startswith(f"{other.host}.")
