"""Copies between the streams of a `Mux` and TCP sockets; both sides of the stream link use it.

One thread calls everything here, and never waits: sockets are non-blocking, and a socket whose stream has no credit is
not read. FIN is passed on as FIN and RST as RST, each after the bytes that were sent before it.
"""

from __future__ import annotations

import _socket
import select
from struct import Struct, pack

from .mux_frames import Data, Fin, MuxEvent, Refused, StreamReset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeAlias

    Socket: TypeAlias = _socket.socket

    class StreamsOfSockets(Protocol):
        """What a pump needs of a `Mux`, whose docstrings apply."""

        def room(self, stream: int, /) -> int: ...
        def write(self, stream: int, data: bytes, /) -> None: ...
        def consumed(self, stream: int, count: int, /) -> None: ...
        def drained(self) -> list[int]: ...
        def fin(self, stream: int, /, unheard: bool = False) -> None: ...
        def reset(self, stream: int, /) -> None: ...
        def break_off(self, stream: int, /, unheard: bool = False) -> None: ...


READ_BYTES = 65536
"""How many bytes of one socket are read before the next one gets its turn."""

READABLE, WRITABLE, BROKEN = select.POLLIN, select.POLLOUT, select.POLLERR | select.POLLHUP

_ACKNOWLEDGED = Struct("@120xQ")  # tcpi_bytes_acked (linux/tcp.h)
_SEGMENTS = Struct("@16xI4xI")  # tcpi_snd_mss, tcpi_unacked
_NOT_SENT = Struct("@144xI")  # tcpi_notsent_bytes, since Linux 4.6
_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; Python has no name for it
_AT_ONCE = pack("ii", 1, 0)  # struct linger: close sends RST (socket(7))


class Interests:
    """A poller with the events that a thread waits for on each descriptor. `want` calls it only for a change.

    It is epoll, or has its methods. Events have the numbers of poll(2).
    """

    def __init__(self, poller: select.epoll | None = None) -> None:
        self._poller = poller or select.epoll()
        self._wanted: dict[int, int] = {}

    def want(self, descriptor: int, events: int) -> None:
        """With 0 not even errors are reported."""
        before = self._wanted.get(descriptor, 0)
        if events == before:
            return
        if not events:
            del self._wanted[descriptor]
            self._poller.unregister(descriptor)
            return
        self._wanted[descriptor] = events
        (self._poller.modify if before else self._poller.register)(descriptor, events)

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Return descriptors and their events, none when the time is up. None waits without limit.

        A second look follows: after SIGSTOP and SIGCONT the time may be up when Python resumes an interrupted
        epoll_wait(2), and it then reports no events although some are there.
        """
        return self._poller.poll(seconds) or self._poller.poll(0)

    def close(self) -> None:
        self._poller.close()


class Outlet:
    """A socket with its stream, and the state of both directions.

    Attributes:
        waiting: The bytes that the peer has sent and the socket has not taken yet.
        shut: Whether the peer's FIN has been passed on to the socket.
        done: Whether the socket's end of file has been passed on to the peer.
        cut: Whether the peer has sent RST. The socket is reset when its kernel has sent the bytes that wait: RST
            overtakes those that it has not.
        deaf: Whether writing to the socket failed. The stream is reset when everything has been read from the socket.
    """

    __slots__ = ("cut", "deaf", "done", "ended", "shut", "sock", "stream", "waiting")

    def __init__(self, stream: int, sock: Socket) -> None:
        self.stream, self.sock = stream, sock
        self.waiting = bytearray()
        self.ended = self.shut = self.done = self.cut = self.deaf = False


class Pump:
    """The sockets of all streams of a mux; call `ready` with their events of `interests`."""

    def __init__(self, mux: StreamsOfSockets, interests: Interests) -> None:
        self._mux, self._interests = mux, interests
        self._by_stream: dict[int, Outlet] = {}
        self._by_descriptor: dict[int, Outlet] = {}

    def __len__(self) -> int:
        return len(self._by_stream)

    def add(self, stream: int, sock: Socket) -> None:
        """The socket is closed with the stream."""
        sock.setblocking(False)
        outlet = Outlet(stream, sock)
        self._by_stream[stream] = self._by_descriptor[sock.fileno()] = outlet
        self._want(outlet)

    def sock(self, stream: int) -> Socket | None:
        outlet = self._by_stream.get(stream)
        return None if outlet is None else outlet.sock

    def socks(self) -> list[tuple[int, Socket]]:
        """All of them, each after its stream."""
        return [(stream, outlet.sock) for stream, outlet in self._by_stream.items()]

    def take_event(self, event: MuxEvent) -> bool:
        """False where the pump has no stream of this event."""
        if not isinstance(event, (Data, Fin, StreamReset, Refused)):
            return False
        outlet = self._by_stream.get(event.stream)
        if outlet is None:
            return False
        if isinstance(event, (StreamReset, Refused)):
            outlet.cut = True
            self._cut(outlet)
            return True
        if isinstance(event, Fin):
            outlet.ended = True
        else:
            outlet.waiting += event.data
        self._write(outlet)
        return True

    def ready(self, descriptor: int, events: int) -> bool:
        """False where the descriptor is not of the pump."""
        outlet = self._by_descriptor.get(descriptor)
        if outlet is None:
            return False
        if events & WRITABLE and (outlet.waiting or outlet.cut):
            self._write(outlet)
        if events & (READABLE | BROKEN) and outlet.sock.fileno() >= 0:
            self._read(outlet, broken=bool(events & BROKEN))
        return True

    def end_oldest(self) -> None:
        """Reset the oldest socket that keeps its direction open after the peer has ended its own, if there is one.

        The kernel does so with sockets that no process holds (tcp_fin_timeout, tcp(7)).
        """
        for outlet in self._by_stream.values():
            if outlet.shut:
                self._mux.reset(outlet.stream)
                self._break(outlet)
                return

    def refresh(self) -> None:
        """Wait again for sockets whose streams have room again. Call it after the mux's bytes have been taken."""
        for stream in self._mux.drained():
            if (outlet := self._by_stream.get(stream)) is not None:
                self._want(outlet)

    def close(self) -> None:
        for outlet in list(self._by_stream.values()):
            self._mux.reset(outlet.stream)
            self._break(outlet)

    def abandon(self) -> None:
        """A forked child closes its copies of the sockets, without a word to the peer."""
        for outlet in list(self._by_stream.values()):
            outlet.sock.close()

    def _read(self, outlet: Outlet, broken: bool) -> None:
        over = outlet.done or outlet.cut
        room = 0 if over else min(self._mux.room(outlet.stream), READ_BYTES)
        if not room:
            if broken and over and outlet.sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
                self._give_up(outlet)
            elif broken and outlet.cut:  # both ends have said FIN
                self._break(outlet)
            elif broken:  # epoll would report the end again and again; its bytes are read later
                self._interests.want(outlet.sock.fileno(), WRITABLE if outlet.waiting else 0)
            return
        try:
            data = outlet.sock.recv(room)
        except BlockingIOError:
            return
        except OSError:
            self._give_up(outlet)
            return
        if data:
            self._mux.write(outlet.stream, data)
        elif outlet.deaf:
            self._give_up(outlet)
            return
        else:
            outlet.done = True
            self._mux.fin(outlet.stream, unheard=not acknowledged(outlet.sock))
        self._settle(outlet)

    def _write(self, outlet: Outlet) -> None:
        try:
            sent = self._send(outlet)
            if outlet.ended and not outlet.waiting and not outlet.shut and not outlet.deaf:
                outlet.shut = True
                outlet.sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self._give_up(outlet)
            return
        self._mux.consumed(outlet.stream, sent)
        if outlet.cut:
            self._cut(outlet)
        else:
            self._settle(outlet)

    def _cut(self, outlet: Outlet) -> None:
        """Reset a socket when its kernel has sent everything; until then wait for that."""
        if not outlet.waiting:
            if not not_sent(outlet.sock):
                self._break(outlet)
                return
            # From here on WRITABLE says that nothing is left to send (tcp(7)).
            outlet.sock.setsockopt(_socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, 1)
        self._want(outlet)

    def _send(self, outlet: Outlet) -> int:
        """Return how many bytes were written, or dropped where writing failed; OSError if reading would fail too."""
        waiting = outlet.waiting
        try:
            sent = outlet.sock.send(waiting) if waiting and not outlet.deaf else 0
        except BlockingIOError:
            return 0
        except OSError:
            if outlet.done or outlet.cut:
                raise
            outlet.deaf = True
        if outlet.deaf:
            sent = len(waiting)
        del waiting[:sent]
        return sent

    def _settle(self, outlet: Outlet) -> None:
        if outlet.done and outlet.shut:
            self._forget(outlet)
            outlet.sock.close()
        else:
            self._want(outlet)

    def _want(self, outlet: Outlet) -> None:
        # A deaf socket is not waited for with BROKEN: epoll would report its error again and again.
        events = 0 if outlet.deaf else BROKEN | (WRITABLE if outlet.waiting or outlet.cut else 0)
        if not (outlet.done or outlet.cut) and self._mux.room(outlet.stream):
            events |= READABLE
        self._interests.want(outlet.sock.fileno(), events)

    def _give_up(self, outlet: Outlet) -> None:
        self._mux.break_off(outlet.stream, unheard=not acknowledged(outlet.sock))
        self._break(outlet)

    def _break(self, outlet: Outlet) -> None:
        self._forget(outlet)
        reset(outlet.sock)

    def _forget(self, outlet: Outlet) -> None:
        descriptor = outlet.sock.fileno()
        self._interests.want(descriptor, 0)
        del self._by_stream[outlet.stream], self._by_descriptor[descriptor]


def acknowledged(sock: Socket) -> bool:
    """Whether the other end has acknowledged a byte (or FIN, where none was sent); True where unknown."""
    try:
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _ACKNOWLEDGED.size)
    except (OSError, AttributeError):  # macOS has no TCP_INFO, and is not asked
        return True
    return len(info) < _ACKNOWLEDGED.size or _ACKNOWLEDGED.unpack(info) != (0,)


def not_sent(sock: Socket) -> int:
    """How many bytes of a TCP socket its kernel has not sent yet; 0 where unknown."""
    try:
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _NOT_SENT.size)
    except (OSError, AttributeError):
        return 0
    return _NOT_SENT.unpack(info)[0] if len(info) == _NOT_SENT.size else 0


def arrived(sock: Socket) -> tuple[int, int]:
    """How many bytes the other end's kernel has acknowledged, and how many more it may have to of those sent so far.

    The second is 0 where nothing is under way: where all is acknowledged, or the other end has no room.
    """
    try:
        info = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, _NOT_SENT.size)
    except OSError:
        return 0, 0
    if len(info) < _NOT_SENT.size:
        return 0, 0
    size, segments = _SEGMENTS.unpack_from(info)
    left = size * segments + _NOT_SENT.unpack(info)[0] if segments else 0
    return _ACKNOWLEDGED.unpack_from(info)[0], left


def reset(sock: Socket) -> None:
    """Close a TCP socket so that its other end sees RST."""
    try:  # noqa: SIM105 - contextlib takes long to import
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _AT_ONCE)
    except OSError:
        pass  # the connection has ended
    sock.close()
