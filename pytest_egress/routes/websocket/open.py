"""`WebSocket`: the object that a handler of a WebSocket gets, and by which a test sends.

Threads: a WebSocket has a reader, a thread that takes in what the client sends, so that pings are answered, messages
are recorded and the end is noticed whatever the handler does. Any thread may send, receive and close. `_changed` guards
the frames and the queues, and is held no longer than a value takes. A thread that holds `_sending` sends frames in the
order in which they were made, and may wait for the client; `_changed` may be acquired within it, never the other way
round. `Ledger.changed` may be acquired within `_changed`. No function of a test runs while one is held.

A close frame of the client is answered when the handler has received all that came before it, and asks for more, so
that its answers to that still reach the client (RFC 6455 section 5.5.1); a second later at the latest. Where nothing
waits, and the handler never receives, it is answered at once.

The module is long, because what tests see (`WebSocket`) and what serves it (`OpenWebSocket`) are one object with one
lock.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pytest_egress.base.account import Account, OverLimitError
from pytest_egress.base.clock import LOOK_SECONDS, check_seconds, monotonic, wall
from pytest_egress.base.raising import claim, is_claimed
from pytest_egress.errors import WebSocketClosedError
from pytest_egress.routes.duplex import ClientLeftError, Duplex
from pytest_egress.traffic.http.request import Request
from pytest_egress.traffic.shown import shown
from pytest_egress.traffic.websocket import (
    BROKEN_OFF,
    CUT_REASON,
    GOING_AWAY,
    MAX_PING_BYTES,
    MESSAGES,
    NO_CODE,
    NORMAL,
    TOO_BIG,
    ClosedError,
    Closing,
    Frames,
    Opening,
    PingFrame,
    WebSocketMessage,
    check_close,
    size_of,
)

CLOSE_SECONDS: Final = 1.0  # for the client to send its own close frame
SLICE_SECONDS: Final = 1.0  # between two looks at whether that time is over
TEST_IS_OVER: Final = "the test is over"  # the reason in a close frame
MAX_WAITING_BYTES: Final = 64 << 20  # of messages that no handler has received; then reading stops
MAX_WAITING_FRAMES: Final = 100  # of pongs; then the reader waits for the thread that sends


@dataclass
class Outgoing:
    """A frame to send."""

    data: bytes
    message: WebSocketMessage | None = None  # the recorded message, or None
    is_lost: bool = False  # whether it was not sent, since the client has left


class WebSocket:
    """A WebSocket as a blocking object: `for message in ws: ws.send(message)`. Any thread may use it.

    Attributes:
        request: The request that opened it.
        subprotocol: The subprotocol that was agreed on, or None.
        messages: The messages of both directions, in order.
        unkept: How many messages are missing there, since the test keeps as much as it may: that fails it.
        close_code: The code of the client's close frame; 1005 where that had none, 1006 where the client broke off
            without one, the code that it was closed with where what it sent was refused, and None while it is open.
        close_reason: The reason in that frame, or "".
    """

    def __init__(
        self,
        duplex: Duplex,
        request: Request,
        handshake: Opening,
        messages: list[WebSocketMessage] | None = None,  # None records nothing
        account: Account | None = None,  # counts what is kept
        *,
        now: Callable[[], float] = wall,  # the clock of entries
        refuse: Callable[[str], None] = lambda why: None,  # gets why bytes cannot be read
        frames: Frames | None = None,  # those of a server by default
        is_bounded: bool = True,  # reading stops while many messages wait for `recv`
        is_relayed: bool = False,  # a close frame of the peer is answered by `close` alone
    ) -> None:
        self.request: Final = request
        self.subprotocol: Final = handshake.subprotocol
        self.messages: Final = [] if messages is None else messages
        self.unkept, self._is_recorded = 0, messages is not None
        self._mark: Final = object()
        self._now = now
        self.close_code: int | None = None
        self.close_reason = ""
        self._duplex, self._handshake = duplex, handshake
        self._account = account or Account()
        self._refuse = refuse
        self._is_bounded = is_bounded
        self._frames = frames or Frames(handshake.deflate, account=account)
        if self._is_recorded and (passing := getattr(request._body, "passing", None)) is not None:
            self._frames.search = passing.feed
        self._changed, self._sending = threading.Condition(), threading.Lock()
        self._waiting: deque[tuple[str | bytes, int]] = deque()  # with what is held for each
        self._waiting_bytes = 0
        self._held = self._account.hold(MESSAGES)
        self._outgoing: deque[Outgoing] = deque()
        self._listeners: list[Callable[[], None]] = []
        self._opened = threading.Event()
        self._deadline: float | None = None
        self._owed: Closing | None = None  # the client's close frame, until it has been answered
        self._is_relayed, self._has_asked, self._is_told = is_relayed, False, False
        self._is_mute, self._is_dismissed = False, False
        self._failure: BaseException | None = None
        self._reader = threading.Thread(target=self._read, name="websocket", daemon=True)

    def __repr__(self) -> str:
        state = "open" if self.close_code is None else f"closed with {self.close_code}"
        return f"<WebSocket {self.request.shown_url}, {state}>"

    # For handlers and tests.

    def __iter__(self) -> Iterator[str | bytes]:
        """Each message, until the client closes or breaks off."""
        while True:
            try:
                message = self.recv()
            except WebSocketClosedError:
                return
            yield message

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Wait for the next message, and return it: str for a text, bytes for a binary one.

        Args:
            timeout: Seconds to wait; None is without end.

        Raises:
            WebSocketClosedError: There is no further message.
            TimeoutError: None came in time.
        """
        if timeout is not None:
            check_seconds(timeout)
        end = None if timeout is None else monotonic() + timeout
        with self._changed:
            while (message := self._take()) is None:
                left = None if end is None else end - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(
                        f"waited {timeout:g} s for a message of {self.request.shown_url}"
                    )
                self._changed.wait(left)
        return message

    def send(self, message: str | bytes | dict[str, Any] | list[Any]) -> None:
        """Send a message.

        Args:
            message: Text, the bytes of a binary message, or a value that is sent as JSON.

        Raises:
            WebSocketClosedError: The WebSocket is over.
            TypeError, ValueError: The message is none of these.
        """
        content = content_of(message)
        self._write(lambda: self._frames.message(content), content)

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping; pongs are not reported. Pings of the client are answered by themselves.

        Args:
            payload: At most 125 bytes.

        Raises:
            WebSocketClosedError: The WebSocket is over.
            TypeError, ValueError: The payload is no bytes, or too long.
        """
        if not isinstance(payload, (bytes, bytearray)):
            raise TypeError(f"ping({shown(payload)}): a ping takes bytes")
        if len(payload) > MAX_PING_BYTES:
            what = f"ping({shown(payload)}): {len(payload)} bytes"
            raise ValueError(f"{what}, and it takes {MAX_PING_BYTES} at most")
        self._write(lambda: self._frames.ping(payload))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close, and wait a second at most for the client to do so; closing again does nothing.

        Args:
            code: The code of the close frame (RFC 6455 section 7.4).
            reason: Its reason, at most 123 bytes in UTF-8.

        Raises:
            ValueError: No close frame may have that code, or the reason is too long.
        """
        check_close(code, reason)
        if self._is_mute:
            self._is_dismissed = True
            return
        self._opened.wait()
        with self._changed:
            self._deadline = self._deadline or monotonic() + CLOSE_SECONDS
        with contextlib.suppress(WebSocketClosedError):
            self._write(lambda: self._frames.close(code, reason), closing=True)
        with self._changed:
            while not self.is_over and (left := self._left()) > 0:
                self._changed.wait(left)
        self._give_up()
        self._release_sender()

    @property
    def is_over(self) -> bool:
        """Whether a close frame has come, or the client has broken off."""
        return self.close_code is not None

    @property
    def is_lost(self) -> bool:
        """Whether it is over, or its client or a fault has broken off, which its reader has yet to find."""
        return self.is_over or self._duplex.disconnected

    # Sending.

    def _write(
        self,
        make: Callable[[], bytes],
        content: str | bytes | None = None,
        *,
        closing: bool = False,
    ) -> None:
        """A frame that cannot be sent any more raises WebSocketClosedError."""
        self._opened.wait()
        with self._changed:
            if not self._may_send(closing=closing):
                raise self._closed()
            try:
                frame = Outgoing(make())
            except ClosedError:  # this side has closed
                raise self._closed() from None
            if closing:
                self._owed = None
                self._changed.notify_all()  # the reader may wait to answer by itself
            self._outgoing.append(frame)
            if content is not None:  # before the client can answer it
                frame.message = self._record(content, from_client=False)
        self._flush(wait=not closing)
        if frame.is_lost:
            with self._changed:
                raise self._closed()

    def _may_send(self, *, closing: bool) -> bool:
        """The caller holds the lock."""
        if self._is_mute or not self.is_over:
            return not self._is_mute
        return self._owed is not None and (closing or self._is_relayed or not self._is_told)

    def _flush(self, *, wait: bool) -> None:
        """The frames keep their order. With `wait` another thread's sending is waited for; else that one sends them."""
        while self._outgoing:
            if not self._sending.acquire(blocking=wait):
                return
            try:
                self._send_all()
            finally:
                self._sending.release()

    def _send_all(self) -> None:
        """Frames that cannot be sent are lost. The caller holds `_sending`."""
        while self._outgoing:
            try:
                if self._is_mute:
                    raise ClientLeftError
                self._duplex.send(self._outgoing[0].data)
            except ClientLeftError:
                self._lose()
            else:
                self._outgoing.popleft()

    def _lose(self) -> None:
        """Messages that were not sent are recorded no more."""
        with self._changed:
            lost = [*self._outgoing]
            self._outgoing.clear()
            for frame in lost:
                frame.is_lost = True
            messages = [frame.message for frame in lost if frame.message is not None]
            identities = {*map(id, messages)}
            self.messages[:] = [each for each in self.messages if id(each) not in identities]
            self._account.has_room(-sum(size_of(each.content) for each in messages), MESSAGES)

    def _closed(self) -> WebSocketClosedError:
        code, reason = self.close_code, self.close_reason
        text = f"the WebSocket {self.request.shown_url} is closed"
        text += "" if code is None else f", with {code}"
        text += f" ({reason})" if reason else ""
        error = WebSocketClosedError(text, code=code or BROKEN_OFF, reason=reason)
        claim(error, self._mark)
        return error

    def _left(self) -> float:
        """Seconds that are left for the client's close frame."""
        return max((self._deadline or 0.0) - monotonic(), 0.0)

    def _record(self, content: str | bytes, *, from_client: bool) -> WebSocketMessage | None:
        """None where the message is not recorded."""
        if not self._is_recorded:
            return None
        message = WebSocketMessage(content=content, from_client=from_client, at=self._now())
        if not self._account.has_room(size_of(content), MESSAGES):
            self.unkept += 1
            return None
        self.messages.append(message)
        return message

    # Receiving.

    def _take(self) -> str | bytes | None:
        self._has_asked = True
        if self._waiting:
            message, held = self._waiting.popleft()
            self._waiting_bytes -= size_of(message)
            self._held.fits(self._held.size - held)
            self._changed.notify_all()  # the reader may wait for room
            return message
        if self.is_over:
            self._is_told = True
            self._changed.notify_all()
            raise self._closed()
        return None

    def _forget_unrecorded(self) -> None:
        """Unrecorded messages give their room back. Recorded ones can still be received."""
        with self._changed:
            self._waiting = deque((message, held) for message, held in self._waiting if not held)
            self._waiting_bytes = sum(size_of(message) for message, _ in self._waiting)
            self._held.release()

    def _read(self) -> None:
        try:
            while not self.is_over:
                self._read_once()
            self._await_handler_told()
        except BaseException as error:
            self._failure = error
        finally:
            self._finish(BROKEN_OFF, "")

    def _await_handler_told(self) -> None:
        """The client's close frame is answered once the handler knows of it."""
        seconds = None if self._is_relayed else CLOSE_SECONDS
        with self._changed:
            self._changed.wait_for(
                lambda: self._owed is None or (self._is_told and not self._is_relayed), seconds
            )
        self._reply()

    def _reply(self) -> None:
        with self._changed:
            owed, self._owed = self._owed, None
            if owed is None:
                return
            with contextlib.suppress(ClosedError):
                self._outgoing.append(Outgoing(self._frames.close(owed.code, owed.reason)))
            self._changed.notify_all()
        self._flush(wait=False)

    def _read_once(self) -> None:
        if self._deadline is not None and not self._left():
            self._give_up()
            return
        with self._changed:
            if self._is_bounded and self._waiting_bytes > MAX_WAITING_BYTES:
                self._changed.wait(SLICE_SECONDS)
                return
        seconds = SLICE_SECONDS if self._deadline is None else min(self._left(), SLICE_SECONDS)
        try:
            data = self._duplex.receive(seconds)
        except TimeoutError:
            return
        except ClientLeftError:
            data = b""
        except OverLimitError:
            self._cut()
            self._flush(wait=False)
            return
        if data:
            self._receive(data)
        else:
            self._finish(BROKEN_OFF, "")

    def _give_up(self) -> None:
        """A client that has not closed in time has ended it; a thread that sends to it is released."""
        if self.is_over:
            return
        self._finish(BROKEN_OFF, "")
        if self._sending.locked():
            self._duplex.reset()

    def _release_sender(self) -> None:
        """Break off where a thread goes on sending to a client that has ended the WebSocket, and reads no more."""
        if self._sending.acquire(timeout=CLOSE_SECONDS):
            self._sending.release()
        else:
            self._duplex.reset()

    def _receive(self, data: bytes) -> None:
        with self._changed:
            for received in self._frames.receive(data):
                if isinstance(received, PingFrame):
                    with contextlib.suppress(ClosedError):
                        self._outgoing.append(Outgoing(self._frames.pong(received.payload)))
                elif isinstance(received, Closing):
                    if received.is_refusal and not self._is_mute:
                        self._refuse(f"{received.reason} (it is closed with {received.code})")
                    if received.reply and (received.is_refusal or not self._has_to_wait):
                        close = self._frames.close(received.code, received.reason)
                        self._outgoing.append(Outgoing(close))
                    elif received.reply:
                        self._owed = received
                    self._finish(received.code, received.reason)
                elif not self._await_handler(received):
                    break
            self._changed.notify_all()
        self._tell()
        self._flush(wait=len(self._outgoing) > MAX_WAITING_FRAMES)

    @property
    def _has_to_wait(self) -> bool:
        """Whether the handler may still answer what came before the client's close frame. The lock is held."""
        return self._is_relayed or self._has_asked or bool(self._waiting)

    def _await_handler(self, message: str | bytes) -> bool:
        """Have a message wait until it is received; where there is no room for it, close, and return False."""
        held = 0 if self._record(message, from_client=True) else size_of(message)
        if not self._held.fits(self._held.size + held):
            self._cut()
            return False
        self._waiting.append((message, held))
        self._waiting_bytes += size_of(message)
        return True

    def _cut(self) -> None:
        """The test keeps as much as it may, and fails by that. The caller sends the close frame (`_flush`)."""
        with self._changed:
            with contextlib.suppress(ClosedError):
                self._outgoing.append(Outgoing(self._frames.close(TOO_BIG, CUT_REASON)))
            self._finish(TOO_BIG, CUT_REASON)

    def _finish(self, code: int, reason: str) -> None:
        """Later calls change nothing."""
        with self._changed:
            if self.close_code is None:
                self.close_code, self.close_reason = code, reason
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        for callback in list(self._listeners):
            callback()


class OpenWebSocket(WebSocket):
    """A WebSocket as the answer uses it; `WebSocket` is the part for handlers and tests."""

    def __dir__(self) -> list[str]:
        return sorted({*dir(WebSocket), *vars(self)})

    @property
    def handshake(self) -> Opening:
        return self._handshake

    def open(self) -> None:
        """A client that has left is over at once."""
        try:
            self._duplex.start(self._handshake.status_code, self._handshake.headers)
        except BaseException as error:
            self._finish(BROKEN_OFF, "")
            self._opened.set()
            if not isinstance(error, ClientLeftError):
                raise
        else:
            self.begin()

    def begin(self) -> None:
        """The handshake has been answered."""
        self._reader.start()
        self._opened.set()

    def go_away(self, then: OpenWebSocket | None = None) -> None:
        """The test is over: close with 1001, on a thread of its own, and then close `then`. The call does not block.

        A peer that has closed before is passed on to `then` by its own code, as if the test went on.
        """

        def close() -> None:
            had_closed = self.is_over
            self.close(GOING_AWAY, TEST_IS_OVER)
            if then is not None and had_closed:
                then.close(self.passed_code(GOING_AWAY), self.close_reason)
            elif then is not None:
                then.close(GOING_AWAY, TEST_IS_OVER)

        threading.Thread(target=close, name="websocket 1001", daemon=True).start()

    def passed_code(self, broken: int) -> int:
        """The code to close another WebSocket with, to which this one's end is passed on.

        Args:
            broken: The code where this one's peer broke off.
        """
        code = self.close_code
        return {NO_CODE: NORMAL, BROKEN_OFF: broken, None: NORMAL}.get(code, code) or NORMAL

    @property
    def has_left(self) -> bool:
        """Whether what carries it has ended."""
        return self._duplex.disconnected

    @property
    def is_closing(self) -> bool:
        """Whether this side has closed it, as it does when the test is over."""
        return self._deadline is not None

    def pass_close(self, code: int, reason: str, is_awaited: Callable[[], bool]) -> None:
        """Close, and wait for the peer to do so for as long as somebody awaits its last messages."""
        with contextlib.suppress(WebSocketClosedError):
            self._write(lambda: self._frames.close(code, reason), closing=True)
        with self._changed:
            while not self.is_over and self._deadline is None and is_awaited():
                self._changed.wait(LOOK_SECONDS)
        self.close(code, reason)

    def has_raised(self, error: WebSocketClosedError) -> bool:
        """Whether an error is about this WebSocket, and not about another one."""
        return is_claimed(error, self._mark)

    def wait_until_over(self) -> None:
        with self._changed:
            while not self.is_over:
                self._changed.wait()

    def end(self) -> None:
        """A BaseException is that of the reader, which failed by a defect of this package."""
        self._reply()
        self.close()
        if self._reader.ident is not None:
            self._reader.join()
        self._frames.discard()
        self._forget_unrecorded()
        with contextlib.suppress(ClientLeftError):
            if self._is_mute:
                pass  # a fault has ended what carries it
            elif self.close_code == BROKEN_OFF:
                self._duplex.reset()
            else:
                self._duplex.finish()
        if self._failure is not None:
            raise self._failure

    def fall_silent(self) -> None:
        """Not even what the protocol asks for is sent any more; reading goes on."""
        with self._sending, self._changed:  # a frame that is being sent goes out whole
            self._is_mute = True

    @property
    def is_dismissed(self) -> bool:
        """Whether it is to be closed, and would say so if it were not silent."""
        return self._is_dismissed

    def listen(self, callback: Callable[[], None]) -> None:
        """The function is called on any thread, after each message and at the end. It must not block."""
        with self._changed:
            self._listeners.append(callback)

    def take_message(self) -> str | bytes | None:
        """None where no message has come yet; WebSocketClosedError where there is no further one."""
        with self._changed:
            return self._take()


def content_of(message: object) -> str | bytes:
    """A message that cannot be sent raises TypeError or ValueError; the text quotes it and lists what can."""
    if isinstance(message, (str, bytes)):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if isinstance(message, (dict, list)):
        try:
            return json.dumps(message)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"send({shown(message)}): it cannot be sent as JSON: {error}") from None
    raise TypeError(
        f"send({shown(message)}): a WebSocket sends str, bytes, or a dict or list as JSON"
    )
