"""The stream link: multiplexes the traffic of a target's namespace over one attach of its sidecar.

It is for engines that do not share this machine's files. The agent keeps the namespace's sockets; one thread here
copies between the streams of a `Mux` and sockets of this process, which the gateway uses like those of a
`DescriptorLink`. Each connection is a TCP connection over loopback, because on a `socketpair` a reset, MSG_WAITALL and
a handler's socket options would not work as on a connection of the target itself.

Threads: any thread may call the public methods. Those of the section "The link's thread" run on that thread alone,
which owns the mux, the pump and the wire; other threads give it functions to call (`_command`). `_lock` guards these
commands and the flags `_closed` and `_ended`; no other lock is acquired while it is held.

`StreamLink` is one long class, with a method for each event: a dial, a change and a flush each begin with a command,
end with an event, and fail with the link, so that a class for each would need the mux, the pump and the link's end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

import pytest_egress.base.sockets as sockets
from pytest_egress.agent import netlink
from pytest_egress.agent.capture import FRAMES
from pytest_egress.agent.direct import UNHEARD_BY
from pytest_egress.agent.mux import HOST, MAX_STREAMS, WINDOW, Mux
from pytest_egress.agent.mux_frames import (
    DATAGRAMS,
    DNS,
    MAX_PAYLOAD,
    MONITORS,
    PACKETS,
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
)
from pytest_egress.agent.pump import READABLE, WRITABLE, Interests, Pump
from pytest_egress.agent.pump import reset as reset_socket
from pytest_egress.agent.stream import (
    BROKEN,
    CONNECT,
    DATAGRAM_SOCKET,
    DIALS,
    FLUSH,
    PORT,
    QUEUED,
    UNKNOWN,
)
from pytest_egress.base.clock import monotonic
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.polling import poller
from pytest_egress.errors import LinkError
from pytest_egress.link.attach import Attachment
from pytest_egress.link.changes import not_changed, own_port
from pytest_egress.link.direct import DirectWay, Stock
from pytest_egress.link.stream_sockets import (
    MAX_WAITING_DATAGRAMS,
    AcceptedSocket,
    Dialled,
    Fate,
    FlowSocket,
    FrameMailbox,
    Listener,
    Mailbox,
    NameMailbox,
    loopback_pair,
)

PING_SECONDS: Final = 5.0  # between two heartbeats
SILENT_SECONDS: Final = 30.0  # for an answer to a heartbeat; then the sidecar counts as lost
GONE_SECONDS: Final = 600.0  # for a heartbeat to come, after SIGSTOP too; then the agent ends
CHANGE_SECONDS: Final = 30.0  # for the agent to apply a change: then it counts as lost anyway
PORT_SECONDS: Final = 30.0  # for the agent to look a port of datagrams up
GOODBYE_SECONDS: Final = 2.0  # for the agent to acknowledge the end
CLOSED: Final = "the link to the sidecar is closed"
RELAY_ENDED: Final = "the relay of its connections has ended"
ENDED: Final = "it has ended, or the engine's stream to it was closed on the way"
MONITORED: Final = (netlink.NETFILTER, netlink.ROUTE)
"""The netlink families of the agent's monitors, in the order of their sockets."""

OF_LINUX: Final = {
    101: errno.ENETUNREACH,
    104: errno.ECONNRESET,
    110: errno.ETIMEDOUT,
    111: errno.ECONNREFUSED,
    113: errno.EHOSTUNREACH,
}
"""The errors of connect(2) whose numbers, which the agent sends, are Linux's alone."""


def most_streams() -> int:
    """How many connections of a target a link may carry at once; further ones wait in the target's namespace.

    It is a third of the descriptors that this process may have: each connection takes one here, and another for the
    gateway's end.
    """
    return min(MAX_STREAMS, sockets.descriptor_limit() // 3)


class Flush:
    """A flush that is under way. When `done` is set, everything before it can be read."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.done = threading.Event()

    def step(self) -> None:
        self._steps -= 1
        if self._steps <= 0:
            self.done.set()


class StreamLink:
    """Sockets of this process that stand for those of one namespace, without descriptors of that.

    The gateway uses and closes it like a `DescriptorLink`. A forked child closes its copies.

    Args:
        attachment: The sidecar's standard streams, attached before its start; the link closes it.
        way: How connections of the target go beside that; None where they do not.

    Attributes:
        tcp: One listener, on which every TCP connection of the target arrives.
        dns: One socket, on which every DNS query arrives.
        frames: Whether `packets` also has the frames that packet sockets send.
    """

    tcp: tuple[socket.socket, ...]
    dns: tuple[socket.socket, ...]
    datagrams: socket.socket | None
    packets: socket.socket
    monitors: tuple[socket.socket, ...]
    channel: socket.socket

    def __init__(self, attachment: Attachment, way: DirectWay | None = None) -> None:
        self.ipv6 = self.frames = False
        self.own_port = 0
        self.most = most_streams()
        self._wire, self._mux = attachment, Mux(HOST)
        self._unsent = b""
        self._interests = Interests(poller())
        self._pump = Pump(self._mux, self._interests)
        self._open_sockets()
        self._stock = None if way is None else Stock(way, self._interests, self._on_joined)
        # A copy: the relay's own descriptor is closed when its end is first seen, perhaps on another thread.
        self._relay_end = None if way is None else way.ended.dup()
        self._direct: weakref.WeakValueDictionary[int, AcceptedSocket] = (
            weakref.WeakValueDictionary()
        )
        self._joined = 0  # those included that were lost
        self._doubts: set[int] = set()  # streams that ask whether one that broke off was joined
        self._lock = threading.Lock()
        self._commands: deque[Callable[[], None]] = deque()
        self._replies: deque[bytes] = deque()  # packets, until the wire has room
        self._waiting = 0  # bytes of them
        self._hello: Future[Hello] = Future()
        self._dials: dict[int, tuple[Future[None], socket.socket]] = {}
        self._changes: dict[int, Future[None]] = {}
        self._flushes: dict[int, Flush] = {}  # by stream, until the stream's FIN
        # Until so many datagrams, and so many connections by the relay, have come.
        self._awaiting: deque[tuple[int, int, Flush]] = deque()
        self._pinged, self._answered = monotonic(), True
        self._last_read = self._last_turn = self._pinged
        self._finished = self._closed = self._ended = False
        self._deadline: float | None = None
        self._arrived = 0  # datagrams, those included that were lost
        self._lost_there = 0  # packets, in the sidecar's kernel or in the sidecar; and connections
        self.reason = ENDED
        self._thread = threading.Thread(target=self._run, name="egress link", daemon=True)
        close_in_forked_children(self, StreamLink._abandon)

    def _open_sockets(self) -> None:
        self._listener = Listener(self.most)
        self.tcp = (self._listener,)
        self.channel, self._end = sockets.pair()
        self._waker, self._wake = sockets.pair()
        self.packets = self._packets = Mailbox()
        self._names = NameMailbox(lost=self._packets.tell_of_loss)
        self._names.answer = self._answer
        self.dns = (self._names,)
        self.datagrams = self._datagrams = FrameMailbox(
            lost=self._packets.tell_of_loss, most=MAX_WAITING_DATAGRAMS
        )
        self._datagrams.answer = self._reply
        self.monitors = self._monitors = tuple(Mailbox(family) for family in MONITORED)
        self._wake.setblocking(False)
        self._interests.want(self._wake.fileno(), READABLE)

    def start(self, seconds: float) -> None:
        """Wait until the namespace captures. Call it once, after the sidecar has been started.

        Raises:
            LinkError: The agent gave up; the text is its own.
            EOFError: The agent ended without giving a reason.
            TimeoutError: The agent sent nothing in `seconds`.
        """
        self._mux.hello()
        self._thread.start()
        try:
            hello = self._hello.result(seconds)
        except FutureTimeoutError:
            self.close()
            raise TimeoutError from None
        except BaseException:
            self.close()
            raise
        features = hello.text.split()
        self.ipv6, self.frames, self.own_port = hello.ipv6, FRAMES in features, own_port(features)
        if DATAGRAM_SOCKET not in features:
            self.datagrams = None

    def words(self) -> str:
        return self._wire.text()

    def destination(self, sock: socket.socket) -> tuple[str, int] | None:
        """OSError with ENOENT where the sidecar's kernel could not tell."""
        dialled = sock.dialled if isinstance(sock, AcceptedSocket) else None
        if isinstance(dialled, str):
            raise OSError(errno.ENOENT, dialled)
        return dialled

    @property
    def lost_packets(self) -> int:
        """The number is as of the last `flush`."""
        return self._lost_there + self._packets.lost_here + self._datagrams.lost_here

    def connect(self, port: int, timeout: float) -> socket.socket:
        return self._connect(CONNECT + b" %d" % port, timeout)

    def connect_datagrams(self, port: int) -> socket.socket:
        sock = self._connect(PORT + b" %d" % port, PORT_SECONDS)
        return FlowSocket(fileno=sock.detach())

    def _connect(self, purpose: bytes, timeout: float) -> socket.socket:
        ours, theirs = loopback_pair()
        opened: Future[None] = Future()
        try:
            self._command(lambda: self._dial(purpose, theirs, opened))
        except BaseException:
            ours.close()
            theirs.close()
            raise
        try:  # from here on the link's thread closes the other end
            opened.result(timeout)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._command(lambda: self._give_up(opened))
            ours.close()
            if isinstance(error, FutureTimeoutError) and not opened.done():
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
            raise
        return ours

    def change_dials(self, message: bytes) -> None:
        changed: Future[None] = Future()
        try:
            self._command(lambda: self._begin_change(message, changed))
            changed.result(CHANGE_SECONDS)
        except FutureTimeoutError:
            silence = f"the sidecar has not answered for {CHANGE_SECONDS:g} s"
            raise not_changed(message, silence) from None
        except OSError as error:
            raise not_changed(message, error.strerror) from error

    def flush(self, timeout: float) -> None:
        """The end of the sidecar ends the wait too."""
        flush = Flush(2)
        with contextlib.suppress(OSError):
            self._command(lambda: self._begin_flush(flush))
            flush.done.wait(timeout)

    def close(self) -> None:
        """Tell the agent, end the thread and close every descriptor. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._commands.append(self._send_goodbye)
            self._wake_thread()
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._end_all()
        for sock in self._readers():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread in accept
            sock.close()

    def _readers(self) -> tuple[socket.socket, ...]:
        others = (self.packets, *self.monitors, self.channel, self._waker)
        return (*self.tcp, *self.dns, self._datagrams, *others)

    # The link's thread: no other thread calls the methods of this section.

    def _run(self) -> None:
        try:
            while not self._finished:
                self._turn()
        except ProtocolError as error:
            self.reason = str(error)
            if not self._hello.done():
                self._hello.set_exception(LinkError(f"The sidecar runs no agent of ours: {error}"))
        except OSError as error:
            self.reason = f"its link broke off: {error}"
            self._read_last_frames()
        finally:
            self._end_all()

    def _turn(self) -> None:
        self._ask_of_broken()
        more = self._send()
        self._pump.refresh()
        self._interests.want(self._wire.fileno(), READABLE | (WRITABLE if more else 0))
        ready = self._interests.wait(GOODBYE_SECONDS if self._deadline else PING_SECONDS)
        for descriptor, events in ready:
            if descriptor == self._wire.fileno():
                self._read_wire()
            elif descriptor == self._wake.fileno():
                self._run_commands()
            elif self._relay_end is not None and descriptor == self._relay_end.fileno():
                self.reason, self._finished = RELAY_ENDED, True
            elif not self._pump.ready(descriptor, events) and self._stock is not None:
                self._stock.ready(descriptor, events)
                self._end_flushes()
        self._check_heartbeat()

    def _send(self) -> bool:
        """Write what can be written without waiting; return whether more is left."""
        while self._unsent or self._fill():
            if not (sent := self._wire.write(self._unsent)):
                return True
            self._unsent = self._unsent[sent:]
        return False

    def _fill(self) -> bool:
        while self._replies and self._mux.has_datagram_room:  # else the oldest would be dropped
            packet = self._replies.popleft()
            with self._lock:
                self._waiting -= len(packet)
            self._mux.datagram(DATAGRAMS, packet)
        self._unsent = self._mux.take()
        return bool(self._unsent)

    def _check_heartbeat(self) -> None:
        """Send a heartbeat when one is due, and end the link where the last one was not answered in time.

        The time counts from the last bytes that were read too: this process itself may have been stopped meanwhile. And
        it counts anew after a turn that took too long, since the whole machine may have slept, the sidecar included.
        """
        now = monotonic()
        if now - self._last_turn >= 2 * PING_SECONDS:
            self._pinged = now
        self._last_turn = now
        if self._deadline is not None:
            self._finished = self._finished or now >= self._deadline
        elif self._answered:
            if now - self._pinged >= PING_SECONDS:
                self._pinged, self._answered = now, False
                self._mux.ping()
                if self._stock is not None:
                    self._stock.try_again()
        elif now - max(self._pinged, self._last_read) >= SILENT_SECONDS:
            self.reason = f"it has not answered for {SILENT_SECONDS:g} s"
            self._finished = True

    def _read_wire(self) -> None:
        data = self._wire.read()
        self._last_read = monotonic()
        if data is None:
            self._finished = True
            return
        for event in self._mux.receive(data):
            self._handle(event)

    def _read_last_frames(self) -> None:
        """The agent's reason may have arrived before the link broke off, or come soon where one direction alone has."""
        deadline = monotonic() + GOODBYE_SECONDS
        with contextlib.suppress(OSError, ProtocolError):
            while (data := self._wire.read()) is not None:
                for event in self._mux.receive(data):
                    if isinstance(event, Failed):
                        self._on_failed(event)
                        return
                left = max(deadline - monotonic(), 0)
                if not sockets.await_ready(self._wire.sock, select.POLLIN, left):
                    return

    def _handle(self, event: MuxEvent) -> None:
        if isinstance(event, (Fin, StreamReset)):
            self._learn_fate(event)
        if self._pump.take_event(event):
            return
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _learn_fate(self, event: Fin | StreamReset) -> None:
        """The fate of bytes sent to a client is set before the gateway sees that the connection has ended."""
        sock = self._pump.sock(event.stream)
        if isinstance(sock, Dialled):
            unheard: Fate = "doubtful" if isinstance(event, Fin) else "unheard"
            sock.fate = unheard if event.unheard else "heard"

    def _on_joined(self, sock: AcceptedSocket, number: int, purpose: bytes) -> None:
        """The socket is the gateway's from here on."""
        self._joined += 1
        sock.dialled, client = parse_purpose(purpose)
        self._direct[number] = sock
        if not self._listener.take_in(sock, client):
            reset_socket(sock)
            self._lost_there += 1

    def _ask_of_broken(self) -> None:
        """Only the agent knows whether it had joined a connection whose number never came."""
        broken = self._stock.broken if self._stock is not None else []
        while broken and self._mux.openable:
            stream = self._mux.open(BROKEN + b" %d" % broken.pop())
            self._mux.fin(stream)
            self._doubts.add(stream)

    def _on_unheard(self, event: Open) -> None:
        """Refusing it lets the agent pass the end on, which the gateway sees after the fate."""
        _, number, kind = event.purpose.split()
        if (sock := self._direct.get(int(number))) is not None:
            sock.direct_fate = "doubtful" if kind == b"fin" else "unheard"
        self._mux.refuse(event.stream, 0)

    def _on_hello(self, event: Hello) -> None:
        if self._stock is not None and self._relay_end is not None:
            self._interests.want(self._relay_end.fileno(), READABLE)
            self._stock.fill()
        self._hello.set_result(event)

    def _on_failed(self, event: Failed) -> None:
        self.reason, self._finished = event.text, True
        if not self._hello.done():
            self._hello.set_exception(LinkError(event.text))

    def _on_open(self, event: Open) -> None:
        if event.purpose.startswith(UNHEARD_BY):
            self._on_unheard(event)
            return
        dialled, client = parse_purpose(event.purpose)
        try:
            sock = self._listener.dial(dialled, client)
        except OSError as error:
            self._mux.refuse(event.stream, error.errno or 0, str(error))
            self._lost_there += 1
            return
        self._mux.accept(event.stream)
        self._pump.add(event.stream, sock)

    def _on_opened(self, event: Opened) -> None:
        if changed := self._changes.pop(event.stream, None):
            changed.set_result(None)
        if event.stream in self._doubts:
            self._doubts.remove(event.stream)
            self._joined += 1
            self._lost_there += 1
            self._end_flushes()
        if event.stream in self._dials:
            opened, sock = self._dials.pop(event.stream)
            self._pump.add(event.stream, sock)
            opened.set_result(None)

    def _on_refused(self, event: Refused) -> None:
        self._doubts.discard(event.stream)
        if changed := self._changes.pop(event.stream, None):
            changed.set_exception(OSError(event.number, event.text))
        if event.stream in self._dials:
            opened, sock = self._dials.pop(event.stream)
            sock.close()
            number = OF_LINUX.get(event.number, event.number)
            opened.set_exception(OSError(number, os.strerror(number)))

    def _on_reset(self, event: StreamReset) -> None:
        self._on_refused(Refused(event.stream, errno.ECONNRESET, ""))

    def _on_queued(self, event: Data) -> None:
        if flush := self._flushes.get(event.stream):
            datagrams, joined = QUEUED.unpack(event.data)
            self._awaiting.append((datagrams, joined, flush))
            self._count_datagrams(0)

    def _on_fin(self, event: Fin) -> None:
        if flush := self._flushes.pop(event.stream, None):
            flush.step()

    def _on_datagram(self, event: MuxDatagram) -> None:
        data = event.data
        if event.channel == DNS:
            self._names.put(data)
        elif event.channel == DATAGRAMS:
            self._datagrams.put(data)
        elif event.channel == MONITORS:
            self._monitors[data[0]].put(data[1:])
        else:
            self._packets.put(data)
        self._count_datagrams(1)

    def _on_lost(self, event: Lost) -> None:
        if event.channel in (DATAGRAMS, PACKETS):
            self._lost_there += event.count
        if event.channel == MONITORS:
            for mailbox in self._monitors:
                mailbox.tell_of_loss()
        else:
            self._packets.tell_of_loss()  # lost DNS queries are reported there too
        self._count_datagrams(event.count)

    def _count_datagrams(self, count: int) -> None:
        self._arrived += count
        self._end_flushes()

    def _end_flushes(self) -> None:
        while self._awaiting:
            datagrams, joined, flush = self._awaiting[0]
            if datagrams > self._arrived or joined > self._joined:
                return
            self._awaiting.popleft()
            flush.step()

    def _on_pong(self, _: Pong) -> None:
        self._answered = True

    def _on_end(self, _: MuxEvent) -> None:
        self._finished = True

    def _send_name(self, answer: bytes) -> None:
        if self._deadline is None and not self._finished:
            self._mux.datagram(DNS, answer)

    # Commands of other threads.

    def _command(self, action: Callable[[], None]) -> None:
        """Call a function on the link's thread, soon; OSError where the link is closed, or the sidecar has ended."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOTCONN, CLOSED)
            if self._ended:
                raise OSError(errno.ENOTCONN, f"no connection by the sidecar: {self.reason}")
            self._commands.append(action)
            self._wake_thread()

    def _wake_thread(self) -> None:
        if len(self._commands) == 1:
            with contextlib.suppress(OSError):  # the thread has ended
                self._waker.send(b"!")

    def _run_commands(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(64)
        with self._lock:
            commands, self._commands = self._commands, deque()
        for action in commands:
            action()

    def _answer(self, answer: bytes) -> None:
        """Send an answer of DNS, with its client before it. OSError where the link is closed."""
        if len(answer) <= MAX_PAYLOAD:
            self._command(lambda: self._send_name(answer))

    def _reply(self, packet: bytes) -> None:
        """Send a packet when the wire has room for it. OSError where the link is closed, or too many wait."""
        with self._lock:
            if self._waiting + len(packet) > MAX_WAITING_DATAGRAMS:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._waiting += len(packet)
        self._command(lambda: self._replies.append(packet))

    def _dial(self, purpose: bytes, sock: socket.socket, opened: Future[None]) -> None:
        if not self._mux.openable:
            sock.close()
            opened.set_exception(OSError(errno.EMFILE, "too many connections by one link"))
            return
        stream = self._mux.open(purpose)
        self._dials[stream] = opened, sock

    def _give_up(self, opened: Future[None]) -> None:
        for stream, (each, sock) in list(self._dials.items()):
            if each is opened:
                del self._dials[stream]
                self._mux.reset(stream)
                sock.close()

    def _begin_change(self, message: bytes, changed: Future[None]) -> None:
        if not self._mux.openable or len(message) > WINDOW:
            changed.set_exception(OSError(errno.EMFILE, "the link has no room for it"))
            return
        stream = self._mux.open(DIALS)
        self._changes[stream] = changed
        self._mux.write(stream, message)
        self._mux.fin(stream)

    def _begin_flush(self, flush: Flush) -> None:
        if not self._mux.openable:
            flush.done.set()
            return
        stream = self._mux.open(FLUSH)
        self._mux.fin(stream)
        self._flushes[stream] = flush

    def _send_goodbye(self) -> None:
        """Drop every stream, and end the thread when the agent has acknowledged that."""
        self._deadline = monotonic() + GOODBYE_SECONDS
        self._pump.close()
        for stream in (*self._dials, *self._flushes, *self._changes, *self._doubts):
            self._mux.reset(stream)
        self._mux.close()
        if not self._hello.done():
            self._finished = True

    def _end_all(self) -> None:
        """Close the descriptors of this thread, and fail everything that waits for it."""
        with self._lock:
            self._ended = True
            commands, self._commands = self._commands, deque()
        for action in commands:
            if action != self._send_goodbye:
                action()  # its caller waits for an answer, which comes below
        if not self._hello.done():
            self._hello.set_exception(EOFError(self.reason))
        for opened, sock in self._dials.values():
            sock.close()
            opened.set_exception(
                OSError(errno.ENOTCONN, f"no connection by the sidecar: {self.reason}")
            )
        for changed in self._changes.values():
            changed.set_exception(OSError(errno.ENOTCONN, self.reason))
        for flush in (*self._flushes.values(), *(flush for *_, flush in self._awaiting)):
            flush.done.set()
        self._pump.close()
        if self._stock is not None:
            self._stock.close()
        for direct in self._direct.values():
            with contextlib.suppress(OSError):  # the gateway has closed it
                direct.shutdown(socket.SHUT_RDWR)
        if self._relay_end is not None:
            self._relay_end.close()
        self._wire.close()
        self._end.close()
        self._wake.close()
        self._interests.close()

    def _abandon(self) -> None:
        """A forked child closes its copies: the link's thread does not run in it."""
        self._closed = self._ended = True
        self._wire.sock.close()
        self._pump.abandon()
        if self._stock is not None:
            self._stock.close()
        if self._relay_end is not None:
            self._relay_end.close()
        for _, sock in list(self._dials.values()):
            sock.close()
        for sock in (*self._readers(), self._end, self._wake):
            sock.close()
        self._interests.close()


_HANDLERS: Final[dict[type[MuxEvent], Callable[[StreamLink, Any], None]]] = {
    Hello: StreamLink._on_hello,
    Failed: StreamLink._on_failed,
    Open: StreamLink._on_open,
    Opened: StreamLink._on_opened,
    Refused: StreamLink._on_refused,
    StreamReset: StreamLink._on_reset,
    Data: StreamLink._on_queued,
    Fin: StreamLink._on_fin,
    MuxDatagram: StreamLink._on_datagram,
    Lost: StreamLink._on_lost,
    Pong: StreamLink._on_pong,
    Bye: StreamLink._on_end,
    ByeAcknowledged: StreamLink._on_end,
}


def parse_purpose(purpose: bytes) -> tuple[tuple[str, int] | str | None, tuple[str, int]]:
    """The address that a client dialled, as `AcceptedSocket.dialled`, and its own; ProtocolError for another form."""
    text = purpose.decode("utf-8", "replace")
    if text.startswith(UNKNOWN.decode()):
        return text[len(UNKNOWN) + 1 :], ("", 0)
    try:
        dialled, port, client, client_port = text.split(" ")
        return (dialled, int(port)) if dialled != "-" else None, (client, int(client_port))
    except ValueError:
        raise ProtocolError(f"The peer opened a stream for {text!r}.") from None
