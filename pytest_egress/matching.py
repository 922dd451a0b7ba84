"""What a request must be like, and where one differs: the same function decides and explains.

Values only: this module never touches a socket or a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

from pytest_egress.answers import takes
from pytest_egress.exchange import UNSET, Request, shown

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a request must be like, apart from its address. Absent fields do not matter."""

    method: str | None = None
    path: str | None = None
    query: Mapping[str, str] | None = None
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
        if self.method == "":
            raise ValueError("method='' can never match: leave it out, or name one")
        for name in ("query", "headers"):
            for key, value in (getattr(self, name) or {}).items():
                if not isinstance(key, str):
                    raise TypeError(f"{name}= takes names that are str, not {key!r}")
                check_wire_text(f"{name}[{key!r}]", value)
        match: object = self.match
        if match is not None and not (callable(match) and takes(match, 1)):
            raise TypeError(f"match= takes a function of the request, not {match!r}")

    def differences(self, request: Request) -> list[str]:
        """Every field in which the request is not what was asked for, as a line each; none means that it matches."""
        found = []
        if self.method is not None and self.method.upper() != request.method.upper():
            found.append(f"method: {request.method} is not {self.method.upper()}")
        if self.path is not None and not path_pattern(self.path).fullmatch(request.path):
            found.append(f"path: {shown(request.path)} is not {shown(self.path)}")
        for name, wanted, values in (
            ("query", self.query, request.query if self.query else {}),
            ("headers", self.headers, request.headers),
        ):
            for key, value in (wanted or {}).items():
                if key not in values:
                    found.append(f"{name}[{key!r}]: absent, expected {shown(value)}")
                elif values[key] != value:
                    found.append(f"{name}[{key!r}]: {shown(values[key])} is not {shown(value)}")
        if self.content is not None and self.content != request.content:
            found.append(f"content: {shown(request.content)} is not {shown(self.content)}")
        if self.json is not UNSET:
            found += json_request_differences(self.json, request)
        if self.match is not None and not found and not self.match(request):
            found.append(
                f"match: {getattr(self.match, '__name__', self.match)} returned a false value"
            )
        return found

    def __str__(self) -> str:
        """As keywords of the declaration: `method='POST', path='/x'`."""
        fields = [(name, getattr(self, name)) for name in (*MATCH_TYPES, "json", "match")]
        given = [(name, value) for name, value in fields if value is not getattr(Match, name)]
        return ", ".join(f"{name}={shown_declaration(value)}" for name, value in given)


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
    """Refuse what no path of a request equals."""
    if path.startswith(("/", "*")) and not {"?", "#"} & {*path}:
        return
    hint = "it starts with / or *"
    if "?" in path:
        hint = "the query goes into query="
    elif "#" in path:
        hint = "a fragment is never sent"
    raise ValueError(f"path={path!r} can never match: a path is without host and query ({hint})")


def check_wire_text(what: str, value: object) -> None:
    """Refuse what never equals a text; an object with an equality of its own (`mock.ANY`) may."""
    if not isinstance(value, str) and type(value).__eq__(value, "") is NotImplemented:
        raise TypeError(
            f"{what} takes a str, which it is on the wire, not {type(value).__name__}: {value!r}"
        )


@lru_cache(maxsize=1024)
def path_pattern(path: str) -> re.Pattern[str]:
    """The whole path; `*` is any run of characters."""
    return re.compile(".*".join(map(re.escape, path.split("*"))), re.DOTALL)


def json_request_differences(wanted: Any, request: Request) -> list[str]:
    """As `json_differences`, for the body of a request."""
    try:
        return list(json_differences(wanted, request.json()))
    except (ValueError, RecursionError):  # so deep that nobody reads it
        return [f"json: the body is no JSON: {shown(request.content)}"]


def json_differences(wanted: Any, found: Any, path: str = "json") -> Iterator[str]:
    """Where two JSON values differ, by path: `json.items[0].price: 5 is not 6`."""
    if isinstance(wanted, Mapping) and isinstance(found, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            place = f"{path}.{key}" if str(key).isidentifier() else f"{path}[{key!r}]"
            if key not in found:
                yield f"{place}: absent, expected {shown(wanted[key])}"
            elif key not in wanted:
                yield f"{place}: {shown(found[key])} was not expected"
            else:
                yield from json_differences(wanted[key], found[key], place)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (mine, theirs) in enumerate(zip(wanted, found, strict=True)):
            yield from json_differences(mine, theirs, f"{path}[{index}]")
    elif isinstance(wanted, list) and isinstance(found, list):
        yield f"{path}: {len(found)} items, expected {len(wanted)}"
    elif wanted != found or is_true_for_one(wanted, found):
        yield f"{path}: {shown(found)} is not {shown(wanted)}"


def is_true_for_one(wanted: object, found: object) -> bool:
    """Whether one is `true` where the other is 1: equal in Python, not in JSON."""
    numbers = isinstance(wanted, (int, float)) and isinstance(found, (int, float))
    return numbers and isinstance(wanted, bool) != isinstance(found, bool)


def shown_declaration(value: object) -> str:
    """A value as it stands in a declaration; functions by their name."""
    return str(getattr(value, "__name__", shown(value)))
