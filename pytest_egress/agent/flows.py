"""Datagrams to ports of the target's, over streams of a `Mux`: each stream is a flow, with a socket of its own.

In both directions a datagram has its length before it. One of the target's is read only where the stream has room for
any, so that more than that wait in the kernel, which drops what is over its own bound, as on every way of UDP.
"""

from __future__ import annotations

import errno
from struct import Struct

from .mux_frames import Data, Fin, MuxEvent, StreamReset
from .ports import connect_datagrams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mux import Mux
    from .ports import Socket
    from .pump import Interests

LENGTH = Struct("!H")
"""Comes before each datagram: how many bytes it has."""

NOBODY = 0xFFFF
"""In place of a length: nobody listens at the port any more. No datagram is so long."""

BATCH = 64
"""How many datagrams of a flow are read before the next one has its turn."""

_READABLE = 1  # select.POLLIN
_DATAGRAM = 1 << 16
_ROOM = LENGTH.size + NOBODY


class PortFlow:
    """A flow, and the bytes of its stream that are no whole datagram yet."""

    __slots__ = ("begun", "sock", "stream")

    def __init__(self, stream: int, sock: Socket) -> None:
        self.stream, self.sock, self.begun = stream, sock, bytearray()


class Flows:
    """The flows of one mux; call `ready` with the events of their sockets."""

    def __init__(self, mux: Mux, interests: Interests) -> None:
        self._mux, self._interests = mux, interests
        self._by_stream: dict[int, PortFlow] = {}
        self._by_descriptor: dict[int, PortFlow] = {}
        self._held: set[int] = set()  # streams without room for a datagram

    def open(self, stream: int, port: int) -> None:
        """The stream is refused where nobody listens."""
        try:
            sock = connect_datagrams(port)
        except OSError as error:
            self._mux.refuse(stream, error.errno or errno.EMFILE, "no port of the target's took it")
            return
        sock.setblocking(False)
        self._mux.accept(stream)
        flow = PortFlow(stream, sock)
        self._by_stream[stream] = self._by_descriptor[sock.fileno()] = flow
        self._interests.want(sock.fileno(), _READABLE)

    def take_event(self, event: MuxEvent) -> bool:
        """False where no flow has the stream of this event."""
        if not isinstance(event, (Data, Fin, StreamReset)):
            return False
        if (flow := self._by_stream.get(event.stream)) is None:
            return False
        if isinstance(event, Data):
            self._mux.consumed(event.stream, len(event.data))
            flow.begun += event.data
            self._send(flow)
            return True
        self._end(flow)
        if isinstance(event, Fin):
            self._mux.fin(event.stream)
        return True

    def ready(self, descriptor: int) -> bool:
        """False where the descriptor is of no flow."""
        if (flow := self._by_descriptor.get(descriptor)) is None:
            return False
        for _ in range(BATCH):
            if self._mux.room(flow.stream) < _ROOM:
                self._held.add(flow.stream)
                self._interests.want(descriptor, 0)
                break
            try:
                content = flow.sock.recv(_DATAGRAM)
            except BlockingIOError:
                break
            except OSError:  # ECONNREFUSED
                self._mux.write(flow.stream, LENGTH.pack(NOBODY))
                break
            self._mux.write(flow.stream, LENGTH.pack(len(content)) + content)
        return True

    def refresh(self) -> None:
        """Read again from flows whose streams have room again. Call it after the mux's bytes have been taken."""
        for stream in [each for each in self._held if self._mux.room(each) >= _ROOM]:
            self._held.remove(stream)
            self._interests.want(self._by_stream[stream].sock.fileno(), _READABLE)

    def _send(self, flow: PortFlow) -> None:
        begun = flow.begun
        while len(begun) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(begun)
            end = LENGTH.size + length
            if len(begun) < end:
                return
            content = bytes(begun[LENGTH.size : end])
            del begun[:end]
            self._send_one(flow, content)

    def _send_one(self, flow: PortFlow, content: bytes) -> None:
        """The kernel says that nobody listens in place of sending the next datagram."""
        for _ in range(2):
            try:
                flow.sock.send(content)
            except ConnectionRefusedError:
                if self._mux.room(flow.stream) >= LENGTH.size:
                    self._mux.write(flow.stream, LENGTH.pack(NOBODY))
            except OSError:
                return  # no room: the kernel would have dropped it too
            else:
                return

    def _end(self, flow: PortFlow) -> None:
        descriptor = flow.sock.fileno()
        del self._by_stream[flow.stream], self._by_descriptor[descriptor]
        self._held.discard(flow.stream)
        self._interests.want(descriptor, 0)
        flow.sock.close()
