"""Parameters, forms and bodies as the values that a schema describes: texts become numbers where it says so.

A text may be of several types, as by `anyOf`. `candidates` gives each value that it may stand for; the check takes the
first that fits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pytest_egress.routes.openapi.schemas import ALL_TYPES, Reading, Resolve, readings_of
from pytest_egress.routes.openapi.sent import Node, SentText, node_of, plain
from pytest_egress.traffic.shown import cut, shown
from pytest_egress.traffic.strict_json import from_json

NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?(?:[eE][+-]?[0-9]{1,3})?")
SEPARATORS: Final = {"spaceDelimited": " ", "pipeDelimited": "|"}
MAX_CANDIDATES: Final = 64


class Several(ValueError):
    """A parameter of one value has come several times."""


def is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")


# Texts.


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a value is written as a text.

    Attributes:
        name: "" for that of a field within another value.
        explodes: Whether each item, or field, is written for itself.
        is_query: Whether each item of such a one is a pair.
        takes_json: Whether an object may be JSON: it is, in a form (OpenAPI 3.1 section 4.8.15).
        name_of: The name of the parameter, which the style matrix repeats.
    """

    name: str = "form"
    explodes: bool = True
    is_query: bool = True
    takes_json: bool = False
    name_of: str = ""


FIELD: Final = Style(takes_json=True)


@dataclass(frozen=True, kw_only=True)
class Encodings:
    """How the fields of a form are written: by `encoding` of its media type."""

    encoding: Mapping[str, Any]

    def style(self, name: str) -> Style:
        given = self.encoding.get(name) or {}
        named = given.get("style", "form")
        return Style(name=named, explodes=given.get("explode", named == "form"), takes_json=True)

    def is_json(self, name: str) -> bool:
        return is_json(str((self.encoding.get(name) or {}).get("contentType", "")).strip().lower())


def style_of(parameter: Mapping[str, Any]) -> Style:
    is_query = parameter["in"] in ("query", "cookie")
    style = parameter.get("style") or ("form" if is_query else "simple")
    explodes = parameter.get("explode", style == "form")
    return Style(name=style, explodes=explodes, is_query=is_query, name_of=parameter["name"])


def scalars(text: str, types: frozenset[str]) -> Iterator[Any]:
    """The values of these types that a text may stand for."""
    if {"integer", "number"} & types and (found := NUMBER.fullmatch(text)):
        if found[1] is None and text.lstrip("-").isdigit():
            yield int(text)
        elif not math.isinf(float(text)):
            yield float(text)
    if "boolean" in types and text in ("true", "false"):
        yield text == "true"
    if "null" in types and text in ("", "null"):
        yield None
    if "string" in types:
        yield text


def candidates(node: Node, schema: Any, style: Style, resolve: Resolve) -> list[Any]:
    """The values that may have been sent; never none. Raise ValueError where it is no value of this style."""
    readings = readings_of(schema, resolve)
    for is_listed in (True, False):
        readers = [TextReader(each, style, resolve, is_listed=is_listed) for each in readings]
        if found := gathered(partial(each.values, node) for each in readers):
            return found
    return [single(node.sent).text]


def first(node: Node, schema: Any, style: Style, resolve: Resolve) -> Any:
    return candidates(node, schema, style, resolve)[0]


class TextReader:
    """Reads what was sent in one of the ways of a schema."""

    def __init__(
        self, reading: Reading, style: Style, resolve: Resolve, *, is_listed: bool = True
    ) -> None:
        self._reading, self._style, self._resolve = reading, style, resolve
        self._is_listed = is_listed  # whether a scalar has to be one that the schemas list

    def values(self, node: Node) -> list[Any]:
        types = self._reading.types
        if types == ALL_TYPES:
            return [self._untyped(node)]
        readers = [self._scalars] if types - {"array", "object"} else []
        readers += [self._arrays] if "array" in types else []
        readers += [self._objects] if "object" in types else []
        return gathered(partial(read, node) for read in readers)

    def _untyped(self, node: Node) -> Any:
        if node.fields:
            return self.object_of(node.fields)
        texts = [each.text for each in node.sent]
        return texts if len(texts) > 1 else single(node.sent).text

    def _scalars(self, node: Node) -> list[Any]:
        sent = single(node.sent)
        found = [*scalars(unstyled(sent, self._style).text, self._reading.types)]
        return [each for each in found if self._reading.lists(each)] if self._is_listed else found

    # Arrays.

    def _arrays(self, node: Node) -> list[Any]:
        style = self._style
        if node.fields:  # `ids[]=1`, `ids[0]=1`
            return [self._of_brackets(node)]
        found = []
        if style.takes_json and len(node.sent) == 1 and node.sent[0].text.startswith("["):
            found.append(from_json(node.sent[0].text))
        if any(is_json(each.media) for each in node.sent):
            return [[from_json(each.text) for each in node.sent], *found]
        return [[self._item(each) for each in pieces] for pieces in self._pieces(node)] + found

    def _item(self, text: str) -> Any:
        return first(node_of(plain(text)), self._reading.items, FIELD, self._resolve)

    def _of_brackets(self, node: Node) -> list[Any]:
        found = []
        for key, each in node.fields.items():
            if key and not key.isdecimal():
                raise ValueError(f"[{cut(key, 40)}] is no index")
            several = [node_of(one) for one in each.sent] if not each.fields else [each]
            found += [first(one, self._reading.items, FIELD, self._resolve) for one in several]
        return found

    def _pieces(self, node: Node) -> Iterator[list[str]]:
        """The texts of the items. A comma that was encoded separates too where none stands as itself."""
        style = self._style
        if style.explodes and (style.is_query or style.name == "matrix"):
            if style.name == "matrix":
                yield [text for _, text in matrix_pairs(single(node.sent), style)]
            else:
                yield [each.text for each in node.sent]
            return
        sent = unstyled(single(node.sent), style)
        if style.name in SEPARATORS:  # which are always encoded
            yield sent.text.split(SEPARATORS[style.name])
            return
        separator = "." if style.name == "label" and style.explodes else ","
        pieces = sent.split(separator)
        yield [each.strip() for each in pieces] if is_header(style, sent) else pieces
        if len(pieces) == 1 and separator in sent.text:
            yield sent.text.split(separator)

    # Objects.

    def _objects(self, node: Node) -> list[Any]:
        if node.fields:
            return [self.object_of(node.fields)]
        sent = single(node.sent)
        if self._style.takes_json:
            value = from_json(sent.text)
            return [value] if isinstance(value, dict) else []
        if self._style.name == "deepObject":
            raise ValueError(f"it is not written as {self._style.name_of}[field]=value")
        fields: dict[str, Node] = {}
        for name, text in self._pairs(sent):
            fields.setdefault(name, Node()).sent.append(plain(text))
        return [self.object_of(fields)]

    def _pairs(self, sent: SentText) -> list[tuple[str, str]]:
        style = self._style
        if style.explodes and style.name == "matrix":
            return matrix_pairs(sent, style, any_name=True)
        separator = SEPARATORS.get(style.name, ",")
        if style.explodes and style.name == "label":
            separator = "."
        sent = unstyled(sent, style)
        pieces = sent.text.split(separator) if style.name in SEPARATORS else sent.split(separator)
        if len(pieces) == 1 and separator in sent.text:
            pieces = sent.text.split(separator)
        if is_header(style, sent):
            pieces = [each.strip() for each in pieces]
        if style.explodes:
            pairs = [each.partition("=") for each in pieces]
            for name, equals, _ in pairs:
                if not equals:
                    raise ValueError(f"{shown(name)} has no '=': it is written as name=value")
            return [(name, text) for name, _, text in pairs]
        if len(pieces) % 2:
            raise ValueError(f"its last piece, {shown(pieces[-1])}, is a name without a value")
        return [*zip(pieces[::2], pieces[1::2], strict=True)]

    def objects(self, fields: Mapping[str, Node], form: Encodings | None) -> list[Any]:
        return [self.object_of(fields, form)]

    def object_of(
        self, fields: Mapping[str, Node], form: Encodings | None = None
    ) -> dict[str, Any]:
        """The fields of an object, or of a form."""
        found = {}
        for name, node in fields.items():
            style = FIELD if form is None else form.style(name)
            schema = self._reading.of_property(name)
            try:
                if form is not None and form.is_json(name) and not node.fields:
                    found[name] = from_json(single(node.sent).text)
                else:
                    found[name] = first(node, schema, style, self._resolve)
            except Several as error:
                raise Several(f"{shown(name)}: {error}") from None
            except ValueError as error:
                raise ValueError(f"{shown(name)}: {error}") from None
        return found


def objects(
    fields: Mapping[str, Node], schema: Any, resolve: Resolve, form: Encodings | None = None
) -> list[Any]:
    """The objects that fields may stand for; as `candidates`."""
    readers = [TextReader(each, FIELD, resolve) for each in readings_of(schema, resolve)]
    return gathered(partial(each.objects, fields, form) for each in readers)


def gathered(reads: Iterable[Callable[[], list[Any]]]) -> list[Any]:
    """The values of all that can be read, each once. Raise the first ValueError where none can."""
    found: list[Any] = []
    error: ValueError | None = None
    for read in reads:
        try:
            values = read()
        except ValueError as raised:
            error = error or raised
            continue
        found += [each for each in values if not any(is_same(each, other) for other in found)]
    if not found and error is not None:
        raise error
    return found[:MAX_CANDIDATES]


def is_same(mine: Any, other: Any) -> bool:
    return type(mine) is type(other) and bool(mine == other)


def single(sent: list[SentText]) -> SentText:
    if not sent:
        raise ValueError("it takes one value, and its fields came")
    if len(sent) != 1:
        raise Several(f"it came {len(sent)} times, and takes one value")
    return sent[0]


def is_header(style: Style, sent: SentText) -> bool:
    """Whether a space may follow a comma (RFC 9110 section 5.6.1)."""
    return style.name == "simple" and sent.raw is None


def unstyled(sent: SentText, style: Style) -> SentText:
    """A text without what its style begins with: `.red` by label, `;color=red` by matrix."""
    begins = {"label": ".", "matrix": f";{style.name_of}="}.get(style.name)
    if begins is None or (style.name == "matrix" and sent.text == f";{style.name_of}"):
        return sent if begins is None else SentText(text="", raw="")
    if not sent.text.startswith(begins):
        raise ValueError(f"by its style, {style.name}, it begins with {begins!r}")
    raw = sent.raw or sent.text
    if not raw.startswith(begins):  # the name is encoded
        raw = begins + raw.partition("=")[2]
    return SentText(text=sent.text[len(begins) :], raw=raw[len(begins) :])


def matrix_pairs(sent: SentText, style: Style, *, any_name: bool = False) -> list[tuple[str, str]]:
    """`;color=red;color=blue` as pairs."""
    begin, *pieces = sent.split(";")
    pairs = [(name, text) for name, _, text in (each.partition("=") for each in pieces)]
    if begin or not pairs or not (any_name or all(name == style.name_of for name, _ in pairs)):
        raise ValueError(f"by its style, matrix, it is written as ;{style.name_of}=value")
    return pairs
