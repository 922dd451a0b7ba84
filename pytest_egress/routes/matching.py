"""`Match`: the conditions for a request, apart from its address. One function both decides and explains.

Values only: this module never touches a socket or a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Final

from pytest_egress.base.frames import raised_at
from pytest_egress.base.raising import said_of
from pytest_egress.base.unset import UNSET
from pytest_egress.errors import ContentError
from pytest_egress.routes.answers import name_of, takes
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.json_bodies import check_json, json_request_differences
from pytest_egress.routes.literals import (
    NOTHING,
    Own,
    declared,
    declared_content,
    declared_field,
    declared_values,
    own_literals,
)
from pytest_egress.routes.patterns import (
    PathMatcher,
    QueryValue,
    TextPattern,
    check_path,
    check_text,
    contrast,
    distance,
    path_matcher,
    text_fits,
)
from pytest_egress.traffic.http.headers import FIELD_NAME
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor, redactor_of
from pytest_egress.traffic.shown import SHOWN_TARGET, cut, shown


def pass_by() -> None:
    """The `asking` where nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The conditions that a request has to meet, apart from its address. Absent fields do not matter."""

    method: str | None = None
    path: TextPattern | None = None
    query: Mapping[str, QueryValue] | None = None
    headers: Mapping[str, TextPattern] | None = None
    json: Any = UNSET
    content: bytes | None = None
    match: Callable[[Request], object] | None = None

    def __post_init__(self) -> None:
        for name, kinds in MATCH_TYPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"{name}= takes {wanted}, not {type(value).__name__}: {value!r}")
        if self.path is not None:
            check_path(self.path)
        if self.method is not None:
            check_method(self.method)
        for name in ("query", "headers"):
            for key, value in (getattr(self, name) or {}).items():
                if not isinstance(key, str):
                    raise TypeError(f"{name}= takes names that are str, not {key!r}")
                for each in several(value) if name == "query" else [value]:
                    check_text(f"{name}[{key!r}]", each)
                if name == "headers":
                    check_field_wanted(key, value)
        match: object = self.match
        if match is not None and not (callable(match) and takes(match, 1)):
            raise TypeError(f"match= takes a function of the request, not {match!r}")
        check_json(self.json)
        own = own_literals(self._given())
        object.__setattr__(self, "_own", own)

    @cached_property
    def path_matcher(self) -> PathMatcher:
        return path_matcher(self.path)

    def _given(self) -> dict[str, Any]:
        """The conditions by their names, in the order in which they are shown."""
        given = {name: getattr(self, name) for name in (*MATCH_TYPES, "json", "match")}
        return {n: value for n, value in given.items() if value is not getattr(Match, n)}

    def differences(
        self,
        request: Request,
        asking: Callable[[], None] = pass_by,
        *,
        with_body: bool = True,
    ) -> list[str]:
        """One line for each unmet condition. `asking` is called before the predicate (`match`), where there is one."""
        found = self.head_differences(request)
        if with_body:
            found += self.body_differences(request)
        if self.match is not None and not found:
            asking()
            found += [] if self.match(request) else [self.refusal("returned a false value")]
        return found

    def forecast(
        self, request: Request, asking: Callable[[], None] = pass_by, *, is_whole: bool
    ) -> list[str]:
        """As `differences`, of a request that gets no answer, and whose body may have come in part.

        What only the rest of the body could tell is no difference: then a predicate that reads the body gets a
        `ConnectionError` of ours. One that raises anything else, such as an error about a server of its own, refuses
        the request.
        """
        try:
            return self.differences(request, asking, with_body=is_whole)
        except BaseException as error:  # of the predicate: there is no answer that could fail by it
            if isinstance(error, ClientLeftError) and not is_whole:
                return []
            return [self.raised(error, redactor_of(request))]

    def raised(self, error: BaseException, redactor: Redactor) -> str:
        """The line about an error of the predicate, with the innermost line of the user's that raised it."""
        said = cut(redactor.text(said_of(error).partition("\n")[0]), SHOWN_TARGET)
        where = f", at {place}" if (place := raised_at(error)) else ""
        text = f"{type(error).__name__}: {said}".rstrip(": ")
        return self.refusal(f"raised {text}{where}")

    def refusal(self, what: str) -> str:
        """The line about what the predicate has done."""
        who = "a condition" if self.match is None else f"match: {name_of(self.match)}"
        return f"{who} {what}"

    def head_differences(self, request: Request) -> list[str]:
        found = []
        if self.method is not None and self._is_of_another_method(request):
            found.append(f"method: {request.method} is not {self.method.upper()}")
        if not self.path_matcher.matches(request.path):
            found.append(f"path: {self._another_path(request)}")
        if self.query:
            found += query_differences(self.query, request, self._own)
        if self.headers:
            found += header_differences(self.headers, request, self._own)
        return found

    def _another_path(self, request: Request) -> str:
        redactor = redactor_of(request)
        declared_path = self.path if isinstance(self.path, str) else ""
        masks = redactor.path(request.path), redactor.path(declared_path)
        knows = redactor.secrets or redactor.rules.match  # each request passes over many routes
        shown_as = declared("path", self.path, self._own, redactor) if knows else self.path
        return contrast(request.path, self.path, masks, shown_as)

    def body_differences(self, request: Request) -> list[str]:
        found = []
        if self.content is not None:
            found += content_differences(self.content, request, self._own)
        if self.json is not UNSET:
            found += json_request_differences(self.json, request, self._own)
        return found

    def remoteness(self, request: Request) -> tuple[float, bool]:
        """Sorts conditions that a request does not meet, the nearest first: by the path, and then the method."""
        fits = self.path_matcher.matches(request.path)
        far = 0.0 if fits else distance(self.path, request.path)
        return far, self._is_of_another_method(request)

    def _is_of_another_method(self, request: Request) -> bool:
        return self.method is not None and self.method.upper() != request.method.upper()

    def __str__(self) -> str:
        return self.text(BY_NAMES)

    def text(self, redactor: Redactor) -> str:
        """The conditions as keyword arguments of the declaration: `method='POST', path='/x'`."""
        given = self._given().items()
        listed = {name: declared(name, value, self._own, redactor) for name, value in given}
        return ", ".join(
            f"{name}={getattr(each, '__name__', shown(each))}" for name, each in listed.items()
        )

    _own: ClassVar[Own] = NOTHING
    """The test's own literals, which are shown as they are; of an instance, which is no field."""


MATCH_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "method": (str,),
    "path": (str, re.Pattern),
    "query": (Mapping,),
    "headers": (Mapping,),
    "content": (bytes,),
}


ANY_REQUEST: Final = Match()
MATCHERS: Final = tuple(field.name for field in fields(Match))


def check_method(method: str) -> None:
    """Refuse a method that no request can have (RFC 9110 section 9.1)."""
    if not method:
        raise ValueError("method='' can never match: leave it out, or name one")
    if not FIELD_NAME.fullmatch(method):
        raise ValueError(
            f"method={method!r} can never match: it is one token, such as 'POST'; a route for several takes none, and "
            "match=lambda request: request.method in (...)"
        )


def check_field_wanted(name: str, value: object) -> None:
    """Refuse a header field that no request can have (RFC 9110 section 5)."""
    if not FIELD_NAME.fullmatch(name):
        raise ValueError(f"headers[{name!r}] can never match: it is no name of a header field")
    if isinstance(value, str) and value != value.strip(" \t\r\n"):
        raise ValueError(
            f"headers[{name!r}]={shown(value)} can never match: a value is compared without the white space around it"
        )


def several(value: Any) -> list[Any]:
    return [*value] if isinstance(value, (list, tuple)) else [value]


def query_differences(wanted: Mapping[str, QueryValue], request: Request, own: Own) -> list[str]:
    found, values, redactor = [], request.query, redactor_of(request)
    for key, value in wanted.items():
        is_list = isinstance(value, (list, tuple))
        theirs: Any = values.get_all(key) if is_list else values.get(key)
        mine: Any = several(value) if is_list else value
        if all_fit(mine, theirs) if is_list else key in values and text_fits(mine, theirs):
            continue
        expected = declared_values(key, mine, own, redactor)
        if key not in values:
            found.append(f"query[{key!r}]: absent, expected {shown(expected)}")
        else:
            both = theirs, mine
            masks: Any = tuple(declared_values(key, each, NOTHING, redactor) for each in both)
            found.append(f"query[{key!r}]: {contrast(theirs, mine, masks, expected)}")
    return found


def all_fit(wanted: list[Any], found: list[str]) -> bool:
    return len(wanted) == len(found) and all(map(text_fits, wanted, found))


def header_differences(wanted: Mapping[str, TextPattern], request: Request, own: Own) -> list[str]:
    found, redactor = [], redactor_of(request)
    for key, value in wanted.items():
        theirs = request.headers.get(key)
        if theirs is not None and text_fits(value, theirs):
            continue
        expected = declared_field(key, value, own, redactor)
        if theirs is None:
            found.append(f"headers[{key!r}]: absent, expected {shown(expected)}")
        else:
            masks = redactor.field(key, theirs), redactor.field(key, value)
            found.append(f"headers[{key!r}]: {contrast(theirs, value, masks, expected)}")
    return found


def content_differences(wanted: bytes, request: Request, own: Own) -> list[str]:
    """A body that cannot be decoded is a difference."""
    try:
        content = request.content
    except ContentError as error:
        return [f"content: {error}"]
    if content == wanted:
        return []
    redactor = redactor_of(request)
    masks = redactor.content(content), redactor.content(wanted)
    shown_as = declared_content(wanted, own, redactor)
    return [f"content: {contrast(content, wanted, masks, shown_as)}"]
