"""The picture of a failure on the site is what a terminal shows, in its colours."""

from __future__ import annotations

import html
import re

from scripts.picture import failure, picture
from tests.support.project import ROOT

STYLE = re.compile(r"\.(terminal-r\d+) \{ (.*?) \}")
PIECE = re.compile(r'<text class="(terminal-r\d+)"[^>]* y="([\d.]+)"[^>]*>(.*?)</text>')
CHANGING = re.compile(r"\d+\.\d+ (?:s|ms)|\d+\.\d+s| +(?=\d\.\d{3} s)")
"""Times."""


def lines(svg: str) -> list[list[tuple[str, str]]]:
    """The pieces of each line: how a piece is drawn, such as "fill: #cc555a;font-weight: bold", and its text."""
    styles = dict(STYLE.findall(svg))
    by_line: dict[str, list[tuple[str, str]]] = {}
    for name, y, text in PIECE.findall(svg):
        said = CHANGING.sub("", html.unescape(text).replace("\xa0", " "))
        by_line.setdefault(y, []).append((styles[name], said))
    return list(by_line.values())


def test_the_picture_of_a_failure_is_what_a_terminal_shows(curl_image: str) -> None:
    drawn = lines((ROOT / "docs/assets/failure.svg").read_text())
    shown = lines(picture(failure()))

    pieces = [piece for line in drawn for piece in line]
    assert "UNROUTED" in "".join(text for _, text in pieces)
    assert len({style for style, _ in pieces}) > 1
    assert drawn == shown, "draw it again: python scripts/picture.py docs/assets/failure.svg"
