"""How a request differs from a recorded one: a line for each difference, which begins with its place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pytest_egress.errors import ContentError
from pytest_egress.routes.json_bodies import json_request_differences
from pytest_egress.routes.literals import NOTHING
from pytest_egress.routes.patterns import contrast
from pytest_egress.routes.recordings.calls import call_differences
from pytest_egress.traffic.cassettes.bodies import content_of, pairs_of, repeated_name
from pytest_egress.traffic.cassettes.placeholders import PLACEHOLDER, Stands
from pytest_egress.traffic.cassettes.tape import RecordedRequest
from pytest_egress.traffic.grpc import is_grpc
from pytest_egress.traffic.http.forms import (
    Form,
    FormFile,
    is_multipart,
    parse_form,
    parse_query,
)
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.shown import SCHEME_PORTS, shown
from pytest_egress.traffic.websocket import asks_for_websocket

ANY_METHOD: Final = "ANY"  # of a mapping of WireMock
OF_WEBSOCKETS: Final = {"wss": "https", "ws": "http"}


class Wanted:
    """A recorded request, taken apart once.

    Attributes:
        is_open: Whether a placeholder may be in its path, which then is that of several requests.
    """

    def __init__(self, request: RecordedRequest) -> None:
        parts = urlsplit(request.url)
        self.request, self.method = request, request.method.upper()
        scheme = parts.scheme.lower()
        self.scheme, self.host = OF_WEBSOCKETS.get(scheme, scheme), (parts.hostname or "").lower()
        try:
            port = parts.port
        except ValueError:
            port = None
        self.port = port or SCHEME_PORTS.get(self.scheme)
        self.is_open = "<" in parts.path
        self.path, self.query_string = parts.path or "/", parts.query
        self.query = parse_query(parts.query).raw

    @property
    def called(self) -> str:
        if self.request.is_call:
            return "gRPC"
        return "WebSocket" if self.request.is_websocket else self.method

    @cached_property
    def form(self) -> Form:
        """Of a body in parts; it has none where that is malformed."""
        content_type = dict(self.request.headers).get("content-type", "")
        try:
            return parse_form(content_of(self.request.body), content_type)
        except ContentError:
            return parse_form(b"", "application/x-www-form-urlencoded")

    @cached_property
    def is_multipart(self) -> bool:
        headers = dict(self.request.headers)
        is_bytes = self.request.body.key in ("text", "base64")
        return is_bytes and is_multipart(headers.get("content-type", ""))


def is_near(wanted: Wanted, request: Request, stands: Stands) -> bool:
    """Whether only the query and the body may differ, at little cost."""
    return not next(head_differences(wanted, request, stands), "")


def differences(
    wanted: Wanted,
    request: Request,
    stands: Stands,
    ignored: Collection[str],
    *,
    of_head: bool = False,
) -> Iterator[str]:
    """The differences that are not ignored; those of the head alone where messages are compared as they come."""
    found = (
        *head_differences(wanted, request, stands),
        *query_differences(wanted, request, stands),
        *header_differences(wanted.request.compared, request, stands),
        *(() if of_head else body_differences(wanted, request, stands)),
    )
    return (line for line in found if not is_ignored(line, ignored))


def is_ignored(line: str, ignored: Collection[str]) -> bool:
    """Whether a difference is at one of these places, or within it."""
    return any(
        line.startswith(place) and line[len(place) : len(place) + 1] in (":", ".", "[")
        for place in ignored
    )


def head_differences(wanted: Wanted, request: Request, stands: Stands) -> Iterator[str]:
    if wanted.request.is_websocket != asks_for_websocket(request):
        yield "upgrade: one of them opens a WebSocket, and the other does not"
    if wanted.request.is_call != is_grpc(request):
        yield "content-type: one of them is a call of gRPC, and the other is none"
    if wanted.method not in (request.method.upper(), ANY_METHOD):
        yield f"method: {request.method} is not {wanted.method}"
    if wanted.host:
        if wanted.scheme != request.scheme:
            yield f"scheme: {request.scheme} is not {wanted.scheme}"
        if not stands.fits(wanted.host, request.host.lower()):
            redactor = redactor_of(request)
            yield f"host: {redactor.host(request.host)!r} is not {redactor.host(wanted.host)!r}"
        if wanted.port != request.port:
            yield f"port: {request.port} is not {wanted.port}"
    path = request.path or "/"
    is_filled = wanted.is_open and stands.fits(unquote(wanted.path), unquote(path))
    if path != wanted.path and not is_filled:
        path_of = redactor_of(request).path
        yield f"path: {contrast(path, wanted.path, (path_of(path), path_of(wanted.path)), path_of(wanted.path))}"


def query_differences(wanted: Wanted, request: Request, stands: Stands) -> Iterator[str]:
    if request.query_string or wanted.query:
        found = request.query.raw
        yield from pair_differences("query", wanted.query, found, request, stands)
        if has_lost(wanted.query) and has_lost(found):
            yield from byte_differences(wanted.query_string, request, stands)


def header_differences(compared: NamedValues, request: Request, stands: Stands) -> Iterator[str]:
    redactor = redactor_of(request)
    for name, wanted in compared:
        found = request.headers.get(name)
        if found is not None and stands.fits(wanted, found):
            continue
        expected = shown(hidden_value(name, wanted, redactor))
        if found is None:
            yield f"headers[{name!r}]: absent, expected {expected}"
        else:
            masks = shown(redactor.value(name, found)), expected
            same = ": they differ within what is hidden" if masks[0] == masks[1] else ""
            yield f"headers[{name!r}]: {masks[0]} is not {masks[1]}{same}"


def has_lost(pairs: NamedValues) -> bool:
    """Whether bytes that are no UTF-8 have become one character, in which all of them are equal."""
    return any("\ufffd" in part for pair in pairs for part in pair)


def byte_differences(wanted: str, request: Request, stands: Stands) -> Iterator[str]:
    mine, theirs = (
        grouped(parse_qsl(each, keep_blank_values=True, encoding="latin-1"))
        for each in (wanted, request.query_string)
    )
    for name in dict.fromkeys((*mine, *theirs)):
        if not all_fit(mine.get(name, []), theirs.get(name, []), stands):
            key = redactor_of(request).key(name.encode("latin-1").decode("utf-8", "replace"))
            yield f"query[{key!r}]: bytes that are no UTF-8 differ from the recorded ones"


NamedValues = Iterable[tuple[str, str]]


def pair_differences(
    what: str, wanted: NamedValues, found: NamedValues, request: Request, stands: Stands
) -> Iterator[str]:
    """Each name has the same values, in whatever order."""
    mine, theirs = grouped(wanted), grouped(found)
    redactor = redactor_of(request)
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        one, other = theirs.get(name, []), mine.get(name, [])
        if all_fit(other, one, stands):
            continue
        sent = [redactor.value(name, each) for each in one]
        other = [hidden_value(name, each, redactor) for each in other]
        place = f"{what}[{redactor.key(name)!r}]"
        if not one:
            yield f"{place}: absent, expected {shown_values(other)}"
        elif not other:
            yield f"{place}: {shown_values(sent)} was not expected"
        else:
            masks = shown_values(sent), shown_values(other)
            same = ": they differ within what is hidden" if masks[0] == masks[1] else ""
            yield f"{place}: {masks[0]} is not {masks[1]}{same}"


def hidden_value(name: str, value: str, redactor: Redactor) -> str:
    """A recorded value; that of another tool's file may be a secret. A placeholder stays."""
    return value if PLACEHOLDER.fullmatch(value) else str(redactor.value(name, value))


def shown_values(values: list[str]) -> str:
    return shown(values[0] if len(values) == 1 else values)


def grouped(pairs: NamedValues) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def all_fit(wanted: list[str], found: list[str], stands: Stands) -> bool:
    if len(wanted) != len(found):
        return False
    if sorted(wanted) == sorted(found):
        return True
    left = [*found]
    for each in wanted:
        match = next((other for other in left if stands.fits(each, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def body_differences(wanted: Wanted, request: Request, stands: Stands) -> Iterator[str]:
    body = wanted.request.body
    if wanted.request.is_websocket:  # its messages are compared as they come
        return
    if wanted.request.is_call:
        if body.key == "messages":
            yield from call_differences(body.value, request, stands)
        else:  # a client that takes turns is compared as they come, and this one has sent all
            yield "messages: the recorded ones take turns with their answers"
        return
    try:
        content = request.content
    except ContentError as error:
        yield f"content: {error}"
        return
    if not body.key or not content:
        yield from without_body(body.key, content, request)
    elif body.key == "json":
        found = json_request_differences(stands.expecting(body.value), request, NOTHING)
        yield from found or repeated_names(content, request)
    elif body.key == "form":
        yield from form_differences(pairs_of(body.value), request, stands)
    elif wanted.is_multipart:
        yield from multipart_differences(wanted.form, request, stands)
    else:
        yield from content_differences(content_of(body), content, request, stands)


def repeated_names(content: bytes, request: Request) -> Iterator[str]:
    """A name that repeats: its first value is in no value of JSON, and clients read this one or that."""
    if (name := repeated_name(content)) is not None:
        yield f"json: the name {shown(redactor_of(request).key(name))} repeats in one object"


def without_body(kind: str, content: bytes, request: Request) -> Iterator[str]:
    if content:
        sent = redactor_of(request).content(content)
        yield f"content: {shown(sent)} was not expected: the recorded request has no body"
    elif kind:
        yield f"{kind}: the request has no body, and the recorded one has"


def form_differences(pairs: NamedValues, request: Request, stands: Stands) -> Iterator[str]:
    try:
        found = request.form.raw
    except ValueError as error:
        yield f"form: {error}"
        return
    yield from pair_differences("form", pairs, found, request, stands)


def multipart_differences(wanted: Form, request: Request, stands: Stands) -> Iterator[str]:
    """The parts, whatever is between them."""
    yield from form_differences(wanted.fields.raw, request, stands)
    try:
        found = request.files.raw
    except ValueError:  # which `form_differences` has said
        return
    mine = [(name, told(file)) for name, file in wanted.files.raw]
    theirs = [(name, told(file)) for name, file in found]
    yield from pair_differences("files", mine, theirs, request, stands)


def told(file: FormFile) -> str:
    return f"{file.filename} {file.content_type} {file.content.decode('latin-1')}"


def content_differences(
    wanted: bytes, content: bytes, request: Request, stands: Stands
) -> Iterator[str]:
    if wanted == content:
        return
    mine, theirs = wanted.decode("latin-1"), content.decode("latin-1")
    if not stands.fits(mine, theirs):
        redactor = redactor_of(request)
        masks: tuple[Any, Any] = redactor.content(content), redactor.content(wanted)
        yield f"content: {contrast(content, wanted, masks, masks[1])}"
