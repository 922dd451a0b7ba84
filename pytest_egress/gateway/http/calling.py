"""`Calling`: the reply of an answer that returns a response: a static one, a handler, or `forward()`.

The rule: no version of HTTP is known here. `answering` makes one for each such request, and sends what it returns.
"""

from __future__ import annotations

from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Final

from pytest_egress.base.unset import UNSET, Unset
from pytest_egress.errors import UpstreamError
from pytest_egress.gateway.handlers import answer_request
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.http.replies import failed_reply, own_reply
from pytest_egress.gateway.http.sending import Sending
from pytest_egress.gateway.http.spoiling import left_note, settle
from pytest_egress.ledger.refusals import failed_upstream_body
from pytest_egress.routes.answers import AnsweredError, Forward, Handler, held
from pytest_egress.routes.duplex import ClientLeftError
from pytest_egress.routes.faults import Fault, layers, with_answer
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.grpc import Code, is_grpc
from pytest_egress.traffic.http.response import Response

SOON_SECONDS: Final = 0.25  # for the next piece of a call of gRPC that gets no answer


def keep_soon(incoming: Incoming) -> None:
    """Keep what comes soon of a call of gRPC that gets no answer: it may have no end before there is one."""
    if is_grpc(incoming.request):
        incoming.body.keep_soon(SOON_SECONDS)


@dataclass(eq=False, slots=True)
class Calling:
    """The reply of an answer that returns a response. A fault that a handler returns becomes the entry's.

    Attributes:
        is_held: Whether nothing of the response is sent before all of it is there.
    """

    incoming: Incoming
    route: InnerRoute
    answer: Handler | Response | Forward | Unset
    context: Context
    sending: Sending
    is_held: bool = False

    def __call__(self, entry: Exchange) -> Response | None:
        """None where there is nobody to answer, or a fault is used in place of an answer."""
        incoming, answer = self.incoming, self.answer
        activity = incoming.attempt.activity
        activity.what, activity.route = entry, self.route
        try:
            if entry.fault is not None and not settle(entry, self.context):
                return failed_reply(entry)
            if isinstance(answer, Forward):
                return forwarded(incoming, answer, entry)
            if not isinstance(answer, Unset):
                return self._handle(answer, entry)
            keep_soon(incoming)
            return None
        finally:
            if not activity.streams:  # else its head has gone alone, and its body follows
                activity.rest()  # its connection may outlive the entry's test

    def _handle(self, answer: Handler | Response, entry: Exchange) -> Response | None:
        """The response is 500 where the handler raises before it has begun to answer."""
        incoming, begin = self.incoming, held
        if entry.fault is None and not self.is_held:
            begin = partial(self.sending.beginning, incoming, entry)
        try:
            response = answer_request(answer, entry.request, self.context, begin)
            if isinstance(response, Fault):
                return self._fail(response, entry)
            if response._note:
                entry.note = entry.note or response._note
            return response
        except AnsweredError as answered:
            entry.error = answered.error
            return answered.response
        except ClientLeftError as error:  # it was cancelled, or has read a body that broke off
            entry.note, entry.fault = entry.note or left_note(error), None
            return None
        except BaseException as error:
            # Also KeyboardInterrupt and pytest.exit: the test's thread raises it again.
            entry.error, entry.fault = error, None
            if not incoming.duplex.has_begun:
                return failed_reply(entry)
            incoming.duplex.reset()
            return None

    def _fail(self, returned: Fault, entry: Exchange) -> Response | None:
        """The response in a fault that a handler has returned; None where there is none. The entry gets the fault."""
        around, (_, response) = entry.fault, layers(returned)
        entry.fault = with_answer(around, returned) if isinstance(around, Fault) else returned
        if not settle(entry, self.context):
            if response is not UNSET:
                self.sending.close(entry, response)
            return failed_reply(entry)
        return None if response is UNSET else response


def forwarded(incoming: Incoming, to: Forward, entry: Exchange) -> Response | None:
    """The response is 502 where the other server gives none (RFC 9110 section 15.6.3)."""
    try:
        return incoming.forwarding.pass_on(incoming.request, incoming.body, to)
    except ClientLeftError as error:
        entry.note, entry.fault = left_note(error), None
        return None
    except UpstreamError as error:
        entry.note, entry.fault = str(error), None
        return own_reply(entry, 502, failed_upstream_body(entry), Code.UNAVAILABLE)
