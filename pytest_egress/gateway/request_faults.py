"""`RequestFault`: has a request fail as its answer says, by an end in place of a response, or by one that is spoiled.

The rule: no version of HTTP is known here. A server sends a response by its own means; the request's `Line` can be
broken. A request without a fault never comes here. Everything runs on the thread that answers the request.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_egress.gateway.answering import Answering
from pytest_egress.gateway.incoming import Incoming
from pytest_egress.gateway.spoiling import (
    LEFT_EARLY,
    Spoiling,
    StoppedError,
    break_line,
    cut,
)
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.faults import Silence
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.fields import carries_body
from pytest_egress.traffic.messages import Response

Send = Callable[[Response | None], bool]
"""Sends a response, or finds that it has been sent; False where the connection can carry nothing after it."""


class RequestFault:
    """The fault of one request.

    Args:
        response: The response within the fault; None where there is none, or where it has been sent.
    """

    def __init__(
        self,
        answering: Answering,
        incoming: Incoming,
        entry: Exchange,
        response: Response | None,
        send: Send,
    ) -> None:
        self._answering, self._entry, self._response, self._send = answering, entry, response, send
        self._spoiling = Spoiling(answering.ledger, incoming.attempt, entry, incoming.duplex)
        self._is_sent = False

    def carry_out(self) -> bool:
        """Return whether the connection can carry another request."""
        entry = self._entry
        if entry.websocket is not None:  # it has sent, and failed, by itself
            return self._send(None)
        try:
            return self._answer() and self._end()
        except StoppedError:
            return False
        except ClientLeftError as error:
            entry.note = entry.note or LEFT_EARLY.format(error)
            return False
        finally:
            self._note_time()
            if self._response is not None and not self._is_sent:
                self._answering.close_body(entry, self._response)

    def _answer(self) -> bool:
        """Send the response as the wrappers say; False where the connection has ended with it."""
        spoiling, response = self._spoiling, self._response
        if response is None and spoiling.inner is not None:  # it has been sent
            return self._send(None)
        spoiling.delay()
        if response is None:
            return True
        self._is_sent = True
        self._note_time()
        has_body = carries_body(self._entry.request.method, response)
        is_spoiled = spoiling.spoils_body and has_body
        is_sent = self._send(spoiling.response(response) if is_spoiled else response)
        fault = spoiling.truncated
        if fault is None or not (is_sent or spoiling.was_cut):
            return is_sent
        cut(spoiling.line, fault)
        return False

    def _end(self) -> bool:
        """End the connection as the fault says; return whether there is nothing to end."""
        spoiling, fault = self._spoiling, self._spoiling.end
        if fault is None:
            return True
        if isinstance(fault, Silence):
            spoiling.wait(fault, fault.seconds)
        break_line(spoiling.line, fault)
        return False

    def _note_time(self) -> None:
        """Set the entry's duration: the first byte of the response is sent now, or the end has come."""
        if self._entry.duration is None:
            self._entry.duration = self._answering.ledger.now() - self._entry.started
