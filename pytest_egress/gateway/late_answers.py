"""`LateAnswers`: answers of DNS that are sent later, because of `delayed(...)`, while other questions are answered.

Nothing waits for them: they keep no window open, have no thread, and are dropped with their test or their client. The
time is the ledger's, which stands still while a debugger's prompt is open. Whoever reads a socket asks for
`seconds_left` before it waits, and calls `send_due` afterwards: the reader for UDP, a connection's thread for TCP.

Threads: the lock guards the answers. It is an inner lock: no other one is acquired, no function of a user is called,
and nothing is sent while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from pytest_egress.base.workers import Workers
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.windows import AttemptContext, Pause
from pytest_egress.routes.faults import Delayed, drawn
from pytest_egress.routes.route import Route
from pytest_egress.traffic.entries import DnsQuery

MAX_LATE: Final = 4096
"""How many answers of a target may wait: a megabyte as a rule, and some clients ask again and again."""

TOO_MANY: Final = f"not answered: {MAX_LATE:,} late answers wait already"
LOOK_SECONDS: Final = (
    0.01  # between two looks, while a function says how late an answer is, or a prompt is open
)


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """Why an answer is late.

    Attributes:
        delays: The faults, the outermost first.
        route: The route that has them.
        context: The context variables at the place that declared it.
    """

    delays: tuple[Delayed, ...]
    route: Route[Any]
    context: Context

    def seconds(self) -> float:
        """How late the answer comes. It calls functions of the test."""
        return sum(self.context.run(drawn, delay.seconds, delay) for delay in self.delays)

    @property
    def is_known(self) -> bool:
        """Whether no function of the test is to be called."""
        return not any(callable(delay.seconds) for delay in self.delays)


@dataclass(eq=False, kw_only=True)
class Late:
    """An answer that is sent later.

    Attributes:
        entry: The question.
        owner: Whose thread sends it: the reader's, None, or that of a connection.
        send: Sends the answer.
        due: When, by the ledger's clock; None while a function of the test says that.
        is_over: Whether its test, its route or its target has ended.
    """

    entry: DnsQuery
    route: Route[Any]
    owner: Hashable
    send: Callable[[], object]
    due: float | None = None
    is_over: bool = False
    waiting: ExitStack = field(default_factory=ExitStack)


class LateAnswers:
    """The late answers of one target.

    Args:
        recorder: Knows the ledger, and gets what a function of the test raises.
        workers: Threads for the functions of a test that say how late an answer is.
    """

    def __init__(self, recorder: Recorder, workers: Workers) -> None:
        self._recorder, self._ledger, self._workers = recorder, recorder.ledger, workers
        self._lock = threading.Lock()
        self._late: dict[Late, None] = {}  # in the order in which they were asked for

    def add(
        self,
        context: AttemptContext,
        entry: DnsQuery,
        lateness: tuple[Lateness, ...],
        owner: Hashable,
        send: Callable[[], object],
    ) -> None:
        """Have an answer sent later. Beyond `MAX_LATE` it is not sent at all, and its entry says so.

        Args:
            context: The context of its question.
            entry: The question, which has been recorded.
            lateness: Why it is late: a CNAME leads from one route to the next, and each has its own delay.
            owner: Whose thread sends it.
            send: Sends it, without blocking.
        """
        late = Late(entry=entry, route=lateness[0].route, owner=owner, send=send)
        with self._lock:
            is_full = len(self._late) >= MAX_LATE
            if not is_full:
                self._late[late] = None
        if is_full:
            entry.note = TOO_MANY
            return
        pause = Pause(entry, lateness[0].delays[0])
        late.waiting.enter_context(self._ledger.pausing(pause, None, is_endless=False))
        if all(each.is_known for each in lateness):
            self._set_due(late, sum(each.seconds() for each in lateness))
        else:
            self._workers.run(partial(self._draw, context, late, lateness))

    def seconds_left(self, owner: Hashable) -> float | None:
        """Seconds until an answer of this owner may be due; None where none waits."""
        with self._lock:
            dues = [late.due for late in self._late if late.owner == owner]
        if not dues:
            return None
        known = [due for due in dues if due is not None]
        left = max(min(known, default=0) - self._ledger.clock(), 0)
        is_unsure = len(known) < len(dues) or self._ledger.prompts
        return max(
            min(left, LOOK_SECONDS) if len(known) < len(dues) else left,
            LOOK_SECONDS if is_unsure else 0,
        )

    def send_due(self, owner: Hashable) -> None:
        """Send the answers of this owner that are due."""
        with self._lock:
            if not self._late:
                return
        now = self._ledger.clock()
        for late in self._take(lambda each: each.owner == owner and is_due(each, now)):
            late.send()

    def forget(self, owner: Hashable) -> None:
        """Drop the answers of a connection that has ended."""
        self._take(lambda late: late.owner == owner)

    def revise(self, *, test_over: bool) -> None:
        """Drop the answers whose route has ended.

        Args:
            test_over: Whether the test has ended, and with it its own routes.
        """
        self._end(lambda late: late.route.ended or (test_over and late.route.scope == "test"))

    def stop(self) -> None:
        """Drop all answers, since their target has gone."""
        self._end(lambda late: True)

    def _end(self, condition: Callable[[Late], bool]) -> None:
        """Drop the answers that meet a condition. What a function raises about them from now on is nobody's."""
        for late in self._take(condition):
            late.is_over = True

    def _take(self, condition: Callable[[Late], bool]) -> list[Late]:
        """Remove the answers that meet a condition: nobody waits for them any more. Return them as they are due."""
        with self._lock:
            found = [late for late in self._late if condition(late)]
            for late in found:
                del self._late[late]
        for late in found:
            late.waiting.close()
        return sorted(found, key=lambda late: late.due or 0)

    def _set_due(self, late: Late, seconds: float) -> None:
        late.due = self._ledger.clock() + seconds

    def _draw(self, context: AttemptContext, late: Late, lateness: tuple[Lateness, ...]) -> None:
        """Ask the functions of a test how late an answer is; what they raise fails the test, and no later one."""
        try:
            seconds = sum(each.seconds() for each in lateness)
        except BaseException as error:  # pytest.fail() raises one
            if late.is_over:
                return
            self._recorder.fail(context, late.entry, error, "not answered")
            self._take(lambda each: each is late)
        else:
            self._set_due(late, seconds)


def is_due(late: Late, now: float) -> bool:
    """Whether an answer is to be sent now."""
    return late.due is not None and late.due <= now
