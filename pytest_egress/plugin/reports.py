"""How a verdict is shown: as its text at the place of the test, without the frames of this package."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pytest_egress.ledger.windows import Window


SUMMARY_CHARACTERS: Final = 300  # of a verdict in the short summary, which CI does not cut


# Reports.


def show_text_only(
    report: Any, item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]
) -> None:
    """Show a verdict as its text, at the place of the test, after what a handler raised.

    The attributes are undocumented, and all that survives pytest-xdist and junitxml.
    """
    text: Any = excinfo.getrepr(style="value", chain=False)
    path, line, _ = item.reportinfo()
    name = type(excinfo.value).__name__
    crash = text.reprcrash
    crash.path, crash.lineno = str(path), (line or 0) + 1
    location = dataclasses.replace(crash, path=os.path.relpath(path), message=name)
    text.reprtraceback.reprentries[-1].reprfileloc = location
    if excinfo.value.__cause__ is not None:
        text = after_cause(text, item, excinfo.value.__cause__)
    report.longrepr = text


def after_cause(text: Any, item: pytest.Item, cause: BaseException) -> Any:
    """The traceback of what a handler raised, then the verdict, which tells an error of no line of the handler's."""
    if cause.__traceback__ is None:
        return text
    longrepr: Any = item.repr_failure(pytest.ExceptionInfo.from_exception(cause))
    if hasattr(longrepr, "chain"):
        longrepr.chain[-1] = (*longrepr.chain[-1][:2], "It failed the test:")
        longrepr.chain.append((text.reprtraceback, text.reprcrash, None))
        longrepr.reprtraceback = text.reprtraceback
    elif hasattr(longrepr, "reprtraceback"):  # --tb=native
        longrepr.reprtraceback.reprentries.extend(text.reprtraceback.reprentries)
    else:  # a plain text, as of a failure with pytrace=False
        return text
    longrepr.reprcrash = text.reprcrash
    return longrepr


def show_headline(report: Any, error: BaseException, window: Window | None) -> None:
    """Let the short summary of a failure of ours begin with what matters, since it is cut at its end.

    Args:
        window: What may be why the test failed by itself; None for a verdict.
    """
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None or type(error).__module__ != "pytest_egress.errors":
        return
    from pytest_egress.ledger.verdict import suspicion

    said = getattr(error, "headline", "") or error_line(error)
    why = suspicion(window) if window is not None else ""
    crash.message = one_line(f"{why} ({said})" if why and why != said else said)


def error_line(error: BaseException) -> str:
    """What an error without a headline says: the first line of one that goes on with advice, and a log's last one."""
    if isinstance(error, AssertionError):
        return str(error)
    logged = getattr(error, "logs", "").strip().rpartition("\n")[2]
    return str(error).partition("\n")[0] + (f": {logged.strip()}" if logged else "")


def show_sections(report: Any, config: pytest.Config, sections: Iterable[tuple[str, str]]) -> None:
    """Put sections into the text of a failure, which is what JUnit's XML has of it; or beside it, where it has no room.

    --show-capture hides those beside it.
    """
    add = getattr(report.longrepr, "addsection", None)
    for title, text in sections:
        if add is not None and config.getoption("showcapture", "all") == "all":
            add(title, text)
        else:
            report.sections.append((title, text))


def without_told(
    sections: Iterable[tuple[str, str]], excinfo: pytest.ExceptionInfo[BaseException] | None
) -> Iterator[tuple[str, str]]:
    """The sections without the logs that the failure itself quotes."""
    told = set(containers_told(excinfo.value)) if excinfo else set()
    return (each for each in sections if each[0] not in told)


def containers_told(error: BaseException | None) -> Iterator[str]:
    """The titles of the logs that a failure quotes, or what it came from does."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if name := getattr(error, "container", None):
            yield f"container {name}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def one_line(text: str) -> str:
    """A text for the short summary, which has room for one line."""
    line = " ".join(text.split())
    return line if len(line) <= SUMMARY_CHARACTERS else f"{line[:SUMMARY_CHARACTERS]}..."


def land_at_user(
    excinfo: pytest.ExceptionInfo[BaseException],
    *,
    frame: FrameType | None,
    raised_by: BaseException | None,
    is_verdict: bool,
) -> None:
    """Let a debugger stand in the user's code: called when the report has been made.

    Args:
        frame: In which the test's function ran, if it is known.
        raised_by: What a handler raised, and by which the test has failed.
        is_verdict: Whether we raised the failure after the test; else it passed the line that called us, if any.
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
