"""`Deck`: a reel as the answer of a route: it plays a recording, or asks the real upstream and takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_egress.base.unset import UNSET
from pytest_egress.errors import CassetteError
from pytest_egress.routes.answers import Application, Begin
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.faults import Fault, layers, with_answer
from pytest_egress.routes.recordings.passing import RealServer, recorded, take
from pytest_egress.routes.recordings.reel import RECORDED, Reel
from pytest_egress.routes.recordings.replies import played
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response

if TYPE_CHECKING:
    from pytest_egress.routes.duplex import DuplexAnswer
    from pytest_egress.routes.recordings.turns import Ask, ComingBytes
    from pytest_egress.routes.recordings.websockets import Relay


class Deck(Application):
    """The answer of one route.

    Args:
        is_required: Whether each recording has to be played, or the test fails.
        server: The real server, for one request, whose answer is passed on as it comes; None is `Request.forward`.
    """

    def __init__(
        self,
        reel: Reel,
        declared: Cassette,
        *,
        is_required: bool,
        server: RealServer | None = None,
    ) -> None:
        self.reel, self.is_required = reel, is_required
        self._declared, self._server = declared, server

    def __repr__(self) -> str:
        return repr(self._declared)

    def misses(self, request: Request) -> list[str]:
        """Why it does not answer a request, a line each; empty where it does."""
        declared = self._declared
        return self.reel.misses(request, declared.ignore, repeat=declared.repeat)

    def websocket(self, relay: Relay) -> DuplexAnswer:
        """The answer to a handshake. It is imported with the first: most runs have none."""
        from pytest_egress.routes.recordings.websockets import RecordedWebSocket

        return RecordedWebSocket(self.reel, self._declared, relay)

    def takes_what_comes(self, request: Request) -> bool:
        """Whether it answers from the head of a request on, by `websocket` or `call`."""
        return self.reel.takes_turns(request)

    def call(self, pieces: ComingBytes, ask: Ask) -> DuplexAnswer:
        """The answer to a call of gRPC. It is imported with the first."""
        from pytest_egress.routes.recordings.turns import RecordedCall

        return RecordedCall(self.reel, self._declared, pieces, ask)

    def asking(self, server: RealServer) -> Deck:
        """The answer to one request, which its client gets as it comes from the real server."""
        return Deck(self.reel, self._declared, is_required=self.is_required, server=server)

    def answer(self, request: Request, begin: Begin) -> Response:
        """Raises CassetteError where another request has taken the last recording meanwhile."""
        declared, reel = self._declared, self.reel
        if reel.records != "all":
            found = reel.take(request, declared.ignore, repeat=declared.repeat)
            if found is not None:
                return played(found, request, reel)
        if reel.records == "nothing":
            raise CassetteError(f"{reel.name}: another request has taken the last recording")
        if self._server is None:
            response = request.forward()
            take(reel, request, response)
        else:
            response = recorded(reel, request, self._server)
        response._note = RECORDED.format(reel.name)
        return response


def asking(answer: Any, server: RealServer) -> Any:
    """An answer whose deck, be it within another one, passes on what the real server answers as that comes."""
    if isinstance(answer, Deck):
        return answer.asking(server)
    if isinstance(answer, Application) and isinstance(answer.within, Application):
        made = asking(answer.within, server)
        return answer if made is answer.within else answer.around(made)
    return answer


def bound(answer: Any, open_deck: Callable[[Cassette], Deck]) -> Any:
    """An answer with a deck in the place of its cassette."""
    if isinstance(answer, Fault):
        inner = layers(answer)[1]
        made = bound(inner, open_deck)
        return answer if made is inner else with_answer(answer, made)
    if isinstance(answer, Application) and answer.within is not UNSET:
        made = bound(answer.within, open_deck)
        return answer if made is answer.within else answer.around(made)
    return open_deck(answer) if isinstance(answer, Cassette) else answer
