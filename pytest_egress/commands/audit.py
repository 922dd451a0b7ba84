"""`pytest-egress audit IMAGE [COMMAND]`: one run as it is, one for each bad certificate and old version of TLS.

Mail and PostgreSQL begin in the clear. Where the image asks for them, another run offers STARTTLS, and the certificates
are shown there too. One more does not offer it, as where somebody between them has taken it out.

Nothing gets out of any of them. What was not intercepted cannot be audited, and is said to be so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from pytest_egress.commands.findings import (
    INDENT,
    Audit,
    asked_lines,
    bounded,
    findings,
    hosts_of,
    secret_lines,
    table_lines,
    upgraded,
)
from pytest_egress.commands.order import Order
from pytest_egress.commands.pages import check_folder, write_report
from pytest_egress.commands.trial import Trial, opened, run_once
from pytest_egress.commands.upgrades import offer, upgrading, withheld
from pytest_egress.egress import Egress
from pytest_egress.ledger.remedies import is_host
from pytest_egress.routes.certificates import BAD_CERTIFICATES, OLD_TLS_VERSIONS
from pytest_egress.session import Session
from pytest_egress.traffic.entries import Entry, TcpConnection
from pytest_egress.traffic.shown import counted, host_port

AS_IT_IS: Final = "as it is"
STARTTLS: Final = "STARTTLS offered"
WITHHELD: Final = "STARTTLS withheld"
FOUND: Final = 1  # the exit code where something is wrong

SHOWN_TO_CLIENTS: Final[dict[str, dict[str, Any]]] = {
    **{each: {"certificate": each} for each in BAD_CERTIFICATES},
    **{each: {"tls_version": each} for each in OLD_TLS_VERSIONS},
}
"""What a client has to reject, by its name, with the options of a route that shows it."""


def audit(order: Order) -> int:
    """Run the image, print what was found, and return the exit code of the command."""
    if order.report is not None:
        check_folder(order.report)
    with opened(order) as session:
        runs, found = audited(session, order)
        redactor = session.ledger.redactor
        print(redactor.hidden("\n".join(text_lines(order, found))))
        if order.report is not None:
            written = write_report(order.report, order, runs, redactor)
            print(redactor.hidden(f"The report is {written}"))
    return FOUND if findings(found) else 0


def audited(session: Session, order: Order) -> tuple[dict[str, Trial], Audit]:
    """All runs of an audit by their names, and what was found."""
    runs = {AS_IT_IS: run_and_heed(session, order, AS_IT_IS, declare_nothing)}
    usual = runs[AS_IT_IS].entries
    if upgrades := upgrading(usual):
        runs[STARTTLS] = run_and_heed(
            session, order, STARTTLS, partial(offer, answers=upgrades, options={})
        )
    offered = runs[STARTTLS].entries if STARTTLS in runs else ()
    stripped: dict[tuple[str, int | None], bool] = {}
    if begun := upgraded(Audit(usual=usual, offered=offered)):
        plain = withheld(usual, begun, stripped)
        runs[WITHHELD] = run_and_heed(
            session, order, WITHHELD, partial(offer, answers=plain, options={})
        )
    skipped: dict[str, str] = {}
    if hosts_of(Audit(usual=usual, offered=offered)):
        raw = raw_addresses(usual)
        for name, options in SHOWN_TO_CLIENTS.items():
            if why := refusal(session, options):
                skipped[name] = why
            else:
                runs[name] = run_and_heed(session, order, name, shows(options, raw, upgrades))
    presented = {name: run.entries for name, run in runs.items() if name in SHOWN_TO_CLIENTS}
    return runs, Audit(
        usual=usual,
        presented=presented,
        offered=offered,
        stripped=stripped,
        skipped=skipped,
        secrets=session.ledger.redactor.secrets,
        ended=sum(run.exit_code is None for run in runs.values()),
        runs=len(runs),
        clear=order.clear,
        unseen={name: run.unseen for name, run in runs.items() if run.unseen},
    )


def refusal(session: Session, options: Mapping[str, Any]) -> str:
    """Why something cannot be shown here, by an OpenSSL that is built without an old version; "" where it can."""
    try:
        if "tls_version" in options:
            session.check_tls_version(options["tls_version"])
    except ValueError as error:
        return str(error)
    return ""


def run_and_heed(
    session: Session, order: Order, name: str, declare: Callable[[Egress], None]
) -> Trial:
    """One run; Ctrl-C in it ends the audit."""
    tell(f"{order.image}: {name}")
    trial = run_once(session, order, declare)
    if trial.stopped:
        raise KeyboardInterrupt
    return trial


def declare_nothing(egress: Egress) -> None:
    """The first run is that of the image as it is."""


def shows(
    options: dict[str, Any], raw: Sequence[str], upgrades: Mapping[str, Any]
) -> Callable[[Egress], None]:
    """A function that declares routes which show clients something that they have to reject.

    Args:
        raw: The addresses with TLS that carries no HTTP.
        upgrades: What answers where TLS may begin within a connection, by address.
    """

    def declare(egress: Egress) -> None:
        offer(egress, upgrades, options)
        for address in raw:
            egress.intercept_tls(address, optional=True, **options)
        egress.intercept_https("*:*", optional=True, **options)

    return declare


def raw_addresses(usual: Sequence[Entry]) -> list[str]:
    """The addresses with TLS that carries no HTTP, such as MQTT and LDAPS: a route for requests would not answer it."""
    found = (
        host_port(entry.host, entry.port)
        for entry in usual
        if isinstance(entry, TcpConnection) and entry.tls is not None and is_host(entry.host)
    )
    return [*dict.fromkeys(found)]


def text_lines(order: Order, found: Audit) -> Iterator[str]:
    wrong = findings(found)
    parts = {
        "Whom it asks": asked_lines(found),
        "Where its secrets go": secret_lines(found),
        "What it accepts": table_lines(found),
        "Findings": bounded(wrong) or ["none"],
    }
    yield f"The audit of {order.image}; nothing got out."
    for title, lines in parts.items():
        yield from ("", title, *(f"{INDENT}{line}".rstrip() for line in lines))
    yield ""
    yield f"{counted(len(wrong), 'finding')}, of {counted(found.runs, 'run')}."
    if found.ended:
        yield f"{ended_text(order, found.ended)}."


def ended_text(order: Order, runs: int) -> str:
    ended = f"{counted(runs, 'run')} ended after {order.timeout:g} s by --timeout"
    return f"{ended}: the image may have more to ask"


def tell(text: str) -> None:
    """Say on a terminal what is being done, which takes seconds."""
    if sys.stderr.isatty():
        print(f"pytest-egress: {text}", file=sys.stderr, flush=True)
