"""Which values of a declaration stand in the test's own source, and so are shown as they are written.

Any other one may be a real secret, such as a key from an environment variable: it is masked as what targets send is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pytest_egress.base.callers import sources_of_users
from pytest_egress.routes.partials import Partial
from pytest_egress.traffic.redaction.redactor import BY_NAMES, Redactor

Own = frozenset[str]
NOTHING: Final[Own] = frozenset()


def own_literals(conditions: Mapping[str, Any]) -> Own:
    """The texts among conditions (by the names of `Match`) that stand as literals in a file of the calling user's.

    Conditions without a secret cost no look at files.
    """
    given = {name: value for name, value in conditions.items() if name in SHOWN_BY}
    if all(
        repr(declared(name, value, NOTHING, BY_NAMES)) == repr(value)
        for name, value in given.items()
    ):
        return NOTHING
    sources = [*sources_of_users()]
    texts = {text for value in given.values() for text in texts_in(value)}
    return frozenset(text for text in texts if any(is_literal(text, each) for each in sources))


def is_literal(text: str, source: str) -> bool:
    return f'"{text}"' in source or f"'{text}'" in source


def texts_in(value: Any) -> Iterator[str]:
    """Every text at any depth, also those of patterns and of bytes."""
    if isinstance(value, (str, bytes, re.Pattern)):
        yield text_of(value)
    elif isinstance(value, Partial):
        yield from texts_in(value.value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from texts_in(each)


def text_of(value: str | bytes | re.Pattern[str]) -> str:
    text = value.pattern if isinstance(value, re.Pattern) else value
    return text.decode("latin-1") if isinstance(text, bytes) else text


def declared(name: str, value: Any, own: Own, redactor: Redactor) -> Any:
    """A condition as it is shown: what is not among the test's own literals has its secrets masked."""
    return SHOWN_BY[name](value, own, redactor) if name in SHOWN_BY else value


def declared_path(value: Any, own: Own, redactor: Redactor) -> Any:
    return leaf(value, own, redactor, redactor.known)


def declared_fields(value: Mapping[str, Any], own: Own, redactor: Redactor) -> dict[str, Any]:
    return redactor.keyed(
        (key, declared_field(key, each, own, redactor)) for key, each in value.items()
    )


def declared_field(name: str, value: Any, own: Own, redactor: Redactor) -> Any:
    return leaf(value, own, redactor, lambda text: redactor.field(name, text))


def declared_query(value: Mapping[str, Any], own: Own, redactor: Redactor) -> dict[str, Any]:
    return redactor.keyed(
        (key, declared_values(key, each, own, redactor)) for key, each in value.items()
    )


def declared_values(name: str, value: Any, own: Own, redactor: Redactor) -> Any:
    """The value of a key of the query, or a list of all its values."""
    if isinstance(value, (list, tuple)):
        return [declared_values(name, each, own, redactor) for each in value]
    return leaf(value, own, redactor, lambda text: redactor.value(name, text))


def declared_content(value: bytes, own: Own, redactor: Redactor) -> bytes:
    if text_of(value) in own:
        return redactor.known(text_of(value)).encode("latin-1", "replace")
    return redactor.content(value)


def declared_json(value: Any, own: Own, redactor: Redactor, *, secret: bool = False) -> Any:
    if isinstance(value, Partial):
        return Partial(declared_json(value.value, own, redactor, secret=secret))
    if isinstance(value, Mapping):
        return redactor.keyed(
            (
                key,
                declared_json(each, own, redactor, secret=secret or redactor.is_secret(str(key))),
            )
            for key, each in value.items()
        )
    if isinstance(value, list):
        return [declared_json(each, own, redactor, secret=secret) for each in value]
    masking = redactor.masked if secret else redactor.known
    return leaf(value, own, redactor, masking)


def leaf(value: Any, own: Own, redactor: Redactor, masking: Callable[[str], str]) -> Any:
    """A text or a pattern, masked by names unless it is the test's own; anything else as it is."""
    if not isinstance(value, (str, re.Pattern)):
        return value
    text = text_of(value)
    text = redactor.known(text) if text in own else masking(text)
    if isinstance(value, str):
        return text
    return value if text == value.pattern else MaskedPattern(text)


class MaskedPattern:
    """A compiled pattern that is shown with its secrets masked."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"re.compile({self._text!r})"


SHOWN_BY: Final[Mapping[str, Callable[[Any, Own, Redactor], Any]]] = {
    "path": declared_path,
    "headers": declared_fields,
    "query": declared_query,
    "content": declared_content,
    "json": declared_json,
}
"""What shows a condition, by its name. The other conditions have no secrets."""
