"""How a failure looks on a terminal: the colours of verdicts and outcomes, and hanging indents at the terminal's width.

Anywhere else, as in JUnit's XML, in `str` of an error or in a file, its text stays as it is. pytest decides whether
there is colour: `--color`, `NO_COLOR`, `FORCE_COLOR`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

OWN_SECTIONS: Final = (
    "egress",
    "egress keeps",
)  # their lines are this package's, not a container's
TYPED: Final = re.compile(
    r"(?:(?<=: )|(?<=^)) *(egress\.\w+\(.*\)|from pytest_egress import .+|env=\{.*\}|docker (?:rm|logs) .+)$"
)
"""The line to type, at the end of a line. It is never broken, so that it can be copied."""

WORD: Final = re.compile(r"(?:[A-Z]{3,}|gRPC|->) \S+|[\d.]+ m?s\b\S*|\S+")
"""A part of a line that is never broken: a word, a method with its URL, a number with its unit."""

TIME: Final = re.compile(r" *-?\d+\.\d{3} s  ")
"""Begins a line of the timeline."""

RAISED: Final = r"(?:handler|match= predicate) raised"
HEAD: Final = {"red": True, "bold": True}

PAINTS: Final = (
    (TYPED, {"green": True, "bold": True}),
    (re.compile(r"^\S.*:$"), HEAD),  # the head of a verdict
    (re.compile(r"^  ((?:[A-Z]+|gRPC) \S+|[a-z_]+\(.*?\))(?=  |,|$)"), {"bold": True}),
    (re.compile(r"(?<=  )(UNROUTED|ACCEPTED)(?=  | [a-z]|$)"), {"red": True, "bold": True}),
    (re.compile(r"(?<=  )(BLOCKED)(?=  |$)"), {"yellow": True, "bold": True}),
    (re.compile(r"(?<=  )(PASSTHROUGH)(?=  |$)"), {"cyan": True, "bold": True}),
    (re.compile(rf"[ ,] ({RAISED} \w+)"), {"red": True}),
    (re.compile(r"^ *-?[\d.]+ s  (?:\S+  )?(DNS (?!.*  UNROUTED).*)"), {"light": True}),
    (
        re.compile(
            rf"^ *-?[\d.]+ s  (?!.*(?:  [A-Z]{{7}}|{RAISED})).*? (-> (?!b?['\"])[^,]+?)(?= in \d|,|  |$)"
        ),
        {"green": True},
    ),
)
"""What is coloured: a pattern, of which a group is meant where it has one, and its markup. The earlier one wins."""

Markup = dict[str, bool]


def paint(report: Any) -> None:
    """Have a report that has text of this package's write its failure in colour, and wrapped, to a terminal.

    It is called where that is: in the controller of pytest-xdist, whose reports have no objects of the workers'.
    """
    longrepr, is_verdict = report.longrepr, getattr(report, "egress_verdict", False)
    if not hasattr(longrepr, "sections"):
        return
    if not (is_verdict or any(name in OWN_SECTIONS for name, *_ in longrepr.sections)):
        return
    if is_verdict:
        for entry in longrepr.reprtraceback.reprentries:
            if getattr(entry, "style", "") == "value":
                entry.toterminal = partial(write_verdict, entry)
    longrepr.toterminal = partial(write_failure, longrepr)


def write_failure(longrepr: Any, tw: Any) -> None:
    """Write the traceback as pytest does, then the sections."""
    sections, longrepr.sections = longrepr.sections, []
    try:
        type(longrepr).toterminal(longrepr, tw)
    finally:
        longrepr.sections = sections
    for name, content, sep in sections:
        tw.sep(sep, name)
        if name in OWN_SECTIONS:
            write_text(tw, content)
        else:
            tw.line(content)


def write_verdict(entry: Any, tw: Any) -> None:
    head, *rest = entry.lines
    write_line(tw, head, [(0, len(head), HEAD)])
    write_text(tw, "\n".join(rest))
    if entry.reprfileloc is not None:
        tw.line("")
        entry.reprfileloc.toterminal(tw)


def write_text(tw: Any, text: str) -> None:
    for line in text.split("\n"):
        write_line(tw, line, list(spans(line)))


def write_line(tw: Any, line: str, painted: list[tuple[int, int, Markup]]) -> None:
    file = getattr(tw, "_file", None)
    if isinstance(file, io.StringIO):  # a text is made of it, whatever FORCE_COLOR says
        tw.line(line)
        return
    width = tw.fullwidth if file is not None and file.isatty() else len(line)
    indent = hanging(line)
    for start, end in fitted(line, width, indent):
        tw.write(" " * indent if start else "")
        for piece, markup in pieces(line, start, end, painted):
            tw.write(piece, **markup)
        tw.line()


def spans(line: str) -> Iterator[tuple[int, int, Markup]]:
    """The parts of a line that are coloured, from left to right."""
    found = [
        (*match.span(match.re.groups), markup)
        for rule, markup in PAINTS
        if (match := rule.search(line))
    ]
    end = 0
    for span in sorted(found, key=lambda each: each[0]):
        if span[0] >= end:
            yield span
            end = span[1]


def pieces(
    line: str, start: int, end: int, painted: list[tuple[int, int, Markup]]
) -> Iterator[tuple[str, Markup]]:
    for first, last, markup in painted:
        first, last = max(first, start), min(last, end)
        if first < last:
            yield line[start:first], {}
            yield line[first:last], markup
            start = last
    yield line[start:end], {}


def hanging(line: str) -> int:
    """The indent of what is continued of a line: past its time, or two columns more than its own."""
    time = TIME.match(line)
    return time.end() if time else len(line) - len(line.lstrip()) + 2


def fitted(line: str, width: int, indent: int) -> Iterator[tuple[int, int]]:
    """The slices of a line that fit, broken at spaces. A word that fits nowhere stays where it is.

    Args:
        indent: The columns before each slice but the first.
    """
    typed = TYPED.search(line)
    whole = typed.start(1) if typed is not None else len(line)
    start, end, room = 0, 0, width
    for word in WORD.finditer(line, 0, whole):
        first, last = word.span()
        if last - start > room and end > start and last - first <= width - indent:
            yield start, end
            start, room = first, width - indent
        end = last
    if typed is not None and end > start and len(line) - start > room:
        yield start, end
        start = whole
    yield start, len(line)
