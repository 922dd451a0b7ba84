"""Locks that know their order: what takes two of them the wrong way round is told, and who holds one can be asked."""

from __future__ import annotations

import threading
import traceback
from typing import Any

from pytest_egress.gateway.server import Gateway
from pytest_egress.ledger.ledger import Ledger

OUTER, INNER = 0, 1  # an inner one is the last that a thread takes


class Locks:
    """The locks of a gateway and its ledger.

    Attributes:
        broken: Where a lock was taken in the wrong order, one text each.
    """

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._own = threading.local()

    def watch(self, gateway: Gateway, ledger: Ledger) -> None:
        """Take the place of their locks; no thread of theirs runs yet."""
        ledger.changed = self._make("Ledger.changed", OUTER)
        ledger._told = threading.Condition(ledger.changed)
        connections = gateway.connections
        connections.lock = self._make("Connections.lock", INNER)
        connections.room = threading.Condition(connections.lock)
        gateway.names._lock = self._make("Names._lock", INNER)
        gateway.dials._lock = self._make("ConnectFaults._lock", INNER)
        gateway.datagram_rules._lock = self._make("DatagramRules._lock", INNER)
        gateway.upstreams._lock = self._make("Upstreams._lock", INNER)

    def _make(self, name: str, rank: int) -> Any:
        return CheckedLock(self, name, rank)

    @property
    def stack(self) -> list[CheckedLock]:
        """Those that this thread holds, in the order in which it took them."""
        if not hasattr(self._own, "stack"):
            self._own.stack = []
        stack: list[CheckedLock] = self._own.stack
        return stack

    def held(self) -> list[str]:
        """The names of those that this thread holds."""
        return [lock.name for lock in self.stack]


class CheckedLock:
    """A reentrant lock, for a `threading.Condition` too."""

    def __init__(self, locks: Locks, name: str, rank: int) -> None:
        self.name, self._locks, self._rank = name, locks, rank
        self._lock: Any = threading.RLock()

    def _note(self) -> None:
        stack = self._locks.stack
        wrong = [lock for lock in stack if lock is not self and lock._rank >= self._rank]
        if wrong and self not in stack:
            where = "".join(traceback.format_stack(limit=6)[:-2])
            self._locks.broken.append(f"{self.name} after {wrong[-1].name}:\n{where}")
        stack.append(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self._lock.acquire(blocking, timeout)
        if taken:
            self._note()
        return taken

    def release(self) -> None:
        stack = self._locks.stack
        del stack[len(stack) - 1 - stack[::-1].index(self)]
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        owned: bool = self._lock._is_owned()
        return owned

    def _release_save(self) -> tuple[Any, int]:
        stack = self._locks.stack
        times = stack.count(self)
        stack[:] = [lock for lock in stack if lock is not self]
        return self._lock._release_save(), times

    def _acquire_restore(self, saved: tuple[Any, int]) -> None:
        state, times = saved
        self._lock._acquire_restore(state)
        for _ in range(times):
            self._note()
