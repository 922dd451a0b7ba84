"""`Redaction`: what a suite declares to be secret, or to be none, by the fixture `egress_redaction`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from pytest_egress.traffic.redaction.variables import SHORT
from pytest_egress.traffic.shown import shown

NAMES: Final = ("headers", "query", "json", "keep")


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """What is hidden in everything that is shown, beyond what is by itself; the fixture `egress_redaction` returns it.

    Names are compared without case. Nothing is hidden from a test: `call.request` has all that was sent.

    Attributes:
        headers: Names of header fields whose values are secrets.
        query: Names of parameters of queries and forms whose values are secrets.
        json: Names of keys in JSON whose values are secrets, at any depth.
        values: Secrets themselves, of at least 8 characters each: they are hidden wherever they stand, encoded too.
        keep: Names that are no secrets though a word in them says so; of fields, parameters, keys and variables.
        match: A function of a text that is about to be shown. It returns the parts of the text that are secrets, as
            `re.compile("cus_[a-z0-9]+").findall` does.

    Raises:
        TypeError, ValueError: A value is not of that kind; the text quotes it, unless it is a secret.
    """

    headers: Collection[str] = ()
    query: Collection[str] = ()
    json: Collection[str] = ()
    values: Collection[str] = ()
    keep: Collection[str] = ()
    match: Callable[[str], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        for name in NAMES:
            check_names(name, getattr(self, name))
        check_values(self.values)
        if self.match is not None:
            check_match(self.match)
        kept = lowered(self.keep)
        for name in ("headers", "query", "json"):
            if both := kept & lowered(getattr(self, name)):
                raise ValueError(
                    f"Redaction: {shown(min(both))} is in {name}= and in keep=; it is a secret, or it is none: leave "
                    "out one of the two"
                )


def lowered(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def check_names(name: str, given: Any) -> None:
    if not is_several(given):
        example = f"[{given!r}]" if isinstance(given, str) else '["X-Tenant"]'
        raise TypeError(
            f"Redaction({name}={shown(given)}): it takes a list of names; write {name}={example}"
        )
    for each in given:
        if not isinstance(each, str):
            raise TypeError(f"Redaction({name}=[...{shown(each)}...]): a name is a str")
        if not each:
            raise ValueError(f"Redaction({name}=['']): nothing is called so; leave it out")


def check_values(given: Any) -> None:
    """Nothing here quotes a value: an error is shown, too."""
    if not is_several(given):
        kind = type(given).__name__
        raise TypeError(
            f"Redaction(values=...) takes a list of secrets, not {kind}; write values=[...]"
        )
    for number, each in enumerate(given, 1):
        if not isinstance(each, str):
            kind = type(each).__name__
            raise TypeError(
                f"Redaction(values=...): number {number} is of type {kind}, and a secret is a str"
            )
        if len(each) < SHORT:
            raise ValueError(
                f"Redaction(values=...): number {number} has {len(each)} characters, and one of less than {SHORT} "
                "would be found in what is no secret; name its field in headers=, query= or json= instead"
            )


def check_match(match: Any) -> None:
    """Ask it once, so that one which cannot be asked fails where it is declared."""
    if not callable(match):
        raise TypeError(
            f"Redaction(match={shown(match)}): it takes a function of a text that returns the secrets in it, such "
            'as re.compile("cus_[a-z0-9]+").findall'
        )
    try:
        found_by(match, "")
    except Exception as error:
        raise TypeError(
            f"Redaction(match={shown(match)}): it takes a text and returns a list of the secrets in it, each a str; of "
            f"an empty text it raised {type(error).__name__}: {error}"
        ) from None


def found_by(match: Callable[[str], Iterable[str]], text: str) -> set[str]:
    """Raise TypeError for one str, which would be taken for its letters, and for what is no list of them."""
    found: Any = match(text)
    if isinstance(found, str):
        raise TypeError("it returned a str, and no list of them")
    secrets = {*found}
    if wrong := [each for each in secrets if not isinstance(each, str)]:
        raise TypeError(f"it returned a {type(wrong[0]).__name__} in its list")
    return {secret for secret in secrets if secret.strip()}


def is_several(given: object) -> bool:
    return isinstance(given, (list, tuple, set, frozenset))


NOTHING_MORE: Final = Redaction()
