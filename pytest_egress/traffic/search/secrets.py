"""`secret()`: a value that must leave for its own address alone, in TLS, and neither in a URL nor in a name.

A test gives it to a container in any way, in a text that it is a part of too. So all that were made are listed here:
this is the one state of a module, which grows by what tests declare, and which each session reads from where it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pytest_egress.base.callers import caller
from pytest_egress.errors import AddressError
from pytest_egress.traffic.address import Address, parse_address

SHORTEST: Final = 8  # characters: fewer stand in many a text by chance
LONGEST: Final = 16_384  # characters: a key in PEM of 16,384 bits has 12,600

UNNAMED: Final = "SECRET"
"""Stands for a secret that no variable has had yet."""


class Secret(str):
    """A text whose repr hides it.

    Attributes:
        only: The addresses that it may leave for.
        cleartext: Whether it may go there outside of TLS.
        place: The line that made it, as `test_shop.py:12`.
        name: The variable that has had it; `UNNAMED` for none.
    """

    only: tuple[Address, ...] = ()
    cleartext = False
    place = ""
    name = UNNAMED

    def __repr__(self) -> str:
        return "<secret>"

    @property
    def written(self) -> tuple[str, ...]:
        """What is looked for."""
        return written(self)

    @property
    def shown(self) -> str:
        """How a report calls it."""
        return self.name if self.name != UNNAMED else f"the secret of {self.place or 'a marker'}"


def written(value: str) -> tuple[str, ...]:
    """What is looked for: without the blanks at its ends, as a shell reads a file, and with either end of lines."""
    bare = value.strip()
    lines = bare.replace("\r\n", "\n")
    return tuple(dict.fromkeys((bare, lines, lines.replace("\n", "\r\n"))))


MADE: Final[list[Secret]] = []
"""All that `secret()` has made in this process, in order."""


def secret(value: str, only: str | Iterable[str] = (), *, cleartext: bool = False) -> str:
    """Return the value, watched: a test fails by `LeakError` whose container sends it where it must not.

    Give it to a container by `env=`, `files=`, `input=` or its command, as it is or as a part of a text. Whatever a
    container then sends is searched for it, in plain and encoded. It is taken out of all that is shown, like the values
    of `env=` that are called a key or a password. One that a test makes counts until the end of that test; one that is
    made elsewhere, as in a fixture for several tests, until the end of the run.

    Args:
        value: The secret, of 8 to 16,384 characters.
        only: The addresses that it may leave for, `host[:port]`, any port where none is given. Without one it must not
            leave at all. It must never be in a URL, or in a name that DNS or TLS asks for.
        cleartext: Whether it may leave for these outside of TLS, as for a database.

    Raises:
        AddressError, TypeError, ValueError: An argument is refused. The text does not quote the value.
    """
    if not isinstance(value, str):
        raise TypeError(f"secret() takes a text, not a {type(value).__name__}")
    if not SHORTEST <= len(value.strip()) <= LONGEST:
        raise ValueError(
            f"secret() takes a text of {SHORTEST} to {LONGEST} characters, without the blanks at its ends: a shorter "
            "one is found where it is none"
        )
    if not isinstance(cleartext, bool):
        raise TypeError(
            f"secret(cleartext=): it takes True or False, not a {type(cleartext).__name__}"
        )
    made = Secret(value)
    made.only = tuple(map(address_of, [only] if isinstance(only, str) else only))
    made.cleartext, made.place = cleartext, caller()
    MADE.append(made)
    return made


def address_of(text: object) -> Address:
    try:
        return parse_address(text, default_port=None)
    except AddressError as error:
        raise AddressError(f"secret(only=): {error}") from None
