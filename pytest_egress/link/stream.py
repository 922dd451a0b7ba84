"""The stream link: carries all that a target's namespace does over one attach of its sidecar.

For engines that do not share this machine's files. The agent keeps the namespace's sockets; one thread here copies
between the streams of a `Mux` and sockets of this process, which are those of `DescriptorLink` to whoever reads them.
Each connection is a TCP connection over loopback and no `socketpair`: a reset, MSG_WAITALL and a handler's options then
mean what they mean on a connection of the target itself.

Threads: the link's own does all that touches the `Mux` and its descriptors. Any other calls `connect`, `flush` and
`close`; it leaves what it wants in a queue and wakes the link's. The lock guards that queue and whether it is still
read; no other is taken while it is held.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

import pytest_egress.base.sockets as sockets
from pytest_egress.agent import netlink
from pytest_egress.agent.capture import FRAMES
from pytest_egress.agent.mux import HOST, MAX_STREAMS, Mux
from pytest_egress.agent.mux_frames import (
    DNS,
    MAX_PAYLOAD,
    MONITORS,
    PACKETS,
    Bye,
    ByeAcknowledged,
    Datagram,
    Event,
    Failed,
    Fin,
    Hello,
    Lost,
    Open,
    Opened,
    Pong,
    ProtocolError,
    Refused,
    Reset,
)
from pytest_egress.agent.pump import READABLE, WRITABLE, Interests, Pump
from pytest_egress.agent.stream import CLIENT, CONNECT, DROPPED, FLUSH, FLUSH_MARK, UNKNOWN
from pytest_egress.base.clock import monotonic
from pytest_egress.base.forks import close_in_forked_children
from pytest_egress.base.sockets import Socket
from pytest_egress.errors import LinkError
from pytest_egress.link.attach import Attachment
from pytest_egress.link.stream_sockets import (
    Accepted,
    Dialled,
    Fate,
    Listener,
    Mailbox,
    NameSocket,
    loopback_pair,
)

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

PING_SECONDS: Final = 5.0  # between two heartbeats
SILENT_SECONDS: Final = 30.0  # after which a sidecar that answers none is lost
GONE_SECONDS: Final = 600.0  # after which a sidecar that gets none ends: who is stopped may go on
GOODBYE_SECONDS: Final = 2.0  # for the sidecar to say that all has arrived
CLOSED: Final = "the link to the sidecar is closed"
MONITORED: Final = (netlink.NETFILTER, netlink.ROUTE)
"""The families of the agent's monitors, in their order."""

_DATAGRAM: Final = 1 << 16


def most_streams() -> int:
    """How many connections of a target a link may pass on at once: more wait in the target's namespace.

    A third of the descriptors that this process may have: one each, and more only for those that the gateway takes up.
    """
    return min(MAX_STREAMS, sockets.descriptor_limit() // 3)


class Flush:
    """Done when so many things have happened."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.done = threading.Event()

    def step(self) -> None:
        """One of them has."""
        self._steps -= 1
        if self._steps <= 0:
            self.done.set()


class StreamLink:
    """The sockets of one namespace, as far as they can be had without its descriptors.

    The same as a `DescriptorLink` to whoever reads them, and closed like it. A forked child keeps none of them.

    Args:
        attachment: The sidecar's standard streams, attached before its start; the link closes it.

    Attributes:
        tcp: One listener, on which every TCP connection of the target arrives.
        dns: One socket for every DNS query.
        packets: As of `DescriptorLink`.
        monitors: Likewise; `proto` tells of which netlink family they are.
        channel: At its end of file the sidecar has ended.
        reason: What that end of file means.
        ipv6: Whether the namespace has IPv6.
        frames: Whether `packets` tells of frames that a packet socket sends, too.
        most: How many connections of the target may be open at once.
    """

    tcp: tuple[socket.socket, ...]
    dns: tuple[socket.socket, ...]
    packets: socket.socket
    monitors: tuple[socket.socket, ...]
    channel: socket.socket

    def __init__(self, attachment: Attachment) -> None:
        self.ipv6 = self.frames = False
        self.most = most_streams()
        self._wire, self._mux = attachment, Mux(HOST)
        self._unsent = b""
        self._interests = Interests()
        self._pump = Pump(self._mux, self._interests)
        self._open_sockets()
        self._lock = threading.Lock()
        self._commands: deque[Callable[[], None]] = deque()
        self._hello: Future[Hello] = Future()
        self._dials: dict[int, tuple[Future[None], socket.socket]] = {}
        self._flushes: dict[int, Flush] = {}  # by stream, until its FIN
        self._marks: dict[int, Flush] = {}  # likewise, until its datagram
        self._pinged, self._answered = monotonic(), True
        self._heard = self._pinged
        self._over = self._closed = self._ended = False
        self._deadline: float | None = None
        self._dropped = self._overtaken = 0  # packets, by the sidecar's kernel and by the sidecar
        self.reason = "it has ended"
        self._thread = threading.Thread(target=self._run, name="egress link", daemon=True)
        close_in_forked_children(self, StreamLink._abandon)

    def _open_sockets(self) -> None:
        self._listener = Listener()
        self.tcp = (self._listener,)
        self.channel, self._end = sockets.pair()
        self._waker, self._wake = sockets.pair()
        self._packets = self._mailbox(Socket)
        self._names = self._mailbox(NameSocket, lost=self._packets.tell_of_loss)
        self._monitors = [self._mailbox(Socket, family) for family in MONITORED]
        self.dns, self.packets = (self._names.reader,), self._packets.reader
        self.monitors = tuple(mailbox.reader for mailbox in self._monitors)
        self._mailboxes = [self._names, self._packets, *self._monitors]
        self._by_descriptor = {mailbox.writer.fileno(): mailbox for mailbox in self._mailboxes}
        self._wake.setblocking(False)
        self._interests.want(self._wake.fileno(), READABLE)

    def _mailbox(
        self,
        kind: type[socket.socket],
        protocol: int = 0,
        lost: Callable[[], None] | None = None,
    ) -> Mailbox:
        reader, writer = sockets.pair(socket.SOCK_DGRAM)
        typed = kind(socket.AF_UNIX, socket.SOCK_DGRAM, protocol, fileno=reader.detach())
        return Mailbox(typed, writer, self._interests, lost)

    def start(self, seconds: float) -> None:
        """Wait until the namespace captures; to be called once, when the sidecar has been started.

        Args:
            seconds: How long that may take.

        Raises:
            LinkError: The agent gave up, with its own words.
            EOFError: It ended without a word.
            TimeoutError: It was silent.
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
        self.ipv6, self.frames = hello.ipv6, FRAMES in hello.text.split()

    def words(self) -> str:
        """What the sidecar has written to its standard error."""
        return self._wire.text()

    def destination(self, sock: socket.socket) -> tuple[str, int] | None:
        """What the client of an accepted connection dialled; None for the listener itself: no egress.

        Raises:
            OSError: ENOENT where the sidecar's kernel could not tell.
        """
        dialled = sock.dialled if isinstance(sock, Accepted) else None
        if isinstance(dialled, str):
            raise OSError(errno.ENOENT, dialled)
        return dialled

    @property
    def lost_packets(self) -> int:
        """How many packets have not come to be read from `packets`, as of the last `flush`."""
        return self._dropped + self._overtaken + self._packets.lost_here

    def connect(self, port: int, timeout: float) -> socket.socket:
        """Connect to a port of the target, whichever of its own addresses it listens on.

        Safe to call from any thread.

        Args:
            port: The port inside the namespace.
            timeout: Seconds for the whole attempt. The socket that is returned has none.

        Raises:
            OSError: As from any connection: refused, timed out; or the sidecar has ended.
        """
        ours, theirs = loopback_pair()
        opened: Future[None] = Future()
        try:
            self._command(lambda: self._dial(port, theirs, opened))
        except BaseException:
            ours.close()
            theirs.close()
            raise
        try:  # from here on the other end is the link's thread's to close
            opened.result(timeout)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._command(lambda: self._give_up(opened))
            ours.close()
            if isinstance(error, FutureTimeoutError) and not opened.done():
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
            raise
        return ours

    def flush(self, timeout: float) -> None:
        """Return when what the target has done so far can be read from the sockets, or the sidecar has ended.

        Args:
            timeout: Seconds.
        """
        flush = Flush(1 + len(self._mailboxes))
        with contextlib.suppress(OSError):
            self._command(lambda: self._begin_flush(flush))
            flush.done.wait(timeout)

    def close(self) -> None:
        """Say goodbye, end the thread, close every descriptor; again is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._commands.append(self._say_goodbye)
            self._ring()
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._end_all()
        for sock in self._readers():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread in accept
            sock.close()

    def _readers(self) -> tuple[socket.socket, ...]:
        return (*self.tcp, *self.dns, self.packets, *self.monitors, self.channel, self._waker)

    # The thread: nothing from here on is called by another one.

    def _run(self) -> None:
        try:
            while not self._over:
                self._turn()
        except ProtocolError as error:
            self.reason = str(error)
            if not self._hello.done():
                self._hello.set_exception(LinkError(f"The sidecar runs no agent of ours: {error}"))
        except OSError as error:
            self.reason = f"its link broke off: {error}"
            self._hear_last()
        finally:
            self._end_all()

    def _turn(self) -> None:
        more = self._send()
        self._pump.refresh()
        self._interests.want(self._wire.fileno(), READABLE | (WRITABLE if more else 0))
        ready = self._interests.wait(GOODBYE_SECONDS if self._deadline else PING_SECONDS)
        for descriptor, events in ready:
            if descriptor == self._wire.fileno():
                self._hear()
            elif descriptor == self._wake.fileno():
                self._obey()
            elif (mailbox := self._by_descriptor.get(descriptor)) is not None:
                self._ready(mailbox, events)
            else:
                self._pump.ready(descriptor, events)
        self._beat()

    def _send(self) -> bool:
        """Write what can be written at once; whether more is left."""
        while self._unsent or self._fill():
            if not (sent := self._wire.write(self._unsent)):
                return True
            self._unsent = self._unsent[sent:]
        return False

    def _fill(self) -> bool:
        self._unsent = self._mux.take()
        return bool(self._unsent)

    def _beat(self) -> None:
        """Ask whether the sidecar lives; its silence counts only where this process was awake to hear it."""
        now = monotonic()
        if self._deadline is not None:
            self._over = self._over or now >= self._deadline
        elif self._answered:
            if now - self._pinged >= PING_SECONDS:
                self._pinged, self._answered = now, False
                self._mux.ping()
        elif now - max(self._pinged, self._heard) >= SILENT_SECONDS:
            self.reason = f"it has not answered for {SILENT_SECONDS:g} s"
            self._over = True

    def _hear(self) -> None:
        data = self._wire.read()
        self._heard = monotonic()
        if data is None:
            self._over = True
            return
        for event in self._mux.receive(data):
            self._happened(event)

    def _hear_last(self) -> None:
        """Hear why the sidecar ended, where that came before its link broke off."""
        with contextlib.suppress(OSError, ProtocolError):
            while data := self._wire.read():
                for event in self._mux.receive(data):
                    if isinstance(event, Failed):
                        self._on_failed(event)

    def _happened(self, event: Event) -> None:
        if isinstance(event, (Fin, Reset)):
            self._learn_fate(event)
        if self._pump.take(event):
            return
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _learn_fate(self, event: Fin | Reset) -> None:
        """Note what became of what the client was sent, before the gateway sees its end."""
        sock = self._pump.sock(event.stream)
        if isinstance(sock, Dialled):
            unheard: Fate = "doubtful" if isinstance(event, Fin) else "unheard"
            sock.fate = unheard if event.unheard else "heard"

    def _on_hello(self, event: Hello) -> None:
        self._hello.set_result(event)

    def _on_failed(self, event: Failed) -> None:
        self.reason, self._over = event.text, True
        if not self._hello.done():
            self._hello.set_exception(LinkError(event.text))

    def _on_open(self, event: Open) -> None:
        dialled, client = parse_purpose(event.purpose)
        try:
            sock = self._listener.dial(dialled, client)
        except OSError as error:
            self._mux.refuse(event.stream, error.errno or 0, str(error))
            self._packets.tell_of_loss()
            return
        self._mux.accept(event.stream)
        self._pump.add(event.stream, sock)

    def _on_opened(self, event: Opened) -> None:
        if event.stream in self._dials:
            opened, sock = self._dials.pop(event.stream)
            self._pump.add(event.stream, sock)
            opened.set_result(None)

    def _on_refused(self, event: Refused) -> None:
        if event.stream in self._dials:
            opened, sock = self._dials.pop(event.stream)
            sock.close()
            opened.set_exception(OSError(event.number, os.strerror(event.number)))

    def _on_reset(self, event: Reset) -> None:
        self._on_refused(Refused(event.stream, errno.ECONNRESET, ""))

    def _on_fin(self, event: Fin) -> None:
        if flush := self._flushes.pop(event.stream, None):
            flush.step()

    def _on_datagram(self, event: Datagram) -> None:
        data = event.data
        if event.channel == DNS:
            self._names.put(data)
        elif event.channel == MONITORS:
            self._monitors[data[0]].put(data[1:])
        elif len(data) == FLUSH_MARK.size:
            self._pass_flush(self._marks.pop(FLUSH_MARK.unpack(data)[0], None))
        elif len(data) == DROPPED.size:
            (self._dropped,) = DROPPED.unpack(data)
        else:
            self._packets.put(data)

    def _on_lost(self, event: Lost) -> None:
        if event.channel == PACKETS:
            self._overtaken += event.count
        if event.channel == MONITORS:
            for mailbox in self._monitors:
                mailbox.put(b"")
        else:
            self._packets.tell_of_loss()  # of queries too

    def _on_pong(self, _: Pong) -> None:
        self._answered = True

    def _on_end(self, _: Event) -> None:
        self._over = True

    def _ready(self, mailbox: Mailbox, events: int) -> None:
        if events & WRITABLE:
            mailbox.drain()
        if events & READABLE:
            with contextlib.suppress(BlockingIOError):
                while answer := mailbox.writer.recv(_DATAGRAM + CLIENT.size):
                    if self._deadline is None and not self._over and len(answer) <= MAX_PAYLOAD:
                        self._mux.datagram(DNS, answer)

    # What other threads want.

    def _command(self, action: Callable[[], None]) -> None:
        """Have something done on the link's thread.

        Raises:
            OSError: The link is closed, or the sidecar has ended.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.ENOTCONN, CLOSED)
            if self._ended:
                raise OSError(errno.ENOTCONN, f"no connection by the sidecar: {self.reason}")
            self._commands.append(action)
            self._ring()

    def _ring(self) -> None:
        if len(self._commands) == 1:
            with contextlib.suppress(OSError):  # the thread has ended
                self._waker.send(b"!")

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(64)
        with self._lock:
            commands, self._commands = self._commands, deque()
        for action in commands:
            action()

    def _dial(self, port: int, sock: socket.socket, opened: Future[None]) -> None:
        if not self._mux.openable:
            sock.close()
            opened.set_exception(OSError(errno.EMFILE, "too many connections by one link"))
            return
        stream = self._mux.open(CONNECT + b" %d" % port)
        self._dials[stream] = opened, sock

    def _give_up(self, opened: Future[None]) -> None:
        for stream, (each, sock) in list(self._dials.items()):
            if each is opened:
                del self._dials[stream]
                self._mux.reset(stream)
                sock.close()

    def _begin_flush(self, flush: Flush) -> None:
        if not self._mux.openable:
            flush.done.set()
            return
        stream = self._mux.open(FLUSH)
        self._mux.fin(stream)
        self._flushes[stream] = self._marks[stream] = flush

    def _pass_flush(self, flush: Flush | None) -> None:
        for mailbox in self._mailboxes if flush else ():
            mailbox.put(flush.step)  # type: ignore[union-attr]  # it is one

    def _say_goodbye(self) -> None:
        """Drop what goes on, and end when the sidecar has heard of it."""
        self._deadline = monotonic() + GOODBYE_SECONDS
        self._pump.close()
        for stream in (*self._dials, *self._flushes):
            self._mux.reset(stream)
        self._mux.close()
        if not self._hello.done():
            self._over = True

    def _end_all(self) -> None:
        """Close what is this thread's, and tell everybody."""
        with self._lock:
            self._ended = True
            commands, self._commands = self._commands, deque()
        for action in commands:
            if action != self._say_goodbye:
                action()  # it waits for an answer, which follows
        if not self._hello.done():
            self._hello.set_exception(EOFError(self.reason))
        for opened, sock in self._dials.values():
            sock.close()
            opened.set_exception(
                OSError(errno.ENOTCONN, f"no connection by the sidecar: {self.reason}")
            )
        for flush in (*self._flushes.values(), *self._marks.values()):
            flush.done.set()
        self._pump.close()
        self._close_ours()

    def _close_ours(self) -> None:
        self._wire.close()
        for mailbox in self._mailboxes:
            mailbox.close()
        self._end.close()
        self._wake.close()
        self._interests.close()

    def _abandon(self) -> None:
        """Close the copies of a forked child, which has no thread of ours."""
        self._closed = self._ended = True
        self._wire.sock.close()
        self._pump.abandon()
        for mailbox in self._mailboxes:
            mailbox.close()
        for _, sock in list(self._dials.values()):
            sock.close()
        for sock in (*self._readers(), self._end, self._wake):
            sock.close()
        self._interests.close()


_HANDLERS: Final[dict[type[Event], Callable[[StreamLink, Any], None]]] = {
    Hello: StreamLink._on_hello,
    Failed: StreamLink._on_failed,
    Open: StreamLink._on_open,
    Opened: StreamLink._on_opened,
    Refused: StreamLink._on_refused,
    Reset: StreamLink._on_reset,
    Fin: StreamLink._on_fin,
    Datagram: StreamLink._on_datagram,
    Lost: StreamLink._on_lost,
    Pong: StreamLink._on_pong,
    Bye: StreamLink._on_end,
    ByeAcknowledged: StreamLink._on_end,
}


def parse_purpose(purpose: bytes) -> tuple[tuple[str, int] | str | None, tuple[str, int]]:
    """What a client of the target dialled, as `Accepted` has it, and its own address.

    Raises:
        ProtocolError: It is no such purpose.
    """
    text = purpose.decode("utf-8", "replace")
    if text.startswith(UNKNOWN.decode()):
        return text[len(UNKNOWN) + 1 :], ("", 0)
    try:
        dialled, port, client, client_port = text.split(" ")
        return (dialled, int(port)) if dialled != "-" else None, (client, int(client_port))
    except ValueError:
        raise ProtocolError(f"The peer opened a stream for {text!r}.") from None
