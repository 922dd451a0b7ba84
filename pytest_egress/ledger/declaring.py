"""The block of code that declares all attempts of a test which no route claims. Pasted into the test, it passes.

It stands in a failure where one line of it alone, as a verdict has it beside each attempt, would be followed by the
next failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pytest_egress.ledger.remedies import has_remedy, passed_over, remedy, typed
from pytest_egress.routes.kinds import INTERCEPT_TLS
from pytest_egress.traffic.dns.answers import RECORD_EXAMPLES
from pytest_egress.traffic.entries import DnsQuery, Entry, Exchange, TcpConnection, needs_server
from pytest_egress.traffic.shown import host_port

BLOCK: Final = "to declare all of it:"
BLOCK_ABOVE: Final = "to declare all of it, above the routes that are there:"
INDENT: Final = "    "  # of a test's body
SHOWN_LINES: Final = 50  # of a block: a test that declares more is to use globs

ANSWERS: Final = re.compile(r", (cassette|forward|smtp)\((?:\)|\"tcp:)")
"""The answers in a line that a test has to import."""


def block_lines(entries: Iterable[Entry]) -> list[str]:
    """The block, with a line that says what it is and an empty one below; nothing where it has one line or none."""
    entries = [*entries]
    found = declarations(entries)
    if len(found) < 2:
        return []
    head = BLOCK_ABOVE if any(passed_over(entry) for entry in entries) else BLOCK
    return [head, *(INDENT + line for line in with_imports(found)), ""]


def declarations(entries: Iterable[Entry]) -> list[str]:
    """The lines that declare these attempts, each once, in the order of the attempts."""
    lines = dict.fromkeys(declaration(entry) for entry in entries if is_declarable(entry))
    return [*lines][:SHOWN_LINES]


def with_imports(lines: list[str]) -> list[str]:
    """These lines, below the line that imports what they name."""
    return [*filter(None, [imported(lines)]), *lines]


def imported(lines: Iterable[str]) -> str:
    """The line that imports what these name; "" where they name nothing."""
    names = sorted({name for line in lines for name in ANSWERS.findall(line)})
    return f"from pytest_egress import {', '.join(names)}" if names else ""


def is_declarable(entry: Entry) -> bool:
    """Whether a line by itself is enough: a host that is asked as a proxy has two, of which a person has to choose."""
    if isinstance(entry, Exchange) and entry._asked_proxy is not None:
        return False
    return has_remedy(entry) or is_raw_tls(entry)


def is_raw_tls(entry: Entry) -> bool:
    """Whether it is TLS that carries no HTTP that can be read: MQTT, LDAP, or broken HTTP."""
    return isinstance(entry, TcpConnection) and entry.tls is not None


def declaration(entry: Entry) -> str:
    """The line that has the attempt answered as it was, but that no test fails of it."""
    line = remedy(entry)
    if isinstance(entry, Exchange) and entry.grpc is not None and entry.grpc.service:
        return f"# {line}"  # its names are the test's own, so it waits for a person
    if isinstance(entry, DnsQuery) and entry.type not in RECORD_EXAMPLES:
        return f'egress.dns("{typed(entry)}", "NXDOMAIN")'  # nothing was dialled, and so no route is called
    if is_raw_tls(entry):
        return f'egress.{INTERCEPT_TLS.method}("{host_port(typed(entry), entry.port)}")'
    if needs_server(entry):
        return f'egress.block("{host_port(typed(entry), entry.port)}")'  # no handler can answer it
    return line
