"""`Operation`: one method of one path of a document; and the search for that of a request.

Paths are compared segment by segment, decoded. A literal segment goes before a template (OpenAPI 3.1 section 4.8.8).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pytest_egress.routes.openapi.documents import Document

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
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
        """The parameters in a path as it was sent, decoded; None where it is another path."""
        for base in self.bases:
            if path.startswith(f"{base}/") or path == base:
                found = values_in(self.path, path[len(base) :] or "/")
                if found is not None:
                    return found
        return None

    @property
    def rank(self) -> tuple[int, ...]:
        """A path whose earlier segments are literal comes first."""
        return tuple(len(TEMPLATE.findall(each)) for each in self.path.split("/"))


def values_in(template: str, path: str) -> dict[str, str] | None:
    wanted, given = template.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    values: dict[str, str] = {}
    for each, sent in zip(wanted, given, strict=True):
        found = values_of_segment(each, unquote(sent))
        if found is None:
            return None
        values.update(found)
    return values


def values_of_segment(template: str, sent: str) -> dict[str, str] | None:
    parts = TEMPLATE.split(template)  # literals, and names between them
    if len(parts) == 1:
        return {} if unquote(template) == sent else None
    # A value ends at the next literal, so that no expression has to go back.
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
                    bases=tuple(dict.fromkeys(map(base_of, servers or [{"url": "/"}]))),
                )


def escaped_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def base_of(server: Mapping[str, Any]) -> str:
    """The path of a server's URL, with the defaults of its variables."""
    url = str(server.get("url", "/"))
    for name, variable in (server.get("variables") or {}).items():
        url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    try:
        return urlsplit(url).path.rstrip("/")
    except ValueError:
        return ""
