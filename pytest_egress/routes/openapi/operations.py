"""`Operation`: one method of one path of a document; and the search for that of a request.

Paths are compared segment by segment, decoded. A literal segment goes before a template (OpenAPI 3.1 section 4.8.8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from pytest_egress.routes.openapi.documents import Document, escaped_key

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
MAX_BASES: Final = 64  # of one server, by the values of its variables
MAX_NAMES: Final = 100  # in one segment
TEMPLATE: Final = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Operation:
    """One method of one path.

    Attributes:
        method: In upper case.
        path: The path as the document has it.
        pointer: Where it is in the document.
        item: What the document says of its path.
        definition: What the document says of it.
        bases: The paths of its servers, without a slash at their end.
    """

    method: str
    path: str
    pointer: str
    item: Mapping[str, Any] = field(repr=False)
    definition: Mapping[str, Any] = field(repr=False)
    bases: tuple[str, ...] = ("",)

    def __str__(self) -> str:
        name = self.definition.get("operationId")
        said = f"{self.method} {self.path}"
        return f"{name} ({said})" if name else said

    def values(self, path: str) -> dict[str, str] | None:
        """The parameters in a path, as they were sent; None where it is another path."""
        parts = path.split("/")
        for base in self.bases:
            of_base = base.count("/") + 1
            if values_in(base, "/".join(parts[:of_base])) is not None:
                found = values_in(self.path, "/" + "/".join(parts[of_base:]))
                if found is not None:
                    return found
        return None

    @property
    def rank(self) -> tuple[int, ...]:
        """A path whose earlier segments are literal comes first, then one that is so in part."""
        return tuple(rank_of(each) for each in self.path.split("/"))


def rank_of(segment: str) -> int:
    names = TEMPLATE.findall(segment)
    is_whole = TEMPLATE.fullmatch(segment) is not None
    return MAX_NAMES if is_whole else min(len(names), MAX_NAMES - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sought:
    """What a document has for a request.

    Attributes:
        operation: None where its path is none, or has no such method.
        in_path: The parameters in its path, as they were sent.
        others: The operations of that path.
    """

    operation: Operation | None = None
    in_path: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Operation, ...] = ()


def find(operations: Iterable[Operation], method: str, path: str) -> Sought:
    """The operation of the most literal path that fits: no other one is asked for a method that it has not.

    HEAD is asked of GET where a path does not declare it (RFC 9110 section 9.3.2).
    """
    found: dict[str, tuple[Operation, Mapping[str, str]]] = {}
    for each in operations:  # by rank
        if found and each.rank != next(iter(found.values()))[0].rank:
            break
        values = each.values(path)
        if values is not None:
            found.setdefault(each.method, (each, values))
    others = tuple(each for each, _ in found.values())
    wanted = found.get(method) or (found.get("GET") if method == "HEAD" else None)
    if wanted is None:
        return Sought(others=others)
    return Sought(operation=wanted[0], in_path=wanted[1], others=others)


def values_in(template: str, path: str) -> dict[str, str] | None:
    wanted, given = template.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    values: dict[str, str] = {}
    for each, sent in zip(wanted, given, strict=True):
        found = values_of_segment(each, sent)
        if found is None:
            return None
        values.update(found)
    return values


def values_of_segment(template: str, sent: str) -> dict[str, str] | None:
    parts = TEMPLATE.split(template)  # literals, and names between them
    if len(parts) == 1:
        return {} if unquote(template) == unquote(sent) else None
    if parts[0] == parts[2] == "" and len(parts) == 3:
        return {parts[1]: sent} if sent else None
    found = values_between(parts, sent)
    if found is None and "%" in sent:  # a literal may be encoded
        decoded = values_between(parts, unquote(sent))
        found = decoded and {name: quote(value, safe="") for name, value in decoded.items()}
    return found


def values_between(parts: list[str], sent: str) -> dict[str, str] | None:
    """A value ends at the next literal, so that no expression has to go back."""
    if not sent.startswith(parts[0]):
        return None
    values, at = {}, len(parts[0])
    for number in range(1, len(parts), 2):
        literal, is_last = parts[number + 1], number + 2 == len(parts)
        end = len(sent) - len(literal) if is_last else sent.find(literal, at + 1)
        if end <= at or not sent.startswith(literal, end):
            return None
        values[parts[number]], at = sent[at:end], end + len(literal)
    return values


def operations_of(document: Document) -> list[Operation]:
    """The more literal a path, the earlier it is."""
    return sorted(all_operations(document), key=lambda each: each.rank)


def all_operations(document: Document) -> Iterator[Operation]:
    contents = document.contents
    for path, given in (contents.get("paths") or {}).items():
        item, pointer = document.at(given, f"/paths/{escaped_key(path)}")
        for method in METHODS:
            if (definition := item.get(method)) is not None:
                servers = (
                    definition.get("servers") or item.get("servers") or contents.get("servers")
                )
                yield Operation(
                    method=method.upper(),
                    path=path,
                    pointer=f"{pointer}/{method}",
                    item=item,
                    definition=definition,
                    bases=tuple(
                        dict.fromkeys(
                            base for each in servers or [{"url": "/"}] for base in bases_of(each)
                        )
                    ),
                )


def bases_of(server: Mapping[str, Any]) -> list[str]:
    """The paths of a server's URL: that of its defaults, and of the other values of its variables.

    A variable without `enum` may be any text.
    """
    url, variables = str(server.get("url", "/")), server.get("variables") or {}
    several = {
        name: dict.fromkeys(
            [str(each.get("default", "")), *map(str, each.get("enum") or [f"{{{name}}}"])]
        )
        for name, each in variables.items()
        if f"{{{name}}}" in url
    }
    found: dict[str, None] = {}
    for values in islice(product(*several.values()), MAX_BASES):
        given = url
        for name, value in zip(several, values, strict=True):
            given = given.replace(f"{{{name}}}", value)
        if (path := path_of(given)) is not None:
            found[path] = None
    return [*found] or [""]


def path_of(url: str) -> str | None:
    """The path of a URL without a slash at its end; None where a variable stands for more than a part of a path."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return ""
    if not path.startswith("/"):
        if "{" in path:
            return None
        path = f"/{path.lstrip('./')}"  # relative to where the document is
    return path.rstrip("/")
