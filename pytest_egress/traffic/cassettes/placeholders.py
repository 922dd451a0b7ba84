"""What stands in a secret's place in a cassette, and what that stands for when a request is compared.

`<STRIPE_KEY>` stands for the value that `env=` gives that name now. It is put into what was recorded; nothing is
replaced in what is asked, where a value such as "-" stands in many places. Without that name in `env=` it stands for
any text, and so it does where the value was sent in another form, such as base64, whose neighbours decide characters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from pytest_egress.traffic.redaction.values import forms
from pytest_egress.traffic.redaction.variables import is_worth_hiding

PLACEHOLDER: Final = re.compile(r"<([\w.#-]{1,80})>")


class Stands:
    """What the placeholders of a cassette stand for, for the requests of one container.

    Args:
        names: Those of the cassette's placeholders.
        variables: The container's.
    """

    def __init__(self, names: Collection[str], variables: Mapping[str, str]) -> None:
        self._names, self._variables = names, variables

    def value(self, name: str) -> str | None:
        """None for any text. The second of several values that one name had is `NAME#2`."""
        return self._variables.get(name.partition("#")[0])

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """The parts of a text, each with whether it is the name of a placeholder."""
        position = 0
        for found in PLACEHOLDER.finditer(text):
            if found[1] in self._names:
                yield text[position : found.start()], False
                yield found[1], True
                position = found.end()
        yield text[position:], False

    def has_any(self, text: str) -> bool:
        return "<" in text and any(is_name for _, is_name in self.parts(text))

    def filled(self, text: str) -> str:
        """The text with the values that are known in place of their placeholders: for a client that gets it."""
        if "<" not in text:
            return text
        return "".join(self._given(part) if is_name else part for part, is_name in self.parts(text))

    def _given(self, name: str) -> str:
        value = self.value(name)
        return f"<{name}>" if value is None else value

    def fits(self, wanted: str, found: str) -> bool:
        """Whether a text is what was recorded."""
        if wanted == found:
            return True
        if not self.has_any(wanted):
            return False
        pieces: list[str] = [""]
        for part, is_name in self.parts(wanted):
            value = self.value(part) if is_name else part
            if is_name and (value is None or self._is_in_other_form(value, found)):
                pieces.append("")
            else:
                pieces[-1] += value or ""
        return self.filled(wanted) == found or in_order(pieces, found)

    def _is_in_other_form(self, value: str, text: str) -> bool:
        return not is_worth_hiding(value) or any(
            form in text for form, _ in forms(value) if form != value
        )

    def expecting(self, value: Any) -> Any:
        """A value of JSON whose texts with placeholders equal what they stand for."""
        if isinstance(value, dict):
            return {self.filled(str(key)): self.expecting(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.expecting(each) for each in value]
        return Expected.of(value, self) if isinstance(value, str) and self.has_any(value) else value

    def filling(self, value: Any) -> Any:
        """A value of JSON as a client gets it."""
        if isinstance(value, dict):
            return {self.filled(str(key)): self.filling(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.filling(each) for each in value]
        return self.filled(value) if isinstance(value, str) else value


class Expected(str):
    """A recorded text with placeholders: equal to each text that they may stand for."""

    _stands: Stands

    @classmethod
    def of(cls, text: str, stands: Stands) -> Expected:
        made = cls(text)
        made._stands = stands
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._stands.fits(str(self), str(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def in_order(pieces: list[str], text: str) -> bool:
    """Whether a text is these pieces, with any text between each two."""
    first, *rest = pieces
    if not rest:
        return text == first
    *middle, last = rest
    if not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in middle:
        at = text.find(piece, position, end)
        if at < 0:
            return False
        position = at + len(piece)
    return position <= end
