"""`Tape`: the recordings of a file, as values, and as the text of that file.

A file is the same, byte for byte, whenever it has the same recordings: they are sorted, and nothing says when it was
written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_egress.errors import CassetteError
from pytest_egress.traffic.cassettes.bodies import KINDS, NO_BODY, RecordedBody, check_body
from pytest_egress.traffic.cassettes.messages import check_messages, check_turns
from pytest_egress.traffic.cassettes.notation import Table, dump, load, put_list, put_value, quoted
from pytest_egress.traffic.cassettes.websocket import check_closing, check_conversation
from pytest_egress.traffic.grpc import Code
from pytest_egress.traffic.http.headers import check_field
from pytest_egress.traffic.shown import shown

VERSION: Final = 1
TOP: Final = ("egress_cassette", "secrets", "interactions")
INTERACTION: Final = ("request", "response")
REQUEST: Final = ("method", "url", "headers")
RESPONSE: Final = ("status", "headers")
CALL: Final = ("grpc", "metadata", "messages")
WEBSOCKET: Final = ("request", "response", "messages", "close", "reason")
STATUS: Final = ("status", "details", "metadata", "messages", "trailing_metadata")
CONVERSATION: Final = "conversation"
CONVERSATIONS: Final = (CONVERSATION, "turns")
"""The keys of bodies that have the messages of both sides in their order."""

LEFT_OPEN: Final = -1
"""The status of a call of gRPC that its client has cancelled, or left, before there was one."""

RecordedFields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """What was asked.

    Attributes:
        url: Without a host where the recording answers for any, as a mapping of WireMock does.
        headers: Names in lower case; of a call of gRPC its metadata.
        is_call: Whether it is a call of gRPC, whose body is its messages.
        is_websocket: Whether it opens a WebSocket.
        compared: Header fields that a request has to have, as a mapping of WireMock may say.
    """

    method: str
    url: str
    headers: RecordedFields = ()
    body: RecordedBody = NO_BODY
    is_call: bool = False
    is_websocket: bool = False
    compared: RecordedFields = ()


@dataclass(frozen=True, kw_only=True)
class RecordedResponse:
    """What was answered.

    Attributes:
        status: Of a call of gRPC its `Code`, or `LEFT_OPEN`; of a WebSocket the code with which the server closes, 0
            where the client does, or the status with which it refuses the handshake.
        headers: Of a call its initial metadata.
        body: Of a WebSocket, and of a call whose sides take turns, its messages, of both directions.
        details: Of a call the text of its status; of a WebSocket the reason with which the server closes.
        trailers: Of a call its trailing metadata.
    """

    status: int
    headers: RecordedFields = ()
    body: RecordedBody = NO_BODY
    details: str = ""
    trailers: RecordedFields = ()


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One exchange.

    Attributes:
        line: Where it begins in its file; 0 where it comes from none.
    """

    request: RecordedRequest
    response: RecordedResponse
    line: int = field(default=0, compare=False)

    @property
    def is_refused(self) -> bool:
        """Whether it is a handshake of a WebSocket that the server has answered by a response, and opened none."""
        return self.request.is_websocket and self.response.body.key != CONVERSATION


@dataclass(frozen=True, kw_only=True)
class Tape:
    """The recordings of a file.

    Attributes:
        secrets: The names of placeholders that stand in them.
        answers_again: Whether each answers any number of requests, as a mapping of WireMock does.
    """

    recordings: tuple[Recording, ...] = ()
    secrets: frozenset[str] = frozenset()
    answers_again: bool = False


# Writing.


def text_of(tape: Tape) -> str:
    """The text of a file, in which an empty line is between two recordings, so that additions merge."""
    begin = f"egress_cassette: {VERSION}\n"
    if tape.secrets:  # one a line, for the same reason
        begin += "secrets:\n" + "".join(f"- {quoted(name)}\n" for name in sorted(tape.secrets))
    if not tape.recordings:
        return f"{begin}interactions: []\n"
    parts = [text_of_one(each) for each in in_order(tape.recordings)]
    return "\n".join([f"{begin}interactions:\n", *parts])


def text_of_one(recording: Recording) -> str:
    """The lines of a recording; each part of its request and its response begins one, and each event or message."""
    lines: list[str] = []
    lead = "-"
    for part, table in table_of(recording).items():
        prefix, lead = f"{lead} {part}:", " "
        if not isinstance(table, dict):  # of both directions
            put = put_list if isinstance(table, list) and table else put_value
            put(lines, prefix, table, 2)
            continue
        lines.append(prefix)
        for key, value in table.items():
            if key in ("events", "messages") and value:
                put_list(lines, f"    {key}:", value, 4)
            else:
                put_value(lines, f"    {key}:", value, 4)
    return "".join(f"{line}\n" for line in lines)


def in_order(recordings: Iterable[Recording]) -> list[Recording]:
    """By URL, method and body; equal ones stay in their order, which is that in which they are played."""
    return sorted(recordings, key=key_of)


def key_of(recording: Recording) -> tuple[str, str, str]:
    request = recording.request
    return request.url, request.method, dump([request.body.key, request.body.value])


def table_of(recording: Recording) -> dict[str, Any]:
    asked, answered = recording.request, recording.response
    if asked.is_websocket:
        return table_of_websocket(asked, answered)
    if asked.is_call:
        return table_of_call(asked, answered)
    request = with_headers_and_body({"method": asked.method, "url": asked.url}, asked)
    return {"request": request, "response": table_of_response(answered)}


def table_of_response(answered: RecordedResponse) -> dict[str, Any]:
    return with_headers_and_body({"status": answered.status}, answered)


def with_headers_and_body(
    table: dict[str, Any], part: RecordedRequest | RecordedResponse
) -> dict[str, Any]:
    if part.headers:
        table["headers"] = by_name(sorted_by_name(part.headers))
    if part.body.key:
        table[part.body.key] = part.body.value
    return table


def table_of_call(asked: RecordedRequest, answered: RecordedResponse) -> dict[str, Any]:
    found: dict[str, Any] = {"request": {"grpc": asked.url}, "response": {}}
    request, response = found["request"], found["response"]
    if asked.headers:
        request["metadata"] = by_name(sorted_by_name(asked.headers))
    if answered.status != LEFT_OPEN:
        response["status"] = Code(answered.status).name
    if answered.details:
        response["details"] = answered.details
    if answered.headers:
        response["metadata"] = by_name(sorted_by_name(answered.headers))
    if answered.body.key == "turns":
        found = {"request": request, "messages": answered.body.value}
        found |= {"response": response} if response else {}
    else:
        request["messages"], response["messages"] = asked.body.value, answered.body.value
    if answered.trailers:
        response["trailing_metadata"] = by_name(sorted_by_name(answered.trailers))
    return found


def table_of_websocket(asked: RecordedRequest, answered: RecordedResponse) -> dict[str, Any]:
    found: dict[str, Any] = {"request": {"websocket": asked.url}}
    if asked.headers:
        found["request"]["headers"] = by_name(sorted_by_name(asked.headers))
    if answered.body.key != CONVERSATION:  # it was refused
        return found | {"response": table_of_response(answered)}
    if answered.headers:
        found["response"] = {"headers": by_name(sorted_by_name(answered.headers))}
    found["messages"] = answered.body.value
    if answered.status:
        found["close"] = answered.status
    if answered.details:
        found["reason"] = answered.details
    return found


def sorted_by_name(headers: RecordedFields) -> RecordedFields:
    return tuple(sorted(headers, key=lambda pair: pair[0]))


def by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A name that repeats has a list."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


# Reading.


def tape_of(text: str, name: str) -> Tape:
    """The recordings of a text. Raises CassetteError with the line of what is wrong."""
    return tape_from(load(text, name), name)


def tape_from(table: Any, name: str) -> Tape:
    """The recordings of a value that was read."""
    if not isinstance(table, Table) or "egress_cassette" not in table:
        raise CassetteError(f"{name}: this is no cassette: its first line is `egress_cassette: 1`")
    reader = Reader(name)
    reader.check_keys(table, "a cassette", TOP)
    if table["egress_cassette"] != VERSION:
        raise reader.wrong(
            table, "egress_cassette", f"this version reads `egress_cassette: {VERSION}`"
        )
    secrets = table.get("secrets", [])
    if not isinstance(secrets, list) or not all(isinstance(each, str) for each in secrets):
        raise reader.wrong(table, "secrets", "it takes a list of names")
    recorded = table.get("interactions")
    if not isinstance(recorded, list):
        raise reader.wrong(table, "interactions", "it takes a list")
    recordings = tuple(reader.recording(each) for each in recorded)
    return Tape(recordings=recordings, secrets=frozenset(secrets))


class Reader:
    """Checks what a file has, and says which line is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name

    def wrong(self, table: Table, key: str, what: str) -> CassetteError:
        line = table.lines.get(key, table.line)
        said = f"{key}: {shown(table[key])}" if key in table else f"{key} is missing"
        return CassetteError(f"{self._name}: line {line}: {said}: {what}")

    def check_keys(self, table: Table, what: str, known: Iterable[str]) -> None:
        known = tuple(known)
        for key in table:
            if key not in known:
                raise CassetteError(
                    f"{self._name}: line {table.lines[key]}: {what} has no {shown(key)}; it has {', '.join(known)}"
                )

    def recording(self, table: Any) -> Recording:
        if not isinstance(table, Table):
            raise CassetteError(f"{self._name}: {shown(table)} is no interaction: it has {both()}")
        if isinstance(asked := table.get("request"), Table):
            if "websocket" in asked:
                return self.websocket(table)
            if "grpc" in asked and "messages" in table:
                return self.turns(table)
        self.check_keys(table, "an interaction", INTERACTION)
        for key in INTERACTION:
            if not isinstance(table.get(key), Table):
                raise self.wrong(table, key, "it takes a mapping")
        is_call = "grpc" in table["request"]
        request = (self.call if is_call else self.request)(table["request"])
        response = (self.outcome if is_call else self.response)(table["response"])
        return Recording(request=request, response=response, line=table.line)

    def request(self, table: Table) -> RecordedRequest:
        self.check_keys(table, "a request", (*REQUEST, *KINDS["request"]))
        for key in ("method", "url"):
            if not isinstance(table.get(key), str) or not table[key]:
                raise self.wrong(table, key, "it takes a text")
        return RecordedRequest(
            method=table["method"],
            url=table["url"],
            headers=self.headers(table),
            body=self.body(table, "request"),
        )

    def response(self, table: Table) -> RecordedResponse:
        self.check_keys(table, "a response", (*RESPONSE, *KINDS["response"]))
        status = table.get("status")
        if type(status) is not int or not 200 <= status <= 599:
            raise self.wrong(table, "status", "it takes a number from 200 to 599")
        return RecordedResponse(
            status=status, headers=self.sent_headers(table), body=self.body(table, "response")
        )

    def call(self, table: Table) -> RecordedRequest:
        self.check_keys(table, "a call of gRPC", CALL)
        return self.asked_of(table, self.messages(table))

    def asked_of(self, table: Table, body: RecordedBody = NO_BODY) -> RecordedRequest:
        if not isinstance(table["grpc"], str) or not table["grpc"]:
            raise self.wrong(table, "grpc", "it takes the URL of a method")
        headers = self.headers(table, "metadata")
        return RecordedRequest(
            method="POST", url=table["grpc"], headers=headers, body=body, is_call=True
        )

    def outcome(self, table: Table) -> RecordedResponse:
        self.check_keys(table, "the response to a call of gRPC", STATUS)
        return self.outcome_of(table, self.messages(table))

    def outcome_of(self, table: Table, body: RecordedBody) -> RecordedResponse:
        status, details = table.get("status"), table.get("details", "")
        if not isinstance(status, str) or status not in Code.__members__:
            listed = ", ".join(Code.__members__)
            raise self.wrong(table, "status", f"it takes the name of a status: {listed}")
        if not isinstance(details, str):
            raise self.wrong(table, "details", "it takes a text")
        return RecordedResponse(
            status=Code[status],
            details=details,
            headers=self.sent_headers(table, "metadata"),
            body=body,
            trailers=self.sent_headers(table, "trailing_metadata"),
        )

    def turns(self, table: Table) -> Recording:
        """A call with the messages of both sides in their order; one without a status is left open."""
        self.check_keys(table, "a call of gRPC", (*INTERACTION, "messages"))
        asked, answered = table["request"], table.get("response", Table(table.line))
        if not isinstance(answered, Table):
            raise self.wrong(table, "response", "it takes a mapping")
        self.check_keys(asked, "its request", (each for each in CALL if each != "messages"))
        self.check_keys(answered, "its response", (each for each in STATUS if each != "messages"))
        if why := check_turns(table["messages"]):
            raise self.wrong(table, "messages", why)
        body = RecordedBody("turns", table["messages"])
        if "status" in answered:
            response = self.outcome_of(answered, body)
        else:
            self.check_keys(answered, "a response without a status", ("metadata",))
            headers = self.sent_headers(answered, "metadata")
            response = RecordedResponse(status=LEFT_OPEN, headers=headers, body=body)
        return Recording(request=self.asked_of(asked), response=response, line=table.line)

    def websocket(self, table: Table) -> Recording:
        answered = table.get("response", Table(table.line))
        if not isinstance(answered, Table):
            raise self.wrong(table, "response", "it takes a mapping")
        is_refused = "messages" not in table and "status" in answered
        known = INTERACTION if is_refused else WEBSOCKET
        self.check_keys(table, "a refused WebSocket" if is_refused else "a WebSocket", known)
        asked = table["request"]
        self.check_keys(asked, "the request of a WebSocket", ("websocket", "headers"))
        url = asked["websocket"]
        if not isinstance(url, str) or not url.startswith(("wss://", "ws://")):
            raise self.wrong(asked, "websocket", "it takes a URL that begins with wss:// or ws://")
        request = RecordedRequest(
            method="GET", url=url, headers=self.headers(asked), is_websocket=True
        )
        if is_refused:
            return Recording(request=request, response=self.response(answered), line=table.line)
        self.check_keys(answered, "the response to a WebSocket", ("headers",))
        messages = table.get("messages")
        if why := check_conversation(messages):
            raise self.wrong(table, "messages", why)
        code, reason = table.get("close"), table.get("reason", "")
        if why := check_closing(code, reason):
            raise self.wrong(table, "close", why)
        response = RecordedResponse(
            status=code or 0,
            details=reason,
            headers=self.sent_headers(answered),
            body=RecordedBody(CONVERSATION, messages),
        )
        return Recording(request=request, response=response, line=table.line)

    def messages(self, table: Table) -> RecordedBody:
        messages = table.get("messages", [])
        if why := check_messages(messages):
            raise self.wrong(table, "messages", why)
        return RecordedBody("messages", messages)

    def headers(self, table: Table, key: str = "headers") -> RecordedFields:
        given = table.get(key, {})
        if not isinstance(given, Mapping):
            raise self.wrong(table, key, "it takes a mapping")
        return tuple(self._fields(table, key, given))

    def sent_headers(self, table: Table, key: str = "headers") -> RecordedFields:
        """Those of a response, which are sent."""
        headers = self.headers(table, key)
        for name, value in headers:
            try:
                check_field(name, value)
            except ValueError as error:
                raise self.wrong(table, key, str(error)) from None
        return headers

    def _fields(
        self, table: Table, key: str, given: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        for name, value in given.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, (dict, list, float, bool)) or each is None:
                    raise self.wrong(table, key, f"{name} takes a text, or a list of texts")
                yield name.lower(), str(each)

    def body(self, table: Table, of: str) -> RecordedBody:
        given = [kind for kind in KINDS[of] if kind in table]
        if len(given) > 1:
            raise self.wrong(table, given[1], f"there is a body already, {given[0]}")
        if not given:
            return NO_BODY
        kind = given[0]
        if why := check_body(kind, table[kind]):
            raise self.wrong(table, kind, why)
        return RecordedBody(kind, table[kind])


def both() -> str:
    return " and ".join(INTERACTION)
