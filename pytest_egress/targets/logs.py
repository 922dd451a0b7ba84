"""`Log`: what one container has written, as the engine keeps it."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import docker.errors
import requests.exceptions

from pytest_egress.engine.engine import Engine
from pytest_egress.engine.leftovers import ENDED
from pytest_egress.errors import EngineError
from pytest_egress.link.attach import STDERR, STDOUT, Output, StreamDemultiplexer
from pytest_egress.targets.results import TAIL_LINES

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

MOST_LINES: Final = 2000  # of a log that are kept with their times, the last ones
MOST_OF_A_LINE: Final = 16 << 10  # bytes
MOST_OF_A_LOG: Final = 1 << 20  # characters
SAME_CLOCK_SECONDS: Final = 0.1  # a smaller difference to the engine's clock is none
NO_LOG: Final = (
    docker.errors.DockerException,  # the container has been removed
    requests.exceptions.RequestException,  # the engine does not answer
    AttributeError,  # the container was never created
)
TIME: Final = re.compile(
    r"(?P<whole>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d)"
)


class Log:
    """The log of one container.

    Attributes:
        container: Set when it has been created.
        starting: The times before and after the call that started it, by this machine's clock.
        last: The last lines that were read: they are known after the container's removal too.
    """

    container: DockerContainer

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine, self._name = engine, name
        self.starting = 0.0, 0.0
        self.last = ""

    def text(self) -> str:
        return self._output(joined=True).stdout.decode("utf-8", "replace")

    def whole(self) -> Output:
        output = self._output()
        self.last = lines_of(output)
        return output

    def tail(self) -> str:
        """The last lines; "" where there are none."""
        with contextlib.suppress(EngineError, *NO_LOG):
            self._engine.check_owner()
            self.last = self._last_lines()
        return self.last

    def since(self, moment: float) -> str:
        """The last lines since a moment, in seconds since the epoch by this machine's clock; "" for none."""
        with contextlib.suppress(EngineError, *NO_LOG):
            self._engine.check_owner()
            self.container.reload()
            return self._last_lines(since=moment + self._clock_ahead())
        return self.last

    def _last_lines(self, **parameters: float) -> str:
        return lines_of(self._output(joined=False, whole=False, tail=TAIL_LINES, **parameters))

    def _output(self, *, joined: bool = False, whole: bool = True, **parameters: float) -> Output:
        terminal = bool(self.container.attrs["Config"].get("Tty"))
        output = Output(terminal=terminal, joined=joined, whole=whole)
        return self._engine.output(self.container, self._name, output, **parameters)

    def _clock_ahead(self) -> float:
        """Seconds by which the engine's clock is ahead of ours: its time of the start, less ours before and after."""
        before, after = self.starting
        noted = seconds_of(self.container.attrs["State"]["StartedAt"])
        if noted is None or not after or self.container.attrs.get("RestartCount"):
            return 0.0  # the engine seems to use this machine's clock
        ahead = noted - min(max(noted, before), after)
        return ahead if abs(ahead) > SAME_CLOCK_SECONDS else 0.0

    def life(self) -> Life | None:
        """The container's life so far, by this machine's clock; None where the engine does not tell."""
        with contextlib.suppress(EngineError, *NO_LOG):
            self._engine.check_owner()
            self.container.reload()
            ahead, said = self._clock_ahead(), self.container.attrs
            state = said["State"]
            lines = TimedOutput(terminal=bool(said["Config"].get("Tty")))
            self._engine.output(
                self.container, self._name, lines, timestamps=1, tail=MOST_LINES + 1
            )
            lines.end()
            has_ended = state["Status"] in ENDED
            return Life(
                command=tuple(map(str, [said["Path"], *said["Args"]])),
                started=moment_of(state["StartedAt"], ahead),
                ended=moment_of(state["FinishedAt"], ahead) if has_ended else None,
                exit_code=int(state["ExitCode"]) if has_ended else None,
                lines=tuple(line._replace(at=line.at - ahead) for line in lines.lines),
                is_cut=lines.is_cut,
            )
        return None


class TimedLine(NamedTuple):
    """A line that a container has written; `at` is in seconds since the epoch."""

    at: float
    stream: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Life:
    """How a container ran, in seconds since the epoch by this machine's clock.

    Attributes:
        command: Its entrypoint and command.
        ended: None while it runs; so is `exit_code`.
        lines: The last lines of its log, in order.
        is_cut: Whether it has written more.
    """

    command: tuple[str, ...]
    started: float | None
    ended: float | None
    exit_code: int | None
    lines: tuple[TimedLine, ...]
    is_cut: bool


class TimedOutput:
    """A container's log with times, as an engine sends it. Sans-IO.

    Attributes:
        lines: The last `MOST_LINES` lines of both streams, in the order in which they were written.
        is_cut: Whether there were more lines, or longer ones.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._frames = None if terminal else StreamDemultiplexer()
        self._rests = {STDOUT: bytearray(), STDERR: bytearray()}
        self.lines: deque[TimedLine] = deque()
        self.is_cut = False
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        pieces = [(STDOUT, chunk)] if self._frames is None else self._frames.feed(chunk)
        for stream, piece in pieces:
            rest = self._rests.setdefault(stream, bytearray())
            *whole, last = piece.split(b"\n")
            for each in whole:
                self._add(stream, bytes(rest + each[:MOST_OF_A_LINE]))
                rest.clear()
            rest += last[: max(MOST_OF_A_LINE - len(rest), 0)]

    def end(self) -> None:
        """A last line may have no end."""
        for stream, rest in self._rests.items():
            if rest:
                self._add(stream, bytes(rest))
                rest.clear()

    def _add(self, stream: int, line: bytes) -> None:
        time, _, said = line.partition(b" ")
        at = seconds_of(time.decode("ascii", "replace"))
        self.is_cut |= len(line) >= MOST_OF_A_LINE
        text = said[:MOST_OF_A_LINE].decode("utf-8", "replace").rstrip("\r")
        name = "stderr" if stream == STDERR else "stdout"
        if at is None:  # the rest of a line that was longer than the engine's own limit
            at = self.lines[-1].at if self.lines else 0.0
        self._size += len(text)
        self.lines.append(TimedLine(at, name, text))
        while len(self.lines) > MOST_LINES or (self._size > MOST_OF_A_LOG and len(self.lines) > 1):
            self._size -= len(self.lines.popleft().text)
            self.is_cut = True


def moment_of(text: str, ahead: float) -> float | None:
    """None for the time of what has not happened, which the engine gives as that of year 1."""
    seconds = None if text.startswith("0001-") else seconds_of(text)
    return None if seconds is None else seconds - ahead


def lines_of(output: Output) -> str:
    lines = output.tail.decode("utf-8", "replace").rstrip().splitlines()
    return "\n".join(lines[-TAIL_LINES:])


def seconds_of(text: str) -> float | None:
    """Parse a time of the engine's (RFC 3339, up to nine decimals) into seconds since the epoch; None if malformed."""
    if (found := TIME.fullmatch(text)) is None:
        return None
    whole = datetime.datetime.fromisoformat(found["whole"] + found["zone"].replace("Z", "+00:00"))
    return whole.timestamp() + float(found["fraction"] or 0)
