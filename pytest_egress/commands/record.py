"""`pytest-egress record IMAGE [COMMAND]`: `test_IMAGE.py` and its cassette, of one run that reaches the real upstreams.

Requests are recorded, and WebSockets and calls of gRPC. What else the image attempts is refused, and the test has it
refused too.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pytest_egress.cassettes import Cassettes, Home
from pytest_egress.commands.order import Order
from pytest_egress.commands.trial import Trial, broken, is_left, is_recorded, opened, run_once
from pytest_egress.commands.watch import watched
from pytest_egress.commands.written import (
    WrittenRoute,
    address_of,
    name_of,
    whole_test,
    with_port,
)
from pytest_egress.egress import Egress, inner_of
from pytest_egress.errors import CassetteError
from pytest_egress.ledger.declaring import is_declarable
from pytest_egress.ledger.remedies import remedy, typed
from pytest_egress.ledger.report import problem
from pytest_egress.ledger.watched import is_undeclared
from pytest_egress.routes.cassette import cassette
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import counted, host_port

PLACEHOLDER: Final = re.compile(r"<([\w.#-]{1,80})>")
LEFT: Final = "its client left before its answer had ended"


def record(order: Order) -> int:
    """Write both files; return the exit code of the command.

    Raises:
        CassetteError, OSError: A file cannot be written, or is there already.
    """
    name = name_of(order.image)
    test = Path(f"test_{name}.py")
    place = Home(folder=Path.cwd(), names=(f"test_{name}", f"test_{name}"))
    assert place.own is not None
    tape = Path(os.path.relpath(place.own))
    for path in (test, tape):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} is there already, and is not overwritten: move it away")
    with opened(order, cassettes=Cassettes("rewrite")) as session:
        with watched(session):
            trial = run_once(session, order, record_requests, place)
        if trial.stopped:
            raise KeyboardInterrupt
        if trial.exit_code is None:
            raise TimeoutError(
                f"it still ran after {order.timeout:g} s, so nothing is written: give a command that ends, or --timeout"
            )
        if failed := broken(trial):
            why = LEFT if is_left(failed[0]) else problem(failed[0])
            raise CassetteError(f"{failed[0]}: {why}, so nothing is written")
        if trial.unseen:
            raise CassetteError(
                f"not all that it asks could be recorded ({trial.unseen}), so nothing is written"
            )
        text = recorded_test(order, trial, session.ledger.redactor)
    write_test(test, text, beside=tape)
    print(*summary_lines(test, tape, trial), sep="\n")
    return 0


def record_requests(egress: Egress) -> None:
    """Have each request answered by its real upstream, and recorded."""
    inner_of(egress).add_below(cassette(), optional=True)


def recorded_test(order: Order, trial: Trial, redactor: Redactor) -> str:
    about = f"What {order.image} asks, answered as it was when `pytest-egress record` ran it."
    routes = [*recorded_routes(trial.entries), *refused_routes(trial.entries)]
    if trial.exit_code:
        return whole_test(about, order, routes, redactor, "check=False", trial.exit_code)
    return whole_test(about, order, routes, redactor, "")


def recorded_routes(entries: Sequence[Entry]) -> Iterator[WrittenRoute]:
    """A route for each scheme and host of what was recorded."""
    found: dict[str, WrittenRoute] = {}
    for entry in entries:
        if isinstance(entry, Exchange) and is_recorded(entry):
            line = f'egress.intercept_{entry.request.scheme}("{address_of(entry)}", cassette())'
            found[line] = WrittenRoute(line=line, address=with_port(entry))
    yield from found.values()


def refused_routes(entries: Sequence[Entry]) -> Iterator[WrittenRoute]:
    """Routes that refuse what was refused, so that the image does as it did."""
    found: dict[str, WrittenRoute] = {}
    for entry in entries:
        if not is_undeclared(entry) or isinstance(entry, DnsQuery) or not is_declarable(entry):
            continue
        address = host_port(typed(entry), entry.port)
        line = f'egress.block("{address}")'
        if isinstance(entry, Exchange):  # a request that is not recorded, beside others that are
            line = f"# {remedy(entry)}"
        found[line] = WrittenRoute(line=line, address=address)
    yield from found.values()


def write_test(path: Path, text: str, *, beside: Path) -> None:
    """A test that cannot be written leaves no cassette."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def summary_lines(test: Path, tape: Path, trial: Trial) -> Iterator[str]:
    recorded = sum(map(is_recorded, trial.entries))
    refused = sum(1 for e in trial.entries if is_undeclared(e) and not isinstance(e, DnsQuery))
    yield ""
    yield f"wrote {test}"
    if tape.exists():
        yield f"wrote {tape}: {counted(recorded, 'request')}"
        yield from secrets_lines(tape.read_text("utf-8"))
    if refused:
        yield f"{counted(refused, 'attempt')} not recorded, and refused: requests, WebSockets and gRPC are"
    yield f"to run it: {Path(sys.executable).name} -m pytest {test}"


def secrets_lines(text: str) -> Iterator[str]:
    """What was taken out, and how often."""
    for name, count in sorted(Counter(PLACEHOLDER.findall(text)).items()):
        yield f"  without the secret {name}, {counted(count, 'time')}"
