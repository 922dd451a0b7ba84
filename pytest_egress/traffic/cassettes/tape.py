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
from pytest_egress.traffic.cassettes.notation import Table, dump, load, put_list, put_value, quoted
from pytest_egress.traffic.shown import shown

VERSION: Final = 1
TOP: Final = ("egress_cassette", "secrets", "interactions")
INTERACTION: Final = ("request", "response")
REQUEST: Final = ("method", "url", "headers")
RESPONSE: Final = ("status", "headers")

RecordedFields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """What was asked.

    Attributes:
        url: Without a host where the recording answers for any, as a mapping of WireMock does.
        headers: Names in lower case.
    """

    method: str
    url: str
    headers: RecordedFields = ()
    body: RecordedBody = NO_BODY


@dataclass(frozen=True, kw_only=True)
class RecordedResponse:
    status: int
    headers: RecordedFields = ()
    body: RecordedBody = NO_BODY


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One exchange.

    Attributes:
        line: Where it begins in its file; 0 where it comes from none.
    """

    request: RecordedRequest
    response: RecordedResponse
    line: int = field(default=0, compare=False)


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
    """The lines of a recording; each part of its request and its response begins one, and each event."""
    lines: list[str] = []
    lead = "-"
    for part, table in table_of(recording).items():
        lines.append(f"{lead} {part}:")
        lead = " "
        for key, value in table.items():
            if key == "events":
                put_list(lines, "    events:", value, 4)
            else:
                put_value(lines, f"    {key}:", value, 4)
    return "".join(f"{line}\n" for line in lines)


def in_order(recordings: Iterable[Recording]) -> list[Recording]:
    """By URL, method and body; equal ones stay in their order, which is that in which they are played."""
    return sorted(recordings, key=key_of)


def key_of(recording: Recording) -> tuple[str, str, str]:
    request = recording.request
    return request.url, request.method, dump([request.body.key, request.body.value])


def table_of(recording: Recording) -> dict[str, dict[str, Any]]:
    asked, answered = recording.request, recording.response
    request: dict[str, Any] = {"method": asked.method, "url": asked.url}
    response: dict[str, Any] = {"status": answered.status}
    for table, part in ((request, asked), (response, answered)):
        if part.headers:
            table["headers"] = by_name(sorted_by_name(part.headers))
        if part.body.key:
            table[part.body.key] = part.body.value
    return {"request": request, "response": response}


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
        self.check_keys(table, "an interaction", INTERACTION)
        for key in INTERACTION:
            if not isinstance(table.get(key), Table):
                raise self.wrong(table, key, "it takes a mapping")
        request = self.request(table["request"])
        return Recording(
            request=request, response=self.response(table["response"]), line=table.line
        )

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
            status=status, headers=self.headers(table), body=self.body(table, "response")
        )

    def headers(self, table: Table) -> RecordedFields:
        given = table.get("headers", {})
        if not isinstance(given, Mapping):
            raise self.wrong(table, "headers", "it takes a mapping")
        return tuple(self._fields(table, given))

    def _fields(self, table: Table, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in given.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, (dict, list, float, bool)) or each is None:
                    raise self.wrong(table, "headers", f"{name} takes a text, or a list of texts")
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
