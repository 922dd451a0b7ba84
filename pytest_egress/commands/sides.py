"""What an audit of an image says, in a form in which two can be compared."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from pytest_egress.base.escaping import one_line
from pytest_egress.commands.audit import (
    AS_IT_IS,
    audited,
    declare_nothing,
    ended_text,
    run_and_heed,
)
from pytest_egress.commands.findings import Audit, asked, reactions, whereabouts
from pytest_egress.commands.order import Order
from pytest_egress.commands.trial import opened
from pytest_egress.errors import EgressError
from pytest_egress.evidence.destinations import image_of, is_own_choice, kind_of
from pytest_egress.evidence.lock import LockLine
from pytest_egress.traffic.entries import DnsQuery, Entry
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import host_port


def audits(orders: Sequence[Order]) -> dict[str, tuple[Mapping[str, str], Mapping[str, str]]]:
    """What each of two images does, by the parts of an audit."""
    before, after = map(parts_of_image, orders)
    return {part: (before[part], after[part]) for part in before}


def parts_of_image(order: Order) -> dict[str, Mapping[str, str]]:
    with opened(order) as session:
        audit = audited(session, order)[1]
    check_seen(order, *audit.unseen.values())
    if audit.ended:
        warn_of_ended(order, audit.ended)
    return parts_of(audit)


def check_seen(order: Order, *unseen: str) -> None:
    """Raise EgressError where not all of a run was seen: what differs there would be no difference."""
    for why in filter(None, unseen):
        raise EgressError(f"{order.image} cannot be compared, since not all of it was seen: {why}")


def warn_of_ended(order: Order, runs: int) -> None:
    text = f"{order.image}: {ended_text(order, runs)}"
    print(order.redactor.hidden(one_line(text)), file=sys.stderr)


def parts_of(audit: Audit) -> dict[str, Mapping[str, str]]:
    """The parts of an audit: how something is, by what it is. How often it was is no difference."""
    asks: dict[str, list[str]] = {}
    for protocol, address, how in asked(audit):
        asks.setdefault(f"{protocol} {address}", []).append(how)
    return {
        "Whom it asks": {what: ", ".join(sorted(how)) for what, how in asks.items()},
        "Where its secrets go": {
            f"{name} to {to} in {place}": wrong for name, to, place, wrong in whereabouts(audit)
        },
        "What it accepts": {
            one_line(host): accepted(reacted) for host, reacted in reactions(audit).items()
        },
    }


def accepted(reacted: Mapping[str, str]) -> str:
    """What an image did with all that it was shown by a host: `ACCEPTED expired; rejected TLSv1, TLSv1.1`."""
    did: dict[str, list[str]] = {}
    for name, word in reacted.items():
        did.setdefault(word, []).append(name)
    if len(did) == 1:
        return f"{next(iter(did))} all"
    return "; ".join(f"{word} {', '.join(names)}" for word, names in sorted(did.items()))


def reached(order: Order) -> tuple[str, list[LockLine]]:
    """The name of an image in a lock, and what it reaches in one run, where nothing is answered."""
    image = image_of(order.image, {})
    with opened(order) as session:
        trial = run_and_heed(session, order, AS_IT_IS, declare_nothing)
    check_seen(order, trial.unseen)
    if trial.exit_code is None:
        warn_of_ended(order, 1)
    return image, lines_of(trial.entries, image)


def lines_of(entries: Sequence[Entry], image: str) -> list[LockLine]:
    dialled = {entry.host for entry in entries if not isinstance(entry, DnsQuery)}
    found: dict[LockLine, None] = {}
    for entry in entries:
        host = redactor_of(entry).host(entry.host)
        if isinstance(entry, DnsQuery):
            if is_own_choice(entry) and entry.host not in dialled:
                found[LockLine(image, "names", host)] = None
        elif entry.host not in ("", "*") and (kind := kind_of(entry)) is not None:
            found[LockLine(image, kind, host_port(host, entry.port))] = None
    return [*found]
