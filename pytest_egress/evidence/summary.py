"""`summary.md`: why tests failed, as Markdown that GitHub shows below a job. Nothing where all have passed.

Whatever came from a container is one line of text in it: what Markdown, HTML, links and mentions are made of is written
as entities, and what reorders or hides text as Python writes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_egress.base.escaping import escaped
from pytest_egress.traffic.shown import counted, cut

MAX_BYTES: Final = 64 << 10
"""Of a summary. GitHub drops all of a step's that come to 1 MiB together, without a word near that."""

TABLE_BYTES: Final = 32 << 10
SHOWN_ROWS: Final = 60
SHOWN_CODE: Final = 250  # characters of a line to paste, which is cut before
SHOWN_NEW: Final = 20
SHOWN_CELL: Final = 120  # characters
SHOWN_WHY: Final = 300
MARKS: Final = re.compile(
    r"(?<!\w)_|_(?!\w)|[\\`*\[\]<>|@~$&#]|:(?=//|[A-Za-z0-9_+-]+:)|(?<=[Ww]{3})\."
)
"""What begins markup: of Markdown, HTML, mentions, links that need no mark, emoji and formulas."""

CUT: Final = "\n\n… cut here: the rest is in the report.\n"


def summary(
    rows: Sequence[Mapping[str, Any]], new: Collection[str] = (), *, accepting: str = ""
) -> str:
    """The summary of a run's rows.

    Args:
        new: The destinations that the lock file does not have.
        accepting: The command that accepts them.
    """
    failed = [row for row in rows if row["outcome"] == "failed"]
    if not failed:
        return ""
    paste = dict.fromkeys(line for row in failed for line in row["paste"])
    made = [
        f"### Egress: {len(failed)} of {counted(len(rows), 'test')} failed",
        "",
        "| test | attempted by | attempt | why it fails |",
        "|---|---|---|---|",
        *table(failed),
    ]
    if paste:
        made += ["", "<details><summary>To declare all of it</summary>", ""]
        made += [*fenced([*paste][:SHOWN_ROWS]), "", "</details>"]
    if new:
        made += ["", news(sorted(new), accepting)]
    attempts = sum(row["attempts"] for row in rows)
    hosts = len({host for row in rows for host in row["hosts"]})
    made += [
        "",
        f"<sub>{counted(len(rows), 'test')}: {counted(attempts, 'attempt')} at {counted(hosts, 'destination')}. "
        "Headers, bodies and times are in the report: index.html.</sub>",
        "",
    ]
    return within_limit("\n".join(made))


def table(failed: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row for each attempt that fails its test, which is named once, as is one that came several times."""
    shown, size, more = 0, 0, 0
    for row in failed:
        told = row["unrouted"] or [["", ", ".join(row["images"]), None, row["headline"], 1]]
        more += max(row["failing"] - sum(each[-1] for each in told), 0)
        for number, (text, container, _, why, count) in enumerate(told):
            test = code(row["id"]) if not number else ""
            often = f" ({count} times)" if count > 1 else ""
            line = (
                f"| {test} | {cell(container, 40)} | {code(text)}{often} | {cell(why, SHOWN_WHY)} |"
            )
            if shown == SHOWN_ROWS or size + len(line.encode()) > TABLE_BYTES:
                more += count
                continue
            shown, size = shown + 1, size + len(line.encode())
            yield line
    if more:
        yield f"| | | and {more} more: see the report | |"


def cell(text: str, limit: int = SHOWN_CELL) -> str:
    """A text in a cell of a table."""
    line = cut(escaped(" ".join(text.split())), limit, "…")
    return MARKS.sub(lambda found: f"&#{ord(found[0])};", line)


def code(text: str, limit: int = SHOWN_CELL) -> str:
    return f"<code>{cell(text, limit)}</code>" if text else ""


def fenced(lines: Sequence[str]) -> list[str]:
    """Lines of code in a fence that none of them closes (CommonMark section 4.5)."""
    shown = [cut(escaped(line).replace("\n", " "), SHOWN_CODE) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}python", *shown, fence]


def news(new: Sequence[str], accepting: str) -> str:
    more = f" and {len(new) - SHOWN_NEW} more" if len(new) > SHOWN_NEW else ""
    listed = ", ".join(code(each) for each in new[:SHOWN_NEW])
    how = (
        f" To accept them: <code>{cell(accepting)}</code>, and commit the file."
        if accepting
        else ""
    )
    return f"**{counted(len(new), 'new destination')}**: {listed}{more}.{how}"


def within_limit(text: str) -> str:
    """A text that is cut at the end of a line, where it is too long. A fence or an element may stay open."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= MAX_BYTES:
        return text
    kept = data[: MAX_BYTES - 200].decode("utf-8", "ignore").rpartition("\n")[0]
    return kept + CUT
