"""`openapi(spec, answer)`: checks each request against its document, and has another answer, or an example, answer it.

The client gets the answer whatever the check says. A request that does not fit fails the test, as a handler's error.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Mapping
from os import PathLike
from typing import Any, Final

from pytest_egress.base.unset import UNSET, Unset
from pytest_egress.errors import OpenApiError
from pytest_egress.routes.answers import (
    AnsweredError,
    Application,
    Begin,
    Forward,
    HttpAnswer,
    answered_by,
    check_answer,
)
from pytest_egress.routes.faults import Fault
from pytest_egress.routes.openapi.checking import Checks, described_by
from pytest_egress.routes.openapi.documents import Document, read_document
from pytest_egress.routes.openapi.operations import Operation, Sought, find, operations_of
from pytest_egress.routes.openapi.values import is_json
from pytest_egress.routes.recordings.passing import PassedBody
from pytest_egress.routes.sequences import AnswerSequence
from pytest_egress.traffic.http.forms import media_type
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import SHOWN_TARGET, cut, shown

NO_STATUS: Final = 200


class OpenApi(Application):
    """An answer that checks what it answers; `openapi` makes it.

    Attributes:
        within: The answer that it checks; UNSET where an example answers.
    """

    def __init__(self, document: Document, answer: Any) -> None:
        self._document, self.within = document, answer
        self._operations = operations_of(document)
        self._checks = Checks(document)

    def __repr__(self) -> str:
        return f"openapi({shown(self._document.name)})"

    def around(self, answer: Any) -> OpenApi:
        made = copy.copy(self)
        made.within = answer
        return made

    def acquire(self) -> None:
        if isinstance(self.within, Application):
            self.within.acquire()

    def release(self) -> None:
        if isinstance(self.within, Application):
            self.within.release()

    def answer(self, request: Request, begin: Begin) -> Any:
        """A response, or something that is awaited for it where the answer within is async."""
        found = find(self._operations, request.method.upper(), request.path)
        answer = self.within
        if answer is UNSET:
            return self._checked(request, found, example_of(self._document, found.operation))
        if isinstance(answer, Response):
            return self._checked(request, found, answer)
        error = None
        try:
            result = answered_within(answer, request, begin)
        except AnsweredError as answered:
            result, error = answered.response, answered.error
        if inspect.isawaitable(result):
            return self._awaited(request, found, result)
        return self._checked(request, found, whole_json(answered_by(answer, result)), error)

    async def _awaited(self, request: Request, found: Sought, result: Awaitable[Any]) -> Response:
        return self._checked(request, found, answered_by(self.within, await result))

    def _checked(
        self,
        request: Request,
        found: Sought,
        response: Response | Fault,
        error: BaseException | None = None,
    ) -> Response:
        """Raise AnsweredError where the request, or the answer, does not fit."""
        if isinstance(response, Fault):
            raise TypeError(f"{response}: a fault goes around openapi(...), not into it")
        problems, operation = [self._no_operation(request, found)], found.operation
        if operation is not None:
            problems = self._checks.request_problems(operation, request, found.in_path)
        about = f"{request.method} {request.shown_url} does not fit {self._about(operation)}"
        if not problems and operation is not None and self.within is not UNSET:
            problems = self._checks.response_problems(operation, response)
            about = f"the answer to {request.method} {request.shown_url} does not fit {self._about(operation)}"
        if problems and error is None:
            error = OpenApiError("\n  ".join([f"{about}:", *problems]))
        if error is not None:
            raise AnsweredError(response, error)
        return response

    def _about(self, operation: Operation | None) -> str:
        return self._document.name if operation is None else f"{operation} of {self._document.name}"

    def _no_operation(self, request: Request, found: Sought) -> str:
        if found.others:
            declared = ", ".join(dict.fromkeys(each.method for each in found.others))
            return (
                f"method: {shown(request.method)} is none of {declared} of {found.others[0].path}"
            )
        path = cut(redactor_of(request).path(request.path), SHOWN_TARGET)
        paths = [*dict.fromkeys(f"{each.bases[0]}{each.path}" for each in self._operations)]
        more = f", and {len(paths) - 5} more" if len(paths) > 5 else ""
        return f"path: {shown(path)} is none of {', '.join(paths[:5])}{more}"


def whole_json(response: Response | Fault) -> Response | Fault:
    """A response that is being recorded, with its whole content where that is JSON: nobody reads a part of it."""
    if isinstance(response, Fault) or not isinstance(response.stream, PassedBody):
        return response
    if not is_json(media_type(response.headers.get("content-type", ""))):
        return response
    status, content = response.status_code, b"".join(response.stream)
    whole = Response.received(status, response.headers, reason=response.reason, content=content)
    whole._note = response._note
    return whole


def answered_within(answer: Any, request: Request, begin: Begin) -> Any:
    if isinstance(answer, Forward):
        return request.forward(answer)
    if isinstance(answer, Application):
        return answer.answer(request, begin)
    return answer(request)


def openapi(
    spec: str | PathLike[str] | Mapping[str, Any], answer: HttpAnswer | Unset = UNSET
) -> OpenApi:
    """Check the requests of a route against an OpenAPI document (3.0 or 3.1), and answer them.

    Checked are method and path, parameters, credentials, Content-Type and body; and the status and the JSON of what
    `answer` answers. What does not fit fails the test, and the client gets the answer all the same. It needs
    `pip install 'pytest-egress[openapi]'`.

    Args:
        spec: A file of JSON or YAML, or a dict. `$ref` leads within it.
        answer: A function of the `Request`, async or not, or a static answer, `forward()`, `cassette()`, or an
            application. Without one the example of the operation's first
            response of success answers, or an empty body with its status where it has none.

    Raises:
        TypeError, ValueError: The document cannot be read, or is not valid; the text names the file and the place.
        ImportError: The extra is not installed.
    """
    if isinstance(answer, (AnswerSequence, Fault)):
        raise TypeError(
            f"openapi(spec, {shown(answer)}): put openapi(...) into it, and not it into openapi(...)"
        )
    return OpenApi(
        read_document(spec), UNSET if answer is UNSET else check_answer(answer, raw=False)
    )


def example_of(document: Document, operation: Operation | None) -> Response:
    """The example of an operation's first response of success."""
    responses = (operation.definition.get("responses") or {}) if operation is not None else {}
    status = min(
        (int(key) for key in responses if key.isdecimal() and key[0] == "2"), default=NO_STATUS
    )
    if operation is None:
        return Response(status)
    described, _ = described_by(document, operation, status)
    for media, given in ((described or {}).get("content") or {}).items():
        content = document.at(given)[0]
        if is_json(media_type(media)) and (example := example_in(document, content)) is not UNSET:
            return Response(status, json=example, headers={"Content-Type": media})
    return Response(status)


def example_in(document: Document, content: Mapping[str, Any]) -> Any:
    if "example" in content:
        return content["example"]
    for given in (content.get("examples") or {}).values():
        found = document.at(given)[0]
        if "value" in found:
            return found["value"]
    schema = document.at(content.get("schema") or {})[0]
    if not isinstance(schema, Mapping):
        return UNSET
    several = schema.get("examples")
    return several[0] if isinstance(several, list) and several else schema.get("example", UNSET)
