"""What a line says of an entry beside its fields: its handler, what to type, its messages in a row.

Pure functions of values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_egress.base.raising import said_of
from pytest_egress.evidence.bodies import message_text
from pytest_egress.evidence.lines import line_of
from pytest_egress.ledger.remedies import has_remedy, purpose, remedy, typed
from pytest_egress.ledger.report import proxy_lines
from pytest_egress.ledger.upstream import answer_of
from pytest_egress.routes.answers import place_of
from pytest_egress.traffic.entries import (
    DnsQuery,
    Entry,
    Exchange,
    Mail,
    TlsFailure,
    needs_server,
)
from pytest_egress.traffic.http.request import TlsInfo
from pytest_egress.traffic.notes import KEPT_AT_AN_END, NotedMessage
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import counted, host_port

SHOWN_PARTS: Final = 50  # of a mail


def tls_facts(tls: TlsInfo | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    certificate = tls.client_certificate
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "alpn": tls.alpn,
        "client_certificate": certificate and f"{counted(len(certificate), 'byte')} of DER",
    }


def both_ends(messages: Sequence[Any]) -> Sequence[Any]:
    ends = KEPT_AT_AN_END
    return messages if len(messages) <= 2 * ends else [*messages[:ends], *messages[-ends:]]


def runs_of(messages: Iterable[NotedMessage]) -> Iterator[list[NotedMessage]]:
    """The messages that one side has sent in a row, as far as all of them, and of each, is kept."""
    run: list[NotedMessage] = []
    for each in messages:
        follows = run and run[-1].from_client == each.from_client
        if not follows or run[-1].number + 1 != each.number or run[-1].size > len(run[-1].content):
            if run:
                yield run
            run = []
        run.append(each)
    if run:
        yield run


def unkept_of(entry: Entry) -> int:
    """How many of its messages are in no line."""
    if isinstance(entry, Exchange) and entry.websocket is not None:
        return int(entry.websocket.unkept) + max(len(entry.messages) - 2 * KEPT_AT_AN_END, 0)
    return 0 if entry.noted is None else len(entry.noted) - len([*entry.noted])


def handler_of(route: Any) -> str:
    """The name of the function that answers for a route, and its line; "" where there is none of the test's."""
    answer = answer_of(route)
    if not callable(answer):
        return ""
    return place_of(answer).rstrip(",").replace(", at ", " at ")


def remedies(entry: Entry, *, fails: bool) -> Iterator[tuple[str, str]]:
    """What to type, with what it is for."""
    if isinstance(entry, Exchange) and entry._asked_proxy is not None:
        for line in proxy_lines(entry._asked_proxy):
            verb, _, code = line.partition(": ")
            yield verb, code
        return
    if entry.outcome == "unrouted" and has_remedy(entry):
        yield purpose(entry), remedy(entry)
        if isinstance(entry, DnsQuery):
            yield "to expect that it does not exist", f'egress.dns("{typed(entry)}", "NXDOMAIN")'
    elif not fails or not isinstance(entry, TlsFailure):
        return
    elif needs_server(entry):
        yield "to answer it", remedy(entry)
    where = host_port(typed(entry), entry.port)
    if needs_server(entry):
        yield "to let the real server answer it", f'egress.passthrough("{where}")'
    if fails and isinstance(entry, TlsFailure) and entry.outcome != "unrouted":
        yield "to expect it, and answer nobody there", f'egress.block("{where}")'


def decoded_text(message: Any, redactor: Redactor) -> str:
    """A message of protobuf as JSON, with its secrets masked by the names of its fields."""
    if isinstance(message, bytes):
        return message_text(message, redactor)
    try:
        from google.protobuf.json_format import MessageToDict

        value: Mapping[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    except Exception:  # of another library, or a type that is not known
        return redactor.text(" ".join(said_of(message).split()))
    return line_of(redactor.json(value))


def parts_of(mail: Mail) -> list[str]:
    """The types and names of the parts of a mail."""
    found: list[str] = []
    try:
        for part in mail.message.walk():
            if not part.is_multipart() and len(found) < SHOWN_PARTS:
                found.append(f"{part.get_content_type()} {part.get_filename() or ''}".strip())
    except Exception:  # the standard library's parser raises what it likes for malformed mails
        pass
    return found
