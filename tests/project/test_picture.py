"""The picture of a failure on the site is what a terminal shows."""

from __future__ import annotations

import html
import re

from scripts.picture import failure, picture
from tests.support.project import ROOT

PIECE = re.compile(r'<text class="terminal-r\d+"[^>]* y="([\d.]+)"[^>]*>(.*?)</text>')
CHANGING = re.compile(r"\d+\.\d+ (?:s|ms)|\d+\.\d+s| +(?=\d\.\d{3} s)")
"""Times."""


def lines(svg: str) -> list[str]:
    by_line: dict[str, str] = {}
    for y, text in PIECE.findall(svg):
        by_line[y] = by_line.get(y, "") + html.unescape(text).replace("\xa0", " ")
    return [CHANGING.sub("", line) for line in by_line.values()]


def test_the_picture_of_a_failure_is_what_a_terminal_shows(curl_image: str) -> None:
    drawn = lines((ROOT / "docs/assets/failure.svg").read_text())
    shown = lines(picture(failure()))

    assert "UNROUTED" in "".join(drawn)
    assert drawn == shown, "draw it again: python scripts/picture.py docs/assets/failure.svg"
