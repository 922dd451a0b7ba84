"""The secrets among the variables of a container: which values are worth hiding, and the parts of a value that are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pytest_egress.traffic.redaction.names import is_of_a_place, is_secret

SHORT: Final = (
    8  # characters of a value that is hidden where it has two kinds of them; no form is shorter
)
LONG: Final = 16  # of a value that is hidden whatever its characters
KINDS: Final = tuple(map(re.compile, ("[a-z]", "[A-Z]", "[0-9]", "[^a-zA-Z0-9]")))
URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
FILE: Final = re.compile(r"/(?:run/secrets/\S+|(?:[\w@-][\w.@-]*/)+[\w@-][\w.@-]*\.\w{1,5})")
"""A file with a secret, such as that of GOOGLE_APPLICATION_CREDENTIALS; no base64 has a dot."""

KEY_LINE: Final = re.compile(r"[A-Za-z0-9+/=]{8,}")  # of a key in PEM (RFC 7468), the last one too
CODE: Final = re.compile(r"[A-Za-z_]{1,40}(?:\.[A-Za-z_]{1,40})+")
"""The name of a class or module, such as a setting has: "django.contrib.sessions.backends.db"."""

SEPARATORS: Final = re.compile(r"[,;|\s]+")
PAIR: Final = re.compile(r"([A-Za-z_][\w .-]{0,63})[=:](?!/)(.+)", re.DOTALL)
"""A name with its value, as in a connection string, and no base64 with its padding."""


def is_worth_hiding(value: str) -> bool:
    """Whether a value is no common word: `POSTGRES_PASSWORD=postgres` hides no host of that name."""
    kinds = sum(kind.search(value) is not None for kind in KINDS)
    return len(value) >= LONG or (len(value) >= SHORT and kinds > 1)


def secrets_of(variable: str, value: str, *, is_named: bool) -> Iterator[str]:
    """The parts of a variable's value that are secrets.

    The password in a URL is one whatever the variable is called. The rest of the URL before its path is none, so that
    a report still says which host was asked.

    Args:
        is_named: Whether the name says that the value is a secret.
    """
    if URL.match(value):
        yield from password_in(value)
        if not is_named or is_of_a_place(variable):
            return
        value = value.partition("://")[2].partition("/")[2]
    elif not is_named or is_of_a_place(variable):
        return
    if FILE.fullmatch(value) or CODE.fullmatch(value):
        return
    value = value.strip()
    yield value
    keys = lines_of_key(value)
    yield from keys
    known = {value, *keys}
    for part in dict.fromkeys(parts_of(value)):
        if part not in known and is_worth_hiding(part):
            yield part
            yield from lines_of_key(part.strip())


def lines_of_key(value: str) -> list[str]:
    """Those of a key in PEM: programs print it line by line, that within JSON too."""
    lines = map(str.strip, value.splitlines()) if "\n" in value else ()
    return [*filter(KEY_LINE.fullmatch, lines)]


def parts_of(value: str) -> Iterator[str]:
    """The parts of a value that has several: a list, JSON, pairs of a name and a value, a scheme with credentials."""
    if value.startswith("-----"):  # PEM (RFC 7468), whose lines are known
        return
    if value[:1] in ("{", "["):
        yield from strings_in_json(value)
        return
    parts = [part for part in SEPARATORS.split(value) if part]
    pairs = [PAIR.match(part) for part in parts]
    if len(parts) == 1 and pairs[0] is None:
        return
    for part, pair in zip(parts, pairs, strict=True):
        if pair is None:
            yield part
        elif is_secret(pair[1]) or not any(each and is_secret(each[1]) for each in pairs):
            yield pair[2]


def strings_in_json(value: str) -> Iterator[str]:
    """Those under the names of secrets; where no name is one, all of them."""
    try:
        waiting: list[tuple[Any, bool]] = [(json.loads(value), False)]
    except (ValueError, RecursionError):
        return
    every: list[str] = []
    named: list[str] = []
    while waiting:
        each, is_named = waiting.pop()
        if isinstance(each, dict):
            waiting += [(item, is_named or is_secret(name)) for name, item in each.items()]
        elif isinstance(each, list):
            waiting += [(item, is_named) for item in each]
        elif isinstance(each, str):
            (named if is_named else every).append(each)
    yield from named or every


def password_in(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password:
        yield from {password: None, unquote(password): None}
