"""The validators of a document: those of its packages, with what they leave out or get wrong for what containers send.

* A property that is readOnly in one branch of `allOf` is not required by another; likewise writeOnly in an answer.
* `discriminator` chooses the schema, in 3.1 too, and is read where schemas inherit from the one that has it.
* 1.0 is an integer in 3.0 too, and `nullable` holds beside `allOf`.
* The time of patterns is bounded, those beside `unevaluatedProperties` too; what is unique is found without comparing
  all pairs.
* 19.99 is a multiple of 0.01.

jsonschema is imported when the first document is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

from pytest_egress.routes.openapi.documents import URI, Document
from pytest_egress.routes.openapi.patterns import PatternTime

SCHEMAS: Final = "/components/schemas/"
REFUSALS: Final = (Exception,)  # a format raises what it likes of odd texts


class Validators:
    """Make the validators of a document."""

    def __init__(self, document: Document) -> None:
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        self._document = document
        contents: Any = document.contents
        registry: Any = Registry()
        self._registry = registry.with_resource(URI, DRAFT202012.create_resource(contents))
        self._classes = {
            keyword: validator_class(document, keyword) for keyword in ("readOnly", "writeOnly")
        }

    def at(self, pointer: str, *, is_response: bool = False) -> Any:
        """The validator of the schema at a pointer, for one value."""
        kind = self._classes["writeOnly" if is_response else "readOnly"]
        return kind(
            {"$ref": f"{URI}#{pointer}"},
            registry=self._registry,
            format_checker=formats(self._document),
        )


def formats(document: Document) -> Any:
    """The checker of formats for one value, which has the time that patterns may still take of it."""
    import openapi_schema_validator as schemas

    given = schemas.oas30_format_checker if document.is_3_0 else schemas.oas31_format_checker
    checker: Any = type(given)(())
    checker.checkers = {name: (check, REFUSALS) for name, (check, _) in given.checkers.items()}
    checker.patience = PatternTime()
    return checker


def validator_class(document: Document, keyword: str) -> Any:
    """The class for requests, by `readOnly`, or for answers, by `writeOnly`."""
    import openapi_schema_validator as schemas
    from jsonschema.validators import extend

    base: Any = schemas.OAS30Validator if document.is_3_0 else schemas.OAS31Validator
    checker = base.TYPE_CHECKER.redefine("integer", is_integer)
    rules = Rules(document, keyword, base.VALIDATORS)
    return extend(base, rules.by_keyword(), type_checker=checker)


def is_integer(_: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


class Rules:
    """What each keyword says of a value. A rule is a function of a validator, its value, an instance and its schema."""

    def __init__(self, document: Document, keyword: str, given: Mapping[str, Any]) -> None:
        from jsonschema.exceptions import ValidationError

        self._document, self._keyword, self._given = document, keyword, given
        self._error: Callable[..., Any] = ValidationError
        self._known_heirs: dict[int, dict[str, str]] = {}

    def by_keyword(self) -> dict[str, Any]:
        rules = {
            self._keyword: self._directed,
            "required": self._required,
            "allOf": self._all_of,
            "anyOf": self._chosen("anyOf"),
            "oneOf": self._chosen("oneOf"),
            "discriminator": self._inherited,
            "pattern": self._pattern,
            "additionalProperties": self._additional,
            "uniqueItems": self._unique,
            "multipleOf": self._multiple,
        }
        if not self._document.is_3_0:
            rules["patternProperties"] = self._pattern_properties
            rules["unevaluatedProperties"] = self._unevaluated
        return rules

    def _resolve(self, value: Any) -> Any:
        return self._document.at(value)[0]

    # readOnly and writeOnly.

    def _directed(self, _: Any, is_set: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if is_set is True:
            yield self._error(f"it is {self._keyword}")

    def _required(self, _: Any, names: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        missing = [name for name in names if name not in instance]
        others = self._others(schema, 0) if missing else ()
        for name in missing:
            if name not in others:
                yield self._missing(name)

    def _missing(self, name: str) -> Any:
        error = self._error(f"{name!r} is a required property", validator="required")
        error.missing = name
        return error

    def _others(self, schema: Any, depth: int) -> set[str]:
        """The properties that are of the other direction alone, in all that is true together."""
        schema = self._resolve(schema)
        if not isinstance(schema, Mapping) or depth > 16:
            return set()
        found = {
            name
            for name, each in (schema.get("properties") or {}).items()
            if self._is_directed(each)
        }
        for each in schema.get("allOf") or ():
            found |= self._others(each, depth + 1)
        return found

    def _is_directed(self, schema: Any) -> bool:
        described = self._resolve(schema)
        if not isinstance(described, Mapping):
            return False
        return described.get(self._keyword) is True or (
            isinstance(schema, Mapping) and schema.get(self._keyword) is True
        )

    def _all_of(self, validator: Any, schemas: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if instance is None and schema.get("nullable") is True:
            return
        others: set[str] | None = None
        for number, each in enumerate(schemas):
            for error in validator.descend(instance, each, schema_path=number):
                missing = None if error.path else getattr(error, "missing", None)
                if missing is not None:
                    others = self._others(schema, 0) if others is None else others
                if missing is None or missing not in (others or ()):
                    yield error

    # discriminator.

    def _chosen(self, keyword: str) -> Any:
        given = self._given[keyword]

        def chosen(validator: Any, branches: Any, instance: Any, schema: Any) -> Iterator[Any]:
            if instance is None and schema.get("nullable") is True:
                return
            discriminator = schema.get("discriminator")
            if discriminator is None or not isinstance(instance, dict):
                plain = {key: each for key, each in schema.items() if key != "discriminator"}
                yield from given(validator, branches, instance, plain)
                return
            name = discriminator["propertyName"]
            references = targets(discriminator, branches)
            if name not in instance:
                yield self._missing(name)
            elif not isinstance(instance[name], str) or instance[name] not in references:
                yield self._unknown(name, instance[name], references)
            else:
                yield from validator.descend(instance, {"$ref": references[instance[name]]})

        return chosen

    def _unknown(self, name: str, value: Any, references: Mapping[str, str]) -> Any:
        return self._error(
            f"{name!r} names no schema",
            path=[name],
            instance=value,
            validator="enum",
            validator_value=[*references],
        )

    def _inherited(
        self, validator: Any, discriminator: Any, instance: Any, schema: Any
    ) -> Iterator[Any]:
        """The schema that a property names, where that has this one among its `allOf`."""
        if "oneOf" in schema or "anyOf" in schema or not isinstance(instance, dict):
            return
        value = instance.get(discriminator["propertyName"])
        references = {**self._heirs(schema), **targets(discriminator, ())}
        if not references or value is None:
            return
        if not isinstance(value, str) or value not in references:
            yield self._unknown(discriminator["propertyName"], value, references)
            return
        heir = self._resolve({"$ref": references[value]})
        if not isinstance(heir, Mapping) or heir is schema:
            return
        # This schema is being checked: what leads back to it would never end.
        rest = [each for each in heir.get("allOf") or () if not self._leads_to(each, schema, 0)]
        own = {key: each for key, each in heir.items() if key not in OF_THE_WHOLE}
        yield from validator.descend(instance, {**own, **({"allOf": rest} if rest else {})})
        if "unevaluatedProperties" in heir:
            yield from self._unevaluated(validator, heir["unevaluatedProperties"], instance, heir)

    def _heirs(self, schema: Any) -> dict[str, str]:
        """The schemas of the document that are this one or inherit from it, by their names."""
        known = self._known_heirs.get(id(schema))  # the document keeps its schemas
        if known is None:
            schemas = (self._document.contents.get("components") or {}).get("schemas") or {}
            names = [name for name, each in schemas.items() if self._leads_to(each, schema, 0)]
            known = self._known_heirs[id(schema)] = {name: f"#{SCHEMAS}{name}" for name in names}
        return known

    def _leads_to(self, given: Any, schema: Any, depth: int) -> bool:
        found = self._resolve(given)
        if found is schema or depth > 8 or not isinstance(found, Mapping):
            return found is schema
        return any(self._leads_to(each, schema, depth + 1) for each in found.get("allOf") or ())

    # Bounded time.

    def _pattern(self, validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not validator.format_checker.patience.search(
            pattern, instance
        ):
            yield self._error("it does not match")

    def _pattern_properties(
        self, validator: Any, patterns: Any, instance: Any, schema: Any
    ) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        search = validator.format_checker.patience.search
        for pattern, each in patterns.items():
            for name, value in instance.items():
                if search(pattern, name):
                    yield from validator.descend(value, each, path=name, schema_path=pattern)

    def _additional(self, validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        search = validator.format_checker.patience.search
        named, patterns = schema.get("properties") or {}, schema.get("patternProperties") or {}
        extras = [
            name
            for name in instance
            if name not in named and not any(search(each, name) for each in patterns)
        ]
        if given is False and extras:
            shown = ", ".join(map(repr, sorted(extras)[:5]))
            yield self._error(f"it does not take {shown}")
        elif isinstance(given, Mapping):
            for name in extras:
                yield from validator.descend(instance[name], given, path=name)

    def _unevaluated(self, validator: Any, given: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        evaluated = self._evaluated(validator, instance, schema)
        extras = [
            name
            for name, value in instance.items()
            if name not in evaluated and not fits(validator, value, given)
        ]
        if extras:
            shown = ", ".join(map(repr, sorted(extras)[:5]))
            yield self._error(f"it does not take {shown}")

    def _evaluated(self, validator: Any, instance: Any, schema: Any) -> set[str]:
        """The properties that a schema describes, and what is true with it (JSON Schema, core, section 11.3)."""
        if not isinstance(schema, Mapping):
            return set()
        found = {name for name in schema.get("properties") or () if name in instance}
        for keyword in ("additionalProperties", "unevaluatedProperties"):
            if (each := schema.get(keyword)) is not None:
                found |= {name for name in instance if fits(validator, instance[name], each)}
        search = validator.format_checker.patience.search
        for pattern in schema.get("patternProperties") or ():
            found |= {name for name in instance if search(pattern, name)}
        for each in self._true_with(validator, instance, schema):
            found |= self._evaluated(validator, instance, each)
        return found

    def _true_with(self, validator: Any, instance: Any, schema: Any) -> Iterator[Any]:
        """The schemas in one that hold of an instance where that one does."""
        if "$ref" in schema:
            yield self._resolve(schema)
        yield from schema.get("allOf") or ()
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword) or ()
            yield from (each for each in branches if fits(validator, instance, each))
        dependent = schema.get("dependentSchemas") or {}
        yield from (each for name, each in dependent.items() if name in instance)
        if "if" in schema:
            holds = fits(validator, instance, schema["if"])
            yield from [schema["if"]] if holds else []
            yield schema.get("then" if holds else "else")

    def _multiple(self, validator: Any, factor: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "number") and not is_multiple(instance, factor):
            yield self._error("it is no multiple")

    def _unique(self, validator: Any, is_set: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if is_set is not True or not isinstance(instance, list):
            return
        if len({canonical(each) for each in instance}) < len(instance):
            yield self._error("its items are not unique")


OF_THE_WHOLE: Final = ("allOf", "discriminator", "unevaluatedProperties")
"""What of a schema says nothing without the rest of it."""


def fits(validator: Any, instance: Any, schema: Any) -> bool:
    return next(iter(validator.descend(instance, schema)), None) is None


def is_multiple(value: float, factor: float) -> bool:
    """As the numbers are written: in binary, 19.99 is no multiple of 0.01."""
    if isinstance(value, int) and isinstance(factor, int):
        return value % factor == 0
    quotient = Fraction(str(value)) / Fraction(str(factor))
    return quotient.denominator == 1


def targets(discriminator: Mapping[str, Any], branches: Iterable[Any]) -> dict[str, str]:
    """The references that values of a discriminator lead to: by its mapping, and by the names of schemas."""
    found: dict[str, str] = {}
    for each in branches:
        if isinstance(each, Mapping) and isinstance(reference := each.get("$ref"), str):
            found[reference.rpartition("/")[2]] = reference
    for value, reference in (discriminator.get("mapping") or {}).items():
        is_name = not reference.startswith("#")
        found[value] = f"#{SCHEMAS}{reference}" if is_name else reference
    return found


def canonical(value: Any) -> Any:
    """A value that is equal, and has the same hash, as of every equal value of JSON."""
    if isinstance(value, dict):
        return "object", frozenset((key, canonical(each)) for key, each in value.items())
    if isinstance(value, list):
        return "array", tuple(map(canonical, value))
    return (type(value) is bool, value)
