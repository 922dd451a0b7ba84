"""`Connections`: those of a target that are open, how many there may be, and those that wait without a thread.

Threads: the gateway's reader accepts, hears, makes room and ends what is overdue. Each connection's own thread parks
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
from pytest_egress.gateway.connection import LINGER_SECONDS, Connection
from pytest_egress.gateway.recorder import Recorder

__tracebackhide__ = True  # a traceback ends at the user's line; --full-trace shows ours

MAX_CONNECTIONS: Final = 1000  # of a target, each with a thread: 100 MB of stacks; more wait
DESCRIPTORS_EACH: Final = 4  # of one at most, with an upstream's and the link's own
MAX_OPEN: Final = 10_000  # of a target, with those that wait for their client, which have no thread
DESCRIPTORS_OPEN: Final = 3  # of one that waits: its own, the link's, one for all else
ROOM_SECONDS: Final = 0.05  # for a connection to end before names and packets get their turn
IDLE_SECONDS: Final = 17.0
"""After which a connection that has been answered is closed.

Servers take from 5 s (Apache, Node.js, uvicorn) to 75 s (nginx). Clients give an idle connection up after 4 s (undici,
agentkeepalive), 5 s (Node.js, httpx, HttpURLConnection), 15 s (aiohttp), 30 s (Java's HttpClient), 60 s (.NET), 90 s
(Go, hyper), 118 s (curl), 180 s (Apache's HttpClient), 300 s (OkHttp), or never (urllib3, http.client). None has its
timer here, nor has a program that asks every so many seconds: few send something just as we close.
"""
UNUSED_SECONDS: Final = (
    330.0  # for a pool that connects ahead of its need: longer than the clients above keep one
)
AT_WORK: Final = "as many as {} were at work at once (MAX_CONNECTIONS, or a quarter of `ulimit -n`)"
OPEN: Final = "as many as {} were open at once (MAX_OPEN, or less by `ulimit -n` and the link)"
NO_DESCRIPTOR: Final = "this process had no descriptor left (`ulimit -n`)"
"""Why a connection was cut: what ran out."""


class Connections:
    """The open connections of one target. Iterating goes over a copy, in the order in which they came.

    Args:
        recorder: Records what is cut for want of room.
        link_most: How many connections of the target the link has room for.
        poller: The reader's; parked connections stand in it.
        wake: Wakes the reader; any thread, `lock` may be held.
        idle_seconds: After how many a connection that has been answered is closed.
        unused_seconds: The same before its first request.

    Attributes:
        lock: Guards all of this; see above.
        stopping: Whether everything is to end; no connection is added or parked any more.
        reads: Whether the reader runs: else nothing can be parked.
        parked: Those that wait without a thread, by descriptor.
        left_waiting: Whether the last try to accept one failed for want of a descriptor; the reader's.
        needs_room: Whether something that was ready in this turn found no room; the reader's.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        link_most: int,
        poller: select.epoll,
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
        self._overdue_at = inf  # the first of them, by `Ledger.clock`
        descriptors = sockets.descriptor_limit()
        self._cap = min(MAX_CONNECTIONS, descriptors // DESCRIPTORS_EACH)
        by_link = link_most - link_most // 4  # room for the next, or none would be seen to wait
        self._most_open = min(MAX_OPEN, descriptors // DESCRIPTORS_OPEN, by_link)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._copy())

    def _copy(self) -> list[Connection]:
        with self.lock:
            return list(self._open)

    def add(self, connection: Connection) -> None:
        """Take up an accepted connection, on a thread of its own; once everything is to end it is closed."""
        with self.lock:
            taken = not self.stopping
            if taken:
                self._open[connection] = None
        if taken:
            self._set_to_work(connection)
        else:
            connection.close()

    def discard(self, connection: Connection) -> None:
        """Note that a connection has ended; its own thread."""
        with self.lock:
            self._open.pop(connection, None)
            self.room.notify_all()

    def _set_to_work(self, connection: Connection) -> None:
        try:
            connection.start()
        except RuntimeError as error:  # no thread can be started
            address, port = connection.client
            self._recorder.complain(f"a connection of {address}:{port} was not looked at: {error}")
            connection.close()

    # What the test's thread asks.

    def unread(self) -> bool:
        """Whether an idle connection has bytes, or its end, waiting for its thread."""
        with self.lock:
            idle = [c.sock for c in self._open if c.idle_since is not None and not c.is_relayed]
            poller = select.poll()
            for sock in idle:
                with contextlib.suppress(ValueError):  # closed meanwhile
                    poller.register(sock, select.POLLIN)
            return bool(poller.poll(0))

    def busy(self) -> list[Connection]:
        """Those on which something has begun and not ended, but for those whose bytes pass unread."""
        return [c for c in self._copy() if c.idle_since is None and c.allowed_by is None]

    def cut_waiting(self) -> int:
        """Cut those that have spoken and whose turn does not come, since as many as may be are at work; how many."""
        with self.lock:
            parked = self.parked.values() if self.at_work >= self._cap else ()
            waiting = [c for c in parked if c.has_arrived() and not c.is_cut]
            for connection in waiting:
                connection.cut()
        return len(waiting)

    def stop(self) -> None:
        """Cut every connection, and take up no other."""
        with self.lock:
            self.stopping = True
            self.room.notify_all()
            for connection in self._open:
                connection.cut()

    def join(self, deadline: float) -> list[str]:
        """Wait until every connection has ended.

        Args:
            deadline: By `time.monotonic`.

        Returns:
            Where each thread stands that has not.
        """
        with self.lock:
            while self._open and (left := deadline - monotonic()) > 0:
                self.room.wait(left)
            stuck = [connection.ident for connection in self._open]
        return [text for ident in stuck if (text := where_stands(ident))]

    def abandon(self) -> None:
        """Close the copies of a forked child, whose lock may be held by a thread that it does not have."""
        for connection in list(self._open):
            for sock in connection.sockets():
                if sock.fileno() >= 0:
                    os.close(sock.detach())

    # Room for more. Whoever must not have an answer that is old in a moment holds the lock.

    @property
    def at_work(self) -> int:
        """How many connections have a thread, or are to get one."""
        return len(self._open) - len(self.parked)

    @property
    def is_crowded(self) -> bool:
        """Whether threads become scarce: an idle connection then gives its own up at once."""
        return self.at_work > self._cap // 2

    @property
    def has_room(self) -> bool:
        """Whether another connection can be accepted."""
        return self.at_work < self._cap and len(self._open) < self._most_open

    @property
    def leaves_waiting(self) -> bool:
        """Whether connections wait that nobody takes up."""
        with self.lock:
            return not self.has_room or self.left_waiting

    def _shortage(self) -> str:
        """What there is too little of to take up another connection; "" for nothing."""
        if self.left_waiting:
            return NO_DESCRIPTOR
        if len(self._open) >= self._most_open:
            return OPEN.format(self._most_open)
        return AT_WORK.format(self._cap) if self.at_work >= self._cap else ""

    def make_room(self) -> None:
        """Cut the longest idle connection, or silent ones starve the next; where there is none, wait for one to end.

        The reader's.
        """
        self.needs_room = False
        if not (why := self._shortage()):
            return  # one has ended meanwhile
        longest = self._cut_longest_idle()
        if longest is not None:
            self._recorder.evict(why)
            if longest in self.parked.values():
                self._end(longest)
                return
        with self.lock:
            self.room.wait(ROOM_SECONDS)

    def _cut_longest_idle(self) -> Connection | None:
        """Cut a connection where that makes room.

        What waits for its client gives its thread up by itself: it is not cut for the sake of a thread.
        """
        with self.lock:
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
            return longest

    # Connections that wait for their client, without a thread.

    def park(self, connection: Connection, seconds: float) -> bool:
        """Keep an idle connection without a thread until it can be read; False where that cannot be.

        Args:
            connection: Its thread leaves it alone from here on.
            seconds: After which it is closed.
        """
        connection.deadline = self._ledger.clock() + seconds
        with self.lock:
            if self.stopping or not self.reads:
                return False
            descriptor = connection.sock.fileno()
            self.parked[descriptor] = connection
            self._poller.register(descriptor, select.EPOLLIN)
            if connection.deadline < self._overdue_at:
                self._overdue_at = connection.deadline
                self._wake()
            self.room.notify_all()
        return True

    def _unpark(self, connection: Connection) -> None:
        with self.lock:
            descriptor = connection.sock.fileno()
            del self.parked[descriptor]
            self._poller.unregister(descriptor)

    def hear(self, descriptor: int) -> None:
        """Go on with what is parked and can be read; the reader's."""
        connection = self.parked.get(descriptor)
        if connection is None:
            return
        arrived = None if connection.is_cut else connection.has_arrived()
        if arrived is None or (connection.is_ending and not connection.read_late()):
            self._end(connection)
        elif not arrived or connection.is_ending:
            return
        elif self.at_work >= self._cap:
            self.needs_room = True  # it waits, unread
        else:
            connection.begin()  # while it is still seen as unread
            self._unpark(connection)
            self._set_to_work(connection)

    def _end(self, connection: Connection) -> None:
        """Close a parked connection."""
        self._unpark(connection)
        connection.say_goodbye()
        connection.close()

    def end_parked(self) -> None:
        """Close every parked connection, and park no other; the reader's, at its end."""
        with self.lock:
            self.reads = False
        for connection in list(self.parked.values()):
            self._end(connection)

    def seconds_left(self) -> float | None:
        """How long none is overdue; None is for ever."""
        overdue_at = self._overdue_at
        return None if overdue_at == inf else max(overdue_at - self._ledger.clock(), 0)

    def end_overdue(self) -> None:
        """Tell clients that their connections end, where nothing has arrived; close those who were told a while ago.

        The reader's.
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
