"""`LateAnswers`: answers of DNS that are sent later, because of `delayed(...)`, while other questions are answered.

Each waits on a thread of its own (`Workers`). It keeps no window open, and is dropped with its test or its client. The
time is the ledger's, which stands still while a debugger's prompt is open.

Threads: the reader adds answers for UDP, connections' threads for TCP. The lock guards which answers wait. It is an
inner lock: no other one is acquired, no function of a user is called, and nothing is sent while it is held.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pytest_egress.base.clock import MAX_SECONDS
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.pauses import outlast
from pytest_egress.ledger.windows import AttemptContext, Pause
from pytest_egress.routes.faults import Delayed, drawn
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import DnsQuery

MAX_LATE: Final = 1024
"""How many answers of a target may wait, each on a thread: some clients ask again and again."""

TOO_MANY: Final = f"{MAX_LATE:,} late answers wait already"


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Where a query came from.

    Attributes:
        send: Sends a message to it. `sending` is held.
        through: The `host:port` of the proxy that looks a name up for its client, or through which the query came; ""
            where the target asks by itself.
        sending: Lets one thread at a time send. Who closes the socket holds it to drop the late answers.
    """

    client: Hashable
    send: Callable[[bytes], object]
    sending: threading.Lock = field(default_factory=threading.Lock)
    over_tcp: bool = False
    through: str = ""


@dataclass(frozen=True, kw_only=True)
class Lateness:
    """Why an answer is late: the faults of one route, the outermost first."""

    delays: tuple[Delayed, ...]
    route: InnerRoute
    context: Context

    def seconds(self) -> float:
        """How late the answer comes. It calls functions of the test."""
        return sum(self.context.run(drawn, delay.seconds, delay) for delay in self.delays)


@dataclass(eq=False, kw_only=True)
class LateAnswer:
    """An answer that is sent later.

    Attributes:
        lateness: Why it is late: a CNAME leads from one route to the next, and each has its own delay.
        over: Set when nobody waits for it any more: it is being sent, or its test, route, client or target has ended.
    """

    entry: DnsQuery
    lateness: tuple[Lateness, ...]
    asker: Asker
    over: threading.Event = field(default_factory=threading.Event)
    waiting: ExitStack = field(default_factory=ExitStack)

    @property
    def route(self) -> InnerRoute:
        """The answer is dropped when this route ends."""
        return self.lateness[0].route


class LateAnswers:
    """The late answers of one target."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder, self._ledger = recorder, recorder.ledger
        self.workers: Final = Workers(f"egress {recorder.target.name} late answer", MAX_LATE)
        self._lock = threading.Lock()
        self._late: set[LateAnswer] = set()

    def add(self, context: AttemptContext, late: LateAnswer, wire: bytes) -> None:
        """Send an answer later; beyond `MAX_LATE` not at all, and its entry says so. The question has been recorded."""
        pause = Pause(late.entry, late.lateness[0].delays[0])
        late.waiting.enter_context(self._ledger.pausing(pause, None, is_endless=False))
        with self._lock:
            self._late.add(late)
        try:
            if len(self._late) > MAX_LATE:
                raise RuntimeError(TOO_MANY)
            self.workers.run(partial(self._serve, context, late, wire))
        except RuntimeError as error:
            late.entry.note = f"not answered: {error}"
            self._take(late)

    def forget(self, client: Hashable) -> None:
        """Drop the answers of a connection that has ended."""
        self._drop(lambda late: late.asker.client is client)

    def revise(self, *, test_over: bool) -> None:
        """Drop the answers whose route has ended; `test_over` ends a test's own routes."""
        self._drop(lambda late: late.route.ended or (test_over and late.route.scope == "test"))

    def stop(self) -> None:
        """Drop all answers, since their target has gone. A function of a test that still runs keeps its thread."""
        self._drop(lambda late: True)
        self.workers.stop()

    def _drop(self, condition: Callable[[LateAnswer], bool]) -> None:
        """Drop the answers that meet a condition. What a function raises about them from now on is nobody's."""
        with self._lock:
            found = [late for late in self._late if condition(late)]
        for late in found:
            self._take(late)

    def _take(self, late: LateAnswer) -> bool:
        """Remove an answer; return whether it was still to be sent."""
        with self._lock:
            if late not in self._late:
                return False
            self._late.remove(late)
        late.over.set()
        late.waiting.close()
        return True

    def _serve(self, context: AttemptContext, late: LateAnswer, wire: bytes) -> None:
        """Wait until an answer is due, and send it. What a function of a test raises fails no later test."""
        if late.over.is_set():  # it has waited for a thread
            return
        try:
            seconds = sum(each.seconds() for each in late.lateness)
        except BaseException as error:  # pytest.fail() raises one
            if not late.over.is_set():
                self._recorder.fail(context, late.entry, error, "not answered")
                self._take(late)
            return
        outlast(self._ledger, late.over, seconds, look=MAX_SECONDS)
        with late.asker.sending, contextlib.suppress(OSError):  # the client has gone
            if self._take(late):
                if late.entry.marks is not None:
                    late.entry.marks.answered = self._ledger.now()
                late.asker.send(wire)
