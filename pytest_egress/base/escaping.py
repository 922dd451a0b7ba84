r"""`escaped`: a text from outside as it may be shown: on a terminal, in the log of a CI job, in JUnit's XML.

A target writes what it likes into its log, and chooses what its requests are named. Shown as they came, control
characters clear the screen, move back over what was written, or set the title of the window, whatever `--color` says;
others reorder or hide the text around them.
"""

from __future__ import annotations

import re
from typing import Final

UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and line feed; ESC, and CSI and its like of eight bits
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # they reorder, hide, or end lines
    "\ud800-\udfff\U000e0000-\U000e007f]"  # that cannot be encoded; a copy of ASCII that nobody sees
)
LINE_END: Final = re.compile("\r+\n")  # of a program that writes to a terminal


def escaped(text: str) -> str:
    r"""A text with each character that does more than to be seen as Python writes it: ESC is `\x1b`.

    Tabs and line feeds stay, and CR LF is a line feed. It is idempotent.
    """
    if UNSAFE.search(text) is None:  # as a rule
        return text
    return UNSAFE.sub(written, LINE_END.sub("\n", text))


def one_line(text: str) -> str:
    """The same, with its line feeds written too."""
    return escaped(text).replace("\n", "\\n")


def written(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


class Escaped:
    """An exception's text can be shown anywhere, whatever it quotes: `str` has it escaped, `args` as it was made."""

    def __str__(self) -> str:
        return escaped(super().__str__())
