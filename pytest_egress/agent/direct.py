"""Joins connections of the target with TCP connections that the test process has opened, beside the link's frames.

The relay passes those to the agent ahead of time (`relay`). Each joined pair is two streams of a `Junction`, which
stands for a `Mux` whose peer is in this process, so that a `Pump` passes FIN on as FIN and RST as RST, each after the
bytes before it, as it does between a socket and the link.
"""

from __future__ import annotations

import _socket
from struct import Struct
from sys import byteorder

from .mux import WINDOW
from .mux_frames import Data, Fin, MuxEvent, StreamReset
from .pump import READABLE, Interests, Pump, arrived
from .relay import KEY_BYTES, NUMBER_BYTES, SOCKET_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import TypeAlias

    Socket: TypeAlias = _socket.socket
else:
    from _collections import deque

KEY_PATH = "/egress/key"
"""The file with the key under which the relay knows a sidecar; there is none where the link has no relay."""

NUMBER = Struct("!I")
"""The number by which the test process tells of a connection in stock."""

HEAD = Struct("!IH")
"""Begins what is sent on a connection: its number among those joined, and the length of its purpose, which follows."""

UNHEARD_BY = b"unheard"
"""The purpose of a stream by which the agent tells, before a client's FIN or RST is passed on, that the client has got
no byte: the number of the connection and "fin" or "rst" follow. The test process refuses the stream."""

_RIGHTS = _socket.CMSG_SPACE(4)
_BATCH = 64


class Junction:
    """Pairs of streams: what is written to one comes from the other. An even stream is the target's.

    Attributes:
        events: What has come for the streams, in order.
        untold: The ends of streams of the target that the test process has to learn of first; see `UNHEARD_BY`.
    """

    def __init__(self) -> None:
        self._pairs = 0
        self._unread: dict[
            int, int
        ] = {}  # by the stream that wrote: bytes that the other has not taken
        self._drained: list[int] = []
        self.events: deque[MuxEvent] = deque()
        self.untold: deque[Fin | StreamReset] = deque()

    def pair(self) -> tuple[int, int]:
        self._pairs += 1
        return 2 * self._pairs, 2 * self._pairs + 1

    def room(self, stream: int) -> int:
        return WINDOW - self._unread.get(stream, 0)

    def write(self, stream: int, data: bytes) -> None:
        self._unread[stream] = self._unread.get(stream, 0) + len(data)
        self.events.append(Data(stream ^ 1, data))

    def consumed(self, stream: int, count: int) -> None:
        writer = stream ^ 1
        before = self._unread.get(writer, 0)
        if count < before:
            self._unread[writer] = before - count
        else:
            self._unread.pop(writer, None)
        if before - count <= WINDOW // 2 < before:
            self._drained.append(writer)

    def drained(self) -> list[int]:
        found, self._drained = self._drained, []
        return found

    def fin(self, stream: int, unheard: bool = False) -> None:
        self._end(stream, Fin(stream ^ 1, unheard))

    def reset(self, stream: int) -> None:
        self.break_off(stream)

    def break_off(self, stream: int, unheard: bool = False) -> None:
        for each in (stream, stream ^ 1):
            self._unread.pop(each, None)
        self._end(stream, StreamReset(stream ^ 1, unheard))

    def _end(self, stream: int, event: Fin | StreamReset) -> None:
        if event.unheard and not stream & 1:
            self.untold.append(event)
        else:
            self.events.append(event)


class Direct:
    """The connections of one namespace that go by the relay's.

    Args:
        relay: A unix socket by which the relay passes connections.

    Attributes:
        passed: How many connections of the target have gone this way.
    """

    def __init__(self, relay: Socket, interests: Interests) -> None:
        relay.setblocking(False)
        self._relay, self._interests = relay, interests
        self._stock: dict[int, tuple[int, Socket]] = {}  # by descriptor, with the number
        # By number, up to the highest known: those that were not joined, and whether they may be.
        self._unjoined: dict[int, bool] = {}
        self._highest = 0
        self.junction = Junction()
        self._pump = Pump(self.junction, interests)
        self.passed = 0
        interests.want(relay.fileno(), READABLE)

    def __len__(self) -> int:
        """How many connections of the target there are, until both of their sides have ended."""
        return (len(self._pump) + 1) // 2

    def join(self, sock: Socket, purpose: bytes) -> bool:
        """Join a connection of the target with one in stock; False where none is."""
        while self._stock:
            _, (number, other) = self._stock.popitem()
            self._interests.want(other.fileno(), 0)
            ours, theirs = self.junction.pair()
            try:
                other.send(HEAD.pack(ours // 2, len(purpose)) + purpose)
            except OSError:
                other.close()
                continue
            del self._unjoined[number]
            self.passed += 1
            self._pump.add(theirs, other)
            self._pump.add(ours, sock)
            return True
        return False

    def under_way(self) -> dict[int, int]:
        """By stream that has bytes under way to the test process: how many are acknowledged when those have arrived."""
        found = {}
        for stream, sock in self._pump.socks():
            acknowledged, left = arrived(sock)
            if left and stream & 1:
                found[stream] = acknowledged + left
        return found

    def have_arrived(self, awaited: dict[int, int]) -> bool:
        """Whether what `under_way` told of has arrived in the test process, where its gateway can read it."""
        for stream, count in awaited.items():
            if (sock := self._pump.sock(stream)) is not None:
                acknowledged, left = arrived(sock)
                if left and acknowledged < count:
                    return False
        return True

    def was_joined(self, number: int) -> bool:
        """Whether a connection that has broken off for the test process had been joined; else it never will be."""
        self._learn(number)
        if number not in self._unjoined:
            return True
        self._unjoined[number] = False
        for descriptor, (each, _) in list(self._stock.items()):
            if each == number:
                self._discard(descriptor)
        return False

    def ready(self, descriptor: int, events: int) -> bool:
        """False where the descriptor is none of these."""
        if descriptor == self._relay.fileno():
            self._take()
        elif descriptor in self._stock:
            self._drop_ended(descriptor)
        elif not self._pump.ready(descriptor, events):
            return False
        self.settle()
        return True

    def settle(self) -> None:
        """Pass on what has come for the streams, and wait for the sockets whose streams have room again."""
        while self.junction.events:
            self._pump.take_event(self.junction.events.popleft())
        self._pump.refresh()

    def end_oldest(self) -> None:
        self._pump.end_oldest()
        self.settle()

    def close(self) -> None:
        self._pump.close()
        for _, sock in self._stock.values():
            sock.close()
        self._relay.close()

    def _drop_ended(self, descriptor: int) -> None:
        """Nothing is sent on a connection in stock; but the event may be that of one whose number this one has got."""
        try:
            self._stock[descriptor][1].recv(1, _socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._discard(descriptor)

    def _discard(self, descriptor: int) -> None:
        self._interests.want(descriptor, 0)
        self._stock.pop(descriptor)[1].close()

    def _put_in_stock(self, number: int, sock: Socket) -> None:
        self._learn(number)
        if not self._unjoined.get(number):
            sock.close()
            return
        self._stock[sock.fileno()] = number, sock
        self._interests.want(sock.fileno(), READABLE)

    def _learn(self, number: int) -> None:
        """Of the numbers below it, some may come later, and some never: the relay may have closed those connections."""
        for each in range(self._highest + 1, number + 1):
            self._unjoined[each] = True
        self._highest = max(self._highest, number)

    def _take(self) -> None:
        for _ in range(_BATCH):
            try:
                data, rights, _, _ = self._relay.recvmsg(NUMBER_BYTES, _RIGHTS)
            except BlockingIOError:
                return
            except OSError:
                data, rights = b"", []
            for _, _, packed in rights:
                sock = _socket.socket(fileno=int.from_bytes(packed[:4], byteorder))
                self._put_in_stock(NUMBER.unpack(data)[0], sock)
            if not data:
                self._interests.want(self._relay.fileno(), 0)
                return


def find_relay() -> Socket | None:
    """Connect to the relay; None where the sidecar has none, or it cannot be reached."""
    try:
        with open(KEY_PATH, "rb") as file:
            key = file.read(KEY_BYTES)
    except OSError:
        return None
    relay = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        relay.connect(SOCKET_PATH)
        relay.send(key)
    except OSError:
        relay.close()
        return None
    return relay
