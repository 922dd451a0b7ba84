"""`RecordedWebSocket`: the answer of a cassette to a handshake: it plays a recorded WebSocket, or records a new one.

A recording is played in its order: what the server sent is sent at once, without its pauses, and what the client sent
is waited for and compared. `Relay` is what copies messages to the real server, which `gateway` implements.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, Final, NoReturn, Protocol

from pytest_egress.errors import CassetteError, WebSocketClosedError
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.duplex import Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.json_bodies import json_differences
from pytest_egress.routes.patterns import contrast
from pytest_egress.routes.recordings.comparing import is_ignored
from pytest_egress.routes.recordings.following import Following
from pytest_egress.routes.recordings.reel import PLAYED, RECORDED, Played, Reel, failure_text
from pytest_egress.routes.recordings.replies import refused
from pytest_egress.routes.websocket.answer import opened, refusal_of, refuse
from pytest_egress.routes.websocket.open import OpenWebSocket
from pytest_egress.traffic.cassettes.bodies import repeated_name
from pytest_egress.traffic.cassettes.making import recording_of_refusal, recording_of_websocket
from pytest_egress.traffic.cassettes.placeholders import Stands
from pytest_egress.traffic.cassettes.tape import RecordedResponse
from pytest_egress.traffic.cassettes.websocket import sent_content
from pytest_egress.traffic.grpc import StatusError
from pytest_egress.traffic.http.headers import Headers, checked_fields
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import counted, shown
from pytest_egress.traffic.websocket import (
    BROKEN_OFF,
    OF_A_HANDSHAKE,
    Opening,
    accept,
)

POLICY: Final = 1008  # a message is not as the other side wants it (RFC 6455 section 7.4.1)
DIFFERS: Final = "a message is not the recorded one"


class Relay(Protocol):
    """Opens a WebSocket to the real server, and copies messages between both.

    Attributes:
        closing: The code and the reason of the server, where it has closed first, once `converse` has returned.
        refused: The response of a server that opened none, then too.
    """

    closing: tuple[int, str] | None
    refused: Response | None

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None: ...


class RecordedWebSocket(DuplexAnswer):
    """The answer to one handshake."""

    def __init__(self, reel: Reel, declared: Cassette, relay: Relay) -> None:
        self._reel, self._declared, self._relay = reel, declared, relay

    def __repr__(self) -> str:
        return repr(self._declared)

    def refusal(self, request: Request) -> tuple[Response, str] | None:
        return refusal_of(request)

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        """Raises CassetteError where a message differs, or nothing can be recorded: the test fails by that."""
        declared, reel = self._declared, self._reel
        if reel.records != "all":
            following = reel.follow(request, declared.ignore, repeat=declared.repeat)
            if following is not None and reel.tape.recordings[following.place].is_refused:
                self._refuse(following, request, duplex, conversation)
                return
            if following is not None:
                Player(following, request, conversation, reel, declared.ignore).play(duplex)
                return
        if reel.records == "nothing":
            raise CassetteError(f"{reel.name}: another request has taken the last recording")
        with reel.taking():
            self._relay.converse(request, duplex, conversation)
            self._take(request, conversation)

    def _refuse(
        self, following: Following, request: Request, duplex: Duplex, conversation: Conversation
    ) -> None:
        place = following.place
        following.end()
        played = Played(self._reel.tape.recordings[place], place + 1)
        response = refused(played, request, self._reel)
        conversation.exchange.note = response._note
        refuse(response, duplex, conversation)

    def _take(self, request: Request, conversation: Conversation) -> None:
        exchange, reel = conversation.exchange, self._reel
        ws, response = exchange.websocket, self._relay.refused
        if response is not None:
            try:
                reel.add(recording_of_refusal(request, response))
            except StatusError as error:
                text = f"{reel.name}: {request.shown_url} is not recorded: {error.details}"
                raise CassetteError(text) from None
            exchange.note = exchange.note or RECORDED.format(reel.name)
            return
        if ws is None or ws.unkept:
            why = exchange.note or "the upstream has opened no WebSocket"
            if ws is not None:
                why = f"{counted(ws.unkept, 'message')} of it could not be kept"
            raise CassetteError(f"{reel.name}: {request.shown_url} is not recorded: {why}")
        reel.add(
            recording_of_websocket(
                request, exchange.response, exchange.messages, self._relay.closing
            )
        )
        exchange.note = exchange.note or RECORDED.format(reel.name)


class Player:
    """Plays one recorded WebSocket."""

    def __init__(
        self,
        following: Following,
        request: Request,
        conversation: Conversation,
        reel: Reel,
        ignored: Collection[str],
    ) -> None:
        self._following, self._request, self._reel = following, request, reel
        self._conversation, self._ignored = conversation, ignored
        self._stands: Stands = reel.stands(request)

    @property
    def _recorded(self) -> RecordedResponse:
        return self._reel.tape.recordings[self._following.place].response

    def play(self, duplex: Duplex) -> None:
        try:
            self._note()
            self._play(duplex)
        finally:
            self._following.end()
            self._note()

    def _note(self) -> None:
        number = self._following.place + 1
        self._conversation.exchange.note = PLAYED.format(number, self._reel.name)

    def _play(self, duplex: Duplex) -> None:
        conversation = self._conversation
        ws = OpenWebSocket(
            duplex,
            self._request,
            self._handshake(),
            conversation.exchange.messages,
            conversation.account,
            now=conversation.now,
            refuse=conversation.note_unreadable,
        )
        with opened(ws, conversation):
            while self._step(ws):
                pass

    def _handshake(self) -> Opening:
        fields = [(name, self._stands.filled(value)) for name, value in self._recorded.headers]
        spoken = [value for name, value in fields if name == "sec-websocket-protocol"]
        agreed = accept(self._request, spoken)
        others = checked_fields([pair for pair in fields if pair[0] not in OF_A_HANDSHAKE])
        return Opening(
            status_code=agreed.status_code,
            headers=Headers([*agreed.headers.raw, *others.raw]),
            subprotocol=agreed.subprotocol,
            deflate=agreed.deflate,
        )

    def _step(self, ws: OpenWebSocket) -> bool:
        """Send or await one message; False at the end, and where the client has left."""
        step = self._following.next_step()
        try:
            if step is not None and not step.from_client:
                ws.send(filled(step.content, self._stands))
                return True
            if step is None and (code := self._recorded.status):
                ws.close(code, self._stands.filled(self._recorded.details))
                return False
            sent = ws.recv()
        except WebSocketClosedError as error:
            if error.code != BROKEN_OFF and not ws.is_closing:
                self._check(ws, partial(self._closed, error.code))
            return False
        self._check(ws, partial(self._differences, sent))
        return True

    def _check(self, ws: OpenWebSocket, differences: Callable[[int], list[str]]) -> None:
        if lines := self._following.take(differences):
            self._fail(ws, lines)

    def _closed(self, code: int | None, of: int) -> list[str]:
        """How the recording at a place of the tape differs, where the client has closed."""
        number = self._following.next_of_client(of)
        closed = f"messages[{number}]: the client has closed with {code} before it"
        return [] if number is None else [closed]

    def _differences(self, sent: str | bytes, of: int) -> list[str]:
        step, place = self._following.step(of), f"messages[{self._following.done}]"
        if step is None or not step.from_client:
            said = shown(masked(sent, self._request))
            lines = [f"{place}: {said} was not expected: the recording has ended"]
        else:
            lines = [*message_differences(place, step.content, sent, self._request, self._stands)]
        return [line for line in lines if not is_ignored(line, self._ignored)]

    def _fail(self, ws: OpenWebSocket, lines: list[str]) -> NoReturn:
        """The error is noted before the client can know, and the close frame says what is wrong."""
        place = self._reel.place_of(self._following.place)
        text = failure_text(lines, place, self._reel.hint_again)
        error = CassetteError(f"{self._request.shown_url}: {text}")
        self._conversation.note_error(error)
        ws.close(POLICY, DIFFERS)
        raise error


def filled(content: Any, stands: Stands) -> str | bytes:
    if isinstance(content, str):
        return stands.filled(content)
    is_json = "json" in content
    return sent_content({"json": stands.filling(content["json"])} if is_json else content)


def message_differences(
    place: str, wanted: Any, found: str | bytes, request: Request, stands: Stands
) -> Iterator[str]:
    """How a message of the client differs from the recorded one."""
    if isinstance(wanted, dict) and "json" in wanted:
        yield from json_message_differences(f"{place}.json", wanted["json"], found, request, stands)
        return
    mine = sent_content(wanted)
    if isinstance(mine, str) != isinstance(found, str):
        kinds = ("text", "bytes") if isinstance(found, str) else ("bytes", "text")
        yield f"{place}: it sent {kinds[0]}, and the recorded message is {kinds[1]}"
    elif not stands.fits(as_text(mine), as_text(found)):
        masks: tuple[Any, Any] = (masked(found, request), masked(mine, request))
        yield f"{place}: {contrast(found, mine, masks, masks[1])}"


def json_message_differences(
    place: str, wanted: Any, found: str | bytes, request: Request, stands: Stands
) -> Iterator[str]:
    try:
        if not isinstance(found, str):
            raise ValueError
        value = json.loads(found)
        repeated = repeated_name(found)
    except (ValueError, RecursionError):
        yield f"{place}: the message is no JSON: {shown(masked(found, request))}"
        return
    redactor = redactor_of(request)
    lines = [*json_differences(stands.expecting(wanted), value, place, redactor=redactor)]
    if not lines and repeated is not None:
        lines = [f"{place}: the name {shown(redactor.key(repeated))} repeats in one object"]
    yield from lines


def as_text(content: str | bytes) -> str:
    return content if isinstance(content, str) else content.decode("latin-1")


def masked(content: str | bytes, request: Request) -> Any:
    redactor = redactor_of(request)
    return redactor.text(content) if isinstance(content, str) else redactor.content(content)
