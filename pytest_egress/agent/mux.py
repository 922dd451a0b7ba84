"""One end of the stream link: streams, datagrams and a heartbeat over one reliable byte stream.

Sans-IO, and the same on both sides: it never touches a socket, a clock or a thread, and a caller with
threads holds a lock around each call. For any bytes whatever `receive` yields events or raises
`ProtocolError`, and never anything else. Every queue is bounded: `room` says how much may be queued.

How a stream ends: each side sends FIN after its last bytes, and the stream is forgotten when both were
sent and received. Or one side sends RST (or REFUSED), and the other answers with RST. Until that answer
the id stays taken, and frames that the peer sent before are dropped. Both sides count the ids that are
taken, so that neither opens more than `MAX_STREAMS`.

`Mux` is one long class, with a method for each frame: what is received frees, ends and schedules the same
streams that frames are sent from, and halves of it would write to each other's state. It is one module
because each further one would be another import in the start of every sidecar that is reached over a stream.
"""

from __future__ import annotations

from .mux_frames import (
    BEFORE_BYE,
    BYE,
    BYE_ACK,
    CHANNELS,
    CONNECTION_FRAMES,
    CREDIT,
    DATA,
    DATAGRAM,
    ERRNO,
    ERROR,
    FIN,
    FIRST_FRAMES,
    GREETING,
    HEADER,
    HELLO,
    LENGTHS,
    LOST,
    MAX_PAYLOAD,
    MAX_TEXT,
    NUMBER,
    OPEN,
    OPENED,
    PING,
    PONG,
    REFUSED,
    RST,
    UNHEARD,
    VERSION,
    Bye,
    ByeAcknowledged,
    Data,
    Failed,
    Fin,
    Hello,
    Lost,
    MuxDatagram,
    MuxEvent,
    Open,
    Opened,
    Pong,
    ProtocolError,
    Refused,
    StreamReset,
    pack_frame,
    pack_text,
    unpack_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
else:
    from _collections import deque  # the class of collections, without the time to import that

AGENT, HOST = 1, 2
"""The two sides. Each is also the first id of the streams that it opens: the agent's are odd, the host's
even."""

SLICE = 32768
"""How many bytes a stream, or all datagrams together, may send in one turn: as many as an engine passes
on at once. At the 300 MB/s of an attach the others wait for 0.1 ms."""

WINDOW = 262144
"""How many bytes of a stream may be under way or unread, and how many its sender may queue. At 300 MB/s
that is enough for a round trip of 0.8 ms; an attach takes 0.14 ms."""

GRANT = WINDOW // 4
"""How many bytes are read before a CREDIT returns them: one frame of 11 bytes for each 65,536."""

MAX_STREAMS = 2048
"""How many streams of either side may be open: twice the connections that the gateway serves at once, as
ends of old ones overlap with beginnings of new ones."""

MAX_DATAGRAMS = 4 << 20
"""How many bytes of datagrams may wait for the wire: as many as the agent's sockets buffer in the kernel."""

_QUEUED_BYTES = 64  # memory of an object in a queue, besides its content


class _Stream:
    """The state of a stream that has not ended.

    Attributes:
        theirs: Whether the peer opened it.
        answered: Whether the side that did not open it has accepted it.
        queue: The bytes that wait for credit or for the wire.
        credit: How many bytes we may still send.
        allowed: How many bytes the peer may still send.
        consumed: How many bytes were read and not returned to the peer as credit yet.
        crowded: Whether `queue` was more than half full and `drained` has not reported it since.
        unheard: Whether the FIN or RST tells the peer that none of its bytes arrived; see `mux_frames.Fin`.
    """

    __slots__ = (
        "allowed",
        "answered",
        "consumed",
        "credit",
        "crowded",
        "ending",
        "fin_received",
        "fin_sent",
        "number",
        "queue",
        "resetting",
        "scheduled",
        "theirs",
        "unheard",
    )

    def __init__(self, number: int, theirs: bool) -> None:
        self.number = number
        self.theirs = theirs
        self.queue = bytearray()
        self.credit = self.allowed = WINDOW
        self.consumed = 0
        self.answered = self.crowded = self.scheduled = False
        self.ending = self.resetting = self.fin_sent = self.fin_received = False
        self.unheard = False

    @property
    def writable(self) -> bool:
        """Whether we may queue data: at once on a stream that we opened, else after having accepted it."""
        return (self.answered or not self.theirs) and not self.ending and not self.resetting

    @property
    def readable(self) -> bool:
        return (self.answered or self.theirs) and not self.fin_received

    @property
    def sendable(self) -> bool:
        if self.queue:
            return self.credit > 0
        return self.ending and not self.fin_sent


class Mux:
    """One end of the link.

    Methods queue frames; `take` returns the bytes to write, and `receive` takes those that were read. A
    method that is called out of turn raises ValueError: that is a mistake of the caller.

    A stream that is reset or refused has ended at once for the caller. Its id is kept until the peer
    has answered with RST; until then frames of the peer on it are dropped.

    Args:
        most: How many streams this side may have open at once, `MAX_STREAMS` at most.
    """

    def __init__(self, side: int, most: int = MAX_STREAMS) -> None:
        self._side, self._most = side, most
        self._peer = AGENT + HOST - side
        self._next = {AGENT: AGENT, HOST: HOST}  # the id of the next stream that each opens
        self._known = {AGENT: 0, HOST: 0}  # taken ids, by the side that opened the stream
        self._streams: dict[int, _Stream] = {}
        self._resets: dict[int, bool] = {}  # reset by us, unanswered; True: our FIN was sent
        self._answers: set[int] = set()  # reset by the peer; our RST waits for the wire
        self._turns: deque[_Stream] = deque()
        self._drained: dict[int, None] = {}

        self._control: deque[bytes] = deque()
        self._datagrams: list[deque[bytes]] = [deque() for _ in CHANNELS]
        self._datagram_bytes = 0
        self._lost = [0 for _ in CHANNELS]
        self.datagrams = 0  # that were queued, or lost
        self._pings = self._pings_sent = 0
        self._pong: int | None = None

        self._buffer = bytearray()
        self._offset = 0  # in the buffer: the bytes before it have been parsed
        self._error: str | None = None
        self._farewell: bytes | None = None  # after `fail`: the one frame to send
        self._greeting = self._greeted = False  # HELLO queued; HELLO received
        self._closing = self._bye_sent = self._bye_received = self._over = False

    # The connection

    def hello(self, ipv6: bool = False, text: str = "") -> None:
        """HELLO is the first frame, and comes once; until then `take` returns nothing."""
        if self._greeting:
            raise ValueError("HELLO comes once.")
        self._greeting = True
        self._control.appendleft(
            pack_frame(HELLO, 0, GREETING.pack(VERSION, ipv6) + pack_text(text))
        )

    def ping(self) -> int:
        """Queue a heartbeat, and return its number, which is 1 for the first.

        If several wait for the wire, only the latest is sent. The `Pong` with its number answers all earlier ones too.
        """
        self._pings += 1
        return self._pings

    def close(self) -> None:
        """Accept nothing more to send, and send BYE when everything in the queues has been sent.

        Data that waits for credit delays BYE: reset streams that are not worth waiting for. Streams that
        the peer opens from now on are reset without an event.
        """
        self._closing = True
        for stream in [number for number, state in self._streams.items() if state.resetting]:
            self.reset(stream)

    def fail(self, text: str) -> None:
        """Give up: drop everything that is queued, and send the reason to the peer as the last frame."""
        self._stop()
        self._farewell = pack_frame(ERROR, 0, pack_text(text))

    # Streams

    @property
    def openable(self) -> int:
        """How many more streams may be opened now. Accept no more connections than that."""
        return 0 if self._closing else self._most - self._known[self._side]

    def open(self, purpose: bytes) -> int:
        """Open a stream and return its id. Data may be written at once, before the peer has accepted it."""
        if not self.openable or len(purpose) > MAX_TEXT:
            raise ValueError("No stream can be opened: closing, too many, or too long a purpose.")
        number = self._add(self._side).number
        self._put(OPEN, number, purpose)
        return number

    def accept(self, stream: int) -> None:
        """A stream that the peer opened may be written to only after that."""
        self._unanswered(stream).answered = True
        self._put(OPENED, stream)

    def refuse(self, stream: int, number: int, text: str = "") -> None:
        """The number is an errno, the text a sentence."""
        self._unanswered(stream)
        self._end(stream, pack_frame(REFUSED, stream, ERRNO.pack(number) + pack_text(text)))

    def write(self, stream: int, data: bytes | bytearray | memoryview) -> None:
        """Queue at most as many bytes as `room` returns."""
        state = self._writable(stream)
        if len(state.queue) + len(data) > WINDOW:
            raise ValueError(f"Stream {stream} has room for {self.room(stream)} bytes.")
        state.queue += data
        state.crowded = state.crowded or len(state.queue) > WINDOW // 2
        self._schedule(state)

    def pending(self, stream: int) -> int:
        state = self._streams.get(stream)
        return len(state.queue) if state else 0

    def room(self, stream: int) -> int:
        """How many bytes `write` takes now. At 0 stop reading the source until `drained` lists the stream."""
        state = self._streams.get(stream)
        return WINDOW - len(state.queue) if state and state.writable and not self._closing else 0

    def drained(self) -> list[int]:
        """The streams whose queue was more than half full and no longer is; each is listed once."""
        drained = [stream for stream in self._drained if stream in self._streams]
        self._drained.clear()
        return drained

    def consumed(self, stream: int, count: int) -> None:
        """Note that bytes were read, so that the peer may send as many more; no effect on a stream that has ended."""
        state = self._streams.get(stream)
        if state is None:
            return
        if not 0 <= count <= WINDOW - state.allowed - state.consumed:
            raise ValueError(f"Stream {stream} has not received {count} bytes that are unread.")
        state.consumed += count
        if state.consumed >= GRANT and not state.fin_received:
            self._put(CREDIT, stream, NUMBER.pack(state.consumed))
            state.allowed += state.consumed
            state.consumed = 0

    def fin(self, stream: int, unheard: bool = False) -> None:
        """End our direction after the queued bytes; `unheard` tells the peer that none of its bytes has arrived yet."""
        state = self._writable(stream)
        state.ending, state.unheard = True, unheard
        self._schedule(state)

    def reset(self, stream: int) -> None:
        """End a stream both ways, and drop the bytes that are queued. It has no effect on one that has ended."""
        self._reset(stream, False)

    def _reset(self, stream: int, unheard: bool) -> None:
        if stream in self._streams:
            self._end(stream, pack_frame(RST, stream, UNHEARD if unheard else b""))

    def break_off(self, stream: int, unheard: bool = False) -> None:
        """End a stream both ways, after the bytes that are queued; no effect on one that has ended.

        If the peer reads nothing more, that happens only at `close`. `unheard` is as for `fin`.
        """
        state = self._streams.get(stream)
        if state is not None and state.queue and not self._closing:
            state.resetting, state.unheard = True, unheard
        else:
            self._reset(stream, unheard)

    # Datagrams

    def datagram(self, channel: int, data: bytes) -> None:
        """Queue a datagram. Beyond `MAX_DATAGRAMS` the oldest one of the least important channel is dropped.

        `Lost` tells the peer how many were dropped, those included that are too long for a frame.
        """
        if self._closing:
            raise ValueError("No datagram can be sent: closing.")
        if len(data) > MAX_PAYLOAD:
            self.lose(channel, 1)
            return
        self.datagrams += 1
        self._datagrams[channel].append(pack_frame(DATAGRAM, channel, data))
        self._datagram_bytes += _cost(data)
        while self._datagram_bytes > MAX_DATAGRAMS:
            dropped = max(channel for channel in CHANNELS if self._datagrams[channel])
            self._pop_datagram(dropped)
            self._lost[dropped] += 1

    @property
    def has_datagram_room(self) -> bool:
        """Whether less than half of what may wait does."""
        return self._datagram_bytes < MAX_DATAGRAMS // 2 and not self._closing

    def lose(self, channel: int, count: int) -> None:
        """Tell the peer by `Lost` of datagrams that were lost before they could be queued."""
        self._lost[channel] += count
        self.datagrams += count

    # To the wire

    def take(self, limit: int = MAX_PAYLOAD) -> bytes:
        """The bytes to write now: whole frames until `limit` is reached, or all there are.

        The caller keeps the bytes that the wire does not take at once. The last frame may exceed the
        limit.
        """
        out = bytearray()
        if self._over:
            out += self._farewell or b""
            self._farewell = None
        elif self._greeting:
            self._take_frames(out, limit)
        return bytes(out)

    def send(self) -> bytes:
        out = bytearray()
        while data := self.take(1 << 20):
            out += data
        return bytes(out)

    def _take_frames(self, out: bytearray, limit: int) -> None:
        """Append frames: control frames first, then datagrams for one turn, then one stream for one turn, and so on."""
        before = -1
        while before < len(out) < limit:
            before = len(out)
            self._take_control(out, limit)
            self._take_datagrams(out, min(limit, len(out) + SLICE))
            if len(out) < limit:
                self._take_slice(out)
        if before == len(out) and self._closing and not self._bye_sent and self._all_sent():
            self._bye_sent = True
            out += pack_frame(BYE, 0)

    def _take_control(self, out: bytearray, limit: int) -> None:
        while self._control and len(out) < limit:
            frame = self._control.popleft()
            out += frame
            if frame[0] == RST:
                self._forget_answered(frame)
        if self._control:
            return
        if self._pong is not None:
            out += pack_frame(PONG, 0, NUMBER.pack(self._pong))
            self._pong = None
        if self._pings_sent < self._pings:
            self._pings_sent = self._pings
            out += pack_frame(PING, 0, NUMBER.pack(self._pings))

    def _take_datagrams(self, out: bytearray, limit: int) -> None:
        for channel in CHANNELS:
            if lost := self._lost[channel]:
                out += pack_frame(LOST, channel, NUMBER.pack(lost))
                self._lost[channel] = 0
            while self._datagrams[channel] and len(out) < limit:
                out += self._pop_datagram(channel)

    def _take_slice(self, out: bytearray) -> None:
        """Streams that have ended while they waited are skipped."""
        while self._turns:
            state = self._turns.popleft()
            state.scheduled = False
            if self._streams.get(state.number) is state:
                self._take_from(state, out)
                return

    def _take_from(self, state: _Stream, out: bytearray) -> None:
        size = min(len(state.queue), state.credit, SLICE)
        if size:
            out += HEADER.pack(DATA, state.number, size)
            out += memoryview(state.queue)[:size]
            del state.queue[:size]
            state.credit -= size
        if state.crowded and len(state.queue) <= WINDOW // 2:
            state.crowded = False
            self._drained[state.number] = None
        if state.resetting and not state.queue:
            self._reset(state.number, state.unheard)
        elif state.ending and not state.queue:
            state.fin_sent = True
            out += pack_frame(FIN, state.number, UNHEARD if state.unheard else b"")
            self._forget_finished(state)
        else:
            self._schedule(state)

    def _all_sent(self) -> bool:
        """It is called when nothing is left that can be sent without credit."""
        return not any(state.queue for state in self._streams.values())

    # From the wire

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[MuxEvent]:
        """Take bytes that were read, cut anywhere, and return an iterator of their events.

        Events that are not iterated over come with the next call. After our `fail`, or the peer's, there
        are none.

        Raises:
            ProtocolError: The peer broke the protocol; every later call raises it too. Call `fail` with
                the error's text.
        """
        if self._error is not None:
            raise ProtocolError(self._error)
        del self._buffer[: self._offset]
        self._offset = 0
        if not self._over:
            self._buffer += data
        return self._events()

    def _events(self) -> Iterator[MuxEvent]:
        while (frame := self._next_frame()) is not None:
            kind, number, payload = frame
            event = _HANDLERS[kind](self, number, payload)
            if event is not None:
                yield event

    def _next_frame(self) -> tuple[int, int, bytes] | None:
        start, have = self._offset, len(self._buffer)
        if self._over or have - start < HEADER.size:
            return None
        kind, number, length = HEADER.unpack_from(self._buffer, start)
        self._check_header(kind, number, length)
        start += HEADER.size
        if have - start < length:
            return None
        self._offset = start + length
        return kind, number, bytes(memoryview(self._buffer)[start : self._offset])

    def _check_header(self, kind: int, number: int, length: int) -> None:
        shortest, longest = LENGTHS.get(kind, (0, -1))
        if not self._greeted and not (kind in FIRST_FRAMES and shortest <= length <= longest):
            begin = bytes(self._buffer[self._offset : self._offset + 64])
            raise self._violation(f"does not begin with HELLO, but with {begin!r}")
        if not shortest <= length <= longest:
            raise self._violation(f"sent a frame of type {kind} with {length} bytes")
        if kind in CONNECTION_FRAMES and number:
            raise self._violation(f"sent a frame of type {kind} on stream {number}")
        if self._bye_received and kind in BEFORE_BYE:
            raise self._violation(f"sent a frame of type {kind} after BYE")

    def _on_hello(self, _: int, payload: bytes) -> MuxEvent:
        version, ipv6 = GREETING.unpack_from(payload)
        if version != VERSION:
            raise self._violation(f"speaks version {version} of the link, not {VERSION}")
        if self._greeted:
            raise self._violation("sent HELLO twice")
        self._greeted = True
        return Hello(bool(ipv6), unpack_text(payload[GREETING.size :]))

    def _on_open(self, number: int, payload: bytes) -> MuxEvent | None:
        if number != self._next[self._peer]:
            raise self._violation(f"opened stream {number}, not {self._next[self._peer]}")
        if self._known[self._peer] == MAX_STREAMS:
            raise self._violation(f"opened more than {MAX_STREAMS} streams")
        self._add(self._peer)
        if self._closing:
            self.reset(number)
            return None
        return Open(number, payload)

    def _on_opened(self, number: int, _: bytes) -> MuxEvent | None:
        state = self._live(number)
        if state is None:
            return None
        if state.theirs or state.answered:
            raise self._violation(f"accepted stream {number} out of turn")
        state.answered = True
        return Opened(number)

    def _on_refused(self, number: int, payload: bytes) -> MuxEvent | None:
        state = self._live(number)
        if state is not None and (state.theirs or state.answered):
            raise self._violation(f"refused stream {number} out of turn")
        if self._on_rst(number, b"") is None:
            return None
        (code,) = ERRNO.unpack_from(payload)
        return Refused(number, code, unpack_text(payload[ERRNO.size :]))

    def _on_data(self, number: int, payload: bytes) -> MuxEvent | None:
        state = self._live(number)
        if state is None:
            return None
        if not state.readable:
            raise self._violation(f"sent data on stream {number} out of turn")
        if len(payload) > state.allowed:
            raise self._violation(f"sent more on stream {number} than its credit")
        state.allowed -= len(payload)
        return Data(number, payload)

    def _on_credit(self, number: int, payload: bytes) -> None:
        state = self._streams.get(number)
        if state is None:
            self._check_was_open(number)  # the peer may still read a stream that we have finished
            return
        (count,) = NUMBER.unpack(payload)
        if state.credit + count > WINDOW:
            raise self._violation(f"granted more on stream {number} than its window")
        state.credit += count
        self._schedule(state)

    def _on_fin(self, number: int, payload: bytes) -> MuxEvent | None:
        state = self._live(number)
        if state is None:
            # If our FIN was sent too, the peer has forgotten the stream, and will not answer our RST.
            if self._resets[number]:
                self._forget_reset(number)
            return None
        if not state.readable:
            raise self._violation(f"sent FIN on stream {number} out of turn")
        state.fin_received = True
        self._forget_finished(state)
        return Fin(number, payload == UNHEARD)

    def _on_rst(self, number: int, payload: bytes) -> MuxEvent | None:
        if number in self._resets:
            self._forget_reset(number)
            return None
        if number not in self._streams:
            self._check_was_open(number)  # the RST and our last FIN crossed on the way
            return None
        self._drop(number)
        self._answers.add(number)
        self._put(RST, number)
        return StreamReset(number, payload == UNHEARD)

    def _on_datagram(self, channel: int, payload: bytes) -> MuxEvent:
        self._check_channel(channel)
        return MuxDatagram(channel, payload)

    def _on_lost(self, channel: int, payload: bytes) -> MuxEvent:
        self._check_channel(channel)
        return Lost(channel, NUMBER.unpack(payload)[0])

    def _on_ping(self, _: int, payload: bytes) -> None:
        (self._pong,) = NUMBER.unpack(payload)

    def _on_pong(self, _: int, payload: bytes) -> MuxEvent:
        (number,) = NUMBER.unpack(payload)
        if not 0 < number <= self._pings_sent:
            raise self._violation(f"answered ping {number}, which was not sent")
        return Pong(number)

    def _on_error(self, _: int, payload: bytes) -> MuxEvent:
        self._stop()
        return Failed(unpack_text(payload))

    def _on_bye(self, _: int, __: bytes) -> MuxEvent:
        self._bye_received = True
        self._put(BYE_ACK, 0)
        return Bye()

    def _on_bye_ack(self, _: int, __: bytes) -> MuxEvent:
        if not self._bye_sent:
            raise self._violation("acknowledged a BYE that was not sent")
        return ByeAcknowledged()

    # Streams and frames, by number

    def _add(self, opener: int) -> _Stream:
        state = _Stream(self._next[opener], opener != self._side)
        self._next[opener] += 2
        self._known[opener] += 1
        self._streams[state.number] = state
        return state

    def _live(self, number: int) -> _Stream | None:
        """None for a stream that we have reset, whose frames are dropped."""
        state = self._streams.get(number)
        if state is None and number not in self._resets:
            raise self._violation(f"sent a frame on stream {number}, which is not open")
        return state

    def _check_was_open(self, number: int) -> None:
        if not 0 < number < self._next[_opener(number)]:
            raise self._violation(f"sent a frame on stream {number}, which was never open")

    def _check_channel(self, channel: int) -> None:
        if channel not in CHANNELS:
            raise self._violation(f"sent a datagram on channel {channel}")

    def _writable(self, number: int) -> _Stream:
        state = self._streams.get(number)
        if state is None or not state.writable or self._closing:
            raise ValueError(f"Stream {number} cannot be written to.")
        return state

    def _unanswered(self, number: int) -> _Stream:
        state = self._streams.get(number)
        if state is None or not state.theirs or state.answered or self._closing:
            raise ValueError(f"Stream {number} does not wait for an answer.")
        return state

    def _schedule(self, state: _Stream) -> None:
        if state.sendable and not state.scheduled:
            state.scheduled = True
            self._turns.append(state)

    def _put(self, kind: int, number: int, payload: bytes = b"") -> None:
        self._control.append(pack_frame(kind, number, payload))

    def _pop_datagram(self, channel: int) -> bytes:
        frame = self._datagrams[channel].popleft()
        self._datagram_bytes -= _cost(frame) - HEADER.size
        return frame

    def _end(self, number: int, frame: bytes) -> None:
        self._resets[number] = self._drop(number).fin_sent
        self._control.append(frame)

    def _drop(self, number: int) -> _Stream:
        state = self._streams.pop(number)
        state.queue.clear()  # `_turns` may still hold the stream
        return state

    def _forget_reset(self, number: int) -> None:
        del self._resets[number]
        self._known[_opener(number)] -= 1

    def _forget_finished(self, state: _Stream) -> None:
        if state.fin_sent and state.fin_received:
            del self._streams[state.number]
            self._known[_opener(state.number)] -= 1

    def _forget_answered(self, frame: bytes) -> None:
        """Free the id of a stream if this RST is an answer: the peer reads it before any later OPEN of ours."""
        number = HEADER.unpack_from(frame)[1]
        if number in self._answers:
            self._answers.remove(number)
            self._known[_opener(number)] -= 1

    def _stop(self) -> None:
        """Drop everything: nothing more is read, and nothing is sent but the farewell of `fail`."""
        self._over = self._closing = True
        self._streams.clear()
        self._resets.clear()
        self._answers.clear()
        self._turns.clear()
        self._control.clear()
        self._buffer.clear()
        self._offset = 0
        for queue in self._datagrams:
            queue.clear()

    def _violation(self, what: str) -> ProtocolError:
        self._stop()
        self._error = f"The peer {what}."
        return ProtocolError(self._error)


def _cost(data: bytes) -> int:
    return len(data) + _QUEUED_BYTES


def _opener(number: int) -> int:
    return AGENT if number & 1 else HOST


_HANDLERS: dict[int, Callable[[Mux, int, bytes], MuxEvent | None]] = {
    HELLO: Mux._on_hello,
    OPEN: Mux._on_open,
    OPENED: Mux._on_opened,
    REFUSED: Mux._on_refused,
    DATA: Mux._on_data,
    CREDIT: Mux._on_credit,
    FIN: Mux._on_fin,
    RST: Mux._on_rst,
    DATAGRAM: Mux._on_datagram,
    LOST: Mux._on_lost,
    PING: Mux._on_ping,
    PONG: Mux._on_pong,
    ERROR: Mux._on_error,
    BYE: Mux._on_bye,
    BYE_ACK: Mux._on_bye_ack,
}
