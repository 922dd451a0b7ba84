"""`Connections`: the open connections of a target, their limit, and the parked ones that wait without a thread.

A thread for each connection would be simpler, and was measured: 5,000 idle ones of TLS took 352 MB in place of 146, and
19 to 27 s of CPU in place of 0.3 when their client closed them all. Busy ones cost no less.

Threads: the gateway's reader accepts, resumes, makes room and ends what is overdue. Each connection's own thread parks
it and discards it. The test's thread looks (`unread`, `busy`, iteration) and cuts (`cut_waiting`, `stop`, `join`).
`lock` guards which connections are open, which are parked, `stopping`, and the sockets that end with a connection. It
is the inner lock: never acquire `Ledger.changed` while holding it. No function of a user runs while it is held.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Final

import pytest_egress.base.sockets as sockets
from pytest_egress.base.callers import where_stands
from pytest_egress.base.clock import monotonic
from pytest_egress.base.polling import HAS_EPOLL
from pytest_egress.base.workers import Workers
from pytest_egress.gateway.connection import LINGER_SECONDS, Connection
from pytest_egress.gateway.recorder import Recorder

MAX_CONNECTIONS: Final = 1000  # with a thread, for each target: 100 MB of stacks; more have to wait
IDLE_THREADS: Final = 32  # kept for the next connections: to start one takes as long as a request
DESCRIPTORS_EACH: Final = 4  # that a connection has at most, with an upstream's and the link's own
MAX_OPEN: Final = 10_000  # for each target, parked connections included
DESCRIPTORS_OPEN: Final = 3  # of a parked connection: its own, the link's, one for all else
ROOM_SECONDS: Final = 0.05
"""For a connection to end, before the reader goes on to names and packets."""
IDLE_SECONDS: Final = 17.0
"""Seconds after which a connection that has been answered is closed.

Servers take from 5 s (Apache, Node.js, uvicorn) to 75 s (nginx). Clients give an idle connection up after 4 s (undici,
agentkeepalive), 5 s (Node.js, httpx, HttpURLConnection), 15 s (aiohttp), 30 s (Java's HttpClient), 60 s (.NET), 90 s
(Go, hyper), 118 s (curl), 180 s (Apache's HttpClient), 300 s (OkHttp), or never (urllib3, http.client). 17 s is none of
these, nor a period at which a program is likely to poll, so that few clients send a request just as we close.
"""
UNUSED_SECONDS: Final = 330.0
"""For a pool that connects before it has a request: longer than the clients above wait."""
AT_WORK: Final = "as many as {} were at work at once (MAX_CONNECTIONS, or a quarter of `ulimit -n`)"
OPEN: Final = "as many as {} were open at once (MAX_OPEN, or less by `ulimit -n` and the link)"
NO_DESCRIPTOR: Final = "this process had no descriptor left (`ulimit -n`)"
"""The reason for which a connection is cut where descriptors have run out."""


class Connections:
    """The open connections of one target. Iterating goes over a copy, in the order in which they came.

    Args:
        link_most: How many connections of the target the link has room for.
        poller: The reader's poller, in which parked connections are registered.
        wake: Wakes the reader. Any thread may call it, also while it holds `lock`.

    Attributes:
        lock: Guards all of this; see the module's first lines.
        stopping: Whether the gateway stops: no connection is added or parked any more.
        reads: Whether the reader runs. Without it nothing can be parked.
        parked: The connections that wait without a thread, by descriptor.
        left_waiting: Whether the last accept failed for want of a descriptor. Only the reader uses it.
        needs_room: Whether a connection that was ready in this turn of the reader found no room. Only the reader uses
            it.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        link_most: int,
        poller: Any,
        wake: Callable[[], None],
        idle_seconds: float = IDLE_SECONDS,
        unused_seconds: float = UNUSED_SECONDS,
    ) -> None:
        self._recorder, self._ledger = recorder, recorder.ledger
        self._poller, self._wake = poller, wake
        self.idle_seconds, self.unused_seconds = idle_seconds, unused_seconds
        self.lock: Any = threading.RLock()
        self.room = threading.Condition(self.lock)  # notified when a connection has ended or waits
        self.stopping, self.reads = False, False
        self.parked: dict[int, Connection] = {}
        self.left_waiting, self.needs_room = False, False
        self._open: dict[Connection, None] = {}  # in the order in which they came
        self._makes_room: Connection | None = (
            None  # was cut for another one, and may not have ended yet
        )
        self._overdue_at = inf  # the earliest deadline of a parked connection, by `Ledger.clock`
        descriptors = sockets.descriptor_limit()
        self._cap = min(MAX_CONNECTIONS, descriptors // DESCRIPTORS_EACH)
        name = f"egress {recorder.target.name} idle"
        self._workers = Workers(name, self._cap, seconds=None, most_idle=IDLE_THREADS)
        # The rest of the link's room is for connections that wait: in a full link they would not be seen to.
        by_link = link_most - link_most // 4
        self._most_open = min(MAX_OPEN, descriptors // DESCRIPTORS_OPEN, by_link)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._copy())

    def _copy(self) -> list[Connection]:
        with self.lock:
            return list(self._open)

    def add(self, connection: Connection) -> None:
        """Serve an accepted connection on a thread; close it where the gateway stops."""
        with self.lock:
            taken = not self.stopping
            if taken:
                self._open[connection] = None
        if taken:
            self._serve(connection)
        else:
            connection.close()

    def discard(self, connection: Connection) -> None:
        """The connection's own thread calls this."""
        with self.lock:
            self._open.pop(connection, None)
            self.room.notify_all()

    def _serve(self, connection: Connection) -> None:
        try:
            self._workers.run(connection.run)
        except RuntimeError as error:  # no thread can be started
            address, port = connection.client
            self._recorder.complain(f"a connection of {address}:{port} was not looked at: {error}")
            connection.close()

    # What the test's thread asks.

    def unread(self) -> bool:
        """Whether an idle connection has unread bytes, or an unread end.

        One that has several requests at once is looked at whether it is idle or not: its next request belongs to the
        window too, while others are answered.
        """
        with self.lock:
            several = [c for c in self._open if c.multiplexed is not None]
            idle = [c for c in self._open if c.idle_since is not None and not c.is_relayed]
            poller = select.poll()
            for connection in {*idle, *several}:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    poller.register(connection.sock, select.POLLIN)
            # In this order: what is read between the two has begun, or `is_reading` tells of it.
            return bool(poller.poll(0)) or any(c.is_reading for c in several)

    def busy(self) -> list[Connection]:
        """The connections on which an attempt goes on, except those whose bytes pass unread, or that may outlive it."""
        return [
            c
            for c in self._copy()
            if c.idle_since is None and c.allowed_by is None and c.lasting is None
        ]

    def cut_waiting(self) -> int:
        """Cut the connections whose client has sent something while all threads are at work; return how many."""
        with self.lock:
            parked = self.parked.values() if self.at_work >= self._cap else ()
            waiting = [c for c in parked if c.has_arrived() and not c.is_cut]
            for connection in waiting:
                connection.cut()
        return len(waiting)

    def stop(self) -> None:
        """Cut every connection, accept no other, and keep no thread."""
        with self.lock:
            self.stopping = True
            self.room.notify_all()
            for connection in self._open:
                connection.cut()
            self._workers.stop()

    def join(self, deadline: float) -> list[str]:
        """Wait for all to end, until `deadline` by `time.monotonic`; return where threads of open connections stand."""
        with self.lock:
            while self._open and (left := deadline - monotonic()) > 0:
                self.room.wait(left)
            stuck = [ident for connection in self._open for ident in connection.threads()]
        if not stuck:
            self._workers.join(deadline)
        return [text for ident in stuck if (text := where_stands(ident))]

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets.

        The lock is not acquired: a thread that the child does not have may have held it at the fork.
        """
        for connection in list(self._open):
            for sock in connection.sockets():
                if sock.fileno() >= 0:
                    os.close(sock.detach())

    # Room for more connections. A caller that acts upon an answer holds the lock, so that it stays true.

    @property
    def at_work(self) -> int:
        """How many connections have a thread, or are about to get one."""
        return len(self._open) - len(self.parked)

    @property
    def is_crowded(self) -> bool:
        return self.at_work > self._cap // 2

    @property
    def has_room(self) -> bool:
        return self.at_work < self._cap and len(self._open) < self._most_open

    @property
    def leaves_waiting(self) -> bool:
        with self.lock:
            return not self.has_room or self.left_waiting

    def _shortage(self) -> str:
        """Why no other connection can be accepted or resumed; "" where one can."""
        if self.left_waiting:
            return NO_DESCRIPTOR
        if len(self._open) >= self._most_open:
            return OPEN.format(self._most_open)
        return AT_WORK.format(self._cap) if self.at_work >= self._cap else ""

    def make_room(self) -> None:
        """Cut the connection that is idle for longest; where none is idle, wait for one to end.

        Otherwise silent connections could keep every new one out. Only the reader calls it.
        """
        self.needs_room = False
        if not (why := self._shortage()):
            return  # a connection has ended meanwhile
        longest = self._cut_longest_idle()
        if longest is not None:
            self._recorder.evict(why)
            if longest in self.parked.values():
                self._end(longest)
                return
        with self.lock:
            self.room.wait(ROOM_SECONDS)

    def _cut_longest_idle(self) -> Connection | None:
        """Cut the connection that is idle for longest, if that makes room, and the last one that was cut has ended.

        Where threads are short, a connection that waits for its client is spared, since it gives up its thread by
        itself.
        """
        with self.lock:
            if self._makes_room in self._open:
                return None
            threads = not self.left_waiting and len(self._open) < self._most_open
            idle = [
                c
                for c in self._open
                if c.idle_since is not None and not c.is_cut and not (threads and c.awaits)
            ]
            longest: Connection | None = min(idle, key=lambda c: c.idle_since or 0, default=None)
            if longest is None or (longest.awaits and longest.has_arrived()):
                return None
            longest.cut()
            self._makes_room = longest
            return longest

    # Connections that wait for their client, without a thread.

    def park(self, connection: Connection, seconds: float) -> bool:
        """If this returns True, the calling thread, which is the connection's, must not touch it any more."""
        connection.deadline = self._ledger.clock() + seconds
        with self.lock:
            if self.stopping or not self.reads:
                return False
            descriptor = connection.sock.fileno()
            self.parked[descriptor] = connection
            self._poller.register(descriptor, select.POLLIN)
            if connection.deadline < self._overdue_at or not HAS_EPOLL:
                self._overdue_at = min(self._overdue_at, connection.deadline)
                self._wake()
            self.room.notify_all()
        return True

    def _unpark(self, connection: Connection) -> None:
        with self.lock:
            descriptor = connection.sock.fileno()
            del self.parked[descriptor]
            self._poller.unregister(descriptor)

    def resume(self, descriptor: int) -> None:
        """Start a thread for a parked connection that can be read, or close one that has ended. The reader calls it."""
        connection = self.parked.get(descriptor)
        if connection is None:
            return
        arrived = None if connection.is_cut else connection.has_arrived()
        if arrived is None:
            self._end(connection)
        elif not arrived:
            return
        elif self.at_work >= self._cap and not connection.is_ending:  # whose thread is soon free
            self.needs_room = True  # the connection stays parked, unread
        else:
            connection.arrive()
            self._unpark(connection)
            self._serve(connection)

    def _end(self, connection: Connection) -> None:
        self._unpark(connection)
        connection.say_goodbye()
        connection.close()

    def end_parked(self) -> None:
        """Close every parked connection, and park no other. The reader calls it at its end."""
        with self.lock:
            self.reads = False
        for connection in list(self.parked.values()):
            self._end(connection)

    def seconds_left(self) -> float | None:
        """Seconds until a parked connection is overdue; None where there is none."""
        overdue_at = self._overdue_at
        return None if overdue_at == inf else max(overdue_at - self._ledger.clock(), 0)

    def end_overdue(self) -> None:
        """End parked connections whose deadline has passed, if nothing has arrived on them.

        First our side is closed, so that a request which crosses that can still be read and recorded. A second later
        the connection is closed. Only the reader calls it.
        """
        if self._overdue_at == inf or (now := self._ledger.clock()) < self._overdue_at:
            return
        for connection in [c for c in list(self.parked.values()) if c.deadline <= now]:
            if connection.is_ending:
                self._end(connection)
            elif connection.has_arrived() is False:
                connection.tell_end()
                connection.deadline = now + LINGER_SECONDS
        with self.lock:
            later = (c.deadline for c in self.parked.values() if c.deadline > now)
            self._overdue_at = min(later, default=inf)
