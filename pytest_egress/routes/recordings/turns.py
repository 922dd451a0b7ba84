"""`RecordedCall`: the answer of a cassette to a call of gRPC, whose two sides may wait for each other.

A recording is played in its order: what the server sent is sent at once, and what the client sent is waited for and
compared. A call that no recording answers goes on to the real server, message by message, and is recorded in the order
in which its messages have passed. What a client sends is noted before it goes on, and so is what the server sends: each
answer comes after what it answers.

Threads: the asking one plays, and copies what the server sends; one of the upstream's reads what the client sends while
a call is recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, Final, NoReturn

from pytest_egress.base.clock import SELDOM_SECONDS
from pytest_egress.errors import CassetteError, UpstreamError
from pytest_egress.routes.cassette import Cassette
from pytest_egress.routes.duplex import ClientLeftError, Conversation, Duplex, DuplexAnswer
from pytest_egress.routes.recordings.calls import message_differences, replayed_message
from pytest_egress.routes.recordings.comparing import is_ignored
from pytest_egress.routes.recordings.following import Following, RecordedStep, steps_of
from pytest_egress.routes.recordings.reel import PLAYED, RECORDED, Reel, failure_text
from pytest_egress.traffic.cassettes.making import recording_of_call
from pytest_egress.traffic.cassettes.messages import HALF_CLOSE, CallTurn
from pytest_egress.traffic.cassettes.tape import LEFT_OPEN, RecordedResponse, Recording
from pytest_egress.traffic.grpc import (
    CONTENT_TYPE,
    Code,
    MessageBuffer,
    StatusError,
    frame,
    status_fields,
)
from pytest_egress.traffic.http.headers import checked_fields
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.http.response import Response
from pytest_egress.traffic.redaction.redactor import redactor_of
from pytest_egress.traffic.shown import shown

ComingPieces = Generator[tuple[bytes, bool], None, None]
ComingBytes = Callable[[], ComingPieces]
"""The bytes of a client as they come, each with whether it is the last."""
Ask = Callable[[Iterator[bytes]], Response]
"""Sends the request to the real server, with these bytes. Raises UpstreamError, or ClientLeftError."""

MESSAGES: Final = "messages of gRPC"
MESSAGE_BYTES: Final = 200  # about what one takes besides its content
END: Final = CallTurn(True, None)
DIFFERS: Final = "pytest-egress: a message is not the recorded one"


class RecordedCall(DuplexAnswer):
    """The answer to one call."""

    def __init__(self, reel: Reel, declared: Cassette, pieces: ComingBytes, ask: Ask) -> None:
        self._reel, self._declared, self._pieces, self._ask = reel, declared, pieces, ask

    def __repr__(self) -> str:
        return repr(self._declared)

    def refusal(self, request: Request) -> None:
        """Whatever it was answered was recorded."""

    def converse(self, request: Request, duplex: Duplex, conversation: Conversation) -> None:
        """Raises CassetteError where a message differs, or nothing can be recorded: the test fails by that."""
        reel, declared = self._reel, self._declared
        client = ClientMessages(request, self._pieces(), keeps=reel.records == "unknown")
        if reel.records != "all":
            following = reel.follow(request, declared.ignore, repeat=declared.repeat)
            if following is None and reel.records == "nothing":
                raise CassetteError(f"{reel.name}: another request has taken the last recording")
            if following is not None:
                player = CallPlayer(reel, following, client, request, duplex, conversation)
                if player.play(declared.ignore):
                    return
        with reel.taking():
            CallRecorder(reel, client, request, duplex, conversation).record(self._ask)


class ClientMessages:
    """What the client of a call sends, in messages.

    Args:
        keeps: Whether what `next` has read may have to go to the real server after all.

    Attributes:
        turns: What has come, and what the server has sent.
    """

    def __init__(self, request: Request, pieces: ComingPieces, *, keeps: bool) -> None:
        self._buffer = MessageBuffer(request.headers.get("grpc-encoding", "identity").lower())
        self._pieces, self._keeps, self._read = pieces, keeps, bytearray()
        self._has_ended, self._is_unreadable = False, False
        self.turns: list[CallTurn] = []

    @property
    def is_over(self) -> bool:
        """Whether `next` has returned the end."""
        return self.turns[-1:] == [END]

    def next(self) -> bytes | None:
        """The next message; None at the end. Raises StatusError where it cannot be read, and ClientLeftError."""
        while (message := self._buffer.next_message()) is None:
            if self._has_ended:
                self._buffer.check_end()
                break
            piece, self._has_ended = next(self._pieces)
            self._read += piece if self._keeps else b""
            self._buffer.receive(piece)
        self.turns.append(CallTurn(True, message))
        return message

    def leave(self) -> None:
        """Nothing more is read: what still comes is for a search alone."""
        self._pieces.close()

    def all(
        self, note: Callable[[CallTurn], None], refuse: Callable[[str], None]
    ) -> Iterator[bytes]:
        """The bytes for the real server, from the beginning on; each message is noted before it is given.

        Whoever closes it leaves what still comes, as by `leave`.

        Args:
            refuse: Is told why messages cannot be read: their bytes go on all the same.
        """
        try:
            yield from self._all(note, refuse)
        finally:
            self.leave()

    def _all(
        self, note: Callable[[CallTurn], None], refuse: Callable[[str], None]
    ) -> Iterator[bytes]:
        self._note(note, refuse)
        if self._read:
            yield bytes(self._read)
        self._read.clear()
        while not self._has_ended:
            piece, self._has_ended = next(self._pieces)
            if not self._is_unreadable:
                self._buffer.receive(piece)
                self._note(note, refuse)
            if piece:
                yield piece

    def _note(self, note: Callable[[CallTurn], None], refuse: Callable[[str], None]) -> None:
        try:
            while (message := self._buffer.next_message()) is not None:
                note(CallTurn(True, message))
            if self._has_ended and not self.is_over:
                self._buffer.check_end()
                note(END)
        except StatusError as error:
            self._is_unreadable = True
            refuse(f"what its client sends cannot be read: {error.details}")


class CallPlayer:
    """Plays one recorded call."""

    def __init__(
        self,
        reel: Reel,
        following: Following,
        client: ClientMessages,
        request: Request,
        duplex: Duplex,
        conversation: Conversation,
    ) -> None:
        self._reel, self._following, self._client = reel, following, client
        self._request, self._duplex, self._conversation = request, duplex, conversation
        self._stands = reel.stands(request)
        self._has_begun = False

    @property
    def _recorded(self) -> RecordedResponse:
        return self._reel.tape.recordings[self._following.place].response

    def play(self, ignored: tuple[str, ...]) -> bool:
        """Return False where no recording is of this call, which may be recorded: nothing has been sent."""
        exchange, following = self._conversation.exchange, self._following
        try:
            if self._reel.records == "nothing" and following.agree(head_of):
                self._begin()  # a client may wait for it before it sends anything
            if lines := self._play_steps(ignored):
                if self._reel.records == "unknown" and not self._has_begun:
                    following.withdraw()
                    return False
                self._client.leave()
                self._fail(lines)
            self._client.leave()
            self._end()
        finally:
            following.end()
            exchange.note = PLAYED.format(following.place + 1, self._reel.name)
        return True

    def _play_steps(self, ignored: tuple[str, ...]) -> list[str]:
        """Return how a message differs; empty where none has."""
        while True:
            step = self._following.next_step()
            if step is not None and not step.from_client:
                self._send(step)
            elif step is None and (self._recorded.status != LEFT_OPEN or self._client.is_over):
                return []
            elif lines := self._taken(ignored):
                return [] if step is None and self._client.is_over else lines

    def _taken(self, ignored: tuple[str, ...]) -> list[str]:
        """Take the next message, or the end of them; return how it differs."""
        try:
            message = self._client.next()
        except StatusError as error:
            return [f"messages: {error.details}"]
        return self._following.take(partial(self._differences, message, ignored))

    def _differences(self, message: bytes | None, ignored: tuple[str, ...], of: int) -> list[str]:
        step, place = self._following.step(of), f"messages[{self._following.done}]"
        if message is None:
            is_so = step is not None and step.from_client and step.content == HALF_CLOSE
            lines = [] if is_so else [f"{place}: its client has sent all its messages before it"]
        elif step is None or not step.from_client or step.content == HALF_CLOSE:
            said = shown(redactor_of(self._request).content(message))
            lines = [f"{place}: {said} was not expected: its client had sent all its messages"]
        else:
            lines = [
                *message_differences(place, step.content, message, self._request, self._stands)
            ]
        return [line for line in lines if not is_ignored(line, ignored)]

    # What the server sent.

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            fields = [(name, self._stands.filled(value)) for name, value in self._recorded.headers]
            self._duplex.start(200, checked_fields([("content-type", CONTENT_TYPE), *fields]))

    def _send(self, step: RecordedStep) -> None:
        try:
            data = replayed_message(step.content, self._request.path, self._stands)
        except ValueError as error:
            place = self._reel.place_of(self._following.place)
            number = self._following.done - 1
            raise CassetteError(f"{place}: messages[{number}]: {error}") from None
        self._begin()
        self._duplex.send(frame(data))

    def _end(self) -> None:
        recorded = self._recorded
        if recorded.status == LEFT_OPEN:
            self._await_leave()
        status = status_fields(recorded.status, self._stands.filled(recorded.details))
        tail = [(name, self._stands.filled(value)) for name, value in recorded.trailers]
        self._conversation.count()
        if self._has_begun or recorded.headers:
            self._begin()
            self._duplex.finish(checked_fields([*status, *tail]))
        else:
            fields = [("content-type", CONTENT_TYPE), *status, *tail]
            self._duplex.start(200, checked_fields(fields), ends=True)

    def _await_leave(self) -> NoReturn:
        """The client has cancelled the call, or left, when it was recorded: it does so now. Raises ClientLeftError."""
        self._begin()
        left = threading.Event()
        self._duplex.on_disconnect(left.set)
        while not (left.wait(SELDOM_SECONDS) or self._duplex.disconnected):
            pass
        raise ClientLeftError("its client has left the call, as it was recorded")

    def _fail(self, lines: list[str]) -> NoReturn:
        """The error is noted before the client can know."""
        where = self._reel.place_of(self._following.place)
        text = failure_text(lines, where, self._reel.hint_again)
        error = CassetteError(f"{self._request.shown_url}: {text}")
        self._conversation.note_error(error)
        if self._has_begun:
            self._conversation.count()
            self._duplex.finish(checked_fields(status_fields(Code.UNKNOWN, DIFFERS)))
        raise error


def head_of(recording: Recording) -> object:
    """The initial metadata, after which messages or a status follow; None of a status alone."""
    response = recording.response
    has_head = response.headers or response.status == LEFT_OPEN
    is_answered = any(not step.from_client for step in steps_of(recording))
    return (response.headers,) if has_head or is_answered else None


class CallRecorder:
    """Records one call."""

    def __init__(
        self,
        reel: Reel,
        client: ClientMessages,
        request: Request,
        duplex: Duplex,
        conversation: Conversation,
    ) -> None:
        self._reel, self._client, self._request = reel, client, request
        self._duplex, self._conversation = duplex, conversation
        self._account = conversation.account
        self._unkept = ""  # why it cannot be recorded

    def record(self, ask: Ask) -> None:
        """Raises CassetteError where it cannot be recorded, after the client has got the answer."""
        response: Response | None = None
        try:
            response = ask(self._passing())
            self._copy(response)
        except (ClientLeftError, UpstreamError):
            if not self._duplex.disconnected:
                raise
            if (error := self._take(response, is_left=True)) is not None:
                raise error from None
            raise ClientLeftError("its client has left the call") from None

    def _copy(self, response: Response) -> None:
        """Copy what the server sends. The recording is there before the client can know that the call is over."""
        head = response.status_code, response.headers
        if response.stream is None:
            error = self._take(response)
            self._conversation.count()
            self._duplex.start(*head, ends=True)
        else:
            self._copy_messages(response)
            error = self._take(response)
            self._conversation.count()
            self._duplex.finish(response.trailers)
        if error is not None:
            raise error

    def _copy_messages(self, response: Response) -> None:
        buffer = MessageBuffer(response.headers.get("grpc-encoding", "identity").lower())
        stream: Any = response.stream
        try:
            self._duplex.start(response.status_code, response.headers)
            for piece in stream:
                self._note_answers(buffer, piece)
                self._duplex.send(piece)
        finally:
            stream.close()

    def _note_answers(self, buffer: MessageBuffer, piece: bytes) -> None:
        if self._unkept:
            return
        buffer.receive(piece)
        try:
            while (message := buffer.next_message()) is not None:
                self._note(CallTurn(False, message))
        except StatusError as error:
            self._refuse(f"its answer cannot be read: {error.details}")

    def _passing(self) -> Iterator[bytes]:
        yield from self._client.all(self._note, self._refuse)

    def _note(self, turn: CallTurn) -> None:
        size = len(turn.message or b"") + MESSAGE_BYTES
        if self._unkept or not self._account.has_room(size, MESSAGES):
            self._refuse("its messages are more than is kept")
            return
        self._client.turns.append(turn)

    def _refuse(self, why: str) -> None:
        """Only the first reason is kept: a client may send what cannot be recorded for ever."""
        self._unkept = self._unkept or why

    def _take(self, response: Response | None, *, is_left: bool = False) -> CassetteError | None:
        """Return the error that the test fails by, where it cannot be recorded."""
        exchange, reel = self._conversation.exchange, self._reel
        try:
            if self._unkept:
                raise StatusError(Code.RESOURCE_EXHAUSTED, self._unkept)
            turns = [*self._client.turns]
            reel.add(recording_of_call(self._request, turns, response, is_left=is_left))
        except StatusError as error:
            what = f"{self._request.method} {self._request.shown_url}"
            failed = CassetteError(f"{reel.name}: {what} is not recorded: {error.details}")
        except CassetteError as error:
            failed = error
        else:
            exchange.note = exchange.note or RECORDED.format(reel.name)
            return None
        self._conversation.note_error(failed)
        return failed
