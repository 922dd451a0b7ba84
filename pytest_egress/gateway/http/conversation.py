"""`Conversing`: an answer that reads and sends by itself. `Call` and `Told`: what it tells us, and what we see of it.

The rule: no version of HTTP is known here. `answering` makes a `Conversing` for each such request.

Threads: any thread calls everything. `Ledger.changed` guards the count, and no function of the test runs while it is
held.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from pytest_egress.base.account import Account
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.http.replies import (
    failed_reply,
    no_websocket_reply,
    opens_no_websocket,
)
from pytest_egress.gateway.http.spoiling import (
    LEFT_EARLY,
    Line,
    PassingDuplex,
    Spoiling,
    StoppedError,
    break_line,
    settle,
)
from pytest_egress.gateway.lasting import Lasting
from pytest_egress.gateway.recorder import Recorder
from pytest_egress.ledger.ledger import Ledger
from pytest_egress.ledger.pauses import pause
from pytest_egress.ledger.windows import AttemptContext, Window
from pytest_egress.routes.duplex import ClientLeftError, Duplex, DuplexAnswer
from pytest_egress.routes.faults import End, Fault, Raw, Silence, drawn, with_answer
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import UNREADABLE_WEBSOCKET, Exchange
from pytest_egress.traffic.http.headers import NO_FIELDS, Headers
from pytest_egress.traffic.http.made_body import MESSAGES, MadeBody, never
from pytest_egress.traffic.http.response import Response, reason_phrase


class Call:
    """The `Conversation` of one request."""

    def __init__(
        self,
        exchange: Exchange,
        recorder: Recorder,
        context: AttemptContext,
        variables: Context,
        turn: int,
        line: Line,
        outlive: Callable[[Lasting], None],
        *,
        is_call: bool,
    ) -> None:
        self.exchange = exchange
        self.is_detached = False
        self._outlive, self._line = outlive, line
        self._recorder, self._context = recorder, context
        self._variables, self._turn = variables, turn
        self._is_settled, self._has_failed = not is_call, False

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A copy of the context variables is used: several threads, and `converse`, may be in them at the same time."""
        return self._variables.copy().run(function, *arguments)

    def count(self) -> None:
        ledger, entry = self._recorder.ledger, self.exchange
        with ledger.changed:
            if not self._is_settled:
                self._is_settled = True
                entry.duration = entry.duration or ledger.now() - entry.started
                self._recorder.count(self._context, entry)

    @property
    def account(self) -> Account:
        return self._context.window.account

    def now(self) -> float:
        return self._recorder.ledger.now()

    def detach(self, end: Callable[[], None]) -> None:
        self.is_detached = True
        self._outlive(Lasting(self.exchange, end))

    def fail(self, fault: End, is_over: Callable[[], bool]) -> NoReturn:
        """A call that is ended by a silence keeps no window open meanwhile, and is over with its route.

        Raises:
            StoppedError: The call has been ended.
        """
        entry, line = self.exchange, self._line
        if isinstance(fault, Silence):
            fault = replace(fault, seconds=self._drawn(fault))
        around = entry.fault
        entry.fault = with_answer(around, fault) if isinstance(around, Fault) else fault
        if isinstance(fault, Silence):
            ledger, has_left = self._recorder.ledger, lambda: line.disconnected or is_over()
            pause(ledger, Window(), entry, fault, self._drawn(fault), has_left=has_left)
        if isinstance(fault, Raw):
            line.send(fault.data)  # on its stream, where the connection has several
            line.hang_up(f"{fault} has ended its connection")
        else:
            break_line(line, fault)
        raise StoppedError(f"{fault} has ended it")

    def _drawn(self, fault: Silence) -> float | None:
        return None if fault.seconds is None else float(self.run(drawn, fault.seconds, fault))

    def note_error(self, error: BaseException) -> None:
        """Record what the handler has raised, once; of a call that has outlived its test, in the test that runs now.

        That the client has left, or a fault has ended the call, is no error.
        """
        if self._has_failed or isinstance(error, ClientLeftError):
            return
        self._has_failed = True
        self.exchange.error = self.exchange.error or error
        if self.is_detached:
            self._recorder.fail(self._context, self.exchange, error, self.exchange.note)

    def note_unreadable(self, why: str) -> None:
        note = f"{UNREADABLE_WEBSOCKET} {self.exchange.request.shown_url}: {why}"
        self._recorder.record_unreadable_message(self.exchange, note)

    def reject(self, note: str) -> None:
        """Nothing happens where the call has been counted; else its turn is given back."""
        with self._recorder.ledger.changed:
            if not self._is_settled:
                self._is_settled = True
                self._recorder.reject(self.exchange, self._turn, note)


class Told(PassingDuplex):
    """A `Duplex` that notes what is sent by another one."""

    def __init__(self, incoming: Incoming, entry: Exchange, ledger: Ledger) -> None:
        super().__init__(incoming.duplex)
        self._incoming, self._entry, self._ledger = incoming, entry, ledger
        self._made = None if entry.grpc is None else MadeBody(0, never, MESSAGES)
        self.has_begun = self.has_ended = False

    def send_by(self, duplex: Duplex) -> None:
        self._duplex = duplex

    def start(
        self,
        status_code: int,
        headers: Headers = NO_FIELDS,
        *,
        reason: str | None = None,
        ends: bool = False,
    ) -> None:
        """The entry gets a response with this head."""
        self._note_head(status_code, headers, reason)
        self._incoming.attempt.activity.streams = "" if ends else "events"
        start = partial(self._duplex.start, status_code, headers, reason=reason, ends=ends)
        self._end(start) if ends else start()

    def _end(self, send: Callable[[], None]) -> None:
        """Send the end of the response. For a client that has left it is over, too; after any other error it is not."""
        try:
            send()
        except ClientLeftError:
            self.has_ended = True
            raise
        self.has_ended = True

    def _note_head(self, status_code: int, headers: Headers, reason: str | None) -> None:
        entry = self._entry
        if entry.response is None:
            phrase = reason_phrase(status_code) if reason is None else reason
            entry.response = Response.received(status_code, headers, reason=phrase, made=self._made)
            entry.duration = self._ledger.now() - entry.started
        self.has_begun = True

    def send(self, data: bytes) -> None:
        self._note(data)
        self._duplex.send(data)

    def _note(self, data: bytes) -> None:
        if self._made is not None:
            self._made.add(data)

    def finish(self, trailers: Headers = NO_FIELDS) -> None:
        """The entry's response gets the trailers, where it is the one that `start` has made."""
        self._note_trailers(trailers)
        self._end(partial(self._duplex.finish, trailers))

    def _note_trailers(self, trailers: Headers) -> None:
        if trailers.raw and self._entry.response is not None:
            self._entry.response.trailers = trailers

    def respond(self, response: Response) -> None:
        """The entry gets a response with this head and these trailers."""
        self._note_head(response.status_code, response.headers, response.reason)
        self._note(response.content)
        self._note_trailers(response.trailers)
        if opens_no_websocket(self._incoming, response):
            response = no_websocket_reply(self._entry, response)
        self._end(partial(self._duplex.respond, response))

    def reset(self) -> None:
        self.has_begun = self.has_ended = True
        super().reset()

    def check_ended(self, answer: object) -> None:
        if not self.has_ended:
            raise RuntimeError(f"{answer!r} returned before it had ended its response")


@dataclass(frozen=True)
class Conversing:
    """The reply of an answer that reads and sends by itself.

    Attributes:
        is_call: Whether it is a call of its route; else a fault sweep has it answered in place of that.
    """

    incoming: Incoming
    route: InnerRoute
    turn: int
    answer: DuplexAnswer
    context: Context
    recorder: Recorder
    outlive: Callable[[Lasting], None]
    is_call: bool = True

    def __call__(self, entry: Exchange) -> Response | None:
        """Return the 500 to send where the answer raises before it has begun to answer."""
        incoming, ledger = self.incoming, self.recorder.ledger
        if entry.fault is not None and not settle(entry, self.context):
            return failed_reply(entry)
        call = Call(
            entry,
            self.recorder,
            incoming.attempt.context,
            self.context,
            self.turn,
            incoming.duplex,
            self.outlive,
            is_call=self.is_call,
        )
        activity, spoiling = incoming.attempt.activity, None
        duplex = Told(incoming, entry, ledger)
        activity.what, activity.route = entry, self.route
        try:
            if entry.fault is not None:
                spoiling = Spoiling(ledger, incoming.attempt, entry, incoming.duplex)
                spoiling.delay()
                duplex.send_by(spoiling.duplex(lambda: call.is_detached))
            self.context.run(self.answer.converse, incoming.request, duplex, call)
            if entry.fault is None or not duplex.disconnected:  # else a wrapper may have ended it
                duplex.check_ended(self.answer)
        except StoppedError:
            pass
        except ClientLeftError as error:
            entry.note = entry.note or LEFT_EARLY.format(error)
        except BaseException as error:
            entry.fault = None if not duplex.has_begun else entry.fault
            call.note_error(error)
            return self._fail(entry, duplex, spoiling)
        finally:
            activity.rest()
        call.count()
        if spoiling is not None and entry.websocket is None:  # which ends by itself
            spoiling.end()
        return None

    def _fail(self, entry: Exchange, duplex: Told, spoiling: Spoiling | None) -> Response | None:
        if not duplex.has_begun:
            return failed_reply(entry)
        if not duplex.has_ended:
            duplex.reset()
        elif spoiling is not None and entry.websocket is None:  # gRPC has said it by a status
            spoiling.end()
        return None
