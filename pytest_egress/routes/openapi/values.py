"""Parameters, forms and bodies as the values that a schema describes: texts become numbers where it says so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?(?:[eE][+-]?[0-9]{1,3})?")
SEPARATORS: Final = {"spaceDelimited": " ", "pipeDelimited": "|"}

Resolve = Callable[[Any], Any]
"""Follows the references that a value begins with."""


class Several(ValueError):
    """A parameter of one value has come several times."""


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def from_json(text: str | bytes) -> Any:
    """Raise ValueError for what is not JSON (RFC 8259): NaN and Infinity are none, and neither is what is too deep."""
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def types_of(schema: Any) -> set[str]:
    """The types that a schema names: one in OpenAPI 3.0, and perhaps several in 3.1."""
    given = schema.get("type") if isinstance(schema, Mapping) else None
    return {given} if isinstance(given, str) else {*(given or ())}


def value_of(text: str, schema: Any) -> Any:
    """A text as the scalar of its schema; the text itself where it is none."""
    types = types_of(schema)
    if {"integer", "number"} & types and (found := NUMBER.fullmatch(text)):
        try:
            return int(text) if found[1] is None and text.lstrip("-").isdigit() else float(text)
        except (ValueError, OverflowError):
            return text
    if "boolean" in types and text in ("true", "false"):
        return text == "true"
    if "null" in types and "string" not in types and text in ("", "null"):
        return None
    return text


def parameter_value(parameter: Mapping[str, Any], texts: list[str], resolve: Resolve) -> Any:
    """The value of a parameter that has come, by its style. Raise ValueError where it is no such value."""
    if "content" in parameter:
        return from_json(single(texts))
    schema = resolve(parameter.get("schema") or {})
    types, is_query = types_of(schema), parameter["in"] in ("query", "cookie")
    style = parameter.get("style") or ("form" if is_query else "simple")
    explodes = parameter.get("explode", style == "form")
    if "array" in types:
        if not (is_query and explodes):
            texts = single(texts).split(SEPARATORS.get(style, ","))
        items = resolve(schema.get("items") or {})
        return [value_of(each, items) for each in texts]
    if "object" in types:
        pairs = single(texts).split(",")
        if explodes:
            return fields([each.partition("=")[::2] for each in pairs], schema, resolve)
        return fields([*zip(pairs[::2], pairs[1::2], strict=False)], schema, resolve)
    return value_of(single(texts), schema)


def single(texts: list[str]) -> str:
    if len(texts) != 1:
        raise Several(f"it came {len(texts)} times, and takes one value")
    return texts[0]


def fields(pairs: Iterable[tuple[str, Any]], schema: Any, resolve: Resolve) -> dict[str, Any]:
    """The fields of a form, or of an object in a parameter, as an object: a field that repeats is an array."""
    properties = schema.get("properties") or {} if isinstance(schema, Mapping) else {}
    found: dict[str, Any] = {}
    for name, text in pairs:
        of_field = resolve(properties.get(name) or {})
        if "array" in types_of(of_field):
            item = resolve(of_field.get("items") or {})
            found.setdefault(name, []).append(value_of(text, item))
        elif name in found:
            raise Several(f"{name!r} came several times, and takes one value")
        else:
            found[name] = value_of(text, of_field)
    return found


def deep_object(name: str, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields of an object in the style deepObject: `filter[state]=open`."""
    begins = f"{name}["
    return [
        (key[len(begins) : -1], value)
        for key, value in pairs
        if key.startswith(begins) and key.endswith("]")
    ]
