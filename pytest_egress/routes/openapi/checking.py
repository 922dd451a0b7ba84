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

from pytest_egress.errors import ContentError
from pytest_egress.routes.openapi.documents import URI, Document
from pytest_egress.routes.openapi.operations import Operation
from pytest_egress.routes.openapi.values import (
    deep_object,
    fields,
    from_json,
    parameter_value,
    types_of,
)
from pytest_egress.traffic.http.forms import is_multipart, media_type
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import Redactor, redactor_of
from pytest_egress.traffic.shown import SHOWN_VALUE, cut, shown

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
        """What of a request does not fit its operation; `in_path` are the parameters in its path."""
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
        for parameter, pointer in self._parameters(operation):
            name, place = parameter["name"], parameter["in"]
            if place == "header" and name.lower() in NOT_DESCRIBED:
                continue
            where = f"{place} {shown(name)}"
            texts = sent_as(parameter, request, in_path)
            if parameter.get("style") == "deepObject":
                texts = []
                if pairs := deep_object(name, request.query.raw):
                    schema = self.resolve(parameter.get("schema") or {})
                    value: Any = fields(pairs, schema, self.resolve)
                    yield from self._schema_problems(
                        where, value, f"{pointer}/schema", redactor, name
                    )
                    continue
            if not texts:
                if parameter.get("required") and not self._is_exploded_object(parameter):
                    yield f"{where}: it is required, and missing"
                continue
            try:
                value = parameter_value(parameter, texts, self.resolve)
            except ValueError as error:
                yield f"{where}: {cut(str(error), SHOWN_RULE)}"
                continue
            at = f"{pointer}/schema"
            if "content" in parameter:
                at = f"{pointer}/content/{keyed(next(iter(parameter['content'])))}/schema"
            yield from self._schema_problems(where, value, at, redactor, name)

    def _is_exploded_object(self, parameter: Mapping[str, Any]) -> bool:
        """Whether its fields are parameters of their own, so that its name is in no query."""
        schema = self.resolve(parameter.get("schema") or {})
        return "object" in types_of(schema) and parameter.get("explode", True) is True

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
        at = f"{pointer}/content/{keyed(key)}/schema"
        schema = self.resolve((described["content"][key] or {}).get("schema") or {})
        try:
            value = self._body_value(request, kind, content, schema)
        except ValueError as error:
            yield f"body: {cut(redactor.hidden(str(error)), SHOWN_RULE)}"
            return
        if value is not NO_VALUE and "schema" in described["content"][key]:
            yield from self._schema_problems("body", value, at, redactor)

    def _body_value(self, request: Request, kind: str, content: bytes, schema: Any) -> Any:
        media = media_type(kind)
        if is_json(media):
            return from_json(content)
        if media == FORM or is_multipart(kind):
            files = [(name, file.content.decode("latin-1")) for name, file in request.files.raw]
            return fields([*request.form.raw, *files], schema, self.resolve)
        return request.text if media.startswith("text/") else NO_VALUE

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
        found = self._schema_problems("body", value, at, Redactor(), is_response=True)
        return [*islice(found, MAX_PROBLEMS)]

    # Schemas.

    def _schema_problems(
        self,
        where: str,
        value: Any,
        pointer: str,
        redactor: Redactor,
        name: str = "",
        *,
        is_response: bool = False,
    ) -> Iterator[str]:
        try:
            validator = self._validators[is_response]({"$ref": f"{URI}#{pointer}"}, **self._options)
            errors = islice(validator.iter_errors(value), MAX_PROBLEMS)
            yield from (sentence(where, name, each, redactor) for each in errors)
        except RecursionError:
            yield f"{where}: it is nested too deeply"

    @cached_property
    def _validators(self) -> tuple[Any, Any]:
        """Those of requests and of responses."""
        import openapi_schema_validator as schemas

        if self._document.is_3_0:
            return schemas.OAS30WriteValidator, schemas.OAS30ReadValidator
        return (
            directed(schemas.OAS31Validator, "readOnly", self.resolve),
            directed(schemas.OAS31Validator, "writeOnly", self.resolve),
        )

    @cached_property
    def _options(self) -> dict[str, Any]:
        import openapi_schema_validator as schemas
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        contents: Any = self._document.contents
        resource = DRAFT202012.create_resource(contents)
        formats = (
            schemas.oas30_format_checker if self._document.is_3_0 else schemas.oas31_format_checker
        )
        registry: Any = Registry()
        return {"registry": registry.with_resource(URI, resource), "format_checker": formats}


NO_VALUE: Final[Any] = object()
"""The body of a media type that no schema describes here."""


def directed(validator: Any, keyword: str, resolve: Any) -> Any:
    """A validator of OpenAPI 3.1 for one direction: properties with the keyword are neither sent nor required."""
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def refused(_: Any, is_set: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if is_set is True:
            yield ValidationError(f"it is {keyword}")

    def required(_: Any, names: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        properties = schema.get("properties") or {}
        for name in names:
            described = resolve(properties.get(name) or {})
            is_other = isinstance(described, Mapping) and described.get(keyword) is True
            if name not in instance and not is_other:
                yield ValidationError(f"{name!r} is a required property")

    return extend(validator, {keyword: refused, "required": required})


def sentence(where: str, name: str, error: Any, redactor: Redactor) -> str:
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
    if rule == "type":
        types = wanted if isinstance(wanted, list) else [wanted]
        return f"{place}: {said} is no {' or '.join(map(str, types))}"
    if rule == "enum":
        return f"{place}: {said} is none of {cut(', '.join(map(repr, wanted)), SHOWN_RULE)}"
    return f"{place}: {said} does not fit {rule}: {cut(repr(wanted), SHOWN_RULE)}"


IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w$-]{0,63}")


def step(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if IDENTIFIER.fullmatch(key) else f"[{shown(key)}]"


def sent_as(
    parameter: Mapping[str, Any], request: Request, in_path: Mapping[str, str]
) -> list[str]:
    """The texts of a parameter in a request; none where it is missing."""
    name, place = parameter["name"], parameter["in"]
    if place == "query":
        return request.query.get_all(name)
    if place == "header":
        return request.headers.get_all(name)
    if place == "cookie":
        return request.cookies.get_all(name)
    return [in_path[name]] if name in in_path else []


def has_credentials(scheme: Mapping[str, Any], request: Request) -> bool:
    """Whether a request has what a scheme asks for. Empty credentials are none."""
    kind = scheme.get("type")
    if kind == "apiKey":
        parameter = {"name": scheme["name"], "in": scheme["in"]}
        return any(each.strip() for each in sent_as(parameter, request, {}))
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


def is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")


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
