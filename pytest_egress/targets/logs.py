"""`Log`: what one container has written, as the engine keeps it."""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import TYPE_CHECKING, Final

import docker.errors
import requests.exceptions

from pytest_egress.engine.engine import Engine
from pytest_egress.errors import EngineError
from pytest_egress.link.attach import Output
from pytest_egress.targets.results import TAIL_LINES

if TYPE_CHECKING:
    from docker.models.containers import Container as DockerContainer

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


def lines_of(output: Output) -> str:
    lines = output.tail.decode("utf-8", "replace").rstrip().splitlines()
    return "\n".join(lines[-TAIL_LINES:])


def seconds_of(text: str) -> float | None:
    """Parse a time of the engine's (RFC 3339, up to nine decimals) into seconds since the epoch; None if malformed."""
    if (found := TIME.fullmatch(text)) is None:
        return None
    whole = datetime.datetime.fromisoformat(found["whole"] + found["zone"].replace("Z", "+00:00"))
    return whole.timestamp() + float(found["fraction"] or 0)
