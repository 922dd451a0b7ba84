"""The agent's part for the stream link: it keeps the namespace's sockets, and multiplexes them over standard streams.

It has one thread, which waits for the next event. It ends at end of file, when the test process sends BYE, or when that
has sent nothing for long. When it gives up, it sends the reason in one frame.
"""

from __future__ import annotations

import _socket
import errno
import posix
from struct import Struct
from time import monotonic

from .capabilities import give_up_raw
from .capture import (
    FRAMES,
    LISTENER,
    Capture,
    CaptureError,
    dropped,
    dropped_datagrams,
    target_addresses,
    untracked,
)
from .dials import Dials
from .direct import UNHEARD_BY, Direct, find_relay
from .flows import Flows
from .mux import AGENT, Mux
from .mux_frames import (
    DATAGRAMS,
    DNS,
    MONITORS,
    PACKETS,
    Bye,
    Data,
    Fin,
    MuxDatagram,
    MuxEvent,
    Open,
    Refused,
    StreamReset,
)
from .original_destination import original_destination
from .pump import READABLE, WRITABLE, Interests, Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Socket: TypeAlias = _socket.socket

CONNECT, PORT, FLUSH, DIALS, BROKEN = b"connect", b"port", b"flush", b"dials", b"broken"
"""The purposes of streams that the test process opens. `CONNECT` connects to a port of the target, whose number
follows; `PORT` carries datagrams to one, as `flows` has it. `FLUSH` is answered when everything that has happened so
far has been queued: with `QUEUED`, and with FIN. `DIALS` carries a message of `dials`, and is accepted when that is in
force. `BROKEN` asks about a connection of `direct`, whose number follows, that has broken off in stock: it is accepted
where that one had been joined, and refused where it had not."""

UNKNOWN = b"unknown"
"""Begins the purpose of a connection whose dialled address the kernel cannot tell; the reason follows."""

CLIENT = Struct("!BH16s")
"""Comes before each DNS message: the index of the socket in `Capture.dns`, the client's port and address."""

QUEUED = Struct("!QQ")
"""Answers `FLUSH`: how many datagrams have been queued since the start, those included that were lost; and how many
connections have gone by the relay's."""

DATAGRAM_SOCKET = "datagrams"
"""The feature, in the first message, of an agent that has the socket for datagrams."""

INPUT_CLOSED = "it ended since its input was closed on the way, and not by the test process"
"""The reason that is sent at end of file: a proxy may close one direction alone."""

BATCH = 64
"""How many datagrams, or connections, of one socket are handled before the next one gets its turn."""

ARRIVAL_SECONDS = 2.0
"""How long a flush waits for what is under way by the relay: a network that has gone acknowledges nothing."""

_LOOK_SECONDS = 0.002
_ALL_STREAMS = 1 << 30  # more than there ever are
_CHUNK = 1 << 18
_DATAGRAM, _ETHERNET = 1 << 16, 14
_IN_PROGRESS = (errno.EINPROGRESS, errno.EAGAIN)


def run(silent_seconds: float, most: int) -> None:
    """Capture, and serve until the test process has ended.

    Args:
        silent_seconds: How long the test process may send nothing. After that it counts as gone, although there
            was no end of file: its machine may have failed.
        most: How many connections of the target are carried at once; further ones wait.
    """
    mux = Mux(AGENT, most)
    wire = StandardStreams(mux)
    try:
        Agent(mux, wire, Capture(), Dials(), silent_seconds, find_relay()).run()
    except CaptureError as error:
        mux.fail(str(error))
    except Exception as error:  # the test process has to learn of any error
        mux.fail(f"The agent failed: {type(error).__name__}: {error}")
    wire.finish()


class StandardStreams:
    """The standard streams of the agent, which are pipes in a container."""

    def __init__(self, mux: Mux, input: int = 0, output: int = 1) -> None:
        self._mux = mux
        self.input, self.output = input, output
        self._unsent = b""

    def start(self) -> None:
        posix.set_blocking(self.input, False)
        posix.set_blocking(self.output, False)

    def read(self) -> bytes | None:
        """Return b"" where nothing has come yet, and None at the end of file."""
        try:
            return posix.read(self.input, _CHUNK) or None
        except BlockingIOError:
            return b""

    def write(self) -> bool:
        """Write what can be written without waiting; return whether more is left."""
        while self._unsent or self._fill():
            try:
                sent = posix.write(self.output, self._unsent)
            except BlockingIOError:
                return True
            self._unsent = self._unsent[sent:]
        return False

    def finish(self) -> None:
        """Write the last frames, waiting as long as that takes."""
        posix.set_blocking(self.output, True)
        try:  # noqa: SIM105 - contextlib takes long to import
            self.write()
        except OSError:
            pass  # the other end is closed

    def _fill(self) -> bool:
        self._unsent = self._mux.take()
        return bool(self._unsent)


class Dial:
    """A connection to the target that is being made for a stream; it tries one address after another."""

    def __init__(self, stream: int, port: int, addresses: list[tuple[int, str]]) -> None:
        self.stream, self.port, self.addresses = stream, port, addresses
        self.failure = 0
        self.sock: Socket | None = None


class Agent:
    """Serves one namespace; `silent_seconds` is as `run` takes it, and `relay` is that of `direct`."""

    def __init__(
        self,
        mux: Mux,
        wire: StandardStreams,
        capture: Capture,
        dials: Dials,
        silent_seconds: float,
        relay: Socket | None = None,
    ) -> None:
        self._mux, self._wire, self._capture, self._rules = mux, wire, capture, dials
        self._interests = Interests()
        self._pump = Pump(mux, self._interests)
        self._direct = Direct(relay, self._interests) if relay is not None else None
        self._telling: dict[int, Fin | StreamReset] = {}  # by stream: ends for the junction
        self._flows = Flows(mux, self._interests)
        self._work: dict[int, Callable[[], None]] = {}
        self._dials: dict[int, Dial] = {}  # by descriptor
        self._dialling: dict[int, Dial] = {}  # by stream
        self._flushes: list[int] = []
        self._under_way: dict[int, int] | None = None  # what they wait for, as `Direct` has it
        self._looking_since = 0.0
        self._changes: dict[int, bytes] = {}  # by stream: what has come of each message of `dials`
        self._resume_below: int | None = None  # set while connections stay in the backlog
        self._silent_seconds, self._last_read = silent_seconds, monotonic()
        self._dropped = 0  # packets, by the kernel
        self._reads_datagrams = True  # when this waits for the next event
        self._ethernet = bytes(12)  # the addresses in the header of what is sent to the target
        self._ended = False
        self._reason = ""  # of the end, where it is none that the test process wanted

    def run(self) -> None:
        self._wire.start()
        self._listen()
        frames = f" {FRAMES}" if self._capture.frames else ""
        datagrams = f" {DATAGRAM_SOCKET}" if self._capture.datagrams is not None else ""
        self._mux.hello(self._capture.ipv6, self._rules.feature + frames + datagrams)
        self._wire.write()
        give_up_raw()  # not before, since the test process waits
        while not self._ended:
            more = self._wire.write()
            self._pump.refresh()
            self._flows.refresh()
            self._read_datagrams_or_not()  # after writing, else nothing may ever wake this up
            self._interests.want(self._wire.output, WRITABLE if more else 0)
            at_once = self._flushes and self._reads_datagrams and not self._telling
            look_seconds = _LOOK_SECONDS if self._under_way else 0
            ready = self._interests.wait(look_seconds if at_once else self._silent_seconds)
            busy = False
            for descriptor, events in ready:
                if descriptor != self._wire.output:
                    busy = True
                    self._ready(descriptor, events)
            # Where datagrams are left in the kernel, that nothing can be read is no proof.
            if not busy and self._reads_datagrams and not self._telling:
                self._answer_flushes()
            self._tell_unheard()
            self._accept_or_not()
            self._check_silence()
        if self._direct is not None:
            self._direct.close()
        if self._reason:  # nobody reads it where the test process has been killed
            self._mux.fail(self._reason)
        self._wire.write()

    def _listen(self) -> None:
        capture = self._capture
        for sock in capture.sockets():
            sock.setblocking(False)
        for listener in capture.tcp:
            self._on(listener, self._accept)
        for index, names in enumerate(capture.dns):
            self._on(names, lambda sock, index=index: self._forward_queries(index, sock))  # type: ignore[misc]  # cannot infer
        if capture.datagrams is not None:
            self._on(capture.datagrams, self._forward_datagrams)
        self._on(capture.packets, lambda sock: self._forward(PACKETS, b"", sock))
        for index, monitor in enumerate(capture.monitors):
            prefix = bytes([index])
            self._on(monitor, lambda sock, prefix=prefix: self._forward(MONITORS, prefix, sock))  # type: ignore[misc]  # cannot infer
        self._work[self._wire.input] = self._read_wire
        for descriptor in self._work:
            self._interests.want(descriptor, READABLE)

    def _on(self, sock: Socket, action: Callable[[Socket], None]) -> None:
        self._work[sock.fileno()] = lambda: action(sock)

    def _ready(self, descriptor: int, events: int) -> None:
        if descriptor in self._work:
            self._work[descriptor]()
        elif descriptor in self._dials:
            self._finish_dial(self._dials.pop(descriptor))
        elif not self._flows.ready(descriptor) and not self._is_of_relay(descriptor, events):
            self._pump.ready(descriptor, events)

    def _is_of_relay(self, descriptor: int, events: int) -> bool:
        return self._direct is not None and self._direct.ready(descriptor, events)

    # Frames of the test process.

    def _read_wire(self) -> None:
        data = self._wire.read()
        self._last_read = monotonic()
        if data is None:
            self._ended, self._reason = True, INPUT_CLOSED
            return
        for event in self._mux.receive(data):
            self._handle(event)

    def _check_silence(self) -> None:
        """End where the test process has sent nothing for too long.

        It is called after everything that has arrived was read: this process may itself have been stopped meanwhile.
        """
        if monotonic() - self._last_read >= self._silent_seconds:
            self._mux.fail(f"it heard nothing of the test process for {self._silent_seconds:g} s")
            self._wire.write()
            raise SystemExit(1)  # without `StandardStreams.finish`, which could wait forever

    def _handle(self, event: MuxEvent) -> None:
        if isinstance(event, Open):
            self._handle_open(event)
        elif isinstance(event, MuxDatagram) and event.channel == DATAGRAMS:
            self._send_datagram(event.data)
        elif isinstance(event, MuxDatagram):
            self._send_dns_answer(event.data)
        elif isinstance(event, Bye):
            self._ended = True
        elif isinstance(event, (Refused, StreamReset)) and event.stream in self._telling:
            self._pass_end(self._telling.pop(event.stream))
        elif isinstance(event, StreamReset) and event.stream in self._flushes:
            self._flushes.remove(event.stream)
        elif isinstance(event, StreamReset) and (dial := self._dialling.pop(event.stream, None)):
            self._drop(dial)
        elif isinstance(event, (Data, Fin, StreamReset)) and event.stream in self._changes:
            self._take_change(event)
        elif not self._flows.take_event(event):
            self._pump.take_event(event)

    def _handle_open(self, event: Open) -> None:
        word, _, rest = event.purpose.partition(b" ")
        if word == FLUSH:
            self._flushes.append(event.stream)
            self._under_way = None
        elif word == DIALS:
            self._changes[event.stream] = b""
        elif word == BROKEN and self._direct is not None:
            self._tell_fate(event.stream, self._direct.was_joined(int(rest)))
        elif word == PORT:
            self._flows.open(event.stream, int(rest))
        elif word == CONNECT:
            self._dial(Dial(event.stream, int(rest), target_addresses(self._capture.ipv6)))
        else:
            self._mux.refuse(event.stream, errno.EINVAL, f"no such purpose: {event.purpose!r}")

    def _tell_fate(self, stream: int, was_joined: bool) -> None:
        if not was_joined:
            self._mux.refuse(stream, 0)
            return
        self._mux.accept(stream)
        self._mux.fin(stream)

    def _take_change(self, event: Data | Fin | StreamReset) -> None:
        """A message of `dials` may come in pieces; it is applied and answered at its end."""
        if isinstance(event, Data):
            self._changes[event.stream] += event.data
            self._mux.consumed(event.stream, len(event.data))
            return
        message = self._changes.pop(event.stream)
        if isinstance(event, StreamReset):
            return
        if refusal := self._rules.change(message):
            self._mux.refuse(event.stream, errno.EIO, refusal)
            return
        self._mux.accept(event.stream)
        self._mux.fin(event.stream)

    def _answer_flushes(self) -> None:
        """No socket may have anything left to read, so that the answers follow it all."""
        if not self._flushes or not self._has_arrived():
            return
        self._under_way = None
        self._tell_dropped()
        for stream in self._flushes:
            self._mux.accept(stream)
            passed = self._direct.passed if self._direct is not None else 0
            self._mux.write(stream, QUEUED.pack(self._mux.datagrams, passed))
            self._mux.fin(stream)
        self._flushes = []

    def _has_arrived(self) -> bool:
        """Whether what went by the relay has arrived: an answer on the wire would overtake it.

        Bytes that are sent meanwhile are not waited for, since a target may send without end.
        """
        if self._direct is None:
            return True
        if self._under_way is None:
            self._under_way, self._looking_since = self._direct.under_way(), monotonic()
        is_late = monotonic() - self._looking_since >= ARRIVAL_SECONDS
        return is_late or self._direct.have_arrived(self._under_way)

    # Connections of the target.

    def _accept(self, listener: Socket) -> None:
        for _ in range(min(BATCH, self._openable)):
            try:
                descriptor, client = listener._accept()  # type: ignore[attr-defined]  # typeshed has none
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._stop_accepting(max(self._connections, 1))  # until a stream has ended
                if error.errno == errno.EINVAL:  # by SOCK_DESTROY (sock_diag(7))
                    raise CaptureError(f"Something closed {LISTENER}.") from None
                return
            sock = _socket.socket(fileno=descriptor)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            whose = purpose(sock, client)
            if self._direct is None or not self._direct.join(sock, whose):
                self._pump.add(self._mux.open(whose), sock)

    @property
    def _connections(self) -> int:
        return len(self._pump) + self._direct_connections

    @property
    def _direct_connections(self) -> int:
        return len(self._direct) if self._direct is not None else 0

    @property
    def _openable(self) -> int:
        """How many more connections may be accepted now, whichever way they go."""
        return max(self._mux.openable - self._direct_connections, 0)

    def _tell_unheard(self) -> None:
        """Have the test process learn that a client has got no byte before it sees that client's end."""
        if self._direct is None:
            return
        untold = self._direct.junction.untold
        while untold:
            end = untold.popleft()
            if not self._mux.openable:
                self._pass_end(end)
                continue
            kind = b"fin" if isinstance(end, Fin) else b"rst"
            stream = self._mux.open(UNHEARD_BY + b" %d " % (end.stream // 2) + kind)
            self._telling[stream] = end

    def _pass_end(self, end: Fin | StreamReset) -> None:
        if self._direct is not None:
            self._direct.junction.events.append(end)
            self._direct.settle()

    def _accept_or_not(self) -> None:
        """Stop or resume accepting: connections stay in the backlog while no stream or descriptor is free for them."""
        if not self._openable:
            self._pump.end_oldest()
            if self._direct is not None:
                self._direct.end_oldest()
            self._stop_accepting(_ALL_STREAMS)
        elif self._resume_below is not None and self._connections < self._resume_below:
            self._resume_below = None
            self._want_connections(READABLE)

    def _stop_accepting(self, resume_below: int) -> None:
        """Accept no connections until fewer than `resume_below` streams are open and one can be opened."""
        if self._resume_below is None:
            self._resume_below = resume_below
            self._want_connections(0)

    def _want_connections(self, events: int) -> None:
        for listener in self._capture.tcp:
            self._interests.want(listener.fileno(), events)

    # Connections to the target.

    def _dial(self, dial: Dial) -> None:
        """Where no address is left, the stream is refused with the first error."""
        while dial.addresses:
            family, address = dial.addresses.pop(0)
            try:
                dial.sock = _socket.socket(family, _socket.SOCK_STREAM)
            except OSError as error:  # no descriptor is free
                dial.failure = dial.failure or error.errno or errno.EMFILE
                break
            dial.sock.setblocking(False)
            number = dial.sock.connect_ex((address, dial.port))
            if number in _IN_PROGRESS:
                self._dials[dial.sock.fileno()] = self._dialling[dial.stream] = dial
                self._interests.want(dial.sock.fileno(), WRITABLE)
                return
            if self._take_dialled(dial, number):
                return
        self._mux.refuse(dial.stream, dial.failure, "no port of the target's took it")

    def _finish_dial(self, dial: Dial) -> None:
        assert dial.sock is not None
        del self._dialling[dial.stream]
        self._interests.want(dial.sock.fileno(), 0)
        number = dial.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if not self._take_dialled(dial, number):
            self._dial(dial)

    def _take_dialled(self, dial: Dial, number: int) -> bool:
        assert dial.sock is not None
        if number:
            dial.failure = dial.failure or number
            dial.sock.close()
            return False
        dial.sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._mux.accept(dial.stream)
        self._pump.add(dial.stream, dial.sock)
        return True

    def _drop(self, dial: Dial) -> None:
        """The test process has reset the stream."""
        assert dial.sock is not None
        self._interests.want(dial.sock.fileno(), 0)
        del self._dials[dial.sock.fileno()]
        dial.sock.close()

    # Datagrams.

    def _forward_queries(self, index: int, sock: Socket) -> None:
        for _ in range(BATCH):
            try:
                query, client = sock.recvfrom(_DATAGRAM)
            except OSError:
                return
            packed = _socket.inet_pton(sock.family, client[0].partition("%")[0])
            self._mux.datagram(DNS, CLIENT.pack(index, client[1], packed) + query)

    def _send_dns_answer(self, data: bytes) -> None:
        index, port, packed = CLIENT.unpack_from(data)
        sock = self._capture.dns[index]
        length = 4 if sock.family == _socket.AF_INET else 16
        address = _socket.inet_ntop(sock.family, packed[:length])
        try:  # noqa: SIM105 - contextlib takes long to import
            sock.sendto(data[CLIENT.size :], (address, port))
        except OSError:
            pass  # the client has gone; the descriptor link would not report that either

    def _read_datagrams_or_not(self) -> None:
        """Leave datagrams in the kernel, which has more room for them, while many wait for the wire."""
        if (sock := self._capture.datagrams) is not None:
            self._reads_datagrams = self._mux.has_datagram_room
            self._interests.want(sock.fileno(), READABLE if self._reads_datagrams else 0)

    def _forward_datagrams(self, sock: Socket) -> None:
        """The Ethernet header is left out: the longest packet fits into a frame of the link exactly."""
        for _ in range(BATCH):
            if not self._mux.has_datagram_room:
                return
            try:
                frame = sock.recv(_DATAGRAM + _ETHERNET)
            except OSError:
                return
            if frame[12:_ETHERNET] != _ethertype(frame[_ETHERNET:]):  # with a forged mark
                self._mux.lose(DATAGRAMS, 1)
                continue
            self._ethernet = frame[6:12] + frame[:6]
            self._mux.datagram(DATAGRAMS, frame[_ETHERNET:])

    def _send_datagram(self, packet: bytes) -> None:
        if (sock := self._capture.datagrams) is None:
            return
        try:  # noqa: SIM105 - contextlib takes long to import
            sock.send(self._ethernet + _ethertype(packet) + packet)
        except OSError:
            pass  # the target has shut its interface down, which a monitor tells

    def _forward(self, channel: int, prefix: bytes, sock: Socket) -> None:
        for _ in range(BATCH):
            try:
                data = sock.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel dropped some
                if channel == PACKETS:
                    self._tell_dropped()
                else:
                    self._mux.lose(channel, 1)
                return
            self._mux.datagram(channel, prefix + data)

    def _tell_dropped(self) -> None:
        now = dropped(self._capture.packets) + untracked(self._capture.statistics)
        self._mux.lose(PACKETS, now - self._dropped)
        self._dropped = now
        if self._capture.datagrams is not None:
            self._mux.lose(DATAGRAMS, dropped_datagrams(self._capture.datagrams))


def _ethertype(packet: bytes) -> bytes:
    return b"\x08\x00" if packet[:1] < b"\x50" else b"\x86\xdd"


def purpose(sock: Socket, client: tuple[str, int]) -> bytes:
    """The purpose of a client's stream: the address that it dialled, or "-" and 0, and its own, each with the port."""
    try:
        dialled = original_destination(sock)
    except OSError as error:
        return UNKNOWN + b" " + str(error).encode()
    if dialled == sock.getsockname()[:2]:  # the listener itself
        dialled = "-", 0
    return f"{dialled[0]} {dialled[1]} {client[0]} {client[1]}".encode()
