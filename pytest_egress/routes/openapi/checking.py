"""A request, or a response, against its operation: sentences about what does not fit, and none where all does.

A sentence names the place, as `body.amount`, and has the value cut and without secrets. What a container sends raises
no error here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, Final

from pytest_egress.base.account import Account, OverLimitError
from pytest_egress.errors import ContentError
from pytest_egress.routes.openapi.documents import Document
from pytest_egress.routes.openapi.operations import Operation
from pytest_egress.routes.openapi.patterns import UncheckableError
from pytest_egress.routes.openapi.schemas import ALL_TYPES, Reading, readings_of
from pytest_egress.routes.openapi.sent import (
    Node,
    SentText,
    in_a_path,
    node_of,
    pairs_of,
    plain,
    tree_of,
)
from pytest_egress.routes.openapi.validators import Validators
from pytest_egress.routes.openapi.values import (
    Encodings,
    Style,
    candidates,
    is_json,
    objects,
    single,
    style_of,
)
from pytest_egress.traffic.http.forms import (
    decode_text,
    is_multipart,
    media_type,
    multipart_parts,
)
from pytest_egress.traffic.http.request import Request, room_for_json
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.shown import SHOWN_VALUE, cut, shown
from pytest_egress.traffic.strict_json import from_json

MAX_PROBLEMS: Final = 10
SHOWN_RULE: Final = 80
FORM: Final = "application/x-www-form-urlencoded"
BY_NAME_ALONE: Final = (
    "required",
    "additionalProperties",
    "unevaluatedProperties",
    "dependentRequired",
)
"""Rules whose text names fields, and has no value."""

NOT_DESCRIBED: Final = ("accept", "content-type", "authorization")
"""Fields that parameters do not describe (OpenAPI 3.1 section 4.8.12)."""


class Checks:
    """The checks of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def resolve(self, value: Any) -> Any:
        return self._document.at(value)[0]

    # Requests.

    def request_problems(
        self, operation: Operation, request: Request, in_path: Mapping[str, str]
    ) -> list[str]:
        """What of a request does not fit its operation; `in_path` are the parameters in its path, as sent."""
        redactor = redactor_of(request)
        found = (
            *self._security_problems(operation, request),
            *self._parameter_problems(operation, request, in_path, redactor),
            *self._body_problems(operation, request, redactor),
        )
        return [*islice(dict.fromkeys(found), MAX_PROBLEMS)]

    def _parameter_problems(
        self,
        operation: Operation,
        request: Request,
        in_path: Mapping[str, str],
        redactor: Redactor,
    ) -> Iterator[str]:
        parameters = self._parameters(operation)
        given = SentParameters(request, in_path, [each for each, _ in parameters])
        for parameter, pointer in parameters:
            name, place = parameter["name"], parameter["in"]
            if place == "header" and name.lower() in NOT_DESCRIBED:
                continue
            where = f"{place} {shown(name)}"
            try:
                values = self._parameter_values(parameter, given)
            except ValueError as error:
                yield f"{where}: {cut(redactor.hidden(str(error)), SHOWN_RULE)}"
                continue
            at = f"{pointer}/schema"
            if "content" in parameter:
                at = f"{pointer}/content/{keyed(next(iter(parameter['content'])))}/schema"
            if values:
                yield from self._schema_problems(where, values, at, redactor, name)
            elif parameter.get("required"):
                yield f"{where}: it is required, and missing"

    def _parameter_values(self, parameter: Mapping[str, Any], given: SentParameters) -> list[Any]:
        """The values that a parameter may have; none where it has not come."""
        if "content" in parameter:
            sent = given.sent(parameter)
            return [from_json(single(sent).text)] if sent else []
        style, schema = style_of(parameter), parameter.get("schema") or {}
        readings = readings_of(schema, self.resolve)
        node = given.node(parameter, style)
        found = candidates(node, schema, style, self.resolve) if node.sent or node.fields else []
        exploded = style.name == "form" and style.explodes and style.is_query
        if exploded and not found and (of := [each for each in readings if is_object(each)]):
            fields = given.fields_of(parameter, of)
            if fields or (parameter.get("required") and self._takes_nothing(of)):
                return objects(fields, schema, self.resolve)
        return found

    def _takes_nothing(self, readings: list[Reading]) -> bool:
        return any(not each.get("required") for one in readings for each in one.schemas)

    def _parameters(self, operation: Operation) -> list[tuple[Mapping[str, Any], str]]:
        """Those of the operation replace those of its path; each with its pointer."""
        found: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = {}
        of_path = operation.pointer.rpartition("/")[0]
        for source, pointer in (
            (operation.item, of_path),
            (operation.definition, operation.pointer),
        ):
            for number, given in enumerate(source.get("parameters") or ()):
                parameter, at = self._document.at(given, f"{pointer}/parameters/{number}")
                found[parameter["name"], parameter["in"]] = (parameter, at)
        return [*found.values()]

    def _security_problems(self, operation: Operation, request: Request) -> Iterator[str]:
        contents = self._document.contents
        wanted = operation.definition.get("security", contents.get("security"))
        schemes = (contents.get("components") or {}).get("securitySchemes") or {}
        if not wanted or any(
            all(has_credentials(self.resolve(schemes.get(name) or {}), request) for name in each)
            for each in wanted
        ):
            return
        named = " or ".join(" and ".join(each) for each in wanted)
        yield f"security: it has no credentials of {cut(named, SHOWN_RULE)}"

    def _body_problems(
        self, operation: Operation, request: Request, redactor: Redactor
    ) -> Iterator[str]:
        if request.shown_stream or not request.is_whole:
            return  # it is the handler's to read
        described, pointer = self._document.at(
            operation.definition.get("requestBody"), f"{operation.pointer}/requestBody"
        )
        try:
            content = request.content
        except ContentError as error:
            yield f"body: {cut(redactor.hidden(str(error)), SHOWN_RULE)}"
            return
        if described is None:
            if content:
                yield "body: the operation takes none"
            return
        if not content:
            if described.get("required"):
                yield "body: it is required, and missing"
            return
        kind = request.headers.get("content-type", "")
        key = media_key(described.get("content") or {}, kind)
        if key is None:
            taken = ", ".join(described.get("content") or ())
            yield f"header 'Content-Type': {shown(kind)} is none of {cut(taken, SHOWN_RULE)}"
            return
        about = described["content"][key] or {}
        if "schema" not in about:
            return
        hold = (request._account or Account()).hold("parsed JSON")
        try:
            hold.resize(room_for_json(content))
            values = self._body_values(request, kind, content, about)
            yield from foreign_parts(request, kind, about.get("encoding") or {})
            if values:
                at = f"{pointer}/content/{keyed(key)}/schema"
                yield from self._schema_problems("body", values, at, redactor)
        except (OverLimitError, ValueError) as error:
            yield f"body: {cut(redactor.hidden(str(error)), SHOWN_RULE)}"
        finally:
            hold.release()

    def _body_values(
        self, request: Request, kind: str, content: bytes, about: Mapping[str, Any]
    ) -> list[Any]:
        """The values that a body may have; none where no schema describes its media type here."""
        media, schema = media_type(kind), about["schema"]
        if is_json(media):
            return [from_json(content)]
        if media == FORM or is_multipart(kind):
            pairs = pairs_of(request.text) if media == FORM else parts_of(request, kind)
            form = Encodings(encoding=about.get("encoding") or {})
            names = [name for each in readings_of(schema, self.resolve) for name in each.properties]
            return objects(tree_of(pairs, names), schema, self.resolve, form)
        if media.startswith("text/"):
            return candidates(node_of(plain(request.text)), schema, TEXT, self.resolve)
        return []

    # Responses.

    def response_problems(self, operation: Operation, response: Response) -> list[str]:
        """What of an answer does not fit its operation. One whose body is streamed is checked by its status alone."""
        described, pointer = described_by(self._document, operation, response.status_code)
        if described is None:
            return [f"status: {response.status_code} is none of its responses"]
        if response.stream is not None or not response.content:
            return []
        key = media_key(described.get("content") or {}, response.headers.get("content-type", ""))
        if key is None or not is_json(media_type(key)) or "schema" not in described["content"][key]:
            return []
        try:
            value = from_json(response.content)
        except ValueError as error:
            return [f"body: {cut(str(error), SHOWN_RULE)}"]
        at = f"{pointer}/content/{keyed(key)}/schema"
        found = self._schema_problems("body", [value], at, Redactor(), is_response=True)
        return [*islice(dict.fromkeys(found), MAX_PROBLEMS)]

    # Schemas.

    def _schema_problems(
        self,
        where: str,
        values: list[Any],
        pointer: str,
        redactor: Redactor,
        name: str = "",
        *,
        is_response: bool = False,
    ) -> list[str]:
        """The problems of the first value; none where one of them fits."""
        problems: list[str] = []
        for value in values:
            try:
                validator = self._validators.at(pointer, is_response=is_response)
                errors = [*islice(validator.iter_errors(value), MAX_PROBLEMS)]
                said = [sentence(where, name, each, redactor) for each in errors]
            except RecursionError:
                said = [f"{where}: it is nested too deeply"]
            except UncheckableError as error:
                return [f"{where}: {error}"]
            if not said:
                return []
            problems = problems or said
        return problems

    @cached_property
    def _validators(self) -> Validators:
        return Validators(self._document)


TEXT: Final = Style(name="", explodes=False, is_query=False)


class SentParameters:
    """What a request has for parameters."""

    def __init__(
        self, request: Request, in_path: Mapping[str, str], parameters: list[Mapping[str, Any]]
    ) -> None:
        self._request, self._in_path = request, in_path
        self._query = pairs_of(request.query_string)
        self._names = {each["name"] for each in parameters if each["in"] == "query"}

    def sent(self, parameter: Mapping[str, Any]) -> list[SentText]:
        """What was sent by its very name."""
        name, place = parameter["name"], parameter["in"]
        if place == "query":
            return [sent for key, sent in self._query if key == name]
        if place == "header":
            return [*map(plain, self._request.headers.get_all(name))]
        if place == "cookie":
            return [*map(plain, self._request.cookies.get_all(name))]
        return [in_a_path(self._in_path[name])] if name in self._in_path else []

    def node(self, parameter: Mapping[str, Any], style: Style) -> Node:
        name, sent = parameter["name"], self.sent(parameter)
        if style.name == "simple" and parameter["in"] == "header" and len(sent) > 1:
            sent = [plain(", ".join(each.text for each in sent))]  # RFC 9110 section 5.3
        if style.name != "deepObject":
            return Node(sent)
        within = [pair for pair in self._query if pair[0].startswith(f"{name}[")]
        fields = tree_of(within).get(name)
        return Node([] if fields else sent, {} if fields is None else fields.fields)

    def fields_of(self, parameter: Mapping[str, Any], readings: list[Reading]) -> dict[str, Node]:
        """The fields of an object that are parameters of their own."""
        names = {name for each in readings for name in each.properties}
        takes_any = any(each.has_any_field for each in readings)
        pairs = [
            (key, sent)
            for key, sent in self._query
            if key in names or (takes_any and key not in self._names)
        ]
        found: dict[str, Node] = {}
        for key, sent in pairs:
            found.setdefault(key, Node()).sent.append(sent)
        return found


def is_object(reading: Reading) -> bool:
    return "object" in reading.types and reading.types != ALL_TYPES


def parts_of(request: Request, kind: str) -> list[tuple[str, SentText]]:
    """The parts of a multipart body. A file is its bytes, as the characters of latin-1."""
    if not request.form.raw and not request.files.raw:  # which has the limits
        return []
    found = []
    for part, is_file in multipart_parts(request.content, kind):
        text = (
            part.content.decode("latin-1")
            if is_file and not is_json(media_type(part.content_type))
            else decode_text(part.content, part.content_type)
        )
        found.append((part.name, plain(text, part.content_type)))
    return found


def foreign_parts(request: Request, kind: str, encoding: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a multipart body that say another Content-Type than `encoding` takes for them."""
    if not is_multipart(kind) or not encoding:
        return
    for name, sent in parts_of(request, kind):
        taken = str((encoding.get(name) or {}).get("contentType", ""))
        keys = [each.strip() for each in taken.split(",") if each.strip()]
        if keys and sent.media and media_key(keys, sent.media) is None:
            yield f"body{step(name)}: its Content-Type {shown(sent.media)} is none of {cut(taken, SHOWN_RULE)}"


def nearest(error: Any) -> Any:
    """The error within those of `anyOf` or `oneOf` that says most: of the branch that was nearly right."""
    for _ in range(MAX_PROBLEMS):
        if error.validator not in ("anyOf", "oneOf") or not error.context:
            return error
        branches: dict[Any, list[Any]] = {}
        for each in error.context:
            branches.setdefault(each.schema_path[0] if each.schema_path else 0, []).append(each)
        if all(each.validator == "type" and not each.path for each in error.context):
            return error  # which names all types
        fit = [
            each
            for each in branches.values()
            if not any(one.validator == "type" and not one.path for one in each)
        ]
        error = min(fit or [error.context], key=len)[0]
    return error


def types_taken(error: Any) -> list[str]:
    """The types of all branches, where none takes what was sent."""
    found: list[str] = []
    for each in error.context or [error]:
        wanted = each.validator_value
        found += wanted if isinstance(wanted, list) else [wanted]
    return [*dict.fromkeys(map(str, found))]


def sentence(where: str, name: str, error: Any, redactor: Redactor) -> str:
    error = nearest(error)
    path = [*error.absolute_path]
    place = cut(redactor.known(where + "".join(map(step, path))), SHOWN_RULE)
    rule, wanted = error.validator, error.validator_value
    if rule in BY_NAME_ALONE:
        return f"{place}: {cut(redactor.known(error.message), SHOWN_RULE)}"
    if rule in ("readOnly", "writeOnly"):
        return f"{place}: it is {rule}"
    named = next((each for each in reversed(path) if isinstance(each, str)), name)
    value = redactor.json(error.instance, secret=redactor.is_secret(named))
    said = cut(redactor.hidden(repr(value)), SHOWN_VALUE)
    if rule == "type" or (rule in ("anyOf", "oneOf") and error.context):
        return f"{place}: {said} is no {cut(' or '.join(types_taken(error)), SHOWN_RULE)}"
    if rule == "enum":
        return f"{place}: {said} is none of {cut(', '.join(map(repr, wanted)), SHOWN_RULE)}"
    return f"{place}: {said} does not fit {rule}: {cut(repr(wanted), SHOWN_RULE)}"


IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w$-]{0,63}")


def step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if IDENTIFIER.fullmatch(key) else f"[{shown(key)}]"


def has_credentials(scheme: Mapping[str, Any], request: Request) -> bool:
    """Whether a request has what a scheme asks for. Empty credentials are none."""
    kind = scheme.get("type")
    if kind == "apiKey":
        return any(each.text.strip() for each in SentParameters(request, {}, []).sent(scheme))
    if kind == "mutualTLS":
        return request.tls is not None and request.tls.client_certificate is not None
    word = str(scheme.get("scheme", "")) if kind == "http" else "bearer"
    given, _, credentials = request.headers.get("authorization", "").partition(" ")
    return given.lower() == word.lower() and bool(credentials.strip())


def media_key(content: Iterable[str], kind: str) -> str | None:
    """The key of a `content` that describes a media type: itself, then without its parameters, then a range."""
    keys = [*content]
    media = media_type(kind)
    exact = [
        each for each in keys if each.lower().replace(" ", "") == kind.lower().replace(" ", "")
    ]
    plain = [each for each in keys if media_type(each) == media]
    ranges = [each for each in keys if each in (f"{media.partition('/')[0]}/*", "*/*")]
    return next(iter([*exact, *plain, *sorted(ranges, key="*/*".__eq__)]), None)


def keyed(key: str) -> str:
    """A key as a part of a pointer in a URI (RFC 6901 section 6)."""
    from urllib.parse import quote

    return quote(key.replace("~", "~0").replace("/", "~1"), safe="~")


def described_by(
    document: Document, operation: Operation, status: int
) -> tuple[Mapping[str, Any] | None, str]:
    """What an operation says of a response, and its pointer: of its status, of its class, or of the rest."""
    responses = operation.definition.get("responses") or {}
    for key in (str(status), f"{status // 100}XX", "default"):
        if key in responses:
            found, pointer = document.at(responses[key], f"{operation.pointer}/responses/{key}")
            return found, pointer
    return None, ""
