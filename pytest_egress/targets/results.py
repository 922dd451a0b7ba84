"""`CompletedContainer`: the result of a container's command; and the texts about results in errors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_egress.errors import CommandError
from pytest_egress.traffic.entries import Entry
from pytest_egress.traffic.redaction.redactor import Redactor
from pytest_egress.traffic.shown import cut

TAIL_LINES: Final = 50  # of a log in a message
LINE_CHARACTERS: Final = 2000  # of a line there: a terminal's height
LOGS_CHARACTERS: Final = 1 << 20  # of an error's `logs`, the last ones: pytest keeps errors
OUT_OF_MEMORY: Final = (
    "the kernel killed a process of it for want of memory: OOMKilled; mem_limit= gives it more"
)


@dataclass(frozen=True, kw_only=True)
class CompletedContainer:
    """The result of a container's command.

    Attributes:
        exit_code: Its exit code; 128 + n after signal n.
        stdout_bytes: Its standard output.
        stderr_bytes: Its standard error.
        duration: Seconds from its start to its end.
        note: A sentence if `stop` killed it, if it ran out of memory, or if the engine may have lost its output; else
            "".
    """

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    duration: float
    note: str = ""

    @property
    def stdout(self) -> str:
        """Standard output as UTF-8 text; what cannot be decoded is replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as UTF-8 text; what cannot be decoded is replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")


def with_logs(text: str, logs: str, redactor: Redactor) -> str:
    tail = "\n".join(f"  | {line}" for line in tail_of(logs, redactor).splitlines())
    text = redactor.hidden(text)
    return f"{text}\nThe end of its log:\n{tail}" if tail else f"{text}\nIt wrote nothing."


def tail_of(log: str, redactor: Redactor) -> str:
    """The last lines as they are shown, without secrets."""
    lines = redactor.hidden(log).rstrip()[-TAIL_LINES * LINE_CHARACTERS :].splitlines()
    return "\n".join(cut(line, LINE_CHARACTERS) for line in lines[-TAIL_LINES:])


MAY_FAIL: Final = "Where it may fail, check=False returns its result."
UNROUTED: Final = "It attempted what no route claims, which may be why: {}"


def check_result(
    what: str,
    result: CompletedContainer,
    container: str,
    entries: Iterable[Entry],
    redactor: Redactor,
) -> None:
    """Raise CommandError for another exit code than 0.

    Args:
        what: What has exited, in a few words.
        entries: What was attempted meanwhile, by any container.
    """
    code = result.exit_code
    if not code:
        return
    stdout, stderr = result.stdout[-LOGS_CHARACTERS:], result.stderr[-LOGS_CHARACTERS:]
    gap = "\n" if stdout and stderr and not stdout.endswith("\n") else ""
    logs = f"{stdout}{gap}{stderr}"[-LOGS_CHARACTERS:]
    refused = (e for e in entries if e.container == container and e.outcome == "unrouted")
    first = next(refused, None)
    advice = MAY_FAIL if first is None else UNROUTED.format(first)
    text = f"{with_logs(exit_text(what, code, result.note), logs, redactor)}\n{advice}"
    error = CommandError(text, logs=logs, exit_code=code, container=container)
    error.stdout, error.stderr = stdout, stderr
    raise error


def exit_text(name: str, code: int, note: str) -> str:
    return f"{name} exited with code {code}" + (f" ({note})" if note else "")
