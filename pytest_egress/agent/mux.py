"""The framing of the stream link: streams, datagrams and a heartbeat over one reliable byte stream.

Sans-IO, and the same on both sides: it never touches a socket, a clock or a thread, and a caller with
threads holds a lock around it. Whatever bytes come, `receive` yields events or raises
`ProtocolError`, and never anything else. Every queue is bounded; who must stop is told by `room`.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
else:
    from _collections import deque  # what collections is written around, without its import time

VERSION = 1
"""Of the framing. Both sides come from one installation: another one is a leftover of an upgrade."""

AGENT, HOST = 1, 2
"""The two sides, which are also their first stream ids: the agent's are odd, the host's even."""

MAX_PAYLOAD = 65535
"""Bytes in a frame: any UDP datagram (at most 65,507) fits one with an address in front of it."""

MAX_TEXT = 4096
"""Bytes of what is no data: an address, a sentence. A longer sentence is cut."""

SLICE = 32768
"""Bytes that a stream, or datagrams together, may send before it is another's turn: what an engine
passes on at once. At the 300 MB/s of an attach the others wait for 0.1 ms."""

WINDOW = 262144
"""Bytes of a stream that may be under way or unread, and that its sender may queue: at 300 MB/s
enough for a round trip of 0.8 ms, where an attach takes 0.14 ms."""

GRANT = WINDOW // 4
"""Bytes that are read before one CREDIT gives them back: a frame of 11 bytes for each 65,536."""

MAX_STREAMS = 2048
"""Streams that either side may have opened and that have not ended: twice the connections that the
gateway serves at once, as those that end overlap with those that begin."""

MAX_DATAGRAMS = 4 << 20
"""Bytes of datagrams that wait for the wire, as many as the kernel keeps on a socket of ours."""

DNS, MONITORS, PACKETS = CHANNELS = range(3)
"""Channels of datagrams, the most precious first: it is sent first, and dropped when no other is left
to be dropped. A flood of packets hides neither a query nor a change of the rules."""

_HEADER = Struct("!BIH")  # type, stream id or channel, length of the payload
_NUMBER = Struct("!I")
_GREETING = Struct("!HB")  # version, whether there is IPv6
_ERRNO = Struct("!H")
_HELLO, _OPEN, _OPENED, _REFUSED, _DATA, _CREDIT, _FIN, _RST = range(1, 9)
_DATAGRAM, _LOST, _PING, _PONG, _ERROR, _BYE, _BYE_ACK = range(9, 16)
_UNHEARD = b"\1"  # in FIN and RST
_QUEUED_BYTES = 64  # that an object in a queue takes besides its content


class ProtocolError(Exception):
    """The peer broke the rules of the framing; the text is a sentence that says how."""


class Event:
    """Something that the peer did. Two are equal when they are of one kind and so are their fields.

    Written out, as importing dataclasses or typing would double what the agent imports.
    """

    __slots__: tuple[str, ...] = ()

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._fields() == self._fields()

    def __hash__(self) -> int:
        return hash((type(self), self._fields()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Hello(Event):
    """The peer is there: whether it has IPv6, and what it says of itself."""

    __slots__ = __match_args__ = ("ipv6", "text")

    def __init__(self, ipv6: bool, text: str) -> None:
        self.ipv6 = ipv6
        self.text = text


class Open(Event):
    """The peer opened a stream, for the purpose that it says: to be accepted, refused or reset."""

    __slots__ = __match_args__ = ("stream", "purpose")

    def __init__(self, stream: int, purpose: bytes) -> None:
        self.stream = stream
        self.purpose = purpose


class Opened(Event):
    """The peer accepted a stream of ours."""

    __slots__ = __match_args__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class Refused(Event):
    """The peer refused a stream of ours, which has ended: an errno, and a sentence."""

    __slots__ = __match_args__ = ("stream", "number", "text")

    def __init__(self, stream: int, number: int, text: str) -> None:
        self.stream = stream
        self.number = number
        self.text = text


class Data(Event):
    """The next bytes of a stream; `Mux.consumed` tells when they have been read."""

    __slots__ = __match_args__ = ("stream", "data")

    def __init__(self, stream: int, data: bytes) -> None:
        self.stream = stream
        self.data = data


class Fin(Event):
    """The peer sends nothing more on a stream; we still may.

    It may say that whoever it copies to has got nothing so far of what we sent.
    """

    __slots__ = __match_args__ = ("stream", "unheard")

    def __init__(self, stream: int, unheard: bool = False) -> None:
        self.stream = stream
        self.unheard = unheard


class Reset(Event):
    """The peer ended a stream, both ways; what we had queued on it is dropped.

    It may say that whoever it copied to had got nothing of what we sent.
    """

    __slots__ = __match_args__ = ("stream", "unheard")

    def __init__(self, stream: int, unheard: bool = False) -> None:
        self.stream = stream
        self.unheard = unheard


class Datagram(Event):
    """A datagram of a channel."""

    __slots__ = __match_args__ = ("channel", "data")

    def __init__(self, channel: int, data: bytes) -> None:
        self.channel = channel
        self.data = data


class Lost(Event):
    """The peer had to drop so many datagrams of a channel since it last said so."""

    __slots__ = __match_args__ = ("channel", "count")

    def __init__(self, channel: int, count: int) -> None:
        self.channel = channel
        self.count = count


class Pong(Event):
    """The peer answers our ping of this number, and with it every earlier one."""

    __slots__ = __match_args__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Failed(Event):
    """The peer gave up, and says why; nothing follows."""

    __slots__ = __match_args__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Bye(Event):
    """The peer has nothing more to send; all that it had queued has arrived."""

    __slots__ = ()


class ByeAcknowledged(Event):
    """All that we had queued has arrived at the peer: it is safe to end."""

    __slots__ = ()


class _Stream:
    """One stream that has not ended.

    Attributes:
        theirs: Whether the peer opened it.
        answered: Whether it has been accepted, by whoever did not open it.
        queue: Bytes that wait for credit or for the wire.
        credit: Bytes that we may still send.
        allowed: Bytes that the peer may still send.
        consumed: Bytes that were read and are not granted again yet.
        crowded: Whether `queue` was more than half full, and has not been told to be less so.
        scheduled: Whether it waits for its turn to send.
        ending: Whether a FIN follows the queue.
        fin_sent, fin_received: Whether a direction has ended.
        unheard: Whether FIN or RST says that nobody got what the peer sent.
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
        """Whether we may queue data: pipelined on a stream of ours, after accepting one of theirs."""
        return (self.answered or not self.theirs) and not self.ending and not self.resetting

    @property
    def readable(self) -> bool:
        """Whether the peer may send data."""
        return (self.answered or self.theirs) and not self.fin_received

    @property
    def sendable(self) -> bool:
        """Whether it has something for the wire now."""
        if self.queue:
            return self.credit > 0
        return self.ending and not self.fin_sent


class Mux:
    """One end of the link.

    Methods queue frames; `take` gives the bytes to write, `receive` takes those that were read. A
    method that is called out of turn raises ValueError: that is a mistake of the caller.

    A reset (or refused) stream is over at once here, but its id is kept until the peer has answered
    RST with RST: until then what it sent before is dropped.

    Args:
        side: `AGENT` or `HOST`.
        most: How many streams it may open at once, `MAX_STREAMS` at most.
    """

    def __init__(self, side: int, most: int = MAX_STREAMS) -> None:
        self._side, self._most = side, most
        self._peer = AGENT + HOST - side
        self._next = {AGENT: AGENT, HOST: HOST}  # the id of the next stream that each opens
        self._known = {AGENT: 0, HOST: 0}  # streams by who opened them, until both sides forget
        self._streams: dict[int, _Stream] = {}
        self._resets: dict[int, bool] = {}  # reset by us, not answered; whether our FIN was sent
        self._answers: set[int] = set()  # reset by the peer; our RST waits for the wire
        self._turns: deque[_Stream] = deque()
        self._drained: dict[int, None] = {}

        self._control: deque[bytes] = deque()
        self._datagrams: list[deque[bytes]] = [deque() for _ in CHANNELS]
        self._datagram_bytes = 0
        self._lost = [0 for _ in CHANNELS]
        self._pings = self._pings_sent = 0
        self._pong: int | None = None

        self._buffer = bytearray()
        self._offset = 0  # in the buffer: what is before it has been parsed
        self._error: str | None = None
        self._farewell: bytes | None = None  # after `fail`: the one frame to send
        self._greeting = self._greeted = False  # HELLO queued; HELLO received
        self._closing = self._bye_sent = self._bye_received = self._over = False

    # The connection

    def hello(self, ipv6: bool = False, text: str = "") -> None:
        """Queue the frame that comes first, once; until then `take` gives nothing."""
        if self._greeting:
            raise ValueError("HELLO comes once.")
        self._greeting = True
        self._control.appendleft(_frame(_HELLO, 0, _GREETING.pack(VERSION, ipv6) + _text(text)))

    def ping(self) -> int:
        """Queue a heartbeat. Of those that wait for the wire the latest is sent, and answers for all.

        Returns:
            Its number, counted from 1, which `Pong` carries.
        """
        self._pings += 1
        return self._pings

    def close(self) -> None:
        """Queue nothing more and say BYE once all that is queued has been sent.

        Data that waits for credit holds it back: reset what is not to be waited for. Streams that
        the peer still opens are reset unseen.
        """
        self._closing = True
        for stream in [number for number, state in self._streams.items() if state.resetting]:
            self.reset(stream)

    def fail(self, text: str) -> None:
        """Give up: drop everything, and tell the peer why; that frame is the last."""
        self._stop()
        self._farewell = _frame(_ERROR, 0, _text(text))

    # Streams

    @property
    def openable(self) -> int:
        """How many more streams may be opened now: accept no more connections than that."""
        return 0 if self._closing else self._most - self._known[self._side]

    def open(self, purpose: bytes) -> int:
        """Open a stream. Data may follow at once, the answer is not to be waited for.

        Args:
            purpose: What it is for, at most `MAX_TEXT` bytes.

        Returns:
            Its id.
        """
        if not self.openable or len(purpose) > MAX_TEXT:
            raise ValueError("No stream can be opened: closing, too many, or too long a purpose.")
        number = self._add(self._side).number
        self._put(_OPEN, number, purpose)
        return number

    def accept(self, stream: int) -> None:
        """Accept a stream that the peer opened; only then it may be written to."""
        self._unanswered(stream).answered = True
        self._put(_OPENED, stream)

    def refuse(self, stream: int, number: int, text: str = "") -> None:
        """Refuse a stream that the peer opened, with an errno and a sentence."""
        self._unanswered(stream)
        self._end(stream, _frame(_REFUSED, stream, _ERRNO.pack(number) + _text(text)))

    def write(self, stream: int, data: bytes | bytearray | memoryview) -> None:
        """Queue data, at most `room` bytes of it."""
        state = self._writable(stream)
        if len(state.queue) + len(data) > WINDOW:
            raise ValueError(f"Stream {stream} has room for {self.room(stream)} bytes.")
        state.queue += data
        state.crowded = state.crowded or len(state.queue) > WINDOW // 2
        self._schedule(state)

    def pending(self, stream: int) -> int:
        """How many bytes of a stream wait for credit or for the wire; 0 once it has ended."""
        state = self._streams.get(stream)
        return len(state.queue) if state else 0

    def room(self, stream: int) -> int:
        """How many bytes `write` takes now. At 0 stop reading their source, until `drained`."""
        state = self._streams.get(stream)
        return WINDOW - len(state.queue) if state and state.writable and not self._closing else 0

    def drained(self) -> list[int]:
        """The streams that were more than half full and no longer are, each told once."""
        drained = [stream for stream in self._drained if stream in self._streams]
        self._drained.clear()
        return drained

    def consumed(self, stream: int, count: int) -> None:
        """Tell that so many bytes of a stream's data have been read; the peer may send as many more.

        Without effect on a stream that has ended meanwhile.
        """
        state = self._streams.get(stream)
        if state is None:
            return
        if not 0 <= count <= WINDOW - state.allowed - state.consumed:
            raise ValueError(f"Stream {stream} has not received {count} bytes that are unread.")
        state.consumed += count
        if state.consumed >= GRANT and not state.fin_received:
            self._put(_CREDIT, stream, _NUMBER.pack(state.consumed))
            state.allowed += state.consumed
            state.consumed = 0

    def fin(self, stream: int, unheard: bool = False) -> None:
        """End our direction of a stream, after what is queued.

        Args:
            stream: Its number.
            unheard: Tell the peer that nobody has got yet what it sent.
        """
        state = self._writable(stream)
        state.ending, state.unheard = True, unheard
        self._schedule(state)

    def reset(self, stream: int) -> None:
        """End a stream both ways and drop what is queued. Without effect on one that has ended."""
        self._reset(stream, False)

    def _reset(self, stream: int, unheard: bool) -> None:
        if stream in self._streams:
            self._end(stream, _frame(_RST, stream, _UNHEARD if unheard else b""))

    def break_off(self, stream: int, unheard: bool = False) -> None:
        """End a stream both ways, after what is queued; a reader that has stopped holds it back until `close`.

        Without effect on one that has ended.

        Args:
            stream: Its number.
            unheard: Tell the peer that nobody got what it sent.
        """
        state = self._streams.get(stream)
        if state is not None and state.queue and not self._closing:
            state.resetting, state.unheard = True, unheard
        else:
            self._reset(stream, unheard)

    # Datagrams

    def datagram(self, channel: int, data: bytes) -> None:
        """Queue a datagram. Beyond `MAX_DATAGRAMS` the oldest of the least precious channel is lost.

        The peer is told how many are (`Lost`); so is one that no frame can hold.
        """
        if self._closing:
            raise ValueError("No datagram can be sent: closing.")
        if len(data) > MAX_PAYLOAD:
            self._lost[channel] += 1
            return
        self._datagrams[channel].append(_frame(_DATAGRAM, channel, data))
        self._datagram_bytes += _cost(data)
        while self._datagram_bytes > MAX_DATAGRAMS:
            dropped = max(channel for channel in CHANNELS if self._datagrams[channel])
            self._pop_datagram(dropped)
            self._lost[dropped] += 1

    # To the wire

    def take(self, limit: int = MAX_PAYLOAD) -> bytes:
        """The bytes to write now: whole frames, as many as it takes to reach `limit`, or all.

        The caller keeps what the wire does not take at once. The last frame may go beyond the limit;
        none is kept back for that.
        """
        out = bytearray()
        if self._over:
            out += self._farewell or b""
            self._farewell = None
        elif self._greeting:
            self._take_frames(out, limit)
        return bytes(out)

    def send(self) -> bytes:
        """All bytes that can be written now."""
        out = bytearray()
        while data := self.take(1 << 20):
            out += data
        return bytes(out)

    def _take_frames(self, out: bytearray, limit: int) -> None:
        """Control frames go first, then it is the datagrams' turn, then one stream's."""
        before = -1
        while before < len(out) < limit:
            before = len(out)
            self._take_control(out, limit)
            self._take_datagrams(out, min(limit, len(out) + SLICE))
            if len(out) < limit:
                self._take_slice(out)
        if before == len(out) and self._closing and not self._bye_sent and self._all_sent():
            self._bye_sent = True
            out += _frame(_BYE, 0)

    def _take_control(self, out: bytearray, limit: int) -> None:
        while self._control and len(out) < limit:
            frame = self._control.popleft()
            out += frame
            if frame[0] == _RST:
                self._forget_answered(frame)
        if self._control:
            return
        if self._pong is not None:
            out += _frame(_PONG, 0, _NUMBER.pack(self._pong))
            self._pong = None
        if self._pings_sent < self._pings:
            self._pings_sent = self._pings
            out += _frame(_PING, 0, _NUMBER.pack(self._pings))

    def _take_datagrams(self, out: bytearray, limit: int) -> None:
        for channel in CHANNELS:
            if lost := self._lost[channel]:
                out += _frame(_LOST, channel, _NUMBER.pack(lost))
                self._lost[channel] = 0
            while self._datagrams[channel] and len(out) < limit:
                out += self._pop_datagram(channel)

    def _take_slice(self, out: bytearray) -> None:
        """Send from the stream whose turn it is; those that ended while they waited have none."""
        while self._turns:
            state = self._turns.popleft()
            state.scheduled = False
            if self._streams.get(state.number) is state:
                self._take_from(state, out)
                return

    def _take_from(self, state: _Stream, out: bytearray) -> None:
        size = min(len(state.queue), state.credit, SLICE)
        if size:
            out += _HEADER.pack(_DATA, state.number, size)
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
            out += _frame(_FIN, state.number, _UNHEARD if state.unheard else b"")
            self._forget_finished(state)
        else:
            self._schedule(state)

    def _all_sent(self) -> bool:
        """Whether nothing waits for credit either; asked when nothing is left that can be sent."""
        return not any(state.queue for state in self._streams.values())

    # From the wire

    def receive(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """Take bytes that were read, cut anywhere, and yield what they mean.

        What is not iterated over is yielded by the next call. After our `fail`, or the peer's, nothing
        is.

        Raises:
            ProtocolError: The peer broke the rules, from then on at each call. What remains is to
                `fail` with the error's text.
        """
        if self._error is not None:
            raise ProtocolError(self._error)
        del self._buffer[: self._offset]
        self._offset = 0
        if not self._over:
            self._buffer += data
        return self._events()

    def _events(self) -> Iterator[Event]:
        while (frame := self._next_frame()) is not None:
            kind, number, payload = frame
            event = _HANDLERS[kind](self, number, payload)
            if event is not None:
                yield event

    def _next_frame(self) -> tuple[int, int, bytes] | None:
        start, have = self._offset, len(self._buffer)
        if self._over or have - start < _HEADER.size:
            return None
        kind, number, length = _HEADER.unpack_from(self._buffer, start)
        self._check_header(kind, number, length)
        start += _HEADER.size
        if have - start < length:
            return None
        self._offset = start + length
        return kind, number, bytes(memoryview(self._buffer)[start : self._offset])

    def _check_header(self, kind: int, number: int, length: int) -> None:
        shortest, longest = _LENGTHS.get(kind, (0, -1))
        if not self._greeted and not (kind in _FIRST and shortest <= length <= longest):
            begin = bytes(self._buffer[self._offset : self._offset + 64])
            raise self._violation(f"does not begin with HELLO, but with {begin!r}")
        if not shortest <= length <= longest:
            raise self._violation(f"sent a frame of type {kind} with {length} bytes")
        if kind in _OF_CONNECTION and number:
            raise self._violation(f"sent a frame of type {kind} on stream {number}")
        if self._bye_received and kind in _BEFORE_BYE:
            raise self._violation(f"sent a frame of type {kind} after BYE")

    def _on_hello(self, _: int, payload: bytes) -> Event:
        version, ipv6 = _GREETING.unpack_from(payload)
        if version != VERSION:
            raise self._violation(f"speaks version {version} of the link, not {VERSION}")
        if self._greeted:
            raise self._violation("sent HELLO twice")
        self._greeted = True
        return Hello(bool(ipv6), _decoded(payload[_GREETING.size :]))

    def _on_open(self, number: int, payload: bytes) -> Event | None:
        if number != self._next[self._peer]:
            raise self._violation(f"opened stream {number}, not {self._next[self._peer]}")
        if self._known[self._peer] == MAX_STREAMS:
            raise self._violation(f"opened more than {MAX_STREAMS} streams")
        self._add(self._peer)
        if self._closing:
            self.reset(number)
            return None
        return Open(number, payload)

    def _on_opened(self, number: int, _: bytes) -> Event | None:
        state = self._live(number)
        if state is None:
            return None
        if state.theirs or state.answered:
            raise self._violation(f"accepted stream {number} out of turn")
        state.answered = True
        return Opened(number)

    def _on_refused(self, number: int, payload: bytes) -> Event | None:
        state = self._live(number)
        if state is not None and (state.theirs or state.answered):
            raise self._violation(f"refused stream {number} out of turn")
        if self._on_rst(number, b"") is None:
            return None
        (code,) = _ERRNO.unpack_from(payload)
        return Refused(number, code, _decoded(payload[_ERRNO.size :]))

    def _on_data(self, number: int, payload: bytes) -> Event | None:
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
            self._check_was_open(number)  # one that we finished may still be read from
            return
        (count,) = _NUMBER.unpack(payload)
        if state.credit + count > WINDOW:
            raise self._violation(f"granted more on stream {number} than its window")
        state.credit += count
        self._schedule(state)

    def _on_fin(self, number: int, payload: bytes) -> Event | None:
        state = self._live(number)
        if state is None:
            if self._resets[number]:  # both directions had their FIN: our RST will not be answered
                self._forget_reset(number)
            return None
        if not state.readable:
            raise self._violation(f"sent FIN on stream {number} out of turn")
        state.fin_received = True
        self._forget_finished(state)
        return Fin(number, payload == _UNHEARD)

    def _on_rst(self, number: int, payload: bytes) -> Event | None:
        if number in self._resets:
            self._forget_reset(number)
            return None
        if number not in self._streams:
            self._check_was_open(number)  # it crossed with our last FIN
            return None
        self._drop(number)
        self._answers.add(number)
        self._put(_RST, number)
        return Reset(number, payload == _UNHEARD)

    def _on_datagram(self, channel: int, payload: bytes) -> Event:
        self._check_channel(channel)
        return Datagram(channel, payload)

    def _on_lost(self, channel: int, payload: bytes) -> Event:
        self._check_channel(channel)
        return Lost(channel, _NUMBER.unpack(payload)[0])

    def _on_ping(self, _: int, payload: bytes) -> None:
        (self._pong,) = _NUMBER.unpack(payload)

    def _on_pong(self, _: int, payload: bytes) -> Event:
        (number,) = _NUMBER.unpack(payload)
        if not 0 < number <= self._pings_sent:
            raise self._violation(f"answered ping {number}, which was not sent")
        return Pong(number)

    def _on_error(self, _: int, payload: bytes) -> Event:
        self._stop()
        return Failed(_decoded(payload))

    def _on_bye(self, _: int, __: bytes) -> Event:
        self._bye_received = True
        self._put(_BYE_ACK, 0)
        return Bye()

    def _on_bye_ack(self, _: int, __: bytes) -> Event:
        if not self._bye_sent:
            raise self._violation("acknowledged a BYE that was not sent")
        return ByeAcknowledged()

    # What is known

    def _add(self, opener: int) -> _Stream:
        state = _Stream(self._next[opener], opener != self._side)
        self._next[opener] += 2
        self._known[opener] += 1
        self._streams[state.number] = state
        return state

    def _live(self, number: int) -> _Stream | None:
        """The stream; None for one that we have reset: what the peer sends on it is dropped."""
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
        self._control.append(_frame(kind, number, payload))

    def _pop_datagram(self, channel: int) -> bytes:
        frame = self._datagrams[channel].popleft()
        self._datagram_bytes -= _cost(frame) - _HEADER.size
        return frame

    def _end(self, number: int, frame: bytes) -> None:
        self._resets[number] = self._drop(number).fin_sent
        self._control.append(frame)

    def _drop(self, number: int) -> _Stream:
        state = self._streams.pop(number)
        state.queue.clear()  # it may still wait for its turn
        return state

    def _forget_reset(self, number: int) -> None:
        del self._resets[number]
        self._known[_opener(number)] -= 1

    def _forget_finished(self, state: _Stream) -> None:
        if state.fin_sent and state.fin_received:
            del self._streams[state.number]
            self._known[_opener(state.number)] -= 1

    def _forget_answered(self, frame: bytes) -> None:
        """Forget a stream if this RST is an answer: the peer forgets it before our next OPEN."""
        number = _HEADER.unpack_from(frame)[1]
        if number in self._answers:
            self._answers.remove(number)
            self._known[_opener(number)] -= 1

    def _stop(self) -> None:
        """Drop everything; nothing more is read, and nothing but a farewell sent."""
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


def _frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, number, len(payload)) + payload


def _cost(data: bytes) -> int:
    return len(data) + _QUEUED_BYTES


def _opener(number: int) -> int:
    return AGENT if number & 1 else HOST


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")[: MAX_TEXT - _GREETING.size]


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_LENGTHS = {
    _HELLO: (_GREETING.size, MAX_TEXT),
    _OPEN: (0, MAX_TEXT),
    _OPENED: (0, 0),
    _REFUSED: (_ERRNO.size, MAX_TEXT),
    _DATA: (1, MAX_PAYLOAD),
    _CREDIT: (_NUMBER.size, _NUMBER.size),
    _FIN: (0, len(_UNHEARD)),
    _RST: (0, len(_UNHEARD)),
    _DATAGRAM: (0, MAX_PAYLOAD),
    _LOST: (_NUMBER.size, _NUMBER.size),
    _PING: (_NUMBER.size, _NUMBER.size),
    _PONG: (_NUMBER.size, _NUMBER.size),
    _ERROR: (0, MAX_TEXT),
    _BYE: (0, 0),
    _BYE_ACK: (0, 0),
}
"""The least and the most bytes of each type's payload."""

_FIRST = (_HELLO, _ERROR)
_OF_CONNECTION = (_HELLO, _PING, _PONG, _ERROR, _BYE, _BYE_ACK)
_BEFORE_BYE = (_HELLO, _OPEN, _OPENED, _REFUSED, _DATA, _FIN, _DATAGRAM, _LOST, _BYE)

_HANDLERS: dict[int, Callable[[Mux, int, bytes], Event | None]] = {
    _HELLO: Mux._on_hello,
    _OPEN: Mux._on_open,
    _OPENED: Mux._on_opened,
    _REFUSED: Mux._on_refused,
    _DATA: Mux._on_data,
    _CREDIT: Mux._on_credit,
    _FIN: Mux._on_fin,
    _RST: Mux._on_rst,
    _DATAGRAM: Mux._on_datagram,
    _LOST: Mux._on_lost,
    _PING: Mux._on_ping,
    _PONG: Mux._on_pong,
    _ERROR: Mux._on_error,
    _BYE: Mux._on_bye,
    _BYE_ACK: Mux._on_bye_ack,
}
