"""`Replacing`: the reply of a call that a fault sweep fails after its route has answered it; `in_place`: of any other.

The rule: no version of HTTP is known here. A fault that would change nothing for the client, such as a cut of no bytes,
is none: the call is then answered as ever, and its entry is not swept.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

from pytest_egress.base.unset import UNSET
from pytest_egress.gateway.http.calling import Calling
from pytest_egress.gateway.http.incoming import Incoming
from pytest_egress.gateway.http.sending import Sending
from pytest_egress.routes.faults import End, Fault, Truncated, layers
from pytest_egress.routes.inner_route import InnerRoute
from pytest_egress.traffic.entries import Exchange
from pytest_egress.traffic.http.response import Response, carries_body

OK: Final = 200


def in_place(
    incoming: Incoming, route: InnerRoute, answer: Response | Fault, sending: Sending
) -> tuple[Calling, Fault | None]:
    """The reply of a call that does not reach its route, and the fault that it is answered by."""
    fault = answer if isinstance(answer, Fault) else None
    response = UNSET if isinstance(answer, Fault) else answer
    return Calling(incoming, route, response, copy_context(), sending), fault


@dataclass(eq=False, slots=True)
class Replacing:
    """The reply of a call that its route answers, and whose client gets something else."""

    made: Calling
    by: Response | Fault

    def __post_init__(self) -> None:
        self.made.is_held = True

    def __call__(self, entry: Exchange) -> Response | None:
        response = self.made(entry)
        if response is None or entry.error is not None or not self._changes(entry, response):
            entry.swept = False  # the route's own fault, or its failure, is what the client gets
            return response
        if isinstance(self.by, Truncated):
            entry.fault = cut_within(self.by, entry.fault, response)
            return response
        self.made.sending.close(entry, response)
        if isinstance(self.by, Response):
            return self.by
        entry.fault = self.by
        return None

    def _changes(self, entry: Exchange, response: Response) -> bool:
        """Whether the client can see any of it."""
        if any(isinstance(fault, (End, Truncated)) for fault in layers(entry.fault)[0]):
            return isinstance(self.by, Fault) and not isinstance(self.by, Truncated)
        if isinstance(self.by, Truncated):
            if not carries_body(entry.request.method, response):
                return False
            return response.stream is not None or bool(response.content)
        if isinstance(self.by, Response):
            is_same = response.stream is None and response.content == self.by.content
            return not (is_same and response.status_code == OK)
        return True


def cut_within(by: Truncated, own: object, response: Response) -> Truncated:
    """The cut of an answer, within its body whatever the length of that, with the wrappers that the answer has."""
    after = by.after
    if response.stream is None:
        after = min(after, max(len(response.content) - 1, 0))
    return Truncated(own if isinstance(own, Fault) else response, after, declared="...")
