"""`Redactor`: hides secrets in a text that is about to be shown.

Known values come first: each has its name in its place, as `<STRIPE_KEY>`. Then what a name says is a secret: its first
characters and its length are shown, enough to tell one from another. Then what is a secret by its form. What is a
placeholder already is never masked again.

A run has one at a time. It hangs on what accounts share (`base.account`), which everything leads to that a target has
sent: `redactor_of` finds it. Where none hangs there, names and forms alone decide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus

from pytest_egress.base.account import Account
from pytest_egress.traffic.redaction.declared import NOTHING_MORE, Redaction, found_by, lowered
from pytest_egress.traffic.redaction.logins import asks_for_login, without_logins
from pytest_egress.traffic.redaction.names import is_secret
from pytest_egress.traffic.redaction.shapes import Mask, without_shapes
from pytest_egress.traffic.redaction.values import KnownValues
from pytest_egress.traffic.redaction.variables import is_worth_hiding, secrets_of
from pytest_egress.traffic.shown import SHOWN_TARGET, SHOWN_VALUE, cut, shown

SHOWN: Final = 4  # characters of a secret: of most keys their kind ("sk_l", "ghp_", "AKIA"); of a short one a quarter
READ: Final = 4096  # characters of a text that are searched for names; no more of it is shown
NAME_CHARACTERS: Final = 64  # of a variable, in its placeholder
NAMES: Final = re.compile(
    r'\\?"([^"\\]{1,64})\\?"\s{0,9}:\s{0,9}(\\?"|[\[{])|([\w.%\[\]-]{1,64})(="?| ?: {0,9})'
)
IN_QUOTES: Final = re.compile(r'(?:[^"\\]|\\.)*')
AFTER_EQUALS: Final = re.compile(r'[^&\s"]*')
AFTER_COLON: Final = re.compile(
    r"[^\r\n']*(?:\r?\n[ \t]+[^\r\n']*)*"
)  # with lines that continue it
MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{\]}]')
WITHIN_VALUES: Final = re.compile(
    r"(?i)((?:%[0-9A-F]{2})?)([\w.-]{1,64})(=|%3D)((?:%(?!26)|[^%&])*)"
)
"""A parameter within a parameter's value, which may be a URL itself, percent-encoded or not."""

PARTS: Final = re.compile(
    r'(; name="?([^"\r\n;]{1,64})"?[^\r\n]{0,256}\r\n(?:[^\r\n]{1,256}\r\n){0,8}\r\n)(.*?)(?=\r\n--|\Z)',
    re.DOTALL,
)
"""A part of a `multipart/form-data` body: its head with its name, and its value."""

SCHEME: Final = re.compile(r"[A-Za-z0-9_-]{1,32} ")
PLACEHOLDER: Final = re.compile(r"(<[\w.#-]{1,80}>)")
UNSHOWN: Final = re.compile(r"[^\w.-]", re.ASCII)  # of a variable's name
NO_TEXT: Final = re.compile(r"[\W_]*")


def mask(secret: str) -> str:
    return f"{beginning(secret)}... ({len(secret)} character{'s' * (len(secret) != 1)})"


def mask_in_url(secret: str) -> str:
    return f"{beginning(secret)}...({len(secret)})"


def beginning(secret: str) -> str:
    return secret[: min(SHOWN, len(secret) // 4)]


def unnumbered(name: str) -> str:
    return name.partition("#")[0]


def placeholder(name: str) -> str:
    return f"<{name}>"


@dataclass(frozen=True, eq=False)
class Redactor:
    """Hides secrets in what is shown. It never changes: `knowing` makes another one.

    Args:
        rules: What the suite declares.
        secrets: Pairs of a name and a value that is a secret, each name once.
        _before: The values of the redactor that it was made of, which have been indexed.
    """

    rules: Redaction = NOTHING_MORE
    secrets: tuple[tuple[str, str], ...] = ()
    _before: KnownValues | None = field(default=None, repr=False)

    # What is known.

    @classmethod
    def declared(cls, rules: Redaction) -> Redactor:
        return cls(rules).hiding((FOUND, value) for value in rules.values)

    def knowing(self, variables: Mapping[str, str]) -> Redactor:
        """One that also hides the secrets among the variables of a container, as far as they are worth it."""
        return self.hiding(
            (name, secret)
            for name, value in variables.items()
            if name.lower() not in self._kept
            for secret in secrets_of(name, value, is_named=is_secret(name))
            if is_worth_hiding(secret)
        )

    def hiding(self, secrets: Iterable[tuple[str, str]]) -> Redactor:
        """One that also hides values, whatever they are; of two with one name, the second is `<NAME#2>`.

        One that has a name keeps it; `FOUND` is none.
        """
        names = {value: name for name, value in self.secrets}
        numbers = Counter(map(unnumbered, names.values()))
        for given, value in secrets:
            if value not in names or (given != FOUND and unnumbered(names[value]) == FOUND):
                name = UNSHOWN.sub("_", given)[:NAME_CHARACTERS] or "_"
                numbers[name] += 1
                names[value] = name if numbers[name] == 1 else f"{name}#{numbers[name]}"
        secrets = tuple((name, value) for value, name in names.items())
        if secrets == self.secrets:
            return self
        return Redactor(self.rules, secrets, self.__dict__.get("_values", self._before))

    @cached_property
    def _values(self) -> KnownValues:
        return KnownValues(self.secrets, self._before)

    @cached_property
    def _placeholders(self) -> frozenset[str]:
        return frozenset(map(placeholder, [*(name for name, _ in self.secrets), FOUND]))

    @cached_property
    def _kept(self) -> frozenset[str]:
        return lowered(self.rules.keep)

    @cached_property
    def _names(self) -> frozenset[str]:
        return lowered([*self.rules.headers, *self.rules.query, *self.rules.json])

    def is_secret(self, name: str) -> bool:
        """Whether a name says that its value is a secret, wherever it stands."""
        lower = name.lower()
        return lower not in self._kept and (is_secret(name) or lower in self._names)

    # Texts that have no names of fields, or whose words with a colon are none: logs, verdicts, paths.

    def known(self, text: str, instead: Mask = placeholder, *, is_cut: bool = False) -> str:
        """Without known values, and what `match=` finds.

        Args:
            instead: Makes what is shown in place of a secret, of its name.
            is_cut: Whether more follows that is not here, so that the end may be the beginning of a secret.
        """
        if self.secrets:
            text = self._values.replaced(text, instead, is_cut=is_cut)
        return text if self.rules.match is None else self._without_found(text, instead)

    def hidden(self, text: str, *, is_cut: bool = False) -> str:
        """Without known values, and without what is a secret by its form."""
        return without_shapes(self.known(text, is_cut=is_cut), mask)

    def _without_found(self, text: str, instead: Mask) -> str:
        assert self.rules.match is not None
        parts = PLACEHOLDER.split(text)
        try:
            for number in range(0, len(parts), 2):  # the others are placeholders
                found = found_by(self.rules.match, parts[number])
                if found:
                    any_of_them = "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
                    parts[number] = re.sub(any_of_them, lambda _: instead(FOUND), parts[number])
        except Exception as error:
            # A report is made in spite of it, and what it would hide is not shown.
            return f"<match= of egress_redaction raised {type(error).__name__}>"
        return "".join(parts)

    @cached_property
    def path(self) -> Mask:
        """A function of the path of a URL. Each route that a request does not fit asks for it, and for its own."""

        def redacted(path: str) -> str:
            return without_shapes(self.known(path), mask_in_url)

        kept = lru_cache(maxsize=2048)(redacted)
        return lambda path: kept(path) if len(path) <= SHOWN_TARGET else redacted(path)

    def glob(self, path: str) -> str:
        """A path with `*` in place of its secrets, for a line that is to be typed."""
        return without_shapes(self.known(path, lambda _: "*"), lambda _: "*")

    def host(self, name: str, instead: Mask = placeholder) -> str:
        """A name of a host, in which case tells nothing."""
        name = self._values.replaced(name, instead, is_host=True)
        return name if self.rules.match is None else self._without_found(name, instead)

    def host_glob(self, name: str) -> str:
        """A host with `*` in place of its secrets. One that is a secret as a whole has its name: `*` is any host."""
        glob = self.host(name, lambda _: "*")
        return self.host(name) if glob == "*" else glob

    def shown(self, value: object) -> str:
        """As `shown.shown`: the value's repr, cut in the middle."""
        if not isinstance(value, (str, bytes)):
            return cut(self.hidden(repr(value)), SHOWN_VALUE)
        text = value if isinstance(value, str) else value.decode("latin-1")
        if len(text) > 2 * READ:
            text = self.hidden(text[:READ], is_cut=True) + self.hidden(text[-READ:])
        else:
            text = self.hidden(text)
        return shown(text if isinstance(value, str) else encoded(text))

    # What has names.

    def value(self, name: str, value: Any) -> Any:
        """The value of a parameter, or of anything else that has a name."""
        if not isinstance(value, str):
            return value
        value = self.known(value)
        return self.mask(value) if self.is_secret(name) else without_shapes(value, mask)

    def field(self, name: str, value: Any) -> Any:
        """The value of a header field. The scheme of credentials stays, and so do the names of cookies."""
        if not isinstance(value, str):  # a test's own object, which compares as it likes
            return value
        if name.lower() in ("host", ":authority"):  # which may have a secret over several labels
            value = self.host(value)
        return self._field(name, self.known(value))

    def _field(self, name: str, value: str) -> str:
        lower = name.lower()
        if lower in ("cookie", "set-cookie") and lower not in self._kept:
            pairs = value.split(";")
            last = (
                1 if lower == "set-cookie" else len(pairs)
            )  # the rest of Set-Cookie are attributes
            return ";".join([*map(self._cookie, pairs[:last]), *pairs[last:]])
        if not self.is_secret(name):
            return self._beginning(value)
        scheme = SCHEME.match(value)
        return f"{scheme[0]}{self.mask(value[scheme.end() :])}" if scheme else self.mask(value)

    def _beginning(self, text: str) -> str:
        return self._named(text) if len(text) <= READ else f"{self._named(text[:READ])}..."

    def _cookie(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        if name.strip().lower() in self._kept:
            return pair
        return f"{name}={self.mask(value)}" if equals else self.mask(pair)

    def json(self, value: Any, *, secret: bool = False) -> Any:
        """Every string is masked that is at any depth under the name of a secret; numbers stay."""
        if isinstance(value, Mapping):
            return self.keyed(
                (key, self.json(each, secret=secret or self.is_secret(str(key))))
                for key, each in value.items()
            )
        if isinstance(value, list):
            return [self.json(item, secret=secret) for item in value]
        if not isinstance(value, str):
            return value
        value = self.known(value)
        return self.mask(value) if secret else without_shapes(value, mask)

    def key(self, key: Any) -> Any:
        return self.known(key) if isinstance(key, str) else key

    def keyed(self, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """A dict whose keys have no known values. Those that look alike then are numbered: none is left out."""
        found: dict[Any, Any] = {}
        for key, value in pairs:
            shown, number = self.key(key), 1
            while (name := shown if number == 1 else f"{shown}#{number}") in found:
                number += 1
            found[name] = value
        return found

    def query(self, query_string: str) -> str:
        """The query stays percent-encoded."""
        return self._query(self.known(query_string)) if query_string else ""

    def _query(self, query_string: str) -> str:
        masked = "&".join(map(self._parameter, query_string.split("&")))
        return without_shapes(masked, mask_in_url)

    def _parameter(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        if equals and self.is_secret(unquote_plus(name)):
            return f"{name}={self.mask_in_url(value)}"
        return f"{name}{equals}{WITHIN_VALUES.sub(self._within, value)}"

    def _within(self, found: re.Match[str]) -> str:
        before, name, equals, value = found.groups()
        if not self.is_secret(name):
            return found[0]
        return f"{before}{name}{equals}{self.mask_in_url(value)}"

    def authority(self, authority: str) -> str:
        """User information is masked (RFC 3986 section 3.2.1)."""
        user, at, host = authority.rpartition("@")
        return f"{self.mask_in_url(self.known(user))}@{self.host(host)}" if at else self.host(host)

    def url(self, url: str) -> str:
        """A URL, or an authority alone, with its user information and the secrets of its path and query masked."""
        scheme, mark, rest = url.partition("://")
        authority, slash, target = (rest if mark else url).partition("/")
        path, question, query = target.partition("?")
        begins = f"{scheme}{mark}" if mark else ""
        after = f"{self.path(slash + path)}{question}{self.query(query)}"
        return f"{begins}{self.authority(authority)}{after}"

    def text(self, text: str, *, is_cut: bool = False) -> str:
        """The beginning of a text with its secrets masked: a form, in parts or not, JSON, a head, or anything else."""
        if len(text) > READ:
            return f"{self._named(self.known(text[:READ], is_cut=True))}..."
        return self._named(self.known(text, is_cut=is_cut))

    def whole_text(self, text: str, *, is_cut: bool = False) -> str:
        """As `text`, and all of it: for a file."""
        return self._named(self.known(text, is_cut=is_cut))

    def whole_content(self, data: bytes, *, is_asked: bool = False, is_cut: bool = False) -> bytes:
        """Bytes of a client without known values, and without its logins: all of them, for a file.

        Args:
            is_asked: Whether its server has just asked for a part of a login.
        """
        text = self.known(data.decode("latin-1"), is_cut=is_cut)
        return encoded(without_logins(text, self.mask, is_asked=is_asked))

    def content(self, data: bytes, *, is_cut: bool = False) -> bytes:
        """As `text`, of bytes."""
        return encoded(self.text(data[: READ + 1].decode("latin-1"), is_cut=is_cut))

    def first_bytes(self, data: bytes, *, is_asked: bool = False) -> bytes:
        """The beginning of what a client has sent on a connection of any protocol, without its login.

        Args:
            is_asked: Whether its server has just asked for a part of a login.
        """
        text = self.known(data[:READ].decode("latin-1"), is_cut=True)
        return encoded(self._named(without_logins(text, self.mask, is_asked=is_asked)))

    def asks_for_login(self, answer: bytes) -> bool:
        """Whether a server has asked for a part of a login, at the end of what it has sent."""
        return asks_for_login(answer[-READ:].decode("latin-1"))

    def _named(self, text: str) -> str:
        text = PARTS.sub(self._part, text)
        shown, position = [], 0
        while (named := NAMES.search(text, position)) is not None:
            quoted, opening, name, sign = named.groups()
            start = end = named.end()
            shown.append(text[position:end])
            if self.is_secret(quoted or unquote_plus(name)):
                end = end_of_value(text, start, opening or sign)
                value = text[start:end]
                masks = (
                    self.mask(value)
                    if opening in ("[", "{")
                    else self._field(quoted or unquote_plus(name), value)
                )
                shown.append(masks if value else "")
            position = end
        return without_shapes("".join([*shown, text[position:]]), mask)

    def _part(self, found: re.Match[str]) -> str:
        head, name, value = found.groups()
        return f"{head}{self.mask(value)}" if value and self.is_secret(name) else found[0]

    # Masks.

    def mask(self, secret: str) -> str:
        return self._around(secret, mask)

    def masked(self, secret: str) -> str:
        """A value that is a secret, whatever it is called."""
        return self.mask(self.known(secret))

    def mask_in_url(self, secret: str) -> str:
        return self._around(secret, mask_in_url)

    def _around(self, secret: str, mask: Mask) -> str:
        """Placeholders stay, and so do marks around them."""
        parts = PLACEHOLDER.split(secret)
        if self._placeholders.isdisjoint(parts):
            return mask(secret)
        return "".join(
            part if part in self._placeholders or NO_TEXT.fullmatch(part) else mask(part)
            for part in parts
        )


FOUND: Final = "SECRET"
"""The name of what has none: what `values=` lists, and what `match=` finds."""


def encoded(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def end_of_value(text: str, start: int, sign: str) -> int:
    """`sign` is the character before the value: an opening quote or bracket, "=" or ":"."""
    if sign in ("[", "{"):
        return end_of_brackets(text, start)
    in_quotes = sign.endswith('"')
    values = IN_QUOTES if in_quotes else AFTER_EQUALS if sign == "=" else AFTER_COLON
    value = values.match(text, start)
    assert value is not None  # it may be empty
    return value.end()


def end_of_brackets(text: str, start: int) -> int:
    """The position of the bracket that closes the one before `start`, or the end of the text."""
    depth = 1
    for mark in MARKS.finditer(text, start):
        depth += (mark[0] in ("[", "{")) - (mark[0] in ("]", "}"))
        if not depth:
            return mark.start()
    return len(text)


BY_NAMES: Final = Redactor()
"""For what belongs to no run, such as a request that a test has made by itself."""


def redactor_of(sent: Any) -> Redactor:
    """The redactor that its run has now, of an entry or a request, or of anything with an account."""
    return redactor_in(sent._account)


def redactor_in(account: Account | None) -> Redactor:
    found: Redactor | None = None if account is None else account.redactor
    return found or BY_NAMES
