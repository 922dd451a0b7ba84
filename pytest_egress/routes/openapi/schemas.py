"""`Reading`: a way in which a schema may read a text, for which its references and combinations are followed.

`anyOf: [{type: integer}, {type: "null"}]` has two. What is too deep, or of too many, is any value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

MAX_READINGS: Final = 32
MAX_DEPTH: Final = 24
ALL_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
OF_NUMBERS: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)

Resolve = Callable[[Any], Any]
"""Follows the references that a value begins with."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Schemas that are true together.

    Attributes:
        types: The types of a value that they take.
        schemas: Each of them, without what it combines.
    """

    types: frozenset[str] = ALL_TYPES
    schemas: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def both(self, other: Reading) -> Reading:
        return Reading(types=common(self.types, other.types), schemas=self.schemas + other.schemas)

    @property
    def items(self) -> Any:
        return self._together(each.get("items") for each in self.schemas)

    @property
    def properties(self) -> list[str]:
        return [
            *dict.fromkeys(name for each in self.schemas for name in each.get("properties") or ())
        ]

    @property
    def has_any_field(self) -> bool:
        """Whether fields of any name are described."""
        given = [each.get("additionalProperties") for each in self.schemas]
        is_free = not self.properties and False not in given
        return is_free or any(isinstance(each, Mapping) or each is True for each in given)

    def of_property(self, name: str) -> Any:
        """The schema of a field; of one that is not named, that of all others."""
        found = [(each.get("properties") or {}).get(name) for each in self.schemas]
        if all(each is None for each in found):
            found = [each.get("additionalProperties") for each in self.schemas]
        return self._together(found)

    def lists(self, value: Any) -> bool:
        """Whether a scalar is among the values of each schema that lists some."""
        return all(value in each["enum"] for each in self.schemas if "enum" in each) and all(
            value == each["const"] for each in self.schemas if "const" in each
        )

    def _together(self, schemas: Any) -> Any:
        found = [each for each in schemas if isinstance(each, Mapping)]
        return found[0] if len(found) == 1 else {"allOf": found}


def common(mine: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    """The types of both: an integer is a number too."""
    both = mine & others
    if ("integer" in mine and "number" in others) or ("number" in mine and "integer" in others):
        both |= {"integer"}
    return both


def readings_of(schema: Any, resolve: Resolve) -> list[Reading]:
    """The ways that a schema has; never none."""
    return Readings(resolve).of(schema, 0)[:MAX_READINGS]


class Readings:
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve

    def of(self, schema: Any, depth: int) -> list[Reading]:
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            return [Reading()]
        found = [Reading(types=own_types(schema), schemas=(schema,))]
        if "$ref" in schema:
            found = self._all(found, [self._resolve(schema)], depth)
        found = self._all(found, schema.get("allOf") or (), depth)
        for keyword in ("anyOf", "oneOf"):
            if branches := schema.get(keyword):
                several = [each for branch in branches for each in self.of(branch, depth + 1)]
                found = crossed(found, several)
        return found

    def _all(self, found: list[Reading], schemas: Any, depth: int) -> list[Reading]:
        for each in schemas:
            found = crossed(found, self.of(each, depth + 1))
        return found


def crossed(mine: list[Reading], others: list[Reading]) -> list[Reading]:
    found = [one.both(other) for one, other in product(mine, others[:MAX_READINGS])]
    return ([each for each in found if each.types] or found)[:MAX_READINGS]


def own_types(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a schema takes by its own rules, without those that it combines."""
    given = schema.get("type")
    types = ALL_TYPES
    if isinstance(given, str):
        types = frozenset({given})
    elif isinstance(given, list):
        types = frozenset(each for each in given if isinstance(each, str))
    elif "properties" in schema:
        types = frozenset({"object"})
    elif "items" in schema:
        types = frozenset({"array"})
    elif OF_NUMBERS & schema.keys():
        types = frozenset({"number"})
    if schema.get("nullable") is True:
        types |= {"null"}
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        types = common(types, frozenset(map(type_of, values))) or types
    return types


def type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
