"""`LineEncoder`: an entry of the ledger as a line of `ledger.jsonl`: values of JSON, without secrets and within limits.

Times are milliseconds from the opening of the window. The keys of a kind are all there, whatever is known: `FORMAT`
counts their changes. The routes and connections that entries share are in tables, to which they refer by number.
"""

from __future__ import annotations

import base64
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pytest_egress.base.frames import from_user
from pytest_egress.base.raising import said_of
from pytest_egress.evidence.bodies import SHOWN_MESSAGE, Bodies, known_in, message_text
from pytest_egress.evidence.facts import (
    both_ends,
    decoded_text,
    handler_of,
    parts_of,
    remedies,
    runs_of,
    tls_facts,
    unkept_of,
)
from pytest_egress.ledger.declaring import declarations, with_imports
from pytest_egress.ledger.report import problem, route_line
from pytest_egress.ledger.upstream import got_out
from pytest_egress.ledger.verdict import failing, unrouted_entries
from pytest_egress.ledger.windows import Window
from pytest_egress.traffic.entries import (
    DatagramFlow,
    DnsQuery,
    Entry,
    Exchange,
    KafkaRecord,
    Mail,
    PacketAttempt,
    ProxyCall,
    TcpConnection,
    TlsFailure,
)
from pytest_egress.traffic.http.headers import Headers
from pytest_egress.traffic.notes import KEPT_CONTENT, ConnectionNote, NotedMessage
from pytest_egress.traffic.redaction.redactor import Redactor

FORMAT: Final = 1
SHOWN_FIRST: Final = 64  # bytes of a connection, in its row
SHOWN_CONNECTIONS: Final = 5000  # of a test: their facts stand in the page alone
MARKS: Final = ("begun", "whole", "called", "answered", "sent")


class LineEncoder:
    """Makes the lines of one test.

    Args:
        windows: The windows whose entries are encoded, closed. Times are from the opening of the first, the test's.

    Attributes:
        routes: The routes that entries refer to, in the order of their numbers.
        connections: The first connections, by their numbers.
        latest: The connection of the entry that was encoded last, if it has one.
    """

    def __init__(self, windows: Sequence[Window], redactor: Redactor) -> None:
        self._windows, self._opened, self._redactor = windows, windows[0].opened, redactor
        self._failing = {id(entry) for window in windows for entry in failing(window)}
        self._bodies = Bodies(redactor)
        self._numbers: dict[int, int] = {}
        self._handlers: list[str] = []
        self.routes: list[dict[str, Any]] = []
        self.connections: dict[int, dict[str, Any]] = {}
        self.latest: dict[str, Any] = {}

    def fails(self, entry: Entry) -> bool:
        return id(entry) in self._failing

    def encoded(self, number: int, entry: Entry) -> dict[str, Any]:
        """An entry as a dict, for the line of this number, from 1 on."""
        redactor, fails = self._redactor, self.fails(entry)
        hidden, route = redactor.hidden, self._route(entry.route)
        fault, duration = getattr(entry, "fault", None), getattr(entry, "duration", None)
        made: dict[str, Any] = {
            "n": number,
            "kind": entry.kind,
            "container": hidden(entry.container),
            "at": self.time(entry.started),
            "host": redactor.host(entry.host),
            "port": entry.port,
            "outcome": entry.outcome,
            "text": hidden(str(entry)),
            "fails": fails,
            "problem": problem(entry) if fails else "",
            "reached": got_out(entry),
            "note": hidden(entry.note),
            "route": route,
            "route_text": "" if route is None else self.routes[route]["text"],
            "near": [*self._near(entry)],
            "remedy": [[verb, hidden(line)] for verb, line in remedies(entry, fails=fails)],
            "fault": None if fault is None else hidden(str(fault)),
            "duration": None if duration is None else milliseconds(duration),
            "through": hidden(entry.through),
            "accepted": self._accepted(entry),
            "error": self._error(getattr(entry, "error", None)),
            "connection": self._connection(number, entry),
            "marks": self._marks(entry),
        }
        return made | self._of_its_kind(entry, route)

    def time(self, moment: float | None) -> float | None:
        """Milliseconds from the opening of the window."""
        return None if moment is None else milliseconds(moment - self._opened)

    def paste(self) -> list[str]:
        """The lines that declare all that is unrouted."""
        entries = [entry for window in self._windows for entry in window.entries]
        entries.sort(key=lambda entry: entry.started)
        lines = declarations(unrouted_entries(entries))
        return [self._redactor.hidden(line) for line in with_imports(lines)] if lines else []

    # What all kinds have.

    def _route(self, route: Any) -> int | None:
        if route is None:
            return None
        if id(route) not in self._numbers:
            self._numbers[id(route)] = len(self.routes)
            self._handlers.append(self._redactor.hidden(handler_of(route)))
            self.routes.append(
                {
                    "text": self._redactor.hidden(str(route)),
                    "declared_at": str(route.declared_at or ""),
                    "scope": route.scope,
                    "times": route.times,
                }
            )
        return self._numbers[id(route)]

    def _near(self, entry: Entry) -> Iterator[dict[str, Any]]:
        hidden = self._redactor.hidden
        for miss in entry.near:
            yield {
                "text": hidden(str(miss.route)),
                "declared_at": str(miss.route.declared_at or ""),
                "differences": [hidden(each) for each in miss.differences],
            }

    def _accepted(self, entry: Entry) -> dict[str, Any] | None:
        if entry.accepted is None:
            return None
        route, library = entry.accepted
        return {
            "presented": self._redactor.hidden(route.presented.to(entry.host)),
            "library": library,
            "route": self._redactor.hidden(route_line(route)),
        }

    def _error(self, error: BaseException | None) -> dict[str, Any] | None:
        if error is None:
            return None
        lines = traceback.format_exception(type(error), error, from_user(error.__traceback__))
        return {
            "type": type(error).__name__,
            "text": self._redactor.hidden(said_of(error)),
            "traceback": self._redactor.hidden("".join(lines)).strip(),
        }

    def _connection(self, number: int, entry: Entry) -> int | None:
        self.latest = {}
        if (note := entry.connection) is None:
            return None
        if note.first[0] != self._opened:
            note.first = self._opened, number
        known = self.connections.get(note.number)
        if known is None:
            known = self._facts(note)
            if len(self.connections) < SHOWN_CONNECTIONS:
                self.connections[note.number] = known
        self.latest = known
        known["requests"] += isinstance(entry, Exchange)
        return note.number

    def _facts(self, note: ConnectionNote) -> dict[str, Any]:
        return {
            "id": note.number,
            "first": note.first[1],
            "opened": self.time(note.opened),
            "hello": self.time(note.hello),
            "secured": self.time(note.secured),
            "requests": 0,
            "address": note.address,
            "port": note.port,
            "sni": None if note.sni is None else self._redactor.host(note.sni),
            "library": note.library,
            "presented": self._redactor.hidden(note.presented) or None,
            "tls": tls_facts(note.tls),
        }

    def _marks(self, entry: Entry) -> dict[str, float | None]:
        marks = entry.marks
        if marks is None:
            return {}
        return {name: self.time(getattr(marks, name)) for name in MARKS}

    # What a kind has.

    def _of_its_kind(self, entry: Entry, route: int | None) -> dict[str, Any]:
        handler = "" if route is None else self._handlers[route]
        if isinstance(entry, Exchange):
            return self._of_exchange(entry) | {"handler": handler}
        if isinstance(entry, TcpConnection):
            return self._of_connection(entry) | {"handler": handler}
        if isinstance(entry, Mail):
            return self._of_mail(entry)
        if isinstance(entry, KafkaRecord):
            return self._of_record(entry)
        if isinstance(entry, ProxyCall):
            return entry._of_its_kind() | {"headers": self._fields(entry.headers)}
        if isinstance(entry, DatagramFlow):
            return self._of_datagrams(entry) | {"handler": handler}
        if isinstance(entry, PacketAttempt):
            first = entry.first_bytes
            body = self._bodies.of(first, is_raw=True, has_more=True) if first else None
            return entry._of_its_kind() | {"body": body}
        assert isinstance(entry, (DnsQuery, TlsFailure))
        return entry._of_its_kind()

    def _fields(self, fields: Headers | Iterable[tuple[str, Any]]) -> list[list[str]]:
        pairs = fields.raw if isinstance(fields, Headers) else fields
        redactor = self._redactor
        return [
            [
                redactor.known(name),
                redactor.field(name, value if isinstance(value, str) else repr(value)),
            ]
            for name, value in pairs
        ]

    def _of_exchange(self, entry: Exchange) -> dict[str, Any]:
        request, response, redactor = entry.request, entry.response, self._redactor
        has_bodies = entry.kind == "http"
        made: dict[str, Any] = {
            "scheme": request.scheme,
            "request": {
                "method": redactor.known(request.method),
                "url": redactor.url(request.url),
                "path": redactor.path(request.path),
                "query": redactor.query(request.query_string),
                "http_version": request.http_version,
                "headers": self._fields(request.headers),
                "trailers": self._fields(request.trailers) if request.is_whole else [],
                "type": redactor.hidden(request.headers.get("content-type", "")),
                "body": self._request_body(entry) if has_bodies else None,
            },
            "response": None,
            "messages": [*self._messages(entry)],
            "unkept": unkept_of(entry),
            "grpc": self._grpc(entry),
            "websocket": self._websocket(entry),
        }
        if response is not None:
            made["response"] = {
                "status": response.status_code,
                "reason": redactor.hidden(response.reason),
                "headers": self._fields(response.headers),
                "trailers": self._fields(response.trailers),
                "type": redactor.hidden(response.headers.get("content-type", "")),
                "body": self._response_body(entry) if has_bodies else None,
            }
        return made

    def _request_body(self, entry: Exchange) -> dict[str, Any] | None:
        request = entry.request
        if (streamed := getattr(request._body, "streamed", None)) is not None:
            return {"size": streamed}
        if not request.is_whole:
            return None
        headers = request.headers
        return self._bodies.whole(
            lambda: bytes(request.raw_content),
            coding=headers.get("content-encoding", ""),
            type=headers.get("content-type", ""),
        )

    def _response_body(self, entry: Exchange) -> dict[str, Any] | None:
        response = entry.response
        if response.stream is not None:
            return None
        # What `compress=` does happens when it is sent.
        coding = "" if response.compress else response.headers.get("content-encoding", "")
        type = response.headers.get("content-type", "")
        return self._bodies.whole(lambda: bytes(response.content), coding=coding, type=type)

    def _messages(self, entry: Entry) -> Iterator[dict[str, Any]]:
        if isinstance(entry, Exchange) and entry.websocket is not None:
            for said in both_ends(entry.messages):
                content = said.content.encode() if isinstance(said.content, str) else said.content
                is_cut = len(content) > KEPT_CONTENT
                text = message_text(content[:KEPT_CONTENT], self._redactor, is_cut=is_cut)
                made = self._message(said.at, said.from_client, len(content), text)
                if isinstance(said.content, bytes):
                    shown = known_in(content[:KEPT_CONTENT], self._redactor, is_cut=is_cut)
                    made["base64"] = base64.b64encode(shown).decode()
                yield made
            return
        is_asked = False
        for run in runs_of(entry.noted or ()):
            yield from self._run(run, is_asked=is_asked and run[0].from_client)
            if not run[0].from_client:
                is_asked = self._redactor.asks_for_login(run[-1].content)

    def _run(self, run: list[NotedMessage], *, is_asked: bool) -> Iterator[dict[str, Any]]:
        """Messages of one side in a row: as one where a secret goes over from one to the next."""
        texts = [self._noted_text([each], is_asked=is_asked) for each in run]
        joined = texts[0] if len(run) == 1 else self._noted_text(run, is_asked=is_asked)
        if joined == "".join(texts) or run[0].decoded is not None:
            for each, text in zip(run, texts, strict=True):
                yield self._message(each.at, each.from_client, each.size, text)
        else:
            size = sum(each.size for each in run)
            yield self._message(run[0].at, run[0].from_client, size, joined)

    def _noted_text(self, run: list[NotedMessage], *, is_asked: bool) -> str:
        if run[0].decoded is not None:
            return decoded_text(run[0].decoded, self._redactor)
        content, is_cut = (
            b"".join(each.content for each in run),
            run[-1].size > len(run[-1].content),
        )
        return message_text(content, self._redactor, is_asked=is_asked, is_cut=is_cut)

    def _message(self, at: float, from_client: bool, size: int, text: str) -> dict[str, Any]:
        shown = text[:SHOWN_MESSAGE]
        return {"at": self.time(at), "from_client": from_client, "size": size, "text": shown}

    def _grpc(self, entry: Exchange) -> dict[str, Any] | None:
        if (call := entry.grpc) is None:
            return None
        hidden = self._redactor.hidden
        return {
            "service": hidden(call.service),
            "method": hidden(call.method),
            "path": hidden(call.path),
            "status": call.status,
            "details": self._redactor.text(call.details),
            "timeout": hidden(entry.request.headers.get("grpc-timeout", "")),
            "metadata": self._fields(call.metadata),
            "trailing_metadata": self._fields(call.trailing_metadata),
        }

    def _websocket(self, entry: Exchange) -> dict[str, Any] | None:
        if (ws := entry.websocket) is None:
            return None
        return {
            "subprotocol": ws.subprotocol and self._redactor.hidden(ws.subprotocol),
            "close_code": ws.close_code,
            "close_reason": self._redactor.hidden(ws.close_reason),
        }

    def _of_connection(self, entry: TcpConnection) -> dict[str, Any]:
        noted = [*(entry.noted or ())]
        up = sum(each.size for each in noted if each.from_client)
        down = sum(each.size for each in noted if not each.from_client)
        content = entry.content or entry.first_bytes
        asks = any(self._redactor.asks_for_login(m.content) for m in noted if not m.from_client)
        # Which of its lines are a login is seen beside the questions alone: in the messages.
        body = {"size": len(content)}
        if not asks:
            body = self._bodies.of(content, is_raw=True, has_more=True)
        ups = [run for run in runs_of(noted) if run[0].from_client]
        begins = b"".join(each.content for each in ups[0]) if ups else content
        first = self._redactor.first_bytes(begins)[:SHOWN_FIRST]
        return entry._of_its_kind() | {
            "sent": entry.sent or up,
            "received": entry.received or down,
            "first": message_text(first, self._redactor, is_cut=True).strip(),
            "body": body if content else None,
            "messages": [*self._messages(entry)],
            "unkept": unkept_of(entry),
        }

    def _of_datagrams(self, entry: DatagramFlow) -> dict[str, Any]:
        datagrams = [*entry.datagrams]
        first = datagrams[0].content
        return entry._of_its_kind() | {
            "datagrams": len(datagrams),
            "sent": sum(len(each.content) for each in datagrams),
            "received": sum(len(reply) for each in datagrams for reply in [*each.replies]),
            "body": self._bodies.of(first, is_raw=True, has_more=len(datagrams) > 1),
        }

    def _of_mail(self, entry: Mail) -> dict[str, Any]:
        hidden = self._redactor.hidden
        body = self._bodies.of(entry.content) if entry.content else None
        parts = [hidden(each) for each in parts_of(entry)]
        return entry._of_its_kind() | {"parts": parts, "type": "message/rfc822", "body": body}

    def _of_record(self, entry: KafkaRecord) -> dict[str, Any]:
        redactor, key = self._redactor, entry.key
        return entry._of_its_kind() | {
            "key": None if key is None else message_text(key, redactor)[:SHOWN_MESSAGE],
            "headers": [
                [
                    redactor.known(name),
                    "" if value is None else redactor.field(name, message_text(value, redactor)),
                ]
                for name, value in entry.headers
            ],
            "client_id": redactor.hidden(entry.client_id),
            "user": entry.user and redactor.hidden(entry.user),
            "body": None if entry.value is None else self._bodies.of(entry.value),
        }


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
