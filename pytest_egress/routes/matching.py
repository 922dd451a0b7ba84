"""`Match`: the conditions for a request, apart from its address. One function both decides and explains.

Values only: this module never touches a socket or a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import takewhile
from operator import eq
from typing import Any, Final
from urllib.parse import quote

from pytest_egress.base.globs import Glob
from pytest_egress.base.unset import UNSET
from pytest_egress.errors import ContentError
from pytest_egress.routes.answers import QueryValue, takes
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.traffic.http.headers import FIELD_NAME
from pytest_egress.traffic.http.request import Request, lent_json
from pytest_egress.traffic.redaction import (
    is_secret,
    masked,
    masked_bytes,
    masked_field,
    masked_json,
)
from pytest_egress.traffic.shown import shown


def pass_by() -> None:
    """The `asking` where nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The conditions that a request has to meet, apart from its address. Absent fields do not matter."""

    method: str | None = None
    path: str | None = None
    query: Mapping[str, QueryValue] | None = None
    headers: Mapping[str, str] | None = None
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
                    check_wire_text(f"{name}[{key!r}]", each)
                if name == "headers":
                    check_field_wanted(key, value)
        match: object = self.match
        if match is not None and not (callable(match) and takes(match, 1)):
            raise TypeError(f"match= takes a function of the request, not {match!r}")

    def differences(self, request: Request, asking: Callable[[], None] = pass_by) -> list[str]:
        """One line for each unmet condition. `asking` is called before the predicate (`match`), where there is one."""
        found = self.head_differences(request)
        if self.content is not None:
            found += content_differences(self.content, request)
        if self.json is not UNSET:
            found += json_request_differences(self.json, request)
        if self.match is not None and not found:
            asking()
            found += [] if self.match(request) else [self._refusal("returned a false value")]
        return found

    def forecast(
        self, request: Request, asking: Callable[[], None] = pass_by, *, is_whole: bool
    ) -> list[str]:
        """As `differences`, of a request that gets no answer, and whose body may have come in part.

        What only the rest of the body could tell is no difference: then a predicate that reads the body gets a
        `ConnectionError` of ours. One that raises anything else, such as an error about a server of its own, refuses
        the request.
        """
        conditions = self if is_whole else self._without_body
        try:
            return conditions.differences(request, asking)
        except BaseException as error:  # of the predicate: there is no answer that could fail by it
            if isinstance(error, ClientLeftError) and not is_whole:
                return []
            return [self._refusal(f"raised {type(error).__name__}")]

    @cached_property
    def _without_body(self) -> Match:
        return replace(self, json=UNSET, content=None)

    def _refusal(self, what: str) -> str:
        return f"match: {getattr(self.match, '__name__', self.match)} {what}"

    def head_differences(self, request: Request) -> list[str]:
        found = []
        if self.method is not None and self.method.upper() != request.method.upper():
            found.append(f"method: {request.method} is not {self.method.upper()}")
        if self.path is not None and not path_glob(self.path).matches(request.path):
            found.append(f"path: {shown(request.path)} is not {shown(self.path)}")
        if self.query:
            found += query_differences(self.query, request)
        for key, value in (self.headers or {}).items():
            if key not in request.headers:
                found.append(
                    f"headers[{key!r}]: absent, expected {shown(masked_field(key, value))}"
                )
            elif request.headers[key] != value:
                masks = masked_field(key, request.headers[key]), masked_field(key, value)
                found.append(f"headers[{key!r}]: {contrast(request.headers[key], value, masks)}")
        return found

    def __str__(self) -> str:
        """The conditions as keyword arguments of the declaration: `method='POST', path='/x'`."""
        fields = [(name, getattr(self, name)) for name in (*MATCH_TYPES, "json", "match")]
        given = [(name, value) for name, value in fields if value is not getattr(Match, name)]
        masked = [(name, masked_matcher(name, value)) for name, value in given]
        return ", ".join(
            f"{name}={getattr(each, '__name__', shown(each))}" for name, each in masked
        )


MATCH_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "method": (str,),
    "path": (str,),
    "query": (Mapping,),
    "headers": (Mapping,),
    "content": (bytes,),
}


ANY_REQUEST: Final = Match()
MATCHERS: Final = tuple(field.name for field in fields(Match))


def check_path(path: str) -> None:
    if path.startswith(("/", "*")) and not {"?", "#"} & {*path}:
        if (sent := percent_encoded(path)) != path:
            raise ValueError(
                f"path={path!r} can never match: a path is compared as it is sent, percent-encoded: path={sent!r}"
            )
        return
    hint = "it starts with / or *"
    if "?" in path:
        hint = "the query goes into query="
    elif "#" in path:
        hint = "a fragment is never sent"
    raise ValueError(f"path={path!r} can never match: a path is without host and query ({hint})")


def percent_encoded(text: str) -> str:
    """Each character that no request-target may have is percent-encoded, as its UTF-8 (RFC 3986 section 2.1)."""
    if NOT_IN_TARGET.search(text) is None:
        return text
    return NOT_IN_TARGET.sub(lambda found: quote(found[0], errors="surrogatepass"), text)


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


def check_wire_text(what: str, value: object) -> None:
    """Refuse a value that can never equal a str; an object with its own `__eq__`, such as `mock.ANY`, may."""
    if not isinstance(value, str) and type(value).__eq__(value, "") is NotImplemented:
        raise TypeError(
            f"{what} takes a str, which it is on the wire, not {type(value).__name__}: {value!r}"
        )


NOT_IN_TARGET: Final = re.compile(r"[^!-~]")
"""What no request-target has: white space, controls, and what is not ASCII. Bytes of the last kind are encoded."""

path_glob: Final = lru_cache(maxsize=1024)(Glob)


def several(value: Any) -> list[Any]:
    return [*value] if isinstance(value, (list, tuple)) else [value]


def query_differences(wanted: Mapping[str, QueryValue], request: Request) -> list[str]:
    found, values = [], request.query
    for key, value in wanted.items():
        is_list = isinstance(value, (list, tuple))
        theirs: Any = values.get_all(key) if is_list else values.get(key)
        mine: Any = [*value] if is_list else value
        if is_list and theirs == mine:
            continue
        if key not in values:
            found.append(f"query[{key!r}]: absent, expected {shown(masked_values(key, mine))}")
        elif theirs != mine:
            masks = masked_values(key, theirs), masked_values(key, mine)
            found.append(f"query[{key!r}]: {contrast(theirs, mine, masks)}")
    return found


def masked_values(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [masked(key, each) for each in value]
    return masked(key, value)


def content_differences(wanted: bytes, request: Request) -> list[str]:
    """A body that cannot be decoded is a difference."""
    try:
        content = request.content
    except ContentError as error:
        return [f"content: {error}"]
    if content == wanted:
        return []
    return [f"content: {contrast(content, wanted, (masked_bytes(content), masked_bytes(wanted)))}"]


def json_request_differences(wanted: Any, request: Request) -> list[str]:
    try:
        with lent_json(request, times=2) as found:  # a copy has its secrets masked
            return list(json_differences(wanted, found))
    except ContentError as error:
        return [f"json: {error}"]
    except (ValueError, RecursionError):  # RecursionError: nested too deeply to parse
        return [f"json: the body is no JSON: {shown(masked_bytes(request.content))}"]


def json_differences(
    wanted: Any, found: Any, path: str = "json", secret: bool = False
) -> Iterator[str]:
    """A line for each difference: `json.items[0].price: 5 is not 6`; masked where a name in the path is a secret's."""

    def mask(value: object, secret: bool = secret) -> object:
        return masked_json(value, secret=secret)

    if isinstance(wanted, Mapping) and isinstance(found, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            place = f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]"
            inside = secret or is_secret(str(key))
            if key not in found:
                yield f"{place}: absent, expected {shown(mask(wanted[key], inside))}"
            elif key not in wanted:
                yield f"{place}: {shown(mask(found[key], inside))} was not expected"
            else:
                yield from json_differences(wanted[key], found[key], place, inside)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (mine, theirs) in enumerate(zip(wanted, found, strict=True)):
            yield from json_differences(mine, theirs, f"{path}[{index}]", secret)
    elif isinstance(wanted, list) and isinstance(found, list):
        yield f"{path}: {len(found)} items, expected {len(wanted)}"
    elif wanted != found or is_true_for_one(wanted, found):
        yield f"{path}: {contrast(found, wanted, (mask(found), mask(wanted)))}"


def is_true_for_one(wanted: object, found: object) -> bool:
    """Whether one value is `true` and the other is 1, or `false` and 0: equal in Python, not in JSON."""
    numbers = isinstance(wanted, (int, float)) and isinstance(found, (int, float))
    return numbers and isinstance(wanted, bool) != isinstance(found, bool)


def contrast(found: Any, wanted: Any, masks: tuple[object, object]) -> str:
    """Two values that are shown alike get the position from which on they differ. `masks` has their secrets masked."""
    one, other = map(shown, masks)
    text = f"{one} is not {other}"
    if one != other or type(found) is not type(wanted) or not isinstance(found, (str, bytes)):
        return text
    same = sum(1 for _ in takewhile(bool, map(eq, found, wanted)))
    return f"{text}: they differ from character {same + 1} on"


def masked_matcher(name: str, value: Any) -> Any:
    if name == "headers":
        return {key: masked_field(key, each) for key, each in value.items()}
    if name == "query":
        return {key: masked_values(key, each) for key, each in value.items()}
    if name == "content":
        return masked_bytes(value)
    return masked_json(value) if name == "json" else value
