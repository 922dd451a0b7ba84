"""`Document`: an OpenAPI document of version 3.0 or 3.1, from a file of JSON or YAML, or from a dict.

It is checked when it is declared, by openapi-spec-validator. References lead within the document: one to another file
is refused. A file is read once for as long as it does not change.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import unquote

from pytest_egress.routes.openapi.patterns import is_of_python, problem_of
from pytest_egress.traffic.shown import cut, shown

INSTALL: Final = "pip install 'pytest-egress[openapi]'"
MAX_REFERENCES: Final = 32  # that lead to each other
URI: Final = "urn:openapi-document"
TAKES: Final = "a file of JSON or YAML, or a dict"


@dataclass(frozen=True, eq=False)
class Document:
    """Its `name` is how it is called in errors: the file's."""

    name: str
    contents: Mapping[str, Any] = field(repr=False)

    @property
    def is_3_0(self) -> bool:
        return str(self.contents.get("openapi", "")).startswith("3.0")

    def at(self, value: Any, pointer: str = "") -> tuple[Any, str]:
        """A value, and its pointer, without the references (`$ref`) that it begins with."""
        for _ in range(MAX_REFERENCES):
            if not isinstance(value, Mapping) or not isinstance(value.get("$ref"), str):
                break
            pointer = value["$ref"].removeprefix("#")
            value = self.look_up(pointer)
        return value, pointer

    def look_up(self, pointer: str) -> Any:
        """The value that a pointer leads to (RFC 6901), which the check of the document has followed."""
        value: Any = self.contents
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            value = value[int(key)] if isinstance(value, list) else value[key]
        return value


def read_document(spec: object) -> Document:
    """Read a document, and check it.

    Raises:
        TypeError: It is neither a path nor a dict.
        ValueError: It cannot be read, or is no document of OpenAPI 3.0 or 3.1; the text names the file.
        ImportError: What checks it is not installed.
    """
    if isinstance(spec, Mapping):
        return checked("the document", spec)
    if not isinstance(spec, (str, PathLike)):
        raise TypeError(f"openapi({shown(spec)}): it takes {TAKES}")
    path = Path(spec)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise ValueError(f"openapi({shown(str(spec))}): the file cannot be read: {error}") from None
    return of_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def of_file(path: Path, modified: int, size: int) -> Document:
    try:
        text = path.read_bytes()
        contents = json.loads(text) if path.suffix == ".json" else from_yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: it cannot be read: {error}") from None
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path}: it is no document of OpenAPI, but a {type(contents).__name__}")
    return checked(str(path), contents)


def from_yaml(text: bytes) -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError(f"a document of YAML needs PyYAML: {INSTALL}") from None

    class JsonLoader(yaml.SafeLoader):
        """A date is a text, as in JSON."""

    JsonLoader.yaml_implicit_resolvers = {
        first: [each for each in rules if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return with_text_keys(yaml.load(text, JsonLoader))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def with_text_keys(value: Any) -> Any:
    """Statuses are numbers in YAML."""
    if isinstance(value, dict):
        return {str(key): with_text_keys(each) for key, each in value.items()}
    return [*map(with_text_keys, value)] if isinstance(value, list) else value


def checked(name: str, contents: Mapping[str, Any]) -> Document:
    version = contents.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
        raise ValueError(
            f"{name}: it is no document of OpenAPI 3.0 or 3.1: openapi is {shown(version)}"
        )
    document = Document(name, contents)
    check_references(document)
    checkable = with_plain_patterns(contents) if has_foreign_patterns(document) else contents
    try:
        check_structure(checkable, version)
    except ImportError:
        raise ImportError(f"openapi() needs openapi-spec-validator: {INSTALL}") from None
    except Exception as error:  # of several packages
        said = cut(" ".join(str(getattr(error, "message", error)).split()), 200)
        at = "/".join(map(str, getattr(error, "absolute_path", ())))
        raise ValueError(
            f"{name}: it is no valid OpenAPI: {f'{at}: ' if at else ''}{said}"
        ) from None
    return document


def check_structure(contents: Mapping[str, Any], version: str) -> None:
    """Raise what the package raises. Its own `validate` would keep each document for good.

    It follows references one within the other, as far as Python goes: a large document has hundreds of schemas in a
    row. By then it has checked all but what a few keywords say beyond the structure.
    """
    from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

    is_3_0 = version.startswith("3.0")
    given: Any = OpenAPIV30SpecValidator if is_3_0 else OpenAPIV31SpecValidator
    checker = without_repetition(given)(contents)
    for error in looked_through(checker.schema_validator).iter_errors(contents):
        raise error
    with contextlib.suppress(RecursionError):
        for error in checker.root_validator(checker.schema_path):
            raise error


class Ids(set[int]):
    """The ids of what has been checked. The package has a list, in which each schema is looked for among all others."""

    append = set.add


def without_repetition(given: Any) -> Any:
    """The package's checker, which finds at once whether it has checked a schema."""
    of_schemas: Any = given.keyword_validators["schema"]

    class Schemas(of_schemas):  # type: ignore[misc]
        def __init__(self, registry: Any) -> None:
            super().__init__(registry)
            self.visited_schema_ids, self.meta_checked_schema_ids = Ids(), Ids()

    class Checker(given):  # type: ignore[misc]
        keyword_validators: ClassVar[Any] = {**given.keyword_validators, "schema": Schemas}

    return Checker


def looked_through(validator: Any) -> Any:
    """A validator that knows what its references lead to: else each looks through all schemas of the package again."""
    resolver: Any = getattr(validator, "_resolver", None)
    registry = getattr(resolver, "_registry", None)
    if registry is None:  # another version of jsonschema
        return validator
    return validator.evolve(_resolver=registry.crawl().resolver(resolver._base_uri))


def check_references(document: Document) -> None:
    for value, pointer in parts_of(document.contents):
        reference = value.get("$ref")
        if not isinstance(reference, str):
            continue
        if not reference.startswith("#/"):
            raise ValueError(
                f"{document.name}: $ref {shown(reference)} leads out of the document: bundle it into one file first"
            )
        try:
            found, _ = document.at(value)
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(
                f"{document.name}: {pointer}: $ref {shown(reference)} leads to nothing"
            ) from None
        if isinstance(found, Mapping) and isinstance(found.get("$ref"), str):
            raise ValueError(
                f"{document.name}: {pointer}: $ref {shown(reference)} leads on without an end"
            )


def has_foreign_patterns(document: Document) -> bool:
    """Whether a pattern is one of ECMAScript alone. Raise ValueError for one that cannot be read."""
    found = False
    for value, pointer in parts_of(document.contents):
        several = value.get("patternProperties")
        given = [*several] if isinstance(several, Mapping) else []
        for pattern in filter(lambda each: isinstance(each, str), [*given, value.get("pattern")]):
            if problem := problem_of(pattern):
                raise ValueError(f"{document.name}: {pointer}: {problem}")
            found = found or not is_of_python(pattern)
    return found


def with_plain_patterns(value: Any, name: str = "") -> Any:
    r"""A copy for the check of the structure, which takes patterns of Python alone: `\p{L}` is refused there."""
    if isinstance(value, Mapping):
        is_of_names = name == "patternProperties"
        return {
            re.escape(key) if is_of_names else key: with_plain_patterns(each, key)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [*map(with_plain_patterns, value)]
    return ".*" if name == "pattern" and isinstance(value, str) else value


def parts_of(contents: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Each object of a document, with its pointer, but those of its examples, which are data."""
    stack: list[tuple[Any, str, bool]] = [(contents, "", False)]
    while stack:
        value, pointer, is_named = stack.pop()
        if isinstance(value, list):
            stack += [(each, f"{pointer}/{at}", False) for at, each in enumerate(value)]
        if not isinstance(value, Mapping):
            continue
        if not is_named:
            yield value, pointer
        for key, each in value.items():
            if is_named or not (key in DATA or str(key).startswith("x-")):
                stack.append((each, f"{pointer}/{escaped_key(key)}", not is_named and key in NAMED))


DATA: Final = frozenset({"const", "default", "enum", "example", "examples"})
NAMED: Final = frozenset(
    {
        *("$defs", "dependentSchemas", "patternProperties", "properties"),
        *(
            "callbacks",
            "content",
            "encoding",
            "headers",
            "links",
            "parameters",
            "pathItems",
            "paths",
        ),
        *("requestBodies", "responses", "schemas", "securitySchemes", "webhooks"),
    }
)
"""Members that have objects by names of the document's own, where they are no lists."""


def escaped_key(key: str) -> str:
    """A key as a part of a pointer (RFC 6901)."""
    return str(key).replace("~", "~0").replace("/", "~1")
