"""The reports of failures: a verdict as its text at the test's place, sections, headlines, and a debugger's frame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_egress.base.escaping import escaped

if TYPE_CHECKING:
    from pytest_egress.ledger.windows import Window


SUMMARY_CHARACTERS: Final = 300  # of a verdict in the short summary, which CI does not cut


Hiding = Callable[[str], str]
"""Takes the secrets out of a text: known ones, and those that have the form of one."""


def show_text_only(
    report: Any, item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], hidden: Hiding
) -> None:
    """Show a verdict as its text at the place of the test, below the traceback of the handler that caused it.

    The attributes of the report that are set here are undocumented. No others survive pytest-xdist and junitxml.
    """
    text: Any = excinfo.getrepr(style="value", chain=False)
    path, line, _ = item.reportinfo()
    name = type(excinfo.value).__name__
    crash = text.reprcrash
    crash.path, crash.lineno = str(path), (line or 0) + 1
    location = dataclasses.replace(crash, path=os.path.relpath(path), message=name)
    text.reprtraceback.reprentries[-1].reprfileloc = location
    if excinfo.value.__cause__ is not None:
        text = after_cause(text, item, excinfo.value.__cause__, hidden)
    report.longrepr, report.egress_verdict = text, True


def without_said(lines: list[str], cause: BaseException, hidden: Hiding) -> None:
    """Leave out of a verdict's first line what its cause says: the traceback above it has that."""
    from pytest_egress.base.raising import said_of

    said = escaped(hidden(said_of(cause)).partition("\n")[0])
    if said:
        lines[0] = lines[0].removesuffix(f": {said}")


def after_cause(text: Any, item: pytest.Item, cause: BaseException, hidden: Hiding) -> Any:
    if cause.__traceback__ is None:
        return text
    longrepr: Any = item.repr_failure(pytest.ExceptionInfo.from_exception(cause))
    if hasattr(longrepr, "chain"):
        longrepr.chain[-1] = (*longrepr.chain[-1][:2], "It failed the test:")
        longrepr.chain.append((text.reprtraceback, text.reprcrash, None))
        longrepr.reprtraceback = text.reprtraceback
    elif hasattr(longrepr, "reprtraceback"):  # --tb=native
        longrepr.reprtraceback.reprentries.extend(text.reprtraceback.reprentries)
    else:  # a plain text, as a failure with pytrace=False has
        return text
    without_said(text.reprtraceback.reprentries[-1].lines, cause, hidden)
    longrepr.reprcrash = text.reprcrash
    return longrepr


def show_headline(report: Any, error: BaseException, window: Window | None, hidden: Hiding) -> None:
    """Begin the short summary of a failure with what matters most, since pytest cuts the summary at its end.

    Args:
        window: The window of a test that failed by itself: its attempts may be the reason. None for a verdict.
    """
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return
    from pytest_egress.ledger.verdict import suspicion

    why = suspicion(window) if window is not None else ""
    if type(error).__module__ == "pytest_egress.errors":
        said = getattr(error, "headline", "") or error_line(error)
    elif why:
        said = crash.message
    else:
        return
    crash.message = one_line(hidden(f"{why} ({said})" if why and why != said else said))


def error_line(error: BaseException) -> str:
    """The first line of an error where advice follows, with the last line of a log."""
    if isinstance(error, AssertionError):
        return str(error)
    logged = getattr(error, "logs", "").strip().rpartition("\n")[2]
    return str(error).partition("\n")[0] + (f": {logged.strip()}" if logged else "")


def show_sections(
    report: Any, config: pytest.Config, sections: Iterable[tuple[str, str]], hidden: Hiding
) -> None:
    """Add sections to the text of a failure, which JUnit's XML contains; or to the report, if the text takes none.

    --show-capture hides the sections of a report.
    """
    add = getattr(report.longrepr, "addsection", None)
    for title, text in ((title, escaped(hidden(text))) for title, text in sections):
        if add is not None and config.getoption("showcapture", "all") == "all":
            add(title, text)
        else:
            report.sections.append((title, text))


def show_escaped(report: Any, hidden: Hiding) -> None:
    """Escape all texts of a report but what the test has printed: each may quote what a target has sent or written.

    So may the test's own assertion, such as `assert result.exit_code == 0, result.stdout`. Secrets are taken out of
    all of them, and of what the test has printed, too.
    """
    report.sections = [(title, hidden(text)) for title, text in report.sections]
    longrepr = report.longrepr
    if longrepr is None:
        return

    def shown(text: str) -> str:
        return escaped(hidden(text))

    if hasattr(report, "wasxfail"):
        report.wasxfail = shown(report.wasxfail)
    if isinstance(longrepr, tuple):  # of a skip: its place, and its reason
        path, line, reason = longrepr
        report.longrepr = path, line, shown(reason)
    if isinstance(longrepr, str):
        report.longrepr = shown(longrepr)
        return
    parts = [each[:2] for each in getattr(longrepr, "chain", ())]
    parts += [(getattr(longrepr, name, None) for name in ("reprtraceback", "reprcrash"))]
    for traceback, crash in parts:
        if crash is not None:
            crash.message = shown(crash.message)
        for entry in getattr(traceback, "reprentries", ()):
            entry.lines[:] = map(shown, entry.lines)
            for part in ("reprlocals", "reprfuncargs"):
                show_without_secrets(getattr(entry, part, None), shown)


def show_without_secrets(part: Any, shown: Hiding) -> None:
    """Take secrets out of what --showlocals shows, and of the arguments above a test's source."""
    if hasattr(part, "lines"):
        part.lines[:] = map(shown, part.lines)
    if hasattr(part, "args"):
        part.args = [(name, shown(text)) for name, text in part.args]


def without_told(
    sections: Iterable[tuple[str, str]], excinfo: pytest.ExceptionInfo[BaseException] | None
) -> Iterator[tuple[str, str]]:
    told = set(containers_told(excinfo.value)) if excinfo else set()
    return (each for each in sections if each[0] not in told)


def containers_told(error: BaseException | None) -> Iterator[str]:
    """The titles of the logs that a failure, or one of the exceptions that led to it, quotes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if name := getattr(error, "container", None):
            yield f"container {name}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def one_line(text: str) -> str:
    line = " ".join(escaped(text).split())
    return line if len(line) <= SUMMARY_CHARACTERS else f"{line[:SUMMARY_CHARACTERS]}..."


def land_at_user(
    excinfo: pytest.ExceptionInfo[BaseException],
    *,
    frame: FrameType | None,
    raised_by: BaseException | None,
    is_verdict: bool,
) -> None:
    """Make a debugger stop in the user's code. Called after the report has been made, since it changes the traceback.

    Args:
        frame: The frame in which the test's function ran, if it is known.
        raised_by: The exception of a handler that failed the test, if one did.
        is_verdict: Whether the failure is a verdict: raised after the test, its traceback has no line of the user's.
    """
    from pytest_egress.base.frames import at_frame, is_of, last_of_user, users_part

    outermost = excinfo.tb  # pytest's own
    handler = users_part(raised_by.__traceback__) if raised_by is not None else None
    test = at_frame(frame) if frame is not None else None
    if is_verdict and (test or handler):
        outermost.tb_next = test or handler
        if test is not None:
            test.tb_next = handler
    line = None if is_verdict else last_of_user(outermost)
    if line is not None and line.tb_next is not None and not is_of(line, "_pytest", "pluggy"):
        line.tb_next = handler
    excinfo.value.with_traceback(outermost)
